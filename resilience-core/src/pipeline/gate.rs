//! The policies that admit calls or refuse them, as a pipeline sees them. What was taken from one is held here until the
//! outcome is known, and always goes back exactly once.

use std::task::Waker;
use std::time::Duration;

use crate::bulkhead::{Bulkhead, Ticket};
use crate::circuit_breaker::{CircuitBreaker, Token};
use crate::clock::Clock;
use crate::load_shedder::LoadShedder;
use crate::outcome::Outcome;
use crate::rate_limiter::{KeyedRateLimiter, Place, RateLimiter};

/// The most gates of one pipeline.
pub(crate) const MAX_GATES: usize = 8;

/// A policy that admits calls or refuses them.
#[derive(Debug, Clone)]
pub(crate) enum Gate {
    Limiter { limiter: RateLimiter, max_wait: Duration },
    Keyed { limiter: KeyedRateLimiter<String>, max_wait: Duration },
    Breaker(CircuitBreaker),
    Bulkhead { bulkhead: Bulkhead, max_wait: Duration },
    Shedder(LoadShedder),
}

impl Gate {
    /// How long it may be waited for; `None` where nobody waits.
    pub(super) const fn max_wait(&self) -> Option<Duration> {
        match self {
            Self::Limiter { max_wait, .. } | Self::Keyed { max_wait, .. } | Self::Bulkhead { max_wait, .. } => {
                Some(*max_wait)
            }
            Self::Breaker(_) | Self::Shedder(_) => None,
        }
    }

    /// The name and the clock of a limiter, which names the moment to wait for.
    pub(super) fn names_moments(&self) -> Option<(&str, &Clock)> {
        match self {
            Self::Limiter { limiter, .. } => Some((limiter.name(), limiter.clock())),
            Self::Keyed { limiter, .. } => Some((limiter.name(), limiter.clock())),
            Self::Breaker(_) | Self::Bulkhead { .. } | Self::Shedder(_) => None,
        }
    }

    /// What is refused when it is one and the same policy as another gate, and why.
    pub(super) fn twice(&self, other: &Self) -> Option<(&'static str, &str, &'static str)> {
        match (self, other) {
            (Self::Breaker(one), Self::Breaker(two)) if one.same(two) => {
                Some(("circuit_breaker", one.name(), "each breaker once; twice, it would count every call twice"))
            }
            (Self::Bulkhead { bulkhead: one, .. }, Self::Bulkhead { bulkhead: two, .. }) if one.same(two) => {
                Some(("bulkhead", one.name(), "each bulkhead once; twice, a call could wait for itself"))
            }
            (Self::Shedder(one), Self::Shedder(two)) if one.same(two) => {
                Some(("load_shedder", one.name(), "each load shedder once; twice, it would count every call twice"))
            }
            _ => None,
        }
    }

    /// Gives a place in its queue up, which was taken for `key`.
    pub(super) fn give_up(&self, key: &str, place: Queued) {
        match (self, place) {
            (Self::Limiter { limiter, .. }, Queued::Limiter(place)) => limiter.give_up(place),
            (Self::Keyed { limiter, .. }, Queued::Limiter(place)) => limiter.give_up(key, place),
            (Self::Bulkhead { bulkhead, .. }, Queued::Bulkhead(ticket)) => bulkhead.give_up(&ticket),
            _ => {}
        }
    }

    /// Whether a place in its queue has its turn; if not, `waker` is woken when it has.
    pub(super) fn watch(&self, place: &Queued, waker: &Waker) -> bool {
        match (self, place) {
            (Self::Bulkhead { bulkhead, .. }, Queued::Bulkhead(ticket)) => bulkhead.watch(ticket, waker),
            _ => false,
        }
    }

    #[inline]
    fn settle(&self, held: Held, outcome: &Outcome) {
        match (self, held) {
            (Self::Breaker(breaker), Held::Token(token)) => breaker.settle(token, outcome),
            (Self::Bulkhead { bulkhead, .. }, Held::Room) => bulkhead.leave(),
            (Self::Shedder(shedder), Held::Room) => shedder.leave(),
            _ => {}
        }
    }
}

/// A place in a gate's queue.
pub(super) enum Queued {
    Limiter(Place),
    Bulkhead(Ticket),
}

/// What is held from a gate until the outcome is known.
#[derive(Clone, Copy)]
pub(super) enum Held {
    Token(Token),
    /// Room in a bulkhead or under a load shedder.
    Room,
}

/// What a call holds, by gate.
pub(super) struct AllHeld([Option<Held>; MAX_GATES]);

impl AllHeld {
    pub(super) const NOTHING: Self = Self([None; MAX_GATES]);

    #[inline]
    pub(super) fn hold(&mut self, index: usize, held: Held) {
        self.0[index] = Some(held);
    }

    /// Settles what is held from the gates from `first` on, in reverse: the policy next to the operation hears first.
    #[inline]
    pub(super) fn settle(&mut self, gates: &[Gate], first: usize, outcome: &Outcome) {
        for (gate, held) in gates.iter().zip(&mut self.0).skip(first).rev() {
            if let Some(held) = held.take() {
                gate.settle(held, outcome);
            }
        }
    }
}
