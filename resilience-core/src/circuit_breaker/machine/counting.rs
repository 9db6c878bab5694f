//! How calls are counted: a good one that can change nothing by one exchange, any other under the lock.
//! The order of calls is the order of their positions. Whoever judges sees every bad call before it, because those take
//! their positions under the lock.

use super::{Guarded, Machine, News, Token};
use crate::circuit_breaker::settings::Trip;
use crate::circuit_breaker::word::{LAST_POSITION, Mode, Tally};
use crate::clock::{Instant, nanos};
use crate::sync::{Ordering, lock};
use crate::window::Sample;

/// Failures in a row, by the position of the last: any other call after it ends the row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Row {
    pub(super) last: u64,
    pub(super) length: u32,
}

impl Row {
    pub(super) fn failed(&mut self, position: u64) {
        self.length = self.length_at(position - 1).saturating_add(1);
        self.last = position;
    }

    pub(super) fn length_at(&self, position: u64) -> u32 {
        if self.last == position { self.length } else { 0 }
    }
}

/// The call is of an older generation.
#[derive(Debug)]
pub(super) struct Stale;

impl Machine {
    /// Counts a success without a lock, if it can change nothing; `false` when it has not been counted.
    #[inline]
    pub(super) fn count_good(&self, token: Token, ended: Instant) -> bool {
        // Acquire pairs with the release in `publish`: who sees that the window has moved on sees from where on calls are
        // judged in it. Who reads an old bound is judged under the lock, which is always right.
        if self.is_slow(token, ended) || ended.as_nanos() >= self.front.steady_until.load(Ordering::Acquire) {
            return false;
        }
        loop {
            let tally = self.tally();
            // Relaxed: ordered by the acquire of the tally. A bound that is published after that belongs to a call that
            // is counted after this one, which the exchange makes sure of.
            let may_change =
                tally.position() >= LAST_POSITION || tally.position() < self.front.judged_until.load(Ordering::Relaxed);
            if may_change || !tally.is_of(token.generation) {
                return false;
            }
            if self.count(tally).is_some() {
                return true;
            }
        }
    }

    /// Takes the position after `tally`; `None` when that was not the last any more.
    #[inline]
    pub(super) fn count(&self, tally: Tally) -> Option<u64> {
        let next = tally.next();
        // AcqRel: publishes the bounds set before it to whoever is counted after it. See `tally`.
        let counted = self.tally.compare_exchange_weak(tally.0, next.0, Ordering::AcqRel, Ordering::Relaxed);
        counted.ok().map(|_| next.position())
    }

    /// Counts a call under the lock and acts on what the window says with it.
    pub(super) fn judge(
        &self,
        token: Token,
        success: bool,
        ended: Instant,
        now: &impl Fn() -> Instant,
    ) -> Result<Option<News>, Stale> {
        let mut guarded = lock(&self.guarded);
        let guarded = &mut *guarded;
        let gate = self.gate();
        if gate.generation() != token.generation {
            return Err(Stale);
        }
        if self.tally().position() >= LAST_POSITION {
            self.begin(guarded, gate.generation());
        }
        let slow = self.is_slow(token, ended);
        if let Some(window) = &mut guarded.window {
            window.advance(self.tally().position(), ended);
        }
        self.publish(guarded);
        // Only successes that change nothing can come in between, and only while the tally is of this generation.
        let position = loop {
            if let Some(position) = self.count(self.tally()) {
                break position;
            }
        };
        if !success {
            guarded.failed += 1;
            guarded.row.failed(position);
        }
        let trips = match (&mut guarded.window, guarded.settings.trip) {
            (_, Trip::ConsecutiveFailures(threshold)) => guarded.row.length_at(position) >= threshold,
            (Some(window), _) => {
                window.record(position, Sample { failed: !success, slow });
                guarded.settings.trips(&window.counts(position, ended))
            }
            (None, _) => false,
        };
        Ok(match (trips, gate.mode()) {
            (false, _) => None,
            (true, Mode::MetricsOnly) => {
                guarded.would_open += 1;
                self.begin(guarded, gate.generation());
                Some(News::WouldHaveOpened)
            }
            (true, _) => Some(self.open(guarded, now())),
        })
    }

    #[inline]
    pub(super) fn is_slow(&self, token: Token, ended: Instant) -> bool {
        // Relaxed: whoever ends while the settings change may be measured by either.
        let slow_after = || self.front.slow_after.load(Ordering::Relaxed);
        token.started().is_some_and(|started| nanos(ended.saturating_duration_since(started)) > slow_after())
    }

    /// Ends the tally, whose count is final from here on, and begins an empty one of `generation`.
    pub(super) fn begin(&self, guarded: &mut Guarded, generation: u64) {
        // AcqRel: orders what follows after every call that the old tally counted.
        let ended = Tally(self.tally.swap(Tally::new(generation, 0).0, Ordering::AcqRel));
        guarded.counted = guarded.counted.wrapping_add(ended.position());
        guarded.row = Row::default();
        if let Some(window) = &mut guarded.window {
            window.clear();
        }
        self.publish(guarded);
    }

    /// Publishes until where calls must be judged. Comes after every move of the window, before the next call is
    /// counted under the lock.
    pub(super) fn publish(&self, guarded: &Guarded) {
        let minimum = match guarded.settings.trip {
            Trip::ConsecutiveFailures(_) => 0,
            Trip::FailureRateOfCalls { minimum_calls, .. } | Trip::FailureRateOfTime { minimum_calls, .. } => {
                minimum_calls
            }
        };
        let (start, steady_until) = match &guarded.window {
            None => (0, Instant::from_nanos(u64::MAX)),
            Some(window) => (window.start(self.tally().position()), window.steady_until()),
        };
        // Relaxed: published by the release that follows, and the next one of the tally or the gate.
        self.front.judged_until.store(start + u64::from(minimum), Ordering::Relaxed);
        // Release: see `count_good`.
        self.front.steady_until.store(steady_until.as_nanos(), Ordering::Release);
    }
}
