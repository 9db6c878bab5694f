//! Ours, as the documentation tells users to call it: blocking, async and as a tower layer.

use std::hint::black_box;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use resilience_core::circuit_breaker::CircuitBreakerBuilder;
use resilience_core::tower::PipelineLayer;
use resilience_core::{Bulkhead, CircuitBreaker, KeyedRateLimiter, Outcome, Pipeline, RateLimiter, Retry, Retryable};
use tower::{Layer, Service};

use crate::case::{Case, Run, ready, repeat};

pub(crate) const WHO: &str = "resilience-core";
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
const NEVER: Duration = Duration::from_secs(1_000_000);
/// Permits are plenty and come back at once: nothing is refused, also not a thread that was away for a second between
/// reading the clock and asking.
const PLENTY: (u32, Duration, u32) = (1_000_000_000, Duration::from_secs(1), BURST);
pub(crate) const BURST: u32 = 4_000_000_000;

/// Permits that a key can save up where one comes back each second: more than are ever asked for, so that nothing is
/// refused, and no key that was used once looks like one never seen, as it would if all its permits were back.
pub(crate) const SAVED_UP: u32 = 300_000_000;

/// The operation of every call that succeeds. Errors are what most programs have.
#[inline]
#[allow(clippy::unnecessary_wraps, reason = "the operations of all policies can fail")]
pub(crate) fn success() -> io::Result<u64> {
    Ok(black_box(1))
}

/// The same with an input, for services.
#[inline]
#[allow(clippy::unnecessary_wraps, reason = "the operations of all policies can fail")]
pub(crate) fn answer(request: u64) -> io::Result<u64> {
    Ok(black_box(request))
}

/// The operation of a dependency that is down.
pub(crate) fn failure() -> io::Result<u64> {
    Err(io::Error::from(io::ErrorKind::ConnectionRefused))
}

/// The keys of the keyed rows.
pub(crate) fn names() -> Vec<String> {
    (0..1_000).map(|key| format!("tenant-{key}")).collect()
}

pub(crate) fn counting(calls: u32) -> CircuitBreaker {
    built(CircuitBreaker::builder("window").failure_rate(0.5, calls, calls.min(10)))
}

fn built(builder: CircuitBreakerBuilder) -> CircuitBreaker {
    builder.open_for(HOUR).build().expect("valid settings")
}

pub(crate) fn plenty() -> RateLimiter {
    let (permits, period, burst) = PLENTY;
    RateLimiter::builder("plenty").rate(permits, period).burst(burst).build().expect("valid settings")
}

pub(crate) fn keyed<K: std::hash::Hash + Eq>(max_keys: u32) -> KeyedRateLimiter<K> {
    let builder = KeyedRateLimiter::builder("keyed").rate(1, Duration::from_secs(1)).burst(SAVED_UP).max_keys(max_keys);
    builder.build().expect("valid settings")
}

pub(crate) fn room() -> Bulkhead {
    Bulkhead::builder("room").max_concurrent(64).build().expect("valid settings")
}

pub(crate) fn five() -> Pipeline {
    Pipeline::builder("five")
        .timeout(Duration::from_secs(10))
        .retry(Retry::default())
        .rate_limiter(plenty())
        .circuit_breaker(counting(100))
        .bulkhead(room())
        .build()
        .expect("valid settings")
}

fn blocking(breaker: CircuitBreaker) -> Run {
    Box::new(move |calls| repeat(calls, || black_box(&breaker).call(success).is_ok_and(|value| value == 1)))
}

fn as_layer(pipeline: Pipeline) -> Run {
    let layer = PipelineLayer::new(pipeline);
    let service = layer.layer(tower::service_fn(|request: u64| std::future::ready(answer(request))));
    // A service is cloned for each connection and called through `&mut`, as ever in tower.
    let service = Mutex::new(service);
    Box::new(move |calls| {
        let mut service = service.lock().unwrap().clone();
        repeat(calls, || {
            ready(std::future::poll_fn(|cx| service.poll_ready(cx))).is_ok()
                && ready(service.call(black_box(1))).is_ok_and(|answer| answer == 1)
        })
    })
}

#[allow(clippy::too_many_lines, reason = "a list of cases, each a few lines")]
pub(crate) fn cases() -> Vec<Case> {
    let ours = |row, make| Case { row, who: WHO, package: None, make };
    vec![
        ours("breaker_closed", || blocking(counting(100))),
        Case {
            row: "breaker_closed",
            who: "resilience-core, permit",
            package: None,
            make: || {
                let breaker = counting(100);
                Box::new(move |calls| {
                    repeat(calls, || {
                        black_box(&breaker).try_acquire().map(|permit| permit.settle(&Outcome::Success)).is_ok()
                    })
                })
            },
        },
        ours("breaker_in_a_row", || blocking(built(CircuitBreaker::builder("row")))),
        ours("breaker_closed_async", || {
            let breaker = counting(100);
            Box::new(move |calls| {
                repeat(calls, || {
                    ready(black_box(&breaker).call_async(async { success() })).is_ok_and(|value| value == 1)
                })
            })
        }),
        ours("breaker_time", || {
            blocking(built(CircuitBreaker::builder("time").failure_rate_over(0.5, Duration::from_secs(10), 10)))
        }),
        ours("breaker_open", || {
            let breaker = counting(100);
            while breaker.try_acquire().is_ok() {
                breaker.call(failure).unwrap_err();
            }
            Box::new(move |calls| repeat(calls, || black_box(&breaker).call(success).is_err()))
        }),
        ours("limiter_allowed", || {
            let limiter = plenty();
            Box::new(move |calls| repeat(calls, || black_box(&limiter).try_acquire(1).is_ok()))
        }),
        ours("limiter_denied", || {
            let limiter = RateLimiter::builder("none").rate(1, NEVER).burst(1).start_with(0).build().unwrap();
            Box::new(move |calls| repeat(calls, || black_box(&limiter).try_acquire(1).is_err()))
        }),
        ours("keyed_number", || {
            let limiter = keyed::<u64>(1 << 16);
            Box::new(move |calls| {
                let mut key = 0;
                repeat(calls, || {
                    key = if key == 999 { 0 } else { key + 1 };
                    black_box(&limiter).try_acquire(&key, 1).is_ok()
                })
            })
        }),
        ours("keyed_text", || {
            let (limiter, names) = (keyed::<String>(1 << 16), names());
            Box::new(move |calls| {
                let mut key = 0;
                repeat(calls, || {
                    key = if key == 999 { 0 } else { key + 1 };
                    black_box(&limiter).try_acquire(names[key].as_str(), 1).is_ok()
                })
            })
        }),
        Case {
            row: "keyed_text",
            who: "resilience-core, permits back before a key returns",
            package: None,
            make: || {
                let (permits, period, burst) = PLENTY;
                let limiter = KeyedRateLimiter::<String>::builder("keyed").rate(permits, period).burst(burst);
                let (limiter, names) = (limiter.build().unwrap(), names());
                Box::new(move |calls| {
                    let mut key = 0;
                    repeat(calls, || {
                        key = if key == 999 { 0 } else { key + 1 };
                        black_box(&limiter).try_acquire(names[key].as_str(), 1).is_ok()
                    })
                })
            },
        },
        ours("retry_async", || {
            let retry = Retry::default();
            Box::new(move |calls| {
                repeat(calls, || {
                    let call = (|| async { success() }).retry(black_box(&retry));
                    ready(call.into_future()).is_ok_and(|value| value == 1)
                })
            })
        }),
        ours("retry_blocking", || {
            let retry = Retry::default();
            Box::new(move |calls| {
                repeat(calls, || success.retry(black_box(&retry)).call().is_ok_and(|value| value == 1))
            })
        }),
        ours("bulkhead", || {
            let bulkhead = room();
            Box::new(move |calls| repeat(calls, || black_box(&bulkhead).try_acquire().is_ok()))
        }),
        ours("bulkhead_async", || {
            let bulkhead = room();
            let wait = Duration::from_secs(1);
            Box::new(move |calls| repeat(calls, || ready(black_box(&bulkhead).acquire_async(wait)).is_ok()))
        }),
        ours("timeout_async", || {
            let pipeline = Pipeline::builder("timeout").timeout(Duration::from_secs(10)).build().unwrap();
            Box::new(move |calls| {
                repeat(calls, || {
                    ready(black_box(&pipeline).call_async(|| async { success() })).is_ok_and(|value| value == 1)
                })
            })
        }),
        ours("tower_two", || {
            as_layer(Pipeline::builder("two").bulkhead(room()).timeout(Duration::from_secs(10)).build().unwrap())
        }),
        ours("pipeline_async", || {
            let pipeline = five();
            Box::new(move |calls| {
                repeat(calls, || {
                    ready(black_box(&pipeline).call_async(|| async { success() })).is_ok_and(|value| value == 1)
                })
            })
        }),
        ours("pipeline_tower", || as_layer(five())),
        ours("pipeline_blocking", || {
            let pipeline = five();
            Box::new(move |calls| repeat(calls, || black_box(&pipeline).call(success).is_ok_and(|value| value == 1)))
        }),
    ]
}
