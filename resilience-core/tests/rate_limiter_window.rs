//! The sliding window: at most so many in any span, exactly; with waits, dropped waiters and changes.

use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{Clock, ManualClock, RateLimiter, Reason};

const SECOND: Duration = Duration::from_secs(1);

fn window(permits: u32, span: Duration) -> (RateLimiter, ManualClock) {
    let (clock, time) = Clock::manual();
    (RateLimiter::builder("test").sliding_window(permits, span).clock(clock).build().unwrap(), time)
}

#[test]
fn a_burst_before_the_turn_of_a_span_and_one_after_it_are_too_many() {
    let (limiter, time) = window(10, SECOND);
    time.advance(SECOND / 10 * 9);
    limiter.try_acquire(10).unwrap();
    time.advance(SECOND / 10 * 2);
    let refused = limiter.try_acquire(1).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::RateLimited, Some(SECOND / 10 * 8)));
    time.advance(Duration::from_nanos(799_999_999));
    assert!(limiter.try_acquire(1).is_err(), "not a nanosecond before");
    time.advance(Duration::from_nanos(1));
    limiter.try_acquire(10).unwrap();
}

#[test]
fn a_window_of_one_does_not_let_a_second_request_through() {
    let (limiter, time) = window(1, 36_000 * SECOND);
    assert_eq!((0..1_000).filter(|_| limiter.try_acquire(1).is_ok()).count(), 1);
    time.advance(36_000 * SECOND);
    assert_eq!((0..1_000).filter(|_| limiter.try_acquire(1).is_ok()).count(), 1);
}

#[test]
fn more_than_the_window_has_is_refused_at_once_with_its_reason() {
    let (limiter, _time) = window(10, SECOND);
    let rejection = limiter.acquire(11, Duration::from_secs(3600)).unwrap_err();
    assert_eq!(rejection.reason, Reason::ExceedsBurst { requested: 11, burst: 10 });
    assert_eq!(rejection.retry_after, None);
    assert_eq!(limiter.statistics().available, 10);
}

#[test]
fn waiters_are_served_in_order_and_a_dropped_one_gives_its_place_back() {
    let (limiter, time) = window(1, SECOND);
    limiter.try_acquire(1).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let join = || Box::pin(limiter.acquire_async(1, 60 * SECOND));
    let mut waiters: Vec<_> = (0..4).map(|number| (number, join())).collect();
    for (_, waiter) in &mut waiters {
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(limiter.try_acquire(1).unwrap_err().retry_after, Some(5 * SECOND), "nobody overtakes");
    drop(waiters.remove(1));
    drop(waiters.pop());
    for number in [4, 5] {
        waiters.push((number, join()));
        assert!(waiters.last_mut().is_some_and(|(_, waiter)| waiter.as_mut().poll(&mut cx).is_pending()));
    }
    let mut served = Vec::new();
    for second in 1..=4 {
        time.advance(SECOND);
        waiters.retain_mut(|(number, waiter)| {
            let ready = waiter.as_mut().poll(&mut cx).is_ready();
            if ready {
                served.push((second, *number));
            }
            !ready
        });
    }
    assert_eq!(served, [(1, 0), (2, 4), (3, 2), (4, 5)], "4 and 5 got the places of 1 and 3");
}

#[test]
fn a_queue_dropped_from_its_head_leaves_no_debt_behind() {
    let (limiter, _time) = window(3, SECOND);
    limiter.try_acquire(2).unwrap();
    let queue: Vec<_> = (0..1_000).map(|_| limiter.reserve(1, Duration::MAX).unwrap()).collect();
    assert_eq!(limiter.peek(1).unwrap_err().retry_after, Some(334 * SECOND));
    drop(queue);
    assert_eq!(limiter.statistics().available, 1);
    assert_eq!(limiter.peek(2).unwrap_err().retry_after, Some(SECOND));
}

#[test]
fn waiting_blocks_exactly_until_the_permits_are_there() {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("test").sliding_window(5, SECOND).clock(time.clock()).build().unwrap();
    for _ in 0..21 {
        limiter.acquire(1, 10 * SECOND).unwrap();
    }
    assert_eq!(time.elapsed(), 4 * SECOND);
    assert!(limiter.acquire(5, Duration::from_nanos(999_999_999)).is_err());
    assert_eq!(time.elapsed(), 4 * SECOND, "a wait that would be too long is not begun");
}

#[test]
fn it_tells_what_is_left_what_is_used_and_when_there_will_be_more() {
    let (limiter, time) = window(10, 60 * SECOND);
    limiter.try_acquire(3).unwrap();
    time.advance(10 * SECOND);
    limiter.try_acquire(4).unwrap();
    assert!(limiter.try_acquire(4).is_err());
    let statistics = limiter.statistics();
    assert_eq!((statistics.available, statistics.used, statistics.burst, statistics.rejected), (3, 7, 10, 1));
    assert!((statistics.refill_per_second - 1.0 / 6.0).abs() < 1e-12);
    let quota = limiter.quota();
    assert_eq!(quota.policy_field().to_string(), r#""test";q=10;w=60"#);
    assert_eq!(quota.limit_field().to_string(), r#""test";r=3;t=50"#);
    assert_eq!((quota.reset_seconds(), quota.retry_after()), (50, None));
    time.advance(50 * SECOND);
    let statistics = limiter.statistics();
    assert_eq!((statistics.available, statistics.used), (6, 4));
    let waiting = limiter.reserve(10, 60 * SECOND).unwrap();
    assert_eq!((limiter.quota().remaining, limiter.quota().retry_after()), (0, Some(70)), "behind who waits");
    drop(waiting);
    time.advance(10 * SECOND);
    assert_eq!((limiter.quota().remaining, limiter.quota().reset), (10, Duration::ZERO));
}

#[test]
fn it_starts_with_what_was_asked_for_and_fills_a_span_later() {
    let (clock, time) = Clock::manual();
    let limiter = RateLimiter::builder("test").sliding_window(10, SECOND).start_with(3).clock(clock).build().unwrap();
    limiter.try_acquire(3).unwrap();
    assert!(limiter.try_acquire(1).is_err());
    time.advance(SECOND);
    limiter.try_acquire(10).unwrap();
}

#[test]
fn a_changed_window_counts_what_was_granted_and_keeps_what_was_promised() {
    let (limiter, time) = window(10, SECOND);
    limiter.try_acquire(6).unwrap();
    let promised = limiter.reserve(8, SECOND).unwrap();
    for _ in 0..100 {
        limiter.set_rate(3, 10 * SECOND).unwrap();
        limiter.set_rate(20, SECOND).unwrap();
    }
    assert_eq!(promised.ready_in(), SECOND);
    assert!(limiter.peek(1).is_err(), "nobody overtakes");
    time.advance(SECOND);
    promised.used();
    assert_eq!(limiter.statistics().available, 12, "twenty, less the eight");
    limiter.set_rate(4, SECOND).unwrap();
    assert_eq!((limiter.statistics().available, limiter.statistics().used), (0, 4));
    assert_eq!(limiter.peek(1).unwrap_err().retry_after, Some(SECOND));
}

#[test]
fn what_a_window_has_forgotten_does_not_come_back_into_a_longer_one() {
    let (limiter, time) = window(10, SECOND);
    limiter.try_acquire(10).unwrap();
    time.advance(SECOND / 2 * 3);
    limiter.set_rate(10, 60 * SECOND).unwrap();
    assert_eq!(limiter.statistics().available, 10);
}

#[test]
fn values_that_cannot_be_used_are_refused_with_what_would_be_right() {
    let message =
        |permits, span| RateLimiter::builder("test").sliding_window(permits, span).build().unwrap_err().to_string();
    let builder = || RateLimiter::builder("test").sliding_window(5, SECOND);
    let (limiter, _time) = window(5, SECOND);
    let messages = [
        message(0, SECOND),
        message(1_000_001, SECOND),
        message(1, Duration::ZERO),
        message(1, Duration::MAX).split(" is ").next().unwrap_or_default().to_owned(),
        builder().burst(5).build().unwrap_err().to_string(),
        builder().rate(5, SECOND).build().unwrap_err().to_string(),
        builder().start_with(6).build().unwrap_err().to_string(),
        limiter.set_burst(5).unwrap_err().to_string(),
        limiter.set_rate(0, SECOND).unwrap_err().to_string(),
        limiter.reconfigure(RateLimiter::builder("test")).unwrap_err().to_string(),
    ];
    insta::assert_debug_snapshot!(messages, @r#"
    [
        "`test.sliding_window.permits` is 0; allowed: 1 to 1000000",
        "`test.sliding_window.permits` is 1000001; allowed: 1 to 1000000",
        "`test.sliding_window.span` is 0ns; allowed: more than 0, at most 10 years",
        "`test.sliding_window.span`",
        "`test.burst` is 5; allowed: no burst: a sliding window grants all its permits at once",
        "`test.rate` is 5 per 1s; allowed: no rate: a sliding window has its permits and its span",
        "`test.start_with` is 6; allowed: 0 to 5",
        "`test.burst` is 5; allowed: no burst: a sliding window grants all its permits at once",
        "`test.sliding_window.permits` is 0; allowed: 1 to 1000000",
        "`test.algorithm` is a token bucket; allowed: a sliding window, as it was built",
    ]
    "#);
}

#[test]
fn threads_share_one_window_exactly() {
    let (limiter, _time) = window(1_000, SECOND);
    let granted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| limiter.try_acquire(1).is_ok()).count())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(granted, 1_000);
}

/// All grants in a list, looked through from end to end. Those given up count until they are the last.
#[derive(Default)]
struct Naive {
    /// Time, permits, and how many of these were given up.
    grants: Vec<(u64, u32, u32)>,
}

impl Naive {
    fn when(&self, permits: u32, now: u64, limit: u32, span: u64) -> (u64, bool) {
        let gap = self.grants.iter().find(|(at, _, free)| *at >= now && *free >= permits && permits > 0);
        if let Some((at, ..)) = gap {
            return (*at, true);
        }
        let soonest = self.grants.last().map_or(now, |(at, ..)| now.max(*at));
        let fits = |time: u64| {
            let counted: u32 =
                self.grants.iter().filter(|(at, ..)| at + span > time).map(|(_, permits, _)| permits).sum();
            counted + permits <= limit
        };
        let later = self.grants.iter().map(|(at, ..)| at + span).filter(|at| *at > soonest);
        let time = std::iter::once(soonest).chain(later).find(|time| fits(*time)).expect("the last one always fits");
        (time, false)
    }

    fn take(&mut self, at: u64, permits: u32, in_gap: bool) {
        if in_gap {
            let (.., free) = self.grants.iter_mut().find(|(it, ..)| *it == at).expect("it was found");
            *free -= permits;
        } else if permits > 0 {
            match self.grants.last_mut() {
                Some((last, count, _)) if *last == at => *count += permits,
                _ => self.grants.push((at, permits, 0)),
            }
        }
    }

    fn give_up(&mut self, at: u64, permits: u32) {
        if let Some((.., free)) = self.grants.iter_mut().find(|(it, ..)| *it == at) {
            *free += permits;
        }
        while let Some((_, permits, free)) = self.grants.last_mut() {
            *permits -= std::mem::take(free);
            if *permits > 0 {
                break;
            }
            self.grants.pop();
        }
    }
}

proptest! {
    /// Whatever is taken, waited for, given up and dropped: the answers are those of a list of all grants, and what
    /// was used never exceeds the window, wherever it is laid.
    #[test]
    fn it_grants_what_a_list_of_all_grants_allows(
        limit in 1_u32..6,
        steps in proptest::collection::vec((0_u8..8, 0_u32..7, any::<usize>()), 1..150),
    ) {
        const SPAN: u64 = 7;
        let (limiter, time) = window(limit, Duration::from_nanos(SPAN));
        let (mut naive, mut waiting, mut used) = (Naive::default(), Vec::new(), Vec::new());
        for (step, permits, pick) in steps {
            let now = time.now().as_nanos();
            match step {
                0..=4 => {
                    let max_wait = Duration::from_nanos([0, 0, 3, 1_000, 1_000][usize::from(step)]);
                    let peeked = limiter.peek(permits);
                    match limiter.reserve(permits, max_wait) {
                        Ok(reservation) => {
                            let (expected, in_gap) = naive.when(permits, now, limit, SPAN);
                            prop_assert_eq!(reservation.ready_at().as_nanos(), expected);
                            prop_assert_eq!(peeked.is_ok(), expected <= now);
                            naive.take(expected, permits, in_gap);
                            waiting.push(reservation);
                        }
                        Err(refused) if permits > limit => prop_assert_eq!(refused.retry_after, None),
                        Err(refused) => {
                            let wait = naive.when(permits, now, limit, SPAN).0 - now;
                            prop_assert_eq!(refused.retry_after, Some(Duration::from_nanos(wait)));
                            prop_assert!(u128::from(wait) > max_wait.as_nanos());
                        }
                    }
                }
                5 if !waiting.is_empty() => {
                    let reservation = waiting.swap_remove(pick % waiting.len());
                    naive.give_up(reservation.ready_at().as_nanos(), reservation.permits());
                    drop(reservation);
                }
                _ => time.advance(Duration::from_nanos(u64::try_from(pick % 4).unwrap())),
            }
            let now = time.now().as_nanos();
            // Everyone is punctual, except that who is due now may still give up before the clock moves on.
            for due in waiting.extract_if(.., |reservation| reservation.ready_at().as_nanos() < now) {
                used.push((due.ready_at().as_nanos(), due.permits()));
                due.used();
            }
        }
        for (from, _) in &used {
            let in_span = used.iter().filter(|(at, _)| (*from..from + SPAN).contains(at)).map(|(_, permits)| permits);
            prop_assert!(in_span.sum::<u32>() <= limit, "{used:?}");
        }
        drop(waiting);
        time.advance(Duration::from_nanos(SPAN));
        let available = limiter.statistics().available;
        time.advance(Duration::from_nanos(1_000 * SPAN));
        prop_assert_eq!(limiter.statistics().available, limit);
        prop_assert!(available <= limit);
    }

    #[test]
    fn no_configuration_makes_it_panic(permits in any::<u32>(), small in 0_u32..20, span in any::<Duration>(),
                                       wanted in any::<u32>(), wait in any::<Duration>()) {
        for permits in [permits, small] {
            let time = ManualClock::auto_advancing();
            if let Ok(limiter) = RateLimiter::builder("test").sliding_window(permits, span).clock(time.clock()).build() {
                for _ in 0..5 {
                    let _ = limiter.try_acquire(wanted);
                    let _ = limiter.acquire(wanted % 3, wait);
                    let _ = limiter.reserve(wanted % 5, wait).map(|reservation| reservation.ready_in());
                    let _ = limiter.set_rate(wanted, wait);
                    let _ = (limiter.statistics(), limiter.quota().limit_field().to_string());
                }
            }
        }
    }
}
