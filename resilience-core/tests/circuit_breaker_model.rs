//! The circuit breaker against a model that keeps everything and computes everything anew at each step: any order of
//! time, calls, outcomes, dropped and panicking calls, states set by hand and changes of settings.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::circuit_breaker::{CircuitBreakerBuilder, CloseWhen, Permit, Trip};
use resilience_core::{Backoff, BreakerState, Category, CircuitBreaker, Class, ManualClock, Outcome, Reason};

const SECOND: u64 = 1_000_000_000;

/// Settings in whole seconds.
#[derive(Debug, Clone, Copy)]
struct Settings {
    trip: Trip,
    slow: Option<(u64, f64)>,
    open: (u64, u64),
    permits: u32,
    close: CloseWhen,
    timeout: Option<u64>,
    ramp: Option<u64>,
}

impl Settings {
    fn apply(&self, builder: CircuitBreakerBuilder) -> CircuitBreakerBuilder {
        let (seconds, cap) = self.open;
        let times = Backoff::exponential(Duration::from_secs(seconds), 2.0, Duration::from_secs(seconds * cap));
        let mut builder =
            builder.trip(self.trip).open_for_growing(times).half_open_permits(self.permits).close_when(self.close);
        if let Some((longer_than, rate)) = self.slow {
            builder = builder.slow_call_rate(rate, Duration::from_secs(longer_than));
        }
        if let Some(limit) = self.timeout {
            builder = builder.half_open_timeout(Duration::from_secs(limit));
        }
        match self.ramp {
            Some(over) => builder.ramp_up(Duration::from_secs(over)),
            None => builder,
        }
    }

    fn open_nanos(&self, opening: u32) -> u64 {
        (self.open.0 << (opening - 1).min(20)).min(self.open.0 * self.open.1) * SECOND
    }
}

/// A call in the window.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: u64,
    failed: bool,
    slow: bool,
}

#[derive(Debug)]
struct Model {
    settings: Settings,
    state: BreakerState,
    generation: u64,
    counted: Vec<Counted>,
    row: u32,
    openings: u32,
    open_until: u64,
    /// Under way, successes, failures.
    probes: (u32, u32, u32),
    last_probe: u64,
    /// End, length, credit in calls with 32 bits behind the point.
    ramp: Option<(u64, u64, u128)>,
    would_open: u64,
    /// Successes, failures, ignored, rejected.
    totals: [u64; 4],
}

/// An admitted call: its generation, and when it began if that is measured.
type Call = (u64, Option<u64>);

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: BreakerState::Closed,
            generation: 0,
            counted: Vec::new(),
            row: 0,
            openings: 0,
            open_until: 0,
            probes: (0, 0, 0),
            last_probe: 0,
            ramp: None,
            would_open: 0,
            totals: [0; 4],
        }
    }

    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.generation += 1;
        self.counted.clear();
        self.row = 0;
        self.probes = (0, 0, 0);
        self.ramp = None;
        if !matches!(state, BreakerState::Open | BreakerState::HalfOpen) {
            self.openings = 0;
        }
    }

    fn open(&mut self, now: u64) {
        self.openings += 1;
        self.open_until = now + self.settings.open_nanos(self.openings);
        self.enter(BreakerState::Open);
    }

    fn ask(&mut self, now: u64) -> Result<Call, Reason> {
        let asked = self.decide(now);
        self.totals[3] += u64::from(asked.is_err());
        asked.map(|()| (self.generation, self.settings.slow.map(|_| now)))
    }

    fn decide(&mut self, now: u64) -> Result<(), Reason> {
        if self.state == BreakerState::Open && now >= self.open_until {
            self.enter(BreakerState::HalfOpen);
        }
        match self.state {
            BreakerState::ForcedOpen => Err(Reason::CircuitForcedOpen),
            BreakerState::Open => Err(Reason::CircuitOpen),
            BreakerState::HalfOpen if self.probes.0 < self.settings.permits => {
                self.probes.0 += 1;
                self.last_probe = now;
                Ok(())
            }
            BreakerState::HalfOpen => {
                if self.settings.timeout.is_some_and(|limit| now >= self.last_probe + limit * SECOND) {
                    self.open(now);
                    return Err(Reason::CircuitOpen);
                }
                Err(Reason::HalfOpenBusy)
            }
            _ => self.share(now),
        }
    }

    fn share(&mut self, now: u64) -> Result<(), Reason> {
        let Some((end, over, credit)) = &mut self.ramp else { return Ok(()) };
        if now >= *end {
            self.ramp = None;
            return Ok(());
        }
        *credit += (u128::from(*over - (*end - now)) << 32) / u128::from(*over);
        if *credit < 1 << 32 {
            return Err(Reason::CircuitRampingUp);
        }
        *credit -= 1 << 32;
        Ok(())
    }

    fn settle(&mut self, (generation, started): Call, outcome: &Outcome, now: u64) {
        let verdict = outcome.verdict();
        self.totals[match verdict {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        }] += 1;
        if generation != self.generation {
            return;
        }
        let limit = self.settings.slow.map_or(u64::MAX, |(limit, _)| limit * SECOND);
        let slow = started.is_some_and(|started| now - started > limit);
        match (self.state, verdict) {
            (BreakerState::HalfOpen, verdict) => self.settle_probe(verdict.map(|success| success && !slow), now),
            (BreakerState::Closed | BreakerState::MetricsOnly, Some(success)) => {
                self.counted.push(Counted { at: now, failed: !success, slow });
                self.row = if success { 0 } else { self.row + 1 };
                if self.is_too_bad(now) {
                    if self.state == BreakerState::MetricsOnly {
                        self.would_open += 1;
                        self.counted.clear();
                        self.row = 0;
                    } else {
                        self.open(now);
                    }
                }
            }
            _ => {}
        }
    }

    fn settle_probe(&mut self, verdict: Option<bool>, now: u64) {
        self.probes.0 -= 1;
        let Some(success) = verdict else { return };
        self.probes.1 += u32::from(success);
        self.probes.2 += u32::from(!success);
        let (_, successes, failures) = self.probes;
        let (opens, closes) = match self.settings.close {
            CloseWhen::FailureRateBelow { rate, calls } => {
                (f64::from(failures) >= rate * f64::from(calls) - 1e-9, successes + failures >= calls)
            }
            CloseWhen::SuccessesInARow(enough) => (failures > 0, successes >= enough),
            _ => unreachable!("there are no others"),
        };
        if opens {
            self.open(now);
        } else if closes {
            self.enter(BreakerState::Closed);
            let (ramp, permits) = (self.settings.ramp, self.settings.permits);
            self.ramp = ramp.map(|over| (now + over * SECOND, over * SECOND, u128::from(permits) << 32));
        }
    }

    fn window(&self, now: u64) -> Vec<Counted> {
        match self.settings.trip {
            Trip::FailureRateOfCalls { calls, .. } => self.counted.iter().rev().take(calls as usize).copied().collect(),
            Trip::FailureRateOfTime { span, .. } => {
                let slice = u64::try_from(span.as_nanos()).unwrap() / 16;
                self.counted.iter().filter(|call| call.at / slice + 16 > now / slice).copied().collect()
            }
            _ => Vec::new(),
        }
    }

    fn is_too_bad(&self, now: u64) -> bool {
        let (rate, minimum) = match self.settings.trip {
            Trip::ConsecutiveFailures(threshold) => return self.row >= threshold,
            Trip::FailureRateOfCalls { rate, minimum_calls, .. }
            | Trip::FailureRateOfTime { rate, minimum_calls, .. } => (rate, minimum_calls),
            _ => unreachable!("there are no others"),
        };
        let window = self.window(now);
        let part =
            |bad: fn(&Counted) -> bool| window.iter().filter(|call| bad(call)).count() as f64 / window.len() as f64;
        window.len() >= minimum as usize
            && (part(|call| call.failed) >= rate
                || self.settings.slow.is_some_and(|(_, rate)| part(|call| call.slow) >= rate))
    }

    fn reconfigure(&mut self, settings: Settings, now: u64) {
        let mut held = self.window(now);
        match (self.settings.trip, settings.trip) {
            (Trip::FailureRateOfCalls { .. }, Trip::FailureRateOfCalls { .. }) => held.reverse(),
            (Trip::FailureRateOfTime { span: old, .. }, Trip::FailureRateOfTime { span: new, .. }) => {
                if old != new {
                    held.iter_mut().for_each(|call| call.at = now);
                }
            }
            _ => held.clear(),
        }
        (self.counted, self.settings) = (held, settings);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Advance(u64),
    /// Asks, and settles at once with an outcome of `outcome`.
    Call(u8),
    /// Asks, and keeps the permit.
    Begin,
    /// Settles one of the kept permits.
    End(prop::sample::Index, u8),
    Set(BreakerState),
    Reconfigure(Settings),
}

fn settings() -> impl Strategy<Value = Settings> {
    let rate = || prop::sample::select(vec![0.25, 0.5, 0.8, 1.0]);
    let trip = prop_oneof![
        (1_u32..5).prop_map(Trip::ConsecutiveFailures),
        (rate(), 1_u32..12, 1_u32..12).prop_map(|(rate, calls, minimum)| Trip::FailureRateOfCalls {
            calls,
            rate,
            minimum_calls: minimum.min(calls)
        }),
        (rate(), prop::sample::select(vec![16_u64, 32, 160]), 1_u32..8).prop_map(|(rate, span, minimum_calls)| {
            Trip::FailureRateOfTime { span: Duration::from_secs(span), rate, minimum_calls }
        }),
    ];
    let close = prop_oneof![
        (1_u32..4).prop_map(CloseWhen::SuccessesInARow),
        (rate(), 1_u32..5).prop_map(|(rate, calls)| CloseWhen::FailureRateBelow { rate, calls })
    ];
    let slow = prop::option::of((1_u64..4, rate()));
    let open = (1_u64..10, 1_u64..9);
    (trip, slow, open, 1_u32..4, close, prop::option::of(1_u64..9), prop::option::of(1_u64..30)).prop_map(
        |(trip, slow, open, permits, close, timeout, ramp)| {
            let slow = slow.filter(|_| !matches!(trip, Trip::ConsecutiveFailures(_)));
            Settings { trip, slow, open, permits, close, timeout, ramp }
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let by_hand = vec![
        BreakerState::Closed,
        BreakerState::ForcedOpen,
        BreakerState::Disabled,
        BreakerState::MetricsOnly,
        BreakerState::MetricsOnly,
    ];
    let gap = prop_oneof![0_u64..3, 0_u64..20, Just(100_000)];
    let step = prop_oneof![
        6 => gap.prop_map(Step::Advance),
        20 => (0_u8..9).prop_map(Step::Call),
        3 => Just(Step::Begin),
        3 => (any::<prop::sample::Index>(), 0_u8..9).prop_map(|(which, outcome)| Step::End(which, outcome)),
        1 => prop::sample::select(by_hand).prop_map(Step::Set),
        1 => settings().prop_map(Step::Reconfigure),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Ends a call: by an outcome, by being dropped, or by a panic.
fn end(permit: Permit<'_>, outcome: u8) -> Outcome {
    let outcome = match outcome {
        0..=2 => Outcome::Failure(Class::of(Category::Network)),
        3..=5 => Outcome::Success,
        6 => Outcome::Failure(Class::of(Category::Validation)),
        7 => {
            drop(permit);
            return Outcome::Cancelled;
        }
        _ => {
            let panics = AssertUnwindSafe(|| {
                let _under_way = permit;
                resume_unwind(Box::new("the call panics"));
            });
            assert!(catch_unwind(panics).is_err());
            return Outcome::Panicked;
        }
    };
    permit.settle(&outcome);
    outcome
}

fn set(breaker: &CircuitBreaker, model: &mut Model, state: BreakerState) {
    match state {
        BreakerState::ForcedOpen => breaker.force_open(),
        BreakerState::Disabled => breaker.disable(),
        BreakerState::MetricsOnly => breaker.metrics_only(),
        _ => breaker.reset(),
    }
    if model.state != state || state == BreakerState::Closed {
        model.enter(state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn it_does_what_the_model_does_step_by_step(settings in settings(), steps in steps()) {
        let time = ManualClock::new();
        let breaker = settings.apply(CircuitBreaker::builder("test").clock(time.clock())).build().unwrap();
        let mut model = Model::new(settings);
        let mut under_way: Vec<(Permit<'_>, Call)> = Vec::new();
        for step in steps {
            match step {
                Step::Advance(seconds) => time.advance(Duration::from_secs(seconds)),
                Step::Set(state) => set(&breaker, &mut model, state),
                Step::Reconfigure(settings) => {
                    breaker.reconfigure(settings.apply(CircuitBreaker::builder("test"))).unwrap();
                    model.reconfigure(settings, time.now().as_nanos());
                }
                Step::Call(outcome) => {
                    let expected = model.ask(time.now().as_nanos());
                    let asked = breaker.try_acquire();
                    prop_assert_eq!(asked.as_ref().map(drop).map_err(|rejection| rejection.reason), expected.map(drop));
                    if let (Ok(permit), Ok(call)) = (asked, expected) {
                        model.settle(call, &end(permit, outcome), time.now().as_nanos());
                    }
                }
                Step::Begin => {
                    let expected = model.ask(time.now().as_nanos());
                    let asked = breaker.try_acquire();
                    prop_assert_eq!(asked.as_ref().map(drop).map_err(|rejection| rejection.reason), expected.map(drop));
                    if let (Ok(permit), Ok(call)) = (asked, expected) {
                        under_way.push((permit, call));
                    }
                }
                Step::End(which, outcome) => {
                    if !under_way.is_empty() {
                        let (permit, call) = under_way.remove(which.index(under_way.len()));
                        model.settle(call, &end(permit, outcome), time.now().as_nanos());
                    }
                }
            }
            let (real, now) = (breaker.statistics(), time.now().as_nanos());
            let window = model.window(now);
            let count = |bad: fn(&Counted) -> bool| window.iter().filter(|call| bad(call)).count() as u64;
            prop_assert_eq!((real.state, real.generation), (model.state, model.generation));
            prop_assert_eq!((real.window_calls, real.window_failures, real.window_slow),
                            (window.len() as u64, count(|call| call.failed), count(|call| call.slow)));
            prop_assert_eq!((real.consecutive_failures, real.openings, real.would_open),
                            (model.row, model.openings, model.would_open));
            prop_assert_eq!([real.successes, real.failures, real.ignored, real.rejected], model.totals);
        }
        let unsettled = under_way.len() as u64;
        drop(under_way);
        prop_assert_eq!(breaker.statistics().calls, model.totals[..3].iter().sum::<u64>() + unsettled, "no call is lost");
    }
}
