//! The monitor: builds checks into an engine, publishes snapshots, answers probes, tells listeners.
//! Probes read the published snapshot; the lock around it is held for a pointer's copy and never while a check runs.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use resilience_core::{Clock, ConfigError, Instant};

use crate::aggregate::assemble;
use crate::background::{Background, Pool};
use crate::check::{CheckContext, CheckResult};
use crate::engine::{Engine, Job};
use crate::error::{BuildError, LookupError, StartError};
use crate::graph::{Graph, names};
use crate::record::Moment;
use crate::snapshot::{History, Snapshot, Summary, Transition, Verdict};
use crate::spec::CheckSpec;
use crate::status::Status;

/// A snapshot in which only response times are new may be this much behind; a changed status is shown at once.
const LAZY: Duration = Duration::from_millis(100);

/// Watches registered checks and answers how the process is, at once and without running anything.
///
/// Checks run in the background after [`start`](Self::start), or on your own thread at each [`tick`](Self::tick). Cheap to
/// clone; all clones are the same monitor.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Clock;
/// use resilience_health::{CheckResult, CheckSpec, HealthMonitor, Status};
///
/// let (clock, time) = Clock::manual();
/// let monitor = HealthMonitor::builder()
///     .clock(clock)
///     .check(CheckSpec::readiness("cache", || CheckResult::healthy("412 entries")))
///     .check(CheckSpec::pushed("index", Duration::from_secs(30)))
///     .build()?;
/// assert_eq!(monitor.status(), Status::Degraded); // nothing is known yet
///
/// monitor.tick();
/// monitor.push("index", CheckResult::healthy("fresh"))?;
/// assert_eq!(monitor.status(), Status::Healthy);
///
/// time.advance(Duration::from_secs(31)); // nobody pushed, nobody checked
/// assert_eq!(monitor.status(), Status::Degraded);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HealthMonitor {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for HealthMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        f.debug_struct("HealthMonitor")
            .field("status", &snapshot.status)
            .field("checks", &snapshot.checks.len())
            .finish_non_exhaustive()
    }
}

/// Collects checks and settings. Made by [`HealthMonitor::builder`].
#[derive(Default)]
#[must_use = "call `build`"]
pub struct MonitorBuilder {
    clock: Clock,
    specs: Vec<CheckSpec>,
    workers: Option<usize>,
    spare_workers: Option<usize>,
    listeners: Vec<Listener>,
}

impl fmt::Debug for MonitorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorBuilder").field("checks", &self.specs).finish_non_exhaustive()
    }
}

struct Listener {
    call: Box<dyn Fn(&Transition) + Send + Sync>,
    broken: AtomicBool,
}

pub(crate) struct Inner {
    pub(crate) clock: Clock,
    graph: Graph,
    state: Mutex<State>,
    /// Wakes workers when checks are queued.
    pub(crate) work: Condvar,
    published: RwLock<Arc<Snapshot>>,
    draining: AtomicBool,
    listeners: Vec<Listener>,
    delivering: AtomicBool,
}

pub(crate) struct State {
    pub(crate) engine: Engine,
    pub(crate) pool: Pool,
    /// When a snapshot with nothing but new response times is published.
    pub(crate) publish_at: Option<Instant>,
}

/// What one [`tick`](HealthMonitor::tick) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// How many checks ran on the calling thread.
    pub ran: usize,
    /// When the next tick has something to do.
    pub next: Option<Instant>,
}

impl MonitorBuilder {
    /// The clock of every decision. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Registers a check.
    pub fn check(mut self, spec: CheckSpec) -> Self {
        self.specs.push(spec);
        self
    }

    /// How many checks run at the same time in the background, 1 to 256. Default 4.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How many further workers may replace ones that hang in a check, 0 to 256. Default 8. When more hang, checks have to
    /// wait, grow old and show as unknown.
    pub fn spare_workers(mut self, workers: usize) -> Self {
        self.spare_workers = Some(workers);
        self
    }

    /// Calls `listener` at every change of a check's status, in order, one at a time, outside of all locks. It should
    /// hand over and return; one that panics is not called again.
    pub fn on_transition(mut self, listener: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.listeners.push(Listener { call: Box::new(listener), broken: AtomicBool::new(false) });
        self
    }

    /// Builds the monitor. Nothing runs yet.
    ///
    /// # Errors
    /// [`BuildError`] for a name given twice, an unknown dependency, dependencies in a circle, and values that cannot be
    /// used; each names the check.
    pub fn build(self) -> Result<HealthMonitor, BuildError> {
        let workers = self.workers.unwrap_or(4);
        let spare = self.spare_workers.unwrap_or(8);
        if !(1..=256).contains(&workers) {
            return Err(ConfigError::new("workers", workers, "1 to 256").into());
        }
        if spare > 256 {
            return Err(ConfigError::new("spare_workers", spare, "0 to 256").into());
        }
        for spec in &self.specs {
            spec.validate()?;
        }
        let graph = Graph::build(&self.specs)?;
        let now = self.clock.now();
        let engine = Engine::new(self.specs, now);
        let snapshot = assemble(engine.views(), &graph, false, now, self.clock.wall());
        Ok(HealthMonitor {
            inner: Arc::new(Inner {
                clock: self.clock,
                graph,
                state: Mutex::new(State { engine, pool: Pool::new(workers, spare), publish_at: None }),
                work: Condvar::new(),
                published: RwLock::new(Arc::new(snapshot)),
                draining: AtomicBool::new(false),
                listeners: self.listeners,
                delivering: AtomicBool::new(false),
            }),
        })
    }
}

impl HealthMonitor {
    /// Starts with no checks and the system clock.
    pub fn builder() -> MonitorBuilder {
        MonitorBuilder::default()
    }

    /// The current picture. Runs no check and waits for none.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let now = self.inner.clock.now();
        let published = self.inner.published();
        if published.valid_until.is_none_or(|valid_until| now < valid_until) {
            return published;
        }
        // Results have grown old and nobody has noticed, as when the background thread is gone: work it out here.
        let draining = published.draining;
        Arc::new(assemble(published.checks.clone(), &self.inner.graph, draining, now, self.inner.clock.wall()))
    }

    /// Liveness: does the process need no restart?
    pub fn live(&self) -> Verdict {
        self.snapshot().live.clone()
    }

    /// Readiness: should the process get traffic?
    pub fn ready(&self) -> Verdict {
        self.snapshot().ready.clone()
    }

    /// Startup: has every startup check passed once?
    pub fn started(&self) -> Verdict {
        self.snapshot().started.clone()
    }

    /// The status of the whole.
    pub fn status(&self) -> Status {
        self.snapshot().status
    }

    /// The whole in a few lines; made from the snapshot, so no check runs for it.
    pub fn summary(&self) -> Summary {
        Summary(self.snapshot())
    }

    /// The newest `limit` results and changes of status of a check.
    ///
    /// # Errors
    /// [`LookupError::UnknownCheck`] when there is no such check.
    pub fn history(&self, check: &str, limit: usize) -> Result<History, LookupError> {
        let state = self.inner.lock();
        let index = find(&state.engine, check)?;
        Ok(state.engine.history(index, limit))
    }

    /// Pushes a result to a check registered with [`CheckSpec::pushed`]. Probes see it when this returns; listeners hear of a
    /// change on this thread, or on the one that is just telling them another.
    ///
    /// # Errors
    /// [`LookupError`] when there is no such check or the monitor runs it itself.
    pub fn push(&self, check: &str, result: CheckResult) -> Result<(), LookupError> {
        let mut state = self.inner.lock();
        let index = find(&state.engine, check)?;
        if !state.engine.push(index, result, self.inner.moment()) {
            return Err(LookupError::NotPushed { name: check.to_owned() });
        }
        self.inner.publish(&mut state);
        state.nudge();
        drop(state);
        self.inner.deliver();
        Ok(())
    }

    /// Makes a check due now instead of at its next interval. Does nothing while it runs or hangs, or for a startup check
    /// that has passed.
    ///
    /// # Errors
    /// [`LookupError`] when there is no such check or its results are pushed.
    pub fn trigger(&self, check: &str) -> Result<(), LookupError> {
        let mut state = self.inner.lock();
        let index = find(&state.engine, check)?;
        if !state.engine.trigger(index, self.inner.clock.now()) {
            return Err(LookupError::NotRun { name: check.to_owned() });
        }
        state.nudge();
        Ok(())
    }

    /// Says that the process is on its way out (or, with false, is not): readiness answers no, liveness stays.
    pub fn set_draining(&self, draining: bool) {
        let mut state = self.inner.lock();
        // Relaxed: read and written under the state's lock only.
        self.inner.draining.store(draining, Ordering::Relaxed);
        self.inner.publish(&mut state);
    }

    /// Takes one step: applies the passing of time, runs what is due, publishes, tells listeners.
    ///
    /// Without background workers the due checks run here, on the calling thread, one after the other: stepping a manual
    /// clock and ticking makes everything the monitor does reproducible. With background workers they are handed to
    /// those.
    pub fn tick(&self) -> Tick {
        let inner = &self.inner;
        let mut state = inner.lock();
        state.engine.advance(inner.moment());
        let mut ran = 0;
        if state.pool.is_running() {
            inner.work.notify_all();
            state.pool.ring();
        } else {
            while let Some(job) = state.engine.take(inner.clock.now()) {
                drop(state);
                let result = run(&job, &inner.clock);
                ran += 1;
                state = inner.lock();
                state.engine.complete(job.index, job.id, result, inner.moment());
            }
        }
        inner.publish(&mut state);
        let next = state.engine.next_event();
        drop(state);
        inner.deliver();
        Tick { ran, next }
    }

    /// Runs checks in the background, on worker threads, until the returned value is dropped.
    ///
    /// # Errors
    /// [`StartError`] when it already does, or the system gives no thread.
    pub fn start(&self) -> Result<Background, StartError> {
        Background::start(&self.inner)
    }
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code of users runs under this lock; a poisoned one would only mean a bug of ours, and probes must go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), wall: self.clock.wall() }
    }

    fn published(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new snapshot in place. Called with the state locked, so that a later state is never replaced by an earlier.
    pub(crate) fn publish(&self, state: &mut State) {
        let at = self.moment();
        // Relaxed: see `set_draining`.
        let draining = self.draining.load(Ordering::Relaxed);
        let snapshot = Arc::new(assemble(state.engine.views(), &self.graph, draining, at.now, at.wall));
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *published, snapshot);
        drop(published);
        drop(old); // outside the lock: it may be the last owner of a long list
        state.engine.dirty = false;
        state.engine.urgent = false;
        state.publish_at = None;
    }

    /// Publishes what cannot wait; returns when the rest must be published.
    pub(crate) fn publish_lazily(&self, state: &mut State) -> Option<Instant> {
        if !state.engine.dirty {
            return None;
        }
        let now = self.clock.now();
        let at = *state.publish_at.get_or_insert(now + LAZY);
        let grows_old = self.published().valid_until.is_some_and(|valid_until| valid_until <= now + LAZY * 2);
        if state.engine.urgent || grows_old || at <= now {
            self.publish(state);
            return None;
        }
        Some(at)
    }

    /// Tells listeners of the changes so far. Whoever comes while another thread is at it leaves them to that thread, so
    /// that order is kept and a listener may call the monitor.
    pub(crate) fn deliver(&self) {
        loop {
            // Acquire/release: one teller's calls happen before the next one's.
            if self.delivering.swap(true, Ordering::Acquire) {
                return;
            }
            while let Some(transition) = self.next_transition() {
                tracing::info!(
                    check = &*transition.check,
                    from = transition.from.as_str(),
                    to = transition.to.as_str(),
                    message = &*transition.message,
                    "health status changed"
                );
                for listener in &self.listeners {
                    // Relaxed: only the teller reads and writes it.
                    if !listener.broken.load(Ordering::Relaxed)
                        && let Err(panic) = catch_unwind(AssertUnwindSafe(|| (listener.call)(&transition)))
                    {
                        listener.broken.store(true, Ordering::Relaxed);
                        tracing::error!(
                            panic = panic_message(&*panic),
                            "a health listener panicked and is not called again"
                        );
                    }
                }
            }
            self.delivering.store(false, Ordering::Release);
            // One may have come after the last look and before the flag fell; its bringer has gone.
            if !self.lock().engine.has_transitions() {
                return;
            }
        }
    }

    fn next_transition(&self) -> Option<Transition> {
        self.lock().engine.next_transition()
    }
}

fn find(engine: &Engine, name: &str) -> Result<usize, LookupError> {
    engine.find(name).ok_or_else(|| LookupError::UnknownCheck {
        name: name.chars().take(140).collect(),
        registered: names(engine.names()),
    })
}

/// Runs a check; a panic is a result like any other.
pub(crate) fn run(job: &Job, clock: &Clock) -> CheckResult {
    let context = CheckContext::new(job.timeout, clock.clone());
    catch_unwind(AssertUnwindSafe(|| job.check.check(&context)))
        .unwrap_or_else(|panic| CheckResult::unhealthy(format!("panicked: {}", panic_message(&*panic))))
}

/// The message of a panic, as far as it has one.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "no message"
    }
}
