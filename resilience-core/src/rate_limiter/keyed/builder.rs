//! What a keyed limiter is built from, and what a running one is changed to. Checks every value; decides nothing.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::super::builder::{DEFAULT_BURST, DEFAULT_RATE, checked_start};
use super::super::gcra::Rate;
use super::KeyedRateLimiter;
use super::shards::Shards;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// The values of a builder, checked.
pub(super) struct Checked {
    pub(super) rate: Rate,
    pub(super) start_with: Option<u32>,
    pub(super) max_keys: u32,
}

/// Builds a [`KeyedRateLimiter`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, KeyedRateLimiter};
///
/// let (clock, _time) = Clock::manual();
/// let limiter = KeyedRateLimiter::<String>::builder("per_tenant")
///     .rate(10, Duration::from_secs(1))
///     .burst(20)
///     .max_keys(10_000)
///     .clock(clock)
///     .build()?;
/// limiter.try_acquire("blue", 20)?;
/// assert_eq!((limiter.quota("blue").remaining, limiter.quota("green").remaining), (0, 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KeyedRateLimiterBuilder<K, S = RandomState> {
    pub(super) name: Arc<str>,
    permits: u32,
    period: Duration,
    burst: u32,
    start_with: Option<u32>,
    max_keys: u32,
    hasher: S,
    clock: Clock,
    observers: Observers,
    keys: PhantomData<fn() -> K>,
}

impl<K, S> fmt::Debug for KeyedRateLimiterBuilder<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimiterBuilder")
            .field("name", &self.name)
            .field("permits", &self.permits)
            .field("period", &self.period)
            .field("burst", &self.burst)
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

impl<K> KeyedRateLimiterBuilder<K> {
    pub(super) fn new(name: Arc<str>) -> Self {
        let (permits, period) = DEFAULT_RATE;
        Self {
            name,
            permits,
            period,
            burst: DEFAULT_BURST,
            start_with: None,
            max_keys: 1 << 16,
            hasher: RandomState::new(),
            clock: Clock::system(),
            observers: Observers::new(),
            keys: PhantomData,
        }
    }
}

impl<K, S> KeyedRateLimiterBuilder<K, S> {
    /// How many permits (from 1) come back to each key per `period` (more than 0, at most 10 years); default 100 per
    /// 60 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, KeyedRateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").rate(4, Duration::from_secs(1)).burst(1);
    /// let limiter = limiter.clock(clock).build()?;
    /// limiter.try_acquire(&7, 1)?;
    /// assert_eq!(limiter.try_acquire(&7, 1).unwrap_err().retry_after, Some(Duration::from_millis(250)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rate(mut self, permits: u32, period: Duration) -> Self {
        self.permits = permits;
        self.period = period;
        self
    }

    /// How many permits each key can save up. From 1, to as many as come back within 10 years; default 10.
    ///
    /// ```
    /// # use resilience_core::{Clock, KeyedRateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").burst(3).clock(clock).build()?;
    /// assert!(limiter.try_acquire(&7, 3).is_ok());
    /// assert!(limiter.try_acquire(&7, 1).is_err());
    /// assert!(limiter.try_acquire(&8, 3).is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// How many permits a key has when it is first seen, from 0 to the burst (the default). With fewer, a key that
    /// comes back after it was forgotten starts over with these, too.
    ///
    /// ```
    /// # use resilience_core::KeyedRateLimiter;
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").burst(10).start_with(2).build()?;
    /// assert_eq!(limiter.quota(&7).remaining, 2);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn start_with(mut self, permits: u32) -> Self {
        self.start_with = Some(permits);
        self
    }

    /// How many keys are remembered at most, from 1; default 65 536. Each takes 32 to 40 bytes and the size of the key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, KeyedRateLimiter, Reason};
    ///
    /// let (clock, time) = Clock::manual();
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").max_keys(1).clock(clock).build()?;
    /// limiter.try_acquire(&7, 1)?;
    /// assert_eq!(limiter.try_acquire(&8, 1).unwrap_err().reason, Reason::TooManyKeys { max_keys: 1 });
    /// time.advance(Duration::from_secs(60)); // 7 has all its permits back and can be forgotten
    /// assert!(limiter.try_acquire(&8, 1).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_keys(mut self, keys: u32) -> Self {
        self.max_keys = keys;
        self
    }

    /// How keys are hashed. The default withstands keys that were chosen to collide; a faster one may not.
    ///
    /// ```
    /// use std::hash::{BuildHasherDefault, DefaultHasher};
    /// use resilience_core::KeyedRateLimiter;
    ///
    /// type Hasher = BuildHasherDefault<DefaultHasher>; // for keys that nobody can choose
    /// let limiter: KeyedRateLimiter<u64, Hasher> =
    ///     KeyedRateLimiter::builder("per_shard").hasher(Hasher::default()).build()?;
    /// limiter.try_acquire(&7, 1)?;
    /// assert_eq!(limiter.statistics().keys, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn hasher<H: BuildHasher>(self, hasher: H) -> KeyedRateLimiterBuilder<K, H> {
        KeyedRateLimiterBuilder {
            name: self.name,
            permits: self.permits,
            period: self.period,
            burst: self.burst,
            start_with: self.start_with,
            max_keys: self.max_keys,
            hasher,
            clock: self.clock,
            observers: self.observers,
            keys: PhantomData,
        }
    }

    /// Where it takes the time from. Default: the system's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{KeyedRateLimiter, ManualClock};
    ///
    /// let time = ManualClock::new();
    /// let hour = Duration::from_secs(3600);
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").rate(1, hour).burst(1).clock(time.clock()).build()?;
    /// limiter.try_acquire(&7, 1)?;
    /// time.advance(hour); // a test need not wait for it
    /// assert!(limiter.try_acquire(&7, 1).is_ok());
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
    /// use resilience_core::{Event, KeyedRateLimiter, Observers};
    ///
    /// let seen = Arc::new(Mutex::new(Vec::new()));
    /// let refusals = Arc::clone(&seen);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::Rejected { rejection, .. } = event {
    ///         refusals.lock().unwrap().push(rejection.policy.to_string());
    ///     }
    /// }));
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").start_with(0).observers(observers).build()?;
    /// assert!(limiter.try_acquire(&7, 10).is_err());
    /// assert_eq!(*seen.lock().unwrap(), ["per_user"]);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// The rate, what keys start with when that was said, and how many there can be, when all can be used.
    pub(super) fn checked(&self) -> Result<Checked, ConfigError> {
        config::name(&self.name)?;
        let rate = Rate::new(&self.name, self.permits, self.period, self.burst)?;
        checked_start(&self.name, self.start_with, rate.burst())?;
        let max_keys = config::in_range(&self.name, "max_keys", self.max_keys, &1, &u32::MAX)?;
        Ok(Checked { rate, start_with: self.start_with, max_keys })
    }

    /// Checks the values and makes the limiter.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// # use resilience_core::KeyedRateLimiter;
    /// let error = KeyedRateLimiter::<u64>::builder("per_user").max_keys(0).build().unwrap_err();
    /// assert_eq!(error.field, "per_user.max_keys");
    /// ```
    pub fn build(self) -> Result<KeyedRateLimiter<K, S>, ConfigError> {
        let Checked { rate, start_with, max_keys } = self.checked()?;
        let shards = Shards::new(rate, start_with, max_keys, self.hasher);
        Ok(KeyedRateLimiter::new(self.name, shards, self.clock, self.observers))
    }
}
