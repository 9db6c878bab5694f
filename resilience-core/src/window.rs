//! Sliding windows of call results: over the last n calls, or over the last span of time.
//! Recording is O(1) whatever the window's size or the time since the last call; memory is fixed at build.

use std::time::Duration;

use crate::clock::{Instant, nanos};

/// One call, as the window counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// Sums over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

impl Counts {
    fn add(&mut self, sample: Sample) {
        self.calls += 1;
        self.failed += u64::from(sample.failed);
        self.slow += u64::from(sample.slow);
    }

    fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }
}

#[derive(Debug)]
pub(crate) enum Window {
    Count(CountWindow),
    Time(Box<TimeWindow>),
}

impl Window {
    pub(crate) fn last_calls(size: usize) -> Self {
        Self::Count(CountWindow { ring: vec![Sample::default(); size], next: 0, full: false, sums: Counts::default() })
    }

    pub(crate) fn last_span(span: Duration) -> Self {
        Self::Time(Box::new(TimeWindow::new(span)))
    }

    pub(crate) fn needs_time(&self) -> bool {
        matches!(self, Self::Time(_))
    }

    /// Adds a call that ended at `now` and returns the sums of the window that ends with it.
    pub(crate) fn record(&mut self, sample: Sample, now: Instant) -> Counts {
        match self {
            Self::Count(window) => window.record(sample),
            Self::Time(window) => window.record(sample, now),
        }
    }

    pub(crate) fn counts(&mut self, now: Instant) -> Counts {
        match self {
            Self::Count(window) => window.sums,
            Self::Time(window) => {
                window.rotate(now);
                window.sums
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Count(window) => {
                window.next = 0;
                window.full = false;
                window.sums = Counts::default();
            }
            Self::Time(window) => window.clear(),
        }
    }
}

/// The last n calls in a ring.
#[derive(Debug)]
pub(crate) struct CountWindow {
    ring: Vec<Sample>,
    next: usize,
    full: bool,
    sums: Counts,
}

impl CountWindow {
    fn record(&mut self, sample: Sample) -> Counts {
        let slot = &mut self.ring[self.next];
        if self.full {
            let mut oldest = Counts::default();
            oldest.add(*slot);
            self.sums.subtract(oldest);
        }
        *slot = sample;
        self.sums.add(sample);
        self.next += 1;
        if self.next == self.ring.len() {
            self.next = 0;
            self.full = true;
        }
        self.sums
    }
}

/// How many slices a time window has: it forgets in steps of a sixteenth of its span.
const SLICES: usize = 16;

/// The calls of the last span of time, in slices. Covers at least 15/16 of the span and never more than the span.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    slice_nanos: u64,
    slices: [Counts; SLICES],
    /// The number of the newest slice, counted from the clock's origin.
    current: u64,
    sums: Counts,
}

impl TimeWindow {
    fn new(span: Duration) -> Self {
        Self {
            slice_nanos: (nanos(span) / SLICES as u64).max(1),
            slices: [Counts::default(); SLICES],
            current: 0,
            sums: Counts::default(),
        }
    }

    fn index(slice: u64) -> usize {
        // The remainder is below 16, so the cast is exact.
        #[allow(clippy::cast_possible_truncation)]
        let index = (slice % SLICES as u64) as usize;
        index
    }

    /// Forgets the slices that have left the window at `now`. A time before the newest slice counts as that slice.
    fn rotate(&mut self, now: Instant) {
        let slice = now.as_nanos() / self.slice_nanos;
        if slice <= self.current {
            return;
        }
        if slice - self.current >= SLICES as u64 {
            self.clear();
        } else {
            for passed in self.current + 1..=slice {
                let left = std::mem::take(&mut self.slices[Self::index(passed)]);
                self.sums.subtract(left);
            }
        }
        self.current = slice;
    }

    fn record(&mut self, sample: Sample, now: Instant) -> Counts {
        self.rotate(now);
        self.slices[Self::index(self.current)].add(sample);
        self.sums.add(sample);
        self.sums
    }

    fn clear(&mut self) {
        self.slices = [Counts::default(); SLICES];
        self.sums = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(samples: impl Iterator<Item = Sample>) -> Counts {
        let mut counts = Counts::default();
        samples.for_each(|sample| counts.add(sample));
        counts
    }

    fn samples() -> impl Strategy<Value = Vec<(bool, bool, u64)>> {
        // Gaps from nothing over slice edges to idle times far beyond the window.
        let gap = prop_oneof![Just(0), 1_u64..50, 90_u64..110, 1_500_u64..1_700, Just(1_000_000)];
        proptest::collection::vec((any::<bool>(), any::<bool>(), gap), 1..300)
    }

    proptest! {
        #[test]
        fn a_count_window_equals_the_sum_of_the_last_n(calls in samples(), size in 1_usize..40) {
            let mut window = Window::last_calls(size);
            let mut all = Vec::new();
            for (failed, slow, _) in calls {
                let sample = Sample { failed, slow };
                all.push(sample);
                let naive = sum(all.iter().rev().take(size).copied());
                prop_assert_eq!(window.record(sample, Instant::default()), naive);
            }
        }

        #[test]
        fn a_time_window_equals_the_sum_of_its_sixteen_slices(calls in samples()) {
            let mut window = Window::last_span(Duration::from_nanos(1_600));
            let mut all: Vec<(u64, Sample)> = Vec::new();
            let mut now = 5_000;
            for (failed, slow, gap) in calls {
                now += gap;
                let sample = Sample { failed, slow };
                all.push((now, sample));
                let naive = sum(all.iter().filter(|(at, _)| at / 100 + SLICES as u64 > now / 100).map(|(_, sample)| *sample));
                prop_assert_eq!(window.record(sample, Instant::from_nanos(now)), naive);
            }
        }
    }
}
