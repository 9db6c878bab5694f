//! Configuration in TOML, JSON and YAML means the same, is written as it was read, and matches its JSON schema.
#![cfg(feature = "serde")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::config::{
    BreakerConfig, BulkheadConfig, HedgeConfig, LimiterConfig, LoadShedderConfig, PipelineConfig, ResilienceConfig,
    RetryBudgetConfig, RetryConfig, Step, units,
};
use resilience_core::{Backoff, Jitter, Priority, Registry};
use serde_json::{Value, json};

const TOML: &str = include_str!("../examples/resilience.toml");

const YAML: &str = r#"
breakers:
  search:
    failure_rate: "50%"
    window_span: 1m
    minimum_calls: 20
    slow_call_rate: 0.8
    slow_call_duration: 1.5s
    open_for: 30s
    half_open_permits: 2
    half_open_successes: 4
  store: { consecutive_failures: 10 }
budgets:
  all: { ratio: 10%, min_per_second: 5, window: 10s }
  hedges: { ratio: 5%, min_per_second: 1 }
retries:
  search:
    max_attempts: 4
    max_elapsed: 20s
    max_retry_after: 10s
    retry_after_jitter: 0.2
    backoff: { kind: exponential, initial: 100ms, base: 2, cap: 5s }
    jitter: full
    budget: all
limiters:
  search: { rate: 500/min, burst: 20, start_with: 0 }
  per_tenant: { rate: 10/s, burst: 50, max_keys: 100000 }
bulkheads:
  search: { max_concurrent: 32, max_waiting: 64 }
load_shedders:
  api: { max_concurrent: 200, share: { background: 10%, low: 0.4 } }
hedges:
  search: { after: 200ms, after_percentile: 95%, max_hedges: 1, budget: hedges }
pipelines:
  search:
    steps:
      - load_shedder: api
      - timeout: 10s
      - rate_limiter: per_tenant
      - retry: search
      - circuit_breaker: search
      - { rate_limiter: search, max_wait: 1s }
      - { bulkhead: search, max_wait: 250ms }
      - timeout: 2s
      - hedge: search
"#;

fn example_as_json() -> Value {
    json!({
        "breakers": {
            "search": {
                "failure_rate": "50%", "window_span": "1m", "minimum_calls": 20, "slow_call_rate": 0.8,
                "slow_call_duration": "1.5s", "open_for": "30s", "half_open_permits": 2, "half_open_successes": 4
            },
            "store": { "consecutive_failures": 10 }
        },
        "budgets": {
            "all": { "ratio": "10%", "min_per_second": 5, "window": "10s" },
            "hedges": { "ratio": "5%", "min_per_second": 1 }
        },
        "retries": {
            "search": {
                "max_attempts": 4, "max_elapsed": "20s", "max_retry_after": "10s", "retry_after_jitter": 0.2,
                "backoff": { "kind": "exponential", "initial": "100ms", "base": 2, "cap": "5s" },
                "jitter": "full", "budget": "all"
            }
        },
        "limiters": {
            "search": { "rate": "500/min", "burst": 20, "start_with": 0 },
            "per_tenant": { "rate": "10/s", "burst": 50, "max_keys": 100_000 }
        },
        "bulkheads": { "search": { "max_concurrent": 32, "max_waiting": 64 } },
        "load_shedders": { "api": { "max_concurrent": 200, "share": { "background": "10%", "low": 0.4 } } },
        "hedges": {
            "search": { "after": "200ms", "after_percentile": "95%", "max_hedges": 1, "budget": "hedges" }
        },
        "pipelines": {
            "search": {
                "steps": [
                    { "load_shedder": "api" }, { "timeout": "10s" }, { "rate_limiter": "per_tenant" },
                    { "retry": "search" }, { "circuit_breaker": "search" },
                    { "rate_limiter": "search", "max_wait": "1s" }, { "bulkhead": "search", "max_wait": "250ms" },
                    { "timeout": "2s" }, { "hedge": "search" }
                ]
            }
        }
    })
}

#[test]
fn toml_json_and_yaml_mean_the_same() {
    let from_toml: ResilienceConfig = toml::from_str(TOML).unwrap();
    assert_eq!(serde_json::from_value::<ResilienceConfig>(example_as_json()).unwrap(), from_toml);
    assert_eq!(serde_norway::from_str::<ResilienceConfig>(YAML).unwrap(), from_toml);
    let search = &from_toml.breakers["search"];
    assert_eq!((search.failure_rate, search.window_span), (Some(0.5), Some(Duration::from_secs(60))));
    assert_eq!(from_toml.limiters["search"].rate.unwrap().to_string(), "500/min");
    assert_eq!(from_toml.pipelines["search"].steps.len(), 9);
    let api = &from_toml.load_shedders["api"];
    assert_eq!(api.share, BTreeMap::from([(Priority::Background, 0.1), (Priority::Low, 0.4)]));
    assert_eq!(from_toml.hedges["search"].after_percentile, Some(0.95));
    Registry::from_config(&from_toml).unwrap();
}

#[test]
fn errors_are_the_same_in_each_format() {
    let expected = "`breakers.search.ramp_up` is 60; allowed: a duration from more than 0s to 10 years with its unit, as \
                    in \"250ms\", \"1.5s\" or \"1h30m\"";
    let toml = toml::from_str::<ResilienceConfig>("breakers.search.ramp_up = 60").unwrap_err();
    assert_eq!(toml.to_string().trim(), expected);
    let json = serde_json::from_str::<ResilienceConfig>(r#"{"breakers": {"search": {"ramp_up": 60}}}"#).unwrap_err();
    assert_eq!(json.to_string(), expected);
    let yaml = serde_norway::from_str::<ResilienceConfig>("breakers: { search: { ramp_up: 60 } }").unwrap_err();
    assert_eq!(yaml.to_string(), expected);
}

#[test]
fn an_empty_configuration_is_one_and_is_written_as_nothing() {
    assert_eq!(toml::from_str::<ResilienceConfig>("").unwrap(), ResilienceConfig::default());
    assert_eq!(toml::to_string(&ResilienceConfig::default()).unwrap(), "");
    assert_eq!(serde_json::to_string(&ResilienceConfig::default()).unwrap(), "{}");
}

#[test]
fn each_policys_configuration_can_stand_in_a_struct_of_your_own() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Mine {
        listen: String,
        breaker: BreakerConfig,
    }
    let mine: Mine = toml::from_str("listen = ':80'\nbreaker.open_for = '5s'").unwrap();
    assert_eq!((mine.listen.as_str(), mine.breaker.open_for), (":80", Some(Backoff::fixed(Duration::from_secs(5)))));
    insta::assert_snapshot!(toml::to_string(&mine).unwrap(), @r#"
    listen = ":80"

    [breaker]
    open_for = "5s"
    "#);
}

fn span() -> impl Strategy<Value = Duration> {
    (1..315_000_000_000_000_000u64, 0..58u32).prop_map(|(nanos, shift)| Duration::from_nanos((nanos >> shift).max(1)))
}

fn backoff() -> impl Strategy<Value = Backoff> {
    (span(), span(), 1.0..1000.0, 0..4u8).prop_map(|(a, b, base, kind)| {
        let (initial, cap) = (a.min(b), a.max(b));
        match kind {
            0 => Backoff::Fixed { delay: a },
            1 => Backoff::Linear { initial, cap },
            2 => Backoff::Fibonacci { initial, cap },
            _ => Backoff::Exponential { initial, base, cap },
        }
    })
}

fn jitter() -> impl Strategy<Value = Jitter> {
    let fixed = [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated];
    prop_oneof![prop::sample::select(fixed.to_vec()), (0.0..=1.0).prop_map(Jitter::Ratio)]
}

fn maybe<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(value)
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.:/-]{1,12}"
}

prop_compose! {
    fn retry()(
        max_attempts in maybe(1..=u32::MAX), max_elapsed in maybe(span()), max_retry_after in maybe(span()),
        retry_after_jitter in maybe(0.0..=1.0), backoff in maybe(backoff()), jitter in maybe(jitter()), budget in maybe(name()),
    ) -> RetryConfig {
        let mut it = RetryConfig::default();
        (it.max_attempts, it.max_elapsed, it.max_retry_after) = (max_attempts, max_elapsed, max_retry_after);
        (it.retry_after_jitter, it.backoff, it.jitter, it.budget) = (retry_after_jitter, backoff, jitter, budget);
        it
    }
}

prop_compose! {
    fn breaker()(
        rate in 0.001..=1.0, window in 1..1_000_000u32, time in maybe(span()), slow in maybe((0.001..=1.0, span())),
        open_for in maybe(backoff()), timeout in maybe(span()), ramp_up in maybe(span()), jitter in maybe(0.0..=1.0), permits in maybe(1..9u32), successes in maybe(1..9u32), in_a_row in maybe(1..9u32),
    ) -> BreakerConfig {
        let mut it = BreakerConfig::default();
        if in_a_row.is_some() {
            it.consecutive_failures = in_a_row;
        } else {
            (it.failure_rate, it.minimum_calls, it.window_span) = (Some(rate), Some(window), time);
            it.window_calls = time.is_none().then_some(window);
            (it.slow_call_rate, it.slow_call_duration) = slow.unzip();
        }
        (it.open_for, it.half_open_permits, it.open_jitter) = (open_for, permits, jitter);
        (it.half_open_timeout, it.ramp_up) = (timeout, ramp_up);
        match successes {
            Some(probes) if probes % 2 == 0 => (it.half_open_rate, it.half_open_calls) = (Some(rate), Some(probes)),
            probes => it.half_open_successes = probes,
        }
        it
    }
}

prop_compose! {
    fn limiter()(
        permits in 1_000..=u32::MAX, period in 1..60u64, burst in maybe(10..1_000u32), start in maybe(0..=10u32),
        keys in maybe(1..500u32),
    ) -> LimiterConfig {
        let mut it = LimiterConfig::default();
        it.rate = Some(units::Rate { permits, period: Duration::from_secs(period) });
        (it.burst, it.start_with, it.max_keys) = (burst, start, keys);
        it
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        span().prop_map(Step::Timeout),
        name().prop_map(Step::Retry),
        name().prop_map(Step::CircuitBreaker),
        (name(), maybe(span())).prop_map(|(name, max_wait)| Step::RateLimiter { name, max_wait }),
        (name(), maybe(span())).prop_map(|(name, max_wait)| Step::Bulkhead { name, max_wait }),
        name().prop_map(Step::LoadShedder),
        name().prop_map(Step::Hedge),
    ]
}

prop_compose! {
    fn rest()(
        max_concurrent in maybe(1..=u32::MAX), max_waiting in maybe(0..=1_000_000u32), ratio in maybe(0.0..=1000.0),
        per_second in maybe(0.0..=1e6), window in maybe(1..=60u64), steps in proptest::collection::vec(step(), 0..6),
    ) -> (BulkheadConfig, RetryBudgetConfig, PipelineConfig) {
        let (mut bulkhead, mut budget, mut pipeline) =
            (BulkheadConfig::default(), RetryBudgetConfig::default(), PipelineConfig::default());
        (bulkhead.max_concurrent, bulkhead.max_waiting) = (max_concurrent, max_waiting);
        (budget.ratio, budget.min_per_second, budget.window) = (ratio, per_second, window.map(Duration::from_secs));
        pipeline.steps = steps;
        (bulkhead, budget, pipeline)
    }
}

prop_compose! {
    fn newer()(
        max_concurrent in maybe(1..=u32::MAX), mut shares in proptest::collection::vec(0.0..=1.0, 4), all in any::<bool>(),
        after in maybe(span()), part in maybe(0.001..0.999), max_hedges in maybe(1..=8u32), budget in maybe(name()),
    ) -> (LoadShedderConfig, HedgeConfig) {
        let (mut shedder, mut hedge) = (LoadShedderConfig::default(), HedgeConfig::default());
        shedder.max_concurrent = max_concurrent;
        if all {
            shares.sort_by(f64::total_cmp);
            shares.push(1.0);
            shedder.share = Priority::ALL.into_iter().zip(shares).collect();
        }
        (hedge.after, hedge.after_percentile) = (after, part);
        (hedge.max_hedges, hedge.budget) = (max_hedges, budget);
        (shedder, hedge)
    }
}

/// Any valid configuration, but for the names it refers to.
fn config() -> impl Strategy<Value = ResilienceConfig> {
    let of = |name: String| name;
    let all = (name().prop_map(of), breaker(), retry(), limiter(), rest(), newer());
    all.prop_map(|(name, breaker, retry, limiter, (bulkhead, budget, pipeline), (shedder, hedge))| {
        let mut config = ResilienceConfig::default();
        config.breakers = BTreeMap::from([(name.clone(), breaker)]);
        config.retries = BTreeMap::from([(name.clone(), retry)]);
        config.limiters = BTreeMap::from([(name.clone(), limiter)]);
        config.bulkheads = BTreeMap::from([(name.clone(), bulkhead)]);
        config.budgets = BTreeMap::from([(name.clone(), budget)]);
        config.load_shedders = BTreeMap::from([(name.clone(), shedder)]);
        config.hedges = BTreeMap::from([(name.clone(), hedge)]);
        config.pipelines = BTreeMap::from([(name, pipeline)]);
        config
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_each_format_and_valid_by_the_schema(config in config()) {
        prop_assert_eq!(&toml::from_str::<ResilienceConfig>(&toml::to_string(&config).unwrap()).unwrap(), &config);
        let yaml = serde_norway::to_string(&config).unwrap();
        prop_assert_eq!(&serde_norway::from_str::<ResilienceConfig>(&yaml).unwrap(), &config);
        let json = serde_json::to_value(&config).unwrap();
        prop_assert_eq!(violation(&schema(), &json, ""), None);
        prop_assert_eq!(&serde_json::from_value::<ResilienceConfig>(json).unwrap(), &config);
    }

    /// The schema must not refuse what the reader takes.
    #[test]
    fn the_schema_is_no_stricter_than_the_reader(text in "[0-9]{1,3}(\\.[0-9]{1,2})? ?(%|ms|s|h|min|/s|/min|/60s| / 1h 30m|1s)?", number in -2..3i64) {
        for value in [json!(text), json!(number), json!(number as f64 / 2.0)] {
            for (kind, field) in [
                ("breakers", "open_for"), ("breakers", "half_open_permits"), ("retries", "jitter"), ("retries", "max_retry_after"),
                ("limiters", "rate"), ("limiters", "burst"), ("budgets", "ratio"), ("budgets", "min_per_second"), ("retries", "budget"),
                ("load_shedders", "share"), ("hedges", "after"), ("hedges", "after_percentile"), ("hedges", "max_hedges"),
            ] {
                let config = json!({ kind: { "x": { field: value } } });
                if serde_json::from_value::<ResilienceConfig>(config.clone()).is_ok() {
                    prop_assert_eq!(violation(&schema(), &config, ""), None);
                }
            }
        }
    }
}

fn schema() -> Value {
    serde_json::to_value(ResilienceConfig::json_schema()).unwrap()
}

/// What is wrong by a schema: the keywords that ours uses, and a panic for any other.
fn violation(schema: &Value, value: &Value, path: &str) -> Option<String> {
    let text = |key: &str| value.as_str().zip(schema[key].as_str());
    for (keyword, expected) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            // The last two together, below.
            "$schema" | "title" | "description" | "examples" | "properties" | "additionalProperties" => true,
            "type" => match expected.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                other => panic!("type {other}"),
            },
            "minimum" => value.as_f64().is_none_or(|it| it >= expected.as_f64().unwrap()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|it| it > expected.as_f64().unwrap()),
            "exclusiveMaximum" => value.as_f64().is_none_or(|it| it < expected.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|it| it <= expected.as_f64().unwrap()),
            "enum" => expected.as_array().unwrap().contains(value),
            "pattern" => {
                text("pattern").is_none_or(|(it, pattern)| regex_lite::Regex::new(pattern).unwrap().is_match(it))
            }
            "anyOf" => expected.as_array().unwrap().iter().any(|one| violation(one, value, path).is_none()),
            "required" => expected.as_array().unwrap().iter().all(|it| value.get(it.as_str().unwrap()).is_some()),
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                if let Some(wrong) = items.find_map(|item| violation(expected, item, &format!("{path}[]"))) {
                    return Some(wrong);
                }
                true
            }
            "propertyNames" => {
                value.as_object().is_none_or(|it| it.keys().all(|key| violation(expected, &json!(key), path).is_none()))
            }
            other => panic!("a keyword that this test does not know: {other}"),
        };
        if !holds {
            return Some(format!("{path}: {value} breaks {keyword} {expected}"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let of_key = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
        match of_key {
            Value::Bool(false) => return Some(format!("{path}: {key} is not allowed")),
            Value::Null => {}
            schema => {
                if let Some(wrong) = violation(schema, value, &format!("{path}.{key}")) {
                    return Some(wrong);
                }
            }
        }
    }
    None
}

#[test]
fn the_documented_example_is_valid_by_the_schema() {
    assert_eq!(violation(&schema(), &example_as_json(), ""), None);
    let from_toml: Value = toml::from_str(TOML).unwrap();
    assert_eq!(violation(&schema(), &from_toml, ""), None);
}

#[test]
fn a_bad_value_is_invalid_by_the_schema() {
    let bad = [
        json!({ "breakers": { "x": { "failure_rate": 1.5 } } }),
        json!({ "breakers": { "x": { "failure_rate": 0 } } }),
        json!({ "breakers": { "x": { "failure_rate": "half" } } }),
        json!({ "breakers": { "x": { "half_open_permits": 0 } } }),
        json!({ "breakers": { "x": { "half_open_permits": 1.5 } } }),
        json!({ "breakers": { "x": { "open_for": 60 } } }),
        json!({ "breakers": { "x": { "open_for": "60" } } }),
        json!({ "breakers": { "x": { "open_after": 5 } } }),
        json!({ "breakers": { "a b": {} } }),
        json!({ "braker": {} }),
        json!({ "limiters": { "x": { "rate": "500" } } }),
        json!({ "limiters": { "x": { "rate": "0/s" } } }),
        json!({ "bulkheads": { "x": { "max_waiting": 1_000_001 } } }),
        json!({ "retries": { "x": { "jitter": "half" } } }),
        json!({ "retries": { "x": { "backoff": { "kind": "linear", "initial": "1s" } } } }),
        json!({ "retries": { "x": { "backoff": { "kind": "fixed", "delay": "1s", "cap": "1s" } } } }),
        json!({ "load_shedders": { "x": { "share": 0.5 } } }),
        json!({ "load_shedders": { "x": { "share": { "low": 1.5 } } } }),
        json!({ "load_shedders": { "x": { "share": { "urgent": 0.5 } } } }),
        json!({ "hedges": { "x": { "after_percentile": 1 } } }),
        json!({ "hedges": { "x": { "max_hedges": 9 } } }),
        json!({ "pipelines": { "x": { "steps": [{ "hedge": "x", "max_wait": "1s" }] } } }),
        json!({ "pipelines": { "x": { "steps": [{ "cache": "x" }] } } }),
        json!({ "pipelines": { "x": { "steps": [{ "retry": "x", "timeout": "1s" }] } } }),
        json!({ "pipelines": { "x": { "steps": [{ "retry": "x", "max_wait": "1s" }] } } }),
    ];
    for bad in bad {
        assert!(violation(&schema(), &bad, "").is_some(), "{bad}");
        assert!(serde_json::from_value::<ResilienceConfig>(bad.clone()).is_err(), "{bad}");
    }
}
