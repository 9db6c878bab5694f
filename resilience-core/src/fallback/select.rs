//! Which errors a fallback answers, and what they mean. Looks at errors only.

use std::fmt;

use crate::class::{Class, Classify};

/// Says whether an error is to be answered: `None` that it is not, a [`Class`] that it is, and what it means.
pub trait Select<E> {
    /// What is to be done about `error`.
    fn select(&self, error: &E) -> Option<Class>;
}

/// Every error is answered: the default of a [`Fallback`](super::Fallback).
#[derive(Debug, Clone, Copy, Default)]
pub struct EveryError;

impl<E: Classify> Select<E> for EveryError {
    fn select(&self, error: &E) -> Option<Class> {
        Some(error.class())
    }
}

/// A closure says which errors are answered: made by [`Fallback::only`](super::Fallback::only).
#[derive(Clone, Copy)]
pub struct Only<F>(pub(super) F);

impl<E: Classify, F: Fn(&E) -> bool> Select<E> for Only<F> {
    fn select(&self, error: &E) -> Option<Class> {
        (self.0)(error).then(|| error.class())
    }
}

impl<F> fmt::Debug for Only<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Only")
    }
}

/// A closure says which errors are answered and what they mean: made by
/// [`Fallback::judged_by`](super::Fallback::judged_by).
#[derive(Clone, Copy)]
pub struct JudgedBy<F>(pub(super) F);

impl<E, F: Fn(&E) -> Option<Class>> Select<E> for JudgedBy<F> {
    fn select(&self, error: &E) -> Option<Class> {
        (self.0)(error)
    }
}

impl<F> fmt::Debug for JudgedBy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JudgedBy")
    }
}
