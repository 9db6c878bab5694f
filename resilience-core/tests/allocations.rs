//! What the path of a call costs in memory: nothing, when it succeeds and when an open breaker refuses it.
//! Counted by an allocator that counts, per thread; the pipelines are those of the documentation.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use resilience_core::{Bulkhead, CircuitBreaker, Clock, KeyedRateLimiter, Pipeline, RateLimiter, Reason, Retry};

/// All six policies in the recommended order, on the system's clock, and the breaker among them.
fn full_pipeline() -> (Pipeline, CircuitBreaker) {
    let breaker = CircuitBreaker::builder("search_backend").build().unwrap();
    let limiter = RateLimiter::builder("search_rate").rate(1_000_000, Duration::from_secs(1)).burst(1_000_000);
    let pipeline = Pipeline::builder("search")
        .timeout(Duration::from_secs(10))
        .retry(Retry::default())
        .circuit_breaker(breaker.clone())
        .rate_limiter(limiter.build().unwrap())
        .bulkhead_waiting(Bulkhead::builder("search_room").build().unwrap(), Duration::from_secs(1))
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    (pipeline, breaker)
}

fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the operation is ready at once"),
    }
}

/// How many allocations a hundred runs of `work` make, after one that warms up what is made once per process.
fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    measure(|| (0..100).for_each(|_| work())).count_total
}

#[test]
fn the_counter_sees_an_allocation() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1_u64)))), 100);
}

#[test]
fn a_blocking_call_that_succeeds_allocates_nothing() {
    let (pipeline, _breaker) = full_pipeline();
    assert_eq!(allocations(|| assert_eq!(pipeline.call(|| Ok::<_, io::Error>(7)).ok(), Some(7))), 0);
}

#[test]
fn an_async_call_that_succeeds_allocates_nothing() {
    let (pipeline, _breaker) = full_pipeline();
    let call = || ready(pipeline.call_async(|| async { Ok::<_, io::Error>(7) }));
    assert_eq!(allocations(|| assert_eq!(call().ok(), Some(7))), 0);
}

#[test]
fn a_limiter_with_a_known_key_allocates_nothing_whether_it_grants_or_refuses() {
    let limiter = KeyedRateLimiter::<String>::builder("tenants").rate(1, Duration::from_secs(3_600)).burst(50);
    let limiter = limiter.build().unwrap();
    assert!(limiter.try_acquire("blue", 0).is_ok());
    let mut granted = 0;
    assert_eq!(allocations(|| granted += u32::from(limiter.try_acquire("blue", 1).is_ok())), 0);
    assert_eq!(granted, 50);
    assert_eq!(allocations(|| assert!(limiter.peek("blue", 1).is_err() && limiter.quota("blue").remaining == 0)), 0);
}

#[test]
fn a_million_keys_take_the_memory_of_those_that_may_be_remembered() {
    let (clock, time) = Clock::manual();
    let limiter = KeyedRateLimiter::<u64>::builder("addresses").rate(1, Duration::from_secs(1)).burst(1);
    let limiter = limiter.max_keys(10_000).clock(clock.clone()).build().unwrap();
    // One key every 0.2 ms: 5 000 are in use at a time, and about as many not yet forgotten.
    let used = measure(|| {
        for key in 0_u64..1_000_000 {
            time.advance(Duration::from_micros(200));
            assert!(limiter.try_acquire(&key, 1).is_ok());
        }
    });
    assert!(used.bytes_max < 1_000_000, "{} bytes", used.bytes_max);
    // While time stands still, it fills up and refuses the rest.
    let refused = measure(|| assert!((0..1_000_000).filter(|key| limiter.try_acquire(key, 1).is_err()).count() > 0));
    assert!(refused.bytes_max < 1_000_000, "{} bytes", refused.bytes_max);
    let all = measure(|| {
        let limiter = KeyedRateLimiter::<u64>::builder("all").max_keys(1_000_000).clock(clock.clone()).build().unwrap();
        assert!((0..1_000_000).all(|key| limiter.try_acquire(&key, 1).is_ok()));
        assert!(limiter.try_acquire(&1_000_000, 1).is_err());
    });
    assert!(all.bytes_max < 64_000_000, "{} bytes", all.bytes_max);
}

#[test]
fn the_refusal_of_an_open_breaker_allocates_nothing() {
    let (pipeline, breaker) = full_pipeline();
    while breaker.try_acquire().is_ok() {
        assert!(breaker.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused))).is_err());
    }
    let refused = || breaker.try_acquire().err().map(|rejection| rejection.reason);
    assert_eq!(allocations(|| assert_eq!(refused(), Some(Reason::CircuitOpen))), 0);
    let refused =
        || pipeline.call(|| Ok::<_, io::Error>(())).err().and_then(|error| error.as_rejection().map(|r| r.reason));
    assert_eq!(allocations(|| assert_eq!(refused(), Some(Reason::CircuitOpen))), 0);
}

#[test]
fn entering_and_leaving_a_bulkhead_allocates_nothing_and_nor_does_its_refusal() {
    let bulkhead = Bulkhead::builder("room").max_concurrent(1).build().unwrap();
    let wait = Duration::from_secs(1);
    assert_eq!(allocations(|| drop(bulkhead.try_acquire().unwrap())), 0);
    assert_eq!(allocations(|| drop(bulkhead.try_acquire_owned().unwrap())), 0);
    assert_eq!(allocations(|| drop(bulkhead.acquire(wait).unwrap())), 0);
    assert_eq!(allocations(|| drop(ready(bulkhead.acquire_async(wait)).unwrap())), 0);
    let _permit = bulkhead.try_acquire().unwrap();
    assert_eq!(allocations(|| assert!(bulkhead.try_acquire().is_err())), 0);
}
