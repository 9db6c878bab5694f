//! Who says what a result means: the errors themselves, a closure over errors, or one over whole results.
//! A judge looks at results only; what follows from its verdict is the state machine's business.

use std::fmt;
use std::future::Future;

use super::{Attempt, CallFuture, CallOptions, Pipeline, Plain};
use crate::class::{Class, Classify};
use crate::outcome::Error;

/// Says what the result of an attempt means: `None` that all is well, a [`Class`] that it failed, and how.
///
/// The three judges there are: [`ByClass`] asks the error, [`ByError`] a closure over errors, [`ByResult`] a closure
/// over whole results. Implement it for a type of your own where one judge serves many places.
pub trait Judge<T, E> {
    /// What `result` means.
    fn judge(&self, result: &Result<T, E>) -> Option<Class>;
}

impl<T, E, J: Judge<T, E> + ?Sized> Judge<T, E> for &J {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        (**self).judge(result)
    }
}

/// Errors say themselves what they mean, by [`Classify`]; values are fine.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByClass;

impl<T, E: Classify> Judge<T, E> for ByClass {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        result.as_ref().err().map(Classify::class)
    }
}

/// A closure says what errors mean; values are fine.
#[derive(Clone, Copy)]
pub struct ByError<C>(pub C);

impl<T, E, C: Fn(&E) -> Class> Judge<T, E> for ByError<C> {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        result.as_ref().err().map(&self.0)
    }
}

impl<C> fmt::Debug for ByError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByError")
    }
}

/// A closure says what results mean, values and errors alike.
#[derive(Clone, Copy)]
pub struct ByResult<F>(pub F);

impl<T, E, F: Fn(&Result<T, E>) -> Option<Class>> Judge<T, E> for ByResult<F> {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        (self.0)(result)
    }
}

impl<F> fmt::Debug for ByResult<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByResult")
    }
}

/// A pipeline together with who says what results mean: made by [`Pipeline::classified_by`] and
/// [`Pipeline::judged_by`].
#[derive(Clone, Copy)]
pub struct Classified<'p, J> {
    pub(super) pipeline: &'p Pipeline,
    pub(super) judge: J,
}

impl<J> fmt::Debug for Classified<'_, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pipeline.fmt(f)
    }
}

impl<J> Classified<'_, J> {
    /// As [`Pipeline::call`].
    ///
    /// # Errors
    /// As [`Pipeline::call`].
    pub fn call<T, E>(&self, mut operation: impl FnMut() -> Result<T, E>) -> Result<T, Error<E>>
    where
        J: Judge<T, E>,
    {
        self.call_with(CallOptions::new(), |_| operation())
    }

    /// As [`Pipeline::call_with`].
    ///
    /// # Errors
    /// As [`Pipeline::call`].
    pub fn call_with<T, E>(
        &self,
        options: CallOptions<'_>,
        operation: impl FnMut(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>>
    where
        J: Judge<T, E>,
    {
        self.pipeline.run(options, operation, &self.judge)
    }

    /// As [`Pipeline::call_async`].
    ///
    /// # Errors
    /// As [`Pipeline::call_async`].
    pub fn call_async<T, E, F>(&self, operation: impl FnMut() -> F) -> impl Future<Output = Result<T, Error<E>>>
    where
        J: Judge<T, E>,
        F: Future<Output = Result<T, E>>,
    {
        CallFuture::new(self.pipeline.as_plan(), CallOptions::new(), Plain(operation), &self.judge)
    }

    /// As [`Pipeline::call_async_with`].
    ///
    /// # Errors
    /// As [`Pipeline::call_async`].
    pub fn call_async_with<T, E, F>(
        &self,
        options: CallOptions<'_>,
        operation: impl FnMut(Attempt) -> F,
    ) -> impl Future<Output = Result<T, Error<E>>>
    where
        J: Judge<T, E>,
        F: Future<Output = Result<T, E>>,
    {
        CallFuture::new(self.pipeline.as_plan(), options, operation, &self.judge)
    }
}
