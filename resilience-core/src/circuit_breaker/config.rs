//! What a circuit breaker can be told, and the checks on it. Nothing here runs after the breaker is built.

use std::sync::Arc;
use std::time::Duration;

use super::CircuitBreaker;
use super::machine::Machine;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// The largest count window: 16 bits a call, so 2 MiB a breaker.
const MAX_WINDOW_CALLS: u32 = 1_000_000;

/// When a closed breaker opens.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Trip {
    /// After this many failures in a row.
    ConsecutiveFailures(u32),
    /// When the failure rate over the last `calls` calls reaches `rate`, once `minimum_calls` have been made.
    FailureRateOfCalls {
        /// The size of the window in calls.
        calls: u32,
        /// The part of failures that opens: in (0, 1].
        rate: f64,
        /// How many calls it takes before the rate counts.
        minimum_calls: u32,
    },
    /// When the failure rate over the last `span` reaches `rate`, if it saw at least `minimum_calls`.
    FailureRateOfTime {
        /// The size of the window.
        span: Duration,
        /// The part of failures that opens: in (0, 1].
        rate: f64,
        /// How many calls it takes before the rate counts.
        minimum_calls: u32,
    },
}

/// Also opens when too many calls of the window are slow, whatever their result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SlowCalls {
    /// From when on a call is slow.
    pub(super) longer_than: Duration,
    /// The part of slow calls that opens: in (0, 1].
    pub(super) rate: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) trip: Trip,
    pub(super) slow_calls: Option<SlowCalls>,
    pub(super) open_for: Duration,
    pub(super) half_open_permits: u32,
    pub(super) half_open_successes: u32,
}

/// Builds a [`CircuitBreaker`].
#[derive(Debug, Clone)]
pub struct CircuitBreakerBuilder {
    name: Arc<str>,
    settings: Settings,
    clock: Clock,
    observers: Observers,
}

impl CircuitBreakerBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        let settings = Settings {
            trip: Trip::ConsecutiveFailures(5),
            slow_calls: None,
            open_for: Duration::from_secs(60),
            half_open_permits: 1,
            half_open_successes: 2,
        };
        Self { name, settings, clock: Clock::system(), observers: Observers::new() }
    }

    /// Opens after this many failures in a row. From 1; default 5.
    #[must_use]
    pub fn consecutive_failures(self, threshold: u32) -> Self {
        self.trip(Trip::ConsecutiveFailures(threshold))
    }

    /// Opens when at least `rate` (more than 0, at most 1) of the last `calls` calls (1 to 1 000 000) failed, once
    /// `minimum_calls` (1 to `calls`) were made. Calls that say nothing of the dependency are not counted.
    ///
    /// ```
    /// use resilience_core::CircuitBreaker;
    ///
    /// let breaker = CircuitBreaker::builder("search").failure_rate(0.5, 100, 10).build()?;
    /// # drop(breaker);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn failure_rate(self, rate: f64, calls: u32, minimum_calls: u32) -> Self {
        self.trip(Trip::FailureRateOfCalls { calls, rate, minimum_calls })
    }

    /// Opens when at least `rate` (more than 0, at most 1) of the calls of the last `span` (more than 0, at most 10
    /// years) failed, if there were `minimum_calls` (from 1). The window forgets in steps of a sixteenth of `span`.
    #[must_use]
    pub fn failure_rate_over(self, rate: f64, span: Duration, minimum_calls: u32) -> Self {
        self.trip(Trip::FailureRateOfTime { span, rate, minimum_calls })
    }

    /// When to open.
    #[must_use]
    pub fn trip(mut self, trip: Trip) -> Self {
        self.settings.trip = trip;
        self
    }

    /// Also opens when at least `rate` (more than 0, at most 1) of the window's calls took longer than `longer_than`
    /// (more than 0), whatever their result. Needs a failure-rate window.
    #[must_use]
    pub fn slow_call_rate(mut self, rate: f64, longer_than: Duration) -> Self {
        self.settings.slow_calls = Some(SlowCalls { longer_than, rate });
        self
    }

    /// How long it stays open before it probes. More than 0, at most 10 years; default 60 s.
    #[must_use]
    pub fn open_for(mut self, time: Duration) -> Self {
        self.settings.open_for = time;
        self
    }

    /// How many probes may be under way at once while half open. From 1; default 1.
    #[must_use]
    pub fn half_open_permits(mut self, permits: u32) -> Self {
        self.settings.half_open_permits = permits;
        self
    }

    /// How many probe successes in a row close it. From 1; default 2.
    #[must_use]
    pub fn half_open_successes(mut self, successes: u32) -> Self {
        self.settings.half_open_successes = successes;
        self
    }

    /// Where it takes the time from. Default: the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of its state changes and refusals. Default: nobody.
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes the breaker.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    pub fn build(self) -> Result<CircuitBreaker, ConfigError> {
        config::name(&self.name)?;
        let (name, settings) = (&*self.name, &self.settings);
        let rate_and_minimum = |rate: f64, minimum: u32, most: u32| {
            config::ratio(name, "failure_rate", rate)?;
            config::in_range(name, "minimum_calls", minimum, &1, &most)
        };
        match settings.trip {
            Trip::ConsecutiveFailures(threshold) => {
                config::in_range(name, "consecutive_failures", threshold, &1, &u32::MAX)?;
            }
            Trip::FailureRateOfCalls { calls, rate, minimum_calls } => {
                config::in_range(name, "window_calls", calls, &1, &MAX_WINDOW_CALLS)?;
                rate_and_minimum(rate, minimum_calls, calls)?;
            }
            Trip::FailureRateOfTime { span, rate, minimum_calls } => {
                config::positive(name, "window_span", span)?;
                rate_and_minimum(rate, minimum_calls, u32::MAX)?;
            }
        }
        if let Some(slow) = settings.slow_calls {
            config::ratio(name, "slow_call_rate", slow.rate)?;
            config::positive(name, "slow_call_duration", slow.longer_than)?;
            if matches!(settings.trip, Trip::ConsecutiveFailures(_)) {
                return Err(ConfigError::new(
                    format!("{name}.slow_call_rate"),
                    slow.rate,
                    "only together with a failure-rate window",
                ));
            }
        }
        config::positive(name, "open_for", settings.open_for)?;
        config::in_range(name, "half_open_permits", settings.half_open_permits, &1, &u32::MAX)?;
        config::in_range(name, "half_open_successes", settings.half_open_successes, &1, &u32::MAX)?;
        let machine = Machine::new(self.settings);
        Ok(CircuitBreaker::from_parts(self.name, self.clock, self.observers, machine))
    }
}
