//! How a call ends: the outcome that policies are told, and the error that the caller gets.
//! The operation's own error travels untouched: never boxed, never turned into text.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::class::{Category, Class, Classify, Fault, Severity};
use crate::load_shedder::Priority;

/// What became of an admitted call, as policies see it.
///
/// ```
/// use resilience_core::{CircuitBreaker, Outcome};
///
/// let breaker = CircuitBreaker::builder("store").consecutive_failures(1).build()?;
/// let permit = breaker.try_acquire().expect("a closed circuit");
/// permit.settle(&Outcome::TimedOut);
/// assert_eq!(breaker.state().as_str(), "open");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It returned a value.
    Success,
    /// It returned an error of this class.
    Failure(Class),
    /// It did not finish in the time allowed.
    TimedOut,
    /// A policy further in refused it.
    Rejected,
    /// It was dropped before it ended.
    Cancelled,
    /// It panicked.
    Panicked,
}

impl Outcome {
    /// The name used in metrics, logs and audit records.
    ///
    /// ```
    /// use resilience_core::{Category, Class, Outcome};
    ///
    /// assert_eq!(Outcome::Failure(Class::of(Category::Network)).as_str(), "failure");
    /// assert_eq!(Outcome::TimedOut.as_str(), "timed_out");
    /// ```
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(_) => "failure",
            Self::TimedOut => "timed_out",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Panicked => "panicked",
        }
    }

    /// What this says of the dependency: `Some(true)` it works, `Some(false)` it failed, `None` nothing.
    ///
    /// The caller's own mistakes, cancellations and refusals by other policies say nothing.
    ///
    /// ```
    /// use resilience_core::{Category, Class, Outcome};
    ///
    /// assert_eq!(Outcome::Success.verdict(), Some(true));
    /// assert_eq!(Outcome::Failure(Class::of(Category::Network)).verdict(), Some(false));
    /// assert_eq!(Outcome::Failure(Class::of(Category::Validation)).verdict(), None);
    /// ```
    pub const fn verdict(&self) -> Option<bool> {
        match self {
            Self::Success => Some(true),
            Self::Failure(class) => match class.fault {
                Fault::Dependency => Some(false),
                Fault::Caller | Fault::Policy => None,
            },
            Self::TimedOut | Self::Panicked => Some(false),
            Self::Rejected | Self::Cancelled => None,
        }
    }
}

/// Why a policy refused a call.
///
/// ```
/// use resilience_core::{RateLimiter, Reason};
///
/// let limiter = RateLimiter::builder("rows").burst(10).build()?;
/// let refused = limiter.try_acquire(50).unwrap_err();
/// assert_eq!(refused.reason, Reason::ExceedsBurst { requested: 50, burst: 10 });
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The circuit is open: too many calls failed.
    CircuitOpen,
    /// The circuit was opened by hand.
    CircuitForcedOpen,
    /// The circuit is half open and all its probes are under way.
    HalfOpenBusy,
    /// The circuit has closed a short while ago and admits only a share of the calls yet.
    CircuitRampingUp,
    /// The rate is used up.
    RateLimited,
    /// More permits were asked for at once than can ever be granted.
    ExceedsBurst {
        /// How many were asked for.
        requested: u32,
        /// How many can be granted at once.
        burst: u32,
    },
    /// The key is new, and as many keys as the limiter may remember are in use.
    TooManyKeys {
        /// How many it may remember.
        max_keys: u32,
    },
    /// As many calls as a bulkhead allows are under way, and this one did not want to wait.
    BulkheadFull,
    /// A bulkhead is full, and so is its queue.
    BulkheadQueueFull,
    /// The call waited for its turn in a bulkhead as long as it was allowed to.
    BulkheadWaitedTooLong,
    /// As many calls are in flight as a load shedder lets this priority see.
    Shed {
        /// The priority of the call.
        priority: Priority,
    },
    /// Nothing was wrong: [`Chaos`](crate::Chaos) made the call fail, on purpose.
    Injected {
        /// What the failure means to the policies around it.
        class: Class,
    },
    /// The call's deadline has passed or is too close.
    DeadlineTooClose,
    /// The key is new, and calls for as many keys as a [`Coalesce`](crate::Coalesce) may hold are under way.
    TooManyFlights {
        /// How many it may hold.
        max_keys: u32,
    },
    /// As many calls as may follow one flight of a [`Coalesce`](crate::Coalesce) do.
    TooManyFollowers {
        /// How many may follow.
        max_followers: u32,
    },
    /// The call was made from inside the very operation whose result it would wait for.
    WaitsForItself,
    /// The system had no thread to give.
    NoThread,
    /// The executor dropped the task before it came to its end.
    TaskDropped,
}

impl Reason {
    /// The name used in metrics, logs and audit records.
    ///
    /// ```
    /// use resilience_core::Reason;
    ///
    /// assert_eq!(Reason::CircuitOpen.as_str(), "circuit_open");
    /// assert_eq!(Reason::ExceedsBurst { requested: 50, burst: 10 }.as_str(), "exceeds_burst");
    /// ```
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::CircuitForcedOpen => "circuit_forced_open",
            Self::HalfOpenBusy => "half_open_busy",
            Self::CircuitRampingUp => "circuit_ramping_up",
            Self::RateLimited => "rate_limited",
            Self::ExceedsBurst { .. } => "exceeds_burst",
            Self::TooManyKeys { .. } => "too_many_keys",
            Self::BulkheadFull => "bulkhead_full",
            Self::BulkheadQueueFull => "bulkhead_queue_full",
            Self::BulkheadWaitedTooLong => "bulkhead_waited_too_long",
            Self::Shed { .. } => "shed",
            Self::Injected { .. } => "injected",
            Self::DeadlineTooClose => "deadline_too_close",
            Self::TooManyFlights { .. } => "too_many_flights",
            Self::TooManyFollowers { .. } => "too_many_followers",
            Self::WaitsForItself => "waits_for_itself",
            Self::NoThread => "no_thread",
            Self::TaskDropped => "task_dropped",
        }
    }
}

/// A call that was refused before it reached the operation.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, RateLimiter, Reason};
///
/// # let (clock, _time) = Clock::manual();
/// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(2)).burst(1).clock(clock).build()?;
/// limiter.try_acquire(1).expect("the first");
/// let refused = limiter.try_acquire(1).unwrap_err();
/// assert_eq!((&*refused.policy, refused.reason), ("search", Reason::RateLimited));
/// assert_eq!(refused.retry_after, Some(Duration::from_secs(2)));
/// assert_eq!(refused.to_string(), "rate limiter `search` is exhausted; retry in 2.0s");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The name of the policy that refused.
    pub policy: Arc<str>,
    /// Why.
    pub reason: Reason,
    /// When asking again may help, counted from now; `None` when it is not known or never will.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// A refusal by the policy called `policy`: for policies of your own.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Error, Reason, Rejection};
    ///
    /// let quota = Rejection::new("quota".into(), Reason::RateLimited, Some(Duration::from_secs(60)));
    /// let error = Error::<std::io::Error>::from(quota);
    /// assert_eq!(error.to_string(), "rate limiter `quota` is exhausted; retry in 60.0s");
    /// ```
    pub fn new(policy: Arc<str>, reason: Reason, retry_after: Option<Duration>) -> Self {
        Self { policy, reason, retry_after }
    }

    /// What the policies around the one that refused are told of the call: that it was rejected, which says nothing of
    /// the dependency. An injected fault is told as the failure it stands for.
    ///
    /// ```
    /// use resilience_core::{Category, Class, Outcome, Reason, Rejection};
    ///
    /// let full = Rejection::new("reports".into(), Reason::BulkheadFull, None);
    /// assert_eq!(full.outcome(), Outcome::Rejected);
    /// let class = Class::of(Category::Network);
    /// let injected = Rejection::new("drill".into(), Reason::Injected { class }, None);
    /// assert_eq!(injected.outcome(), Outcome::Failure(class));
    /// ```
    pub const fn outcome(&self) -> Outcome {
        match self.reason {
            Reason::Injected { class } => Outcome::Failure(class),
            _ => Outcome::Rejected,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = &self.policy;
        match self.reason {
            Reason::CircuitOpen => write!(f, "circuit breaker `{policy}` is open"),
            Reason::CircuitForcedOpen => write!(f, "circuit breaker `{policy}` was opened by hand"),
            Reason::HalfOpenBusy => write!(f, "circuit breaker `{policy}` is half open and its probes are under way"),
            Reason::CircuitRampingUp => {
                write!(f, "circuit breaker `{policy}` has just closed and admits only a share of the calls")
            }
            Reason::RateLimited => write!(f, "rate limiter `{policy}` is exhausted"),
            Reason::ExceedsBurst { requested, burst } => {
                write!(f, "rate limiter `{policy}` grants at most {burst} permits at once; {requested} were requested")
            }
            Reason::TooManyKeys { max_keys } => {
                write!(f, "rate limiter `{policy}` has no room for a new key: all its {max_keys} are in use")
            }
            Reason::BulkheadFull => write!(f, "bulkhead `{policy}` is full"),
            Reason::BulkheadQueueFull => write!(f, "bulkhead `{policy}` and its queue are full"),
            Reason::BulkheadWaitedTooLong => write!(f, "bulkhead `{policy}` had no room in the time allowed"),
            Reason::Shed { priority } => write!(f, "load shedder `{policy}` has no room for {priority} calls"),
            Reason::Injected { class } => write!(f, "chaos `{policy}` injected a {} fault", class.category),
            Reason::DeadlineTooClose => write!(f, "the deadline of `{policy}` is too close to start"),
            Reason::TooManyFlights { max_keys } => {
                write!(f, "coalescing `{policy}` has no room for a new key: calls for {max_keys} are under way")
            }
            Reason::TooManyFollowers { max_followers } => {
                write!(f, "coalescing `{policy}` lets at most {max_followers} calls wait for one result")
            }
            Reason::WaitsForItself => write!(f, "a call through `{policy}` would wait for the call that makes it"),
            Reason::NoThread => write!(f, "there is no thread for `{policy}`"),
            Reason::TaskDropped => write!(f, "the executor dropped a task of `{policy}` before its end"),
        }?;
        match self.retry_after {
            Some(delay) => write!(f, "; retry in {delay:.1?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Rejection {}

/// A retry waits for a limiter's permits but not for a breaker to let probes through: who is refused by an open breaker
/// shall know at once, and callers that waited would all come back at the same moment. What was injected is of the class
/// it stands for, so that everything around it behaves as in earnest.
impl Classify for Rejection {
    fn class(&self) -> Class {
        if let Reason::Injected { class } = self.reason {
            return class;
        }
        let mut class = Class::of(Category::Resource).severity(Severity::Low).fault(Fault::Policy);
        class.retry_after = self.retry_after;
        class.retryable(self.reason == Reason::RateLimited && self.retry_after.is_some())
    }
}

/// The time allowed ran out.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{future::pending, time::Duration};
/// use resilience_core::{ErrorKind, ManualClock, Pipeline};
///
/// # let clock = ManualClock::auto_advancing().clock();
/// let pipeline = Pipeline::builder("store").timeout(Duration::from_secs(2)).clock(clock).build()?;
/// let call = pipeline.call_async(|| pending::<Result<(), std::io::Error>>());
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let ErrorKind::TimedOut(timed_out) = runtime.block_on(call).unwrap_err().kind else { panic!("it hangs") };
/// assert_eq!(timed_out.limit, Duration::from_secs(2));
/// assert_eq!(timed_out.to_string(), "no answer within 2s");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {limit:?}")]
#[non_exhaustive]
pub struct TimedOut {
    /// The time that was allowed.
    pub limit: Duration,
}

impl Classify for TimedOut {
    fn class(&self) -> Class {
        Class::of(Category::Timeout)
    }
}

/// What stopped the last attempt from succeeding.
///
/// ```
/// use resilience_core::{CircuitBreaker, ErrorKind};
///
/// let breaker = CircuitBreaker::builder("store").build()?;
/// let status = |breaker: &CircuitBreaker| match breaker.call(|| std::fs::read("/no/such/file")) {
///     Ok(_) => 200,
///     Err(error) => match error.kind {
///         ErrorKind::Operation(_) => 502,
///         ErrorKind::Rejected(_) => 503,
///         ErrorKind::TimedOut(_) => 504,
///         _ => 500, // there may be more
///     },
/// };
/// assert_eq!(status(&breaker), 502);
/// breaker.force_open();
/// assert_eq!(status(&breaker), 503);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind<E> {
    /// The operation's own error, untouched.
    Operation(E),
    /// A policy refused the call.
    Rejected(Rejection),
    /// The operation did not finish in time.
    TimedOut(TimedOut),
}

/// Why no further attempt was made.
///
/// ```
/// use std::io;
/// use resilience_core::{ManualClock, Pipeline, Retry, Stopped};
///
/// # let clock = ManualClock::auto_advancing().clock();
/// let pipeline = Pipeline::builder("store").retry(Retry::default()).clock(clock).build()?;
/// let stopped = |kind: io::ErrorKind| pipeline.call(|| Err::<(), _>(kind)).unwrap_err().stopped;
/// assert_eq!(stopped(io::ErrorKind::ConnectionReset), Some(Stopped::AttemptsExhausted));
/// assert_eq!(stopped(io::ErrorKind::NotFound), Some(Stopped::NotRetryable));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// Errors of this class are not retried.
    NotRetryable,
    /// All attempts were used.
    AttemptsExhausted,
    /// The time set aside for retrying is used up.
    ElapsedExceeded,
    /// The next attempt could not have started before the deadline.
    DeadlineTooClose,
    /// The dependency asked for a longer pause than this retry accepts.
    RetryAfterTooLong,
    /// All calls together have made as many retries as their [`RetryBudget`](crate::RetryBudget) allows for now.
    BudgetSpent,
    /// The operation has started and must not run twice.
    NotIdempotent,
}

impl Stopped {
    /// The name used in metrics, logs and audit records.
    ///
    /// ```
    /// use resilience_core::Stopped;
    ///
    /// assert_eq!(Stopped::AttemptsExhausted.as_str(), "attempts_exhausted");
    /// ```
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotRetryable => "not_retryable",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::ElapsedExceeded => "elapsed_exceeded",
            Self::DeadlineTooClose => "deadline_too_close",
            Self::RetryAfterTooLong => "retry_after_too_long",
            Self::BudgetSpent => "budget_spent",
            Self::NotIdempotent => "not_idempotent",
        }
    }

    const fn explanation(self) -> &'static str {
        match self {
            Self::NotRetryable => "this kind of error is not retried",
            Self::AttemptsExhausted => "no attempt is left",
            Self::ElapsedExceeded => "the time for retrying is used up",
            Self::DeadlineTooClose => "the deadline is too close for another attempt",
            Self::RetryAfterTooLong => "the pause asked for is longer than this retry accepts",
            Self::BudgetSpent => "the retry budget is spent",
            Self::NotIdempotent => "it must not run twice",
        }
    }
}

/// A call through policies that did not succeed.
///
/// ```
/// use resilience_core::{Error, ErrorKind};
///
/// fn advice<E: std::fmt::Display>(error: &Error<E>) -> String {
///     match &error.kind {
///         ErrorKind::Operation(own) => format!("the dependency said: {own}"),
///         ErrorKind::Rejected(rejection) => format!("not even tried: {rejection}"),
///         ErrorKind::TimedOut(timeout) => format!("{timeout}"),
///         _ => "something newer than this code".to_owned(),
///     }
/// }
/// # assert!(advice(&Error::operation("no such table", 1)).contains("no such table"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error<E> {
    /// What stopped the last attempt.
    pub kind: ErrorKind<E>,
    /// How many times the operation was started; 0 when it never was.
    pub attempts: u32,
    /// Why no further attempt was made; `None` where nothing retries.
    pub stopped: Option<Stopped>,
}

impl<E> Error<E> {
    /// The operation's own error after `attempts` attempts.
    ///
    /// ```
    /// use resilience_core::Error;
    ///
    /// let error = Error::operation("no such table", 2);
    /// assert_eq!((error.attempts, error.to_string().as_str()), (2, "no such table"));
    /// ```
    pub const fn operation(error: E, attempts: u32) -> Self {
        Self { kind: ErrorKind::Operation(error), attempts, stopped: None }
    }

    /// The operation's own error, when that is what it was.
    ///
    /// ```
    /// use resilience_core::{Error, Reason, Rejection};
    ///
    /// assert_eq!(Error::operation("no such table", 1).as_operation(), Some(&"no such table"));
    /// let refused = Error::<&str>::from(Rejection::new("store".into(), Reason::CircuitOpen, None));
    /// assert_eq!(refused.as_operation(), None);
    /// ```
    pub const fn as_operation(&self) -> Option<&E> {
        match &self.kind {
            ErrorKind::Operation(error) => Some(error),
            _ => None,
        }
    }

    /// The operation's own error, or this error back.
    ///
    /// # Errors
    /// Returns `self` when a policy, not the operation, ended the call.
    ///
    /// ```
    /// use resilience_core::{Error, Reason, Rejection};
    ///
    /// assert_eq!(Error::operation("no such table", 1).into_operation(), Ok("no such table"));
    /// let refused = Error::<&str>::from(Rejection::new("store".into(), Reason::CircuitOpen, None));
    /// assert!(refused.into_operation().unwrap_err().as_rejection().is_some());
    /// ```
    pub fn into_operation(self) -> Result<E, Self> {
        match self.kind {
            ErrorKind::Operation(error) => Ok(error),
            kind => Err(Self { kind, ..self }),
        }
    }

    /// The refusal, when a policy refused the call.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Reason};
    ///
    /// let breaker = CircuitBreaker::builder("store").build()?;
    /// breaker.force_open();
    /// let error = breaker.call(|| Ok::<_, std::io::Error>(())).unwrap_err();
    /// assert_eq!(error.as_rejection().map(|refused| refused.reason), Some(Reason::CircuitForcedOpen));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn as_rejection(&self) -> Option<&Rejection> {
        match &self.kind {
            ErrorKind::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// Whether the time allowed ran out.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::{future::pending, time::Duration};
    /// use resilience_core::{ManualClock, Pipeline};
    ///
    /// # let clock = ManualClock::auto_advancing().clock();
    /// let pipeline = Pipeline::builder("store").timeout(Duration::from_secs(2)).clock(clock).build()?;
    /// let call = pipeline.call_async(|| pending::<Result<(), std::io::Error>>());
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert!(runtime.block_on(call).unwrap_err().is_timed_out());
    /// # Ok(())
    /// # }
    /// ```
    pub const fn is_timed_out(&self) -> bool {
        matches!(self.kind, ErrorKind::TimedOut(_))
    }
}

impl<E> Error<Error<E>> {
    /// One error of two: what a policy around another policy gives. The outer one's own refusals and timeouts, and
    /// everything else as the inner one said it.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Coalesce, Error, Pipeline};
    ///
    /// let pipeline = Pipeline::builder("search").build()?;
    /// let flights = Coalesce::<u32, u32, _>::builder("search").build()?;
    /// let hits = flights.call(7, || pipeline.call(|| Err(io::ErrorKind::NotFound)));
    /// let error: Error<io::ErrorKind> = hits.map_err(Error::flatten).unwrap_err();
    /// assert_eq!(error.as_operation(), Some(&io::ErrorKind::NotFound));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn flatten(self) -> Error<E> {
        match self.kind {
            ErrorKind::Operation(inner) => inner,
            ErrorKind::Rejected(rejection) => {
                Error { kind: ErrorKind::Rejected(rejection), attempts: self.attempts, stopped: self.stopped }
            }
            ErrorKind::TimedOut(timeout) => {
                Error { kind: ErrorKind::TimedOut(timeout), attempts: self.attempts, stopped: self.stopped }
            }
        }
    }
}

impl<E> From<Rejection> for Error<E> {
    fn from(rejection: Rejection) -> Self {
        Self { kind: ErrorKind::Rejected(rejection), attempts: 0, stopped: None }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Operation(error) => fmt::Display::fmt(error, f)?,
            ErrorKind::Rejected(rejection) => fmt::Display::fmt(rejection, f)?,
            ErrorKind::TimedOut(timeout) => fmt::Display::fmt(timeout, f)?,
        }
        match (self.attempts, self.stopped) {
            (attempts, Some(stopped)) if attempts > 1 || stopped != Stopped::NotRetryable => {
                let plural = if attempts == 1 { "attempt" } else { "attempts" };
                write!(f, " (after {attempts} {plural}: {})", stopped.explanation())
            }
            _ => Ok(()),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            // The operation's own text is this error's text, so its source comes next in the chain.
            ErrorKind::Operation(error) => error.source(),
            ErrorKind::Rejected(_) | ErrorKind::TimedOut(_) => None,
        }
    }
}

impl<E: Classify> Classify for Error<E> {
    fn class(&self) -> Class {
        match &self.kind {
            ErrorKind::Operation(error) => error.class(),
            ErrorKind::Rejected(rejection) => rejection.class(),
            ErrorKind::TimedOut(timeout) => timeout.class(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_happened_and_what_to_do() {
        let rejected: Error<std::io::Error> =
            Rejection::new("registry_fetch".into(), Reason::CircuitOpen, Some(Duration::from_millis(11_900))).into();
        insta::assert_snapshot!(rejected, @"circuit breaker `registry_fetch` is open; retry in 11.9s");
        let mut failed = Error::operation(std::io::Error::other("connection refused"), 3);
        failed.stopped = Some(Stopped::AttemptsExhausted);
        insta::assert_snapshot!(failed, @"connection refused (after 3 attempts: no attempt is left)");
        let big = Rejection::new("q".into(), Reason::ExceedsBurst { requested: 50, burst: 10 }, None);
        insta::assert_snapshot!(big, @"rate limiter `q` grants at most 10 permits at once; 50 were requested");
    }

    #[test]
    fn only_the_dependencys_own_faults_count_against_it() {
        let verdicts = [
            (Outcome::Success, Some(true)),
            (Outcome::Failure(Class::of(Category::Network)), Some(false)),
            (Outcome::Failure(Class::of(Category::Validation)), None),
            (Outcome::Failure(Class::of(Category::Network).fault(Fault::Policy)), None),
            (Outcome::TimedOut, Some(false)),
            (Outcome::Panicked, Some(false)),
            (Outcome::Cancelled, None),
            (Outcome::Rejected, None),
        ];
        for (outcome, expected) in verdicts {
            assert_eq!(outcome.verdict(), expected, "{outcome:?}");
        }
    }
}
