//! `failsafe`: failures in a row, or a success rate over time, under a lock.

use std::hint::black_box;
use std::time::Duration;

use failsafe::{CircuitBreaker, Config, backoff, failure_policy};

use crate::case::{Case, repeat};
use crate::ours::{HOUR, failure, success};

pub(crate) fn in_a_row() -> impl CircuitBreaker + Send + Sync + 'static {
    Config::new().failure_policy(failure_policy::consecutive_failures(5, backoff::constant(HOUR))).build()
}

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "failsafe", package: Some("failsafe"), make };
    vec![
        peer("breaker_in_a_row", || {
            let breaker = in_a_row();
            Box::new(move |calls| repeat(calls, || black_box(&breaker).call(success).is_ok_and(|value| value == 1)))
        }),
        peer("breaker_time", || {
            let (rate, least, window) = (0.5, 10, Duration::from_secs(10));
            let policy = failure_policy::success_rate_over_time_window(rate, least, window, backoff::constant(HOUR));
            let breaker = Config::new().failure_policy(policy).build();
            Box::new(move |calls| repeat(calls, || black_box(&breaker).call(success).is_ok_and(|value| value == 1)))
        }),
        peer("breaker_open", || {
            let breaker = in_a_row();
            (0..100).for_each(|_| drop(breaker.call(failure)));
            Box::new(move |calls| {
                repeat(calls, || matches!(black_box(&breaker).call(success), Err(failsafe::Error::Rejected)))
            })
        }),
    ]
}
