//! The toolchain's own health checks: each exercises the real thing behind a guard.
//! A check reports; it restarts nothing and opens nothing.

use std::time::Duration;

use resilience_health::{CheckResult, CheckSpec};

/// The longest a parser or a registry may take to answer a check.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// Parses an empty source of every language where parsers run, past the guard's policies and memories.
#[cfg(feature = "ast")]
pub(super) fn ast(guard: &crate::ast::AstGuard, interval: Duration) -> CheckSpec {
    use resilience_health::Status;

    use crate::ast::{AstError, Fault, Operation};

    let guard = guard.clone();
    let check = move || {
        let languages: Vec<&str> = guard.languages().names().collect();
        let whole = CheckResult::healthy(format!("parsers that answer: {}", languages.join(", ")));
        languages.into_iter().fold(whole, |whole, language| {
            match guard.probe(Operation::Parse, language, "") {
                // A grammar may refuse an empty source; what counts is that the parser came to an answer.
                Ok(_) | Err(AstError::Refused(_) | AstError::Limit(_)) => whole,
                Err(AstError::Fault(busy @ Fault::Busy { .. })) => {
                    whole.sub_check(language, Status::Degraded, busy.to_string())
                }
                Err(error) => whole.sub_check(language, Status::Unhealthy, error.to_string()),
            }
        })
    };
    CheckSpec::readiness("ast", check).interval(interval).timeout(PROBE_LIMIT)
}

/// Asks the registry for its configuration, as every request does it: through limiter and breaker, so that a check is
/// also what tries a registry again that nobody else asks.
#[cfg(feature = "registry")]
pub(super) fn registry(
    guard: &crate::registry::RegistryGuard,
    runtime: tokio::runtime::Handle,
    interval: Duration,
) -> CheckSpec {
    use std::sync::mpsc;

    let guard = guard.clone();
    let check = move || {
        let guard = guard.clone();
        let (tell, told) = mpsc::sync_channel(1);
        // Spawned and not blocked on: that works with every kind of runtime, and with one that has ended.
        let asking = runtime.spawn(async move { tell.send(guard.probe().await) });
        match told.recv_timeout(PROBE_LIMIT) {
            Ok(Ok(served)) if served.is_stale() => CheckResult::degraded(served.to_string()),
            Ok(Ok(_)) => CheckResult::healthy("the registry answers"),
            Ok(Err(error)) => CheckResult::unhealthy(error.to_string()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                asking.abort();
                CheckResult::unhealthy(format!("no answer within {PROBE_LIMIT:?}"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => CheckResult::unhealthy("the runtime has been shut down"),
        }
    };
    // A little more than the check allows itself: its own words say more than a timeout.
    CheckSpec::readiness("registry", check).interval(interval).timeout(PROBE_LIMIT + Duration::from_secs(1))
}
