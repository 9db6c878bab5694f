//! The kinds of values a field can hold. Each says how it is read, written and described in a schema, so that the three
//! cannot drift apart. A value that is refused is named with its path and with what is allowed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use super::units::{self, Rate};
use super::value::Value;
use super::{ConfigError, MAX_DURATION, NAMES, name};
use crate::load_shedder::Priority;

/// A kind of field.
pub(super) trait Kind {
    type Value: Clone + PartialEq + Debug;

    /// # Errors
    /// A [`ConfigError`] about `path`.
    fn read(&self, path: &str, value: Value) -> Result<Self::Value, ConfigError>;

    fn write(&self, value: &Self::Value) -> Value;

    /// As a JSON schema.
    fn schema(&self) -> Value;
}

fn refused<T>(path: &str, value: &Value, allowed: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::new(path, value, allowed))
}

/// A field that can be left out; it is left to the policy's builder then.
pub(super) struct Maybe<K>(pub(super) K);

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn read(&self, path: &str, value: Value) -> Result<Self::Value, ConfigError> {
        self.0.read(path, value).map(Some)
    }

    fn write(&self, value: &Self::Value) -> Value {
        value.as_ref().map_or(Value::Null, |value| self.0.write(value))
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }
}

/// A whole number.
pub(super) struct Whole {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Kind for Whole {
    type Value = u32;

    fn read(&self, path: &str, value: Value) -> Result<u32, ConfigError> {
        let Self { min, max } = *self;
        if let Value::Integer(number) = value
            && let Ok(number) = u32::try_from(number)
            && (min..=max).contains(&number)
        {
            return Ok(number);
        }
        refused(path, &value, format!("a whole number from {min} to {max}"))
    }

    fn write(&self, value: &u32) -> Value {
        Value::Integer((*value).into())
    }

    fn schema(&self) -> Value {
        Value::table([
            ("type", "integer".into()),
            ("minimum", Value::Integer(self.min.into())),
            ("maximum", Value::Integer(self.max.into())),
        ])
    }
}

/// A number, as `0.5`, as a whole number, or (with `percent`) as `"50%"`.
pub(super) struct Number {
    pub(super) min: f64,
    /// Whether the least value itself is too little.
    pub(super) more_than_min: bool,
    pub(super) max: f64,
    /// Whether the largest value itself is too much.
    pub(super) less_than_max: bool,
    pub(super) percent: bool,
}

/// More than 0, at most 1.
pub(super) const RATIO: Number =
    Number { min: 0.0, more_than_min: true, max: 1.0, less_than_max: false, percent: true };
/// More than 0, less than 1.
pub(super) const INSIDE: Number = Number { less_than_max: true, ..RATIO };
/// 0 to 1.
pub(super) const SPREAD: Number = Number { more_than_min: false, ..RATIO };

/// Whole percents, and parts of them.
const PERCENTAGES: &str = "^[0-9]+(\\.[0-9]+)? *%$";

impl Number {
    /// Not for NaN, of which no comparison is true.
    fn holds(&self, number: f64) -> bool {
        let enough = if self.more_than_min { number > self.min } else { number >= self.min };
        let not_too_much = if self.less_than_max { number < self.max } else { number <= self.max };
        enough && not_too_much
    }

    fn allowed(&self) -> String {
        let Self { min, max, .. } = self;
        let range = match (self.more_than_min, self.less_than_max) {
            (true, true) => format!("more than {min}, less than {max}"),
            (true, false) => format!("more than {min}, at most {max}"),
            (false, true) => format!("from {min}, less than {max}"),
            (false, false) => format!("{min} to {max}"),
        };
        if self.percent { format!("{range}, or a percentage as \"50%\"") } else { range }
    }
}

impl Kind for Number {
    type Value = f64;

    fn read(&self, path: &str, value: Value) -> Result<f64, ConfigError> {
        let number = match &value {
            #[expect(clippy::cast_precision_loss, reason = "what is so large is out of range anyhow")]
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            // A number in quotes is no percentage: what is in quotes has a unit.
            Value::Text(text) if self.percent && text.ends_with('%') => units::share(path, text).ok(),
            _ => None,
        };
        match number {
            Some(number) if self.holds(number) => Ok(number),
            _ => refused(path, &value, self.allowed()),
        }
    }

    fn write(&self, value: &f64) -> Value {
        Value::Float(*value)
    }

    fn schema(&self) -> Value {
        let least = if self.more_than_min { "exclusiveMinimum" } else { "minimum" };
        let most = if self.less_than_max { "exclusiveMaximum" } else { "maximum" };
        let number =
            Value::table([("type", "number".into()), (least, Value::Float(self.min)), (most, Value::Float(self.max))]);
        if self.percent { any_of([number, pattern(PERCENTAGES, &["50%"])]) } else { number }
    }
}

/// A part for each priority, as `{ low = 0.4, background = "10%" }`; those that are left out are left to the builder.
pub(super) struct Shares;

impl Kind for Shares {
    type Value = BTreeMap<Priority, f64>;

    fn read(&self, path: &str, value: Value) -> Result<Self::Value, ConfigError> {
        let mut given = entries(path, value, &Priority::ALL.map(Priority::as_str))?;
        let read = |priority: Priority| {
            let share = given.remove(priority.as_str())?;
            Some(SPREAD.read(&join(path, priority.as_str()), share).map(|share| (priority, share)))
        };
        Priority::ALL.into_iter().filter_map(read).collect()
    }

    fn write(&self, shares: &Self::Value) -> Value {
        Value::Table(shares.iter().map(|(key, share)| (key.to_string(), SPREAD.write(share))).collect())
    }

    fn schema(&self) -> Value {
        object("", Priority::ALL.map(|priority| (priority.as_str(), SPREAD.schema())))
    }
}

/// A duration with its unit.
pub(super) struct Span {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

/// More than 0, at most ten years.
pub(super) const POSITIVE: Span = Span { min: Duration::from_nanos(1), max: MAX_DURATION };
/// At most ten years.
pub(super) const ANY_SPAN: Span = Span { min: Duration::ZERO, max: MAX_DURATION };

impl Kind for Span {
    type Value = Duration;

    fn read(&self, path: &str, value: Value) -> Result<Duration, ConfigError> {
        let allowed = || {
            let least = match self.min {
                Duration::ZERO => "0s".to_owned(),
                min if min == POSITIVE.min => "more than 0s".to_owned(),
                min => units::format_duration(min),
            };
            let most = if self.max == MAX_DURATION { "10 years".to_owned() } else { units::format_duration(self.max) };
            format!("a duration from {least} to {most} with its unit, as in \"250ms\", \"1.5s\" or \"1h30m\"")
        };
        match &value {
            Value::Text(text) => match units::duration(path, text) {
                Ok(duration) if (self.min..=self.max).contains(&duration) => Ok(duration),
                _ => refused(path, &value, allowed()),
            },
            _ => refused(path, &value, allowed()),
        }
    }

    fn write(&self, value: &Duration) -> Value {
        units::format_duration(*value).into()
    }

    fn schema(&self) -> Value {
        pattern("^ *([0-9]+(\\.[0-9]+)?(d|h|m|min|s|ms|us|µs|μs|ns) *)+$", &["250ms", "1.5s", "1h30m"])
    }
}

/// Permits per time.
pub(super) struct Rates;

impl Kind for Rates {
    type Value = Rate;

    fn read(&self, path: &str, value: Value) -> Result<Rate, ConfigError> {
        let most = u32::MAX;
        let allowed = format!("1 to {most} per time (at most 10 years), as in \"10/s\", \"500/min\" or \"100/60s\"");
        match &value {
            Value::Text(text) => match units::rate(path, text) {
                Ok(rate) if rate.permits > 0 => Ok(rate),
                _ => refused(path, &value, allowed),
            },
            _ => refused(path, &value, allowed),
        }
    }

    fn write(&self, value: &Rate) -> Value {
        value.to_string().into()
    }

    fn schema(&self) -> Value {
        pattern("^ *[0-9]*[1-9][0-9]* */ *[0-9a-zµμ. ]*[a-z] *$", &["10/s", "500/min", "100/60s"])
    }
}

/// The name of a policy.
pub(super) struct Name;

impl Kind for Name {
    type Value = String;

    fn read(&self, path: &str, value: Value) -> Result<String, ConfigError> {
        match value {
            Value::Text(text) if name(&text).is_ok() => Ok(text),
            other => refused(path, &other, NAMES),
        }
    }

    fn write(&self, value: &String) -> Value {
        value.as_str().into()
    }

    fn schema(&self) -> Value {
        pattern(NAME_PATTERN, &[])
    }
}

pub(super) const NAME_PATTERN: &str = "^[A-Za-z0-9_.:/-]{1,128}$";

/// Tables by name: each a `T`.
pub(super) struct ByName<T>(pub(super) std::marker::PhantomData<T>);

/// What is a table with fields of its own.
pub(super) trait Table: Clone + PartialEq + Debug {
    /// # Errors
    /// A [`ConfigError`] about a field under `path`.
    fn read(path: &str, value: Value) -> Result<Self, ConfigError>;

    fn write(&self) -> Value;

    fn schema() -> Value;
}

impl<T: Table> Kind for ByName<T> {
    type Value = BTreeMap<String, T>;

    fn read(&self, path: &str, value: Value) -> Result<Self::Value, ConfigError> {
        let Value::Table(entries) = value else { return refused(path, &value, "a table by name") };
        let read = |(key, value): (String, Value)| {
            name(&key).map_err(|wrong| ConfigError { field: path.to_owned(), ..wrong })?;
            T::read(&format!("{path}.{key}"), value).map(|table| (key, table))
        };
        entries.into_iter().map(read).collect()
    }

    fn write(&self, value: &Self::Value) -> Value {
        Value::Table(value.iter().map(|(key, table)| (key.clone(), table.write())).collect())
    }

    fn schema(&self) -> Value {
        Value::table([
            ("type", "object".into()),
            ("propertyNames", Value::table([("pattern", NAME_PATTERN.into())])),
            ("additionalProperties", T::schema()),
        ])
    }
}

/// The entries of a table, none of which may be other than `allowed`.
pub(super) fn entries(path: &str, value: Value, allowed: &[&str]) -> Result<BTreeMap<String, Value>, ConfigError> {
    let Value::Table(entries) = value else {
        let path = if path.is_empty() { "configuration" } else { path };
        return refused(path, &value, format!("a table of {}", allowed.join(", ")));
    };
    match entries.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(unknown) => {
            let shown: String = unknown.chars().take(140).collect();
            let known = format!("no such field, only {}", allowed.join(", "));
            Err(ConfigError::new(join(path, &shown), &entries[unknown], known))
        }
        None => Ok(entries),
    }
}

pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

pub(super) fn any_of<const N: usize>(schemas: [Value; N]) -> Value {
    Value::table([("anyOf", Value::List(schemas.into()))])
}

/// A schema of texts.
pub(super) fn pattern(pattern: &str, examples: &[&str]) -> Value {
    let mut schema = Value::table([("type", "string".into()), ("pattern", pattern.into())]);
    if let Value::Table(entries) = &mut schema
        && !examples.is_empty()
    {
        entries.insert("examples".to_owned(), Value::List(examples.iter().map(|text| (*text).into()).collect()));
    }
    schema
}

/// A schema of texts that are one of these.
pub(super) fn one_of_texts(texts: &[&str]) -> Value {
    Value::table([("enum", Value::List(texts.iter().map(|text| (*text).into()).collect()))])
}

/// The schema of a table: no other fields than these.
pub(super) fn object<const N: usize>(description: &str, fields: [(&str, Value); N]) -> Value {
    let schema = Value::table([
        ("type", "object".into()),
        ("properties", Value::table(fields)),
        ("additionalProperties", Value::Bool(false)),
    ]);
    described(schema, description)
}

/// The schema with what its documentation says, up to the example: that is Rust's.
pub(super) fn described(mut schema: Value, description: &str) -> Value {
    let description = description.split("```").next().unwrap_or(description);
    if let Value::Table(entries) = &mut schema {
        entries.insert("description".to_owned(), description.trim().into());
    }
    schema
}
