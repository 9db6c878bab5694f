//! A flag that is raised once and that threads and futures can wait for. Raising it never blocks on who waits.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Says once, to everyone who holds a clone, that it is time to stop.
///
/// ```
/// use resilience_health::shutdown::CancelToken;
///
/// let token = CancelToken::new();
/// let loop_token = token.clone();
/// let worker = std::thread::spawn(move || {
///     while !loop_token.is_cancelled() {
///         std::thread::yield_now();
///     }
/// });
/// token.cancel();
/// worker.join().unwrap();
/// ```
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    wakers: Mutex<Wakers>,
    raised: Condvar,
}

#[derive(Default)]
struct Wakers {
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken").field(&self.is_cancelled()).finish()
    }
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag. Doing it again changes nothing.
    pub fn cancel(&self) {
        let wakers = {
            let mut wakers = self.lock();
            // Release: who sees the flag sees what was done before it was raised.
            self.0.cancelled.store(true, Ordering::Release);
            std::mem::take(&mut wakers.waiting)
        };
        self.0.raised.notify_all();
        // Woken outside the lock: a waker may run code that looks at the token.
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    /// Has it been raised?
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Blocks until it is raised.
    pub fn wait(&self) {
        let mut wakers = self.lock();
        while !self.is_cancelled() {
            wakers = self.0.raised.wait(wakers).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Completes when it is raised. Works under any executor; dropping it leaves nothing behind.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { token: self.clone(), key: None }
    }

    fn lock(&self) -> MutexGuard<'_, Wakers> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that completes when its token is cancelled. Made by [`CancelToken::cancelled`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Cancelled {
    token: CancelToken,
    key: Option<u64>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let token = self.token.clone();
        let mut wakers = token.lock();
        // Looked at under the lock that `cancel` raises it under, so no wake-up falls between look and registration.
        if token.is_cancelled() {
            return Poll::Ready(());
        }
        let key = if let Some(key) = self.key {
            key
        } else {
            wakers.next += 1;
            wakers.next
        };
        wakers.waiting.insert(key, cx.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.token.lock().waiting.remove(&key);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn cancelling_wakes_every_future_once_and_a_dropped_one_leaves_nothing() {
        let token = CancelToken::new();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut first = pin!(token.cancelled());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        {
            let mut dropped = pin!(token.cancelled());
            assert!(dropped.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(token.lock().waiting.len(), 1);
        token.cancel();
        token.cancel();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(first.as_mut().poll(&mut cx).is_ready());
        assert!(pin!(token.cancelled()).poll(&mut cx).is_ready(), "later ones complete at once");
        token.wait();
    }
}
