//! Chaos that also makes up results, which only the caller can do: it knows the types.

use std::fmt;
use std::future::Future;

use super::Chaos;
use crate::outcome::Error;

/// Chaos, and results that take the operation's place: made by [`Chaos::with_outcome`].
///
/// ```
/// use resilience_core::Chaos;
/// use resilience_core::chaos::WithOutcome;
///
/// let chaos = Chaos::builder("web")
/// #     .allow_in_release(true)
///     .build()?;
/// let overloaded: WithOutcome<_> = chaos.with_outcome(1.0, || Ok::<u16, std::io::Error>(503))?;
/// assert_eq!(overloaded.call(|| Ok(200)).unwrap(), 503);
/// chaos.set_enabled(false); // one switch for both
/// assert_eq!(overloaded.call(|| Ok(200)).unwrap(), 200);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct WithOutcome<F> {
    pub(super) chaos: Chaos,
    pub(super) rate: f64,
    pub(super) make: F,
}

impl<F> fmt::Debug for WithOutcome<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithOutcome").field("chaos", &self.chaos).field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl<F> WithOutcome<F> {
    /// As [`Chaos::call`]; an error that was made up has 0 attempts.
    ///
    /// # Errors
    /// The operation's own error, one that was made up, or an injected fault.
    ///
    /// ```
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("web")
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// let overloaded = chaos.with_outcome(1.0, || Ok::<u16, std::io::Error>(503))?;
    /// assert_eq!(overloaded.call(|| Ok(200)).unwrap(), 503);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>>
    where
        F: Fn() -> Result<T, E>,
    {
        self.chaos.run(self.rate, &self.make, operation)
    }

    /// As [`Chaos::call_async`]; an error that was made up has 0 attempts.
    ///
    /// # Errors
    /// The operation's own error, one that was made up, or an injected fault.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::Chaos;
    ///
    /// let chaos = Chaos::builder("web")
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// let overloaded = chaos.with_outcome(1.0, || Ok::<u16, std::io::Error>(503))?;
    /// let call = overloaded.call_async(async { Ok(200) });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(call)?, 503);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_async<T, E>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<T, Error<E>>
    where
        F: Fn() -> Result<T, E>,
    {
        self.chaos.run_async(self.rate, &self.make, operation).await
    }
}
