//! The bulkhead: at most so many calls at once, so that one slow dependency cannot take every thread or connection.
//! Who waits is let in first come, first served; a permit always comes back, and one meant for a waiter that is gone
//! goes to the next. Knows nothing of results: it only counts who is inside.

mod config;
mod machine;
mod permit;

pub use config::BulkheadBuilder;
#[cfg(feature = "serde")]
pub(crate) use config::MAX_WAITING;
pub use permit::Permit;

pub(crate) use machine::Ticket;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::clock::{Clock, Instant, Sleep};
use crate::config::ConfigError;
use crate::deadline;
use crate::event::{Event, Observers};
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};
use crate::wait;
use machine::{Claim, Counts, Entry, Machine};

/// A bulkhead's figures. `in_flight` and `waiting` are of one moment, and `rejected` is always the sum of its parts.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Bulkhead;
///
/// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).max_waiting(0).build()?;
/// let _permit = bulkhead.try_acquire();
/// assert!(bulkhead.try_acquire().is_err());
/// assert!(bulkhead.acquire(Duration::from_secs(1)).is_err());
/// let statistics = bulkhead.statistics();
/// assert_eq!((statistics.rejected_full, statistics.rejected_queue_full, statistics.rejected), (1, 1, 2));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BulkheadStatistics {
    /// Permits given out and not yet back.
    pub in_flight: u32,
    /// How many wait for one.
    pub waiting: u32,
    /// The most permits there can be at once. After it was lowered, `in_flight` may be more until enough are back.
    pub max_concurrent: u32,
    /// How many can wait at most.
    pub max_waiting: u32,
    /// Requests that were refused: full + queue full + waited too long.
    pub rejected: u64,
    /// Requests that did not want to wait and would have had to.
    pub rejected_full: u64,
    /// Requests that wanted to wait and found the queue full.
    pub rejected_queue_full: u64,
    /// Requests that waited in vain.
    pub rejected_waited_too_long: u64,
}

/// How many requests were refused, by reason.
#[derive(Debug, Default)]
struct Rejected {
    full: AtomicU64,
    queue_full: AtomicU64,
    waited_too_long: AtomicU64,
}

struct Shared {
    name: Arc<str>,
    clock: Clock,
    observers: Observers,
    machine: Machine,
    rejected: Rejected,
}

/// A bulkhead: bounds how many calls are under way at once. Cheap to clone: clones share one count and one queue, in
/// every thread, sync and async.
///
/// The defaults let 25 in at once and 100 wait. Whoever waits is served in the order of coming, whether it blocks a
/// thread or awaits; who does not want to wait is never served ahead of those who do.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Bulkhead;
///
/// let bulkhead = Bulkhead::builder("reports").max_concurrent(2).build()?;
/// let first = bulkhead.try_acquire().expect("there is room for two");
/// let second = bulkhead.acquire(Duration::from_secs(1)).expect("there is room for two");
/// let refused = bulkhead.try_acquire().unwrap_err();
/// assert_eq!(refused.to_string(), "bulkhead `reports` is full");
///
/// drop(first);
/// assert!(bulkhead.try_acquire().is_ok());
/// # drop(second);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Bulkhead(Arc<Shared>);

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.machine.counts();
        f.debug_struct("Bulkhead")
            .field("name", &self.name())
            .field("in_flight", &counts.in_flight)
            .field("waiting", &counts.waiting)
            .finish_non_exhaustive()
    }
}

impl Bulkhead {
    /// Starts building a bulkhead called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::Bulkhead;
    ///
    /// let statistics = Bulkhead::builder("reports").build()?.statistics();
    /// assert_eq!((statistics.max_concurrent, statistics.max_waiting), (25, 100));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> BulkheadBuilder {
        BulkheadBuilder::new(name.into())
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::Bulkhead;
    ///
    /// assert_eq!(Bulkhead::builder("reports").build()?.name(), "reports");
    /// assert!(Bulkhead::builder("two words").build().is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its figures now.
    ///
    /// ```
    /// use resilience_core::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).build()?;
    /// let permit = bulkhead.try_acquire();
    /// assert!(bulkhead.try_acquire().is_err());
    /// let statistics = bulkhead.statistics();
    /// assert_eq!((statistics.in_flight, statistics.max_concurrent, statistics.rejected), (1, 1, 1));
    /// # drop(permit);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn statistics(&self) -> BulkheadStatistics {
        let Shared { machine, rejected, .. } = &*self.0;
        let Counts { in_flight, waiting, max_concurrent, max_waiting } = machine.counts();
        // Relaxed: counters, nothing is published through them.
        let rejected_full = rejected.full.load(Ordering::Relaxed);
        let rejected_queue_full = rejected.queue_full.load(Ordering::Relaxed);
        let rejected_waited_too_long = rejected.waited_too_long.load(Ordering::Relaxed);
        BulkheadStatistics {
            in_flight,
            waiting,
            max_concurrent,
            max_waiting,
            rejected: rejected_full + rejected_queue_full + rejected_waited_too_long,
            rejected_full,
            rejected_queue_full,
            rejected_waited_too_long,
        }
    }

    /// Takes a permit now, or not at all. Never ahead of those who wait.
    ///
    /// # Errors
    /// A [`Rejection`] when all permits are given out or somebody waits for one.
    ///
    /// ```
    /// use resilience_core::{Bulkhead, Reason};
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).build()?;
    /// let permit = bulkhead.try_acquire().expect("nobody is inside");
    /// assert_eq!(bulkhead.try_acquire().unwrap_err().reason, Reason::BulkheadFull);
    /// drop(permit);
    /// assert!(bulkhead.try_acquire().is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        self.enter().map(|()| self.permit())
    }

    /// As [`try_acquire`](Self::try_acquire), for a permit that must outlive the borrow: kept in a table, moved into a
    /// task. Costs a reference count. [`Permit::into_owned`] makes one of any permit.
    ///
    /// # Errors
    /// A [`Rejection`] when all permits are given out or somebody waits for one.
    ///
    /// ```
    /// use resilience_core::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).build()?;
    /// let permit = bulkhead.try_acquire_owned().expect("nobody is inside");
    /// let report = std::thread::spawn(move || drop(permit)); // the work, and then the permit back
    /// report.join().unwrap();
    /// assert!(bulkhead.try_acquire_owned().is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn try_acquire_owned(&self) -> Result<Permit<'static>, Rejection> {
        self.enter().map(|()| Permit::new(Cow::Owned(self.clone())))
    }

    /// Takes a permit, blocking the thread for up to `max_wait` until there is one. First come, first served. With a
    /// `max_wait` of zero it does not wait.
    ///
    /// # Errors
    /// A [`Rejection`], at once when the queue is full, or when `max_wait` is over.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Bulkhead, ManualClock, Reason};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).clock(time.clock()).build()?;
    /// let permit = bulkhead.acquire(Duration::from_secs(2)).expect("nobody is inside");
    /// let refused = bulkhead.acquire(Duration::from_secs(2)).unwrap_err();
    /// assert_eq!(refused.reason, Reason::BulkheadWaitedTooLong);
    /// assert_eq!(time.elapsed(), Duration::from_secs(2));
    /// # drop(permit);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn acquire(&self, max_wait: Duration) -> Result<Permit<'_>, Rejection> {
        match self.enter_or_wait(max_wait)? {
            None => Ok(self.permit()),
            Some(ticket) => wait::block_on(Waiting::new(self, ticket)),
        }
    }

    /// Takes a permit, waiting for up to `max_wait` until there is one. First come, first served. With a `max_wait` of
    /// zero it does not wait. Dropping the future gives its place up, and the permit, if it was just handed one.
    ///
    /// # Errors
    /// A [`Rejection`], at once when the queue is full, or when `max_wait` is over.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use resilience_core::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).build()?;
    /// let report = async {
    ///     let _permit = bulkhead.acquire_async(Duration::from_secs(1)).await?;
    ///     Ok::<_, resilience_core::Rejection>("one at a time")
    /// };
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(report)?, "one at a time");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire_async(&self, max_wait: Duration) -> Result<Permit<'_>, Rejection> {
        match self.enter_or_wait(max_wait)? {
            None => Ok(self.permit()),
            Some(ticket) => Waiting::new(self, ticket).await,
        }
    }

    /// Takes the limits over from `builder`, for all clones, while calls are under way; the builder's name, clock and
    /// observers are not looked at.
    ///
    /// Who is inside or waits stays. More room is used at once by those who wait; with less, as many have to leave
    /// before anybody comes in: from then on never more than the new maximum are inside. A queue that is longer than
    /// the new one lets nobody join until it is shorter.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used; all stays as it was.
    ///
    /// ```
    /// use resilience_core::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).build()?;
    /// let permit = bulkhead.try_acquire();
    /// assert!(bulkhead.try_acquire().is_err());
    /// bulkhead.reconfigure(Bulkhead::builder("reports").max_concurrent(2))?;
    /// assert!(bulkhead.try_acquire().is_ok());
    /// # drop(permit);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[doc(alias = "changeConfig")]
    pub fn reconfigure(&self, builder: BulkheadBuilder) -> Result<(), ConfigError> {
        let (max_concurrent, max_waiting) = builder.named(&self.0.name).checked()?;
        self.0.machine.set_limits(max_concurrent, max_waiting);
        Ok(())
    }

    fn permit(&self) -> Permit<'_> {
        Permit::new(Cow::Borrowed(self))
    }

    fn enter(&self) -> Result<(), Rejection> {
        // Without a time to wait until there is no place in the queue.
        self.enter_or_queue(|| None).map(|_inside| ())
    }

    fn enter_or_wait(&self, max_wait: Duration) -> Result<Option<Ticket>, Rejection> {
        let max_wait = deadline::bounded(&self.0.clock, max_wait);
        self.enter_or_queue(|| (!max_wait.is_zero()).then(|| self.0.clock.now() + max_wait))
    }

    /// Enters (`None`), or takes a place in the queue. `until` says how long it may be kept, or `None` for not at all;
    /// it is only asked when there is no room, since it takes a look at the clock. Whoever enters must
    /// [`leave`](Self::leave).
    pub(crate) fn enter_or_queue(&self, until: impl FnOnce() -> Option<Instant>) -> Result<Option<Ticket>, Rejection> {
        if self.0.machine.try_enter() {
            return Ok(None);
        }
        let Some(until) = until() else { return Err(self.reject(Reason::BulkheadFull)) };
        match self.0.machine.enter(until) {
            Entry::Inside => Ok(None),
            Entry::Queued(ticket) => Ok(Some(ticket)),
            Entry::QueueFull => Err(self.reject(Reason::BulkheadQueueFull)),
        }
    }

    /// Whether a place has its turn, to be claimed; if not, `waker` is woken when it comes.
    pub(crate) fn watch(&self, ticket: &Ticket, waker: &Waker) -> bool {
        self.0.machine.watch(ticket, waker)
    }

    /// What became of a place: `Ready` with the room that it was given, or the refusal; the place is gone then.
    pub(crate) fn claim(&self, ticket: &Ticket, now: Instant) -> Poll<Result<(), Rejection>> {
        match self.0.machine.claim(ticket, now) {
            Claim::Inside => Poll::Ready(Ok(())),
            Claim::Waiting => Poll::Pending,
            Claim::TooLate => Poll::Ready(Err(self.reject(Reason::BulkheadWaitedTooLong))),
        }
    }

    /// Gives up a place, or the permit that it was handed.
    pub(crate) fn give_up(&self, ticket: &Ticket) {
        self.0.machine.give_up(ticket);
    }

    pub(crate) fn leave(&self) {
        self.0.machine.leave();
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    #[cold]
    fn reject(&self, reason: Reason) -> Rejection {
        let rejected = &self.0.rejected;
        let count = match reason {
            Reason::BulkheadQueueFull => &rejected.queue_full,
            Reason::BulkheadWaitedTooLong => &rejected.waited_too_long,
            _ => &rejected.full,
        };
        // Relaxed: a counter, nothing is published through it.
        count.fetch_add(1, Ordering::Relaxed);
        // When somebody will leave is not known.
        let rejection = Rejection::new(Arc::clone(&self.0.name), reason, None);
        self.0.observers.emit(&Event::Rejected { rejection: &rejection });
        rejection
    }

    fn from_parts(name: Arc<str>, clock: Clock, observers: Observers, machine: Machine) -> Self {
        Self(Arc::new(Shared { name, clock, observers, machine, rejected: Rejected::default() }))
    }
}

/// A wait in the queue, which is given up when it does not come to its end.
struct Waiting<'a> {
    bulkhead: &'a Bulkhead,
    ticket: Option<Ticket>,
    /// Made only when the first look was in vain.
    sleep: Option<Sleep>,
}

impl<'a> Waiting<'a> {
    fn new(bulkhead: &'a Bulkhead, ticket: Ticket) -> Self {
        Self { bulkhead, ticket: Some(ticket), sleep: None }
    }
}

impl<'a> Future for Waiting<'a> {
    type Output = Result<Permit<'a>, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let bulkhead = this.bulkhead;
        let clock = &bulkhead.0.clock;
        let ticket = this.ticket.as_ref().expect("a future is not polled after its end");
        loop {
            // What was waited for is over, also on a clock that stands still meanwhile.
            let mut at_least = Instant::default();
            if !bulkhead.watch(ticket, cx.waker()) {
                let sleep = this.sleep.get_or_insert_with(|| clock.sleep_until(ticket.until));
                ready!(Pin::new(sleep).poll(cx));
                this.sleep = None;
                at_least = ticket.until;
            }
            if let Poll::Ready(entered) = bulkhead.claim(ticket, clock.now().max(at_least)) {
                this.ticket = None;
                return Poll::Ready(entered.map(|()| bulkhead.permit()));
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.bulkhead.give_up(&ticket);
        }
    }
}
