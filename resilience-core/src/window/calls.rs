//! The window of the last n calls: the positions of the bad ones among them, oldest first.
//! Exact at every position; its memory is that of the bad calls in it.

use std::collections::VecDeque;

use super::{Counts, Sample};

#[derive(Debug)]
pub(crate) struct CallWindow {
    size: u64,
    /// Calls up to this position are not in the window, even where the size would allow it.
    floor: u64,
    failed: VecDeque<u64>,
    slow: VecDeque<u64>,
}

impl CallWindow {
    pub(super) fn new(size: u64) -> Self {
        Self { size, floor: 0, failed: VecDeque::new(), slow: VecDeque::new() }
    }

    pub(super) fn start(&self, position: u64) -> u64 {
        position.saturating_sub(self.size).max(self.floor)
    }

    pub(super) fn record(&mut self, position: u64, sample: Sample) {
        let start = self.start(position);
        for (happened, positions) in [(sample.failed, &mut self.failed), (sample.slow, &mut self.slow)] {
            if happened {
                // What has left the window goes in one step, however much it is.
                positions.drain(..left(positions, start));
                positions.push_back(position);
            }
        }
    }

    pub(super) fn counts(&self, position: u64) -> Counts {
        let start = self.start(position);
        let inside = |positions: &VecDeque<u64>| (positions.len() - left(positions, start)) as u64;
        Counts { calls: position - start, failed: inside(&self.failed), slow: inside(&self.slow) }
    }

    pub(super) fn clear(&mut self) {
        self.floor = 0;
        self.failed.clear();
        self.slow.clear();
    }

    /// Begins to count after `position`.
    pub(super) fn begin(&mut self, position: u64) {
        self.clear();
        self.floor = position;
    }

    pub(super) fn refill(&mut self, counts: Counts) -> u64 {
        let calls = counts.calls.min(self.size);
        for (bad, positions) in [(counts.failed, &mut self.failed), (counts.slow, &mut self.slow)] {
            // Rounded up: what is not known for certain shall not make a failing dependency look healthy.
            let bad = scaled(bad, calls, counts.calls).min(calls);
            positions.extend((1..=bad).map(|number| scaled(number, calls, bad)));
        }
        calls
    }

    pub(super) fn inherit(&mut self, before: Self, position: u64) {
        // Bad calls from before the old window's start may be forgotten already, so the new one must not reach there.
        self.floor = before.start(position);
        self.failed = before.failed;
        self.slow = before.slow;
    }
}

/// How many of `positions` are not after `start`.
fn left(positions: &VecDeque<u64>, start: u64) -> usize {
    positions.partition_point(|position| *position <= start)
}

/// `value × numerator / denominator`, rounded up; 0 where there is nothing to divide by.
fn scaled(value: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(value) * u128::from(numerator);
    let quotient = product.div_ceil(u128::from(denominator.max(1)));
    u64::try_from(quotient).unwrap_or(u64::MAX)
}
