//! What a timeout can be told, and the checks on it. Nothing here runs after it is built.

use std::sync::Arc;
use std::time::Duration;

use super::{Background, BackgroundBuilder, Timeout};
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// Builds a [`Timeout`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Timeout;
///
/// let timeout = Timeout::builder("render").limit(Duration::from_secs(3)).max_running(8).build()?;
/// assert_eq!((timeout.name(), timeout.limit()), ("render", Duration::from_secs(3)));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{ManualClock, Timeout};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let timeout = Timeout::builder("search").limit(Duration::from_secs(2)).clock(time.clock()).build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let call = timeout.call_async(std::future::pending::<std::io::Result<()>>());
    /// assert!(runtime.block_on(call).unwrap_err().is_timed_out());
    /// assert_eq!(time.elapsed(), Duration::from_secs(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How many operations can be on threads and in tasks of their own at once, those left behind included: from 1;
    /// default 64.
    ///
    /// ```
    /// use resilience_core::{Reason, Timeout};
    ///
    /// let timeout = Timeout::builder("render").max_running(1).build()?;
    /// let (stop, stopped) = std::sync::mpsc::channel::<()>();
    /// let _hangs = timeout.background().on_thread(move || stopped.recv());
    /// let refused = timeout.call_on_thread(|| Ok::<(), ()>(())).unwrap_err();
    /// assert_eq!(refused.as_rejection().unwrap().reason, Reason::BulkheadFull);
    /// # drop(stop);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_running(mut self, operations: u32) -> Self {
        self.background = self.background.max_running(operations);
        self
    }

    /// What it goes by. Default: the system's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{ManualClock, Timeout};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let timeout = Timeout::builder("search").limit(Duration::from_secs(3600)).clock(time.clock()).build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let call = timeout.call_async(std::future::pending::<std::io::Result<()>>());
    /// assert!(runtime.block_on(call).unwrap_err().is_timed_out()); // takes no real time
    /// assert_eq!(time.elapsed(), Duration::from_secs(3600));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.background = self.background.clock(clock.clone());
        self.clock = clock;
        self
    }

    /// Who hears of operations left behind and of their late ends. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    /// use resilience_core::{Event, ManualClock, Observers, Timeout};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let listen = move |event: &Event<'_>| {
    ///     if let Event::Notice { action, .. } = event {
    ///         tell.send(action.to_string()).unwrap();
    ///     }
    /// };
    /// let observers = Observers::new().with(Arc::new(listen));
    /// let time = ManualClock::auto_advancing();
    /// let timeout = Timeout::builder("transfer").clock(time.clock()).observers(observers).build()?;
    /// let mut task = None;
    /// let call = timeout.call_detached(|it| task = Some(it), async { Ok::<(), ()>(()) });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert!(runtime.block_on(call).unwrap_err().is_timed_out()); // nobody runs the task in time
    /// runtime.block_on(task.unwrap());
    /// assert_eq!(told.try_iter().collect::<Vec<_>>(), ["left_running", "ended_late"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
