//! One bucket that threads share: the algorithm's number in one atomic word, and the places that were given up.
//! A decision is one compare-and-swap, O(1) whatever the history. It is told the time and never waits for it.

use std::collections::BTreeMap;

use super::gcra::{Place, Rate, Refused, on_line};
use crate::clock::Instant;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// Stands in for the bucket while its rate changes; whoever meets it waits for the lock under which that happens.
const CHANGING: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Bucket {
    /// The bucket as [`Rate`] understands it.
    empty_at: AtomicU64,
    nanos_per_permit: AtomicU64,
    burst: AtomicU32,
    /// How often the rate or the burst was changed.
    changes: AtomicU32,
    given_up: Mutex<GivenUp>,
    /// How many there are, so that only who can profit takes the lock.
    gaps: AtomicU64,
}

#[derive(Debug, Default)]
struct GivenUp {
    /// Places that were given up while others queue behind them, as start and end, joined where they touch. Those
    /// behind keep the times they were promised: moving the whole queue up would let two of them go at once.
    gaps: BTreeMap<u64, u64>,
    /// What lies before this on the line meant something else before the last change, and is not given back.
    floor: u64,
}

impl Bucket {
    /// A bucket for `rate`; `empty_at` is what it holds.
    pub(super) fn new(rate: Rate, empty_at: u64) -> Self {
        Self {
            empty_at: AtomicU64::new(empty_at),
            nanos_per_permit: AtomicU64::new(rate.nanos_per_permit()),
            burst: AtomicU32::new(rate.burst()),
            changes: AtomicU32::new(0),
            given_up: Mutex::default(),
            gaps: AtomicU64::new(0),
        }
    }

    /// The rate now. Each change changes one of the two numbers, so no mixture of them is wrong.
    #[inline]
    pub(super) fn rate(&self) -> Rate {
        // Acquire: who reads a new number can only swap a word that was adapted to it.
        Rate::of(self.nanos_per_permit.load(Ordering::Acquire), self.burst.load(Ordering::Acquire))
    }

    /// Takes `permits` and says from when on they may be used, provided that is not after `latest`.
    #[inline]
    pub(super) fn reserve(&self, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        // Relaxed: who misses a gap queues at the end, where everything is right as well.
        if permits != 0
            && self.gaps.load(Ordering::Relaxed) != 0
            && let Some(answer) = self.fill_gap(permits, now, latest)
        {
            return answer;
        }
        // Acquire, and before the word: a place must not look younger than it is.
        let changes = self.changes.load(Ordering::Acquire);
        // Acquire: the rate read after it is at least as new as the word. Were it newer, the word would have changed
        // as well and the swap fail; or the word stayed as it was, and then this request came after the change.
        let mut empty_at = self.empty_at.load(Ordering::Acquire);
        loop {
            let place = match self.rate().take(empty_at, permits, now, latest) {
                Ok(place) => place,
                Err(_) if empty_at == CHANGING => {
                    empty_at = self.settled();
                    continue;
                }
                Err(refused) => return Err(refused),
            };
            match self.empty_at.compare_exchange_weak(empty_at, place.end, Ordering::Relaxed, Ordering::Acquire) {
                Ok(_) => return Ok(Place { changes, ..place }),
                Err(other) => empty_at = other,
            }
        }
    }

    /// What [`reserve`](Self::reserve) would answer. Takes nothing.
    pub(super) fn peek(&self, permits: u32, now: Instant, latest: Instant) -> Result<(), Refused> {
        let given_up = lock(&self.given_up);
        let rate = self.rate();
        if (1..=rate.burst()).contains(&permits)
            && let Some((_, end)) = Self::find_gap(&given_up.gaps, rate.span(permits), now)
        {
            let usable_from = Rate::usable_from(end, now);
            if usable_from > latest {
                return Err(Refused::NotBefore(usable_from));
            }
            return Ok(());
        }
        rate.take(self.empty_at.load(Ordering::Relaxed), permits, now, latest).map(|_| ())
    }

    /// The word once it is no longer changing.
    #[cold]
    fn settled(&self) -> u64 {
        let _changed = lock(&self.given_up);
        self.empty_at.load(Ordering::Acquire)
    }

    /// The first gap that is long enough and not past, and where in it a place of this length would end.
    fn find_gap(gaps: &BTreeMap<u64, u64>, cost: u64, now: Instant) -> Option<(u64, u64)> {
        let past = on_line(now);
        gaps.iter().find_map(|(&gap, &gap_end)| {
            let start = gap.max(past.saturating_sub(cost));
            start.checked_add(cost).filter(|end| (past..=gap_end).contains(end)).map(|end| (gap, end))
        })
    }

    /// Takes the first gap that will do. `None`: there is none.
    fn fill_gap(&self, permits: u32, now: Instant, latest: Instant) -> Option<Result<Place, Refused>> {
        let gaps = &mut lock(&self.given_up).gaps;
        let rate = self.rate();
        if permits > rate.burst() {
            return None;
        }
        // What could have been used before now is gone: used late, it could meet the one behind it.
        gaps.retain(|_, end| *end >= on_line(now));
        let cost = rate.span(permits);
        let answer = Self::find_gap(gaps, cost, now).map(|(gap, end)| {
            let usable_from = Rate::usable_from(end, now);
            if usable_from > latest {
                return Err(Refused::NotBefore(usable_from));
            }
            // What lies before the new place is past.
            let gap_end = gaps.remove(&gap).unwrap_or(end);
            if end < gap_end {
                gaps.insert(end, gap_end);
            }
            let changes = self.changes.load(Ordering::Relaxed);
            Ok(Place { usable_from, start: end - cost, end, changes })
        });
        self.gaps.store(gaps.len() as u64, Ordering::Relaxed);
        answer
    }

    /// Gives up a place that was not used. The last one shortens the queue, with all gaps that it laid bare; any
    /// other leaves a gap for who comes next.
    pub(super) fn give_up(&self, place: Place, now: Instant) {
        let Place { mut start, mut end, changes, .. } = place;
        if start == end {
            return;
        }
        let GivenUp { gaps, floor } = &mut *lock(&self.given_up);
        if changes != self.changes.load(Ordering::Relaxed) {
            start = start.max(*floor);
            if start >= end {
                return;
            }
        }
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
        let was_last = self.empty_at.compare_exchange(end, start, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let past = on_line(now);
        gaps.retain(|_, end| *end >= past);
        if !was_last && end >= past {
            gaps.insert(start, end);
        }
        self.gaps.store(gaps.len() as u64, Ordering::Relaxed);
    }

    /// Changes how fast permits come back, from now on or from the last promised place on. `check` may refuse.
    pub(super) fn set_nanos_per_permit<E>(
        &self,
        nanos_per_permit: u64,
        now: Instant,
        check: impl FnOnce(Rate) -> Result<Rate, E>,
    ) -> Result<(), E> {
        let mut given_up = lock(&self.given_up);
        let old = self.rate();
        let new = check(Rate::of(nanos_per_permit, old.burst()))?;
        if new == old {
            return Ok(());
        }
        // From here to the store nobody takes anything, so no request meets the old word with the new rate.
        // AcqRel: after what came before it, before what comes after it.
        let before = self.empty_at.swap(CHANGING, Ordering::AcqRel);
        let mut after = old.convert(before, new, now);
        let here = on_line(now);
        if before < here {
            // A request that read the old word must find another one, be it for a nanosecond.
            after += u64::from(after == before);
        }
        self.changed(&mut given_up, here);
        // What came back for a gap so far came back at the old rate.
        let started: Vec<_> = given_up.gaps.range(..here).map(|(start, end)| (*start, *end)).collect();
        for (start, end) in started {
            given_up.gaps.remove(&start);
            if end > here {
                given_up.gaps.insert(here, end);
            }
        }
        self.gaps.store(given_up.gaps.len() as u64, Ordering::Relaxed);
        self.nanos_per_permit.store(nanos_per_permit, Ordering::Release);
        // Release: who reads this word reads the new rate.
        self.empty_at.store(after, Ordering::Release);
        Ok(())
    }

    /// Changes how many permits can be saved up. A larger bucket is not fuller; from a smaller one the rest is gone.
    pub(super) fn set_burst<E>(
        &self,
        burst: u32,
        now: Instant,
        check: impl FnOnce(Rate) -> Result<Rate, E>,
    ) -> Result<(), E> {
        let mut given_up = lock(&self.given_up);
        let old = self.rate();
        check(Rate::of(old.nanos_per_permit(), burst))?;
        // What did not fit into the old bucket must not appear in the new one. Before the burst changes: who reads
        // the new burst with a word from before this fails to swap it.
        let full = old.full(now);
        self.empty_at.fetch_max(full, Ordering::AcqRel);
        self.changed(&mut given_up, full);
        self.burst.store(burst, Ordering::Release);
        Ok(())
    }

    /// Places from before are not given back as far as they lie before `floor`.
    fn changed(&self, given_up: &mut GivenUp, floor: u64) {
        given_up.floor = given_up.floor.max(floor);
        // Release: who sees it does not see the word of before.
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The rate and the bucket at one moment.
    pub(super) fn state(&self) -> (Rate, u64) {
        let _settled = lock(&self.given_up);
        (self.rate(), self.empty_at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
impl Bucket {
    /// How many gaps are remembered.
    fn gap_count(&self) -> usize {
        lock(&self.given_up).gaps.len()
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

    fn bucket(burst: u32) -> Bucket {
        Bucket::new(Rate::of(SECOND, burst), 0)
    }

    fn reserved(bucket: &Bucket, permits: u32, now: Instant) -> Place {
        bucket.reserve(permits, now, FOREVER).expect("there is no limit to the wait")
    }

    #[test]
    fn a_place_given_up_in_the_middle_goes_to_who_comes_next_and_two_never_go_at_once() {
        let bucket = bucket(1);
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
        let bucket = bucket(1);
        reserved(&bucket, 1, at(0));
        let late = reserved(&bucket, 1, at(0));
        assert_eq!(reserved(&bucket, 1, at(5)).usable_from, at(5));
        bucket.give_up(late, at(5));
        assert!(bucket.reserve(1, at(5), at(5)).is_err(), "the burst of one was granted at this moment already");
    }

    #[test]
    fn a_queue_that_is_dropped_first_to_last_leaves_no_debt() {
        let bucket = bucket(2);
        let places: Vec<_> = (0..1_000).map(|_| reserved(&bucket, 1, at(0))).collect();
        for place in &places[2..] {
            bucket.give_up(*place, at(0));
        }
        assert_eq!(bucket.gap_count(), 0);
        assert_eq!(reserved(&bucket, 1, at(0)).usable_from, at(1));
    }

    #[test]
    fn gaps_that_nobody_fills_are_forgotten() {
        let bucket = bucket(1);
        let places: Vec<_> = (0..1_000).map(|_| reserved(&bucket, 1, at(0))).collect();
        for place in places.iter().skip(1).step_by(2).take(400) {
            bucket.give_up(*place, at(0));
        }
        assert_eq!(bucket.gap_count(), 400);
        reserved(&bucket, 1, at(999));
        assert_eq!(bucket.gap_count(), 0);
    }

    #[test]
    fn what_was_saved_before_a_change_of_rate_is_not_given_back_at_the_new_one() {
        let bucket = bucket(10);
        reserved(&bucket, 5, at(0));
        // Five are saved and five are waited for.
        let place = reserved(&bucket, 10, at(0));
        bucket.set_nanos_per_permit(1_000, at(0), Ok::<_, ()>).unwrap();
        bucket.give_up(place, at(0));
        let (rate, empty_at) = bucket.state();
        assert_eq!(rate.available(empty_at, at(0)), 0);
    }

    #[test]
    fn a_reservation_given_back_after_the_burst_grew_does_not_hold_more_than_the_old_burst() {
        let bucket = bucket(10);
        let place = reserved(&bucket, 10, at(0));
        bucket.set_burst(100, at(5), Ok::<_, ()>).unwrap();
        bucket.give_up(place, at(5));
        let (rate, empty_at) = bucket.state();
        assert_eq!(rate.available(empty_at, at(5)), 10);
    }

    proptest! {
        /// Whatever is reserved and given up, and in which order: over every span of time, what is used never exceeds
        /// burst + rate × span, and once nobody queues the bucket owes nothing.
        #[test]
        fn permits_are_conserved(burst in 1_u32..6, steps in proptest::collection::vec((0_u8..6, 1_u32..6, any::<usize>()), 1..120)) {
            let bucket = bucket(burst);
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

        /// The same while the rate changes between one and four per second: never more at once than the burst, never
        /// more over a span than the fastest rate allows, and full again when everyone has gone.
        #[test]
        fn permits_are_conserved_while_the_rate_changes(
            burst in 1_u32..6,
            steps in proptest::collection::vec((0_u8..9, 1_u32..6, any::<usize>()), 1..120),
        ) {
            const TICK: u64 = SECOND / 4;
            let bucket = bucket(burst);
            let (mut now, mut waiting, mut uses) = (at(0), Vec::new(), Vec::new());
            for (step, permits, pick) in steps {
                match step {
                    0..=2 => if let Ok(place) = bucket.reserve(permits, now, FOREVER) { waiting.push((place, permits)) },
                    3 | 4 if !waiting.is_empty() => {
                        let (place, _) = waiting.swap_remove(pick % waiting.len());
                        bucket.give_up(place, now);
                    }
                    5 => bucket.set_nanos_per_permit(TICK * [1, 2, 4][pick % 3], now, Ok::<_, ()>).unwrap(),
                    _ => now = Instant::from_nanos(now.as_nanos() + TICK),
                }
                // Everyone is punctual, except that who is due now may still give up before the clock moves on.
                waiting.retain(|(place, permits)| {
                    let due = place.usable_from < now;
                    if due { uses.push((place.usable_from.as_nanos(), u64::from(*permits))); }
                    !due
                });
            }
            for (place, permits) in waiting.drain(..) {
                if place.usable_from <= now { uses.push((now.as_nanos(), u64::from(permits))) } else { bucket.give_up(place, now) }
            }
            for (from, _) in &uses {
                for (to, _) in &uses {
                    let used: u64 = uses.iter().filter(|(at, _)| (from..=to).contains(&at)).map(|(_, permits)| permits).sum();
                    let span = to.saturating_sub(*from);
                    prop_assert!(used <= u64::from(burst) + span.div_ceil(TICK), "{used} used within {span} ns: {uses:?}");
                }
            }
            let later = Instant::from_nanos(now.as_nanos() + SECOND * u64::from(burst));
            let (rate, empty_at) = bucket.state();
            prop_assert_eq!(rate.available(empty_at, later), burst);
        }
    }
}
