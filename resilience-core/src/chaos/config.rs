//! What chaos can be told, and the checks on it. Nothing here runs after it is built.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Chaos;
use super::machine::{Behaviour, Settings};
use crate::class::Class;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// Builds [`Chaos`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Category, Chaos, Class, ManualClock};
///
/// let time = ManualClock::auto_advancing();
/// let chaos = Chaos::builder("slow_and_broken")
///     .latency(1.0, Duration::from_secs(2))
///     .fault(1.0, Class::of(Category::Network))
///     .clock(time.clock())
/// #     .allow_in_release(true)
///     .build()?;
/// assert!(chaos.call(|| "42".parse::<u8>()).is_err());
/// assert_eq!(time.elapsed(), Duration::from_secs(2));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ChaosBuilder {
    pub(super) name: Arc<str>,
    pub(super) settings: Settings,
    pub(super) seed: Option<u64>,
    pub(super) enabled: bool,
    pub(super) allow_in_release: bool,
    pub(super) clock: Clock,
    pub(super) observers: Observers,
}

impl fmt::Debug for ChaosBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosBuilder")
            .field("name", &self.name)
            .field("injects", &self.settings.to_string())
            .field("seed", &self.seed)
            .field("enabled", &self.enabled)
            .field("allow_in_release", &self.allow_in_release)
            .finish_non_exhaustive()
    }
}

impl ChaosBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            settings: Settings::default(),
            seed: None,
            enabled: true,
            allow_in_release: false,
            clock: Clock::system(),
            observers: Observers::new(),
        }
    }

    /// Makes a call wait for `latency` (more than 0, at most 10 years) before it starts, at a rate from 0 (never) to 1
    /// (always). Default: never.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Chaos, ManualClock};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let chaos = Chaos::builder("slow")
    ///     .latency(1.0, Duration::from_millis(300))
    ///     .clock(time.clock())
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// chaos.call(|| std::fs::read("Cargo.toml")).unwrap();
    /// assert_eq!(time.elapsed(), Duration::from_millis(300));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn latency(mut self, rate: f64, latency: Duration) -> Self {
        self.settings.latency = Some((rate, latency));
        self
    }

    /// Makes a call fail with an error of this class, without running the operation, at a rate from 0 (never) to 1
    /// (always). Default: never.
    ///
    /// ```
    /// use resilience_core::{Category, Chaos, Class, Classify};
    ///
    /// let chaos = Chaos::builder("flaky")
    ///     .fault(1.0, Class::of(Category::Network))
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// let error = chaos.call(|| std::fs::read("Cargo.toml")).unwrap_err();
    /// assert_eq!(error.to_string(), "chaos `flaky` injected a network fault");
    /// assert!(error.class().retryable);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[doc(alias = "error")]
    #[must_use]
    pub fn fault(mut self, rate: f64, class: Class) -> Self {
        self.settings.fault = Some((rate, class));
        self
    }

    /// Runs `behaviour` before a call, on its thread, at a rate from 0 (never) to 1 (always): to drop a connection, to
    /// fill a cache, to panic. Default: never.
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// let cache = std::sync::Arc::new(std::sync::Mutex::new(vec!["an answer"]));
    /// let victim = cache.clone();
    /// let chaos = Chaos::builder("cold_cache")
    ///     .behaviour(1.0, move || victim.lock().unwrap().clear())
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// let left = chaos.call(|| Ok::<_, std::io::Error>(cache.lock().unwrap().len())).unwrap();
    /// assert_eq!(left, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[doc(alias = "behavior")]
    #[must_use]
    pub fn behaviour(mut self, rate: f64, behaviour: impl Fn() + Send + Sync + 'static) -> Self {
        self.settings.behaviour = Some((rate, Behaviour(Arc::new(behaviour))));
        self
    }

    /// The same seed makes the same decisions again, call by call. Default: another one each time, which is told
    /// when chaos is enabled.
    ///
    /// ```
    /// use resilience_core::{Category, Chaos, Class};
    ///
    /// let flaky = || Chaos::builder("flaky").fault(0.5, Class::of(Category::Network)).seed(7).build();
    /// let fate = |chaos: &Chaos| chaos.call(|| Ok::<_, std::io::Error>(())).is_ok();
    /// let (one, two) = (flaky()?, flaky()?);
    /// assert!((0..100).all(|_| fate(&one) == fate(&two)));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Whether it starts enabled. Default: yes.
    ///
    /// ```
    /// use resilience_core::{Category, Chaos, Class};
    ///
    /// let chaos = Chaos::builder("down").fault(1.0, Class::of(Category::Network)).enabled(false).build()?;
    /// assert_eq!(chaos.call(|| "42".parse::<u8>()), Ok(42));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Whether it may do anything in a build without debug assertions, as release builds are. Default: no, and then
    /// nothing is ever injected there. Goes by the profile in which this crate is compiled.
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// let everywhere = Chaos::builder("drill").allow_in_release(true).build()?;
    /// assert!(everywhere.is_enabled());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn allow_in_release(mut self, allow: bool) -> Self {
        self.allow_in_release = allow;
        self
    }

    /// How injected latency is waited for. Default: the system's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Chaos, ManualClock};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let chaos = Chaos::builder("slow")
    ///     .latency(1.0, Duration::from_secs(3600))
    ///     .clock(time.clock())
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// assert_eq!(chaos.call(|| "42".parse::<u8>()), Ok(42)); // takes no real time
    /// assert_eq!(time.elapsed(), Duration::from_secs(3600));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears that chaos was switched, and of each injection. Default: nobody; `tracing` is told of the switch anyhow.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    /// use resilience_core::{Category, Chaos, Class, Event, Observers};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let listen = move |event: &Event<'_>| {
    ///     if let Event::Notice { action, .. } = event {
    ///         tell.send(action.to_string()).unwrap();
    ///     }
    /// };
    /// let chaos = Chaos::builder("down")
    ///     .fault(1.0, Class::of(Category::Network))
    ///     .observers(Observers::new().with(Arc::new(listen)))
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// assert!(chaos.call(|| "42".parse::<u8>()).is_err());
    /// assert_eq!(told.try_iter().collect::<Vec<_>>(), ["enabled", "fault_injected"]);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes it.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// use resilience_core::{Category, Chaos, Class};
    ///
    /// let error = Chaos::builder("flaky").fault(5.0, Class::of(Category::Network)).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`flaky.fault_rate` is 5; allowed: 0 to 1");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn build(self) -> Result<Chaos, ConfigError> {
        config::name(&self.name)?;
        if let Some((rate, latency)) = self.settings.latency {
            checked_rate(&self.name, "latency_rate", rate)?;
            config::positive(&self.name, "latency", latency)?;
        }
        if let Some((rate, _)) = self.settings.fault {
            checked_rate(&self.name, "fault_rate", rate)?;
        }
        if let Some((rate, _)) = self.settings.behaviour {
            checked_rate(&self.name, "behaviour_rate", rate)?;
        }
        Ok(Chaos::from_valid(self))
    }
}

pub(super) fn checked_rate(name: &str, field: &str, rate: f64) -> Result<f64, ConfigError> {
    config::in_range(name, field, rate, &0.0, &1.0)
}
