//! The timeout: an answer within a limit, or none. What runs on past it is either dropped or goes on in the background,
//! as the caller chooses; neither is ever waited for. It measures nothing else and tries nothing again.

mod background;
mod config;
mod detached;

pub use background::{Background, BackgroundBuilder, BackgroundStatistics};
pub use config::TimeoutBuilder;
pub use detached::{Detached, Task};

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::ConfigError;
use crate::deadline;
use crate::outcome::{Error, ErrorKind, TimedOut};
use crate::wait;

/// A limit on how long an answer may take, alone, without a pipeline. Cheap to clone.
///
/// What becomes of an operation that is not over by then:
///
/// | | the operation | use it for |
/// |---|---|---|
/// | [`call_async`](Self::call_async) | is dropped where it awaits | what may stop anywhere: a read |
/// | [`call_detached`](Self::call_detached) | goes on in a task of its own | what must come to its end: a write in two steps |
/// | [`call_on_thread`](Self::call_on_thread) | goes on on a thread of its own | blocking code, which nothing can stop |
///
/// An operation is *cancel-safe* when dropping it at any of its awaits leaves nothing half done. One that has sent a
/// request's header and is dropped before the body, or has taken a message off a queue and is dropped before it is
/// handled, is not: it belongs in the background. Its result is lost to the caller all the same, and
/// observers hear of that when it ends.
///
/// Inside a [`Pipeline`](crate::Pipeline), which has timeouts of its own, [`Background`] does the same for its attempts.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use resilience_core::{ManualClock, Timeout};
///
/// let time = ManualClock::auto_advancing(); // a test need not wait
/// let timeout = Timeout::builder("search").limit(Duration::from_secs(2)).clock(time.clock()).build()?;
/// let never = timeout.call_async(std::future::pending::<std::io::Result<()>>());
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let error = runtime.block_on(never).unwrap_err();
/// assert_eq!(error.to_string(), "no answer within 2s");
/// # Ok(())
/// # }
/// ```
#[doc(alias = "time_limiter")]
#[derive(Clone)]
pub struct Timeout {
    limit: Duration,
    clock: Clock,
    background: Background,
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("limit", &self.limit)
            .field("background", &self.background)
            .finish_non_exhaustive()
    }
}

impl Timeout {
    /// A timeout after `limit`: more than 0, at most 10 years. Everything else is as the
    /// [`builder`](Self::builder) has it by default.
    ///
    /// # Errors
    /// A [`ConfigError`] when the limit cannot be used.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Timeout;
    ///
    /// assert_eq!(Timeout::new(Duration::from_secs(2))?.limit(), Duration::from_secs(2));
    /// assert!(Timeout::new(Duration::ZERO).is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn new(limit: Duration) -> Result<Self, ConfigError> {
        Self::builder("timeout").limit(limit).build()
    }

    /// Starts building a timeout called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::Timeout;
    ///
    /// let timeout = Timeout::builder("reports").max_running(4).build()?;
    /// assert_eq!((timeout.name(), timeout.limit().as_secs()), ("reports", 10));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> TimeoutBuilder {
        TimeoutBuilder::new(name.into())
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::Timeout;
    ///
    /// assert_eq!(Timeout::builder("reports").build()?.name(), "reports");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        self.background.name()
    }

    /// How long an answer may take.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Timeout;
    ///
    /// let timeout = Timeout::builder("reports").limit(Duration::from_secs(2)).build()?;
    /// assert_eq!(timeout.limit(), Duration::from_secs(2));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Where operations go on that are not over in time: for its figures, and for use in a pipeline.
    ///
    /// ```
    /// use resilience_core::Timeout;
    ///
    /// let timeout = Timeout::builder("reports").build()?;
    /// assert_eq!(timeout.background().statistics().running, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn background(&self) -> &Background {
        &self.background
    }

    /// Awaits `operation` for as long as the limit allows, on any executor; then it is dropped. An operation that is ready
    /// when its time is over has made it.
    ///
    /// # Errors
    /// The operation's own error, or a timeout.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use resilience_core::{ManualClock, Timeout};
    ///
    /// // On this clock whatever waits has waited long enough.
    /// let time = ManualClock::auto_advancing();
    /// let timeout = Timeout::builder("search").limit(Duration::from_secs(2)).clock(time.clock()).build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let quick = timeout.call_async(async { Ok::<_, std::io::Error>(7) }).await;
    /// assert_eq!(quick.unwrap(), 7);
    /// let slow = timeout.call_async(std::future::pending::<std::io::Result<()>>()).await;
    /// assert!(slow.unwrap_err().is_timed_out());
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_async<T, E>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<T, Error<E>> {
        let limit = deadline::bounded(&self.clock, self.limit);
        let until = self.clock.now() + limit;
        let mut operation = pin!(operation);
        // Made only when it is needed: an operation that is ready at once never pays for it.
        let mut timer = None;
        poll_fn(|cx| {
            let entered = deadline::enter(&self.clock, until);
            let polled = operation.as_mut().poll(cx);
            drop(entered);
            if let Poll::Ready(result) = polled {
                return Poll::Ready(result.map_err(|error| Error::operation(error, 1)));
            }
            let timer = timer.get_or_insert_with(|| self.clock.sleep_until(until));
            let kind = ErrorKind::TimedOut(TimedOut { limit });
            Pin::new(timer).poll(cx).map(|()| Err(Error { kind, attempts: 1, stopped: None }))
        })
        .await
    }

    /// Runs `operation` in a task of its own, made by `spawn`, and awaits its result for as long as the limit allows. Then
    /// the task goes on, and so it does when this future is dropped. See [`Background::detach`] on what `spawn` must do.
    ///
    /// # Errors
    /// The operation's own error, a timeout, or a rejection when as many operations as allowed run already, those left
    /// behind included.
    ///
    /// # Panics
    /// With the operation's own panic, when it panics in time.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use resilience_core::Timeout;
    ///
    /// # async fn transfer() -> std::io::Result<u32> { Ok(7) }
    /// let timeout = Timeout::new(Duration::from_secs(2))?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let receipt = runtime.block_on(async {
    /// let receipt = timeout.call_detached(tokio::spawn, transfer()).await?;
    /// # Ok::<_, resilience_core::Error<std::io::Error>>(receipt)
    /// # })?;
    /// # assert_eq!(receipt, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_detached<T, E, F, R>(
        &self,
        spawn: impl FnOnce(Task<F, T, E>) -> R,
        operation: F,
    ) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let task = self.background.detach(spawn, operation);
        self.call_async(task).await.map_err(Error::flatten)
    }

    /// Runs the blocking `operation` on a thread of its own, and waits for its result for as long as the limit allows.
    /// Then the thread goes on. A thread costs tens of microseconds.
    ///
    /// # Errors
    /// The operation's own error, a timeout, or a rejection: when as many operations as allowed run already, those left
    /// behind included, or when the system has no thread to give.
    ///
    /// # Panics
    /// With the operation's own panic, when it panics in time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Timeout;
    ///
    /// let timeout = Timeout::new(Duration::from_secs(60))?;
    /// let length = timeout.call_on_thread(|| std::fs::read_to_string("Cargo.toml").map(|text| text.len()));
    /// assert!(length.unwrap() > 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call_on_thread<T, E>(&self, operation: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Error<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let thread = self.background.on_thread(operation);
        wait::block_on(self.call_async(thread)).map_err(Error::flatten)
    }
}
