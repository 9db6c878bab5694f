//! How an answer came about, so that nobody takes old data for new without noticing.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// Where an answer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// From the registry, just now.
    Fresh,
    /// From the cache, and the registry said earlier that it need not be asked again yet; or a package file, which
    /// never changes.
    Cached,
    /// From the cache, and the registry confirmed just now that it is still right.
    Revalidated,
    /// From the cache although it should have been confirmed: the registry did not answer.
    Stale {
        /// How long ago the registry confirmed it.
        age: Duration,
        /// Why it could not be confirmed.
        why: String,
    },
}

impl Served {
    /// Whether it is old data in place of an answer.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// The same as one lower-case word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Cached => "cached",
            Self::Revalidated => "revalidated",
            Self::Stale { .. } => "stale",
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { age, why } => write!(f, "stale by {}s: {why}", age.as_secs()),
            other => f.write_str(other.as_str()),
        }
    }
}

/// A value and where it comes from; use it like the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithOrigin<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub served: Served,
}

impl<T> WithOrigin<T> {
    pub(crate) fn new(value: T, served: Served) -> Self {
        Self { value, served }
    }

    /// Something made from the value, of the same origin.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> WithOrigin<U> {
        WithOrigin { value: make(self.value), served: self.served }
    }
}

impl<T> Deref for WithOrigin<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
