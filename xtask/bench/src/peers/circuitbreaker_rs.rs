//! `circuitbreaker-rs`: rates since the start and failures in a row, in atomics and locks.

use std::hint::black_box;
use std::io;

use circuitbreaker_rs::{BreakerError, CircuitBreaker, DefaultPolicy};

use crate::case::{Case, repeat};
use crate::ours::{HOUR, failure, success};

pub(crate) fn breaker() -> CircuitBreaker<DefaultPolicy, io::Error> {
    CircuitBreaker::<DefaultPolicy, io::Error>::builder().failure_threshold(0.5).cooldown(HOUR).build()
}

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "circuitbreaker-rs", package: Some("circuitbreaker-rs"), make };
    vec![
        peer("breaker_in_a_row", || {
            let breaker = breaker();
            Box::new(move |calls| repeat(calls, || black_box(&breaker).call(success).is_ok_and(|value| value == 1)))
        }),
        peer("breaker_open", || {
            let breaker = breaker();
            (0..100).for_each(|_| drop(breaker.call(failure)));
            Box::new(move |calls| {
                repeat(calls, || matches!(black_box(&breaker).call(success), Err(BreakerError::Open)))
            })
        }),
    ]
}
