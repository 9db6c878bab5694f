//! Limits by key in a pipeline: each call's own key, waits in order, and places that come back.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use resilience_core::{CallOptions, Clock, KeyedRateLimiter, Pipeline, Reason};

const SECOND: Duration = Duration::from_secs(1);

fn one_a_second(clock: &Clock) -> KeyedRateLimiter<String> {
    KeyedRateLimiter::builder("per_tenant").rate(1, SECOND).burst(1).clock(clock.clone()).build().unwrap()
}

#[test]
fn each_key_has_its_own_limit_and_calls_without_one_share_one() {
    let (clock, _time) = Clock::manual();
    let pipeline = Pipeline::builder("p").keyed_rate_limiter(one_a_second(&clock)).clock(clock).build().unwrap();
    let call = |options| pipeline.call_with(options, |_| Ok::<_, io::Error>(()));
    for options in [CallOptions::new().key("blue"), CallOptions::new().key(String::from("green")), CallOptions::new()] {
        assert!(call(options.clone()).is_ok());
        let error = call(options).unwrap_err();
        assert_eq!(error.as_rejection().unwrap().reason, Reason::RateLimited);
    }
}

#[test]
fn a_call_that_is_dropped_while_it_waits_gives_its_keys_place_back() {
    let (clock, time) = Clock::manual();
    let limiter = one_a_second(&clock);
    let pipeline =
        Pipeline::builder("p").keyed_rate_limiter_waiting(limiter.clone(), SECOND * 10).clock(clock).build().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let call = || pipeline.call_async_with(CallOptions::new().key("blue"), |_| async { Ok::<_, io::Error>(()) });
    assert!(pin!(call()).poll(&mut cx).is_ready());
    {
        let mut given_up = pin!(call());
        assert!(given_up.as_mut().poll(&mut cx).is_pending());
        assert_eq!(limiter.peek("blue", 1).unwrap_err().retry_after, Some(SECOND * 2));
    }
    assert_eq!(limiter.peek("blue", 1).unwrap_err().retry_after, Some(SECOND));
    let mut waiting = pin!(call());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    time.advance(SECOND);
    assert!(waiting.poll(&mut cx).is_ready());
}

#[test]
fn a_keyed_limiter_on_another_clock_is_not_waited_for() {
    let ((clock, _), (other, _)) = (Clock::manual(), Clock::manual());
    let builder = Pipeline::builder("p").keyed_rate_limiter_waiting(one_a_second(&other), SECOND).clock(clock);
    insta::assert_snapshot!(builder.build().unwrap_err(), @"`p.clock` is another than that of limiter `per_tenant`; allowed: one clock for a pipeline and the limiters it waits for");
}
