//! `recloser`: a count window in a ring under a spin lock.

use std::hint::black_box;

use recloser::{AsyncRecloser, Recloser};

use crate::case::{Case, ready, repeat};
use crate::ours::{HOUR, failure, success};

pub(crate) fn counting(calls: usize) -> Recloser {
    Recloser::custom().error_rate(0.5).closed_len(calls).open_wait(HOUR).build()
}

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "recloser", package: Some("recloser"), make };
    vec![
        peer("breaker_closed", || {
            let breaker = counting(100);
            Box::new(move |calls| repeat(calls, || black_box(&breaker).call(success).is_ok_and(|value| value == 1)))
        }),
        peer("breaker_closed_async", || {
            let breaker = AsyncRecloser::from(counting(100));
            Box::new(move |calls| {
                repeat(calls, || ready(black_box(&breaker).call(async { success() })).is_ok_and(|value| value == 1))
            })
        }),
        peer("breaker_open", || {
            let breaker = counting(100);
            (0..1_000).for_each(|_| drop(breaker.call(failure)));
            Box::new(move |calls| {
                repeat(calls, || matches!(black_box(&breaker).call(success), Err(recloser::Error::Rejected)))
            })
        }),
    ]
}
