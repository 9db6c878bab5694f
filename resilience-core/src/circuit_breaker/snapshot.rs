//! What a breaker knows, as a value: to keep over a restart, to hand to another node, to merge with another's.
//! Holds spans of time only, never points in time, so no clock has to agree with another. Nothing here is trusted
//! before [`BreakerSnapshot::check`] has seen it.

use std::time::Duration;

use super::BreakerState;
use super::word::MAX_GENERATION;
use crate::config::{self, ConfigError};
use crate::window::Counts;

/// The most calls that a window in a snapshot may claim.
const MAX_CALLS: u64 = 1 << 39;

/// The sums of a breaker's window.
///
/// ```
/// use resilience_core::{CircuitBreaker, Outcome, circuit_breaker::WindowCounts};
///
/// let breaker = CircuitBreaker::builder("search").failure_rate(0.5, 100, 10).build()?;
/// for outcome in [Outcome::Success, Outcome::TimedOut, Outcome::Success] {
///     breaker.try_acquire()?.settle(&outcome);
/// }
/// assert_eq!(breaker.snapshot().window, WindowCounts { calls: 3, failures: 1, slow: 0 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WindowCounts {
    /// Calls in the window.
    pub calls: u64,
    /// Failures among them.
    pub failures: u64,
    /// Slow calls among them, whether they failed or not.
    pub slow: u64,
}

impl WindowCounts {
    /// What two nodes saw together: the sums of both. A count window that is restored from more calls than it holds
    /// takes the same part of each.
    ///
    /// ```
    /// use resilience_core::circuit_breaker::WindowCounts;
    ///
    /// let here = WindowCounts { calls: 100, failures: 10, slow: 0 };
    /// let there = WindowCounts { calls: 300, failures: 90, slow: 5 };
    /// assert_eq!(here.merged(there), WindowCounts { calls: 400, failures: 100, slow: 5 });
    /// ```
    #[must_use]
    pub const fn merged(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
            slow: self.slow.saturating_add(other.slow),
        }
    }
}

impl From<WindowCounts> for Counts {
    fn from(counts: WindowCounts) -> Self {
        Self { calls: counts.calls, failed: counts.failures, slow: counts.slow }
    }
}

/// What a breaker knows at one moment, made by [`CircuitBreaker::snapshot`](super::CircuitBreaker::snapshot).
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{BreakerState, CircuitBreaker, Clock, Outcome};
///
/// let (clock, time) = Clock::manual();
/// let breaker = CircuitBreaker::builder("store").consecutive_failures(1).clock(clock).build()?;
/// breaker.try_acquire()?.settle(&Outcome::TimedOut);
/// time.advance(Duration::from_secs(20));
/// let snapshot = breaker.snapshot();
/// assert_eq!((snapshot.state, snapshot.open_left), (BreakerState::Open, Some(Duration::from_secs(40))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BreakerSnapshot {
    /// The state.
    pub state: BreakerState,
    /// How many state changes there had been.
    pub generation: u64,
    /// How long until probes are admitted: exactly while open, and zero when they may come already.
    pub open_left: Option<Duration>,
    /// How often it has opened without closing in between.
    pub openings: u32,
    /// How long until everything is admitted again, while it ramps up after closing.
    pub ramp_up_left: Option<Duration>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// What its window holds.
    pub window: WindowCounts,
}

impl BreakerSnapshot {
    /// Refuses what no breaker can have said. `longest_open` and `longest_ramp` are what the settings allow.
    pub(super) fn check(&self, name: &str, longest_open: Duration, longest_ramp: Duration) -> Result<(), ConfigError> {
        config::in_range(name, "snapshot.generation", self.generation, &0, &MAX_GENERATION)?;
        let span = |field: &str, left: Option<Duration>, longest: Duration| match left {
            Some(left) if left > longest => Err(ConfigError::new(
                format!("{name}.snapshot.{field}"),
                format!("{left:?}"),
                format!("0 to {longest:?}"),
            )),
            _ => Ok(()),
        };
        span("open_left", self.open_left, longest_open)?;
        span("ramp_up_left", self.ramp_up_left, longest_ramp)?;
        let only = |field: &str, left: Option<Duration>, allowed: &str| {
            let value = left.map_or_else(|| "missing".to_owned(), |left| format!("{left:?}"));
            Err(ConfigError::new(format!("{name}.snapshot.{field}"), value, allowed))
        };
        if self.open_left.is_some() != (self.state == BreakerState::Open) {
            return only("open_left", self.open_left, "given exactly when the state is open");
        }
        if self.ramp_up_left.is_some() && self.state != BreakerState::Closed {
            return only("ramp_up_left", self.ramp_up_left, "only when the state is closed");
        }
        let WindowCounts { calls, failures, slow } = self.window;
        config::in_range(name, "snapshot.window.calls", calls, &0, &MAX_CALLS)?;
        config::in_range(name, "snapshot.window.failures", failures, &0, &calls)?;
        config::in_range(name, "snapshot.window.slow", slow, &0, &calls)?;
        Ok(())
    }
}
