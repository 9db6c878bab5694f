//! The monitor through its public API, stepped on a manual clock: every result is reproducible.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience_core::{CircuitBreaker, Clock, ManualClock};
use resilience_health::{
    BreakerCheck, CheckResult, CheckSpec, Criticality, HealthMonitor, History, LookupError, MonitorBuilder, OnOpen,
    Scope, Status, local,
};

const SECOND: Duration = Duration::from_secs(1);

fn on(time: &ManualClock) -> MonitorBuilder {
    HealthMonitor::builder().clock(time.clock())
}

/// A check whose result is set by the test.
#[derive(Clone, Default)]
struct Dial(Arc<Mutex<Option<CheckResult>>>);

impl Dial {
    fn set(&self, result: CheckResult) {
        *self.0.lock().unwrap() = Some(result);
    }

    fn check(&self) -> impl Fn() -> CheckResult + Send + Sync + 'static {
        let dial = self.clone();
        move || dial.0.lock().unwrap().clone().unwrap_or_else(|| CheckResult::healthy("ok"))
    }
}

/// Changes status at the first differing result.
fn at_once(spec: CheckSpec) -> CheckSpec {
    spec.interval(SECOND).jitter(0.0).fail_after(1).recover_after(1)
}

fn step(monitor: &HealthMonitor, time: &ManualClock) {
    time.advance(SECOND);
    monitor.tick();
}

fn names(causes: &[resilience_health::Cause]) -> Vec<&str> {
    causes.iter().map(|cause| &*cause.check).collect()
}

// The original's defects.

#[test]
fn a_summary_runs_no_check() {
    let time = ManualClock::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let monitor = on(&time)
        .check(CheckSpec::readiness("counted", move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }))
        .build()
        .unwrap();
    monitor.tick();
    for _ in 0..10 {
        let _ = (monitor.summary().to_string(), monitor.snapshot(), monitor.live(), monitor.ready(), monitor.status());
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1, "one tick, one run, whoever reads");
}

#[test]
fn a_check_that_returns_an_error_reaches_history() {
    let time = ManualClock::new();
    let monitor = on(&time).check(CheckSpec::readiness("disk", || Err::<(), _>("no space left"))).build().unwrap();
    monitor.tick();
    let history = monitor.history("disk", 10).unwrap();
    assert_eq!(history.samples.len(), 1);
    assert_eq!((history.samples[0].status, &*history.samples[0].message), (Status::Unhealthy, "no space left"));
    assert_eq!((history.transitions[0].from, history.transitions[0].to), (Status::Unknown, Status::Unhealthy));
}

#[test]
fn a_check_that_panics_reaches_history_with_its_message_and_the_next_one_still_runs() {
    let time = ManualClock::new();
    let monitor = on(&time)
        .check(CheckSpec::readiness("bad", || -> CheckResult { panic!("index {} out of range", 7) }))
        .check(CheckSpec::readiness("good", || ()))
        .build()
        .unwrap();
    assert_eq!(monitor.tick().ran, 2);
    let history = monitor.history("bad", 10).unwrap();
    assert_eq!(&*history.samples[0].message, "panicked: index 7 out of range");
    assert_eq!(history.samples[0].status, Status::Unhealthy);
    assert_eq!(monitor.snapshot().check("good").unwrap().status, Status::Healthy);
}

#[test]
fn histories_stay_within_their_bounds() {
    let time = ManualClock::new();
    let dial = Dial::default();
    let monitor = on(&time).check(at_once(CheckSpec::readiness("flip", dial.check())).remember(5, 3)).build().unwrap();
    for n in 0..100 {
        dial.set(if n % 2 == 0 { CheckResult::unhealthy("down") } else { CheckResult::healthy("up") });
        step(&monitor, &time);
    }
    let History { samples, transitions, .. } = monitor.history("flip", usize::MAX).unwrap();
    assert_eq!((samples.len(), transitions.len()), (5, 3));
    assert_eq!(monitor.history("flip", 2).unwrap().samples, samples[3..], "the newest, oldest first");
}

// What is asked of probes: the table.

/// One check of every sort, all healthy until the test says otherwise.
struct Table {
    time: ManualClock,
    monitor: HealthMonitor,
    dials: Vec<(&'static str, Dial)>,
}

impl Table {
    fn new() -> Self {
        let time = ManualClock::new();
        let dials: Vec<(&'static str, Dial)> = ["local", "own", "shared", "gating", "important", "informational"]
            .map(|name| (name, Dial::default()))
            .to_vec();
        let dial = |name| dials.iter().find(|(other, _)| *other == name).unwrap().1.check();
        let critical = |name| CheckSpec::readiness(name, dial(name)).criticality(Criticality::Critical);
        let monitor = on(&time)
            .check(at_once(CheckSpec::liveness("local", local(dial("local")))))
            .check(at_once(critical("own").scope(Scope::Exclusive)))
            .check(at_once(critical("shared").scope(Scope::Shared)))
            .check(at_once(critical("gating").scope(Scope::Shared).gates_readiness(true)))
            .check(at_once(CheckSpec::readiness("important", dial("important"))))
            .check(at_once(
                CheckSpec::readiness("informational", dial("informational")).criticality(Criticality::Informational),
            ))
            .build()
            .unwrap();
        monitor.tick();
        Self { time, monitor, dials }
    }

    /// Live, ready, overall when only this check has this result.
    fn when(&self, name: &str, result: &CheckResult) -> (bool, bool, Status) {
        for (other, dial) in &self.dials {
            dial.set(if *other == name { result.clone() } else { CheckResult::healthy("ok") });
        }
        step(&self.monitor, &self.time);
        let snapshot = self.monitor.snapshot();
        (snapshot.live.pass, snapshot.ready.pass, snapshot.status)
    }
}

#[test]
fn a_failing_check_answers_each_probe_as_the_table_says() {
    let table = Table::new();
    let fails = |name| table.when(name, &CheckResult::unhealthy("down"));
    assert_eq!(fails("nothing"), (true, true, Status::Healthy));
    assert_eq!(fails("local"), (false, false, Status::Unhealthy));
    assert_eq!(fails("own"), (true, false, Status::Unhealthy));
    assert_eq!(fails("shared"), (true, true, Status::Unhealthy), "every replica leaving would be an outage");
    assert_eq!(fails("gating"), (true, false, Status::Unhealthy), "unless that was asked for");
    assert_eq!(fails("important"), (true, true, Status::Degraded));
    assert_eq!(fails("informational"), (true, true, Status::Healthy));
    assert_eq!(names(&table.monitor.snapshot().notes), ["informational"], "healthy, with a note");
    let degrades = |name| table.when(name, &CheckResult::degraded("slow"));
    assert_eq!(degrades("local"), (true, true, Status::Degraded));
    assert_eq!(degrades("own"), (true, true, Status::Degraded));
}

#[test]
fn nothing_known_is_never_fine() {
    let time = ManualClock::new();
    let empty = on(&time).build().unwrap();
    assert_eq!(empty.status(), Status::Unknown, "nobody looks");
    let critical = CheckSpec::readiness("own", || ()).criticality(Criticality::Critical);
    let monitor = on(&time).check(critical).build().unwrap();
    let snapshot = monitor.snapshot();
    assert_eq!((snapshot.live.pass, snapshot.ready.pass, snapshot.status), (true, false, Status::Degraded));
    assert_eq!(&*snapshot.ready.causes[0].message, "no result yet");
}

#[test]
fn old_results_become_unknown_even_when_nobody_ticks_any_more() {
    let table = Table::new();
    assert_eq!(table.when("nothing", &CheckResult::healthy("ok")), (true, true, Status::Healthy));
    table.time.advance(Duration::from_secs(3600)); // the scheduler is gone: no tick
    let snapshot = table.monitor.snapshot();
    assert_eq!((snapshot.live.pass, snapshot.ready.pass, snapshot.status), (true, false, Status::Degraded));
    let check = snapshot.check("own").unwrap();
    assert_eq!((check.status, &*check.message), (Status::Unknown, "no result for 5s; the last one was healthy: ok"));
}

#[test]
fn draining_takes_readiness_and_nothing_else() {
    let table = Table::new();
    table.monitor.set_draining(true);
    let snapshot = table.monitor.snapshot();
    assert_eq!((snapshot.live.pass, snapshot.ready.pass, snapshot.status), (true, false, Status::Healthy));
    assert!(snapshot.draining);
    assert_eq!(names(&snapshot.ready.causes), ["draining"]);
    table.monitor.set_draining(false);
    assert!(table.monitor.ready().pass);
}

#[test]
fn a_failure_is_reported_by_its_root_cause() {
    let time = ManualClock::new();
    let dns = Dial::default();
    let down = || Err::<(), _>("connection refused");
    let critical = |spec: CheckSpec| at_once(spec.criticality(Criticality::Critical));
    let monitor = on(&time)
        .check(critical(CheckSpec::readiness("registry", down).depends_on(["http"])))
        .check(critical(CheckSpec::readiness("http", down).depends_on(["dns"])))
        .check(at_once(CheckSpec::readiness("dns", dns.check())).runbook("dns-down"))
        .build()
        .unwrap();
    dns.set(CheckResult::unhealthy("no answer"));
    monitor.tick();
    let snapshot = monitor.snapshot();
    assert_eq!(names(&snapshot.causes), ["dns"]);
    assert_eq!(snapshot.causes[0].explains.iter().map(|name| &**name).collect::<Vec<_>>(), ["registry", "http"]);
    assert_eq!(snapshot.causes[0].runbook.as_deref(), Some("dns-down"));
    assert_eq!(&*snapshot.check("registry").unwrap().root_causes[0], "dns");

    dns.set(CheckResult::healthy("answers"));
    step(&monitor, &time);
    assert_eq!(names(&monitor.snapshot().causes), ["http"], "with dns back, http itself is the cause");
}

// Startup, push, trigger, listeners.

#[test]
fn a_startup_check_runs_until_it_has_passed_and_never_again() {
    let time = ManualClock::new();
    let dial = Dial::default();
    let runs = Arc::new(AtomicUsize::new(0));
    let (counter, check) = (Arc::clone(&runs), dial.check());
    let monitor = on(&time)
        .check(at_once(CheckSpec::startup("migrations", move || {
            counter.fetch_add(1, Ordering::SeqCst);
            check()
        })))
        .build()
        .unwrap();
    dial.set(CheckResult::unhealthy("3 of 9"));
    monitor.tick();
    assert_eq!((monitor.started().pass, monitor.ready().pass, monitor.live().pass), (false, false, true));
    dial.set(CheckResult::healthy("9 of 9"));
    step(&monitor, &time);
    assert_eq!((monitor.started().pass, monitor.ready().pass), (true, true));
    dial.set(CheckResult::unhealthy("never seen"));
    time.advance(Duration::from_secs(86_400));
    assert_eq!(monitor.tick().ran, 0);
    assert_eq!((runs.load(Ordering::SeqCst), monitor.started().pass, monitor.status()), (2, true, Status::Healthy));
}

#[test]
fn a_pushed_status_counts_at_once_and_lives_as_long_as_it_may() {
    let time = ManualClock::new();
    let monitor = on(&time).check(CheckSpec::pushed("importer", 30 * SECOND)).build().unwrap();
    monitor.push("importer", CheckResult::unhealthy("feed is empty")).unwrap();
    assert_eq!(monitor.status(), Status::Degraded);
    monitor.push("importer", CheckResult::healthy("412 rows")).unwrap();
    assert_eq!(monitor.status(), Status::Healthy);
    time.advance(30 * SECOND);
    monitor.tick();
    assert_eq!(monitor.snapshot().check("importer").unwrap().status, Status::Unknown);
    let last = monitor.history("importer", 1).unwrap().transitions.remove(0);
    assert_eq!((last.from, last.to), (Status::Healthy, Status::Unknown));
}

#[test]
fn a_triggered_check_runs_at_the_next_tick() {
    let time = ManualClock::new();
    let monitor = on(&time).check(CheckSpec::readiness("slow", || ()).interval(600 * SECOND)).build().unwrap();
    assert_eq!((monitor.tick().ran, monitor.tick().ran), (1, 0));
    monitor.trigger("slow").unwrap();
    assert_eq!(monitor.tick().ran, 1);
}

#[test]
fn names_that_do_not_exist_are_answered_with_those_that_do() {
    let time = ManualClock::new();
    let monitor =
        on(&time).check(CheckSpec::readiness("a", || ())).check(CheckSpec::pushed("b", SECOND)).build().unwrap();
    assert_eq!(monitor.history("c", 1).unwrap_err().to_string(), "no check is named `c`; registered are: a, b");
    let error = monitor.push("a", CheckResult::healthy("")).unwrap_err();
    assert_eq!(error, LookupError::NotPushed { name: "a".to_owned() });
    assert_eq!(monitor.trigger("b").unwrap_err(), LookupError::NotRun { name: "b".to_owned() });
}

#[test]
fn listeners_hear_every_change_in_order_and_may_call_the_monitor() {
    let time = ManualClock::new();
    let dial = Dial::default();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let monitor_slot: Arc<Mutex<Option<HealthMonitor>>> = Arc::default();
    let (log, slot) = (Arc::clone(&heard), Arc::clone(&monitor_slot));
    let monitor = on(&time)
        .check(at_once(CheckSpec::readiness("db", dial.check())))
        .check(CheckSpec::pushed("echo", SECOND))
        .on_transition(|_| panic!("a broken listener"))
        .on_transition(move |change| {
            if &*change.check == "db" {
                // Pushing from inside a listener must neither deadlock nor jump the queue.
                let monitor = slot.lock().unwrap().clone().unwrap();
                monitor.push("echo", CheckResult::new(change.to, "echo")).unwrap();
            }
            log.lock().unwrap().push(format!("{} {} -> {}", change.check, change.from, change.to));
        })
        .build()
        .unwrap();
    *monitor_slot.lock().unwrap() = Some(monitor.clone());
    monitor.tick();
    dial.set(CheckResult::unhealthy("gone"));
    step(&monitor, &time);
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "db unknown -> healthy",
            "echo unknown -> healthy",
            "echo healthy -> unknown", // its second of life is over before db is checked again
            "db healthy -> unhealthy",
            "echo unknown -> unhealthy",
        ]
    );
    monitor_slot.lock().unwrap().take();
}

// Time limits, as far as they can be seen without a second thread.

#[test]
fn a_run_that_takes_its_time_limit_has_failed_whatever_it_says() {
    let time = ManualClock::new();
    let slow = time.clone();
    let monitor = on(&time)
        .check(at_once(CheckSpec::readiness("slow", move || slow.advance(3 * SECOND))).timeout(2 * SECOND))
        .build()
        .unwrap();
    monitor.tick();
    let check = monitor.snapshot().check("slow").unwrap().clone();
    assert_eq!(check.status, Status::Unhealthy);
    assert_eq!(&*check.message, "timed out: took 3s, the limit is 2s; it then said healthy: ok");
    assert_eq!(check.response_time, Some(3 * SECOND));
}

#[test]
fn a_check_is_never_late_and_early_only_by_its_jitter() {
    let time = ManualClock::new();
    let clock = time.clock();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&runs);
    let spec = CheckSpec::readiness("jittered", move || log.lock().unwrap().push(clock.now()))
        .interval(10 * SECOND)
        .jitter(0.1);
    let monitor = on(&time).check(spec).build().unwrap();
    for _ in 0..1000 {
        let next = monitor.tick().next.unwrap();
        time.advance_to(next);
    }
    let runs = runs.lock().unwrap();
    let gaps: Vec<Duration> = runs.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).collect();
    assert!(gaps.len() > 900);
    assert!(gaps.iter().all(|gap| (Duration::from_millis(8_980)..=10 * SECOND).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().max() > gaps.iter().min(), "it does spread");
}

#[test]
fn without_jitter_a_check_is_not_early_and_with_it_neighbours_start_together() {
    let time = ManualClock::new();
    let monitor = on(&time)
        .check(CheckSpec::readiness("exact", || ()).interval(SECOND).jitter(0.0))
        .check(CheckSpec::readiness("loose", || ()).interval(100 * SECOND).jitter(0.1))
        .build()
        .unwrap();
    assert_eq!(monitor.tick().ran, 2);
    time.advance(Duration::from_millis(999));
    assert_eq!(monitor.tick().ran, 0);
    time.advance(Duration::from_millis(1));
    assert_eq!(monitor.tick().ran, 1);

    // Two that are due 10 ms apart need one wake-up.
    let monitor = on(&time)
        .check(CheckSpec::readiness("one", || ()).interval(SECOND).jitter(0.0))
        .check(CheckSpec::readiness("two", || ()).interval(SECOND + Duration::from_millis(10)).jitter(0.01))
        .build()
        .unwrap();
    monitor.tick();
    time.advance(SECOND);
    assert_eq!(monitor.tick().ran, 2);
}

// Built-in checks.

#[test]
fn an_open_breaker_means_what_on_open_says_and_the_message_says_why() {
    let (clock, time) = Clock::manual();
    let breaker =
        CircuitBreaker::builder("registry_fetch").consecutive_failures(1).clock(clock.clone()).build().unwrap();
    let of = |on_open| BreakerCheck::new(breaker.clone()).on_open(on_open);
    let monitor = on(&time)
        .check(at_once(CheckSpec::readiness("default", BreakerCheck::new(breaker.clone()))))
        .check(at_once(CheckSpec::readiness("ignore", of(OnOpen::Ignore))))
        .check(at_once(CheckSpec::readiness("fail", of(OnOpen::Fail))))
        .build()
        .unwrap();
    let status = |name| monitor.snapshot().check(name).unwrap().status;
    monitor.tick();
    assert_eq!([status("default"), status("ignore"), status("fail")], [Status::Healthy; 3]);
    breaker.call(|| Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))).unwrap_err();
    step(&monitor, &time);
    assert_eq!(
        [status("default"), status("ignore"), status("fail")],
        [Status::Degraded, Status::Healthy, Status::Unhealthy]
    );
    insta::assert_snapshot!(monitor.summary().to_string(), @r"
    degraded   live yes   ready yes   started yes
      default  degraded       0.0 ms  breaker `registry_fetch` is open: calls are rejected; on_open says degrade
      ignore   healthy        0.0 ms  breaker `registry_fetch` is open: ignored by on_open
      fail     unhealthy      0.0 ms  breaker `registry_fetch` is open: calls are rejected; on_open says fail
    ");
    for lets_all_through in [CircuitBreaker::disable, CircuitBreaker::metrics_only] {
        lets_all_through(&breaker);
        step(&monitor, &time);
        assert_eq!([status("default"), status("ignore"), status("fail")], [Status::Healthy; 3]);
    }
}

#[test]
fn a_tcp_check_tells_a_listening_port_from_a_closed_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let time = ManualClock::new();
    let monitor = on(&time)
        .check(at_once(CheckSpec::readiness("port", resilience_health::TcpConnect::new(address.to_string()))))
        .check(at_once(CheckSpec::readiness("nowhere", resilience_health::TcpConnect::new("no-port-given"))))
        .build()
        .unwrap();
    monitor.tick();
    assert_eq!(&*monitor.snapshot().check("port").unwrap().message, format!("connected to {address}"));
    assert_eq!(monitor.snapshot().check("nowhere").unwrap().status, Status::Unhealthy);
    drop(listener);
    step(&monitor, &time);
    let check = monitor.snapshot().check("port").unwrap().clone();
    assert_eq!(check.status, Status::Unhealthy);
    assert!(check.message.starts_with(&format!("cannot connect to {address}: ")), "{}", check.message);
}

// Mistakes in configuration.

#[test]
fn what_cannot_be_used_is_refused_with_the_names() {
    let check = |name: &str| CheckSpec::readiness(name, || ());
    let refused = |builder: MonitorBuilder| builder.build().unwrap_err().to_string();
    let one = |spec: CheckSpec| refused(HealthMonitor::builder().check(spec));
    insta::assert_snapshot!([
        refused(HealthMonitor::builder().check(check("db")).check(check("db"))),
        refused(HealthMonitor::builder().check(check("db")).check(check("api").depends_on(["cache"]))),
        refused(HealthMonitor::builder().check(check("a").depends_on(["b"])).check(check("b").depends_on(["a"]))),
        one(check("db").interval(Duration::ZERO)),
        one(check("db").timeout(Duration::ZERO)),
        one(check("db").max_age(SECOND)),
        one(check("db").fail_after(0)),
        one(check("db").jitter(f64::NAN)),
        one(check("db").remember(0, 1)),
        one(check("")),
        one(CheckSpec::liveness("loop", local(|| ())).scope(Scope::Shared)),
        one(CheckSpec::liveness("loop", local(|| ())).criticality(Criticality::Informational)),
        one(CheckSpec::pushed("feed", Duration::ZERO)),
        refused(HealthMonitor::builder().workers(0)),
    ].join("\n"), @r#"
    check `db` is registered twice; names are unique
    check `api` depends on `cache`, which is not registered; registered are: db, api
    checks depend on each other in a circle: a -> b -> a
    `db.interval` is 0ns; allowed: more than 0, at most a year
    `db.timeout` is 0ns; allowed: more than 0, at most a year
    `db.max_age` is 1s; allowed: at least interval + timeout = 12s, or a good result is too old before the next
    `db.fail_after` is 0; allowed: 1 to 4294967295
    `db.jitter` is NaN; allowed: 0 to 0.5
    `db.samples` is 0; allowed: 1 to 4096
    `check name` is ""; allowed: 1 to 128 bytes, no control characters
    `loop.scope` is Shared, depending on []; allowed: Local without dependencies (liveness looks inside)
    `loop.criticality` is Informational; allowed: Critical (liveness means: restart me)
    `feed.max_age` is 0ns; allowed: more than 0, at most a year
    `workers` is 0; allowed: 1 to 256
    "#);
}

#[cfg(feature = "serde")]
#[test]
fn a_snapshot_serialises_for_machines() {
    let time = ManualClock::new();
    let slow = time.clone();
    let monitor = on(&time)
        .check(at_once(CheckSpec::readiness("db", move || {
            slow.advance(Duration::from_millis(12));
            CheckResult::degraded("replica lags").sub_check("primary", Status::Healthy, "ok").detail("lag_seconds", 41)
        })))
        .build()
        .unwrap();
    monitor.tick();
    insta::assert_json_snapshot!(&*monitor.snapshot(), @r#"
    {
      "status": "degraded",
      "live": {
        "pass": true,
        "causes": []
      },
      "ready": {
        "pass": true,
        "causes": []
      },
      "started": {
        "pass": true,
        "causes": []
      },
      "draining": false,
      "causes": [
        {
          "check": "db",
          "status": "degraded",
          "message": "replica lags",
          "runbook": null,
          "explains": []
        }
      ],
      "notes": [],
      "stuck": 0,
      "at_unix_ms": 1767225600012,
      "checks": [
        {
          "name": "db",
          "kind": "readiness",
          "criticality": "important",
          "scope": "exclusive",
          "status": "degraded",
          "message": "replica lags",
          "result": {
            "status": "degraded",
            "message": "replica lags",
            "sub_checks": [
              {
                "name": "primary",
                "status": "healthy",
                "message": "ok"
              }
            ],
            "details": {
              "lag_seconds": "41"
            }
          },
          "response_time_ms": 12.0,
          "checked_at_unix_ms": 1767225600012,
          "consecutive_failures": 0,
          "stuck": false,
          "root_causes": [],
          "runbook": null,
          "gates_readiness": false
        }
      ]
    }
    "#);
}
