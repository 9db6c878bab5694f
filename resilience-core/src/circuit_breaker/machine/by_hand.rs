//! What comes from outside the calls: an operator's states, other settings, a snapshot.
//! Each is one step under the lock; calls under way are judged by what they find when they end.

use std::time::Duration;

use super::{Machine, Mode, News, Ordering, Probes, RampUp, Row, Tally, lock, slow_after};
use crate::circuit_breaker::BreakerState;
use crate::circuit_breaker::config::BreakerSettings;
use crate::circuit_breaker::snapshot::{BreakerSnapshot, WindowCounts};
use crate::clock::Instant;
use crate::config::ConfigError;

impl Machine {
    /// Moves to a state by hand; `None` when it is there already.
    pub(in crate::circuit_breaker) fn set(&self, state: BreakerState) -> Option<News> {
        let mut guarded = lock(&self.guarded);
        let from = self.state();
        if from == state && state != BreakerState::Closed {
            return None;
        }
        let change = self.transition(&mut guarded, Mode::from(state));
        (from != state).then_some(change)
    }

    pub(in crate::circuit_breaker) fn settings(&self) -> BreakerSettings {
        lock(&self.guarded).settings.clone()
    }

    /// Goes by `settings` from now on. The state stays, an open breaker its time, a ramp its end; a window keeps what
    /// it holds if it is one of the same kind.
    pub(in crate::circuit_breaker) fn reconfigure(&self, settings: BreakerSettings, now: Instant) {
        let mut guarded = lock(&self.guarded);
        let gate = self.gate();
        let position = self.tally().position();
        let before = guarded.window.take();
        guarded.window = settings.window().map(|mut window| {
            window.inherit(before, position, now);
            window
        });
        // Relaxed, both: published by the release of the gate that follows.
        self.front.slow_after.store(slow_after(&settings), Ordering::Relaxed);
        // What the window holds may be too bad for the new settings: the next call is judged, whatever it is.
        self.front.judged_until.store(u64::MAX, Ordering::Relaxed);
        guarded.settings = settings;
        self.open_gate(&guarded, gate.mode(), gate.generation());
    }

    pub(in crate::circuit_breaker) fn snapshot(&self, now: Instant) -> BreakerSnapshot {
        let statistics = self.statistics(now);
        let is_open = statistics.state == BreakerState::Open;
        BreakerSnapshot {
            state: statistics.state,
            generation: statistics.generation,
            open_left: is_open.then_some(statistics.probes_in.unwrap_or_default()),
            openings: statistics.openings,
            ramp_up_left: statistics.ramp_up_left,
            consecutive_failures: statistics.consecutive_failures,
            window: WindowCounts {
                calls: statistics.window_calls,
                failures: statistics.window_failures,
                slow: statistics.window_slow,
            },
        }
    }

    /// Takes over what `snapshot` says, as of now; calls under way from before are not judged.
    pub(in crate::circuit_breaker) fn restore(
        &self,
        name: &str,
        snapshot: &BreakerSnapshot,
        now: Instant,
    ) -> Result<Option<News>, ConfigError> {
        let mut guarded = lock(&self.guarded);
        let guarded = &mut *guarded;
        let longest_ramp = guarded.settings.ramp_up.unwrap_or_default();
        snapshot.check(name, guarded.settings.longest_open(), longest_ramp)?;
        let from = self.gate();
        // After both: no permit of either life is mistaken for one of this.
        let generation = from.generation().max(snapshot.generation) + 1;
        guarded.openings = snapshot.openings;
        guarded.probes = Probes::default();
        guarded.ramp =
            snapshot.ramp_up_left.filter(|left| !left.is_zero()).map(|left| RampUp::resumed(now, left, longest_ramp));
        self.begin(guarded, generation);
        let position = guarded.window.as_mut().map_or(0, |window| window.refill(snapshot.window.into(), now));
        guarded.row = Row { last: position, length: snapshot.consecutive_failures };
        // Those calls were not made through this breaker.
        guarded.counted = guarded.counted.wrapping_sub(position);
        let mode = match guarded.ramp {
            Some(_) => Mode::RampUp,
            None => Mode::from(snapshot.state),
        };
        let probe_at = now + snapshot.open_left.unwrap_or(Duration::ZERO);
        // Relaxed, all three: published by the release of the gate that follows; until then no call is of this
        // generation. The next call is judged, as after a reconfiguration.
        self.tally.store(Tally::new(generation, position).0, Ordering::Relaxed);
        self.front.probe_at.store(probe_at.as_nanos(), Ordering::Relaxed);
        self.front.judged_until.store(u64::MAX, Ordering::Relaxed);
        self.open_gate(guarded, mode, generation);
        let (from, to) = (from.mode().state(), snapshot.state);
        Ok((from != to).then_some(News::Changed { from, to, generation }))
    }
}
