//! The registry's policies by name, one shelf for each kind. Bounded in number; holds no call's state.

use std::collections::BTreeMap;

use crate::bulkhead::Bulkhead;
use crate::circuit_breaker::CircuitBreaker;
use crate::config::{self, ConfigError};
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
    pub(super) budgets: Shelf<RetryBudget>,
    pub(super) retries: Shelf<Retry>,
    pub(super) pipelines: Shelf<Pipeline>,
}

/// A kind of policy that a [`Registry`](super::Registry) keeps by name. Sealed: these are all there are.
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
    RetryBudget => budgets, "budgets", |_| None;
    Retry => retries, "retries", |_| None;
    Pipeline => pipelines, "pipelines", |it| Some(it.name());
}

impl Shelves {
    /// How many policies there are.
    pub(super) fn len(&self) -> usize {
        self.breakers.len()
            + self.limiters.len()
            + self.keyed_limiters.len()
            + self.bulkheads.len()
            + self.budgets.len()
            + self.retries.len()
            + self.pipelines.len()
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// A [`ConfigError`] about `field` that says which names there are.
    pub(super) fn find<P: Registered>(&self, field: &str, name: &str) -> Result<&P, ConfigError> {
        let policies = P::shelf(self);
        policies.get(name).ok_or_else(|| {
            let kind = P::KIND;
            let allowed = match P::taken_by_another_kind(self, name) {
                Some(other) => format!("one of the {kind}; this one is {other}"),
                None if policies.is_empty() => format!("one of the {kind}, of which there are none"),
                None => format!("one of the {kind}: {}", listed(policies.keys())),
            };
            ConfigError::new(field, config::quoted(name), allowed)
        })
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

/// The first of them, for messages.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(10);
    let listed: Vec<_> = names.take(10).map(String::as_str).collect();
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    listed.join(", ") + &and_more
}
