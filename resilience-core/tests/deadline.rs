//! Deadlines travel from call to call, without a parameter and without leaking to anybody else's work.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience_core::{
    Background, Bulkhead, CallOptions, Clock, Deadline, Instant, ManualClock, Pipeline, RateLimiter, Reason, Retry,
    Stopped, Timeout,
};

const SECOND: Duration = Duration::from_secs(1);

fn asks(pipeline: &Pipeline) -> Option<Instant> {
    pipeline.call_with(CallOptions::new(), |attempt| Ok::<_, io::Error>(attempt.deadline)).unwrap()
}

#[test]
fn an_inner_call_never_outlives_the_outer_one() {
    let (clock, time) = Clock::manual();
    let outer = Pipeline::builder("outer").timeout(SECOND * 2).clock(clock.clone()).build().unwrap();
    let inner = Pipeline::builder("inner").timeout(SECOND * 60).clock(clock.clone()).build().unwrap();
    let began = clock.now();
    let seen = outer.call(|| {
        time.advance(SECOND);
        Ok::<_, io::Error>(asks(&inner))
    });
    assert_eq!(seen.unwrap(), Some(began + SECOND * 2));
    assert_eq!(asks(&inner), Some(clock.now() + SECOND * 60), "nothing stays behind");
}

#[test]
fn an_inner_limit_that_is_shorter_stays() {
    let (clock, _time) = Clock::manual();
    let outer = Pipeline::builder("outer").timeout(SECOND * 60).clock(clock.clone()).build().unwrap();
    let inner = Pipeline::builder("inner").timeout(SECOND * 2).clock(clock.clone()).build().unwrap();
    let seen = outer.call(|| Ok::<_, io::Error>(asks(&inner)));
    assert_eq!(seen.unwrap(), Some(clock.now() + SECOND * 2));
}

#[test]
fn each_attempts_own_limit_is_what_its_calls_run_under() {
    let time = ManualClock::auto_advancing();
    let clock = time.clock();
    let outer = Pipeline::builder("outer")
        .retry(Retry::builder().max_attempts(2).build().unwrap())
        .timeout(SECOND)
        .clock(clock.clone())
        .build()
        .unwrap();
    let inner = Pipeline::builder("inner").clock(clock.clone()).build().unwrap();
    let mut left = Vec::new();
    let failed = outer.call(|| {
        left.push(asks(&inner).unwrap().saturating_duration_since(clock.now()));
        Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    assert!(failed.is_err());
    assert_eq!(left, [SECOND, SECOND]);
}

#[test]
fn an_inner_retry_that_cannot_finish_in_time_is_not_started() {
    let (clock, _time) = Clock::manual();
    let inner = Pipeline::builder("inner").retry(Retry::default()).clock(clock.clone()).build().unwrap();
    let error = Deadline::after(&clock, Duration::from_millis(50))
        .run(|| inner.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset))))
        .unwrap_err();
    assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::DeadlineTooClose)));
}

#[test]
fn a_call_that_comes_too_late_is_refused() {
    let (clock, time) = Clock::manual();
    let inner = Pipeline::builder("inner").clock(clock.clone()).build().unwrap();
    let deadline = Deadline::after(&clock, SECOND);
    time.advance(SECOND);
    assert!(deadline.is_over() && deadline.remaining().is_zero());
    let error = deadline.run(|| inner.call(|| Ok::<_, io::Error>(()))).unwrap_err();
    assert_eq!(error.as_rejection().map(|rejection| rejection.reason), Some(Reason::DeadlineTooClose));
}

#[test]
fn a_deadline_of_another_clock_means_nothing() {
    let ((clock, _), (other, _)) = (Clock::manual(), Clock::manual());
    let inner = Pipeline::builder("inner").clock(other).build().unwrap();
    assert_eq!(Deadline::after(&clock, SECOND).run(|| asks(&inner)), None);
}

#[test]
fn the_earlier_of_two_nested_deadlines_counts() {
    let (clock, _time) = Clock::manual();
    let (soon, late) = (Deadline::after(&clock, SECOND), Deadline::after(&clock, SECOND * 9));
    let current = || Deadline::current(&clock).map(|deadline| deadline.at());
    assert_eq!(late.run(|| soon.run(current)), Some(soon.at()));
    assert_eq!(soon.run(|| late.run(current)), Some(soon.at()));
    assert_eq!(current(), None);
}

#[test]
fn a_panic_leaves_no_deadline_behind() {
    let (clock, _time) = Clock::manual();
    let deadline = Deadline::after(&clock, SECOND);
    assert!(catch_unwind(AssertUnwindSafe(|| deadline.run(|| panic!("a broken handler")))).is_err());
    assert!(Deadline::current(&clock).is_none());
}

#[test]
fn futures_polled_in_turn_each_see_their_own() {
    let (clock, _time) = Clock::manual();
    let (one, two) = (Deadline::after(&clock, SECOND), Deadline::after(&clock, SECOND * 2));
    let work = |clock: Clock| async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(Deadline::current(&clock).map(|deadline| deadline.at()));
            yield_once().await;
        }
        seen
    };
    let (mut first, mut second) = (pin!(one.scope(work(clock.clone()))), pin!(two.scope(work(clock.clone()))));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert!(Deadline::current(&clock).is_none());
    }
    assert_eq!(first.as_mut().poll(&mut cx), Poll::Ready(vec![Some(one.at()); 2]));
    assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(vec![Some(two.at()); 2]));
}

async fn yield_once() {
    let mut first = true;
    std::future::poll_fn(|_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

#[test]
fn an_async_inner_call_is_cut_off_by_the_outer_deadline() {
    let time = ManualClock::auto_advancing();
    let clock = time.clock();
    let outer = Pipeline::builder("outer").timeout(SECOND).clock(clock.clone()).build().unwrap();
    let inner = Pipeline::builder("inner").timeout(SECOND * 60).clock(clock.clone()).build().unwrap();
    let call = outer.call_async(|| async {
        inner.call_async(std::future::pending::<Result<(), io::Error>>).await.map_err(|error| {
            assert!(error.is_timed_out());
            io::Error::from(io::ErrorKind::TimedOut)
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(call).is_err());
    assert_eq!(time.elapsed(), SECOND);
}

#[test]
fn a_clock_in_between_does_not_hide_the_outer_deadline() {
    let ((clock, _), (other, _)) = (Clock::manual(), Clock::manual());
    let (outer, middle) = (Deadline::after(&clock, SECOND), Deadline::after(&other, SECOND * 5));
    let inner = Pipeline::builder("inner").timeout(SECOND * 60).clock(clock).build().unwrap();
    assert_eq!(outer.run(|| middle.run(|| asks(&inner))), Some(outer.at()));
    assert_eq!(outer.run(|| middle.run(|| Deadline::current(&other).map(|it| it.at()))), Some(middle.at()));
}

/// Runs under a deadline on each clock, and looks in the innermost at all of them.
fn nested(clocks: &[Clock], seen: &mut Vec<bool>, all: &[Clock]) {
    match clocks.split_first() {
        Some((clock, rest)) => Deadline::after(clock, SECOND).run(|| nested(rest, seen, all)),
        None => seen.extend(all.iter().map(|clock| Deadline::current(clock).is_some())),
    }
}

#[test]
fn work_under_more_clocks_than_are_remembered_keeps_the_outer_deadlines() {
    let clocks: Vec<_> = (0..8).map(|_| Clock::manual().0).collect();
    let mut seen = Vec::new();
    nested(&clocks, &mut seen, &clocks);
    assert_eq!(seen, [true, true, true, true, false, false, false, false]);
    assert!(clocks.iter().all(|clock| Deadline::current(clock).is_none()), "nothing stays behind");
}

#[test]
fn a_thread_that_works_for_a_call_runs_under_its_deadline() {
    let (clock, _time) = Clock::manual();
    let threads = Background::builder("threads").clock(clock.clone()).build().unwrap();
    let inner = Pipeline::builder("inner").timeout(SECOND * 600).clock(clock.clone()).build().unwrap();
    let outer = Pipeline::builder("outer").timeout(SECOND * 60).clock(clock.clone()).build().unwrap();
    let seen = outer.call_on_threads(&threads, move || Ok::<_, io::Error>(asks(&inner))).unwrap();
    assert_eq!(seen, Some(clock.now() + SECOND * 60), "the outer limit, not the inner one");
}

#[test]
fn waits_of_policies_alone_end_with_the_deadline() {
    let time = ManualClock::auto_advancing();
    let clock = time.clock();
    let bulkhead = Bulkhead::builder("b").max_concurrent(1).clock(clock.clone()).build().unwrap();
    let _inside = bulkhead.try_acquire().unwrap();
    let limiter = RateLimiter::builder("l").rate(1, SECOND * 60).burst(1).clock(clock.clone()).build().unwrap();
    limiter.try_acquire(1).unwrap();
    let timeout = Timeout::builder("t").limit(SECOND * 60).clock(clock.clone()).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    Deadline::after(&clock, SECOND).run(|| assert!(bulkhead.acquire(SECOND * 30).is_err()));
    assert_eq!(time.elapsed(), SECOND);
    Deadline::after(&clock, SECOND).run(|| assert!(limiter.acquire(1, SECOND * 100).is_err()));
    assert_eq!(time.elapsed(), SECOND, "what would take too long is not begun");
    let hanging = timeout.call_async(std::future::pending::<io::Result<()>>());
    assert!(runtime.block_on(Deadline::after(&clock, SECOND).scope(hanging)).unwrap_err().is_timed_out());
    assert_eq!(time.elapsed(), SECOND * 2);
}

#[test]
fn what_a_timeout_alone_polls_runs_under_its_limit() {
    let (clock, _time) = Clock::manual();
    let timeout = Timeout::builder("t").limit(SECOND).clock(clock.clone()).build().unwrap();
    let inner = Pipeline::builder("inner").timeout(SECOND * 60).clock(clock.clone()).build().unwrap();
    let call = timeout.call_async(async { Ok::<_, io::Error>(asks(&inner)) });
    let seen = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call).unwrap();
    assert_eq!(seen, Some(clock.now() + SECOND));
}

#[test]
fn what_is_left_shrinks_to_nothing_and_then_it_is_over() {
    let (clock, time) = Clock::manual();
    let deadline = Deadline::after(&clock, Duration::from_secs(2));
    for left in [2, 1] {
        assert_eq!((deadline.remaining(), deadline.is_over()), (Duration::from_secs(left), false));
        time.advance(Duration::from_secs(1));
    }
    assert_eq!((deadline.remaining(), deadline.is_over()), (Duration::ZERO, true));
    time.advance(Duration::from_secs(1));
    assert_eq!((deadline.remaining(), deadline.is_over()), (Duration::ZERO, true));
}
