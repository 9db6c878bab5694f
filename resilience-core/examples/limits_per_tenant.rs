//! A limit for each tenant, in bounded memory, and what to tell them: `cargo run -p resilience-core --example limits_per_tenant`.

use std::time::Duration;

use resilience_core::KeyedRateLimiter;
use resilience_core::rate_limiter::delay_seconds;

fn main() -> Result<(), resilience_core::ConfigError> {
    let limits = KeyedRateLimiter::<String>::builder("per_tenant")
        .rate(60, Duration::from_secs(60))
        .burst(3)
        .max_keys(100_000)
        .build()?;

    let mut allowed = Vec::new();
    for tenant in ["blue", "blue", "green", "blue", "blue"] {
        let answer = limits.try_acquire(tenant, 1);
        allowed.push(answer.is_ok());
        let quota = limits.quota(tenant);
        let status = if answer.is_ok() { "200 OK" } else { "429 Too Many Requests" };
        println!("{tenant:>5}: {status}");
        println!("       RateLimit-Policy: {}", quota.policy_field());
        println!("       RateLimit: {}", quota.limit_field());
        if let Some(delay) = answer.err().and_then(|rejection| rejection.retry_after) {
            println!("       Retry-After: {}", delay_seconds(delay));
        }
    }
    assert_eq!(allowed, [true, true, true, true, false]); // blue's fourth is one too many
    Ok(())
}
