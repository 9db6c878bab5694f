//! What threads can do to a detached operation: `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test 'loom*'`.
#![cfg(resilience_loom)]

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;
use resilience_core::Background;
use resilience_core::timeout::Detached;

/// An operation that ends on a thread of the model.
fn ending(background: &Background) -> (thread::JoinHandle<()>, Detached<u8, ()>) {
    let mut handle = None;
    let spawn = |task| {
        handle = Some(thread::spawn(move || {
            let mut task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
            assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }));
    };
    let detached = background.detach(spawn, ready(Ok(1)));
    (handle.unwrap(), detached)
}

/// Remembers that it was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_result_whose_waiter_goes_away_meanwhile_is_told_as_lost_exactly_once() {
    loom::model(|| {
        let background = Background::builder("model").build().unwrap();
        let (thread, detached) = ending(&background);
        drop(detached);
        thread.join().unwrap();
        let statistics = background.statistics();
        assert_eq!((statistics.running, statistics.left_behind, statistics.ended_late), (0, 0, 1));
    });
}

#[test]
fn whoever_looks_in_vain_is_woken_by_the_end() {
    loom::model(|| {
        let background = Background::builder("model").build().unwrap();
        let (thread, mut detached) = ending(&background);
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let mut seen = Pin::new(&mut detached).poll(&mut Context::from_waker(&waker));
        thread.join().unwrap();
        if seen.is_pending() {
            assert!(bell.0.load(Ordering::SeqCst), "nobody told it of the end");
            seen = Pin::new(&mut detached).poll(&mut Context::from_waker(&waker));
        }
        assert_eq!(seen, Poll::Ready(Ok(1)));
        let statistics = background.statistics();
        assert_eq!((statistics.running, statistics.left_behind, statistics.ended_late), (0, 0, 0));
    });
}
