//! `governor`: the generic cell rate algorithm in one atomic; keys in a sharded map.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::case::{Case, repeat};
use crate::ours::{BURST, SAVED_UP, names};

fn plenty() -> Quota {
    let burst = NonZeroU32::new(BURST).expect("more than zero");
    Quota::with_period(Duration::from_nanos(1)).expect("more than zero").allow_burst(burst)
}

pub(crate) fn direct() -> DefaultDirectRateLimiter {
    RateLimiter::direct(plenty())
}

pub(crate) fn keyed<K: std::hash::Hash + Eq + Clone>() -> DefaultKeyedRateLimiter<K> {
    let burst = NonZeroU32::new(SAVED_UP).expect("more than zero");
    RateLimiter::keyed(Quota::per_second(NonZeroU32::MIN).allow_burst(burst))
}

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "governor", package: Some("governor"), make };
    vec![
        peer("limiter_allowed", || {
            let limiter = direct();
            Box::new(move |calls| repeat(calls, || black_box(&limiter).check().is_ok()))
        }),
        peer("limiter_denied", || {
            let limiter = RateLimiter::direct(Quota::with_period(Duration::from_secs(1_000_000)).unwrap());
            limiter.check().unwrap();
            Box::new(move |calls| repeat(calls, || black_box(&limiter).check().is_err()))
        }),
        peer("keyed_number", || {
            let limiter = keyed::<u64>();
            Box::new(move |calls| {
                let mut key = 0;
                repeat(calls, || {
                    key = if key == 999 { 0 } else { key + 1 };
                    black_box(&limiter).check_key(&key).is_ok()
                })
            })
        }),
        peer("keyed_text", || {
            let (limiter, names) = (keyed::<String>(), names());
            Box::new(move |calls| {
                let mut key = 0;
                repeat(calls, || {
                    key = if key == 999 { 0 } else { key + 1 };
                    black_box(&limiter).check_key(&names[key]).is_ok()
                })
            })
        }),
    ]
}
