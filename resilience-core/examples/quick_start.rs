//! The policies most services want, around one blocking and one async call.
//! `cargo run -p resilience-core --example quick_start`

use std::time::Duration;

use resilience_core::{CircuitBreaker, Pipeline, RateLimiter, Retry};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // README: begin
    let pipeline = Pipeline::builder("search")
        .timeout(Duration::from_secs(10)) // the whole call
        .retry(Retry::default()) // 3 attempts, backoff, jitter
        .circuit_breaker(CircuitBreaker::builder("search_backend").build()?) // 5 failures open it for a minute
        .rate_limiter(RateLimiter::builder("search_rate").build()?) // 100 per minute, burst 10
        .timeout(Duration::from_secs(2)) // each attempt
        .build()?;

    let manifest = pipeline.call(|| std::fs::read_to_string("Cargo.toml"))?; // blocking
    let later = pipeline.call_async(|| async { std::fs::read_to_string("Cargo.toml") }); // any executor
    // README: end
    assert!(manifest.starts_with('['));
    println!("{} bytes now; {} for later", manifest.len(), std::any::type_name_of_val(&later));
    Ok(())
}
