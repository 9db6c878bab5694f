//! `tower-resilience`: one tower layer a policy.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

use tower::{Service, ServiceBuilder};
use tower_resilience::bulkhead::BulkheadLayer;
use tower_resilience::circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};
use tower_resilience::ratelimiter::RateLimiterLayer;
use tower_resilience::retry::RetryLayer;
use tower_resilience::timelimiter::TimeLimiterLayer;

use crate::case::{Case, Run, ready, repeat};
use crate::ours::{BURST, HOUR, answer, failure};
use crate::rows::THREE_LAYERS;
use crate::yardsticks::runtime;

type Answer = std::future::Ready<std::io::Result<u64>>;

fn inner(request: u64) -> Answer {
    std::future::ready(answer(request))
}

fn breaker() -> CircuitBreakerLayer {
    let builder = CircuitBreakerLayer::builder().failure_rate_threshold(0.5).sliding_window_size(100);
    builder.minimum_number_of_calls(10).wait_duration_in_open(HOUR).build().expect("valid settings")
}

fn bulkhead() -> BulkheadLayer {
    BulkheadLayer::builder().max_concurrent_calls(64).build().expect("valid settings")
}

fn limiter() -> RateLimiterLayer {
    RateLimiterLayer::burst(1_000_000_000, BURST as usize).build().expect("valid settings")
}

fn timeout() -> TimeLimiterLayer {
    TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(10)).cancel_running_future(true).build()
}

/// Calls a clone of `service`, as tower's users do; `good` looks at the answer.
fn calling<S, T, E>(service: S, good: fn(&Result<T, E>) -> bool) -> Run
where
    S: Service<u64, Response = T, Error = E> + Clone + Send + 'static,
    T: 'static,
    E: 'static,
{
    let (service, runtime) = (Mutex::new(service), runtime());
    Box::new(move |calls| {
        let _inside = runtime.enter();
        let mut service = service.lock().unwrap().clone();
        repeat(calls, || match ready(std::future::poll_fn(|cx| service.poll_ready(cx))) {
            Ok(()) => good(&ready(service.call(black_box(1)))),
            Err(error) => good(&Err(error)),
        })
    })
}

fn one<E>(result: &Result<u64, E>) -> bool {
    matches!(result, Ok(1))
}

fn refused<E>(result: &Result<u64, E>) -> bool {
    result.is_err()
}

pub(crate) fn three_layers() -> Run {
    let service = ServiceBuilder::new()
        .layer(bulkhead())
        .layer(RetryLayer::<u64, u64, _>::builder().max_attempts(3).build())
        .layer(breaker())
        .service(tower::service_fn(inner));
    calling(service, one)
}

fn five_layers() -> Run {
    let service = ServiceBuilder::new()
        .layer(timeout())
        .layer(RetryLayer::<u64, u64, _>::builder().max_attempts(3).build())
        .layer(limiter())
        .layer(breaker())
        .layer(bulkhead())
        .service(tower::service_fn(inner));
    calling(service, one)
}

pub(crate) fn cases() -> Vec<Case> {
    let named = |row, who, make| Case { row, who, package: Some("tower-resilience"), make };
    let peer = |row, make| named(row, "tower-resilience", make);
    vec![
        peer("breaker_closed_async", || {
            calling(ServiceBuilder::new().layer(breaker()).service(tower::service_fn(inner)), one)
        }),
        peer("breaker_time", || {
            let builder = CircuitBreakerLayer::builder().failure_rate_threshold(0.5).minimum_number_of_calls(10);
            let builder = builder.sliding_window_type(SlidingWindowType::TimeBased);
            let layer = builder.sliding_window_duration(Duration::from_secs(10)).build().expect("valid settings");
            calling(ServiceBuilder::new().layer(layer).service(tower::service_fn(inner)), one)
        }),
        peer("breaker_open", || {
            let down = |_: u64| std::future::ready(failure());
            let mut service = ServiceBuilder::new().layer(breaker()).service(tower::service_fn(down));
            for _ in 0..200 {
                drop(ready(std::future::poll_fn(|cx| Service::<u64>::poll_ready(&mut service, cx))));
                drop(ready(service.call(1)));
            }
            calling(service, |result| matches!(result, Err(error) if error.is_circuit_open()))
        }),
        peer("limiter_allowed", || {
            calling(ServiceBuilder::new().layer(limiter()).service(tower::service_fn(inner)), one)
        }),
        peer("limiter_denied", || {
            let builder = RateLimiterLayer::builder().limit_for_period(1).refresh_period(Duration::from_secs(1_000_000));
            let layer = builder.timeout_duration(Duration::ZERO).build().expect("valid settings");
            let mut service = ServiceBuilder::new().layer(layer).service(tower::service_fn(inner));
            drop(ready(std::future::poll_fn(|cx| Service::<u64>::poll_ready(&mut service, cx))));
            drop(ready(service.call(1)));
            calling(service, refused)
        }),
        peer("retry_async", || {
            let layer = RetryLayer::<u64, u64, _>::builder().max_attempts(3).build();
            calling(ServiceBuilder::new().layer(layer).service(tower::service_fn(inner)), one)
        }),
        peer("bulkhead_async", || {
            calling(ServiceBuilder::new().layer(bulkhead()).service(tower::service_fn(inner)), one)
        }),
        peer("timeout_async", || {
            calling(ServiceBuilder::new().layer(timeout()).service(tower::service_fn(inner)), one)
        }),
        peer("tower_two", || {
            let service = ServiceBuilder::new().layer(bulkhead()).layer(timeout()).service(tower::service_fn(inner));
            calling(service, one)
        }),
        named("pipeline_async", THREE_LAYERS, three_layers),
        named("pipeline_async", "tower-resilience, 5 layers", five_layers),
        named("pipeline_tower", THREE_LAYERS, three_layers),
        named("pipeline_tower", "tower-resilience, 5 layers", five_layers),
    ]
}
