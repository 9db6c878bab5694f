//! The rate limiter: blocking and async shells around one bucket, which decides.
//! Never grants more than the burst plus the rate times the span, over any span; a place in the queue that is given
//! up goes to others. Nothing is polled: who waits is told for how long.

mod bucket;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Instant, nanos};
use crate::config::{self, ConfigError};
use crate::event::{Event, Observers};
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};
use bucket::{Bucket, Refused};

pub(crate) use bucket::Place;

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
/// `rate` permits come back per period, evenly; up to `burst` can be saved up and used at once. It starts full.
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
        config::in_range(&self.name, "rate", self.permits, &1, &u32::MAX)?;
        config::positive(&self.name, "period", self.period)?;
        config::in_range(&self.name, "burst", self.burst, &1, &u32::MAX)?;
        let nanos_per_permit = nanos(self.period).div_ceil(u64::from(self.permits));
        let bucket = Bucket::new(nanos_per_permit, self.burst);
        // Filling the whole bucket must stay far from the end of the time line.
        if Duration::from_nanos(bucket.span(self.burst)) > config::MAX_DURATION {
            return Err(ConfigError::new(
                format!("{}.burst", self.name),
                self.burst,
                "a burst that refills within 10 years at this rate",
            ));
        }
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
        self.reserve(permits, Duration::ZERO).map(|_| ())
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
        let waiting = Waiting { limiter: self, place: Some(self.reserve(permits, max_wait)?) };
        let wait = waiting.usable_from().saturating_duration_since(self.0.clock.now());
        if !wait.is_zero() {
            self.0.clock.sleep_blocking(wait);
        }
        waiting.over();
        Ok(())
    }

    /// Takes `permits`, waiting for up to `max_wait` until they are there. First come, first served; only a place that
    /// somebody gave up is taken by who comes next. Dropping the future gives its place up.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when the wait would be longer than `max_wait`.
    pub async fn acquire_async(&self, permits: u32, max_wait: Duration) -> Result<(), Rejection> {
        let waiting = Waiting { limiter: self, place: Some(self.reserve(permits, max_wait)?) };
        if waiting.usable_from() > self.0.clock.now() {
            self.0.clock.sleep_until(waiting.usable_from()).await;
        }
        waiting.over();
        Ok(())
    }

    /// Takes `permits`; they may be used from the place's time on: now or within `max_wait`.
    pub(crate) fn reserve(&self, permits: u32, max_wait: Duration) -> Result<Place, Rejection> {
        let now = self.0.clock.now();
        self.0.bucket.reserve(permits, now, now + max_wait).map_err(|refused| {
            // Relaxed: a counter, nothing is published through it.
            self.0.rejected.fetch_add(1, Ordering::Relaxed);
            let (reason, retry_after) = match refused {
                Refused::ExceedsBurst => {
                    (Reason::ExceedsBurst { requested: permits, burst: self.0.bucket.burst() }, None)
                }
                Refused::NotBefore(at) => (Reason::RateLimited, Some(at.saturating_duration_since(now))),
            };
            let rejection = Rejection::new(Arc::clone(&self.0.name), reason, retry_after);
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
        LimiterStatistics {
            available: self.0.bucket.available(self.0.clock.now()),
            burst: self.0.bucket.burst(),
            refill_per_second: 1e9 / self.0.bucket.nanos_per_permit() as f64,
            rejected: self.0.rejected.load(Ordering::Relaxed),
        }
    }
}

/// A wait for a place, which is given up when the wait does not end.
struct Waiting<'a> {
    limiter: &'a RateLimiter,
    place: Option<Place>,
}

impl Waiting<'_> {
    fn usable_from(&self) -> Instant {
        self.place.map_or_else(Instant::default, |place| place.usable_from)
    }

    fn over(mut self) {
        self.place = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.limiter.give_up(place);
        }
    }
}
