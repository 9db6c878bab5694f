//! The guarded process: the toolchain under test, run through its stages while faults are injected.
//! It judges what it sees of its own work; what its death and its log look like is judged by the process that watches it.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parsercraft_guard::ast::{Limits, WorkerPool};
use parsercraft_guard::protocol::{self, Checker};
use parsercraft_guard::registry::Builder;
use parsercraft_guard::testkit::registry::FaultyRegistry;
use parsercraft_guard::{Toolchain, ast, defaults};
use resilience_audit::{AuditEvent, Status};
use resilience_core::{Backoff, Retry};
use resilience_health::shutdown::{Handler, Signals};
use serde::{Deserialize, Serialize};

use super::line::{Findings, HandlerLine, Line, Stage, Teller, now_ms};
use super::{Guard, ast as ast_stage, lsp as lsp_stage, protocol as protocol_stage, registry as registry_stage};

/// What the guarded process is told when it starts, as JSON on its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) seed: u64,
    /// The audit log and the cache live here and survive the process.
    pub(super) directory: PathBuf,
    /// Rust files to parse.
    pub(super) sources: Vec<PathBuf>,
    /// Stages that are over already.
    pub(super) skip: Vec<Stage>,
    /// The guard that is broken on purpose.
    pub(super) broken: Option<Guard>,
}

/// How long an open breaker stays open here: long enough to be seen by the health checks, short enough to wait for.
pub(super) const OPEN_FOR: Duration = Duration::from_millis(600);
/// Between two runs of a health check.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// Whatever is waited for comes within this or not at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What every stage works with.
pub(super) struct Bench {
    pub(super) orders: Orders,
    pub(super) toolchain: Toolchain,
    pub(super) registry: FaultyRegistry,
    pub(super) sample: protocol::Sample,
    pub(super) runtime: tokio::runtime::Runtime,
    teller: Arc<Teller>,
    faults: std::sync::atomic::AtomicU32,
}

pub(super) type Trouble = Box<dyn std::error::Error + Send + Sync>;

impl Bench {
    pub(super) fn progress(&self, stage: Stage, done: usize, total: usize) {
        self.teller.tell(&Line::Progress { stage, done: done as u64, total: total as u64 });
    }

    pub(super) fn is_broken(&self, guard: Guard) -> bool {
        self.orders.broken == Some(guard)
    }

    /// Tells of a fault about to be injected, and has the audit log promise to remember it.
    pub(super) fn fault(&self, stage: Stage, what: &str) -> Result<(), Trouble> {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.teller.tell(&Line::Fault { at_ms: now_ms(), what: format!("{}: {what}", stage.as_str()) });
        self.record("fault_injected", stage, what, Status::Info)
    }

    /// Has the audit log promise to remember that what a fault broke works again.
    pub(super) fn recovered(&self, stage: Stage, what: &str) -> Result<(), Trouble> {
        self.record("recovered", stage, what, Status::Success)
    }

    fn record(&self, action: &'static str, stage: Stage, what: &str, status: Status) -> Result<(), Trouble> {
        let event = AuditEvent::new("drill", action, what.to_owned()).status(status).detail("stage", stage.as_str());
        let anchor = self.toolchain.audit().append_durable(event)?.wait()?;
        self.teller.tell(&Line::Acknowledged { anchor: anchor.to_string() });
        Ok(())
    }
}

/// Waits until `wanted` holds; whether it did in time.
pub(super) fn wait_until(mut wanted: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if wanted() {
            return true;
        }
        if begun.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs until told to stop: the body of the guarded process.
pub(super) fn main() -> u8 {
    let teller = Arc::new(Teller::default());
    let mut orders = String::new();
    let read = std::io::stdin().lock().read_line(&mut orders);
    // Nothing follows the orders but the end of whoever gave them, which must not leave us behind.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let done = read.map_err(Trouble::from).and_then(|_| run(&teller, serde_json::from_str(&orders)?));
    match done {
        Ok(code) => code,
        Err(trouble) => {
            teller.tell(&Line::Failed { why: trouble.to_string() });
            1
        }
    }
}

fn run(teller: &Arc<Teller>, orders: Orders) -> Result<u8, Trouble> {
    let bench = set_up(teller, orders)?;
    let log = bench.toolchain.audit();
    let report = log.open_report().ok_or("the audit log is not on disk")?;
    teller.tell(&Line::Started { records: report.end.sequence, torn: report.torn.is_some() });
    let signals = Signals::install(bench.toolchain.shutdown())?;
    // Broken on purpose: nobody runs the checks.
    let background = (!bench.is_broken(Guard::Health)).then(|| bench.toolchain.health().start()).transpose()?;
    let over = Arc::new(AtomicBool::new(false));
    let watch = watch_health(&bench, Arc::clone(&over));

    for stage in Stage::ALL {
        if bench.orders.skip.contains(&stage) {
            continue;
        }
        teller.tell(&Line::Stage { stage });
        let begun = Instant::now();
        bench.faults.store(0, Ordering::Relaxed);
        let mut findings = match stage {
            Stage::Ast => ast_stage::run(&bench)?,
            Stage::Registry => registry_stage::run(&bench)?,
            Stage::Protocol => protocol_stage::run(&bench)?,
            Stage::Lsp => lsp_stage::run(&bench)?,
        };
        back_to_healthy(&bench, &mut findings);
        findings.seconds = begun.elapsed().as_secs_f64();
        findings.faults = bench.faults.load(Ordering::Relaxed);
        teller.tell(&Line::Finished { stage, findings });
    }
    teller.tell(&Line::Waiting);
    if bench.is_broken(Guard::Shutdown) {
        return Ok(0);
    }
    // Until SIGTERM comes.
    let report = bench.toolchain.shutdown().run();
    over.store(true, Ordering::Relaxed);
    let handlers = report
        .handlers
        .iter()
        .map(|handler| HandlerLine {
            name: handler.name.clone(),
            phase: handler.phase.to_string(),
            outcome: handler.outcome.to_string(),
        })
        .collect();
    teller.tell(&Line::Shutdown { handlers, exit_code: report.exit_code() });
    drop((signals, background));
    let _ = watch.join();
    log.close()?;
    Ok(report.exit_code())
}

/// After a stage everything must be well again.
fn back_to_healthy(bench: &Bench, findings: &mut Findings) {
    if bench.is_broken(Guard::Health) {
        return;
    }
    let health = bench.toolchain.health();
    let healthy = wait_until(|| health.status() == resilience_health::Status::Healthy);
    findings.check(healthy, "health is back to healthy after the stage", health.summary().status());
}

fn watch_health(bench: &Bench, over: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (health, teller) = (bench.toolchain.health().clone(), Arc::clone(&bench.teller));
    std::thread::spawn(move || {
        let mut last = None;
        while !over.load(Ordering::Relaxed) {
            let snapshot = health.snapshot();
            let status = health.status();
            if last != Some(status) {
                last = Some(status);
                let why: Vec<_> = snapshot
                    .checks
                    .iter()
                    .filter(|check| check.status != resilience_health::Status::Healthy)
                    .map(|check| format!("{}: {}", check.name, check.message))
                    .collect();
                teller.tell(&Line::Health { at_ms: now_ms(), status: status.to_string(), why: why.join("; ") });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

fn set_up(teller: &Arc<Teller>, orders: Orders) -> Result<Bench, Trouble> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let registry = FaultyRegistry::start(orders.seed)?;
    let sample = protocol::generate(orders.seed, 20, 400);
    let workers = WorkerPool::builder().workers(2).timeout(Duration::from_millis(1_500)).cpu(Duration::from_secs(3));
    let builder = Toolchain::builder()
        .audit_path(orders.directory.join("audit"))
        .policies(|policies| {
            let fast = Duration::from_secs(1);
            policies.limiter(defaults::AST_ANALYSIS, |it| it.rate(1_000_000, fast).burst(1_000_000))?;
            policies.limiter(defaults::REGISTRY_QUERY, |it| it.rate(100_000, fast).burst(100_000))?;
            policies.breaker(defaults::AST_CODEGEN, |it| {
                it.consecutive_failures(defaults::AST_CODEGEN_FAILURES).open_for(OPEN_FOR)
            })?;
            policies.breaker(defaults::REGISTRY_FETCH, |it| {
                it.consecutive_failures(defaults::REGISTRY_FETCH_FAILURES).open_for(OPEN_FOR)
            })?;
            Ok(())
        })
        .protocols(Checker::new(&sample.definitions)?)
        .ast(ast::testkit::languages(), workers.build()?)
        .registry_with(&registry.index_url(), orders.directory.join("cache"), runtime.handle().clone(), quick)
        .check_interval(CHECK_EVERY)
        .shutdown_handler(Handler::close("telemetry (panics on purpose)", || -> Result<(), String> {
            panic!("a broken exporter")
        }))
        .shutdown_handler(
            Handler::close("remote cache (hangs on purpose)", || -> Result<(), String> {
                std::thread::sleep(Duration::from_secs(3_600));
                Ok(())
            })
            .limit(Duration::from_millis(300)),
        );
    let toolchain = builder.build()?;
    Ok(Bench { orders, toolchain, registry, sample, runtime, teller: Arc::clone(teller), faults: 0.into() })
}

/// Time limits that suit a registry on loopback.
fn quick(builder: Builder) -> Builder {
    let backoff = Backoff::exponential(Duration::from_millis(20), 2.0, Duration::from_millis(200));
    let retry = Retry::builder().backoff(backoff).max_retry_after(Duration::from_secs(3)).build().unwrap_or_default();
    builder
        .retry(retry)
        .idle_timeout(Duration::from_millis(250))
        .attempt_timeout(Duration::from_millis(400))
        .download_timeout(Duration::from_millis(600))
        .total_timeout(Duration::from_secs(5))
}

/// A second guard over the same workers, without limits before parsing: what a bomb meets that no limit knows.
pub(super) fn without_limits(toolchain: &Toolchain, pool: &ast::Isolation) -> Result<ast::AstGuard, Trouble> {
    let guard = toolchain.ast().ok_or("the toolchain has no AST guard")?;
    let builder = ast::AstGuard::builder(ast::testkit::languages(), pool.clone())
        .limits(Limits::NONE)
        .limiter(guard.limiter().clone())
        .breaker(guard.breaker().clone())
        .observers(toolchain.observers().clone());
    Ok(builder.build()?)
}

/// The folder where a run keeps its files.
pub(super) fn directory(drill: &Path) -> PathBuf {
    drill.join("work")
}
