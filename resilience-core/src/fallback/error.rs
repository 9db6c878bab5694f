//! The error of a call whose fallback failed as well: both, and neither in the other's place.

use std::fmt;

use crate::class::{Class, Classify};

/// A call failed, and so did its fallback; or the fallback was not for this error, and then there is no second one.
///
/// To a retry or a breaker further out it means what the first error means. Its text has both, its source is the
/// first error's, or the second's where the first has none.
///
/// ```
/// use resilience_core::fallback::FallbackError;
///
/// let error = FallbackError { first: "connection refused", second: Some("the cache is cold") };
/// assert_eq!(error.to_string(), "connection refused; the fallback failed as well: the cache is cold");
/// let unanswered = FallbackError::<_, &str> { first: "no such user", second: None };
/// assert_eq!(unanswered.to_string(), "no such user");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackError<First, Second> {
    /// Why the call failed.
    pub first: First,
    /// Why its fallback failed; `None` when it was not for this error.
    pub second: Option<Second>,
}

impl<First: fmt::Display, Second: fmt::Display> fmt::Display for FallbackError<First, Second> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match &self.second {
            Some(second) => write!(f, "; the fallback failed as well: {second}"),
            None => Ok(()),
        }
    }
}

impl<First, Second> std::error::Error for FallbackError<First, Second>
where
    First: std::error::Error,
    Second: std::error::Error,
{
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The texts of both are this error's text, so what comes next is what lies behind them.
        self.first.source().or_else(|| self.second.as_ref()?.source())
    }
}

impl<First: Classify, Second> Classify for FallbackError<First, Second> {
    fn class(&self) -> Class {
        self.first.class()
    }
}
