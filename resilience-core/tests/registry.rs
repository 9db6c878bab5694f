//! The registry: one policy for a name, a bound on names, errors handled in one place.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience_core::{
    Bulkhead, Category, CircuitBreaker, Clock, Event, Hedge, KeyedRateLimiter, LoadShedder, Observers, Pipeline,
    Priority, RateLimiter, Registry, Retry, RetryBudget,
};

#[test]
fn a_name_means_one_policy_whatever_is_asked_for_later() {
    let registry = Registry::default();
    let budget = registry.budget("all", |builder| builder.ratio(0.5)).unwrap();
    let retry = registry.retry("store", |builder| builder.max_attempts(7).budget(budget.clone())).unwrap();
    assert_eq!(registry.retry("store", |builder| builder.max_attempts(9)).unwrap().max_attempts(), 7);
    assert_eq!(registry.budget("all", |_| unreachable!("it is there")).unwrap(), budget);
    assert_eq!(retry.budget(), Some(&budget));

    let shedder = registry.load_shedder("store", |builder| builder.max_concurrent(7)).unwrap();
    let _inside = shedder.try_acquire(Priority::Normal).unwrap();
    let again = registry.load_shedder("store", |_| unreachable!("it is there")).unwrap();
    assert_eq!((again.statistics().in_flight, again.statistics().max_concurrent), (1, 7));
    let hedge = registry.hedge("store", |builder| builder.budget(budget.clone())).unwrap();
    assert_eq!(registry.get::<Hedge>("store").unwrap().budget(), Some(&budget));
    assert_eq!(
        registry.hedge("store", |builder| builder.after(Duration::ZERO)).unwrap().statistics(),
        hedge.statistics()
    );

    let tenants = registry.keyed_limiter("tenants", |builder| builder.burst(1)).unwrap();
    tenants.try_acquire("blue", 1).unwrap();
    let again: KeyedRateLimiter<String> = registry.get("tenants").unwrap();
    assert!(again.try_acquire("blue", 1).is_err());

    let bulkhead = registry.bulkhead("store", |builder| builder.max_concurrent(1)).unwrap();
    let pipeline = registry.pipeline("store", |builder| builder.retry(retry).bulkhead(bulkhead.clone())).unwrap();
    let inside = pipeline.call(|| Ok::<_, std::io::Error>(bulkhead.statistics().in_flight)).unwrap();
    assert_eq!(inside, 1);
    let again: Pipeline = registry.get("store").unwrap();
    assert_eq!(again.name(), "store");
}

#[test]
fn a_name_that_nothing_has_is_an_error_that_says_which_there_are() {
    let registry = Registry::default();
    let message = |error: Option<resilience_core::ConfigError>| error.unwrap().to_string();
    let none = message(registry.get::<Bulkhead>("x").err());
    assert_eq!(none, "`bulkheads` is \"x\"; allowed: one of the bulkheads, of which there are none");
    for number in 0..12 {
        registry.breaker(&format!("b{number:02}"), |builder| builder).unwrap();
    }
    let many = message(registry.get::<CircuitBreaker>("x").err());
    assert!(
        many.ends_with("one of the breakers: b00, b01, b02, b03, b04, b05, b06, b07, b08, b09 and 2 more"),
        "{many}"
    );
}

#[test]
fn limiters_with_and_without_keys_do_not_share_a_name() {
    let registry = Registry::default();
    registry.limiter("search", |builder| builder).unwrap();
    let error = registry.keyed_limiter("search", |builder| builder).unwrap_err();
    assert_eq!(error.to_string(), "`limiters.search` is a limiter without keys; allowed: what it was first made as");
    let error = registry.get::<KeyedRateLimiter<String>>("search").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`limiters` is \"search\"; allowed: one of the limiters; this one is a limiter without keys"
    );
    registry.keyed_limiter("tenants", |builder| builder).unwrap();
    assert!(registry.limiter("tenants", |builder| builder).is_err());
    assert!(registry.get::<RateLimiter>("search").is_ok());
}

#[test]
fn a_policy_is_registered_by_its_own_name_only() {
    let registry = Registry::default();
    let error = registry.breaker("search", |_| CircuitBreaker::builder("store")).unwrap_err();
    assert_eq!(error.to_string(), "`breakers.search.name` is \"store\"; allowed: search, by which it is registered");
    assert!(registry.get::<CircuitBreaker>("search").is_err());
    let error = registry.load_shedder("search", |_| LoadShedder::builder("store")).unwrap_err();
    assert_eq!(error.field, "load_shedders.search.name");
}

#[test]
fn names_are_bounded_in_number_over_all_kinds() {
    let registry = Registry::default().max_policies(5);
    registry.breaker("a", |builder| builder).unwrap();
    registry.load_shedder("a", |builder| builder).unwrap();
    registry.hedge("a", |builder| builder).unwrap();
    registry.retry("a", |builder| builder).unwrap();
    registry.pipeline("a", |builder| builder).unwrap();
    assert!(registry.breaker("a", |builder| builder).is_ok(), "it is there already");
    let error = registry.budget("a", |builder| builder).unwrap_err();
    assert_eq!((error.field.as_str(), error.value.as_str()), ("registry.policies", "6"));
    assert!(registry.get::<RetryBudget>("a").is_err());
}

#[test]
fn names_of_policies_without_a_name_of_their_own_are_checked_as_well() {
    let registry = Registry::default();
    assert_eq!(registry.retry("a b", |builder| builder).unwrap_err().field, "name");
    assert_eq!(registry.hedge("a b", |builder| builder).unwrap_err().field, "name");
    assert_eq!(registry.load_shedder("a b", |builder| builder).unwrap_err().field, "name");
    assert_eq!(registry.budget("", |builder| builder).unwrap_err().field, "name");
    let long = "x".repeat(10_000);
    assert!(registry.retry(&long, |builder| builder).unwrap_err().to_string().len() < 300);
}

#[test]
fn policies_go_by_the_registrys_clock_and_tell_its_observers() {
    let (clock, time) = Clock::manual();
    let refused = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&refused);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::Rejected { rejection, .. } = event {
            seen.lock().unwrap().push(rejection.policy.to_string());
        }
    }));
    let registry = Registry::new(clock, observers);
    let limiter = registry.limiter("l", |builder| builder.rate(1, Duration::from_secs(1)).burst(1)).unwrap();
    limiter.try_acquire(1).unwrap();
    assert!(limiter.try_acquire(1).is_err());
    time.advance(Duration::from_secs(1));
    assert!(limiter.try_acquire(1).is_ok());
    let shedder = registry.load_shedder("s", |builder| builder.share(Priority::Background, 0.0)).unwrap();
    assert!(shedder.try_acquire(Priority::Background).is_err());
    assert_eq!(*refused.lock().unwrap(), ["l", "s"]);
}

#[test]
fn handled_errors_are_classified_counted_and_told_in_bounded_memory() {
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::ErrorHandled { context, .. } = event {
            assert_eq!(context.class.category, Category::Network);
            *count.lock().unwrap() += 1;
        }
    }));
    let registry = Registry::new(Clock::manual().0, observers);
    for number in 0..5_000 {
        let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        // Names of components come from callers: they must not make the statistics grow.
        registry.handle_error(&format!("component {number}"), "fetch", &error);
    }
    let errors = registry.snapshot().errors;
    assert_eq!((errors.total, errors.by_category.len(), errors.by_severity.len()), (5_000, 1, 1));
    assert_eq!(*told.lock().unwrap(), 5_000);
}

#[test]
fn a_snapshot_shows_every_policy() {
    let registry = Registry::new(Clock::manual().0, Observers::new());
    registry.breaker("b", |builder| builder).unwrap().force_open();
    registry.limiter("l", |builder| builder.burst(7)).unwrap();
    registry.keyed_limiter("k", |builder| builder.max_keys(9)).unwrap();
    let bulkhead = registry.bulkhead("h", |builder| builder).unwrap();
    let budget = registry.budget("all", |builder| builder.min_per_second(3.0)).unwrap();
    registry.retry("r", |builder| builder.budget(budget)).unwrap();
    registry.retry("other", |builder| builder.budget(RetryBudget::default())).unwrap();
    registry.pipeline("p", |builder| builder.retry(Retry::default())).unwrap();
    let shedder = registry.load_shedder("s", |builder| builder).unwrap();
    registry.hedge("e", |builder| builder.after(Duration::from_secs(3))).unwrap();
    let _permits = (bulkhead.try_acquire().unwrap(), shedder.try_acquire(Priority::Low).unwrap());
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.breakers["b"].state.as_str(), "forced_open");
    assert_eq!((snapshot.limiters["l"].available, snapshot.keyed_limiters["k"].max_keys), (7, 9));
    assert_eq!((snapshot.bulkheads["h"].in_flight, snapshot.budgets["all"].available), (1, 30));
    assert_eq!((snapshot.retries["r"].budget.as_deref(), snapshot.retries["r"].max_attempts), (Some("all"), 3));
    assert_eq!(snapshot.retries["other"].budget, None, "a budget that the registry does not know has no name");
    assert_eq!(snapshot.load_shedders["s"].of(Priority::Low).admitted, 1);
    assert_eq!(snapshot.hedges["e"].delay, Duration::from_secs(3));
    assert!(snapshot.pipelines.contains("p"));
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<resilience_core::registry::RegistrySnapshot>(&json).unwrap(), snapshot);
    }
}
