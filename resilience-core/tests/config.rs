//! Configuration: every field with every kind of bad value, by serde and in code; units; nothing panics.
#![cfg(feature = "serde")]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::config::{
    BreakerConfig, BulkheadConfig, HedgeConfig, LimiterConfig, LoadShedderConfig, PipelineConfig, ResilienceConfig,
    RetryBudgetConfig, RetryConfig, Step, units,
};
use resilience_core::{Backoff, Jitter, Priority, Registry};
use toml::Value;

/// What a field holds; says which values are wrong.
#[derive(Clone, Copy)]
enum Kind {
    /// Whole, from this number to that.
    Whole(u32, u32),
    /// A part: more than 0 (or from 0), at most this (or less).
    Part {
        from_0: bool,
        max: f64,
        below_max: bool,
        percent: bool,
    },
    /// A duration, more than 0 or from 0.
    Span {
        from_0: bool,
    },
    Rate,
    Name,
    Backoff,
    Jitter,
    /// A table of parts, which are listed by themselves.
    Shares,
}

const ALL: u32 = u32::MAX;
const RATIO: Kind = Kind::Part { from_0: false, max: 1.0, below_max: false, percent: true };
const SPREAD: Kind = Kind::Part { from_0: true, max: 1.0, below_max: false, percent: true };
const SPAN: Kind = Kind::Span { from_0: false };

const FIELDS: [(&str, &str, Kind); 43] = [
    ("breakers", "consecutive_failures", Kind::Whole(1, ALL)),
    ("breakers", "failure_rate", RATIO),
    ("breakers", "window_calls", Kind::Whole(1, 1_000_000)),
    ("breakers", "window_span", SPAN),
    ("breakers", "minimum_calls", Kind::Whole(1, ALL)),
    ("breakers", "slow_call_rate", RATIO),
    ("breakers", "slow_call_duration", SPAN),
    ("breakers", "open_for", SPAN),
    ("breakers", "half_open_permits", Kind::Whole(1, ALL)),
    ("breakers", "half_open_successes", Kind::Whole(1, ALL)),
    ("breakers", "open_jitter", SPREAD),
    ("breakers", "half_open_rate", RATIO),
    ("breakers", "half_open_calls", Kind::Whole(1, ALL)),
    ("breakers", "half_open_timeout", SPAN),
    ("breakers", "ramp_up", SPAN),
    ("limiters", "rate", Kind::Rate),
    ("limiters", "burst", Kind::Whole(1, ALL)),
    ("limiters", "sliding_window", Kind::Rate),
    ("limiters", "start_with", Kind::Whole(0, ALL)),
    ("limiters", "max_keys", Kind::Whole(1, ALL)),
    ("bulkheads", "max_concurrent", Kind::Whole(1, ALL)),
    ("bulkheads", "max_waiting", Kind::Whole(0, 1_000_000)),
    ("load_shedders", "max_concurrent", Kind::Whole(1, ALL)),
    ("load_shedders", "share", Kind::Shares),
    ("load_shedders", "share.background", SPREAD),
    ("load_shedders", "share.low", SPREAD),
    ("load_shedders", "share.normal", SPREAD),
    ("load_shedders", "share.high", SPREAD),
    ("load_shedders", "share.critical", SPREAD),
    ("hedges", "after", Kind::Span { from_0: true }),
    ("hedges", "after_percentile", Kind::Part { from_0: false, max: 1.0, below_max: true, percent: true }),
    ("hedges", "max_hedges", Kind::Whole(1, 8)),
    ("hedges", "budget", Kind::Name),
    ("retries", "max_attempts", Kind::Whole(1, ALL)),
    ("retries", "max_elapsed", SPAN),
    ("retries", "max_retry_after", Kind::Span { from_0: true }),
    ("retries", "retry_after_jitter", SPREAD),
    ("retries", "backoff", Kind::Backoff),
    ("retries", "jitter", Kind::Jitter),
    ("retries", "budget", Kind::Name),
    ("budgets", "ratio", Kind::Part { from_0: true, max: 1_000.0, below_max: false, percent: true }),
    ("budgets", "min_per_second", Kind::Part { from_0: true, max: 1_000_000.0, below_max: false, percent: false }),
    ("budgets", "window", SPAN),
];

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn texts(values: &[&str]) -> Vec<Value> {
    values.iter().map(|value| text(value)).collect()
}

/// Wrong for every kind of field.
fn never() -> Vec<Value> {
    let mut values = vec![
        Value::Float(f64::NAN),
        Value::Float(f64::INFINITY),
        Value::Float(f64::NEG_INFINITY),
        Value::Integer(-1),
        Value::Integer(i64::MIN),
        Value::Integer(i64::MAX),
        Value::Float(-0.5),
        Value::Float(1e300),
        Value::Boolean(true),
        Value::Array(vec![Value::Integer(1)]),
        Value::Table(toml::Table::new()),
        "1979-05-27".parse().map(Value::Datetime).unwrap(),
    ];
    values.extend(texts(&[
        "",
        " ",
        "-5s",
        "-5",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "5 parsecs",
        "-1/s",
        "5/parsec",
        "\u{0}",
    ]));
    values
}

impl Kind {
    fn bad(self) -> Vec<Value> {
        let mut bad = never();
        bad.extend(match self {
            Self::Whole(min, max) => {
                let mut bad = texts(&["5", "5s", "50%"]);
                bad.push(Value::Float(2.0));
                bad.extend([i64::from(min) - 1, i64::from(max) + 1].map(Value::Integer));
                bad
            }
            Self::Part { from_0, max, below_max, percent } => {
                let mut bad = texts(&["0.5", "5s", "-5%", "nan%", "1e1%", "%", "50 percent"]);
                bad.push(Value::Float(if below_max { max } else { max * 1.001 }));
                bad.extend(below_max.then(|| text(&format!("{}%", max * 100.0))));
                bad.extend(
                    (!from_0).then_some([Value::Float(0.0), text("0%"), Value::Integer(0)]).into_iter().flatten(),
                );
                bad.push(if percent { text(&format!("{}%", max * 101.0)) } else { text("50%") });
                bad
            }
            Self::Span { from_0 } => {
                let mut bad =
                    texts(&["5", "5 s 5 h", "5s5s", "1.5", "0.5ns", "3661d", "99999999999999999999d", "5S", "ms"]);
                bad.extend([Value::Integer(0), Value::Integer(5), Value::Float(1.5)]);
                bad.extend((!from_0).then(|| text("0s")));
                bad
            }
            Self::Rate => {
                let mut bad =
                    texts(&["5", "5s", "0/s", "5/0s", "4294967296/s", "1.5/s", "5/3661d", "/s", "5/", "5//s"]);
                bad.extend([Value::Integer(0), Value::Integer(5)]);
                bad
            }
            Self::Name => vec![Value::Integer(5), text(&"x".repeat(129)), text("with space")],
            Self::Backoff => texts(&["exponential", "fixed"]),
            Self::Shares => {
                let urgent = toml::Table::from_iter([("urgent".to_owned(), Value::Float(0.5))]);
                vec![Value::Float(0.5), text("50%"), Value::Table(urgent)]
            }
            Self::Jitter => vec![text("half"), text("Full"), Value::Float(1.5), text("101%")],
        });
        if matches!(self, Self::Name) {
            // As a name these are fine.
            let fine = ["-5", "nan", "inf", "1e3", "0x10", "-5s", "-1/s", "5/parsec"];
            bad.retain(|value| !value.is_datetime() && !value.as_str().is_some_and(|text| fine.contains(&text)));
        }
        if matches!(self, Self::Shares) {
            // Without any entry it says nothing, and that is fine.
            bad.retain(|value| !value.as_table().is_some_and(toml::Table::is_empty));
        }
        bad
    }
}

/// Sets a field, or an entry of one (`share.low`).
fn set(table: &mut toml::Table, field: &str, value: Value) {
    let Some((field, entry)) = field.split_once('.') else {
        table.insert(field.to_owned(), value);
        return;
    };
    let inner = table.entry(field).or_insert_with(|| Value::Table(toml::Table::new()));
    if let Some(inner) = inner.as_table_mut() {
        inner.insert(entry.to_owned(), value);
    }
}

/// A configuration of one field, read by serde.
fn read(kind: &str, field: &str, value: Value) -> Result<ResilienceConfig, String> {
    let mut policy = toml::Table::new();
    set(&mut policy, field, value);
    let policies = toml::Table::from_iter([("x".to_owned(), Value::Table(policy))]);
    let config = toml::Table::from_iter([(kind.to_owned(), Value::Table(policies))]);
    config.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn from_toml(text: &str) -> Result<ResilienceConfig, String> {
    toml::from_str(text).map_err(|error| error.message().to_owned())
}

fn refusal(text: &str) -> String {
    from_toml(text).unwrap_err()
}

#[test]
fn every_field_refuses_every_bad_value_by_its_path() {
    for (kind, field, holds) in FIELDS {
        for value in holds.bad() {
            let shown = format!("{kind}.x.{field} = {value:?}");
            let message = read(kind, field, value).expect_err(&shown);
            let path = format!("`{kind}.x.{field}");
            assert!(message.starts_with(&path), "{shown}: {message}");
            let (_, said) = message.split_once("` is ").expect(&shown);
            let (value, allowed) = said.split_once("; allowed: ").expect(&shown);
            assert!(!value.is_empty() && allowed.len() > 3, "{shown}: {message}");
        }
    }
}

#[test]
fn the_table_of_fields_is_complete() {
    let schema = serde_json::to_value(ResilienceConfig::json_schema()).unwrap();
    let mut expected = BTreeSet::new();
    for (kind, of_kind) in schema["properties"].as_object().unwrap() {
        for (field, schema) in of_kind["additionalProperties"]["properties"].as_object().unwrap() {
            expected.insert(format!("{kind}.{field}"));
            let entries = schema["properties"].as_object().into_iter().flat_map(|it| it.keys());
            expected.extend(entries.map(|entry| format!("{kind}.{field}.{entry}")));
        }
    }
    expected.remove("pipelines.steps"); // has a test of its own
    let listed: BTreeSet<_> = FIELDS.iter().map(|(kind, field, _)| format!("{kind}.{field}")).collect();
    assert_eq!(listed, expected);
}

#[test]
fn messages_name_field_value_and_what_is_allowed() {
    let window = "window_calls = 10\nminimum_calls = 5";
    insta::assert_snapshot!(refusal("breakers.search.failure_rate = 1.5"), @r#"`breakers.search.failure_rate` is 1.5; allowed: more than 0, at most 1, or a percentage as "50%""#);
    insta::assert_snapshot!(refusal("breakers.search.failure_rate = 0"), @r#"`breakers.search.failure_rate` is 0; allowed: more than 0, at most 1, or a percentage as "50%""#);
    insta::assert_snapshot!(refusal("breakers.search.ramp_up = 60"), @r#"`breakers.search.ramp_up` is 60; allowed: a duration from more than 0s to 10 years with its unit, as in "250ms", "1.5s" or "1h30m""#);
    insta::assert_snapshot!(refusal("breakers.search.open_after = 5"), @"`breakers.search.open_after` is 5; allowed: no such field, only consecutive_failures, failure_rate, window_calls, window_span, minimum_calls, slow_call_rate, slow_call_duration, open_for, open_jitter, half_open_permits, half_open_successes, half_open_rate, half_open_calls, half_open_timeout, ramp_up");
    insta::assert_snapshot!(refusal("braker.search.open_for = '5s'"), @r#"`braker` is a table with "search"; allowed: no such field, only breakers, retries, budgets, limiters, bulkheads, load_shedders, hedges, pipelines"#);
    insta::assert_snapshot!(refusal("breakers.'a b' = {}"), @r#"`breakers` is "a b"; allowed: 1 to 128 of A-Z a-z 0-9 _ - . : /"#);
    insta::assert_snapshot!(refusal("breakers = 5"), @"`breakers` is 5; allowed: a table by name");
    insta::assert_snapshot!(refusal("limiters.x.rate = '500'"), @r#"`limiters.x.rate` is "500"; allowed: 1 to 4294967295 per time (at most 10 years), as in "10/s", "500/min" or "100/60s""#);
    insta::assert_snapshot!(refusal("budgets.x.window = '2m'"), @r#"`budgets.x.window` is "2m"; allowed: a duration from 1s to 1m with its unit, as in "250ms", "1.5s" or "1h30m""#);
    insta::assert_snapshot!(refusal("retries.x.jitter = 'half'"), @r#"`retries.x.jitter` is "half"; allowed: none, full, equal, decorrelated, or a ratio: 0 to 1, or a percentage as "50%""#);
    insta::assert_snapshot!(refusal(&format!("[breakers.x]\nconsecutive_failures = 5\nfailure_rate = 0.5\n{window}")), @"`breakers.x.failure_rate` is 0.5; allowed: only without consecutive_failures");
}

#[test]
fn fields_that_need_or_exclude_each_other_are_checked() {
    let breaker = |fields: &str| refusal(&format!("breakers.x = {{ {fields} }}"));
    let expected = [
        ("half_open_rate = 0.5", "`breakers.x.half_open_rate` is 0.5; allowed: only together with half_open_calls"),
        ("half_open_calls = 5", "`breakers.x.half_open_calls` is 5; allowed: only together with half_open_rate"),
        (
            "half_open_rate = 1, half_open_calls = 5, half_open_successes = 5",
            "`breakers.x.half_open_rate` is 1; allowed: only without half_open_successes",
        ),
        (
            "open_for = { kind = 'linear', initial = '2s', cap = '1s' }",
            "`breakers.x.open_for.initial` is 2s; allowed: at",
        ),
        (
            "open_for = { kind = 'linear', initial = '0s', cap = '1s' }",
            "`breakers.x.open_for` is 0ns; allowed: more than 0",
        ),
        (
            "failure_rate = 0.5",
            "`breakers.x.failure_rate` is 0.5; allowed: only together with window_calls or window_span",
        ),
        ("window_calls = 5", "`breakers.x.window_calls` is 5; allowed: only together with failure_rate"),
        ("window_span = '5s'", "`breakers.x.window_span` is 5s; allowed: only together with failure_rate"),
        ("minimum_calls = 5", "`breakers.x.minimum_calls` is 5; allowed: only together with failure_rate"),
        ("slow_call_rate = 0.5", "`breakers.x.slow_call_rate` is 0.5; allowed: only together with slow_call_duration"),
        (
            "slow_call_duration = '1s'",
            "`breakers.x.slow_call_duration` is 1s; allowed: only together with slow_call_rate",
        ),
        (
            "slow_call_duration = '1s', slow_call_rate = 1",
            "`breakers.x.slow_call_rate` is 1; allowed: only together with a",
        ),
        (
            "failure_rate = 1, window_calls = 5, window_span = '5s', minimum_calls = 1",
            "`breakers.x.window_span` is 5s; allowed: only without window_calls",
        ),
        ("failure_rate = 1, window_calls = 5, minimum_calls = 6", "`breakers.x.minimum_calls` is 6; allowed: 1 to 5"),
    ];
    for (fields, message) in expected {
        assert!(breaker(fields).starts_with(message), "{fields}: {}", breaker(fields));
    }
    let other = [
        (
            "limiters.x = { sliding_window = '5/s', max_keys = 1 }",
            "`limiters.x.sliding_window` is 5/s; allowed: only without",
        ),
        ("limiters.x = { sliding_window = '5/s', rate = '5/s' }", "`limiters.x.rate` is 5 per 1s; allowed: no rate"),
        ("limiters.x = { sliding_window = '5/s', burst = 5 }", "`limiters.x.burst` is 5; allowed: "),
        ("limiters.x.sliding_window = '1000001/s'", "`limiters.x."),
        ("limiters.x = { burst = 5, start_with = 6 }", "`limiters.x.start_with` is 6; allowed: 0 to 5"),
        ("limiters.x = { burst = 5, start_with = 6, max_keys = 1 }", "`limiters.x.start_with` is 6; allowed: 0 to 5"),
        (
            "limiters.x = { burst = 4294967295, rate = '1/d' }",
            "`limiters.x.burst` is 4294967295; allowed: a burst that",
        ),
        ("retries.x.backoff = { kind = 'linear', initial = '2s', cap = '1s' }", "`retries.x.backoff.initial` is 2s"),
        (
            "retries.x.backoff = { kind = 'linear', initial = '2s' }",
            "`retries.x.backoff.cap` is nothing; allowed: a dur",
        ),
        (
            "retries.x.backoff = { kind = 'fixed', delay = '2s', cap = '3s' }",
            "`retries.x.backoff.cap` is \"3s\"; allowed",
        ),
        (
            "retries.x.backoff = { kind = 'slow' }",
            "`retries.x.backoff.kind` is \"slow\"; allowed: fixed, linear, expon",
        ),
        (
            "retries.x.backoff = { initial = '2s' }",
            "`retries.x.backoff.kind` is nothing; allowed: fixed, linear, expon",
        ),
    ];
    for (fields, message) in other {
        assert!(refusal(fields).starts_with(message), "{fields}: {}", refusal(fields));
    }
    for base in ["0", "0.99", "1000.5", "-2", "nan", "inf", "'2'", "true"] {
        let fields =
            format!("retries.x.backoff = {{ kind = 'exponential', initial = '1s', base = {base}, cap = '9s' }}");
        assert!(refusal(&fields).starts_with("`retries.x.backoff.base` is "), "{base}: {}", refusal(&fields));
    }
}

#[test]
fn shares_grow_with_importance_and_a_percentile_is_a_part() {
    let expected = [
        (
            "load_shedders.x.share.background = 0.6",
            "`load_shedders.x.share.background` is 0.6; allowed: at most 0.5, the share of low",
        ),
        (
            "load_shedders.x.share = { low = '90%', normal = 0.8 }",
            "`load_shedders.x.share.low` is 0.9; allowed: at most 0.8, the share of normal",
        ),
        (
            "load_shedders.x.share.critical = 0.99",
            "`load_shedders.x.share.critical` is 0.99; allowed: 1; what is critical may use everything",
        ),
        (
            "load_shedders.x.share.urgent = 1",
            "`load_shedders.x.share.urgent` is 1; allowed: no such field, only background, low, normal, high, critical",
        ),
        (
            "hedges.x.after_percentile = 95",
            "`hedges.x.after_percentile` is 95; allowed: more than 0, less than 1, or a percentage as \"50%\"",
        ),
        ("hedges.x.max_hedges = 9", "`hedges.x.max_hedges` is 9; allowed: a whole number from 1 to 8"),
    ];
    for (fields, message) in expected {
        assert_eq!(refusal(fields), message, "{fields}");
    }
}

#[test]
fn steps_are_checked_one_by_one() {
    let steps = |steps: &str| refusal(&format!("pipelines.x.steps = {steps}"));
    let one_of = "a table with one of timeout, retry, circuit_breaker, rate_limiter, bulkhead, load_shedder, hedge";
    assert_eq!(steps("5"), "`pipelines.x.steps` is 5; allowed: a list of steps");
    assert_eq!(steps("[{ retry = 'a' }, 5]"), format!("`pipelines.x.steps[1]` is 5; allowed: {one_of}"));
    assert_eq!(steps("[{}]"), format!("`pipelines.x.steps[0]` is a table; allowed: {one_of}"));
    let two = steps("[{ retry = 'a', timeout = '1s' }]");
    assert_eq!(two, format!("`pipelines.x.steps[0]` is a table with \"retry\", \"timeout\"; allowed: {one_of}"));
    let cache = steps("[{ cache = 'a' }]");
    assert_eq!(cache, format!("`pipelines.x.steps[0]` is a table with \"cache\"; allowed: {one_of}"));
    let waits = steps("[{ retry = 'a', max_wait = '1s' }]");
    assert_eq!(waits, "`pipelines.x.steps[0].max_wait` is \"1s\"; allowed: no such field, only retry");
    for step in ["load_shedder", "hedge"] {
        let waits = steps(&format!("[{{ {step} = 'a', max_wait = '1s' }}]"));
        assert_eq!(waits, format!("`pipelines.x.steps[0].max_wait` is \"1s\"; allowed: no such field, only {step}"));
        let message = steps(&format!("[{{ {step} = 5 }}]"));
        assert!(message.starts_with(&format!("`pipelines.x.steps[0].{step}` is 5; allowed: 1 to 128")), "{message}");
    }
    for bad in SPAN.bad() {
        let timeout = toml::Table::from_iter([("timeout".to_owned(), bad.clone())]);
        let message = read("pipelines", "steps", Value::Array(vec![Value::Table(timeout)])).unwrap_err();
        assert!(message.starts_with("`pipelines.x.steps[0].timeout` is "), "{bad:?}: {message}");
    }
    for bad in (Kind::Span { from_0: true }).bad() {
        let step = [("bulkhead".to_owned(), text("b")), ("max_wait".to_owned(), bad.clone())];
        let step = Value::Table(toml::Table::from_iter(step));
        let message = read("pipelines", "steps", Value::Array(vec![step])).unwrap_err();
        assert!(message.starts_with("`pipelines.x.steps[0].max_wait` is "), "{bad:?}: {message}");
    }
}

/// One policy with one field that was set in code.
macro_rules! made {
    ($policies:ident: $type:ty, $field:ident = $value:expr) => {{
        let mut policy = <$type>::default();
        policy.$field = Some($value);
        let mut config = ResilienceConfig::default();
        config.$policies.insert("x".to_owned(), policy);
        (concat!("`", stringify!($policies), ".x.", stringify!($field)), config)
    }};
}

#[test]
fn bad_values_made_in_code_are_refused_by_path_as_well() {
    let too_long = Duration::MAX;
    let backoff = |initial, base, cap| Backoff::Exponential { initial, base, cap };
    let second = Duration::from_secs(1);
    let made = [
        made!(breakers: BreakerConfig, consecutive_failures = 0),
        made!(breakers: BreakerConfig, failure_rate = f64::NAN),
        made!(breakers: BreakerConfig, open_for = Backoff::fixed(Duration::ZERO)),
        made!(breakers: BreakerConfig, open_for = Backoff::fixed(too_long)),
        made!(breakers: BreakerConfig, open_for = backoff(2 * second, 2.0, second)),
        made!(breakers: BreakerConfig, open_for = backoff(second, f64::NAN, second)),
        made!(breakers: BreakerConfig, open_jitter = f64::NAN),
        made!(breakers: BreakerConfig, half_open_timeout = Duration::ZERO),
        made!(breakers: BreakerConfig, ramp_up = too_long),
        made!(breakers: BreakerConfig, half_open_permits = 0),
        made!(breakers: BreakerConfig, half_open_successes = 0),
        made!(limiters: LimiterConfig, rate = units::Rate { permits: 0, period: second }),
        made!(limiters: LimiterConfig, burst = 0),
        made!(limiters: LimiterConfig, burst = u32::MAX),
        made!(limiters: LimiterConfig, start_with = u32::MAX),
        made!(limiters: LimiterConfig, max_keys = 0),
        made!(bulkheads: BulkheadConfig, max_concurrent = 0),
        made!(bulkheads: BulkheadConfig, max_waiting = u32::MAX),
        made!(load_shedders: LoadShedderConfig, max_concurrent = 0),
        made!(hedges: HedgeConfig, after = too_long),
        made!(hedges: HedgeConfig, after_percentile = f64::NAN),
        made!(hedges: HedgeConfig, after_percentile = 1.0),
        made!(hedges: HedgeConfig, max_hedges = 0),
        made!(hedges: HedgeConfig, max_hedges = u32::MAX),
        made!(retries: RetryConfig, max_attempts = 0),
        made!(retries: RetryConfig, max_elapsed = Duration::ZERO),
        made!(retries: RetryConfig, max_elapsed = too_long),
        made!(retries: RetryConfig, max_retry_after = too_long),
        made!(retries: RetryConfig, retry_after_jitter = f64::NAN),
        made!(retries: RetryConfig, retry_after_jitter = -0.1),
        made!(retries: RetryConfig, backoff = backoff(second, f64::NAN, second)),
        made!(retries: RetryConfig, backoff = backoff(second, f64::INFINITY, second)),
        made!(retries: RetryConfig, backoff = backoff(2 * second, 2.0, second)),
        made!(retries: RetryConfig, backoff = Backoff::Fixed { delay: too_long }),
        made!(retries: RetryConfig, jitter = Jitter::Ratio(f64::INFINITY)),
        made!(budgets: RetryBudgetConfig, ratio = f64::NAN),
        made!(budgets: RetryBudgetConfig, ratio = 1_000.5),
        made!(budgets: RetryBudgetConfig, min_per_second = -1.0),
        made!(budgets: RetryBudgetConfig, min_per_second = f64::INFINITY),
        made!(budgets: RetryBudgetConfig, window = Duration::ZERO),
        made!(budgets: RetryBudgetConfig, window = 61 * second),
    ];
    for (path, config) in made {
        let by_check = config.check().expect_err(path);
        assert!(by_check.to_string().starts_with(path), "{path}: {by_check}");
        assert_eq!(Registry::from_config(&config).unwrap_err(), by_check);
    }
    // A period is part of the rate, and the builder's word for it.
    let (_, config) = made!(limiters: LimiterConfig, rate = units::Rate { permits: 1, period: Duration::ZERO });
    assert_eq!(config.check().unwrap_err().field, "limiters.x.period");
    for (priority, share) in [(Priority::Low, f64::NAN), (Priority::Low, 0.9), (Priority::Critical, 0.99)] {
        let mut shedder = LoadShedderConfig::default();
        shedder.share.insert(priority, share);
        let mut config = ResilienceConfig::default();
        config.load_shedders.insert("x".to_owned(), shedder);
        assert_eq!(config.check().unwrap_err().field, format!("load_shedders.x.share.{priority}"));
    }
    let mut config = ResilienceConfig::default();
    config.hedges.insert("a b".to_owned(), HedgeConfig::default());
    assert_eq!(config.check().unwrap_err().field, "hedges");
    let mut config = ResilienceConfig::default();
    config.pipelines.insert("a b".to_owned(), PipelineConfig::default());
    assert_eq!(config.check().unwrap_err().field, "pipelines");
    let mut pipeline = PipelineConfig::default();
    pipeline.steps = vec![Step::Timeout(Duration::ZERO)];
    let mut config = ResilienceConfig::default();
    config.pipelines.insert("x".to_owned(), pipeline);
    assert_eq!(Registry::from_config(&config).unwrap_err().field, "pipelines.x.timeout");
}

/// The ends of every range of whole numbers are accepted, by the reader as by the builder.
#[test]
fn the_ends_of_each_range_are_accepted() {
    let beside = |field: &str| match field {
        "window_calls" => "failure_rate = 1, minimum_calls = 1,",
        "minimum_calls" => "failure_rate = 1, window_span = '1s',",
        "half_open_calls" => "half_open_rate = 1,",
        "burst" => "rate = '4294967295/s',",
        "start_with" => "rate = '4294967295/s', burst = 4294967295,",
        _ => "",
    };
    for (kind, field, holds) in FIELDS {
        let Kind::Whole(min, max) = holds else { continue };
        for value in [min, max.min(if field == "max_keys" { 1_000 } else { max })] {
            let config = format!("{kind}.x = {{ {} {field} = {value} }}", beside(field));
            let config = from_toml(&config).unwrap_or_else(|error| panic!("{config}: {error}"));
            Registry::from_config(&config).unwrap();
        }
    }
}

#[test]
fn a_key_that_is_given_twice_is_an_error() {
    let json = r#"{ "breakers": { "x": { "open_for": "1s", "open_for": "2s" } } }"#;
    let error = serde_json::from_str::<ResilienceConfig>(json).unwrap_err();
    assert!(error.to_string().starts_with("\"open_for\" is given twice"), "{error}");
}

#[test]
fn nesting_without_end_is_an_error() {
    let json = format!("{{ \"breakers\": {}{} }}", "[".repeat(100), "]".repeat(100));
    let error = serde_json::from_str::<ResilienceConfig>(&json).unwrap_err();
    assert!(error.to_string().contains("nested more than 16 deep"), "{error}");
}

#[test]
fn units_are_read_exactly_or_not_at_all() {
    let read = |text: &str| units::duration("f", text).map(|duration| duration.as_nanos()).ok();
    let expected = [
        ("250ms", Some(250_000_000)),
        ("1.5s", Some(1_500_000_000)),
        ("2m", Some(120_000_000_000)),
        ("2min", Some(120_000_000_000)),
        ("1h30m", Some(5_400_000_000_000)),
        (" 1h 30m ", Some(5_400_000_000_000)),
        ("1µs", Some(1_000)),
        ("0.000000001s", Some(1)),
        ("0.0000000001s", None),
        ("30m1h", None),
        ("1m1min", None),
        ("1.s", None),
        (".5s", None),
        ("+5s", None),
        ("٣s", None),
        ("3660d", Some(3_660 * 86_400_000_000_000)),
        ("3660d1ns", None),
        ("18446744073709551616ns", None),
    ];
    for (text, nanos) in expected {
        assert_eq!(read(text), nanos, "{text}");
    }
    let rate = |text: &str| units::rate("f", text).ok().map(|rate| (rate.permits, rate.period.as_secs()));
    let expected = [
        ("500/min", Some((500, 60))),
        ("100/60s", Some((100, 60))),
        ("10 / s", Some((10, 1))),
        ("5/1h30m", Some((5, 5_400))),
        ("+5/s", None),
        ("5/s/s", None),
    ];
    for (text, value) in expected {
        assert_eq!(rate(text), value, "{text}");
    }
    let size = |text: &str| units::size("f", text).ok();
    let expected = [
        ("64MiB", Some(64 << 20)),
        ("1.5GiB", Some(3 << 29)),
        ("10 kB", Some(10_000)),
        ("0B", Some(0)),
        ("16777215TiB", Some(16_777_215 << 40)),
        ("16777216TiB", None),
        ("0.5B", None),
        ("64mib", None),
        ("64", None),
    ];
    for (text, value) in expected {
        assert_eq!(size(text), value, "{text}");
    }
}

/// Texts that are almost units.
fn almost() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        "[0-9.]{0,25} ?(ns|us|ms|s|m|min|h|d|B|KiB|TiB|%|/s|/min|x){0,3}",
        "[0-9]{1,3}(d|h|m|s|ms)[0-9.]{0,3}[a-z]{0,2}"
    ]
}

proptest! {
    #[test]
    fn no_text_makes_the_units_panic(text in almost()) {
        let _ = (units::duration("f", &text), units::rate("f", &text), units::size("f", &text), units::share("f", &text));
    }

    #[test]
    fn what_is_written_is_read_as_the_same(nanos in 0..315_000_000_000_000_000u64, shift in 0..60u32, permits in 1..=u32::MAX) {
        let duration = Duration::from_nanos(nanos >> shift);
        prop_assert_eq!(units::duration("f", &units::format_duration(duration)).unwrap(), duration);
        let size = nanos << (shift / 4) >> shift;
        prop_assert_eq!(units::size("f", &units::format_size(size)).unwrap(), size);
        let rate = units::Rate { permits, period: duration.max(Duration::from_nanos(1)) };
        prop_assert_eq!(units::rate("f", &rate.to_string()).unwrap(), rate);
    }

    #[test]
    fn no_configuration_text_panics(text in ".{0,200}") {
        let _ = toml::from_str::<ResilienceConfig>(&text);
        let _ = serde_json::from_str::<ResilienceConfig>(&text);
        let _ = serde_norway::from_str::<ResilienceConfig>(&text);
    }

    /// Any value anywhere: refused, or a registry can be made of it.
    #[test]
    fn no_value_in_any_field_panics(values in proptest::collection::vec((0..FIELDS.len(), any_value()), 1..6)) {
        let mut config = toml::Table::new();
        for (index, value) in values {
            let (kind, field, _) = FIELDS[index];
            let policies = config.entry(kind).or_insert_with(|| Value::Table(toml::Table::new()));
            let policy = policies.as_table_mut().unwrap().entry("x").or_insert_with(|| Value::Table(toml::Table::new()));
            // A limiter for a billion keys takes its memory at once.
            if field != "max_keys" || value.as_integer().is_none_or(|keys| keys <= 100_000) {
                set(policy.as_table_mut().unwrap(), field, value);
            }
        }
        if let Ok(config) = config.try_into::<ResilienceConfig>() {
            let made = Registry::from_config(&config);
            // Only the budget that a retry or a hedge refers to is not known before.
            let budgets = ["retries.x.budget", "hedges.x.budget"];
            prop_assert!(made.is_ok() || budgets.contains(&made.unwrap_err().field.as_str()));
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        (0..100i64).prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Float),
        (0.0..1.0).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Boolean),
        almost().prop_map(Value::String),
        Just(text("10s")),
        Just(text("10/s")),
        Just(text("full")),
    ]
}
