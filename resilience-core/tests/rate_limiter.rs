//! The rate limiter's behaviour through its public API, on a manual clock.

use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{Clock, ManualClock, RateLimiter, Reason};

fn limiter(permits: u32, seconds: u64, burst: u32) -> (RateLimiter, ManualClock) {
    let (clock, time) = Clock::manual();
    let limiter = RateLimiter::builder("test").rate(permits, Duration::from_secs(seconds)).burst(burst).clock(clock);
    (limiter.build().expect("the values are valid"), time)
}

#[test]
fn a_burst_is_granted_at_once_and_then_the_rate_holds() {
    let (limiter, time) = limiter(100, 60, 10);
    assert_eq!((0..100).filter(|_| limiter.try_acquire(1).is_ok()).count(), 10);
    time.advance(Duration::from_secs(60));
    assert_eq!((0..1_000).filter(|_| limiter.try_acquire(1).is_ok()).count(), 10, "no more than the burst is saved");
    let granted = (0..600).filter(|_| {
        time.advance(Duration::from_millis(100));
        limiter.try_acquire(1).is_ok()
    });
    assert_eq!(granted.count(), 100);
}

#[test]
fn a_burst_of_one_does_not_let_a_second_request_through() {
    let (limiter, _time) = limiter(1, 36_000, 1);
    assert_eq!((0..1_000).filter(|_| limiter.try_acquire(1).is_ok()).count(), 1);
}

#[test]
fn more_than_the_burst_is_refused_at_once_with_its_reason() {
    let (limiter, _time) = limiter(100, 60, 10);
    let rejection = limiter.acquire(11, Duration::from_secs(3600)).unwrap_err();
    assert_eq!(rejection.reason, Reason::ExceedsBurst { requested: 11, burst: 10 });
    assert_eq!(rejection.retry_after, None, "it never will be granted");
    assert_eq!(limiter.statistics().available, 10, "and nothing was taken");
}

#[test]
fn waiting_blocks_exactly_until_the_permit_is_there() {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("test").rate(10, Duration::from_secs(1)).burst(1).clock(time.clock());
    let limiter = limiter.build().unwrap();
    for _ in 0..11 {
        limiter.acquire(1, Duration::from_secs(10)).unwrap();
    }
    assert_eq!(time.elapsed(), Duration::from_secs(1));
    limiter.try_acquire(1).unwrap_err();
    let refused = limiter.acquire(1, Duration::from_millis(99)).unwrap_err();
    assert_eq!(refused.retry_after, Some(Duration::from_millis(100)));
    assert_eq!(time.elapsed(), Duration::from_secs(1), "a wait that would be too long is not begun");
}

#[test]
fn waiters_are_served_in_order_and_a_dropped_one_gives_its_place_back() {
    let (limiter, time) = limiter(1, 1, 1);
    limiter.try_acquire(1).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiters: Vec<_> =
        (0..3).map(|_| Some(Box::pin(limiter.acquire_async(1, Duration::from_secs(60))))).collect();
    for waiter in waiters.iter_mut().flatten() {
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
    }
    waiters[2] = None;
    let mut late = Box::pin(limiter.acquire_async(1, Duration::from_secs(60)));
    assert!(late.as_mut().poll(&mut cx).is_pending());
    let mut served = Vec::new();
    for second in 1..=3 {
        time.advance(Duration::from_secs(1));
        for (index, waiter) in waiters.iter_mut().enumerate() {
            if let Some(future) = waiter
                && future.as_mut().poll(&mut cx).is_ready()
            {
                served.push((second, index));
                *waiter = None;
            }
        }
        if second == 3 {
            assert!(late.as_mut().poll(&mut cx).is_ready(), "it got the dropped waiter's place");
        }
    }
    assert_eq!(served, [(1, 0), (2, 1)]);
}

#[test]
fn a_place_given_up_in_the_middle_goes_to_who_comes_next_and_nobody_goes_twice() {
    let (limiter, time) = limiter(1, 1, 1);
    limiter.try_acquire(1).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let join = || Box::pin(limiter.acquire_async(1, Duration::from_secs(60)));
    let mut waiters: Vec<_> = (0..3).map(|number| (number, join())).collect();
    for (_, waiter) in &mut waiters {
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
    }
    drop(waiters.remove(1));
    for number in [3, 4] {
        waiters.push((number, join()));
        assert!(waiters.last_mut().is_some_and(|(_, waiter)| waiter.as_mut().poll(&mut cx).is_pending()));
    }
    let mut served = Vec::new();
    for second in 1..=4 {
        time.advance(Duration::from_secs(1));
        waiters.retain_mut(|(number, waiter)| {
            let ready = waiter.as_mut().poll(&mut cx).is_ready();
            if ready {
                served.push((second, *number));
            }
            !ready
        });
    }
    assert_eq!(served, [(1, 0), (2, 3), (3, 2), (4, 4)]);
}

#[test]
fn a_queue_dropped_from_its_head_leaves_no_debt_behind() {
    let (limiter, time) = limiter(1, 1, 1);
    limiter.try_acquire(1).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiters: Vec<_> = (0..1_000).map(|_| Box::pin(limiter.acquire_async(1, Duration::MAX))).collect();
    for waiter in &mut waiters {
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
    }
    // A vector drops its elements first to last, as a server that closes its connections might.
    drop(waiters);
    time.advance(Duration::from_secs(1));
    assert!(limiter.try_acquire(1).is_ok());
}

#[test]
fn a_step_of_the_wall_clock_neither_fills_nor_freezes_it() {
    let (limiter, time) = limiter(1, 1, 1);
    limiter.try_acquire(1).unwrap();
    for wall in [std::time::SystemTime::UNIX_EPOCH, std::time::SystemTime::now() + Duration::from_secs(86_400)] {
        time.set_wall(wall);
        assert!(limiter.try_acquire(1).is_err());
        time.advance(Duration::from_secs(1));
        assert!(limiter.try_acquire(1).is_ok());
    }
}

#[test]
fn statistics_tell_what_is_left_and_what_was_refused() {
    let (limiter, time) = limiter(100, 60, 10);
    limiter.try_acquire(7).unwrap();
    assert!(limiter.try_acquire(4).is_err());
    let statistics = limiter.statistics();
    assert_eq!((statistics.available, statistics.burst, statistics.rejected), (3, 10, 1));
    time.advance(Duration::from_millis(600));
    assert_eq!(limiter.statistics().available, 4);
}

#[test]
fn threads_share_one_bucket_exactly() {
    let (limiter, _time) = limiter(1, 3600, 1_000);
    let granted = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| limiter.try_acquire(1).is_ok()).count())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
    });
    assert_eq!(granted, 1_000);
}

proptest! {
    /// The naive model is a bucket of tokens in exact arithmetic: nanoseconds of credit.
    #[test]
    fn it_grants_what_a_naive_bucket_grants(permits in 1_u32..500, burst in 1_u32..50,
                                            calls in proptest::collection::vec((0_u64..3_000_000_000, 0_u32..60), 1..200)) {
        let (limiter, time) = limiter(permits, 60, burst);
        let per_permit = 60_000_000_000_u64.div_ceil(u64::from(permits));
        let full = per_permit * u64::from(burst);
        let mut credit = full;
        for (pause, wanted) in calls {
            time.advance(Duration::from_nanos(pause));
            credit = (credit + pause).min(full);
            let cost = per_permit * u64::from(wanted);
            let expected = wanted <= burst && cost <= credit;
            prop_assert_eq!(limiter.try_acquire(wanted).is_ok(), expected);
            if expected { credit -= cost; }
        }
    }

    #[test]
    fn no_configuration_makes_it_panic(permits in any::<u32>(), period in any::<Duration>(), burst in any::<u32>(),
                                       wanted in any::<u32>(), wait in any::<Duration>()) {
        let time = ManualClock::auto_advancing();
        if let Ok(limiter) = RateLimiter::builder("test").rate(permits, period).burst(burst).clock(time.clock()).build() {
            for _ in 0..5 {
                let _ = limiter.try_acquire(wanted);
                let _ = limiter.acquire(wanted % 3, wait);
                let _ = limiter.statistics();
            }
        }
    }
}
