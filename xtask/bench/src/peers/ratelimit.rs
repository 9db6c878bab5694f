//! `ratelimit`: a token bucket in atomics.

use std::hint::black_box;
use std::time::Duration;

use ratelimit::{Ratelimiter, StdClock};

use crate::case::{Case, repeat};
use crate::ours::BURST;

pub(crate) fn plenty() -> Ratelimiter<StdClock> {
    Ratelimiter::builder(1_000_000_000).max_tokens(BURST.into()).initial_available(BURST.into()).build().expect("valid settings")
}

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "ratelimit", package: Some("ratelimit"), make };
    vec![
        peer("limiter_allowed", || {
            let limiter = plenty();
            Box::new(move |calls| repeat(calls, || black_box(&limiter).try_wait().is_ok()))
        }),
        peer("limiter_denied", || {
            let limiter = Ratelimiter::builder(1).period(Duration::from_secs(1_000_000)).max_tokens(1).build().unwrap();
            Box::new(move |calls| repeat(calls, || black_box(&limiter).try_wait().is_err()))
        }),
    ]
}
