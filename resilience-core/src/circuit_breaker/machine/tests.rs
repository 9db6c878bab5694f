use super::*;
use crate::circuit_breaker::CircuitBreaker;
use crate::circuit_breaker::word::LAST_POSITION;
use crate::class::{Category, Class};

#[test]
fn after_the_last_position_counting_begins_anew_and_no_call_is_lost() {
    let settings = CircuitBreaker::builder("test").failure_rate(0.5, 10, 10).build().unwrap().settings();
    let machine = Machine::new(settings, fastrand::Rng::with_seed(1));
    // As if it had counted that many successes already.
    machine.tally.store(Tally::new(0, LAST_POSITION - 2).0, Ordering::Relaxed);
    let settle = |outcome: &Outcome| {
        let token = machine.admit_closed(Instant::default).expect("it is closed");
        machine.settle_good(token, outcome, Instant::default) || {
            machine.settle(token, outcome, Instant::default);
            true
        }
    };
    (0..20).for_each(|_| assert!(settle(&Outcome::Success)));
    let now = machine.statistics(Instant::default());
    assert_eq!((now.successes, now.window_calls, now.generation), (LAST_POSITION - 2 + 20, 10, 0));
    (0..5).for_each(|_| assert!(settle(&Outcome::Failure(Class::of(Category::Network)))));
    assert_eq!((machine.state(), machine.statistics(Instant::default()).failures), (BreakerState::Open, 5));
}
