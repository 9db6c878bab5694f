//! What coalescing can be told, and the checks on it. Nothing here runs after it is built.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::machine::Machine;
use super::{Coalesce, Counts, Shared};
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// Far more than any process has under way at once.
const MAX: u32 = 1_000_000;

/// Builds a [`Coalesce`].
///
/// ```
/// use resilience_core::Coalesce;
///
/// let flights = Coalesce::<u64, u64, ()>::builder("users").max_keys(50).max_followers(20).build()?;
/// let statistics = flights.statistics();
/// assert_eq!((statistics.max_keys, statistics.max_followers), (50, 20));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub struct CoalesceBuilder<K, T, E> {
    name: Arc<str>,
    max_keys: u32,
    max_followers: u32,
    observers: Observers,
    result: PhantomData<fn(K) -> Result<T, E>>,
}

impl<K, T, E> Clone for CoalesceBuilder<K, T, E> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), observers: self.observers.clone(), ..*self }
    }
}

impl<K, T, E> fmt::Debug for CoalesceBuilder<K, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceBuilder")
            .field("name", &self.name)
            .field("max_keys", &self.max_keys)
            .field("max_followers", &self.max_followers)
            .finish_non_exhaustive()
    }
}

impl<K, T, E> CoalesceBuilder<K, T, E> {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, max_keys: 10_000, max_followers: 1_000, observers: Observers::new(), result: PhantomData }
    }

    /// For how many keys calls can be under way at once: 1 to 1000000, default 10000. A call for one more is refused.
    ///
    /// ```
    /// use resilience_core::{Coalesce, Reason};
    ///
    /// let flights = Coalesce::<u64, u64, ()>::builder("users").max_keys(1).build()?;
    /// let outer = flights.call(1, || {
    ///     let refused = flights.call(2, || Ok(2)).unwrap_err(); // key 1 is under way
    ///     assert_eq!(refused.as_rejection().unwrap().reason, Reason::TooManyFlights { max_keys: 1 });
    ///     Ok(1)
    /// });
    /// assert_eq!(outer, Ok(1));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_keys(mut self, keys: u32) -> Self {
        self.max_keys = keys;
        self
    }

    /// How many calls can follow one key's flight: 1 to 1000000, default 1000. One more is refused.
    ///
    /// ```
    /// use resilience_core::{Coalesce, Reason};
    ///
    /// let flights = Coalesce::<u64, u64, ()>::builder("squares").max_followers(1).build()?;
    /// let square = || flights.call_async(7, || async {
    ///     tokio::task::yield_now().await;
    ///     Ok(49)
    /// });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let (leader, follower, refused) = tokio::join!(square(), square(), square());
    /// assert_eq!((leader, follower), (Ok(49), Ok(49)));
    /// let reason = refused.unwrap_err().as_rejection().unwrap().reason;
    /// assert_eq!(reason, Reason::TooManyFollowers { max_followers: 1 });
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_followers(mut self, followers: u32) -> Self {
        self.max_followers = followers;
        self
    }

    /// Who hears of its refusals. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    /// use resilience_core::{Coalesce, Event, Observers};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let listen = move |event: &Event<'_>| {
    ///     if let Event::Rejected { rejection, .. } = event {
    ///         tell.send(rejection.reason.as_str()).unwrap();
    ///     }
    /// };
    /// let observers = Observers::new().with(Arc::new(listen));
    /// let flights = Coalesce::<u64, u64, ()>::builder("users").observers(observers).build()?;
    /// let _ = flights.call(1, || flights.call(1, || Ok(1)).map_err(|_| ())); // from inside itself
    /// assert_eq!(told.try_recv(), Ok("waits_for_itself"));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes it.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// use resilience_core::Coalesce;
    ///
    /// let error = Coalesce::<u64, u64, ()>::builder("users").max_followers(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`users.max_followers` is 0; allowed: 1 to 1000000");
    /// ```
    pub fn build(self) -> Result<Coalesce<K, T, E>, ConfigError> {
        config::name(&self.name)?;
        config::in_range(&self.name, "max_keys", self.max_keys, &1, &MAX)?;
        config::in_range(&self.name, "max_followers", self.max_followers, &1, &MAX)?;
        let machine = Machine::new(self.max_keys, self.max_followers);
        let (name, observers, counts) = (self.name, self.observers, Counts::default());
        Ok(Coalesce(Arc::new(Shared { name, observers, machine, counts })))
    }
}
