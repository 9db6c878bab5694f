//! What a circuit breaker can be told, and the checks on it. Nothing here runs after the breaker is built.

use std::sync::Arc;
use std::time::Duration;

use super::CircuitBreaker;
use super::machine::Machine;
use super::settings::{BreakerSettings, CloseWhen, SlowCalls, Trip};
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;
use crate::retry::Backoff;

/// Builds a [`CircuitBreaker`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{CircuitBreaker, Clock, Outcome};
///
/// let (clock, _time) = Clock::manual();
/// let breaker = CircuitBreaker::builder("search")
///     .failure_rate(0.5, 100, 2)
///     .slow_call_rate(0.8, Duration::from_secs(2))
///     .open_for(Duration::from_secs(30))
///     .ramp_up(Duration::from_secs(60))
///     .clock(clock)
///     .build()?;
/// for outcome in [Outcome::Success, Outcome::TimedOut] {
///     breaker.try_acquire()?.settle(&outcome);
/// }
/// assert_eq!(breaker.try_acquire().unwrap_err().retry_after, Some(Duration::from_secs(30)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(2).build()?;
    /// for outcome in [Outcome::TimedOut, Outcome::Success, Outcome::TimedOut] {
    ///     breaker.try_acquire()?.settle(&outcome);
    /// }
    /// assert_eq!(breaker.state(), BreakerState::Closed); // the success ended the row
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.state(), BreakerState::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn consecutive_failures(self, threshold: u32) -> Self {
        self.trip(Trip::ConsecutiveFailures(threshold))
    }

    /// Opens when at least `rate` (more than 0, at most 1) of the last `calls` calls (1 to 1 000 000) failed, once
    /// `minimum_calls` (1 to `calls`) were made. Calls that say nothing of the dependency are not counted.
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("search").failure_rate(0.5, 100, 4).build()?;
    /// for outcome in [Outcome::TimedOut, Outcome::TimedOut, Outcome::Success] {
    ///     breaker.try_acquire()?.settle(&outcome);
    /// }
    /// assert_eq!(breaker.state(), BreakerState::Closed); // three calls say too little
    /// breaker.try_acquire()?.settle(&Outcome::Success);
    /// assert_eq!(breaker.state(), BreakerState::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn failure_rate(self, rate: f64, calls: u32, minimum_calls: u32) -> Self {
        self.trip(Trip::FailureRateOfCalls { calls, rate, minimum_calls })
    }

    /// Opens when at least `rate` (more than 0, at most 1) of the calls of the last `span` (more than 0, at most 10
    /// years) failed, if there were `minimum_calls` (from 1). The window forgets in steps of a sixteenth of `span`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{BreakerState, CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, time) = Clock::manual();
    /// let window = Duration::from_secs(10);
    /// let breaker = CircuitBreaker::builder("search").failure_rate_over(0.5, window, 2).clock(clock).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60)); // long forgotten
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.state(), BreakerState::Closed);
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.state(), BreakerState::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn failure_rate_over(self, rate: f64, span: Duration, minimum_calls: u32) -> Self {
        self.trip(Trip::FailureRateOfTime { span, rate, minimum_calls })
    }

    /// When to open.
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker, Outcome, circuit_breaker::Trip};
    ///
    /// let trip = Trip::ConsecutiveFailures(1); // from elsewhere
    /// let breaker = CircuitBreaker::builder("search").trip(trip).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.state(), BreakerState::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn trip(mut self, trip: Trip) -> Self {
        self.settings.trip = trip;
        self
    }

    /// Also opens when at least `rate` (more than 0, at most 1) of the window's calls took longer than `longer_than`
    /// (more than 0), whatever their result. Needs a failure-rate window.
    ///
    /// ```
    /// use std::{io, time::Duration};
    /// use resilience_core::{BreakerState, CircuitBreaker, Clock};
    ///
    /// let (clock, time) = Clock::manual();
    /// let breaker = CircuitBreaker::builder("search").failure_rate(0.5, 100, 2).clock(clock);
    /// let breaker = breaker.slow_call_rate(1.0, Duration::from_secs(2)).build()?;
    /// for _ in 0..2 {
    ///     breaker.call(|| {
    ///         time.advance(Duration::from_secs(3));
    ///         Ok::<_, io::Error>(())
    ///     })?;
    /// }
    /// assert_eq!(breaker.state(), BreakerState::Open); // though no call has failed
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn slow_call_rate(mut self, rate: f64, longer_than: Duration) -> Self {
        self.settings.slow_calls = Some(SlowCalls { longer_than, rate });
        self
    }

    /// How long it stays open before it probes. More than 0, at most 10 years; default 60 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, time) = Clock::manual();
    /// let five = Duration::from_secs(5);
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).open_for(five).clock(clock).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.try_acquire().unwrap_err().retry_after, Some(five));
    /// time.advance(five);
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn open_for(self, time: Duration) -> Self {
        self.open_for_growing(Backoff::fixed(time))
    }

    /// As [`open_for`](Self::open_for), with a time that grows from opening to opening and starts anew once the breaker
    /// has closed. Each time more than 0, at most 10 years.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Backoff, CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, time) = Clock::manual();
    /// let times = Backoff::exponential(Duration::from_secs(10), 2.0, Duration::from_secs(300)); // 10 s, 20 s, 40 s, …
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).clock(clock);
    /// let breaker = breaker.open_for_growing(times).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.statistics().probes_in, Some(Duration::from_secs(10)));
    /// time.advance(Duration::from_secs(10));
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut); // the probe
    /// assert_eq!(breaker.statistics().probes_in, Some(Duration::from_secs(20)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn open_for_growing(mut self, times: Backoff) -> Self {
        self.settings.open_for = times;
        self
    }

    /// Stays open longer by up to this part (0 to 1) at random, so that many nodes do not probe together. Never
    /// shorter. Default 0.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).open_jitter(0.5).clock(clock).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// let probes_in = breaker.statistics().probes_in.unwrap();
    /// assert!((Duration::from_secs(60)..=Duration::from_secs(90)).contains(&probes_in));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn open_jitter(mut self, ratio: f64) -> Self {
        self.settings.open_jitter = ratio;
        self
    }

    /// Makes what is random the same in each run: for tests.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let builder = CircuitBreaker::builder("search").consecutive_failures(1).open_jitter(0.5).clock(clock).seed(7);
    /// let (one, other) = (builder.clone().build()?, builder.build()?);
    /// one.try_acquire()?.settle(&Outcome::TimedOut);
    /// other.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(one.statistics().probes_in, other.statistics().probes_in);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How many probes may be under way at once while half open. From 1; default 1.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CircuitBreaker, Clock, Outcome, Reason};
    ///
    /// let (clock, time) = Clock::manual();
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).clock(clock);
    /// let breaker = breaker.half_open_permits(2).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60));
    /// let _probes = (breaker.try_acquire()?, breaker.try_acquire()?);
    /// assert_eq!(breaker.try_acquire().unwrap_err().reason, Reason::HalfOpenBusy);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn half_open_permits(mut self, permits: u32) -> Self {
        self.settings.half_open_permits = permits;
        self
    }

    /// How many probe successes in a row close it. From 1; default 2.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{BreakerState, CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, time) = Clock::manual();
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).clock(clock);
    /// let breaker = breaker.half_open_successes(1).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60));
    /// breaker.try_acquire()?.settle(&Outcome::Success); // one probe is enough
    /// assert_eq!(breaker.state(), BreakerState::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn half_open_successes(self, successes: u32) -> Self {
        self.close_when(CloseWhen::SuccessesInARow(successes))
    }

    /// Closes after `calls` (from 1) probes of which less than the part `rate` (more than 0, at most 1) failed; opens
    /// again as soon as that cannot be.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{BreakerState, CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, time) = Clock::manual();
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).clock(clock);
    /// let breaker = breaker.half_open_rate(0.5, 4).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60));
    /// for probe in [Outcome::TimedOut, Outcome::Success, Outcome::Success, Outcome::Success] {
    ///     breaker.try_acquire()?.settle(&probe);
    /// }
    /// assert_eq!(breaker.state(), BreakerState::Closed); // one in four is less than half
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn half_open_rate(self, rate: f64, calls: u32) -> Self {
        self.close_when(CloseWhen::FailureRateBelow { rate, calls })
    }

    /// When a half-open breaker closes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{BreakerState, CircuitBreaker, Clock, Outcome, circuit_breaker::CloseWhen};
    ///
    /// let (clock, time) = Clock::manual();
    /// let rule = CloseWhen::SuccessesInARow(1); // from elsewhere
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).close_when(rule).clock(clock).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60));
    /// breaker.try_acquire()?.settle(&Outcome::Success);
    /// assert_eq!(breaker.state(), BreakerState::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn close_when(mut self, rule: CloseWhen) -> Self {
        self.settings.close_when = rule;
        self
    }

    /// Opens again when probes hold all the permits and none was admitted for this long: they hang. Noticed when the
    /// next call asks. More than 0, at most 10 years; default: probes may take as long as they do.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{BreakerState, CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, time) = Clock::manual();
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).clock(clock);
    /// let breaker = breaker.half_open_timeout(Duration::from_secs(10)).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60));
    /// let _hangs = breaker.try_acquire()?; // the only probe there may be
    /// time.advance(Duration::from_secs(10));
    /// assert!(breaker.try_acquire().is_err());
    /// assert_eq!(breaker.state(), BreakerState::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CircuitBreaker, Clock, Outcome, Reason};
    ///
    /// let (clock, time) = Clock::manual();
    /// let minute = Duration::from_secs(60);
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).half_open_successes(1).clock(clock);
    /// let breaker = breaker.ramp_up(minute).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(minute);
    /// breaker.try_acquire()?.settle(&Outcome::Success); // closes it
    /// breaker.try_acquire()?.settle(&Outcome::Success); // as many as there were probes
    /// assert_eq!(breaker.try_acquire().unwrap_err().reason, Reason::CircuitRampingUp);
    /// time.advance(minute);
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "slow_start")]
    #[must_use]
    pub fn ramp_up(mut self, over: Duration) -> Self {
        self.settings.ramp_up = Some(over);
        self
    }

    /// Where it takes the time from. Default: the system's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CircuitBreaker, ManualClock, Outcome};
    ///
    /// let time = ManualClock::new();
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).clock(time.clock()).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60)); // a test need not wait for it
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Who hears of its state changes and refusals. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use resilience_core::{BreakerState, CircuitBreaker, Event, Observers};
    ///
    /// let seen = Arc::new(Mutex::new(Vec::new()));
    /// let states = Arc::clone(&seen);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::BreakerStateChanged { to, .. } = event {
    ///         states.lock().unwrap().push(*to);
    ///     }
    /// }));
    /// let breaker = CircuitBreaker::builder("search").observers(observers).build()?;
    /// breaker.force_open();
    /// breaker.reset();
    /// assert_eq!(*seen.lock().unwrap(), [BreakerState::ForcedOpen, BreakerState::Closed]);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes the breaker.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// use resilience_core::CircuitBreaker;
    ///
    /// let error = CircuitBreaker::builder("search").consecutive_failures(0).build().unwrap_err();
    /// assert_eq!(error.field, "search.consecutive_failures");
    /// ```
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
