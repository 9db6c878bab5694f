//! The buckets of all keys, in shards that are each locked alone, and the eviction that bounds them.
//! A key that is forgotten had a full bucket, so it never gains by it. It is told the time and never waits for it;
//! counts what it forgets and refuses nothing but keys it has no room for.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use crossbeam_utils::CachePadded;

use super::super::gaps::Held;
use super::super::gcra::{Place, Rate, Refused, on_line};
use super::super::table::{Swept, Table};
use crate::clock::Instant;
use crate::config::ConfigError;
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

/// Why a key got nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyRefused {
    Permits(Refused),
    /// There is no room for a new key. One may be idle again at this point of the buckets' time line.
    NoRoom(Option<u64>),
}

impl From<Refused> for KeyRefused {
    fn from(refused: Refused) -> Self {
        Self::Permits(refused)
    }
}

/// What keys are given, the same in all shards but for the moment in which it is changed.
#[derive(Debug, Clone, Copy)]
struct Terms {
    rate: Rate,
    /// All permits, when nothing was said.
    start_with: Option<u32>,
}

struct Shard<K> {
    terms: Terms,
    /// How often the terms were changed.
    changes: u32,
    /// What lies before this meant something else before the last change, and is not given back.
    floor: u64,
    /// The bucket of who was never seen. It changes like any other: neither those who come first after a change are
    /// handed a burst, nor those who were forgotten before it.
    unseen: u64,
    table: Table<K>,
}

impl<K> Shard<K> {
    /// The bucket of a key that is not known.
    fn unknown(&self, now: Instant) -> Held {
        let Terms { rate, start_with } = self.terms;
        Held::new(self.unseen.max(rate.holding(start_with.unwrap_or(rate.burst()), now)))
    }
}

pub(super) struct Shards<K, S> {
    all: Box<[CachePadded<Mutex<Shard<K>>>]>,
    /// How far the hash is shifted to get the shard's number.
    shift: u32,
    hasher: S,
    max_keys: u32,
    /// Held during a change, which goes from shard to shard.
    terms: Mutex<Terms>,
    counts: CachePadded<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Keys in all shards, and those about to be inserted; never more than `max_keys`.
    keys: AtomicU64,
    evicted: AtomicU64,
    /// The shard that is looked through next for room.
    hand: AtomicU64,
}

impl<K, S> Shards<K, S> {
    pub(super) fn new(rate: Rate, start_with: Option<u32>, max_keys: u32, hasher: S) -> Self {
        let shards = (max_keys as usize / KEYS_PER_SHARD).clamp(MIN_SHARDS, MAX_SHARDS).next_power_of_two();
        let terms = Terms { rate, start_with };
        let shard = || Shard { terms, changes: 0, floor: 0, unseen: 0, table: Table::new() };
        Self {
            all: (0..shards).map(|_| CachePadded::new(Mutex::new(shard()))).collect(),
            shift: u64::BITS - shards.trailing_zeros(),
            hasher,
            max_keys,
            terms: Mutex::new(terms),
            counts: CachePadded::default(),
        }
    }

    pub(super) const fn max_keys(&self) -> u32 {
        self.max_keys
    }

    /// Keys that are there.
    pub(super) fn keys(&self) -> u64 {
        self.counts.keys.load(Ordering::Relaxed)
    }

    /// Keys that were forgotten.
    pub(super) fn evicted(&self) -> u64 {
        self.counts.evicted.load(Ordering::Relaxed)
    }

    pub(super) fn rate(&self) -> Rate {
        lock(&self.terms).rate
    }

    /// Changes what keys are given, one shard after the other: each key meets the change at one moment, and nobody
    /// waits longer than for the keys of one shard. `new` is told what holds so far and may refuse.
    pub(super) fn change(
        &self,
        now: Instant,
        new: impl FnOnce(Rate, Option<u32>) -> Result<(Rate, Option<u32>), ConfigError>,
    ) -> Result<(), ConfigError> {
        let mut terms = lock(&self.terms);
        let old = terms.rate;
        let (rate, start_with) = new(old, terms.start_with)?;
        *terms = Terms { rate, start_with };
        for shard in &self.all {
            let shard = &mut *lock(shard);
            shard.terms = *terms;
            if rate != old {
                shard.changes = shard.changes.wrapping_add(1);
                shard.floor = shard.floor.max(old.floor(rate, now));
                shard.unseen = old.convert(shard.unseen, rate, now);
                shard.table.change(|held| held.change(old, rate, now));
            }
        }
        Ok(())
    }

    /// Room for one key more, if there is any.
    fn claim(&self) -> Option<Room<'_>> {
        // Relaxed: a number of its own, the keys themselves are guarded by the locks.
        let claimed = self.counts.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |keys| {
            (keys < u64::from(self.max_keys)).then_some(keys + 1)
        });
        claimed.ok().map(|_| Room(&self.counts.keys))
    }

    /// Forgets idle keys among up to `budget` of a shard's; how many it looked at, and when the next will be idle.
    fn sweep(&self, shard: &mut Shard<K>, budget: usize, now: Instant) -> (usize, u64) {
        let rate = shard.terms.rate;
        let Swept { looked_at, evicted, earliest } = shard.table.sweep(rate.full(now), budget);
        if evicted > 0 {
            self.counts.keys.fetch_sub(evicted as u64, Ordering::Relaxed);
            self.counts.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        }
        (looked_at, earliest.saturating_add(rate.capacity()))
    }

    /// Looks for keys to forget in the next shards: in all of them, or a bounded number of keys, from where the last
    /// search stopped.
    fn room_elsewhere(&self, now: Instant, mut idle_at: u64) -> Result<Room<'_>, KeyRefused> {
        let mut looked_at = 0;
        for _ in 0..self.all.len() {
            let next = self.counts.hand.fetch_add(1, Ordering::Relaxed) % self.all.len() as u64;
            let shard = &self.all[usize::try_from(next).unwrap_or_default()];
            let (looked, idle) = self.sweep(&mut lock(shard), usize::MAX, now);
            looked_at += looked.max(SHARD_COSTS);
            idle_at = idle_at.min(idle);
            if let Some(room) = self.claim() {
                return Ok(room);
            }
            if looked_at >= LOOKED_AT_ELSEWHERE {
                break;
            }
        }
        Err(KeyRefused::NoRoom((idle_at != u64::MAX).then_some(idle_at)))
    }
}

impl<K: Hash + Eq, S: BuildHasher> Shards<K, S> {
    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        // Spread over all bits, because shard and position take different ones and not every hasher fills them all.
        let spread = self.hasher.hash_one(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        spread ^ (spread >> 32)
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<K>> {
        // The high bits, as many as number the shards.
        &self.all[usize::try_from(hash >> self.shift).unwrap_or_default()]
    }

    /// Looks at the bucket of `key`; a new one, when it is not known.
    pub(super) fn look<Q, R>(&self, key: &Q, now: Instant, look: impl FnOnce(Rate, &Held) -> R) -> R
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hash(key);
        let shard = &mut *lock(self.shard(hash));
        match shard.table.get_mut(hash, key) {
            Some(held) => look(shard.terms.rate, held),
            None => look(shard.terms.rate, &shard.unknown(now)),
        }
    }

    /// Takes `permits` of `key` and says from when on they may be used, provided that is not after `latest`.
    #[inline]
    pub(super) fn take<Q>(&self, key: &Q, permits: u32, now: Instant, latest: Instant) -> Result<Place, KeyRefused>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        {
            let shard = &mut *lock(self.shard(hash));
            if let Some(held) = shard.table.get_mut(hash, key) {
                let place = held.take(shard.terms.rate, permits, now, latest)?;
                return Ok(Place { changes: shard.changes, ..place });
            }
        }
        self.take_new(hash, key, permits, now, latest)
    }

    #[cold]
    fn take_new<Q>(&self, hash: u64, key: &Q, permits: u32, now: Instant, latest: Instant) -> Result<Place, KeyRefused>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut shard = lock(self.shard(hash));
        let burst = shard.terms.rate.burst();
        if permits > burst {
            return Err(Refused::ExceedsBurst { burst }.into());
        }
        self.sweep(&mut shard, LOOKED_AT_PER_NEW_KEY, now);
        let mut room = self.claim();
        if room.is_none() {
            let (_, idle_at) = self.sweep(&mut shard, usize::MAX, now);
            room = self.claim();
            if room.is_none() {
                // Never two locks at once.
                drop(shard);
                room = Some(self.room_elsewhere(now, idle_at)?);
                shard = lock(self.shard(hash));
            }
        }
        let mut held = shard.unknown(now);
        let Shard { terms, changes, table, .. } = &mut *shard;
        // Another thread may have come with the same key while the lock was released.
        let taken = if let Some(held) = table.get_mut(hash, key) {
            held.take(terms.rate, permits, now, latest)
        } else {
            let taken = held.take(terms.rate, permits, now, latest);
            table.insert(hash, key.to_owned(), held);
            if let Some(room) = room {
                room.taken();
            }
            taken
        };
        Ok(Place { changes: *changes, ..taken? })
    }

    /// Gives up a place of `key` that was not used. A key that was forgotten meanwhile has all its permits anyway.
    pub(super) fn give_up<Q>(&self, key: &Q, place: Place, now: Instant)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Place { mut start, end, changes, .. } = place;
        let hash = self.hash(key);
        let shard = &mut *lock(self.shard(hash));
        if changes != shard.changes {
            start = start.max(shard.floor);
        }
        if start < end
            && let Some(held) = shard.table.get_mut(hash, key)
        {
            held.give_up(start, end, now);
            let empty_at = held.empty_at;
            shard.table.not_before(empty_at);
        }
    }
}

/// How long from `now` until this point of the buckets' time line.
pub(super) fn until(point: u64, now: Instant) -> std::time::Duration {
    std::time::Duration::from_nanos(point.saturating_sub(on_line(now)))
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
