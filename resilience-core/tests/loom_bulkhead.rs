//! What threads can do to a bulkhead whose limits change: `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test 'loom*'`.
#![cfg(resilience_loom)]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use resilience_core::{Bulkhead, Clock};

fn builder(calls: u32) -> resilience_core::bulkhead::BulkheadBuilder {
    Bulkhead::builder("model").max_concurrent(calls).clock(Clock::manual().0)
}

/// Whoever comes in after the maximum was lowered finds at most the new one inside, himself included.
#[test]
fn nobody_comes_in_by_the_old_maximum_once_it_is_lowered() {
    loom::model(|| {
        let bulkhead = builder(2).build().unwrap();
        let inside = bulkhead.try_acquire_owned().unwrap();
        let lowered = Arc::new(AtomicU32::new(0));
        let (theirs, known) = (bulkhead.clone(), lowered.clone());
        let other = thread::spawn(move || {
            let knew = known.load(Ordering::SeqCst) == 1;
            let second = theirs.try_acquire_owned();
            assert!(!(knew && second.is_ok()), "a second one came in");
            second
        });
        bulkhead.reconfigure(builder(1)).unwrap();
        lowered.store(1, Ordering::SeqCst);
        let in_flight = bulkhead.statistics().in_flight;
        let second = other.join().unwrap();
        // Whoever was in by then counts; nobody came later.
        assert_eq!(in_flight, 1 + u32::from(second.is_ok()));
        drop(second);
        assert!(bulkhead.try_acquire().is_err(), "there is room for one, and one is inside");
        drop(inside);
        assert!(bulkhead.try_acquire().is_ok());
    });
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn room_that_is_added_while_somebody_joins_the_queue_is_not_lost() {
    loom::model(|| {
        let bulkhead = builder(1).build().unwrap();
        let inside = bulkhead.try_acquire_owned().unwrap();
        let theirs = bulkhead.clone();
        let raising = thread::spawn(move || theirs.reconfigure(builder(2)).unwrap());
        let bell = std::sync::Arc::new(Bell::default());
        let mut acquiring = pin!(bulkhead.acquire_async(Duration::from_secs(60)));
        let waker = Waker::from(bell.clone());
        let first = acquiring.as_mut().poll(&mut Context::from_waker(&waker));
        raising.join().unwrap();
        if first.is_pending() {
            assert!(bell.0.load(std::sync::atomic::Ordering::SeqCst), "nobody said that there is room");
            let second = acquiring.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(matches!(second, Poll::Ready(Ok(_))));
        }
        drop(inside);
    });
}

#[test]
fn a_permit_that_comes_back_while_the_maximum_is_lowered_is_counted_once() {
    loom::model(|| {
        let bulkhead = builder(2).build().unwrap();
        let (first, second) = (bulkhead.try_acquire_owned().unwrap(), bulkhead.try_acquire_owned().unwrap());
        let leaving = thread::spawn(move || drop(first));
        bulkhead.reconfigure(builder(1)).unwrap();
        leaving.join().unwrap();
        assert_eq!(bulkhead.statistics().in_flight, 1);
        assert!(bulkhead.try_acquire().is_err());
        drop(second);
        assert!(bulkhead.try_acquire().is_ok());
    });
}
