//! A whole configuration: every policy by its name, and the JSON schema of it.
//! What was read is valid by itself; names that refer to a registry's policies are looked up there.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ConfigError;
use super::field::{ByName, Table};
use super::pipelines::PipelineConfig;
use super::policies::{
    BreakerConfig, BulkheadConfig, HedgeConfig, LimiterConfig, LoadShedderConfig, RetryBudgetConfig, RetryConfig,
};
use super::settings::settings;
use super::value::Value;

const fn by_name<T>() -> ByName<T> {
    ByName(PhantomData)
}

settings! {
    /// Every policy by its name. Read it by serde from TOML, JSON, YAML or whatever else describes itself, and hand it
    /// to [`Registry::from_config`](crate::Registry::from_config) or, while calls are made, to
    /// [`Registry::apply`](crate::Registry::apply).
    ///
    /// Fields have the names of the builders' methods, and what is left out is left to the builder. Durations are
    /// written as `"250ms"` or `"1h30m"`, rates as `"500/min"`, parts as `0.5` or `"50%"`. A field that does not exist
    /// is an error, and so is every value that cannot be used: the message says which, and what is allowed.
    ///
    /// ```
    /// use resilience_core::{Registry, config::ResilienceConfig};
    ///
    /// let config: ResilienceConfig = toml::from_str(r#"
    ///     [breakers.search]
    ///     failure_rate = "50%"
    ///     window_calls = 100
    ///     minimum_calls = 20
    ///
    ///     [retries.search]
    ///     max_attempts = 4
    ///
    ///     [pipelines.search]
    ///     steps = [{ timeout = "10s" }, { retry = "search" }, { circuit_breaker = "search" }, { timeout = "2s" }]
    /// "#)?;
    /// let registry = Registry::from_config(&config)?;
    /// let search: resilience_core::Pipeline = registry.get("search")?;
    ///
    /// let wrong = toml::from_str::<ResilienceConfig>("breakers.search.failure_rate = 1.5").unwrap_err();
    /// assert_eq!(wrong.message(),
    ///     "`breakers.search.failure_rate` is 1.5; allowed: more than 0, at most 1, or a percentage as \"50%\"");
    /// # drop(search);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct ResilienceConfig {
        /// Circuit breakers by name.
        pub breakers: BTreeMap<String, BreakerConfig> = by_name::<BreakerConfig>();
        /// Retries by name.
        pub retries: BTreeMap<String, RetryConfig> = by_name::<RetryConfig>();
        /// Retry budgets by name, for retries and hedges to refer to.
        pub budgets: BTreeMap<String, RetryBudgetConfig> = by_name::<RetryBudgetConfig>();
        /// Rate limiters by name, keyed ones among them.
        pub limiters: BTreeMap<String, LimiterConfig> = by_name::<LimiterConfig>();
        /// Bulkheads by name.
        pub bulkheads: BTreeMap<String, BulkheadConfig> = by_name::<BulkheadConfig>();
        /// Load shedders by name.
        pub load_shedders: BTreeMap<String, LoadShedderConfig> = by_name::<LoadShedderConfig>();
        /// Hedges by name.
        pub hedges: BTreeMap<String, HedgeConfig> = by_name::<HedgeConfig>();
        /// Pipelines by name.
        pub pipelines: BTreeMap<String, PipelineConfig> = by_name::<PipelineConfig>();
    }
}

impl Serialize for ResilienceConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ResilienceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let config = Self::read("", value).map_err(D::Error::custom)?;
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl ResilienceConfig {
    /// Checks everything that can be checked without a registry: all but the names that pipelines, retries and
    /// hedges refer to. What serde has read was checked already; this is for configurations made in code.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used, by its path.
    ///
    /// ```
    /// use resilience_core::config::{BulkheadConfig, ResilienceConfig};
    ///
    /// let mut reports = BulkheadConfig::default();
    /// reports.max_concurrent = Some(0);
    /// let mut config = ResilienceConfig::default();
    /// config.bulkheads.insert("reports".to_owned(), reports);
    /// let error = config.check().unwrap_err();
    /// assert_eq!(error.to_string(), "`bulkheads.reports.max_concurrent` is 0; allowed: 1 to 4294967295");
    /// ```
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, config) in &self.breakers {
            config.builder(name).and_then(|it| it.build().map(drop)).map_err(|wrong| wrong.of("breakers", name))?;
        }
        for (name, config) in &self.retries {
            super::name(name).and_then(|()| config.builder().build().map(drop)).map_err(|it| it.of("retries", name))?;
        }
        for (name, config) in &self.budgets {
            super::name(name).and_then(|()| config.builder().build().map(drop)).map_err(|it| it.of("budgets", name))?;
        }
        for (name, config) in &self.limiters {
            let built = if config.is_keyed() {
                config.keyed_builder(name).and_then(|it| it.build().map(drop))
            } else {
                config.builder(name).build().map(drop)
            };
            built.map_err(|wrong| wrong.of("limiters", name))?;
        }
        for (name, config) in &self.bulkheads {
            config.builder(name).build().map_err(|wrong| wrong.of("bulkheads", name))?;
        }
        for (name, config) in &self.load_shedders {
            config.builder(name).build().map_err(|wrong| wrong.of("load_shedders", name))?;
        }
        for (name, config) in &self.hedges {
            super::name(name).and_then(|()| config.builder().build().map(drop)).map_err(|it| it.of("hedges", name))?;
        }
        for name in self.pipelines.keys() {
            super::name(name).map_err(|wrong| wrong.of("pipelines", name))?;
        }
        Ok(())
    }

    /// The JSON schema (draft 2020-12) of this configuration: for editors, and for checks before a deployment. It is
    /// made of the same table that the fields are read by. What fields ask of each other is not in it.
    ///
    /// ```
    /// use resilience_core::config::ResilienceConfig;
    ///
    /// let schema = serde_json::to_value(ResilienceConfig::json_schema())?;
    /// let breaker = &schema["properties"]["breakers"]["additionalProperties"];
    /// assert_eq!(breaker["properties"]["half_open_permits"]["minimum"], 1);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn json_schema() -> JsonSchema {
        let mut schema = Self::schema();
        if let Value::Table(entries) = &mut schema {
            entries.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
            entries.insert("title".to_owned(), "ResilienceConfig".into());
            entries.insert("description".to_owned(), "Every policy by its name.".into());
        }
        JsonSchema(schema)
    }
}

/// A JSON schema: serialise it.
///
/// ```
/// use resilience_core::config::ResilienceConfig;
///
/// let schema = serde_json::to_value(ResilienceConfig::json_schema())?;
/// assert!(schema["properties"]["breakers"].is_object());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct JsonSchema(Value);

impl Serialize for JsonSchema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
