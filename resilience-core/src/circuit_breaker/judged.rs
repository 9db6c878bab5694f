//! A breaker together with who says what results mean: for errors without a class, and for values that are failures.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;

use super::CircuitBreaker;
use crate::outcome::{Error, Outcome};
use crate::pipeline::Judge;

/// A breaker together with who says what results mean: made by [`CircuitBreaker::classified_by`],
/// [`CircuitBreaker::judged_by`] and [`CircuitBreaker::with_judge`].
///
/// ```
/// use resilience_core::{Category, CircuitBreaker, Class};
///
/// let breaker = CircuitBreaker::builder("legacy").build()?;
/// let legacy = breaker.classified_by(|_: &String| Class::of(Category::Internal));
/// for code in ["E1", "E2"] {
///     assert!(legacy.call(|| Err::<(), _>(code.to_owned())).is_err());
/// }
/// assert_eq!(breaker.statistics().failures, 2);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Judged<'b, J> {
    pub(super) breaker: &'b CircuitBreaker,
    pub(super) judge: J,
}

impl<J> fmt::Debug for Judged<'_, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.breaker.fmt(f)
    }
}

impl<J> Judged<'_, J> {
    /// As [`CircuitBreaker::call`]. A value that is judged a failure counts as one and is returned as it is.
    ///
    /// # Errors
    /// The operation's own error, or a rejection.
    ///
    /// ```
    /// use resilience_core::{Category, CircuitBreaker, Class};
    ///
    /// let breaker = CircuitBreaker::builder("lookup").build()?;
    /// let found = breaker.judged_by(|answer: &Result<Option<u32>, String>| match answer {
    ///     Ok(Some(_)) => None,
    ///     Ok(None) | Err(_) => Some(Class::of(Category::Internal)),
    /// });
    /// assert_eq!(found.call(|| Ok(None)), Ok(None));
    /// assert_eq!(breaker.statistics().failures, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn call<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>>
    where
        J: Judge<T, E>,
    {
        let permit = self.breaker.try_acquire()?;
        let result = operation();
        permit.settle(&self.outcome(&result));
        result.map_err(|error| Error::operation(error, 1))
    }

    /// As [`CircuitBreaker::call_async`]. A value that is judged a failure counts as one and is returned as it is.
    ///
    /// # Errors
    /// The operation's own error, or a rejection.
    ///
    /// ```
    /// use resilience_core::{Category, CircuitBreaker, Class};
    ///
    /// let breaker = CircuitBreaker::builder("legacy").build()?;
    /// let legacy = breaker.classified_by(|_: &String| Class::of(Category::Internal));
    /// let call = legacy.call_async(async { Err::<(), _>("E1".to_owned()) });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert!(runtime.block_on(call).is_err());
    /// assert_eq!(breaker.statistics().failures, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn call_async<T, E>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<T, Error<E>>
    where
        J: Judge<T, E>,
    {
        let mut permit = self.breaker.try_acquire()?;
        let mut operation = pin!(operation);
        let result = poll_fn(|cx| permit.poll(operation.as_mut(), cx)).await;
        permit.settle(&self.outcome(&result));
        result.map_err(|error| Error::operation(error, 1))
    }

    fn outcome<T, E>(&self, result: &Result<T, E>) -> Outcome
    where
        J: Judge<T, E>,
    {
        self.judge.judge(result).map_or(Outcome::Success, Outcome::Failure)
    }
}
