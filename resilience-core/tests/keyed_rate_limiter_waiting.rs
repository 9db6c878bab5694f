//! Waiting in a key's queue, giving a place up, and changing the limits of all keys while they are used.

use std::collections::HashMap;
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{Clock, KeyedRateLimiter, ManualClock, RateLimiter, Reason};

const SECOND: Duration = Duration::from_secs(1);

fn limiter(burst: u32, max_keys: u32) -> (KeyedRateLimiter<String>, ManualClock) {
    let (clock, time) = Clock::manual();
    let builder = KeyedRateLimiter::builder("test").rate(1, SECOND).burst(burst).max_keys(max_keys).clock(clock);
    (builder.build().unwrap(), time)
}

#[test]
fn waiters_of_a_key_are_served_in_order_and_a_dropped_one_gives_its_place_back() {
    let (limiter, time) = limiter(1, 10);
    limiter.try_acquire("blue", 1).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let join = |key: &'static str| Box::pin(limiter.acquire_async(key, 1, 60 * SECOND));
    let mut waiters: Vec<_> = (0..3).map(|number| (number, join("blue"))).collect();
    for (_, waiter) in &mut waiters {
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
    }
    assert!(join("green").as_mut().poll(&mut cx).is_ready(), "keys do not wait for each other");
    drop(waiters.remove(1));
    for number in [3, 4] {
        waiters.push((number, join("blue")));
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
    assert_eq!(served, [(1, 0), (2, 3), (3, 2), (4, 4)]);
}

#[test]
fn a_wait_that_would_be_too_long_or_for_ever_is_not_begun() {
    let (limiter, _time) = limiter(2, 10);
    limiter.try_acquire("blue", 2).unwrap();
    let late = limiter.acquire("blue", 2, Duration::from_nanos(1_999_999_999)).unwrap_err();
    assert_eq!((late.reason, late.retry_after), (Reason::RateLimited, Some(2 * SECOND)));
    let never = limiter.acquire("green", 3, Duration::MAX).unwrap_err();
    assert_eq!((never.reason, never.retry_after), (Reason::ExceedsBurst { requested: 3, burst: 2 }, None));
    assert_eq!(limiter.statistics().keys, 1);
}

#[test]
fn a_queue_dropped_from_its_head_leaves_no_debt_behind() {
    let (limiter, time) = limiter(1, 10);
    limiter.try_acquire("blue", 1).unwrap();
    let queue: Vec<_> = (0..1_000).map(|_| limiter.reserve("blue", 1, Duration::MAX).unwrap()).collect();
    assert_eq!(queue.last().map(|last| (last.ready_in(), last.permits())), Some((1_000 * SECOND, 1)));
    drop(queue);
    time.advance(SECOND);
    assert!(limiter.try_acquire("blue", 1).is_ok());
}

#[test]
fn a_key_with_a_queue_is_not_forgotten_and_one_whose_queue_left_is() {
    let (limiter, time) = limiter(1, 2);
    limiter.try_acquire("blue", 1).unwrap();
    let queue: Vec<_> = (0..5).map(|_| limiter.reserve("blue", 1, Duration::MAX).unwrap()).collect();
    limiter.try_acquire("green", 1).unwrap();
    time.advance(3 * SECOND);
    limiter.try_acquire("red", 1).unwrap();
    let refused = limiter.try_acquire("white", 1).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::TooManyKeys { max_keys: 2 }, Some(SECOND)));
    assert_eq!(limiter.peek("blue", 1).unwrap_err().retry_after, Some(3 * SECOND));
    drop(queue);
    limiter.try_acquire("white", 1).unwrap();
    assert_eq!(limiter.statistics().evicted, 2);
}

#[test]
fn a_place_of_a_key_that_was_forgotten_meanwhile_gives_nothing() {
    let (limiter, time) = limiter(2, 1);
    let blue = limiter.reserve("blue", 2, Duration::ZERO).unwrap();
    time.advance(2 * SECOND);
    limiter.try_acquire("green", 1).unwrap();
    time.advance(SECOND);
    limiter.try_acquire("blue", 2).unwrap();
    drop(blue);
    assert_eq!(limiter.quota("blue").remaining, 0);
}

#[test]
fn a_change_of_rate_hands_out_no_burst_to_any_key_and_takes_none_away() {
    let (limiter, time) = limiter(10, 1_000);
    let keys: Vec<_> = (0..100).map(|key| (key.to_string(), key % 11)).collect();
    for (key, used) in &keys {
        limiter.try_acquire(key.as_str(), *used).unwrap();
    }
    limiter.set_rate(1_000, SECOND).unwrap();
    limiter.set_burst(1_000).unwrap();
    limiter.set_rate(100, SECOND).unwrap();
    for (key, used) in &keys {
        assert_eq!(limiter.quota(key.as_str()).remaining, 10 - used);
    }
    assert_eq!((limiter.quota("new").remaining, limiter.quota("new").limit), (10, 1_000), "nor to new ones");
    let statistics = limiter.statistics();
    assert_eq!((statistics.burst, statistics.refill_per_second), (1_000, 100.0));
    time.advance(SECOND);
    for (key, used) in &keys {
        assert_eq!(limiter.quota(key.as_str()).remaining, 110 - used);
    }
    limiter.set_burst(5).unwrap();
    assert_eq!(limiter.quota("7").remaining, 5, "what it cannot hold is gone");
}

#[test]
fn rate_and_burst_are_reconfigured_together_and_what_cannot_be_changed_is_refused() {
    let (limiter, _time) = limiter(10, 100);
    let builder = || KeyedRateLimiter::builder("test").max_keys(100);
    limiter.try_acquire("blue", 4).unwrap();
    let promised = limiter.reserve("blue", 9, 3 * SECOND).unwrap();
    limiter.reconfigure(builder().rate(1, 10 * SECOND).burst(20).start_with(7)).unwrap();
    assert_eq!((limiter.quota("new").remaining, limiter.quota("new").limit), (7, 20));
    assert_eq!(promised.ready_in(), 3 * SECOND);
    assert_eq!(limiter.peek("blue", 1).unwrap_err().retry_after, Some(13 * SECOND), "behind who waits");
    let other = |name: &str| KeyedRateLimiter::<String>::builder(name.to_owned());
    let messages = [
        limiter.reconfigure(other("other").max_keys(100)).unwrap_err().to_string(),
        limiter.reconfigure(other("test").max_keys(99)).unwrap_err().to_string(),
        limiter.reconfigure(builder().burst(0)).unwrap_err().to_string(),
        limiter.set_burst(6).unwrap_err().to_string(),
        limiter.set_rate(0, SECOND).unwrap_err().to_string(),
    ];
    insta::assert_debug_snapshot!(messages, @r#"
    [
        "`name` is `other`; allowed: `test`: a limiter keeps its name",
        "`test.max_keys` is 99; allowed: 100 to 100",
        "`test.burst` is 0; allowed: 1 to 4294967295",
        "`test.burst` is 6; allowed: 7 to 4294967295",
        "`test.rate` is 0; allowed: 1 to 4294967295",
    ]
    "#);
    assert_eq!((limiter.quota("new").remaining, limiter.quota("new").limit), (7, 20), "and nothing changed");
}

#[test]
fn a_known_key_is_looked_up_without_allocating() {
    let (limiter, _time) = limiter(1_000, 10);
    limiter.try_acquire("blue", 1).unwrap();
    let info = allocation_counter::measure(|| {
        limiter.try_acquire("blue", 1).unwrap();
        limiter.acquire("blue", 1, SECOND).unwrap();
        limiter.reserve("blue", 1, SECOND).unwrap().used();
        limiter.try_acquire("blue", 1_000).unwrap_err();
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn permits_are_conserved_when_threads_drop_what_they_reserved() {
    let (limiter, _time) = limiter(3, 64);
    for key in ["blue", "green"] {
        limiter.try_acquire(key, 3).unwrap();
    }
    std::thread::scope(|scope| {
        for seed in 0..3_u32 {
            let limiter = &limiter;
            scope.spawn(move || {
                let mut held = Vec::new();
                for step in 0..20_000_u32 {
                    let mixed = (step ^ seed << 7).wrapping_mul(0x9E37_79B9) >> 16;
                    let key = if mixed & 1 == 0 { "blue" } else { "green" };
                    if mixed & 6 == 0 || held.len() < 8 {
                        held.push(limiter.reserve(key, mixed % 3 + 1, Duration::MAX).unwrap());
                    } else {
                        drop(held.swap_remove(mixed as usize % held.len()));
                    }
                    if held.len() > 32 {
                        held.clear();
                    }
                }
            });
        }
    });
    for key in ["blue", "green"] {
        assert_eq!(limiter.peek(key, 3).unwrap_err().retry_after, Some(3 * SECOND), "as if nobody had been there");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Reserve(u8, u32, u64),
    GiveUp(usize),
    Pause(u64),
    Rate(u32),
    Burst(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..4, 0_u32..7, 0_u64..4_000_000_000).prop_map(|(key, permits, wait)| Step::Reserve(key, permits, wait)),
        3 => any::<usize>().prop_map(Step::GiveUp),
        3 => (0_u64..2_000_000_000).prop_map(Step::Pause),
        1 => (1_u32..9).prop_map(Step::Rate),
        1 => (1_u32..9).prop_map(Step::Burst),
    ]
}

proptest! {
    /// Each key gets what a limiter of its own would give, whatever is waited for, given up and changed.
    #[test]
    fn each_key_is_a_limiter_of_its_own(steps in proptest::collection::vec(step(), 1..150)) {
        let (clock, time) = Clock::manual();
        let keyed = KeyedRateLimiter::<u8>::builder("test").rate(1, SECOND).burst(4).clock(clock.clone()).build().unwrap();
        let single = || RateLimiter::builder("test").rate(1, SECOND).burst(4).clock(clock.clone()).build().unwrap();
        let singles: HashMap<u8, RateLimiter> = (0..4).map(|key| (key, single())).collect();
        let keys = [0, 1, 2, 3];
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Reserve(key, permits, wait) => {
                    let key = &keys[usize::from(key)];
                    let wait = Duration::from_nanos(wait);
                    prop_assert_eq!(keyed.peek(key, permits), singles[key].peek(permits));
                    match (keyed.reserve(key, permits, wait), singles[key].reserve(permits, wait)) {
                        (Ok(one), Ok(other)) => {
                            prop_assert_eq!(one.ready_at(), other.ready_at());
                            held.push((one, other));
                        }
                        (one, other) => prop_assert_eq!(one.map(|_| ()), other.map(|_| ())),
                    }
                }
                Step::GiveUp(pick) if !held.is_empty() => drop(held.swap_remove(pick % held.len())),
                Step::GiveUp(_) => {}
                Step::Pause(nanos) => time.advance(Duration::from_nanos(nanos)),
                Step::Rate(permits) => {
                    keyed.set_rate(permits, SECOND).unwrap();
                    for single in singles.values() {
                        single.set_rate(permits, SECOND).unwrap();
                    }
                }
                Step::Burst(burst) => {
                    keyed.set_burst(burst).unwrap();
                    for single in singles.values() {
                        single.set_burst(burst).unwrap();
                    }
                }
            }
            for key in &keys {
                let (one, other) = (keyed.quota(key), singles[key].quota());
                prop_assert_eq!(one, other);
            }
        }
    }
}
