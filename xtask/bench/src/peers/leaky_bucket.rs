//! `leaky-bucket`: a balance in one atomic, refilled by who finds it empty. What is granted here comes from a stock that
//! doesn't run out, so its path reads no clock.

use std::hint::black_box;
use std::time::Duration;

use leaky_bucket::RateLimiter;

use crate::case::{Case, repeat};

pub(crate) fn plenty() -> RateLimiter {
    RateLimiter::builder().max(1 << 60).initial(1 << 60).refill(1_000_000).interval(Duration::from_millis(1)).build()
}

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "leaky-bucket", package: Some("leaky-bucket"), make };
    vec![
        peer("limiter_allowed", || {
            let limiter = plenty();
            Box::new(move |calls| repeat(calls, || black_box(&limiter).try_acquire(1)))
        }),
        peer("limiter_denied", || {
            let limiter = RateLimiter::builder().max(1).initial(0).refill(1).interval(Duration::from_secs(1_000_000)).build();
            Box::new(move |calls| repeat(calls, || !black_box(&limiter).try_acquire(1)))
        }),
    ]
}
