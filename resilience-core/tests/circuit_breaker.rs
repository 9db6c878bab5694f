//! The circuit breaker's behaviour through its public API, on a manual clock.

use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{
    BreakerState, Category, CircuitBreaker, Class, Clock, ManualClock, Outcome, Pipeline, Reason,
    circuit_breaker::Permit,
};

const DOWN: Outcome = Outcome::Failure(Class::of(Category::Network));
const MISTAKE: Outcome = Outcome::Failure(Class::of(Category::Validation));

fn breaker(failures: u32) -> (CircuitBreaker, ManualClock) {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("test").consecutive_failures(failures).clock(clock).build();
    (breaker.expect("the values are valid"), time)
}

fn admitted(breaker: &CircuitBreaker) -> Permit<'_> {
    breaker.try_acquire().expect("the breaker lets the call through")
}

fn trip(breaker: &CircuitBreaker) {
    while breaker.state() == BreakerState::Closed {
        admitted(breaker).settle(&DOWN);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn it_opens_after_the_threshold_rejects_while_open_and_says_when_to_come_back() {
    let (breaker, time) = breaker(3);
    for _ in 0..2 {
        admitted(&breaker).settle(&DOWN);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
    admitted(&breaker).settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::Open);
    time.advance(Duration::from_secs(59));
    let rejection = breaker.try_acquire().unwrap_err();
    assert_eq!((rejection.reason, rejection.retry_after), (Reason::CircuitOpen, Some(Duration::from_secs(1))));
}

#[test]
fn a_success_in_between_starts_the_count_again() {
    let (breaker, _time) = breaker(2);
    for _ in 0..100 {
        admitted(&breaker).settle(&DOWN);
        admitted(&breaker).settle(&Outcome::Success);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn two_probe_successes_close_it_and_one_failed_probe_opens_it_again() {
    let (breaker, time) = breaker(1);
    trip(&breaker);
    time.advance(Duration::from_secs(60));
    admitted(&breaker).settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    admitted(&breaker).settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.try_acquire().is_err(), "the open time starts anew");
    time.advance(Duration::from_secs(60));
    admitted(&breaker).settle(&Outcome::Success);
    admitted(&breaker).settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn half_open_admits_only_as_many_probes_as_it_has_permits() {
    let (clock, time) = Clock::manual();
    let breaker =
        CircuitBreaker::builder("test").consecutive_failures(1).half_open_permits(3).clock(clock).build().unwrap();
    trip(&breaker);
    time.advance(Duration::from_secs(60));
    let probes: Vec<_> = (0..3).map(|_| admitted(&breaker)).collect();
    assert_eq!(breaker.try_acquire().unwrap_err().reason, Reason::HalfOpenBusy);
    drop(probes);
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn a_dropped_or_panicked_probe_returns_its_permit_ten_thousand_times() {
    let (breaker, time) = breaker(1);
    trip(&breaker);
    time.advance(Duration::from_secs(60));
    for _ in 0..10_000 {
        drop(admitted(&breaker));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for _ in 0..10_000 {
        let call = || breaker.call(|| -> io::Result<()> { panic!("the operation is broken") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err());
        // A panic is a failure of the dependency: the breaker is open again, and probes again when its time is over.
        assert_eq!(breaker.state(), BreakerState::Open);
        time.advance(Duration::from_secs(60));
    }
    std::panic::set_hook(quiet);
    admitted(&breaker).settle(&Outcome::Success);
    admitted(&breaker).settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn an_owned_permit_outlives_the_handle_it_came_from() {
    let (breaker, _time) = breaker(1);
    let permit = { breaker.clone().try_acquire_owned().expect("the breaker is closed") };
    permit.settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_late_success_does_not_close_it_and_a_late_failure_does_not_open_it() {
    let (breaker, time) = breaker(1);
    let early_success = admitted(&breaker);
    let early_failure = admitted(&breaker);
    trip(&breaker);
    early_success.settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Open);
    time.advance(Duration::from_secs(60));
    admitted(&breaker).settle(&Outcome::Success);
    early_failure.settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "a call from before the trip does not fail the probe");
    admitted(&breaker).settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
    let statistics = breaker.statistics();
    assert_eq!((statistics.successes, statistics.failures, statistics.calls), (3, 2, 5), "stale calls still count");
}

#[test]
fn only_the_dependencys_faults_open_it() {
    let (breaker, _time) = breaker(3);
    for _ in 0..1_000 {
        admitted(&breaker).settle(&MISTAKE);
        admitted(&breaker).settle(&Outcome::Cancelled);
        admitted(&breaker).settle(&Outcome::Rejected);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for outcome in [DOWN, Outcome::TimedOut, Outcome::Panicked] {
        admitted(&breaker).settle(&outcome);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn manual_states_change_only_by_hand() {
    let (breaker, time) = breaker(1);
    breaker.force_open();
    time.advance(Duration::from_secs(1_000_000));
    assert_eq!(breaker.try_acquire().unwrap_err().reason, Reason::CircuitForcedOpen);
    breaker.disable();
    for _ in 0..100 {
        admitted(&breaker).settle(&DOWN);
    }
    assert_eq!(breaker.state(), BreakerState::Disabled);
    breaker.reset();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn after_100_000_successes_a_rate_of_one_half_over_100_calls_opens_after_50_failures() {
    let breaker = CircuitBreaker::builder("test").failure_rate(0.5, 100, 10).build().unwrap();
    for _ in 0..100_000 {
        admitted(&breaker).settle(&Outcome::Success);
    }
    for failures in 1..=50 {
        assert_eq!(breaker.state(), BreakerState::Closed, "after {} failures", failures - 1);
        admitted(&breaker).settle(&DOWN);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_failure_rate_of_a_thousandth_never_opens_it() {
    let breaker = CircuitBreaker::builder("test").failure_rate(0.5, 100, 5).build().unwrap();
    for call in 0..20_000 {
        admitted(&breaker).settle(if call % 1_000 == 0 && call > 0 { &DOWN } else { &Outcome::Success });
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn one_failure_of_one_call_does_not_open_it_before_the_minimum() {
    let breaker = CircuitBreaker::builder("test").failure_rate(0.5, 100, 10).build().unwrap();
    for _ in 0..9 {
        admitted(&breaker).settle(&DOWN);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
    admitted(&breaker).settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_time_window_forgets() {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("test").failure_rate_over(0.5, Duration::from_secs(10), 4).clock(clock);
    let breaker = breaker.build().unwrap();
    for _ in 0..100 {
        // Three failures per window, for ever: never enough to judge.
        (0..3).for_each(|_| admitted(&breaker).settle(&DOWN));
        time.advance(Duration::from_secs(11));
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.statistics().window_calls, 0);
    (0..4).for_each(|_| admitted(&breaker).settle(&DOWN));
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn slow_calls_open_it_even_when_they_succeed() {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("test")
        .failure_rate(0.9, 10, 10)
        .slow_call_rate(0.5, Duration::from_millis(100))
        .clock(clock)
        .build()
        .unwrap();
    for call in 0..10 {
        let permit = admitted(&breaker);
        time.advance(Duration::from_millis(if call % 2 == 0 { 101 } else { 100 }));
        permit.settle(&Outcome::Success);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_slow_probe_opens_it_again() {
    let (clock, time) = Clock::manual();
    let breaker =
        CircuitBreaker::builder("test").failure_rate(1.0, 1, 1).slow_call_rate(1.0, Duration::from_millis(100));
    let breaker = breaker.half_open_successes(1).clock(clock).build().unwrap();
    trip(&breaker);
    time.advance(Duration::from_secs(60));
    let probe = admitted(&breaker);
    time.advance(Duration::from_millis(101));
    probe.settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Open);
    time.advance(Duration::from_secs(60));
    admitted(&breaker).settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_step_of_the_wall_clock_neither_opens_nor_freezes_it() {
    let (breaker, time) = breaker(1);
    trip(&breaker);
    time.set_wall(std::time::SystemTime::UNIX_EPOCH);
    time.advance(Duration::from_secs(60));
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn concurrent_probes_never_exceed_their_permits_under_contention() {
    let (clock, time) = Clock::manual();
    let breaker =
        CircuitBreaker::builder("test").consecutive_failures(1).half_open_permits(2).clock(clock).build().unwrap();
    trip(&breaker);
    time.advance(Duration::from_secs(60));
    let (under_way, most) = (std::sync::atomic::AtomicU32::new(0), std::sync::atomic::AtomicU32::new(0));
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Ok(permit) = breaker.try_acquire() {
                        most.fetch_max(under_way.fetch_add(1, order) + 1, order);
                        under_way.fetch_sub(1, order);
                        drop(permit);
                    }
                }
            });
        }
    });
    let most = most.into_inner();
    assert!((1..=2).contains(&most), "{most} probes at once");
}

#[test]
fn a_probe_that_times_out_returns_its_permit_a_thousand_times() {
    let time = ManualClock::auto_advancing();
    let breaker = CircuitBreaker::builder("test").consecutive_failures(1).clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder("test").circuit_breaker(breaker.clone()).timeout(Duration::from_secs(1));
    let pipeline = pipeline.clock(time.clock()).build().unwrap();
    trip(&breaker);
    for _ in 0..1_000 {
        time.advance(Duration::from_secs(60));
        let mut call = std::pin::pin!(pipeline.call_async(std::future::pending::<io::Result<()>>));
        let Poll::Ready(result) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the clock moves to the deadline by itself")
        };
        assert!(result.unwrap_err().is_timed_out(), "it was admitted as a probe");
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}

#[test]
fn no_call_is_lost_in_the_statistics_whatever_the_threads_do() {
    let breaker = CircuitBreaker::builder("test").failure_rate(0.9, 50, 50).open_for(Duration::from_nanos(1)).build();
    let breaker = breaker.unwrap();
    let asked = 4 * 5_000;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let breaker = &breaker;
            scope.spawn(move || {
                for call in 0..5_000 {
                    let Ok(permit) = breaker.try_acquire() else { continue };
                    permit.settle(match (thread + call) % 3 {
                        0 => &DOWN,
                        1 => &MISTAKE,
                        _ => &Outcome::Success,
                    });
                }
            });
        }
        let (mut last, mut seen) = (0, 0);
        while last < asked && seen < 10_000 {
            let now = breaker.statistics();
            assert_eq!(now.calls, now.successes + now.failures + now.ignored);
            assert!(now.window_failures <= now.window_calls && now.window_calls <= 50);
            assert!(now.calls + now.rejected >= last, "no counter goes back");
            (last, seen) = (now.calls + now.rejected, seen + 1);
        }
    });
    let end = breaker.statistics();
    assert_eq!(end.calls + end.rejected, asked);
}

#[test]
fn values_that_cannot_be_used_are_refused_with_their_names() {
    let message = |builder: resilience_core::circuit_breaker::CircuitBreakerBuilder| {
        builder.build().expect_err("the value cannot be used").to_string()
    };
    let new = || CircuitBreaker::builder("fetch");
    insta::assert_snapshot!(message(new().consecutive_failures(0)), @"`fetch.consecutive_failures` is 0; allowed: 1 to 4294967295");
    insta::assert_snapshot!(message(new().failure_rate(f64::NAN, 10, 1)), @"`fetch.failure_rate` is NaN; allowed: more than 0, at most 1");
    insta::assert_snapshot!(message(new().failure_rate(0.5, 10, 11)), @"`fetch.minimum_calls` is 11; allowed: 1 to 10");
    insta::assert_snapshot!(message(new().open_for(Duration::ZERO)), @"`fetch.open_for` is 0ns; allowed: more than 0, at most 10 years");
    insta::assert_snapshot!(message(new().slow_call_rate(0.5, Duration::from_secs(1))), @"`fetch.slow_call_rate` is 0.5; allowed: only together with a failure-rate window");
    insta::assert_snapshot!(message(CircuitBreaker::builder("two words")), @r#"`name` is "two words"; allowed: 1 to 128 of A-Z a-z 0-9 _ - . : /"#);
}

proptest! {
    #[test]
    fn no_configuration_makes_it_panic(rate in any::<f64>(), calls in any::<u32>(), minimum in any::<u32>(),
                                       open in any::<Duration>(), permits in any::<u32>(), successes in any::<u32>()) {
        let calls = calls % 1_000;
        let (clock, time) = Clock::manual();
        let built = CircuitBreaker::builder("test").failure_rate(rate, calls, minimum).open_for(open)
            .half_open_permits(permits).half_open_successes(successes).clock(clock).build();
        if let Ok(breaker) = built {
            for _ in 0..50 {
                if let Ok(permit) = breaker.try_acquire() {
                    permit.settle(&DOWN);
                }
                time.advance(Duration::from_secs(u64::MAX / 200_000_000_000));
            }
        }
    }

    /// Against a model that keeps everything: consecutive failures, open time, one probe at a time.
    #[test]
    fn it_behaves_like_a_naive_model(steps in proptest::collection::vec((0_u8..4, 0_u64..40), 1..200)) {
        let (clock, time) = Clock::manual();
        let breaker = CircuitBreaker::builder("test").consecutive_failures(3).open_for(Duration::from_secs(60)).clock(clock)
            .build().unwrap();
        // The model: failures in a row, when it opened (in model seconds), probe successes; None = closed.
        let (mut now, mut row, mut opened, mut probing, mut successes) = (0, 0, None::<u64>, false, 0);
        for (step, seconds) in steps {
            now += seconds;
            time.advance(Duration::from_secs(seconds));
            let outcome = match step { 0 | 1 => DOWN, 2 => Outcome::Success, _ => MISTAKE };
            let expected_admission = match opened { Some(at) if !probing => now >= at + 60, _ => true };
            let permit = breaker.try_acquire();
            prop_assert_eq!(permit.is_ok(), expected_admission);
            let Ok(permit) = permit else { continue };
            if opened.is_some() && !probing { probing = true; successes = 0; }
            permit.settle(&outcome);
            match (outcome.verdict(), probing) {
                (None, _) => {}
                (Some(true), true) => { successes += 1; if successes == 2 { opened = None; probing = false; row = 0; } }
                (Some(false), true) => { opened = Some(now); probing = false; }
                (Some(true), false) => row = 0,
                (Some(false), false) => { row += 1; if row == 3 { opened = Some(now); row = 0; } }
            }
            let expected = match (opened, probing) {
                (None, _) => BreakerState::Closed,
                (Some(_), true) => BreakerState::HalfOpen,
                (Some(_), false) => BreakerState::Open,
            };
            prop_assert_eq!(breaker.state(), expected);
        }
    }
}
