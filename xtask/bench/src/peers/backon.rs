//! `backon`: `.retry(policy)` on any closure.

use std::hint::black_box;

use backon::{BlockingRetryable, ExponentialBuilder, Retryable};

use crate::case::{Case, ready, repeat};
use crate::ours::success;

pub(crate) fn cases() -> Vec<Case> {
    let peer = |row, make| Case { row, who: "backon", package: Some("backon"), make };
    vec![
        peer("retry_async", || {
            let policy = ExponentialBuilder::default();
            Box::new(move |calls| {
                repeat(calls, || {
                    let call = (|| async { success() }).retry(*black_box(&policy));
                    ready(call.into_future()).is_ok_and(|value| value == 1)
                })
            })
        }),
        peer("retry_blocking", || {
            let policy = ExponentialBuilder::default();
            Box::new(move |calls| {
                repeat(calls, || success.retry(*black_box(&policy)).call().is_ok_and(|value| value == 1))
            })
        }),
    ]
}
