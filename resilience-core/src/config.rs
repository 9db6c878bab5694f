//! Configuration: the one error of building a policy, the checks that produce it, and (feature `serde`) whole
//! configurations in any format that serde reads.
//! Every number a user gives passes through the checks here; nothing is clamped silently. Builds no policy itself.

#[cfg(feature = "serde")]
mod backoff;
#[cfg(feature = "serde")]
mod field;
#[cfg(feature = "serde")]
mod pipelines;
#[cfg(feature = "serde")]
mod policies;
#[cfg(feature = "serde")]
mod resilience;
#[cfg(feature = "serde")]
mod settings;
pub mod units;
#[cfg(feature = "serde")]
mod value;

#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use self::{
    pipelines::{PipelineConfig, Step},
    policies::{
        BreakerConfig, BulkheadConfig, HedgeConfig, LimiterConfig, LoadShedderConfig, RetryBudgetConfig, RetryConfig,
    },
    resilience::{JsonSchema, ResilienceConfig},
};

use std::fmt::Display;
use std::time::Duration;

/// A configuration value that cannot be used. The message names the field, the value and what is allowed.
///
/// ```
/// use resilience_core::RateLimiter;
///
/// let error = RateLimiter::builder("search").burst(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`search.burst` is 0; allowed: 1 to 4294967295");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}; allowed: {allowed}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The field, qualified by the policy's name where it has one.
    pub field: String,
    /// The value that was given.
    pub value: String,
    /// What would have been accepted.
    pub allowed: String,
}

impl ConfigError {
    /// An error about `field`, which was given as `value` where only `allowed` can be used.
    ///
    /// ```
    /// use resilience_core::ConfigError;
    ///
    /// let error = ConfigError::new("cache.max_age", -1, "0 to 3600");
    /// assert_eq!(error.to_string(), "`cache.max_age` is -1; allowed: 0 to 3600");
    /// ```
    pub fn new(field: impl Into<String>, value: impl Display, allowed: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }

    /// The same about the policy called `name` in the table `kind` of a configuration. Builders qualify their fields by
    /// the policy's name, or by what it is when it has none.
    #[cfg(feature = "serde")]
    pub(crate) fn of(self, kind: &str, name: &str) -> Self {
        let prefixes = [name, "retry", "retry_budget", "hedge"];
        let of_policy = prefixes.iter().find_map(|prefix| self.field.strip_prefix(prefix)?.strip_prefix('.'));
        let field = match of_policy {
            Some(field) => format!("{kind}.{name}.{field}"),
            // The name itself.
            None if self.field == "name" => kind.to_owned(),
            None => format!("{kind}.{name}.{}", self.field),
        };
        Self { field, ..self }
    }
}

/// Checks that `value` lies in `min..=max`.
pub(crate) fn in_range<T: PartialOrd + Display>(
    scope: &str,
    field: &str,
    value: T,
    min: &T,
    max: &T,
) -> Result<T, ConfigError> {
    if value >= *min && value <= *max {
        Ok(value)
    } else {
        Err(ConfigError::new(qualified(scope, field), value, format!("{min} to {max}")))
    }
}

/// The longest span any policy accepts: ten years, far inside the range of [`Instant`](crate::Instant).
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Checks that a duration is more than zero and at most ten years.
pub(crate) fn positive(scope: &str, field: &str, value: Duration) -> Result<Duration, ConfigError> {
    if value.is_zero() || value > MAX_DURATION {
        Err(ConfigError::new(qualified(scope, field), format!("{value:?}"), "more than 0, at most 10 years"))
    } else {
        Ok(value)
    }
}

/// Checks that a ratio is a number in `(0, 1]`.
pub(crate) fn ratio(scope: &str, field: &str, value: f64) -> Result<f64, ConfigError> {
    if value > 0.0 && value <= 1.0 {
        Ok(value)
    } else {
        Err(ConfigError::new(qualified(scope, field), value, "more than 0, at most 1"))
    }
}

/// Checks that a name can stand in metrics, logs and configuration.
pub(crate) fn name(value: &str) -> Result<(), ConfigError> {
    let good = !value.is_empty()
        && value.len() <= 128
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/'));
    if good { Ok(()) } else { Err(ConfigError::new("name", quoted(value), NAMES)) }
}

/// What a name can be.
pub(crate) const NAMES: &str = "1 to 128 of A-Z a-z 0-9 _ - . : /";

/// A text in quotes, cut to what a message can hold.
pub(crate) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(140).collect();
    format!("{shown:?}")
}

fn qualified(scope: &str, field: &str) -> String {
    if scope.is_empty() { field.to_owned() } else { format!("{scope}.{field}") }
}
