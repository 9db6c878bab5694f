//! The window of the last span of time, in sixteen slices: where each began and how many bad calls it saw.
//! Covers at least 15/16 of the span and never more than the span.

use std::time::Duration;

use super::{Counts, Sample};
use crate::clock::{Instant, nanos};

/// How many slices a window has: it forgets in steps of a sixteenth of its span.
pub(super) const SLICES: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    /// How many calls had been counted when it began.
    start: u64,
    failed: u64,
    slow: u64,
}

#[derive(Debug)]
pub(crate) struct TimeWindow {
    slice_nanos: u64,
    slices: [Slice; SLICES],
    /// The number of the newest slice, counted from the clock's origin.
    newest: u64,
}

impl TimeWindow {
    pub(super) fn new(span: Duration) -> Self {
        let slice_nanos = (nanos(span) / SLICES as u64).max(1);
        Self { slice_nanos, slices: [Slice::default(); SLICES], newest: 0 }
    }

    fn number(&self, now: Instant) -> u64 {
        now.as_nanos() / self.slice_nanos
    }

    /// Makes the slice of `now` the newest. A time before the newest slice counts as that slice.
    pub(super) fn advance(&mut self, position: u64, now: Instant) {
        let slice = self.number(now);
        // After a long idle time each slice is emptied once, however many have passed.
        let first = (self.newest + 1).max(slice.saturating_sub(SLICES as u64 - 1));
        for passed in first..=slice {
            self.slices[index(passed)] = Slice { start: position, failed: 0, slow: 0 };
        }
        self.newest = self.newest.max(slice);
    }

    pub(super) fn steady_until(&self) -> Instant {
        Instant::from_nanos((self.newest + 1).saturating_mul(self.slice_nanos))
    }

    pub(super) fn record(&mut self, sample: Sample) {
        let newest = &mut self.slices[index(self.newest)];
        newest.failed += u64::from(sample.failed);
        newest.slow += u64::from(sample.slow);
    }

    pub(super) fn start(&self) -> u64 {
        self.slices[index(oldest(self.newest))].start
    }

    pub(super) fn counts(&self, position: u64, now: Instant) -> Counts {
        let oldest = oldest(self.newest.max(self.number(now)));
        let mut counts = Counts::default();
        for number in oldest..=self.newest {
            let slice = &self.slices[index(number)];
            if number == oldest {
                counts.calls = position - slice.start;
            }
            counts.failed += slice.failed;
            counts.slow += slice.slow;
        }
        counts
    }

    pub(super) fn clear(&mut self) {
        self.slices = [Slice::default(); SLICES];
    }

    /// Holds just `counts`, in the slice of `now`, when `position` calls have been counted.
    pub(super) fn hold(&mut self, counts: Counts, position: u64, now: Instant) {
        self.newest = self.number(now);
        self.slices = [Slice { start: position - counts.calls, failed: 0, slow: 0 }; SLICES];
        let newest = &mut self.slices[index(self.newest)];
        (newest.failed, newest.slow) = (counts.failed, counts.slow);
    }

    pub(super) fn inherit(&mut self, before: Self, position: u64, now: Instant) {
        if before.slice_nanos == self.slice_nanos {
            *self = before;
        } else {
            self.hold(before.counts(position, now), position, now);
        }
    }
}

fn oldest(newest: u64) -> u64 {
    newest.saturating_sub(SLICES as u64 - 1)
}

fn index(slice: u64) -> usize {
    // The remainder is below 16, so the cast is exact.
    #[allow(clippy::cast_possible_truncation)]
    let index = (slice % SLICES as u64) as usize;
    index
}
