//! The durable log on real files, through the public API.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use resilience_audit::{
    AppendError, AuditEvent, AuditLog, AuditObserver, ClearError, OpenError, Query, ReadError, Reader, Record, Status,
    Value, export_json_lines, newest_first, tail, verify, verify_against,
};
use resilience_core::{CallOptions, CircuitBreaker, Clock, Event, Fallback, Observer, Observers, Pipeline, Severity};

fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("audit");
    (place, dir)
}

fn event(number: usize) -> AuditEvent {
    AuditEvent::new("test", "count", number.to_string()).status(Status::Success)
}

fn resources(records: impl Iterator<Item = Result<Record, ReadError>>) -> Vec<String> {
    records.map(|record| record.unwrap().resource().to_owned()).collect()
}

#[test]
fn what_was_handed_over_is_there_after_closing_and_the_sequence_goes_on() {
    let (_place, dir) = place();
    let log = AuditLog::open(&dir).unwrap();
    assert!(log.open_report().unwrap().created);
    for number in 0..1000 {
        log.append(event(number)).unwrap();
    }
    drop(log);
    let log = AuditLog::open(&dir).unwrap();
    assert_eq!((log.open_report().unwrap().created, log.open_report().unwrap().end.sequence), (false, 1000));
    assert_eq!(log.append_durable(event(1000)).unwrap().wait().unwrap().sequence, 1001);
    let expected: Vec<String> = (0..=1000).map(|number| number.to_string()).collect();
    assert_eq!(resources(log.query(Query::new()).unwrap()), expected);
    assert_eq!(log.verify().unwrap().records, 1001);
    let end = log.close().unwrap();
    assert_eq!(end.sequence, 1001);
    assert!(matches!(log.append(event(0)), Err(AppendError::Closed)));
    assert_eq!(log.last(1).unwrap()[0].anchor(), end, "a closed log can still be read");
}

#[test]
fn many_threads_get_one_sequence_without_gaps_and_each_its_own_order() {
    let (_place, dir) = place();
    let log = AuditLog::builder().path(&dir).segment_bytes(16 << 10).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = log.clone();
            scope.spawn(move || {
                for number in 0..200 {
                    let event = event(number).actor(thread.to_string());
                    if number % 50 == 0 {
                        log.append_durable(event).unwrap().wait().unwrap();
                    } else {
                        log.append(event).unwrap();
                    }
                }
            });
        }
    });
    let end = log.close().unwrap();
    let report = verify_against(&dir, &[end]).unwrap();
    assert!(report.is_sound() && report.records == 800 && report.segments > 3, "{report}");
    for thread in 0..4 {
        let own = log.query(Query::new().actor(thread.to_string())).unwrap();
        assert_eq!(resources(own), (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn the_newest_records_are_read_backwards_across_segments() {
    let (_place, dir) = place();
    let log = AuditLog::builder().path(&dir).segment_bytes(4096).build().unwrap();
    for number in 0..300 {
        log.append_durable(event(number)).unwrap().wait().unwrap();
    }
    let last: Vec<_> = (200..300).map(|number: usize| number.to_string()).collect();
    assert_eq!(resources(log.last(100).unwrap().into_iter().map(Ok)), last);
    drop(log);
    assert_eq!(resources(tail(&dir, 100).unwrap().into_iter().map(Ok)), last);
    let all: Vec<_> = (0..300).rev().map(|number: usize| number.to_string()).collect();
    assert_eq!(resources(newest_first(&dir, Query::new()).unwrap()), all);
    assert_eq!(resources(newest_first(&dir, Query::new().resource("7")).unwrap()), ["7"]);

    // A group in flight at the end hides nothing that stands before it.
    let newest = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| is_segment(path)).max();
    let mut bytes = fs::read(newest.as_ref().unwrap()).unwrap();
    bytes.extend_from_slice(&[150, 0, 0, 0, 9, 9]);
    fs::write(newest.unwrap(), bytes).unwrap();
    assert_eq!(resources(tail(&dir, 100).unwrap().into_iter().map(Ok)), last);
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "audit")
}

#[test]
fn a_reader_follows_a_log_that_another_writes() {
    let (_place, dir) = place();
    let log = AuditLog::builder().path(&dir).segment_bytes(4096).build().unwrap();
    let mut reader = Reader::open(&dir).unwrap();
    assert!(reader.next().is_none());
    for number in 0..100 {
        log.append_durable(event(number)).unwrap().wait().unwrap();
        assert_eq!(reader.next().unwrap().unwrap().resource(), number.to_string());
        assert!(reader.next().is_none());
    }
}

#[test]
fn a_second_writer_is_refused_and_told_who_holds_the_log() {
    let (_place, dir) = place();
    let first = AuditLog::open(&dir).unwrap();
    first.append_durable(event(1)).unwrap().wait().unwrap();
    match AuditLog::open(&dir) {
        Err(OpenError::Locked { holder, .. }) => assert_eq!(holder, format!("process {}", std::process::id())),
        other => panic!("{other:?}"),
    }
    assert!(verify(&dir).unwrap().is_sound(), "readers need no lock");
    drop(first);
    AuditLog::open(&dir).unwrap();
}

#[test]
fn what_is_not_ours_is_refused_and_nothing_is_written_there() {
    let (place, dir) = place();
    let error =
        |path: &Path| AuditLog::open(path).unwrap_err().to_string().replace(&*place.path().to_string_lossy(), "…");
    let names = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();

    fs::create_dir(&dir).unwrap();
    restrict(&dir, 0o700);
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    insta::assert_snapshot!(error(&dir), @"…/audit is not an audit log: it holds `notes.txt` and no segment; allowed: a new path, an empty directory or the directory of a log");
    assert_eq!(names(&dir), ["notes.txt"]);

    let file = place.path().join("file");
    fs::write(&file, "mine").unwrap();
    insta::assert_snapshot!(error(&file), @"…/file is not an audit log: it is a file; allowed: a new path, an empty directory or the directory of a log");
    assert_eq!(fs::read(&file).unwrap(), b"mine");

    insta::assert_snapshot!(error(&place.path().join("no/such/parent")), @"cannot create directory …/no/such/parent: No such file or directory (os error 2)");
    insta::assert_snapshot!(verify(place.path().join("none")).unwrap_err().to_string().replace(&*place.path().to_string_lossy(), "…"), @"…/none is not an audit log: there is nothing");
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn restrict(_: &Path, _: u32) {}

#[cfg(unix)]
#[test]
fn only_the_owner_can_reach_a_log_and_laxer_modes_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (_place, dir) = place();
    drop(AuditLog::open(&dir).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        files += 1;
    }
    assert_eq!(files, 2, "a segment and the lock");

    let segment = dir.join("00000000000000000001.audit");
    restrict(&segment, 0o640);
    let error = AuditLog::open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::InsecurePermissions { mode: 0o640, allowed: 0o600, .. }), "{error}");
    assert!(error.to_string().contains("chmod 600"), "{error}");
    restrict(&segment, 0o600);
    restrict(&dir, 0o755);
    let error = AuditLog::open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::InsecurePermissions { mode: 0o755, allowed: 0o700, .. }), "{error}");
}

#[test]
fn a_durable_log_cannot_be_cleared_even_where_clearing_was_permitted() {
    let (_place, dir) = place();
    let log = AuditLog::builder().path(&dir).permit_clear(true).build().unwrap();
    assert_eq!(log.clear("ada"), Err(ClearError::AppendOnly));
}

#[test]
fn secrets_never_reach_the_disk() {
    let (_place, dir) = place();
    let log = AuditLog::open(&dir).unwrap();
    let event =
        event(1).detail("password", "hunter2-secret").detail("x-api-key", "hunter2-secret".to_owned()).detail("n", 1);
    log.append_durable(event).unwrap().wait().unwrap();
    let record = &log.last(1).unwrap()[0];
    assert_eq!((record.detail("password"), record.detail("n")), (Some(&Value::Redacted), Some(&Value::Int(1))));
    drop(log);
    for entry in fs::read_dir(&dir).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    }
}

#[test]
fn times_come_from_the_given_clock_and_a_clock_before_1970_is_a_typed_error() {
    let (_place, dir) = place();
    let (clock, time) = Clock::manual();
    let log = AuditLog::builder().path(&dir).clock(clock.clone()).build().unwrap();
    time.advance(Duration::from_nanos(123_456_789));
    log.append_durable(event(1)).unwrap().wait().unwrap();
    let record = &log.last(1).unwrap()[0];
    assert_eq!((record.time(), record.monotonic()), (clock.wall(), clock.now()));
    time.set_wall(SystemTime::UNIX_EPOCH - Duration::from_secs(60));
    assert!(matches!(log.append(event(2)), Err(AppendError::TimeOutOfRange { seconds_from_1970: -60 })));
    log.append_durable(event(3).at(SystemTime::UNIX_EPOCH)).unwrap().wait().unwrap();
    assert_eq!(log.last(1).unwrap()[0].time(), SystemTime::UNIX_EPOCH);
}

/// Runs a future on this thread, parking it between polls: any executor will do.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn an_acknowledgement_is_a_future_that_needs_no_runtime() {
    let (_place, dir) = place();
    let log = AuditLog::open(&dir).unwrap();
    let anchors = block_on(async {
        let mut anchors = Vec::new();
        for number in 0..50 {
            anchors.push(log.append_durable(event(number)).unwrap().await.unwrap());
        }
        let end = log.flush().unwrap().await.unwrap();
        assert_eq!(anchors.last(), Some(&end));
        anchors
    });
    drop(log);
    assert!(verify_against(&dir, &anchors).unwrap().is_sound());
}

#[test]
fn the_export_has_one_json_object_per_record_with_the_chain_in_it() {
    let (_place, dir) = place();
    let log = AuditLog::open(&dir).unwrap();
    (0..3).for_each(|number| log.append(event(number)).unwrap());
    log.close().unwrap();
    let mut out = Vec::new();
    assert_eq!(export_json_lines(Reader::open(&dir).unwrap(), &mut out).unwrap(), 3);
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for pair in lines.windows(2) {
        assert_eq!(pair[0]["hash"], pair[1]["previous_hash"]);
    }
    assert_eq!(lines[2]["resource"], "2");
}

#[test]
fn the_observer_records_what_policies_do_and_leaves_out_what_went_well() {
    let (_place, dir) = place();
    let log = AuditLog::open(&dir).unwrap();
    let observer: Arc<dyn Observer> = Arc::new(AuditObserver::new(log.clone()));
    let observers = Observers::new().with(Arc::clone(&observer));
    let breaker = CircuitBreaker::builder("registry_fetch").observers(observers.clone()).build().unwrap();
    breaker.force_open();
    observer.on_event(&Event::notice("lsp", "restarted", "server", Severity::High, "it crashed"));
    let pipeline = Pipeline::builder("registry").observers(observers.clone()).build().unwrap();
    let fallback = Fallback::value("stale").named("cache").unwrap().observers(observers);
    let lookup = CallOptions::new().operation("lookup");
    let reset = || Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let answer = fallback.call(|| pipeline.call_with(lookup, |_| reset()));
    assert_eq!(answer.unwrap(), "stale");
    log.flush().unwrap().wait().unwrap();
    let shown: Vec<String> = log
        .query(Query::new())
        .unwrap()
        .map(|record| record.unwrap().to_string().split_once(' ').unwrap().1.to_owned())
        .map(|line| {
            line.split_once(" elapsed_us=").map_or(line.clone(), |(start, rest)| {
                format!("{start} {}", rest.split_once(' ').map_or("", |(_, rest)| rest))
            })
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
#1 circuit_breaker forced_open registry_fetch info severity=high from=closed generation=1
#2 lsp restarted server info severity=high detail="it crashed"
#3 call finished registry failure severity=high category=network attempts=1 operation=lookup
#4 fallback answered cache failure severity=high category=network
"#);

    // Under a policy that blocks, the observer still does not: closed or not, it only counts.
    log.close().unwrap();
    observer.on_event(&Event::notice("lsp", "restarted", "server", Severity::High, ""));
    assert_eq!(log.statistics().dropped, 1);
}
