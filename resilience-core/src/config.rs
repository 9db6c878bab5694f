//! The one error of building a policy, and the checks that produce it.
//! Every number a user gives passes through here; nothing is clamped silently.

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
    pub fn new(field: impl Into<String>, value: impl Display, allowed: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), allowed: allowed.into() }
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
    if good {
        Ok(())
    } else {
        let shown: String = value.chars().take(140).collect();
        Err(ConfigError::new("name", format!("{shown:?}"), "1 to 128 of A-Z a-z 0-9 _ - . : /"))
    }
}

fn qualified(scope: &str, field: &str) -> String {
    if scope.is_empty() { field.to_owned() } else { format!("{scope}.{field}") }
}
