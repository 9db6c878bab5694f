//! `circuit_breaker`: failures, not in a row, under a mutex.

use std::hint::black_box;

use circuit_breaker::CircuitBreaker;

use crate::case::{Case, repeat};
use crate::ours::{HOUR, failure, success};

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "circuit_breaker", package: Some("circuit_breaker"), make };
    vec![
        peer("breaker_in_a_row", || {
            let breaker = CircuitBreaker::new(5, HOUR);
            Box::new(move |calls| repeat(calls, || black_box(&breaker).execute(success).is_ok_and(|value| value == 1)))
        }),
        peer("breaker_open", || {
            let breaker = CircuitBreaker::new(5, HOUR);
            (0..100).for_each(|_| drop(breaker.execute(failure)));
            Box::new(move |calls| repeat(calls, || black_box(&breaker).execute(success).is_err()))
        }),
    ]
}
