//! Changing a limiter while it works: permits are conserved, nobody is overtaken, nobody starves.

use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{Clock, ManualClock, RateLimiter};

const SECOND: Duration = Duration::from_secs(1);

fn limiter(permits: u32, period: Duration, burst: u32) -> (RateLimiter, ManualClock) {
    let (clock, time) = Clock::manual();
    (RateLimiter::builder("test").rate(permits, period).burst(burst).clock(clock).build().unwrap(), time)
}

fn granted_at_once(limiter: &RateLimiter) -> usize {
    (0..1_000).take_while(|_| limiter.try_acquire(1).is_ok()).count()
}

#[test]
fn it_starts_full_or_empty_or_with_what_was_asked_for() {
    for (start, expected) in [(None, 10), (Some(0), 0), (Some(3), 3), (Some(10), 10)] {
        let (clock, time) = Clock::manual();
        let builder = RateLimiter::builder("test").rate(1, SECOND).burst(10).clock(clock);
        let limiter = match start {
            Some(permits) => builder.start_with(permits).build().unwrap(),
            None => builder.build().unwrap(),
        };
        assert_eq!(granted_at_once(&limiter), expected, "{start:?}");
        time.advance(4 * SECOND);
        assert_eq!(granted_at_once(&limiter), 4, "and fills from there");
    }
    let error = RateLimiter::builder("test").burst(10).start_with(11).build().unwrap_err();
    assert_eq!(error.to_string(), "`test.start_with` is 11; allowed: 0 to 10");
}

#[test]
fn a_change_of_rate_hands_out_no_burst_and_takes_none_away() {
    for (used, left) in [(0, 10), (4, 6), (10, 0)] {
        for (permits, period) in [(1_000_000, SECOND), (1, 60 * SECOND)] {
            let (limiter, time) = limiter(1, SECOND, 10);
            limiter.try_acquire(used).unwrap();
            limiter.set_rate(permits, period).unwrap();
            assert_eq!(granted_at_once(&limiter), left);
            time.advance(period / permits * 3);
            assert_eq!(granted_at_once(&limiter), 3, "the new rate holds from then on");
        }
    }
}

#[test]
fn changing_the_rate_again_and_again_makes_no_permits_and_loses_none() {
    let (limiter, time) = limiter(1, SECOND, 10);
    limiter.try_acquire(5).unwrap();
    for round in 0..1_000 {
        limiter.set_rate(if round % 2 == 0 { 1_000 } else { 1 }, SECOND).unwrap();
        limiter.set_burst(if round % 2 == 0 { 1_000 } else { 10 }).unwrap();
    }
    assert_eq!(granted_at_once(&limiter), 5);
    time.advance(2 * SECOND);
    assert_eq!(granted_at_once(&limiter), 2);
}

#[test]
fn a_larger_burst_fills_with_time_and_what_a_smaller_one_cannot_hold_is_gone() {
    let (limiter, time) = limiter(1, SECOND, 10);
    time.advance(3_600 * SECOND);
    limiter.set_burst(100).unwrap();
    assert_eq!(limiter.statistics().available, 10, "an hour of idling is not saved up after the fact");
    time.advance(5 * SECOND);
    assert_eq!(limiter.statistics().available, 15);
    limiter.set_burst(3).unwrap();
    limiter.set_burst(100).unwrap();
    assert_eq!(granted_at_once(&limiter), 3);
    assert!(limiter.try_acquire(101).is_err_and(|it| it.retry_after.is_none()));
}

#[test]
fn who_waits_when_the_rate_changes_keeps_the_time_that_was_promised_and_nobody_overtakes() {
    for permits in [100, 1] {
        let (limiter, time) = limiter(1, SECOND, 1);
        limiter.try_acquire(1).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(limiter.acquire_async(1, 60 * SECOND))).collect();
        for waiter in &mut waiters {
            assert!(waiter.as_mut().poll(&mut cx).is_pending());
        }
        limiter.set_rate(permits, 10 * SECOND).unwrap();
        let newcomer = limiter.try_acquire(1).unwrap_err();
        assert_eq!(newcomer.retry_after, Some(3 * SECOND + 10 * SECOND / permits), "after the last that is promised");
        for waiter in &mut waiters {
            time.advance(SECOND);
            assert!(waiter.as_mut().poll(&mut cx).is_ready());
            assert!(limiter.try_acquire(1).is_err());
        }
    }
}

#[test]
fn a_waiter_that_gives_up_after_the_rate_changed_gives_its_permit_back() {
    let (limiter, _time) = limiter(1, SECOND, 1);
    limiter.try_acquire(1).unwrap();
    let last = limiter.reserve(1, 60 * SECOND).unwrap();
    limiter.set_rate(1, 10 * SECOND).unwrap();
    drop(last);
    assert_eq!(limiter.try_acquire(1).unwrap_err().retry_after, Some(10 * SECOND), "nobody queues");
}

#[test]
fn a_reservation_from_before_a_change_of_rate_is_not_given_back_as_more_than_it_was() {
    let (limiter, _time) = limiter(1, SECOND, 10);
    let ready = limiter.reserve(8, Duration::ZERO).unwrap();
    limiter.set_rate(1_000_000, SECOND).unwrap();
    drop(ready);
    assert_eq!(granted_at_once(&limiter), 2);
}

#[test]
fn values_that_cannot_be_used_are_refused_and_change_nothing() {
    let (limiter, _time) = limiter(1, SECOND, 10);
    let before = limiter.statistics();
    let messages = [
        limiter.set_rate(0, SECOND).unwrap_err().to_string(),
        limiter.set_rate(1, Duration::ZERO).unwrap_err().to_string(),
        limiter.set_rate(1, Duration::MAX).unwrap_err().field,
        limiter.set_rate(1, Duration::from_secs(366 * 86_400 * 9)).unwrap_err().to_string(),
        limiter.set_burst(0).unwrap_err().to_string(),
        limiter.set_burst(u32::MAX).unwrap_err().to_string(),
    ];
    insta::assert_debug_snapshot!(messages, @r#"
    [
        "`test.rate` is 0; allowed: 1 to 4294967295",
        "`test.period` is 0ns; allowed: more than 0, at most 10 years",
        "test.period",
        "`test.burst` is 10; allowed: a burst that refills within 10 years at this rate",
        "`test.burst` is 0; allowed: 1 to 4294967295",
        "`test.burst` is 4294967295; allowed: a burst that refills within 10 years at this rate",
    ]
    "#);
    assert_eq!(limiter.statistics(), before);
}

#[test]
fn threads_that_take_while_the_rate_changes_get_the_burst_and_no_more() {
    // Time stands still: whatever the rate, only the thousand permits of the start can ever be had.
    let (limiter, _time) = limiter(1, SECOND, 1_000);
    let granted: usize = std::thread::scope(|scope| {
        let takers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| (0..20_000).filter(|_| limiter.try_acquire(1).is_ok()).count())).collect();
        for round in 1..2_000 {
            limiter.set_rate(round % 7 + 1, SECOND).unwrap();
        }
        takers.into_iter().map(|taker| taker.join().expect("no panic")).sum()
    });
    // Each change may cost less than a nanosecond's worth, together less than one permit.
    assert!((999..=1_000).contains(&granted), "{granted}");
}

#[test]
fn rate_and_burst_are_reconfigured_together_and_saved_permits_and_promises_are_kept() {
    let (limiter, time) = limiter(1, SECOND, 10);
    limiter.try_acquire(4).unwrap();
    limiter.reconfigure(RateLimiter::builder("test").rate(100, SECOND).burst(1_000)).unwrap();
    assert_eq!((limiter.statistics().available, limiter.statistics().burst), (6, 1_000));
    time.advance(SECOND);
    assert_eq!(limiter.statistics().available, 106);
    let promised = limiter.reserve(206, SECOND).unwrap();
    limiter.reconfigure(RateLimiter::builder("test").rate(1, 10 * SECOND).burst(2)).unwrap();
    assert_eq!(promised.ready_in(), SECOND);
    assert_eq!(limiter.peek(1).unwrap_err().retry_after, Some(11 * SECOND), "behind who waits, at the new rate");
}

#[test]
fn a_limiter_keeps_its_name_and_its_algorithm_and_a_refused_change_changes_nothing() {
    let (limiter, _time) = limiter(1, SECOND, 10);
    let before = limiter.statistics();
    let messages = [
        limiter.reconfigure(RateLimiter::builder("other")).unwrap_err().to_string(),
        limiter.reconfigure(RateLimiter::builder("test").sliding_window(5, SECOND)).unwrap_err().to_string(),
        limiter.reconfigure(RateLimiter::builder("test").rate(5, SECOND).burst(0)).unwrap_err().to_string(),
        limiter.reconfigure(RateLimiter::builder("test").rate(0, SECOND).burst(5)).unwrap_err().to_string(),
        limiter.reconfigure(RateLimiter::builder("test").burst(5).start_with(6)).unwrap_err().to_string(),
    ];
    insta::assert_debug_snapshot!(messages, @r#"
    [
        "`name` is `other`; allowed: `test`: a limiter keeps its name",
        "`test.algorithm` is a sliding window; allowed: a token bucket, as it was built",
        "`test.burst` is 0; allowed: 1 to 4294967295",
        "`test.rate` is 0; allowed: 1 to 4294967295",
        "`test.start_with` is 6; allowed: 0 to 5",
    ]
    "#);
    assert_eq!(limiter.statistics(), before);
}

#[derive(Debug, Clone)]
enum Step {
    Take(u32),
    Pause(u64),
    Rate(u32, u64),
    Burst(u32),
    Both(u32, u64, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u32..40).prop_map(Step::Take),
        3 => (0_u64..5_000_000_000).prop_map(Step::Pause),
        1 => (1_u32..1_000, 1_u64..60).prop_map(|(permits, seconds)| Step::Rate(permits, seconds)),
        1 => (1_u32..50).prop_map(Step::Burst),
        1 => (1_u32..1_000, 1_u64..60, 1_u32..50).prop_map(|(permits, seconds, burst)| Step::Both(permits, seconds, burst)),
    ]
}

proptest! {
    /// The naive model: a number of tokens. A change of rate leaves it, a change of burst cuts it.
    #[test]
    fn tokens_are_conserved_whatever_is_changed(steps in proptest::collection::vec(step(), 1..200)) {
        let (limiter, time) = limiter(10, SECOND, 20);
        let (mut tokens, mut per_nano, mut burst) = (20.0_f64, 1.0 / 1e8, 20_u32);
        for step in steps {
            match step {
                Step::Pause(nanos) => {
                    time.advance(Duration::from_nanos(nanos));
                    tokens = (tokens + nanos as f64 * per_nano).min(f64::from(burst));
                }
                Step::Rate(permits, seconds) => {
                    limiter.set_rate(permits, Duration::from_secs(seconds)).unwrap();
                    per_nano = 1.0 / (seconds * 1_000_000_000).div_ceil(u64::from(permits)) as f64;
                }
                Step::Both(permits, seconds, together) => {
                    let builder = RateLimiter::builder("test").rate(permits, Duration::from_secs(seconds));
                    limiter.reconfigure(builder.burst(together)).unwrap();
                    per_nano = 1.0 / (seconds * 1_000_000_000).div_ceil(u64::from(permits)) as f64;
                    burst = together;
                    tokens = tokens.min(f64::from(burst));
                }
                Step::Burst(permits) => {
                    limiter.set_burst(permits).unwrap();
                    burst = permits;
                    tokens = tokens.min(f64::from(burst));
                }
                Step::Take(permits) => {
                    let granted = limiter.try_acquire(permits).is_ok();
                    // At most a nanosecond's worth is lost per change: 1e-6 permits at the fastest rate here.
                    let unsure = (tokens - f64::from(permits)).abs() < 1e-3;
                    prop_assert!(unsure || granted == (f64::from(permits) <= tokens), "{permits} of {tokens}");
                    if granted { tokens -= f64::from(permits); }
                }
            }
        }
    }

    #[test]
    fn no_change_makes_it_panic(steps in proptest::collection::vec((any::<u32>(), any::<Duration>(), any::<u32>()), 1..20)) {
        let (limiter, time) = limiter(10, SECOND, 20);
        for (permits, period, burst) in steps {
            let _ = limiter.set_rate(permits, period);
            let _ = limiter.set_burst(burst);
            let _ = limiter.reserve(burst, period).map(|reservation| reservation.ready_in());
            let _ = (limiter.peek(burst), limiter.quota().limit_field().to_string(), limiter.statistics());
            time.advance(period);
        }
    }
}
