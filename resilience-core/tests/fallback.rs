//! The fallback: which failures it answers, with what, and that no error is lost on the way.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience_core::{
    Category, Class, Classify, Clock, Error, Event, Fallback, FallbackError, ManualClock, Observers, Pipeline,
    RateLimiter, Reason, Rejection,
};

fn finished<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits"),
    }
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

/// An error with another one behind it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Deep {
    text: &'static str,
    source: Option<io::Error>,
}

impl Classify for Deep {
    fn class(&self) -> Class {
        Class::of(Category::Network)
    }
}

#[test]
fn what_succeeds_is_left_alone() {
    let asked = AtomicU32::new(0);
    let fallback = Fallback::from_fn(|_: &io::Error| asked.fetch_add(1, Ordering::Relaxed));
    assert_eq!(fallback.call(|| Ok(7)).unwrap(), 7);
    assert_eq!(finished(fallback.call_async(async || Ok(8))).unwrap(), 8);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn failures_refusals_and_timeouts_of_a_pipeline_are_all_answered() {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("l").burst(2).rate(1, Duration::from_secs(60)).clock(time.clock());
    let pipeline = Pipeline::builder("p").rate_limiter(limiter.build().unwrap()).timeout(Duration::from_secs(1));
    let pipeline = pipeline.clock(time.clock()).build().unwrap();
    let why = Fallback::from_fn(|error: &Error<io::Error>| error.to_string());
    let failed = why.call(|| pipeline.call(|| Err(io::Error::other("down")))).unwrap();
    let late = finished(why.call_async(|| pipeline.call_async(pending))).unwrap();
    let denied = why.call(|| pipeline.call(|| Ok("not reached".to_owned()))).unwrap();
    assert_eq!((failed.as_str(), late.as_str()), ("down", "no answer within 1s"));
    assert!(denied.starts_with("rate limiter `l` is exhausted"), "{denied}");
}

#[test]
fn only_what_is_selected_is_answered_and_the_rest_comes_through_untouched() {
    let open = |error: &Error<io::Error>| error.as_rejection().is_some_and(|why| why.reason == Reason::CircuitOpen);
    let fallback = Fallback::value(0).only(open);
    let is_open = || Err(Rejection::new("b".into(), Reason::CircuitOpen, None).into());
    let is_limited = || Err(Error::from(Rejection::new("l".into(), Reason::RateLimited, None)));
    assert_eq!(fallback.call(is_open).unwrap(), 0);
    assert_eq!(fallback.call(is_limited).unwrap_err().as_rejection().unwrap().reason, Reason::RateLimited);
    let failed = finished(fallback.call_async(async || Err(Error::operation(refused(), 3)))).unwrap_err();
    assert_eq!(failed.attempts, 3);
    assert_eq!(failed.into_operation().unwrap().kind(), io::ErrorKind::ConnectionRefused);
}

/// Trap 19: a fallback that itself fails hides the first error.
#[test]
fn a_fallback_that_fails_keeps_both_errors() {
    let behind = |text| Deep { text, source: Some(io::Error::other("behind ".to_owned() + text)) };
    let blocking = Fallback::try_from_fn(|_: &Deep| Err::<u8, _>(behind("the second")));
    let alike = Fallback::try_from_async_fn(|_: &Deep| async { Err::<u8, _>(behind("the second")) });
    for error in [
        blocking.call(|| Err(behind("the first"))).unwrap_err(),
        finished(blocking.call_async(async || Err(behind("the first")))).unwrap_err(),
        finished(alike.call_async(async || Err(behind("the first")))).unwrap_err(),
    ] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"the first; the fallback failed as well: the second");
        }
        assert_eq!(error.source().unwrap().to_string(), "behind the first");
        assert_eq!(error.class(), Class::of(Category::Network));
        let FallbackError { first, second } = error;
        assert_eq!((first.text, second.unwrap().text), ("the first", "the second"));
    }
}

#[test]
fn the_source_is_the_seconds_when_nothing_lies_behind_the_first() {
    let second = Deep { text: "the second", source: Some(io::Error::other("behind it")) };
    let error = FallbackError { first: Deep { text: "the first", source: None }, second: Some(second) };
    assert_eq!(error.source().unwrap().to_string(), "behind it");
}

#[test]
fn an_error_that_is_not_answered_is_alone() {
    let fallback = Fallback::try_from_fn(|_: &Deep| -> Result<u8, Infallible> { panic!("it is not for this error") });
    let fallback = fallback.only(|error: &Deep| error.text != "the first");
    let error = fallback.call(|| Err(Deep { text: "the first", source: None })).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.second.is_none()), ("the first", true));
}

#[test]
fn observers_hear_of_every_answer_and_of_every_failure_to_answer() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::FallbackUsed { fallback, class, answered, .. } = event {
            ears.lock().unwrap().push(format!("{fallback} {} {answered}", class.category));
        }
    }));
    let fallback = Fallback::try_from_fn(|error: &io::Error| match error.kind() {
        io::ErrorKind::TimedOut => Err("no"),
        _ => Ok(1),
    });
    let fallback = fallback.named("second_source").unwrap().observers(observers);
    let fallback = fallback.only(|error: &io::Error| error.kind() != io::ErrorKind::NotFound);
    assert!(fallback.apply(Ok(2)).is_ok());
    assert!(fallback.apply(Err(refused())).is_ok());
    assert!(finished(fallback.call_async(async || Err(io::ErrorKind::TimedOut.into()))).is_err());
    assert!(fallback.apply(Err(io::ErrorKind::NotFound.into())).is_err());
    assert_eq!(*heard.lock().unwrap(), ["second_source network true", "second_source timeout false"]);
}

#[test]
fn the_answer_waits_on_any_executor_and_need_not_be_send() {
    let (clock, time) = Clock::manual();
    let shared = Rc::new(5);
    let fallback = Fallback::from_async_fn(|_: &io::Error| {
        let (clock, shared) = (clock.clone(), Rc::clone(&shared));
        async move {
            clock.sleep(Duration::from_secs(1)).await;
            *shared
        }
    });
    let mut call = pin!(fallback.call_async(async || Err(refused())));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    time.advance(Duration::from_secs(1));
    assert!(matches!(call.as_mut().poll(&mut cx), Poll::Ready(Ok(5))));
}

/// Counts itself as long as it lives.
struct Alive(Arc<AtomicU32>);

impl Alive {
    fn new(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn the_operation_is_gone_when_the_answer_begins_and_a_dropped_call_drops_the_answer() {
    let alive = Arc::new(AtomicU32::new(0));
    let fallback = Fallback::from_async_fn(|_: &io::Error| {
        assert_eq!(alive.load(Ordering::Relaxed), 0, "the operation is over");
        let answer = Alive::new(&alive);
        async move {
            pending::<()>().await;
            drop(answer);
        }
    });
    let operation = Alive::new(&alive);
    let mut call = Box::pin(fallback.call_async(|| async move {
        let _operation = operation;
        Err(refused())
    }));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    drop(call);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn clones_answer_from_many_threads() {
    let fallback = Fallback::value(vec![1, 2, 3]);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let fallback = fallback.clone();
            std::thread::spawn(move || fallback.call(|| Err(refused())).unwrap())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == [1, 2, 3]));
}

#[test]
fn names_that_cannot_stand_in_metrics_are_refused() {
    for bad in ["", "two words", "über"] {
        assert_eq!(Fallback::value(0).named(bad).unwrap_err().field, "name", "{bad:?}");
    }
}

#[cfg(feature = "tower")]
mod layer {
    use super::*;
    use resilience_core::fallback::FallbackLayer;
    use resilience_core::tower::PipelineLayer;
    use std::future::{Ready, ready};
    use tower::{Layer, Service, service_fn};

    #[test]
    fn a_service_behind_a_pipeline_is_answered_for() {
        let time = ManualClock::auto_advancing();
        let pipeline = Pipeline::builder("p").timeout(Duration::from_secs(1)).clock(time.clock()).build().unwrap();
        let slow = service_fn(|_: u8| pending::<io::Result<u8>>());
        let behind = PipelineLayer::new(pipeline).layer(slow);
        let late = Fallback::value(9).only(|error: &Error<io::Error>| error.is_timed_out());
        assert_eq!(finished(FallbackLayer::new(late).layer(behind.clone()).call(1)).unwrap(), 9);
        let other = Fallback::value(9).only(|error: &Error<io::Error>| !error.is_timed_out());
        assert!(finished(FallbackLayer::new(other).layer(behind).call(1)).unwrap_err().is_timed_out());
    }

    #[test]
    fn an_async_answer_that_fails_keeps_both_errors() {
        let down = service_fn(|_: u8| ready(Err::<u8, _>(refused())));
        let second = Fallback::try_from_async_fn(|_: &io::Error| async { Err::<u8, _>("the mirror is down") });
        let error = finished(FallbackLayer::new(second).layer(down).call(1)).unwrap_err();
        assert_eq!((error.first.kind(), error.second), (io::ErrorKind::ConnectionRefused, Some("the mirror is down")));
    }

    /// Never becomes ready.
    #[derive(Clone)]
    struct Broken;

    impl Service<u8> for Broken {
        type Response = u8;
        type Error = io::Error;
        type Future = Ready<io::Result<u8>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(refused()))
        }

        fn call(&mut self, _: u8) -> Self::Future {
            panic!("it was never ready")
        }
    }

    #[test]
    fn a_service_that_fails_to_become_ready_is_answered_for() {
        let mut service = FallbackLayer::new(Fallback::value(3)).layer(Broken);
        assert!(matches!(service.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))));
        assert_eq!(finished(service.call(1)).unwrap(), 3);
    }
}
