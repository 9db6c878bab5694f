//! The rate limiter: blocking and async shells around one token bucket or one sliding window, which decides.
//! Never grants more than the burst plus the rate times the span, over any span, or than the window allows; a place in
//! the queue that is given up goes to others. Nothing is polled: who waits is told for how long.

mod algorithm;
mod bucket;
mod builder;
mod gaps;
mod gcra;
mod keyed;
mod quota;
mod reservation;
mod table;
mod window;

pub use builder::RateLimiterBuilder;
pub use keyed::{KeyedRateLimiter, KeyedRateLimiterBuilder, KeyedStatistics, OfKey};
pub use quota::{Quota, delay_seconds};
pub use reservation::Reservation;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::clock::{Clock, Instant};
use crate::config::ConfigError;
use crate::deadline;
use crate::event::{Event, Observers};
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};
use algorithm::Algorithm;
use gcra::Refused;

pub(crate) use gcra::Place;

/// A limiter's figures at one moment.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, RateLimiter};
///
/// let (clock, _time) = Clock::manual();
/// let limiter = RateLimiter::builder("search").rate(10, Duration::from_secs(2)).burst(4).clock(clock).build()?;
/// limiter.try_acquire(3)?;
/// assert!(limiter.try_acquire(2).is_err());
/// let seen = limiter.statistics();
/// assert_eq!((seen.available, seen.used, seen.burst, seen.rejected), (1, 3, 4, 1));
/// assert_eq!(seen.refill_per_second, 5.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LimiterStatistics {
    /// Permits that could be had at once now.
    pub available: u32,
    /// Permits that are used up now: those of a sliding window's last span, with those promised, or what a bucket lacks.
    #[cfg_attr(feature = "serde", serde(default))]
    pub used: u32,
    /// Permits that can be had at once at most: the burst, or the permits of a sliding window.
    pub burst: u32,
    /// Permits that come back per second.
    pub refill_per_second: f64,
    /// Requests that were refused.
    pub rejected: u64,
}

struct Shared {
    algorithm: Algorithm,
    name: Arc<str>,
    clock: Clock,
    observers: Observers,
    /// On a line of its own: refusals must not slow down those who are granted.
    rejected: CachePadded<AtomicU64>,
}

impl Shared {
    fn new(name: Arc<str>, algorithm: Algorithm, clock: Clock, observers: Observers) -> Arc<Self> {
        Arc::new(Self { algorithm, name, clock, observers, rejected: CachePadded::new(AtomicU64::new(0)) })
    }
}

/// A rate limiter. Cheap to clone: clones share one limit, in every thread, sync and async.
///
/// It is a token bucket, or a [`sliding_window`](RateLimiterBuilder::sliding_window) where a contract says "at most so
/// many in any minute" and means it. All that follows is of the bucket; both have the same functions.
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
            .field("algorithm", &self.0.algorithm)
            .finish_non_exhaustive()
    }
}

impl RateLimiter {
    /// Starts building a limiter called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::RateLimiter;
    ///
    /// let limiter = RateLimiter::builder("search").build()?;
    /// assert_eq!(limiter.statistics().burst, 10);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> RateLimiterBuilder {
        RateLimiterBuilder::new(name.into())
    }

    const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Whether it can be reconfigured to what `other` is.
    #[cfg(feature = "serde")]
    pub(crate) fn same_algorithm(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.0.algorithm) == std::mem::discriminant(&other.0.algorithm)
    }

    /// Its name.
    ///
    /// ```
    /// # use resilience_core::RateLimiter;
    /// let limiter = RateLimiter::builder("search").build()?;
    /// assert_eq!(limiter.name(), "search");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Takes `permits` now, or not at all. Never ahead of those who wait.
    ///
    /// # Errors
    /// A [`Rejection`] when they are not there; it says when they would be, or that they never will.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter, Reason};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(1)).burst(5).clock(clock).build()?;
    /// assert!(limiter.try_acquire(4).is_ok());
    /// assert_eq!(limiter.try_acquire(3).unwrap_err().retry_after, Some(Duration::from_secs(2)));
    /// let never = limiter.try_acquire(6).unwrap_err();
    /// assert_eq!((never.reason, never.retry_after), (Reason::ExceedsBurst { requested: 6, burst: 5 }, None));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn try_acquire(&self, permits: u32) -> Result<(), Rejection> {
        let now = self.0.clock.now();
        match self.0.algorithm.reserve(permits, now, now) {
            Ok(_) => Ok(()),
            Err(refused) => Err(self.refuse(permits, now, refused)),
        }
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
        self.reserve(permits, deadline::bounded(&self.0.clock, max_wait))?.wait();
        Ok(())
    }

    /// Takes `permits`, waiting for up to `max_wait` until they are there. First come, first served; only a place that
    /// somebody gave up is taken by who comes next. Dropping the future gives its place up.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when the wait would be longer than `max_wait`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{ManualClock, RateLimiter};
    ///
    /// let (time, second) = (ManualClock::auto_advancing(), Duration::from_secs(1));
    /// let limiter = RateLimiter::builder("search").rate(1, second).burst(1).clock(time.clock()).build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(async {
    ///     limiter.acquire_async(1, second).await?;
    ///     limiter.acquire_async(1, second).await
    /// })?;
    /// assert_eq!(time.elapsed(), second); // the second had to wait
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn acquire_async(&self, permits: u32, max_wait: Duration) -> Result<(), Rejection> {
        self.reserve(permits, deadline::bounded(&self.0.clock, max_wait))?.wait_async().await;
        Ok(())
    }

    /// Takes `permits` for now or for a time within `max_wait`, and leaves the waiting to the caller: to do something
    /// else meanwhile, or to weigh the wait. Given up when it is dropped unused.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when they would be there only after `max_wait`, or never.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = RateLimiter::builder("mail").rate(1, second).burst(1).clock(clock).build()?;
    /// limiter.reserve(1, Duration::ZERO)?.used();
    /// assert_eq!(limiter.reserve(1, second)?.ready_in(), second); // dropped, so the place is free again
    /// assert!(limiter.reserve(1, second / 2).is_err(), "not within half a second");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        self.0.algorithm.peek(permits, now).map_err(|refused| rejection(&self.0.name, permits, now, refused))
    }

    /// What to tell the caller in response headers: limit, remaining, reset. Takes nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(6)).burst(10).clock(clock).build()?;
    /// limiter.try_acquire(4)?;
    /// let quota = limiter.quota();
    /// assert_eq!((quota.limit, quota.remaining, quota.reset_seconds()), (10, 6, 6));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn quota(&self) -> Quota {
        Quota::of(&self.0.name, &self.0.algorithm.figures(self.0.clock.now()))
    }

    /// Takes the limit over from `builder`, for all clones, while requests are under way: rate and burst, or the
    /// window's permits and span, both at one moment. What the builder says of the start, clock and observers is not
    /// looked at.
    ///
    /// Saved permits and promised times are kept as by [`set_rate`](Self::set_rate) and [`set_burst`](Self::set_burst).
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used: also another name, or another algorithm (a bucket cannot
    /// become a sliding window). All stays as it was.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = RateLimiter::builder("search").rate(1, second).burst(4).clock(clock).build()?;
    /// limiter.try_acquire(3).unwrap();
    /// limiter.reconfigure(RateLimiter::builder("search").rate(10, second).burst(20))?;
    /// assert_eq!(limiter.statistics().available, 1);
    /// time.advance(second);
    /// assert_eq!(limiter.statistics().available, 11);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[doc(alias = "changeLimitForPeriod")]
    #[expect(clippy::needless_pass_by_value, reason = "as `build`: a builder is used once")]
    pub fn reconfigure(&self, builder: RateLimiterBuilder) -> Result<(), ConfigError> {
        let (limit, _) = builder.checked()?;
        same_name(&self.0.name, &builder.name)?;
        self.0.algorithm.change(&self.0.name, limit, self.0.clock.now())
    }

    /// Changes the rate for all clones: `permits` (from 1) come back per `period` (more than 0, at most 10 years).
    ///
    /// Saved permits stay as many as they are: neither is a burst handed out, nor is one lost. Who waits keeps the
    /// time that was promised, and the new rate holds from the last of these times on, so nobody is overtaken.
    ///
    /// Of a sliding window it changes the permits (at most 1 000 000) and the span. What was granted is still counted,
    /// as long as the old span had not forgotten it, so a larger window has at once what it has more.
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
        self.0.algorithm.set_rate(&self.0.name, permits, period, self.0.clock.now())
    }

    /// Changes for all clones how many permits can be saved up: from 1, to as many as come back within 10 years.
    ///
    /// A larger burst fills with time and is not handed out; what a smaller one cannot hold is gone. Who waits keeps
    /// the time that was promised.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used; the burst stays as it was. A sliding window has none.
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
        self.0.algorithm.set_burst(&self.0.name, burst, self.0.clock.now())
    }

    /// Takes `permits`; they may be used from the place's time on: now or within `max_wait`.
    #[inline]
    pub(crate) fn place(&self, permits: u32, max_wait: Duration) -> Result<Place, Rejection> {
        self.place_at(self.0.clock.now(), permits, max_wait)
    }

    /// The same for who knows what time it is on the limiter's clock.
    #[inline]
    pub(crate) fn place_at(&self, now: Instant, permits: u32, max_wait: Duration) -> Result<Place, Rejection> {
        self.0.algorithm.reserve(permits, now, now + max_wait).map_err(|refused| self.refuse(permits, now, refused))
    }

    /// Counts a refusal, tells the observers, and says it.
    #[cold]
    fn refuse(&self, permits: u32, now: Instant, refused: Refused) -> Rejection {
        // Relaxed: a counter, nothing is published through it.
        self.0.rejected.fetch_add(1, Ordering::Relaxed);
        let rejection = rejection(&self.0.name, permits, now, refused);
        self.0.observers.emit(&Event::Rejected { rejection: &rejection });
        rejection
    }

    /// Gives up a place that was not used.
    pub(crate) fn give_up(&self, place: Place) {
        self.0.algorithm.give_up(place, self.0.clock.now());
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Its figures now. Takes nothing.
    ///
    /// ```
    /// # use resilience_core::{Clock, RateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").burst(10).clock(clock).build()?;
    /// limiter.try_acquire(4)?;
    /// assert_eq!(limiter.statistics().available, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statistics(&self) -> LimiterStatistics {
        let figures = self.0.algorithm.figures(self.0.clock.now());
        LimiterStatistics {
            available: figures.available,
            used: figures.used,
            burst: figures.burst,
            refill_per_second: figures.per_second,
            rejected: self.0.rejected.load(Ordering::Relaxed),
        }
    }
}

/// What a limiter called `name` says to who asked for `permits` in vain.
fn rejection(name: &Arc<str>, permits: u32, now: Instant, refused: Refused) -> Rejection {
    let (reason, retry_after) = match refused {
        Refused::ExceedsBurst { burst } => (Reason::ExceedsBurst { requested: permits, burst }, None),
        Refused::NotBefore(at) => (Reason::RateLimited, Some(at.saturating_duration_since(now))),
    };
    Rejection::new(Arc::clone(name), reason, retry_after)
}

/// A limiter called `name` keeps its name.
fn same_name(name: &str, other: &str) -> Result<(), ConfigError> {
    if name == other {
        return Ok(());
    }
    Err(ConfigError::new("name", format!("`{other}`"), format!("`{name}`: a limiter keeps its name")))
}
