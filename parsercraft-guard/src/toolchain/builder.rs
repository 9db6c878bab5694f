//! How a toolchain is put together: policies by their well-known names, then guards, then what watches over them.
//! Nothing here runs after the toolchain is built.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use resilience_audit::{AuditLog, AuditObserver, OpenError};
use resilience_core::event::TracingObserver;
use resilience_core::{CircuitBreaker, Clock, ConfigError, Observer, Observers, Registry};
use resilience_health::recovery::{Recovery, RecoveryPlan};
use resilience_health::shutdown::{Budgets, Handler, Shutdown, ShutdownError};
use resilience_health::{BreakerCheck, BuildError, CheckSpec, HealthMonitor};

#[cfg(any(feature = "ast", feature = "registry"))]
use super::checks;
#[cfg(feature = "lsp")]
use super::servers::Servers;
use super::{Parts, Toolchain, audit_recovery, audit_shutdown, audit_transition};
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
    policies: Vec<MakePolicies>,
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

    /// Makes policies with settings of your own: guards take a policy that exists by its name and make the others. Of two
    /// that make the same one, the first wins.
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
        self.policies.push(Box::new(make));
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
        let policies = Registry::new(self.clock.clone(), observers);
        for make in self.policies {
            make(&policies)?;
        }
        let interval = self.check_interval.unwrap_or(Duration::from_secs(10));
        let mut wiring = Wiring { policies: &policies, interval, breakers: BTreeMap::new(), checks: self.checks };
        let protocol = self.protocols.map(|checker| wiring.protocol(checker)).transpose()?;
        #[cfg(feature = "ast")]
        let ast = self.ast.map(|parts| wiring.ast(parts)).transpose()?;
        #[cfg(feature = "registry")]
        let registry = self.registry.map(|parts| wiring.registry(parts)).transpose()?;
        #[cfg(feature = "lsp")]
        let servers = wiring.servers()?;
        let recovery = recovery_plans(&policies, &audit)?;

        let health_log = audit.clone();
        let mut monitor = HealthMonitor::builder()
            .clock(self.clock.clone())
            .on_transition(move |transition| audit_transition(&health_log, transition));
        for check in wiring.all_checks()? {
            monitor = monitor.check(check);
        }
        let health = monitor.build()?;

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

/// What the guards are wired with.
struct Wiring<'a> {
    policies: &'a Registry,
    interval: Duration,
    /// Those that guards really use, by name: they may have been given others than the registry's.
    breakers: BTreeMap<String, CircuitBreaker>,
    checks: Vec<CheckSpec>,
}

impl Wiring<'_> {
    fn uses(&mut self, breaker: &CircuitBreaker) {
        self.breakers.insert(breaker.name().to_owned(), breaker.clone());
    }

    /// All checks: the guards', the caller's, and one for every breaker, whose being open means degraded.
    fn all_checks(mut self) -> Result<Vec<CheckSpec>, ConfigError> {
        for name in self.policies.snapshot().breakers.into_keys() {
            if !self.breakers.contains_key(&name) {
                let breaker = self.policies.breaker(&name, |builder| builder)?;
                self.breakers.insert(name, breaker);
            }
        }
        for (name, breaker) in self.breakers {
            let check = CheckSpec::readiness(format!("breaker {name}"), BreakerCheck::new(breaker));
            self.checks.push(check.interval(self.interval));
        }
        Ok(self.checks)
    }

    fn protocol(&mut self, checker: Checker) -> Result<ProtocolGuard, ToolchainError> {
        let breaker = protocol_check(self.policies)?;
        self.uses(&breaker);
        let builder = ProtocolGuard::builder(checker).breaker(breaker);
        Ok(builder.clock(self.policies.clock().clone()).observers(self.policies.observers().clone()).build()?)
    }

    #[cfg(feature = "ast")]
    fn ast(&mut self, parts: AstParts) -> Result<crate::ast::AstGuard, ToolchainError> {
        let breaker = self.policies.breaker(defaults::AST_CODEGEN, |builder| {
            builder
                .consecutive_failures(defaults::AST_CODEGEN_FAILURES)
                .open_for(defaults::AST_CODEGEN_OPEN_FOR)
                .half_open_successes(defaults::AST_CODEGEN_PROBES)
        })?;
        let limiter = self.policies.limiter(defaults::AST_ANALYSIS, |builder| {
            let permits = defaults::AST_ANALYSIS_PERMITS;
            builder.rate(permits, defaults::AST_ANALYSIS_PER).burst(permits)
        })?;
        let builder = crate::ast::AstGuard::builder(parts.languages, parts.isolation)
            .breaker(breaker)
            .limiter(limiter)
            .clock(self.policies.clock().clone())
            .observers(self.policies.observers().clone());
        let guard = (parts.adjust)(builder).build()?;
        self.uses(guard.breaker());
        self.checks.push(checks::ast(&guard, self.interval));
        Ok(guard)
    }

    #[cfg(feature = "registry")]
    fn registry(&mut self, parts: RegistryParts) -> Result<crate::registry::RegistryGuard, ToolchainError> {
        let breaker = self.policies.breaker(defaults::REGISTRY_FETCH, |builder| {
            builder
                .consecutive_failures(defaults::REGISTRY_FETCH_FAILURES)
                .open_for(defaults::REGISTRY_FETCH_OPEN_FOR)
                .half_open_successes(defaults::REGISTRY_FETCH_PROBES)
        })?;
        let limiter = self.policies.limiter(defaults::REGISTRY_QUERY, |builder| {
            let permits = defaults::REGISTRY_QUERY_PERMITS;
            builder.rate(permits, defaults::REGISTRY_QUERY_PER).burst(permits)
        })?;
        let builder = parts
            .builder
            .breaker(breaker)
            .limiter(limiter)
            .clock(self.policies.clock().clone())
            .observers(self.policies.observers().clone());
        let guard = (parts.adjust)(builder).build()?;
        self.uses(guard.breaker());
        self.checks.push(checks::registry(&guard, parts.runtime, self.interval));
        Ok(guard)
    }

    #[cfg(feature = "lsp")]
    fn servers(&mut self) -> Result<Servers, ConfigError> {
        let limiter = self.policies.limiter(defaults::LSP_REQUESTS, |builder| {
            let permits = defaults::LSP_REQUESTS_PERMITS;
            builder.rate(permits, defaults::LSP_REQUESTS_PER).burst(permits)
        })?;
        let servers = Servers::new(limiter);
        self.checks.push(servers.check(self.interval));
        Ok(servers)
    }
}

fn protocol_check(policies: &Registry) -> Result<CircuitBreaker, ConfigError> {
    policies.breaker(defaults::PROTOCOL_CHECK, |builder| {
        builder
            .consecutive_failures(defaults::PROTOCOL_CHECK_FAILURES)
            .open_for(defaults::PROTOCOL_CHECK_OPEN_FOR)
            .half_open_successes(defaults::PROTOCOL_CHECK_PROBES)
    })
}

fn recovery_plans(policies: &Registry, audit: &AuditLog) -> Result<Recovery, ConfigError> {
    let log = audit.clone();
    let (attempts, pause) = (defaults::FETCH_PACKAGE_ATTEMPTS, Duration::from_millis(100));
    let plans = [
        RecoveryPlan::retry_with(defaults::FETCH_PACKAGE, attempts, pause).timeout(defaults::FETCH_PACKAGE_TIME_LIMIT),
        RecoveryPlan::circuit_break(defaults::CHECK_PROTOCOL, protocol_check(policies)?)
            .timeout(defaults::CHECK_PROTOCOL_TIME_LIMIT),
        RecoveryPlan::graceful_degrade(defaults::LSP_OPERATION).timeout(defaults::LSP_OPERATION_TIME_LIMIT),
    ];
    let builder = Recovery::builder().clock(policies.clock().clone()).observers(policies.observers().clone());
    plans
        .into_iter()
        .fold(builder, resilience_health::recovery::RecoveryBuilder::plan)
        .on_record(move |record| audit_recovery(&log, record))
        .build()
}
