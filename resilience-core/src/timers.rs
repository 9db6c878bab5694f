//! A sorted set of wakers, each due at an instant: what async waiting is made of.
//! Holds at most one waker per live sleep; wakers are other people's code, so they are cloned, called and dropped
//! outside the lock. Decides nothing.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use crate::clock::Clock;
use crate::clock::Instant;
use crate::wait;

/// Identifies one registered waker: when it is due, and a number that tells equal times apart.
pub(crate) type TimerKey = (Instant, u64);

#[derive(Default)]
struct Queue {
    wakers: BTreeMap<TimerKey, Waker>,
    next: u64,
}

#[derive(Default)]
pub(crate) struct Timers {
    queue: Mutex<Queue>,
    earlier: Condvar,
    /// Told when the first timer is due, where no thread waits for it.
    announce: Option<fn(Instant)>,
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Timers that no thread serves: `announce` is told whenever a timer comes to be the first.
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    pub(crate) fn announcing(announce: fn(Instant)) -> Self {
        Self { announce: Some(announce), ..Self::default() }
    }

    /// When the first timer is due.
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    pub(crate) fn first(&self) -> Option<Instant> {
        self.lock().wakers.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Registers `waker` for `deadline`, in the place of `previous` when given.
    pub(crate) fn register(&self, deadline: Instant, previous: Option<TimerKey>, waker: &Waker) -> TimerKey {
        let waker = waker.clone();
        let mut queue = self.lock();
        if let Some(key) = previous
            && let Some(entry) = queue.wakers.get_mut(&key)
        {
            let replaced = std::mem::replace(entry, waker);
            drop(queue);
            drop(replaced);
            return key;
        }
        let key = (deadline, queue.next);
        queue.next += 1;
        let is_first = queue.wakers.first_key_value().is_none_or(|(first, _)| key < *first);
        queue.wakers.insert(key, waker);
        drop(queue);
        if is_first {
            self.earlier.notify_one();
            if let Some(announce) = self.announce {
                announce(deadline);
            }
        }
        key
    }

    pub(crate) fn cancel(&self, key: TimerKey) {
        let removed = self.lock().wakers.remove(&key);
        drop(removed);
    }

    /// Wakes everything due at `now`.
    pub(crate) fn wake_due(&self, now: Instant) {
        let due = {
            let mut queue = self.lock();
            let later = queue.wakers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut queue.wakers, later)
        };
        for waker in due.into_values() {
            // One broken executor must not end the timer thread.
            wait::wake(waker);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().wakers.len()
    }

    /// Serves the timers for ever: the body of the timer thread.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub(crate) fn serve(&self, clock: &Clock) {
        loop {
            self.wake_due(clock.now());
            let queue = self.lock();
            let next = queue.wakers.first_key_value().map(|((deadline, _), _)| *deadline);
            // Waiting releases the lock, so nothing registered meanwhile is missed.
            match next {
                None => drop(self.earlier.wait(queue)),
                Some(deadline) => {
                    let wait = deadline.saturating_duration_since(clock.now());
                    if !wait.is_zero() {
                        drop(self.earlier.wait_timeout(queue, wait));
                    }
                }
            }
        }
    }
}
