//! What a limiter is built from, and what a running one is changed to. Checks every value; decides nothing.

use std::sync::Arc;
use std::time::Duration;

use super::algorithm::{Algorithm, Limit, no_burst};
use super::gcra::Rate;
use super::{RateLimiter, Shared};
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// Permits, and the span in which they come back.
pub(super) const DEFAULT_RATE: (u32, Duration) = (100, Duration::from_secs(60));
pub(super) const DEFAULT_BURST: u32 = 10;

/// Builds a [`RateLimiter`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, RateLimiter};
///
/// let (clock, time) = Clock::manual();
/// let limiter = RateLimiter::builder("search")
///     .rate(10, Duration::from_secs(1))
///     .burst(20)
///     .start_with(5)
///     .clock(clock)
///     .build()?;
/// limiter.try_acquire(5)?;
/// time.advance(Duration::from_secs(60));
/// assert_eq!(limiter.statistics().available, 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RateLimiterBuilder {
    pub(super) name: Arc<str>,
    rate: Option<(u32, Duration)>,
    burst: Option<u32>,
    window: Option<(u32, Duration)>,
    start_with: Option<u32>,
    clock: Clock,
    observers: Observers,
}

impl RateLimiterBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            rate: None,
            burst: None,
            window: None,
            start_with: None,
            clock: Clock::system(),
            observers: Observers::new(),
        }
    }

    /// How many permits (from 1) come back per `period` (more than 0, at most 10 years); default 100 per 60 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, RateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(4, Duration::from_secs(1)).burst(1).clock(clock).build()?;
    /// limiter.try_acquire(1)?;
    /// assert_eq!(limiter.try_acquire(1).unwrap_err().retry_after, Some(Duration::from_millis(250)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rate(mut self, permits: u32, period: Duration) -> Self {
        self.rate = Some((permits, period));
        self
    }

    /// How many permits can be saved up and used at once. From 1, to as many as come back within 10 years; default 10.
    ///
    /// ```
    /// # use resilience_core::{Clock, RateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").burst(3).clock(clock).build()?;
    /// assert!(limiter.try_acquire(3).is_ok());
    /// assert!(limiter.try_acquire(1).is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Instead of a rate and a burst: at most `permits` (1 to 1 000 000) in any `span` of time (more than 0, at most
    /// 10 years), wherever it starts. All of them can be had at once; each can be had again exactly a `span` after it
    /// was granted.
    ///
    /// A token bucket of the same rate, with a burst of as many, grants up to twice as many in one span: the burst,
    /// and what comes back meanwhile. The price is memory, 16 bytes per permit, set aside when it is built, and a lock
    /// in place of an atomic word.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = RateLimiter::builder("api").sliding_window(2, second).clock(clock).build()?;
    /// assert!(limiter.try_acquire(1).is_ok());
    /// time.advance(second / 2);
    /// assert!(limiter.try_acquire(1).is_ok());
    /// assert_eq!(limiter.try_acquire(1).unwrap_err().retry_after, Some(second / 2));
    /// time.advance(second / 2);
    /// assert!(limiter.try_acquire(1).is_ok(), "the first one has left the window");
    /// assert!(limiter.try_acquire(1).is_err(), "the second one has not");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "sliding_window_log")]
    pub fn sliding_window(mut self, permits: u32, span: Duration) -> Self {
        self.window = Some((permits, span));
        self
    }

    /// How many permits it holds at first, from 0 (empty) to the burst or the window's permits (full, the default). A
    /// process that restarts often and starts full grants a burst at each start. A window counts those that it does
    /// not hold as granted when it was built.
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{ManualClock, RateLimiter};
    ///
    /// let time = ManualClock::new();
    /// let hour = Duration::from_secs(3600);
    /// let limiter = RateLimiter::builder("search").rate(1, hour).burst(1).clock(time.clock()).build()?;
    /// limiter.try_acquire(1)?;
    /// time.advance(hour); // a test need not wait for it
    /// assert!(limiter.try_acquire(1).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of its refusals. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use resilience_core::{Event, Observers, RateLimiter};
    ///
    /// let seen = Arc::new(Mutex::new(Vec::new()));
    /// let refusals = Arc::clone(&seen);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::Rejected { rejection, .. } = event {
    ///         refusals.lock().unwrap().push(rejection.policy.to_string());
    ///     }
    /// }));
    /// let limiter = RateLimiter::builder("search").start_with(0).observers(observers).build()?;
    /// assert!(limiter.try_acquire(10).is_err());
    /// assert_eq!(*seen.lock().unwrap(), ["search"]);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// The limit and what it starts with, when all values can be used.
    pub(super) fn checked(&self) -> Result<(Limit, u32), ConfigError> {
        config::name(&self.name)?;
        let limit = match self.window {
            None => {
                let (permits, period) = self.rate.unwrap_or(DEFAULT_RATE);
                Limit::Bucket(Rate::new(&self.name, permits, period, self.burst.unwrap_or(DEFAULT_BURST))?)
            }
            Some((permits, span)) => {
                if let Some((permits, period)) = self.rate {
                    let value = format!("{permits} per {period:?}");
                    let allowed = "no rate: a sliding window has its permits and its span";
                    return Err(ConfigError::new(format!("{}.rate", self.name), value, allowed));
                }
                if let Some(burst) = self.burst {
                    return Err(no_burst(&self.name, burst));
                }
                Limit::window(&self.name, permits, span)?
            }
        };
        let start_with = checked_start(&self.name, self.start_with, limit.at_once())?;
        Ok((limit, start_with))
    }

    /// Checks the values and makes the limiter.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// # use resilience_core::RateLimiter;
    /// let error = RateLimiter::builder("search").burst(0).build().unwrap_err();
    /// assert_eq!(error.field, "search.burst");
    /// ```
    pub fn build(self) -> Result<RateLimiter, ConfigError> {
        let (limit, start_with) = self.checked()?;
        let algorithm = Algorithm::new(limit, start_with, self.clock.now());
        Ok(RateLimiter::new(Shared::new(self.name, algorithm, self.clock, self.observers)))
    }
}

/// How many permits a limiter holds at first; all of them when nothing was said.
pub(super) fn checked_start(name: &str, start_with: Option<u32>, at_once: u32) -> Result<u32, ConfigError> {
    start_with.map_or(Ok(at_once), |permits| config::in_range(name, "start_with", permits, &0, &at_once))
}
