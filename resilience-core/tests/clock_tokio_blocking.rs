//! Blocking calls on tokio's clock, made on the very thread that drives the runtime: they end by themselves, also while
//! tokio's time stands still.
#![cfg(feature = "tokio")]

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use resilience_core::{Background, Bulkhead, Clock, Error, Pipeline, Reason, Retry, Timeout};

/// Over as good as at once by the system's clock; tokio's would never get there, with its thread blocked.
const SHORT: Duration = Duration::from_nanos(1);

/// Runs `test` on the only thread of a runtime, whose time is paused or not.
fn in_runtimes(test: impl Fn()) {
    for paused in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(paused).build().unwrap();
        runtime.block_on(async { test() });
    }
}

/// An operation that takes until the test is over.
fn hanging() -> (mpsc::Sender<()>, impl FnOnce() -> io::Result<()> + Send + 'static) {
    let (release, hang) = mpsc::channel::<()>();
    (release, move || {
        let _over = hang.recv();
        Ok(())
    })
}

#[test]
fn a_thread_is_left_behind_when_its_time_is_over() {
    in_runtimes(|| {
        let (_release, operation) = hanging();
        let timeout = Timeout::builder("t").limit(SHORT).clock(Clock::tokio()).build().unwrap();
        assert!(timeout.call_on_thread(operation).unwrap_err().is_timed_out());
    });
}

#[test]
fn an_attempt_on_a_thread_is_left_behind_when_its_time_is_over() {
    in_runtimes(|| {
        let (_release, operation) = hanging();
        let operation = std::sync::Mutex::new(Some(operation));
        let threads = Background::builder("threads").clock(Clock::tokio()).build().unwrap();
        let pipeline = Pipeline::builder("p").timeout(SHORT).clock(Clock::tokio()).build().unwrap();
        let result = pipeline.call_on_threads(&threads, move || operation.lock().unwrap().take().unwrap()());
        assert!(result.unwrap_err().is_timed_out());
    });
}

#[test]
fn a_wait_for_room_comes_to_its_end() {
    in_runtimes(|| {
        let bulkhead = Bulkhead::builder("b").max_concurrent(1).clock(Clock::tokio()).build().unwrap();
        let _inside = bulkhead.try_acquire().unwrap();
        assert_eq!(bulkhead.acquire(SHORT).unwrap_err().reason, Reason::BulkheadWaitedTooLong);
        let pipeline = Pipeline::builder("p").bulkhead_waiting(bulkhead.clone(), SHORT).clock(Clock::tokio());
        let refused: Error<io::Error> = pipeline.build().unwrap().call(|| Ok(())).unwrap_err();
        assert_eq!(refused.as_rejection().unwrap().reason, Reason::BulkheadWaitedTooLong);
    });
}

#[test]
fn a_retry_comes_back_from_its_pauses() {
    in_runtimes(|| {
        let retry = Retry::builder().backoff(resilience_core::Backoff::fixed(SHORT)).build().unwrap();
        let pipeline = Pipeline::builder("p").retry(retry).clock(Clock::tokio()).build().unwrap();
        let error = pipeline.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset))).unwrap_err();
        assert_eq!(error.attempts, 3);
    });
}
