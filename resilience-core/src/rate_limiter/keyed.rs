//! One limit for each key (user, tenant, address), in bounded memory: many buckets of the one algorithm, in shards.
//! A key that is forgotten had a full bucket, so it never gains by it. Does not queue: a key's request is granted
//! now or refused with the time at which it would be.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::gcra::{Rate, Refused, on_line};
use super::quota::Quota;
use super::table::{Swept, Table};
use super::{checked_start, rejection};
use crate::clock::{Clock, Instant};
use crate::config::{self, ConfigError};
use crate::event::{Event, Observers};
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Keys that a shard holds on average when all are there, up to eight million keys. A whole shard is looked through when
/// there is no room for a new key and one of the shard's may be idle, so this bounds that work.
const KEYS_PER_SHARD: usize = 512;
/// Fewer shards would make threads wait for each other.
const MIN_SHARDS: usize = 16;
const MAX_SHARDS: usize = 1 << 14;
/// How many buckets each new key looks at to find full ones: two, so that the eviction outruns the arrivals.
const LOOKED_AT_PER_NEW_KEY: usize = 2;
/// How many buckets of other shards a new key looks at when its own shard has no room to give.
const LOOKED_AT_ELSEWHERE: usize = 1_024;
/// What locking a shard counts as, when it is known at once that none of its buckets is full.
const SHARD_COSTS: usize = 32;

/// A keyed limiter's figures at one moment.
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
    name: Arc<str>,
    rate: Rate,
    start_with: u32,
    max_keys: u32,
    shards: Box<[CachePadded<Mutex<Table<K>>>]>,
    /// How far the hash is shifted to get the shard's number.
    shard_shift: u32,
    hasher: S,
    /// Keys in all shards, and those about to be inserted; never more than `max_keys`.
    keys: AtomicU64,
    evicted: AtomicU64,
    rejected: AtomicU64,
    rejected_keys: AtomicU64,
    /// The shard that is looked through next for room.
    hand: AtomicU64,
    clock: Clock,
    observers: Observers,
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
            .field("rate", &self.0.rate)
            .field("keys", &self.0.keys.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// Builds a [`KeyedRateLimiter`].
pub struct KeyedRateLimiterBuilder<K, S = RandomState> {
    name: Arc<str>,
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

impl<K, S> KeyedRateLimiterBuilder<K, S> {
    /// How many permits (from 1) come back to each key per `period` (more than 0, at most 10 years); default 100 per
    /// 60 s.
    #[must_use]
    pub fn rate(mut self, permits: u32, period: Duration) -> Self {
        self.permits = permits;
        self.period = period;
        self
    }

    /// How many permits each key can save up. From 1, to as many as come back within 10 years; default 10.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// How many permits a key has when it is first seen, from 0 to the burst (the default). With fewer, a key that
    /// comes back after it was forgotten starts over with these, too.
    #[must_use]
    pub fn start_with(mut self, permits: u32) -> Self {
        self.start_with = Some(permits);
        self
    }

    /// How many keys are remembered at most, from 1; default 65 536. Each takes 16 to 32 bytes and the size of the key.
    #[must_use]
    pub fn max_keys(mut self, keys: u32) -> Self {
        self.max_keys = keys;
        self
    }

    /// How keys are hashed. The default withstands keys that were chosen to collide; a faster one may not.
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
    pub fn build(self) -> Result<KeyedRateLimiter<K, S>, ConfigError> {
        config::name(&self.name)?;
        let rate = Rate::new(&self.name, self.permits, self.period, self.burst)?;
        let start_with = checked_start(&self.name, self.start_with, rate)?;
        config::in_range(&self.name, "max_keys", self.max_keys, &1, &u32::MAX)?;
        let shards = (self.max_keys as usize / KEYS_PER_SHARD).clamp(MIN_SHARDS, MAX_SHARDS).next_power_of_two();
        Ok(KeyedRateLimiter(Arc::new(Shared {
            name: self.name,
            rate,
            start_with,
            max_keys: self.max_keys,
            shards: (0..shards).map(|_| CachePadded::new(Mutex::new(Table::new()))).collect(),
            shard_shift: u64::BITS - shards.trailing_zeros(),
            hasher: self.hasher,
            keys: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            rejected_keys: AtomicU64::new(0),
            hand: AtomicU64::new(0),
            clock: self.clock,
            observers: self.observers,
        })))
    }
}

impl<K> KeyedRateLimiter<K> {
    /// Starts building a limiter called `name`, from the defaults.
    pub fn builder(name: impl Into<Arc<str>>) -> KeyedRateLimiterBuilder<K> {
        KeyedRateLimiterBuilder {
            name: name.into(),
            permits: 100,
            period: Duration::from_secs(60),
            burst: 10,
            start_with: None,
            max_keys: 1 << 16,
            hasher: RandomState::new(),
            clock: Clock::system(),
            observers: Observers::new(),
            keys: PhantomData,
        }
    }
}

impl<K, S> KeyedRateLimiter<K, S> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its figures now. Takes nothing.
    pub fn statistics(&self) -> KeyedStatistics {
        let shared = &*self.0;
        KeyedStatistics {
            keys: shared.keys.load(Ordering::Relaxed),
            max_keys: shared.max_keys,
            burst: shared.rate.burst(),
            refill_per_second: shared.rate.per_second(),
            evicted: shared.evicted.load(Ordering::Relaxed),
            rejected: shared.rejected.load(Ordering::Relaxed),
            rejected_keys: shared.rejected_keys.load(Ordering::Relaxed),
        }
    }
}

impl<K: Hash + Eq, S: BuildHasher> KeyedRateLimiter<K, S> {
    /// Takes `permits` of `key` now, or not at all.
    ///
    /// # Errors
    /// A [`Rejection`] when they are not there, which says when they would be, or that they never will; or when the
    /// key is new and there is no room for it, which says when asking again may help.
    pub fn try_acquire<Q>(&self, key: &Q, permits: u32) -> Result<(), Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let shared = &*self.0;
        let now = shared.clock.now();
        shared.take(key, permits, now).inspect_err(|rejection| {
            // Relaxed: counters, nothing is published through them.
            shared.rejected.fetch_add(1, Ordering::Relaxed);
            if matches!(rejection.reason, Reason::TooManyKeys { .. }) {
                shared.rejected_keys.fetch_add(1, Ordering::Relaxed);
            }
            shared.observers.emit(&Event::Rejected { rejection });
        })
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
        let taken = shared.rate.take(shared.bucket(key, now), permits, now, now);
        taken.map(|_| ()).map_err(|refused| rejection(&shared.name, permits, shared.rate, now, refused))
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
        Quota::of(&shared.name, shared.rate, shared.bucket(key, now), now)
    }
}

impl<K: Hash + Eq, S: BuildHasher> Shared<K, S> {
    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        // Spread over all bits, because shard and position take different ones and not every hasher fills them all.
        let spread = self.hasher.hash_one(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        spread ^ (spread >> 32)
    }

    fn shard(&self, hash: u64) -> &Mutex<Table<K>> {
        // The high bits, as many as number the shards.
        &self.shards[usize::try_from(hash >> self.shard_shift).unwrap_or_default()]
    }

    /// The bucket of `key`; a new one's, when it is not known.
    fn bucket<Q>(&self, key: &Q, now: Instant) -> u64
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hash(key);
        let known = lock(self.shard(hash)).get_mut(hash, key).copied();
        known.unwrap_or_else(|| self.rate.holding(self.start_with, now))
    }

    fn take<Q>(&self, key: &Q, permits: u32, now: Instant) -> Result<(), Rejection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        let mut shard = lock(self.shard(hash));
        if let Some(bucket) = shard.get_mut(hash, key) {
            let taken = self.take_from(bucket, permits, now);
            drop(shard);
            return taken.map_err(|refused| rejection(&self.name, permits, self.rate, now, refused));
        }
        if permits > self.rate.burst() {
            drop(shard);
            return Err(rejection(&self.name, permits, self.rate, now, Refused::ExceedsBurst));
        }
        let full = self.rate.full(now);
        self.forgotten(shard.sweep(full, LOOKED_AT_PER_NEW_KEY));
        let mut room = self.claim();
        if room.is_none() {
            let mut earliest = self.forgotten(shard.sweep(full, usize::MAX));
            room = self.claim();
            if room.is_none() {
                // Never two locks at once.
                drop(shard);
                (room, earliest) = self.room_elsewhere(full, earliest);
                if room.is_none() {
                    return Err(self.too_many_keys(earliest, now));
                }
                shard = lock(self.shard(hash));
            }
        }
        // Another thread may have come with the same key while the lock was released.
        let taken = if let Some(bucket) = shard.get_mut(hash, key) {
            self.take_from(bucket, permits, now)
        } else {
            let mut bucket = self.rate.holding(self.start_with, now);
            let taken = self.take_from(&mut bucket, permits, now);
            shard.insert(hash, key.to_owned(), bucket);
            if let Some(room) = room {
                room.taken();
            }
            taken
        };
        drop(shard);
        taken.map_err(|refused| rejection(&self.name, permits, self.rate, now, refused))
    }
}

impl<K, S> Shared<K, S> {
    #[inline]
    fn take_from(&self, bucket: &mut u64, permits: u32, now: Instant) -> Result<(), Refused> {
        *bucket = self.rate.take(*bucket, permits, now, now)?.end;
        Ok(())
    }

    /// Room for one key more, if there is any.
    fn claim(&self) -> Option<Room<'_>> {
        // Relaxed: a number of its own, the keys themselves are guarded by the locks.
        let claimed = self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |keys| {
            (keys < u64::from(self.max_keys)).then_some(keys + 1)
        });
        claimed.ok().map(|_| Room(&self.keys))
    }

    /// Counts what was forgotten; the earliest of those that stayed.
    fn forgotten(&self, swept: Swept) -> u64 {
        if swept.evicted > 0 {
            self.keys.fetch_sub(swept.evicted as u64, Ordering::Relaxed);
            self.evicted.fetch_add(swept.evicted as u64, Ordering::Relaxed);
        }
        swept.earliest
    }

    /// Looks for keys to forget in the next shards: in all of them, or a bounded number of keys, from where the last
    /// search stopped.
    fn room_elsewhere(&self, full: u64, mut earliest: u64) -> (Option<Room<'_>>, u64) {
        let mut looked_at = 0;
        for _ in 0..self.shards.len() {
            let next = self.hand.fetch_add(1, Ordering::Relaxed) % self.shards.len() as u64;
            let swept = lock(&self.shards[usize::try_from(next).unwrap_or_default()]).sweep(full, usize::MAX);
            looked_at += swept.looked_at.max(SHARD_COSTS);
            earliest = earliest.min(self.forgotten(swept));
            let room = self.claim();
            if room.is_some() || looked_at >= LOOKED_AT_ELSEWHERE {
                return (room, earliest);
            }
        }
        (self.claim(), earliest)
    }

    #[cold]
    fn too_many_keys(&self, earliest: u64, now: Instant) -> Rejection {
        let full_again = earliest.saturating_add(self.rate.capacity()).saturating_sub(on_line(now));
        let retry_after = (earliest != u64::MAX).then_some(Duration::from_nanos(full_again));
        Rejection::new(Arc::clone(&self.name), Reason::TooManyKeys { max_keys: self.max_keys }, retry_after)
    }
}

/// A counted place for a key that is not there yet: given back unless it is taken, whatever panics meanwhile.
struct Room<'a>(&'a AtomicU64);

impl Room<'_> {
    fn taken(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
