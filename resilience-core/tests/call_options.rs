//! What a call brings with it: its operation's name, and whether it may run twice.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience_core::{CallOptions, Event, ManualClock, Observers, Pipeline, RateLimiter, Retry, Stopped};

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

#[test]
fn observers_hear_what_the_call_does() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::CallFinished { operation, .. } = event {
            log.lock().unwrap().push(operation.map(str::to_owned));
        }
    }));
    let pipeline = Pipeline::builder("store").observers(observers).build().unwrap();
    pipeline.call_with(CallOptions::new().operation("get"), |_| Ok::<_, io::Error>(())).unwrap();
    pipeline.call(|| Ok::<_, io::Error>(())).unwrap();
    assert_eq!(*heard.lock().unwrap(), [Some("get".to_owned()), None]);
}

#[test]
fn what_must_not_run_twice_is_retried_only_while_it_has_not_run() {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("rate").rate(1, Duration::from_secs(1)).burst(1).clock(time.clock());
    let limiter = limiter.build().unwrap();
    limiter.try_acquire(1).unwrap();
    let retry = Retry::builder().max_attempts(4).build().unwrap();
    let pipeline = Pipeline::builder("shop").retry(retry).rate_limiter(limiter).clock(time.clock()).build().unwrap();
    let mut runs = 0;
    let error = pipeline
        .call_with(CallOptions::new().not_idempotent(), |_| {
            runs += 1;
            Err::<(), _>(reset())
        })
        .unwrap_err();
    // The limiter refused the first try, which was made again; the order was placed once.
    assert_eq!((runs, error.attempts, error.stopped), (1, 1, Some(Stopped::NotIdempotent)));
    assert!(time.elapsed() >= Duration::from_secs(1));
    insta::assert_snapshot!(error, @"connection reset (after 1 attempt: it must not run twice)");
}

#[test]
fn a_timeout_of_what_must_not_run_twice_is_not_retried_either() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("shop")
        .retry(Retry::default())
        .timeout(Duration::from_secs(1))
        .clock(time.clock())
        .build()
        .unwrap();
    let mut runs = 0;
    let call = pipeline.call_async_with(CallOptions::new().not_idempotent(), |_| {
        runs += 1;
        std::future::pending::<Result<(), io::Error>>()
    });
    let error = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call).unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!((runs, error.stopped), (1, Some(Stopped::NotIdempotent)));
}

#[test]
fn async_closures_and_futures_that_stay_on_their_thread_are_welcome() {
    let local = std::rc::Rc::new(7);
    let pipeline = Pipeline::builder("local").retry(Retry::default()).build().unwrap();
    let call = pipeline.call_async(async || {
        let kept = std::rc::Rc::clone(&local);
        std::future::ready(()).await;
        Ok::<_, io::Error>(*kept)
    });
    assert_eq!(tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call).unwrap(), 7);
}
