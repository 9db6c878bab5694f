//! Ordered shutdown: phases with budgets, handlers in reverse order of dependency, a report of all of it.
//! A failing, panicking or hanging handler never keeps another from running, and nothing can use up the time of flush.
//!
//! [`Shutdown::run`] waits for a request, then does it all:
//!
//! ```
//! use resilience_health::shutdown::{Handler, Shutdown};
//!
//! let shutdown = Shutdown::builder()
//!     .handler(Handler::close("database", || Ok::<(), std::io::Error>(())))
//!     .handler(Handler::close("http server", || -> Result<(), String> { Err("port already closed".into()) })
//!         .depends_on(["database"]))
//!     .handler(Handler::flush("audit log", || Ok::<(), std::io::Error>(())))
//!     .build()?;
//!
//! shutdown.request("end of the example");
//! let report = shutdown.run();
//! let names: Vec<_> = report.handlers.iter().map(|handler| handler.name.as_str()).collect();
//! assert_eq!(names, ["http server", "database", "audit log"]); // all of them, whatever the first one did
//! assert_eq!(report.exit_code(), 1);
//! # Ok::<(), resilience_health::shutdown::ShutdownError>(())
//! ```

mod handler;
mod phase;
mod report;
mod sequence;
#[cfg(feature = "signals")]
mod signals;
mod token;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use resilience_core::Clock;

pub use handler::{Handler, IntoHandlerResult, ShutdownError};
pub use phase::{Budgets, Phase};
pub use report::{HandlerOutcome, HandlerReport, PhaseOutcome, PhaseReport, ShutdownReason, ShutdownReport};
pub use sequence::SignalStep;
#[cfg(feature = "signals")]
pub use signals::Signals;
pub use token::{CancelToken, Cancelled};

use handler::{Action, Plan, validate};
use sequence::{Sequence, Step};

use crate::monitor::{HealthMonitor, panic_message};
use crate::wait::{Bell, Waiter};

/// A shutdown of this process, to be requested and run. Cheap to clone; all clones are the same shutdown.
///
/// See the [module](self) for an example.
#[derive(Clone)]
pub struct Shutdown(Arc<Inner>);

struct Inner {
    clock: Clock,
    monitor: Option<HealthMonitor>,
    listeners: Vec<Listener>,
    state: Mutex<State>,
    finished: Condvar,
    in_flight: AtomicUsize,
    accepting: AtomicBool,
    drain: CancelToken,
    cancel: CancelToken,
}

struct State {
    sequence: Sequence,
    /// What each handler does, until it is called; in the order of the sequence's plans.
    actions: Vec<Option<Action>>,
    /// Wakes the thread that runs the shutdown.
    bell: Option<Bell>,
    report: Option<Arc<ShutdownReport>>,
}

type Listener = Box<dyn Fn(&ShutdownEvent<'_>) + Send + Sync>;

/// What a listener hears while the shutdown runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum ShutdownEvent<'a> {
    /// A phase has begun.
    PhaseEntered {
        /// Which.
        phase: Phase,
        /// Who asked for the shutdown.
        reason: &'a ShutdownReason,
    },
    /// A handler has ended, or was left behind.
    HandlerFinished(&'a HandlerReport),
}

/// Collects handlers and settings. Made by [`Shutdown::builder`].
#[derive(Default)]
#[must_use = "call `build`"]
pub struct ShutdownBuilder {
    clock: Clock,
    budgets: Budgets,
    monitor: Option<HealthMonitor>,
    handlers: Vec<Handler>,
    listeners: Vec<Listener>,
}

impl fmt::Debug for ShutdownBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownBuilder")
            .field("budgets", &self.budgets)
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("phase", &self.phase()).field("in_flight", &self.in_flight()).finish()
    }
}

impl ShutdownBuilder {
    /// The clock of every budget and limit. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How long each phase may take.
    pub fn budgets(mut self, budgets: Budgets) -> Self {
        self.budgets = budgets;
        self
    }

    /// The monitor whose readiness says no from [`Phase::NotReady`] on.
    pub fn monitor(mut self, monitor: &HealthMonitor) -> Self {
        self.monitor = Some(monitor.clone());
        self
    }

    /// Registers a handler.
    pub fn handler(mut self, handler: Handler) -> Self {
        self.handlers.push(handler);
        self
    }

    /// Calls `listener` as the shutdown goes on, on the thread that runs it. It should hand over and return: the time it
    /// takes is the shutdown's. Its panics are caught.
    pub fn on_event(mut self, listener: impl Fn(&ShutdownEvent<'_>) + Send + Sync + 'static) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Builds the shutdown. Nothing happens until it is requested and run.
    ///
    /// # Errors
    /// [`ShutdownError`] for budgets that cannot be used or do not fit the grace period, handlers registered twice, unknown
    /// or circular dependencies, and time limits that do not fit their phase; each names the handlers.
    pub fn build(self) -> Result<Shutdown, ShutdownError> {
        self.budgets.validate()?;
        let plans: Vec<Plan> = self.handlers.iter().map(Plan::from).collect();
        validate(&plans, &self.budgets)?;
        let state = State {
            sequence: Sequence::new(self.budgets, plans),
            actions: self.handlers.into_iter().map(|handler| Some(handler.action)).collect(),
            bell: None,
            report: None,
        };
        Ok(Shutdown(Arc::new(Inner {
            clock: self.clock,
            monitor: self.monitor,
            listeners: self.listeners,
            state: Mutex::new(state),
            finished: Condvar::new(),
            in_flight: AtomicUsize::new(0),
            accepting: AtomicBool::new(true),
            drain: CancelToken::new(),
            cancel: CancelToken::new(),
        })))
    }
}

impl Shutdown {
    /// Starts with the default budgets, no handlers, and the system clock.
    pub fn builder() -> ShutdownBuilder {
        ShutdownBuilder::default()
    }

    /// Registers a handler while the program runs.
    ///
    /// # Errors
    /// [`ShutdownError`] as at [`build`](ShutdownBuilder::build), and when the shutdown has begun. The handlers registered
    /// before stay as they are.
    pub fn register(&self, handler: Handler) -> Result<(), ShutdownError> {
        let mut state = self.0.lock();
        state.sequence.register(Plan::from(&handler))?;
        state.actions.push(Some(handler.action));
        Ok(())
    }

    /// Asks for the shutdown. True for the request that began it; later ones change nothing.
    pub fn request(&self, reason: impl Into<String>) -> bool {
        let mut state = self.0.lock();
        let first = state.sequence.request(ShutdownReason::Requested(reason.into()), self.0.clock.now());
        state.ring();
        first
    }

    /// Goes to [`Phase::Close`] at once and shortens it, as a second signal does. Requests the shutdown if nobody has.
    pub fn escalate(&self) {
        let mut state = self.0.lock();
        state.sequence.escalate(self.0.clock.now());
        state.ring();
    }

    /// Takes a signal: the first begins the shutdown, the second goes to closing with little time, the third says to
    /// exit. For programs that receive signals in their own way; the feature `signals` receives them for you.
    pub fn signal(&self, number: i32) -> SignalStep {
        let mut state = self.0.lock();
        let step = state.sequence.signal(number, self.0.clock.now());
        state.ring();
        step
    }

    /// The phase it is in; none until it is requested.
    pub fn phase(&self) -> Option<Phase> {
        self.0.lock().sequence.phase()
    }

    /// Has it been requested?
    pub fn is_requested(&self) -> bool {
        self.phase().is_some()
    }

    /// Raised when [`Phase::Drain`] begins: stop accepting.
    pub fn drain_token(&self) -> CancelToken {
        self.0.drain.clone()
    }

    /// Raised when [`Phase::Cancel`] begins: stop what is in flight.
    pub fn cancel_token(&self) -> CancelToken {
        self.0.cancel.clone()
    }

    /// Counts a request as in flight until the guard is dropped; none from [`Phase::Drain`] on, when nothing new is
    /// accepted.
    pub fn track(&self) -> Option<InFlight> {
        // Counted first and then looked, both sequentially consistent, as the drain does the opposite: either it sees
        // this request or this request sees it.
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        let guard = InFlight(Arc::clone(&self.0));
        self.0.accepting.load(Ordering::SeqCst).then_some(guard)
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until the shutdown is requested, then runs it to its end. Takes at most [`Budgets::total`] from the request.
    ///
    /// Called a second time, from any thread, it waits for the same end and returns the same report.
    pub fn run(&self) -> Arc<ShutdownReport> {
        let waiter = Waiter::new();
        {
            let mut state = self.0.lock();
            if state.bell.is_some() || state.report.is_some() {
                return self.0.wait_for_report(state);
            }
            state.bell = Some(waiter.bell());
        }
        self.drive(&waiter)
    }

    fn drive(&self, waiter: &Waiter) -> Arc<ShutdownReport> {
        let inner = &self.0;
        let mut told = 0;
        loop {
            let mut state = inner.lock();
            let step = state.sequence.next(inner.in_flight.load(Ordering::SeqCst), inner.clock.now());
            let ended: Vec<HandlerReport> = state.sequence.handlers()[told..].to_vec();
            let reason = state.sequence.reason().cloned();
            let action = match step {
                Step::Run(index) => state.actions[index].take(),
                _ => None,
            };
            drop(state);
            told += ended.len();
            for report in &ended {
                inner.tell(&ShutdownEvent::HandlerFinished(report));
            }
            match step {
                Step::Enter(phase) => {
                    inner.enter(phase);
                    if let Some(reason) = &reason {
                        inner.tell(&ShutdownEvent::PhaseEntered { phase, reason });
                    }
                }
                Step::Run(index) => self.call(index, action),
                Step::Wait(deadline) => waiter.wait(&inner.clock, deadline),
                Step::Done => break,
            }
        }
        let mut state = inner.lock();
        let report = Arc::new(state.sequence.report());
        state.report = Some(Arc::clone(&report));
        drop(state);
        inner.finished.notify_all();
        report
    }

    /// Calls a handler on a thread of its own, so that it can be left behind.
    fn call(&self, index: usize, action: Option<Action>) {
        // In a slot both sides can take it from: it must run even when the system gives no thread.
        let slot = Arc::new(Mutex::new(action));
        let (shared, theirs) = (self.clone(), Arc::clone(&slot));
        let spawned = thread::Builder::new()
            .name("shutdown-handler".to_owned())
            .spawn(move || shared.0.run_handler(index, &theirs));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a shutdown handler: it runs without a time limit");
            self.0.run_handler(index, &slot);
        }
    }
}

impl State {
    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of users runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        match phase {
            Phase::NotReady => {
                if let Some(monitor) = &self.monitor {
                    monitor.set_draining(true);
                }
            }
            Phase::Drain => {
                self.accepting.store(false, Ordering::SeqCst);
                self.drain.cancel();
            }
            Phase::Cancel => self.cancel.cancel(),
            Phase::Requested | Phase::Close | Phase::Flush | Phase::Exit => {}
        }
    }

    fn tell(&self, event: &ShutdownEvent<'_>) {
        match event {
            ShutdownEvent::PhaseEntered { phase, reason } => {
                tracing::info!(phase = phase.as_str(), %reason, "shutdown phase");
            }
            ShutdownEvent::HandlerFinished(report) => {
                tracing::info!(handler = report.name, outcome = %report.outcome, "shutdown handler");
            }
        }
        for listener in &self.listeners {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(event))) {
                tracing::error!(panic = panic_message(&*panic), "a shutdown listener panicked");
            }
        }
    }

    fn run_handler(&self, index: usize, slot: &Mutex<Option<Action>>) {
        let action = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(action) = action else { return };
        let outcome = match catch_unwind(AssertUnwindSafe(action)) {
            Ok(Ok(())) => HandlerOutcome::Completed,
            Ok(Err(message)) => HandlerOutcome::Failed(message),
            Err(panic) => HandlerOutcome::Panicked(panic_message(&*panic).to_owned()),
        };
        let mut state = self.lock();
        state.sequence.finished(index, outcome, self.clock.now());
        state.ring();
    }

    fn wait_for_report(&self, mut state: MutexGuard<'_, State>) -> Arc<ShutdownReport> {
        loop {
            if let Some(report) = &state.report {
                return Arc::clone(report);
            }
            state = self.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One request in flight, counted until this is dropped. Made by [`Shutdown::track`].
#[must_use = "the request counts as finished when this is dropped"]
pub struct InFlight(Arc<Inner>);

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight")
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let before = self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        // Only a drain waits for it, and only for the last one.
        if before == 1 && !self.0.accepting.load(Ordering::SeqCst) {
            self.0.lock().ring();
        }
    }
}
