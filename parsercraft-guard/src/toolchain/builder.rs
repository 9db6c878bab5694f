//! How a toolchain is put together: policies by their well-known names, then guards, then what watches over them.
//! Nothing here runs after the toolchain is built.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use resilience_audit::{AuditLog, AuditObserver, OpenError};
use resilience_core::event::TracingObserver;
use resilience_core::{Clock, ConfigError, Observer, Observers, Registry};
use resilience_health::recovery::{Recovery, RecoveryPlan};
use resilience_health::shutdown::{Budgets, Handler, Shutdown, ShutdownError};
use resilience_health::{BreakerCheck, BuildError, CheckSpec, HealthMonitor};

use super::{Parts, Toolchain, audit_recovery, audit_shutdown, audit_transition, checks};
use crate::defaults;
use crate::protocol::{Checker, ProtocolGuard};

/// Why a toolchain could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolchainError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The audit log cannot be opened. Without it nothing is built: what cannot be recorded should not run.
    #[error("the audit log cannot be opened: {0}")]
    Audit(#[from] OpenError),
    /// The health checks do not fit together.
    #[error(transparent)]
    Health(#[from] BuildError),
    /// The shutdown handlers or budgets do not fit together.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
    /// The registry guard cannot be built.
    #[cfg(feature = "registry")]
    #[error("the registry guard cannot be built: {0}")]
    Registry(#[from] crate::registry::RegistryError),
}

/// Collects the parts of a [`Toolchain`].
#[must_use = "call `build`"]
#[derive(Default)]
pub struct ToolchainBuilder {
    clock: Clock,
    observers: Observers,
    audit: Audit,
    policies: Option<MakePolicies>,
    protocols: Option<Checker>,
    #[cfg(feature = "ast")]
    ast: Option<AstParts>,
    #[cfg(feature = "registry")]
    registry: Option<RegistryParts>,
    checks: Vec<CheckSpec>,
    check_interval: Option<Duration>,
    budgets: Option<Budgets>,
    handlers: Vec<Handler>,
}

type MakePolicies = Box<dyn FnOnce(&Registry) -> Result<(), ConfigError>>;

#[derive(Default)]
enum Audit {
    #[default]
    Memory,
    Path(PathBuf),
    Log(AuditLog),
}

#[cfg(feature = "ast")]
struct AstParts {
    languages: crate::ast::Languages,
    isolation: crate::ast::Isolation,
    adjust: Box<dyn FnOnce(crate::ast::AstGuardBuilder) -> crate::ast::AstGuardBuilder>,
}

#[cfg(feature = "registry")]
struct RegistryParts {
    builder: crate::registry::Builder,
    runtime: tokio::runtime::Handle,
    adjust: Box<dyn FnOnce(crate::registry::Builder) -> crate::registry::Builder>,
}

impl std::fmt::Debug for ToolchainBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolchainBuilder").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl ToolchainBuilder {
    /// The clock of every policy, check and record. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// One more listener to everything that the policies and guards do.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers = self.observers.with(observer);
        self
    }

    /// Keeps the audit log in the directory `path`. Default: in memory, the last records only.
    pub fn audit_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.audit = Audit::Path(path.into());
        self
    }

    /// Uses an audit log that is open already, with settings of its own.
    pub fn audit(mut self, log: AuditLog) -> Self {
        self.audit = Audit::Log(log);
        self
    }

    /// Guards conformance checks among the definitions that `checker` knows.
    pub fn protocols(mut self, checker: Checker) -> Self {
        self.protocols = Some(checker);
        self
    }

    /// Guards the parsers of `languages`, run where `isolation` says.
    #[cfg(feature = "ast")]
    pub fn ast(self, languages: crate::ast::Languages, isolation: impl Into<crate::ast::Isolation>) -> Self {
        self.ast_with(languages, isolation, |builder| builder)
    }

    /// As [`ast`](Self::ast), with further settings. Limiter and breaker stay those of the toolchain unless set here.
    #[cfg(feature = "ast")]
    pub fn ast_with(
        mut self,
        languages: crate::ast::Languages,
        isolation: impl Into<crate::ast::Isolation>,
        adjust: impl FnOnce(crate::ast::AstGuardBuilder) -> crate::ast::AstGuardBuilder + 'static,
    ) -> Self {
        self.ast = Some(AstParts { languages, isolation: isolation.into(), adjust: Box::new(adjust) });
        self
    }

    /// Guards the package registry whose sparse index is at `index`, with a cache in the directory `cache`. Its
    /// policies and observers are the toolchain's; health checks ask it on `runtime`.
    #[cfg(feature = "registry")]
    pub fn registry(self, index: &str, cache: impl Into<PathBuf>, runtime: tokio::runtime::Handle) -> Self {
        self.registry_with(index, cache, runtime, |builder| builder)
    }

    /// As [`registry`](Self::registry), with further settings.
    #[cfg(feature = "registry")]
    pub fn registry_with(
        mut self,
        index: &str,
        cache: impl Into<PathBuf>,
        runtime: tokio::runtime::Handle,
        adjust: impl FnOnce(crate::registry::Builder) -> crate::registry::Builder + 'static,
    ) -> Self {
        let builder = crate::registry::RegistryGuard::builder(index, cache);
        self.registry = Some(RegistryParts { builder, runtime, adjust: Box::new(adjust) });
        self
    }

    /// Makes policies with settings of your own: guards take a policy that exists by its name and make the others.
    ///
    /// ```
    /// use std::time::Duration;
    /// use parsercraft_guard::{Toolchain, defaults};
    ///
    /// let toolchain = Toolchain::builder()
    ///     .policies(|policies| {
    ///         policies.breaker(defaults::REGISTRY_FETCH, |it| it.consecutive_failures(3).open_for(Duration::from_secs(10)))?;
    ///         Ok(())
    ///     })
    ///     .build()?;
    /// assert!(toolchain.policies().snapshot().breakers.contains_key("registry_fetch"));
    /// # Ok::<(), parsercraft_guard::ToolchainError>(())
    /// ```
    pub fn policies(mut self, make: impl FnOnce(&Registry) -> Result<(), ConfigError> + 'static) -> Self {
        self.policies = Some(Box::new(make));
        self
    }

    /// One more health check.
    pub fn check(mut self, check: CheckSpec) -> Self {
        self.checks.push(check);
        self
    }

    /// How often the toolchain's own checks run. Default 10 s.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = Some(interval);
        self
    }

    /// How long each phase of the shutdown may take.
    pub fn shutdown_budgets(mut self, budgets: Budgets) -> Self {
        self.budgets = Some(budgets);
        self
    }

    /// One more handler of the shutdown.
    pub fn shutdown_handler(mut self, handler: Handler) -> Self {
        self.handlers.push(handler);
        self
    }

    /// Builds it all.
    ///
    /// # Errors
    /// A [`ToolchainError`] for the first part that cannot be built; nothing is left running then.
    pub fn build(self) -> Result<Toolchain, ToolchainError> {
        let audit = match self.audit {
            Audit::Log(log) => log,
            Audit::Memory => AuditLog::builder().clock(self.clock.clone()).build()?,
            Audit::Path(path) => AuditLog::builder().path(path).clock(self.clock.clone()).build()?,
        };
        let observers =
            self.observers.with(Arc::new(AuditObserver::new(audit.clone()))).with(Arc::new(TracingObserver));
        let policies = Registry::new(self.clock.clone(), observers.clone());
        if let Some(make) = self.policies {
            make(&policies)?;
        }
        let interval = self.check_interval.unwrap_or(Duration::from_secs(10));
        let mut checks: Vec<CheckSpec> = self.checks;

        let protocol_check = policies.breaker(defaults::PROTOCOL_CHECK, |builder| {
            builder
                .consecutive_failures(defaults::PROTOCOL_CHECK_FAILURES)
                .open_for(defaults::PROTOCOL_CHECK_OPEN_FOR)
                .half_open_successes(defaults::PROTOCOL_CHECK_PROBES)
        })?;
        let protocol = match self.protocols {
            None => None,
            Some(checker) => {
                checks.push(breaker_check(&protocol_check, interval));
                let guard = ProtocolGuard::builder(checker).breaker(protocol_check.clone());
                Some(guard.clock(self.clock.clone()).observers(observers.clone()).build()?)
            }
        };

        #[cfg(feature = "ast")]
        let ast = match self.ast {
            None => None,
            Some(AstParts { languages, isolation, adjust }) => {
                let breaker = policies.breaker(defaults::AST_CODEGEN, |builder| {
                    builder
                        .consecutive_failures(defaults::AST_CODEGEN_FAILURES)
                        .open_for(defaults::AST_CODEGEN_OPEN_FOR)
                        .half_open_successes(defaults::AST_CODEGEN_PROBES)
                })?;
                let limiter = policies.limiter(defaults::AST_ANALYSIS, |builder| {
                    builder
                        .rate(defaults::AST_ANALYSIS_PERMITS, defaults::AST_ANALYSIS_PER)
                        .burst(defaults::AST_ANALYSIS_PERMITS)
                })?;
                let builder = crate::ast::AstGuard::builder(languages, isolation)
                    .breaker(breaker)
                    .limiter(limiter)
                    .clock(self.clock.clone())
                    .observers(observers.clone());
                let guard = adjust(builder).build()?;
                checks.push(breaker_check(guard.breaker(), interval));
                checks.push(checks::ast(&guard, interval));
                Some(guard)
            }
        };

        #[cfg(feature = "registry")]
        let registry = match self.registry {
            None => None,
            Some(RegistryParts { builder, runtime, adjust }) => {
                let breaker = policies.breaker(defaults::REGISTRY_FETCH, |builder| {
                    builder
                        .consecutive_failures(defaults::REGISTRY_FETCH_FAILURES)
                        .open_for(defaults::REGISTRY_FETCH_OPEN_FOR)
                        .half_open_successes(defaults::REGISTRY_FETCH_PROBES)
                })?;
                let limiter = policies.limiter(defaults::REGISTRY_QUERY, |builder| {
                    builder
                        .rate(defaults::REGISTRY_QUERY_PERMITS, defaults::REGISTRY_QUERY_PER)
                        .burst(defaults::REGISTRY_QUERY_PERMITS)
                })?;
                let builder = builder
                    .breaker(breaker)
                    .limiter(limiter)
                    .clock(self.clock.clone())
                    .observers(observers.clone());
                let guard = adjust(builder).build()?;
                checks.push(breaker_check(guard.breaker(), interval));
                checks.push(checks::registry(&guard, runtime, interval));
                Some(guard)
            }
        };

        #[cfg(feature = "lsp")]
        let servers = {
            let servers = checks::Servers::default();
            checks.push(servers.check(interval));
            servers
        };

        let health_log = audit.clone();
        let mut monitor = HealthMonitor::builder()
            .clock(self.clock.clone())
            .on_transition(move |transition| audit_transition(&health_log, transition));
        for check in checks {
            monitor = monitor.check(check);
        }
        let health = monitor.build()?;

        let recovery_log = audit.clone();
        let recovery = Recovery::builder()
            .clock(self.clock.clone())
            .observers(observers)
            .plan(
                RecoveryPlan::retry_with(
                    defaults::FETCH_PACKAGE,
                    defaults::FETCH_PACKAGE_ATTEMPTS,
                    Duration::from_millis(100),
                )
                .timeout(defaults::FETCH_PACKAGE_TIME_LIMIT),
            )
            .plan(
                RecoveryPlan::circuit_break(defaults::CHECK_PROTOCOL, protocol_check)
                    .timeout(defaults::CHECK_PROTOCOL_TIME_LIMIT),
            )
            .plan(
                RecoveryPlan::graceful_degrade(defaults::LSP_OPERATION).timeout(defaults::LSP_OPERATION_TIME_LIMIT),
            )
            .on_record(move |record| audit_recovery(&recovery_log, record))
            .build()?;

        let (shutdown_log, flushed) = (audit.clone(), audit.clone());
        let mut shutdown = Shutdown::builder()
            .clock(self.clock)
            .monitor(&health)
            .on_event(move |event| audit_shutdown(&shutdown_log, event))
            .handler(Handler::flush("audit log", move || {
                flushed.flush().and_then(resilience_audit::Acknowledgement::wait).map(|_| ())
            }));
        #[cfg(feature = "lsp")]
        {
            let servers = servers.clone();
            shutdown = shutdown.handler(Handler::close("language servers", move || servers.stop()));
        }
        if let Some(budgets) = self.budgets {
            shutdown = shutdown.budgets(budgets);
        }
        for handler in self.handlers {
            shutdown = shutdown.handler(handler);
        }
        Ok(Toolchain(Arc::new(Parts {
            policies,
            audit,
            health,
            recovery,
            shutdown: shutdown.build()?,
            protocol,
            #[cfg(feature = "ast")]
            ast,
            #[cfg(feature = "registry")]
            registry,
            #[cfg(feature = "lsp")]
            servers,
        })))
    }
}

/// Every breaker has a check of its name: open means degraded.
fn breaker_check(breaker: &resilience_core::CircuitBreaker, interval: Duration) -> CheckSpec {
    CheckSpec::readiness(format!("breaker {}", breaker.name()), BreakerCheck::new(breaker.clone())).interval(interval)
}
