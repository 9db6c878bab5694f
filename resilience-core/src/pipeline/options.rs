//! What one call brings with it, and what its operation is told about each attempt. Plain values; nothing decides here.

use std::borrow::Cow;

use crate::clock::Instant;
use crate::load_shedder::Priority;

/// Whether running an operation twice does harm.
///
/// ```
/// use resilience_core::{CallOptions, Idempotency};
///
/// assert_eq!(CallOptions::new().idempotency, Idempotency::Idempotent);
/// assert_eq!(CallOptions::new().not_idempotent().idempotency, Idempotency::NotIdempotent);
/// ```
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
    ///
    /// ```
    /// use resilience_core::{CallOptions, Priority};
    ///
    /// let options = CallOptions::new();
    /// assert_eq!((options.permits, options.priority, options.deadline), (1, Priority::Normal, None));
    /// ```
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
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use resilience_core::{CallOptions, Event, Observers, Pipeline};
    ///
    /// let heard = Arc::new(Mutex::new(None));
    /// # let log = Arc::clone(&heard);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::CallFinished { operation, .. } = event {
    ///         *log.lock().unwrap() = operation.map(str::to_owned);
    ///     }
    /// }));
    /// let pipeline = Pipeline::builder("search").observers(observers).build()?;
    /// pipeline.call_with(CallOptions::new().operation("suggest"), |_| Ok::<_, std::io::Error>(())).unwrap();
    /// assert_eq!(heard.lock().unwrap().as_deref(), Some("suggest"));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn operation(mut self, operation: &'a str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// The call is made for `key`.
    ///
    /// ```
    /// use resilience_core::{CallOptions, KeyedRateLimiter, Pipeline};
    ///
    /// let users = KeyedRateLimiter::builder("per_user").burst(1).build()?;
    /// let pipeline = Pipeline::builder("api").keyed_rate_limiter(users).build()?;
    /// let call = |user: u32| {
    ///     pipeline.call_with(CallOptions::new().key(format!("user-{user}")), |_| Ok::<_, std::io::Error>(()))
    /// };
    /// assert!(call(1).is_ok() && call(2).is_ok());
    /// assert!(call(1).is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn key(mut self, key: impl Into<Cow<'a, str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The call must be over by `deadline`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CallOptions, Clock, Pipeline, Reason};
    ///
    /// let (clock, time) = Clock::manual();
    /// let pipeline = Pipeline::builder("search").clock(clock).build()?;
    /// let deadline = time.now() + Duration::from_secs(2);
    /// time.advance(Duration::from_secs(3));
    /// let options = CallOptions::new().deadline(deadline);
    /// let error = pipeline.call_with(options, |_| Ok::<_, std::io::Error>(())).unwrap_err();
    /// assert_eq!(error.as_rejection().map(|refused| refused.reason), Some(Reason::DeadlineTooClose));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The call takes `permits` from rate limiters.
    ///
    /// ```
    /// use resilience_core::{CallOptions, Pipeline, RateLimiter};
    ///
    /// let limiter = RateLimiter::builder("rows").burst(100).build()?;
    /// let pipeline = Pipeline::builder("export").rate_limiter(limiter).build()?;
    /// let export = |rows| pipeline.call_with(CallOptions::new().permits(rows), |_| Ok::<_, std::io::Error>(rows));
    /// assert!(export(90).is_ok());
    /// assert!(export(90).is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn permits(mut self, permits: u32) -> Self {
        self.permits = permits;
        self
    }

    /// The call matters this much.
    ///
    /// ```
    /// use resilience_core::{CallOptions, LoadShedder, Pipeline, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(100).build()?;
    /// shedder.set_pressure(0.6)?; // memory is short
    /// let pipeline = Pipeline::builder("api").load_shedder(shedder).build()?;
    /// let call = |priority| {
    ///     pipeline.call_with(CallOptions::new().priority(priority), |_| Ok::<_, std::io::Error>(()))
    /// };
    /// assert!(call(Priority::High).is_ok());
    /// assert!(call(Priority::Background).is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
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
///
/// ```
/// use resilience_core::{CallOptions, ManualClock, Pipeline, Retry};
///
/// # let clock = ManualClock::auto_advancing().clock();
/// let pipeline = Pipeline::builder("store").retry(Retry::default()).clock(clock).build()?;
/// let mut numbers = Vec::new();
/// let _ = pipeline.call_with(CallOptions::new(), |attempt| {
///     numbers.push(attempt.number);
///     Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
/// });
/// assert_eq!(numbers, [1, 2, 3]);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
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
