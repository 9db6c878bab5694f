//! What users of Polly v8 know, as tests of ours: the documented behaviour of its strategies, in our words and API.
//! Where ours differs on purpose, the test shows ours and says why.
//!
//! | test here | the case there |
//! |---|---|
//! | `ratio_duration_and_throughput_open_it_together` | circuit breaker docs; `AddCircuitBreaker_IntegrationTest` |
//! | `failures_outside_the_sampling_duration_do_not_count` | `GetHealthInfo_SamplingDurationRespected` |
//! | `an_open_circuit_says_when_to_come_back` | `Ctor_RetryAfter_Ok`, `HalfOpen_EnsureBreakDuration` |
//! | `one_probe_closes_or_opens_it` | `Flow_Closed_HalfOpen_Closed`, `Flow_Closed_HalfOpen_Open_HalfOpen_Closed` |
//! | `while_a_probe_is_under_way_others_are_refused` | `OnActionPreExecute_HalfOpen` |
//! | `an_isolated_circuit_is_told_from_an_open_one_and_closed_by_hand` | `IsolateAsync_Ok`, `IsolatedCircuitExceptionTests` |
//! | `the_break_can_grow_with_failed_probes_and_never_overflows` | `BreakDurationGenerator_EnsureHalfOpenAttempts`, `OnActionFailureAsync_EnsureBreakDurationNotOverflow` |
//! | `two_pipelines_share_a_breaker_and_its_state` | `CircuitBreakerStateSharing_959` |
//! | `a_panic_counts_as_a_failure` (no such case) | an exception is one |
//! | `an_error_that_is_not_handled_changes_nothing` | `Execute_UnhandledException_OnActionSuccess` (differs) |
//! | `attempts_count_the_first_run` (differs) | `Retry_RetryCount_Respected`, `MaxRetryAttempts` |
//! | `constant_linear_and_exponential_pauses` | retry docs, tables of delays |
//! | `no_pause_is_longer_than_the_longest_allowed` | `MaxDelay_EnsureRespected` |
//! | `a_pause_of_nothing_does_not_wait` | `RetryDelayGenerator_ZeroDelay_NoTimeProviderCalls` |
//! | `a_generated_delay_wins_over_the_backoff` | `RetryDelayGenerator_Respected` |
//! | `endless_retries_never_overflow` | `InfiniteRetry_Delay_Does_Not_Overflow_2163` |
//! | `each_retry_is_told_with_its_attempt_and_pause` | `OnRetry_EnsureCorrectArguments` |
//! | `nothing_is_told_when_nothing_is_retried` | `OnRetry_EnsureTelemetry` |
//! | `handled_results_are_retried_and_others_returned` | `HandleMultipleResults_898`, `RetryCount_Respected` |
//! | `a_cancelled_call_is_not_run_again` | `ExecuteAsync_CanceledDuringExecution_EnsureNotExecutedAgain`, `…DuringDelay…` |
//! | `a_call_within_the_limit_is_not_touched` | `Execute_NoTimeout` |
//! | `a_timeout_names_its_limit` | `Execute_Timeout`, `TimeoutRejectedExceptionTests` |
//! | `a_cancelled_call_is_no_timeout` | `Execute_Cancelled_EnsureNoTimeout` |
//! | `impossible_timeouts_are_refused_when_built` | `AddTimeout_InvalidTimeout_EnsureValidated` |
//! | `a_timeout_for_each_attempt_is_retried_and_one_around_all_ends_it` | timeout docs; `RetryThenTimeout_…`, `TimeoutThenRetry_…` |
//! | `a_fallback_answers_for_errors_and_for_results` | `Handle_Exception_Ok`, `Handle_Result_Ok` |
//! | `an_unhandled_error_passes_a_fallback_untouched` | `Handle_UnhandledException_Ok`, `Handle_UnhandledResult_Ok` |
//! | `a_fallback_that_fails_hands_on_both_errors` (differs) | `Handle_Result_FallbackActionThrows` |
//! | `a_fallback_is_told_of_once` | `OnFallback` |
//! | `a_hedge_starts_after_its_delay_and_the_faster_answer_wins` | latency mode; `ExecuteAsync_ShouldReturnAnyPossibleResult` |
//! | `the_loser_of_a_hedge_is_cancelled` | `ExecuteAsync_EnsureHedgedTasksCancelled_Ok`, `…PrimaryTaskCancelled_Ok` |
//! | `no_delay_starts_all_runs_at_once` | `ExecuteAsync_ZeroHedgingDelay_EnsureAllTasksSpawnedAtOnce` |
//! | `no_more_runs_than_the_first_and_the_hedges` | `LoadExecutionAsync_MaxTasks_NoMoreTasksAdded` |
//! | `a_hedge_is_not_started_when_the_first_answers_in_time` | `TryWaitForCompletedExecutionAsync_HedgedExecution_TaskCompletesBeforeDelay_ReturnsTask` |
//! | `a_first_run_that_fails_early_ends_the_attempt` (differs) | fallback mode |
//! | `when_all_runs_fail_the_last_failure_is_the_result` (differs) | docs: the primary's failure |
//! | `runs_know_their_number` | `AddHedging_AttemptNumbers_Are_Incremented` |
//! | `each_hedge_is_told` | `ExecuteAsync_EnsureOnHedgingTelemetry` |
//! | `a_rejected_lease_says_when_to_come_back` | `RateLimiterResilienceStrategyTests.Execute_LeaseRejected` |
//! | `a_concurrency_limiter_has_a_queue_with_an_end` | `AddConcurrencyLimiter`, `queueLimit` |
//! | `chaos_does_nothing_unless_enabled` | `Given_not_enabled_should_not_inject_fault` and its like |
//! | `a_fault_takes_the_place_of_the_run` | `Given_enabled_and_randomly_within_threshold_should_inject_fault` |
//! | `a_rate_of_nothing_injects_nothing` | `Given_enabled_and_randomly_not_within_threshold_should_not_inject_fault` |
//! | `latency_comes_before_the_run` | `Given_enabled_and_randomly_within_threshold_should_inject_latency` |
//! | `behaviour_comes_before_the_run` | `Should_inject_behavior_before_executing_user_delegate` |
//! | `an_outcome_takes_the_place_of_the_result` | `Given_enabled_and_randomly_within_threshold_should_inject_result` |
//! | `a_rate_beyond_one_is_refused_when_built` (differs) | `Should_coerce_injection_rate_generator_result_is_not_valid` |
//! | `policies_run_from_the_outside_in` | `ResiliencePipelineBuilderTests`, order of strategies |
//! | `an_empty_pipeline_changes_nothing` | `NullResiliencePipelineTests` |

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience_core::{
    Attempt, Backoff, BreakerState, Bulkhead, CallOptions, Category, Chaos, CircuitBreaker, Class, Classify, Clock,
    ErrorKind, Event, Fallback, Hedge, Jitter, ManualClock, Observers, Outcome, Pipeline, RateLimiter, Reason, Retry,
    RetryBudget, Retryable, Stopped, Timeout,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const DOWN: Outcome = Outcome::Failure(Class::of(Category::Network));

type Test = Result<(), Box<dyn std::error::Error>>;

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn down<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionRefused.into())
}

#[expect(clippy::unnecessary_wraps, reason = "an operation")]
fn fine() -> io::Result<()> {
    Ok(())
}

fn plenty() -> RetryBudget {
    RetryBudget::builder().ratio(10.0).min_per_second(1_000.0).build().expect("the values are valid")
}

/// What was told, as words.
fn heard() -> (Observers, Arc<Mutex<Vec<String>>>) {
    let words = Arc::new(Mutex::new(Vec::new()));
    let write = Arc::clone(&words);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        let word = match event {
            Event::RetryScheduled { attempt, delay, .. } => format!("retry after {attempt} in {delay:?}"),
            Event::HedgeStarted { attempt, hedge, .. } => format!("hedge {hedge} of {attempt}"),
            Event::FallbackUsed { answered, .. } => format!("fallback, answered: {answered}"),
            Event::CallFinished { outcome, attempts, .. } => format!("{} after {attempts}", outcome.as_str()),
            _ => return,
        };
        write.lock().unwrap().push(word);
    }));
    (observers, words)
}

// ---- circuit breaker ----

/// A breaker with a failure ratio of 0.5 over 30 s, a throughput of 4, a break of 5 s, one probe.
fn breaker() -> (CircuitBreaker, ManualClock) {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("backend")
        .failure_rate_over(0.5, SECOND * 30, 4)
        .open_for(SECOND * 5)
        .half_open_successes(1)
        .clock(clock)
        .build();
    (breaker.expect("the values are valid"), time)
}

fn settle(breaker: &CircuitBreaker, outcomes: &[Outcome]) {
    for outcome in outcomes {
        breaker.try_acquire().expect("the breaker lets the call through").settle(outcome);
    }
}

#[test]
fn ratio_duration_and_throughput_open_it_together() {
    let (breaker, time) = breaker();
    settle(&breaker, &[DOWN, Outcome::Success]);
    time.advance(SECOND * 20);
    settle(&breaker, &[Outcome::Success]);
    assert_eq!(breaker.state(), BreakerState::Closed, "too few");
    settle(&breaker, &[DOWN]);
    assert_eq!(breaker.state(), BreakerState::Open, "2 of 4 within 30 s");
}

#[test]
fn failures_outside_the_sampling_duration_do_not_count() {
    let (breaker, time) = breaker();
    settle(&breaker, &[DOWN; 3]);
    time.advance(SECOND * 33);
    settle(&breaker, &[DOWN; 3]);
    assert_eq!((breaker.state(), breaker.statistics().window_calls), (BreakerState::Closed, 3));
}

#[test]
fn an_open_circuit_says_when_to_come_back() {
    let (breaker, time) = breaker();
    settle(&breaker, &[DOWN; 4]);
    for left in [5, 4, 3, 2, 1] {
        let refused = breaker.try_acquire().unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), (Reason::CircuitOpen, Some(SECOND * left)));
        time.advance(SECOND);
    }
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn one_probe_closes_or_opens_it() {
    let (breaker, time) = breaker();
    settle(&breaker, &[DOWN; 4]);
    time.advance(SECOND * 5);
    settle(&breaker, &[DOWN]);
    assert_eq!(breaker.state(), BreakerState::Open);
    time.advance(SECOND * 5);
    settle(&breaker, &[Outcome::Success]);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn while_a_probe_is_under_way_others_are_refused() {
    let (breaker, time) = breaker();
    settle(&breaker, &[DOWN; 4]);
    time.advance(SECOND * 5);
    let probe = breaker.try_acquire();
    assert!(probe.is_ok());
    assert_eq!(breaker.try_acquire().unwrap_err().reason, Reason::HalfOpenBusy);
}

#[test]
fn an_isolated_circuit_is_told_from_an_open_one_and_closed_by_hand() {
    let (breaker, time) = breaker();
    breaker.force_open();
    time.advance(SECOND * 1_000);
    let error = breaker.call(fine).unwrap_err();
    assert_eq!(error.as_rejection().unwrap().reason, Reason::CircuitForcedOpen);
    assert_eq!(error.to_string(), "circuit breaker `backend` was opened by hand");
    breaker.reset();
    assert!(breaker.call(fine).is_ok());
}

#[test]
fn the_break_can_grow_with_failed_probes_and_never_overflows() -> Test {
    let (clock, time) = Clock::manual();
    let ten_years = SECOND * 86_400 * 3_650;
    let breaks = Backoff::exponential(SECOND, 1000.0, ten_years);
    let breaker =
        CircuitBreaker::builder("backend").consecutive_failures(1).open_for_growing(breaks).clock(clock).build()?;
    settle(&breaker, &[DOWN]);
    for opening in 1..50 {
        let left = breaker.statistics().probes_in.unwrap();
        assert_eq!((breaker.statistics().openings, left), (opening, breaks.delay(opening)));
        assert!(left <= ten_years);
        time.advance(left);
        settle(&breaker, &[DOWN]);
    }
    Ok(())
}

#[test]
fn two_pipelines_share_a_breaker_and_its_state() -> Test {
    let (breaker, _time) = breaker();
    let pipeline = |name: &str| Pipeline::builder(name).circuit_breaker(breaker.clone()).build();
    let (reads, writes) = (pipeline("reads")?, pipeline("writes")?);
    for _ in 0..2 {
        assert!(reads.call(down::<()>).unwrap_err().as_operation().is_some());
        assert!(writes.call(down::<()>).unwrap_err().as_operation().is_some());
    }
    assert!(reads.call(fine).unwrap_err().as_rejection().is_some());
    assert!(writes.call(fine).unwrap_err().as_rejection().is_some());
    Ok(())
}

#[test]
fn a_panic_counts_as_a_failure() {
    let (breaker, _time) = breaker();
    for _ in 0..4 {
        let call = std::panic::AssertUnwindSafe(|| breaker.call(|| -> io::Result<()> { panic!("as asked for") }));
        assert!(std::panic::catch_unwind(call).is_err());
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

/// Theirs counts what is not handled as a success. Ours counts it as nothing: a caller's mistake says nothing of the
/// dependency, and must neither close a circuit nor dilute a rate.
#[test]
fn an_error_that_is_not_handled_changes_nothing() {
    let (breaker, time) = breaker();
    let mistake = || Err::<(), _>(io::Error::from(io::ErrorKind::InvalidInput));
    for _ in 0..10 {
        assert!(breaker.call(mistake).is_err());
    }
    assert_eq!((breaker.statistics().window_calls, breaker.statistics().ignored), (0, 10));
    settle(&breaker, &[DOWN; 4]);
    time.advance(SECOND * 5);
    assert!(breaker.call(mistake).is_err());
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "still to be decided");
}

// ---- retry ----

fn retry(backoff: Backoff, attempts: u32) -> (Retry, ManualClock, Arc<Mutex<Vec<String>>>) {
    let time = ManualClock::auto_advancing();
    let (observers, words) = heard();
    let builder = Retry::builder().max_attempts(attempts).backoff(backoff).jitter(Jitter::None).observers(observers);
    (builder.clock(time.clock()).build().expect("the values are valid"), time, words)
}

/// Theirs counts retries, besides the first run; ours counts runs, as resilience4j does: 3 are 3.
#[test]
fn attempts_count_the_first_run() {
    let (retry, _, _) = retry(Backoff::fixed(SECOND), 3);
    let mut runs = 0;
    let work = || {
        runs += 1;
        down::<()>()
    };
    let error = work.retry(&retry).call().unwrap_err();
    assert_eq!((runs, error.attempts, error.stopped), (3, 3, Some(Stopped::AttemptsExhausted)));
}

#[test]
fn constant_linear_and_exponential_pauses() {
    let cap = SECOND * 3_600;
    let tables = [
        (Backoff::fixed(SECOND), [1, 1, 1, 1, 1]),
        (Backoff::Linear { initial: SECOND, cap }, [1, 2, 3, 4, 5]),
        (Backoff::exponential(SECOND, 2.0, cap), [1, 2, 4, 8, 16]),
        (Backoff::Fibonacci { initial: SECOND, cap }, [1, 1, 2, 3, 5]),
    ];
    for (backoff, seconds) in tables {
        let (retry, time, words) = retry(backoff, 6);
        assert!(down::<()>.retry(&retry).call().is_err());
        let expected: Vec<_> = (1..).zip(seconds).map(|(n, s)| format!("retry after {n} in {s}s")).collect();
        assert_eq!(words.lock().unwrap()[..5], expected);
        assert_eq!(time.elapsed(), SECOND * seconds.iter().sum());
    }
}

#[test]
fn no_pause_is_longer_than_the_longest_allowed() -> Test {
    let time = ManualClock::auto_advancing();
    let cap = SECOND * 3 / 2;
    for jitter in [Jitter::None, Jitter::Ratio(1.0), Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
        let (observers, _) = heard();
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let write = Arc::clone(&longest);
        let observers = observers.with(Arc::new(move |event: &Event<'_>| {
            if let Event::RetryScheduled { delay, .. } = event {
                let mut longest = write.lock().unwrap();
                *longest = (*longest).max(*delay);
            }
        }));
        let builder = Retry::builder().max_attempts(200).backoff(Backoff::exponential(SECOND, 2.0, cap)).jitter(jitter);
        let retry = builder.seed(3).observers(observers).clock(time.clock()).build()?;
        assert!(down::<()>.retry(&retry).call().is_err());
        assert!(*longest.lock().unwrap() <= cap, "{jitter:?}");
        assert!(*longest.lock().unwrap() > SECOND, "{jitter:?}: it grew");
    }
    Ok(())
}

#[test]
fn a_pause_of_nothing_does_not_wait() {
    let (clock, _time) = Clock::manual();
    // On this clock whoever waits waits for ever.
    let retry = Retry::builder().backoff(Backoff::fixed(Duration::ZERO)).clock(clock).build().unwrap();
    assert_eq!(down::<()>.retry(&retry).call().unwrap_err().attempts, 3);
    let mut call = pin!((|| async { down::<()>() }).retry(&retry).into_future());
    assert!(poll(call.as_mut()).is_ready());
}

#[test]
fn a_generated_delay_wins_over_the_backoff() {
    let (retry, time, _) = retry(Backoff::fixed(MS), 4);
    let mut asked = [3, 5, 7].into_iter();
    let work = || asked.next().map_or(Err("down"), |_| Err("busy"));
    let seconds = Cell::new(1);
    let meaning = |error: &&str| match *error {
        "busy" => Class::of(Category::Resource).retry_after(SECOND * seconds.replace(seconds.get() + 2)),
        _ => Class::of(Category::Network),
    };
    let error = work.retry(&retry).classified_by(meaning).call();
    let error: resilience_core::Error<&str> = match error {
        Err(error) => error,
        Ok(()) => panic!("it never succeeds"),
    };
    assert_eq!((error.attempts, time.elapsed()), (4, SECOND * (1 + 3 + 5)));
}

#[test]
fn endless_retries_never_overflow() {
    let longest = SECOND * 86_400;
    for backoff in [
        Backoff::exponential(SECOND, 2.0, longest),
        Backoff::Linear { initial: SECOND, cap: longest },
        Backoff::Fibonacci { initial: SECOND, cap: longest },
    ] {
        assert!((1..3_000).all(|attempt| backoff.delay(attempt) <= longest));
        assert_eq!(backoff.delay(u32::MAX), longest);
    }
    let (retry, time, _) = retry(Backoff::exponential(SECOND, 2.0, longest), u32::MAX);
    let mut left = 3_000;
    let work = || {
        left -= 1;
        if left == 0 { Ok(()) } else { down() }
    };
    assert!(work.retry(&retry).call().is_ok());
    assert!(time.elapsed() > longest * 2_900);
}

#[test]
fn each_retry_is_told_with_its_attempt_and_pause() {
    let (retry, _, words) = retry(Backoff::exponential(SECOND, 2.0, SECOND * 30), 3);
    assert!(down::<()>.retry(&retry).call().is_err());
    assert_eq!(*words.lock().unwrap(), ["retry after 1 in 1s", "retry after 2 in 2s", "failure after 3"]);
}

#[test]
fn nothing_is_told_when_nothing_is_retried() {
    let (retry, _, words) = retry(Backoff::fixed(SECOND), 3);
    assert!(fine.retry(&retry).call().is_ok());
    assert_eq!(*words.lock().unwrap(), ["success after 1"]);
}

#[test]
fn handled_results_are_retried_and_others_returned() -> Test {
    let (retry, _, _) = retry(Backoff::fixed(SECOND), 5);
    let mut answers = [503, 429, 404].into_iter();
    let work = || answers.next().ok_or("asked too often");
    let status = work.retry(&retry).judged_by(|answer: &Result<u16, &str>| match answer {
        Ok(429 | 503) => Some(Class::of(Category::Resource)),
        Ok(_) => None,
        Err(_) => Some(Class::of(Category::Internal)),
    });
    let status: u16 = status.call().map_err(|error| error.to_string())?;
    assert_eq!((status, answers.next()), (404, None));
    Ok(())
}

#[test]
fn a_cancelled_call_is_not_run_again() -> Test {
    let (clock, time) = Clock::manual();
    let builder = Retry::builder().backoff(Backoff::fixed(SECOND)).jitter(Jitter::None);
    let retry = builder.clock(clock).build()?;
    let runs = Cell::new(0);
    {
        let work = || {
            runs.set(runs.get() + 1);
            async { down::<()>() }
        };
        let mut call = Box::pin(work.retry(&retry).into_future());
        assert!(poll(call.as_mut()).is_pending(), "it pauses");
    }
    time.advance(SECOND * 10);
    assert_eq!(runs.get(), 1);
    Ok(())
}

// ---- timeout ----

#[test]
fn a_call_within_the_limit_is_not_touched() -> Test {
    let (clock, time) = Clock::manual();
    let timeout = Timeout::builder("backend").limit(SECOND).clock(clock.clone()).build()?;
    let mut call = pin!(timeout.call_async(async {
        clock.sleep(SECOND / 2).await;
        Ok::<_, io::Error>("in time")
    }));
    assert!(poll(call.as_mut()).is_pending());
    time.advance(SECOND / 2);
    assert!(matches!(poll(call), Poll::Ready(Ok("in time"))));
    Ok(())
}

#[test]
fn a_timeout_names_its_limit() -> Test {
    let (clock, time) = Clock::manual();
    let timeout = Timeout::builder("backend").limit(SECOND * 2).clock(clock).build()?;
    let mut call = pin!(timeout.call_async(pending::<io::Result<()>>()));
    assert!(poll(call.as_mut()).is_pending());
    time.advance(SECOND * 2);
    let Poll::Ready(Err(error)) = poll(call) else { panic!("its time is over") };
    assert!(matches!(&error.kind, ErrorKind::TimedOut(timed_out) if timed_out.limit == SECOND * 2));
    assert_eq!(error.class().category, Category::Timeout);
    Ok(())
}

#[test]
fn a_cancelled_call_is_no_timeout() -> Test {
    let (clock, time) = Clock::manual();
    let (observers, words) = heard();
    let pipeline = Pipeline::builder("backend").timeout(SECOND).clock(clock).observers(observers).build()?;
    let mut call = Box::pin(pipeline.call_async(pending::<io::Result<()>>));
    assert!(poll(call.as_mut()).is_pending());
    drop(call);
    time.advance(SECOND);
    assert_eq!(*words.lock().unwrap(), ["cancelled after 1"]);
    Ok(())
}

#[test]
fn impossible_timeouts_are_refused_when_built() {
    for limit in [Duration::ZERO, Duration::MAX] {
        assert!(Timeout::new(limit).is_err(), "{limit:?}");
        assert!(Pipeline::builder("backend").timeout(limit).build().is_err(), "{limit:?}");
    }
    assert!(Timeout::new(Duration::from_nanos(1)).is_ok());
}

#[test]
fn a_timeout_for_each_attempt_is_retried_and_one_around_all_ends_it() -> Test {
    let time = ManualClock::auto_advancing();
    let retry = Retry::builder().max_attempts(10).backoff(Backoff::fixed(SECOND)).jitter(Jitter::None).build()?;
    let pipeline = Pipeline::builder("backend")
        .timeout(SECOND * 10)
        .retry(retry)
        .timeout(SECOND * 3)
        .clock(time.clock())
        .build()?;
    let mut runs = 0;
    let mut call = pin!(pipeline.call_async(|| {
        runs += 1;
        pending::<io::Result<()>>()
    }));
    let error = loop {
        if let Poll::Ready(result) = poll(call.as_mut()) {
            break result.unwrap_err();
        }
    };
    assert!(error.is_timed_out());
    // 3 s, a pause of 1, 3 s, a pause of 1, and 2 s that are left.
    assert_eq!((error.attempts, time.elapsed()), (3, SECOND * 10));
    Ok(())
}

// ---- fallback ----

#[test]
fn a_fallback_answers_for_errors_and_for_results() -> Test {
    let fallback = Fallback::value("from the cache");
    assert_eq!(fallback.call(down::<&str>)?, "from the cache");
    let judged = Fallback::value("from the cache");
    let empty = |answer: io::Result<&'static str>| match answer {
        Ok("") => Err(io::Error::other("empty")),
        other => other,
    };
    assert_eq!(judged.call(|| empty(Ok("")))?, "from the cache");
    assert_eq!(judged.call(|| empty(Ok("fresh")))?, "fresh");
    Ok(())
}

#[test]
fn an_unhandled_error_passes_a_fallback_untouched() {
    let fallback =
        Fallback::value("from the cache").only(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused);
    let error = fallback.call(|| Err::<&str, _>(io::Error::from(io::ErrorKind::NotFound))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(fallback.call(down::<&str>).unwrap(), "from the cache");
}

/// Theirs throws what the fallback threw, and the first error is lost. Ours keeps both.
#[test]
fn a_fallback_that_fails_hands_on_both_errors() {
    let fallback = Fallback::try_from_fn(|_: &io::Error| Err::<(), _>("the cache is cold"));
    let error = fallback.call(down::<()>).unwrap_err();
    assert_eq!((error.first.kind(), error.second), (io::ErrorKind::ConnectionRefused, Some("the cache is cold")));
}

#[test]
fn a_fallback_is_told_of_once() -> Test {
    let (observers, words) = heard();
    let fallback = Fallback::value(()).named("cache")?.observers(observers);
    fallback.call(down::<()>)?;
    fallback.call(fine)?;
    assert_eq!(*words.lock().unwrap(), ["fallback, answered: true"]);
    Ok(())
}

// ---- hedging ----

/// Runs that take and answer what was written down for them, in order of their start.
struct Replicas {
    clock: Clock,
    script: Vec<(u64, io::Result<&'static str>)>,
    seen: Rc<RefCell<Vec<Attempt>>>,
    alive: Rc<Cell<u32>>,
}

struct Alive(Rc<Cell<u32>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Replicas {
    fn new(clock: &Clock, mut script: Vec<(u64, io::Result<&'static str>)>) -> Self {
        script.reverse();
        Self { clock: clock.clone(), script, seen: Rc::default(), alive: Rc::default() }
    }

    fn run(&mut self, attempt: Attempt) -> impl Future<Output = io::Result<&'static str>> + use<> {
        let (milliseconds, answer) = self.script.pop().expect("no more runs than written down");
        self.seen.borrow_mut().push(attempt);
        self.alive.set(self.alive.get() + 1);
        let (clock, alive) = (self.clock.clone(), Alive(Rc::clone(&self.alive)));
        async move {
            let _alive = alive;
            clock.sleep(MS * u32::try_from(milliseconds).unwrap_or(u32::MAX)).await;
            answer
        }
    }
}

/// How a hedged call went: after how many milliseconds, with what, and how many runs were started.
struct Went {
    after: u128,
    answer: Result<&'static str, io::ErrorKind>,
    started: Vec<Attempt>,
    left: u32,
    words: Vec<String>,
}

fn hedged(after: u64, hedges: u32, script: Vec<(u64, io::Result<&'static str>)>) -> Went {
    let (clock, time) = Clock::manual();
    let (observers, words) = heard();
    let delay = Duration::from_millis(after);
    let hedge = Hedge::builder().after(delay).max_hedges(hedges).budget(plenty()).build().unwrap();
    let pipeline = Pipeline::builder("store").hedge(hedge).clock(clock.clone()).observers(observers).build().unwrap();
    let mut replicas = Replicas::new(&clock, script);
    let (seen, alive) = (Rc::clone(&replicas.seen), Rc::clone(&replicas.alive));
    let result = {
        let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
        loop {
            if let Poll::Ready(result) = poll(call.as_mut()) {
                break result;
            }
            time.advance(MS);
        }
    };
    let answer = result.map_err(|error| error.as_operation().expect("its own error").kind());
    let words = words.lock().unwrap().clone();
    Went { after: time.elapsed().as_millis(), answer, started: seen.take(), left: alive.get(), words }
}

#[test]
fn a_hedge_starts_after_its_delay_and_the_faster_answer_wins() {
    let went = hedged(50, 1, vec![(500, Ok("primary")), (20, Ok("hedge"))]);
    assert_eq!((went.answer, went.after), (Ok("hedge"), 70));
    let went = hedged(50, 1, vec![(60, Ok("primary")), (20, Ok("hedge"))]);
    assert_eq!((went.answer, went.after), (Ok("primary"), 60));
}

#[test]
fn the_loser_of_a_hedge_is_cancelled() {
    for script in [vec![(500, Ok("a")), (20, Ok("b"))], vec![(60, Ok("a")), (500, Ok("b"))]] {
        let went = hedged(50, 1, script);
        assert_eq!((went.started.len(), went.left), (2, 0));
    }
}

#[test]
fn no_delay_starts_all_runs_at_once() {
    let went = hedged(0, 3, vec![(400, Ok("a")), (300, Ok("b")), (200, Ok("c")), (100, Ok("d"))]);
    assert_eq!((went.answer, went.after, went.started.len()), (Ok("d"), 100, 4));
}

#[test]
fn no_more_runs_than_the_first_and_the_hedges() {
    let went = hedged(10, 2, vec![(1_000, Ok("a")), (1_000, Ok("b")), (1_000, Ok("c"))]);
    assert_eq!((went.answer, went.after, went.started.len()), (Ok("a"), 1_000, 3));
}

#[test]
fn a_hedge_is_not_started_when_the_first_answers_in_time() {
    let went = hedged(50, 1, vec![(49, Ok("primary"))]);
    assert_eq!((went.answer, went.after, went.started.len()), (Ok("primary"), 49, 1));
}

/// Theirs starts the next run when one fails. Ours leaves failures to the retry, with its budget and pauses: a hedge
/// is for what is slow, and what fails at once would be asked again at once.
#[test]
fn a_first_run_that_fails_early_ends_the_attempt() {
    let went = hedged(50, 1, vec![(10, Err(io::ErrorKind::ConnectionReset.into()))]);
    assert_eq!((went.answer, went.after), (Err(io::ErrorKind::ConnectionReset), 10));
}

/// Theirs returns the primary's failure, and keeps it until the end for that. Ours returns the last, which is the newest
/// news of the dependency.
#[test]
fn when_all_runs_fail_the_last_failure_is_the_result() {
    let script = vec![(60, Err(io::ErrorKind::ConnectionReset.into())), (30, Err(io::ErrorKind::BrokenPipe.into()))];
    let went = hedged(50, 1, script);
    assert_eq!((went.answer, went.after), (Err(io::ErrorKind::BrokenPipe), 80));
}

#[test]
fn runs_know_their_number() {
    let went = hedged(10, 2, vec![(1_000, Ok("a")), (1_000, Ok("b")), (1_000, Ok("c"))]);
    let numbers: Vec<_> = went.started.iter().map(|attempt| (attempt.number, attempt.hedge)).collect();
    assert_eq!(numbers, [(1, 0), (1, 1), (1, 2)]);
}

#[test]
fn each_hedge_is_told() {
    let went = hedged(10, 2, vec![(1_000, Ok("a")), (1_000, Ok("b")), (1_000, Ok("c"))]);
    assert_eq!(went.words, ["hedge 1 of 1", "hedge 2 of 1", "success after 1"]);
}

// ---- rate and concurrency limiters ----

#[test]
fn a_rejected_lease_says_when_to_come_back() -> Test {
    let (clock, _time) = Clock::manual();
    let limiter = RateLimiter::builder("api").rate(1, SECOND * 10).burst(1).clock(clock).build()?;
    let pipeline = Pipeline::builder("api").rate_limiter(limiter).build()?;
    assert!(pipeline.call(fine).is_ok());
    let runs = Cell::new(0);
    let error = pipeline.call(|| {
        runs.set(1);
        fine()
    });
    let refused = error.unwrap_err();
    assert_eq!(refused.as_rejection().unwrap().retry_after, Some(SECOND * 10));
    assert_eq!(runs.get(), 0);
    Ok(())
}

#[test]
fn a_concurrency_limiter_has_a_queue_with_an_end() -> Test {
    let (clock, _time) = Clock::manual();
    let limiter = Bulkhead::builder("api").max_concurrent(1).max_waiting(1).clock(clock).build()?;
    let inside = limiter.try_acquire()?;
    let mut waiting = pin!(limiter.acquire_async(SECOND));
    assert!(poll(waiting.as_mut()).is_pending());
    let third = pin!(limiter.acquire_async(SECOND));
    let Poll::Ready(Err(refused)) = poll(third) else { panic!("the queue is full") };
    assert_eq!(refused.reason, Reason::BulkheadQueueFull);
    drop(inside);
    assert!(matches!(poll(waiting), Poll::Ready(Ok(_))));
    Ok(())
}

// ---- chaos ----

fn network() -> Class {
    Class::of(Category::Network)
}

#[test]
fn chaos_does_nothing_unless_enabled() -> Test {
    let builder = Chaos::builder("drill").fault(1.0, network()).behaviour(1.0, || panic!("never run"));
    let chaos = builder.latency(1.0, SECOND * 3_600).enabled(false).allow_in_release(true).build()?;
    assert!((0..100).all(|_| chaos.call(fine).is_ok()));
    assert_eq!(chaos.statistics().calls, 0);
    Ok(())
}

#[test]
fn a_fault_takes_the_place_of_the_run() -> Test {
    let chaos = Chaos::builder("drill").fault(1.0, network()).allow_in_release(true).build()?;
    let mut runs = 0;
    let error = chaos.call(|| {
        runs += 1;
        fine()
    });
    assert_eq!(error.unwrap_err().as_rejection().unwrap().reason, Reason::Injected { class: network() });
    assert_eq!(runs, 0);
    Ok(())
}

#[test]
fn a_rate_of_nothing_injects_nothing() -> Test {
    let chaos = Chaos::builder("drill").fault(0.0, network()).allow_in_release(true).build()?;
    assert!((0..1_000).all(|_| chaos.call(fine).is_ok()));
    assert_eq!((chaos.statistics().calls, chaos.statistics().faults), (1_000, 0));
    Ok(())
}

#[test]
fn latency_comes_before_the_run() -> Test {
    let time = ManualClock::auto_advancing();
    let builder = Chaos::builder("drill").latency(1.0, SECOND).allow_in_release(true);
    let chaos = builder.clock(time.clock()).build()?;
    assert_eq!(chaos.call(|| Ok::<_, io::Error>(time.elapsed()))?, SECOND);
    Ok(())
}

#[test]
fn behaviour_comes_before_the_run() -> Test {
    let order = Arc::new(Mutex::new(Vec::new()));
    let write = Arc::clone(&order);
    let behaviour = move || write.lock().unwrap().push("behaviour");
    let chaos = Chaos::builder("drill").behaviour(1.0, behaviour).allow_in_release(true).build()?;
    chaos.call(|| {
        order.lock().unwrap().push("run");
        fine()
    })?;
    assert_eq!(*order.lock().unwrap(), ["behaviour", "run"]);
    Ok(())
}

#[test]
fn an_outcome_takes_the_place_of_the_result() -> Test {
    let chaos = Chaos::builder("drill").allow_in_release(true).build()?;
    let teapot = chaos.with_outcome(1.0, || Ok::<_, io::Error>(418))?;
    assert_eq!(teapot.call(|| Ok(200))?, 418);
    Ok(())
}

/// Theirs bends a rate that makes no sense into the range, on each call. Ours says so once.
#[test]
fn a_rate_beyond_one_is_refused_when_built() {
    for rate in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(Chaos::builder("drill").fault(rate, network()).build().is_err(), "{rate}");
    }
}

// ---- pipeline ----

#[test]
fn policies_run_from_the_outside_in() -> Test {
    let (clock, _time) = Clock::manual();
    let breaker = CircuitBreaker::builder("breaker").build()?;
    let limiter = || RateLimiter::builder("limiter").rate(1, SECOND).burst(1).clock(clock.clone()).build();
    let outside = limiter()?;
    let pipeline = Pipeline::builder("p").rate_limiter(outside.clone()).circuit_breaker(breaker.clone()).build()?;
    breaker.force_open();
    assert!(pipeline.call(fine).is_err());
    assert_eq!(outside.statistics().available, 0, "the limiter was asked first");
    let inside = limiter()?;
    let pipeline = Pipeline::builder("p").circuit_breaker(breaker).rate_limiter(inside.clone()).build()?;
    assert!(pipeline.call(fine).is_err());
    assert_eq!(inside.statistics().available, 1, "the breaker was asked first");
    Ok(())
}

#[test]
fn an_empty_pipeline_changes_nothing() -> Test {
    let pipeline = Pipeline::builder("nothing").build()?;
    assert_eq!(pipeline.call(|| Ok::<_, io::Error>(7))?, 7);
    let error = pipeline.call(down::<()>).unwrap_err();
    assert_eq!((error.attempts, error.into_operation().unwrap().kind()), (1, io::ErrorKind::ConnectionRefused));
    Ok(())
}
