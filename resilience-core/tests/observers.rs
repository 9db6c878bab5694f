//! Observers: they may call back, they may panic, and the call they hear about goes on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use resilience_core::{BreakerState, CircuitBreaker, Clock, Event, Observers, Pipeline, RateLimiter, Registry};

#[test]
fn an_observer_may_call_back_into_the_policies_it_hears_of() {
    let (clock, time) = Clock::manual();
    let policies: Arc<OnceLock<(CircuitBreaker, RateLimiter)>> = Arc::default();
    let (seen, inside) = (Arc::new(AtomicU32::new(0)), AtomicBool::new(false));
    let (theirs, count) = (Arc::clone(&policies), Arc::clone(&seen));
    let observers = Observers::new().with(Arc::new(move |_: &Event<'_>| {
        // What it does makes events of its own; one level of them is enough.
        if inside.swap(true, Ordering::SeqCst) {
            return;
        }
        let (breaker, limiter) = theirs.get().expect("set before the first event");
        let before = breaker.statistics().state;
        drop(breaker.try_acquire());
        breaker.force_open();
        breaker.disable();
        breaker.reset();
        assert!(limiter.try_acquire(u32::MAX).is_err());
        assert!(limiter.statistics().rejected > 0);
        if before != BreakerState::Closed {
            breaker.force_open();
        }
        count.fetch_add(1, Ordering::SeqCst);
        inside.store(false, Ordering::SeqCst);
    }));
    let breaker =
        CircuitBreaker::builder("b").consecutive_failures(1).clock(clock.clone()).observers(observers.clone());
    let limiter = RateLimiter::builder("l").burst(1).clock(clock).observers(observers);
    let (breaker, limiter) = (breaker.build().unwrap(), limiter.build().unwrap());
    policies.set((breaker.clone(), limiter.clone())).expect("set once");

    // Opens, refuses, probes, closes: each told while a call is settled or admitted.
    let down = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused));
    assert!(breaker.call(down).is_err());
    assert_eq!((seen.load(Ordering::SeqCst), breaker.state()), (1, BreakerState::ForcedOpen));
    assert!(breaker.try_acquire().is_err());
    time.advance(Duration::from_secs(60));
    limiter.try_acquire(1).unwrap();
    assert!(limiter.try_acquire(1).is_err());
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[test]
fn an_observer_that_panics_takes_no_call_down_not_even_one_that_panics_itself() {
    let heard = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |_: &Event<'_>| {
        count.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose: a broken observer");
    }));
    let pipeline = Pipeline::builder("t").observers(observers).build().unwrap();
    let call = || pipeline.call(|| -> io::Result<()> { panic!("on purpose: a broken operation") });
    let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("the operation's own panic reaches the caller");
    assert_eq!(panic.downcast_ref(), Some(&"on purpose: a broken operation"));
    assert_eq!(pipeline.call(|| Ok::<_, io::Error>(7)).unwrap(), 7);
    assert_eq!(heard.load(Ordering::SeqCst), 1, "it was heard once and removed");
}

#[test]
fn an_observer_of_a_registry_may_look_into_the_registry() {
    let registry: Arc<OnceLock<Registry>> = Arc::default();
    let theirs = Arc::clone(&registry);
    let totals = Arc::new(AtomicU32::new(0));
    let sum = Arc::clone(&totals);
    let observers = Observers::new().with(Arc::new(move |_: &Event<'_>| {
        let total = theirs.get().expect("set before the first event").snapshot().errors.total;
        sum.fetch_add(u32::try_from(total).expect("a small number"), Ordering::SeqCst);
    }));
    registry.set(Registry::new(Clock::system(), observers)).expect("set once");
    let error = io::Error::from(io::ErrorKind::TimedOut);
    let registry = registry.get().expect("set above");
    registry.handle_error("store", "read", &error);
    registry.handle_error("store", "read", &error);
    assert_eq!(totals.load(Ordering::SeqCst), 1 + 2, "each event comes after its error was counted");
}
