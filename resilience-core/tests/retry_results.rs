//! Retries on values, and retries around closures without a pipeline: one state machine behind both.

use std::cell::Cell;
use std::future::{Future, pending};
use std::io;
use std::num::ParseIntError;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience_core::{
    Backoff, BreakerState, Category, CircuitBreaker, Class, Classify, Event, Jitter, ManualClock, Observers, Outcome,
    Pipeline, Retry, RetryBudget, Retryable, Stopped,
};

const SECOND: Duration = Duration::from_secs(1);

fn reset<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionReset.into())
}

/// Statuses from 500 on are the server's failures, 404 is an answer; other errors speak for themselves.
fn by_status(answer: &io::Result<u16>) -> Option<Class> {
    match answer {
        Ok(500..) => Some(Class::of(Category::Network)),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(error.class()),
    }
}

/// Three attempts, a second between them.
fn steady(time: &ManualClock) -> Retry {
    let retry = Retry::builder().backoff(Backoff::fixed(SECOND)).jitter(Jitter::None);
    retry.clock(time.clock()).build().unwrap()
}

fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("the future makes no progress")
}

/// How calls ended, after how many attempts, and why there were no more.
type Ends = Arc<Mutex<Vec<(Outcome, u32, Option<Stopped>)>>>;

/// Observers that keep how calls ended.
fn outcomes() -> (Observers, Ends) {
    let seen = Ends::default();
    let sink = Arc::clone(&seen);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::CallFinished { outcome, attempts, stopped, .. } = event {
            sink.lock().unwrap().push((**outcome, *attempts, *stopped));
        }
    }));
    (observers, seen)
}

#[test]
fn a_value_that_fails_is_tried_again_and_the_last_one_is_returned() {
    let time = ManualClock::auto_advancing();
    let (observers, seen) = outcomes();
    let pipeline = Pipeline::builder("web").retry(steady(&time)).clock(time.clock()).observers(observers);
    let pipeline = pipeline.build().unwrap();
    let web = pipeline.judged_by(by_status);
    let mut answers = [503, 200, 500, 501, 502].into_iter();
    let mut next = || Ok(answers.next().expect("as many attempts as expected"));
    assert_eq!(web.call(&mut next).unwrap(), 200);
    assert_eq!(web.call(&mut next).unwrap(), 502);
    assert_eq!(time.elapsed(), SECOND * 3);
    let failed = (Outcome::Failure(Class::of(Category::Network)), 3, Some(Stopped::AttemptsExhausted));
    assert_eq!(*seen.lock().unwrap(), [(Outcome::Success, 2, None), failed]);
}

#[test]
fn a_value_that_fails_counts_against_the_breaker_and_an_error_that_is_an_answer_does_not() {
    let time = ManualClock::auto_advancing();
    let breaker = CircuitBreaker::builder("b").consecutive_failures(3).clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder("web").circuit_breaker(breaker.clone()).clock(time.clock()).build().unwrap();
    let web = pipeline.judged_by(by_status);
    for _ in 0..10 {
        let error = web.call(|| Err(io::ErrorKind::NotFound.into())).unwrap_err();
        assert_eq!((error.attempts, error.stopped), (1, None));
        assert_eq!(error.into_operation().unwrap().kind(), io::ErrorKind::NotFound);
    }
    assert_eq!((breaker.state(), breaker.statistics().failures), (BreakerState::Closed, 0));
    for _ in 0..3 {
        assert_eq!(web.call(|| Ok(503)).unwrap(), 503);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn the_async_face_judges_results_as_the_blocking_one_does() {
    let time = ManualClock::auto_advancing();
    let pipeline = Pipeline::builder("web").retry(steady(&time)).clock(time.clock()).build().unwrap();
    let web = pipeline.judged_by(by_status);
    let mut answers = [503, 503, 204].into_iter();
    assert_eq!(drive(web.call_async(|| std::future::ready(Ok(answers.next().unwrap())))).unwrap(), 204);
    assert_eq!(time.elapsed(), SECOND * 2);
}

#[test]
fn a_value_says_itself_when_to_come_back() {
    let time = ManualClock::auto_advancing();
    let busy = |length: &io::Result<usize>| match length {
        Ok(0) => Some(Class::of(Category::Resource).retry_after(SECOND * 7)),
        _ => None,
    };
    let mut lengths = [0, 5].into_iter();
    assert_eq!((|| Ok(lengths.next().unwrap())).retry(&steady(&time)).judged_by(busy).call().unwrap(), 5);
    assert_eq!(time.elapsed(), SECOND * 7);
}

#[test]
fn a_closure_is_retried_without_a_pipeline() {
    let time = ManualClock::auto_advancing();
    let retry = steady(&time);
    let mut attempts = 0;
    let mut flaky = || {
        attempts += 1;
        if attempts < 3 { reset() } else { Ok(attempts) }
    };
    assert_eq!((&mut flaky).retry(&retry).call().unwrap(), 3);
    assert_eq!(time.elapsed(), SECOND * 2);
    let error = reset::<()>.retry(&retry).call().unwrap_err();
    assert_eq!((error.attempts, error.stopped), (3, Some(Stopped::AttemptsExhausted)));
}

#[test]
fn an_async_closure_is_retried_without_a_pipeline_or_a_runtime() {
    let time = ManualClock::auto_advancing();
    let retry = steady(&time);
    let attempts = Cell::new(0);
    let flaky = async || {
        attempts.set(attempts.get() + 1);
        if attempts.get() < 3 { reset() } else { Ok(attempts.get()) }
    };
    assert_eq!(drive(flaky.retry(&retry).into_future()).unwrap(), 3);
    assert_eq!(time.elapsed(), SECOND * 2);
    assert_eq!(drive(async { (|| async { reset::<()>() }).retry(&retry).await }).unwrap_err().attempts, 3);
}

#[test]
fn errors_of_other_crates_are_retried_as_a_closure_says() {
    let time = ManualClock::auto_advancing();
    let mut texts = ["", "", "42"].into_iter();
    let number = (|| texts.next().unwrap().parse::<u8>())
        .retry(&steady(&time))
        .classified_by(|_: &ParseIntError| Class::of(Category::Resource))
        .call();
    assert_eq!(number, Ok(42));
}

#[test]
fn calls_without_a_pipeline_are_observed_and_a_dropped_one_is_cancelled() {
    let time = ManualClock::auto_advancing();
    let (observers, seen) = outcomes();
    let retry = Retry::builder().clock(time.clock()).observers(observers).build().unwrap();
    (|| Ok::<_, io::Error>(())).retry(&retry.clone()).call().unwrap();
    {
        let call = pin!(pending::<io::Result<()>>.retry(&retry).into_future());
        assert!(call.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(*seen.lock().unwrap(), [(Outcome::Success, 1, None), (Outcome::Cancelled, 1, None)]);
}

#[test]
fn a_call_without_a_pipeline_can_move_to_another_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let retry = Retry::default();
    let call = is_send((|| async { Ok::<_, io::Error>(7) }).retry(&retry).into_future());
    assert_eq!(drive(call).unwrap(), 7);
}

#[test]
fn a_call_that_succeeds_at_once_allocates_nothing_without_a_pipeline_and_under_a_budget() {
    let retry = Retry::builder().budget(RetryBudget::default()).build().unwrap();
    let operation = || Ok::<_, io::Error>(7);
    let both = || {
        assert_eq!(operation.retry(&retry).call().ok(), Some(7));
        assert_eq!(drive((|| std::future::ready(operation())).retry(&retry).into_future()).ok(), Some(7));
    };
    both(); // What is made once per retry is made here.
    assert_eq!(allocation_counter::measure(|| (0..100).for_each(|_| both())).count_total, 0);
}
