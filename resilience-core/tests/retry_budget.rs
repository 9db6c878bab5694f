//! The retry budget: its bound, over one layer and several, and what callers and operators see of it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::retry::{RetryBudgetBuilder, RetryDecision};
use resilience_core::{
    Backoff, CallOptions, Category, Class, Clock, Error, Hedge, Jitter, ManualClock, Pipeline, Retry, RetryBudget,
    Retryable, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn reset<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionReset.into())
}

/// Three attempts without pauses, under `budget` if any.
fn layer(budget: Option<&RetryBudget>, clock: &Clock) -> Pipeline {
    let retry = Retry::builder().backoff(Backoff::fixed(Duration::ZERO)).jitter(Jitter::None);
    let retry = match budget {
        Some(budget) => retry.budget(budget.clone()),
        None => retry,
    };
    Pipeline::builder("layer").retry(retry.build().unwrap()).clock(clock.clone()).build().unwrap()
}

fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing has to be waited for"),
    }
}

/// One call through nested layers, blocking.
fn nested(layers: &[Pipeline], operation: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    let Some((outermost, inner)) = layers.split_first() else { return operation() };
    let result = outermost.call(|| nested(inner, operation));
    result.map_err(|error| error.into_operation().expect("nothing but retries is in the way"))
}

#[test]
fn a_spent_budget_stops_the_call_with_its_own_error() {
    let (clock, _) = Clock::manual();
    let budget = RetryBudget::builder().ratio(0.0).min_per_second(0.1).build().unwrap();
    let pipeline = layer(Some(&budget), &clock);
    let call = || pipeline.call(|| Err::<(), _>(io::Error::new(io::ErrorKind::ConnectionReset, "link down")));
    let error = call().unwrap_err();
    assert_eq!((error.attempts, error.stopped), (2, Some(Stopped::BudgetSpent)), "one retry in ten seconds");
    assert_eq!(error.to_string(), "link down (after 2 attempts: the retry budget is spent)");
    assert_eq!(error.into_operation().unwrap().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(call().unwrap_err().attempts, 1);
}

#[test]
fn calls_earn_their_share_of_retries_and_lose_it_when_the_window_has_passed() {
    let (clock, time) = Clock::manual();
    let budget = RetryBudget::builder().ratio(0.2).min_per_second(0.0).build().unwrap();
    let pipeline = layer(Some(&budget), &clock);
    for _ in 0..49 {
        pipeline.call(|| Ok::<_, io::Error>(())).unwrap();
    }
    let available = || budget.statistics(clock.now()).available;
    assert_eq!(available(), 9);
    time.advance(SECOND * 10);
    assert_eq!(available(), 9, "the window is never shorter than asked");
    assert_eq!(pipeline.call(reset::<()>).unwrap_err().attempts, 3);
    assert_eq!(available(), 8, "the fiftieth call earned the tenth retry, two were made");
    time.advance(SECOND);
    assert_eq!(available(), 0);
    assert_eq!(pipeline.call(reset::<()>).unwrap_err().stopped, Some(Stopped::BudgetSpent));
}

#[test]
fn the_floor_is_there_from_the_start_and_comes_back_after_a_window() {
    let (clock, time) = Clock::manual();
    let budget = RetryBudget::builder().ratio(0.0).min_per_second(3.0).window(SECOND * 2).build().unwrap();
    let pipeline = layer(Some(&budget), &clock);
    let retries = |calls: u32| (0..calls).map(|_| pipeline.call(reset::<()>).unwrap_err().attempts - 1).sum::<u32>();
    assert_eq!(retries(100), 6);
    time.advance(SECOND);
    assert_eq!(retries(100), 0);
    time.advance(SECOND * 2);
    assert_eq!(retries(100), 6);
}

#[test]
fn a_long_idle_time_leaves_neither_debt_nor_riches() {
    let (clock, time) = Clock::manual();
    let budget = RetryBudget::default();
    for _ in 0..3 {
        assert_eq!(budget.statistics(clock.now()).available, 100, "ten per second over ten seconds");
        let pipeline = layer(Some(&budget), &clock);
        for _ in 0..1_000 {
            pipeline.call(reset::<()>).unwrap_err();
        }
        assert_eq!(budget.statistics(clock.now()).available, 0);
        time.advance(SECOND * 86_400 * 365 * 20);
    }
}

#[test]
fn clones_and_faces_share_one_budget() {
    let (clock, _) = Clock::manual();
    let budget = RetryBudget::builder().ratio(0.0).min_per_second(0.3).build().unwrap();
    let (one, two) = (layer(Some(&budget), &clock), layer(Some(&budget.clone()), &clock));
    assert_eq!(one.call(reset::<()>).unwrap_err().attempts, 3);
    assert_eq!(ready(two.call_async(|| async { reset::<()>() })).unwrap_err().attempts, 2);
    let retry = Retry::builder().budget(budget.clone()).clock(clock.clone()).build().unwrap();
    assert_eq!(reset::<()>.retry(&retry).call().unwrap_err().attempts, 1);
    let statistics = budget.statistics(clock.now());
    assert_eq!((statistics.calls, statistics.retries, statistics.available), (3, 3, 0));
    assert_eq!((statistics.granted, statistics.refused), (3, 2));
}

#[test]
fn a_retry_that_something_else_forbids_takes_nothing_from_the_budget() {
    let (clock, _) = Clock::manual();
    let budget = RetryBudget::default();
    let retry = Retry::builder().budget(budget.clone()).max_elapsed(SECOND).backoff(Backoff::fixed(SECOND * 2));
    let retry = retry.jitter(Jitter::None).build().unwrap();
    let now = clock.now();
    let refused = [
        (Class::of(Category::Validation), None, Stopped::NotRetryable),
        (Class::of(Category::Network).retry_after(SECOND * 3_600), None, Stopped::RetryAfterTooLong),
        (Class::of(Category::Network), None, Stopped::ElapsedExceeded),
    ];
    for (class, deadline, expected) in refused {
        let decision = retry.decide(&mut retry.start(now), &class, now, deadline);
        assert_eq!(decision, RetryDecision::Stop(expected));
    }
    let statistics = budget.statistics(now);
    assert_eq!((statistics.granted, statistics.refused), (0, 0));
}

#[test]
fn three_layers_make_27_calls_of_one_without_a_budget_and_no_more_than_it_allows_with_one() {
    let (clock, _) = Clock::manual();
    let run = |budget: Option<&RetryBudget>, calls: u32| {
        let layers = [layer(budget, &clock), layer(budget, &clock), layer(budget, &clock)];
        let mut attempts = 0;
        for _ in 0..calls {
            let failed = nested(&layers, &mut || {
                attempts += 1;
                reset()
            });
            assert!(failed.is_err());
        }
        attempts
    };
    assert_eq!(run(None, 1), 27);
    let budget = RetryBudget::builder().ratio(0.2).min_per_second(0.0).build().unwrap();
    assert_eq!(run(Some(&budget), 1_000), 1_200);
    assert_eq!(budget.statistics(clock.now()).calls, 1_000, "only the outermost calls count");
}

#[test]
fn async_layers_keep_the_same_bound() {
    let (clock, _) = Clock::manual();
    let budget = RetryBudget::builder().ratio(0.2).min_per_second(0.0).build().unwrap();
    let [outer, middle, inner] = std::array::from_fn(|_| layer(Some(&budget), &clock));
    let attempts = std::cell::Cell::new(0);
    for _ in 0..1_000 {
        let call = outer.call_async(async || {
            let call = middle.call_async(async || {
                let call = inner.call_async(async || {
                    attempts.set(attempts.get() + 1);
                    reset::<()>()
                });
                call.await.map_err(Error::into_operation).map_err(Result::unwrap)
            });
            call.await.map_err(Error::into_operation).map_err(Result::unwrap)
        });
        assert!(ready(call).is_err());
    }
    assert_eq!(attempts.get(), 1_200);
}

#[test]
fn a_panic_within_a_call_does_not_make_the_next_one_part_of_it() {
    let (clock, _) = Clock::manual();
    let budget = RetryBudget::default();
    let pipeline = layer(Some(&budget), &clock);
    let panicking = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = pipeline.call(|| -> io::Result<()> { panic!("a bug in the operation") });
    }));
    assert!(panicking.is_err());
    pipeline.call(|| Ok::<_, io::Error>(())).unwrap();
    assert_eq!(budget.statistics(clock.now()).calls, 2);
}

#[test]
fn values_that_cannot_be_used_are_refused_with_their_names() {
    let message = |builder: RetryBudgetBuilder| builder.build().unwrap_err().to_string();
    let new = RetryBudget::builder;
    insta::assert_snapshot!(message(new().ratio(f64::NAN)), @"`retry_budget.ratio` is NaN; allowed: 0 to 1000");
    insta::assert_snapshot!(message(new().min_per_second(-1.0)), @"`retry_budget.min_per_second` is -1; allowed: 0 to 1000000");
    insta::assert_snapshot!(message(new().window(Duration::ZERO)), @"`retry_budget.window` is 0ns; allowed: 1s to 60s");
}

proptest! {
    #[test]
    fn no_configuration_makes_it_panic(ratio in any::<f64>(), floor in any::<f64>(), window in any::<Duration>(),
                                       times in proptest::collection::vec(any::<u64>(), 1..20)) {
        for budget in [RetryBudget::builder().ratio(ratio).min_per_second(floor).window(window).build(),
                       RetryBudget::builder().ratio(ratio.abs() % 1_000.0).build()].into_iter().flatten() {
            let retry = Retry::builder().budget(budget.clone()).build().unwrap();
            for &nanos in &times {
                let now = resilience_core::Instant::from_nanos(nanos);
                let _ = retry.decide(&mut retry.start(now), &Class::of(Category::Network), now, None);
                let _ = budget.statistics(now);
            }
        }
    }

    /// Any mix of calls, failures and pauses, through one to three layers that share the budget: from any moment on,
    /// attempts ≤ (1 + ratio) × calls + floor × (time + window), the calls being those since one window earlier.
    #[test]
    fn attempts_never_exceed_calls_and_budget(
        layers in 1_usize..=3, ratio in 0.0_f64..1.0, floor in 0.0_f64..3.0, window in 1_u64..5, start in 0_u64..100_000,
        steps in proptest::collection::vec((1_u32..30, 0_u8..=100, 0_u64..4_000), 1..40),
    ) {
        let time = ManualClock::new();
        let clock = time.clock();
        let window = Duration::from_secs(window);
        time.advance(Duration::from_millis(start));
        let budget = RetryBudget::builder().ratio(ratio).min_per_second(floor).window(window).build().unwrap();
        let layers: Vec<_> = (0..layers).map(|_| layer(Some(&budget), &clock)).collect();
        let mut random = fastrand::Rng::with_seed(start);
        // When, how many calls, how many attempts.
        let mut history: Vec<(Duration, u32, u32)> = Vec::new();
        for (calls, failing, pause) in steps {
            let mut attempts = 0;
            for _ in 0..calls {
                let _ = nested(&layers, &mut || {
                    attempts += 1;
                    if random.u8(0..100) < failing { reset() } else { Ok(()) }
                });
            }
            history.push((time.elapsed(), calls, attempts));
            time.advance(Duration::from_millis(pause));
        }
        for (index, &(from, ..)) in history.iter().enumerate() {
            let (mut calls, mut retries) = (0, 0);
            for &(_, earlier, _) in history[..index].iter().filter(|(at, ..)| *at + window * 11 / 10 >= from) {
                calls += earlier;
            }
            for &(at, more, attempts) in &history[index..] {
                calls += more;
                retries += attempts - more;
                let allowed = ratio * f64::from(calls) + floor * (at.saturating_sub(from) + window).as_secs_f64();
                prop_assert!(f64::from(retries) <= allowed + 1e-6, "{retries} retries, {allowed} allowed, {from:?} to {at:?}");
            }
        }
    }
}

#[test]
fn a_budget_in_between_and_a_hedge_do_not_hide_the_outer_one() {
    let clock = ManualClock::auto_advancing().clock();
    let budget = || RetryBudget::builder().build().unwrap();
    let (one, two) = (budget(), budget());
    let layer = |name: &'static str, budget: &RetryBudget| {
        let retry = Retry::builder().budget(budget.clone()).build().unwrap();
        Pipeline::builder(name).retry(retry).clock(clock.clone()).build().unwrap()
    };
    let (outer, middle, inner) = (layer("outer", &one), layer("middle", &two), layer("inner", &one));
    let call = || outer.call(|| middle.call(|| inner.call(|| Ok::<_, std::io::Error>(()))));
    call().unwrap();
    assert_eq!(one.statistics(clock.now()).calls, 1);
    assert_eq!(two.statistics(clock.now()).calls, 1);

    let hedged = |name: &'static str, budget: &RetryBudget| {
        let hedge = Hedge::builder().budget(budget.clone()).build().unwrap();
        Pipeline::builder(name).hedge(hedge).clock(clock.clone()).build().unwrap()
    };
    let shared = budget();
    let (outer, inner) = (hedged("outer", &shared), hedged("inner", &shared));
    let call = outer.call_async(|| inner.call_async(|| async { Ok::<_, std::io::Error>(()) }));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call).unwrap();
    assert_eq!(shared.statistics(clock.now()).calls, 1);
}

#[test]
fn a_call_that_comes_too_late_earns_no_retry() {
    let (clock, time) = Clock::manual();
    let budget = RetryBudget::builder().build().unwrap();
    let retry = Retry::builder().budget(budget.clone()).build().unwrap();
    let pipeline = Pipeline::builder("p").retry(retry).clock(clock.clone()).build().unwrap();
    let options = CallOptions::new().deadline(clock.now());
    time.advance(Duration::from_secs(1));
    assert!(pipeline.call_with(options, |_| Ok::<_, std::io::Error>(())).is_err());
    assert_eq!(budget.statistics(clock.now()).calls, 0);
}
