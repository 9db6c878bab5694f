//! The limiter's state machine: the generic cell rate algorithm (GCRA, ITU-T I.371), a token bucket kept in one word.
//! The word is the time at which the bucket will be full again; a decision is one compare-and-swap on it, O(1)
//! whatever the history. It is told the time and never waits. Over any span it grants at most burst + rate × span.

use std::collections::BTreeMap;

use crate::clock::Instant;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The permits cannot be had at all, or not before the time given.
pub(super) enum Refused {
    ExceedsBurst,
    NotBefore(Instant),
}

/// Permits that were taken: a stretch of the bucket's time line as long as they take to come back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// From when on they may be used.
    pub(crate) usable_from: Instant,
    start: u64,
    end: u64,
}

#[derive(Debug)]
pub(super) struct Bucket {
    nanos_per_permit: u64,
    burst: u32,
    /// When all permits will be back, in nanoseconds ("theoretical arrival time" of the algorithm).
    full_at: AtomicU64,
    /// Places that were given up while others queue behind them, as start and end, joined where they touch. Those
    /// behind keep the times they were promised: moving the whole queue up would let two of them go at once.
    given_up: Mutex<BTreeMap<u64, u64>>,
    /// How many there are, so that only who can profit takes the lock.
    gaps: AtomicU64,
}

impl Bucket {
    pub(super) fn new(nanos_per_permit: u64, burst: u32) -> Self {
        let given_up = Mutex::new(BTreeMap::new());
        Self { nanos_per_permit, burst, full_at: AtomicU64::new(0), given_up, gaps: AtomicU64::new(0) }
    }

    pub(super) fn burst(&self) -> u32 {
        self.burst
    }

    pub(super) fn nanos_per_permit(&self) -> u64 {
        self.nanos_per_permit
    }

    /// How long it takes for `permits` to come back.
    pub(super) fn span(&self, permits: u32) -> u64 {
        self.nanos_per_permit.saturating_mul(u64::from(permits))
    }

    /// Takes `permits` and says from when on they may be used, provided that is not after `latest`.
    pub(super) fn reserve(&self, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        if permits > self.burst {
            return Err(Refused::ExceedsBurst);
        }
        let (cost, capacity) = (self.span(permits), self.span(self.burst));
        // Relaxed: who misses a gap queues at the end, where everything is right as well.
        if cost != 0
            && self.gaps.load(Ordering::Relaxed) != 0
            && let Some(answer) = self.fill_gap(cost, now, latest)
        {
            return answer;
        }
        // Relaxed throughout: the word is all there is, nothing is published through it.
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let start = full_at.max(now.as_nanos());
            let Some(end) = start.checked_add(cost) else {
                return Err(Refused::NotBefore(Instant::from_nanos(u64::MAX)));
            };
            let usable_from = Instant::from_nanos(end.saturating_sub(capacity)).max(now);
            if usable_from > latest {
                return Err(Refused::NotBefore(usable_from));
            }
            match self.full_at.compare_exchange_weak(full_at, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Place { usable_from, start, end }),
                Err(changed) => full_at = changed,
            }
        }
    }

    /// Takes the first gap that is long enough and not past. `None`: there is none.
    fn fill_gap(&self, cost: u64, now: Instant, latest: Instant) -> Option<Result<Place, Refused>> {
        let capacity = self.span(self.burst);
        let mut gaps = lock(&self.given_up);
        // What could have been used before now is gone: used late, it could meet the one behind it.
        let past = now.as_nanos().saturating_add(capacity);
        gaps.retain(|_, end| *end >= past);
        let found = gaps.iter().find_map(|(&gap, &gap_end)| {
            let start = gap.max(past.saturating_sub(cost));
            start.checked_add(cost).filter(|end| *end <= gap_end).map(|end| (gap, gap_end, start, end))
        });
        let answer = found.map(|(gap, gap_end, start, end)| {
            let usable_from = Instant::from_nanos(end.saturating_sub(capacity)).max(now);
            if usable_from > latest {
                return Err(Refused::NotBefore(usable_from));
            }
            // What lies before the new place is past.
            gaps.remove(&gap);
            if end < gap_end {
                gaps.insert(end, gap_end);
            }
            Ok(Place { usable_from, start, end })
        });
        self.gaps.store(gaps.len() as u64, Ordering::Relaxed);
        answer
    }

    /// Gives up a place that was not used. The last one shortens the queue, with all gaps that it laid bare; any
    /// other leaves a gap for who comes next.
    pub(super) fn give_up(&self, place: Place, now: Instant) {
        let Place { mut start, mut end, .. } = place;
        if start == end {
            return;
        }
        let mut gaps = lock(&self.given_up);
        if let Some((&before, &before_end)) = gaps.range(..start).next_back()
            && before_end == start
        {
            gaps.remove(&before);
            start = before;
        }
        if let Some(behind_end) = gaps.remove(&end) {
            end = behind_end;
        }
        // Nothing was taken after the last place, so this is the state in which it was found.
        let was_last = self.full_at.compare_exchange(end, start, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let past = now.as_nanos().saturating_add(self.span(self.burst));
        gaps.retain(|_, end| *end >= past);
        if !was_last && end >= past {
            gaps.insert(start, end);
        }
        self.gaps.store(gaps.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn available(&self, now: Instant) -> u32 {
        let used = self.full_at.load(Ordering::Relaxed).saturating_sub(now.as_nanos()).div_ceil(self.nanos_per_permit);
        self.burst.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
impl Bucket {
    /// How many gaps are remembered.
    fn gap_count(&self) -> usize {
        lock(&self.given_up).len()
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const FOREVER: Instant = Instant::from_nanos(u64::MAX);

    fn at(second: u64) -> Instant {
        Instant::from_nanos((1_000 + second) * SECOND)
    }

    fn reserved(bucket: &Bucket, permits: u32, now: Instant) -> Place {
        bucket.reserve(permits, now, FOREVER).ok().expect("there is no limit to the wait")
    }

    #[test]
    fn a_place_given_up_in_the_middle_goes_to_who_comes_next_and_two_never_go_at_once() {
        let bucket = Bucket::new(SECOND, 1);
        let places: Vec<_> = (0..4).map(|_| reserved(&bucket, 1, at(0))).collect();
        assert_eq!(
            places.iter().map(|place| place.usable_from).collect::<Vec<_>>(),
            (0..4).map(at).collect::<Vec<_>>()
        );
        bucket.give_up(places[1], at(0));
        assert_eq!(reserved(&bucket, 1, at(0)).usable_from, at(1));
        assert_eq!(reserved(&bucket, 1, at(0)).usable_from, at(4));
        assert_eq!(bucket.gap_count(), 0);
    }

    #[test]
    fn a_place_given_up_after_its_time_is_not_granted_a_second_time() {
        let bucket = Bucket::new(SECOND, 1);
        reserved(&bucket, 1, at(0));
        let late = reserved(&bucket, 1, at(0));
        assert_eq!(reserved(&bucket, 1, at(5)).usable_from, at(5));
        bucket.give_up(late, at(5));
        assert!(bucket.reserve(1, at(5), at(5)).is_err(), "the burst of one was granted at this moment already");
    }

    #[test]
    fn a_queue_that_is_dropped_first_to_last_leaves_no_debt() {
        let bucket = Bucket::new(SECOND, 2);
        let places: Vec<_> = (0..1_000).map(|_| reserved(&bucket, 1, at(0))).collect();
        for place in &places[2..] {
            bucket.give_up(*place, at(0));
        }
        assert_eq!(bucket.gap_count(), 0);
        assert_eq!(reserved(&bucket, 1, at(0)).usable_from, at(1));
    }

    #[test]
    fn gaps_that_nobody_fills_are_forgotten() {
        let bucket = Bucket::new(SECOND, 1);
        let places: Vec<_> = (0..1_000).map(|_| reserved(&bucket, 1, at(0))).collect();
        for place in places.iter().skip(1).step_by(2).take(400) {
            bucket.give_up(*place, at(0));
        }
        assert_eq!(bucket.gap_count(), 400);
        reserved(&bucket, 1, at(999));
        assert_eq!(bucket.gap_count(), 0);
    }

    proptest! {
        /// Whatever is reserved and given up, and in which order: over every span of time, what is used never exceeds
        /// burst + rate × span, and once nobody queues the bucket owes nothing.
        #[test]
        fn permits_are_conserved(burst in 1_u32..6, steps in proptest::collection::vec((0_u8..6, 1_u32..6, any::<usize>()), 1..120)) {
            let bucket = Bucket::new(SECOND, burst);
            let (mut second, mut waiting, mut uses) = (0_u64, Vec::new(), Vec::new());
            for (step, permits, pick) in steps {
                match step {
                    0 | 1 => if let Ok(place) = bucket.reserve(permits, at(second), FOREVER) { waiting.push((place, permits)) },
                    2 => if let Ok(place) = bucket.reserve(permits, at(second), at(second)) { waiting.push((place, permits)) },
                    3 if !waiting.is_empty() => {
                        let (place, _) = waiting.swap_remove(pick % waiting.len());
                        bucket.give_up(place, at(second));
                    }
                    _ => second += 1,
                }
                // Everyone is punctual, except that who is due now may still give up before the clock moves on.
                if step >= 4 {
                    waiting.retain(|(place, permits)| {
                        let early = place.usable_from < at(second);
                        if early { uses.push((second - 1, u64::from(*permits))); }
                        !early
                    });
                }
            }
            for (place, permits) in waiting.drain(..) {
                if place.usable_from <= at(second) { uses.push((second, u64::from(permits))) } else { bucket.give_up(place, at(second)) }
            }
            for from in 0..=second {
                for to in from..=second {
                    let used: u64 = uses.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, permits)| permits).sum();
                    prop_assert!(used <= u64::from(burst) + to - from, "{used} used from {from} to {to}: {uses:?}");
                }
            }
            prop_assert_eq!(reserved(&bucket, 1, at(second + u64::from(burst))).usable_from, at(second + u64::from(burst)));
        }
    }
}
