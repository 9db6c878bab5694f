//! The probes of a half-open breaker: how many are under way, and what those that came back say together.

use std::time::Duration;

use super::config::CloseWhen;
use crate::clock::Instant;

#[derive(Debug, Default)]
pub(super) struct Probes {
    under_way: u32,
    successes: u32,
    failures: u32,
    last_admitted: Instant,
}

impl Probes {
    /// Takes a permit if fewer than `permits` are taken.
    pub(super) fn admit(&mut self, permits: u32, now: Instant) -> bool {
        let free = self.under_way < permits;
        if free {
            self.under_way += 1;
            self.last_admitted = now;
        }
        free
    }

    /// How long the probes under way may still take, if they may take `limit`; zero when it is over.
    pub(super) fn time_left(&self, limit: Duration, now: Instant) -> Duration {
        limit.saturating_sub(now.saturating_duration_since(self.last_admitted))
    }

    /// Takes a probe back, with its verdict if it has one: `Some(true)` closes the breaker, `Some(false)` opens it.
    pub(super) fn settle(&mut self, verdict: Option<bool>, rule: CloseWhen) -> Option<bool> {
        self.under_way = self.under_way.saturating_sub(1);
        if verdict? {
            self.successes = self.successes.saturating_add(1);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        match rule {
            CloseWhen::SuccessesInARow(_) if self.failures > 0 => Some(false),
            CloseWhen::SuccessesInARow(successes) => (self.successes >= successes).then_some(true),
            // Certain before all are back, so the rest need not be sent.
            CloseWhen::FailureRateBelow { rate, calls } if f64::from(self.failures) / f64::from(calls) >= rate => {
                Some(false)
            }
            CloseWhen::FailureRateBelow { calls, .. } => {
                (self.successes.saturating_add(self.failures) >= calls).then_some(true)
            }
        }
    }
}
