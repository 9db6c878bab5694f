//! The thread shell around the engine: one scheduler that never runs a check, and a bounded pool of workers that do.
//! A worker that hangs is replaced, up to a bound; when its check returns after all, it leaves.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};

use resilience_core::Instant;

use crate::error::StartError;
use crate::monitor::{Inner, State, run};
use crate::wait::{Bell, Waiter};

/// Who works at the moment.
pub(crate) struct Pool {
    workers: usize,
    spare: usize,
    /// Worker threads that exist, hanging ones included.
    alive: usize,
    /// Wakes the scheduler; none when the monitor does not run in the background.
    bell: Option<Bell>,
    /// When the scheduler wakes by itself.
    planned: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(workers: usize, spare: usize) -> Self {
        Self { workers, spare, alive: 0, bell: None, planned: None }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.bell.is_some()
    }

    /// Wakes the scheduler.
    pub(crate) fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// How many workers to add so that `workers` are free of hanging checks, as far as the spare ones reach.
    fn missing(&self, stuck: usize) -> usize {
        (self.workers + stuck.min(self.spare)).saturating_sub(self.alive)
    }

    /// Is there one more than needed?
    fn has_surplus(&self, stuck: usize) -> bool {
        self.alive > self.workers + stuck.min(self.spare)
    }
}

impl State {
    /// Wakes the scheduler when it would sleep past what has just changed, or past the moment to publish it.
    pub(crate) fn nudge(&self) {
        let next = self.engine.next_event();
        let oversleeps = match (next, self.pool.planned) {
            (Some(next), Some(planned)) => next < planned,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let unpublished = self.engine.dirty && self.publish_at.is_none();
        if oversleeps || unpublished || self.engine.urgent {
            self.pool.ring();
        }
    }
}

/// Checks run in the background while this exists. Made by [`HealthMonitor::start`](crate::HealthMonitor::start).
///
/// Dropping it stops the scheduling and lets workers end after the check they are in; it does not wait for those.
#[must_use = "checks stop when this is dropped"]
pub struct Background {
    inner: Arc<Inner>,
    scheduler: Option<JoinHandle<()>>,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Background(..)")
    }
}

impl Background {
    pub(crate) fn start(inner: &Arc<Inner>) -> Result<Self, StartError> {
        let (bell_sender, bell_receiver) = std::sync::mpsc::sync_channel(1);
        let mut state = inner.lock();
        if state.pool.is_running() {
            return Err(StartError::AlreadyStarted);
        }
        let shared = Arc::clone(inner);
        let scheduler = thread::Builder::new().name("health".to_owned()).spawn(move || {
            let waiter = Waiter::new();
            // The starter holds the state's lock until it has the bell.
            if bell_sender.send(waiter.bell()).is_ok() {
                schedule(&shared, &waiter);
            }
        })?;
        state.pool.bell = bell_receiver.recv().ok();
        state.pool.planned = None;
        drop(state);
        Ok(Self { inner: Arc::clone(inner), scheduler: Some(scheduler) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.pool.ring();
        state.pool.bell = None;
        drop(state);
        self.inner.work.notify_all();
        if let Some(scheduler) = self.scheduler.take()
            && scheduler.thread().id() != thread::current().id()
        {
            // It cannot have panicked: it runs no code of users except listeners, whose panics are caught.
            let _ = scheduler.join();
        }
    }
}

fn schedule(inner: &Arc<Inner>, waiter: &Waiter) {
    loop {
        let mut state = inner.lock();
        if !state.pool.is_running() {
            return;
        }
        state.engine.advance(inner.moment());
        let publish_at = inner.publish_lazily(&mut state);
        let missing = state.pool.missing(state.engine.stuck());
        state.pool.alive += missing;
        let queued = state.engine.queued();
        let next = [state.engine.next_event(), publish_at].into_iter().flatten().min();
        state.pool.planned = next;
        drop(state);
        add_workers(inner, missing);
        if queued > 0 {
            inner.work.notify_all();
        }
        inner.deliver();
        waiter.wait(&inner.clock, next);
    }
}

fn add_workers(inner: &Arc<Inner>, count: usize) {
    for _ in 0..count {
        let shared = Arc::clone(inner);
        let spawned = thread::Builder::new().name("health-check".to_owned()).spawn(move || work(&shared));
        if let Err(error) = spawned {
            // Checks wait, grow old and show as unknown; the next wake-up tries again.
            inner.lock().pool.alive -= 1;
            tracing::error!(%error, "cannot start a thread for health checks");
        }
    }
}

fn work(inner: &Arc<Inner>) {
    let mut state = inner.lock();
    while state.pool.is_running() && !state.pool.has_surplus(state.engine.stuck()) {
        let Some(job) = state.engine.take(inner.clock.now()) else {
            state = inner.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.nudge();
        drop(state);
        let result = run(&job, &inner.clock);
        state = inner.lock();
        state.engine.complete(job.index, job.id, result, inner.moment());
        state.nudge();
    }
    state.pool.alive -= 1;
}
