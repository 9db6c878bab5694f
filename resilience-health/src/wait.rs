//! Waiting for an instant of any clock or for a bell, whichever comes first, without polling.
//! A bell rung before the wait ends it at once: nothing is missed.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use crossbeam_utils::sync::{Parker, Unparker};
use resilience_core::{Clock, Instant};

/// Ends the wait of the thread that owns the [`Waiter`].
#[derive(Debug, Clone)]
pub(crate) struct Bell(Unparker);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.unpark();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// One thread's place to wait.
pub(crate) struct Waiter {
    parker: Parker,
    waker: Waker,
}

impl Waiter {
    pub(crate) fn new() -> Self {
        let parker = Parker::new();
        let waker = Waker::from(Arc::new(Bell(parker.unparker().clone())));
        Self { parker, waker }
    }

    pub(crate) fn bell(&self) -> Bell {
        Bell(self.parker.unparker().clone())
    }

    /// Returns when `deadline` has come or the bell has been rung; sometimes earlier, so the caller looks and waits
    /// again. Without a deadline only the bell ends it.
    pub(crate) fn wait(&self, clock: &Clock, deadline: Option<Instant>) {
        let Some(deadline) = deadline else {
            self.parker.park();
            return;
        };
        let mut sleep = pin!(clock.sleep_until(deadline));
        // The waker rings the same bell, so one park serves both; dropping the sleep takes its timer away.
        if sleep.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending() {
            self.parker.park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bell_rung_before_the_wait_ends_it() {
        let (clock, _time) = Clock::manual();
        let waiter = Waiter::new();
        waiter.bell().ring();
        waiter.wait(&clock, Some(clock.now() + Duration::from_secs(1)));
        waiter.bell().ring();
        waiter.wait(&clock, None);
    }

    #[test]
    fn the_clock_ends_the_wait_from_another_thread() {
        let (clock, time) = Clock::manual();
        let deadline = clock.now() + Duration::from_secs(1);
        let other = clock.clone();
        let waiting = std::thread::spawn(move || {
            let waiter = Waiter::new();
            while other.now() < deadline {
                waiter.wait(&other, Some(deadline));
            }
        });
        time.advance(Duration::from_secs(1));
        waiting.join().expect("the wait ends");
    }
}
