//! A fault at every I/O step of a scenario, and every way a crash can leave the disk behind it.
//! Whatever happens: the log opens again, verifies, and nothing acknowledged is missing, changed or there twice.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use resilience_audit::{
    Acknowledgement, Anchor, AppendError, AuditEvent, AuditLog, Backpressure, Kind, LogState, Query, ReadError, Reader,
    Value, verify_in,
};
use support::{Disk, FAULTS, Fault, SURVIVES, Survives};

const DIR: &str = "/audit";

fn open(disk: &Disk) -> Result<AuditLog, resilience_audit::OpenError> {
    builder(disk).build()
}

fn builder(disk: &Disk) -> resilience_audit::AuditLogBuilder {
    AuditLog::builder().path(DIR).storage(disk.storage()).segment_bytes(4096).retry_every(Duration::from_millis(1))
}

fn event(name: &str) -> AuditEvent {
    AuditEvent::new("test", "write", name.to_owned()).detail("filler", "x".repeat(300))
}

/// What became of the events of a scenario, by name.
#[derive(Default)]
struct Outcome {
    acknowledged: BTreeMap<String, Anchor>,
    refused: BTreeSet<String>,
}

impl Outcome {
    fn note(&mut self, name: &str, answer: &Result<Anchor, AppendError>) {
        match answer {
            Ok(anchor) => {
                assert_eq!(self.acknowledged.insert(name.to_owned(), *anchor), None);
            }
            Err(_) => {
                self.refused.insert(name.to_owned());
            }
        }
    }

    fn append(&mut self, log: &AuditLog, name: &str) {
        let answer = log.append_durable(event(name)).and_then(Acknowledgement::wait);
        self.note(name, &answer);
    }
}

/// Waits until the log writes again or never will.
fn settled(log: &AuditLog) -> LogState {
    let begin = Instant::now();
    loop {
        match log.state() {
            LogState::Failing { .. } if begin.elapsed() < Duration::from_secs(30) => std::thread::yield_now(),
            state => return state,
        }
    }
}

/// Opens the log twice and appends: single events, a group of many, enough to begin a second and a third segment.
fn scenario(disk: &Disk, outcome: &mut Outcome, round: &str) {
    for part in 0..2 {
        let Ok(log) = open(disk) else { return };
        for number in 0..5 {
            outcome.append(&log, &format!("{round}{part}-single-{number}"));
        }
        // While one group is being written the next one gathers.
        disk.pause();
        let first = log.append_durable(event(&format!("{round}{part}-first")));
        if first.is_ok() {
            disk.wait_for_held_write();
        }
        let names: Vec<String> = (0..5).map(|number| format!("{round}{part}-group-{number}")).collect();
        let group: Vec<_> = names.iter().map(|name| log.append_durable(event(name))).collect();
        disk.resume();
        outcome.note(&format!("{round}{part}-first"), &first.and_then(Acknowledgement::wait));
        for (name, acknowledgement) in names.iter().zip(group) {
            outcome.note(name, &acknowledgement.and_then(Acknowledgement::wait));
        }
        if !disk.crashed() && settled(&log) == LogState::Writable {
            outcome.append(&log, &format!("{round}{part}-after"));
        }
        let _ = log.close();
    }
}

/// Everything that must hold of the log, whatever happened to it.
fn check(disk: &Disk, outcome: &Outcome, crashed: bool, context: &str) {
    let anchors: Vec<Anchor> = outcome.acknowledged.values().copied().collect();
    let report = match verify_in(&disk.storage(), DIR, &anchors) {
        // Nothing was ever written: the crash came before the log was made.
        Err(ReadError::NotALog { .. }) if anchors.is_empty() => return,
        report => report.unwrap_or_else(|error| panic!("{context}: {error}")),
    };
    assert!(report.is_sound(), "{context}: {report}");
    let mut seen = BTreeMap::new();
    for record in Reader::open_in(&disk.storage(), DIR).unwrap() {
        let record = record.unwrap();
        if record.kind() == Kind::Event {
            let twice = seen.insert(record.resource().to_owned(), record.anchor());
            assert_eq!(twice, None, "{context}: {} is there twice", record.resource());
        }
    }
    for (name, anchor) in &outcome.acknowledged {
        assert_eq!(seen.get(name), Some(anchor), "{context}: {name} was acknowledged");
    }
    if !crashed {
        for name in &outcome.refused {
            assert!(!seen.contains_key(name), "{context}: {name} was refused and is in the log");
        }
    }
}

#[test]
fn no_fault_at_any_step_loses_or_doubles_or_garbles_what_was_acknowledged() {
    let disk = Disk::new();
    let mut outcome = Outcome::default();
    scenario(&disk, &mut outcome, "");
    let steps = disk.steps();
    check(&disk, &outcome, false, "without a fault");
    assert_eq!((outcome.acknowledged.len(), outcome.refused.len()), (24, 0));
    let segments = disk.names().iter().filter(|name| name.extension().is_some_and(|e| e == "audit")).count();
    assert!(segments >= 3, "the scenario must cross segments, it made {segments}");

    let (mut runs, mut struck, mut torn) = (0, 0, 0);
    for (step, what) in steps.iter().enumerate() {
        for fault in FAULTS {
            let crash = matches!(fault, Fault::Crash | Fault::TornCrash);
            if matches!(fault, Fault::Short | Fault::TornCrash) && what != "write" {
                continue;
            }
            // Without a crash at the fault, what a later crash leaves differs only in what was never synced.
            for survives in if crash { &SURVIVES[..] } else { &SURVIVES[..2] } {
                let survives = *survives;
                let disk = Disk::new();
                disk.plan(step, fault);
                let mut outcome = Outcome::default();
                scenario(&disk, &mut outcome, "a");
                // Retries make the number of steps depend on timing; at the very end a fault may come too late.
                struck += u32::from(disk.disarm());
                let context = format!("{fault:?} at step {step} ({what}), {survives:?} survives");
                if !crash {
                    check(&disk, &outcome, false, &context);
                }
                disk.reboot(survives);
                let log = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                torn += u32::from(log.open_report().unwrap().torn.is_some());
                drop(log);
                check(&disk, &outcome, true, &context);
                // It goes on, and a second crash reveals nothing that the first had hidden.
                scenario(&disk, &mut outcome, "b");
                assert!(outcome.acknowledged.contains_key("b1-after"), "{context}: the log does not go on");
                disk.reboot(survives);
                check(&disk, &outcome, true, &context);
                runs += 1;
            }
        }
    }
    println!("{} steps, {runs} runs, {struck} faults struck, {torn} torn tails", steps.len());
    assert!(struck > 500 && torn > 20, "{struck} faults struck, {torn} torn tails: the scenario is too tame");
}

#[test]
fn a_failed_sync_poisons_the_log_and_readers_still_see_what_was_durable() {
    let disk = Disk::new();
    let log = open(&disk).unwrap();
    let anchor = log.append_durable(event("durable")).unwrap().wait().unwrap();
    // The next steps are the write and the sync of one group.
    disk.plan(1, Fault::ForgetfulSync);
    let error = log.append_durable(event("lost")).unwrap().wait().unwrap_err();
    assert!(matches!(&error, AppendError::Poisoned { reason } if reason.contains("sync")), "{error}");
    assert!(matches!(log.append(event("later")), Err(AppendError::Poisoned { .. })));
    assert!(matches!(log.append_durable(event("later")), Err(AppendError::Poisoned { .. })));
    assert!(matches!(log.flush(), Err(AppendError::Poisoned { .. })));
    assert!(matches!(log.state(), LogState::Poisoned { .. }));
    assert_eq!(log.last(10).unwrap().len(), 1);
    assert!(log.verify().unwrap().is_sound());
    assert!(matches!(log.close(), Err(AppendError::Poisoned { .. })));
    drop(log);

    let log = open(&disk).unwrap();
    assert_eq!(log.open_report().unwrap().end, anchor, "what was not durable is not in the log");
    log.append_durable(event("again")).unwrap().wait().unwrap();
    drop(log);
    disk.reboot(Survives::Nothing);
    assert!(verify_in(&disk.storage(), DIR, &[anchor]).unwrap().is_sound());
}

#[test]
fn a_full_disk_refuses_with_a_typed_error_and_the_log_resumes_with_a_gap_record() {
    let disk = Disk::new();
    let log = open(&disk).unwrap();
    log.append_durable(event("before")).unwrap().wait().unwrap();
    disk.set_full(true);
    let error = log.append_durable(event("refused")).unwrap().wait().unwrap_err();
    assert!(matches!(&error, AppendError::NotDurable { .. }), "{error}");
    assert!(matches!(log.state(), LogState::Failing { .. }));
    assert!(matches!(log.append(event("refused")), Err(AppendError::Unavailable { .. })));
    assert!(matches!(log.append_durable(event("refused")), Err(AppendError::Unavailable { .. })));
    assert_eq!(log.last(10).unwrap().len(), 1, "reading goes on");
    disk.set_full(false);
    assert_eq!(settled(&log), LogState::Writable);
    log.append_durable(event("after")).unwrap().wait().unwrap();
    let kinds: Vec<_> = log.last(10).unwrap().iter().map(resilience_audit::Record::kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Gap, Kind::Event]);
    let gap = &log.last(2).unwrap()[0];
    assert_eq!((gap.detail("dropped"), gap.detail("refused")), (Some(&Value::Int(0)), Some(&Value::Int(1))));
    assert!(log.verify().unwrap().is_sound());
}

#[test]
fn fail_open_keeps_what_fits_counts_the_rest_and_says_so_in_the_log() {
    let disk = Disk::new();
    let log = builder(&disk).backpressure(Backpressure::FailOpen).queue(4).build().unwrap();
    disk.set_full(true);
    for number in 0..100 {
        log.append(event(&number.to_string())).unwrap();
    }
    let answer = log.append_durable(event("durable")).and_then(Acknowledgement::wait);
    assert!(answer.is_err(), "what is not recorded cannot be acknowledged");
    disk.set_full(false);
    assert_eq!(settled(&log), LogState::Writable);
    log.flush().unwrap().wait().unwrap();
    let statistics = log.statistics();
    let records: Vec<_> = log.query(Query::new()).unwrap().map(Result::unwrap).collect();
    let events = records.iter().filter(|record| record.kind() == Kind::Event).count() as u64;
    let reported: i64 = records
        .iter()
        .filter(|record| record.kind() == Kind::Gap)
        .filter_map(|record| match record.detail("dropped") {
            Some(Value::Int(dropped)) => Some(*dropped),
            _ => None,
        })
        .sum();
    assert!(statistics.dropped > 0);
    assert_eq!(events + statistics.dropped, 100, "every event is in the log or counted");
    assert_eq!(u64::try_from(reported), Ok(statistics.dropped), "and the log says how many are missing");
}

#[test]
fn a_full_queue_refuses_or_waits_as_told() {
    let disk = Disk::new();
    for policy in [Backpressure::FailClosed, Backpressure::Block(Duration::from_millis(2))] {
        let log = builder(&disk).backpressure(policy).queue(2).build().unwrap();
        disk.pause();
        let held = log.append_durable(event("held")).unwrap();
        disk.wait_for_held_write();
        log.append(event("1")).unwrap();
        log.append(event("2")).unwrap();
        let error = log.append(event("3")).unwrap_err();
        assert!(matches!(error, AppendError::Full { capacity: 2, .. }), "{error}");
        log.offer(event("4"));
        assert_eq!((log.statistics().refused, log.statistics().dropped, log.statistics().queued), (1, 1, 2));
        disk.resume();
        held.wait().unwrap();
        log.flush().unwrap().wait().unwrap();
        log.append_durable(event("5")).unwrap().wait().unwrap();
        let gap = log.query(Query::new().kind(Kind::Gap)).unwrap().last().unwrap().unwrap();
        assert_eq!(gap.detail("dropped"), Some(&Value::Int(1)), "what was offered in vain is in the log as a gap");
    }
}

#[test]
fn closing_a_log_that_cannot_be_written_says_so_and_does_not_hang() {
    let disk = Disk::new();
    let log = builder(&disk)
        .backpressure(Backpressure::Block(Duration::from_secs(60)))
        .queue(2)
        .retry_every(Duration::from_secs(3600))
        .build()
        .unwrap();
    disk.set_full(true);
    // The first makes it fail; the others fill what it holds.
    for number in 0..3 {
        log.append(event(&number.to_string())).unwrap();
    }
    let error = log.close().unwrap_err();
    assert!(matches!(error, AppendError::NotDurable { .. }), "{error}");
    assert!(matches!(log.append(event("late")), Err(AppendError::Closed)));
    assert_eq!(log.statistics().not_durable, 3);
}

#[test]
fn a_torn_tail_is_kept_in_a_file_and_the_cut_is_recorded() {
    let disk = Disk::new();
    let log = open(&disk).unwrap();
    let anchor = log.append_durable(event("durable")).unwrap().wait().unwrap();
    drop(log);
    let segment = Path::new(DIR).join("00000000000000000001.audit");
    disk.edit(&segment, |bytes| bytes.extend_from_slice(b"half a record"));

    let log = open(&disk).unwrap();
    let torn = log.open_report().unwrap().torn.clone().unwrap();
    assert_eq!((torn.bytes, &torn.segment), (13, &segment));
    disk.edit(&torn.kept_in, |bytes| assert_eq!(bytes, b"half a record"));
    let record = &log.last(1).unwrap()[0];
    assert_eq!((record.kind(), record.sequence()), (Kind::Recovered, anchor.sequence + 1));
    assert_eq!(record.detail("bytes"), Some(&Value::Int(13)));
    assert_eq!(log.verify().unwrap().recoveries, 1);
    drop(log);
    assert_eq!(open(&disk).unwrap().open_report().unwrap().torn, None, "once is enough");
}
