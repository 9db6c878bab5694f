//! Where operations run that nobody may stop: on threads and in tasks of their own, so that who waits for them can go
//! away. Never more of them than allowed, left behind or not; an end that nobody waited for is told to the observers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::thread;

use super::detached::{Detached, End, Task};
use crate::bulkhead::{Bulkhead, Permit};
use crate::class::Severity;
use crate::clock::{Clock, Instant};
use crate::config::{self, ConfigError};
use crate::deadline;
use crate::event::{Event, Observers};
use crate::outcome::{Reason, Rejection};
use crate::retry;
use crate::sync::{AtomicU64, Ordering};

/// The figures of a [`Background`], read one after the other.
///
/// ```
/// use resilience_core::Background;
///
/// let tasks = Background::builder("reports").build()?;
/// let mut task = None;
/// drop(tasks.detach(|it| task = Some(it), async { Ok::<(), ()>(()) })); // nobody waits for it
/// assert_eq!((tasks.statistics().running, tasks.statistics().left_behind), (1, 1));
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// runtime.block_on(task.unwrap()); // it goes on to its end
/// let statistics = tasks.statistics();
/// assert_eq!((statistics.running, statistics.left_behind, statistics.ended_late), (0, 0, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BackgroundStatistics {
    /// Operations that run now, those left behind included.
    pub running: u32,
    /// Those among them for whose result nobody waits any more.
    pub left_behind: u64,
    /// How many can run at most.
    pub max_running: u32,
    /// Operations whose result was lost, because nobody waited when they ended.
    pub ended_late: u64,
    /// Operations that were refused because as many as allowed ran.
    pub rejected: u64,
}

/// Runs operations where they can be left behind: blocking ones on threads of their own, async ones in tasks of their
/// own. Cheap to clone; clones share one bound.
///
/// What comes of it is a [`Detached`]: a future that can be raced with anything, dropped at any moment, and used as an
/// operation in a pipeline. The operation itself goes on to its end. So a timeout, a dropped call or a cancelled task
/// never stops half way what must not stop there.
///
/// Operations left behind count until they end, so that what hangs for ever cannot take all threads: when as many as
/// allowed run, further ones are refused ([`Reason::BulkheadFull`]). Each thread ends with its operation.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use resilience_core::{Background, Error, Pipeline, Retry};
///
/// let threads = Background::builder("render").max_running(8).build()?;
/// let pipeline = Pipeline::builder("render").retry(Retry::default()).timeout(Duration::from_secs(5)).build()?;
/// let page = pipeline.call_async(|| threads.on_thread(|| std::fs::read_to_string("Cargo.toml")));
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let page = runtime.block_on(page).map_err(Error::flatten)?;
/// # assert!(!page.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Background(Arc<Shared>);

pub(super) struct Shared {
    clock: Clock,
    observers: Observers,
    /// Who runs: the bound and its refusals are a bulkhead's.
    room: Bulkhead,
    left_behind: AtomicU64,
    ended_late: AtomicU64,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BackgroundStatistics { running, left_behind, .. } = self.statistics();
        f.debug_struct("Background")
            .field("name", &self.name())
            .field("running", &running)
            .field("left_behind", &left_behind)
            .finish_non_exhaustive()
    }
}

impl Background {
    /// Starts building one called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::Background;
    ///
    /// assert_eq!(Background::builder("render").build()?.statistics().max_running, 64);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> BackgroundBuilder {
        let name = name.into();
        BackgroundBuilder { name, max_running: 64, clock: Clock::system(), observers: Observers::new() }
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::Background;
    ///
    /// assert_eq!(Background::builder("render").build()?.name(), "render");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        self.0.room.name()
    }

    /// Its figures now.
    ///
    /// ```
    /// use resilience_core::Background;
    ///
    /// let threads = Background::builder("render").max_running(8).build()?;
    /// let (stop, stopped) = std::sync::mpsc::channel::<()>();
    /// drop(threads.on_thread(move || stopped.recv())); // it goes on without us
    /// let statistics = threads.statistics();
    /// assert_eq!((statistics.running, statistics.left_behind, statistics.max_running), (1, 1, 8));
    /// # drop(stop);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn statistics(&self) -> BackgroundStatistics {
        let room = self.0.room.statistics();
        BackgroundStatistics {
            running: room.in_flight,
            // Relaxed: figures, nothing is published through them.
            left_behind: self.0.left_behind.load(Ordering::Relaxed),
            max_running: room.max_concurrent,
            ended_late: self.0.ended_late.load(Ordering::Relaxed),
            rejected: room.rejected,
        }
    }

    /// Starts the blocking `operation` on a thread of its own, at once. Awaiting the future gives its result; dropping it
    /// leaves the thread to itself.
    ///
    /// The thread runs under the deadline of whoever asks, see [`Deadline`](crate::Deadline).
    ///
    /// The future's error is the operation's own, or a rejection: as many as allowed run, or the system has no thread
    /// to give. It panics when the operation does.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::Background;
    ///
    /// let threads = Background::builder("sums").build()?;
    /// let sum = threads.on_thread(|| Ok::<u64, std::convert::Infallible>((1..=1_000).sum()));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(sum)?, 500_500);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_thread<T, E>(&self, operation: impl FnOnce() -> Result<T, E> + Send + 'static) -> Detached<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let (handle, detached) = match self.enter() {
            Ok(running) => Detached::running(running),
            Err(rejection) => return Detached::refused(rejection),
        };
        // The thread works for whoever asks: within its deadline, and as part of its call.
        let (deadlines, budgets) = (deadline::Inherited::here(), retry::Inherited::here());
        let body = move || {
            let _entered = (deadlines.enter(), budgets.enter());
            handle.end(End::of(operation));
        };
        if thread::Builder::new().name(self.name().to_owned()).spawn(body).is_err() {
            // The handle is gone with the body, and says that there was an operation; there was none.
            detached.forget();
            return Detached::refused(self.reject(Reason::NoThread));
        }
        detached
    }

    /// Starts `operation` in a task of its own, at once. Awaiting the future gives its result; dropping it leaves the task
    /// to itself.
    ///
    /// `spawn` must hand the task to an executor that runs it to its end: `tokio::spawn`, `tokio::task::spawn_local` for
    /// futures that are not `Send`, `|task| smol::spawn(task).detach()`. An executor that is shut down drops the task,
    /// which ends the call with a rejection ([`Reason::TaskDropped`]).
    ///
    /// The future's error is the operation's own, or a rejection when as many as allowed run. It panics when the
    /// operation does.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::Background;
    ///
    /// let tasks = Background::builder("sums").build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let sum = tasks.detach(tokio::spawn, async { Ok::<u64, std::convert::Infallible>((1..=1_000).sum()) });
    /// assert_eq!(sum.await, Ok(500_500));
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    pub fn detach<T, E, F, R>(&self, spawn: impl FnOnce(Task<F, T, E>) -> R, operation: F) -> Detached<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        match self.enter() {
            Ok(running) => {
                let (handle, detached) = Detached::running(running);
                spawn(Task::new(operation, handle));
                detached
            }
            Err(rejection) => Detached::refused(rejection),
        }
    }

    fn enter(&self) -> Result<Running, Rejection> {
        let room = self.0.room.try_acquire_owned()?;
        // The time is only told to observers.
        let started = if self.0.observers.is_empty() { Instant::default() } else { self.0.clock.now() };
        Ok(Running { background: self.clone(), room, started })
    }

    pub(super) fn reject(&self, reason: Reason) -> Rejection {
        let rejection = Rejection::new(self.name().into(), reason, None);
        self.0.observers.emit(&Event::Rejected { rejection: &rejection });
        rejection
    }

    /// An operation is left behind, or ends behind everybody's back: called under the slot's lock, so that the figure
    /// never falls below zero. Relaxed: it is only a figure.
    pub(super) fn count_left_behind(&self, ended: bool) {
        if ended {
            self.0.left_behind.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.0.left_behind.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn tell_left_running(&self) {
        self.tell("left_running", Severity::Medium, || "nobody waits for its result any more".to_owned());
    }

    pub(super) fn tell_ended_late(&self, severity: Severity, how: &str, started: Instant) {
        // Relaxed: a counter, nothing is published through it.
        self.0.ended_late.fetch_add(1, Ordering::Relaxed);
        self.tell("ended_late", severity, || {
            let elapsed = self.0.clock.now().saturating_duration_since(started);
            format!("{how} {elapsed:?} after it was started; nobody waited for the result")
        });
    }

    fn tell(&self, action: &str, severity: Severity, detail: impl FnOnce() -> String) {
        if !self.0.observers.is_empty() {
            let detail = detail();
            self.0.observers.emit(&Event::notice("background", action, self.name(), severity, &detail));
        }
    }
}

/// What an operation in the background holds.
pub(super) struct Running {
    pub(super) background: Background,
    pub(super) room: Permit<'static>,
    pub(super) started: Instant,
}

/// Builds a [`Background`].
///
/// ```
/// use resilience_core::Background;
///
/// let threads = Background::builder("render").max_running(8).build()?;
/// assert_eq!(threads.statistics().max_running, 8);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BackgroundBuilder {
    name: Arc<str>,
    max_running: u32,
    clock: Clock,
    observers: Observers,
}

impl BackgroundBuilder {
    /// How many operations can run at once, those left behind included: from 1; default 64.
    ///
    /// ```
    /// use resilience_core::{Background, Reason};
    ///
    /// let threads = Background::builder("render").max_running(1).build()?;
    /// let (stop, stopped) = std::sync::mpsc::channel::<()>();
    /// let _first = threads.on_thread(move || stopped.recv());
    /// let second = threads.on_thread(|| Ok::<(), ()>(()));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let refused = runtime.block_on(second).unwrap_err();
    /// assert_eq!(refused.as_rejection().unwrap().reason, Reason::BulkheadFull);
    /// # drop(stop);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_running(mut self, operations: u32) -> Self {
        self.max_running = operations;
        self
    }

    /// What it measures by how late an operation ended. Default: the system's clock.
    ///
    /// ```
    /// # use std::sync::{Arc, mpsc};
    /// use std::time::Duration;
    /// use resilience_core::{Background, Event, ManualClock, Observers};
    ///
    /// let time = ManualClock::new();
    /// # let (tell, told) = mpsc::channel();
    /// # let listen = move |event: &Event<'_>| {
    /// #     if let Event::Notice { detail, .. } = event {
    /// #         tell.send(detail.to_string()).unwrap();
    /// #     }
    /// # };
    /// # let observers = Observers::new().with(Arc::new(listen));
    /// let tasks = Background::builder("reports").clock(time.clock()).observers(observers).build()?;
    /// let mut task = None;
    /// drop(tasks.detach(|it| task = Some(it), async { Ok::<(), ()>(()) })); // nobody waits for it
    /// time.advance(Duration::from_secs(30));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(task.unwrap());
    /// assert_eq!(told.iter().nth(1).unwrap(), "succeeded 30s after it was started; nobody waited for the result");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of operations left behind and of their late ends. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    /// use resilience_core::{Background, Event, Observers};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let listen = move |event: &Event<'_>| {
    ///     if let Event::Notice { action, .. } = event {
    ///         tell.send(action.to_string()).unwrap();
    ///     }
    /// };
    /// let tasks = Background::builder("reports").observers(Observers::new().with(Arc::new(listen))).build()?;
    /// let mut task = None;
    /// drop(tasks.detach(|it| task = Some(it), async { Ok::<(), ()>(()) }));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(task.unwrap());
    /// assert_eq!(told.try_iter().collect::<Vec<_>>(), ["left_running", "ended_late"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
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
    /// use resilience_core::Background;
    ///
    /// let error = Background::builder("render").max_running(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`render.max_running` is 0; allowed: 1 to 4294967295");
    /// ```
    pub fn build(self) -> Result<Background, ConfigError> {
        config::name(&self.name)?;
        let max_running = config::in_range(&self.name, "max_running", self.max_running, &1, &u32::MAX)?;
        let room = Bulkhead::builder(self.name).max_concurrent(max_running).max_waiting(0);
        let room = room.clock(self.clock.clone()).observers(self.observers.clone()).build()?;
        let (left_behind, ended_late) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Background(Arc::new(Shared { clock: self.clock, observers: self.observers, room, left_behind, ended_late })))
    }
}
