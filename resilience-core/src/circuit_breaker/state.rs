//! What a breaker can be found in, and what it tells of itself.

use std::fmt;
use std::time::Duration;

/// What a breaker lets through.
///
/// ```
/// use resilience_core::{BreakerState, CircuitBreaker};
///
/// let breaker = CircuitBreaker::builder("search").build()?;
/// let healthy = matches!(breaker.state(), BreakerState::Closed | BreakerState::Disabled | BreakerState::MetricsOnly);
/// assert!(healthy);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum BreakerState {
    /// Everything passes, or a growing share just after it closed; results are counted.
    Closed,
    /// Nothing passes until the open time is over.
    Open,
    /// A few probes pass; they decide.
    HalfOpen,
    /// Nothing passes until an operator says otherwise.
    ForcedOpen,
    /// Everything passes and nothing is judged, until an operator says otherwise.
    Disabled,
    /// Everything passes; results are counted and it is told when it would have opened, until an operator says
    /// otherwise.
    MetricsOnly,
}

impl BreakerState {
    /// The name used in metrics, logs and audit records.
    ///
    /// ```
    /// # use resilience_core::BreakerState;
    /// assert_eq!(BreakerState::HalfOpen.as_str(), "half_open");
    /// assert_eq!(BreakerState::HalfOpen.to_string(), "half_open");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a breaker has seen since it was made, and where it stands. `calls` is always the sum of its parts.
///
/// ```
/// use resilience_core::{CircuitBreaker, Outcome};
///
/// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).build()?;
/// for outcome in [Outcome::Success, Outcome::Cancelled, Outcome::TimedOut] {
///     breaker.try_acquire()?.settle(&outcome);
/// }
/// assert!(breaker.try_acquire().is_err());
/// let seen = breaker.statistics();
/// assert_eq!((seen.calls, seen.successes, seen.failures, seen.ignored, seen.rejected), (3, 1, 1, 1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BreakerStatistics {
    /// The state now.
    pub state: BreakerState,
    /// How many state changes there have been, those before a restored snapshot included.
    pub generation: u64,
    /// Admitted calls that ended: successes + failures + ignored.
    pub calls: u64,
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed by the dependency's fault.
    pub failures: u64,
    /// Calls that say nothing of the dependency: the caller's mistakes, cancellations.
    pub ignored: u64,
    /// Calls that were refused.
    pub rejected: u64,
    /// Failures in a row, up to now.
    pub consecutive_failures: u32,
    /// Calls in the window that the failure rate is computed over; 0 when consecutive failures are counted.
    pub window_calls: u64,
    /// Failures among them.
    pub window_failures: u64,
    /// Slow calls among them, whether they failed or not.
    #[cfg_attr(feature = "serde", serde(default))]
    pub window_slow: u64,
    /// How long until probes are admitted, while open.
    pub probes_in: Option<Duration>,
    /// How often it has opened without closing in between.
    #[cfg_attr(feature = "serde", serde(default))]
    pub openings: u32,
    /// How long until everything is admitted again, while it ramps up after closing.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ramp_up_left: Option<Duration>,
    /// How often it would have opened while it was [metrics only](BreakerState::MetricsOnly).
    #[cfg_attr(feature = "serde", serde(default))]
    pub would_open: u64,
}
