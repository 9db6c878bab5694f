//! A loaded writer is killed with SIGKILL at random points, again and again, on the same log.
//! Nothing acknowledged may be missing, changed or there twice, and the log must verify each time.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use resilience_audit::{Acknowledgement, Anchor, AppendError, AuditEvent, AuditLog, Kind, Reader, verify_against};

const DIR: &str = "RESILIENCE_AUDIT_TORTURE_DIR";
const CYCLE: &str = "RESILIENCE_AUDIT_TORTURE_CYCLE";
const CYCLES: u64 = 30;

/// Not a test of its own: the writer that the test below starts in a process of its own and kills.
#[test]
fn the_writer() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let cycle = std::env::var(CYCLE).unwrap();
    let log = AuditLog::builder().path(PathBuf::from(dir)).segment_bytes(32 << 10).build().unwrap();
    let out = Mutex::new(std::io::stdout());
    let (log, cycle, out) = (&log, &cycle, &out);
    // A thread that fails must end the process: the others would go on for ever.
    let done = |answer: Result<Anchor, AppendError>| {
        answer.unwrap_or_else(|error| {
            eprintln!("the writer cannot write: {error}");
            std::process::exit(1)
        })
    };
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                for number in 0..u64::MAX {
                    let name = format!("{cycle}-{thread}-{number}");
                    let event = AuditEvent::new("torture", "write", name.clone()).detail("filler", "x".repeat(100));
                    let anchor = done(log.append_durable(event).and_then(Acknowledgement::wait));
                    let mut out = out.lock().unwrap();
                    writeln!(out, "acknowledged {anchor} {name} .").unwrap();
                    out.flush().unwrap();
                }
            });
        }
        // Events that nobody waits for make the groups larger and the torn tails likelier.
        scope.spawn(move || {
            for number in 0..u64::MAX {
                if log.append(AuditEvent::new("torture", "filler", number.to_string())).is_err() || number % 100 == 0 {
                    done(log.flush().and_then(Acknowledgement::wait));
                }
            }
        });
    });
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("audit");
    let mut acknowledged: BTreeMap<String, Anchor> = BTreeMap::new();
    let mut torn = 0;
    // A fixed sequence of pseudo-random points, so that a failure can be repeated as far as a kill can be.
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for cycle in 0..CYCLES {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let kill_after = (random >> 33) % 60;
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_writer", "--nocapture"])
            .env(DIR, &dir)
            .env(CYCLE, cycle.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut note = |line: &str| {
            // The full stop tells a whole line from one that the kill cut short.
            let words: Vec<&str> = line.split(' ').collect();
            let ["acknowledged", anchor, name, "."] = words[..] else { return 0 };
            assert_eq!(acknowledged.insert(name.to_owned(), anchor.parse().unwrap()), None, "acknowledged twice");
            1
        };
        let mut count = 0;
        while count <= kill_after {
            let line = lines.next().expect("the writer ended by itself").unwrap();
            count += note(&line);
        }
        child.0.kill().unwrap();
        // What was still in the pipe was acknowledged too.
        for line in lines.map_while(Result::ok) {
            note(&line);
        }
        drop(child);

        let log = AuditLog::open(&dir).unwrap();
        torn += u32::from(log.open_report().unwrap().torn.is_some());
        drop(log);
        let anchors: Vec<Anchor> = acknowledged.values().copied().collect();
        let report = verify_against(&dir, &anchors).unwrap();
        assert!(report.is_sound(), "cycle {cycle}: {report}");
    }
    let mut seen = HashSet::new();
    for record in Reader::open(&dir).unwrap() {
        let record = record.unwrap();
        if record.kind() == Kind::Event && record.action() == "write" {
            assert!(seen.insert(record.resource().to_owned()), "{} is there twice", record.resource());
        }
    }
    let missing: Vec<_> = acknowledged.keys().filter(|name| !seen.contains(*name)).collect();
    assert_eq!(missing, Vec::<&String>::new());
    println!("{CYCLES} kills, {} acknowledged, {torn} torn tails", acknowledged.len());
}
