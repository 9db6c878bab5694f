//! What a composition of policies must never do, and a peer's does: run calls past an open breaker or an empty limiter,
//! and panic when a retry meets a slow operation under a timeout.

use std::io;
use std::time::Duration;

use resilience_core::{CircuitBreaker, ManualClock, Pipeline, RateLimiter, Reason, Retry};

fn calls_that_run(pipeline: &Pipeline) -> (u32, Vec<Reason>) {
    let (mut runs, mut reasons) = (0, Vec::new());
    for _ in 0..100 {
        let result = pipeline.call(|| {
            runs += 1;
            Ok::<_, io::Error>(())
        });
        reasons.extend(result.err().and_then(|error| error.as_rejection().map(|rejection| rejection.reason)));
    }
    reasons.dedup();
    (runs, reasons)
}

#[test]
fn no_call_of_a_hundred_runs_through_a_breaker_that_is_forced_open() {
    let breaker = CircuitBreaker::builder("b").build().unwrap();
    breaker.force_open();
    let pipeline = Pipeline::builder("p").circuit_breaker(breaker).build().unwrap();
    assert_eq!(calls_that_run(&pipeline), (0, vec![Reason::CircuitForcedOpen]));
}

#[test]
fn one_call_of_a_hundred_runs_through_a_limiter_of_one() {
    let clock = ManualClock::new().clock();
    let limiter = RateLimiter::builder("l").rate(1, Duration::from_secs(60)).burst(1).clock(clock.clone()).build();
    let pipeline = Pipeline::builder("p").rate_limiter(limiter.unwrap()).clock(clock).build().unwrap();
    assert_eq!(calls_that_run(&pipeline), (1, vec![Reason::RateLimited]));
}

#[test]
fn a_retry_around_a_slow_operation_under_a_timeout_ends_with_a_timeout() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("p")
        .retry(Retry::builder().max_attempts(3).build().unwrap())
        .timeout(Duration::from_millis(50))
        .clock(time.clock())
        .build()
        .unwrap();
    let mut runs = 0;
    let call = pipeline.call_async(|| {
        runs += 1;
        std::future::pending::<Result<(), io::Error>>()
    });
    let error = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call).unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!((runs, error.attempts), (3, 3));
}
