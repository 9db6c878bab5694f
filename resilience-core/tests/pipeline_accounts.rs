//! What a call takes comes back exactly once, on every way out of a pipeline: late, refused, dropped, panicked.

use std::future::{Future, pending};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use resilience_core::clock::TimeSource;
use resilience_core::{
    Backoff, BreakerState, CallOptions, CircuitBreaker, Clock, Event, Instant, Jitter, ManualClock, Observers,
    Pipeline, RateLimiter, Reason, Retry, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn down<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionRefused.into())
}

/// An operation that works.
const FINE: fn() -> io::Result<()> = || Ok(());

fn steady_retry(attempts: u32) -> Retry {
    Retry::builder().backoff(Backoff::fixed(SECOND)).jitter(Jitter::None).max_attempts(attempts).build().unwrap()
}

/// Opens after one failure, for a second, then admits one probe at a time.
fn touchy_breaker(name: &str, clock: &Clock) -> CircuitBreaker {
    CircuitBreaker::builder(name).consecutive_failures(1).open_for(SECOND).clock(clock.clone()).build().unwrap()
}

/// One permit each `seconds`, and no more than one at once.
fn one_each(seconds: u32, clock: &Clock) -> RateLimiter {
    RateLimiter::builder("l").rate(1, SECOND * seconds).burst(1).clock(clock.clone()).build().unwrap()
}

fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Collects one line per event.
fn listener() -> (Observers, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        let line = match event {
            Event::Rejected { rejection, .. } => format!("rejected: {}", rejection.reason.as_str()),
            Event::RetryScheduled { attempt, .. } => format!("retry after attempt {attempt}"),
            Event::CallFinished { outcome, attempts, .. } => format!("{} after {attempts}", outcome.as_str()),
            Event::BreakerStateChanged { from, to, .. } => format!("{from} to {to}"),
            other => format!("{other:?}"),
        };
        sink.lock().unwrap().push(line);
    }));
    (observers, heard)
}

#[test]
fn a_call_that_comes_after_its_deadline_takes_nothing() {
    let (clock, time) = Clock::manual();
    let (observers, heard) = listener();
    let (breaker, limiter) = (touchy_breaker("b", &clock), one_each(60, &clock));
    breaker.call(down::<()>).unwrap_err();
    time.advance(SECOND);
    let pipeline = Pipeline::builder("t")
        .circuit_breaker(breaker.clone())
        .rate_limiter(limiter.clone())
        .clock(clock.clone())
        .observers(observers);
    let pipeline = pipeline.build().unwrap();
    let late = CallOptions::new().deadline(clock.now() - SECOND);
    let error = pipeline.call_with(late, |_| FINE()).unwrap_err();
    assert_eq!(error.as_rejection().map(|rejection| rejection.reason), Some(Reason::DeadlineTooClose));
    assert_eq!(breaker.state(), BreakerState::Open, "no probe was spent");
    assert_eq!(limiter.statistics().available, 1, "no permit was spent");
    assert_eq!(*heard.lock().unwrap(), ["rejected: deadline_too_close", "rejected after 0"]);
}

#[test]
fn a_timeout_names_the_limit_that_applied() {
    let time = ManualClock::auto_advancing();
    let bare = Pipeline::builder("bare").clock(time.clock()).build().unwrap();
    let patient = Pipeline::builder("patient").timeout(SECOND * 10).clock(time.clock()).build().unwrap();
    for pipeline in [bare, patient] {
        let options = CallOptions::new().deadline(time.now() + SECOND);
        let mut call = Box::pin(pipeline.call_async_with(options, |_| pending::<io::Result<()>>()));
        let Poll::Ready(result) = poll_once(&mut call) else { panic!("the clock moves to the deadline by itself") };
        assert_eq!(result.unwrap_err().to_string(), "no answer within 1s", "{}", pipeline.name());
    }
}

#[test]
fn a_wait_for_a_limiter_that_would_end_at_the_deadline_is_not_begun() {
    let time = ManualClock::auto_advancing();
    let limiter = one_each(5, &time.clock());
    let pipeline = Pipeline::builder("t").timeout(SECOND * 5).rate_limiter_waiting(limiter, SECOND * 60);
    let pipeline = pipeline.clock(time.clock()).build().unwrap();
    pipeline.call(FINE).unwrap();
    let error = pipeline.call(FINE).unwrap_err();
    assert_eq!(error.as_rejection().map(|rejection| rejection.reason), Some(Reason::RateLimited));
    assert_eq!(time.elapsed(), Duration::ZERO);
}

#[test]
fn limiters_on_both_sides_of_the_retry_are_waited_for_in_turn() {
    let time = ManualClock::auto_advancing();
    let (calls, attempts) = (one_each(10, &time.clock()), one_each(3, &time.clock()));
    let pipeline = Pipeline::builder("t")
        .rate_limiter_waiting(calls.clone(), SECOND * 60)
        .retry(steady_retry(2))
        .rate_limiter_waiting(attempts.clone(), SECOND * 60)
        .clock(time.clock())
        .build()
        .unwrap();
    let mut started = Vec::new();
    for _ in 0..2 {
        let result = pipeline.call(|| {
            started.push(time.elapsed().as_secs());
            down::<()>()
        });
        assert_eq!(result.unwrap_err().attempts, 2);
    }
    assert_eq!(started, [0, 3, 10, 13]);
    time.advance(SECOND * 10);
    assert_eq!((calls.statistics().available, attempts.statistics().available), (1, 1));
}

#[test]
fn a_retry_that_meets_nothing_but_refusals_ends_after_its_tries() {
    let time = ManualClock::auto_advancing();
    let (observers, heard) = listener();
    // The limiter's own clock stands still: it stays exhausted and asks for a second each time.
    let limiter = one_each(1, &Clock::manual().0);
    limiter.try_acquire(1).unwrap();
    let pipeline = Pipeline::builder("t").retry(steady_retry(3)).rate_limiter(limiter.clone()).clock(time.clock());
    let error = pipeline.observers(observers).build().unwrap().call(FINE).unwrap_err();
    assert_eq!((error.attempts, error.stopped), (0, Some(Stopped::AttemptsExhausted)));
    assert_eq!((limiter.statistics().rejected, time.elapsed()), (3, SECOND * 2));
    assert_eq!(*heard.lock().unwrap(), ["retry after attempt 0", "retry after attempt 0", "rejected after 0"]);
}

#[test]
fn a_refusal_that_waiting_cannot_help_is_not_retried() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("t").retry(steady_retry(100)).rate_limiter(one_each(1, &time.clock()));
    let pipeline = pipeline.clock(time.clock()).build().unwrap();
    let error = pipeline.call_with(CallOptions::new().permits(2), |_| FINE()).unwrap_err();
    assert_eq!((error.attempts, error.stopped), (0, Some(Stopped::NotRetryable)));
    assert_eq!(time.elapsed(), Duration::ZERO);
}

#[test]
fn a_call_dropped_by_somebody_elses_panic_is_cancelled_and_its_own_panic_is_a_failure() {
    let (clock, _time) = Clock::manual();
    let breaker = touchy_breaker("b", &clock);
    let pipeline = Pipeline::builder("t").circuit_breaker(breaker.clone()).clock(clock).build().unwrap();
    let mut through_pipeline = Box::pin(pipeline.call_async(pending::<io::Result<()>>));
    let mut through_breaker = Box::pin(breaker.call_async(pending::<io::Result<()>>()));
    assert!(poll_once(&mut through_pipeline).is_pending());
    assert!(poll_once(&mut through_breaker).is_pending());
    let elsewhere = catch_unwind(AssertUnwindSafe(move || {
        let _dropped_while_unwinding = (through_pipeline, through_breaker);
        panic!("on purpose: elsewhere");
    }));
    assert!(elsewhere.is_err());
    let statistics = breaker.statistics();
    assert_eq!((statistics.ignored, statistics.failures, statistics.state), (2, 0, BreakerState::Closed));

    let broken = || async { panic!("on purpose: the operation") };
    let mut own = Box::pin(pipeline.call_async::<(), io::Error, _>(broken));
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut own).is_ready())).is_err());
    drop(own);
    assert_eq!(breaker.statistics().failures, 1);
    breaker.reset();
    let mut own = Box::pin(breaker.call_async::<(), io::Error>(broken()));
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut own).is_ready())).is_err());
    drop(own);
    assert_eq!(breaker.statistics().failures, 2);
}

/// A source of time that cannot wait.
#[derive(Default)]
struct Sleepless(AtomicU64);

impl TimeSource for Sleepless {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    fn sleep_blocking(&self, _: Duration) {
        panic!("on purpose: this clock cannot wait");
    }
    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async { panic!("on purpose: this clock cannot wait") })
    }
}

#[test]
fn a_wait_that_panics_gives_its_place_up_and_counts_against_nobody() {
    let clock = Clock::custom(Arc::new(Sleepless::default()));
    let (breaker, limiter) = (touchy_breaker("b", &clock), one_each(1, &clock));
    let pipeline = Pipeline::builder("t")
        .circuit_breaker(breaker.clone())
        .rate_limiter_waiting(limiter.clone(), SECOND * 60)
        .clock(clock)
        .build()
        .unwrap();
    limiter.try_acquire(1).unwrap();
    for _ in 0..10 {
        assert!(catch_unwind(AssertUnwindSafe(|| pipeline.call(FINE))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| limiter.acquire(1, SECOND * 60))).is_err());
        let mut call = Box::pin(pipeline.call_async(|| async { FINE() }));
        assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut call))).is_err());
    }
    let refused = limiter.try_acquire(1).unwrap_err();
    assert_eq!(refused.retry_after, Some(SECOND), "nobody queues");
    assert_eq!(breaker.statistics().ignored, 20, "the dependency was never called");
}

#[test]
fn a_limiter_on_another_clock_is_refused_where_it_would_be_waited_for() {
    let limiter = one_each(1, &Clock::manual().0);
    let waiting = Pipeline::builder("p").rate_limiter_waiting(limiter.clone(), SECOND).build().unwrap_err();
    insta::assert_snapshot!(waiting, @"`p.clock` is another than that of limiter `l`; allowed: one clock for a pipeline and the limiters it waits for");
    assert!(Pipeline::builder("p").rate_limiter(limiter).build().unwrap().call(FINE).is_ok());
}

proptest! {
    /// Calls that start, hang, fail, succeed, run late or are dropped, in any order: when all are gone, every probe
    /// permit and every place in the queue is back, and every admitted call was settled exactly once.
    #[test]
    fn permits_and_places_are_conserved_under_random_cancellation(
        steps in proptest::collection::vec((0_u8..8, any::<usize>()), 1..120)
    ) {
        let (clock, time) = Clock::manual();
        let outer = CircuitBreaker::builder("outer").consecutive_failures(3).open_for(SECOND * 2).half_open_permits(2)
            .clock(clock.clone()).build().unwrap();
        let inner = touchy_breaker("inner", &clock);
        let limiter = RateLimiter::builder("l").rate(1, SECOND).burst(2).clock(clock.clone()).build().unwrap();
        let pipeline = Pipeline::builder("t").timeout(SECOND * 20).circuit_breaker(outer.clone())
            .retry(steady_retry(3)).rate_limiter_waiting(limiter.clone(), SECOND * 30).circuit_breaker(inner.clone())
            .timeout(SECOND * 4).clock(clock.clone()).build().unwrap();
        let mut calls = Vec::new();
        for (step, pick) in steps {
            match step {
                0..=2 => calls.push(Box::pin(pipeline.call_async(move || async move {
                    match step { 0 => pending().await, 1 => down(), _ => FINE() }
                }))),
                3 if !calls.is_empty() => drop(calls.swap_remove(pick % calls.len())),
                _ => time.advance(SECOND),
            }
            calls.retain_mut(|call| poll_once(call).is_pending());
        }
        drop(calls);
        time.advance(SECOND * 4);
        prop_assert!(limiter.try_acquire(2).is_ok(), "the bucket is full again: nothing is owed");
        for (breaker, permits) in [(&outer, 2), (&inner, 1)] {
            if breaker.state() != BreakerState::Closed {
                let probes: Vec<_> = (0..4).filter_map(|_| breaker.try_acquire().ok()).collect();
                prop_assert_eq!(probes.len(), permits, "{}: every probe permit is back", breaker.name());
            }
        }
    }
}
