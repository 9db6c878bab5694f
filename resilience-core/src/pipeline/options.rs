//! What one call brings with it, and what its operation is told about each attempt. Plain values; nothing decides here.

use std::borrow::Cow;

use crate::clock::Instant;
use crate::load_shedder::Priority;

/// Whether running an operation twice does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Idempotency {
    /// Twice is as good as once: what a retry or a hedge is put around.
    #[default]
    Idempotent,
    /// Twice may do harm. Once its operation has started, the call is neither retried nor hedged; what a policy refused
    /// before may be tried again.
    NotIdempotent,
}

/// What one call brings with it, beside its operation.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{CallOptions, Clock, Pipeline};
///
/// let pipeline = Pipeline::builder("search").timeout(Duration::from_secs(10)).build()?;
/// let now = pipeline.clock().now();
/// let options = CallOptions::new().operation("suggest").deadline(now + Duration::from_secs(2)).permits(3);
/// let deadline = pipeline.call_with(options, |attempt| Ok::<_, std::io::Error>(attempt.deadline));
/// assert_eq!(deadline.unwrap(), Some(now + Duration::from_secs(2)));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CallOptions<'a> {
    /// What the call does, for observers: one of a few fixed terms, never part of a request.
    pub operation: Option<&'a str>,
    /// For whom it is: the key of limiters by key, such as a tenant or a user.
    pub key: Option<Cow<'a, str>>,
    /// The call must be over by then, whatever the pipeline would allow: the deadline of whoever called us, on the
    /// pipeline's clock. A call that comes after it is refused before any policy is asked. A
    /// [`Deadline`](crate::deadline::Deadline) that the caller runs under counts without being given here.
    pub deadline: Option<Instant>,
    /// How many permits it takes from rate limiters; 0 counts as 1, more than a limiter's burst is refused.
    pub permits: u32,
    /// How much it matters, for load shedders.
    pub priority: Priority,
    /// Whether it may run more than once.
    pub idempotency: Idempotency,
}

impl<'a> CallOptions<'a> {
    /// Nothing special.
    pub const fn new() -> Self {
        Self {
            operation: None,
            key: None,
            deadline: None,
            permits: 1,
            priority: Priority::Normal,
            idempotency: Idempotency::Idempotent,
        }
    }

    /// The call is known to observers as `operation`.
    #[must_use]
    pub const fn operation(mut self, operation: &'a str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// The call is made for `key`.
    #[must_use]
    pub fn key(mut self, key: impl Into<Cow<'a, str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The call must be over by `deadline`.
    #[must_use]
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The call takes `permits` from rate limiters.
    #[must_use]
    pub const fn permits(mut self, permits: u32) -> Self {
        self.permits = permits;
        self
    }

    /// The call matters this much.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The call must not run twice: see [`Idempotency::NotIdempotent`].
    ///
    /// ```
    /// use resilience_core::{CallOptions, Pipeline, Retry, Stopped};
    ///
    /// let pipeline = Pipeline::builder("shop").retry(Retry::default()).build()?;
    /// let order = || Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    /// let error = pipeline.call_with(CallOptions::new().not_idempotent(), |_| order()).unwrap_err();
    /// assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::NotIdempotent)));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn not_idempotent(mut self) -> Self {
        self.idempotency = Idempotency::NotIdempotent;
        self
    }
}

/// What an operation is told about the attempt it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Which attempt this is, counted from 1.
    pub number: u32,
    /// Which run of this attempt it is: 0, or from 1 for its hedges, which run beside it.
    pub hedge: u32,
    /// When it must be over; give it to whatever the operation calls in turn.
    pub deadline: Option<Instant>,
}

impl Attempt {
    /// The first attempt of a call without a deadline.
    pub(super) const FIRST: Self = Self { number: 1, hedge: 0, deadline: None };
}
