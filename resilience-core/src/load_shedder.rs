//! The load shedder: when there is too much to do, what matters least is refused first, at once and cheaply.
//! Never more calls in flight than allowed, and nobody let in where a more important call would be refused.
//! It keeps no queue and measures nothing: how hard the times are is told from outside, as pressure.

mod config;
mod machine;
mod permit;
mod priority;

pub use config::LoadShedderBuilder;
pub use permit::Permit;
pub use priority::Priority;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::config::{ConfigError, in_range};
use crate::event::{Event, Observers};
use crate::outcome::{Error, Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};
use config::millionths;
use machine::{Machine, Terms, WHOLE};

/// A shedder's figures. Limits, maximum and pressure belong together; counts may be some calls apart.
///
/// ```
/// use resilience_core::LoadShedder;
///
/// let shedder = LoadShedder::builder("api").max_concurrent(20).build()?;
/// let statistics = shedder.statistics();
/// assert_eq!((statistics.in_flight, statistics.max_concurrent, statistics.pressure), (0, 20, 0.0));
/// assert_eq!(statistics.priorities.each_ref().map(|of| of.limit), [5, 10, 16, 19, 20]);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LoadShedderStatistics {
    /// Permits given out and not yet back.
    pub in_flight: u32,
    /// The most permits there can be at once.
    pub max_concurrent: u32,
    /// How much of it is taken away, from 0 to 1.
    pub pressure: f64,
    /// The figures of each priority, least important first.
    pub priorities: [PriorityStatistics; Priority::ALL.len()],
}

impl LoadShedderStatistics {
    /// The figures of one priority.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(40).build()?;
    /// shedder.set_pressure(0.25)?;
    /// assert!(shedder.try_acquire(Priority::Background).is_err());
    /// let statistics = shedder.statistics();
    /// let background = statistics.of(Priority::Background);
    /// assert_eq!((background.limit, background.admitted, background.rejected), (0, 0, 1));
    /// assert_eq!(statistics.of(Priority::Critical).limit, 30);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn of(&self, priority: Priority) -> &PriorityStatistics {
        &self.priorities[priority.index()]
    }
}

/// The figures of one priority.
///
/// ```
/// use resilience_core::{LoadShedder, Priority};
///
/// let shedder = LoadShedder::builder("api").max_concurrent(1).build()?;
/// let _permit = shedder.try_acquire(Priority::Low);
/// assert!(shedder.try_acquire(Priority::Low).is_err());
/// let low = *shedder.statistics().of(Priority::Low);
/// assert_eq!((low.priority, low.admitted, low.rejected), (Priority::Low, 1, 1));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PriorityStatistics {
    /// Whose figures these are.
    pub priority: Priority,
    /// It is let in while fewer than this many calls, of all priorities, are in flight.
    pub limit: u32,
    /// Calls let in since the shedder was made.
    pub admitted: u64,
    /// Calls refused since the shedder was made.
    pub rejected: u64,
}

#[derive(Debug, Default)]
struct Counts {
    admitted: AtomicU64,
    rejected: AtomicU64,
}

struct Shared {
    name: Arc<str>,
    observers: Observers,
    machine: Machine,
    counts: [Counts; Priority::ALL.len()],
}

/// A load shedder: bounds how many calls are in flight, and keeps room for what matters most. Cheap to clone: clones
/// share one count, in every thread, sync and async.
///
/// Each [`Priority`] is let in while less than its share of `max_concurrent` is in use, by whomever: at the defaults
/// background calls up to 25 %, low 50 %, normal 80 %, high 95 %, critical 100 %, rounded up. So when load grows, the
/// least important is refused first, and the last 5 % belong to critical calls alone.
///
/// [`set_pressure`](Self::set_pressure) takes a part of the capacity away, as if that many calls more were in flight:
/// at 0.3 background calls are refused altogether, normal ones above 50 % and critical ones above 70 %; at 1 everything
/// is. An operator sets it, or a health check that looks at memory or load.
///
/// Refused calls are not retried by a [`Retry`](crate::Retry): that would add load where there is too much.
///
/// Sources: "Site Reliability Engineering", chapter 21 (Google, 2016): reject by criticality; "Keeping Netflix Reliable
/// Using Prioritized Load Shedding" (2020): thresholds of one utilisation, least important first.
///
/// ```
/// use resilience_core::{LoadShedder, Priority};
///
/// let shedder = LoadShedder::builder("api").max_concurrent(4).build()?;
/// let one = shedder.try_acquire(Priority::Normal).expect("nobody is inside");
/// let refused = shedder.try_acquire(Priority::Background).unwrap_err();
/// assert_eq!(refused.to_string(), "load shedder `api` has no room for background calls");
///
/// let two = shedder.try_acquire(Priority::Low).expect("half of it is for low priority");
/// assert!(shedder.try_acquire(Priority::Low).is_err());
/// assert!(shedder.try_acquire(Priority::Critical).is_ok());
/// # drop((one, two));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[doc(alias("prioritizer", "admission control", "throttler"))]
#[derive(Clone)]
pub struct LoadShedder(Arc<Shared>);

impl fmt::Debug for LoadShedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadShedder")
            .field("name", &self.name())
            .field("in_flight", &self.0.machine.in_flight())
            .finish_non_exhaustive()
    }
}

impl LoadShedder {
    /// Starts building a shedder called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::LoadShedder;
    ///
    /// assert_eq!(LoadShedder::builder("api").build()?.statistics().max_concurrent, 100);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> LoadShedderBuilder {
        LoadShedderBuilder::new(name.into())
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::LoadShedder;
    ///
    /// assert_eq!(LoadShedder::builder("api").build()?.name(), "api");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its figures now.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(50).build()?;
    /// let permit = shedder.try_acquire(Priority::High);
    /// let statistics = shedder.statistics();
    /// assert_eq!((statistics.in_flight, statistics.max_concurrent), (1, 50));
    /// assert_eq!(statistics.of(Priority::High).admitted, 1);
    /// # drop(permit);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn statistics(&self) -> LoadShedderStatistics {
        let (terms, limits) = self.0.machine.terms();
        let of = |priority: Priority| {
            let counts = &self.0.counts[priority.index()];
            PriorityStatistics {
                priority,
                limit: limits[priority.index()],
                // Relaxed: counters, nothing is published through them.
                admitted: counts.admitted.load(Ordering::Relaxed),
                rejected: counts.rejected.load(Ordering::Relaxed),
            }
        };
        LoadShedderStatistics {
            in_flight: self.0.machine.in_flight(),
            max_concurrent: terms.max_concurrent,
            pressure: f64::from(terms.pressure) / f64::from(WHOLE),
            priorities: Priority::ALL.map(of),
        }
    }

    /// Takes a permit for a call of this priority, or refuses it at once.
    ///
    /// # Errors
    /// A [`Rejection`] when as many calls are in flight as this priority may see.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority, Reason};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(2).build()?;
    /// let _permit = shedder.try_acquire(Priority::Low).expect("nobody is inside");
    /// let refused = shedder.try_acquire(Priority::Low).unwrap_err(); // half of it is in use
    /// assert_eq!(refused.reason, Reason::Shed { priority: Priority::Low });
    /// assert!(shedder.try_acquire(Priority::High).is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn try_acquire(&self, priority: Priority) -> Result<Permit<'_>, Rejection> {
        self.enter(priority).map(|()| Permit::new(Cow::Borrowed(self)))
    }

    /// As [`try_acquire`](Self::try_acquire), for a permit that must outlive the borrow: kept in a table, moved into a
    /// task. Costs a reference count. [`Permit::into_owned`] makes one of any permit.
    ///
    /// # Errors
    /// A [`Rejection`] when as many calls are in flight as this priority may see.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").build()?;
    /// let permit = shedder.try_acquire_owned(Priority::Normal).expect("nobody is inside");
    /// std::thread::spawn(move || drop(permit)).join().unwrap();
    /// assert_eq!(shedder.statistics().in_flight, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn try_acquire_owned(&self, priority: Priority) -> Result<Permit<'static>, Rejection> {
        self.enter(priority).map(|()| Permit::new(Cow::Owned(self.clone())))
    }

    /// Makes a blocking call, or refuses it at once.
    ///
    /// # Errors
    /// The operation's own error, or a rejection, with 0 attempts.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").build()?;
    /// assert_eq!(shedder.call(Priority::High, || "42".parse::<u8>()), Ok(42));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn call<T, E>(&self, priority: Priority, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>> {
        let _permit = self.try_acquire(priority)?;
        operation().map_err(|error| Error::operation(error, 1))
    }

    /// Makes an async call, or refuses it at once and drops it unpolled, on any executor. Dropping the future cancels it
    /// and gives the permit back.
    ///
    /// # Errors
    /// The operation's own error, or a rejection, with 0 attempts.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").build()?;
    /// let call = shedder.call_async(Priority::High, async { "42".parse::<u8>() });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(call)?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_async<T, E>(
        &self,
        priority: Priority,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        let _permit = self.try_acquire(priority)?;
        operation.await.map_err(|error| Error::operation(error, 1))
    }

    /// Says how hard the times are, from 0 (the default) to 1: this part of the capacity is taken away from everyone,
    /// so that the least important run out first. Calls in flight go on. Kept in millionths.
    ///
    /// # Errors
    /// A [`ConfigError`] when it is not a number from 0 to 1; the pressure stays as it was.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").build()?;
    /// shedder.set_pressure(0.9)?; // memory is nearly used up
    /// assert!(shedder.try_acquire(Priority::Normal).is_err());
    /// assert!(shedder.try_acquire(Priority::Critical).is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn set_pressure(&self, pressure: f64) -> Result<(), ConfigError> {
        in_range(self.name(), "pressure", pressure, &0.0, &1.0)?;
        self.0.machine.change(|terms| terms.pressure = millionths(pressure));
        Ok(())
    }

    /// Gives all clones the maximum and the shares of `settings`. Calls in flight, pressure and counts stay, and so do
    /// the name and the observers, whatever `settings` says. When fewer are allowed than are in flight, nobody is let
    /// in until enough have left.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used; everything stays as it was.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(2).build()?;
    /// let permit = shedder.try_acquire(Priority::Normal);
    /// shedder.reconfigure(LoadShedder::builder("api").max_concurrent(1))?;
    /// assert!(shedder.try_acquire(Priority::Critical).is_err());
    /// # drop(permit);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "a builder is written in place, as for `build`")]
    pub fn reconfigure(&self, settings: LoadShedderBuilder) -> Result<(), ConfigError> {
        let mut new = settings.terms()?;
        self.0.machine.change(|terms| {
            new.pressure = terms.pressure;
            *terms = new;
        });
        Ok(())
    }

    /// Lets a call in, or refuses it. Whoever is let in must [`leave`](Self::leave).
    pub(crate) fn enter(&self, priority: Priority) -> Result<(), Rejection> {
        if self.0.machine.try_enter(priority) {
            // Relaxed: a counter, nothing is published through it.
            self.0.counts[priority.index()].admitted.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Err(self.reject(priority))
    }

    pub(crate) fn leave(&self) {
        self.0.machine.leave();
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    #[cold]
    fn reject(&self, priority: Priority) -> Rejection {
        // Relaxed: a counter, nothing is published through it.
        self.0.counts[priority.index()].rejected.fetch_add(1, Ordering::Relaxed);
        // When somebody will leave is not known.
        let rejection = Rejection::new(Arc::clone(&self.0.name), Reason::Shed { priority }, None);
        self.0.observers.emit(&Event::Rejected { rejection: &rejection });
        rejection
    }

    fn from_parts(name: Arc<str>, observers: Observers, terms: Terms) -> Self {
        let counts = std::array::from_fn(|_| Counts::default());
        Self(Arc::new(Shared { name, observers, machine: Machine::new(terms), counts }))
    }
}
