//! What an error means to the policies: category × severity × fault × retryable × retry-after.
//! Classification looks at errors only; it holds no state and decides nothing itself.

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "tonic")]
pub mod tonic;

mod standard;

pub use standard::of_chain;

use std::fmt;
use std::time::Duration;

/// The longest pause that is taken from an answer, a year: what asks for more is read as this. How long a retry really
/// waits is bounded by [`Retry`](crate::Retry), far below.
///
/// ```
/// # #[cfg(feature = "http")] {
/// use std::time::SystemTime;
/// use http::{HeaderMap, HeaderValue};
/// use resilience_core::class::{MAX_RETRY_AFTER, http::retry_after};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("retry-after", HeaderValue::from_static("99999999999")); // in 3000 years
/// assert_eq!(retry_after(&headers, SystemTime::now()), Some(MAX_RETRY_AFTER));
/// # }
/// ```
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(365 * 86_400);

/// What kind of thing went wrong.
///
/// ```
/// use std::io;
/// use resilience_core::{Category, Classify};
///
/// assert_eq!(io::ErrorKind::ConnectionRefused.class().category, Category::Network);
/// assert_eq!(io::ErrorKind::PermissionDenied.class().category, Category::Validation);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Category {
    /// The caller's input was wrong; the dependency did its job by saying so.
    Validation,
    /// The dependency could not be reached or the connection broke.
    Network,
    /// No answer within the time allowed.
    Timeout,
    /// Something ran out: memory, descriptors, disk, quota.
    Resource,
    /// The dependency failed inside: a panic, an abort, a 500.
    Internal,
    /// Nothing is known about the error.
    Unknown,
}

impl Category {
    /// Every category, in order.
    ///
    /// ```
    /// use resilience_core::{Category, Class};
    ///
    /// let retried = Category::ALL.into_iter().filter(|category| Class::of(*category).retryable);
    /// assert!(retried.eq([Category::Network, Category::Timeout, Category::Resource]));
    /// ```
    pub const ALL: [Self; 6] =
        [Self::Validation, Self::Network, Self::Timeout, Self::Resource, Self::Internal, Self::Unknown];

    /// The name used in metrics, logs, configuration and audit records.
    ///
    /// ```
    /// use resilience_core::Category;
    ///
    /// assert_eq!(Category::Network.as_str(), "network");
    /// assert_eq!(format!("{:>8}", Category::Timeout), " timeout");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Resource => "resource",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How bad it is.
///
/// ```
/// use std::io;
/// use resilience_core::{Classify, Severity};
///
/// assert!(Severity::Critical > Severity::High);
/// assert_eq!(io::ErrorKind::StorageFull.class().severity, Severity::Critical);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Severity {
    /// Expected in normal operation.
    Low,
    /// Someone should look when there are many.
    Medium,
    /// Someone should look soon.
    High,
    /// Someone should look now.
    Critical,
}

impl Severity {
    /// Every severity, mildest first.
    ///
    /// ```
    /// use resilience_core::Severity;
    ///
    /// assert!(Severity::ALL.is_sorted());
    /// ```
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name used in metrics, logs, configuration and audit records.
    ///
    /// ```
    /// use resilience_core::Severity;
    ///
    /// assert_eq!(Severity::ALL.map(Severity::as_str), ["low", "medium", "high", "critical"]);
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whose fault an error is. Only the dependency's own faults move a circuit breaker.
///
/// ```
/// use std::io;
/// use resilience_core::CircuitBreaker;
/// use resilience_core::class::{Classify, Fault};
///
/// let breaker = CircuitBreaker::builder("store").consecutive_failures(1).build()?;
/// let mistake = io::ErrorKind::NotFound;
/// assert_eq!(mistake.class().fault, Fault::Caller);
/// assert_eq!(breaker.call(|| Err::<(), _>(mistake)).unwrap_err().as_operation(), Some(&mistake));
/// assert_eq!(breaker.state().as_str(), "closed");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Fault {
    /// The caller asked for something wrong.
    Caller,
    /// The thing that was called.
    Dependency,
    /// A policy on this side refused the call: the dependency never saw it.
    Policy,
}

/// What an error means: the answer of [`Classify`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Category, Class, Severity};
///
/// let busy = Class::of(Category::Resource).severity(Severity::High).retry_after(Duration::from_secs(2));
/// assert!(busy.retryable);
/// assert!(!Class::of(Category::Validation).retryable);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Class {
    /// What kind of thing went wrong.
    pub category: Category,
    /// How bad it is.
    pub severity: Severity,
    /// Whose fault it is.
    pub fault: Fault,
    /// Whether the same call may succeed when repeated.
    pub retryable: bool,
    /// How long the dependency asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Class {
    /// The usual meaning of a category: network, timeout and resource errors are retryable; a validation error is
    /// the caller's fault, everything else the dependency's.
    ///
    /// ```
    /// use resilience_core::class::Fault;
    /// use resilience_core::{Category, Class};
    ///
    /// let network = Class::of(Category::Network);
    /// assert_eq!((network.fault, network.retryable), (Fault::Dependency, true));
    /// let validation = Class::of(Category::Validation);
    /// assert_eq!((validation.fault, validation.retryable), (Fault::Caller, false));
    /// ```
    pub const fn of(category: Category) -> Self {
        let (severity, retryable) = match category {
            Category::Validation => (Severity::Low, false),
            Category::Network | Category::Resource => (Severity::High, true),
            Category::Timeout => (Severity::Medium, true),
            Category::Internal => (Severity::High, false),
            Category::Unknown => (Severity::Medium, false),
        };
        let fault = match category {
            Category::Validation => Fault::Caller,
            _ => Fault::Dependency,
        };
        Self { category, severity, fault, retryable, retry_after: None }
    }

    /// The same with another severity.
    ///
    /// ```
    /// use resilience_core::{Category, Class, Severity};
    ///
    /// let expected = Class::of(Category::Network).severity(Severity::Low);
    /// assert_eq!((expected.severity, expected.retryable), (Severity::Low, true));
    /// ```
    #[must_use]
    pub const fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The same with another fault.
    ///
    /// ```
    /// use resilience_core::class::Fault;
    /// use resilience_core::{Category, Class, Outcome};
    ///
    /// let quota = Class::of(Category::Resource); // ours, not the dependency's
    /// assert_eq!(Outcome::Failure(quota).verdict(), Some(false));
    /// assert_eq!(Outcome::Failure(quota.fault(Fault::Caller)).verdict(), None);
    /// ```
    #[must_use]
    pub const fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// The same, retryable or not.
    ///
    /// ```
    /// use resilience_core::{Category, Class, ManualClock, Pipeline, Retry};
    ///
    /// # let clock = ManualClock::auto_advancing().clock();
    /// let pipeline = Pipeline::builder("store").retry(Retry::default()).clock(clock).build()?;
    /// let attempts = |class: Class| {
    ///     pipeline.classified_by(|_: &&str| class).call(|| Err::<(), _>("no")).unwrap_err().attempts
    /// };
    /// let class = Class::of(Category::Internal);
    /// assert_eq!((attempts(class), attempts(class.retryable(true))), (1, 3));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// The same with the dependency's own word on when to come back; implies retryable.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Category, Class, ManualClock, Pipeline, Retry};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let retry = Retry::builder().max_attempts(2).build()?;
    /// let pipeline = Pipeline::builder("store").retry(retry).clock(time.clock()).build()?;
    /// let busy = Class::of(Category::Resource).retry_after(Duration::from_secs(7));
    /// let _ = pipeline.classified_by(|_: &&str| busy).call(|| Err::<(), _>("busy"));
    /// assert!(time.elapsed() >= Duration::from_secs(7));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self.retryable = true;
        self
    }
}

/// Says what an error means. Implement it for your error type; where that is not possible, give a closure to
/// [`Pipeline::classified_by`](crate::Pipeline::classified_by).
///
/// ```
/// use resilience_core::{Category, Class, Classify};
///
/// enum StoreError { NoSuchKey, Disconnected }
///
/// impl Classify for StoreError {
///     fn class(&self) -> Class {
///         match self {
///             Self::NoSuchKey => Class::of(Category::Validation),
///             Self::Disconnected => Class::of(Category::Network),
///         }
///     }
/// }
/// # assert!(StoreError::Disconnected.class().retryable);
/// # assert!(!StoreError::NoSuchKey.class().retryable);
/// ```
pub trait Classify {
    /// What this error means.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Category, Class, Classify};
    ///
    /// let error = io::Error::from(io::ErrorKind::TimedOut);
    /// assert_eq!(error.class(), Class::of(Category::Timeout));
    /// ```
    fn class(&self) -> Class;
}

impl<T: Classify + ?Sized> Classify for &T {
    fn class(&self) -> Class {
        (**self).class()
    }
}

impl<T: Classify + ?Sized> Classify for Box<T> {
    fn class(&self) -> Class {
        (**self).class()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_mistakes_are_never_the_dependencys_fault() {
        for category in Category::ALL {
            let expected = if category == Category::Validation { Fault::Caller } else { Fault::Dependency };
            assert_eq!(Class::of(category).fault, expected, "{category}");
        }
    }
}
