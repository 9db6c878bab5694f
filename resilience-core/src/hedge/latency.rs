//! How long calls take, as a histogram that forgets: eight buckets for each doubling, halved when it is full.
//! Bounded memory, no lock; a quantile is off by at most an eighth. Knows no clock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::nanos;

/// Buckets for each doubling: a value is off by at most an eighth of itself.
const STEPS: u64 = 8;
/// From 1 µs on; what is shorter counts as that.
const UNIT_NANOS: u64 = 1_024;
/// Enough doublings for 2^32 µs, more than an hour.
const BUCKETS: usize = 32 * 8;
/// So many are remembered before all counts are halved.
const FULL: u64 = 1_024;
/// So many it takes before a quantile means anything.
const MINIMUM: u64 = 100;
/// The quantile is computed anew after so many.
const REFRESH: u64 = 64;

#[derive(Debug)]
pub(super) struct Latencies {
    counts: Box<[AtomicU32]>,
    /// How many there are in the buckets, about.
    total: AtomicU64,
    /// The quantile in nanoseconds; 0: not yet known.
    answer: AtomicU64,
}

// Relaxed throughout: every word is a figure of its own, and an estimate may be a few calls off.
impl Latencies {
    pub(super) fn new() -> Self {
        let counts = (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self { counts, total: AtomicU64::new(0), answer: AtomicU64::new(0) }
    }

    /// Adds one; `part` is the quantile that is asked for.
    pub(super) fn record(&self, latency: Duration, part: f64) {
        self.counts[bucket(nanos(latency))].fetch_add(1, Ordering::Relaxed);
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        if total >= MINIMUM && (total == MINIMUM || total.is_multiple_of(REFRESH)) {
            self.refresh(part, total >= FULL);
        }
    }

    /// Another quantile is asked for from now on.
    pub(super) fn ask_for(&self, part: f64) {
        if self.total.load(Ordering::Relaxed) >= MINIMUM {
            self.refresh(part, false);
        }
    }

    /// The latency within which the asked part of the calls was over.
    pub(super) fn quantile(&self) -> Option<Duration> {
        let answer = self.answer.load(Ordering::Relaxed);
        (answer > 0).then(|| Duration::from_nanos(answer))
    }

    #[cold]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small count")]
    fn refresh(&self, part: f64, halve: bool) {
        let counts: Vec<u64> = self.counts.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).collect();
        let sum: u64 = counts.iter().sum();
        let wanted = ((sum as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                self.answer.store(upper_end(index), Ordering::Relaxed);
                break;
            }
        }
        if halve {
            let mut left = 0;
            for (count, seen) in self.counts.iter().zip(counts) {
                let seen = u32::try_from(seen).unwrap_or(u32::MAX);
                // What was added meanwhile stays.
                count.fetch_sub(seen - seen / 2, Ordering::Relaxed);
                left += u64::from(seen / 2);
            }
            self.total.store(left.max(MINIMUM), Ordering::Relaxed);
        }
    }
}

fn bucket(nanos: u64) -> usize {
    let units = (nanos / (UNIT_NANOS / STEPS)).max(STEPS);
    let doublings = u64::from(units.ilog2() - STEPS.ilog2());
    let step = (units >> doublings) - STEPS;
    usize::try_from(doublings * STEPS + step).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The first latency that is too long for the bucket.
fn upper_end(index: usize) -> u64 {
    let (doublings, step) = (index as u64 / STEPS, index as u64 % STEPS);
    ((STEPS + step + 1) << doublings) * (UNIT_NANOS / STEPS)
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_latency_lies_in_its_bucket_and_a_bucket_is_an_eighth_wide(nanos in 1_024_u64..4_000_000_000_000) {
            let index = bucket(nanos);
            let end = upper_end(index);
            prop_assert!(nanos < end, "{nanos} in {index} up to {end}");
            prop_assert!(end - nanos <= end / 8 + 1, "{nanos} in {index} up to {end}");
        }

        /// Against all that were recorded, sorted; fewer than are ever halved.
        #[test]
        fn the_quantile_is_that_of_a_sorted_list(mut micros in proptest::collection::vec(1_u64..10_000_000, 128..=128), part in 0.01..0.99_f64) {
            let latencies = Latencies::new();
            for micros in &micros {
                latencies.record(Duration::from_micros(*micros), part);
            }
            micros.sort_unstable();
            let wanted = micros.len() as f64 * part;
            let rank = (1..=micros.len()).find(|rank| *rank as f64 >= wanted).unwrap();
            let exact = Duration::from_micros(micros[rank - 1]).max(Duration::from_nanos(1_024));
            let answer = latencies.quantile().unwrap();
            prop_assert!(answer >= exact && answer.as_secs_f64() <= exact.as_secs_f64() * 1.126, "{answer:?}, not {exact:?}");
        }

        #[test]
        fn no_latency_is_too_long_or_too_short(nanos: u64) {
            Latencies::new().record(Duration::from_nanos(nanos), 0.5);
        }
    }

    #[test]
    fn it_forgets_what_was_long_ago() {
        let latencies = Latencies::new();
        for _ in 0..5_000 {
            latencies.record(Duration::from_secs(1), 0.95);
        }
        assert!(latencies.quantile() > Some(Duration::from_secs(1)));
        for _ in 0..20_000 {
            latencies.record(Duration::from_millis(1), 0.95);
        }
        assert!(latencies.quantile() < Some(Duration::from_millis(2)));
    }

    #[test]
    fn a_few_calls_say_nothing() {
        let latencies = Latencies::new();
        for _ in 0..99 {
            latencies.record(Duration::from_secs(1), 0.95);
        }
        assert_eq!(latencies.quantile(), None);
    }
}
