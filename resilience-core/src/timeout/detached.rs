//! The two ends of an operation in the background: the one that runs it and the one that waits for it. Either can be
//! gone before the other. A result has exactly one fate: it is handed over, or its loss is told to the observers.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::background::Running;
use crate::class::Severity;
use crate::clock::Instant;
use crate::outcome::{Error, ErrorKind, Reason, Rejection};
use crate::sync::{Mutex, lock};
use crate::wait;

/// How an operation came to its end.
pub(super) enum End<T, E> {
    Result(Result<T, E>),
    Panicked(Box<dyn Any + Send>),
    /// The executor dropped it.
    Dropped,
}

impl<T, E> End<T, E> {
    pub(super) fn of(operation: impl FnOnce() -> Result<T, E>) -> Self {
        // What is unwind safe or not is the waiter's business: it gets the panic.
        match catch_unwind(AssertUnwindSafe(operation)) {
            Ok(result) => Self::Result(result),
            Err(panic) => Self::Panicked(panic),
        }
    }

    fn told(&self) -> (Severity, &'static str) {
        match self {
            Self::Result(Ok(_)) => (Severity::Low, "succeeded"),
            Self::Result(Err(_)) => (Severity::Medium, "failed"),
            Self::Panicked(_) => (Severity::High, "panicked"),
            Self::Dropped => (Severity::High, "was dropped by its executor"),
        }
    }
}

enum Slot<T, E> {
    /// With what wakes who waits.
    Running(Option<Waker>),
    Ended(End<T, E>),
    LeftBehind,
    Over,
}

struct Shared<T, E> {
    slot: Mutex<Slot<T, E>>,
    background: super::Background,
    started: Instant,
}

/// The end that runs the operation. Dropping it without an end says that the operation was dropped.
pub(super) struct Handle<T, E> {
    shared: Arc<Shared<T, E>>,
    /// Gone when the operation has ended.
    room: Option<crate::bulkhead::Permit<'static>>,
}

impl<T, E> Handle<T, E> {
    pub(super) fn end(mut self, end: End<T, E>) {
        self.finish(end);
    }

    fn finish(&mut self, end: End<T, E>) {
        // Before anybody hears of the end: who then asks for room finds it.
        let Some(room) = self.room.take() else { return };
        drop(room);
        let Shared { slot, background, started } = &*self.shared;
        let mut slot = lock(slot);
        match std::mem::replace(&mut *slot, Slot::Over) {
            Slot::Running(waker) => {
                *slot = Slot::Ended(end);
                drop(slot);
                waker.into_iter().for_each(wait::wake);
            }
            Slot::LeftBehind => {
                background.count_left_behind(true);
                drop(slot);
                let (severity, how) = end.told();
                background.tell_ended_late(severity, how, *started);
            }
            Slot::Ended(_) | Slot::Over => {}
        }
    }
}

impl<T, E> Drop for Handle<T, E> {
    fn drop(&mut self) {
        self.finish(End::Dropped);
    }
}

/// The result of an operation that runs in the background: made by
/// [`Background::on_thread`](super::Background::on_thread) and [`Background::detach`](super::Background::detach).
///
/// Dropping it leaves the operation to itself. When that ends, observers are told that its result was lost.
///
/// ```
/// use resilience_core::Background;
/// use resilience_core::timeout::Detached;
///
/// let threads = Background::builder("sums").build()?;
/// let sum: Detached<u64, std::convert::Infallible> = threads.on_thread(|| Ok((1..=10).sum()));
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// assert_eq!(runtime.block_on(sum)?, 55);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it leaves the operation behind"]
pub struct Detached<T, E> {
    state: State<T, E>,
}

enum State<T, E> {
    Waiting(Arc<Shared<T, E>>),
    Refused(Rejection),
    Over,
}

impl<T, E> fmt::Debug for Detached<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = matches!(self.state, State::Waiting(_));
        f.debug_struct("Detached").field("waiting", &waiting).finish()
    }
}

// Nothing in it is pinned.
impl<T, E> Unpin for Detached<T, E> {}

impl<T, E> Detached<T, E> {
    pub(super) fn running(running: Running) -> (Handle<T, E>, Self) {
        let Running { background, room, started } = running;
        let shared = Arc::new(Shared { slot: Mutex::new(Slot::Running(None)), background, started });
        (Handle { shared: Arc::clone(&shared), room: Some(room) }, Self { state: State::Waiting(shared) })
    }

    pub(super) fn refused(rejection: Rejection) -> Self {
        Self { state: State::Refused(rejection) }
    }

    /// There was no operation after all: nobody needs to hear of it.
    pub(super) fn forget(mut self) {
        self.state = State::Over;
    }
}

impl<T, E> Future for Detached<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = match &self.state {
            State::Waiting(shared) => Arc::clone(shared),
            State::Refused(_) => {
                let State::Refused(rejection) = std::mem::replace(&mut self.state, State::Over) else {
                    unreachable!("just seen")
                };
                return Poll::Ready(Err(rejection.into()));
            }
            State::Over => panic!("a future is not polled after its end"),
        };
        let waker = cx.waker().clone();
        let mut slot = lock(&shared.slot);
        if let Slot::Running(before) = &mut *slot {
            let before = before.replace(waker);
            drop(slot);
            drop(before);
            return Poll::Pending;
        }
        let ended = std::mem::replace(&mut *slot, Slot::Over);
        drop(slot);
        self.state = State::Over;
        match ended {
            Slot::Ended(End::Result(result)) => Poll::Ready(result.map_err(|error| Error {
                kind: ErrorKind::Operation(error),
                attempts: 1,
                stopped: None,
            })),
            Slot::Ended(End::Panicked(panic)) => resume_unwind(panic),
            Slot::Ended(End::Dropped) => Poll::Ready(Err(shared.background.reject(Reason::TaskDropped).into())),
            Slot::Running(_) | Slot::LeftBehind | Slot::Over => unreachable!("only who waits takes the result"),
        }
    }
}

impl<T, E> Drop for Detached<T, E> {
    fn drop(&mut self) {
        let State::Waiting(shared) = &self.state else { return };
        let Shared { slot, background, started } = &**shared;
        let mut slot = lock(slot);
        match std::mem::replace(&mut *slot, Slot::Over) {
            Slot::Running(waker) => {
                *slot = Slot::LeftBehind;
                background.count_left_behind(false);
                drop(slot);
                drop(waker);
                background.tell_left_running();
            }
            Slot::Ended(end) => {
                drop(slot);
                let (severity, how) = end.told();
                background.tell_ended_late(severity, how, *started);
            }
            Slot::LeftBehind | Slot::Over => {}
        }
    }
}

pin_project! {
    /// An operation on its way to an executor: a future without a result, to be run to its end. A panic of the operation is
    /// kept for who waits for it.
    ///
    /// ```
    /// use resilience_core::Background;
    /// use resilience_core::timeout::Task;
    ///
    /// let tasks = Background::builder("sums").build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// // An executor that runs the task on the spot.
    /// let spawn = |task: Task<_, u32, std::convert::Infallible>| runtime.block_on(task);
    /// let sum = tasks.detach(spawn, async { Ok(55) });
    /// assert_eq!(runtime.block_on(sum)?, 55);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "an executor must run it"]
    pub struct Task<F, T, E> {
        // Declared, and so dropped, before the handle: an operation that is dropped is gone when that is told.
        #[pin]
        operation: Option<F>,
        handle: Option<Handle<T, E>>,
    }
}

impl<F, T, E> Task<F, T, E> {
    pub(super) fn new(operation: F, handle: Handle<T, E>) -> Self {
        Self { operation: Some(operation), handle: Some(handle) }
    }
}

impl<F, T, E> fmt::Debug for Task<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("running", &self.handle.is_some()).finish_non_exhaustive()
    }
}

impl<F: Future<Output = Result<T, E>>, T, E> Future for Task<F, T, E> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(operation) = this.operation.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let end = match catch_unwind(AssertUnwindSafe(|| operation.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => End::Result(result),
            Err(panic) => End::Panicked(panic),
        };
        // What it holds is given back before anybody hears of the end.
        this.operation.set(None);
        if let Some(handle) = this.handle.take() {
            handle.end(end);
        }
        Poll::Ready(())
    }
}
