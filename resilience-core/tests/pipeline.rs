//! Composition of policies, blocking and async over one state machine.

use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{
    Backoff, BreakerState, CallOptions, CircuitBreaker, Clock, ErrorKind, Event, Jitter, ManualClock, Observers,
    Pipeline, RateLimiter, Reason, Retry, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn down<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionRefused.into())
}

fn steady_retry(attempts: u32) -> Retry {
    Retry::builder().backoff(Backoff::fixed(SECOND)).jitter(Jitter::None).max_attempts(attempts).build().unwrap()
}

/// Drives a future whose timers run on an auto-advancing manual clock.
fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("the future makes no progress")
}

#[test]
fn a_breaker_inside_the_retry_sees_every_attempt_and_one_outside_sees_the_call() {
    let time = ManualClock::auto_advancing();
    let breaker = |name: &str| CircuitBreaker::builder(name).clock(time.clock()).build().unwrap();
    let (outer, inner) = (breaker("outer"), breaker("inner"));
    let pipeline = Pipeline::builder("t")
        .circuit_breaker(outer.clone())
        .retry(steady_retry(3))
        .circuit_breaker(inner.clone())
        .clock(time.clock())
        .build()
        .unwrap();
    assert!(pipeline.call(down::<()>).is_err());
    assert_eq!((outer.statistics().failures, inner.statistics().failures), (1, 3));
}

#[test]
fn an_open_breaker_refuses_at_once_inside_a_retry_however_soon_it_would_probe() {
    let time = ManualClock::auto_advancing();
    let breaker = CircuitBreaker::builder("b").consecutive_failures(1).open_for(SECOND * 5).clock(time.clock());
    let breaker = breaker.build().unwrap();
    let pipeline = Pipeline::builder("t").retry(steady_retry(5)).circuit_breaker(breaker).clock(time.clock());
    let pipeline = pipeline.build().unwrap();
    let calls = AtomicU32::new(0);
    let error = pipeline
        .call(|| {
            calls.fetch_add(1, Ordering::Relaxed);
            down::<()>()
        })
        .unwrap_err();
    assert_eq!(calls.into_inner(), 1, "the breaker opened after the first failure");
    let rejection = error.as_rejection().expect("the second attempt is refused");
    assert_eq!((rejection.reason, rejection.retry_after), (Reason::CircuitOpen, Some(SECOND * 4)));
    assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::NotRetryable)));
    assert_eq!(time.elapsed(), SECOND, "the pause before the second attempt, and no wait for the probe");
}

#[test]
fn a_retry_waits_as_long_as_the_limiter_inside_it_asks() {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("l").rate(1, SECOND * 10).burst(1).clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder("t").retry(steady_retry(2)).rate_limiter(limiter).clock(time.clock());
    let pipeline = pipeline.build().unwrap();
    assert!(pipeline.call(|| Ok::<_, io::Error>(())).is_ok());
    assert!(pipeline.call(|| Ok::<_, io::Error>(())).is_ok());
    assert_eq!(time.elapsed(), SECOND * 10);
}

#[test]
fn a_forced_open_breaker_lets_no_call_through_and_a_limiter_of_one_lets_one() {
    let breaker = CircuitBreaker::builder("b").build().unwrap();
    breaker.force_open();
    let limiter = RateLimiter::builder("l").rate(1, SECOND * 36_000).burst(1).build().unwrap();
    let blocked = Pipeline::builder("t").circuit_breaker(breaker).build().unwrap();
    let one_only = Pipeline::builder("t").rate_limiter(limiter).build().unwrap();
    let run = |pipeline: &Pipeline| (0..100).filter(|_| pipeline.call(|| Ok::<_, io::Error>(())).is_ok()).count();
    assert_eq!((run(&blocked), run(&one_only)), (0, 1));
}

#[test]
fn an_async_attempt_is_dropped_when_its_time_is_over_and_the_call_when_its_own_is() {
    let time = ManualClock::auto_advancing();
    let breaker = CircuitBreaker::builder("b").consecutive_failures(100).clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder("t")
        .timeout(SECOND * 10)
        .retry(steady_retry(100))
        .circuit_breaker(breaker.clone())
        .timeout(SECOND * 3)
        .clock(time.clock())
        .build()
        .unwrap();
    let error = drive(pipeline.call_async(pending::<io::Result<()>>)).unwrap_err();
    // 3 s attempt, 1 s pause, 3 s attempt, 1 s pause, and the third one is cut off by the call's own limit.
    assert_eq!((error.attempts, time.elapsed()), (3, SECOND * 10));
    assert!(error.is_timed_out());
    assert_eq!(breaker.statistics().failures, 3, "a timeout counts against the dependency");
    assert_eq!(
        error.to_string(),
        "no answer within 10s (after 3 attempts: the deadline is too close for another attempt)"
    );
}

#[test]
fn a_blocking_operation_is_told_its_deadline_and_a_late_answer_is_still_returned() {
    let (clock, time) = Clock::manual();
    let pipeline = Pipeline::builder("t").timeout(SECOND).clock(clock.clone()).build().unwrap();
    let started = clock.now();
    let answer = pipeline.call_with(CallOptions::new(), |attempt| {
        assert_eq!(attempt.deadline, Some(started + SECOND));
        time.advance(SECOND * 5);
        Ok::<_, io::Error>("late")
    });
    assert_eq!(answer.unwrap(), "late");
}

#[test]
fn an_outer_deadline_bounds_the_call_and_one_in_the_past_refuses_it() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("t").timeout(SECOND * 10).clock(time.clock()).build().unwrap();
    let now = time.now();
    let error =
        drive(pipeline.call_async_with(CallOptions::new().deadline(now + SECOND), |_| pending::<io::Result<()>>()));
    assert!(error.unwrap_err().is_timed_out());
    assert_eq!(time.elapsed(), SECOND);
    let refused = pipeline.call_with(CallOptions::new().deadline(now), |_| Ok::<_, io::Error>(())).unwrap_err();
    assert_eq!(refused.as_rejection().map(|rejection| rejection.reason), Some(Reason::DeadlineTooClose));
    assert_eq!(refused.attempts, 0);
}

#[test]
fn a_limiter_wait_that_would_pass_the_deadline_is_refused_at_once() {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("l").rate(1, SECOND * 10).burst(1).clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder("t")
        .timeout(SECOND * 5)
        .rate_limiter_waiting(limiter, SECOND * 60)
        .clock(time.clock())
        .build()
        .unwrap();
    assert!(pipeline.call(|| Ok::<_, io::Error>(())).is_ok());
    assert!(pipeline.call(|| Ok::<_, io::Error>(())).is_err());
    assert_eq!(time.elapsed(), Duration::ZERO);
}

#[test]
fn a_dropped_call_gives_its_permits_and_its_place_in_the_queue_back() {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("b").consecutive_failures(1).clock(clock.clone()).build().unwrap();
    let limiter = RateLimiter::builder("l").rate(1, SECOND).burst(1).clock(clock.clone()).build().unwrap();
    let pipeline = Pipeline::builder("t")
        .circuit_breaker(breaker.clone())
        .rate_limiter_waiting(limiter.clone(), SECOND * 60)
        .clock(clock)
        .build()
        .unwrap();
    assert!(pipeline.call(down::<()>).is_err());
    time.advance(SECOND * 60);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        // Half open: each takes the only probe and hangs in the operation, then is dropped.
        time.advance(SECOND);
        let mut call = Box::pin(pipeline.call_async(pending::<io::Result<()>>));
        assert!(call.as_mut().poll(&mut cx).is_pending());
        drop(call);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }
    for _ in 0..1_000 {
        // The bucket is empty: each waits in the limiter's queue, then is dropped.
        let mut call = Box::pin(pipeline.call_async(pending::<io::Result<()>>));
        assert!(call.as_mut().poll(&mut cx).is_pending());
        drop(call);
    }
    time.advance(SECOND);
    assert!(limiter.try_acquire(1).is_ok(), "a thousand dropped waiters left no debt");
}

#[test]
fn a_panic_in_the_operation_counts_and_leaks_nothing() {
    let breaker = CircuitBreaker::builder("b").consecutive_failures(1).build().unwrap();
    let pipeline = Pipeline::builder("t").circuit_breaker(breaker.clone()).build().unwrap();
    let call = || pipeline.call(|| -> io::Result<()> { panic!("broken on purpose") });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err());
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn observers_hear_of_retries_and_of_the_end() {
    let time = ManualClock::auto_advancing();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        let line = match event {
            Event::RetryScheduled { attempt, delay, .. } => format!("attempt {attempt} failed, next in {delay:?}"),
            Event::CallFinished { outcome, attempts, elapsed, stopped, .. } => {
                format!("{} after {attempts} attempts and {elapsed:?}, {stopped:?}", outcome.as_str())
            }
            other => format!("{other:?}"),
        };
        sink.lock().unwrap().push(line);
    }));
    let pipeline = Pipeline::builder("t").retry(steady_retry(2)).clock(time.clock()).observers(observers);
    assert!(pipeline.build().unwrap().call(down::<()>).is_err());
    assert_eq!(
        *heard.lock().unwrap(),
        ["attempt 1 failed, next in 1s", "failure after 2 attempts and 1s, Some(AttemptsExhausted)"]
    );
}

#[test]
fn orders_that_make_no_sense_are_refused_with_the_reason() {
    let message = |builder: resilience_core::pipeline::PipelineBuilder| builder.build().unwrap_err().to_string();
    let new = || Pipeline::builder("p");
    insta::assert_snapshot!(message(new().retry(Retry::default()).retry(Retry::default())), @"`p.retry` is given twice; allowed: one retry; nested retries multiply attempts");
    insta::assert_snapshot!(message(new().timeout(SECOND).retry(Retry::default()).timeout(SECOND)), @"`p.timeout` is 1s for each attempt; allowed: less than the call's own limit of 1s");
    insta::assert_snapshot!(message(new().timeout(Duration::ZERO)), @"`p.timeout` is 0ns; allowed: more than 0, at most 10 years");
    let breaker = CircuitBreaker::builder("b").build().unwrap();
    insta::assert_snapshot!(message(new().circuit_breaker(breaker.clone()).retry(Retry::default()).circuit_breaker(breaker)), @"`p.circuit_breaker` is `b`, given twice; allowed: each breaker once; twice, it would count every call twice");
}

#[test]
fn a_call_future_can_be_spawned_on_any_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pipeline = Pipeline::builder("t").timeout(SECOND * 60).retry(Retry::default()).timeout(SECOND).build().unwrap();
    let spawned =
        async move { tokio::spawn(async move { pipeline.call_async(|| async { Ok::<_, io::Error>(7) }).await }).await };
    assert_eq!(runtime.block_on(spawned).unwrap().unwrap(), 7);
}

proptest! {
    /// The two faces make the same decisions: same script of results, same end, same time.
    #[test]
    fn blocking_and_async_agree(script in proptest::collection::vec((0_u8..4, 0_u64..4), 1..12), attempts in 1_u32..6) {
        let run = |asynchronous: bool| {
            let time = ManualClock::auto_advancing();
            let breaker = CircuitBreaker::builder("b").consecutive_failures(3).open_for(SECOND * 2).clock(time.clock());
            let breaker = breaker.build().unwrap();
            let limiter = RateLimiter::builder("l").rate(1, SECOND).burst(2).clock(time.clock()).build().unwrap();
            let pipeline = Pipeline::builder("t").timeout(SECOND * 20).retry(steady_retry(attempts))
                .rate_limiter_waiting(limiter, SECOND).circuit_breaker(breaker.clone()).clock(time.clock())
                .build().unwrap();
            let mut ends = Vec::new();
            for start in 0..script.len() {
                let mut position = start;
                let mut operation = || {
                    let (kind, seconds) = script[position % script.len()];
                    position += 1;
                    time.advance(Duration::from_secs(seconds));
                    match kind {
                        0 => Ok(()),
                        1 => Err(io::Error::from(io::ErrorKind::InvalidInput)),
                        _ => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    }
                };
                let result = if asynchronous {
                    drive(pipeline.call_async(|| std::future::ready(operation())))
                } else {
                    pipeline.call(operation)
                };
                let kind = match &result {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => match &error.kind {
                        ErrorKind::Operation(own) => own.kind().to_string(),
                        ErrorKind::Rejected(rejection) => rejection.to_string(),
                        other => format!("{other:?}"),
                    },
                };
                ends.push((kind, result.err().map(|error| (error.attempts, error.stopped)), time.elapsed()));
            }
            (ends, breaker.statistics())
        };
        prop_assert_eq!(run(false), run(true));
    }
}
