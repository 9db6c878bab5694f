//! The phases of a shutdown and the time each may take. Budgets are validated when a shutdown is built.

use std::fmt;
use std::time::Duration;

use resilience_core::ConfigError;

/// Where a shutdown is. Phases come in this order and none is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Phase {
    /// Somebody asked for it.
    Requested,
    /// Readiness says no; requests are still served, so that load balancers can look elsewhere first.
    NotReady,
    /// Nothing new is accepted; what is in flight may finish.
    Drain,
    /// What is still in flight is told to stop.
    Cancel,
    /// Handlers close things, each after everything that depends on it.
    Close,
    /// Handlers bring data to safety: audit logs, telemetry. Its time is its own.
    Flush,
    /// The report is ready.
    Exit,
}

impl Phase {
    /// The name used in reports, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::NotReady => "not_ready",
            Self::Drain => "drain",
            Self::Cancel => "cancel",
            Self::Close => "close",
            Self::Flush => "flush",
            Self::Exit => "exit",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How long each phase may take at most.
///
/// ```
/// use std::time::Duration;
/// use resilience_health::shutdown::{Budgets, Shutdown};
///
/// let budgets = Budgets::kubernetes().drain(Duration::from_secs(25)).grace_period(Duration::from_secs(30));
/// let error = Shutdown::builder().budgets(budgets).build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`grace_period` is 30s; allowed: at least the sum of all budgets, 5s not_ready + 25s drain + 3s cancel + 5s close + 1.5s flush = 39.5s",
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use]
pub struct Budgets {
    #[cfg_attr(feature = "serde", serde(rename = "not_ready_ms", serialize_with = "crate::ser::ms"))]
    pub(crate) not_ready: Duration,
    #[cfg_attr(feature = "serde", serde(rename = "drain_ms", serialize_with = "crate::ser::ms"))]
    pub(crate) drain: Duration,
    #[cfg_attr(feature = "serde", serde(rename = "cancel_ms", serialize_with = "crate::ser::ms"))]
    pub(crate) cancel: Duration,
    #[cfg_attr(feature = "serde", serde(rename = "close_ms", serialize_with = "crate::ser::ms"))]
    pub(crate) close: Duration,
    #[cfg_attr(feature = "serde", serde(rename = "flush_ms", serialize_with = "crate::ser::ms"))]
    pub(crate) flush: Duration,
    #[cfg_attr(feature = "serde", serde(rename = "escalated_close_ms", serialize_with = "crate::ser::ms"))]
    pub(crate) escalated_close: Duration,
    #[cfg_attr(feature = "serde", serde(rename = "grace_period_ms", serialize_with = "crate::ser::opt_ms"))]
    pub(crate) grace_period: Option<Duration>,
}

impl Default for Budgets {
    /// No wait in `NotReady`, 10 s to drain, 3 s to cancel, 5 s to close (1 s after a second signal), 1.5 s to flush.
    fn default() -> Self {
        Self {
            not_ready: Duration::ZERO,
            drain: Duration::from_secs(10),
            cancel: Duration::from_secs(3),
            close: Duration::from_secs(5),
            flush: Duration::from_millis(1500),
            escalated_close: Duration::from_secs(1),
            grace_period: None,
        }
    }
}

impl Budgets {
    /// The defaults, with 5 s of `NotReady`: the time Kubernetes takes to stop sending traffic. Fits its usual grace period
    /// of 30 s, which is checked.
    pub fn kubernetes() -> Self {
        Self { not_ready: Duration::from_secs(5), grace_period: Some(Duration::from_secs(30)), ..Self::default() }
    }

    /// How long to serve on after readiness has said no; may be 0.
    pub fn not_ready(mut self, budget: Duration) -> Self {
        self.not_ready = budget;
        self
    }

    /// How long to wait for what is in flight; may be 0.
    pub fn drain(mut self, budget: Duration) -> Self {
        self.drain = budget;
        self
    }

    /// How long to wait after telling what is in flight to stop; may be 0.
    pub fn cancel(mut self, budget: Duration) -> Self {
        self.cancel = budget;
        self
    }

    /// How long all closing handlers together may take; more than 0.
    pub fn close(mut self, budget: Duration) -> Self {
        self.close = budget;
        self
    }

    /// How long all flushing handlers together may take; more than 0. No other phase can use it up.
    pub fn flush(mut self, budget: Duration) -> Self {
        self.flush = budget;
        self
    }

    /// How long closing may take after a second signal; more than 0, at most `close`.
    pub fn escalated_close(mut self, budget: Duration) -> Self {
        self.escalated_close = budget;
        self
    }

    /// How long whoever stops the process waits before killing it. With it, budgets that add up to more are refused.
    pub fn grace_period(mut self, total: Duration) -> Self {
        self.grace_period = Some(total);
        self
    }

    /// The most a shutdown can take, escalated or not.
    pub fn total(&self) -> Duration {
        self.not_ready + self.drain + self.cancel + self.close + self.flush
    }

    pub(crate) fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::NotReady => self.not_ready,
            Phase::Drain => self.drain,
            Phase::Cancel => self.cancel,
            Phase::Close => self.close,
            Phase::Flush => self.flush,
            Phase::Requested | Phase::Exit => Duration::ZERO,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        const LONGEST: Duration = Duration::from_secs(86_400);
        for (field, budget, may_be_zero) in [
            ("not_ready", self.not_ready, true),
            ("drain", self.drain, true),
            ("cancel", self.cancel, true),
            ("close", self.close, false),
            ("flush", self.flush, false),
            ("escalated_close", self.escalated_close, false),
        ] {
            if budget > LONGEST || (budget.is_zero() && !may_be_zero) {
                let least = if may_be_zero { "0" } else { "more than 0" };
                return Err(ConfigError::new(field, format!("{budget:?}"), format!("{least}, at most a day")));
            }
        }
        if self.escalated_close > self.close {
            let allowed = format!("at most close = {:?}: a second signal shortens", self.close);
            return Err(ConfigError::new("escalated_close", format!("{:?}", self.escalated_close), allowed));
        }
        if let Some(grace_period) = self.grace_period
            && grace_period < self.total()
        {
            let allowed = format!(
                "at least the sum of all budgets, {:?} not_ready + {:?} drain + {:?} cancel + {:?} close + {:?} flush = {:?}",
                self.not_ready,
                self.drain,
                self.cancel,
                self.close,
                self.flush,
                self.total()
            );
            return Err(ConfigError::new("grace_period", format!("{grace_period:?}"), allowed));
        }
        Ok(())
    }
}
