//! What users of resilience4j know, as tests of ours: its documented behaviour, case by case, in our words and API.
//! Where ours differs on purpose, the test shows ours and says why. "SM" is its `CircuitBreakerStateMachineTest`.
//!
//! | test here | the case there |
//! |---|---|
//! | `a_closed_breaker_admits_and_its_name_is_kept` | SM `shouldReturnTheCorrectName` |
//! | `an_open_breaker_refuses_and_counts_the_refusal` | SM `shouldThrowCallNotPermittedExceptionWhenStateIsOpen` |
//! | `a_breaker_forced_open_refuses_for_ever` | SM `shouldForceOpenCircuitBreaker`, `…WhenStateIsForcedOpen` |
//! | `a_disabled_breaker_admits_everything_and_judges_nothing` | SM `shouldDisableCircuitBreaker` |
//! | `a_rate_counts_only_from_the_minimum_number_of_calls` | docs, `minimumNumberOfCalls` |
//! | `a_rate_equal_to_the_threshold_opens_and_one_below_does_not` | docs; SM `shouldOpenAfterFailureRateThresholdExceeded` |
//! | `a_count_window_forgets_the_oldest_call_first` | `FixedSizeSlidingWindowMetricsTest.testSlidingWindowMetrics` |
//! | `a_time_window_forgets_what_is_older_than_its_span` | `SlidingTimeWindowMetricsTest.testSlidingTimeWindowMetrics` |
//! | `a_time_window_forgets_in_steps_of_a_sixteenth` (differs) | docs, one bucket a second |
//! | `slow_calls_open_it_although_they_succeed` | SM `shouldOpenAfterSlowCallRateThresholdExceeded` |
//! | `a_call_is_slow_only_when_longer_than_the_threshold` | docs, `slowCallDurationThreshold` |
//! | `slow_failures_count_as_both` | `FixedSizeSlidingWindowMetricsTest.testSlidingWindowMetricsWithSlowCalls` |
//! | `it_probes_after_the_wait_and_not_a_nanosecond_earlier` | SM `shouldTransitionToHalfOpenAfterWaitDuration` |
//! | `its_waits_can_grow_from_opening_to_opening` | SM `shouldTransitionToHalfOpenAfterWaitInterval` |
//! | `nothing_happens_by_itself_when_the_wait_is_over` (differs) | `CircuitBreakerAutoTransitionStateMachineTest.testAutoTransition` |
//! | `half_open_admits_as_many_probes_as_permitted` | SM `shouldOnlyPermitFourCallsInHalfOpenState` |
//! | `a_failure_rate_of_probes_at_the_threshold_opens_it_again` | SM `shouldTransitionBackToOpenStateWhenFailureRateIsAboveThreshold` |
//! | `a_failure_rate_of_probes_below_the_threshold_closes_it` | SM `shouldTransitionBackToClosedStateWhenFailureIsBelowThreshold` |
//! | `it_opens_again_before_all_probes_are_back_once_it_is_certain` (differs) | docs, half-open |
//! | `slow_probes_open_it_again` | SM `shouldTransitionBackToOpenStateWhenSlowCallRateIsAboveThreshold` |
//! | `probes_that_hang_open_it_again_after_the_half_open_limit` | SM `circuitBreakerTransitionsToOpenAfterWaitDurationInHalfOpenState` |
//! | `an_ignored_error_returns_the_probes_permit_and_decides_nothing` | SM `shouldReleasePermissionWhenExceptionIgnored` |
//! | `ignored_errors_and_then_successes_close_it` | SM `shouldIgnoreExceptionsAndThenTransitionToClosed` |
//! | `a_permit_that_is_dropped_is_given_back` | SM `shouldIncreaseCounterOnReleasePermission` |
//! | `a_reset_forgets_the_window_and_closes` | SM `shouldResetMetrics`, `shouldResetToClosedState`, `shouldResetClosedState` |
//! | `metrics_only_counts_and_never_refuses` | SM `shouldRecordMetricsInMetricsOnlyState` |
//! | `every_state_can_be_set_to_metrics_only_and_counts_anew` | SM `allCircuitBreakerStatesAllowTransitionToMetricsOnlyMode`, `shouldResetMetricsAfterMetricsOnlyStateTransition` |
//! | `a_state_set_twice_is_told_once` | SM `circuitBreakerDoesNotPublishStateTransitionEventsForInternalTransitions` |
//! | `it_can_begin_in_another_state` | SM `circuitBreakerInitializeInOpenState`, `…InClosedState` |
//! | `results_can_count_as_failures` | `CircuitBreakerResultHandlingTest` |
//! | `which_errors_count_is_for_the_caller_to_say` | `CircuitBreakerExceptionHandlingTest` |
//! | `an_outcome_of_before_the_opening_is_not_held_against_a_probe` (differs) | `AcquirePermission`/`onError` across states |
//! | `a_retry_makes_its_attempts_and_returns_the_last_error` | `SupplierRetryTest.shouldReturnAfterThreeAttempts` |
//! | `a_retry_stops_at_the_first_success` | `SupplierRetryTest.shouldReturnSuccessfullyAfterSecondAttempt` |
//! | `an_ignored_error_is_tried_once` | `SupplierRetryTest.shouldReturnAfterOneAttemptAndIgnoreException` |
//! | `a_result_can_be_retried_and_the_last_one_is_returned` | `SupplierRetryTest.shouldRetryWithResult` |
//! | `intervals_grow_exponentially_up_to_the_cap` | `IntervalFunctionTest.generatesCappedExponentialIntervals` |
//! | `random_intervals_stay_within_their_part_and_differ` | `IntervalFunctionTest.generatesRandomizedIntervals` |
//! | `an_error_can_name_its_own_interval` | `SupplierRetryTest.shouldUseBackoffBiFunctionWhenRetryWithResult` |
//! | `impossible_retries_are_refused_when_built` | `RetryConfigBuilderTest`, `IntervalFunctionTest.shouldReject…` |
//! | `permits_of_a_cycle_are_used_up_and_come_back_with_the_next` | `AtomicRateLimiterTest.acquireAndRefreshWithEventPublishing` |
//! | `permits_come_back_evenly_and_not_all_at_the_cycles_start` (differs) | docs, cycles |
//! | `unused_cycles_are_not_saved_up` | `AtomicRateLimiterTest.reserveFewThenSkipCyclesBeforeRefresh` |
//! | `a_reservation_says_how_long_and_refuses_what_is_longer_than_allowed` | `AtomicRateLimiterTest.reserveFewThenSkipCyclesBeforeRefreshNonBlocking` |
//! | `a_wait_ends_with_the_permit_and_not_before` | `RateLimiterTest.waitForPermissionWithOne` |
//! | `more_permits_than_can_ever_be_had_are_refused_at_once` (differs) | `AtomicRateLimiterTest.reserveManyCyclesIfWegithgreaterThenLimitPerPeriod` |
//! | `a_limit_can_be_changed_while_it_is_used` | `AtomicRateLimiterTest.changePermissionsLimitBetweenCycles` |
//! | `impossible_limits_are_refused_when_built` | `RateLimiterConfigTest` |
//! | `a_bulkhead_admits_its_number_and_refuses_the_next` | `BulkheadTest.shouldReturnFailureWithBulkheadFullException` |
//! | `who_waits_longest_is_let_in_first` | docs, `fairCallHandlingEnabled` |
//! | `a_wait_for_a_bulkhead_ends_when_it_is_over` | `SemaphoreBulkheadTest.testEntryTimeout` |
//! | `a_bulkhead_can_be_widened_and_narrowed_under_use` | `SemaphoreBulkheadTest.changePermissionsCountWhileOneThreadIsRunningWithThisPermission` |
//! | `a_failed_call_gives_its_place_back` | `BulkheadTest.shouldDecorateSupplierAndReturnWithException` |
//! | `a_bulkhead_of_nothing_is_refused_when_built` (differs) | `SemaphoreBulkheadTest.testZeroMaxConcurrentCalls` |
//! | `a_time_limit_returns_what_is_in_time_and_drops_what_is_not` | `TimeLimiterTest.shouldThrowTimeoutExceptionAndInvokeCancel`, `shouldReturnResult` |
//! | `a_time_limit_can_leave_the_work_running` | `TimeLimiterTest.shouldThrowTimeoutExceptionAndNotInvokeCancel` |

use std::cell::Cell;
use std::future::{Future, pending};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience_core::circuit_breaker::{CircuitBreakerBuilder, Permit};
use resilience_core::{
    Backoff, BreakerState, Bulkhead, Category, CircuitBreaker, Class, Clock, Event, Jitter, ManualClock, Observers,
    Outcome, Pipeline, RateLimiter, Reason, Retry, Retryable, Timeout,
};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);
const DOWN: Outcome = Outcome::Failure(Class::of(Category::Network));
const MISTAKE: Outcome = Outcome::Failure(Class::of(Category::Validation));

type Test = Result<(), Box<dyn std::error::Error>>;

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn just_under(time: Duration) -> Duration {
    time.saturating_sub(NANO)
}

fn down<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionRefused.into())
}

/// A breaker over the last 10 calls with their defaults in small: half of them, at least 4, open for 60 s, 4 probes.
fn usual() -> (CircuitBreakerBuilder, ManualClock) {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("backend")
        .failure_rate(0.5, 10, 4)
        .open_for(SECOND * 60)
        .half_open_permits(4)
        .half_open_rate(0.5, 4)
        .clock(clock);
    (breaker, time)
}

fn admitted(breaker: &CircuitBreaker) -> Permit<'_> {
    breaker.try_acquire().expect("the breaker lets the call through")
}

fn settle(breaker: &CircuitBreaker, outcomes: &[Outcome]) {
    for outcome in outcomes {
        admitted(breaker).settle(outcome);
    }
}

fn opened(breaker: &CircuitBreaker) {
    settle(breaker, &[DOWN; 4]);
    assert_eq!(breaker.state(), BreakerState::Open);
}

fn reason<T>(refused: Result<T, resilience_core::Rejection>) -> Reason {
    refused.err().expect("it is refused").reason
}

// ---- circuit breaker: states ----

#[test]
fn a_closed_breaker_admits_and_its_name_is_kept() -> Test {
    let breaker = usual().0.build()?;
    assert_eq!((breaker.name(), breaker.state()), ("backend", BreakerState::Closed));
    assert_eq!(breaker.call(|| Ok::<_, io::Error>(7))?, 7);
    Ok(())
}

#[test]
fn an_open_breaker_refuses_and_counts_the_refusal() -> Test {
    let breaker = usual().0.build()?;
    opened(&breaker);
    let runs = Cell::new(0);
    let call = || {
        breaker.call(|| {
            runs.set(runs.get() + 1);
            Ok::<_, io::Error>(())
        })
    };
    let refused = call().unwrap_err();
    assert_eq!(refused.as_rejection().map(|rejection| rejection.reason), Some(Reason::CircuitOpen));
    assert!(call().is_err());
    assert_eq!((runs.get(), breaker.statistics().rejected, breaker.statistics().calls), (0, 2, 4));
    Ok(())
}

#[test]
fn a_breaker_forced_open_refuses_for_ever() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    breaker.force_open();
    time.advance(SECOND * 86_400);
    assert_eq!(reason(breaker.try_acquire()), Reason::CircuitForcedOpen);
    assert_eq!(breaker.state(), BreakerState::ForcedOpen);
    breaker.reset();
    assert!(breaker.try_acquire().is_ok());
    Ok(())
}

#[test]
fn a_disabled_breaker_admits_everything_and_judges_nothing() -> Test {
    let breaker = usual().0.build()?;
    breaker.disable();
    settle(&breaker, &[DOWN; 50]);
    assert_eq!((breaker.state(), breaker.statistics().window_calls), (BreakerState::Disabled, 0));
    Ok(())
}

#[test]
fn a_reset_forgets_the_window_and_closes() -> Test {
    let breaker = usual().0.build()?;
    settle(&breaker, &[DOWN, DOWN, DOWN]);
    breaker.reset();
    assert_eq!((breaker.statistics().window_calls, breaker.state()), (0, BreakerState::Closed));
    settle(&breaker, &[DOWN, DOWN, DOWN]);
    assert_eq!(breaker.state(), BreakerState::Closed, "the three of before do not count");
    settle(&breaker, &[DOWN]);
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker.reset();
    assert_eq!(breaker.state(), BreakerState::Closed);
    Ok(())
}

#[test]
fn metrics_only_counts_and_never_refuses() -> Test {
    let breaker = usual().0.build()?;
    breaker.metrics_only();
    settle(&breaker, &[DOWN; 9]);
    let statistics = breaker.statistics();
    assert_eq!((statistics.state, statistics.failures, statistics.rejected), (BreakerState::MetricsOnly, 9, 0));
    assert_eq!(statistics.would_open, 2, "after the fourth and the eighth failure");
    Ok(())
}

#[test]
fn every_state_can_be_set_to_metrics_only_and_counts_anew() -> Test {
    let ways: [fn(&CircuitBreaker, &ManualClock); 5] = [
        |breaker, _| settle(breaker, &[DOWN; 3]),
        |breaker, _| opened(breaker),
        |breaker, time| {
            opened(breaker);
            time.advance(SECOND * 60);
            settle(breaker, &[Outcome::Success]);
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
        },
        |breaker, _| breaker.force_open(),
        |breaker, _| breaker.disable(),
    ];
    for way in ways {
        let (builder, time) = usual();
        let breaker = builder.build()?;
        way(&breaker, &time);
        breaker.metrics_only();
        assert_eq!((breaker.state(), breaker.statistics().window_calls), (BreakerState::MetricsOnly, 0));
        settle(&breaker, &[DOWN]);
        assert_eq!(breaker.statistics().window_failures, 1);
    }
    Ok(())
}

#[test]
fn a_state_set_twice_is_told_once() -> Test {
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if matches!(event, Event::BreakerStateChanged { .. }) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let breaker = usual().0.observers(observers).build()?;
    let sets: [fn(&CircuitBreaker); 4] =
        [CircuitBreaker::force_open, CircuitBreaker::disable, CircuitBreaker::metrics_only, CircuitBreaker::reset];
    for (number, set) in (1..).zip(sets) {
        set(&breaker);
        set(&breaker);
        assert_eq!(told.load(Ordering::Relaxed), number);
    }
    Ok(())
}

/// Theirs has `initialState`. Ours takes a snapshot, which says as well for how long it stays open.
#[test]
fn it_can_begin_in_another_state() -> Test {
    let (builder, time) = usual();
    let before = builder.clone().build()?;
    opened(&before);
    time.advance(SECOND * 20);
    let after = builder.build()?;
    after.restore(&before.snapshot())?;
    assert_eq!((after.state(), after.statistics().probes_in), (BreakerState::Open, Some(SECOND * 40)));
    Ok(())
}

// ---- circuit breaker: windows ----

#[test]
fn a_rate_counts_only_from_the_minimum_number_of_calls() -> Test {
    let breaker = usual().0.build()?;
    settle(&breaker, &[DOWN; 3]);
    assert_eq!(breaker.state(), BreakerState::Closed, "all failed, but they are too few to tell");
    settle(&breaker, &[DOWN]);
    assert_eq!(breaker.state(), BreakerState::Open);
    Ok(())
}

#[test]
fn a_rate_equal_to_the_threshold_opens_and_one_below_does_not() -> Test {
    let breaker = usual().0.failure_rate(0.5, 10, 10).build()?;
    settle(&breaker, &[DOWN, DOWN, DOWN, DOWN]);
    settle(&breaker, &[Outcome::Success; 6]);
    assert_eq!(breaker.state(), BreakerState::Closed, "4 of 10");
    // The oldest four, all failures, make room for failures: 4 of 10, again and again; the fifth makes it 5.
    settle(&breaker, &[DOWN; 4]);
    assert_eq!((breaker.state(), breaker.statistics().window_failures), (BreakerState::Closed, 4));
    settle(&breaker, &[DOWN]);
    assert_eq!(breaker.state(), BreakerState::Open, "5 of 10");
    Ok(())
}

#[test]
fn a_count_window_forgets_the_oldest_call_first() -> Test {
    let breaker = usual().0.failure_rate(1.0, 5, 5).build()?;
    settle(&breaker, &[DOWN, Outcome::Success, DOWN, DOWN, Outcome::Success]);
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (5, 3));
    for left in [2, 2, 1, 0, 0] {
        settle(&breaker, &[Outcome::Success]);
        assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (5, left));
    }
    Ok(())
}

#[test]
fn a_time_window_forgets_what_is_older_than_its_span() -> Test {
    let (builder, time) = usual();
    let breaker = builder.failure_rate_over(0.5, SECOND * 10, 7).build()?;
    settle(&breaker, &[DOWN; 3]);
    time.advance(SECOND * 5);
    settle(&breaker, &[Outcome::Success; 4]);
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (7, 3));
    time.advance(SECOND * 6);
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().window_failures), (4, 0));
    settle(&breaker, &[DOWN; 3]);
    assert_eq!(breaker.state(), BreakerState::Closed, "3 of 7: what failed 11 s ago is forgotten");
    time.advance(SECOND * 60);
    assert_eq!(breaker.statistics().window_calls, 0);
    Ok(())
}

/// Theirs keeps one bucket for each second, so a window of less than a second cannot be. Ours cuts any span into
/// sixteenths.
#[test]
fn a_time_window_forgets_in_steps_of_a_sixteenth() -> Test {
    let (builder, time) = usual();
    let span = Duration::from_millis(160);
    let breaker = builder.failure_rate_over(1.0, span, 1_000).build()?;
    for _ in 0..16 {
        settle(&breaker, &[DOWN]);
        time.advance(span / 16);
    }
    let full = breaker.statistics().window_calls;
    time.advance(span / 16);
    let less = breaker.statistics().window_calls;
    assert!((15..=16).contains(&full) && less == full - 1, "{full}, then {less}");
    Ok(())
}

#[test]
fn slow_calls_open_it_although_they_succeed() -> Test {
    let (builder, time) = usual();
    let breaker = builder.slow_call_rate(0.5, SECOND * 5).build()?;
    for slow in [true, false, true, false] {
        let call = admitted(&breaker);
        time.advance(if slow { SECOND * 6 } else { SECOND });
        call.settle(&Outcome::Success);
    }
    assert_eq!((breaker.state(), breaker.statistics().failures), (BreakerState::Open, 0));
    Ok(())
}

#[test]
fn a_call_is_slow_only_when_longer_than_the_threshold() -> Test {
    let (builder, time) = usual();
    let breaker = builder.slow_call_rate(1.0, SECOND * 5).build()?;
    for (takes, slow) in [(SECOND * 5, 0), (SECOND * 5 + NANO, 1)] {
        let call = admitted(&breaker);
        time.advance(takes);
        call.settle(&Outcome::Success);
        assert_eq!(breaker.statistics().window_slow, slow, "{takes:?}");
    }
    Ok(())
}

#[test]
fn slow_failures_count_as_both() -> Test {
    let (builder, time) = usual();
    let breaker = builder.slow_call_rate(1.0, SECOND).build()?;
    let call = admitted(&breaker);
    time.advance(SECOND * 2);
    call.settle(&DOWN);
    let statistics = breaker.statistics();
    assert_eq!((statistics.window_calls, statistics.window_failures, statistics.window_slow), (1, 1, 1));
    Ok(())
}

// ---- circuit breaker: coming back ----

#[test]
fn it_probes_after_the_wait_and_not_a_nanosecond_earlier() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    opened(&breaker);
    time.advance(just_under(SECOND * 60));
    let refused = breaker.try_acquire().unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::CircuitOpen, Some(NANO)));
    time.advance(NANO);
    let _probe = admitted(&breaker);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    Ok(())
}

#[test]
fn its_waits_can_grow_from_opening_to_opening() -> Test {
    let (builder, time) = usual();
    let waits = Backoff::exponential(SECOND * 10, 2.0, SECOND * 30);
    let breaker = builder.open_for_growing(waits).half_open_successes(1).build()?;
    opened(&breaker);
    for wait in [10, 20, 30, 30] {
        assert_eq!(breaker.statistics().probes_in, Some(SECOND * wait));
        time.advance(SECOND * wait);
        settle(&breaker, &[DOWN]);
    }
    time.advance(SECOND * 30);
    settle(&breaker, &[Outcome::Success]);
    opened(&breaker);
    assert_eq!(breaker.statistics().probes_in, Some(SECOND * 10), "it begins anew once it has closed");
    Ok(())
}

/// Theirs can be told to use a thread for the change. Ours has no thread: an open breaker that nobody asks stays open,
/// and `probes_in` says that its time is over.
#[test]
fn nothing_happens_by_itself_when_the_wait_is_over() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    opened(&breaker);
    time.advance(SECOND * 3_600);
    assert_eq!((breaker.state(), breaker.statistics().probes_in), (BreakerState::Open, None));
    assert!(breaker.try_acquire().is_ok());
    Ok(())
}

#[test]
fn half_open_admits_as_many_probes_as_permitted() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    let probes: Vec<_> = (0..4).map(|_| admitted(&breaker)).collect();
    assert_eq!(reason(breaker.try_acquire()), Reason::HalfOpenBusy);
    assert_eq!(breaker.statistics().rejected, 1);
    drop(probes);
    Ok(())
}

#[test]
fn a_failure_rate_of_probes_at_the_threshold_opens_it_again() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    settle(&breaker, &[DOWN, Outcome::Success, DOWN]);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.statistics().probes_in, Some(SECOND * 60));
    Ok(())
}

#[test]
fn a_failure_rate_of_probes_below_the_threshold_closes_it() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    settle(&breaker, &[DOWN, Outcome::Success, Outcome::Success]);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "three of four are back");
    settle(&breaker, &[Outcome::Success]);
    assert_eq!((breaker.state(), breaker.statistics().window_calls), (BreakerState::Closed, 0));
    Ok(())
}

/// Theirs waits for every permitted call. What the rest will say changes nothing, and a dependency that is down should
/// not be asked more often than needed.
#[test]
fn it_opens_again_before_all_probes_are_back_once_it_is_certain() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    settle(&breaker, &[DOWN]);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    settle(&breaker, &[DOWN]);
    assert_eq!(breaker.state(), BreakerState::Open, "2 of 4 failed, whatever the others do");
    Ok(())
}

#[test]
fn slow_probes_open_it_again() -> Test {
    let (builder, time) = usual();
    let breaker = builder.slow_call_rate(0.5, SECOND).build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    for _ in 0..2 {
        assert_ne!(breaker.state(), BreakerState::Closed);
        let probe = admitted(&breaker);
        time.advance(SECOND * 2);
        probe.settle(&Outcome::Success);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    Ok(())
}

/// Theirs does it by a timer, ours when the next call asks: no thread, and nobody is there to notice a difference.
#[test]
fn probes_that_hang_open_it_again_after_the_half_open_limit() -> Test {
    let (builder, time) = usual();
    let breaker = builder.half_open_timeout(SECOND * 5).build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    let probes: Vec<_> = (0..4).map(|_| admitted(&breaker)).collect();
    time.advance(just_under(SECOND * 5));
    assert_eq!(reason(breaker.try_acquire()), Reason::HalfOpenBusy);
    time.advance(NANO);
    assert_eq!(reason(breaker.try_acquire()), Reason::CircuitOpen);
    assert_eq!(breaker.state(), BreakerState::Open);
    drop(probes);
    Ok(())
}

#[test]
fn an_ignored_error_returns_the_probes_permit_and_decides_nothing() -> Test {
    let (builder, time) = usual();
    let breaker = builder.half_open_permits(1).half_open_successes(1).build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    for _ in 0..100 {
        settle(&breaker, &[MISTAKE]);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }
    settle(&breaker, &[Outcome::Success]);
    assert_eq!(breaker.state(), BreakerState::Closed);
    Ok(())
}

#[test]
fn ignored_errors_and_then_successes_close_it() -> Test {
    let (builder, time) = usual();
    let breaker = builder.build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    settle(&breaker, &[MISTAKE; 4]);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "mistakes are no probes that came back well");
    settle(&breaker, &[Outcome::Success; 4]);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.statistics().ignored, 4);
    Ok(())
}

#[test]
fn a_permit_that_is_dropped_is_given_back() -> Test {
    let (builder, time) = usual();
    let breaker = builder.half_open_permits(1).build()?;
    opened(&breaker);
    time.advance(SECOND * 60);
    let probe = admitted(&breaker);
    assert_eq!(reason(breaker.try_acquire()), Reason::HalfOpenBusy);
    drop(probe);
    assert!(breaker.try_acquire().is_ok());
    Ok(())
}

/// Theirs counts whatever is reported in the state it finds. A call that began before the breaker opened says nothing
/// of the dependency now: only outcomes of the generation that admitted them are judged.
#[test]
fn an_outcome_of_before_the_opening_is_not_held_against_a_probe() -> Test {
    let (builder, time) = usual();
    let breaker = builder.half_open_permits(1).half_open_successes(1).build()?;
    let early = admitted(&breaker);
    opened(&breaker);
    time.advance(SECOND * 60);
    let probe = admitted(&breaker);
    early.settle(&DOWN);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    probe.settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
    Ok(())
}

#[test]
fn results_can_count_as_failures() -> Test {
    let breaker = usual().0.build()?;
    let judged = breaker.judged_by(|answer: &io::Result<&str>| {
        (matches!(answer, Ok("failure")) || answer.is_err()).then(|| Class::of(Category::Network))
    });
    assert_eq!(judged.call(|| Ok("failure"))?, "failure");
    assert_eq!(judged.call(|| Ok("fine"))?, "fine");
    assert_eq!((breaker.statistics().failures, breaker.statistics().successes), (1, 1));
    Ok(())
}

/// Theirs counts every exception that is neither recorded nor ignored as a success. Ours counts the caller's mistakes as
/// neither: they prove nothing good of the dependency.
#[test]
fn which_errors_count_is_for_the_caller_to_say() -> Test {
    let breaker = usual().0.build()?;
    let classified = breaker.classified_by(|error: &&str| match *error {
        "io" => Class::of(Category::Network),
        _ => Class::of(Category::Validation),
    });
    assert!(classified.call(|| Err::<(), _>("io")).is_err());
    assert!(classified.call(|| Err::<(), _>("business")).is_err());
    let statistics = breaker.statistics();
    assert_eq!((statistics.failures, statistics.successes, statistics.ignored), (1, 0, 1));
    Ok(())
}

// ---- retry ----

fn patient(backoff: Backoff, attempts: u32) -> (Retry, ManualClock) {
    let time = ManualClock::auto_advancing();
    let retry = Retry::builder().max_attempts(attempts).backoff(backoff).jitter(Jitter::None).clock(time.clock());
    (retry.build().expect("the values are valid"), time)
}

#[test]
fn a_retry_makes_its_attempts_and_returns_the_last_error() {
    let (retry, time) = patient(Backoff::fixed(SECOND / 2), 3);
    let mut kinds = [io::ErrorKind::TimedOut, io::ErrorKind::TimedOut, io::ErrorKind::ConnectionReset].into_iter();
    let error = (|| Err::<(), _>(io::Error::from(kinds.next().unwrap()))).retry(&retry).call().unwrap_err();
    assert_eq!((error.attempts, error.as_operation().unwrap().kind()), (3, io::ErrorKind::ConnectionReset));
    assert_eq!(time.elapsed(), SECOND, "two pauses of half a second");
}

#[test]
fn a_retry_stops_at_the_first_success() -> Test {
    let (retry, time) = patient(Backoff::fixed(SECOND), 3);
    let mut runs = 0;
    let work = || {
        runs += 1;
        if runs == 2 { Ok(runs) } else { down() }
    };
    assert_eq!(work.retry(&retry).call()?, 2);
    assert_eq!(time.elapsed(), SECOND);
    Ok(())
}

#[test]
fn an_ignored_error_is_tried_once() {
    let (retry, time) = patient(Backoff::fixed(SECOND), 3);
    let error = (|| Err::<(), _>(io::Error::from(io::ErrorKind::InvalidInput))).retry(&retry).call().unwrap_err();
    assert_eq!((error.attempts, time.elapsed()), (1, Duration::ZERO));
}

/// Theirs throws `MaxRetriesExceeded` when told so; ours always returns the last answer, as theirs does by default.
#[test]
fn a_result_can_be_retried_and_the_last_one_is_returned() -> Test {
    let (retry, _) = patient(Backoff::fixed(SECOND), 3);
    let mut answers = 0;
    let mut ask = || {
        answers += 1;
        Ok::<_, io::Error>(answers)
    };
    let busy = |_: &io::Result<i32>| Some(Class::of(Category::Resource));
    assert_eq!((&mut ask).retry(&retry).judged_by(busy).call()?, 3);
    assert_eq!(answers, 3);
    Ok(())
}

#[test]
fn intervals_grow_exponentially_up_to_the_cap() {
    let backoff = Backoff::exponential(SECOND / 2, 1.5, SECOND);
    let (retry, time) = patient(backoff, 5);
    assert!(down::<()>.retry(&retry).call().is_err());
    assert_eq!([1, 2, 3, 4].map(|n| backoff.delay(n).as_millis()), [500, 750, 1000, 1000]);
    assert_eq!(time.elapsed(), Duration::from_millis(500 + 750 + 1000 + 1000));
}

/// Theirs spreads a fixed interval to both sides. Ours never exceeds the cap, which for `Backoff::fixed` is the interval
/// itself; one that may become longer is written with a cap of its own.
#[test]
fn random_intervals_stay_within_their_part_and_differ() -> Test {
    let time = ManualClock::auto_advancing();
    let retry = Retry::builder()
        .max_attempts(200)
        .backoff(Backoff::exponential(SECOND, 1.0, SECOND * 2))
        .jitter(Jitter::Ratio(0.5))
        .seed(1)
        .clock(time.clock())
        .build()?;
    let mut starts = Vec::new();
    let work = || {
        starts.push(time.elapsed());
        down::<()>()
    };
    assert!(work.retry(&retry).call().is_err());
    let mut pauses: Vec<_> = starts.windows(2).map(|pair| pair[1].checked_sub(pair[0]).unwrap()).collect();
    assert!(pauses.iter().all(|pause| (SECOND / 2..=SECOND * 3 / 2).contains(pause)));
    pauses.sort();
    pauses.dedup();
    assert!(pauses.len() > 190 && pauses[0] < SECOND * 6 / 10 && *pauses.last().unwrap() > SECOND * 14 / 10);
    Ok(())
}

#[test]
fn an_error_can_name_its_own_interval() {
    let (retry, time) = patient(Backoff::fixed(SECOND), 2);
    let busy = |_: &&str| Class::of(Category::Resource).retry_after(SECOND * 7);
    assert!((|| Err::<(), _>("busy")).retry(&retry).classified_by(busy).call().is_err());
    assert_eq!(time.elapsed(), SECOND * 7);
}

#[test]
fn impossible_retries_are_refused_when_built() {
    let field = |builder: resilience_core::retry::RetryBuilder| builder.build().unwrap_err().field;
    assert_eq!(field(Retry::builder().max_attempts(0)), "retry.max_attempts");
    assert_eq!(field(Retry::builder().jitter(Jitter::Ratio(1.1))), "retry.jitter.ratio");
    assert_eq!(field(Retry::builder().jitter(Jitter::Ratio(-0.1))), "retry.jitter.ratio");
    let shrinking = Backoff::exponential(SECOND, 0.9, SECOND);
    assert_eq!(field(Retry::builder().backoff(shrinking)), "retry.backoff.base");
    assert!(Retry::builder().backoff(Backoff::fixed(Duration::ZERO)).build().is_ok(), "no pause is a choice");
}

// ---- rate limiter ----

fn limiter(permits: u32, period: Duration) -> (RateLimiter, ManualClock) {
    let (clock, time) = Clock::manual();
    let limiter = RateLimiter::builder("backend").rate(permits, period).burst(permits).clock(clock).build();
    (limiter.expect("the values are valid"), time)
}

#[test]
fn permits_of_a_cycle_are_used_up_and_come_back_with_the_next() {
    let (limiter, time) = limiter(1, SECOND);
    for _ in 0..3 {
        assert!(limiter.try_acquire(1).is_ok());
        let refused = limiter.try_acquire(1).unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), (Reason::RateLimited, Some(SECOND)));
        time.advance(SECOND);
    }
    assert_eq!(limiter.statistics().rejected, 3);
}

/// Theirs gives all permits of a cycle at its start, so that twice the limit can be had around it. Ours gives them back
/// one by one; who wants a hard limit for any span takes a sliding window.
#[test]
fn permits_come_back_evenly_and_not_all_at_the_cycles_start() -> Test {
    let (bucket, time) = limiter(4, SECOND);
    assert!(bucket.try_acquire(4).is_ok());
    for available in 1..=4 {
        time.advance(SECOND / 4);
        assert_eq!(bucket.statistics().available, available);
    }
    let (clock, time) = Clock::manual();
    let window = RateLimiter::builder("window").sliding_window(4, SECOND).clock(clock).build()?;
    time.advance(SECOND * 9 / 10);
    assert!(window.try_acquire(4).is_ok());
    time.advance(SECOND / 5);
    assert!(window.try_acquire(1).is_err(), "a new cycle would have begun");
    Ok(())
}

#[test]
fn unused_cycles_are_not_saved_up() {
    let (limiter, time) = limiter(2, SECOND);
    time.advance(SECOND * 1_000);
    assert_eq!(limiter.statistics().available, 2);
    assert!(limiter.try_acquire(2).is_ok());
    assert!(limiter.try_acquire(1).is_err());
}

#[test]
fn a_reservation_says_how_long_and_refuses_what_is_longer_than_allowed() -> Test {
    let (limiter, time) = limiter(1, SECOND);
    let now = limiter.reserve(1, SECOND)?;
    assert_eq!(now.ready_in(), Duration::ZERO);
    now.used();
    let next = limiter.reserve(1, SECOND)?;
    assert_eq!(next.ready_in(), SECOND);
    let refused = limiter.reserve(1, SECOND).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::RateLimited, Some(SECOND * 2)));
    next.used();
    time.advance(SECOND * 6);
    assert_eq!(limiter.statistics().available, 1);
    Ok(())
}

#[test]
fn a_wait_ends_with_the_permit_and_not_before() -> Test {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("backend").rate(2, SECOND).burst(1).clock(time.clock()).build()?;
    limiter.acquire(1, Duration::ZERO)?;
    limiter.acquire(1, SECOND)?;
    assert_eq!(time.elapsed(), SECOND / 2);
    assert!(limiter.acquire(1, just_under(SECOND / 2)).is_err());
    assert_eq!(time.elapsed(), SECOND / 2, "who cannot be served in time does not wait at all");
    Ok(())
}

/// Theirs reserves whole cycles to come. Ours refuses what exceeds the burst: it would starve everybody behind it.
#[test]
fn more_permits_than_can_ever_be_had_are_refused_at_once() {
    let (limiter, _time) = limiter(2, SECOND);
    let refused = limiter.reserve(3, SECOND * 60).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::ExceedsBurst { requested: 3, burst: 2 }, None));
}

#[test]
fn a_limit_can_be_changed_while_it_is_used() -> Test {
    let (limiter, time) = limiter(1, SECOND);
    limiter.try_acquire(1)?;
    limiter.set_rate(2, SECOND)?;
    limiter.set_burst(2)?;
    time.advance(SECOND);
    assert!(limiter.try_acquire(2).is_ok());
    assert!(limiter.try_acquire(1).is_err());
    Ok(())
}

#[test]
fn impossible_limits_are_refused_when_built() {
    let refused = |permits, period| RateLimiter::builder("b").rate(permits, period).build().is_err();
    assert!(refused(0, SECOND) && refused(1, Duration::ZERO) && refused(1, Duration::MAX));
    assert!(!refused(1, SECOND));
}

// ---- bulkhead ----

#[test]
fn a_bulkhead_admits_its_number_and_refuses_the_next() -> Test {
    let bulkhead = Bulkhead::builder("backend").max_concurrent(2).build()?;
    let inside = [bulkhead.try_acquire()?, bulkhead.try_acquire()?];
    assert_eq!(reason(bulkhead.try_acquire()), Reason::BulkheadFull);
    assert_eq!((bulkhead.statistics().in_flight, bulkhead.statistics().rejected), (2, 1));
    drop(inside);
    assert_eq!(bulkhead.statistics().in_flight, 0);
    Ok(())
}

/// Theirs is fair unless told otherwise; ours always.
#[test]
fn who_waits_longest_is_let_in_first() -> Test {
    let (clock, _time) = Clock::manual();
    let bulkhead = Bulkhead::builder("backend").max_concurrent(1).clock(clock).build()?;
    let inside = bulkhead.try_acquire()?;
    let mut first = pin!(bulkhead.acquire_async(SECOND));
    let mut second = pin!(bulkhead.acquire_async(SECOND));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    drop(inside);
    assert!(bulkhead.try_acquire().is_err(), "nobody goes ahead of those who wait");
    assert!(poll(second.as_mut()).is_pending());
    let Poll::Ready(Ok(permit)) = poll(first) else { panic!("it was its turn") };
    drop(permit);
    assert!(matches!(poll(second), Poll::Ready(Ok(_))));
    Ok(())
}

#[test]
fn a_wait_for_a_bulkhead_ends_when_it_is_over() -> Test {
    let (clock, time) = Clock::manual();
    let bulkhead = Bulkhead::builder("backend").max_concurrent(1).clock(clock).build()?;
    let _inside = bulkhead.try_acquire()?;
    let mut waiting = pin!(bulkhead.acquire_async(SECOND));
    assert!(poll(waiting.as_mut()).is_pending());
    time.advance(just_under(SECOND));
    assert!(poll(waiting.as_mut()).is_pending());
    time.advance(NANO);
    let Poll::Ready(refused) = poll(waiting) else { panic!("its time is over") };
    assert_eq!(reason(refused), Reason::BulkheadWaitedTooLong);
    Ok(())
}

#[test]
fn a_bulkhead_can_be_widened_and_narrowed_under_use() -> Test {
    let bulkhead = Bulkhead::builder("backend").max_concurrent(1).build()?;
    let first = bulkhead.try_acquire()?;
    bulkhead.reconfigure(Bulkhead::builder("backend").max_concurrent(2))?;
    let second = bulkhead.try_acquire()?;
    bulkhead.reconfigure(Bulkhead::builder("backend").max_concurrent(1))?;
    drop(first);
    assert!(bulkhead.try_acquire().is_err(), "the second one fills it");
    drop(second);
    assert!(bulkhead.try_acquire().is_ok());
    Ok(())
}

#[test]
fn a_failed_call_gives_its_place_back() -> Test {
    let bulkhead = Bulkhead::builder("backend").max_concurrent(1).build()?;
    let pipeline = Pipeline::builder("backend").bulkhead(bulkhead.clone()).build()?;
    for _ in 0..3 {
        assert!(pipeline.call(down::<()>).unwrap_err().as_operation().is_some());
    }
    assert_eq!(bulkhead.statistics().in_flight, 0);
    Ok(())
}

/// Theirs takes 0, and refuses everything: a switch in the shape of a number. Ours has `force_open` for that.
#[test]
fn a_bulkhead_of_nothing_is_refused_when_built() {
    assert!(Bulkhead::builder("backend").max_concurrent(0).build().is_err());
}

// ---- time limiter ----

#[test]
fn a_time_limit_returns_what_is_in_time_and_drops_what_is_not() -> Test {
    struct Dropped(Arc<Mutex<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = true;
        }
    }
    let (clock, time) = Clock::manual();
    let timeout = Timeout::builder("backend").limit(SECOND).clock(clock).build()?;
    let quick = pin!(timeout.call_async(async { Ok::<_, io::Error>(7) }));
    assert!(matches!(poll(quick), Poll::Ready(Ok(7))));
    let dropped = Arc::new(Mutex::new(false));
    let guard = Dropped(Arc::clone(&dropped));
    let mut slow = Box::pin(timeout.call_async(async move {
        let _guard = guard;
        pending::<io::Result<()>>().await
    }));
    assert!(poll(slow.as_mut()).is_pending());
    time.advance(SECOND);
    let Poll::Ready(Err(error)) = poll(slow.as_mut()) else { panic!("its time is over") };
    assert!(error.is_timed_out());
    drop(slow);
    assert!(*dropped.lock().unwrap());
    Ok(())
}

#[test]
fn a_time_limit_can_leave_the_work_running() -> Test {
    let (clock, time) = Clock::manual();
    let timeout = Timeout::builder("backend").limit(SECOND).clock(clock.clone()).build()?;
    let done = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&done);
    let mut task = None;
    let work = async move {
        clock.sleep(SECOND * 2).await;
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, io::Error>(())
    };
    {
        let mut call = pin!(timeout.call_detached(|spawned| task = Some(Box::pin(spawned)), work));
        assert!(poll(call.as_mut()).is_pending());
        time.advance(SECOND);
        assert!(matches!(poll(call), Poll::Ready(Err(error)) if error.is_timed_out()));
    }
    let mut task = task.expect("it was spawned");
    assert!(poll(task.as_mut()).is_pending());
    time.advance(SECOND * 2);
    assert!(poll(task.as_mut()).is_ready());
    assert_eq!(done.load(Ordering::Relaxed), 1);
    Ok(())
}
