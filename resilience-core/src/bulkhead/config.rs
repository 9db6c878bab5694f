//! What a bulkhead can be told, and the checks on it. Nothing here runs while calls are made.

use std::sync::Arc;

use super::Bulkhead;
use super::machine::Machine;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// Far more than any process can serve, and a queue that still fits into memory.
pub(crate) const MAX_WAITING: u32 = 1_000_000;

/// Builds a [`Bulkhead`].
#[derive(Debug, Clone)]
pub struct BulkheadBuilder {
    name: Arc<str>,
    max_concurrent: u32,
    max_waiting: u32,
    clock: Clock,
    observers: Observers,
}

impl BulkheadBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, max_concurrent: 25, max_waiting: 100, clock: Clock::system(), observers: Observers::new() }
    }

    /// How many can be inside at once: from 1; default 25.
    #[must_use]
    pub fn max_concurrent(mut self, calls: u32) -> Self {
        self.max_concurrent = calls;
        self
    }

    /// How many can wait at once, at most 1000000; default 100. With 0 nobody waits.
    #[must_use]
    pub fn max_waiting(mut self, callers: u32) -> Self {
        self.max_waiting = callers;
        self
    }

    /// What it measures waits by; in a pipeline the pipeline's clock does. Default: the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of its refusals. Default: nobody.
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes the bulkhead.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// use resilience_core::Bulkhead;
    ///
    /// let error = Bulkhead::builder("reports").max_concurrent(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`reports.max_concurrent` is 0; allowed: 1 to 4294967295");
    /// ```
    pub fn build(self) -> Result<Bulkhead, ConfigError> {
        config::name(&self.name)?;
        let (max_concurrent, max_waiting) = self.checked()?;
        let machine = Machine::new(max_concurrent, max_waiting);
        Ok(Bulkhead::from_parts(self.name, self.clock, self.observers, machine))
    }

    /// The same values under another name: whose they become, as errors say it.
    pub(super) fn named(mut self, name: &Arc<str>) -> Self {
        self.name = Arc::clone(name);
        self
    }

    /// The two limits, in their order.
    pub(super) fn checked(&self) -> Result<(u32, u32), ConfigError> {
        config::in_range(&self.name, "max_concurrent", self.max_concurrent, &1, &u32::MAX)?;
        config::in_range(&self.name, "max_waiting", self.max_waiting, &0, &MAX_WAITING)?;
        Ok((self.max_concurrent, self.max_waiting))
    }
}
