//! Chaos and load shedding in a pipeline: injected harm is taken for the dependency's own, and what matters least goes
//! first.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use resilience_core::chaos::ChaosBuilder;
use resilience_core::{
    Backoff, BreakerState, CallOptions, Category, Chaos, CircuitBreaker, Class, Clock, Jitter, LoadShedder,
    ManualClock, Pipeline, Priority, Reason, Retry, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn chaos(clock: &Clock) -> ChaosBuilder {
    Chaos::builder("drill").seed(1).allow_in_release(true).clock(clock.clone())
}

fn network() -> Class {
    Class::of(Category::Network)
}

#[test]
fn an_injected_fault_is_retried_opens_the_breaker_and_counts_as_an_attempt() {
    let time = ManualClock::auto_advancing();
    let clock = time.clock();
    let breaker = CircuitBreaker::builder("b").consecutive_failures(3).clock(clock.clone()).build().unwrap();
    let pipeline = Pipeline::builder("p")
        .retry(Retry::builder().max_attempts(3).build().unwrap())
        .circuit_breaker(breaker.clone())
        .chaos(chaos(&clock).fault(1.0, network()).build().unwrap())
        .clock(clock)
        .build()
        .unwrap();
    let error = pipeline.call(|| -> io::Result<()> { unreachable!("the fault comes in its place") }).unwrap_err();
    assert_eq!(error.as_rejection().unwrap().reason, Reason::Injected { class: network() });
    assert_eq!((error.attempts, error.stopped), (3, Some(Stopped::AttemptsExhausted)));
    assert_eq!((breaker.state(), breaker.statistics().failures), (BreakerState::Open, 3));
}

#[test]
fn injected_latency_runs_into_the_attempts_limit() {
    let time = ManualClock::auto_advancing();
    let clock = time.clock();
    let pipeline = Pipeline::builder("p")
        .retry(Retry::builder().max_attempts(2).backoff(Backoff::fixed(SECOND)).jitter(Jitter::None).build().unwrap())
        .timeout(SECOND * 2)
        .chaos(chaos(&clock).latency(1.0, SECOND * 60).build().unwrap())
        .clock(clock.clone())
        .build()
        .unwrap();
    let call = pipeline.call_async(|| async { Ok::<_, io::Error>(()) });
    let error = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call).unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!((error.attempts, time.elapsed()), (2, SECOND * (2 + 1 + 2)));
}

#[test]
fn latency_within_the_limit_only_delays() {
    let time = ManualClock::auto_advancing();
    let clock = time.clock();
    let pipeline = Pipeline::builder("p")
        .timeout(SECOND * 5)
        .chaos(chaos(&clock).latency(1.0, SECOND).build().unwrap())
        .clock(clock.clone())
        .build()
        .unwrap();
    assert_eq!(pipeline.call(|| Ok::<_, io::Error>(time.elapsed())).unwrap(), SECOND);
}

#[test]
fn chaos_that_is_switched_off_does_nothing() {
    let (clock, _time) = Clock::manual();
    let chaos = chaos(&clock).fault(1.0, network()).enabled(false).build().unwrap();
    let pipeline = Pipeline::builder("p").chaos(chaos.clone()).clock(clock).build().unwrap();
    assert!(pipeline.call(|| Ok::<_, io::Error>(())).is_ok());
    chaos.set_enabled(true);
    assert!(pipeline.call(|| Ok::<_, io::Error>(())).is_err());
}

#[test]
fn a_behaviour_that_panics_is_the_operations_panic() {
    let (clock, _time) = Clock::manual();
    let breaker = CircuitBreaker::builder("b").clock(clock.clone()).build().unwrap();
    let pipeline = Pipeline::builder("p")
        .circuit_breaker(breaker.clone())
        .chaos(chaos(&clock).behaviour(1.0, || panic!("on purpose")).build().unwrap())
        .clock(clock)
        .build()
        .unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| pipeline.call(|| Ok::<_, io::Error>(())))).is_err());
    assert_eq!(breaker.statistics().failures, 1);
}

#[test]
fn what_must_not_run_twice_is_not_tried_again_after_a_fault() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("p")
        .retry(Retry::default())
        .chaos(chaos(&time.clock()).fault(1.0, network()).build().unwrap())
        .clock(time.clock())
        .build()
        .unwrap();
    let error = pipeline.call_with(CallOptions::new().not_idempotent(), |_| Ok::<_, io::Error>(())).unwrap_err();
    assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::NotIdempotent)));
}

#[test]
fn chaos_stands_for_the_operation_and_comes_last() {
    let (clock, _time) = Clock::manual();
    let error = Pipeline::builder("p").chaos(chaos(&clock).build().unwrap()).timeout(SECOND).build().unwrap_err();
    insta::assert_snapshot!(error, @"`p.chaos` is not the last policy; allowed: the chaos as the last policy, or before the hedge: it stands for the operation");
}

/// Calls within calls, until one is refused.
fn nest(pipeline: &Pipeline, priority: Priority, depth: u32, deepest: &Cell<u32>) {
    deepest.set(deepest.get().max(depth));
    let _refused = pipeline.call_with(CallOptions::new().priority(priority), |_| {
        nest(pipeline, priority, depth + 1, deepest);
        Ok::<_, io::Error>(())
    });
}

#[test]
fn what_matters_least_is_refused_first_and_every_place_comes_back() {
    let shedder = LoadShedder::builder("api").max_concurrent(4).build().unwrap();
    let pipeline = Pipeline::builder("p").load_shedder(shedder.clone()).build().unwrap();
    let deepest = Cell::new(0);
    let depths = [Priority::Background, Priority::Normal, Priority::Critical].map(|priority| {
        deepest.set(0);
        nest(&pipeline, priority, 0, &deepest);
        deepest.get()
    });
    assert!(depths.is_sorted() && depths[0] < depths[1] && depths[2] == 4, "{depths:?}");
    assert_eq!(shedder.statistics().in_flight, 0);
    let twice = Pipeline::builder("p").load_shedder(shedder.clone()).load_shedder(shedder).build().unwrap_err();
    insta::assert_snapshot!(twice, @"`p.load_shedder` is `api`, given twice; allowed: each load shedder once; twice, it would count every call twice");
}
