//! Policies by name, and one place that handles errors: classified, counted, told to the observers.
//! Names are registered once and shared; a name that exists is never built twice. Holds no call's state.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bulkhead::{Bulkhead, BulkheadBuilder, BulkheadStatistics};
use crate::circuit_breaker::{BreakerStatistics, CircuitBreaker, CircuitBreakerBuilder};
use crate::class::{Category, Classify, Severity};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::context::ErrorContext;
use crate::event::{Event, Observers};
use crate::rate_limiter::{LimiterStatistics, RateLimiter, RateLimiterBuilder};

/// How many errors of each category and severity were handled. Its size is fixed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ErrorStatistics {
    /// All of them.
    pub total: u64,
    /// By category; categories without errors are left out.
    pub by_category: BTreeMap<Category, u64>,
    /// By severity; severities without errors are left out.
    pub by_severity: BTreeMap<Severity, u64>,
}

/// Every policy of a registry at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RegistrySnapshot {
    /// The breakers by name.
    pub breakers: BTreeMap<String, BreakerStatistics>,
    /// The limiters by name.
    pub limiters: BTreeMap<String, LimiterStatistics>,
    /// The bulkheads by name.
    #[cfg_attr(feature = "serde", serde(default))]
    pub bulkheads: BTreeMap<String, BulkheadStatistics>,
    /// The errors handled.
    pub errors: ErrorStatistics,
}

#[derive(Default)]
struct Contents {
    breakers: BTreeMap<String, CircuitBreaker>,
    limiters: BTreeMap<String, RateLimiter>,
    bulkheads: BTreeMap<String, Bulkhead>,
    errors: ErrorStatistics,
}

/// Policies by name and the unified error handler. Cheap to clone; clones share everything.
///
/// ```
/// use resilience_core::{Category, Registry};
///
/// let registry = Registry::default();
/// let breaker = registry.breaker("registry_fetch", |builder| builder.consecutive_failures(5))?;
/// let again = registry.breaker("registry_fetch", |builder| builder)?; // the same breaker
/// again.force_open();
/// assert!(breaker.try_acquire().is_err());
///
/// let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
/// let context = registry.handle_error("registry", "fetch serde", &error);
/// assert_eq!(context.class.category, Category::Network);
/// assert_eq!(registry.snapshot().errors.total, 1);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    clock: Clock,
    observers: Observers,
    contents: Arc<Mutex<Contents>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.lock();
        f.debug_struct("Registry")
            .field("breakers", &contents.breakers.keys())
            .field("limiters", &contents.limiters.keys())
            .field("bulkheads", &contents.bulkheads.keys())
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry whose policies go by `clock` and tell `observers`.
    pub fn new(clock: Clock, observers: Observers) -> Self {
        Self { clock, observers, contents: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock its policies go by.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Who hears of its policies.
    pub const fn observers(&self) -> &Observers {
        &self.observers
    }

    /// The breaker called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot.
    pub fn breaker(
        &self,
        name: &str,
        configure: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder,
    ) -> Result<CircuitBreaker, ConfigError> {
        if let Some(breaker) = self.lock().breakers.get(name) {
            return Ok(breaker.clone());
        }
        // Built outside the lock: `configure` is the caller's code.
        let builder = CircuitBreaker::builder(name).clock(self.clock.clone()).observers(self.observers.clone());
        let breaker = configure(builder).build()?;
        Ok(self.lock().breakers.entry(name.to_owned()).or_insert(breaker).clone())
    }

    /// The limiter called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot.
    pub fn limiter(
        &self,
        name: &str,
        configure: impl FnOnce(RateLimiterBuilder) -> RateLimiterBuilder,
    ) -> Result<RateLimiter, ConfigError> {
        if let Some(limiter) = self.lock().limiters.get(name) {
            return Ok(limiter.clone());
        }
        let builder = RateLimiter::builder(name).clock(self.clock.clone()).observers(self.observers.clone());
        let limiter = configure(builder).build()?;
        Ok(self.lock().limiters.entry(name.to_owned()).or_insert(limiter).clone())
    }

    /// The bulkhead called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default();
    /// let bulkhead = registry.bulkhead("reports", |builder| builder.max_concurrent(2))?;
    /// let _permit = bulkhead.try_acquire();
    /// assert_eq!(registry.snapshot().bulkheads["reports"].in_flight, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn bulkhead(
        &self,
        name: &str,
        configure: impl FnOnce(BulkheadBuilder) -> BulkheadBuilder,
    ) -> Result<Bulkhead, ConfigError> {
        if let Some(bulkhead) = self.lock().bulkheads.get(name) {
            return Ok(bulkhead.clone());
        }
        let builder = Bulkhead::builder(name).clock(self.clock.clone()).observers(self.observers.clone());
        let bulkhead = configure(builder).build()?;
        Ok(self.lock().bulkheads.entry(name.to_owned()).or_insert(bulkhead).clone())
    }

    /// Handles an error that happened in `component` while doing `operation`: classifies it, counts it, tells the
    /// observers, and returns the record.
    pub fn handle_error<E>(&self, component: &str, operation: &str, error: &E) -> ErrorContext
    where
        E: Classify + std::error::Error + ?Sized,
    {
        let context = ErrorContext::new(&self.clock, component, operation, error);
        self.record(&context);
        context
    }

    /// Counts a context made elsewhere and tells the observers.
    pub fn record(&self, context: &ErrorContext) {
        {
            let errors = &mut self.lock().errors;
            errors.total += 1;
            *errors.by_category.entry(context.class.category).or_default() += 1;
            *errors.by_severity.entry(context.class.severity).or_default() += 1;
        }
        self.observers.emit(&Event::ErrorHandled { context });
    }

    /// Everything at this moment.
    pub fn snapshot(&self) -> RegistrySnapshot {
        let contents = self.lock();
        RegistrySnapshot {
            breakers: contents.breakers.iter().map(|(name, it)| (name.clone(), it.statistics())).collect(),
            limiters: contents.limiters.iter().map(|(name, it)| (name.clone(), it.statistics())).collect(),
            bulkheads: contents.bulkheads.iter().map(|(name, it)| (name.clone(), it.statistics())).collect(),
            errors: contents.errors.clone(),
        }
    }
}
