//! The facade with all four guards over real things: worker processes, a registry on loopback, a language server, a log
//! on disk. Time is a clock that only the test moves, except where a process is waited for.
#![cfg(all(feature = "cli", feature = "lsp", feature = "registry", feature = "syn", feature = "testkit"))]

use std::io::Error;
use std::sync::Arc;
use std::time::Duration;

use parsercraft_guard::ast::{
    AstError, AstGuardBuilder, Fault as AstFault, Isolation, Languages, Limits, Operation, WorkerPool,
};
use parsercraft_guard::lsp::{EditorStreams, LspConfig, LspError, LspState, ServerCommand, Supervisor};
use parsercraft_guard::protocol::{Checker, generate};
use parsercraft_guard::registry::{Builder, RegistryError};
use parsercraft_guard::testkit::lsp_client::LspClient;
use parsercraft_guard::testkit::registry::{Fault, FaultyRegistry};
use parsercraft_guard::{Toolchain, ToolchainBuilder, ToolchainError, defaults};
use resilience_audit::{tail, verify};
use resilience_core::{
    BreakerState, Category, CircuitBreaker, Class, Classify, ConfigError, ManualClock, Outcome, RateLimiter, Retry,
    Severity,
};
use resilience_health::Status;
use resilience_health::shutdown::{Handler, HandlerOutcome};
use rustix::process::Pid;
use serde_json::json;
use tokio::runtime::Runtime;

const PARSERCRAFT_GUARD: &str = env!("CARGO_BIN_EXE_parsercraft-guard");
const SERVER: &str = env!("CARGO_BIN_EXE_scripted-language-server");
/// For waits that end much earlier unless something is broken.
const LONG: Duration = Duration::from_secs(30);

/// Everything a toolchain stands on. The registry and the runtime outlive the toolchain.
struct Bench {
    registry: FaultyRegistry,
    runtime: Runtime,
    folder: tempfile::TempDir,
    time: ManualClock,
}

impl Bench {
    fn new() -> Self {
        Self {
            registry: FaultyRegistry::start(7).unwrap(),
            runtime: Runtime::new().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            time: ManualClock::new(),
        }
    }

    fn audit(&self) -> std::path::PathBuf {
        self.folder.path().join("audit")
    }

    fn pool() -> WorkerPool {
        WorkerPool::builder().program(PARSERCRAFT_GUARD).workers(1).build().unwrap()
    }

    /// All guards. Nothing waits on the clock: it stands still while a call runs.
    fn builder(&self, pool: WorkerPool) -> ToolchainBuilder {
        fn one_attempt(builder: Builder) -> Builder {
            builder.retry(Retry::builder().max_attempts(1).build().unwrap())
        }
        // Limits would refuse the bomb before it reached a parser.
        fn unlimited(builder: AstGuardBuilder) -> AstGuardBuilder {
            builder.limits(Limits::NONE)
        }
        let (index, cache) = (self.registry.index_url(), self.folder.path().join("cache"));
        Toolchain::builder()
            .clock(self.time.clock())
            .audit_path(self.audit())
            .protocols(Checker::new(&generate(1, 3, 10).definitions).unwrap())
            .ast_with(Languages::builtin(), pool, unlimited)
            .registry_with(&index, cache, self.runtime.handle().clone(), one_attempt)
    }

    fn toolchain(&self) -> Toolchain {
        self.builder(Self::pool()).build().unwrap()
    }

    /// Runs every check once, as time would.
    fn check(&self, toolchain: &Toolchain) -> Status {
        self.time.advance(Duration::from_secs(12));
        toolchain.health().tick();
        toolchain.health().status()
    }

    fn ask_registry(&self, toolchain: &Toolchain, name: &str) -> bool {
        self.runtime.block_on(toolchain.registry().unwrap().metadata(name)).is_ok()
    }
}

fn editor(toolchain: &Toolchain, config: LspConfig, args: &[&str]) -> Result<(Supervisor, Arc<LspClient>), LspError> {
    let (from_client, to_guard) = std::io::pipe()?;
    let (from_guard, to_client) = std::io::pipe()?;
    let command = ServerCommand::new(SERVER).args(args.iter().copied());
    let streams = EditorStreams::from_descriptors(from_client, to_client);
    let supervisor = toolchain.guard_server(config, command, streams)?;
    Ok((supervisor, LspClient::connect(from_guard, to_guard)?))
}

fn quiet() -> LspConfig {
    let mut config = LspConfig::default();
    config.forward_stderr = false;
    config
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(process.try_into().unwrap()).unwrap()
}

/// Also true of one that has ended and that nobody has waited for.
fn exists(process: u32) -> bool {
    rustix::process::test_kill_process(pid(process)).is_ok()
}

fn hover(client: &LspClient) -> serde_json::Value {
    let params = json!({"textDocument": {"uri": "file:///a"}, "position": {"line": 0, "character": 0}});
    client.call("textDocument/hover", &params, LONG).expect("every request is answered")
}

#[test]
fn what_the_guards_go_through_is_in_the_log_on_disk_and_the_log_is_sound() {
    let bench = Bench::new();
    let toolchain = bench.toolchain();
    assert_eq!(bench.check(&toolchain), Status::Healthy);

    // A source that no stack holds.
    let bomb = format!("fn f() {{ let x = {}1{}; }}", "(".repeat(200_000), ")".repeat(200_000));
    let error = toolchain.ast().unwrap().run(Operation::Parse, "rust", &bomb).unwrap_err();
    assert!(error.as_fault().is_some_and(AstFault::is_poison), "{error}");
    toolchain.ast().unwrap().run(Operation::Parse, "rust", "fn main() {}").expect("the next one is parsed");
    // A registry that is gone.
    let name = bench.registry.catalog().names()[0].to_owned();
    bench.registry.set_fault(Fault::Refuse).unwrap();
    while toolchain.registry().unwrap().breaker().state() == BreakerState::Closed {
        assert!(!bench.ask_registry(&toolchain, &name));
    }
    bench.check(&toolchain);
    // A language server that dies.
    let (server, client) = editor(&toolchain, quiet(), &["--fault", "crash@3"]).unwrap();
    client.initialize(LONG).expect("initialize is answered");
    hover(&client);
    wait_until("the restart", || server.stats().restarts == 1 && server.stats().state == LspState::Ready);
    // A question without meaning, and errors of the program itself.
    toolchain.protocol().unwrap().check_conformance("Nothing", "Nobody").unwrap_err();
    toolchain.handle_error("installer", "unpack", &Error::other("a bad archive"));
    let recovered = toolchain.recovery().call_or(defaults::LSP_OPERATION, |_| Err(Error::other("no")), |_| Ok(1));
    assert_eq!(recovered.unwrap().value, 1);

    toolchain.shutdown().request("the end of the test");
    assert!(toolchain.shutdown().run().is_clean());
    drop(toolchain);

    let report = verify(bench.audit()).unwrap();
    assert!(report.is_sound(), "{report}");
    let records: Vec<String> = tail(bench.audit(), 10_000)
        .unwrap()
        .iter()
        .map(|record| format!("{} {} {}", record.event_type(), record.action(), record.resource()))
        .collect();
    for expected in [
        "ast parser_failed rust",
        "circuit_breaker open registry_fetch",
        "health degraded breaker registry_fetch",
        "lsp server_started scripted-language-server",
        "lsp server_lost scripted-language-server",
        "lsp server_recovered scripted-language-server",
        "call finished protocol_check",
        "error unpack installer",
        "recovery graceful_degrade lsp_operation",
        "shutdown phase_entered close",
        "shutdown handler_finished language servers",
    ] {
        assert!(records.iter().any(|record| record.starts_with(expected)), "{expected} is missing in {records:#?}");
    }
}

#[test]
fn health_is_degraded_while_the_registry_breaker_is_open_and_well_again_after_it_closed() {
    let bench = Bench::new();
    let toolchain = bench.toolchain();
    let name = bench.registry.catalog().names()[0].to_owned();
    assert_eq!(bench.check(&toolchain), Status::Healthy);

    bench.registry.set_fault(Fault::Refuse).unwrap();
    for _ in 0..defaults::REGISTRY_FETCH_FAILURES {
        assert!(!bench.ask_registry(&toolchain, &name));
    }
    assert_eq!(toolchain.registry().unwrap().breaker().state(), BreakerState::Open);
    assert_eq!(bench.check(&toolchain), Status::Degraded);
    let snapshot = toolchain.health().snapshot();
    assert_eq!(snapshot.check("breaker registry_fetch").unwrap().status, Status::Degraded);
    assert_eq!(snapshot.check("registry").unwrap().status, Status::Degraded, "it serves what it knows");
    assert_eq!(snapshot.check("ast").unwrap().status, Status::Healthy, "what works stays healthy");

    // The registry is well again; the checks themselves are the probes that close the breaker.
    bench.registry.set_fault(Fault::None).unwrap();
    bench.time.advance(defaults::REGISTRY_FETCH_OPEN_FOR);
    for _ in 0..4 {
        bench.check(&toolchain);
    }
    assert_eq!(toolchain.registry().unwrap().breaker().state(), BreakerState::Closed);
    assert_eq!(toolchain.health().status(), Status::Healthy, "{}", toolchain.health().summary());
    assert!(bench.ask_registry(&toolchain, &name));
}

#[test]
fn checks_ask_the_registry_itself_and_say_when_they_cannot() {
    let bench = Bench::new();
    let runtime = Runtime::new().unwrap();
    let toolchain = Toolchain::builder()
        .clock(bench.time.clock())
        .registry(&bench.registry.index_url(), bench.folder.path().join("cache"), runtime.handle().clone())
        .build()
        .unwrap();
    let before = bench.registry.stats().requests;
    assert_eq!(bench.check(&toolchain), Status::Healthy);
    bench.check(&toolchain);
    assert_eq!(bench.registry.stats().requests, before + 2, "no check is answered from the cache");

    drop(runtime);
    for _ in 0..3 {
        bench.check(&toolchain);
    }
    let snapshot = toolchain.health().snapshot();
    let registry = snapshot.check("registry").unwrap();
    assert_eq!((registry.status, &*registry.message), (Status::Unhealthy, "the runtime has been shut down"));
}

#[test]
fn the_parsers_check_fails_when_there_are_no_workers_any_more() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("worker");
    std::fs::copy(PARSERCRAFT_GUARD, &program).unwrap();
    let pool = WorkerPool::builder().program(&program).workers(1).build().unwrap();
    let toolchain = bench.builder(pool.clone()).build().unwrap();
    assert_eq!(bench.check(&toolchain), Status::Healthy);

    drop(folder);
    rustix::process::kill_process(pid(pool.idle_ids()[0]), rustix::process::Signal::KILL).unwrap();
    for _ in 0..4 {
        bench.check(&toolchain);
    }
    let snapshot = toolchain.health().snapshot();
    assert_eq!(snapshot.check("ast").unwrap().status, Status::Unhealthy);
}

#[test]
fn shutdown_stops_the_servers_and_reports_every_handler() {
    let bench = Bench::new();
    let toolchain = bench
        .builder(Bench::pool())
        .shutdown_handler(Handler::close("editor", || Err::<(), _>("it does not answer")))
        .build()
        .unwrap();
    let (first, client) = editor(&toolchain, quiet(), &[]).unwrap();
    let (second, _silent) = editor(&toolchain, quiet(), &[]).unwrap();
    client.initialize(LONG).expect("initialize is answered");
    let servers = [first.server_pid().unwrap(), second.server_pid().unwrap()];
    assert!(servers.into_iter().all(exists));

    toolchain.shutdown().request("the end of the test");
    let report = toolchain.shutdown().run();
    let handlers: Vec<_> =
        report.handlers.iter().map(|handler| (handler.name.as_str(), handler.outcome.clone())).collect();
    let expected = [
        ("editor", HandlerOutcome::Failed("it does not answer".to_owned())),
        ("language servers", HandlerOutcome::Completed),
        ("audit log", HandlerOutcome::Completed),
    ];
    assert_eq!(handlers, expected);
    assert!(!report.is_clean());
    assert_eq!([first.stats().state, second.stats().state], [LspState::Stopped; 2]);
    wait_until("the servers' end", || !servers.into_iter().any(exists));

    let Err(late) = editor(&toolchain, quiet(), &[]) else { panic!("a server was started after the shutdown") };
    insta::assert_snapshot!(late, @"the guard cannot work: the toolchain has been shut down");
}

#[test]
fn a_build_that_fails_leaves_no_worker_behind() {
    let bench = Bench::new();
    std::fs::write(bench.audit(), "not a directory").unwrap();
    let pool = Bench::pool();
    let worker = pool.idle_ids()[0];
    assert!(exists(worker));
    let built = bench.builder(pool).build();
    assert!(matches!(built, Err(ToolchainError::Audit(_))), "{built:?}");
    wait_until("the worker's end", || !exists(worker));
    assert!(!bench.folder.path().join("cache").exists(), "nothing after the log was begun");
}

#[test]
fn servers_share_the_limiter_lsp_requests_and_each_has_a_breaker_that_health_knows() {
    let bench = Bench::new();
    let toolchain = bench.toolchain();
    let before = toolchain.policies().snapshot().limiters[defaults::LSP_REQUESTS].available;
    assert_eq!(before, defaults::LSP_REQUESTS_PERMITS);
    let breaker = CircuitBreaker::builder("lsp_server:pyright").build().unwrap();
    let mut config = quiet();
    config.requests.breaker = Some(breaker.clone());
    let (_first, one) = editor(&toolchain, config, &[]).unwrap();
    let (_second, two) = editor(&toolchain, quiet(), &[]).unwrap();
    one.initialize(LONG).expect("initialize is answered");
    two.initialize(LONG).expect("initialize is answered");
    hover(&one);
    hover(&two);
    let used = before - toolchain.policies().snapshot().limiters[defaults::LSP_REQUESTS].available;
    assert!((2..=4).contains(&used), "{used} permits for two hovers");
    assert_eq!(bench.check(&toolchain), Status::Healthy);

    breaker.force_open();
    assert_eq!(bench.check(&toolchain), Status::Degraded);
    let snapshot = toolchain.health().snapshot();
    let result = snapshot.check("language servers").unwrap().result.clone().unwrap();
    let parts: Vec<_> = result.sub_checks().iter().map(|part| part.status).collect();
    assert_eq!(parts, [Status::Degraded, Status::Healthy]);

    // A limiter of the server's own takes none of the shared permits.
    let before = toolchain.policies().snapshot().limiters[defaults::LSP_REQUESTS].available;
    let limiter = RateLimiter::builder("guest").rate(100, LONG).burst(100).build().unwrap();
    let mut config = quiet();
    config.requests.limiter = Some(limiter.clone());
    let (_third, three) = editor(&toolchain, config, &[]).unwrap();
    three.initialize(LONG).expect("initialize is answered");
    hover(&three);
    assert!(limiter.statistics().available < 100);
    assert_eq!(toolchain.policies().snapshot().limiters[defaults::LSP_REQUESTS].available, before);
    toolchain.shutdown().request("the end of the test");
    toolchain.shutdown().run();
}

#[test]
fn a_server_that_cannot_be_kept_alive_degrades_the_health() {
    let bench = Bench::new();
    let toolchain = bench.toolchain();
    let mut config = quiet();
    config.restart.max_restarts = 0;
    let (server, client) = editor(&toolchain, config, &["--fault", "crash@3"]).unwrap();
    client.initialize(LONG).expect("initialize is answered");
    assert_eq!(bench.check(&toolchain), Status::Healthy);
    hover(&client);
    wait_until("the degradation", || server.stats().state == LspState::Degraded);
    assert_eq!(bench.check(&toolchain), Status::Degraded);
    client.leave(LONG);
    server.wait().unwrap();
    bench.check(&toolchain);
    assert_eq!(bench.check(&toolchain), Status::Healthy, "a session that has ended is no concern any more");
}

#[test]
fn the_policies_have_the_names_and_defaults_that_operators_know() {
    let bench = Bench::new();
    let toolchain = bench.toolchain();
    let policies = toolchain.policies();
    let mut lines = Vec::new();
    for name in policies.snapshot().breakers.into_keys() {
        let breaker = policies.breaker(&name, |it| it).unwrap();
        let mut failures = 0;
        while let Ok(permit) = breaker.try_acquire() {
            permit.settle(&Outcome::Failure(Class::of(Category::Network)));
            failures += 1;
        }
        let mut seconds = 0;
        while breaker.try_acquire().is_err() {
            bench.time.advance(Duration::from_secs(1));
            seconds += 1;
        }
        let mut probes = 0;
        while breaker.state() != BreakerState::Closed {
            breaker.try_acquire().unwrap().settle(&Outcome::Success);
            probes += 1;
        }
        lines.push(format!("breaker {name}: {failures} failures, {seconds} s, {probes} probes"));
    }
    for (name, limiter) in policies.snapshot().limiters {
        let per_minute = limiter.refill_per_second * 60.0;
        lines.push(format!("limiter {name}: {per_minute:.0} in 60 s, {} at once", limiter.burst));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    breaker ast_codegen: 10 failures, 60 s, 2 probes
    breaker protocol_check: 15 failures, 60 s, 2 probes
    breaker registry_fetch: 5 failures, 120 s, 2 probes
    limiter ast_analysis: 1000 in 60 s, 1000 at once
    limiter lsp_requests: 2000 in 60 s, 2000 at once
    limiter registry_query: 500 in 60 s, 500 at once
    ");
}

#[test]
fn errors_have_the_severities_that_operators_know() {
    let limit = AstError::Fault(AstFault::Spawn { why: "no memory".into() });
    let refused = AstError::UnknownLanguage { name: "cobol".into(), known: "rust".into() };
    let question =
        Checker::new(&generate(1, 3, 10).definitions).unwrap().check_conformance("Nothing", "Nobody").unwrap_err();
    let question = parsercraft_guard::protocol::ProtocolError::Question(question);
    let panicked = parsercraft_guard::protocol::ProtocolError::Panicked { message: "oh".into() };
    let timeout = LspError::Io(std::io::ErrorKind::TimedOut.into());
    let setting = LspError::Config(ConfigError::new("burst", 0, "1 to 5"));
    let silent = RegistryError::Config(ConfigError::new("retry", 0, "1 to 5"));
    let class = |error: &dyn Classify| (error.class().category, error.class().severity);
    assert_eq!(class(&refused), (Category::Validation, Severity::Medium));
    assert_eq!(class(&limit).1, Severity::High);
    assert_eq!(class(&question), (Category::Validation, Severity::Low));
    assert_eq!(class(&panicked), (Category::Internal, Severity::High));
    assert_eq!(class(&timeout), (Category::Timeout, Severity::Medium));
    assert_eq!(class(&setting), (Category::Validation, Severity::Low));
    assert_eq!(class(&silent).0, Category::Validation);
}

#[test]
fn a_guard_with_policies_of_its_own_is_watched_by_those() {
    let bench = Bench::new();
    let own = CircuitBreaker::builder("parsers").consecutive_failures(1).clock(bench.time.clock()).build().unwrap();
    let theirs = own.clone();
    let toolchain = Toolchain::builder()
        .clock(bench.time.clock())
        .ast_with(Languages::builtin(), Bench::pool(), move |builder| builder.breaker(theirs))
        .build()
        .unwrap();
    assert!(matches!(toolchain.ast().unwrap().isolation(), Isolation::Processes(_)));
    own.force_open();
    assert_eq!(bench.check(&toolchain), Status::Degraded);
    let rejected = toolchain.ast().unwrap().run(Operation::Parse, "rust", "fn main() {}").unwrap_err();
    assert!(matches!(rejected, AstError::Rejected(_)), "{rejected}");
    assert_eq!(toolchain.health().snapshot().check("breaker parsers").unwrap().status, Status::Degraded);
}
