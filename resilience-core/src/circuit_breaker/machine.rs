//! The breaker's state machine: told the time, it answers; it never sleeps and knows no clock, name or observer.
//! Invariants: at most `half_open_permits` probes of a generation are under way; an outcome of an older generation
//! changes nothing but statistics; the manual states change only by [`Machine::set`].

use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::config::{Settings, Trip};
use super::{BreakerState, BreakerStatistics, Token};
use crate::clock::Instant;
use crate::outcome::{Outcome, Reason};
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, lock};
use crate::window::{Counts, Sample, Window};

/// A state change that happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) from: BreakerState,
    pub(super) to: BreakerState,
    pub(super) generation: u64,
}

/// A call's admission, or why not and when to ask again.
pub(super) type Decision = Result<Token, (Reason, Option<Duration>)>;

pub(super) struct Machine {
    settings: Settings,
    /// State in the low three bits, generation above: one load decides for a closed breaker.
    word: CachePadded<AtomicU64>,
    /// When an open breaker starts to probe, in nanoseconds.
    probe_at: AtomicU64,
    /// Failures in a row. Written under the lock, read without it to skip the lock on success.
    consecutive: AtomicU32,
    guarded: Mutex<Guarded>,
    totals: CachePadded<Totals>,
}

/// What only the holder of the lock may touch.
struct Guarded {
    window: Option<Window>,
    probes_under_way: u32,
    probe_successes: u32,
}

struct Totals {
    successes: AtomicU64,
    failures: AtomicU64,
    ignored: AtomicU64,
    rejected: AtomicU64,
}

const STATE_BITS: u32 = 3;

fn pack(state: BreakerState, generation: u64) -> u64 {
    let code = match state {
        BreakerState::Closed => 0,
        BreakerState::Open => 1,
        BreakerState::HalfOpen => 2,
        BreakerState::ForcedOpen => 3,
        BreakerState::Disabled => 4,
    };
    generation << STATE_BITS | code
}

fn unpack(word: u64) -> (BreakerState, u64) {
    let state = match word & 0b111 {
        0 => BreakerState::Closed,
        1 => BreakerState::Open,
        2 => BreakerState::HalfOpen,
        3 => BreakerState::ForcedOpen,
        _ => BreakerState::Disabled,
    };
    (state, word >> STATE_BITS)
}

impl Machine {
    pub(super) fn new(settings: Settings) -> Self {
        let window = match settings.trip {
            Trip::ConsecutiveFailures(_) => None,
            Trip::FailureRateOfCalls { calls, .. } => Some(Window::last_calls(calls as usize)),
            Trip::FailureRateOfTime { span, .. } => Some(Window::last_span(span)),
        };
        Self {
            settings,
            word: CachePadded::new(AtomicU64::new(pack(BreakerState::Closed, 0))),
            probe_at: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            guarded: Mutex::new(Guarded { window, probes_under_way: 0, probe_successes: 0 }),
            totals: CachePadded::new(Totals {
                successes: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                ignored: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
            }),
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.load().0
    }

    fn load(&self) -> (BreakerState, u64) {
        // Acquire pairs with the release in `transition`: who sees a state sees what was set up for it.
        unpack(self.word.load(Ordering::Acquire))
    }

    pub(super) fn admit(&self, now: impl Fn() -> Instant) -> (Decision, Option<Change>) {
        let (state, generation) = self.load();
        let (decision, change) = match state {
            BreakerState::Closed | BreakerState::Disabled => (Ok(self.token(generation, &now)), None),
            BreakerState::ForcedOpen => (Err((Reason::CircuitForcedOpen, None)), None),
            BreakerState::Open => match self.open_time_left(now()) {
                Some(left) => (Err((Reason::CircuitOpen, Some(left))), None),
                None => self.admit_probe(&now),
            },
            BreakerState::HalfOpen => self.admit_probe(&now),
        };
        if decision.is_err() {
            // Relaxed: a counter, nothing is published through it.
            self.totals.rejected.fetch_add(1, Ordering::Relaxed);
        }
        (decision, change)
    }

    /// How long the breaker stays open, or `None` when its time is over.
    fn open_time_left(&self, now: Instant) -> Option<Duration> {
        // Relaxed: the load of the word was an acquire, and a later opening only makes this value later.
        let probe_at = Instant::from_nanos(self.probe_at.load(Ordering::Relaxed));
        (now < probe_at).then(|| probe_at.saturating_duration_since(now))
    }

    /// Decides under the lock, where open turns into half-open and probes are counted.
    fn admit_probe(&self, now: &impl Fn() -> Instant) -> (Decision, Option<Change>) {
        let mut guarded = lock(&self.guarded);
        // The state may have moved on before the lock was had.
        let (state, generation) = self.load();
        match state {
            BreakerState::Closed | BreakerState::Disabled => (Ok(self.token(generation, now)), None),
            BreakerState::ForcedOpen => (Err((Reason::CircuitForcedOpen, None)), None),
            BreakerState::Open => {
                if let Some(left) = self.open_time_left(now()) {
                    return (Err((Reason::CircuitOpen, Some(left))), None);
                }
                let change = self.transition(&mut guarded, BreakerState::HalfOpen);
                guarded.probes_under_way = 1;
                (Ok(self.token(change.generation, now)), Some(change))
            }
            BreakerState::HalfOpen if guarded.probes_under_way < self.settings.half_open_permits => {
                guarded.probes_under_way += 1;
                (Ok(self.token(generation, now)), None)
            }
            BreakerState::HalfOpen => (Err((Reason::HalfOpenBusy, None)), None),
        }
    }

    fn token(&self, generation: u64, now: &impl Fn() -> Instant) -> Token {
        Token { generation, started: self.settings.slow_calls.map(|_| now()) }
    }

    pub(super) fn settle(&self, token: Token, outcome: &Outcome, now: impl Fn() -> Instant) -> Option<Change> {
        let verdict = outcome.verdict();
        let total = match verdict {
            Some(true) => &self.totals.successes,
            Some(false) => &self.totals.failures,
            None => &self.totals.ignored,
        };
        // Relaxed: a counter, nothing is published through it.
        total.fetch_add(1, Ordering::Relaxed);

        let (state, generation) = self.load();
        if generation != token.generation {
            return None;
        }
        match state {
            BreakerState::Closed => self.settle_closed(token, verdict?, &now),
            BreakerState::HalfOpen => self.settle_probe(token, verdict, &now),
            BreakerState::Open | BreakerState::ForcedOpen | BreakerState::Disabled => None,
        }
    }

    fn settle_closed(&self, token: Token, success: bool, now: &impl Fn() -> Instant) -> Option<Change> {
        let counts_in_a_row = matches!(self.settings.trip, Trip::ConsecutiveFailures(_));
        // Relaxed: a failure that is being counted at this moment may as well have come after this success.
        if counts_in_a_row && success && self.consecutive.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut guarded = lock(&self.guarded);
        if self.load() != (BreakerState::Closed, token.generation) {
            return None;
        }
        let in_a_row = if success { 0 } else { self.consecutive.load(Ordering::Relaxed).saturating_add(1) };
        self.consecutive.store(in_a_row, Ordering::Relaxed);
        let opens = match (self.settings.trip, &mut guarded.window) {
            (Trip::ConsecutiveFailures(threshold), _) => in_a_row >= threshold,
            (
                Trip::FailureRateOfCalls { rate, minimum_calls, .. }
                | Trip::FailureRateOfTime { rate, minimum_calls, .. },
                Some(window),
            ) => {
                let needs_time = window.needs_time() || token.started.is_some();
                let ended = if needs_time { now() } else { Instant::default() };
                let slow = self.is_slow(token, ended);
                let counts = window.record(Sample { failed: !success, slow }, ended);
                self.exceeds(&counts, rate, minimum_calls)
            }
            (_, None) => false,
        };
        opens.then(|| self.open(&mut guarded, now()))
    }

    fn is_slow(&self, token: Token, ended: Instant) -> bool {
        match (self.settings.slow_calls, token.started) {
            (Some(slow), Some(started)) => ended.saturating_duration_since(started) > slow.longer_than,
            _ => false,
        }
    }

    fn exceeds(&self, counts: &Counts, rate: f64, minimum_calls: u32) -> bool {
        if counts.calls < u64::from(minimum_calls) {
            return false;
        }
        let calls = counts.calls as f64;
        counts.failed as f64 / calls >= rate
            || self.settings.slow_calls.is_some_and(|slow| counts.slow as f64 / calls >= slow.rate)
    }

    fn settle_probe(&self, token: Token, verdict: Option<bool>, now: &impl Fn() -> Instant) -> Option<Change> {
        let mut guarded = lock(&self.guarded);
        if self.load() != (BreakerState::HalfOpen, token.generation) {
            return None;
        }
        guarded.probes_under_way = guarded.probes_under_way.saturating_sub(1);
        // A probe that took too long is no sign of health, whatever it returned.
        let verdict = verdict.map(|success| success && !(token.started.is_some() && self.is_slow(token, now())));
        match verdict {
            None => None,
            Some(false) => Some(self.open(&mut guarded, now())),
            Some(true) => {
                guarded.probe_successes += 1;
                (guarded.probe_successes >= self.settings.half_open_successes)
                    .then(|| self.transition(&mut guarded, BreakerState::Closed))
            }
        }
    }

    fn open(&self, guarded: &mut MutexGuard<'_, Guarded>, now: Instant) -> Change {
        // Relaxed: published by the release store of the word that follows.
        self.probe_at.store((now + self.settings.open_for).as_nanos(), Ordering::Relaxed);
        self.transition(guarded, BreakerState::Open)
    }

    /// Moves to `to` and begins a new generation: what was counted before is history.
    fn transition(&self, guarded: &mut MutexGuard<'_, Guarded>, to: BreakerState) -> Change {
        let (from, generation) = self.load();
        guarded.probes_under_way = 0;
        guarded.probe_successes = 0;
        if let Some(window) = &mut guarded.window {
            window.clear();
        }
        self.consecutive.store(0, Ordering::Relaxed);
        let generation = generation + 1;
        // Release pairs with the acquire in `load`.
        self.word.store(pack(to, generation), Ordering::Release);
        Change { from, to, generation }
    }

    /// Moves to a state by hand; `None` when it is there already.
    pub(super) fn set(&self, state: BreakerState) -> Option<Change> {
        let mut guarded = lock(&self.guarded);
        if self.state() == state && state != BreakerState::Closed {
            return None;
        }
        let change = self.transition(&mut guarded, state);
        (change.from != change.to).then_some(change)
    }

    pub(super) fn statistics(&self, now: Instant) -> BreakerStatistics {
        let mut guarded = lock(&self.guarded);
        let (state, generation) = self.load();
        let window = guarded.window.as_mut().map_or_else(Counts::default, |window| window.counts(now));
        drop(guarded);
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let totals = &self.totals;
        let (successes, failures, ignored) = (read(&totals.successes), read(&totals.failures), read(&totals.ignored));
        BreakerStatistics {
            state,
            generation,
            // Computed, so that the sum always holds.
            calls: successes + failures + ignored,
            successes,
            failures,
            ignored,
            rejected: read(&totals.rejected),
            consecutive_failures: self.consecutive.load(Ordering::Relaxed),
            window_calls: window.calls,
            window_failures: window.failed,
            probes_in: if state == BreakerState::Open { self.open_time_left(now) } else { None },
        }
    }
}
