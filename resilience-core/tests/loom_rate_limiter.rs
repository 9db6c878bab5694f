//! Exhaustive models of a limiter that is changed while it is used: `RUSTFLAGS="--cfg resilience_loom" cargo test
//! --release --test 'loom*'`.
#![cfg(resilience_loom)]

use std::time::Duration;

use loom::thread;
use resilience_core::{Clock, KeyedRateLimiter, RateLimiter, Reason};

const SECOND: Duration = Duration::from_secs(1);

fn limiter(burst: u32) -> RateLimiter {
    let (clock, _) = Clock::manual();
    RateLimiter::builder("model").rate(1, SECOND).burst(burst).clock(clock).build().unwrap()
}

#[test]
fn a_change_of_rate_meets_a_request_before_or_after_and_never_in_between() {
    loom::model(|| {
        let limiter = limiter(2);
        let theirs = limiter.clone();
        let other = thread::spawn(move || u32::from(theirs.try_acquire(1).is_ok()));
        limiter.set_rate(1_000, SECOND).unwrap();
        let taken = other.join().unwrap();
        assert_eq!(taken + limiter.statistics().available, 2, "time stood still");
    });
}

#[test]
fn a_change_of_burst_meets_a_request_before_or_after_and_never_in_between() {
    loom::model(|| {
        let limiter = limiter(1);
        let theirs = limiter.clone();
        let other = thread::spawn(move || (0..2).filter(|_| theirs.try_acquire(1).is_ok()).count());
        limiter.set_burst(100).unwrap();
        assert_eq!(other.join().unwrap(), 1, "a larger burst is not a fuller one");
        assert_eq!(limiter.statistics().available, 0);
    });
}

#[test]
fn a_reservation_given_up_while_the_rate_changes_is_not_given_back_twice_or_as_more() {
    loom::model(|| {
        let limiter = limiter(2);
        let theirs = limiter.clone();
        let other = thread::spawn(move || drop(theirs.reserve(2, Duration::ZERO)));
        limiter.set_rate(1_000, SECOND).unwrap();
        other.join().unwrap();
        let available = limiter.statistics().available;
        // Given back before the change, or too late to be.
        assert!(available == 2 || available == 0, "{available}");
    });
}

#[test]
fn two_threads_with_new_keys_never_pass_the_bound() {
    loom::model(|| {
        let (clock, _) = Clock::manual();
        let limiter = KeyedRateLimiter::<u8>::builder("model").rate(1, SECOND).burst(1).max_keys(1).clock(clock);
        let limiter = limiter.hasher(std::hash::BuildHasherDefault::<Same>::default()).build().unwrap();
        let theirs = limiter.clone();
        let other = thread::spawn(move || theirs.try_acquire(&1, 1));
        let answers = [limiter.try_acquire(&2, 1), other.join().unwrap()];
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        let refused = answers.into_iter().find_map(Result::err).unwrap();
        assert_eq!(refused.reason, Reason::TooManyKeys { max_keys: 1 });
        assert_eq!(limiter.statistics().keys, 1);
    });
}

#[test]
fn rate_and_burst_change_together_and_a_request_meets_both_or_neither() {
    loom::model(|| {
        let limiter = limiter(2);
        let theirs = limiter.clone();
        // Three at once only with the new burst, and then they come back at the new rate.
        let other = thread::spawn(move || theirs.reserve(3, 60 * SECOND).map(|it| it.ready_in()));
        limiter.reconfigure(RateLimiter::builder("model").rate(1_000, SECOND).burst(3)).unwrap();
        match other.join().unwrap() {
            Ok(wait) => assert_eq!(wait, SECOND / 1_000),
            Err(refused) => assert_eq!(refused.reason, Reason::ExceedsBurst { requested: 3, burst: 2 }),
        }
    });
}

#[test]
fn with_a_queue_too_rate_and_burst_change_together() {
    loom::model(|| {
        let limiter = limiter(2);
        limiter.reserve(2, SECOND).unwrap().used();
        limiter.reserve(1, SECOND).unwrap().used();
        let theirs = limiter.clone();
        let other = thread::spawn(move || theirs.reserve(3, 60 * SECOND).map(|it| it.ready_in()));
        limiter.reconfigure(RateLimiter::builder("model").rate(1_000, SECOND).burst(3)).unwrap();
        match other.join().unwrap() {
            Ok(wait) => assert_eq!(wait, SECOND + SECOND / 1_000 * 3),
            Err(refused) => assert_eq!(refused.reason, Reason::ExceedsBurst { requested: 3, burst: 2 }),
        }
    });
}

#[test]
fn a_keyed_reservation_given_up_while_the_rate_changes_is_not_given_back_as_more() {
    loom::model(|| {
        let (clock, _) = Clock::manual();
        let limiter = KeyedRateLimiter::<u8>::builder("model").rate(1, SECOND).burst(2).max_keys(1).clock(clock);
        let limiter = limiter.hasher(std::hash::BuildHasherDefault::<Same>::default()).build().unwrap();
        let theirs = limiter.clone();
        let other = thread::spawn(move || drop(theirs.reserve(&1, 2, Duration::ZERO)));
        limiter.set_rate(1_000, SECOND).unwrap();
        other.join().unwrap();
        let available = limiter.quota(&1).remaining;
        assert!(available == 2 || available == 0, "{available}");
    });
}

/// All keys in one shard, the same in every run of the model.
#[derive(Default)]
struct Same;

impl std::hash::Hasher for Same {
    fn finish(&self) -> u64 {
        1
    }

    fn write(&mut self, _: &[u8]) {}
}
