//! Policies from a configuration, at the start and while calls are made. All or nothing: a plan is made and checked
//! first, on handles of its own, and carried out only when all of it is valid. Whatever can change in place does, with
//! its state and for every handle given out; nothing is ever taken away.

use std::collections::BTreeMap;

use super::shelves::{AnyLimiter, Shelves};
use super::{Contents, Registered, Registry};
use crate::bulkhead::Bulkhead;
use crate::circuit_breaker::CircuitBreaker;
use crate::class::Severity;
use crate::clock::Clock;
use crate::config::{self, BreakerConfig, ConfigError, LimiterConfig, PipelineConfig, ResilienceConfig, Step};
use crate::event::{Event, Observers};
use crate::hedge::Hedge;
use crate::load_shedder::LoadShedder;
use crate::pipeline::Pipeline;
use crate::rate_limiter::{KeyedRateLimiter, KeyedRateLimiterBuilder, RateLimiter};
use crate::retry::{Retry, RetryBudget};

/// What became of each policy of a configuration, as `breakers.search`. Every one is in exactly one of the lists.
///
/// ```
/// use resilience_core::Registry;
/// use resilience_core::config::ResilienceConfig;
///
/// let config: ResilienceConfig = toml::from_str("[breakers.search]\nconsecutive_failures = 3")?;
/// let registry = Registry::default();
/// assert_eq!(registry.apply(&config)?.added, ["breakers.search"]);
/// assert_eq!(registry.apply(&config)?.unchanged, ["breakers.search"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Changes {
    /// New ones.
    pub added: Vec<String>,
    /// Changed in place: every handle sees it, and the state is kept.
    pub changed: Vec<String>,
    /// Made anew: the registry gives out the new one from now on, handles given out before keep the old one.
    pub replaced: Vec<String>,
    /// Configured as before, and not touched.
    pub unchanged: Vec<String>,
    /// In the configuration applied before, but not in this one. They stay as they are.
    pub no_longer_configured: Vec<String>,
}

impl Registry {
    /// A registry with the policies of `config`, on the system's clock and without observers. For others, make one by
    /// [`new`](Self::new) and [`apply`](Self::apply) the configuration.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    ///
    /// ```
    /// use resilience_core::config::ResilienceConfig;
    /// use resilience_core::{CircuitBreaker, Registry};
    ///
    /// let config: ResilienceConfig = toml::from_str("[breakers.search]\nopen_for = '5s'")?;
    /// let breaker: CircuitBreaker = Registry::from_config(&config)?.get("search")?;
    /// assert_eq!(breaker.name(), "search");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_config(config: &ResilienceConfig) -> Result<Self, ConfigError> {
        let registry = Self::default();
        registry.apply(config)?;
        Ok(registry)
    }

    /// Makes the registry's policies as `config` says, while calls are made: all of it, or nothing when anything in it
    /// cannot be used.
    ///
    /// What was configured before and is the same now is not touched, also when it was changed by hand meanwhile. What
    /// is configured differently changes in place, for every handle: an open breaker stays open, saved permits stay
    /// saved, calls in a bulkhead or a load shedder stay counted, and calls under way in a retry go on by its new
    /// settings. Some things cannot change in place, and the policy is made anew for those who ask the registry from then
    /// on: the steps of a pipeline, which budget a retry or a hedge has, how many keys a keyed limiter remembers, and whether a limiter is a bucket or
    /// a sliding window. A pipeline is made anew as well when one of its policies was.
    ///
    /// Policies that code made under a configured name are taken over; those that are no longer configured stay. Each
    /// policy that is added, changed or replaced is told to the observers as an [`Event::Notice`] of the component
    /// `registry`.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used by its path, or a name that nothing has; or says
    /// that another thread is applying a configuration at the moment.
    ///
    /// ```
    /// use resilience_core::{Registry, Bulkhead, config::ResilienceConfig};
    ///
    /// let config: ResilienceConfig = toml::from_str("bulkheads.reports.max_concurrent = 1")?;
    /// let registry = Registry::from_config(&config)?;
    /// let reports: Bulkhead = registry.get("reports")?;
    /// let inside = reports.try_acquire()?;
    ///
    /// let changes = registry.apply(&toml::from_str("bulkheads.reports.max_concurrent = 2")?)?;
    /// assert_eq!(changes.changed, ["bulkheads.reports"]);
    /// assert_eq!(reports.statistics().in_flight, 1);
    /// assert!(reports.try_acquire().is_ok());
    /// # drop(inside);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply(&self, config: &ResilienceConfig) -> Result<Changes, ConfigError> {
        let _reloading = Reloading::start(self)?;
        let (plan, changes) = loop {
            let (registrations, max_policies, plan) = {
                let contents = self.lock();
                let (shelves, before) = (contents.shelves.clone(), contents.configured.clone());
                (contents.registrations, contents.max_policies, Plan::new(self, shelves, before))
            };
            let (shelves_before, plan) = (plan.shelves.clone(), plan.fill(config)?);
            let more = plan.shelves.len() - shelves_before.len();
            shelves_before.check_room(more, max_policies)?;
            let mut contents = self.lock();
            // When somebody registered a policy meanwhile, the plan may be about a name that is taken now.
            if contents.registrations == registrations {
                contents.shelves = plan.shelves;
                contents.configured = config.clone();
                break (plan.in_place, plan.changes);
            }
        };
        // Outside the lock, since this wakes waiters and tells observers.
        for change in plan {
            change()?;
        }
        let told = [("added", &changes.added), ("changed", &changes.changed), ("replaced", &changes.replaced)];
        for (action, policies) in told {
            for policy in policies {
                self.observers.emit(&Event::notice("registry", action, policy, Severity::Low, "by configuration"));
            }
        }
        Ok(changes)
    }

    /// The configuration that was applied last; empty when there was none.
    ///
    /// ```
    /// use resilience_core::Registry;
    /// use resilience_core::config::ResilienceConfig;
    ///
    /// let config: ResilienceConfig = toml::from_str("[bulkheads.reports]\nmax_concurrent = 4")?;
    /// assert!(Registry::from_config(&config)?.configuration() == config);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn configuration(&self) -> ResilienceConfig {
        self.lock().configured.clone()
    }
}

/// While it lives, nobody else applies a configuration.
struct Reloading<'a>(&'a Registry);

impl<'a> Reloading<'a> {
    fn start(registry: &'a Registry) -> Result<Self, ConfigError> {
        let mut contents = registry.lock();
        if contents.reloading {
            // Not waited for: it may be an observer of that very reload who asks.
            return Err(ConfigError::new("registry", "being reloaded", "one reload at a time"));
        }
        contents.reloading = true;
        drop(contents);
        Ok(Self(registry))
    }
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        let contents: &mut Contents = &mut self.0.lock();
        contents.reloading = false;
    }
}

/// A change that was checked and is left to be made.
type InPlace = Box<dyn FnOnce() -> Result<(), ConfigError>>;

/// What a configuration makes of a registry's policies.
struct Plan {
    clock: Clock,
    observers: Observers,
    /// What was applied before.
    before: ResilienceConfig,
    shelves: Shelves,
    in_place: Vec<InPlace>,
    changes: Changes,
}

impl Plan {
    fn new(registry: &Registry, shelves: Shelves, before: ResilienceConfig) -> Self {
        let (clock, observers) = (registry.clock.clone(), registry.observers.clone());
        Self { clock, observers, before, shelves, in_place: Vec::new(), changes: Changes::default() }
    }

    /// Budgets before the retries and hedges that use them, pipelines last.
    fn fill(mut self, config: &ResilienceConfig) -> Result<Self, ConfigError> {
        let before = std::mem::take(&mut self.before);
        for (name, it) in &config.breakers {
            let same = before.breakers.get(name) == Some(it);
            self.breaker(name, it, same).map_err(|wrong| wrong.of("breakers", name))?;
        }
        for (name, it) in &config.limiters {
            let same = before.limiters.get(name) == Some(it);
            self.limiter(name, it, same)?;
        }
        for (name, it) in &config.bulkheads {
            let same = before.bulkheads.get(name) == Some(it);
            let builder = it.builder(name).clock(self.clock.clone()).observers(self.observers.clone());
            let fresh = builder.clone().build().map_err(|wrong| wrong.of("bulkheads", name))?;
            self.policy(name, same, fresh, |old: Bulkhead| Some(Box::new(move || old.reconfigure(builder))));
        }
        for (name, it) in &config.load_shedders {
            let same = before.load_shedders.get(name) == Some(it);
            let builder = it.builder(name).observers(self.observers.clone());
            let fresh = builder.clone().build().map_err(|wrong| wrong.of("load_shedders", name))?;
            self.policy(name, same, fresh, |old: LoadShedder| Some(Box::new(move || old.reconfigure(builder))));
        }
        for (name, it) in &config.budgets {
            let same = before.budgets.get(name) == Some(it);
            let builder = it.builder();
            let fresh = config::name(name).and_then(|()| builder.build()).map_err(|it| it.of("budgets", name))?;
            self.policy(name, same, fresh, |old: RetryBudget| Some(Box::new(move || old.reconfigure(builder))));
        }
        for (name, it) in &config.retries {
            let same = before.retries.get(name) == Some(it);
            let mut builder = it.builder().clock(self.clock.clone()).observers(self.observers.clone());
            if let Some(budget) = &it.budget {
                let field = format!("retries.{name}.budget");
                builder = builder.budget(self.shelves.find::<RetryBudget>(&field, budget)?.clone());
            }
            let fresh =
                config::name(name).and_then(|()| builder.clone().build()).map_err(|it| it.of("retries", name))?;
            let budget = fresh.budget().cloned();
            self.policy(name, same, fresh, |old: Retry| {
                (old.budget() == budget.as_ref()).then(|| Box::new(move || old.reconfigure(builder)) as InPlace)
            });
        }
        for (name, it) in &config.hedges {
            let same = before.hedges.get(name) == Some(it);
            let mut builder = it.builder().clock(self.clock.clone()).observers(self.observers.clone());
            if let Some(budget) = &it.budget {
                let field = format!("hedges.{name}.budget");
                builder = builder.budget(self.shelves.find::<RetryBudget>(&field, budget)?.clone());
            }
            let fresh =
                config::name(name).and_then(|()| builder.clone().build()).map_err(|it| it.of("hedges", name))?;
            self.policy(name, same, fresh, |old: Hedge| {
                old.has_budget_of(&builder).then(|| Box::new(move || old.reconfigure(builder)) as InPlace)
            });
        }
        for (name, it) in &config.pipelines {
            let same = before.pipelines.get(name) == Some(it) && !self.any_replaced(it);
            let fresh = self.pipeline(name, it)?;
            self.policy(name, same, fresh, |_: Pipeline| None);
        }
        let gone = &mut self.changes.no_longer_configured;
        absent("breakers", &before.breakers, &config.breakers, gone);
        absent("limiters", &before.limiters, &config.limiters, gone);
        absent("bulkheads", &before.bulkheads, &config.bulkheads, gone);
        absent("load_shedders", &before.load_shedders, &config.load_shedders, gone);
        absent("budgets", &before.budgets, &config.budgets, gone);
        absent("retries", &before.retries, &config.retries, gone);
        absent("hedges", &before.hedges, &config.hedges, gone);
        absent("pipelines", &before.pipelines, &config.pipelines, gone);
        Ok(self)
    }

    /// Adds a policy that was made of a valid configuration, changes the one of that name in place, or replaces it when
    /// `in_place` says that this cannot be.
    fn policy<P: Registered>(&mut self, name: &str, same: bool, fresh: P, in_place: impl FnOnce(P) -> Option<InPlace>) {
        let policies = P::shelf_mut(&mut self.shelves);
        let list = match policies.get(name) {
            Some(_) if same => &mut self.changes.unchanged,
            Some(old) => {
                if let Some(change) = in_place(old.clone()) {
                    self.in_place.push(change);
                    &mut self.changes.changed
                } else {
                    policies.insert(name.to_owned(), fresh);
                    &mut self.changes.replaced
                }
            }
            None => {
                policies.insert(name.to_owned(), fresh);
                &mut self.changes.added
            }
        };
        list.push(format!("{}.{name}", P::KIND));
    }

    fn breaker(&mut self, name: &str, it: &BreakerConfig, same: bool) -> Result<(), ConfigError> {
        let builder = it.builder(name)?;
        let fresh = builder.clone().clock(self.clock.clone()).observers(self.observers.clone()).build()?;
        self.policy(name, same, fresh, |old: CircuitBreaker| Some(Box::new(move || old.reconfigure(builder))));
        Ok(())
    }

    fn limiter(&mut self, name: &str, it: &LimiterConfig, same: bool) -> Result<(), ConfigError> {
        if it.is_keyed() {
            self.shelves.check_kind::<KeyedRateLimiter<String>>(name)?;
            let keyed = || Ok(it.keyed_builder(name)?.clock(self.clock.clone()).observers(self.observers.clone()));
            let builder = keyed().map_err(|wrong: ConfigError| wrong.of("limiters", name))?;
            let fresh = keyed().and_then(KeyedRateLimiterBuilder::build).map_err(|wrong| wrong.of("limiters", name))?;
            let max_keys = fresh.statistics().max_keys;
            self.policy(name, same, fresh, |old: KeyedRateLimiter<String>| {
                let in_place = old.statistics().max_keys == max_keys;
                in_place.then(|| Box::new(move || old.reconfigure(builder)) as InPlace)
            });
        } else {
            self.shelves.check_kind::<RateLimiter>(name)?;
            let builder = it.builder(name).clock(self.clock.clone()).observers(self.observers.clone());
            let fresh = builder.clone().build().map_err(|wrong| wrong.of("limiters", name))?;
            let like = fresh.clone();
            self.policy(name, same, fresh, |old: RateLimiter| {
                old.same_algorithm(&like).then(|| Box::new(move || old.reconfigure(builder)) as InPlace)
            });
        }
        Ok(())
    }

    /// Whether a policy that the pipeline is made of was made anew.
    fn any_replaced(&self, it: &PipelineConfig) -> bool {
        it.steps.iter().any(|step| {
            let path = match step {
                Step::Timeout(_) => return false,
                Step::Retry(name) => format!("retries.{name}"),
                Step::CircuitBreaker(name) => format!("breakers.{name}"),
                Step::RateLimiter { name, .. } => format!("limiters.{name}"),
                Step::Bulkhead { name, .. } => format!("bulkheads.{name}"),
                Step::LoadShedder(name) => format!("load_shedders.{name}"),
                Step::Hedge(name) => format!("hedges.{name}"),
            };
            self.changes.replaced.contains(&path)
        })
    }

    fn pipeline(&self, name: &str, it: &PipelineConfig) -> Result<Pipeline, ConfigError> {
        let mut builder = Pipeline::builder(name).clock(self.clock.clone()).observers(self.observers.clone());
        for (index, step) in it.steps.iter().enumerate() {
            let field = |step: &str| format!("pipelines.{name}.steps[{index}].{step}");
            builder = match step {
                Step::Timeout(limit) => builder.timeout(*limit),
                Step::Retry(retry) => builder.retry(self.shelves.find::<Retry>(&field("retry"), retry)?.clone()),
                Step::CircuitBreaker(breaker) => {
                    let breaker = self.shelves.find::<CircuitBreaker>(&field("circuit_breaker"), breaker)?;
                    builder.circuit_breaker(breaker.clone())
                }
                Step::RateLimiter { name, max_wait } => {
                    let max_wait = max_wait.unwrap_or_default();
                    match self.shelves.find_limiter(&field("rate_limiter"), name)? {
                        AnyLimiter::Plain(limiter) => builder.rate_limiter_waiting(limiter.clone(), max_wait),
                        AnyLimiter::Keyed(limiter) => builder.keyed_rate_limiter_waiting(limiter.clone(), max_wait),
                    }
                }
                Step::Bulkhead { name, max_wait } => {
                    let bulkhead = self.shelves.find::<Bulkhead>(&field("bulkhead"), name)?.clone();
                    builder.bulkhead_waiting(bulkhead, max_wait.unwrap_or_default())
                }
                Step::LoadShedder(shedder) => {
                    let shedder = self.shelves.find::<LoadShedder>(&field("load_shedder"), shedder)?;
                    builder.load_shedder(shedder.clone())
                }
                Step::Hedge(hedge) => builder.hedge(self.shelves.find::<Hedge>(&field("hedge"), hedge)?.clone()),
            };
        }
        builder.build().map_err(|wrong| wrong.of("pipelines", name))
    }
}

/// Which names of `before` are not in `now`.
fn absent<T>(kind: &str, before: &BTreeMap<String, T>, now: &BTreeMap<String, T>, list: &mut Vec<String>) {
    list.extend(before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{kind}.{name}")));
}
