//! `throttlecrab`: the generic cell rate algorithm over a map of strings; needs `&mut`, hence a mutex around it here.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::SystemTime;

use throttlecrab::{AdaptiveStore, RateLimiter};

use crate::case::{Case, repeat};
use crate::ours::{BURST, SAVED_UP, names};

pub(crate) fn limiter() -> Mutex<RateLimiter<AdaptiveStore>> {
    Mutex::new(RateLimiter::new(AdaptiveStore::with_capacity(1_000)))
}

/// Whether one permit of `key` is granted at `rate` permits (saved up to `burst`) per so many seconds.
#[inline]
pub(crate) fn ask(limiter: &Mutex<RateLimiter<AdaptiveStore>>, key: &str, burst: i64, rate: i64, seconds: i64) -> bool {
    let answer = limiter.lock().unwrap().rate_limit(key, burst, rate, seconds, 1, SystemTime::now());
    answer.expect("valid settings").0
}

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "throttlecrab", package: Some("throttlecrab"), make };
    vec![
        peer("limiter_allowed", || {
            let limiter = limiter();
            Box::new(move |calls| repeat(calls, || ask(black_box(&limiter), "one", BURST.into(), 1_000_000_000, 1)))
        }),
        peer("limiter_denied", || {
            let limiter = limiter();
            // With a burst of 1 it refuses nothing: a key's entry is out of date at once.
            while ask(&limiter, "one", 2, 1, 1_000_000) {}
            Box::new(move |calls| repeat(calls, || !ask(black_box(&limiter), "one", 2, 1, 1_000_000)))
        }),
        peer("keyed_text", || {
            let (limiter, names) = (limiter(), names());
            Box::new(move |calls| {
                let mut key = 0;
                repeat(calls, || {
                    key = if key == 999 { 0 } else { key + 1 };
                    ask(black_box(&limiter), &names[key], i64::from(SAVED_UP), 1, 1)
                })
            })
        }),
    ]
}
