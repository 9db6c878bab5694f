//! What the standard library's errors mean, and boxed errors with one of the known ones somewhere behind them.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;

use super::{Category, Class, Classify, Severity};

impl Classify for io::Error {
    fn class(&self) -> Class {
        self.kind().class()
    }
}

impl Classify for io::ErrorKind {
    fn class(&self) -> Class {
        use io::ErrorKind as Kind;
        match self {
            Kind::NotFound | Kind::InvalidInput | Kind::InvalidData | Kind::AlreadyExists | Kind::PermissionDenied => {
                Class::of(Category::Validation)
            }
            Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::NotConnected
            | Kind::BrokenPipe
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::UnexpectedEof => Class::of(Category::Network),
            Kind::TimedOut => Class::of(Category::Timeout),
            Kind::Interrupted | Kind::WouldBlock => Class::of(Category::Resource).severity(Severity::Low),
            Kind::OutOfMemory | Kind::ResourceBusy | Kind::QuotaExceeded => Class::of(Category::Resource),
            // Waiting does not empty a disk.
            Kind::StorageFull => Class::of(Category::Resource).severity(Severity::Critical).retryable(false),
            _ => Class::of(Category::Unknown),
        }
    }
}

/// Shared errors, as those of a [`Coalesce`](crate::Coalesce), mean what they mean alone.
impl<E: Classify + ?Sized> Classify for Arc<E> {
    fn class(&self) -> Class {
        (**self).class()
    }
}

/// There is no such error.
impl Classify for Infallible {
    fn class(&self) -> Class {
        match *self {}
    }
}

/// As [`of_chain`].
impl Classify for dyn Error + 'static {
    fn class(&self) -> Class {
        of_chain(self)
    }
}

/// As [`of_chain`].
impl Classify for dyn Error + Send + Sync + 'static {
    fn class(&self) -> Class {
        of_chain(self)
    }
}

/// The longest chain of sources that is followed: one that bites its own tail must end, too.
const MAX_CHAIN: usize = 32;

/// What an error of an unknown type means: what the first known error among it and its sources means. Known are
/// [`io::Error`] and, with their features, `reqwest::Error` and `tonic::Status`.
///
/// Boxed errors, as tower's middleware has them, implement [`Classify`] by this.
///
/// ```
/// use std::{error::Error, io};
/// use resilience_core::{Category, Classify};
///
/// let error: Box<dyn Error + Send + Sync> = io::Error::from(io::ErrorKind::ConnectionReset).into();
/// assert_eq!(error.class().category, Category::Network);
/// ```
pub fn of_chain(error: &(dyn Error + 'static)) -> Class {
    let chain = std::iter::successors(Some(error), |error| behind(*error));
    chain.take(MAX_CHAIN).find_map(known).unwrap_or(Class::of(Category::Unknown))
}

/// The next error down. An I/O error made from another error hides that one: its `source` is the other's source.
fn behind<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Its class, when its type is known and says something.
fn known(error: &(dyn Error + 'static)) -> Option<Class> {
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<::reqwest::Error>() {
        return Some(error.class());
    }
    #[cfg(feature = "tonic")]
    if let Some(status) = error.downcast_ref::<::tonic::Status>() {
        return Some(status.class());
    }
    let class = error.downcast_ref::<io::Error>()?.class();
    (class.category != Category::Unknown).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_and_timeout_errors_are_retryable_and_bad_input_is_not() {
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
            assert!(io::Error::from(kind).class().retryable, "{kind:?}");
        }
        for kind in [io::ErrorKind::InvalidInput, io::ErrorKind::NotFound, io::ErrorKind::StorageFull] {
            assert!(!io::Error::from(kind).class().retryable, "{kind:?}");
        }
    }
}
