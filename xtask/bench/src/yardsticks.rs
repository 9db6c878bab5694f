//! What the machine and the language take for the smallest things: no policy can be faster than its parts.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceBuilder};

use crate::case::{Case, Run, ready, repeat};
use crate::ours;

const fn limit(who: &'static str, make: fn() -> Run) -> Case {
    Case { row: "limits", who, package: None, make }
}

pub(crate) fn cases() -> Vec<Case> {
    let tokio = |row, who, make| Case { row, who, package: Some("tokio"), make };
    vec![
        limit("relaxed load", || {
            let word = AtomicU64::new(1);
            Box::new(move |calls| repeat(calls, || black_box(&word).load(Ordering::Relaxed) == 1))
        }),
        limit("fetch_add", || {
            let word = AtomicU64::new(1);
            Box::new(move |calls| repeat(calls, || black_box(&word).fetch_add(1, Ordering::Relaxed) > 0))
        }),
        limit("compare_exchange", || {
            let word = AtomicU64::new(1);
            let add = move || {
                let old = word.load(Ordering::Relaxed);
                // Whether it was exchanged or another thread was first, it was tried once.
                let _ = black_box(&word).compare_exchange_weak(old, old + 1, Ordering::AcqRel, Ordering::Relaxed);
                true
            };
            Box::new(move |calls| repeat(calls, &add))
        }),
        limit("std mutex, lock and add", || {
            let word = Mutex::new(1_u64);
            Box::new(move |calls| {
                repeat(calls, || {
                    let mut word = black_box(&word).lock().unwrap();
                    *word += 1;
                    *word > 0
                })
            })
        }),
        limit("Instant::now", || {
            let start = Instant::now();
            Box::new(move |calls| repeat(calls, || black_box(Instant::now()) >= start))
        }),
        Case {
            row: "limits",
            who: "quanta, raw counter",
            package: Some("quanta"),
            make: || {
                let clock = quanta::Clock::new();
                Box::new(move |calls| repeat(calls, || black_box(&clock).raw() > 0))
            },
        },
        limit("boxed future, ready", || {
            Box::new(|calls| {
                repeat(calls, || {
                    let future: std::pin::Pin<Box<dyn Future<Output = u64>>> = Box::pin(async { black_box(1) });
                    ready(black_box(future)) == 1
                })
            })
        }),
        limit("64 bytes allocated and freed", || {
            Box::new(|calls| repeat(calls, || black_box(Box::new([1_u8; 64]))[0] == 1))
        }),
        tokio("bulkhead", "tokio semaphore", || {
            let semaphore = tokio::sync::Semaphore::new(64);
            Box::new(move |calls| repeat(calls, || black_box(&semaphore).try_acquire().is_ok()))
        }),
        tokio("bulkhead_async", "tokio semaphore", || {
            let semaphore = tokio::sync::Semaphore::new(64);
            Box::new(move |calls| repeat(calls, || ready(black_box(&semaphore).acquire()).is_ok()))
        }),
        tokio("timeout_async", "tokio timeout", || {
            let runtime = runtime();
            Box::new(move |calls| {
                let _inside = runtime.enter();
                repeat(calls, || {
                    let call = tokio::time::timeout(black_box(Duration::from_secs(10)), async { ours::success() });
                    matches!(ready(call), Ok(Ok(1)))
                })
            })
        }),
        Case {
            row: "tower_two",
            who: "tower",
            package: Some("tower"),
            make: || {
                let service = ServiceBuilder::new()
                    .concurrency_limit(64)
                    .timeout(Duration::from_secs(10))
                    .service(tower::service_fn(|request: u64| std::future::ready(ours::answer(request))));
                let runtime = runtime();
                Box::new(move |calls| {
                    let _inside = runtime.enter();
                    let mut service = service.clone();
                    repeat(calls, || {
                        ready(std::future::poll_fn(|cx| service.poll_ready(cx))).is_ok()
                            && ready(service.call(black_box(1))).is_ok_and(|answer| answer == 1)
                    })
                })
            },
        },
    ]
}

/// The runtime whose timers peers use. Its one thread wakes only when a timer is due, as one is when a peer waits for a
/// lock by sleeping.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime of one thread")
    });
    &RUNTIME
}
