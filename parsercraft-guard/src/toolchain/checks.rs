//! The toolchain's own health checks: each exercises the real thing behind a guard, past the guard's limiter and cache.
//! A check reports; it restarts nothing and opens nothing.

use std::time::Duration;

use resilience_health::{CheckResult, CheckSpec, Criticality};

/// Parses a small source of every language.
#[cfg(feature = "ast")]
pub(super) fn ast(guard: &crate::ast::AstGuard, interval: Duration) -> CheckSpec {
    use crate::ast::{AstError, Operation};

    let guard = guard.clone();
    let check = move || {
        let mut result = CheckResult::healthy("parsers answer");
        for language in guard.languages().names() {
            // An empty source may be refused by a grammar; what counts is that the parser came to an answer.
            let answer = guard.probe(Operation::Parse, language, "");
            match answer {
                Ok(_) | Err(AstError::Refused(_) | AstError::Limit(_)) => {}
                Err(error) => result = CheckResult::unhealthy(format!("{language}: {error}")),
            }
        }
        result
    };
    CheckSpec::readiness("ast", check).criticality(Criticality::Important).interval(interval).timeout(probe_limit())
}

/// Asks the registry for its configuration.
#[cfg(feature = "registry")]
pub(super) fn registry(
    guard: &crate::registry::RegistryGuard,
    runtime: tokio::runtime::Handle,
    interval: Duration,
) -> CheckSpec {
    let guard = guard.clone();
    let check = move || match runtime.block_on(guard.probe()) {
        Ok(served) if served.is_stale() => CheckResult::degraded(served.to_string()),
        Ok(_) => CheckResult::healthy("the registry answers"),
        Err(error) => CheckResult::unhealthy(error.to_string()),
    };
    CheckSpec::readiness("registry", check)
        .criticality(Criticality::Important)
        .interval(interval)
        .timeout(probe_limit())
}

#[cfg(any(feature = "ast", feature = "registry"))]
fn probe_limit() -> Duration {
    Duration::from_secs(15)
}

/// The guarded language servers of this process.
#[cfg(feature = "lsp")]
#[derive(Debug, Clone, Default)]
pub(super) struct Servers(std::sync::Arc<std::sync::Mutex<Vec<crate::lsp::Supervisor>>>);

#[cfg(feature = "lsp")]
impl Servers {
    fn running(&self) -> Vec<crate::lsp::Supervisor> {
        let mut servers = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        servers.retain(|server| server.stats().state != crate::lsp::LspState::Stopped);
        servers.clone()
    }

    pub(super) fn add(&self, server: crate::lsp::Supervisor) {
        // Forgets the ended ones, so that a long life of many sessions does not grow the list.
        drop(self.running());
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(server);
    }

    /// Ends every session and waits until the servers are gone.
    pub(super) fn stop(&self) -> Result<(), crate::lsp::LspError> {
        let running = self.running();
        running.iter().for_each(crate::lsp::Supervisor::stop);
        running.iter().try_for_each(|server| server.wait().map(drop))
    }

    pub(super) fn check(&self, interval: Duration) -> CheckSpec {
        use crate::lsp::LspState;

        let servers = self.clone();
        let check = move || {
            let running = servers.running();
            let mut result = CheckResult::healthy(format!("{} guarded", running.len()));
            for server in running {
                let stats = server.stats();
                if matches!(stats.state, LspState::Restarting | LspState::Degraded) {
                    let why = stats.last_failure.unwrap_or_else(|| "no reason known".to_owned());
                    result = CheckResult::degraded(format!("{}: {why}", stats.state.as_str()));
                }
            }
            result
        };
        CheckSpec::readiness("language servers", check).criticality(Criticality::Important).interval(interval)
    }
}
