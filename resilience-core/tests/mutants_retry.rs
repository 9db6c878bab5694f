//! What changed code was not noticed by the other tests of the retry: bounds to the very value, and both ends of a spread.

use std::time::Duration;

use resilience_core::retry::RetryDecision;
use resilience_core::{Backoff, Category, Class, Clock, Jitter, Retry, RetryBudget};

const SECOND: Duration = Duration::from_secs(1);
const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 86_400);

fn refused_field(backoff: Backoff) -> Option<String> {
    Retry::builder().backoff(backoff).build().err().map(|error| error.field)
}

#[test]
fn a_base_from_one_to_a_thousand_can_be_used_and_no_other() {
    let with = |base| refused_field(Backoff::exponential(SECOND, base, SECOND));
    for base in [1.0, 1.5, 1000.0] {
        assert_eq!(with(base), None, "{base}");
    }
    for base in [0.5, 1000.1, -2.0, 0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(with(base).as_deref(), Some("retry.backoff.base"), "{base}");
    }
}

#[test]
fn a_cap_of_ten_years_can_be_used_and_no_longer_one() {
    let kinds =
        |cap| [Backoff::fixed(cap), Backoff::exponential(SECOND, 2.0, cap), Backoff::Linear { initial: SECOND, cap }];
    for backoff in kinds(TEN_YEARS) {
        assert_eq!(refused_field(backoff), None, "{backoff:?}");
    }
    for backoff in kinds(TEN_YEARS + Duration::from_nanos(1)) {
        assert_eq!(refused_field(backoff).as_deref(), Some("retry.backoff.cap"), "{backoff:?}");
    }
}

/// Pauses of a second, spread.
fn spread(jitter: Jitter) -> (Duration, Duration) {
    let retry = Retry::builder()
        .max_attempts(u32::MAX)
        .backoff(Backoff::exponential(SECOND, 1.0, SECOND * 10))
        .jitter(jitter)
        .seed(11)
        .build()
        .unwrap();
    let (clock, _time) = Clock::manual();
    let mut progress = retry.start(clock.now());
    let pauses: Vec<Duration> = (0..1_000)
        .map(|_| match retry.decide(&mut progress, &Class::of(Category::Network), clock.now(), None) {
            RetryDecision::After(pause) => pause,
            RetryDecision::Stop(why) => panic!("{why:?}"),
        })
        .collect();
    (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap())
}

#[test]
fn each_jitter_reaches_both_ends_of_its_spread_and_goes_no_further() {
    let cases = [
        (Jitter::None, SECOND, SECOND),
        (Jitter::Ratio(0.2), SECOND * 8 / 10, SECOND * 12 / 10),
        (Jitter::Full, Duration::ZERO, SECOND),
        (Jitter::Equal, SECOND / 2, SECOND),
        (Jitter::Decorrelated, SECOND, SECOND * 10),
    ];
    for (jitter, shortest, longest) in cases {
        let (least, most) = spread(jitter);
        assert!(shortest <= least && most <= longest, "{jitter:?}: {least:?} to {most:?}");
        let slack = (longest.saturating_sub(shortest)) / 50;
        assert!(least <= shortest + slack && most + slack >= longest, "{jitter:?}: {least:?} to {most:?}");
    }
}

#[test]
fn a_budget_keeps_what_it_counted_unless_its_window_changes() {
    let (clock, _time) = Clock::manual();
    let numbers = |ratio| RetryBudget::builder().ratio(ratio).min_per_second(0.0);
    let budget = numbers(1.0).build().unwrap();
    let retry = Retry::builder().budget(budget.clone()).build().unwrap();
    for _ in 0..4 {
        let _ = retry.start(clock.now());
    }
    budget.reconfigure(numbers(0.5)).unwrap();
    let statistics = budget.statistics(clock.now());
    assert_eq!((statistics.calls, statistics.available), (4, 2));
    budget.reconfigure(numbers(0.5).window(SECOND * 20)).unwrap();
    let statistics = budget.statistics(clock.now());
    assert_eq!((statistics.calls, statistics.available), (0, 0));
}

#[test]
fn a_budget_equals_its_clones_and_no_other() {
    let budget = RetryBudget::default();
    assert_eq!(budget, budget.clone());
    assert_ne!(budget, RetryBudget::default());
}
