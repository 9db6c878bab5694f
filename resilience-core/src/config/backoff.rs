//! How a backoff and a jitter stand in a configuration.
//! `{ kind = "exponential", initial = "100ms", base = 2.0, cap = "30s" }`, and `"full"` or `0.2`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ConfigError;
use super::field::{ANY_SPAN, Kind, Number, POSITIVE, SPREAD, any_of, entries, join, one_of_texts};
use super::value::Value;
use crate::retry::{Backoff, Jitter};

const BASE: Number = Number { min: 1.0, more_than_min: false, max: 1000.0, less_than_max: false, percent: false };

const KINDS: [(&str, &[&str]); 4] = [
    ("fixed", &["delay"]),
    ("linear", &["initial", "cap"]),
    ("exponential", &["initial", "base", "cap"]),
    ("fibonacci", &["initial", "cap"]),
];

pub(super) struct Backoffs;

impl Kind for Backoffs {
    type Value = Backoff;

    fn read(&self, path: &str, value: Value) -> Result<Backoff, ConfigError> {
        let names = KINDS.map(|(name, _)| name).join(", ");
        let kind = match &value {
            Value::Table(fields) => fields.get("kind").cloned().unwrap_or(Value::Null),
            other => return Err(ConfigError::new(path, other, format!("a table with a kind: {names}"))),
        };
        let known = KINDS.iter().find(|(name, _)| kind == Value::from(*name));
        let Some((name, fields)) = known else {
            return Err(ConfigError::new(join(path, "kind"), &kind, names));
        };
        let allowed: Vec<_> = std::iter::once("kind").chain(fields.iter().copied()).collect();
        let mut fields = entries(path, value, &allowed)?;
        // What is missing is refused as nothing.
        let mut take = |field: &str| fields.remove(field).unwrap_or(Value::Null);
        let mut span = |field: &str| ANY_SPAN.read(&join(path, field), take(field));
        Ok(match *name {
            "fixed" => Backoff::Fixed { delay: span("delay")? },
            "linear" => Backoff::Linear { initial: span("initial")?, cap: span("cap")? },
            "fibonacci" => Backoff::Fibonacci { initial: span("initial")?, cap: span("cap")? },
            _ => {
                let (initial, cap) = (span("initial")?, span("cap")?);
                Backoff::Exponential { initial, base: BASE.read(&join(path, "base"), take("base"))?, cap }
            }
        })
    }

    fn write(&self, backoff: &Backoff) -> Value {
        let span = |field: &str, value: Duration| (field.to_owned(), ANY_SPAN.write(&value));
        let (kind, fields) = match *backoff {
            Backoff::Fixed { delay } => ("fixed", vec![span("delay", delay)]),
            Backoff::Linear { initial, cap } => ("linear", vec![span("initial", initial), span("cap", cap)]),
            Backoff::Fibonacci { initial, cap } => ("fibonacci", vec![span("initial", initial), span("cap", cap)]),
            Backoff::Exponential { initial, base, cap } => {
                let base = ("base".to_owned(), BASE.write(&base));
                ("exponential", vec![span("initial", initial), base, span("cap", cap)])
            }
        };
        let mut table: BTreeMap<_, _> = fields.into_iter().collect();
        table.insert("kind".to_owned(), kind.into());
        Value::Table(table)
    }

    fn schema(&self) -> Value {
        any_of(KINDS.map(|(name, fields)| {
            let mut properties: BTreeMap<_, _> = fields
                .iter()
                .map(|field| ((*field).to_owned(), if *field == "base" { BASE.schema() } else { ANY_SPAN.schema() }))
                .collect();
            properties.insert("kind".to_owned(), one_of_texts(&[name]));
            let required = properties.keys().map(|field| field.as_str().into()).collect();
            Value::table([
                ("type", "object".into()),
                ("properties", Value::Table(properties)),
                ("required", Value::List(required)),
                ("additionalProperties", Value::Bool(false)),
            ])
        }))
    }
}

/// A duration, or a backoff: how long a breaker stays open.
pub(super) struct OpenTimes;

impl Kind for OpenTimes {
    type Value = Backoff;

    fn read(&self, path: &str, value: Value) -> Result<Backoff, ConfigError> {
        if matches!(value, Value::Table(_)) {
            return Backoffs.read(path, value);
        }
        let or_table = |wrong: ConfigError| {
            let allowed =
                format!("{}, or a table with a kind: {}", wrong.allowed, KINDS.map(|(name, _)| name).join(", "));
            ConfigError { allowed, ..wrong }
        };
        POSITIVE.read(path, value).map(Backoff::fixed).map_err(or_table)
    }

    fn write(&self, times: &Backoff) -> Value {
        match times {
            Backoff::Fixed { delay } => POSITIVE.write(delay),
            growing => Backoffs.write(growing),
        }
    }

    fn schema(&self) -> Value {
        any_of([POSITIVE.schema(), Backoffs.schema()])
    }
}

const JITTERS: [(&str, Jitter); 4] =
    [("none", Jitter::None), ("full", Jitter::Full), ("equal", Jitter::Equal), ("decorrelated", Jitter::Decorrelated)];

pub(super) struct Jitters;

impl Kind for Jitters {
    type Value = Jitter;

    fn read(&self, path: &str, value: Value) -> Result<Jitter, ConfigError> {
        if let Some((_, jitter)) = JITTERS.iter().find(|(name, _)| value == Value::from(*name)) {
            return Ok(*jitter);
        }
        let names = JITTERS.map(|(name, _)| name).join(", ");
        SPREAD
            .read(path, value)
            .map(Jitter::Ratio)
            .map_err(|wrong| ConfigError { allowed: format!("{names}, or a ratio: {}", wrong.allowed), ..wrong })
    }

    fn write(&self, jitter: &Jitter) -> Value {
        match (jitter, JITTERS.iter().find(|(_, known)| known == jitter)) {
            (_, Some((name, _))) => (*name).into(),
            (Jitter::Ratio(ratio), None) => SPREAD.write(ratio),
            // Every other one is in the table.
            (_, None) => Value::Null,
        }
    }

    fn schema(&self) -> Value {
        any_of([one_of_texts(&JITTERS.map(|(name, _)| name)), SPREAD.schema()])
    }
}
