//! Exhaustive models of the circuit breaker's counting, its ramp and what is set by hand:
//! `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test loom_circuit_breaker`. Its probes are in `loom.rs`.
#![cfg(resilience_loom)]

use std::time::Duration;

use loom::thread;
use resilience_core::circuit_breaker::CircuitBreakerBuilder;
use resilience_core::{BreakerState, Category, CircuitBreaker, Class, Clock, ManualClock, Outcome};

const DOWN: Outcome = Outcome::Failure(Class::of(Category::Network));
const GOOD: Outcome = Outcome::Success;

fn breaker(configure: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder) -> (CircuitBreaker, ManualClock) {
    let (clock, time) = Clock::manual();
    (configure(CircuitBreaker::builder("model").seed(1).clock(clock)).build().unwrap(), time)
}

fn settle(breaker: &CircuitBreaker, outcome: &Outcome) {
    breaker.try_acquire().unwrap().settle(outcome);
}

/// Runs `other` beside `mine`, both on a handle of the same breaker.
fn beside(breaker: &CircuitBreaker, other: impl FnOnce(CircuitBreaker) + 'static, mine: impl FnOnce(&CircuitBreaker)) {
    let theirs = breaker.clone();
    let other = thread::spawn(move || other(theirs));
    mine(breaker);
    other.join().unwrap();
}

#[test]
fn whoever_is_the_last_of_enough_calls_is_judged() {
    loom::model(|| {
        let (breaker, _) = breaker(|builder| builder.failure_rate(0.5, 2, 2));
        beside(&breaker, |breaker| settle(&breaker, &GOOD), |breaker| settle(breaker, &DOWN));
        assert_eq!(breaker.state(), BreakerState::Open, "one of two failed, in either order");
    });
}

#[test]
fn a_window_that_slides_under_two_threads_holds_exactly_the_last_calls() {
    loom::model(|| {
        let (breaker, _) = breaker(|builder| builder.failure_rate(1.0, 2, 1));
        settle(&breaker, &GOOD);
        beside(&breaker, |breaker| settle(&breaker, &GOOD), |breaker| settle(breaker, &DOWN));
        let now = breaker.statistics();
        assert_eq!((now.window_calls, now.window_failures, now.successes, now.failures), (2, 1, 2, 1));
        settle(&breaker, &GOOD);
        assert!(breaker.statistics().window_failures <= 1);
        settle(&breaker, &GOOD);
        assert_eq!(breaker.statistics().window_failures, 0);
    });
}

#[test]
fn a_time_window_that_moves_on_under_two_threads_loses_no_call() {
    loom::model(|| {
        let (breaker, time) = breaker(|builder| builder.failure_rate_over(1.0, Duration::from_secs(16), 1));
        settle(&breaker, &GOOD);
        time.advance(Duration::from_secs(1));
        beside(&breaker, |breaker| settle(&breaker, &GOOD), |breaker| settle(breaker, &DOWN));
        let now = breaker.statistics();
        assert_eq!((now.window_calls, now.window_failures, now.calls), (3, 1, 3));
        time.advance(Duration::from_secs(15));
        assert_eq!(breaker.statistics().window_calls, 2, "the first has left");
    });
}

#[test]
fn a_success_between_two_failures_in_a_row_is_seen_by_the_second() {
    loom::model(|| {
        let (breaker, _) = breaker(|builder| builder.consecutive_failures(2));
        let permit = breaker.try_acquire_owned().unwrap();
        settle(&breaker, &DOWN);
        beside(&breaker, move |_| permit.settle(&GOOD), |breaker| settle(breaker, &DOWN));
        let now = breaker.statistics();
        assert_eq!((now.successes, now.failures), (1, 2));
        match now.state {
            BreakerState::Closed => assert_eq!(now.consecutive_failures, 1, "the success came in between"),
            state => assert_eq!((state, now.generation), (BreakerState::Open, 1), "it came too late"),
        }
    });
}

#[test]
fn a_call_of_an_older_generation_is_never_counted_in_a_newer_window() {
    for outcome in [GOOD, DOWN] {
        loom::model(move || {
            let (breaker, _) = breaker(|builder| builder.failure_rate(1.0, 10, 10));
            settle(&breaker, &GOOD);
            let old = breaker.try_acquire_owned().unwrap();
            beside(&breaker, move |_| old.settle(&outcome), CircuitBreaker::reset);
            let now = breaker.statistics();
            assert_eq!((now.window_calls, now.window_failures, now.calls), (0, 0, 2));
        });
    }
}

#[test]
fn a_success_of_an_older_generation_never_breaks_a_newer_row_of_failures() {
    // Two changes of thread are enough to get between check and count; all orders take minutes.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (breaker, _) = breaker(|builder| builder.consecutive_failures(2));
        let old = breaker.try_acquire_owned().unwrap();
        beside(
            &breaker,
            move |_| old.settle(&GOOD),
            |breaker| {
                breaker.reset();
                settle(breaker, &DOWN);
                settle(breaker, &DOWN);
            },
        );
        assert_eq!(breaker.state(), BreakerState::Open);
    });
}

#[test]
fn when_good_calls_leave_a_time_window_the_next_one_is_judged_whoever_moves_it_on() {
    loom::model(|| {
        let (breaker, time) = breaker(|builder| builder.failure_rate_over(0.5, Duration::from_secs(16), 2));
        settle(&breaker, &GOOD);
        settle(&breaker, &GOOD);
        time.advance(Duration::from_secs(1));
        settle(&breaker, &DOWN);
        time.advance(Duration::from_secs(15));
        let theirs = breaker.try_acquire_owned().unwrap();
        let mine = breaker.try_acquire_owned().unwrap();
        beside(&breaker, move |_| theirs.settle(&GOOD), move |_| mine.settle(&GOOD));
        assert_eq!(breaker.state(), BreakerState::Open, "the first of the two makes it one failure of two calls");
    });
}

#[test]
fn a_late_probe_does_not_decide_for_the_probes_after_it() {
    loom::model(|| {
        let (breaker, time) =
            breaker(|builder| builder.consecutive_failures(1).half_open_permits(2).half_open_successes(1));
        settle(&breaker, &DOWN);
        time.advance(Duration::from_secs(60));
        let (late, fails) = (breaker.try_acquire_owned().unwrap(), breaker.try_acquire_owned().unwrap());
        let other = thread::spawn(move || late.settle(&GOOD));
        fails.settle(&DOWN);
        time.advance(Duration::from_secs(60));
        let next = breaker.try_acquire().unwrap();
        let was_first = breaker.state() == BreakerState::Closed;
        other.join().unwrap();
        let expected = if was_first { BreakerState::Closed } else { BreakerState::HalfOpen };
        assert_eq!(breaker.state(), expected);
        drop(next);
    });
}

#[test]
fn two_that_ask_while_ramping_up_get_what_one_credit_is_worth() {
    loom::model(|| {
        let (breaker, time) =
            breaker(|builder| builder.consecutive_failures(1).half_open_successes(1).ramp_up(Duration::from_secs(10)));
        settle(&breaker, &DOWN);
        time.advance(Duration::from_secs(60));
        settle(&breaker, &GOOD);
        let theirs = breaker.clone();
        let other = thread::spawn(move || u32::from(theirs.try_acquire().is_ok()));
        let mine = u32::from(breaker.try_acquire().is_ok());
        assert_eq!(mine + other.join().unwrap(), 1);
        time.advance(Duration::from_secs(10));
        beside(&breaker, |breaker| settle(&breaker, &DOWN), |breaker| drop(breaker.try_acquire()));
        assert_eq!(breaker.statistics().openings, 1, "the ramp's end is no new generation");
    });
}

#[test]
fn a_call_that_ends_while_the_settings_change_is_counted_once() {
    loom::model(|| {
        let (breaker, _) = breaker(|builder| builder.failure_rate(1.0, 4, 2));
        settle(&breaker, &GOOD);
        settle(&breaker, &DOWN);
        let settings = breaker.to_builder().failure_rate(0.3, 8, 3);
        beside(&breaker, |breaker| settle(&breaker, &GOOD), move |breaker| breaker.reconfigure(settings).unwrap());
        // Either the other call was judged by the new settings already, or the next one is.
        if breaker.state() == BreakerState::Closed {
            assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (3, 1));
            settle(&breaker, &DOWN);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    });
}

#[test]
fn metrics_only_counts_each_call_once_while_its_counting_begins_anew() {
    loom::model(|| {
        let (breaker, _) = breaker(|builder| builder.consecutive_failures(1));
        breaker.metrics_only();
        beside(&breaker, |breaker| settle(&breaker, &GOOD), |breaker| settle(breaker, &DOWN));
        let now = breaker.statistics();
        assert_eq!((now.would_open, now.successes, now.failures), (1, 1, 1));
    });
}
