//! The answer to a durable append: waited for on a thread or awaited under any executor.
//! Every acknowledgement is answered exactly once, even when the writer is dropped or panics.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::AppendError;
use crate::hash::Anchor;

/// The outcome of making an event durable: the anchor of its record, or why it is not in the log.
pub type Acknowledged = Result<Anchor, AppendError>;

#[derive(Default)]
struct Cell {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    answer: Option<Acknowledged>,
    waker: Option<Waker>,
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the event's record is durable: after the `fdatasync` of its group, never before.
///
/// [`wait`](Self::wait) for it on a thread, or `.await` it; no runtime is needed. Dropping it does not take the event
/// back.
#[must_use = "the event is durable only once this has resolved"]
pub struct Acknowledgement(Arc<Cell>);

impl Acknowledgement {
    /// Blocks until the record is durable and returns its anchor.
    ///
    /// # Errors
    /// When the event could not be made durable: it is not in the log then.
    pub fn wait(self) -> Acknowledged {
        let mut state = self.0.lock();
        loop {
            if let Some(answer) = &state.answer {
                return answer.clone();
            }
            state = self.0.answered.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks for at most `max`; `None` when there was no answer by then. It can be asked again.
    pub fn wait_at_most(&self, max: Duration) -> Option<Acknowledged> {
        let begin = Instant::now();
        let mut state = self.0.lock();
        while state.answer.is_none() {
            let left = max.checked_sub(begin.elapsed()).filter(|left| !left.is_zero())?;
            state = self.0.answered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.answer.clone()
    }

    /// Whether the answer is there.
    pub fn is_ready(&self) -> bool {
        self.0.lock().answer.is_some()
    }

    /// One that is answered already.
    pub(crate) fn ready(answer: Acknowledged) -> Self {
        let (acknowledger, acknowledgement) = pair();
        acknowledger.answer(answer);
        acknowledgement
    }
}

impl Future for Acknowledgement {
    type Output = Acknowledged;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if let Some(answer) = &state.answer {
            return Poll::Ready(answer.clone());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl fmt::Debug for Acknowledgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledgement").field("answer", &self.0.lock().answer).finish()
    }
}

/// The writer's side: answers once. Dropped without an answer, it says that the log is closed.
pub(crate) struct Acknowledger(Option<Arc<Cell>>);

pub(crate) fn pair() -> (Acknowledger, Acknowledgement) {
    let cell = Arc::new(Cell::default());
    (Acknowledger(Some(Arc::clone(&cell))), Acknowledgement(cell))
}

impl Acknowledger {
    pub(crate) fn answer(mut self, answer: Acknowledged) {
        self.settle(answer);
    }

    fn settle(&mut self, answer: Acknowledged) {
        let Some(cell) = self.0.take() else { return };
        let waker = {
            let mut state = cell.lock();
            state.answer = Some(answer);
            state.waker.take()
        };
        cell.answered.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Acknowledger {
    fn drop(&mut self) {
        self.settle(Err(AppendError::Closed));
    }
}

impl fmt::Debug for Acknowledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acknowledger")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_answer_wakes_the_task_that_polled_last_and_only_it() {
        let (acknowledger, mut acknowledgement) = pair();
        let (first, second) = (Arc::new(Count(AtomicU32::new(0))), Arc::new(Count(AtomicU32::new(0))));
        for count in [&first, &second] {
            let waker = Waker::from(Arc::clone(count));
            assert!(Pin::new(&mut acknowledgement).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let anchor = Anchor { sequence: 3, hash: Hash::ZERO };
        acknowledger.answer(Ok(anchor));
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
        assert_eq!(acknowledgement.wait(), Ok(anchor));
    }

    #[test]
    fn a_writer_that_goes_away_answers_what_it_leaves_behind() {
        let (acknowledger, acknowledgement) = pair();
        assert_eq!(acknowledgement.wait_at_most(Duration::ZERO), None);
        drop(acknowledger);
        assert_eq!(acknowledgement.wait(), Err(AppendError::Closed));
    }
}
