//! A retry around any closure, blocking or async, without a pipeline of one's own.
//! The calls go through a pipeline of nothing but the retry: there is no second implementation.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::Retry;
use crate::class::Class;
use crate::outcome::Error;
use crate::pipeline::{ByClass, ByError, ByResult, CallFuture, CallOptions, Judge, Plain, Plan};

/// Puts [`retry`](Self::retry) on closures and functions: `.call()` makes a blocking call, `.await` an async one, on
/// any executor. Time limits and other policies are a [`Pipeline`](crate::Pipeline)'s.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use resilience_core::{Category, Class, Retry, Retryable};
///
/// # async fn fetch() -> std::io::Result<String> { Ok("hello".to_owned()) }
/// let retry = Retry::default();
///
/// let manifest = (|| std::fs::read_to_string("Cargo.toml")).retry(&retry).call()?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let greeting = (|| async { fetch().await }).retry(&retry).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// // Errors that do not implement `Classify`, and values that are not what they should be:
/// let parsed = (|| "42".parse::<u8>()).retry(&retry).classified_by(|_| Class::of(Category::Validation)).call()?;
/// # assert!(manifest.contains("resilience-core") && parsed == 42);
/// # Ok(())
/// # }
/// ```
pub trait Retryable: Sized {
    /// This operation, tried again as `retry` says. Nothing runs before `.call()` or `.await`.
    ///
    /// ```
    /// # use std::io;
    /// use resilience_core::{ManualClock, Retry, Retryable};
    ///
    /// # let retry = Retry::builder().clock(ManualClock::auto_advancing().clock()).build().unwrap();
    /// let mut answers = [Err(io::Error::from(io::ErrorKind::TimedOut)), Ok("stored")].into_iter();
    /// let stored = (|| answers.next().unwrap()).retry(&retry).call();
    /// assert_eq!(stored.unwrap(), "stored"); // at the second attempt
    /// ```
    fn retry(self, retry: &Retry) -> Retrying<'_, Self>;
}

impl<F: FnMut() -> R, R> Retryable for F {
    fn retry(self, retry: &Retry) -> Retrying<'_, Self> {
        Retrying { retry, operation: self, judge: ByClass }
    }
}

/// An operation and its retry: made by [`Retryable::retry`].
///
/// ```
/// use resilience_core::{Retry, Retryable};
///
/// let (retry, mut runs) = (Retry::default(), 0);
/// let counting = || {
///     runs += 1;
///     Ok::<_, std::io::Error>(runs)
/// };
/// let retrying = counting.retry(&retry); // nothing has run yet
/// assert_eq!(retrying.call().unwrap(), 1);
/// ```
#[must_use = "nothing runs before `.call()` or `.await`"]
#[derive(Clone, Copy)]
pub struct Retrying<'r, F, J = ByClass> {
    retry: &'r Retry,
    operation: F,
    judge: J,
}

impl<F, J: fmt::Debug> fmt::Debug for Retrying<'_, F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("retry", self.retry).field("judge", &self.judge).finish_non_exhaustive()
    }
}

impl<'r, F, J> Retrying<'r, F, J> {
    /// The same for errors that do not implement [`Classify`](crate::Classify): `classify` says what they mean.
    ///
    /// ```
    /// use resilience_core::{Category, Class, ManualClock, Retry, Retryable};
    ///
    /// let retry = Retry::builder().clock(ManualClock::auto_advancing().clock()).build()?;
    /// let class = |error: &&str| Class::of(if *error == "busy" { Category::Resource } else { Category::Validation });
    /// for (error, attempts) in [("busy", 3), ("no such user", 1)] {
    ///     let failed = (|| Err::<(), _>(error)).retry(&retry).classified_by(class).call().unwrap_err();
    ///     assert_eq!(failed.attempts, attempts);
    /// }
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn classified_by<E, C: Fn(&E) -> Class>(self, classify: C) -> Retrying<'r, F, ByError<C>> {
        Retrying { retry: self.retry, operation: self.operation, judge: ByError(classify) }
    }

    /// The same with values that can fail as well: `judge` says what a result means, `None` that all is well. When no
    /// retry helps, the last value or error is returned.
    ///
    /// ```
    /// use resilience_core::{Category, Class, ManualClock, Retry, Retryable};
    ///
    /// let retry = Retry::builder().clock(ManualClock::auto_advancing().clock()).build()?;
    /// let mut lengths = [0, 0, 7].into_iter();
    /// let length = (|| lengths.next().ok_or("nothing left"))
    ///     .retry(&retry)
    ///     .judged_by(|result: &Result<i32, _>| (*result == Ok(0)).then(|| Class::of(Category::Resource)))
    ///     .call();
    /// assert_eq!(length, Ok(7));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn judged_by<T, E, G>(self, judge: G) -> Retrying<'r, F, ByResult<G>>
    where
        G: Fn(&Result<T, E>) -> Option<Class>,
    {
        Retrying { retry: self.retry, operation: self.operation, judge: ByResult(judge) }
    }

    /// Runs the blocking operation until it succeeds or the retry gives up, pausing the thread in between.
    ///
    /// # Errors
    /// The operation's own last error, with the number of attempts made and why there was no further one.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Retry, Retryable, Stopped};
    ///
    /// let missing = || Err::<(), _>(io::Error::from(io::ErrorKind::NotFound));
    /// let error = missing.retry(&Retry::default()).call().unwrap_err();
    /// assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::NotRetryable)));
    /// ```
    pub fn call<T, E>(self) -> Result<T, Error<E>>
    where
        F: FnMut() -> Result<T, E>,
        J: Judge<T, E>,
    {
        let Self { retry, mut operation, judge } = self;
        retry.alone().run(CallOptions::new(), |_| operation(), &judge)
    }
}

impl<'r, F, Fut, T, E, J> IntoFuture for Retrying<'r, F, J>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    J: Judge<T, E>,
{
    type Output = Result<T, Error<E>>;
    type IntoFuture = RetryFuture<'r, F, Fut, J>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { retry, operation, judge } = self;
        RetryFuture { call: CallFuture::new(retry.alone().as_plan(), CallOptions::new(), Plain(operation), judge) }
    }
}

pin_project! {
    /// An async call under way: made by awaiting a [`Retrying`], on any executor. Dropping it cancels the call.
    ///
    /// ```
    /// use resilience_core::{Retry, Retryable, retry::RetryFuture};
    ///
    /// let retry = Retry::default();
    /// let greet = || async { Ok::<_, std::io::Error>("hello") };
    /// let call: RetryFuture<'_, _, _, _> = greet.retry(&retry).into_future();
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// assert_eq!(runtime.block_on(call).unwrap(), "hello");
    /// ```
    #[must_use = "futures do nothing unless awaited"]
    pub struct RetryFuture<'r, F, Fut, J> {
        #[pin]
        call: CallFuture<'static, &'r Plan, Plain<F>, Fut, J>,
    }
}

impl<F, Fut, J> fmt::Debug for RetryFuture<'_, F, Fut, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture").field("call", &self.call).finish()
    }
}

impl<F, Fut, T, E, J> Future for RetryFuture<'_, F, Fut, J>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    J: Judge<T, E>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}
