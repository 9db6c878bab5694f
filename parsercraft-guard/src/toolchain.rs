//! The facade: policies, audit log, health, recovery and shutdown wired once, and the guards built upon them.
//! Every policy has its well-known name, every event reaches the audit log, every breaker that exists when it is built
//! has a health check. It adds no behaviour of its own: whatever it does can be done with the crates it wires.

mod builder;
#[cfg(any(feature = "ast", feature = "registry"))]
mod checks;
#[cfg(feature = "lsp")]
mod servers;

pub use builder::{ToolchainBuilder, ToolchainError};

use std::fmt;
use std::sync::Arc;

use resilience_audit::{AuditEvent, AuditLog, Status};
use resilience_core::{Classify, Clock, ErrorContext, Observers, Registry, Severity};
use resilience_health::recovery::{How, Recovery, RecoveryRecord};
use resilience_health::shutdown::{HandlerOutcome, Shutdown, ShutdownEvent};
use resilience_health::{HealthMonitor, Status as Health, Transition};

use crate::protocol::ProtocolGuard;

/// A hardened language toolchain: the guards and everything that watches over them.
///
/// Cheap to clone; clones share everything. Health checks run once [`HealthMonitor::start`] is called on
/// [`health`](Self::health).
///
/// ```
/// use parsercraft_guard::Toolchain;
/// use parsercraft_guard::protocol::{Checker, Definitions};
///
/// let definitions: Definitions = serde_json::from_str(
///     r#"{ "types": { "Text": { "methods": { "len": "() -> int" } } },
///          "protocols": { "Sized": { "methods": { "len": "() -> int" } } } }"#,
/// )?;
/// let toolchain = Toolchain::builder().protocols(Checker::new(&definitions)?).build()?;
/// let protocols = toolchain.protocol().expect("definitions were given");
/// assert!(protocols.check_conformance("Text", "Sized")?.conforms());
///
/// // The guard's breaker is known by its name, and watched.
/// assert!(toolchain.policies().snapshot().breakers.contains_key("protocol_check"));
/// assert!(toolchain.health().snapshot().check("breaker protocol_check").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Toolchain(Arc<Parts>);

struct Parts {
    policies: Registry,
    audit: AuditLog,
    health: HealthMonitor,
    recovery: Recovery,
    shutdown: Shutdown,
    protocol: Option<ProtocolGuard>,
    #[cfg(feature = "ast")]
    ast: Option<crate::ast::AstGuard>,
    #[cfg(feature = "registry")]
    registry: Option<crate::registry::RegistryGuard>,
    #[cfg(feature = "lsp")]
    servers: servers::Servers,
}

impl fmt::Debug for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toolchain").field("policies", &self.0.policies).finish_non_exhaustive()
    }
}

impl Toolchain {
    /// Starts from nothing: no guard, an audit log in memory, the system's clock.
    pub fn builder() -> ToolchainBuilder {
        ToolchainBuilder::default()
    }

    /// Every breaker and limiter by name, and the error statistics.
    pub fn policies(&self) -> &Registry {
        &self.0.policies
    }

    /// The clock everything goes by.
    pub fn clock(&self) -> &Clock {
        self.0.policies.clock()
    }

    /// Who hears of everything: the audit log, `tracing`, and whom the builder was given.
    pub fn observers(&self) -> &Observers {
        self.0.policies.observers()
    }

    /// The audit log.
    pub fn audit(&self) -> &AuditLog {
        &self.0.audit
    }

    /// The health of it all.
    pub fn health(&self) -> &HealthMonitor {
        &self.0.health
    }

    /// The recovery plans: `fetch_package` retries, `check_protocol` breaks the circuit, `lsp_operation` degrades.
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// The ordered shutdown. It stops the language servers, and makes the audit log durable last.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// The protocol guard, when the builder was given definitions.
    pub fn protocol(&self) -> Option<&ProtocolGuard> {
        self.0.protocol.as_ref()
    }

    /// The AST guard, when the builder was given one.
    #[cfg(feature = "ast")]
    pub fn ast(&self) -> Option<&crate::ast::AstGuard> {
        self.0.ast.as_ref()
    }

    /// The registry guard, when the builder was given one.
    #[cfg(feature = "registry")]
    pub fn registry(&self) -> Option<&crate::registry::RegistryGuard> {
        self.0.registry.as_ref()
    }

    /// Starts a guarded language server for the editor at the other end of `editor`: its events are audited, its state
    /// is part of the health, and it is stopped at shutdown. Its requests count against the limiter `lsp_requests`, which
    /// all servers share, unless `config` brings another; other rates are set with [`ToolchainBuilder::policies`].
    ///
    /// # Errors
    /// As [`Supervisor::start`](crate::lsp::Supervisor::start); and when the toolchain has been shut down.
    #[cfg(feature = "lsp")]
    pub fn guard_server(
        &self,
        config: crate::lsp::LspConfig,
        command: crate::lsp::ServerCommand,
        editor: crate::lsp::EditorStreams,
    ) -> Result<crate::lsp::Supervisor, crate::lsp::LspError> {
        self.0.servers.start(&self.0.policies, config, command, editor)
    }

    /// Handles an error that happened in `component` while doing `operation`: classified, counted, audited.
    pub fn handle_error<E>(&self, component: &str, operation: &str, error: &E) -> ErrorContext
    where
        E: Classify + std::error::Error + ?Sized,
    {
        self.0.policies.handle_error(component, operation, error)
    }
}

/// A change of health as an audit record.
fn audit_transition(log: &AuditLog, transition: &Transition) {
    let (status, severity) = match transition.to {
        Health::Healthy => (Status::Success, Severity::Low),
        Health::Unhealthy => (Status::Failure, Severity::High),
        _ => (Status::Info, Severity::Medium),
    };
    log.offer(
        AuditEvent::new("health", transition.to.as_str(), transition.check.to_string())
            .status(status)
            .severity(severity)
            .detail("from", transition.from.as_str())
            .detail("message", transition.message.to_string()),
    );
}

/// A step of the shutdown as an audit record.
fn audit_shutdown(log: &AuditLog, event: &ShutdownEvent<'_>) {
    let record = match event {
        ShutdownEvent::PhaseEntered { phase, reason } => {
            AuditEvent::new("shutdown", "phase_entered", phase.as_str()).detail("reason", reason.to_string())
        }
        ShutdownEvent::HandlerFinished(report) => {
            let completed = report.outcome == HandlerOutcome::Completed;
            AuditEvent::new("shutdown", "handler_finished", report.name.clone())
                .status(if completed { Status::Success } else { Status::Failure })
                .detail("outcome", report.outcome.to_string())
        }
        _ => return,
    };
    log.offer(record);
}

/// A recovery as an audit record.
fn audit_recovery(log: &AuditLog, record: &RecoveryRecord) {
    log.offer(
        AuditEvent::new("recovery", record.strategy.as_str(), record.operation.to_string())
            .status(if record.how.is_some() { Status::Success } else { Status::Failure })
            .detail("how", how(record.how))
            .detail("message", record.message.clone()),
    );
}

fn how(how: Option<How>) -> &'static str {
    match how {
        None => "not at all",
        Some(How::FirstTry) => "first_try",
        Some(How::Retried { .. }) => "retried",
        Some(How::Fallback) => "fallback",
        Some(How::Degraded) => "degraded",
        Some(_) => "otherwise",
    }
}
