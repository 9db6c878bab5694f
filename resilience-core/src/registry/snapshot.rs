//! What a registry holds at one moment, for operators: every policy's figures and the errors handled. Data only.

use std::collections::{BTreeMap, BTreeSet};

use super::shelves::Shelves;
use crate::bulkhead::{Bulkhead, BulkheadStatistics};
use crate::circuit_breaker::{BreakerStatistics, CircuitBreaker};
use crate::class::{Category, Severity};
use crate::clock::Instant;
use crate::hedge::{Hedge, HedgeStatistics};
use crate::load_shedder::{LoadShedder, LoadShedderStatistics};
use crate::rate_limiter::{KeyedRateLimiter, KeyedStatistics, LimiterStatistics, RateLimiter};
use crate::retry::{RetryBudget, RetryBudgetStatistics};

/// How many errors of each category and severity were handled. Its size is fixed.
///
/// ```
/// use resilience_core::{Category, Registry, Severity};
///
/// let registry = Registry::default();
/// registry.handle_error("store", "read", &std::io::Error::from(std::io::ErrorKind::InvalidInput));
/// let errors = registry.snapshot().errors;
/// assert_eq!((errors.total, errors.by_category[&Category::Validation]), (1, 1));
/// ```
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

/// A retry's settings at one moment; what it does is counted by its budget and told to observers.
///
/// ```
/// use resilience_core::Registry;
///
/// let registry = Registry::default();
/// registry.retry("search", |builder| builder.max_attempts(5))?;
/// let retry = &registry.snapshot().retries["search"];
/// assert_eq!((retry.max_attempts, &retry.budget), (5, &None));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RetrySettings {
    /// How often an operation may be tried in all.
    pub max_attempts: u32,
    /// The name of its budget, when it has one that the registry knows.
    pub budget: Option<String>,
}

/// Every policy of a registry at one moment, each by its name.
///
/// ```
/// use resilience_core::Registry;
///
/// let registry = Registry::default();
/// registry.bulkhead("reports", |builder| builder.max_concurrent(4))?;
/// let snapshot = registry.snapshot();
/// assert_eq!(snapshot.bulkheads["reports"].max_concurrent, 4);
/// assert!(snapshot.breakers.is_empty());
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct RegistrySnapshot {
    /// The breakers.
    pub breakers: BTreeMap<String, BreakerStatistics>,
    /// The limiters without keys.
    pub limiters: BTreeMap<String, LimiterStatistics>,
    /// The keyed limiters; no keys, which may be secrets.
    pub keyed_limiters: BTreeMap<String, KeyedStatistics>,
    /// The bulkheads.
    pub bulkheads: BTreeMap<String, BulkheadStatistics>,
    /// The load shedders.
    pub load_shedders: BTreeMap<String, LoadShedderStatistics>,
    /// The retry budgets.
    pub budgets: BTreeMap<String, RetryBudgetStatistics>,
    /// The retries.
    pub retries: BTreeMap<String, RetrySettings>,
    /// The hedges.
    pub hedges: BTreeMap<String, HedgeStatistics>,
    /// The pipelines, which have no figures of their own.
    pub pipelines: BTreeSet<String>,
    /// The errors handled.
    pub errors: ErrorStatistics,
}

impl RegistrySnapshot {
    pub(super) fn of(shelves: &Shelves, errors: ErrorStatistics, now: Instant) -> Self {
        let budget_name =
            |budget: &RetryBudget| shelves.budgets.iter().find(|(_, it)| *it == budget).map(|(name, _)| name.clone());
        Self {
            breakers: figures(&shelves.breakers, CircuitBreaker::statistics),
            limiters: figures(&shelves.limiters, RateLimiter::statistics),
            keyed_limiters: figures(&shelves.keyed_limiters, KeyedRateLimiter::statistics),
            bulkheads: figures(&shelves.bulkheads, Bulkhead::statistics),
            load_shedders: figures(&shelves.load_shedders, LoadShedder::statistics),
            budgets: figures(&shelves.budgets, |it| it.statistics(now)),
            retries: figures(&shelves.retries, |it| RetrySettings {
                max_attempts: it.max_attempts(),
                budget: it.budget().and_then(budget_name),
            }),
            hedges: figures(&shelves.hedges, Hedge::statistics),
            pipelines: shelves.pipelines.keys().cloned().collect(),
            errors,
        }
    }
}

fn figures<P, F>(shelf: &BTreeMap<String, P>, figures_of: impl Fn(&P) -> F) -> BTreeMap<String, F> {
    shelf.iter().map(|(name, policy)| (name.clone(), figures_of(policy))).collect()
}
