//! The breaker's state machine: told the time, it answers; it never sleeps and knows no clock, name or observer.
//! Invariants: at most `half_open_permits` probes of a generation are under way; an outcome of an older generation
//! changes nothing but statistics; the manual states change only by hand; every counted call is judged in one order,
//! and a good one that can change nothing takes no lock.

mod by_hand;

use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::Token;
use super::config::{BreakerSettings, Trip};
use super::probes::Probes;
use super::ramp::{Asked, RampUp};
use super::word::{Gate, LAST_POSITION, Mode, Tally};
use super::{BreakerState, BreakerStatistics};
use crate::clock::{Instant, nanos};
use crate::outcome::{Outcome, Reason};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::window::{Counts, Sample, Window};

/// Something that the outside should hear of.
#[derive(Debug, Clone, Copy)]
pub(super) enum News {
    Changed { from: BreakerState, to: BreakerState, generation: u64 },
    WouldHaveOpened,
}

/// A call's admission, or why not and when to ask again.
pub(super) type Decision = Result<Token, (Reason, Option<Duration>)>;

pub(super) struct Machine {
    front: CachePadded<Front>,
    /// A [`Tally`]: the one word that every counted call writes.
    tally: CachePadded<AtomicU64>,
    totals: CachePadded<Totals>,
    guarded: Mutex<Guarded>,
}

/// What every call reads. Written under the lock only, and rarely.
struct Front {
    /// A [`Gate`].
    gate: AtomicU64,
    /// When an open breaker starts to probe, in nanoseconds.
    probe_at: AtomicU64,
    /// From how many nanoseconds on a call is slow.
    slow_after: AtomicU64,
    /// A good call at a position after this one changes nothing: enough calls are in the window, and one more good one
    /// makes it better. Up to it, calls are judged under the lock.
    judged_until: AtomicU64,
    /// Until when the window does not move on, in nanoseconds. Later calls are judged under the lock.
    steady_until: AtomicU64,
}

/// What only the holder of the lock may touch.
struct Guarded {
    settings: BreakerSettings,
    window: Option<Window>,
    row: Row,
    probes: Probes,
    ramp: Option<RampUp>,
    openings: u32,
    would_open: u64,
    /// Calls counted by tallies that have ended. Less what snapshots put into tallies, so it may wrap.
    counted: u64,
    /// Failures among all calls that were ever counted by a tally.
    failed: u64,
    random: fastrand::Rng,
}

/// Calls that no tally counts: of the past, of probes, of a disabled breaker.
struct Totals {
    successes: AtomicU64,
    failures: AtomicU64,
    ignored: AtomicU64,
    rejected: AtomicU64,
}

/// Failures in a row, by the position of the last: any other call after it ends the row.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    last: u64,
    length: u32,
}

impl Row {
    fn failed(&mut self, position: u64) {
        self.length = self.length_at(position - 1).saturating_add(1);
        self.last = position;
    }

    fn length_at(&self, position: u64) -> u32 {
        if self.last == position { self.length } else { 0 }
    }
}

impl Machine {
    pub(super) fn new(settings: BreakerSettings, random: fastrand::Rng) -> Self {
        let gate = Gate::new(Mode::Closed, settings.needs_time(), 0);
        let machine = Self {
            front: CachePadded::new(Front {
                gate: AtomicU64::new(gate.0),
                probe_at: AtomicU64::new(0),
                slow_after: AtomicU64::new(slow_after(&settings)),
                judged_until: AtomicU64::new(0),
                steady_until: AtomicU64::new(0),
            }),
            tally: CachePadded::new(AtomicU64::new(Tally::new(0, 0).0)),
            totals: CachePadded::new(Totals {
                successes: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                ignored: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
            }),
            guarded: Mutex::new(Guarded {
                window: settings.window(),
                settings,
                row: Row::default(),
                probes: Probes::default(),
                ramp: None,
                openings: 0,
                would_open: 0,
                counted: 0,
                failed: 0,
                random,
            }),
        };
        machine.publish(&lock(&machine.guarded));
        machine
    }

    pub(super) fn state(&self) -> BreakerState {
        self.gate().mode().state()
    }

    fn gate(&self) -> Gate {
        // Acquire pairs with the release in `open_gate`: who sees a state sees what was set up for it.
        Gate(self.front.gate.load(Ordering::Acquire))
    }

    fn tally(&self) -> Tally {
        // Acquire pairs with the release half of the exchange in `count`: who sees a position sees the bounds that
        // were published before the call at it was counted.
        Tally(self.tally.load(Ordering::Acquire))
    }

    /// Admits a call to a closed breaker; whatever else it is takes [`admit`](Self::admit).
    #[inline]
    pub(super) fn admit_closed(&self, now: impl Fn() -> Instant) -> Option<Token> {
        let gate = self.gate();
        (gate.mode() == Mode::Closed).then(|| token(gate, &now))
    }

    pub(super) fn admit(&self, now: impl Fn() -> Instant) -> (Decision, Option<News>) {
        let gate = self.gate();
        let (decision, news) = match gate.mode() {
            Mode::Closed | Mode::Disabled | Mode::MetricsOnly => (Ok(token(gate, &now)), None),
            Mode::ForcedOpen => (Err((Reason::CircuitForcedOpen, None)), None),
            Mode::Open => match self.open_time_left(now()) {
                Some(left) => (Err((Reason::CircuitOpen, Some(left))), None),
                None => self.admit_guarded(&now),
            },
            Mode::HalfOpen | Mode::RampUp => self.admit_guarded(&now),
        };
        if decision.is_err() {
            // Relaxed: a counter, nothing is published through it.
            self.totals.rejected.fetch_add(1, Ordering::Relaxed);
        }
        (decision, news)
    }

    /// How long the breaker stays open, or `None` when its time is over.
    fn open_time_left(&self, now: Instant) -> Option<Duration> {
        // Relaxed: the load of the gate was an acquire; if it was opened anew meanwhile, the newer time is as true.
        let probe_at = Instant::from_nanos(self.front.probe_at.load(Ordering::Relaxed));
        (now < probe_at).then(|| probe_at.saturating_duration_since(now))
    }

    /// Decides under the lock, where open turns into half-open, probes are counted and the ramp's credit is kept.
    #[cold]
    fn admit_guarded(&self, now: &impl Fn() -> Instant) -> (Decision, Option<News>) {
        let mut guarded = lock(&self.guarded);
        let guarded = &mut *guarded;
        // The state may have moved on before the lock was had.
        let gate = self.gate();
        match gate.mode() {
            Mode::Closed | Mode::Disabled | Mode::MetricsOnly => (Ok(token(gate, now)), None),
            Mode::ForcedOpen => (Err((Reason::CircuitForcedOpen, None)), None),
            Mode::Open => {
                let at = now();
                if let Some(left) = self.open_time_left(at) {
                    return (Err((Reason::CircuitOpen, Some(left))), None);
                }
                let change = self.transition(guarded, Mode::HalfOpen);
                guarded.probes.admit(guarded.settings.half_open_permits, at);
                (Ok(token(self.gate(), &|| at)), Some(change))
            }
            Mode::HalfOpen => self.admit_probe(guarded, gate, now()),
            Mode::RampUp => {
                let at = now();
                match guarded.ramp.as_mut().map_or(Asked::Over, |ramp| ramp.ask(at)) {
                    Asked::Passes => (Ok(token(gate, &|| at)), None),
                    Asked::Refused(wait) => (Err((Reason::CircuitRampingUp, Some(wait))), None),
                    Asked::Over => {
                        // The same generation: calls of the ramp and after it are of one kind.
                        guarded.ramp = None;
                        self.open_gate(guarded, Mode::Closed, gate.generation());
                        (Ok(token(gate, &|| at)), None)
                    }
                }
            }
        }
    }

    fn admit_probe(&self, guarded: &mut Guarded, gate: Gate, now: Instant) -> (Decision, Option<News>) {
        if guarded.probes.admit(guarded.settings.half_open_permits, now) {
            return (Ok(token(gate, &|| now)), None);
        }
        match guarded.settings.half_open_timeout.map(|limit| guarded.probes.time_left(limit, now)) {
            None => (Err((Reason::HalfOpenBusy, None)), None),
            Some(Duration::ZERO) => {
                let change = self.open(guarded, now);
                (Err((Reason::CircuitOpen, self.open_time_left(now))), Some(change))
            }
            Some(left) => (Err((Reason::HalfOpenBusy, Some(left))), None),
        }
    }

    /// Settles a success that can change nothing, without a lock; whatever else it is takes [`settle`](Self::settle).
    #[inline]
    pub(super) fn settle_good(&self, token: Token, outcome: &Outcome, now: impl Fn() -> Instant) -> bool {
        let gate = self.gate();
        if !matches!(outcome, Outcome::Success) || !gate.mode().counts() || gate.generation() != token.generation {
            return false;
        }
        let ended = ended(gate, token, &now);
        self.count_good(token, ended)
    }

    pub(super) fn settle(&self, token: Token, outcome: &Outcome, now: impl Fn() -> Instant) -> Option<News> {
        let verdict = outcome.verdict();
        let gate = self.gate();
        let is_current = gate.generation() == token.generation;
        if let (true, true, Some(success)) = (is_current, gate.mode().counts(), verdict) {
            match self.judge(token, success, ended(gate, token, &now), &now) {
                Ok(news) => return news,
                Err(Stale) => {}
            }
        }
        let total = match verdict {
            Some(true) => &self.totals.successes,
            Some(false) => &self.totals.failures,
            None => &self.totals.ignored,
        };
        // Relaxed: a counter, nothing is published through it.
        total.fetch_add(1, Ordering::Relaxed);
        if is_current && gate.mode() == Mode::HalfOpen { self.settle_probe(token, verdict, &now) } else { None }
    }

    /// Counts a success without a lock, if it can change nothing; `false` when it has not been counted.
    #[inline]
    fn count_good(&self, token: Token, ended: Instant) -> bool {
        // Relaxed: the bounds are re-read below by whom it matters to.
        if self.is_slow(token, ended) || ended.as_nanos() >= self.front.steady_until.load(Ordering::Relaxed) {
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
    fn count(&self, tally: Tally) -> Option<u64> {
        let next = tally.next();
        // AcqRel: publishes the bounds set before it to whoever is counted after it. See `tally`.
        let counted = self.tally.compare_exchange_weak(tally.0, next.0, Ordering::AcqRel, Ordering::Relaxed);
        counted.ok().map(|_| next.position())
    }

    /// Counts a call under the lock and acts on what the window says with it.
    fn judge(
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
    fn is_slow(&self, token: Token, ended: Instant) -> bool {
        // Relaxed: whoever ends while the settings change may be measured by either.
        let slow_after = || self.front.slow_after.load(Ordering::Relaxed);
        token.started().is_some_and(|started| nanos(ended.saturating_duration_since(started)) > slow_after())
    }

    #[cold]
    fn settle_probe(&self, token: Token, verdict: Option<bool>, now: &impl Fn() -> Instant) -> Option<News> {
        let mut guarded = lock(&self.guarded);
        let guarded = &mut *guarded;
        let gate = self.gate();
        if (gate.mode(), gate.generation()) != (Mode::HalfOpen, token.generation) {
            return None;
        }
        // A probe that took too long is no sign of health, whatever it returned.
        let verdict = verdict.map(|success| success && !(token.started().is_some() && self.is_slow(token, now())));
        if !guarded.probes.settle(verdict, guarded.settings.close_when)? {
            return Some(self.open(guarded, now()));
        }
        let Some(over) = guarded.settings.ramp_up else { return Some(self.transition(guarded, Mode::Closed)) };
        let ramp = RampUp::new(now(), over, guarded.settings.half_open_permits);
        let change = self.transition(guarded, Mode::RampUp);
        guarded.ramp = Some(ramp);
        Some(change)
    }

    fn open(&self, guarded: &mut Guarded, now: Instant) -> News {
        guarded.openings = guarded.openings.saturating_add(1);
        let time = guarded.settings.open_time(guarded.openings, guarded.random.f64());
        // Relaxed: published by the release of the gate that follows.
        self.front.probe_at.store((now + time).as_nanos(), Ordering::Relaxed);
        self.transition(guarded, Mode::Open)
    }

    /// Moves to `to` and begins a new generation: what was counted before is history.
    fn transition(&self, guarded: &mut Guarded, to: Mode) -> News {
        let from = self.gate();
        let generation = from.generation() + 1;
        if !matches!(to, Mode::Open | Mode::HalfOpen) {
            guarded.openings = 0;
        }
        guarded.probes = Probes::default();
        guarded.ramp = None;
        self.begin(guarded, generation);
        self.open_gate(guarded, to, generation);
        News::Changed { from: from.mode().state(), to: to.state(), generation }
    }

    fn open_gate(&self, guarded: &Guarded, mode: Mode, generation: u64) {
        // Release pairs with the acquire in `gate`.
        self.front.gate.store(Gate::new(mode, guarded.settings.needs_time(), generation).0, Ordering::Release);
    }

    /// Ends the tally, whose count is final from here on, and begins an empty one of `generation`.
    fn begin(&self, guarded: &mut Guarded, generation: u64) {
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
    fn publish(&self, guarded: &Guarded) {
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
        // Relaxed, both: published by the next release of the tally or the gate.
        self.front.judged_until.store(start + u64::from(minimum), Ordering::Relaxed);
        self.front.steady_until.store(steady_until.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn statistics(&self, now: Instant) -> BreakerStatistics {
        let guarded = lock(&self.guarded);
        let gate = self.gate();
        let position = self.tally().position();
        let window = self.window_counts(&guarded, position, now);
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let totals = &self.totals;
        let counted = guarded.counted.wrapping_add(position).wrapping_sub(guarded.failed);
        let successes = read(&totals.successes).wrapping_add(counted);
        let (failures, ignored) = (read(&totals.failures) + guarded.failed, read(&totals.ignored));
        BreakerStatistics {
            state: gate.mode().state(),
            generation: gate.generation(),
            // Computed, so that the sum always holds.
            calls: successes + failures + ignored,
            successes,
            failures,
            ignored,
            rejected: read(&totals.rejected),
            consecutive_failures: guarded.row.length_at(position),
            window_calls: window.calls,
            window_failures: window.failed,
            window_slow: window.slow,
            probes_in: if gate.mode() == Mode::Open { self.open_time_left(now) } else { None },
            openings: guarded.openings,
            ramp_up_left: guarded.ramp.and_then(|ramp| ramp.left(now)),
            would_open: guarded.would_open,
        }
    }

    fn window_counts(&self, guarded: &Guarded, position: u64, now: Instant) -> Counts {
        guarded.window.as_ref().map_or_else(Counts::default, |window| window.counts(position, now))
    }
}

/// The call is of an older generation.
struct Stale;

#[inline]
fn token(gate: Gate, now: &impl Fn() -> Instant) -> Token {
    Token::new(gate.generation(), gate.needs().at_start.then(now))
}

/// When the call ended, where that matters.
#[inline]
fn ended(gate: Gate, token: Token, now: &impl Fn() -> Instant) -> Instant {
    if token.started().is_some() || gate.needs().at_end { now() } else { Instant::default() }
}

fn slow_after(settings: &BreakerSettings) -> u64 {
    settings.slow_calls.map_or(u64::MAX, |slow| nanos(slow.longer_than))
}
