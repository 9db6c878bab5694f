//! The tower face: the same state as everywhere else, and nothing held between `poll_ready` and `call`.
#![cfg(feature = "tower")]

use std::future::{Future, Ready, pending, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience_core::tower::PipelineLayer;
use resilience_core::{
    Backoff, CallOptions, Category, CircuitBreaker, Class, Clock, ErrorKind, Jitter, ManualClock, Pipeline,
    RateLimiter, Retry,
};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, service_fn};

fn steady_retry(attempts: u32) -> Retry {
    let backoff = Backoff::fixed(Duration::from_secs(1));
    Retry::builder().backoff(backoff).jitter(Jitter::None).max_attempts(attempts).build().unwrap()
}

fn finished<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("the future makes no progress")
}

#[test]
fn each_attempt_is_a_new_call_of_the_service_with_a_clone_of_the_request() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("t").retry(steady_retry(3)).clock(time.clock()).build().unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let mut service = PipelineLayer::new(pipeline).layer(service_fn(move |request: String| {
        let call = counter.fetch_add(1, Ordering::Relaxed);
        ready(if call < 2 { Err(io::Error::from(io::ErrorKind::ConnectionReset)) } else { Ok(request.len()) })
    }));
    assert_eq!(finished(service.call("four".to_owned())).unwrap(), 4);
    assert_eq!((calls.load(Ordering::Relaxed), time.elapsed()), (3, Duration::from_secs(2)));
}

#[test]
fn the_layer_shares_its_state_with_the_other_faces() {
    let breaker = CircuitBreaker::builder("b").consecutive_failures(2).build().unwrap();
    let pipeline = Pipeline::builder("t").circuit_breaker(breaker).build().unwrap();
    let down = |()| ready(Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)));
    let mut service = PipelineLayer::new(pipeline.clone()).layer(service_fn(down));
    assert!(finished(service.call(())).is_err());
    assert!(pipeline.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused))).is_err());
    let refused = finished(service.call(())).unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Rejected(_)), "one failure of each face opened it: {refused}");
}

#[test]
fn a_response_that_is_a_failure_is_tried_again_and_the_last_one_is_returned() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("t").retry(steady_retry(3)).clock(time.clock()).build().unwrap();
    let layer = PipelineLayer::new(pipeline)
        .judged_by(|answer: &io::Result<u16>| matches!(answer, Ok(500..)).then(|| Class::of(Category::Network)));
    let statuses = Arc::new(AtomicU32::new(501));
    let mut service = layer.layer(service_fn(move |_request: u8| {
        let status = statuses.fetch_sub(1, Ordering::Relaxed);
        ready(u16::try_from(status).map_err(io::Error::other))
    }));
    assert_eq!(finished(service.call(1)).unwrap(), 499, "the third attempt");
    assert_eq!(time.elapsed(), Duration::from_secs(2));
    let mut down = layer.layer(service_fn(|_request: u8| ready(Ok::<_, io::Error>(503))));
    assert_eq!(finished(down.call(1)).unwrap(), 503);
}

#[test]
fn errors_of_other_crates_are_classified_by_a_closure() {
    let breaker = CircuitBreaker::builder("b").consecutive_failures(1).build().unwrap();
    let pipeline = Pipeline::builder("t").circuit_breaker(breaker.clone()).build().unwrap();
    let layer =
        PipelineLayer::new(pipeline).classified_by(|_: &std::num::ParseIntError| Class::of(Category::Validation));
    let mut service = layer.layer(service_fn(|text: &'static str| ready(text.parse::<u32>())));
    assert!(finished(service.call("x")).is_err());
    assert_eq!(breaker.statistics().ignored, 1);
}

#[test]
fn readiness_of_the_inner_service_is_part_of_the_attempt_and_no_permit_is_kept() {
    let (clock, time) = Clock::manual();
    let pipeline = Pipeline::builder("t").timeout(Duration::from_secs(1)).clock(clock).build().unwrap();
    let inner = ConcurrencyLimit::new(
        service_fn(|hangs: bool| async move {
            if hangs {
                pending::<()>().await;
            }
            Ok::<_, io::Error>(())
        }),
        1,
    );
    let mut service = PipelineLayer::new(pipeline).layer(inner);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        // Ready, and then never called: nothing may be held.
        assert!(service.poll_ready(&mut cx).is_ready());
    }
    let mut hanging = Box::pin(service.call(true));
    assert!(hanging.as_mut().poll(&mut cx).is_pending());
    let mut waiting = Box::pin(service.call(false));
    assert!(waiting.as_mut().poll(&mut cx).is_pending(), "the only permit is taken");
    time.advance(Duration::from_secs(1));
    let Poll::Ready(Err(late)) = waiting.as_mut().poll(&mut cx) else { panic!("the wait for readiness is bounded") };
    assert!(late.is_timed_out());
    drop(hanging);
    assert!(finished(service.call(false)).is_ok(), "the dropped call gave the permit back");
}

#[derive(Clone)]
struct Constant;

impl Service<u32> for Constant {
    type Response = u32;
    type Error = io::Error;
    type Future = Ready<io::Result<u32>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

#[test]
fn a_call_that_succeeds_at_once_allocates_nothing() {
    let pipeline = Pipeline::builder("t")
        .timeout(Duration::from_secs(10))
        .retry(Retry::default())
        .circuit_breaker(CircuitBreaker::builder("b").build().unwrap())
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let mut service = PipelineLayer::new(pipeline).layer(Constant);
    let mut cx = Context::from_waker(Waker::noop());
    let info = allocation_counter::measure(|| {
        let call = std::pin::pin!(service.call(7));
        assert!(matches!(call.poll(&mut cx), Poll::Ready(Ok(7))));
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn the_response_can_be_spawned() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pipeline = Pipeline::builder("t").retry(Retry::default()).build().unwrap();
    let mut service = PipelineLayer::new(pipeline).layer(Constant);
    let answer = runtime.block_on(async move { tokio::spawn(service.call(9)).await });
    assert_eq!(answer.unwrap().unwrap(), 9);
}

#[test]
fn a_request_says_itself_that_it_must_not_run_twice() {
    let pipeline =
        Pipeline::builder("shop").retry(Retry::default()).clock(ManualClock::auto_advancing().clock()).build().unwrap();
    for (method, runs) in [("GET", 3), ("POST", 1)] {
        let count = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&count);
        let layer = PipelineLayer::new(pipeline.clone()).options(|method: &&str| match *method {
            "POST" => CallOptions::new().not_idempotent(),
            _ => CallOptions::new(),
        });
        let mut service = layer.layer(service_fn(move |_: &str| {
            counter.fetch_add(1, Ordering::Relaxed);
            ready(Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset)))
        }));
        assert!(finished(service.call(method)).is_err());
        assert_eq!(count.load(Ordering::Relaxed), runs, "{method}");
    }
}

#[test]
fn a_request_without_a_copy_is_sent_once_and_tried_again_only_while_nobody_has_it() {
    /// What cannot be cloned.
    struct Upload(u32);
    let time = ManualClock::auto_advancing();
    let limiter =
        RateLimiter::builder("l").rate(1, Duration::from_secs(1)).burst(1).clock(time.clock()).build().unwrap();
    limiter.try_acquire(1).unwrap();
    let pipeline =
        Pipeline::builder("p").retry(steady_retry(5)).rate_limiter(limiter).clock(time.clock()).build().unwrap();
    let sent = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&sent);
    let service = service_fn(move |upload: Upload| {
        count.fetch_add(1, Ordering::Relaxed);
        ready(if upload.0 == 0 { Err(io::Error::from(io::ErrorKind::ConnectionReset)) } else { Ok(upload.0) })
    });
    let mut once = PipelineLayer::new(pipeline.clone()).once().layer(service.clone());
    assert_eq!(finished(once.call(Upload(7))).unwrap(), 7); // refused by the limiter first
    assert!(finished(once.call(Upload(0))).is_err());
    assert_eq!(sent.load(Ordering::Relaxed), 2);
    let copy = |upload: &Upload| (upload.0 == 0).then_some(Upload(0));
    let mut copied = PipelineLayer::new(pipeline).copied_by(copy).layer(service);
    assert!(finished(copied.call(Upload(0))).is_err());
    assert_eq!(sent.load(Ordering::Relaxed), 2 + 4, "the limiter refused the first of five tries");
    assert_eq!(finished(copied.call(Upload(8))).unwrap(), 8);
}
