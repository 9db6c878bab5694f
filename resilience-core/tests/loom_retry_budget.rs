//! What threads can do to a retry budget: `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test 'loom*'`.
#![cfg(resilience_loom)]

use loom::thread;
use resilience_core::retry::RetryDecision;
use resilience_core::{Category, Class, Instant, Retry, RetryBudget};

const SECOND: u64 = 1_000_000_000;

fn under(budget: &RetryBudget) -> Retry {
    Retry::builder().budget(budget.clone()).build().unwrap()
}

/// Whether a call that fails at `now` may be tried again.
fn granted(retry: &Retry, now: Instant) -> bool {
    let mut progress = retry.start(now);
    matches!(retry.decide(&mut progress, &Class::of(Category::Network), now, None), RetryDecision::After(_))
}

#[test]
fn the_last_retry_is_granted_once() {
    loom::model(|| {
        let now = Instant::from_nanos(SECOND);
        let budget = RetryBudget::builder().ratio(0.0).min_per_second(0.1).build().unwrap();
        let (mine, theirs) = (under(&budget), under(&budget));
        let other = thread::spawn(move || u32::from(granted(&theirs, now)));
        assert_eq!(u32::from(granted(&mine, now)) + other.join().unwrap(), 1);
    });
}

#[test]
fn calls_that_meet_at_the_turn_of_the_window_are_all_counted() {
    loom::model(|| {
        let budget = RetryBudget::default();
        let (mine, theirs) = (under(&budget), under(&budget));
        // Eleven tenths of the window later, the same place is used anew.
        let (before, after) = (Instant::from_nanos(SECOND), Instant::from_nanos(12 * SECOND));
        mine.start(before);
        let other = thread::spawn(move || {
            theirs.start(after);
        });
        mine.start(after);
        other.join().unwrap();
        assert_eq!(budget.statistics(after).calls, 2);
    });
}
