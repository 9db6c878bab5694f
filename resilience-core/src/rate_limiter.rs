//! The rate limiter: blocking and async shells around one bucket, which decides.
//! Never grants more than the burst plus the rate times the span, over any span; a place in the queue that is given
//! up goes to others. Nothing is polled: who waits is told for how long.

mod bucket;
mod gcra;
mod keyed;
mod quota;
mod reservation;
mod table;

pub use keyed::{KeyedRateLimiter, KeyedRateLimiterBuilder, KeyedStatistics};
pub use quota::{Quota, delay_seconds};
pub use reservation::Reservation;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Instant};
use crate::config::{self, ConfigError};
use crate::event::{Event, Observers};
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};
use bucket::Bucket;
use gcra::{Rate, Refused};

pub(crate) use gcra::Place;

/// A limiter's figures at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LimiterStatistics {
    /// Permits that could be had at once now.
    pub available: u32,
    /// Permits that can be had at once at most.
    pub burst: u32,
    /// Permits that come back per second.
    pub refill_per_second: f64,
    /// Requests that were refused.
    pub rejected: u64,
}

struct Shared {
    name: Arc<str>,
    bucket: Bucket,
    rejected: AtomicU64,
    clock: Clock,
    observers: Observers,
}

/// A rate limiter. Cheap to clone: clones share one bucket, in every thread, sync and async.
///
/// `rate` permits come back per period, evenly; up to `burst` can be saved up and used at once. It starts full, unless
/// told otherwise ([`start_with`](RateLimiterBuilder::start_with)).
/// The defaults are 100 permits per 60 s and a burst of 10. Rates are kept as whole nanoseconds per permit, rounded
/// up, so the rate is never exceeded.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, RateLimiter};
///
/// let (clock, time) = Clock::manual();
/// let limiter = RateLimiter::builder("search").rate(10, Duration::from_secs(1)).burst(2).clock(clock).build()?;
/// assert!(limiter.try_acquire(2).is_ok());
/// let refused = limiter.try_acquire(1).unwrap_err();
/// assert_eq!(refused.retry_after, Some(Duration::from_millis(100)));
/// time.advance(Duration::from_millis(100));
/// assert!(limiter.try_acquire(1).is_ok());
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct RateLimiter(Arc<Shared>);

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("name", &self.name())
            .field("bucket", &self.0.bucket)
            .finish_non_exhaustive()
    }
}

/// Builds a [`RateLimiter`].
#[derive(Debug, Clone)]
pub struct RateLimiterBuilder {
    name: Arc<str>,
    permits: u32,
    period: Duration,
    burst: u32,
    start_with: Option<u32>,
    clock: Clock,
    observers: Observers,
}

impl RateLimiterBuilder {
    /// How many permits (from 1) come back per `period` (more than 0, at most 10 years); default 100 per 60 s.
    #[must_use]
    pub fn rate(mut self, permits: u32, period: Duration) -> Self {
        self.permits = permits;
        self.period = period;
        self
    }

    /// How many permits can be saved up and used at once. From 1, to as many as come back within 10 years; default 10.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// How many permits it holds at first, from 0 (empty) to the burst (full, the default). A process that restarts
    /// often and starts full grants a burst at each start.
    ///
    /// ```
    /// use resilience_core::RateLimiter;
    ///
    /// let limiter = RateLimiter::builder("search").burst(10).start_with(0).build()?;
    /// assert_eq!(limiter.statistics().available, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn start_with(mut self, permits: u32) -> Self {
        self.start_with = Some(permits);
        self
    }

    /// Where it takes the time from. Default: the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of its refusals. Default: nobody.
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes the limiter.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    pub fn build(self) -> Result<RateLimiter, ConfigError> {
        config::name(&self.name)?;
        let rate = Rate::new(&self.name, self.permits, self.period, self.burst)?;
        let start_with = checked_start(&self.name, self.start_with, rate)?;
        let bucket = Bucket::new(rate, rate.holding(start_with, self.clock.now()));
        Ok(RateLimiter(Arc::new(Shared {
            name: self.name,
            bucket,
            rejected: AtomicU64::new(0),
            clock: self.clock,
            observers: self.observers,
        })))
    }
}

impl RateLimiter {
    /// Starts building a limiter called `name`, from the defaults.
    pub fn builder(name: impl Into<Arc<str>>) -> RateLimiterBuilder {
        RateLimiterBuilder {
            name: name.into(),
            permits: 100,
            period: Duration::from_secs(60),
            burst: 10,
            start_with: None,
            clock: Clock::system(),
            observers: Observers::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Takes `permits` now, or not at all. Never ahead of those who wait.
    ///
    /// # Errors
    /// A [`Rejection`] when they are not there; it says when they would be, or that they never will.
    pub fn try_acquire(&self, permits: u32) -> Result<(), Rejection> {
        self.place(permits, Duration::ZERO).map(|_| ())
    }

    /// Takes `permits`, blocking the thread for up to `max_wait` until they are there. First come, first served; only
    /// a place that somebody gave up is taken by who comes next.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when the wait would be longer than `max_wait`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{ManualClock, RateLimiter};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(1)).burst(1).clock(time.clock()).build()?;
    /// for _ in 0..3 {
    ///     limiter.acquire(1, Duration::from_secs(10)).expect("ten seconds are enough");
    /// }
    /// assert_eq!(time.elapsed(), Duration::from_secs(2));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn acquire(&self, permits: u32, max_wait: Duration) -> Result<(), Rejection> {
        self.reserve(permits, max_wait)?.wait();
        Ok(())
    }

    /// Takes `permits`, waiting for up to `max_wait` until they are there. First come, first served; only a place that
    /// somebody gave up is taken by who comes next. Dropping the future gives its place up.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when the wait would be longer than `max_wait`.
    pub async fn acquire_async(&self, permits: u32, max_wait: Duration) -> Result<(), Rejection> {
        self.reserve(permits, max_wait)?.wait_async().await;
        Ok(())
    }

    /// Takes `permits` for now or for a time within `max_wait`, and leaves the waiting to the caller: to do something
    /// else meanwhile, or to weigh the wait. Given up when it is dropped unused.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when they would be there only after `max_wait`, or never.
    pub fn reserve(&self, permits: u32, max_wait: Duration) -> Result<Reservation<'_>, Rejection> {
        self.place(permits, max_wait).map(|place| Reservation::new(self, permits, place))
    }

    /// What [`try_acquire`](Self::try_acquire) would answer now. Takes nothing, counts nothing, tells no observer; by
    /// the time you act on it, another thread may have taken what was there.
    ///
    /// # Errors
    /// The [`Rejection`] that `try_acquire` would return.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(10, Duration::from_secs(1)).burst(2).clock(clock).build()?;
    /// assert!(limiter.peek(2).is_ok());
    /// limiter.try_acquire(1).unwrap();
    /// assert_eq!(limiter.peek(2).unwrap_err().retry_after, Some(Duration::from_millis(100)));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn peek(&self, permits: u32) -> Result<(), Rejection> {
        let now = self.0.clock.now();
        let refused = |refused| rejection(&self.0.name, permits, self.0.bucket.rate(), now, refused);
        self.0.bucket.peek(permits, now, now).map_err(refused)
    }

    /// What to tell the caller in response headers: limit, remaining, reset. Takes nothing.
    pub fn quota(&self) -> Quota {
        let (rate, empty_at) = self.0.bucket.state();
        Quota::of(&self.0.name, rate, empty_at, self.0.clock.now())
    }

    /// Changes the rate for all clones: `permits` (from 1) come back per `period` (more than 0, at most 10 years).
    ///
    /// Saved permits stay as many as they are: neither is a burst handed out, nor is one lost. Who waits keeps the
    /// time that was promised, and the new rate holds from the last of these times on, so nobody is overtaken.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used; the rate stays as it was.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(1)).burst(4).clock(clock).build()?;
    /// limiter.try_acquire(3).unwrap();
    /// limiter.set_rate(100, Duration::from_secs(1))?;
    /// assert_eq!(limiter.statistics().available, 1);
    /// time.advance(Duration::from_millis(10));
    /// assert_eq!(limiter.statistics().available, 2);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn set_rate(&self, permits: u32, period: Duration) -> Result<(), ConfigError> {
        // The burst of 1 stands in: whether the real one still refills in time is checked when it cannot change.
        let nanos_per_permit = Rate::new(&self.0.name, permits, period, 1)?.nanos_per_permit();
        self.0.bucket.set_nanos_per_permit(nanos_per_permit, self.0.clock.now(), |rate| rate.checked(&self.0.name))
    }

    /// Changes for all clones how many permits can be saved up: from 1, to as many as come back within 10 years.
    ///
    /// A larger burst fills with time and is not handed out; what a smaller one cannot hold is gone. Who waits keeps
    /// the time that was promised.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used; the burst stays as it was.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(1)).burst(4).clock(clock).build()?;
    /// limiter.set_burst(100)?;
    /// assert_eq!(limiter.statistics().available, 4);
    /// time.advance(Duration::from_secs(60));
    /// assert_eq!(limiter.statistics().available, 64);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn set_burst(&self, burst: u32) -> Result<(), ConfigError> {
        config::in_range(&self.0.name, "burst", burst, &1, &u32::MAX)?;
        self.0.bucket.set_burst(burst, self.0.clock.now(), |rate| rate.checked(&self.0.name))
    }

    /// Takes `permits`; they may be used from the place's time on: now or within `max_wait`.
    pub(crate) fn place(&self, permits: u32, max_wait: Duration) -> Result<Place, Rejection> {
        let now = self.0.clock.now();
        self.0.bucket.reserve(permits, now, now + max_wait).map_err(|refused| {
            // Relaxed: a counter, nothing is published through it.
            self.0.rejected.fetch_add(1, Ordering::Relaxed);
            let rejection = rejection(&self.0.name, permits, self.0.bucket.rate(), now, refused);
            self.0.observers.emit(&Event::Rejected { rejection: &rejection });
            rejection
        })
    }

    /// Gives up a place that was not used.
    pub(crate) fn give_up(&self, place: Place) {
        self.0.bucket.give_up(place, self.0.clock.now());
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Its figures now. Takes nothing.
    pub fn statistics(&self) -> LimiterStatistics {
        let (rate, empty_at) = self.0.bucket.state();
        LimiterStatistics {
            available: rate.available(empty_at, self.0.clock.now()),
            burst: rate.burst(),
            refill_per_second: rate.per_second(),
            rejected: self.0.rejected.load(Ordering::Relaxed),
        }
    }
}

/// What a limiter called `name` says to who asked for `permits` in vain.
fn rejection(name: &Arc<str>, permits: u32, rate: Rate, now: Instant, refused: Refused) -> Rejection {
    let (reason, retry_after) = match refused {
        Refused::ExceedsBurst => (Reason::ExceedsBurst { requested: permits, burst: rate.burst() }, None),
        Refused::NotBefore(at) => (Reason::RateLimited, Some(at.saturating_duration_since(now))),
    };
    Rejection::new(Arc::clone(name), reason, retry_after)
}

/// How many permits a bucket holds at first; full when nothing was said.
fn checked_start(name: &str, start_with: Option<u32>, rate: Rate) -> Result<u32, ConfigError> {
    start_with.map_or(Ok(rate.burst()), |permits| config::in_range(name, "start_with", permits, &0, &rate.burst()))
}
