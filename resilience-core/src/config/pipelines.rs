//! A pipeline in a configuration: its steps from the outside in, policies by their names.
//! What the names stand for is the registry's to know, and which orders make sense the builder's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ConfigError;
use super::field::{ANY_SPAN, Kind, Name, POSITIVE, any_of, described, entries};
use super::settings::{settings, through_serde};
use super::value::Value;

settings! {
    /// A pipeline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::config::{PipelineConfig, Step};
    ///
    /// let config: PipelineConfig = toml::from_str(r#"steps = [{ timeout = "2s" }, { retry = "store" }]"#)?;
    /// assert_eq!(config.steps, [Step::Timeout(Duration::from_secs(2)), Step::Retry("store".to_owned())]);
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct PipelineConfig {
        /// The policies from the outside in, by name: what stands before the retry sees the call once, what stands after it every attempt.
        pub steps: Vec<Step> = Steps;
    }
}

through_serde!(PipelineConfig);

/// One step of a pipeline, under the name of the builder's method: `{ timeout = "2s" }`, `{ retry = "store" }`,
/// `{ rate_limiter = "search", max_wait = "1s" }`.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Registry;
/// use resilience_core::config::{PipelineConfig, ResilienceConfig, Step};
///
/// let mut search = PipelineConfig::default();
/// search.steps.push(Step::Timeout(Duration::from_secs(2)));
/// search.steps.push(Step::RateLimiter { name: "search".to_owned(), max_wait: Some(Duration::from_secs(1)) });
///
/// let mut config: ResilienceConfig = toml::from_str("[limiters.search]\nrate = '500/min'")?;
/// config.pipelines.insert("search".to_owned(), search);
/// let pipeline: resilience_core::Pipeline = Registry::from_config(&config)?.get("search")?;
/// assert_eq!(pipeline.call(|| Ok::<_, std::io::Error>("found")).unwrap(), "found");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Before the retry, bounds the whole call; after it, each attempt.
    Timeout(Duration),
    /// The retry of this name.
    Retry(String),
    /// The circuit breaker of this name.
    CircuitBreaker(String),
    /// The rate limiter of this name, waited for up to `max_wait` when that is given.
    RateLimiter {
        /// Its name; one with keys goes by the call's key.
        name: String,
        /// 0 to 10 years; default 0: it does not wait.
        max_wait: Option<Duration>,
    },
    /// The bulkhead of this name, waited for up to `max_wait` when that is given.
    Bulkhead {
        /// Its name.
        name: String,
        /// 0 to 10 years; default 0: it does not wait.
        max_wait: Option<Duration>,
    },
    /// The load shedder of this name.
    LoadShedder(String),
    /// The hedge of this name: the last step.
    Hedge(String),
}

/// Each step's field, and whether it can wait.
const STEPS: [(&str, bool); 7] = [
    ("timeout", false),
    ("retry", false),
    ("circuit_breaker", false),
    ("rate_limiter", true),
    ("bulkhead", true),
    ("load_shedder", false),
    ("hedge", false),
];

struct Steps;

impl Steps {
    fn read_step(path: &str, value: Value) -> Result<Step, ConfigError> {
        let kinds = STEPS.map(|(step, _)| step).join(", ");
        let Value::Table(fields) = &value else {
            return Err(ConfigError::new(path, value, format!("a table with one of {kinds}")));
        };
        let mut given = STEPS.iter().filter(|(step, _)| fields.contains_key(*step));
        let (Some((step, waits)), None) = (given.next(), given.next()) else {
            return Err(ConfigError::new(path, value, format!("a table with one of {kinds}")));
        };
        let known: &[&str] = if *waits { &[step, "max_wait"] } else { &[step] };
        let mut fields = entries(path, value, known)?;
        let given = fields.remove(*step).unwrap_or(Value::Null);
        let path_of = |field: &str| format!("{path}.{field}");
        if *step == "timeout" {
            return POSITIVE.read(&path_of(step), given).map(Step::Timeout);
        }
        let name = Name.read(&path_of(step), given)?;
        let max_wait = fields.remove("max_wait").map(|wait| ANY_SPAN.read(&path_of("max_wait"), wait)).transpose()?;
        Ok(match *step {
            "retry" => Step::Retry(name),
            "circuit_breaker" => Step::CircuitBreaker(name),
            "rate_limiter" => Step::RateLimiter { name, max_wait },
            "bulkhead" => Step::Bulkhead { name, max_wait },
            "load_shedder" => Step::LoadShedder(name),
            _ => Step::Hedge(name),
        })
    }

    fn write_step(step: &Step) -> Value {
        let (kind, value, max_wait) = match step {
            Step::Timeout(limit) => ("timeout", POSITIVE.write(limit), &None),
            Step::Retry(name) => ("retry", Name.write(name), &None),
            Step::CircuitBreaker(name) => ("circuit_breaker", Name.write(name), &None),
            Step::RateLimiter { name, max_wait } => ("rate_limiter", Name.write(name), max_wait),
            Step::Bulkhead { name, max_wait } => ("bulkhead", Name.write(name), max_wait),
            Step::LoadShedder(name) => ("load_shedder", Name.write(name), &None),
            Step::Hedge(name) => ("hedge", Name.write(name), &None),
        };
        let mut fields = BTreeMap::from([(kind.to_owned(), value)]);
        if let Some(max_wait) = max_wait {
            fields.insert("max_wait".to_owned(), ANY_SPAN.write(max_wait));
        }
        Value::Table(fields)
    }
}

impl Kind for Steps {
    type Value = Vec<Step>;

    fn read(&self, path: &str, value: Value) -> Result<Vec<Step>, ConfigError> {
        let Value::List(steps) = value else { return Err(ConfigError::new(path, value, "a list of steps")) };
        steps.into_iter().enumerate().map(|(index, step)| Self::read_step(&format!("{path}[{index}]"), step)).collect()
    }

    fn write(&self, steps: &Vec<Step>) -> Value {
        Value::List(steps.iter().map(Self::write_step).collect())
    }

    fn schema(&self) -> Value {
        let step = |(name, waits): (&str, bool)| {
            let value = if name == "timeout" { POSITIVE.schema() } else { Name.schema() };
            let mut fields = BTreeMap::from([(name.to_owned(), value)]);
            if waits {
                let about = "How long it is waited for: 0 s (the default) to 10 years.";
                fields.insert("max_wait".to_owned(), described(ANY_SPAN.schema(), about));
            }
            Value::table([
                ("type", "object".into()),
                ("properties", Value::Table(fields)),
                ("required", Value::List(vec![name.into()])),
                ("additionalProperties", Value::Bool(false)),
            ])
        };
        Value::table([("type", "array".into()), ("items", any_of(STEPS.map(step)))])
    }
}
