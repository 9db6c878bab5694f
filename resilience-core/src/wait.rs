//! How a thread waits for a future, and how others are woken: what the blocking faces are made of.
//! Nothing is polled in vain and no runtime is needed; a waker that panics disturbs nobody. Decides nothing.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_utils::sync::{Parker, Unparker};

struct Unpark(Unparker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// Whether the code on this thread is polled by a thread that waits for it.
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the code on this thread is polled by a thread that waits for it: no runtime goes on meanwhile that only this
/// thread could drive.
pub(crate) fn thread_waits() -> bool {
    WAITS.get()
}

/// Restores what was before, also when the future panics.
struct Waits {
    before: bool,
}

impl Drop for Waits {
    fn drop(&mut self) {
        WAITS.set(self.before);
    }
}

/// Blocks the thread until `future` is ready. A parker of its own, so that it nests in any executor's wait.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let _waits = Waits { before: WAITS.replace(true) };
    let parker = Parker::new();
    let waker = Waker::from(Arc::new(Unpark(parker.unparker().clone())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => parker.park(),
        }
    }
}

/// Wakes a task of somebody else's executor: one that is broken must not keep everybody else asleep.
pub(crate) fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("a task panicked when it was woken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn a_thread_waits_for_the_manual_clock() {
        let (clock, time) = Clock::manual();
        let deadline = clock.now() + Duration::from_secs(1);
        let other = clock.clone();
        let waiting = std::thread::spawn(move || {
            block_on(other.sleep_until(deadline));
            other.now()
        });
        time.advance(Duration::from_secs(1));
        assert_eq!(waiting.join().unwrap(), deadline);
    }

    #[test]
    fn waits_nest() {
        let (clock, _time) = Clock::manual();
        let inner = async { block_on(async { clock.now() }) };
        assert_eq!(block_on(inner), clock.now());
    }
}
