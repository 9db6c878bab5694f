//! Exhaustive models of what threads can do to each other: `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test loom`.
#![cfg(resilience_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use resilience_core::{BreakerState, Bulkhead, Category, CircuitBreaker, Class, Clock, Outcome, RateLimiter};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Wake, Waker};
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

const LONG: Duration = Duration::from_secs(60);

/// Room for one, on a clock that stands still.
fn room_for_one() -> Bulkhead {
    Bulkhead::builder("model").max_concurrent(1).clock(Clock::manual().0).build().unwrap()
}

/// Looks once. `Some` has entered.
fn look<'a, F, P>(acquiring: &mut Pin<Box<F>>, waker: &Waker) -> Option<P>
where
    F: Future<Output = Result<P, resilience_core::Rejection>> + 'a,
{
    match acquiring.as_mut().poll(&mut Context::from_waker(waker)) {
        std::task::Poll::Ready(entered) => Some(entered.expect("the time stands still and the queue is long")),
        std::task::Poll::Pending => None,
    }
}

/// Remembers that it was woken.
#[derive(Default)]
struct Bell(std::sync::atomic::AtomicBool);

impl Wake for Bell {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// One waits for its turn while another comes, who `waits` or does not.
fn two_visitors(waits: bool) {
    loom::model(move || {
        let bulkhead = room_for_one();
        let inside = Arc::new(AtomicU32::new(0));
        let visit = |bulkhead: Bulkhead, inside: Arc<AtomicU32>, waits: bool| {
            move || {
                let visit = |permit: resilience_core::bulkhead::Permit<'_>| {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                };
                if waits {
                    // Looks, and goes away when it is not let in at once.
                    let mut acquiring = Box::pin(bulkhead.acquire_async(LONG));
                    if let Some(permit) = look(&mut acquiring, Waker::noop()) {
                        visit(permit);
                    }
                } else if let Ok(permit) = bulkhead.try_acquire() {
                    visit(permit);
                }
            }
        };
        let other = thread::spawn(visit(bulkhead.clone(), inside.clone(), true));
        visit(bulkhead.clone(), inside, waits)();
        other.join().unwrap();
        let statistics = bulkhead.statistics();
        assert_eq!((statistics.in_flight, statistics.waiting), (0, 0));
        assert!(bulkhead.try_acquire().is_ok(), "the room came back");
    });
}

#[test]
fn a_bulkhead_never_lets_more_in_than_it_has_room_for() {
    two_visitors(false);
    two_visitors(true);
}

#[test]
fn a_permit_released_while_a_waiter_is_dropped_goes_to_the_next() {
    loom::model(|| {
        let bulkhead = room_for_one();
        let permit = bulkhead.try_acquire_owned().unwrap();
        let first_in_queue = bulkhead.clone();
        let mut gone = Box::pin(async move { first_in_queue.acquire_async(LONG).await.map(drop) });
        assert!(look(&mut gone, Waker::noop()).is_none());
        let bell = std::sync::Arc::new(Bell::default());
        let mut next = Box::pin(bulkhead.acquire_async(LONG));
        assert!(look(&mut next, &Waker::from(bell.clone())).is_none());
        let dropping = thread::spawn(move || drop(gone));
        drop(permit);
        dropping.join().unwrap();
        assert!(bell.0.load(std::sync::atomic::Ordering::SeqCst), "the next was woken");
        drop(look(&mut next, Waker::noop()).expect("the permit went to the next"));
        let statistics = bulkhead.statistics();
        assert_eq!((statistics.in_flight, statistics.waiting), (0, 0));
    });
}

#[test]
fn whoever_looks_in_vain_is_woken_when_the_room_is_free() {
    loom::model(|| {
        let bulkhead = room_for_one();
        let permit = bulkhead.try_acquire_owned().unwrap();
        let leaving = thread::spawn(move || drop(permit));
        let bell = std::sync::Arc::new(Bell::default());
        let mut acquiring = Box::pin(bulkhead.acquire_async(LONG));
        let entered = look(&mut acquiring, &Waker::from(bell.clone()));
        leaving.join().unwrap();
        if entered.is_none() {
            assert!(bell.0.load(std::sync::atomic::Ordering::SeqCst), "nobody said that the room is free");
            assert!(look(&mut acquiring, Waker::noop()).is_some());
        }
    });
}

#[test]
fn nobody_overtakes_who_waits_while_the_room_is_handed_over() {
    loom::model(|| {
        let bulkhead = room_for_one();
        let permit = bulkhead.try_acquire_owned().unwrap();
        let mut waiting = Box::pin(bulkhead.acquire_async(LONG));
        assert!(look(&mut waiting, Waker::noop()).is_none());
        let leaving = thread::spawn(move || drop(permit));
        assert!(bulkhead.try_acquire().is_err(), "overtaken");
        leaving.join().unwrap();
        assert!(look(&mut waiting, Waker::noop()).is_some());
    });
}
