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
///
/// ```
/// use resilience_core::Bulkhead;
///
/// let limits = Bulkhead::builder("reports").max_concurrent(10).max_waiting(50);
/// let statistics = limits.build()?.statistics();
/// assert_eq!((statistics.max_concurrent, statistics.max_waiting), (10, 50));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
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
    ///
    /// ```
    /// use resilience_core::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(2).build()?;
    /// let (one, two) = (bulkhead.try_acquire(), bulkhead.try_acquire());
    /// assert!(one.is_ok() && two.is_ok());
    /// assert!(bulkhead.try_acquire().is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_concurrent(mut self, calls: u32) -> Self {
        self.max_concurrent = calls;
        self
    }

    /// How many can wait at once, at most 1000000; default 100. With 0 nobody waits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Bulkhead, Reason};
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).max_waiting(0).build()?;
    /// let _permit = bulkhead.try_acquire();
    /// let refused = bulkhead.acquire(Duration::from_secs(1)).unwrap_err(); // at once
    /// assert_eq!(refused.reason, Reason::BulkheadQueueFull);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_waiting(mut self, callers: u32) -> Self {
        self.max_waiting = callers;
        self
    }

    /// What it measures waits by; in a pipeline the pipeline's clock does. Default: the system's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Bulkhead, ManualClock};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).clock(time.clock()).build()?;
    /// let _permit = bulkhead.try_acquire();
    /// assert!(bulkhead.acquire(Duration::from_secs(3600)).is_err()); // takes no real time
    /// assert_eq!(time.elapsed(), Duration::from_secs(3600));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of its refusals. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    /// use resilience_core::{Bulkhead, Event, Observers};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let listen = move |event: &Event<'_>| {
    ///     if let Event::Rejected { rejection, .. } = event {
    ///         tell.send(rejection.to_string()).unwrap();
    ///     }
    /// };
    /// let observers = Observers::new().with(Arc::new(listen));
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).observers(observers).build()?;
    /// let _permit = bulkhead.try_acquire();
    /// assert!(bulkhead.try_acquire().is_err());
    /// assert_eq!(told.try_recv().unwrap(), "bulkhead `reports` is full");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
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
