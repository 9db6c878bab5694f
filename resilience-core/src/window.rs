//! Sliding windows of call results: over the last n calls, or over the last span of time.
//! Every counted call has a position, from 1; a window remembers only the calls that were bad and where it begins, so
//! a good call costs it nothing. Recording takes a bounded number of steps, whatever the idle time before it.

mod calls;
mod time;

use std::time::Duration;

use crate::clock::Instant;
use calls::CallWindow;
use time::TimeWindow;

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

#[derive(Debug)]
pub(crate) enum Window {
    Calls(CallWindow),
    Time(Box<TimeWindow>),
}

impl Window {
    pub(crate) fn last_calls(size: u32) -> Self {
        Self::Calls(CallWindow::new(u64::from(size)))
    }

    pub(crate) fn last_span(span: Duration) -> Self {
        Self::Time(Box::new(TimeWindow::new(span)))
    }

    /// Lets the window end at `now`, when `position` calls have been counted. Comes before the next call's `record`.
    pub(crate) fn advance(&mut self, position: u64, now: Instant) {
        if let Self::Time(window) = self {
            window.advance(position, now);
        }
    }

    /// Until when calls may be counted without [`advance`](Self::advance).
    pub(crate) fn steady_until(&self) -> Instant {
        match self {
            Self::Calls(_) => Instant::from_nanos(u64::MAX),
            Self::Time(window) => window.steady_until(),
        }
    }

    /// Remembers the call at `position`. Calls that were good need not be recorded, only counted.
    pub(crate) fn record(&mut self, position: u64, sample: Sample) {
        match self {
            Self::Calls(window) => window.record(position, sample),
            Self::Time(window) => window.record(sample),
        }
    }

    /// The position of the last call that is too old to be in the window that ends at `position`.
    pub(crate) fn start(&self, position: u64) -> u64 {
        match self {
            Self::Calls(window) => window.start(position),
            Self::Time(window) => window.start(),
        }
    }

    /// The sums of the window that ends at `position` and `now`.
    pub(crate) fn counts(&self, position: u64, now: Instant) -> Counts {
        match self {
            Self::Calls(window) => window.counts(position),
            Self::Time(window) => window.counts(position, now),
        }
    }

    /// Forgets everything; positions begin anew.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Calls(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }

    /// Puts `counts` into a window that is empty, as if those calls had just ended, bad ones spread evenly among good
    /// ones; returns the position of the last. More calls than the window holds are scaled down.
    pub(crate) fn refill(&mut self, counts: Counts, now: Instant) -> u64 {
        match self {
            Self::Calls(window) => window.refill(counts),
            Self::Time(window) => {
                window.hold(counts, counts.calls, now);
                counts.calls
            }
        }
    }

    /// Takes over what `before` holds, where that is a window of the same kind: exactly the last calls that both hold;
    /// of a time window of another span, its sums. A window of another kind begins empty at `position`.
    pub(crate) fn inherit(&mut self, before: Option<Self>, position: u64, now: Instant) {
        match (self, before) {
            (Self::Calls(window), Some(Self::Calls(before))) => window.inherit(before, position),
            (Self::Calls(window), _) => window.begin(position),
            (Self::Time(window), Some(Self::Time(before))) => window.inherit(*before, position, now),
            (Self::Time(window), _) => window.hold(Counts::default(), position, now),
        }
    }
}

#[cfg(test)]
mod tests;
