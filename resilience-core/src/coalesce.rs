//! Coalescing: calls for the same key that are under way at once share one execution and its result.
//! At most one execution per key at a time, and nobody who waits is forgotten: when the one that runs is dropped or
//! panics, one that waits runs its own operation. Remembers nothing beyond the flight: it is not a cache.

mod config;
mod future;
mod machine;
#[cfg(feature = "tower")]
mod tower;

pub use config::CoalesceBuilder;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub use tower::{CoalesceLayer, CoalesceResponse, CoalesceService};

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::sync::Arc;

use crate::event::{Event, Observers};
use crate::outcome::{Error, Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};
use crate::wait;
use future::{CoalesceFuture, Joining, Turn};
use machine::Machine;

/// The figures of a [`Coalesce`]. Counters of one moment each, read one after the other.
///
/// ```
/// use resilience_core::Coalesce;
///
/// let flights = Coalesce::<u64, u64, ()>::builder("squares").build()?;
/// let square = || flights.call_async(7, || async {
///     tokio::task::yield_now().await;
///     Ok(49)
/// });
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let results = tokio::join!(square(), square(), square());
/// # assert_eq!(results, (Ok(49), Ok(49), Ok(49)));
/// # });
/// let statistics = flights.statistics();
/// assert_eq!((statistics.led, statistics.shared, statistics.following), (1, 2, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CoalesceStatistics {
    /// Keys for which there is a call under way.
    pub in_flight: u32,
    /// Calls that wait for another one's result.
    pub following: u32,
    /// How many keys can be under way at most.
    pub max_keys: u32,
    /// How many calls can follow one key's flight at most.
    pub max_followers: u32,
    /// Operations that were started.
    pub led: u64,
    /// Those among them that took over from one that was dropped or panicked.
    pub taken_over: u64,
    /// Calls that got another one's result.
    pub shared: u64,
    /// Calls that were refused.
    pub rejected: u64,
}

#[derive(Debug, Default)]
struct Counts {
    led: AtomicU64,
    taken_over: AtomicU64,
    shared: AtomicU64,
    rejected: AtomicU64,
}

struct Shared<K, T, E> {
    name: Arc<str>,
    observers: Observers,
    machine: Machine<K, Result<T, E>>,
    counts: Counts,
}

impl<K, T, E> Shared<K, T, E> {
    #[cold]
    fn reject(&self, reason: Reason) -> Rejection {
        count(&self.counts.rejected);
        let rejection = Rejection::new(Arc::clone(&self.name), reason, None);
        self.observers.emit(&Event::Rejected { rejection: &rejection });
        rejection
    }
}

fn count(counter: &AtomicU64) {
    // Relaxed: a counter, nothing is published through it.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Lets calls for the same key share one execution: many ask at once, the dependency is asked once. Cheap to clone;
/// clones share everything, and blocking and async callers share one flight.
///
/// The first call for a key leads: it runs its operation where it was made. Calls for the same key that come before that
/// is over follow: their own operations do not run, and they get clones of the leader's result, be it a value or an
/// error. What comes later leads a new flight.
///
/// A leader that is dropped, or panics, takes nobody down: one of its followers runs its own operation and leads. (When
/// the operation always panics, each follower comes to it in turn, as it would have alone.) A follower that is dropped
/// leaves the flight alone; give followers a limit of their own with a [`Timeout`](crate::Timeout).
///
/// An async leader runs only when it is polled. One that is kept but never polled keeps its followers waiting, so
/// spawn what may be left lying. A call for a key from inside that key's own operation would wait for itself: it is
/// refused ([`Reason::WaitsForItself`]) where the operation makes it on its own thread or in its own task; one made by
/// another thread or task that the operation waits for is not recognised.
///
/// Errors are shared as well, so `E` must be `Clone`: put one that is not into an `Arc`. Around a pipeline `E` is
/// [`Error`] itself, and [`Error::flatten`] makes one error of two.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use resilience_core::Coalesce;
///
/// let flights = Coalesce::<u64, String, std::io::ErrorKind>::builder("users").build()?;
/// let loads = AtomicU32::new(0);
/// let user = |id| {
///     flights.call_async(id, || async {
///         loads.fetch_add(1, Relaxed);
///         tokio::task::yield_now().await; // the query
///         Ok("Ada".to_owned())
///     })
/// };
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let (one, two, other) = tokio::join!(user(1), user(1), user(2));
/// # assert_eq!((one, two, other), (Ok("Ada".to_owned()), Ok("Ada".to_owned()), Ok("Ada".to_owned())));
/// # });
/// assert_eq!(loads.load(Relaxed), 2); // one for each key
/// # Ok(())
/// # }
/// ```
#[doc(alias = "singleflight")]
#[doc(alias = "single_flight")]
#[doc(alias = "request_collapsing")]
#[doc(alias = "deduplicate")]
pub struct Coalesce<K, T, E>(Arc<Shared<K, T, E>>);

impl<K, T, E> Clone for Coalesce<K, T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T, E> fmt::Debug for Coalesce<K, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce")
            .field("name", &self.name())
            .field("in_flight", &self.0.machine.in_flight())
            .finish_non_exhaustive()
    }
}

impl<K, T, E> Coalesce<K, T, E> {
    /// Starts building one called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::Coalesce;
    ///
    /// let flights = Coalesce::<u64, String, std::io::ErrorKind>::builder("users").build()?;
    /// assert_eq!((flights.statistics().max_keys, flights.statistics().max_followers), (10_000, 1_000));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> CoalesceBuilder<K, T, E> {
        CoalesceBuilder::new(name.into())
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::Coalesce;
    ///
    /// assert_eq!(Coalesce::<u64, u64, ()>::builder("users").build()?.name(), "users");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its figures now.
    ///
    /// ```
    /// use resilience_core::Coalesce;
    ///
    /// let flights = Coalesce::<u64, u64, ()>::builder("squares").build()?;
    /// assert_eq!(flights.call(7, || Ok(49)), Ok(49));
    /// assert_eq!(flights.call(7, || Ok(49)), Ok(49)); // nothing is remembered
    /// let statistics = flights.statistics();
    /// assert_eq!((statistics.led, statistics.shared, statistics.in_flight), (2, 0, 0));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn statistics(&self) -> CoalesceStatistics {
        let Shared { machine, counts, .. } = &*self.0;
        CoalesceStatistics {
            in_flight: machine.in_flight(),
            following: machine.following(),
            max_keys: machine.max_keys(),
            max_followers: machine.max_followers(),
            // Relaxed: counters, nothing is published through them.
            led: counts.led.load(Ordering::Relaxed),
            taken_over: counts.taken_over.load(Ordering::Relaxed),
            shared: counts.shared.load(Ordering::Relaxed),
            rejected: counts.rejected.load(Ordering::Relaxed),
        }
    }
}

impl<K: Eq + Hash, T: Clone, E: Clone> Coalesce<K, T, E> {
    /// Makes a blocking call: runs `operation` on this thread, or blocks until the call under way for `key` is over.
    ///
    /// # Errors
    /// The error of whichever operation ran, or a rejection: too many keys, too many followers, or a call that would
    /// wait for itself.
    ///
    /// ```
    /// use resilience_core::{Coalesce, Error, Reason};
    ///
    /// let flights = Coalesce::<&str, u32, &str>::builder("users").build()?;
    /// let inside = flights.call("ada", || flights.call("ada", || Ok(1)).map_err(|error| match error.as_rejection() {
    ///     Some(refused) if refused.reason == Reason::WaitsForItself => "from inside itself",
    ///     _ => "something else",
    /// }));
    /// assert_eq!(inside.map_err(Error::into_operation), Err(Ok("from inside itself")));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call(&self, key: K, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>> {
        let mut joining = Joining::new(Arc::clone(&self.0), key);
        let result = match wait::block_on(poll_fn(|cx| joining.poll_turn(cx)))? {
            Turn::Landed(result) => result,
            Turn::Lead(lead) => {
                let inside = lead.inside();
                let result = operation();
                drop(inside);
                lead.land(result)
            }
        };
        result.map_err(|error| Error::operation(error, 1))
    }

    /// Makes an async call, on any executor: runs `operation` in this task, or waits until the call under way for `key` is
    /// over. Nothing happens before the first poll. Dropping the future gives the lead to a follower, or leaves the flight
    /// that it follows alone.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::{Coalesce, Error, Pipeline};
    ///
    /// # async fn load(id: u64) -> Result<String, std::io::ErrorKind> { Ok(format!("user {id}")) }
    /// let pipeline = Pipeline::builder("users").build()?;
    /// let flights = Coalesce::<u64, String, _>::builder("users").build()?;
    /// let user = async {
    ///     let user = flights.call_async(7, || pipeline.call_async(|| load(7))).await;
    ///     user.map_err(Error::flatten)
    /// };
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(user).unwrap(), "user 7");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_async<F>(&self, key: K, operation: impl FnOnce() -> F) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        // Lazy: who follows does not even make its operation.
        let operation = async { operation().await };
        CoalesceFuture::new(Joining::new(Arc::clone(&self.0), key), operation).await
    }
}
