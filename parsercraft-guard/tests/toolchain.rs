//! The facade without any guard but the protocol's: what it wires is there under its well-known name and does what it says.
//! Guards that need processes and servers are in `toolchain_guards.rs`.

use std::fs;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parsercraft_guard::protocol::{Checker, Definitions, Verdict};
use parsercraft_guard::{Toolchain, ToolchainBuilder, defaults};
use resilience_audit::{Query, Status as AuditStatus};
use resilience_core::{BreakerState, Category, Class, Event, ManualClock, Outcome, Severity};
use resilience_health::recovery::{How, RecoveryError};
use resilience_health::shutdown::{Handler, HandlerOutcome};
use resilience_health::{CheckResult, CheckSpec, Status};

const DEFINITIONS: &str = r#"{
    "protocols": { "Reader": { "methods": { "read": "(size: int) -> bytes" } } },
    "types": {
        "File": { "methods": { "read": "(size: int) -> bytes" } },
        "Text": { "methods": { "read": "(size: int) -> str" } }
    }
}"#;

fn checker() -> Checker {
    let definitions: Definitions = serde_json::from_str(DEFINITIONS).unwrap();
    Checker::new(&definitions).unwrap()
}

fn on_manual_clock() -> (ToolchainBuilder, ManualClock) {
    let time = ManualClock::auto_advancing();
    (Toolchain::builder().clock(time.clock()), time)
}

fn count_records(toolchain: &Toolchain, event_type: &'static str, action: &'static str) -> usize {
    let records = toolchain.audit().query(Query::new().event_type(event_type).action(action)).unwrap();
    records.map(Result::unwrap).count()
}

#[test]
fn a_toolchain_can_be_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Toolchain>();
}

#[test]
fn the_protocol_guard_answers_and_counts_against_the_breaker_of_its_name() {
    let toolchain = Toolchain::builder().protocols(checker()).build().unwrap();
    let guard = toolchain.protocol().unwrap();
    assert!(guard.check_conformance("File", "Reader").unwrap().conforms());
    assert!(matches!(guard.check_conformance("Text", "Reader").unwrap(), Verdict::Violates(_)));

    let breaker = toolchain.policies().breaker(defaults::PROTOCOL_CHECK, |it| it).unwrap();
    breaker.force_open();
    let rejected = guard.check_conformance("File", "Reader").unwrap_err();
    assert!(rejected.as_rejection().is_some(), "{rejected}");
    assert_eq!(count_records(&toolchain, "circuit_breaker", "forced_open"), 1);
}

#[test]
fn protocol_check_opens_after_fifteen_internal_faults_for_a_minute_and_two_probes_close_it() {
    let (builder, time) = on_manual_clock();
    let toolchain = builder.protocols(checker()).build().unwrap();
    let breaker = toolchain.protocol().unwrap().breaker().clone();
    let fault = Outcome::Failure(Class::of(Category::Internal));
    let mistake = Outcome::Failure(Class::of(Category::Validation));
    for _ in 0..100 {
        breaker.try_acquire().unwrap().settle(&mistake);
    }
    for _ in 0..14 {
        breaker.try_acquire().unwrap().settle(&fault);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    breaker.try_acquire().unwrap().settle(&fault);
    assert_eq!(breaker.state(), BreakerState::Open);

    time.advance(Duration::from_secs(60) - Duration::from_nanos(1));
    assert!(breaker.try_acquire().is_err());
    time.advance(Duration::from_nanos(1));
    breaker.try_acquire().unwrap().settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.try_acquire().unwrap().settle(&Outcome::Success);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn fetch_package_makes_three_attempts_and_no_fourth() {
    let (builder, time) = on_manual_clock();
    let toolchain = builder.build().unwrap();
    let mut attempts = 0;
    let fetched = toolchain.recovery().call(defaults::FETCH_PACKAGE, |_| {
        attempts += 1;
        if attempts < 3 { Err(Error::from(ErrorKind::ConnectionReset)) } else { Ok("serde") }
    });
    assert_eq!(fetched.unwrap().how, How::Retried { attempts: 3 });
    let paused = time.elapsed();
    assert!((160..=240).contains(&paused.as_millis()), "two pauses of 100 ms, give or take 20 %: {paused:?}");

    attempts = 0;
    let failed = toolchain.recovery().call(defaults::FETCH_PACKAGE, |_| -> Result<(), Error> {
        attempts += 1;
        Err(Error::from(ErrorKind::ConnectionReset))
    });
    let Err(RecoveryError::Failed { error, alternative: None, .. }) = failed else { panic!("{failed:?}") };
    assert_eq!((attempts, error.attempts), (3, 3));

    let records = toolchain.audit().query(Query::new().event_type("recovery").resource("fetch_package")).unwrap();
    let outcomes: Vec<_> = records.map(|record| record.unwrap().status()).collect();
    assert_eq!(outcomes, [AuditStatus::Success, AuditStatus::Failure]);
}

#[test]
fn check_protocol_breaks_the_breaker_of_the_protocol_guard() {
    let (builder, _time) = on_manual_clock();
    let toolchain = builder.protocols(checker()).build().unwrap();
    let mut calls = 0;
    for _ in 0..20 {
        let result = toolchain.recovery().call(defaults::CHECK_PROTOCOL, |_| -> Result<(), Error> {
            calls += 1;
            Err(Error::other("the checker is broken"))
        });
        assert!(result.is_err());
    }
    assert_eq!(calls, 15, "an open breaker lets no call through");
    assert_eq!(toolchain.protocol().unwrap().breaker().state(), BreakerState::Open);
    assert_eq!(count_records(&toolchain, "circuit_breaker", "open"), 1);
    assert_eq!(count_records(&toolchain, "recovery", "circuit_break"), 20);
}

#[test]
fn lsp_operation_gives_a_lesser_answer_and_says_so() {
    let (builder, _time) = on_manual_clock();
    let toolchain = builder.build().unwrap();
    let completions = toolchain.recovery().call_or(
        defaults::LSP_OPERATION,
        |_| Err(Error::from(ErrorKind::TimedOut)),
        |_| Ok(vec!["a word of this file"]),
    );
    let completions = completions.unwrap();
    assert_eq!((completions.value, completions.how), (vec!["a word of this file"], How::Degraded));
    assert_eq!(count_records(&toolchain, "recovery", "graceful_degrade"), 1);
}

#[test]
fn a_handled_error_is_classified_counted_and_audited() {
    let toolchain = Toolchain::builder().build().unwrap();
    let refused = Error::from(ErrorKind::ConnectionRefused);
    let context = toolchain.handle_error("registry", "fetch serde", &refused);
    assert_eq!((context.class.category, context.class.severity), (Category::Network, Severity::High));
    toolchain.handle_error("lsp", "hover", &Error::from(ErrorKind::TimedOut));

    let errors = toolchain.policies().snapshot().errors;
    assert_eq!(errors.total, 2);
    assert_eq!((errors.by_category[&Category::Network], errors.by_category[&Category::Timeout]), (1, 1));
    assert_eq!((errors.by_severity[&Severity::High], errors.by_severity[&Severity::Medium]), (1, 1));

    let mut records = toolchain.audit().query(Query::new().event_type("error").resource("registry")).unwrap();
    let record = records.next().unwrap().unwrap();
    assert_eq!((record.action(), record.error_id()), ("fetch serde", Some(context.id)));
}

#[test]
fn policies_set_beforehand_replace_the_defaults_and_the_first_to_make_one_wins() {
    let toolchain = Toolchain::builder()
        .policies(|policies| policies.breaker(defaults::PROTOCOL_CHECK, |it| it.consecutive_failures(2)).map(drop))
        .policies(|policies| policies.breaker(defaults::PROTOCOL_CHECK, |it| it.consecutive_failures(9)).map(drop))
        .policies(|policies| policies.limiter("search", |it| it.rate(7, Duration::from_secs(1)).burst(7)).map(drop))
        .protocols(checker())
        .build()
        .unwrap();
    let breaker = toolchain.protocol().unwrap().breaker();
    for _ in 0..2 {
        breaker.try_acquire().unwrap().settle(&Outcome::Panicked);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(toolchain.policies().snapshot().limiters["search"].burst, 7);
}

#[test]
fn a_policy_that_cannot_be_made_refuses_the_build() {
    let built = Toolchain::builder()
        .policies(|policies| policies.breaker("search", |it| it.consecutive_failures(0)).map(drop))
        .build();
    insta::assert_snapshot!(built.unwrap_err(), @"`search.consecutive_failures` is 0; allowed: 1 to 4294967295");
}

#[test]
fn every_breaker_has_a_health_check_also_one_that_no_guard_uses() {
    let (builder, time) = on_manual_clock();
    let toolchain = builder
        .policies(|policies| policies.breaker("search", |it| it).map(drop))
        .check(CheckSpec::readiness("disk", || CheckResult::healthy("there is room")))
        .build()
        .unwrap();
    toolchain.health().tick();
    let snapshot = toolchain.health().snapshot();
    let names = ["breaker search", "breaker protocol_check", "disk"];
    for name in names {
        assert_eq!(snapshot.check(name).unwrap().status, Status::Healthy, "{name}");
    }

    toolchain.policies().breaker("search", |it| it).unwrap().force_open();
    time.advance(Duration::from_secs(12));
    toolchain.health().tick();
    assert_eq!(toolchain.health().status(), Status::Degraded);
    assert_eq!(count_records(&toolchain, "health", "degraded"), 1);
}

#[test]
fn a_check_named_twice_refuses_the_build() {
    let check = || CheckSpec::readiness("disk", || true);
    let built = Toolchain::builder().check(check()).check(check()).build();
    insta::assert_snapshot!(built.unwrap_err(), @"check `disk` is registered twice; names are unique");
}

#[test]
fn shutdown_runs_every_handler_the_audit_log_last_and_reports_how_each_went() {
    let toolchain = Toolchain::builder()
        .shutdown_handler(Handler::close("database", || Ok::<(), Error>(())))
        .shutdown_handler(Handler::close("telemetry", || -> Result<(), String> { panic!("a broken exporter") }))
        .shutdown_handler(Handler::close("sockets", || Err::<(), _>("still in use")))
        .shutdown_handler(Handler::flush("metrics", || Ok::<(), Error>(())))
        .build()
        .unwrap();
    assert!(toolchain.health().ready().pass, "nothing has failed yet");
    toolchain.shutdown().request("the end of the test");
    let report = toolchain.shutdown().run();

    let outcomes: Vec<_> = report
        .handlers
        .iter()
        .filter(|handler| handler.name != "language servers")
        .map(|handler| format!("{}: {}", handler.name, handler.outcome))
        .collect();
    insta::assert_snapshot!(outcomes.join("\n"), @r"
    sockets: failed: still in use
    telemetry: panicked: a broken exporter
    database: completed
    metrics: completed
    audit log: completed
    ");
    assert_eq!(report.exit_code(), 1);
    assert!(!toolchain.health().ready().pass);
    assert_eq!(report.handler("audit log").unwrap().outcome, HandlerOutcome::Completed);
    assert_eq!(count_records(&toolchain, "shutdown", "handler_finished"), report.handlers.len());
    assert_eq!(count_records(&toolchain, "shutdown", "phase_entered"), report.phases.len());
}

#[test]
fn an_observer_hears_what_the_audit_log_records() {
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    let toolchain = Toolchain::builder()
        .observer(Arc::new(move |event: &Event<'_>| {
            counter.fetch_add(usize::from(matches!(event, Event::BreakerStateChanged { .. })), Ordering::Relaxed);
        }))
        .build()
        .unwrap();
    toolchain.policies().breaker(defaults::PROTOCOL_CHECK, |it| it).unwrap().force_open();
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    assert_eq!(count_records(&toolchain, "circuit_breaker", "forced_open"), 1);
}

#[test]
fn an_audit_directory_that_cannot_be_opened_refuses_the_build_and_nothing_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "not a log").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let built = Toolchain::builder()
        .audit_path(&file)
        .policies(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .protocols(checker())
        .build();
    let message = built.unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(message, @"the audit log cannot be opened: FOLDER/a file is not an audit log: it is a file; allowed: a new path, an empty directory or the directory of a log");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "without the log nothing else is begun");
    assert_eq!(fs::read(&file).unwrap(), b"not a log");
}

#[test]
fn a_build_that_fails_later_closes_the_audit_log_so_that_the_next_one_can_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || Toolchain::builder().audit_path(folder.path().join("audit"));
    let check = || CheckSpec::readiness("disk", || true);
    assert!(builder().check(check()).check(check()).build().is_err());
    builder().build().expect("the log has no other writer");
}
