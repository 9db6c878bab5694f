//! One limit for each key (user, tenant, address), in bounded memory: many buckets of the one algorithm, in shards.
//! A key that is forgotten had a full bucket, so it never gains by it. Each key has its own queue, first come first
//! served. Token buckets only: a sliding window per key would remember every grant of every key.

mod builder;
mod shards;

pub use builder::KeyedRateLimiterBuilder;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::gcra::{Place, Rate};
use super::quota::{Figures, Quota};
use super::reservation::{Limits, Reservation};
use super::{rejection, same_name};
use crate::clock::{Clock, Instant};
use crate::config::{self, ConfigError};
use crate::deadline;
use crate::event::{Event, Observers};
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};
use builder::Checked;
use shards::{KeyRefused, Shards, until};

/// A keyed limiter's figures at one moment.
///
/// ```
/// use resilience_core::{Clock, KeyedRateLimiter};
///
/// let (clock, _time) = Clock::manual();
/// let limiter = KeyedRateLimiter::<String>::builder("per_tenant").burst(2).max_keys(2).clock(clock).build()?;
/// limiter.try_acquire("blue", 2)?;
/// limiter.try_acquire("green", 1)?;
/// assert!(limiter.try_acquire("blue", 1).is_err(), "no permits");
/// assert!(limiter.try_acquire("red", 1).is_err(), "no room");
/// let seen = limiter.statistics();
/// assert_eq!((seen.keys, seen.max_keys, seen.rejected, seen.rejected_keys), (2, 2, 2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KeyedStatistics {
    /// Keys that are remembered.
    pub keys: u64,
    /// Keys that can be remembered at most.
    pub max_keys: u32,
    /// Permits that a key can have at once at most.
    pub burst: u32,
    /// Permits that come back to each key per second.
    pub refill_per_second: f64,
    /// Keys that were forgotten, because their permits were all back.
    pub evicted: u64,
    /// Requests that were refused.
    pub rejected: u64,
    /// Those among them that were refused because there was no room for their key.
    pub rejected_keys: u64,
}

struct Shared<K, S> {
    shards: Shards<K, S>,
    name: Arc<str>,
    clock: Clock,
    observers: Observers,
    rejected: CachePadded<AtomicU64>,
    rejected_keys: AtomicU64,
}

/// A rate limiter that gives each key its own limit. Cheap to clone: clones share their state.
///
/// It remembers at most [`max_keys`](KeyedRateLimiterBuilder::max_keys) keys. A key whose permits are all back looks
/// like one never seen, so it is forgotten: each new key looks at two remembered ones and drops those. There is no
/// sweep, no timer and no thread. What is forgotten this way gains nothing: to each key, at most burst + rate × span is
/// granted over any span, whoever else comes and goes.
///
/// When it is full of keys that are in use, **new keys are refused** ([`Reason::TooManyKeys`]) and known ones served as
/// before. The alternative, dropping a key that is in use, would give it a new burst: who can make many keys could so
/// lift the limit for all. Choose `max_keys` for the keys that come within the time of refilling a burst.
///
/// Looking a known key up allocates nothing and needs no owned key: a `&str` will do for a `String`. Permits are taken
/// under the lock of the key's shard, which is held for nanoseconds; threads meet only within a shard. The key's own
/// `Eq`, `Drop` and `to_owned` run under that lock and must not call the limiter.
///
/// Who waits, waits in its key's queue; keys do not wait for each other. A key with a queue is never forgotten.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, KeyedRateLimiter};
///
/// let (clock, _time) = Clock::manual();
/// let limiter = KeyedRateLimiter::<String>::builder("per_tenant")
///     .rate(10, Duration::from_secs(1))
///     .burst(2)
///     .max_keys(10_000)
///     .clock(clock)
///     .build()?;
/// assert!(limiter.try_acquire("blue", 2).is_ok());
/// assert!(limiter.try_acquire("green", 1).is_ok(), "another key, another limit");
/// let refused = limiter.try_acquire("blue", 1).unwrap_err();
/// assert_eq!(refused.retry_after, Some(Duration::from_millis(100)));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub struct KeyedRateLimiter<K, S = RandomState>(Arc<Shared<K, S>>);

impl<K, S> Clone for KeyedRateLimiter<K, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, S> fmt::Debug for KeyedRateLimiter<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No keys: they may be secrets.
        f.debug_struct("KeyedRateLimiter")
            .field("name", &self.0.name)
            .field("rate", &self.0.shards.rate())
            .field("keys", &self.0.shards.keys())
            .finish_non_exhaustive()
    }
}

impl<K> KeyedRateLimiter<K> {
    /// Starts building a limiter called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::KeyedRateLimiter;
    ///
    /// let per_user = KeyedRateLimiter::<u64>::builder("per_user").build()?;
    /// assert_eq!(per_user.quota(&7).limit, 10);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> KeyedRateLimiterBuilder<K> {
        KeyedRateLimiterBuilder::new(name.into())
    }
}

impl<K, S> KeyedRateLimiter<K, S> {
    fn new(name: Arc<str>, shards: Shards<K, S>, clock: Clock, observers: Observers) -> Self {
        let (rejected, rejected_keys) = (CachePadded::default(), AtomicU64::new(0));
        Self(Arc::new(Shared { shards, name, clock, observers, rejected, rejected_keys }))
    }

    /// Its name.
    ///
    /// ```
    /// # use resilience_core::KeyedRateLimiter;
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").build()?;
    /// assert_eq!(limiter.name(), "per_user");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Its figures now. Takes nothing.
    ///
    /// ```
    /// # use resilience_core::{Clock, KeyedRateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").clock(clock).build()?;
    /// limiter.try_acquire(&7, 1)?;
    /// limiter.try_acquire(&8, 1)?;
    /// assert_eq!(limiter.statistics().keys, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statistics(&self) -> KeyedStatistics {
        let (shared, rate) = (&*self.0, self.0.shards.rate());
        KeyedStatistics {
            keys: shared.shards.keys(),
            max_keys: shared.shards.max_keys(),
            burst: rate.burst(),
            refill_per_second: rate.per_second(),
            evicted: shared.shards.evicted(),
            rejected: shared.rejected.load(Ordering::Relaxed),
            rejected_keys: shared.rejected_keys.load(Ordering::Relaxed),
        }
    }

    /// Changes the rate for all keys: `permits` (from 1) come back to each per `period` (more than 0, at most 10
    /// years). Each key keeps what it has saved, and who waits keeps the time that was promised, as with
    /// [`RateLimiter::set_rate`](super::RateLimiter::set_rate).
    ///
    /// It goes over all remembered keys, under the lock of one shard at a time, so calls meanwhile are not held up.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used; the rate stays as it was.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, KeyedRateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").rate(1, second).burst(4).clock(clock).build()?;
    /// limiter.try_acquire(&7, 4)?;
    /// limiter.set_rate(2, second)?;
    /// assert_eq!(limiter.quota(&7).remaining, 0); // nothing is handed out
    /// time.advance(second);
    /// assert_eq!(limiter.quota(&7).remaining, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_rate(&self, permits: u32, period: Duration) -> Result<(), ConfigError> {
        let nanos_per_permit = Rate::new(&self.0.name, permits, period, 1)?.nanos_per_permit();
        self.0.shards.change(self.0.clock.now(), |old, start_with| {
            Ok((Rate::of(nanos_per_permit, old.burst()).checked(&self.0.name)?, start_with))
        })
    }

    /// Changes how many permits each key can save up: from 1 and what keys start with, to as many as come back within
    /// 10 years. A larger burst fills with time, also for keys never seen; what a smaller one cannot hold is gone.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used; the burst stays as it was.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, KeyedRateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").rate(1, second).burst(4).clock(clock).build()?;
    /// limiter.set_burst(100)?;
    /// assert_eq!(limiter.quota(&7).remaining, 4);
    /// time.advance(Duration::from_secs(60));
    /// assert_eq!(limiter.quota(&7).remaining, 64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_burst(&self, burst: u32) -> Result<(), ConfigError> {
        self.0.shards.change(self.0.clock.now(), |old, start_with| {
            config::in_range(&self.0.name, "burst", burst, &start_with.unwrap_or(1).max(1), &u32::MAX)?;
            Ok((Rate::of(old.nanos_per_permit(), burst).checked(&self.0.name)?, start_with))
        })
    }

    /// Takes rate, burst and what new keys start with over from `builder`, all at one moment for each key. What the
    /// builder says of the hasher, clock and observers is not looked at.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used: also another name, or another number of keys. All stays
    /// as it was.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, KeyedRateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").rate(1, second).burst(4).clock(clock).build()?;
    /// limiter.try_acquire(&7, 3).unwrap();
    /// limiter.reconfigure(KeyedRateLimiter::builder("per_user").rate(10, second).burst(20))?;
    /// assert_eq!((limiter.quota(&7).remaining, limiter.quota(&8).remaining), (1, 4));
    /// time.advance(second);
    /// assert_eq!((limiter.quota(&7).remaining, limiter.quota(&8).remaining), (11, 14));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "as `build`: a builder is used once")]
    pub fn reconfigure<H>(&self, builder: KeyedRateLimiterBuilder<K, H>) -> Result<(), ConfigError> {
        let Checked { rate, start_with, max_keys } = builder.checked()?;
        same_name(&self.0.name, &builder.name)?;
        let built = self.0.shards.max_keys();
        config::in_range(&self.0.name, "max_keys", max_keys, &built, &built)?;
        self.0.shards.change(self.0.clock.now(), |_, _| Ok((rate, start_with)))
    }
}

impl<K: Hash + Eq, S: BuildHasher> KeyedRateLimiter<K, S> {
    /// Takes `permits` of `key` now, or not at all. Never ahead of those who wait for the key.
    ///
    /// # Errors
    /// A [`Rejection`] when they are not there, which says when they would be, or that they never will; or when the
    /// key is new and there is no room for it, which says when asking again may help.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, KeyedRateLimiter};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let limiter = KeyedRateLimiter::<String>::builder("per_tenant").rate(1, Duration::from_secs(1)).burst(2);
    /// let limiter = limiter.clock(clock).build()?;
    /// assert!(limiter.try_acquire("blue", 2).is_ok());
    /// assert_eq!(limiter.try_acquire("blue", 1).unwrap_err().retry_after, Some(Duration::from_secs(1)));
    /// assert!(limiter.try_acquire("green", 1).is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn try_acquire<Q>(&self, key: &Q, permits: u32) -> Result<(), Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.place(key, permits, Duration::ZERO).map(|_| ())
    }

    /// Takes `permits` of `key`, blocking the thread for up to `max_wait` until they are there. First come, first
    /// served within the key; only a place that somebody gave up is taken by who comes next.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when the wait would be longer than `max_wait`, or there is no room for a new key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{KeyedRateLimiter, ManualClock};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let limiter = KeyedRateLimiter::<String>::builder("per_tenant").rate(1, Duration::from_secs(1)).burst(1);
    /// let limiter = limiter.clock(time.clock()).build()?;
    /// for _ in 0..3 {
    ///     limiter.acquire("blue", 1, Duration::from_secs(10)).expect("ten seconds are enough");
    /// }
    /// assert_eq!(time.elapsed(), Duration::from_secs(2));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn acquire<Q>(&self, key: &Q, permits: u32, max_wait: Duration) -> Result<(), Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.reserve(key, permits, deadline::bounded(&self.0.clock, max_wait))?.wait();
        Ok(())
    }

    /// Takes `permits` of `key`, waiting for up to `max_wait` until they are there. First come, first served within
    /// the key; only a place that somebody gave up is taken by who comes next. Dropping the future gives its place up.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when the wait would be longer than `max_wait`, or there is no room for a new key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{KeyedRateLimiter, ManualClock};
    ///
    /// let (time, second) = (ManualClock::auto_advancing(), Duration::from_secs(1));
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").rate(1, second).burst(1);
    /// let limiter = limiter.clock(time.clock()).build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(async {
    ///     limiter.acquire_async(&7, 1, second).await?;
    ///     limiter.acquire_async(&8, 1, second).await?;
    ///     assert_eq!(time.elapsed(), Duration::ZERO); // keys do not wait for each other
    ///     limiter.acquire_async(&7, 1, second).await
    /// })?;
    /// assert_eq!(time.elapsed(), second);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn acquire_async<Q>(&self, key: &Q, permits: u32, max_wait: Duration) -> Result<(), Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.reserve(key, permits, deadline::bounded(&self.0.clock, max_wait))?.wait_async().await;
        Ok(())
    }

    /// Takes `permits` of `key` for now or for a time within `max_wait`, and leaves the waiting to the caller. Given
    /// up when it is dropped unused.
    ///
    /// # Errors
    /// A [`Rejection`], at once, when they would be there only after `max_wait`, or never, or there is no room for a
    /// new key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, KeyedRateLimiter};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = KeyedRateLimiter::<String>::builder("per_tenant").rate(1, second).burst(1).clock(clock).build()?;
    /// limiter.try_acquire("blue", 1).unwrap();
    /// let reservation = limiter.reserve("blue", 1, second).unwrap();
    /// assert_eq!(reservation.ready_in(), second);
    /// drop(reservation); // something else came up
    /// assert_eq!(limiter.peek("blue", 1).unwrap_err().retry_after, Some(second), "nobody queues");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn reserve<'a, Q>(
        &'a self,
        key: &'a Q,
        permits: u32,
        max_wait: Duration,
    ) -> Result<Reservation<'a, OfKey<'a, K, Q, S>>, Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let place = self.place(key, permits, max_wait)?;
        Ok(Reservation::new(OfKey { limiter: self, key }, permits, place))
    }

    /// Takes `permits` of `key`; they may be used from the place's time on: now or within `max_wait`.
    #[inline]
    pub(crate) fn place<Q>(&self, key: &Q, permits: u32, max_wait: Duration) -> Result<Place, Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.place_at(self.0.clock.now(), key, permits, max_wait)
    }

    /// The same for who knows what time it is on the limiter's clock.
    #[inline]
    pub(crate) fn place_at<Q>(
        &self,
        now: Instant,
        key: &Q,
        permits: u32,
        max_wait: Duration,
    ) -> Result<Place, Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let taken = self.0.shards.take(key, permits, now, now + max_wait);
        taken.map_err(|refused| self.0.refuse(permits, now, refused))
    }

    /// Gives up a place of `key` that was not used.
    pub(crate) fn give_up<Q>(&self, key: &Q, place: Place)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.shards.give_up(key, place, self.0.clock.now());
    }

    /// What [`try_acquire`](Self::try_acquire) would answer now, if there is room for the key. Takes nothing, counts
    /// nothing, remembers nothing, tells no observer.
    ///
    /// # Errors
    /// The [`Rejection`] that `try_acquire` would return.
    ///
    /// ```
    /// use resilience_core::KeyedRateLimiter;
    ///
    /// let limiter = KeyedRateLimiter::<String>::builder("per_tenant").burst(2).build()?;
    /// assert!(limiter.peek("blue", 2).is_ok());
    /// assert_eq!(limiter.statistics().keys, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn peek<Q>(&self, key: &Q, permits: u32) -> Result<(), Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shared = &*self.0;
        let now = shared.clock.now();
        let peeked = shared.shards.look(key, now, |rate, held| held.peek(rate, permits, now));
        peeked.map_err(|refused| rejection(&shared.name, permits, now, refused))
    }

    /// What to tell who came with `key` in response headers. Takes nothing, remembers nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, KeyedRateLimiter};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let limiter = KeyedRateLimiter::<u64>::builder("per_user").rate(1, Duration::from_secs(1)).burst(5).clock(clock);
    /// let limiter = limiter.build()?;
    /// limiter.try_acquire(&7, 2).unwrap();
    /// assert_eq!(limiter.quota(&7).limit_field().to_string(), r#""per_user";r=3;t=1"#);
    /// assert_eq!(limiter.quota(&8).remaining, 5);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn quota<Q>(&self, key: &Q) -> Quota
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shared = &*self.0;
        let now = shared.clock.now();
        let figures = shared.shards.look(key, now, |rate, held| Figures::of(rate, held.empty_at, now));
        Quota::of(&shared.name, &figures)
    }
}

impl<K, S> Shared<K, S> {
    /// Counts a refusal, tells the observers, and says it.
    fn refuse(&self, permits: u32, now: Instant, refused: KeyRefused) -> Rejection {
        // Relaxed: counters, nothing is published through them.
        self.rejected.fetch_add(1, Ordering::Relaxed);
        let rejection = match refused {
            KeyRefused::Permits(refused) => rejection(&self.name, permits, now, refused),
            KeyRefused::NoRoom(idle_at) => {
                self.rejected_keys.fetch_add(1, Ordering::Relaxed);
                let reason = Reason::TooManyKeys { max_keys: self.shards.max_keys() };
                Rejection::new(Arc::clone(&self.name), reason, idle_at.map(|idle_at| until(idle_at, now)))
            }
        };
        self.observers.emit(&Event::Rejected { rejection: &rejection });
        rejection
    }
}

/// A key of a keyed limiter: whose permits a [`Reservation`] holds.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{KeyedRateLimiter, rate_limiter::{OfKey, Reservation}};
///
/// struct Job<'a> {
///     place: Reservation<'a, OfKey<'a, String, str>>,
/// }
///
/// let limiter = KeyedRateLimiter::<String>::builder("per_tenant").build()?;
/// let job = Job { place: limiter.reserve("blue", 2, Duration::ZERO)? };
/// assert_eq!(job.place.permits(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OfKey<'a, K, Q: ?Sized, S = RandomState> {
    limiter: &'a KeyedRateLimiter<K, S>,
    key: &'a Q,
}

impl<K, Q: ?Sized, S> fmt::Debug for OfKey<'_, K, Q, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No key: it may be a secret.
        f.debug_struct("OfKey").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

impl<K, Q, S> Limits for OfKey<'_, K, Q, S>
where
    K: Hash + Eq + Borrow<Q>,
    Q: Hash + Eq + ?Sized,
    S: BuildHasher,
{
    fn name(&self) -> &str {
        self.limiter.name()
    }

    fn clock(&self) -> &Clock {
        self.limiter.clock()
    }

    fn give_up(&self, place: Place) {
        self.limiter.give_up(self.key, place);
    }
}
