//! Who says what a result means: the errors themselves, a closure over errors, or one over whole results.
//! A judge looks at results only; what follows from its verdict is the state machine's business.

use std::fmt;
use std::future::Future;

use super::{Attempt, CallFuture, CallOptions, Pipeline, Plain};
use crate::class::{Class, Classify};
use crate::outcome::Error;

/// Says what the result of an attempt means: `None` that all is well, a [`Class`] that it failed, and how.
///
/// The three judges there are: [`ByClass`] asks the error, [`ByError`] a closure over errors, [`ByResult`] a closure
/// over whole results. Implement it for a type of your own where one judge serves many places.
///
/// ```
/// use resilience_core::pipeline::Judge;
/// use resilience_core::{Category, Class, CircuitBreaker};
///
/// /// A backend that says in its text that it is busy.
/// struct Busy;
/// impl<E> Judge<String, E> for Busy {
///     fn judge(&self, result: &Result<String, E>) -> Option<Class> {
///         let busy = result.as_ref().is_ok_and(|text| text.starts_with("BUSY"));
///         busy.then(|| Class::of(Category::Resource))
///     }
/// }
///
/// let breaker = CircuitBreaker::builder("backend").consecutive_failures(1).build()?;
/// let answer = breaker.with_judge(Busy).call(|| Ok::<_, std::fmt::Error>("BUSY, come back".to_owned()));
/// assert_eq!(answer.unwrap(), "BUSY, come back");
/// assert_eq!(breaker.state().as_str(), "open");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub trait Judge<T, E> {
    /// What `result` means.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::Category;
    /// use resilience_core::pipeline::{ByClass, Judge};
    ///
    /// let reset = Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert_eq!(ByClass.judge(&reset).map(|class| class.category), Some(Category::Network));
    /// assert_eq!(ByClass.judge(&Ok::<_, io::Error>(())), None);
    /// ```
    fn judge(&self, result: &Result<T, E>) -> Option<Class>;
}

impl<T, E, J: Judge<T, E> + ?Sized> Judge<T, E> for &J {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        (**self).judge(result)
    }
}

/// Errors say themselves what they mean, by [`Classify`]; values are fine.
///
/// ```
/// use std::io;
/// use resilience_core::pipeline::{ByClass, Judge};
///
/// let judged = |kind: io::ErrorKind| ByClass.judge(&Err::<(), _>(kind)).expect("an error");
/// assert!(judged(io::ErrorKind::TimedOut).retryable);
/// assert!(!judged(io::ErrorKind::NotFound).retryable);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ByClass;

impl<T, E: Classify> Judge<T, E> for ByClass {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        result.as_ref().err().map(Classify::class)
    }
}

/// A closure says what errors mean; values are fine.
///
/// ```
/// use resilience_core::pipeline::{ByError, Judge};
/// use resilience_core::{Category, Class};
///
/// let judge = ByError(|_: &std::num::ParseIntError| Class::of(Category::Validation));
/// assert_eq!(judge.judge(&"forty-two".parse::<u32>()), Some(Class::of(Category::Validation)));
/// assert_eq!(judge.judge(&"42".parse::<u32>()), None);
/// ```
#[derive(Clone, Copy)]
pub struct ByError<C>(pub C);

impl<T, E, C: Fn(&E) -> Class> Judge<T, E> for ByError<C> {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        result.as_ref().err().map(&self.0)
    }
}

impl<C> fmt::Debug for ByError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByError")
    }
}

/// A closure says what results mean, values and errors alike.
///
/// ```
/// use resilience_core::pipeline::{ByResult, Judge};
/// use resilience_core::{Category, Class};
///
/// let judge = ByResult(|status: &Result<u16, ()>| matches!(status, Ok(500..)).then(|| Class::of(Category::Internal)));
/// assert_eq!(judge.judge(&Ok(503)), Some(Class::of(Category::Internal)));
/// assert_eq!(judge.judge(&Ok(200)), None);
/// ```
#[derive(Clone, Copy)]
pub struct ByResult<F>(pub F);

impl<T, E, F: Fn(&Result<T, E>) -> Option<Class>> Judge<T, E> for ByResult<F> {
    fn judge(&self, result: &Result<T, E>) -> Option<Class> {
        (self.0)(result)
    }
}

impl<F> fmt::Debug for ByResult<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByResult")
    }
}

/// A pipeline together with who says what results mean: made by [`Pipeline::classified_by`] and
/// [`Pipeline::judged_by`].
///
/// ```
/// use resilience_core::{Category, Class, ManualClock, Pipeline, Retry};
///
/// # let clock = ManualClock::auto_advancing().clock();
/// let pipeline = Pipeline::builder("legacy").retry(Retry::default()).clock(clock).build()?;
/// let legacy = pipeline.classified_by(|code: &i32| Class::of(Category::Unknown).retryable(*code < 0));
/// assert_eq!(legacy.call(|| Err::<(), _>(-1)).unwrap_err().attempts, 3);
/// assert_eq!(legacy.call(|| Err::<(), _>(1)).unwrap_err().attempts, 1);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Classified<'p, J> {
    pub(super) pipeline: &'p Pipeline,
    pub(super) judge: J,
}

impl<J> fmt::Debug for Classified<'_, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pipeline.fmt(f)
    }
}

impl<J> Classified<'_, J> {
    /// As [`Pipeline::call`].
    ///
    /// # Errors
    /// As [`Pipeline::call`].
    ///
    /// ```
    /// use resilience_core::{Category, Class, Pipeline};
    ///
    /// let pipeline = Pipeline::builder("parse").build()?;
    /// let parse = pipeline.classified_by(|_: &std::num::ParseIntError| Class::of(Category::Validation));
    /// assert_eq!(parse.call(|| "42".parse::<u32>()), Ok(42));
    /// assert!(parse.call(|| "forty-two".parse::<u32>()).unwrap_err().as_operation().is_some());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call<T, E>(&self, mut operation: impl FnMut() -> Result<T, E>) -> Result<T, Error<E>>
    where
        J: Judge<T, E>,
    {
        self.call_with(CallOptions::new(), |_| operation())
    }

    /// As [`Pipeline::call_with`].
    ///
    /// # Errors
    /// As [`Pipeline::call`].
    ///
    /// ```
    /// use resilience_core::{CallOptions, Category, Class, ManualClock, Pipeline, Retry};
    ///
    /// # let clock = ManualClock::auto_advancing().clock();
    /// let pipeline = Pipeline::builder("legacy").retry(Retry::default()).clock(clock).build()?;
    /// let legacy = pipeline.classified_by(|_: &&str| Class::of(Category::Network));
    /// let answer = legacy.call_with(CallOptions::new(), |attempt| match attempt.number {
    ///     3 => Ok("up"),
    ///     _ => Err("down"),
    /// });
    /// assert_eq!(answer, Ok("up"));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call_with<T, E>(
        &self,
        options: CallOptions<'_>,
        operation: impl FnMut(Attempt) -> Result<T, E>,
    ) -> Result<T, Error<E>>
    where
        J: Judge<T, E>,
    {
        self.pipeline.run(options, operation, &self.judge)
    }

    /// As [`Pipeline::call_async`].
    ///
    /// # Errors
    /// As [`Pipeline::call_async`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::{Category, Class, Pipeline};
    ///
    /// let pipeline = Pipeline::builder("parse").build()?;
    /// let parse = pipeline.classified_by(|_: &std::num::ParseIntError| Class::of(Category::Validation));
    /// let call = parse.call_async(|| async { "42".parse::<u32>() });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(call)?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_async<T, E, F>(&self, operation: impl FnMut() -> F) -> impl Future<Output = Result<T, Error<E>>>
    where
        J: Judge<T, E>,
        F: Future<Output = Result<T, E>>,
    {
        CallFuture::new(self.pipeline.as_plan(), CallOptions::new(), Plain(operation), &self.judge)
    }

    /// As [`Pipeline::call_async_with`].
    ///
    /// # Errors
    /// As [`Pipeline::call_async`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::{CallOptions, Category, Class, Pipeline, Retry};
    ///
    /// let pipeline = Pipeline::builder("shop").retry(Retry::default()).build()?;
    /// let shop = pipeline.classified_by(|_: &&str| Class::of(Category::Network));
    /// let options = CallOptions::new().not_idempotent();
    /// let call = shop.call_async_with(options, |_| async { Err::<(), _>("no answer") });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(call).unwrap_err().attempts, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_async_with<T, E, F>(
        &self,
        options: CallOptions<'_>,
        operation: impl FnMut(Attempt) -> F,
    ) -> impl Future<Output = Result<T, Error<E>>>
    where
        J: Judge<T, E>,
        F: Future<Output = Result<T, E>>,
    {
        CallFuture::new(self.pipeline.as_plan(), options, operation, &self.judge)
    }
}
