//! The policies' fields in a configuration, under the names of their builders' methods, and the builders they make.
//! A field that is left out is left to the builder: there is one place for defaults. Holds no policy.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::{Backoffs, Jitters, OpenTimes};
use super::field::{ANY_SPAN, INSIDE, Maybe, Name, Number, POSITIVE, RATIO, Rates, SPREAD, Shares, Span, Whole};
use super::settings::{settings, through_serde};
use super::units::{Rate, format_duration};
use super::{ConfigError, qualified};
use crate::bulkhead::{Bulkhead, BulkheadBuilder, MAX_WAITING};
use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder};
use crate::hedge::{Hedge, HedgeBuilder, MAX_HEDGES};
use crate::load_shedder::{LoadShedder, LoadShedderBuilder, Priority};
use crate::rate_limiter::{KeyedRateLimiter, KeyedRateLimiterBuilder, RateLimiter, RateLimiterBuilder};
use crate::retry::{Backoff, Jitter, Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder};

const FROM_0: Whole = Whole { min: 0, max: u32::MAX };
const FROM_1: Whole = Whole { min: 1, max: u32::MAX };

settings! {
    /// A circuit breaker. It opens after failures in a row, or by a failure rate over a window of calls or of time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Backoff;
    /// use resilience_core::config::BreakerConfig;
    ///
    /// let config: BreakerConfig = toml::from_str(r#"
    ///     failure_rate = "50%"
    ///     window_calls = 100
    ///     open_for = "30s"
    /// "#)?;
    /// assert_eq!((config.failure_rate, config.window_calls), (Some(0.5), Some(100)));
    /// assert_eq!(config.open_for, Some(Backoff::fixed(Duration::from_secs(30))));
    /// assert_eq!(config.half_open_permits, None); // left to the builder
    /// assert!(toml::from_str::<BreakerConfig>("window_calls = 0").is_err());
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct BreakerConfig {
        /// Opens after this many failures in a row: from 1; 5 when nothing else is said.
        pub consecutive_failures: Option<u32> = Maybe(FROM_1);
        /// Opens when this part of the window's calls failed: more than 0, at most 1, or as "50%".
        pub failure_rate: Option<f64> = Maybe(RATIO);
        /// The window is the last so many calls: 1 to 1000000.
        pub window_calls: Option<u32> = Maybe(Whole { min: 1, max: 1_000_000 });
        /// The window is the last span of time: more than 0, at most 10 years.
        pub window_span: Option<Duration> = Maybe(POSITIVE);
        /// How many calls it takes before the rate counts: from 1, at most `window_calls`.
        pub minimum_calls: Option<u32> = Maybe(FROM_1);
        /// Also opens when this part of the window's calls was slow: more than 0, at most 1, or as "50%".
        pub slow_call_rate: Option<f64> = Maybe(RATIO);
        /// From when on a call is slow: more than 0, at most 10 years.
        pub slow_call_duration: Option<Duration> = Maybe(POSITIVE);
        /// How long it stays open before it probes: more than 0, at most 10 years, or a backoff that grows from opening to opening; default 60 s.
        pub open_for: Option<Backoff> = Maybe(OpenTimes);
        /// The part of the open time that is added to it at random: 0 to 1; default 0.
        pub open_jitter: Option<f64> = Maybe(SPREAD);
        /// How many probes may be under way at once while half open: from 1; default 1.
        pub half_open_permits: Option<u32> = Maybe(FROM_1);
        /// How many probe successes in a row close it: from 1; default 2.
        pub half_open_successes: Option<u32> = Maybe(FROM_1);
        /// Instead of successes in a row: closes when less than this part of the probes failed. More than 0, at most 1.
        pub half_open_rate: Option<f64> = Maybe(RATIO);
        /// How many probes that rate is of: from 1.
        pub half_open_calls: Option<u32> = Maybe(FROM_1);
        /// Opens again when probes hold all permits for this long: more than 0, at most 10 years; default no limit.
        pub half_open_timeout: Option<Duration> = Maybe(POSITIVE);
        /// After closing, lets a growing share of the calls pass over this time: more than 0, at most 10 years; default all at once.
        pub ramp_up: Option<Duration> = Maybe(POSITIVE);
    }
}

settings! {
    /// A rate limiter; with `max_keys`, one with a limit for each key.
    ///
    /// ```
    /// use resilience_core::{RateLimiter, Registry};
    /// use resilience_core::config::{LimiterConfig, ResilienceConfig, units};
    ///
    /// let mut search = LimiterConfig::default();
    /// search.rate = Some(units::rate("rate", "500/min")?);
    /// search.burst = Some(20);
    ///
    /// let mut config = ResilienceConfig::default();
    /// config.limiters.insert("search".to_owned(), search);
    /// let limiter: RateLimiter = Registry::from_config(&config)?.get("search")?;
    /// assert_eq!(limiter.statistics().available, 20);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub struct LimiterConfig {
        /// How many permits come back in which time, as "500/min": from 1, in at most 10 years; default 100 per 60 s.
        pub rate: Option<Rate> = Maybe(Rates);
        /// How many permits can be saved up: from 1, to as many as come back within 10 years; default 10.
        pub burst: Option<u32> = Maybe(FROM_1);
        /// Instead of a rate and a burst: at most so many (1 to 1000000) in any span of time, as "100/min"; not with keys.
        pub sliding_window: Option<Rate> = Maybe(Rates);
        /// How many permits it holds at first: 0 to the burst (or the window's permits), which is the default.
        pub start_with: Option<u32> = Maybe(FROM_0);
        /// Makes it a keyed limiter, which remembers at most so many keys: from 1.
        pub max_keys: Option<u32> = Maybe(FROM_1);
    }
}

settings! {
    /// A bulkhead.
    ///
    /// ```
    /// use resilience_core::config::BulkheadConfig;
    ///
    /// let config: BulkheadConfig = toml::from_str("max_concurrent = 8\nmax_waiting = 0")?;
    /// assert_eq!((config.max_concurrent, config.max_waiting), (Some(8), Some(0)));
    /// assert!(toml::from_str::<BulkheadConfig>("max_concurent = 8").is_err()); // no such field
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct BulkheadConfig {
        /// How many can be inside at once: from 1; default 25.
        pub max_concurrent: Option<u32> = Maybe(FROM_1);
        /// How many can wait at once: 0 to 1000000; default 100.
        pub max_waiting: Option<u32> = Maybe(Whole { min: 0, max: MAX_WAITING });
    }
}

settings! {
    /// A load shedder.
    ///
    /// ```
    /// use resilience_core::Priority;
    /// use resilience_core::config::LoadShedderConfig;
    ///
    /// let config: LoadShedderConfig = toml::from_str("max_concurrent = 200\nshare = { low = '40%', normal = 0.9 }")?;
    /// assert_eq!((config.share[&Priority::Low], config.share[&Priority::Normal]), (0.4, 0.9));
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct LoadShedderConfig {
        /// How many calls can be in flight at once: from 1; default 100.
        pub max_concurrent: Option<u32> = Maybe(FROM_1);
        /// How much of it may be in use when a call of a priority comes in: 0 to 1, or as "50%", and the more important a priority, the larger or as large. Default background 0.25, low 0.5, normal 0.8, high 0.95, critical always 1.
        pub share: BTreeMap<Priority, f64> = Shares;
    }
}

settings! {
    /// A hedge, for async calls that may run twice.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::config::HedgeConfig;
    ///
    /// let config: HedgeConfig = toml::from_str("after = '50ms'\nafter_percentile = '95%'\nbudget = 'search'")?;
    /// assert_eq!((config.after, config.after_percentile), (Some(Duration::from_millis(50)), Some(0.95)));
    /// assert_eq!(config.budget.as_deref(), Some("search"));
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct HedgeConfig {
        /// How long a run may take before the next one is started beside it: 0 to 10 years; default 100 ms.
        pub after: Option<Duration> = Maybe(ANY_SPAN);
        /// Starts it instead after the time within which this part of the last runs was over: more than 0, less than 1, or as "95%"; until 100 were measured, `after`.
        pub after_percentile: Option<f64> = Maybe(INSIDE);
        /// How many more runs an attempt may be given: 1 to 8; default 1.
        pub max_hedges: Option<u32> = Maybe(Whole { min: 1, max: MAX_HEDGES });
        /// The name of the budget that limits what all calls together may add; default its own, a tenth of the calls and 1 per second.
        pub budget: Option<String> = Maybe(Name);
    }
}

settings! {
    /// A retry.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::config::RetryConfig;
    /// use resilience_core::{Backoff, Jitter};
    ///
    /// let config: RetryConfig = toml::from_str(r#"
    ///     max_attempts = 4
    ///     backoff = { kind = "exponential", initial = "100ms", base = 2.0, cap = "5s" }
    ///     jitter = "full"
    /// "#)?;
    /// assert_eq!((config.max_attempts, config.jitter), (Some(4), Some(Jitter::Full)));
    /// let grows = Backoff::exponential(Duration::from_millis(100), 2.0, Duration::from_secs(5));
    /// assert_eq!(config.backoff, Some(grows));
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct RetryConfig {
        /// How often the operation may be tried in all: from 1; default 3.
        pub max_attempts: Option<u32> = Maybe(FROM_1);
        /// No attempt starts later than this after the first: more than 0, at most 10 years; default no limit.
        pub max_elapsed: Option<Duration> = Maybe(POSITIVE);
        /// The longest pause accepted from the dependency's own Retry-After: 0 to 10 years; default 30 s.
        pub max_retry_after: Option<Duration> = Maybe(ANY_SPAN);
        /// How much longer than asked for such a pause may become at random: 0 to 1; default 0.1.
        pub retry_after_jitter: Option<f64> = Maybe(SPREAD);
        /// How the pauses grow: fixed (delay), linear or fibonacci (initial, cap), exponential (initial, base, cap).
        pub backoff: Option<Backoff> = Maybe(Backoffs);
        /// How the pauses are spread: "none", "full", "equal", "decorrelated" or a ratio from 0 to 1; default 0.2.
        pub jitter: Option<Jitter> = Maybe(Jitters);
        /// The name of the budget that limits what all calls together may retry; default no limit.
        pub budget: Option<String> = Maybe(Name);
    }
}

settings! {
    /// A retry budget.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::config::RetryBudgetConfig;
    ///
    /// let config: RetryBudgetConfig = toml::from_str("ratio = 0.1\nwindow = '30s'")?;
    /// assert_eq!((config.ratio, config.window), (Some(0.1), Some(Duration::from_secs(30))));
    /// assert!(toml::from_str::<RetryBudgetConfig>("window = '5min'").is_err()); // at most 60 s
    /// # Ok::<(), toml::de::Error>(())
    /// ```
    pub struct RetryBudgetConfig {
        /// Retries per call: 0 to 1000; default 0.2.
        pub ratio: Option<f64> = Maybe(Number { max: 1_000.0, ..SPREAD });
        /// Retries per second that are allowed however few calls there are: 0 to 1000000; default 10.
        pub min_per_second: Option<f64> = Maybe(Number { max: 1_000_000.0, percent: false, ..SPREAD });
        /// How long a call counts: 1 s to 60 s; default 10 s.
        pub window: Option<Duration> =
            Maybe(Span { min: Duration::from_secs(1), max: Duration::from_secs(60) });
    }
}

through_serde!(
    BreakerConfig,
    LimiterConfig,
    BulkheadConfig,
    LoadShedderConfig,
    HedgeConfig,
    RetryConfig,
    RetryBudgetConfig
);

/// Hands a field over to a builder, if it is given.
fn with<B, T: Clone>(builder: B, field: Option<&T>, set: impl FnOnce(B, T) -> B) -> B {
    match field {
        Some(value) => set(builder, value.clone()),
        None => builder,
    }
}

impl BreakerConfig {
    /// The builder that these fields make.
    ///
    /// # Errors
    /// A [`ConfigError`] when fields are given that exclude or need each other.
    pub(crate) fn builder(&self, name: &str) -> Result<CircuitBreakerBuilder, ConfigError> {
        let builder = self.trip(name, CircuitBreaker::builder(name))?;
        let builder = match (self.slow_call_rate, self.slow_call_duration) {
            (Some(rate), Some(longer_than)) => builder.slow_call_rate(rate, longer_than),
            (None, None) => builder,
            (Some(rate), None) => {
                return Err(needs(name, "slow_call_rate", rate, "together with slow_call_duration"));
            }
            (None, Some(span)) => {
                let span = format_duration(span);
                return Err(needs(name, "slow_call_duration", span, "together with slow_call_rate"));
            }
        };
        let builder = match (self.half_open_rate, self.half_open_calls) {
            (Some(rate), Some(_)) if self.half_open_successes.is_some() => {
                return Err(needs(name, "half_open_rate", rate, "without half_open_successes"));
            }
            (Some(rate), Some(calls)) => builder.half_open_rate(rate, calls),
            (Some(rate), None) => return Err(needs(name, "half_open_rate", rate, "together with half_open_calls")),
            (None, Some(calls)) => return Err(needs(name, "half_open_calls", calls, "together with half_open_rate")),
            (None, None) => {
                with(builder, self.half_open_successes.as_ref(), CircuitBreakerBuilder::half_open_successes)
            }
        };
        let builder = with(builder, self.open_for.as_ref(), CircuitBreakerBuilder::open_for_growing);
        let builder = with(builder, self.open_jitter.as_ref(), CircuitBreakerBuilder::open_jitter);
        let builder = with(builder, self.half_open_permits.as_ref(), CircuitBreakerBuilder::half_open_permits);
        let builder = with(builder, self.half_open_timeout.as_ref(), CircuitBreakerBuilder::half_open_timeout);
        Ok(with(builder, self.ramp_up.as_ref(), CircuitBreakerBuilder::ramp_up))
    }

    fn trip(&self, name: &str, builder: CircuitBreakerBuilder) -> Result<CircuitBreakerBuilder, ConfigError> {
        let windows = "together with window_calls or window_span, and minimum_calls";
        match (self.failure_rate, self.window_calls, self.window_span, self.minimum_calls) {
            (None, None, None, None) => {
                let failures = self.consecutive_failures.as_ref();
                Ok(with(builder, failures, CircuitBreakerBuilder::consecutive_failures))
            }
            (Some(rate), ..) if self.consecutive_failures.is_some() => {
                Err(needs(name, "failure_rate", rate, "without consecutive_failures"))
            }
            (Some(rate), Some(calls), None, Some(minimum)) => Ok(builder.failure_rate(rate, calls, minimum)),
            (Some(rate), None, Some(span), Some(minimum)) => Ok(builder.failure_rate_over(rate, span, minimum)),
            (Some(_), Some(_), Some(span), _) => {
                Err(needs(name, "window_span", format_duration(span), "without window_calls"))
            }
            (Some(rate), ..) => Err(needs(name, "failure_rate", rate, windows)),
            (None, Some(calls), ..) => Err(needs(name, "window_calls", calls, "together with failure_rate")),
            (None, _, Some(span), _) => {
                Err(needs(name, "window_span", format_duration(span), "together with failure_rate"))
            }
            (None, _, _, Some(minimum)) => Err(needs(name, "minimum_calls", minimum, "together with failure_rate")),
        }
    }
}

fn needs(name: &str, field: &str, value: impl std::fmt::Display, how: &str) -> ConfigError {
    ConfigError::new(qualified(name, field), value, format!("only {how}"))
}

impl LimiterConfig {
    pub(crate) const fn is_keyed(&self) -> bool {
        self.max_keys.is_some()
    }

    pub(crate) fn builder(&self, name: &str) -> RateLimiterBuilder {
        let set_rate = |builder: RateLimiterBuilder, rate: Rate| builder.rate(rate.permits, rate.period);
        let builder = with(RateLimiter::builder(name), self.rate.as_ref(), set_rate);
        let builder = with(builder, self.burst.as_ref(), RateLimiterBuilder::burst);
        let set_window = |builder: RateLimiterBuilder, rate: Rate| builder.sliding_window(rate.permits, rate.period);
        let builder = with(builder, self.sliding_window.as_ref(), set_window);
        with(builder, self.start_with.as_ref(), RateLimiterBuilder::start_with)
    }

    /// The builder of a keyed limiter.
    ///
    /// # Errors
    /// A [`ConfigError`] when a sliding window is asked for, which keyed limiters do not have.
    pub(crate) fn keyed_builder(&self, name: &str) -> Result<KeyedRateLimiterBuilder<String>, ConfigError> {
        type Builder = KeyedRateLimiterBuilder<String>;
        if let Some(window) = self.sliding_window {
            return Err(needs(name, "sliding_window", window, "without max_keys"));
        }
        let set_rate = |builder: Builder, rate: Rate| builder.rate(rate.permits, rate.period);
        let builder = with(KeyedRateLimiter::builder(name), self.rate.as_ref(), set_rate);
        let builder = with(builder, self.burst.as_ref(), Builder::burst);
        let builder = with(builder, self.start_with.as_ref(), Builder::start_with);
        Ok(with(builder, self.max_keys.as_ref(), Builder::max_keys))
    }
}

impl BulkheadConfig {
    pub(crate) fn builder(&self, name: &str) -> BulkheadBuilder {
        let builder = with(Bulkhead::builder(name), self.max_concurrent.as_ref(), BulkheadBuilder::max_concurrent);
        with(builder, self.max_waiting.as_ref(), BulkheadBuilder::max_waiting)
    }
}

impl LoadShedderConfig {
    pub(crate) fn builder(&self, name: &str) -> LoadShedderBuilder {
        let builder =
            with(LoadShedder::builder(name), self.max_concurrent.as_ref(), LoadShedderBuilder::max_concurrent);
        self.share.iter().fold(builder, |builder, (priority, share)| builder.share(*priority, *share))
    }
}

impl HedgeConfig {
    /// The builder, without the budget: that one has to be found by its name.
    pub(crate) fn builder(&self) -> HedgeBuilder {
        let builder = with(Hedge::builder(), self.after.as_ref(), HedgeBuilder::after);
        let builder = with(builder, self.after_percentile.as_ref(), HedgeBuilder::after_percentile);
        with(builder, self.max_hedges.as_ref(), HedgeBuilder::max_hedges)
    }
}

impl RetryConfig {
    /// The builder, without the budget: that one has to be found by its name.
    pub(crate) fn builder(&self) -> RetryBuilder {
        let builder = with(Retry::builder(), self.max_attempts.as_ref(), RetryBuilder::max_attempts);
        let builder = with(builder, self.max_elapsed.as_ref(), RetryBuilder::max_elapsed);
        let builder = with(builder, self.max_retry_after.as_ref(), RetryBuilder::max_retry_after);
        let builder = with(builder, self.retry_after_jitter.as_ref(), RetryBuilder::retry_after_jitter);
        let builder = with(builder, self.backoff.as_ref(), RetryBuilder::backoff);
        with(builder, self.jitter.as_ref(), RetryBuilder::jitter)
    }
}

impl RetryBudgetConfig {
    pub(crate) fn builder(&self) -> RetryBudgetBuilder {
        let builder = with(RetryBudget::builder(), self.ratio.as_ref(), RetryBudgetBuilder::ratio);
        let builder = with(builder, self.min_per_second.as_ref(), RetryBudgetBuilder::min_per_second);
        with(builder, self.window.as_ref(), RetryBudgetBuilder::window)
    }
}
