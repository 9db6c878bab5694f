//! What a timeout can be told, and the checks on it. Nothing here runs after it is built.

use std::sync::Arc;
use std::time::Duration;

use super::{Background, BackgroundBuilder, Timeout};
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// Builds a [`Timeout`].
#[derive(Debug, Clone)]
pub struct TimeoutBuilder {
    name: Arc<str>,
    limit: Duration,
    clock: Clock,
    background: BackgroundBuilder,
}

impl TimeoutBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        let background = Background::builder(Arc::clone(&name));
        Self { name, limit: Duration::from_secs(10), clock: Clock::system(), background }
    }

    /// How long an answer may take: more than 0, at most 10 years; default 10 seconds.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How many operations can be on threads and in tasks of their own at once, those left behind included: from 1;
    /// default 64.
    #[must_use]
    pub fn max_running(mut self, operations: u32) -> Self {
        self.background = self.background.max_running(operations);
        self
    }

    /// What it goes by. Default: the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.background = self.background.clock(clock.clone());
        self.clock = clock;
        self
    }

    /// Who hears of operations left behind and of their late ends. Default: nobody.
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.background = self.background.observers(observers);
        self
    }

    /// Checks the values and makes the timeout.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Timeout;
    ///
    /// let error = Timeout::builder("render").limit(Duration::ZERO).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`render.limit` is 0ns; allowed: more than 0, at most 10 years");
    /// ```
    pub fn build(self) -> Result<Timeout, ConfigError> {
        let background = self.background.build()?;
        let limit = config::positive(&self.name, "limit", self.limit)?;
        Ok(Timeout { limit, clock: self.clock, background })
    }
}
