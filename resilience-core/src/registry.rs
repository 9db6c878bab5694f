//! Policies by name, and one place that handles errors: classified, counted, told to the observers.
//! Names are registered once and shared; a name that exists is never built twice, and there is a bound on how many there
//! can be. Holds no call's state.

#[cfg(feature = "serde")]
mod reload;
mod shelves;
mod snapshot;

#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use reload::Changes;
pub use shelves::Registered;
pub use snapshot::{ErrorStatistics, RegistrySnapshot, RetrySettings};

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bulkhead::{Bulkhead, BulkheadBuilder};
use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder};
use crate::class::Classify;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::context::ErrorContext;
use crate::event::{Event, Observers};
use crate::hedge::{Hedge, HedgeBuilder};
use crate::load_shedder::{LoadShedder, LoadShedderBuilder};
use crate::pipeline::{Pipeline, PipelineBuilder};
use crate::rate_limiter::{KeyedRateLimiter, KeyedRateLimiterBuilder, RateLimiter, RateLimiterBuilder};
use crate::retry::{Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder};
use shelves::Shelves;

/// How many policies a registry holds at most, unless told otherwise.
const MAX_POLICIES: usize = 1_000;

struct Contents {
    shelves: Shelves,
    max_policies: usize,
    errors: ErrorStatistics,
    /// Counts what was registered, so that a reload sees that something came while it made its plan.
    #[cfg(feature = "serde")]
    registrations: u64,
    /// What was applied last.
    #[cfg(feature = "serde")]
    configured: crate::config::ResilienceConfig,
    #[cfg(feature = "serde")]
    reloading: bool,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            shelves: Shelves::default(),
            max_policies: MAX_POLICIES,
            errors: ErrorStatistics::default(),
            #[cfg(feature = "serde")]
            registrations: 0,
            #[cfg(feature = "serde")]
            configured: crate::config::ResilienceConfig::default(),
            #[cfg(feature = "serde")]
            reloading: false,
        }
    }
}

/// Policies by name and the unified error handler. Cheap to clone; clones share everything.
///
/// A name is made once: by whoever asks for it first, or by a configuration. From then on it means that policy, whatever
/// else is asked for under the name: the first definition wins, and only a configuration that is
/// applied later changes it. Breakers, limiters, bulkheads, load shedders, budgets, retries, hedges and
/// pipelines have names of their own; limiters with and without keys share theirs. Names are meant to be few and known when the program is
/// written or configured, since metrics are labelled with them; [`max_policies`](Self::max_policies) bounds them.
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
        f.debug_struct("Registry").field("shelves", &self.lock().shelves).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry whose policies go by `clock` and tell `observers`.
    ///
    /// ```
    /// use resilience_core::{Clock, Observers, Registry};
    ///
    /// let (clock, time) = Clock::manual();
    /// let registry = Registry::new(clock, Observers::new());
    /// let limiter = registry.limiter("search", |builder| builder.burst(1))?;
    /// limiter.try_acquire(1).unwrap();
    /// time.advance(std::time::Duration::from_secs(60)); // its policies go by that clock
    /// assert!(limiter.try_acquire(1).is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn new(clock: Clock, observers: Observers) -> Self {
        Self { clock, observers, contents: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock its policies go by.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Deadline, ManualClock, Observers, Registry};
    ///
    /// let time = ManualClock::new();
    /// let registry = Registry::new(time.clock(), Observers::new());
    /// let deadline = Deadline::after(registry.clock(), Duration::from_secs(2)); // one its pipelines understand
    /// time.advance(Duration::from_secs(1));
    /// assert_eq!(deadline.remaining(), Duration::from_secs(1));
    /// ```
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Who hears of its policies.
    ///
    /// ```
    /// use resilience_core::{Hedge, Registry};
    ///
    /// let registry = Registry::default();
    /// assert!(registry.observers().is_empty());
    /// let hedge = Hedge::builder().observers(registry.observers().clone()).build()?; // heard by the same ones
    /// # drop(hedge);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn observers(&self) -> &Observers {
        &self.observers
    }

    /// How many policies of all kinds together there can be; default 1000. Those that are there already stay.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default().max_policies(1);
    /// registry.bulkhead("reports", |builder| builder)?;
    /// let error = registry.bulkhead("user_4711", |builder| builder).unwrap_err();
    /// assert_eq!(error.to_string(),
    ///     "`registry.policies` is 2; allowed: at most 1; names belong to policies, not to requests");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_policies(self, policies: usize) -> Self {
        self.lock().max_policies = policies;
        self
    }

    /// The policy called `name`, of the kind that is asked for. It is not made when there is none: for names that come
    /// from a configuration, where one that is mistyped must not become a policy that protects nothing.
    ///
    /// # Errors
    /// A [`ConfigError`] that says which names there are.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Registry};
    ///
    /// let registry = Registry::default();
    /// registry.breaker("search", |builder| builder)?;
    /// let search: CircuitBreaker = registry.get("search")?;
    /// let error = registry.get::<CircuitBreaker>("serach").unwrap_err();
    /// assert_eq!(error.to_string(), "`breakers` is \"serach\"; allowed: one of the breakers: search");
    /// # drop(search);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn get<P: Registered>(&self, name: &str) -> Result<P, ConfigError> {
        self.lock().shelves.find::<P>(P::KIND, name).cloned()
    }

    fn get_or_make<P: Registered>(
        &self,
        name: &str,
        make: impl FnOnce(Clock, Observers) -> Result<P, ConfigError>,
    ) -> Result<P, ConfigError> {
        if let Some(policy) = P::shelf(&self.lock().shelves).get(name) {
            return Ok(policy.clone());
        }
        config::name(name)?;
        // Made outside the lock: how is the caller's code.
        let new = make(self.clock.clone(), self.observers.clone())?;
        if let Some(own) = new.own_name().filter(|own| *own != name) {
            let allowed = format!("{name}, by which it is registered");
            return Err(ConfigError::new(format!("{}.{name}.name", P::KIND), config::quoted(own), allowed));
        }
        let mut contents = self.lock();
        // Another thread may have been faster.
        if let Some(policy) = P::shelf(&contents.shelves).get(name) {
            return Ok(policy.clone());
        }
        contents.shelves.check_kind::<P>(name)?;
        contents.shelves.check_room(1, contents.max_policies)?;
        P::shelf_mut(&mut contents.shelves).insert(name.to_owned(), new.clone());
        #[cfg(feature = "serde")]
        {
            contents.registrations += 1;
        }
        Ok(new)
    }

    /// The breaker called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default();
    /// let breaker = registry.breaker("search", |builder| builder.consecutive_failures(3))?;
    /// breaker.force_open();
    /// assert!(registry.breaker("search", |builder| builder)?.try_acquire().is_err()); // the same one
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn breaker(
        &self,
        name: &str,
        configure: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder,
    ) -> Result<CircuitBreaker, ConfigError> {
        self.get_or_make(name, |clock, observers| {
            configure(CircuitBreaker::builder(name).clock(clock).observers(observers)).build()
        })
    }

    /// The limiter called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default();
    /// registry.limiter("search", |builder| builder.burst(5))?.try_acquire(5).unwrap();
    /// assert_eq!(registry.limiter("search", |builder| builder)?.statistics().available, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn limiter(
        &self,
        name: &str,
        configure: impl FnOnce(RateLimiterBuilder) -> RateLimiterBuilder,
    ) -> Result<RateLimiter, ConfigError> {
        self.get_or_make(name, |clock, observers| {
            configure(RateLimiter::builder(name).clock(clock).observers(observers)).build()
        })
    }

    /// The limiter with a limit for each key called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default();
    /// let tenants = registry.keyed_limiter("per_tenant", |builder| builder.max_keys(10_000))?;
    /// assert!(tenants.try_acquire("blue", 1).is_ok());
    /// assert_eq!(registry.snapshot().keyed_limiters["per_tenant"].keys, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn keyed_limiter(
        &self,
        name: &str,
        configure: impl FnOnce(KeyedRateLimiterBuilder<String>) -> KeyedRateLimiterBuilder<String>,
    ) -> Result<KeyedRateLimiter<String>, ConfigError> {
        self.get_or_make(name, |clock, observers| {
            configure(KeyedRateLimiter::builder(name).clock(clock).observers(observers)).build()
        })
    }

    /// The bulkhead called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
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
        self.get_or_make(name, |clock, observers| {
            configure(Bulkhead::builder(name).clock(clock).observers(observers)).build()
        })
    }

    /// The load shedder called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::{Priority, Registry};
    ///
    /// let registry = Registry::default();
    /// let shedder = registry.load_shedder("api", |builder| builder.max_concurrent(200))?;
    /// let _permit = shedder.try_acquire(Priority::High);
    /// assert_eq!(registry.snapshot().load_shedders["api"].in_flight, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn load_shedder(
        &self,
        name: &str,
        configure: impl FnOnce(LoadShedderBuilder) -> LoadShedderBuilder,
    ) -> Result<LoadShedder, ConfigError> {
        // It needs no clock.
        self.get_or_make(name, |_, observers| configure(LoadShedder::builder(name).observers(observers)).build())
    }

    /// The retry budget called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default();
    /// let budget = registry.budget("all", |builder| builder.ratio(0.1))?;
    /// assert!(registry.budget("all", |builder| builder)? == budget);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn budget(
        &self,
        name: &str,
        configure: impl FnOnce(RetryBudgetBuilder) -> RetryBudgetBuilder,
    ) -> Result<RetryBudget, ConfigError> {
        self.get_or_make(name, |_, _| configure(RetryBudget::builder()).build())
    }

    /// The retry called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default();
    /// let budget = registry.budget("all", |builder| builder.ratio(0.1))?;
    /// let retry = registry.retry("store", |builder| builder.max_attempts(5).budget(budget))?;
    /// assert_eq!(registry.snapshot().retries["store"].budget.as_deref(), Some("all"));
    /// # drop(retry);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn retry(
        &self,
        name: &str,
        configure: impl FnOnce(RetryBuilder) -> RetryBuilder,
    ) -> Result<Retry, ConfigError> {
        self.get_or_make(name, |clock, observers| configure(Retry::builder().clock(clock).observers(observers)).build())
    }

    /// The hedge called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::Registry;
    ///
    /// let registry = Registry::default();
    /// let budget = registry.budget("all", |builder| builder.ratio(0.1))?;
    /// let hedge = registry.hedge("reads", |builder| builder.after_percentile(0.95).budget(budget))?;
    /// assert_eq!(registry.snapshot().hedges["reads"], hedge.statistics());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn hedge(
        &self,
        name: &str,
        configure: impl FnOnce(HedgeBuilder) -> HedgeBuilder,
    ) -> Result<Hedge, ConfigError> {
        self.get_or_make(name, |clock, observers| configure(Hedge::builder().clock(clock).observers(observers)).build())
    }

    /// The pipeline called `name`; made by `configure` when there is none yet.
    ///
    /// # Errors
    /// A [`ConfigError`] when it has to be made and cannot, or would be one too many.
    ///
    /// ```
    /// use resilience_core::{Registry, Retry};
    ///
    /// let registry = Registry::default();
    /// let pipeline = registry.pipeline("search", |builder| builder.retry(Retry::default()))?;
    /// assert_eq!(pipeline.call(|| Ok::<_, std::io::Error>(3)).unwrap(), 3);
    /// assert!(registry.snapshot().pipelines.contains("search"));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn pipeline(
        &self,
        name: &str,
        configure: impl FnOnce(PipelineBuilder) -> PipelineBuilder,
    ) -> Result<Pipeline, ConfigError> {
        self.get_or_make(name, |clock, observers| {
            configure(Pipeline::builder(name).clock(clock).observers(observers)).build()
        })
    }

    /// Handles an error that happened in `component` while doing `operation`: classifies it, counts it, tells the
    /// observers, and returns the record.
    ///
    /// ```
    /// use resilience_core::{Category, Registry};
    ///
    /// let registry = Registry::default();
    /// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// let context = registry.handle_error("registry", "fetch", &refused);
    /// assert_eq!((context.class.category, context.operation.as_str()), (Category::Network, "fetch"));
    /// assert_eq!(registry.snapshot().errors.total, 1);
    /// ```
    pub fn handle_error<E>(&self, component: &str, operation: &str, error: &E) -> ErrorContext
    where
        E: Classify + std::error::Error + ?Sized,
    {
        let context = ErrorContext::new(&self.clock, component, operation, error);
        self.record(&context);
        context
    }

    /// Counts a context made elsewhere and tells the observers.
    ///
    /// ```
    /// use resilience_core::{Clock, ErrorContext, Registry};
    ///
    /// let registry = Registry::default();
    /// let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
    /// registry.record(&ErrorContext::new(&Clock::system(), "lsp", "rename", &late));
    /// assert_eq!(registry.snapshot().errors.total, 1);
    /// ```
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
    ///
    /// ```
    /// use resilience_core::{BreakerState, Registry};
    ///
    /// let registry = Registry::default();
    /// registry.breaker("search", |builder| builder)?.force_open();
    /// assert_eq!(registry.snapshot().breakers["search"].state, BreakerState::ForcedOpen);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn snapshot(&self) -> RegistrySnapshot {
        let (shelves, errors) = {
            let contents = self.lock();
            (contents.shelves.clone(), contents.errors.clone())
        };
        RegistrySnapshot::of(&shelves, errors, self.clock.now())
    }
}
