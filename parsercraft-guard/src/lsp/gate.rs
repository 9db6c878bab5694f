//! The policies in front of the server: the limiter `lsp_requests` and the breaker `lsp_server`.
//! A request that passes holds a [`Pass`] until its outcome is known; a dropped pass counts as cancelled.

use resilience_core::circuit_breaker::Permit;
use resilience_core::{CircuitBreaker, Clock, ConfigError, Observers, Outcome, RateLimiter, Rejection};

use super::config::RequestLimits;
use crate::defaults::LSP_REQUESTS;

#[derive(Debug)]
pub(crate) struct Gate {
    limiter: RateLimiter,
    breaker: CircuitBreaker,
}

/// The right to have one request in flight.
#[derive(Debug)]
pub(crate) struct Pass(Permit<'static>);

impl Gate {
    pub(crate) fn new(limits: &RequestLimits, observers: &Observers, clock: &Clock) -> Result<Self, ConfigError> {
        let limiter = match &limits.limiter {
            Some(limiter) => limiter.clone(),
            None => RateLimiter::builder(LSP_REQUESTS)
                .rate(limits.rate, limits.per)
                .burst(limits.burst)
                .clock(clock.clone())
                .observers(observers.clone())
                .build()?,
        };
        let breaker = match &limits.breaker {
            Some(breaker) => breaker.clone(),
            None => server_breaker(limits, observers, clock)?,
        };
        Ok(Self { limiter, breaker })
    }

    /// Counts a request against the rate.
    pub(crate) fn admit(&self) -> Result<(), Rejection> {
        self.limiter.try_acquire(1)
    }

    /// Asks to give a request to the server.
    pub(crate) fn enter(&self) -> Result<Pass, Rejection> {
        self.breaker.try_acquire_owned().map(Pass)
    }

    /// A new server is not judged by what the old one did.
    pub(crate) fn server_is_new(&self) {
        self.breaker.reset();
    }
}

/// The breaker `lsp_server` as `limits` describe it.
pub(crate) fn server_breaker(
    limits: &RequestLimits,
    observers: &Observers,
    clock: &Clock,
) -> Result<CircuitBreaker, ConfigError> {
    CircuitBreaker::builder("lsp_server")
        .consecutive_failures(limits.breaker_failures)
        .open_for(limits.breaker_open_for)
        .clock(clock.clone())
        .observers(observers.clone())
        .build()
}

impl Pass {
    pub(crate) fn settle(self, outcome: &Outcome) {
        self.0.settle(outcome);
    }
}
