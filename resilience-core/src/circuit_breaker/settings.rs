//! What a breaker goes by, as a value: when it opens, for how long, how it comes back. Checked before it is used.

use std::time::Duration;

use super::word::NeedsTime;
use crate::config::{self, ConfigError};
use crate::retry::Backoff;
use crate::window::{Counts, Window};

/// The largest count window. It takes 8 bytes for each failed or slow call in it: 16 MiB where all are both.
const MAX_WINDOW_CALLS: u32 = 1_000_000;

/// When a closed breaker opens.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{CircuitBreaker, circuit_breaker::Trip};
///
/// let trip = Trip::FailureRateOfTime { span: Duration::from_secs(10), rate: 0.5, minimum_calls: 20 };
/// let breaker = CircuitBreaker::builder("search").failure_rate_over(0.5, Duration::from_secs(10), 20).build()?;
/// assert_eq!(breaker.settings().trip, trip);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
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
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{CircuitBreaker, circuit_breaker::SlowCalls};
///
/// let longer_than = Duration::from_secs(2);
/// let breaker = CircuitBreaker::builder("search").failure_rate(0.5, 100, 10);
/// let breaker = breaker.slow_call_rate(0.8, longer_than).build()?;
/// assert_eq!(breaker.settings().slow_calls, Some(SlowCalls { longer_than, rate: 0.8 }));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// From when on a call is slow.
    pub longer_than: Duration,
    /// The part of slow calls that opens: in (0, 1].
    pub rate: f64,
}

/// When a half-open breaker closes.
///
/// ```
/// use resilience_core::{CircuitBreaker, circuit_breaker::CloseWhen};
///
/// let breaker = CircuitBreaker::builder("search").half_open_rate(0.2, 10).build()?;
/// assert_eq!(breaker.settings().close_when, CloseWhen::FailureRateBelow { rate: 0.2, calls: 10 });
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum CloseWhen {
    /// After this many probe successes in a row; one failure opens it again.
    SuccessesInARow(u32),
    /// When, of `calls` probes, less than the part `rate` failed; it opens again as soon as that cannot be.
    FailureRateBelow {
        /// The part of failures that opens it again: in (0, 1].
        rate: f64,
        /// How many probes are judged.
        calls: u32,
    },
}

/// What a breaker goes by: read with [`CircuitBreaker::settings`](super::CircuitBreaker::settings), written with a [`CircuitBreakerBuilder`](super::CircuitBreakerBuilder).
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Backoff, CircuitBreaker};
///
/// let settings = CircuitBreaker::builder("search").build()?.settings(); // the defaults
/// assert_eq!(settings.open_for, Backoff::fixed(Duration::from_secs(60)));
/// assert_eq!((settings.half_open_permits, settings.half_open_timeout, settings.ramp_up), (1, None, None));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BreakerSettings {
    /// When it opens.
    pub trip: Trip,
    /// Whether slow calls open it.
    pub slow_calls: Option<SlowCalls>,
    /// How long it stays open, by the number of openings without closing in between.
    pub open_for: Backoff,
    /// The part of the open time that is added to it at random.
    pub open_jitter: f64,
    /// How many probes may be under way at once.
    pub half_open_permits: u32,
    /// When it closes.
    pub close_when: CloseWhen,
    /// How long probes may hold all the permits.
    pub half_open_timeout: Option<Duration>,
    /// How long the share of admitted calls grows after closing.
    pub ramp_up: Option<Duration>,
}

impl BreakerSettings {
    /// How long the breaker stays open the `opening`th time; `random` lies in `[0, 1)`.
    pub(super) fn open_time(&self, opening: u32, random: f64) -> Duration {
        let time = self.open_for.delay(opening);
        // The factor is at most 2 and the time at most 10 years, so this is a duration.
        time + Duration::try_from_secs_f64(time.as_secs_f64() * self.open_jitter * random).unwrap_or_default()
    }

    /// The longest time it can stay open.
    pub(super) fn longest_open(&self) -> Duration {
        self.open_for.cap() + self.open_for.cap().mul_f64(self.open_jitter)
    }

    pub(super) fn window(&self) -> Option<Window> {
        match self.trip {
            Trip::ConsecutiveFailures(_) => None,
            Trip::FailureRateOfCalls { calls, .. } => Some(Window::last_calls(calls)),
            Trip::FailureRateOfTime { span, .. } => Some(Window::last_span(span)),
        }
    }

    pub(super) fn needs_time(&self) -> NeedsTime {
        let at_end = matches!(self.trip, Trip::FailureRateOfTime { .. });
        NeedsTime { at_start: self.slow_calls.is_some(), at_end }
    }

    /// Whether what the window holds is too bad.
    pub(super) fn trips(&self, counts: &Counts) -> bool {
        let (Trip::FailureRateOfCalls { rate, minimum_calls, .. }
        | Trip::FailureRateOfTime { rate, minimum_calls, .. }) = self.trip
        else {
            return false;
        };
        let calls = counts.calls as f64;
        counts.calls >= u64::from(minimum_calls)
            && (counts.failed as f64 / calls >= rate
                || self.slow_calls.is_some_and(|slow| counts.slow as f64 / calls >= slow.rate))
    }

    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let rate_and_minimum = |rate: f64, minimum: u32, most: u32| {
            config::ratio(name, "failure_rate", rate)?;
            config::in_range(name, "minimum_calls", minimum, &1, &most)
        };
        match self.trip {
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
        if let Some(slow) = self.slow_calls {
            config::ratio(name, "slow_call_rate", slow.rate)?;
            config::positive(name, "slow_call_duration", slow.longer_than)?;
            if matches!(self.trip, Trip::ConsecutiveFailures(_)) {
                let allowed = "only together with a failure-rate window";
                return Err(ConfigError::new(format!("{name}.slow_call_rate"), slow.rate, allowed));
            }
        }
        self.check_open_time(name)?;
        config::in_range(name, "half_open_permits", self.half_open_permits, &1, &u32::MAX)?;
        match self.close_when {
            CloseWhen::SuccessesInARow(successes) => {
                config::in_range(name, "half_open_successes", successes, &1, &u32::MAX)?;
            }
            CloseWhen::FailureRateBelow { rate, calls } => {
                config::ratio(name, "half_open_rate", rate)?;
                config::in_range(name, "half_open_calls", calls, &1, &u32::MAX)?;
            }
        }
        for (field, time) in [("half_open_timeout", self.half_open_timeout), ("ramp_up", self.ramp_up)] {
            time.map_or(Ok(Duration::ZERO), |time| config::positive(name, field, time))?;
        }
        Ok(())
    }

    fn check_open_time(&self, name: &str) -> Result<(), ConfigError> {
        if let Backoff::Linear { initial, cap }
        | Backoff::Exponential { initial, cap, .. }
        | Backoff::Fibonacci { initial, cap } = self.open_for
        {
            config::positive(name, "open_for.cap", cap)?;
            if initial > cap {
                let allowed = format!("at most the cap of {cap:?}");
                return Err(ConfigError::new(format!("{name}.open_for.initial"), format!("{initial:?}"), allowed));
            }
        }
        if let Backoff::Exponential { base, .. } = self.open_for {
            config::in_range(name, "open_for.base", base, &1.0, &1000.0)?;
        }
        config::positive(name, "open_for", self.open_for.delay(1))?;
        config::in_range(name, "open_jitter", self.open_jitter, &0.0, &1.0)?;
        Ok(())
    }
}
