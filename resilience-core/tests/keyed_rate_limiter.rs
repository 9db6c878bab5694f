//! The keyed limiter: a limit for each key, in bounded memory, whoever comes and goes.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::rate_limiter::KeyedRateLimiterBuilder;
use resilience_core::{Clock, KeyedRateLimiter, ManualClock, Reason};

const SECOND: Duration = Duration::from_secs(1);

fn builder(burst: u32, max_keys: u32) -> (KeyedRateLimiterBuilder<u32>, ManualClock) {
    let (clock, time) = Clock::manual();
    (KeyedRateLimiter::builder("test").rate(1, SECOND).burst(burst).max_keys(max_keys).clock(clock), time)
}

fn limiter(burst: u32, max_keys: u32) -> (KeyedRateLimiter<u32>, ManualClock) {
    let (builder, time) = builder(burst, max_keys);
    (builder.build().unwrap(), time)
}

#[test]
fn each_key_has_a_limit_of_its_own_and_a_borrowed_key_will_do() {
    let (clock, time) = Clock::manual();
    let limiter = KeyedRateLimiter::<String>::builder("test").rate(1, SECOND).burst(2).clock(clock).build().unwrap();
    for key in ["blue", "green"] {
        assert!(limiter.try_acquire(key, 2).is_ok());
        let refused = limiter.clone().try_acquire(key, 1).unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), (Reason::RateLimited, Some(SECOND)));
    }
    time.advance(SECOND);
    assert!(limiter.try_acquire("blue", 1).is_ok());
    assert!(limiter.peek("green", 1).is_ok() && limiter.peek("green", 2).is_err());
    assert_eq!(
        (limiter.quota("blue").remaining, limiter.quota("green").remaining, limiter.quota("new").remaining),
        (0, 1, 2)
    );
    let statistics = limiter.statistics();
    assert_eq!((statistics.keys, statistics.rejected, statistics.rejected_keys), (2, 2, 0));
}

#[test]
fn more_than_the_burst_is_refused_at_once_and_remembers_no_key() {
    let (limiter, _time) = limiter(2, 10);
    let rejection = limiter.try_acquire(&1, 3).unwrap_err();
    assert_eq!(rejection.reason, Reason::ExceedsBurst { requested: 3, burst: 2 });
    assert_eq!(rejection.retry_after, None);
    assert_eq!(limiter.peek(&1, 3).unwrap_err(), rejection);
    assert_eq!(limiter.statistics().keys, 0);
}

#[test]
fn when_it_is_full_of_busy_keys_new_ones_are_refused_and_known_ones_served() {
    let (limiter, time) = limiter(2, 3);
    for key in 0..3 {
        limiter.try_acquire(&key, 1 + key % 2).unwrap();
    }
    let rejection = limiter.try_acquire(&3, 1).unwrap_err();
    assert_eq!(rejection.reason, Reason::TooManyKeys { max_keys: 3 });
    assert_eq!(rejection.retry_after, Some(SECOND), "then the first of them has all its permits again");
    assert_eq!(
        rejection.to_string(),
        "rate limiter `test` has no room for a new key: all its 3 are in use; retry in 1.0s"
    );
    assert!(limiter.try_acquire(&0, 1).is_ok());
    time.advance(SECOND);
    assert!(limiter.try_acquire(&3, 2).is_ok(), "key 2 made room");
    let statistics = limiter.statistics();
    assert_eq!((statistics.keys, statistics.evicted, statistics.rejected, statistics.rejected_keys), (3, 1, 1, 1));
}

#[test]
fn a_million_keys_of_an_attacker_are_bounded_and_do_not_lift_the_limit_of_anyone() {
    let (limiter, time) = limiter(5, 1_000);
    limiter.try_acquire(&u32::MAX, 5).unwrap();
    let mut served = 0;
    for key in 0..1_000_000 {
        served += u32::from(limiter.try_acquire(&key, 1).is_ok());
        if key % 250_000 == 0 {
            assert!(limiter.try_acquire(&u32::MAX, 1).is_err(), "nobody is pushed out to start afresh");
        }
    }
    assert_eq!((served, limiter.statistics().keys), (999, 1_000));
    time.advance(5 * SECOND);
    for key in 0..1_000_000 {
        time.advance(SECOND / 100);
        assert!(limiter.try_acquire(&key, 1).is_ok(), "at 100 new keys per second, 1 s each, there is always room");
        assert!(limiter.statistics().keys <= 1_000);
    }
}

#[test]
fn idle_keys_are_forgotten_as_others_come_a_few_at_a_time() {
    let (limiter, time) = limiter(1, 1_000_000);
    for key in 0..10_000 {
        limiter.try_acquire(&key, 1).unwrap();
    }
    time.advance(SECOND);
    for key in 10_000..20_000 {
        let before = limiter.statistics().evicted;
        limiter.try_acquire(&key, 1).unwrap();
        assert!(limiter.statistics().evicted - before <= 2, "no sweep");
    }
    let statistics = limiter.statistics();
    assert!(statistics.keys < 12_000 && statistics.evicted > 8_000, "{statistics:?}");
}

#[test]
fn keys_start_with_what_was_asked_for() {
    let (builder, time) = builder(5, 10);
    let limiter = builder.start_with(0).build().unwrap();
    assert!(limiter.try_acquire(&1, 1).is_err());
    time.advance(2 * SECOND);
    assert!(limiter.try_acquire(&1, 2).is_ok(), "it is remembered and fills");
    assert_eq!(limiter.quota(&2).remaining, 0);
}

#[test]
fn values_that_cannot_be_used_are_refused() {
    let error = |builder: KeyedRateLimiterBuilder<u32>| builder.build().unwrap_err().to_string();
    assert_eq!(error(builder(5, 0).0), "`test.max_keys` is 0; allowed: 1 to 4294967295");
    assert_eq!(error(builder(0, 5).0), "`test.burst` is 0; allowed: 1 to 4294967295");
    assert_eq!(error(builder(5, 5).0.start_with(6)), "`test.start_with` is 6; allowed: 0 to 5");
    assert_eq!(error(builder(5, 5).0.rate(0, SECOND)), "`test.rate` is 0; allowed: 1 to 4294967295");
}

#[test]
fn threads_share_the_keys_exactly() {
    let (limiter, _time) = limiter(100, 64);
    let granted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..40_000).filter(|n| limiter.try_acquire(&(n % 80), 1).is_ok()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!((granted, limiter.statistics().keys), (64 * 100, 64));
}

/// As bad as a hasher gets.
#[derive(Default)]
struct Constant;

impl Hasher for Constant {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, _: &[u8]) {}
}

fn against_the_model<S: BuildHasher>(
    limiter: &KeyedRateLimiter<u32, S>,
    time: &ManualClock,
    max_keys: usize,
    calls: &[(u64, u32, u32)],
) -> Result<(), TestCaseError> {
    const BURST: u64 = 4;
    let second = 1_000_000_000_u64;
    // Nanoseconds of credit per key, for ever: nobody is forgotten here.
    let mut model: HashMap<u32, u64> = HashMap::new();
    for &(pause, key, permits) in calls {
        time.advance(Duration::from_nanos(pause));
        for credit in model.values_mut() {
            *credit = (*credit + pause).min(BURST * second);
        }
        let credit = model.entry(key).or_insert(BURST * second);
        let cost = u64::from(permits) * second;
        let expected = u64::from(permits) <= BURST && cost <= *credit;
        match limiter.try_acquire(&key, permits) {
            Ok(()) => {
                prop_assert!(expected, "{permits} of {credit} ns");
                *credit -= cost;
            }
            Err(rejection) if matches!(rejection.reason, Reason::TooManyKeys { .. }) => {
                prop_assert_eq!(*credit, BURST * second, "only who is as good as new is turned away");
                let busy = model.values().filter(|credit| **credit < BURST * second).count();
                prop_assert_eq!(busy, max_keys, "and only when all are in use");
            }
            Err(rejection) => prop_assert!(!expected, "{rejection}"),
        }
        prop_assert!(limiter.statistics().keys <= max_keys as u64);
    }
    Ok(())
}

proptest! {
    /// The model is a bucket of tokens per key that is never forgotten: eviction must not be noticed.
    #[test]
    fn whoever_is_forgotten_gets_what_a_naive_bucket_per_key_grants(
        max_keys in 1_u32..12,
        calls in proptest::collection::vec((0_u64..900_000_000, 0_u32..20, 0_u32..6), 1..300),
    ) {
        let keys = max_keys as usize;
        let (one, time) = limiter(4, max_keys);
        against_the_model(&one, &time, keys, &calls)?;
        let (builder, time) = builder(4, max_keys);
        let colliding = builder.hasher(BuildHasherDefault::<Constant>::default()).build().unwrap();
        against_the_model(&colliding, &time, keys, &calls)?;
    }
}
