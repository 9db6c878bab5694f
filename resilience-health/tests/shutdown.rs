//! Shutdown through the public API: real handler threads, and a manual clock that moves when the test says.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use resilience_core::ManualClock;
use resilience_health::HealthMonitor;
use resilience_health::shutdown::{
    Budgets, Handler, HandlerOutcome, Phase, PhaseOutcome, Shutdown, ShutdownBuilder, ShutdownError, ShutdownEvent,
    ShutdownReport, SignalStep,
};

const SECOND: Duration = Duration::from_secs(1);

fn on(time: &ManualClock) -> ShutdownBuilder {
    Shutdown::builder().clock(time.clock())
}

fn run(shutdown: &Shutdown) -> JoinHandle<Arc<ShutdownReport>> {
    let shutdown = shutdown.clone();
    thread::spawn(move || shutdown.run())
}

/// Real time only bounds how long a broken test hangs.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never happened: {what}");
        thread::yield_now();
    }
}

fn ran(report: &ShutdownReport) -> Vec<&str> {
    report.handlers.iter().map(|handler| handler.name.as_str()).collect()
}

fn phase(report: &ShutdownReport, phase: Phase) -> (PhaseOutcome, Duration) {
    let found = report.phases.iter().find(|other| other.phase == phase).unwrap();
    (found.outcome, found.elapsed)
}

/// A handler that says when it has begun and hangs until the test drops the other end.
fn hanging(name: &str) -> (Receiver<()>, Sender<()>, Handler) {
    let (tell, begun) = channel();
    let (release, released) = channel::<()>();
    let handler = Handler::close(name, move || {
        let _ = tell.send(());
        let _ = released.recv();
    });
    (begun, release, handler)
}

// The original's defects.

#[test]
fn every_handler_runs_last_in_first_out_whatever_the_others_do() {
    let time = ManualClock::new();
    let order: Arc<Mutex<Vec<&str>>> = Arc::default();
    let note = |name: &'static str| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(name)
    };
    let (first, second, third, fourth) = (note("first"), note("second"), note("third"), note("fourth"));
    let shutdown = on(&time)
        .handler(Handler::close("first", first))
        .handler(Handler::close("second", move || -> Result<(), String> {
            second();
            Err("socket in use".into())
        }))
        .handler(Handler::close("third", move || -> Result<(), String> {
            third();
            panic!("lock poisoned");
        }))
        .handler(Handler::close("fourth", fourth))
        .build()
        .unwrap();
    shutdown.request("test");
    let report = shutdown.run();
    assert_eq!(*order.lock().unwrap(), ["fourth", "third", "second", "first"]);
    assert_eq!(ran(&report), ["fourth", "third", "second", "first"]);
    assert_eq!(report.handler("second").unwrap().outcome, HandlerOutcome::Failed("socket in use".to_owned()));
    assert_eq!(report.handler("third").unwrap().outcome, HandlerOutcome::Panicked("lock poisoned".to_owned()));
    assert_eq!((report.is_clean(), report.exit_code()), (false, 1));
}

#[test]
fn a_hanging_handler_is_left_behind_at_its_limit_and_reported_and_the_rest_still_run() {
    let time = ManualClock::new();
    let (begun, release, hangs) = hanging("hangs");
    let shutdown = on(&time)
        .handler(Handler::flush("audit", || ()))
        .handler(Handler::close("database", || ()))
        .handler(hangs.limit(2 * SECOND))
        .build()
        .unwrap();
    shutdown.request("test");
    let running = run(&shutdown);
    begun.recv().unwrap();
    time.advance(2 * SECOND);
    let report = running.join().unwrap();
    assert_eq!(ran(&report), ["hangs", "database", "audit"]);
    let handler = report.handler("hangs").unwrap();
    assert_eq!((&handler.outcome, handler.elapsed), (&HandlerOutcome::Abandoned, 2 * SECOND));
    insta::assert_snapshot!(report.to_string(), @r"
    shutdown by test: not clean, exit code 1, 2000.0 ms
      requested      0.0 ms  completed
      not_ready      0.0 ms  completed
      drain          0.0 ms  completed
      cancel         0.0 ms  completed
      close       2000.0 ms  completed
        hangs      2000.0 ms  abandoned at its time limit
        database      0.0 ms  completed
      flush          0.0 ms  completed
        audit         0.0 ms  completed
    ");
    drop(release);
}

// Phases.

#[test]
fn readiness_says_no_while_still_serving_then_draining_waits_for_what_is_in_flight() {
    let time = ManualClock::new();
    let monitor = HealthMonitor::builder().clock(time.clock()).build().unwrap();
    let shutdown = on(&time).budgets(Budgets::kubernetes()).monitor(&monitor).build().unwrap();
    let request = shutdown.track().unwrap();
    assert!(monitor.ready().pass);
    shutdown.request("rolling update");
    let running = run(&shutdown);
    eventually("readiness says no", || !monitor.ready().pass);
    assert!(monitor.live().pass);
    drop(shutdown.track().expect("still serving"));
    eventually("the phase is on", || shutdown.phase() == Some(Phase::NotReady));
    time.advance(5 * SECOND);
    shutdown.drain_token().wait();
    assert!(shutdown.track().is_none(), "nothing new");
    assert!(!shutdown.cancel_token().is_cancelled(), "what is in flight may finish");
    drop(request);
    let report = running.join().unwrap();
    assert_eq!(phase(&report, Phase::NotReady), (PhaseOutcome::Completed, 5 * SECOND));
    assert_eq!(phase(&report, Phase::Drain), (PhaseOutcome::Completed, Duration::ZERO));
    assert!(report.is_clean());
}

#[test]
fn what_does_not_finish_is_cancelled_and_what_ignores_that_is_counted() {
    let time = ManualClock::new();
    let shutdown = on(&time).build().unwrap();
    let (polite, stubborn) = (shutdown.track().unwrap(), shutdown.track().unwrap());
    shutdown.request("test");
    let running = run(&shutdown);
    shutdown.drain_token().wait();
    time.advance(10 * SECOND);
    shutdown.cancel_token().wait();
    drop(polite);
    time.advance(3 * SECOND);
    let report = running.join().unwrap();
    assert_eq!(phase(&report, Phase::Drain), (PhaseOutcome::BudgetSpent, 10 * SECOND));
    assert_eq!(phase(&report, Phase::Cancel), (PhaseOutcome::BudgetSpent, 3 * SECOND));
    assert_eq!((report.left_in_flight, report.exit_code()), (1, 1));
    drop(stubborn);
}

#[test]
fn requesting_again_changes_nothing_and_everyone_who_runs_it_gets_the_same_report() {
    let time = ManualClock::new();
    let shutdown = on(&time).build().unwrap();
    assert!(!shutdown.is_requested());
    assert!(shutdown.request("first"));
    assert!(!shutdown.request("second"));
    let reports: Vec<_> = (0..3).map(|_| run(&shutdown)).collect();
    for report in reports {
        assert_eq!(report.join().unwrap().reason.to_string(), "first");
    }
    assert_eq!(shutdown.run().reason.to_string(), "first");
}

// Signals, by hand.

#[test]
fn the_second_signal_goes_to_closing_with_little_time_and_the_third_says_exit() {
    let time = ManualClock::new();
    let (begun, release, hangs) = hanging("hangs");
    let shutdown =
        on(&time).handler(Handler::flush("audit", || ())).handler(Handler::close("db", || ())).handler(hangs).build();
    let shutdown = shutdown.unwrap();
    let request = shutdown.track().unwrap();
    let running = run(&shutdown);
    assert_eq!(shutdown.signal(15), SignalStep::Requested);
    shutdown.drain_token().wait();
    assert_eq!(shutdown.signal(15), SignalStep::Escalated);
    begun.recv().unwrap();
    assert!(shutdown.cancel_token().is_cancelled(), "no phase is left out, however short");
    time.advance(SECOND); // what is left of closing
    let report = running.join().unwrap();
    assert_eq!(ran(&report), ["hangs", "db", "audit"]);
    assert_eq!(report.handler("hangs").unwrap().outcome, HandlerOutcome::Abandoned);
    assert_eq!(report.handler("db").unwrap().outcome, HandlerOutcome::Completed);
    assert!(report.escalated && report.left_in_flight == 1);
    assert_eq!(shutdown.signal(2), SignalStep::ExitNow(130));
    assert_eq!(shutdown.signal(15), SignalStep::ExitNow(143));
    drop((request, release));
}

// Handlers registered late, listeners.

#[test]
fn handlers_register_while_the_program_runs_and_not_when_it_ends() {
    let time = ManualClock::new();
    let shutdown = on(&time).handler(Handler::close("database", || ())).build().unwrap();
    shutdown.register(Handler::close("server", || ()).depends_on(["database"])).unwrap();
    let error = shutdown.register(Handler::close("server", || ())).unwrap_err();
    assert_eq!(error, ShutdownError::DuplicateHandler { name: "server".to_owned() });
    let error = shutdown.register(Handler::close("cache", || ()).limit(5 * SECOND)).unwrap_err();
    assert!(error.to_string().starts_with("the limits of the `close` handlers (cache 5s) add up to 5s"), "{error}");
    shutdown.request("test");
    let error = shutdown.register(Handler::close("late", || ())).unwrap_err();
    assert_eq!(error, ShutdownError::AlreadyRequested { name: "late".to_owned() });
    assert_eq!(ran(&shutdown.run()), ["server", "database"], "the refused ones left nothing behind");
}

#[test]
fn a_listener_hears_every_phase_and_every_handler_in_order_and_its_panic_stops_nothing() {
    let time = ManualClock::new();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heard);
    let shutdown = on(&time)
        .handler(Handler::close("database", || ()))
        .handler(Handler::flush("audit", || ()))
        .on_event(|_| panic!("a broken listener"))
        .on_event(move |event| {
            log.lock().unwrap().push(match event {
                ShutdownEvent::PhaseEntered { phase, reason } => format!("{phase} by {reason}"),
                ShutdownEvent::HandlerFinished(report) => format!("{} {}", report.name, report.outcome),
                _ => unreachable!("a new kind of event"),
            });
        })
        .build()
        .unwrap();
    shutdown.signal(15);
    shutdown.run();
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "not_ready by signal 15 (SIGTERM)",
            "drain by signal 15 (SIGTERM)",
            "cancel by signal 15 (SIGTERM)",
            "close by signal 15 (SIGTERM)",
            "database completed",
            "flush by signal 15 (SIGTERM)",
            "audit completed",
            "exit by signal 15 (SIGTERM)",
        ]
    );
}

#[test]
fn budgets_that_cannot_be_used_are_refused() {
    let refused = |budgets: Budgets| Shutdown::builder().budgets(budgets).build().unwrap_err().to_string();
    assert_eq!(
        refused(Budgets::default().close(Duration::ZERO)),
        "`close` is 0ns; allowed: more than 0, at most a day"
    );
    assert_eq!(
        refused(Budgets::default().escalated_close(6 * SECOND)),
        "`escalated_close` is 6s; allowed: at most close = 5s: a second signal shortens"
    );
    assert!(refused(Budgets::default().grace_period(SECOND)).starts_with("`grace_period` is 1s; allowed: at least"));
    let zero = Shutdown::builder().handler(Handler::close("db", || ()).limit(Duration::ZERO)).build().unwrap_err();
    assert_eq!(zero.to_string(), "`db.limit` is 0ns; allowed: more than 0");
}
