//! Configurations applied while calls are made: all or nothing, in place where that can be, and state that is kept.
#![cfg(feature = "serde")]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::circuit_breaker::Trip;
use resilience_core::config::ResilienceConfig;
use resilience_core::registry::Changes;
use resilience_core::retry::RetryDecision;
use resilience_core::{
    Backoff, BreakerState, Bulkhead, CallOptions, Category, CircuitBreaker, Class, Clock, ConfigError, Event, Hedge,
    Instant, Jitter, KeyedRateLimiter, LoadShedder, ManualClock, Observers, Pipeline, Priority, RateLimiter, Registry,
    Retry, RetryBudget, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn config(text: &str) -> ResilienceConfig {
    toml::from_str(text).unwrap()
}

fn registry(text: &str) -> (Registry, ManualClock) {
    let (clock, time) = Clock::manual();
    let registry = Registry::new(clock, Observers::new());
    registry.apply(&config(text)).unwrap();
    (registry, time)
}

fn apply(registry: &Registry, text: &str) -> Changes {
    registry.apply(&config(text)).unwrap()
}

fn refused(registry: &Registry, text: &str) -> ConfigError {
    registry.apply(&config(text)).unwrap_err()
}

fn calls_until_over(retry: &Retry, now: Instant) -> (u32, Stopped) {
    let mut progress = retry.start(now);
    for calls in 1.. {
        if let RetryDecision::Stop(why) = retry.decide(&mut progress, &Class::of(Category::Network), now, None) {
            return (calls, why);
        }
    }
    unreachable!("every retry ends")
}

const BEFORE: &str = "
    breakers.b.consecutive_failures = 1
    limiters.l = { rate = '1/s', burst = 4 }
    limiters.k = { rate = '1/s', burst = 4, max_keys = 10 }
    bulkheads.h.max_concurrent = 1
    load_shedders.s.max_concurrent = 20
    budgets.all = { ratio = 0, min_per_second = 1, window = '10s' }
    retries.r = { max_attempts = 2, budget = 'all' }
    hedges.e.after = '1s'
    pipelines.p.steps = [{ load_shedder = 's' }, { timeout = '10s' }, { retry = 'r' }, { circuit_breaker = 'b' }, { rate_limiter = 'l' }, { bulkhead = 'h' }, { hedge = 'e' }]
";

#[test]
fn a_first_configuration_adds_and_the_same_again_changes_nothing() {
    let registry = Registry::default();
    let all = [
        "breakers.b",
        "limiters.k",
        "limiters.l",
        "bulkheads.h",
        "load_shedders.s",
        "budgets.all",
        "retries.r",
        "hedges.e",
        "pipelines.p",
    ];
    let changes = apply(&registry, BEFORE);
    assert_eq!(changes.added, all);
    assert_eq!(registry.configuration(), config(BEFORE));
    registry.get::<Bulkhead>("h").unwrap().reconfigure(Bulkhead::builder("h").max_concurrent(9)).unwrap();
    let changes = apply(&registry, BEFORE);
    assert_eq!(changes.unchanged, all);
    assert_eq!((changes.added.len(), changes.changed.len(), changes.replaced.len()), (0, 0, 0));
    let by_hand = registry.get::<Bulkhead>("h").unwrap().statistics().max_concurrent;
    assert_eq!(by_hand, 9, "what the configuration does not change is left as an operator set it");
}

#[test]
fn saved_permits_stay_as_many_when_a_limiter_changes() {
    let (registry, time) = registry(BEFORE);
    let limiter: RateLimiter = registry.get("l").unwrap();
    limiter.try_acquire(3).unwrap();
    let changes =
        apply(&registry, &BEFORE.replace("l = { rate = '1/s', burst = 4 }", "l = { rate = '100/s', burst = 50 }"));
    assert_eq!(changes.changed, ["limiters.l"]);
    assert_eq!((limiter.statistics().available, limiter.statistics().burst), (1, 50));
    time.advance(Duration::from_millis(20));
    assert_eq!(limiter.statistics().available, 3);
    // To a rate that the old burst is too large for, and back.
    apply(&registry, "limiters.l = { rate = '1/3000d', burst = 1 }");
    assert_eq!(limiter.statistics().burst, 1);
    apply(&registry, "limiters.l = { rate = '4294967295/s', burst = 4294967295 }");
    assert_eq!(limiter.statistics().burst, u32::MAX);
    let fields_left_out = "limiters.l = {}";
    apply(&registry, fields_left_out);
    let by_default = RateLimiter::builder("x").build().unwrap().statistics();
    let now = limiter.statistics();
    assert_eq!((now.burst, now.refill_per_second), (by_default.burst, by_default.refill_per_second));
}

#[test]
fn calls_in_a_bulkhead_stay_counted_and_waiters_come_in_when_there_is_more_room() {
    let (registry, _time) = registry(BEFORE);
    let bulkhead: Bulkhead = registry.get("h").unwrap();
    let first = bulkhead.try_acquire().unwrap();
    let mut waiting = pin!(bulkhead.acquire_async(SECOND));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    let changes = apply(&registry, &BEFORE.replace("max_concurrent = 1", "max_concurrent = 2"));
    assert_eq!(changes.changed, ["bulkheads.h"]);
    let std::task::Poll::Ready(Ok(second)) = waiting.as_mut().poll(&mut cx) else { panic!("there is room") };
    assert_eq!(bulkhead.statistics().in_flight, 2);
    apply(&registry, BEFORE);
    drop(first);
    assert!(bulkhead.try_acquire().is_err(), "one is inside, and the maximum is one again");
    drop(second);
    assert!(bulkhead.try_acquire().is_ok());
}

#[test]
fn calls_in_a_load_shedder_stay_counted_and_the_pressure_stays_as_it_was_set() {
    let (registry, _time) = registry("load_shedders.s = { max_concurrent = 2, share = { background = 0, low = 0 } }");
    let shedder: LoadShedder = registry.get("s").unwrap();
    let limits = || shedder.statistics().priorities.map(|it| it.limit);
    assert_eq!(limits(), [0, 0, 2, 2, 2]);
    let permits = [shedder.try_acquire(Priority::Normal).unwrap(), shedder.try_acquire(Priority::High).unwrap()];
    let changes = apply(&registry, "load_shedders.s = { max_concurrent = 10, share.low = 0.1, share.background = 0 }");
    assert_eq!(changes.changed, ["load_shedders.s"]);
    assert_eq!((limits(), shedder.statistics().in_flight), ([0, 1, 8, 10, 10], 2));
    assert!(shedder.try_acquire(Priority::Low).is_err(), "two are inside");
    shedder.set_pressure(0.5).unwrap();
    apply(&registry, "load_shedders.s.max_concurrent = 2");
    assert_eq!((limits(), shedder.statistics().in_flight), ([0, 0, 1, 1, 1], 2), "shares left out are the defaults");
    let [first, second] = permits;
    drop(first);
    assert!(shedder.try_acquire(Priority::Critical).is_err());
    drop(second);
    assert!(shedder.try_acquire(Priority::Critical).is_ok());
    assert_eq!(shedder.statistics().of(Priority::Low).rejected, 1);
}

/// Makes a call whose first run hangs; a hedge, when there is one, answers. Whether there was one.
fn hedged(pipeline: &Pipeline) -> bool {
    let mut runs = 0;
    let call = pipeline.call_async(|| {
        runs += 1;
        let answers = runs > 1;
        async move {
            if !answers {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::io::Error>(())
        }
    });
    pin!(call).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_hedges_budget_keeps_what_was_spent_and_the_hedge_what_it_counted() {
    let text = "
        budgets.all = { ratio = 0, min_per_second = 1, window = '10s' }
        hedges.e = { after = '0s', budget = 'all' }
        pipelines.p.steps = [{ hedge = 'e' }]
    ";
    let (registry, time) = registry(text);
    let (hedge, budget): (Hedge, RetryBudget) = (registry.get("e").unwrap(), registry.get("all").unwrap());
    let (pipeline, now) = (registry.get::<Pipeline>("p").unwrap(), time.clock().now());
    assert!((0..3).all(|_| hedged(&pipeline)));
    assert_eq!(budget.statistics(now).available, 7);
    let more = text.replace("after = '0s'", "after = '5s', max_hedges = 8");
    let changes = apply(&registry, &more);
    assert_eq!(
        (changes.changed, changes.unchanged),
        (vec!["hedges.e".into()], vec!["budgets.all".into(), "pipelines.p".into()])
    );
    assert!(!hedged(&pipeline), "not before five seconds");
    assert_eq!((budget.statistics(now).available, hedge.statistics().started), (7, 3));
    assert_eq!(hedge.statistics().delay, 5 * SECOND);
    let less = text.replace("min_per_second = 1", "min_per_second = 0.5");
    assert_eq!(apply(&registry, &less).changed, ["budgets.all", "hedges.e"]);
    assert_eq!(budget.statistics(now).available, 2, "three of five were spent already");
    assert_eq!([(); 3].map(|()| hedged(&pipeline)), [true, true, false]);
    assert_eq!((hedge.statistics().started, hedge.statistics().refused), (5, 1));
    // Another budget is another hedge, and none is its own.
    assert_eq!(apply(&registry, &less.replace(", budget = 'all'", "")).replaced, ["hedges.e", "pipelines.p"]);
    assert_eq!(registry.get::<Hedge>("e").unwrap().statistics().started, 0);
    assert!(hedged(&registry.get("p").unwrap()));
    assert_eq!(apply(&registry, &less).replaced, ["hedges.e", "pipelines.p"]);
    assert!(!hedged(&registry.get("p").unwrap()), "what was spent before is spent");
}

#[test]
fn a_hedges_own_budget_stays_when_its_numbers_change() {
    let (registry, time) = registry("hedges.e.after = '0s'\npipelines.p.steps = [{ hedge = 'e' }]");
    let (pipeline, now) = (registry.get::<Pipeline>("p").unwrap(), time.clock().now());
    let hedges = (0..50).take_while(|_| hedged(&pipeline)).count();
    assert!((10..20).contains(&hedges), "{hedges}");
    let changes =
        apply(&registry, "hedges.e = { after = '0s', max_hedges = 2 }\npipelines.p.steps = [{ hedge = 'e' }]");
    assert_eq!(changes.changed, ["hedges.e"]);
    let budget = registry.get::<Hedge>("e").unwrap().budget().cloned().unwrap();
    assert_eq!(budget.statistics(now).granted, hedges as u64);
    assert!(!hedged(&pipeline));
}

/// Makes calls of these lengths under the hedge, one after the other, on a clock that moves by itself.
fn calls_of(hedge: &Hedge, time: &ManualClock, lengths: impl Iterator<Item = Duration>) {
    let (clock, runtime) = (time.clock(), tokio::runtime::Builder::new_current_thread().build().unwrap());
    for length in lengths {
        let run = async || {
            clock.sleep(length).await;
            Ok::<_, std::io::Error>(())
        };
        runtime.block_on(hedge.call_async(run)).unwrap();
    }
}

#[test]
fn a_hedge_goes_by_what_it_learned_when_another_percentile_is_asked_for() {
    let time = ManualClock::auto_advancing();
    let builder = || Hedge::builder().after(3_600 * SECOND).clock(time.clock());
    let hedge = builder().after_percentile(0.95).build().unwrap();
    calls_of(&hedge, &time, (1..=256).map(Duration::from_millis));
    let delay = || hedge.statistics().delay.as_millis();
    assert!((243..=274).contains(&delay()), "{}", delay());
    hedge.reconfigure(builder().after_percentile(0.5)).unwrap();
    assert!((128..=145).contains(&delay()), "{}", delay());
    hedge.reconfigure(builder().after(SECOND)).unwrap();
    assert_eq!(delay(), 1_000);
    hedge.reconfigure(builder().after_percentile(0.95)).unwrap();
    assert!((243..=274).contains(&delay()), "{}", delay());
    // One that has learned nothing yet begins to.
    let fresh = builder().build().unwrap();
    calls_of(&fresh, &time, [SECOND; 100].into_iter());
    fresh.reconfigure(builder().after(7 * SECOND).after_percentile(0.5)).unwrap();
    assert_eq!(fresh.statistics().delay, 7 * SECOND);
    calls_of(&fresh, &time, [SECOND / 10; 100].into_iter());
    assert!((100..=113).contains(&fresh.statistics().delay.as_millis()));
}

#[test]
fn a_hedge_refuses_another_budget_and_bad_numbers_and_stays_as_it_was() {
    let hedge = Hedge::builder().after(SECOND).build().unwrap();
    let error = hedge.reconfigure(Hedge::builder().budget(RetryBudget::default())).unwrap_err();
    assert_eq!(error.to_string(), "`hedge.budget` is another one; allowed: the budget that it was built with");
    assert!(hedge.reconfigure(Hedge::builder().max_hedges(9)).is_err());
    assert!(hedge.reconfigure(Hedge::builder().after_percentile(f64::NAN)).is_err());
    assert_eq!(hedge.statistics().delay, SECOND);
    let own = hedge.budget().cloned().unwrap();
    hedge.reconfigure(Hedge::builder().after(2 * SECOND).budget(own)).unwrap();
    assert_eq!(hedge.statistics().delay, 2 * SECOND);
    let given = Hedge::builder().budget(RetryBudget::default()).build().unwrap();
    assert_eq!(given.reconfigure(Hedge::builder()).unwrap_err().field, "hedge.budget");
}

#[test]
fn a_step_that_names_a_keyed_limiter_limits_each_calls_key() {
    let (registry, time) =
        registry(&format!("{BEFORE}\npipelines.q.steps = [{{ rate_limiter = 'k', max_wait = '2s' }}]"));
    let pipeline: Pipeline = registry.get("q").unwrap();
    let call = |key: &'static str| {
        let call = pipeline.call_async_with(CallOptions::new().key(key), |_| async { Ok::<_, std::io::Error>(()) });
        Box::pin(call)
    };
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..4 {
        assert!(call("blue").as_mut().poll(&mut cx).is_ready());
    }
    let mut fifth = call("blue");
    assert!(fifth.as_mut().poll(&mut cx).is_pending());
    assert!(call("green").as_mut().poll(&mut cx).is_ready());
    let keyed: KeyedRateLimiter<String> = registry.get("k").unwrap();
    assert_eq!(keyed.quota("green").remaining, 3, "it is the registry's own");
    time.advance(SECOND);
    assert!(fifth.as_mut().poll(&mut cx).is_ready());
    // Without a wait it refuses, and a limiter made anew makes its pipelines anew.
    let text = format!("{BEFORE}\npipelines.q.steps = [{{ rate_limiter = 'k' }}]");
    assert_eq!(apply(&registry, &text).replaced, ["pipelines.q"]);
    let pipeline: Pipeline = registry.get("q").unwrap();
    let at_once = pipeline.call_with(CallOptions::new().key("blue"), |_| Ok::<_, std::io::Error>(()));
    assert!(at_once.unwrap_err().as_rejection().is_some());
    let changes = apply(&registry, &text.replace("max_keys = 10", "max_keys = 20"));
    assert_eq!(changes.replaced, ["limiters.k", "pipelines.q"]);
    let error = refused(&registry, "pipelines.z.steps = [{ rate_limiter = 'x' }]").to_string();
    assert_eq!(error, "`pipelines.z.steps[0].rate_limiter` is \"x\"; allowed: one of the limiters: k, l");
}

#[test]
fn a_retry_changes_for_handles_and_pipelines_that_were_given_out_before() {
    let (registry, time) =
        registry("retries.r = { max_attempts = 2, jitter = 'none' }\npipelines.p.steps = [{ retry = 'r' }]");
    let (retry, pipeline): (Retry, Pipeline) = (registry.get("r").unwrap(), registry.get("p").unwrap());
    let now = time.clock().now();
    assert_eq!(calls_until_over(&retry, now), (2, Stopped::AttemptsExhausted));
    let text = "retries.r = { max_attempts = 4, jitter = 'none', backoff = { kind = 'fixed', delay = '0s' } }\n\
                pipelines.p.steps = [{ retry = 'r' }]";
    let changes = apply(&registry, text);
    assert_eq!(
        (&changes.changed[..], &changes.unchanged[..]),
        (&["retries.r".to_owned()][..], &["pipelines.p".to_owned()][..])
    );
    assert_eq!(calls_until_over(&retry, now), (4, Stopped::AttemptsExhausted));
    let mut calls = 0;
    let refused = || Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    let error = pipeline.call(|| {
        calls += 1;
        refused()
    });
    assert_eq!((error.unwrap_err().attempts, calls), (4, 4));
}

#[test]
fn a_limit_on_elapsed_time_holds_for_calls_that_start_after_it_was_set() {
    let (clock, time) = Clock::manual();
    time.advance(100 * SECOND);
    let builder = || Retry::builder().max_attempts(9).backoff(Backoff::fixed(SECOND)).jitter(Jitter::None);
    let retry = builder().build().unwrap();
    let class = Class::of(Category::Network);
    // A pipeline does not look at the clock for such a call: it starts at the clock's origin.
    let mut early = retry.start(Instant::default());
    retry.reconfigure(builder().max_elapsed(Duration::from_millis(1_500))).unwrap();
    let mut late = retry.start(clock.now());
    assert_eq!(retry.decide(&mut early, &class, clock.now(), None), RetryDecision::After(SECOND));
    assert_eq!(retry.decide(&mut late, &class, clock.now(), None), RetryDecision::After(SECOND));
    time.advance(SECOND);
    assert_eq!(retry.decide(&mut late, &class, clock.now(), None), RetryDecision::Stop(Stopped::ElapsedExceeded));
}

#[test]
fn a_budget_keeps_what_was_spent_and_a_retry_keeps_its_budget() {
    let (registry, time) = registry(&BEFORE.replace("max_attempts = 2", "max_attempts = 100"));
    let (retry, budget): (Retry, RetryBudget) = (registry.get("r").unwrap(), registry.get("all").unwrap());
    let now = time.clock().now();
    assert_eq!(calls_until_over(&retry, now), (11, Stopped::BudgetSpent));
    let text =
        BEFORE.replace("max_attempts = 2", "max_attempts = 100").replace("min_per_second = 1", "min_per_second = 1.5");
    assert_eq!(apply(&registry, &text).changed, ["budgets.all"]);
    assert_eq!(budget.statistics(now).available, 5, "ten of fifteen were spent already");
    // Another window is another count.
    assert_eq!(apply(&registry, &text.replace("'10s'", "'20s'")).changed, ["budgets.all"]);
    assert_eq!((budget.statistics(now).available, budget.statistics(now).granted), (30, 10));
}

#[test]
fn what_cannot_change_in_place_is_made_anew_and_so_are_the_pipelines_of_it() {
    let (registry, time) = registry(BEFORE);
    let (old_retry, old_pipeline): (Retry, Pipeline) = (registry.get("r").unwrap(), registry.get("p").unwrap());
    let text = BEFORE.replace(", budget = 'all'", "").replace("max_attempts = 2", "max_attempts = 50");
    let changes = apply(&registry, &text);
    assert_eq!(changes.replaced, ["retries.r", "pipelines.p"]);
    let retry: Retry = registry.get("r").unwrap();
    assert_eq!(calls_until_over(&retry, time.clock().now()).0, 50);
    assert_eq!(calls_until_over(&old_retry, time.clock().now()).0, 2, "handles given out before keep the old one");
    assert_eq!(old_pipeline.name(), "p");
    // New steps alone make a new pipeline of the same policies.
    let breaker: CircuitBreaker = registry.get("b").unwrap();
    let changes = apply(&registry, &text.replace("{ timeout = '10s' }, ", ""));
    assert_eq!((changes.replaced.len(), changes.replaced[0].as_str()), (1, "pipelines.p"));
    breaker.force_open();
    let pipeline: Pipeline = registry.get("p").unwrap();
    assert!(pipeline.call(|| Ok::<_, std::io::Error>(())).unwrap_err().as_rejection().is_some());
}

#[test]
fn what_is_no_longer_configured_stays_and_is_told_once() {
    let (registry, _time) = registry(BEFORE);
    let bulkhead: Bulkhead = registry.get("h").unwrap();
    let _inside = bulkhead.try_acquire().unwrap();
    let changes = apply(&registry, "bulkheads.other = {}");
    let gone = [
        "breakers.b",
        "limiters.k",
        "limiters.l",
        "bulkheads.h",
        "load_shedders.s",
        "budgets.all",
        "retries.r",
        "hedges.e",
        "pipelines.p",
    ];
    assert_eq!(
        (changes.added, changes.no_longer_configured),
        (vec!["bulkheads.other".to_owned()], gone.map(str::to_owned).to_vec())
    );
    assert_eq!(registry.snapshot().bulkheads["h"].in_flight, 1);
    assert!(apply(&registry, "bulkheads.other = {}").no_longer_configured.is_empty());
    // And comes back as the same one.
    assert_eq!(apply(&registry, "bulkheads.h.max_concurrent = 2").changed, ["bulkheads.h"]);
    assert_eq!((bulkhead.statistics().in_flight, bulkhead.statistics().max_concurrent), (1, 2));
}

#[test]
fn a_policy_that_code_made_is_taken_over_with_its_state() {
    let (registry, _time) = registry("");
    let bulkhead = registry.bulkhead("h", |builder| builder.max_concurrent(5)).unwrap();
    let _inside = bulkhead.try_acquire().unwrap();
    assert_eq!(apply(&registry, BEFORE).changed, ["bulkheads.h"]);
    assert_eq!((bulkhead.statistics().in_flight, bulkhead.statistics().max_concurrent), (1, 1));
    let same = registry.bulkhead("h", |_| unreachable!("the name is taken")).unwrap();
    assert_eq!(same.statistics().in_flight, 1);
    // A configuration may refer to what code made.
    registry.retry("mine", |builder| builder).unwrap();
    assert_eq!(apply(&registry, "pipelines.q.steps = [{ retry = 'mine' }]").added, ["pipelines.q"]);
}

#[test]
fn one_bad_value_leaves_everything_as_it_was() {
    let (registry, _time) = registry(BEFORE);
    let bulkhead: Bulkhead = registry.get("h").unwrap();
    let before = registry.snapshot();
    let edited = BEFORE.replace("max_concurrent = 1", "max_concurrent = 7").replace("burst = 4", "burst = 9");
    let bad = [
        ("pipelines.q.steps = [{ retry = 'nothing' }]", "pipelines.q.steps[0].retry"),
        ("pipelines.q.steps = [{ timeout = '1s' }, { circuit_breaker = 'h' }]", "pipelines.q.steps[1].circuit_breaker"),
        ("pipelines.q.steps = [{ bulkhead = 'b' }]", "pipelines.q.steps[0].bulkhead"),
        ("pipelines.q.steps = [{ rate_limiter = 'h' }]", "pipelines.q.steps[0].rate_limiter"),
        ("pipelines.q.steps = [{ load_shedder = 'h' }]", "pipelines.q.steps[0].load_shedder"),
        ("pipelines.q.steps = [{ hedge = 'h' }]", "pipelines.q.steps[0].hedge"),
        ("pipelines.q.steps = [{ hedge = 'e' }, { retry = 'r' }]", "pipelines.q.hedge"),
        ("pipelines.q.steps = [{ load_shedder = 's' }, { load_shedder = 's' }]", "pipelines.q.load_shedder"),
        ("hedges.q.budget = 'nothing'", "hedges.q.budget"),
        ("hedges.e.budget = 'nothing'", "hedges.e.budget"),
        ("pipelines.q.steps = [{ retry = 'r' }, { retry = 'r' }]", "pipelines.q.retry"),
        ("pipelines.q.steps = [{ timeout = '1s' }, { timeout = '1s' }]", "pipelines.q.timeout"),
        ("pipelines.q.steps = [{ timeout = '1s' }, { retry = 'r' }, { timeout = '2s' }]", "pipelines.q.timeout"),
        ("pipelines.q.steps = [{ bulkhead = 'h' }, { bulkhead = 'h' }]", "pipelines.q.bulkhead"),
        ("retries.q.budget = 'nothing'", "retries.q.budget"),
    ];
    for (more, field) in bad {
        assert_eq!(refused(&registry, &format!("{edited}\n{more}")).field, field, "{more}");
    }
    let keyed = edited.replace("l = { rate = '1/s', burst = 9 }", "l = { max_keys = 5 }");
    assert_eq!(
        refused(&registry, &keyed).to_string(),
        "`limiters.l` is a limiter without keys; allowed: what it was first made as"
    );
    let mut in_code = config(&edited);
    in_code.breakers.get_mut("b").unwrap().failure_rate = Some(f64::NAN);
    assert_eq!(registry.apply(&in_code).unwrap_err().field, "breakers.b.failure_rate");
    assert_eq!(registry.snapshot(), before);
    assert_eq!(registry.configuration(), config(BEFORE));
    assert_eq!(bulkhead.statistics().max_concurrent, 1);
}

#[test]
fn a_configuration_cannot_bring_more_policies_than_there_may_be() {
    let registry = Registry::default().max_policies(2);
    let error = refused(&registry, "bulkheads = { a = {}, b = {}, c = {} }");
    assert_eq!((error.field.as_str(), error.value.as_str()), ("registry.policies", "3"));
    assert!(registry.snapshot().bulkheads.is_empty());
    assert_eq!(apply(&registry, "bulkheads = { a = {}, b = {} }").added.len(), 2);
}

#[test]
fn each_key_keeps_what_it_saved_and_another_number_of_keys_is_another_limiter() {
    let (registry, _time) = registry(BEFORE);
    let limiter: KeyedRateLimiter<String> = registry.get("k").unwrap();
    limiter.try_acquire("blue", 3).unwrap();
    let text = BEFORE.replace("burst = 4, max_keys = 10", "burst = 9, max_keys = 10");
    assert_eq!(apply(&registry, &text).changed, ["limiters.k"]);
    assert_eq!(limiter.quota("blue").remaining, 1);
    assert_eq!(apply(&registry, &text.replace("max_keys = 10", "max_keys = 20")).replaced, ["limiters.k"]);
    assert_eq!(limiter.statistics().max_keys, 10);
    assert_eq!(registry.get::<KeyedRateLimiter<String>>("k").unwrap().statistics().max_keys, 20);
}

#[test]
fn a_bucket_becomes_no_sliding_window_but_is_replaced_by_one() {
    let (registry, _time) = registry(BEFORE);
    let bucket: RateLimiter = registry.get("l").unwrap();
    bucket.try_acquire(4).unwrap();
    let text = BEFORE.replace("l = { rate = '1/s', burst = 4 }", "l.sliding_window = '7/min'");
    assert_eq!(apply(&registry, &text).replaced, ["limiters.l", "pipelines.p"]);
    let window: RateLimiter = registry.get("l").unwrap();
    window.try_acquire(7).unwrap();
    assert_eq!(apply(&registry, &text.replace("7/min", "9/min")).changed, ["limiters.l"]);
    assert_eq!((window.statistics().available, bucket.statistics().available), (2, 0));
    // A bucket that code made is found out as well.
    registry.limiter("mine", |builder| builder).unwrap();
    assert_eq!(apply(&registry, "limiters.mine.sliding_window = '7/min'").replaced, ["limiters.mine"]);
}

#[test]
fn a_keyed_limiter_is_found_by_its_type() {
    let (registry, _time) = registry(BEFORE);
    let limiter: KeyedRateLimiter<String> = registry.get("k").unwrap();
    limiter.try_acquire("blue", 4).unwrap();
    assert!(limiter.try_acquire("blue", 1).is_err());
    assert_eq!(apply(&registry, BEFORE).unchanged.len(), 9);
    assert!(registry.get::<KeyedRateLimiter<String>>("k").unwrap().try_acquire("blue", 1).is_err());
}

#[test]
fn an_open_breaker_stays_open_whatever_changes() {
    let (registry, _time) = registry(BEFORE);
    let breaker: CircuitBreaker = registry.get("b").unwrap();
    assert!(breaker.call(|| Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))).is_err());
    apply(&registry, &BEFORE.replace("max_concurrent = 1", "max_concurrent = 2"));
    assert_eq!(breaker.state(), BreakerState::Open);
    let changes = apply(&registry, &BEFORE.replace("consecutive_failures = 1", "consecutive_failures = 4"));
    assert_eq!(changes.changed, ["breakers.b", "bulkheads.h"]);
    assert_eq!(breaker.settings().trip, Trip::ConsecutiveFailures(4));
    assert_eq!(breaker.state(), BreakerState::Open);
    let window =
        "breakers.b = { failure_rate = '50%', window_calls = 10, minimum_calls = 5, open_for = '5s', ramp_up = '1m' }";
    assert_eq!(apply(&registry, window).changed, ["breakers.b"]);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.settings().open_for, Backoff::fixed(5 * SECOND));
    assert_eq!(registry.get::<CircuitBreaker>("b").unwrap().state(), BreakerState::Open);
}

#[test]
fn observers_hear_what_a_configuration_changed_and_cannot_start_another_reload_meanwhile() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let back: Arc<Mutex<Option<Registry>>> = Arc::default();
    let (seen, of) = (Arc::clone(&told), Arc::clone(&back));
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::Notice { component, action, resource, .. } = event {
            let nested = of.lock().unwrap().clone().map(|registry| registry.apply(&ResilienceConfig::default()));
            seen.lock().unwrap().push((format!("{component} {action} {resource}"), nested));
        }
    }));
    let registry = Registry::new(Clock::manual().0, observers);
    apply(&registry, "bulkheads.h = {}");
    *back.lock().unwrap() = Some(registry.clone());
    apply(&registry, "bulkheads.h.max_concurrent = 2");
    *back.lock().unwrap() = None;
    let told = std::mem::take(&mut *told.lock().unwrap());
    let texts: Vec<_> = told.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["registry added bulkheads.h", "registry changed bulkheads.h"]);
    let nested = told[1].1.clone().unwrap().unwrap_err();
    assert_eq!(nested.to_string(), "`registry` is being reloaded; allowed: one reload at a time");
    assert_eq!(apply(&registry, "bulkheads.h.max_concurrent = 2").unchanged, ["bulkheads.h"], "and then it can again");
}

/// Stops the callers also when a check fails, so that the test ends.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Two threads call while a third one changes everything again and again: nobody is ever inside a bulkhead beyond the
/// largest maximum, and in the end every permit is back.
#[test]
fn reloads_under_load_conserve_permits() {
    let (registry, _time) = registry("bulkheads.h = { max_concurrent = 3, max_waiting = 1 }");
    let (inside, most, over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let bulkhead: Bulkhead = registry.get("h").unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let permits: Vec<_> = (0..3).map_while(|_| bulkhead.try_acquire().ok()).collect();
                    let held = u32::try_from(permits.len()).unwrap();
                    let now = inside.fetch_add(held, Ordering::SeqCst) + held;
                    most.fetch_max(now, Ordering::SeqCst);
                    inside.fetch_sub(held, Ordering::SeqCst);
                    drop(permits);
                }
            });
        }
        let _stop = StopOnDrop(&over);
        for round in 0..2_000 {
            let text = format!("bulkheads.h = {{ max_concurrent = {}, max_waiting = 1 }}", 1 + round % 3);
            apply(&registry, &text);
            let statistics = bulkhead.statistics();
            assert!(statistics.in_flight <= 3);
        }
    });
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    assert_eq!(bulkhead.statistics().in_flight, 0);
    apply(&registry, "bulkheads.h = { max_concurrent = 3, max_waiting = 1 }");
    let all: Vec<_> = (0..9).map_while(|_| bulkhead.try_acquire().ok()).collect();
    assert_eq!(all.len(), 3, "no permit was lost and none was made");
}

/// Over a span in which the clock stands still, whatever is applied: no more than the permits that were there.
#[test]
fn limiters_hand_out_no_free_burst_while_they_are_reloaded_under_load() {
    let (registry, _time) = registry("limiters.l = { rate = '1/s', burst = 100 }");
    let limiter: RateLimiter = registry.get("l").unwrap();
    let granted = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    granted.fetch_add(u32::from(limiter.try_acquire(1).is_ok()), Ordering::SeqCst);
                }
            });
        }
        for round in 0..500 {
            apply(&registry, &format!("limiters.l = {{ rate = '{}/s', burst = {} }}", 1 + round % 7, 100 + round % 5));
        }
    });
    assert_eq!(granted.load(Ordering::SeqCst), 100);
}

#[derive(Debug, Clone, Copy)]
enum Do {
    Enter,
    Leave,
    Limit(u32),
}

proptest! {
    /// Against a plain count: who is inside, and the maximum.
    #[test]
    fn a_bulkhead_never_has_more_inside_than_its_maximum_once_it_has_drained(
        steps in proptest::collection::vec(prop_oneof![Just(Do::Enter), Just(Do::Leave), (1..6u32).prop_map(Do::Limit)], 1..100)
    ) {
        let bulkhead = Bulkhead::builder("b").max_concurrent(3).build().unwrap();
        let (mut inside, mut max) = (Vec::new(), 3);
        for step in steps {
            match step {
                Do::Enter => {
                    let entered = bulkhead.try_acquire();
                    prop_assert_eq!(entered.is_ok(), inside.len() < max as usize);
                    inside.extend(entered);
                }
                Do::Leave => drop(inside.pop()),
                Do::Limit(to) => {
                    max = to;
                    bulkhead.reconfigure(Bulkhead::builder("b").max_concurrent(max)).unwrap();
                }
            }
            let statistics = bulkhead.statistics();
            prop_assert_eq!((statistics.in_flight as usize, statistics.max_concurrent), (inside.len(), max));
        }
    }
}

#[test]
fn a_bulkheads_queue_can_change_its_length_and_bad_limits_change_nothing() {
    let bulkhead = Bulkhead::builder("b").max_concurrent(1).max_waiting(2).clock(Clock::manual().0).build().unwrap();
    let inside = bulkhead.try_acquire().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(bulkhead.acquire_async(SECOND))).collect();
    for one in &mut waiting {
        assert!(one.as_mut().poll(&mut cx).is_pending());
    }
    bulkhead.reconfigure(Bulkhead::builder("b").max_concurrent(1).max_waiting(1)).unwrap();
    assert_eq!((bulkhead.statistics().waiting, bulkhead.statistics().max_waiting), (2, 1));
    assert!(pin!(bulkhead.acquire_async(SECOND)).as_mut().poll(&mut cx).is_ready(), "the queue is too long already");
    let error = bulkhead.reconfigure(Bulkhead::builder("other").max_concurrent(0)).unwrap_err();
    assert_eq!(error.field, "b.max_concurrent");
    assert_eq!(bulkhead.statistics().max_concurrent, 1);
    drop(inside);
    assert!(waiting[0].as_mut().poll(&mut cx).is_ready(), "who waits keeps the place");
}

#[test]
fn a_retry_refuses_another_budget_and_bad_numbers_and_stays_as_it_was() {
    let retry = Retry::default();
    let error = retry.reconfigure(Retry::builder().max_attempts(9).budget(RetryBudget::default())).unwrap_err();
    assert_eq!(error.to_string(), "`retry.budget` is another one; allowed: the budget that it was built with");
    assert!(retry.reconfigure(Retry::builder().max_attempts(9).jitter(Jitter::Ratio(2.0))).is_err());
    assert_eq!(retry.max_attempts(), 3);
    let budget = RetryBudget::default();
    assert!(budget.reconfigure(RetryBudget::builder().ratio(f64::NAN)).is_err());
    assert_eq!(budget.statistics(Clock::system().now()).available, 100);
}
