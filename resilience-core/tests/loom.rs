//! Exhaustive models of what threads can do to each other: `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test loom`.
#![cfg(resilience_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use resilience_core::{BreakerState, Category, CircuitBreaker, Class, Clock, Outcome, RateLimiter};
use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

const DOWN: Outcome = Outcome::Failure(Class::of(Category::Network));

#[test]
fn half_open_never_admits_more_probes_than_it_has_permits() {
    loom::model(|| {
        let (clock, time) = Clock::manual();
        let breaker = CircuitBreaker::builder("model").consecutive_failures(1).clock(clock).build().unwrap();
        breaker.try_acquire().unwrap().settle(&DOWN);
        time.advance(Duration::from_secs(60));
        let under_way = Arc::new(AtomicU32::new(0));
        let probe = |breaker: CircuitBreaker, under_way: Arc<AtomicU32>| {
            move || {
                if let Ok(permit) = breaker.try_acquire() {
                    assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0, "two probes at once");
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            }
        };
        let other = thread::spawn(probe(breaker.clone(), under_way.clone()));
        probe(breaker.clone(), under_way)();
        other.join().unwrap();
        assert!(breaker.try_acquire().is_ok(), "the permit came back");
    });
}

#[test]
fn a_stale_success_never_touches_a_newer_generation() {
    loom::model(|| {
        let (clock, time) = Clock::manual();
        let breaker = CircuitBreaker::builder("model").consecutive_failures(1).half_open_successes(1).clock(clock);
        let breaker = breaker.build().unwrap();
        let late = breaker.clone();
        let stale = late.try_acquire().unwrap();
        breaker.try_acquire().unwrap().settle(&DOWN);
        time.advance(Duration::from_secs(60));
        let prober = breaker.clone();
        let other = thread::spawn(move || {
            if let Ok(probe) = prober.try_acquire() {
                probe.settle(&DOWN);
            }
        });
        stale.settle(&Outcome::Success);
        other.join().unwrap();
        assert_eq!(breaker.state(), BreakerState::Open);
    });
}

#[test]
fn a_place_given_up_while_another_queues_is_neither_lost_nor_used_twice() {
    loom::model(|| {
        let (clock, _) = Clock::manual();
        let limiter = RateLimiter::builder("model").rate(1, Duration::from_secs(1)).burst(1).clock(clock);
        let limiter = limiter.build().unwrap();
        limiter.try_acquire(1).unwrap();
        let wait = |limiter: &RateLimiter| limiter.try_acquire(1).unwrap_err().retry_after.unwrap();
        let theirs = limiter.clone();
        let other = thread::spawn(move || {
            let mut place = Box::pin(theirs.acquire_async(1, Duration::from_secs(60)));
            assert!(place.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        });
        let mut mine = Box::pin(limiter.acquire_async(1, Duration::from_secs(60)));
        assert!(mine.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        other.join().unwrap();
        // I stand at one second or at two, and the other place is free, before me or behind me.
        let next = wait(&limiter);
        assert!(next == Duration::from_secs(1) || next == Duration::from_secs(2), "{next:?}");
        drop(mine);
        assert_eq!(wait(&limiter), Duration::from_secs(1), "nobody queues");
    });
}

#[test]
fn two_threads_never_take_more_than_the_burst() {
    loom::model(|| {
        let (clock, _) = Clock::manual();
        let limiter = RateLimiter::builder("model").rate(1, Duration::from_secs(60)).burst(1).clock(clock);
        let limiter = limiter.build().unwrap();
        let theirs = limiter.clone();
        let other = thread::spawn(move || u32::from(theirs.try_acquire(1).is_ok()));
        let mine = u32::from(limiter.try_acquire(1).is_ok());
        assert_eq!(mine + other.join().unwrap(), 1);
    });
}
