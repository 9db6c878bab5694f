//! Policies composed around an operation, sync and async from one state machine.
//! A pipeline is a plain value: no type parameter, no allocation and no lock on the success path. The machine
//! (`execution`) decides what comes next; the two shells here only sleep, run the operation and hand over results.

mod builder;
mod execution;
mod future;
mod gate;
mod judge;
mod options;
mod plan;

pub use builder::PipelineBuilder;
pub use judge::{ByClass, ByError, ByResult, Classified, Judge};
pub use options::{Attempt, CallOptions, Idempotency};

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use crate::class::{Class, Classify};
use crate::clock::Clock;
use crate::deadline;
use crate::event::Observers;
use crate::hedge::Hedge;
use crate::outcome::Error;
use crate::retry::Retry;
use crate::timeout::Background;
use crate::wait;
use execution::{Execution, Step};
#[cfg(feature = "tower")]
pub(crate) use future::Operation;
pub(crate) use future::{CallFuture, Plain};
pub(crate) use plan::Plan;

/// A named composition of policies around calls. Cheap to clone; clones share everything.
///
/// Policies are listed from the outside in. What stands before [`retry`](PipelineBuilder::retry) sees the call once,
/// what stands after it sees every attempt: a timeout before it bounds the whole call, one after it each attempt. A
/// timeout that stands after a policy that waits does not bound that wait.
/// The recommended order is timeout, retry, circuit breaker, rate limiter, bulkhead, timeout: what an open breaker
/// refuses then costs no permit of the limiter, and nobody waits for the limiter while keeping others out of the
/// bulkhead.
///
/// A blocking operation cannot be interrupted: with [`call`](Self::call), time limits are cooperative. They stop
/// attempts from starting and are told to the operation ([`Attempt::deadline`]); an answer that comes late is still
/// returned. With [`call_async`](Self::call_async), an attempt is dropped when its time is over.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{CircuitBreaker, Pipeline, RateLimiter, Retry};
///
/// let pipeline = Pipeline::builder("search")
///     .timeout(Duration::from_secs(10))
///     .retry(Retry::default())
///     .circuit_breaker(CircuitBreaker::builder("search_backend").build()?)
///     .rate_limiter(RateLimiter::builder("search_rate").build()?)
///     .timeout(Duration::from_secs(2))
///     .build()?;
/// let hits = pipeline.call(|| std::fs::read_to_string("/etc/hostname"));
/// # drop(hits);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Pipeline(Arc<Plan>);

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Pipeline {
    /// Starts building a pipeline called `name`, without any policy.
    ///
    /// ```
    /// use resilience_core::Pipeline;
    ///
    /// let pipeline = Pipeline::builder("search").build()?;
    /// assert_eq!(pipeline.call(|| "42".parse::<u8>().map_err(std::io::Error::other)).unwrap(), 42);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> PipelineBuilder {
        PipelineBuilder::new(name.into())
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::Pipeline;
    ///
    /// assert_eq!(Pipeline::builder("search").build()?.name(), "search");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    #[cfg(feature = "tower")]
    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.0)
    }

    /// The clock it goes by.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, Pipeline};
    ///
    /// let (clock, time) = Clock::manual();
    /// let pipeline = Pipeline::builder("search").clock(clock).build()?;
    /// let before = pipeline.clock().now();
    /// time.advance(Duration::from_secs(1));
    /// assert_eq!(pipeline.clock().now(), before + Duration::from_secs(1));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Makes a blocking call.
    ///
    /// # Errors
    /// The operation's own last error, a rejection, or a timeout, with the number of attempts made.
    ///
    /// ```
    /// use resilience_core::{Pipeline, Retry};
    ///
    /// let pipeline = Pipeline::builder("store").retry(Retry::default()).build()?;
    /// let lines = pipeline.call(|| std::fs::read_to_string("Cargo.toml")).unwrap().lines().count();
    /// assert!(lines > 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call<T, E: Classify>(&self, mut operation: impl FnMut() -> Result<T, E>) -> Result<T, Error<E>> {
        self.call_with(CallOptions::new(), |_| operation())
    }

    /// Makes a blocking call with options; the operation is told about its attempt.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// ```
    /// use resilience_core::{CallOptions, Pipeline};
    ///
    /// let pipeline = Pipeline::builder("store").build()?;
    /// let number = pipeline.call_with(CallOptions::new(), |attempt| Ok::<_, std::io::Error>(attempt.number));
    /// assert_eq!(number.unwrap(), 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call_with<T, E: Classify>(
        &self,
        options: CallOptions<'_>,
        operation: impl FnMut(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        self.run(options, operation, &ByClass)
    }

    /// Makes an async call, on any executor. Dropping the future cancels it and gives every permit back.
    ///
    /// An attempt whose time is over is dropped wherever it awaits: an operation that must not stop there belongs in
    /// a task of its own, whose handle is awaited here.
    ///
    /// # Errors
    /// The operation's own last error, a rejection, or a timeout, with the number of attempts made.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use resilience_core::{Pipeline, Retry};
    ///
    /// let pipeline = Pipeline::builder("search").retry(Retry::default()).timeout(Duration::from_secs(2)).build()?;
    /// let call = pipeline.call_async(|| async { Ok::<_, std::io::Error>(3) });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(call)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_async<T, E, F>(&self, operation: impl FnMut() -> F) -> impl Future<Output = Result<T, Error<E>>>
    where
        E: Classify,
        F: Future<Output = Result<T, E>>,
    {
        CallFuture::new(self.as_plan(), CallOptions::new(), Plain(operation), ByClass)
    }

    /// Makes an async call with options; the operation is told about its attempt.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::{CallOptions, Pipeline};
    ///
    /// let pipeline = Pipeline::builder("store").build()?;
    /// let options = CallOptions::new().operation("get");
    /// let call = pipeline.call_async_with(options, |attempt| async move { Ok::<_, std::io::Error>(attempt.number) });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(call)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_async_with<T, E, F>(
        &self,
        options: CallOptions<'_>,
        operation: impl FnMut(Attempt) -> F,
    ) -> impl Future<Output = Result<T, Error<E>>>
    where
        E: Classify,
        F: Future<Output = Result<T, E>>,
    {
        CallFuture::new(self.as_plan(), options, operation, ByClass)
    }

    /// Makes a blocking call whose attempts run on threads of their own, so that what a blocking operation cannot do by
    /// itself works: an attempt whose time is over is left behind, and a slow one is hedged. `background` bounds how many
    /// run at once, those left behind included; see there what becomes of these.
    ///
    /// # Errors
    /// As [`call`](Self::call), and a rejection by `background` when there is no room for another thread.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Background, Pipeline};
    ///
    /// let threads = Background::builder("lookups").max_running(8).build()?;
    /// let pipeline = Pipeline::builder("dns").timeout(Duration::from_secs(10)).build()?;
    /// let addresses = pipeline.call_on_threads(&threads, || {
    ///     use std::net::ToSocketAddrs;
    ///     ("127.0.0.1", 80).to_socket_addrs().map(Iterator::count)
    /// });
    /// assert_eq!(addresses.unwrap(), 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call_on_threads<T, E>(
        &self,
        background: &Background,
        operation: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<T, Error<E>>
    where
        T: Send + 'static,
        E: Classify + Send + 'static,
    {
        self.call_on_threads_with(CallOptions::new(), background, move |_| operation())
    }

    /// As [`call_on_threads`](Self::call_on_threads), with options; the operation is told about its attempt.
    ///
    /// # Errors
    /// As [`call_on_threads`](Self::call_on_threads).
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Background, CallOptions, Pipeline, Retry};
    ///
    /// let threads = Background::builder("writes").build()?;
    /// let pipeline = Pipeline::builder("disk").retry(Retry::default()).timeout(Duration::from_secs(5)).build()?;
    /// let options = CallOptions::new().not_idempotent();
    /// let error = pipeline.call_on_threads_with(options, &threads, |attempt| {
    ///     assert!(attempt.deadline.is_some());
    ///     Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    /// });
    /// assert_eq!(error.unwrap_err().attempts, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call_on_threads_with<T, E>(
        &self,
        options: CallOptions<'_>,
        background: &Background,
        operation: impl Fn(Attempt) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<T, Error<E>>
    where
        T: Send + 'static,
        E: Classify + Send + 'static,
    {
        let operation = Arc::new(operation);
        let call = self.call_async_with(options, |attempt| {
            let operation = Arc::clone(&operation);
            background.on_thread(move || operation(attempt))
        });
        wait::block_on(call).map_err(Error::flatten)
    }

    /// The same pipeline for errors that do not implement [`Classify`]: `classify` says what they mean.
    ///
    /// ```
    /// use resilience_core::{Category, Class, Pipeline};
    ///
    /// let pipeline = Pipeline::builder("parse").build()?;
    /// let answer = pipeline.classified_by(|_: &std::num::ParseIntError| Class::of(Category::Validation));
    /// assert_eq!(answer.call(|| "42".parse::<u32>()).unwrap(), 42);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn classified_by<C>(&self, classify: C) -> Classified<'_, ByError<C>> {
        Classified { pipeline: self, judge: ByError(classify) }
    }

    /// The same pipeline for results whose values can fail as well: `judge` says what a result means, `None` that all
    /// is well. Retries, breakers and observers go by it; the caller gets the last value or error as it is.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Category, Class, Classify, ManualClock, Pipeline, Retry};
    ///
    /// let clock = ManualClock::auto_advancing().clock();
    /// let pipeline = Pipeline::builder("web").retry(Retry::default()).clock(clock).build()?;
    /// let web = pipeline.judged_by(|answer: &io::Result<u16>| match answer {
    ///     Ok(500..) => Some(Class::of(Category::Network)),
    ///     Ok(_) => None,
    ///     Err(error) => Some(error.class()),
    /// });
    /// let mut answers = [503, 200].into_iter();
    /// assert_eq!(web.call(|| answers.next().ok_or_else(|| io::Error::other("no answer"))).unwrap(), 200);
    /// assert_eq!(web.call(|| Ok(503)).unwrap(), 503); // the last of three attempts
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn judged_by<T, E, F>(&self, judge: F) -> Classified<'_, ByResult<F>>
    where
        F: Fn(&Result<T, E>) -> Option<Class>,
    {
        Classified { pipeline: self, judge: ByResult(judge) }
    }

    /// The blocking shell.
    pub(crate) fn run<T, E>(
        &self,
        options: CallOptions<'_>,
        mut operation: impl FnMut(Attempt) -> Result<T, E>,
        judge: &impl Judge<T, E>,
    ) -> Result<T, Error<E>> {
        let plan = &*self.0;
        // A first attempt that succeeds under nothing but a retry needs no bookkeeping at all.
        let bare = plan.is_bare && options.deadline.is_none() && !deadline::any();
        let mut execution = if bare {
            let result = operation(Attempt::FIRST);
            let Some(class) = judge.judge(&result) else {
                return result.map_err(|error| Error::operation(error, 1));
            };
            let mut execution = Execution::of_bare(plan, options);
            if let Some(result) = execution.attempt_ended(result, Some(class)) {
                return result;
            }
            execution
        } else {
            Execution::new(plan, options)
        };
        loop {
            match execution.next() {
                Step::Sleep(until) => {
                    let wait = until.saturating_duration_since(plan.clock.now());
                    if !wait.is_zero() {
                        plan.clock.sleep_blocking(wait);
                    }
                    execution.has_waited(until);
                }
                Step::Queue(until) => {
                    let mut sleep = None;
                    let waited = wait::block_on(poll_fn(|cx| {
                        if execution.has_turn(cx.waker()) {
                            return Poll::Ready(false);
                        }
                        let sleep = sleep.get_or_insert_with(|| plan.clock.sleep_until(until));
                        Pin::new(sleep).poll(cx).map(|()| true)
                    }));
                    if waited {
                        execution.has_waited(until);
                    }
                }
                Step::Run(attempt) => {
                    let entered = execution.enter();
                    let result = operation(attempt);
                    drop(entered);
                    let class = judge.judge(&result);
                    if let Some(result) = execution.attempt_ended(result, class) {
                        return result;
                    }
                }
                Step::End(error) => return Err(error.cast()),
            }
        }
    }

    /// Nothing but a retry, whose values were checked when it was built.
    pub(crate) fn of_retry(retry: Retry, clock: Clock, observers: Observers) -> Self {
        let mut plan = Plan::new("retry".into(), clock, observers);
        plan.retry = Some(retry);
        Self(Arc::new(plan.concluded()))
    }

    /// Nothing but a hedge, whose values were checked when it was built.
    pub(crate) fn of_hedge(hedge: Hedge, clock: Clock, observers: Observers) -> Self {
        let mut plan = Plan::new("hedge".into(), clock, observers);
        plan.hedge = Some(hedge);
        Self(Arc::new(plan.concluded()))
    }

    pub(crate) fn as_plan(&self) -> &Plan {
        &self.0
    }
}
