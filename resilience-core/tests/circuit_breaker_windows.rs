//! The circuit breaker's windows and counts: exact whatever came before, under threads, over a change of settings and
//! over a restart.

use std::time::Duration;

use resilience_core::circuit_breaker::{BreakerSnapshot, CircuitBreakerBuilder, Permit, WindowCounts};
use resilience_core::{BreakerState, Category, CircuitBreaker, Class, Clock, ManualClock, Observers, Outcome};

const DOWN: Outcome = Outcome::Failure(Class::of(Category::Network));
const GOOD: Outcome = Outcome::Success;
const SECOND: Duration = Duration::from_secs(1);

fn breaker(configure: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder) -> (CircuitBreaker, ManualClock) {
    let (clock, time) = Clock::manual();
    (configure(CircuitBreaker::builder("test").clock(clock)).build().expect("the values are valid"), time)
}

fn admitted(breaker: &CircuitBreaker) -> Permit<'_> {
    breaker.try_acquire().expect("the breaker lets the call through")
}

fn settle(breaker: &CircuitBreaker, calls: u32, outcome: &Outcome) {
    (0..calls).for_each(|_| admitted(breaker).settle(outcome));
}

/// How many calls of `outcome` it takes to open it, at most 1 000.
fn until_open(breaker: &CircuitBreaker, mut outcome: impl FnMut(u32) -> Outcome) -> u32 {
    let opens = |call: &u32| {
        admitted(breaker).settle(&outcome(*call));
        breaker.state() == BreakerState::Open
    };
    (1..=1_000).find(opens).expect("it opens")
}

#[test]
fn at_eighty_percent_failures_it_opens_as_soon_as_half_the_window_failed_whatever_came_before() {
    for successes in [0, 10, 100, 100_000] {
        let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 100, 100));
        settle(&breaker, successes, &GOOD);
        let opened_after = until_open(&breaker, |call| if call % 5 == 0 { GOOD } else { DOWN });
        // 50 failures are 62 calls; a window that is not full yet is judged when it is.
        assert_eq!(opened_after, if successes >= 38 { 62 } else { 100 - successes }, "after {successes} successes");
    }
}

#[test]
fn how_many_failures_open_it_depends_on_the_last_hundred_calls_alone() {
    for (successes, failures) in [(10, 10), (30, 30), (50, 50), (90, 50), (100, 50), (101, 50), (100_000, 50)] {
        let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 100, 20));
        settle(&breaker, successes, &GOOD);
        assert_eq!(until_open(&breaker, |_| DOWN), failures, "after {successes} successes");
    }
}

#[test]
fn a_success_opens_it_when_with_it_there_are_enough_calls_to_judge() {
    let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 100, 10));
    settle(&breaker, 5, &DOWN);
    settle(&breaker, 4, &GOOD);
    assert_eq!(breaker.state(), BreakerState::Closed);
    settle(&breaker, 1, &GOOD);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_success_opens_it_when_the_good_calls_before_it_have_left_a_time_window() {
    let (breaker, time) = breaker(|builder| builder.failure_rate_over(0.5, SECOND * 16, 5));
    settle(&breaker, 100, &GOOD);
    time.advance(SECOND * 8);
    settle(&breaker, 20, &DOWN);
    time.advance(SECOND * 9);
    assert_eq!(breaker.statistics().window_calls, 20, "looking at it judges nothing");
    assert_eq!(breaker.state(), BreakerState::Closed);
    settle(&breaker, 1, &GOOD);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_burst_in_a_time_window_is_counted_to_the_call_and_forgotten_at_once_after_a_long_idle_time() {
    let (breaker, time) = breaker(|builder| builder.failure_rate_over(0.5, SECOND * 10, 50_000));
    settle(&breaker, 30_000, &GOOD);
    settle(&breaker, 10_000, &DOWN);
    let statistics = breaker.statistics();
    assert_eq!((statistics.window_calls, statistics.window_failures), (40_000, 10_000));
    time.advance(SECOND * 1_000_000_000);
    settle(&breaker, 1, &DOWN);
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (1, 1));
}

#[test]
fn on_two_threads_the_window_holds_exactly_the_last_calls() {
    // Only a few failures among many successes that take no lock: what is missing or double would show in the sums.
    let (breaker, _time) = breaker(|builder| builder.failure_rate(1.0, 1_000_000, 1_000_000));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                (0..200_000).for_each(|call| settle(&breaker, 1, if call % 97 == 0 { &DOWN } else { &GOOD }))
            });
        }
    });
    let statistics = breaker.statistics();
    let failures = 2 * 200_000_u64.div_ceil(97);
    assert_eq!((statistics.calls, statistics.failures, statistics.successes), (400_000, failures, 400_000 - failures));
    assert_eq!((statistics.window_calls, statistics.window_failures), (400_000, failures));
    settle(&breaker, 1_000_000, &GOOD);
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (1_000_000, 0));
}

#[test]
fn on_two_threads_fifty_of_the_last_hundred_failures_open_it_and_fewer_do_not() {
    for _ in 0..200 {
        let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 100, 100));
        settle(&breaker, 500, &GOOD);
        std::thread::scope(|scope| {
            for failures in [25, 24] {
                let breaker = &breaker;
                scope.spawn(move || settle(breaker, failures, &DOWN));
            }
        });
        assert_eq!((breaker.state(), breaker.statistics().window_failures), (BreakerState::Closed, 49));
        settle(&breaker, 1, &DOWN);
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}

#[test]
fn on_two_threads_a_reset_in_between_loses_no_call_and_lets_no_old_one_count() {
    let (breaker, _time) = breaker(|builder| builder.failure_rate(1.0, 1_000, 1_000));
    std::thread::scope(|scope| {
        scope.spawn(|| settle(&breaker, 100_000, &GOOD));
        scope.spawn(|| {
            for _ in 0..5_000 {
                let old = admitted(&breaker);
                breaker.reset();
                old.settle(&DOWN);
            }
        });
    });
    let statistics = breaker.statistics();
    assert_eq!((statistics.successes, statistics.failures, statistics.window_failures), (100_000, 5_000, 0));
}

#[test]
fn statistics_read_while_calls_end_are_of_one_moment() {
    let (breaker, _time) = breaker(|builder| builder.failure_rate(1.0, 500, 500));
    std::thread::scope(|scope| {
        let work = scope
            .spawn(|| (0..100_000).for_each(|call| settle(&breaker, 1, if call % 3 == 0 { &DOWN } else { &GOOD })));
        let mut last = 0;
        while !work.is_finished() {
            let now = breaker.statistics();
            assert_eq!(now.calls, now.successes + now.failures + now.ignored);
            // On one thread a third fails at every moment: a torn pair of sums would not say so.
            assert_eq!(now.failures, now.calls.div_ceil(3));
            assert!(now.calls >= last && now.window_calls == now.calls.min(500));
            assert_eq!(now.consecutive_failures, u32::from(now.calls % 3 == 1));
            last = now.calls;
        }
    });
}

#[test]
fn reconfiguring_keeps_what_a_window_of_the_same_kind_holds_and_judges_it_anew() {
    let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 100, 10));
    settle(&breaker, 60, &GOOD);
    settle(&breaker, 40, &DOWN);
    breaker.reconfigure(breaker.to_builder().failure_rate(0.3, 200, 10)).unwrap();
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (100, 40));
    assert_eq!(breaker.state(), BreakerState::Closed, "by itself it does nothing");
    settle(&breaker, 1, &GOOD);
    assert_eq!(breaker.state(), BreakerState::Open, "40 of 101 is too much now");
}

#[test]
fn reconfiguring_to_another_kind_of_window_begins_to_count_anew() {
    let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 100, 10));
    settle(&breaker, 60, &GOOD);
    settle(&breaker, 40, &DOWN);
    breaker.reconfigure(breaker.to_builder().failure_rate_over(0.5, SECOND, 2)).unwrap();
    settle(&breaker, 1, &DOWN);
    assert_eq!((breaker.statistics().window_calls, breaker.state()), (1, BreakerState::Closed));
    breaker.reconfigure(breaker.to_builder().consecutive_failures(42)).unwrap();
    settle(&breaker, 1, &DOWN);
    assert_eq!(breaker.state(), BreakerState::Open, "the failures in a row are known whatever opens it");
}

#[test]
fn reconfiguring_an_open_breaker_leaves_it_the_time_it_has() {
    let (breaker, time) = breaker(|builder| builder.consecutive_failures(1).open_for(SECOND * 60));
    settle(&breaker, 1, &DOWN);
    time.advance(SECOND * 20);
    breaker.reconfigure(breaker.to_builder().open_for(SECOND * 5).half_open_successes(1)).unwrap();
    assert_eq!(breaker.statistics().probes_in, Some(SECOND * 40));
    time.advance(SECOND * 40);
    settle(&breaker, 1, &DOWN);
    assert_eq!(breaker.statistics().probes_in, Some(SECOND * 5));
    time.advance(SECOND * 5);
    settle(&breaker, 1, &GOOD);
    assert_eq!(breaker.state(), BreakerState::Closed, "one success is enough now");
}

#[test]
fn reconfiguring_half_open_takes_no_permit_back_and_gives_none_twice() {
    let (breaker, time) =
        breaker(|builder| builder.consecutive_failures(1).half_open_permits(3).half_open_successes(9));
    settle(&breaker, 1, &DOWN);
    time.advance(SECOND * 60);
    let mut probes: Vec<_> = (0..3).map(|_| admitted(&breaker)).collect();
    breaker.reconfigure(breaker.to_builder().half_open_permits(2)).unwrap();
    for _ in 0..2 {
        assert!(breaker.try_acquire().is_err());
        drop(probes.pop());
    }
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn reconfiguring_with_another_name_or_clock_or_a_bad_value_changes_nothing() {
    let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 100, 10));
    let before = breaker.settings();
    let refused = |builder| breaker.reconfigure(builder).expect_err("it cannot be used").to_string();
    insta::assert_snapshot!(refused(CircuitBreaker::builder("other")), @"`name` is `other`; allowed: `test`, the name of the breaker that is reconfigured");
    insta::assert_snapshot!(refused(CircuitBreaker::builder("test").clock(Clock::system())), @"`test.clock` is another clock; allowed: the breaker's own, or none");
    insta::assert_snapshot!(refused(breaker.to_builder().half_open_permits(0)), @"`test.half_open_permits` is 0; allowed: 1 to 4294967295");
    assert_eq!(breaker.settings(), before);
    breaker.reconfigure(CircuitBreaker::builder("test").observers(Observers::new())).unwrap();
    assert_ne!(breaker.settings(), before, "a builder without a clock means the breaker's own");
}

#[test]
fn slow_calls_can_be_asked_for_while_calls_are_under_way() {
    let (breaker, time) = breaker(|builder| builder.failure_rate(1.0, 10, 1));
    let before = admitted(&breaker);
    breaker.reconfigure(breaker.to_builder().slow_call_rate(0.5, SECOND)).unwrap();
    time.advance(SECOND * 2);
    before.settle(&GOOD);
    assert_eq!((breaker.state(), breaker.statistics().window_slow), (BreakerState::Closed, 0), "nobody measured it");
    let after = admitted(&breaker);
    time.advance(SECOND * 2);
    after.settle(&GOOD);
    assert_eq!(breaker.state(), BreakerState::Open);
}

/// What `breaker` knows, after a trip through text.
#[cfg(feature = "serde")]
fn written_and_read(breaker: &CircuitBreaker) -> BreakerSnapshot {
    serde_json::from_str(&serde_json::to_string(&breaker.snapshot()).unwrap()).unwrap()
}

#[cfg(not(feature = "serde"))]
fn written_and_read(breaker: &CircuitBreaker) -> BreakerSnapshot {
    breaker.snapshot()
}

#[test]
fn a_restored_breaker_goes_on_where_the_other_stood_whatever_its_clock_says() {
    let build = |clock: Clock| {
        let builder = CircuitBreaker::builder("test").failure_rate(0.5, 10, 10).half_open_successes(1);
        builder.ramp_up(SECOND * 30).clock(clock).build().unwrap()
    };
    let (clock, time) = Clock::manual();
    let (other_clock, other_time) = Clock::manual();
    other_time.advance(SECOND * 1_000_000);
    let (before, after) = (build(clock), build(other_clock));
    settle(&before, 7, &GOOD);
    settle(&before, 2, &DOWN);
    after.restore(&written_and_read(&before)).unwrap();
    assert_eq!(after.snapshot().window, WindowCounts { calls: 9, failures: 2, slow: 0 });
    assert_eq!((after.statistics().calls, after.statistics().consecutive_failures), (0, 2));
    settle(&before, 3, &DOWN);
    time.advance(SECOND * 15);
    after.restore(&written_and_read(&before)).unwrap();
    assert_eq!((after.state(), after.statistics().probes_in), (BreakerState::Open, Some(SECOND * 45)));
    other_time.advance(SECOND * 45);
    settle(&after, 1, &GOOD);
    other_time.advance(SECOND * 10);
    before.restore(&written_and_read(&after)).unwrap();
    assert_eq!((before.state(), before.statistics().ramp_up_left), (BreakerState::Closed, Some(SECOND * 20)));
    before.force_open();
    after.restore(&written_and_read(&before)).unwrap();
    assert_eq!(after.state(), BreakerState::ForcedOpen);
}

#[test]
fn a_restored_window_is_judged_with_its_next_call_and_a_permit_from_before_is_not() {
    let (breaker, _time) = breaker(|builder| builder.failure_rate(0.5, 10, 10));
    let old = admitted(&breaker);
    let mut snapshot = breaker.snapshot();
    let node = WindowCounts { calls: 40, failures: 30, slow: 0 };
    snapshot.window = node.merged(WindowCounts { calls: 60, failures: 20, slow: 5 });
    breaker.restore(&snapshot).unwrap();
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (10, 5), "its share of both");
    old.settle(&GOOD);
    assert_eq!(breaker.state(), BreakerState::Closed);
    settle(&breaker, 1, &GOOD);
    assert_eq!(breaker.state(), BreakerState::Open);
    let statistics = breaker.statistics();
    assert_eq!((statistics.calls, statistics.successes, statistics.failures), (2, 2, 0), "statistics are its own");
}

#[test]
fn a_snapshot_that_makes_no_sense_is_refused_and_changes_nothing() {
    let (breaker, _time) = breaker(|builder| builder.open_for(SECOND * 60).open_jitter(0.5));
    let before = breaker.snapshot();
    let refused = |change: fn(&mut BreakerSnapshot)| {
        let mut snapshot = breaker.snapshot();
        change(&mut snapshot);
        let error = breaker.restore(&snapshot).expect_err("it makes no sense").to_string();
        assert_eq!(breaker.snapshot(), before);
        error
    };
    insta::assert_snapshot!(refused(|bad| bad.state = BreakerState::Open), @"`test.snapshot.open_left` is missing; allowed: given exactly when the state is open");
    insta::assert_snapshot!(refused(|bad| bad.open_left = Some(SECOND)), @"`test.snapshot.open_left` is 1s; allowed: given exactly when the state is open");
    insta::assert_snapshot!(refused(|bad| (bad.state, bad.open_left) = (BreakerState::Open, Some(SECOND * 91))), @"`test.snapshot.open_left` is 91s; allowed: 0 to 90s");
    insta::assert_snapshot!(refused(|bad| bad.ramp_up_left = Some(SECOND)), @"`test.snapshot.ramp_up_left` is 1s; allowed: 0 to 0ns");
    insta::assert_snapshot!(refused(|bad| bad.generation = u64::MAX), @"`test.snapshot.generation` is 18446744073709551615; allowed: 0 to 281474976710656");
    insta::assert_snapshot!(refused(|bad| bad.window.failures = 1), @"`test.snapshot.window.failures` is 1; allowed: 0 to 0");
    insta::assert_snapshot!(refused(|bad| bad.window.slow = 1), @"`test.snapshot.window.slow` is 1; allowed: 0 to 0");
    insta::assert_snapshot!(refused(|bad| bad.window.calls = u64::MAX), @"`test.snapshot.window.calls` is 18446744073709551615; allowed: 0 to 549755813888");
}
