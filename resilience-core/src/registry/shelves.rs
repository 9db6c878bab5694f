//! The registry's policies by name, one shelf for each kind. Bounded in number; holds no call's state.

use std::collections::BTreeMap;

use crate::bulkhead::Bulkhead;
use crate::circuit_breaker::CircuitBreaker;
use crate::config::{self, ConfigError};
use crate::hedge::Hedge;
use crate::load_shedder::LoadShedder;
use crate::pipeline::Pipeline;
use crate::rate_limiter::{KeyedRateLimiter, RateLimiter};
use crate::retry::{Retry, RetryBudget};

/// The policies of one kind by name.
pub(super) type Shelf<P> = BTreeMap<String, P>;

#[derive(Debug, Clone, Default)]
pub struct Shelves {
    pub(super) breakers: Shelf<CircuitBreaker>,
    pub(super) limiters: Shelf<RateLimiter>,
    pub(super) keyed_limiters: Shelf<KeyedRateLimiter<String>>,
    pub(super) bulkheads: Shelf<Bulkhead>,
    pub(super) load_shedders: Shelf<LoadShedder>,
    pub(super) budgets: Shelf<RetryBudget>,
    pub(super) retries: Shelf<Retry>,
    pub(super) hedges: Shelf<Hedge>,
    pub(super) pipelines: Shelf<Pipeline>,
}

/// A kind of policy that a [`Registry`](super::Registry) keeps by name. Sealed: these are all there are.
///
/// ```
/// use resilience_core::registry::Registered;
/// use resilience_core::{Bulkhead, Registry};
///
/// fn has<P: Registered>(registry: &Registry, name: &str) -> bool {
///     registry.get::<P>(name).is_ok()
/// }
/// let registry = Registry::default();
/// registry.bulkhead("reports", |builder| builder)?;
/// assert!(has::<Bulkhead>(&registry, "reports"));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub trait Registered: sealed::Registered {}

impl<P: sealed::Registered> Registered for P {}

pub(super) mod sealed {
    use super::{Shelf, Shelves};

    pub trait Registered: Clone {
        /// What its table is called in a configuration.
        const KIND: &'static str;

        fn shelf(shelves: &Shelves) -> &Shelf<Self>;
        fn shelf_mut(shelves: &mut Shelves) -> &mut Shelf<Self>;
        /// Its own name, by which it is known to observers, where it has one.
        fn own_name(&self) -> Option<&str>;
        /// Another kind that shares the names.
        fn taken_by_another_kind(_shelves: &Shelves, _name: &str) -> Option<&'static str> {
            None
        }
    }
}

macro_rules! registered {
    ($($policy:ty => $shelf:ident, $kind:literal, $name:expr $(, $other:ident is $what:literal)?;)+) => {$(
        impl sealed::Registered for $policy {
            const KIND: &'static str = $kind;

            fn shelf(shelves: &Shelves) -> &Shelf<Self> {
                &shelves.$shelf
            }

            fn shelf_mut(shelves: &mut Shelves) -> &mut Shelf<Self> {
                &mut shelves.$shelf
            }

            fn own_name(&self) -> Option<&str> {
                let name: fn(&Self) -> Option<&str> = $name;
                name(self)
            }

            $(fn taken_by_another_kind(shelves: &Shelves, name: &str) -> Option<&'static str> {
                shelves.$other.contains_key(name).then_some($what)
            })?
        }
    )+};
}

registered! {
    CircuitBreaker => breakers, "breakers", |it| Some(it.name());
    RateLimiter => limiters, "limiters", |it| Some(it.name()), keyed_limiters is "a keyed limiter";
    KeyedRateLimiter<String> => keyed_limiters, "limiters", |it| Some(it.name()), limiters is "a limiter without keys";
    Bulkhead => bulkheads, "bulkheads", |it| Some(it.name());
    LoadShedder => load_shedders, "load_shedders", |it| Some(it.name());
    RetryBudget => budgets, "budgets", |_| None;
    Retry => retries, "retries", |_| None;
    Hedge => hedges, "hedges", |_| None;
    Pipeline => pipelines, "pipelines", |it| Some(it.name());
}

impl Shelves {
    /// How many policies there are.
    pub(super) fn len(&self) -> usize {
        self.breakers.len()
            + self.limiters.len()
            + self.keyed_limiters.len()
            + self.bulkheads.len()
            + self.load_shedders.len()
            + self.budgets.len()
            + self.retries.len()
            + self.hedges.len()
            + self.pipelines.len()
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// A [`ConfigError`] about `field` that says which names there are.
    pub(super) fn find<P: Registered>(&self, field: &str, name: &str) -> Result<&P, ConfigError> {
        let policies = P::shelf(self);
        policies.get(name).ok_or_else(|| match P::taken_by_another_kind(self, name) {
            Some(other) => {
                let allowed = format!("one of the {}; this one is {other}", P::KIND);
                ConfigError::new(field, config::quoted(name), allowed)
            }
            None => unknown(field, name, P::KIND, policies.keys().collect()),
        })
    }

    /// The limiter of that name, with keys or without.
    ///
    /// # Errors
    /// A [`ConfigError`] about `field` that says which names there are.
    #[cfg(feature = "serde")]
    pub(super) fn find_limiter(&self, field: &str, name: &str) -> Result<AnyLimiter<'_>, ConfigError> {
        match (self.limiters.get(name), self.keyed_limiters.get(name)) {
            (Some(limiter), _) => Ok(AnyLimiter::Plain(limiter)),
            (None, Some(limiter)) => Ok(AnyLimiter::Keyed(limiter)),
            (None, None) => {
                let mut names: Vec<_> = self.limiters.keys().chain(self.keyed_limiters.keys()).collect();
                names.sort_unstable();
                Err(unknown(field, name, <RateLimiter as sealed::Registered>::KIND, names))
            }
        }
    }

    /// Refuses a name that the other kind of limiter has.
    pub(super) fn check_kind<P: Registered>(&self, name: &str) -> Result<(), ConfigError> {
        match P::taken_by_another_kind(self, name) {
            Some(other) => Err(ConfigError::new(format!("{}.{name}", P::KIND), other, "what it was first made as")),
            None => Ok(()),
        }
    }

    /// Refuses more policies than there may be.
    pub(super) fn check_room(&self, more: usize, max_policies: usize) -> Result<(), ConfigError> {
        let len = self.len() + more;
        if more > 0 && len > max_policies {
            let allowed = format!("at most {max_policies}; names belong to policies, not to requests");
            return Err(ConfigError::new("registry.policies", len, allowed));
        }
        Ok(())
    }
}

/// A limiter that a step can name.
#[cfg(feature = "serde")]
pub(super) enum AnyLimiter<'a> {
    Plain(&'a RateLimiter),
    Keyed(&'a KeyedRateLimiter<String>),
}

/// The error about a name that nothing of its kind has; lists the first of `names`, which there are.
fn unknown(field: &str, name: &str, kind: &str, names: Vec<&String>) -> ConfigError {
    let more = names.len().saturating_sub(10);
    let listed: Vec<_> = names.into_iter().take(10).map(String::as_str).collect();
    let allowed = match (listed.is_empty(), more) {
        (true, _) => format!("one of the {kind}, of which there are none"),
        (_, 0) => format!("one of the {kind}: {}", listed.join(", ")),
        _ => format!("one of the {kind}: {} and {more} more", listed.join(", ")),
    };
    ConfigError::new(field, config::quoted(name), allowed)
}
