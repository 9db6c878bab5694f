//! The monitor with real threads and a manual clock: checks that hang are held in channels, time moves when the test says.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience_core::{Clock, ManualClock};
use resilience_health::{
    CheckResult, CheckSpec, HealthMonitor, LocalCheck, MonitorBuilder, Snapshot, StartError, Status, local,
};

const SECOND: Duration = Duration::from_secs(1);

fn on(time: &ManualClock) -> MonitorBuilder {
    HealthMonitor::builder().clock(time.clock())
}

fn every_second(spec: CheckSpec) -> CheckSpec {
    spec.interval(SECOND).timeout(SECOND / 2).jitter(0.0).fail_after(1).recover_after(1)
}

/// Real time only bounds how long a broken test hangs; what is waited for comes as soon as threads get to it.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never happened: {what}");
        std::thread::yield_now();
    }
}

fn check_is(monitor: &HealthMonitor, name: &str, status: Status) -> bool {
    monitor.snapshot().check(name).unwrap().status == status
}

/// A check that says when it has begun and hangs until it is let go.
struct Hanging {
    begun: Receiver<()>,
    release: Sender<()>,
}

fn hanging() -> (Hanging, impl LocalCheck + 'static) {
    let (tell, begun) = channel();
    let (release, released) = channel();
    let shared = Mutex::new((tell, released));
    let check = local(move || {
        let shared = shared.lock().unwrap();
        let _ = shared.0.send(());
        // An error means that the test is over: then it returns too, so that no thread outlives the test.
        let _ = shared.1.recv();
    });
    (Hanging { begun, release }, check)
}

#[test]
fn a_hanging_check_fails_at_its_time_limit_and_no_probe_waits_for_it() {
    let time = ManualClock::new();
    let (hang, check) = hanging();
    let monitor = on(&time)
        .workers(1)
        .check(every_second(CheckSpec::liveness("hangs", check)))
        .check(every_second(CheckSpec::readiness("fine", || ())))
        .build()
        .unwrap();
    let background = monitor.start().unwrap();
    hang.begun.recv().unwrap();
    // It hangs right now, in the only worker; reading is reading.
    assert!(monitor.live().pass && check_is(&monitor, "hangs", Status::Unknown));

    time.advance(SECOND / 2);
    eventually("the hanging check has failed", || check_is(&monitor, "hangs", Status::Unhealthy));
    eventually("a spare worker runs the other check", || check_is(&monitor, "fine", Status::Healthy));
    let snapshot = monitor.snapshot();
    assert!(!snapshot.live.pass && snapshot.check("hangs").unwrap().stuck && snapshot.stuck == 1);
    assert_eq!(&*snapshot.check("hangs").unwrap().message, "timed out: no answer within 500ms");
    drop(background);
}

#[test]
fn a_hanging_check_is_out_once_keeps_failing_and_is_asked_again_when_it_returns() {
    let time = ManualClock::new();
    let (hang, check) = hanging();
    let monitor = on(&time).check(every_second(CheckSpec::readiness("hangs", check)).fail_after(3)).build().unwrap();
    let background = monitor.start().unwrap();
    hang.begun.recv().unwrap();
    for seconds in 1..=10 {
        time.advance(SECOND);
        let failures = seconds;
        eventually("the interval is counted", || {
            monitor.tick(); // publishes what only counts up; by itself that may lag a little
            monitor.snapshot().check("hangs").unwrap().consecutive_failures == failures
        });
        assert!(hang.begun.try_recv().is_err(), "started a second time while it hangs");
    }
    assert!(check_is(&monitor, "hangs", Status::Unhealthy), "hanging counts towards the threshold like failing");

    hang.release.send(()).unwrap();
    hang.begun.recv().unwrap(); // asked again at once; its late answer was not used
    assert!(!check_is(&monitor, "hangs", Status::Healthy));
    hang.release.send(()).unwrap();
    eventually("the fresh answer counts", || check_is(&monitor, "hangs", Status::Healthy));
    assert_eq!(monitor.snapshot().stuck, 0);
    drop(background);
}

#[test]
fn when_every_worker_hangs_the_rest_becomes_unknown_and_not_fine() {
    let time = ManualClock::new();
    let (first, one) = hanging();
    let (second, two) = hanging();
    let monitor = on(&time)
        .workers(1)
        .spare_workers(1)
        .check(every_second(CheckSpec::readiness("starved", || ())))
        .check(every_second(CheckSpec::readiness("one", one)))
        .check(every_second(CheckSpec::readiness("two", two)))
        .build()
        .unwrap();
    let background = monitor.start().unwrap();
    eventually("the good check has run", || check_is(&monitor, "starved", Status::Healthy));
    first.begun.recv().unwrap();
    time.advance(SECOND / 2);
    second.begun.recv().unwrap(); // on the one spare worker
    for _ in 0..10 {
        time.advance(SECOND);
        monitor.tick();
    }
    assert!(check_is(&monitor, "starved", Status::Unknown));
    assert_eq!(monitor.snapshot().stuck, 2);

    first.release.send(()).unwrap();
    eventually("a worker that comes back is used", || check_is(&monitor, "starved", Status::Healthy));
    drop((background, second.release));
}

#[test]
fn a_changed_status_is_published_without_anyone_ticking() {
    let time = ManualClock::new();
    let heard: Arc<Mutex<Vec<Status>>> = Arc::default();
    let log = Arc::clone(&heard);
    let answer = Arc::new(Mutex::new(CheckResult::healthy("up")));
    let source = Arc::clone(&answer);
    let monitor = on(&time)
        .check(every_second(CheckSpec::readiness("db", move || source.lock().unwrap().clone())))
        .on_transition(move |change| log.lock().unwrap().push(change.to))
        .build()
        .unwrap();
    let background = monitor.start().unwrap();
    eventually("the first result is there", || check_is(&monitor, "db", Status::Healthy));
    *answer.lock().unwrap() = CheckResult::unhealthy("down");
    time.advance(SECOND);
    eventually("the failure is there", || check_is(&monitor, "db", Status::Unhealthy));
    eventually("the listener has heard both", || *heard.lock().unwrap() == [Status::Healthy, Status::Unhealthy]);
    drop(background);
}

#[test]
fn it_starts_once_stops_when_dropped_and_starts_again() {
    let (clock, time) = Clock::manual();
    let (ran, runs) = channel();
    let monitor = HealthMonitor::builder()
        .clock(clock)
        .check(every_second(CheckSpec::readiness("counted", move || {
            let _ = ran.send(());
        })))
        .build()
        .unwrap();
    let background = monitor.start().unwrap();
    assert!(matches!(monitor.start(), Err(StartError::AlreadyStarted)));
    runs.recv().unwrap();
    eventually("the run is accounted for", || check_is(&monitor, "counted", Status::Healthy));
    drop(background);
    time.advance(3600 * SECOND);
    assert!(runs.try_recv().is_err());
    assert_eq!(monitor.status(), Status::Degraded, "stopped means unknown, not fine");
    let background = monitor.start().unwrap();
    runs.recv().unwrap();
    eventually("it is healthy again", || monitor.status() == Status::Healthy);
    drop(background);
}

#[test]
fn on_the_system_clock_checks_run_by_themselves() {
    let (ran, runs) = channel();
    let spec = CheckSpec::readiness("counted", move || {
        let _ = ran.send(());
    });
    let monitor = HealthMonitor::builder().check(spec.interval(Duration::from_millis(1))).build().unwrap();
    let background = monitor.start().unwrap();
    for _ in 0..20 {
        runs.recv().unwrap();
    }
    eventually("a snapshot shows it", || Snapshot::clone(&monitor.snapshot()).status == Status::Healthy);
    drop(background);
}
