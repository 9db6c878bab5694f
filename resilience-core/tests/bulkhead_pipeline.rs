//! A bulkhead as part of a pipeline: room is taken once and comes back once, on every way out, in both faces.

use std::future::{Future, pending};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, Clock, Event, Jitter, ManualClock, Observers, Pipeline,
    RateLimiter, Reason, Retry, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn down<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionRefused.into())
}

/// An operation that works.
const FINE: fn() -> io::Result<()> = || Ok(());

fn room_for(calls: u32) -> Bulkhead {
    Bulkhead::builder("b").max_concurrent(calls).build().unwrap()
}

fn steady_retry(attempts: u32) -> Retry {
    Retry::builder().backoff(Backoff::fixed(SECOND)).jitter(Jitter::None).max_attempts(attempts).build().unwrap()
}

fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_full_bulkhead_refuses_and_the_refusal_is_not_retried() {
    let time = ManualClock::auto_advancing();
    let bulkhead = room_for(1);
    let breaker = CircuitBreaker::builder("c").clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder("t").retry(steady_retry(5)).circuit_breaker(breaker.clone());
    let pipeline = pipeline.bulkhead(bulkhead.clone()).clock(time.clock()).build().unwrap();
    let permit = bulkhead.try_acquire().unwrap();
    let error = pipeline.call(FINE).unwrap_err();
    assert_eq!(error.as_rejection().map(|rejection| rejection.reason), Some(Reason::BulkheadFull));
    assert_eq!((error.attempts, error.stopped), (0, Some(Stopped::NotRetryable)));
    assert_eq!(
        breaker.statistics().ignored,
        1,
        "the breaker's permit came back, and it was not the dependency's fault"
    );
    drop(permit);
    assert!(pipeline.call(FINE).is_ok());
}

#[test]
fn room_comes_back_once_on_every_way_out() {
    let time = ManualClock::auto_advancing();
    let (outer, inner) = (room_for(1), Bulkhead::builder("i").max_concurrent(1).build().unwrap());
    let pipeline = Pipeline::builder("t")
        .bulkhead(outer.clone())
        .retry(steady_retry(2))
        .bulkhead_waiting(inner.clone(), SECOND)
        .timeout(SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    let empty = || (outer.statistics().in_flight, inner.statistics().in_flight) == (0, 0);
    assert!(pipeline.call(FINE).is_ok() && empty());
    assert!(pipeline.call(down::<()>).is_err() && empty());
    assert!(catch_unwind(AssertUnwindSafe(|| pipeline.call(|| -> io::Result<()> { panic!("on purpose") }))).is_err());
    assert!(empty(), "after a panic");

    let mut call = Box::pin(pipeline.call_async(|| async { FINE() }));
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(()))) && empty());
    let mut call = Box::pin(pipeline.call_async(|| async { down::<()>() }));
    assert!(matches!(poll_once(&mut call), Poll::Ready(Err(_))) && empty());
    let mut call = Box::pin(pipeline.call_async(pending::<io::Result<()>>));
    let Poll::Ready(Err(late)) = poll_once(&mut call) else { panic!("the clock moves to the deadline by itself") };
    assert!(late.is_timed_out() && late.attempts == 2 && empty());
    let mut call = Box::pin(pipeline.call_async(|| async { panic!("on purpose") as io::Result<()> }));
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut call).is_ready())).is_err());
    drop(call);
    assert!(empty(), "after a panic");
    let standing = Pipeline::builder("s").bulkhead(outer.clone()).build().unwrap();
    let mut call = Box::pin(standing.call_async(pending::<io::Result<()>>));
    assert!(poll_once(&mut call).is_pending() && !empty());
    drop(call);
    assert!(empty(), "after it was dropped");
}

#[test]
fn between_attempts_only_the_bulkhead_around_the_retry_is_occupied() {
    let (clock, time) = Clock::manual();
    let (outer, inner) = (room_for(1), Bulkhead::builder("i").max_concurrent(1).build().unwrap());
    let pipeline = Pipeline::builder("t").bulkhead(outer.clone()).retry(steady_retry(2)).bulkhead(inner.clone());
    let pipeline = pipeline.clock(clock).build().unwrap();
    let mut call = Box::pin(pipeline.call_async(|| async { down::<()>() }));
    assert!(poll_once(&mut call).is_pending());
    assert_eq!((outer.statistics().in_flight, inner.statistics().in_flight), (1, 0));
    time.advance(SECOND);
    assert!(poll_once(&mut call).is_ready());
    assert_eq!((outer.statistics().in_flight, inner.statistics().in_flight), (0, 0));
}

#[test]
fn room_is_given_back_before_what_was_taken_before_it() {
    let order: Arc<Mutex<Vec<u32>>> = Arc::default();
    let bulkhead = room_for(1);
    let (sink, inside) = (Arc::clone(&order), bulkhead.clone());
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::BreakerStateChanged { .. } = event {
            sink.lock().unwrap().push(inside.statistics().in_flight);
        }
    }));
    let breaker = CircuitBreaker::builder("c").consecutive_failures(1).observers(observers).build().unwrap();
    let inside_out =
        Pipeline::builder("t").circuit_breaker(breaker.clone()).bulkhead(bulkhead.clone()).build().unwrap();
    inside_out.call(down::<()>).unwrap_err();
    breaker.reset();
    let outside_in = Pipeline::builder("t").bulkhead(bulkhead).circuit_breaker(breaker).build().unwrap();
    outside_in.call(down::<()>).unwrap_err();
    assert_eq!(*order.lock().unwrap(), [0, 0, 1], "opened without, reset without, opened with the room still taken");
}

#[test]
fn an_async_call_waits_for_its_turn_and_gives_its_place_up_when_dropped() {
    let (clock, _time) = Clock::manual();
    let bulkhead = room_for(1);
    let pipeline = Pipeline::builder("t").bulkhead_waiting(bulkhead.clone(), SECOND).clock(clock).build().unwrap();
    let mut first = Box::pin(pipeline.call_async(pending::<io::Result<()>>));
    assert!(poll_once(&mut first).is_pending());
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(pipeline.call_async(|| async { FINE() }))).collect();
    assert!(waiting.iter_mut().all(|call| poll_once(call).is_pending()));
    assert_eq!(bulkhead.statistics().waiting, 3);
    drop(waiting.remove(1));
    assert_eq!(bulkhead.statistics().waiting, 2);
    drop(first);
    // The first of them was handed the room and is dropped before it looks.
    drop(waiting.remove(0));
    assert!(matches!(poll_once(&mut waiting[0]), Poll::Ready(Ok(()))));
    assert_eq!((bulkhead.statistics().in_flight, bulkhead.statistics().waiting), (0, 0));
}

#[test]
fn a_blocking_call_waits_for_its_turn_on_a_manual_clock() {
    let (clock, time) = Clock::manual();
    let bulkhead = room_for(1);
    let pipeline = Pipeline::builder("t").bulkhead_waiting(bulkhead.clone(), SECOND).clock(clock).build().unwrap();
    let wait_in_a_thread = || {
        let pipeline = pipeline.clone();
        let waiting = thread::spawn(move || pipeline.call(FINE));
        while bulkhead.statistics().waiting == 0 {
            thread::yield_now();
        }
        waiting
    };
    let permit = bulkhead.try_acquire().unwrap();
    let in_vain = wait_in_a_thread();
    time.advance(SECOND);
    let error = in_vain.join().unwrap().unwrap_err();
    assert_eq!(error.as_rejection().map(|rejection| rejection.reason), Some(Reason::BulkheadWaitedTooLong));
    let served = wait_in_a_thread();
    drop(permit);
    served.join().unwrap().expect("its turn came, and time stood still");
    assert_eq!((bulkhead.statistics().in_flight, bulkhead.statistics().waiting), (0, 0));
}

#[test]
fn a_call_does_not_wait_to_its_deadline() {
    let time = ManualClock::auto_advancing();
    let bulkhead = room_for(1);
    let pipeline = Pipeline::builder("t").bulkhead_waiting(bulkhead.clone(), SECOND * 60).clock(time.clock());
    let pipeline = pipeline.build().unwrap();
    let _permit = bulkhead.try_acquire().unwrap();
    let options = CallOptions::new().deadline(time.now() + SECOND);
    let error = pipeline.call_with(options, |_| FINE()).unwrap_err();
    assert_eq!(error.as_rejection().map(|rejection| rejection.reason), Some(Reason::BulkheadWaitedTooLong));
    assert_eq!(time.elapsed() + Duration::from_nanos(1), SECOND);
}

#[test]
fn a_pipeline_with_a_bulkhead_twice_or_an_endless_wait_is_refused() {
    let bulkhead = room_for(1);
    let twice = Pipeline::builder("p").bulkhead(bulkhead.clone()).retry(Retry::default()).bulkhead(bulkhead.clone());
    insta::assert_snapshot!(twice.build().unwrap_err(), @"`p.bulkhead` is `b`, given twice; allowed: each bulkhead once; twice, a call could wait for itself");
    let endless = Pipeline::builder("p").bulkhead_waiting(bulkhead, Duration::MAX).build().unwrap_err();
    insta::assert_snapshot!(endless, @"`p.max_wait` is 18446744073709551615.999999999s; allowed: at most 10 years");
}

/// An operation under way.
struct Running<'a>(&'a Mutex<u32>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap() -= 1;
    }
}

proptest! {
    /// Calls through two bulkheads, a limiter and a retry that hang, fail, succeed, run late or are dropped, in any
    /// order: never more inside than there is room, and when all are gone, all the room is back.
    #[test]
    fn room_is_conserved_under_random_cancellation(
        steps in proptest::collection::vec((0_u8..8, any::<usize>()), 1..120)
    ) {
        let (clock, time) = Clock::manual();
        let outer = Bulkhead::builder("o").max_concurrent(4).max_waiting(3).build().unwrap();
        let inner = Bulkhead::builder("i").max_concurrent(2).max_waiting(5).build().unwrap();
        let limiter = RateLimiter::builder("l").rate(2, SECOND).burst(4).clock(clock.clone()).build().unwrap();
        let pipeline = Pipeline::builder("t").timeout(SECOND * 20).bulkhead_waiting(outer.clone(), SECOND * 3)
            .retry(steady_retry(3)).rate_limiter_waiting(limiter, SECOND * 30).bulkhead_waiting(inner.clone(), SECOND * 2)
            .timeout(SECOND * 4).clock(clock.clone()).build().unwrap();
        let running = Mutex::new(0_u32);
        let running = &running;
        let mut calls = Vec::new();
        for (step, pick) in steps {
            match step {
                0..=2 => calls.push(Box::pin(pipeline.call_async(move || async move {
                    *running.lock().unwrap() += 1;
                    let _running = Running(running);
                    match step { 0 => pending().await, 1 => down(), _ => FINE() }
                }))),
                3 if !calls.is_empty() => drop(calls.swap_remove(pick % calls.len())),
                _ => time.advance(SECOND),
            }
            calls.retain_mut(|call| poll_once(call).is_pending());
            prop_assert!(*running.lock().unwrap() <= 2);
            prop_assert!(*running.lock().unwrap() <= inner.statistics().in_flight);
        }
        drop(calls);
        for bulkhead in [&outer, &inner] {
            let statistics = bulkhead.statistics();
            prop_assert_eq!((statistics.in_flight, statistics.waiting), (0, 0), "{}", bulkhead.name());
        }
    }
}

#[test]
fn a_timeout_bounds_what_is_listed_after_it_and_an_order_that_cannot_hold_is_refused() {
    let second = Duration::from_secs(1);
    let time = ManualClock::auto_advancing();
    let room = || {
        let room = Bulkhead::builder("room").max_concurrent(1).clock(time.clock()).build().unwrap();
        (room.clone(), room.try_acquire_owned().unwrap())
    };
    let run = |builder: resilience_core::pipeline::PipelineBuilder| {
        let before = time.elapsed();
        let call = builder.clock(time.clock()).build().unwrap();
        assert!(call.call(|| Ok::<_, io::Error>(())).is_err());
        time.elapsed().checked_sub(before).unwrap()
    };
    let (outside, _inside) = room();
    assert!(run(Pipeline::builder("p").timeout(second).bulkhead_waiting(outside, second * 5)) <= second);
    let (inside_of, _inside) = room();
    assert_eq!(run(Pipeline::builder("p").bulkhead_waiting(inside_of, second * 5).timeout(second)), second * 5);

    let (late, _inside) = room();
    let refused = |builder: resilience_core::pipeline::PipelineBuilder| builder.build().unwrap_err().to_string();
    let between = Pipeline::builder("p").bulkhead_waiting(late.clone(), second).timeout(second).retry(Retry::default());
    insta::assert_snapshot!(refused(between), @"`p.timeout` is between a policy that waits and the retry; allowed: the call's timeout before all policies that wait, and the attempt's after the retry");
    let before = Pipeline::builder("p").retry(Retry::default()).timeout(second).bulkhead_waiting(late, second);
    insta::assert_snapshot!(refused(before), @"`p.timeout` is before a policy that waits; allowed: the attempt's timeout after all policies that wait: it bounds the operation");
}
