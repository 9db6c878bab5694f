//! Chaos: latency, faults, made-up results and side effects injected into calls, to see whether the rest holds.
//! The same seed makes the same decisions; nothing happens while it is disabled, nor in a release build that did not
//! ask for it; every injection is announced. It never guards anything: it is the only policy that does harm.

mod config;
mod machine;
mod outcome;

pub use config::ChaosBuilder;
pub use outcome::WithOutcome;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::class::Severity;
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::event::{Event, Observers};
use crate::outcome::{Error, Reason, Rejection};
use crate::sync::{AtomicU32, Mutex, Ordering, lock};
use machine::{Behaviour, Decision, Machine, Settings};

/// What was injected so far, at one moment. Calls made while chaos is disabled are not counted.
///
/// ```
/// use resilience_core::{Category, Chaos, Class};
///
/// let chaos = Chaos::builder("down")
///     .fault(1.0, Class::of(Category::Network))
/// #     .allow_in_release(true)
///     .build()?;
/// assert!(chaos.call(|| "42".parse::<u8>()).is_err());
/// let statistics = chaos.statistics();
/// assert_eq!((statistics.calls, statistics.faults, statistics.latencies), (1, 1, 0));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ChaosStatistics {
    /// Calls decided on.
    pub calls: u64,
    /// Calls before which the behaviour was run.
    pub behaviours: u64,
    /// Calls that were made to wait.
    pub latencies: u64,
    /// Calls that were made to fail.
    pub faults: u64,
    /// Calls that were given a made-up result.
    pub outcomes: u64,
}

/// What to do to one call, in this order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Injection {
    /// To be run first.
    pub(crate) behaviour: Option<Behaviour>,
    /// To be waited for next.
    pub(crate) latency: Option<Duration>,
    /// How the call then ends, without its operation.
    pub(crate) fault: Option<Rejection>,
    /// Whether a made-up result takes the operation's place.
    outcome: bool,
}

struct Shared {
    name: Arc<str>,
    settings: Settings,
    seed: u64,
    /// Whether this build may do harm at all.
    allowed: bool,
    /// 1 or 0.
    enabled: AtomicU32,
    machine: Mutex<Machine>,
    clock: Clock,
    observers: Observers,
}

/// Injects faults into calls, for tests and drills. Cheap to clone: clones share one sequence of decisions and one switch.
///
/// Each kind has a rate of its own, from 0 (never) to 1 (always), and they are independent: a call may be made to wait
/// and then to fail. First the behaviour is run, then the latency is waited for, then the fault or the made-up result
/// takes the operation's place.
///
/// Within a pipeline's operation, an injected fault is to the policies around it what a real error of its class is: it
/// counts against circuit breakers, and is retried when its class is retryable. Latency counts towards time limits.
///
/// In a build without debug assertions it does nothing, unless
/// [`allow_in_release`](ChaosBuilder::allow_in_release) says otherwise. When it is enabled, it says so in `tracing` (a
/// warning) and to its observers (an [`Event::Notice`]), with its seed; the observers hear of each injection as well.
///
/// Source: Polly's chaos strategies (Simmy).
///
/// ```
/// use resilience_core::{Category, Chaos, CircuitBreaker, Class, ManualClock, Pipeline, Retry};
///
/// let clock = ManualClock::auto_advancing().clock();
/// let chaos = Chaos::builder("store_down")
///     .fault(1.0, Class::of(Category::Network))
/// #     .allow_in_release(true)
///     .build()?;
/// let breaker = CircuitBreaker::builder("store").consecutive_failures(3).build()?;
/// let pipeline =
///     Pipeline::builder("store").retry(Retry::default()).circuit_breaker(breaker.clone()).clock(clock).build()?;
///
/// let error = pipeline.call(|| chaos.call(|| std::fs::read("Cargo.toml"))).unwrap_err();
/// assert_eq!(error.attempts, 3);
/// assert_eq!(breaker.state().as_str(), "open");
///
/// chaos.set_enabled(false);
/// breaker.reset();
/// assert!(pipeline.call(|| chaos.call(|| std::fs::read("Cargo.toml"))).is_ok());
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[doc(alias("fault injection", "simmy", "monkey"))]
#[derive(Clone)]
pub struct Chaos(Arc<Shared>);

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos")
            .field("name", &self.name())
            .field("enabled", &self.is_enabled())
            .field("injects", &self.0.settings.to_string())
            .field("seed", &self.0.seed)
            .finish_non_exhaustive()
    }
}

impl Chaos {
    /// Starts building chaos called `name`, which injects nothing yet.
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("nothing_yet").build()?;
    /// assert_eq!(chaos.call(|| "42".parse::<u8>()), Ok(42));
    /// assert_eq!(chaos.statistics().faults, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> ChaosBuilder {
        ChaosBuilder::new(name.into())
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// assert_eq!(Chaos::builder("drill").build()?.name(), "drill");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What its decisions follow from: build another one with it to see the same again.
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("drill").build()?;
    /// let again = Chaos::builder("drill").seed(chaos.seed()).build()?;
    /// assert_eq!(again.seed(), chaos.seed());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Whether anything can be injected now. Never in a build without debug assertions that did not
    /// [ask for it](ChaosBuilder::allow_in_release).
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("drill")
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// assert!(chaos.is_enabled());
    /// chaos.set_enabled(false);
    /// assert!(!chaos.is_enabled());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn is_enabled(&self) -> bool {
        // Relaxed: a switch, nothing is published through it.
        self.0.enabled.load(Ordering::Relaxed) == 1
    }

    /// Switches it on or off, for all clones. Where a release build did not ask for chaos, switching it on only tells
    /// that it stays off.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Chaos, ManualClock};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let chaos = Chaos::builder("slow")
    ///     .latency(1.0, Duration::from_secs(3))
    ///     .enabled(false)
    ///     .clock(time.clock())
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// chaos.call(|| Ok::<_, std::io::Error>(())).unwrap();
    /// assert_eq!(time.elapsed(), Duration::ZERO);
    /// chaos.set_enabled(true);
    /// chaos.call(|| Ok::<_, std::io::Error>(())).unwrap();
    /// assert_eq!(time.elapsed(), Duration::from_secs(3));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn set_enabled(&self, enabled: bool) {
        let Shared { name, settings, seed, allowed, .. } = &*self.0;
        if enabled && !allowed {
            tracing::warn!(chaos = &**name, "chaos stays off: a release build has to allow it");
            self.tell("refused", Severity::Low, "a release build has to allow it");
            return;
        }
        // Relaxed: a switch, nothing is published through it.
        let before = self.0.enabled.swap(u32::from(enabled), Ordering::Relaxed) == 1;
        match (before, enabled) {
            (false, true) => {
                tracing::warn!(chaos = &**name, seed, injects = %settings, "chaos is enabled: calls are harmed on purpose");
                self.tell("enabled", Severity::High, format_args!("{settings}; seed {seed}"));
            }
            (true, false) => {
                tracing::info!(chaos = &**name, "chaos is disabled");
                self.tell("disabled", Severity::Low, "");
            }
            _ => {}
        }
    }

    /// What was injected so far.
    ///
    /// ```
    /// use resilience_core::{Category, Chaos, Class};
    ///
    /// let chaos = Chaos::builder("flaky")
    ///     .fault(0.3, Class::of(Category::Network))
    ///     .seed(7)
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// let failed = (0..1_000).filter(|_| chaos.call(|| Ok::<_, std::io::Error>(())).is_err()).count();
    /// assert_eq!(chaos.statistics().faults, failed as u64);
    /// assert!((250..350).contains(&failed));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn statistics(&self) -> ChaosStatistics {
        lock(&self.0.machine).statistics
    }

    /// Also gives calls a result made by `make` in the operation's place, at a rate from 0 (never) to 1 (always):
    /// values that are wrong, errors of the operation's own type. It shares decisions, figures and switch with this one.
    ///
    /// # Errors
    /// A [`ConfigError`] when the rate is not a number from 0 to 1.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("disk")
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// let full = chaos.with_outcome(1.0, || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull)))?;
    /// let error = full.call(|| std::fs::write("/dev/null", "text")).unwrap_err();
    /// assert_eq!(error.as_operation().unwrap().kind(), io::ErrorKind::StorageFull);
    /// assert_eq!(error.attempts, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[doc(alias = "result")]
    pub fn with_outcome<T, E, F: Fn() -> Result<T, E>>(
        &self,
        rate: f64,
        make: F,
    ) -> Result<WithOutcome<F>, ConfigError> {
        let rate = config::checked_rate(self.name(), "outcome_rate", rate)?;
        Ok(WithOutcome { chaos: self.clone(), rate, make })
    }

    /// Makes a blocking call, with whatever harm falls to it.
    ///
    /// # Errors
    /// The operation's own error, or an injected fault: a rejection for [`Reason::Injected`], with 0 attempts.
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("none").build()?;
    /// assert_eq!(chaos.call(|| "42".parse::<u8>()), Ok(42));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>> {
        self.run(0.0, || unreachable!("a rate of 0 is never"), operation)
    }

    /// Makes an async call, with whatever harm falls to it, on any executor. A fault drops the operation before it was
    /// polled.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("none").build()?;
    /// let call = chaos.call_async(async { "42".parse::<u8>() });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(call)?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_async<T, E>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<T, Error<E>> {
        self.run_async(0.0, || unreachable!("a rate of 0 is never"), operation).await
    }

    fn run<T, E>(
        &self,
        outcome_rate: f64,
        make: impl FnOnce() -> Result<T, E>,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let injection = self.decide_with(outcome_rate);
        if let Some(behaviour) = &injection.behaviour {
            behaviour.run();
        }
        if let Some(latency) = injection.latency {
            self.0.clock.sleep_blocking(latency);
        }
        if let Some(fault) = injection.fault {
            return Err(fault.into());
        }
        if injection.outcome {
            return make().map_err(|error| Error::operation(error, 0));
        }
        operation().map_err(|error| Error::operation(error, 1))
    }

    async fn run_async<T, E>(
        &self,
        outcome_rate: f64,
        make: impl FnOnce() -> Result<T, E>,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        let injection = self.decide_with(outcome_rate);
        if let Some(behaviour) = &injection.behaviour {
            behaviour.run();
        }
        if let Some(latency) = injection.latency {
            self.0.clock.sleep(latency).await;
        }
        if let Some(fault) = injection.fault {
            return Err(fault.into());
        }
        if injection.outcome {
            return make().map_err(|error| Error::operation(error, 0));
        }
        operation.await.map_err(|error| Error::operation(error, 1))
    }

    /// Decides what happens to the next call, counts and announces it. Does none of it.
    pub(crate) fn decide(&self) -> Injection {
        self.decide_with(0.0)
    }

    fn decide_with(&self, outcome_rate: f64) -> Injection {
        if !self.is_enabled() {
            return Injection::default();
        }
        let decision = lock(&self.0.machine).decide(&self.0.settings, outcome_rate);
        self.announce(&decision);
        let Decision { behaviour, latency, fault, outcome } = decision;
        let rejection = |class| Rejection::new(Arc::clone(&self.0.name), Reason::Injected { class }, class.retry_after);
        Injection { behaviour, latency, fault: fault.map(rejection), outcome }
    }

    fn announce(&self, decision: &Decision) {
        if decision.behaviour.is_some() {
            self.tell("behaviour_injected", Severity::Low, "");
        }
        if let Some(latency) = decision.latency {
            self.tell("latency_injected", Severity::Low, format_args!("{latency:?}"));
        }
        if let Some(class) = decision.fault {
            self.tell("fault_injected", Severity::Low, class.category);
        }
        if decision.outcome {
            self.tell("outcome_injected", Severity::Low, "");
        }
    }

    fn tell(&self, action: &str, severity: Severity, detail: impl fmt::Display) {
        if !self.0.observers.is_empty() {
            let detail = detail.to_string();
            self.0.observers.emit(&Event::notice("chaos", action, &self.0.name, severity, &detail));
        }
    }

    fn from_valid(builder: ChaosBuilder) -> Self {
        let ChaosBuilder { name, settings, seed, enabled, allow_in_release, clock, observers } = builder;
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let chaos = Self(Arc::new(Shared {
            name,
            settings,
            seed,
            allowed: allow_in_release || cfg!(debug_assertions),
            enabled: AtomicU32::new(0),
            machine: Mutex::new(Machine::new(seed)),
            clock,
            observers,
        }));
        if enabled {
            chaos.set_enabled(true);
        }
        chaos
    }
}
