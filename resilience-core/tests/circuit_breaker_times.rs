//! The circuit breaker over time: how long it stays open, how it comes back, what an operator sets by hand.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::circuit_breaker::{CircuitBreakerBuilder, Permit};
use resilience_core::{
    Backoff, BreakerState, Category, CircuitBreaker, Class, Classify, Clock, Event, ManualClock, Observers, Outcome,
    Reason,
};

const DOWN: Outcome = Outcome::Failure(Class::of(Category::Network));
const SECOND: Duration = Duration::from_secs(1);

fn breaker(configure: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder) -> (CircuitBreaker, ManualClock) {
    let (clock, time) = Clock::manual();
    let builder = CircuitBreaker::builder("test").consecutive_failures(1).half_open_successes(1).clock(clock);
    (configure(builder).build().expect("the values are valid"), time)
}

fn admitted(breaker: &CircuitBreaker) -> Permit<'_> {
    breaker.try_acquire().expect("the breaker lets the call through")
}

fn probes_in(breaker: &CircuitBreaker) -> Duration {
    breaker.statistics().probes_in.expect("it is open")
}

/// Waits until it probes, and lets the probe end so.
fn probe(breaker: &CircuitBreaker, time: &ManualClock, outcome: &Outcome) {
    time.advance(probes_in(breaker));
    admitted(breaker).settle(outcome);
}

#[test]
fn the_open_time_grows_from_opening_to_opening_and_starts_anew_once_it_has_closed() {
    let times = Backoff::exponential(SECOND * 10, 2.0, SECOND * 60);
    let (breaker, time) = breaker(|builder| builder.open_for_growing(times));
    for _ in 0..3 {
        admitted(&breaker).settle(&DOWN);
        for seconds in [10, 20, 40, 60, 60] {
            assert_eq!(probes_in(&breaker), SECOND * seconds);
            probe(&breaker, &time, &DOWN);
        }
        assert_eq!(breaker.statistics().openings, 6);
        probe(&breaker, &time, &Outcome::Success);
        assert_eq!((breaker.state(), breaker.statistics().openings), (BreakerState::Closed, 0));
    }
    admitted(&breaker).settle(&DOWN);
    breaker.reset();
    admitted(&breaker).settle(&DOWN);
    assert_eq!(probes_in(&breaker), SECOND * 10, "closed by hand is closed");
}

#[test]
fn jittered_open_times_differ_and_are_never_shorter_nor_longer_than_allowed() {
    let times = |seed: u64| {
        let (breaker, time) = breaker(|builder| builder.open_for(SECOND * 10).open_jitter(0.5).seed(seed));
        admitted(&breaker).settle(&DOWN);
        (0..50)
            .map(|_| {
                let open = probes_in(&breaker);
                probe(&breaker, &time, &DOWN);
                open
            })
            .collect::<Vec<_>>()
    };
    let of_one = times(1);
    assert!(of_one.iter().all(|open| (SECOND * 10..SECOND * 15).contains(open)), "{of_one:?}");
    let spread = of_one.iter().max().unwrap().saturating_sub(*of_one.iter().min().unwrap());
    assert!(spread > SECOND * 3, "{spread:?}");
    assert_eq!(of_one, times(1), "the same seed, the same times");
    assert!((2..12).all(|seed| times(seed)[0] != of_one[0]), "no two nodes probe together");
}

#[test]
fn after_closing_a_growing_share_of_the_calls_passes() {
    let (breaker, time) = breaker(|builder| builder.ramp_up(SECOND * 100).half_open_permits(3));
    admitted(&breaker).settle(&DOWN);
    probe(&breaker, &time, &Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
    let mut passed_in_tenths = Vec::new();
    for second in 0..100 {
        if second % 10 == 0 {
            passed_in_tenths.push(0);
        }
        assert_eq!(breaker.statistics().ramp_up_left, Some(SECOND * (100 - second)));
        for _ in 0..100 {
            match breaker.try_acquire() {
                Ok(permit) => {
                    permit.settle(&Outcome::Success);
                    *passed_in_tenths.last_mut().unwrap() += 1;
                }
                Err(rejection) => assert_eq!(rejection.reason, Reason::CircuitRampingUp),
            }
        }
        time.advance(SECOND);
    }
    // 4.5, 14.5, 24.5 … percent of 1 000, and the three that passed at once; shares are rounded down a little.
    assert_eq!(passed_in_tenths, [47, 145, 245, 345, 445, 545, 645, 745, 845, 945]);
    assert!((0..1_000).all(|_| breaker.try_acquire().is_ok()), "the ramp is over");
    assert_eq!(breaker.statistics().ramp_up_left, None);
}

#[test]
fn no_herd_rushes_in_when_it_closes_and_those_refused_come_back_spread_out() {
    let (breaker, time) = breaker(|builder| builder.ramp_up(SECOND * 10));
    admitted(&breaker).settle(&DOWN);
    probe(&breaker, &time, &Outcome::Success);
    time.advance(Duration::from_millis(2_500));
    let waits: Vec<Duration> = (0..1_000).filter_map(|_| breaker.try_acquire().err()?.retry_after).collect();
    assert_eq!(1_000 - waits.len(), 251, "a quarter of them, and one at once");
    for part in 0..10 {
        let (from, to) = (Duration::from_millis(750) * part, Duration::from_millis(750) * (part + 1));
        let come_back = waits.iter().filter(|wait| **wait > from && **wait <= to).count();
        assert!((70..80).contains(&come_back), "{come_back} come back in tenth {part} of what is left of the ramp");
    }
}

#[test]
fn a_failure_while_ramping_up_counts_as_usual() {
    let (breaker, time) = breaker(|builder| builder.ramp_up(SECOND * 10));
    admitted(&breaker).settle(&DOWN);
    probe(&breaker, &time, &Outcome::Success);
    admitted(&breaker).settle(&DOWN);
    assert_eq!((breaker.state(), breaker.statistics().openings), (BreakerState::Open, 1));
}

#[test]
fn a_call_admitted_while_ramping_up_is_judged_after_it() {
    let (breaker, time) = breaker(|builder| builder.ramp_up(SECOND * 10));
    admitted(&breaker).settle(&DOWN);
    probe(&breaker, &time, &Outcome::Success);
    let early = admitted(&breaker);
    time.advance(SECOND * 10);
    let late = admitted(&breaker);
    early.settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::Open, "closing fully is no state change");
    late.settle(&Outcome::Success);
}

#[test]
fn metrics_only_counts_and_tells_but_never_refuses_nor_changes_by_itself() {
    let heard = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::Notice { action: "would_open", resource: "test", .. } = event {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }));
    let (breaker, time) = breaker(|builder| builder.failure_rate(0.5, 10, 10).observers(observers));
    breaker.metrics_only();
    for _ in 0..100 {
        admitted(&breaker).settle(&DOWN);
        time.advance(SECOND);
    }
    let statistics = breaker.statistics();
    assert_eq!((statistics.state, statistics.would_open, statistics.failures), (BreakerState::MetricsOnly, 10, 100));
    assert_eq!((heard.load(Ordering::SeqCst), statistics.rejected), (10, 0));
    breaker.reset();
    (0..9).for_each(|_| admitted(&breaker).settle(&DOWN));
    assert_eq!(breaker.state(), BreakerState::Closed, "what was counted before is forgotten");
    admitted(&breaker).settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn every_manual_state_outlasts_time_and_calls_of_every_outcome() {
    let states = [
        (CircuitBreaker::force_open as fn(&CircuitBreaker), BreakerState::ForcedOpen),
        (CircuitBreaker::disable, BreakerState::Disabled),
        (CircuitBreaker::metrics_only, BreakerState::MetricsOnly),
    ];
    for (set, state) in states {
        let (breaker, time) = breaker(|builder| builder);
        let before = admitted(&breaker);
        set(&breaker);
        before.settle(&DOWN);
        for outcome in [DOWN, Outcome::Success, Outcome::TimedOut, Outcome::Panicked, Outcome::Cancelled] {
            for _ in 0..20 {
                if let Ok(permit) = breaker.try_acquire() {
                    permit.settle(&outcome);
                }
                assert_eq!(breaker.state(), state);
            }
            time.advance(SECOND * 100_000);
        }
        let generation = breaker.statistics().generation;
        set(&breaker);
        assert_eq!(breaker.statistics().generation, generation, "it is there already");
        breaker.reset();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}

#[test]
fn a_half_open_rate_closes_when_few_enough_of_its_probes_failed() {
    let (breaker, time) = breaker(|builder| builder.half_open_rate(0.5, 6));
    admitted(&breaker).settle(&DOWN);
    time.advance(SECOND * 60);
    for outcome in [&DOWN, &Outcome::Success, &DOWN, &Outcome::Cancelled, &Outcome::Success, &Outcome::Success] {
        admitted(&breaker).settle(outcome);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }
    admitted(&breaker).settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed, "2 of 6 failed");
}

#[test]
fn a_half_open_rate_opens_as_soon_as_too_many_of_its_probes_failed() {
    let (breaker, time) = breaker(|builder| builder.half_open_rate(0.5, 6));
    admitted(&breaker).settle(&DOWN);
    time.advance(SECOND * 60);
    for outcome in [&DOWN, &Outcome::Success, &DOWN] {
        admitted(&breaker).settle(outcome);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }
    admitted(&breaker).settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::Open, "3 of 6 is half of them already");
}

#[test]
fn probes_that_hang_do_not_hold_it_half_open_for_ever() {
    let (breaker, time) = breaker(|builder| builder.half_open_timeout(SECOND * 5));
    admitted(&breaker).settle(&DOWN);
    time.advance(SECOND * 60);
    let hangs = admitted(&breaker);
    time.advance(SECOND * 3);
    let busy = breaker.try_acquire().unwrap_err();
    assert_eq!((busy.reason, busy.retry_after), (Reason::HalfOpenBusy, Some(SECOND * 2)));
    time.advance(SECOND * 2);
    let open = breaker.try_acquire().unwrap_err();
    assert_eq!((open.reason, open.retry_after), (Reason::CircuitOpen, Some(SECOND * 60)));
    hangs.settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Open, "it came too late");
    probe(&breaker, &time, &Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn an_idle_half_open_breaker_does_not_time_out() {
    let (breaker, time) = breaker(|builder| builder.half_open_timeout(SECOND * 5).half_open_successes(2));
    admitted(&breaker).settle(&DOWN);
    probe(&breaker, &time, &Outcome::Success);
    time.advance(SECOND * 1_000);
    admitted(&breaker).settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn values_can_be_judged_failures_in_blocking_and_in_async_calls() {
    let (breaker, _time) = breaker(|builder| builder.consecutive_failures(4));
    let web = breaker.judged_by(|answer: &io::Result<u16>| match answer {
        Ok(500..) => Some(Class::of(Category::Network)),
        Ok(400..) => Some(Class::of(Category::Validation)),
        Ok(_) => None,
        Err(error) => Some(error.class()),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..2 {
        assert_eq!(web.call(|| Ok(503)).unwrap(), 503);
        assert_eq!(web.call(|| Ok(404)).unwrap(), 404, "the caller's mistake is counted in no direction");
        assert_eq!(runtime.block_on(web.call_async(async { Ok(500) })).unwrap(), 500);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(web.call(|| Ok(200)).unwrap_err().as_rejection().is_some());
    breaker.reset();
    let strict = breaker.classified_by(|_: &&str| Class::of(Category::Network));
    (0..4).for_each(|_| assert!(strict.call(|| Err::<(), _>("no class of its own")).is_err()));
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn new_values_that_cannot_be_used_are_refused_with_their_names() {
    let message = |builder: CircuitBreakerBuilder| builder.build().expect_err("the value cannot be used").to_string();
    let new = || CircuitBreaker::builder("fetch");
    let grow = |initial, base, cap| new().open_for_growing(Backoff::exponential(SECOND * initial, base, SECOND * cap));
    insta::assert_snapshot!(message(grow(0, 2.0, 60)), @"`fetch.open_for` is 0ns; allowed: more than 0, at most 10 years");
    insta::assert_snapshot!(message(grow(61, 2.0, 60)), @"`fetch.open_for.initial` is 61s; allowed: at most the cap of 60s");
    insta::assert_snapshot!(message(grow(1, f64::NAN, 60)), @"`fetch.open_for.base` is NaN; allowed: 1 to 1000");
    insta::assert_snapshot!(message(grow(1, 2.0, u32::MAX)), @"`fetch.open_for.cap` is 4294967295s; allowed: more than 0, at most 10 years");
    insta::assert_snapshot!(message(new().open_jitter(-0.1)), @"`fetch.open_jitter` is -0.1; allowed: 0 to 1");
    insta::assert_snapshot!(message(new().open_jitter(f64::INFINITY)), @"`fetch.open_jitter` is inf; allowed: 0 to 1");
    insta::assert_snapshot!(message(new().ramp_up(Duration::ZERO)), @"`fetch.ramp_up` is 0ns; allowed: more than 0, at most 10 years");
    insta::assert_snapshot!(message(new().half_open_timeout(Duration::MAX)), @"`fetch.half_open_timeout` is 18446744073709551615.999999999s; allowed: more than 0, at most 10 years");
    insta::assert_snapshot!(message(new().half_open_rate(0.0, 3)), @"`fetch.half_open_rate` is 0; allowed: more than 0, at most 1");
    insta::assert_snapshot!(message(new().half_open_rate(0.5, 0)), @"`fetch.half_open_calls` is 0; allowed: 1 to 4294967295");
}

proptest! {
    #[test]
    fn neither_numbers_nor_jumps_of_time_make_it_panic(
        initial in any::<Duration>(), base in any::<f64>(), cap in any::<Duration>(), jitter in any::<f64>(),
        ramp in any::<Duration>(), rate in any::<f64>(), calls in any::<u32>(), hours in proptest::collection::vec(0_u64..100_000, 1..40)
    ) {
        let good = |time: Duration| Duration::from_nanos(time.subsec_nanos().into()) + Duration::from_nanos(1);
        for (initial, base, cap, jitter, ramp, rate) in [
            (initial, base, cap, jitter, ramp, rate),
            // The same numbers, brought into range, so that many breakers are really built.
            (good(initial), 1.0 + base.abs().fract(), SECOND * 1_000, jitter.abs().fract(), good(ramp), 0.5),
        ] {
            let (clock, time) = Clock::manual();
            let built = CircuitBreaker::builder("test").consecutive_failures(1).clock(clock).half_open_rate(rate, calls)
                .open_for_growing(Backoff::exponential(initial, base, cap)).open_jitter(jitter).ramp_up(ramp).build();
            let Ok(breaker) = built else { continue };
            for (step, hours) in hours.iter().enumerate() {
                if let Ok(permit) = breaker.try_acquire() {
                    permit.settle(if step % 3 == 0 { &Outcome::Success } else { &DOWN });
                }
                time.advance(SECOND * 3_600 * u32::try_from(*hours).unwrap());
            }
        }
    }
}
