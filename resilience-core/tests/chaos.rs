//! Chaos through its public interface. In a release build it has to be allowed: all but one of these do.
#![cfg(not(resilience_loom))]

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::chaos::{ChaosBuilder, ChaosStatistics};
use resilience_core::{
    BreakerState, Category, Chaos, CircuitBreaker, Class, Classify, Clock, Error, ErrorKind, Event, ManualClock,
    Observers, Outcome, Pipeline, Reason, Retry, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn chaos() -> ChaosBuilder {
    Chaos::builder("c").allow_in_release(true).seed(42)
}

fn network() -> Class {
    Class::of(Category::Network)
}

/// Which of the next calls fail.
fn failing(chaos: &Chaos, calls: usize) -> Vec<usize> {
    (0..calls).filter(|_| chaos.call(|| Ok::<_, io::Error>(())).is_err()).collect()
}

/// What observers hear, as text.
fn heard() -> (Observers, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        let Event::Notice { component, action, resource, severity, detail, .. } = event else { return };
        let text = format!("{component} {resource} {action} ({severity}) {detail}");
        sink.lock().unwrap().push(text.trim_end().to_owned());
    }));
    (observers, heard)
}

#[test]
fn a_seed_decides_which_calls_fail_and_how_many() {
    let of = |seed| chaos().fault(0.1, network()).seed(seed).build().unwrap();
    assert_eq!(of(42).seed(), 42);
    let first = failing(&of(42), 10_000);
    assert_eq!(first, failing(&of(42), 10_000));
    assert_ne!(first, failing(&of(43), 10_000));
    insta::assert_snapshot!(format!("{}: {:?}", first.len(), &first[..5]), @"1024: [10, 24, 27, 39, 44]");
}

#[test]
fn without_a_seed_it_takes_another_one_each_time_and_says_which() {
    let of = || Chaos::builder("c").allow_in_release(true).fault(0.5, network()).build().unwrap();
    let (one, two) = (of(), of());
    assert_ne!(one.seed(), two.seed());
    let again = chaos().seed(one.seed()).fault(0.5, network()).build().unwrap();
    assert_eq!(failing(&one, 100), failing(&again, 100));
}

#[test]
fn kinds_are_independent_and_a_higher_rate_hits_the_same_calls_and_more() {
    let clock = || ManualClock::auto_advancing().clock();
    let alone = failing(&chaos().fault(0.2, network()).build().unwrap(), 1_000);
    let slow = chaos().fault(0.2, network()).latency(0.7, SECOND).behaviour(0.3, || ()).clock(clock()).build().unwrap();
    assert_eq!(failing(&slow, 1_000), alone);
    let more = failing(&chaos().fault(0.4, network()).build().unwrap(), 1_000);
    assert!(more.len() > alone.len() && alone.iter().all(|call| more.contains(call)));
    let ChaosStatistics { calls, behaviours, latencies, faults, outcomes, .. } = slow.statistics();
    insta::assert_snapshot!(format!("{calls} {behaviours} {latencies} {faults} {outcomes}"), @"1000 262 705 187 0");
}

proptest! {
    /// Whatever the seed: about as many as the rate says (six standard deviations, and six for the rare), none at 0, all
    /// at 1.
    #[test]
    fn the_share_that_is_injected_is_the_rate(seed in any::<u64>(), rate in 0.0_f64..=1.0) {
        const CALLS: u32 = 2_000;
        let count = |rate| {
            let chaos = chaos().seed(seed).fault(rate, network()).build().unwrap();
            let failed = failing(&chaos, CALLS as usize).len();
            assert_eq!(chaos.statistics().faults, failed as u64);
            failed
        };
        prop_assert_eq!(count(0.0), 0);
        prop_assert_eq!(count(1.0), CALLS as usize);
        let calls = f64::from(CALLS);
        let (expected, deviation) = (calls * rate, (calls * rate * (1.0 - rate)).sqrt());
        let failed = count(rate) as f64;
        prop_assert!((failed - expected).abs() <= 6.0 * deviation + 6.0, "{} of {} at {}", failed, CALLS, rate);
    }

    #[test]
    fn building_never_panics(rate in any::<f64>(), seconds in any::<u64>(), other in any::<f64>()) {
        let built = chaos().latency(rate, Duration::from_secs(seconds)).fault(other, network()).behaviour(rate, || ()).build();
        let valid = (0.0..=1.0).contains(&rate) && (0.0..=1.0).contains(&other);
        prop_assert_eq!(built.is_ok(), valid && (1..=316_224_000).contains(&seconds));
        let outcome = chaos().build().unwrap().with_outcome(rate, || Ok::<_, ()>(())).map(|_| ());
        prop_assert_eq!(outcome.is_ok(), (0.0..=1.0).contains(&rate));
    }
}

#[test]
fn a_fault_takes_the_operations_place_and_says_that_it_was_injected() {
    let chaos = chaos().fault(1.0, network().retry_after(SECOND)).build().unwrap();
    let error = chaos.call(|| -> Result<(), io::Error> { panic!("must not run") }).unwrap_err();
    assert_eq!(error.class(), network().retry_after(SECOND));
    assert_eq!(error.to_string(), "chaos `c` injected a network fault; retry in 1.0s");
    let ErrorKind::Rejected(rejection) = error.kind else { panic!("a fault is a refusal") };
    assert_eq!((rejection.reason.as_str(), error.attempts), ("injected", 0));
    assert_eq!(rejection.outcome(), Outcome::Failure(network().retry_after(SECOND)));
    let unharmed = Chaos::builder("none").build().unwrap();
    let own = unharmed.call(|| Err::<(), _>("no such key")).unwrap_err();
    assert_eq!(own, Error::operation("no such key", 1));
}

#[test]
fn latency_comes_first_and_then_the_fault() {
    let time = ManualClock::auto_advancing();
    let chaos = chaos().latency(1.0, SECOND).fault(1.0, network()).clock(time.clock()).build().unwrap();
    assert_eq!(failing(&chaos, 3).len(), 3);
    assert_eq!(time.elapsed(), SECOND * 3);
}

#[test]
fn an_async_call_waits_without_a_thread_and_can_be_dropped() {
    let (clock, time) = Clock::manual();
    let chaos = chaos().latency(1.0, SECOND).clock(clock).build().unwrap();
    let poll = |call: std::pin::Pin<&mut dyn Future<Output = Result<u8, Error<()>>>>| {
        call.poll(&mut Context::from_waker(Waker::noop()))
    };
    let started = AtomicU32::new(0);
    let operation = || async {
        started.fetch_add(1, Ordering::Relaxed);
        Ok(7)
    };
    let mut call = pin!(chaos.call_async(operation()));
    assert!(poll(call.as_mut()).is_pending());
    {
        let mut dropped = pin!(chaos.call_async(operation()));
        assert!(poll(dropped.as_mut()).is_pending());
    }
    time.advance(SECOND);
    assert_eq!(poll(call.as_mut()), Poll::Ready(Ok(7)));
    assert_eq!((started.load(Ordering::Relaxed), chaos.statistics().latencies), (1, 2));
}

#[test]
fn results_can_be_made_up_where_no_fault_is_injected() {
    let chaos = chaos().fault(0.5, network()).build().unwrap();
    let wrong = chaos.with_outcome(1.0, || Ok::<_, io::Error>(503)).unwrap();
    let answers: Vec<_> = (0..100).map(|_| wrong.call(|| panic!("must not run")).ok()).collect();
    let (faults, made_up) = (chaos.statistics().faults, chaos.statistics().outcomes);
    assert!(faults > 0 && made_up > 0);
    assert_eq!((faults + made_up, chaos.statistics().calls), (100, 100));
    assert_eq!(answers.iter().filter(|answer| **answer == Some(503)).count() as u64, made_up);
    let sometimes = Chaos::builder("c").allow_in_release(true).seed(42).build().unwrap();
    let sometimes = sometimes.with_outcome(0.25, || Ok::<_, io::Error>(503)).unwrap();
    let right = (0..1_000).filter(|_| sometimes.call(|| Ok(200)).unwrap() == 200).count();
    insta::assert_snapshot!(right, @"783");
}

#[test]
fn an_async_fault_and_a_made_up_result_never_poll_the_operation() {
    let run = |call: std::pin::Pin<&mut dyn Future<Output = Result<u8, Error<()>>>>| {
        let Poll::Ready(result) = call.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("nothing to wait for")
        };
        result
    };
    let never = || async { panic!("must not run") };
    let made_up = chaos().build().unwrap().with_outcome(1.0, || Err::<u8, ()>(())).unwrap();
    assert_eq!(run(pin!(made_up.call_async(never()))), Err(Error::operation((), 0)));
    let fault = chaos().fault(1.0, network()).build().unwrap();
    let error = run(pin!(fault.call_async(never()))).unwrap_err();
    assert_eq!(error.as_rejection().unwrap().reason, Reason::Injected { class: network() });
}

#[test]
fn a_behaviour_runs_before_the_call_and_may_panic_or_use_the_chaos_itself() {
    let seen = Arc::new(AtomicU32::new(0));
    let itself: Arc<Mutex<Option<Chaos>>> = Arc::default();
    let (count, own) = (Arc::clone(&seen), Arc::clone(&itself));
    let behaviour = move || {
        let chaos = own.lock().unwrap().clone().unwrap();
        chaos.set_enabled(false);
        assert!(count.fetch_add(1, Ordering::Relaxed) > 0, "on purpose");
    };
    let chaos = chaos().behaviour(1.0, behaviour).build().unwrap();
    *itself.lock().unwrap() = Some(chaos.clone());
    assert!(catch_unwind(AssertUnwindSafe(|| chaos.call(|| Ok::<_, ()>(())))).is_err());
    assert!(!chaos.is_enabled());
    chaos.set_enabled(true);
    let inside = chaos.call(|| Ok::<_, ()>(seen.load(Ordering::Relaxed)));
    assert_eq!((inside, chaos.statistics().behaviours), (Ok(2), 2));
}

#[test]
fn what_is_disabled_neither_harms_nor_counts_nor_draws() {
    let of = || chaos().fault(0.5, network()).enabled(false).build().unwrap();
    let (one, two) = (of(), of());
    assert!(failing(&one, 100).is_empty() && !one.is_enabled());
    assert_eq!(one.statistics(), ChaosStatistics::default());
    one.set_enabled(true);
    two.clone().set_enabled(true);
    assert_eq!(failing(&one, 100), failing(&two, 100), "the sequence starts with the first call that could be harmed");
}

#[test]
fn observers_hear_of_the_switch_once_and_of_every_injection() {
    let (observers, heard) = heard();
    let time = ManualClock::auto_advancing();
    let chaos = chaos().latency(1.0, SECOND).behaviour(1.0, || ()).observers(observers.clone()).clock(time.clock());
    let chaos = chaos.build().unwrap();
    chaos.set_enabled(true);
    chaos.call(|| Ok::<_, ()>(())).unwrap();
    chaos.set_enabled(false);
    chaos.set_enabled(false);
    let other = self::chaos().fault(1.0, network()).observers(observers.clone()).build().unwrap();
    assert!(other.call(|| Ok::<_, ()>(())).is_err());
    let made_up = self::chaos().observers(observers).build().unwrap().with_outcome(1.0, || Ok::<_, ()>(())).unwrap();
    made_up.call(|| Ok(())).unwrap();
    insta::assert_snapshot!(heard.lock().unwrap().join("\n"), @r"
    chaos c enabled (high) behaviour at a rate of 1, 1s at a rate of 1; seed 42
    chaos c behaviour_injected (low)
    chaos c latency_injected (low) 1s
    chaos c disabled (low)
    chaos c enabled (high) network fault at a rate of 1; seed 42
    chaos c fault_injected (low) network
    chaos c enabled (high) nothing by itself; seed 42
    chaos c outcome_injected (low)
    ");
}

#[cfg(not(debug_assertions))]
#[test]
fn a_release_build_is_not_harmed_unless_it_asked_for_it() {
    let (observers, heard) = heard();
    let chaos = Chaos::builder("c").fault(1.0, network()).observers(observers).build().unwrap();
    chaos.set_enabled(true);
    assert!(!chaos.is_enabled() && failing(&chaos, 100).is_empty());
    assert_eq!(heard.lock().unwrap().concat().matches("refused").count(), 2);
}

#[cfg(debug_assertions)]
#[test]
fn a_debug_build_need_not_ask() {
    let chaos = Chaos::builder("c").fault(1.0, network()).build().unwrap();
    assert!(chaos.is_enabled());
    assert_eq!(failing(&chaos, 100).len(), 100);
}

#[test]
fn inside_a_pipeline_a_fault_is_retried_and_counts_as_a_real_one_of_its_class_does() {
    let run = |class| {
        let time = ManualClock::auto_advancing();
        let chaos = chaos().fault(1.0, class).build().unwrap();
        let breaker = CircuitBreaker::builder("b").consecutive_failures(3).clock(time.clock()).build().unwrap();
        let retry = Retry::builder().max_attempts(3).build().unwrap();
        let pipeline = Pipeline::builder("p").retry(retry).circuit_breaker(breaker.clone()).clock(time.clock());
        let pipeline = pipeline.build().unwrap();
        let error = pipeline.call(|| chaos.call(|| Ok::<_, io::Error>(()))).unwrap_err();
        (error.attempts, error.stopped.unwrap(), breaker.state())
    };
    assert_eq!(run(network()), (3, Stopped::AttemptsExhausted, BreakerState::Open));
    // Not retried, and the caller's own fault: the breaker stays closed.
    assert_eq!(run(Class::of(Category::Validation)), (1, Stopped::NotRetryable, BreakerState::Closed));
}

#[test]
fn inside_a_pipeline_latency_counts_towards_the_time_limit() {
    let (clock, time) = Clock::manual();
    let chaos = chaos().latency(1.0, SECOND * 10).clock(clock.clone()).build().unwrap();
    let pipeline = Pipeline::builder("p").timeout(SECOND).clock(clock).build().unwrap();
    let mut call = pin!(pipeline.call_async(|| chaos.call_async(async { Ok::<_, io::Error>(()) })));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    time.advance(SECOND);
    let Poll::Ready(Err(error)) = call.as_mut().poll(&mut cx) else { panic!("its time is over") };
    assert!(error.is_timed_out());
}

#[test]
fn many_threads_share_one_sequence() {
    let chaos = chaos().fault(0.3, network()).build().unwrap();
    let failed: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| failing(&chaos, 1_000).len())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let alone = self::chaos().fault(0.3, network()).build().unwrap();
    assert_eq!(failed, failing(&alone, 4_000).len());
    assert_eq!((chaos.statistics().calls, chaos.statistics().faults), (4_000, failed as u64));
}

#[test]
fn values_that_cannot_be_used_are_refused() {
    let of = |builder: ChaosBuilder| builder.build().unwrap_err().to_string();
    insta::assert_snapshot!(of(chaos().latency(-0.1, SECOND)), @"`c.latency_rate` is -0.1; allowed: 0 to 1");
    insta::assert_snapshot!(of(chaos().latency(0.1, Duration::ZERO)), @"`c.latency` is 0ns; allowed: more than 0, at most 10 years");
    insta::assert_snapshot!(of(chaos().fault(f64::NAN, network())), @"`c.fault_rate` is NaN; allowed: 0 to 1");
    insta::assert_snapshot!(of(chaos().behaviour(1.5, || ())), @"`c.behaviour_rate` is 1.5; allowed: 0 to 1");
    insta::assert_snapshot!(of(Chaos::builder("")), @r#"`name` is ""; allowed: 1 to 128 of A-Z a-z 0-9 _ - . : /"#);
    let refused = chaos().build().unwrap().with_outcome(f64::INFINITY, || Ok::<_, ()>(())).unwrap_err();
    insta::assert_snapshot!(refused, @"`c.outcome_rate` is inf; allowed: 0 to 1");
}
