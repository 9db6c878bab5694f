//! What a circuit breaker can be told, and the checks on it. Nothing here runs after the breaker is built.

use std::sync::Arc;
use std::time::Duration;

use super::CircuitBreaker;
use super::machine::Machine;
use super::word::NeedsTime;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;
use crate::retry::Backoff;
use crate::window::{Counts, Window};

/// The largest count window. It takes 8 bytes for each failed or slow call in it: 16 MiB where all are both.
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
pub struct SlowCalls {
    /// From when on a call is slow.
    pub longer_than: Duration,
    /// The part of slow calls that opens: in (0, 1].
    pub rate: f64,
}

/// When a half-open breaker closes.
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

/// What a breaker goes by: read with [`CircuitBreaker::settings`], written with a [`CircuitBreakerBuilder`].
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

    fn check(&self, name: &str) -> Result<(), ConfigError> {
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

/// Builds a [`CircuitBreaker`].
#[derive(Debug, Clone)]
pub struct CircuitBreakerBuilder {
    name: Arc<str>,
    settings: BreakerSettings,
    clock: Option<Clock>,
    observers: Observers,
    seed: Option<u64>,
}

impl CircuitBreakerBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        let settings = BreakerSettings {
            trip: Trip::ConsecutiveFailures(5),
            slow_calls: None,
            open_for: Backoff::fixed(Duration::from_secs(60)),
            open_jitter: 0.0,
            half_open_permits: 1,
            close_when: CloseWhen::SuccessesInARow(2),
            half_open_timeout: None,
            ramp_up: None,
        };
        Self::with_settings(name, settings)
    }

    pub(super) fn with_settings(name: Arc<str>, settings: BreakerSettings) -> Self {
        Self { name, settings, clock: None, observers: Observers::new(), seed: None }
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
    pub fn open_for(self, time: Duration) -> Self {
        self.open_for_growing(Backoff::fixed(time))
    }

    /// As [`open_for`](Self::open_for), with a time that grows from opening to opening and starts anew once the breaker
    /// has closed. Each time more than 0, at most 10 years.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Backoff, CircuitBreaker};
    ///
    /// let times = Backoff::exponential(Duration::from_secs(10), 2.0, Duration::from_secs(300)); // 10 s, 20 s, 40 s, …
    /// let breaker = CircuitBreaker::builder("search").open_for_growing(times).open_jitter(0.2).build()?;
    /// # drop(breaker);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn open_for_growing(mut self, times: Backoff) -> Self {
        self.settings.open_for = times;
        self
    }

    /// Stays open longer by up to this part (0 to 1) at random, so that many nodes do not probe together. Never
    /// shorter. Default 0.
    #[must_use]
    pub fn open_jitter(mut self, ratio: f64) -> Self {
        self.settings.open_jitter = ratio;
        self
    }

    /// Makes what is random the same in each run: for tests.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
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
    pub fn half_open_successes(self, successes: u32) -> Self {
        self.close_when(CloseWhen::SuccessesInARow(successes))
    }

    /// Closes after `calls` (from 1) probes of which less than the part `rate` (more than 0, at most 1) failed; opens
    /// again as soon as that cannot be.
    #[must_use]
    pub fn half_open_rate(self, rate: f64, calls: u32) -> Self {
        self.close_when(CloseWhen::FailureRateBelow { rate, calls })
    }

    /// When a half-open breaker closes.
    #[must_use]
    pub fn close_when(mut self, rule: CloseWhen) -> Self {
        self.settings.close_when = rule;
        self
    }

    /// Opens again when probes hold all the permits and none was admitted for this long: they hang. Noticed when the
    /// next call asks. More than 0, at most 10 years; default: probes may take as long as they do.
    #[doc(alias = "max_wait_duration_in_half_open_state")]
    #[must_use]
    pub fn half_open_timeout(mut self, limit: Duration) -> Self {
        self.settings.half_open_timeout = Some(limit);
        self
    }

    /// After closing, lets a share of the calls pass that grows from the first
    /// [`half_open_permits`](Self::half_open_permits) calls to all over this time, and refuses the rest with
    /// [`Reason::CircuitRampingUp`](crate::Reason::CircuitRampingUp). More than 0, at most 10 years; default: everything
    /// passes at once.
    #[doc(alias = "slow_start")]
    #[must_use]
    pub fn ramp_up(mut self, over: Duration) -> Self {
        self.settings.ramp_up = Some(over);
        self
    }

    /// Where it takes the time from. Default: the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
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
        self.settings.check(&self.name)?;
        let random = self.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let machine = Machine::new(self.settings, random);
        Ok(CircuitBreaker::from_parts(self.name, self.clock.unwrap_or_default(), self.observers, machine))
    }

    /// The settings, checked, for the breaker called `name` that runs on `clock`.
    pub(super) fn settings_for(self, name: &str, clock: &Clock) -> Result<BreakerSettings, ConfigError> {
        if *self.name != *name {
            let allowed = format!("`{name}`, the name of the breaker that is reconfigured");
            return Err(ConfigError::new("name", format!("`{}`", self.name), allowed));
        }
        if self.clock.as_ref().is_some_and(|other| !other.same(clock)) {
            return Err(ConfigError::new(format!("{name}.clock"), "another clock", "the breaker's own, or none"));
        }
        self.settings.check(name)?;
        Ok(self.settings)
    }
}
