//! What one call through each policy costs, single thread: `cargo bench -p resilience-core`.
//! Figures of different machines do not compare; the bare call in the same run is the yardstick.

use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use resilience_core::{Bulkhead, CircuitBreaker, Clock, KeyedRateLimiter, Outcome, Pipeline, RateLimiter, Retry};

fn breaker(c: &mut Criterion) {
    let mut group = c.benchmark_group("breaker");
    let in_a_row = CircuitBreaker::builder("in_a_row").build().unwrap();
    let window = CircuitBreaker::builder("window").failure_rate(0.5, 100, 10).build().unwrap();
    let open = CircuitBreaker::builder("open").build().unwrap();
    open.force_open();
    for (name, breaker) in
        [("closed, failures in a row, success", &in_a_row), ("closed, window of 100, success", &window)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(breaker).try_acquire().map(|permit| permit.settle(&Outcome::Success)).is_ok());
        });
    }
    group.bench_function("forced open, rejected", |bencher| bencher.iter(|| black_box(&open).try_acquire().is_err()));
    group.finish();
}

fn limiter(c: &mut Criterion) {
    let mut group = c.benchmark_group("limiter");
    let plenty =
        RateLimiter::builder("plenty").rate(u32::MAX, Duration::from_secs(1)).burst(1_000_000).build().unwrap();
    let none = RateLimiter::builder("none").rate(1, Duration::from_secs(1_000_000)).burst(1).build().unwrap();
    none.try_acquire(1).unwrap();
    let clock = Clock::system();
    group.bench_function("clock read alone", |bencher| bencher.iter(|| black_box(&clock).now()));
    group.bench_function("allowed", |bencher| bencher.iter(|| black_box(&plenty).try_acquire(1).is_ok()));
    group.bench_function("denied", |bencher| bencher.iter(|| black_box(&none).try_acquire(1).is_err()));
    let users = KeyedRateLimiter::<u64>::builder("users").rate(u32::MAX, Duration::from_secs(1)).burst(1_000_000);
    let users = users.build().unwrap();
    let tenants =
        KeyedRateLimiter::<String>::builder("tenants").rate(u32::MAX, Duration::from_secs(1)).burst(1_000_000);
    let tenants = tenants.build().unwrap();
    let names: Vec<_> = (0..1_000).map(|key| format!("tenant-{key}")).collect();
    let mut key = 0;
    group.bench_function("keyed, allowed, one of 1 000 numbers", |bencher| {
        bencher.iter(|| {
            key = (key + 1) % 1_000;
            black_box(&users).try_acquire(&key, 1).is_ok()
        });
    });
    let mut name = 0;
    group.bench_function("keyed, allowed, one of 1 000 strings", |bencher| {
        bencher.iter(|| {
            name = (name + 1) % 1_000;
            black_box(&tenants).try_acquire(names[name].as_str(), 1).is_ok()
        });
    });
    group.finish();
}

/// Beside the semaphore that most async programs would take, in the same run.
fn bulkhead(c: &mut Criterion) {
    let mut group = c.benchmark_group("bulkhead");
    let bulkhead = Bulkhead::builder("room").max_concurrent(8).build().unwrap();
    let semaphore = tokio::sync::Semaphore::new(8);
    let wait = Duration::from_secs(1);
    group.bench_function("enter and leave", |bencher| bencher.iter(|| black_box(&bulkhead).try_acquire().is_ok()));
    group.bench_function("tokio semaphore, the same", |bencher| {
        bencher.iter(|| black_box(&semaphore).try_acquire().is_ok());
    });
    group.bench_function("enter and leave, async", |bencher| {
        bencher.iter(|| {
            let entering = pin!(black_box(&bulkhead).acquire_async(wait));
            entering.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        });
    });
    group.bench_function("tokio semaphore, the same, async", |bencher| {
        bencher.iter(|| {
            let entering = pin!(black_box(&semaphore).acquire());
            entering.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        });
    });
    let full: Vec<_> = (0..8).map(|_| bulkhead.try_acquire().unwrap()).collect();
    group.bench_function("full, rejected", |bencher| bencher.iter(|| black_box(&bulkhead).try_acquire().is_err()));
    drop(full);
    group.finish();
}

fn pipeline(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline");
    let limiter = RateLimiter::builder("l").rate(u32::MAX, Duration::from_secs(1)).burst(1_000_000).build().unwrap();
    let empty = Pipeline::builder("empty").build().unwrap();
    let retry = Pipeline::builder("retry").retry(Retry::default()).build().unwrap();
    let full = Pipeline::builder("full")
        .timeout(Duration::from_secs(10))
        .retry(Retry::default())
        .rate_limiter(limiter)
        .circuit_breaker(CircuitBreaker::builder("b").build().unwrap())
        .bulkhead(Bulkhead::builder("h").build().unwrap())
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    for (name, pipeline) in
        [("empty", &empty), ("retry", &retry), ("timeout + retry + limiter + breaker + bulkhead + timeout", &full)]
    {
        group.bench_function(format!("blocking, {name}"), |bencher| {
            bencher.iter(|| pipeline.call(|| Ok::<_, io::Error>(black_box(1))).is_ok());
        });
        group.bench_function(format!("async, {name}"), |bencher| {
            bencher.iter(|| {
                let call = pin!(pipeline.call_async(|| async { Ok::<_, io::Error>(black_box(1)) }));
                call.poll(&mut Context::from_waker(Waker::noop())).is_ready()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, breaker, limiter, bulkhead, pipeline);
criterion_main!(benches);
