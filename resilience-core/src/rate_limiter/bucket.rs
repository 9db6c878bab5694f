//! One bucket that threads share: the algorithm's number in one atomic word, and the places that were given up.
//! A decision is one compare-and-swap, O(1) whatever the history. It is told the time and never waits for it.

use super::gaps::Gaps;
use super::gcra::{Place, Rate, Refused};
use crate::clock::Instant;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Stands in for the bucket while its rate changes; whoever meets it waits for the lock under which that happens.
const CHANGING: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Bucket {
    /// The bucket as [`Rate`] understands it.
    empty_at: AtomicU64,
    nanos_per_permit: AtomicU64,
    /// The burst, and above it how often it or the rate was changed.
    terms: AtomicU64,
    given_up: Mutex<GivenUp>,
    /// How many there are, so that only who can profit takes the lock.
    gaps: AtomicU64,
}

#[derive(Debug, Default)]
struct GivenUp {
    gaps: Gaps,
    /// What lies before this on the line meant something else before the last change, and is not given back.
    floor: u64,
}

impl Bucket {
    /// A bucket for `rate`; `empty_at` is what it holds.
    pub(super) fn new(rate: Rate, empty_at: u64) -> Self {
        Self {
            empty_at: AtomicU64::new(empty_at),
            nanos_per_permit: AtomicU64::new(rate.nanos_per_permit()),
            terms: AtomicU64::new(u64::from(rate.burst())),
            given_up: Mutex::default(),
            gaps: AtomicU64::new(0),
        }
    }

    /// The rate now, for who holds the lock under which it changes.
    fn rate(&self) -> Rate {
        Rate::of(self.nanos_per_permit.load(Ordering::Relaxed), burst(self.terms.load(Ordering::Relaxed)))
    }

    /// Takes `permits` and says from when on they may be used, provided that is not after `latest`.
    #[inline]
    pub(super) fn reserve(&self, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        // Relaxed: who misses a gap queues at the end, where everything is right as well.
        if self.gaps.load(Ordering::Relaxed) != 0
            && let Some(answer) = self.fill_gap(permits, now, latest)
        {
            return answer;
        }
        loop {
            // Acquire, and before the word: a place must not look younger than it is.
            let terms = self.terms.load(Ordering::Acquire);
            // Acquire: the numbers read after it are at least as new as the word.
            let empty_at = self.empty_at.load(Ordering::Acquire);
            // Acquire: who reads a new number sees below that there was a change.
            let rate = Rate::of(self.nanos_per_permit.load(Ordering::Acquire), burst(terms));
            // So the rate is of one piece; and were it newer than the word, then the word has changed as well and the
            // swap fails, or it stayed as it was, and then this request came after the change.
            if empty_at == CHANGING || self.terms.load(Ordering::Relaxed) != terms {
                self.settle();
                continue;
            }
            let place = rate.take(empty_at, permits, now, latest)?;
            // Relaxed: only the number itself is handed on.
            let swap = self.empty_at.compare_exchange_weak(empty_at, place.end, Ordering::Relaxed, Ordering::Relaxed);
            if swap.is_ok() {
                return Ok(Place { changes: changes(terms), ..place });
            }
        }
    }

    /// What [`reserve`](Self::reserve) would answer. Takes nothing.
    pub(super) fn peek(&self, permits: u32, now: Instant) -> Result<(), Refused> {
        let given_up = lock(&self.given_up);
        let rate = self.rate();
        let gap = given_up.gaps.peek(rate, permits, now, now);
        gap.unwrap_or_else(|| rate.take(self.empty_at.load(Ordering::Relaxed), permits, now, now).map(|_| ()))
    }

    /// Returns when no change is under way.
    #[cold]
    fn settle(&self) {
        drop(lock(&self.given_up));
    }

    /// Takes the first gap that will do. `None`: there is none.
    #[cold]
    fn fill_gap(&self, permits: u32, now: Instant, latest: Instant) -> Option<Result<Place, Refused>> {
        let gaps = &mut lock(&self.given_up).gaps;
        let answer = gaps.fill(self.rate(), permits, now, latest);
        self.gaps.store(gaps.len() as u64, Ordering::Relaxed);
        let changes = changes(self.terms.load(Ordering::Relaxed));
        answer.map(|answer| answer.map(|place| Place { changes, ..place }))
    }

    /// Gives up a place that was not used. The last one shortens the queue, with all gaps that it laid bare; any
    /// other leaves a gap for who comes next.
    pub(super) fn give_up(&self, place: Place, now: Instant) {
        let Place { mut start, end, .. } = place;
        let GivenUp { gaps, floor } = &mut *lock(&self.given_up);
        if place.changes != changes(self.terms.load(Ordering::Relaxed)) {
            start = start.max(*floor);
        }
        if start >= end {
            return;
        }
        gaps.give_up(start, end, now, |start, end| {
            // Nothing was taken after the last place, so this is the state in which it was found.
            self.empty_at.compare_exchange(end, start, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        });
        self.gaps.store(gaps.len() as u64, Ordering::Relaxed);
    }

    /// Changes how fast permits come back and how many can be saved up, both at one moment: from now on, or from the
    /// last promised place on. A larger bucket is not fuller; from a smaller one the rest is gone. `new` is told the
    /// rate so far and may refuse.
    pub(super) fn change<E>(&self, now: Instant, new: impl FnOnce(Rate) -> Result<Rate, E>) -> Result<(), E> {
        let mut given_up = lock(&self.given_up);
        let old = self.rate();
        let new = new(old)?;
        if new == old {
            return Ok(());
        }
        // From here to the last store nobody takes anything, so no request meets the old word with the new rate; and
        // who has read the old word finds another one when it swaps, unless nothing was saved. AcqRel: after what came
        // before it, before what comes after it.
        let before = self.empty_at.swap(CHANGING, Ordering::AcqRel);
        let after = old.convert(before, new, now);
        given_up.floor = given_up.floor.max(old.floor(new, now));
        if new.nanos_per_permit() != old.nanos_per_permit() {
            given_up.gaps.cut(now);
            self.gaps.store(given_up.gaps.len() as u64, Ordering::Relaxed);
        }
        // Release, and before the other number: who reads that one sees that there was a change.
        let changes = changes(self.terms.load(Ordering::Relaxed)).wrapping_add(1);
        self.terms.store(u64::from(changes) << u32::BITS | u64::from(new.burst()), Ordering::Release);
        self.nanos_per_permit.store(new.nanos_per_permit(), Ordering::Release);
        // Release: who reads this word reads the new rate.
        self.empty_at.store(after, Ordering::Release);
        Ok(())
    }

    /// The rate and the bucket at one moment.
    pub(super) fn state(&self) -> (Rate, u64) {
        let _settled = lock(&self.given_up);
        (self.rate(), self.empty_at.load(Ordering::Relaxed))
    }
}

/// The low half of the terms.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn burst(terms: u64) -> u32 {
    terms as u32
}

/// The high half of the terms.
const fn changes(terms: u64) -> u32 {
    (terms >> u32::BITS) as u32
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
        bucket.change(at(0), |_| Ok::<_, ()>(Rate::of(1_000, 10))).unwrap();
        bucket.give_up(place, at(0));
        let (rate, empty_at) = bucket.state();
        assert_eq!(rate.available(empty_at, at(0)), 0);
    }

    #[test]
    fn a_reservation_given_back_after_the_burst_grew_does_not_hold_more_than_the_old_burst() {
        let bucket = bucket(10);
        let place = reserved(&bucket, 10, at(0));
        bucket.change(at(5), |_| Ok::<_, ()>(Rate::of(SECOND, 100))).unwrap();
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
                    5 => bucket.change(now, |_| Ok::<_, ()>(Rate::of(TICK * [1, 2, 4][pick % 3], burst))).unwrap(),
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
