//! Which errors a fallback answers, and what they mean. Looks at errors only.

use std::fmt;

use crate::class::{Class, Classify};

/// Says whether an error is to be answered: `None` that it is not, a [`Class`] that it is, and what it means.
///
/// ```
/// use std::io;
/// use resilience_core::Fallback;
/// use resilience_core::fallback::{Select, Value};
///
/// fn length(path: &str, fallback: &Fallback<Value<usize>, impl Select<io::Error>>) -> io::Result<usize> {
///     fallback.call(|| std::fs::read(path).map(|bytes| bytes.len()))
/// }
/// let zero = Fallback::value(0);
/// assert_eq!(length("/no/such/file", &zero).unwrap(), 0);
/// let unless_missing = zero.only(|error: &io::Error| error.kind() != io::ErrorKind::NotFound);
/// assert!(length("/no/such/file", &unless_missing).is_err());
/// ```
pub trait Select<E> {
    /// What is to be done about `error`.
    ///
    /// ```
    /// use resilience_core::Category;
    /// use resilience_core::fallback::{EveryError, Select};
    ///
    /// let class = EveryError.select(&std::io::ErrorKind::ConnectionRefused);
    /// assert_eq!(class.unwrap().category, Category::Network);
    /// ```
    fn select(&self, error: &E) -> Option<Class>;
}

/// Every error is answered: the default of a [`Fallback`](super::Fallback).
///
/// ```
/// use std::io;
/// use resilience_core::Fallback;
/// use resilience_core::fallback::{EveryError, Value};
///
/// let zero: Fallback<Value<u32>, EveryError> = Fallback::value(0);
/// for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
///     assert_eq!(zero.call(|| Err(io::Error::from(kind))).unwrap(), 0);
/// }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct EveryError;

impl<E: Classify> Select<E> for EveryError {
    fn select(&self, error: &E) -> Option<Class> {
        Some(error.class())
    }
}

/// A closure says which errors are answered: made by [`Fallback::only`](super::Fallback::only).
///
/// ```
/// use std::io;
/// use resilience_core::Fallback;
/// use resilience_core::fallback::{Only, Value};
///
/// struct Users {
///     none: Fallback<Value<u32>, Only<fn(&io::Error) -> bool>>,
/// }
/// let users = Users { none: Fallback::value(0).only(|error| error.kind() != io::ErrorKind::NotFound) };
/// assert_eq!(users.none.call(|| Err(io::Error::other("down"))).unwrap(), 0);
/// assert!(users.none.call(|| Err(io::ErrorKind::NotFound.into())).is_err());
/// ```
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
///
/// ```
/// use std::num::ParseIntError;
/// use resilience_core::fallback::{JudgedBy, Value};
/// use resilience_core::{Category, Class, Fallback};
///
/// struct Form {
///     none: Fallback<Value<u32>, JudgedBy<fn(&ParseIntError) -> Option<Class>>>,
/// }
/// let form = Form { none: Fallback::value(0).judged_by(|_| Some(Class::of(Category::Validation))) };
/// assert_eq!(form.none.call(|| "many".parse::<u32>()), Ok(0));
/// ```
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
