//! A loaded writer is killed with SIGKILL at random points, again and again, on the same log.
//! Nothing acknowledged may be missing, changed or there twice, and the log must verify each time.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use resilience_audit::{Acknowledgement, Anchor, AppendError, AuditEvent, AuditLog, Kind, Reader, verify_against};

const DIR: &str = "RESILIENCE_AUDIT_TORTURE_DIR";
const CYCLE: &str = "RESILIENCE_AUDIT_TORTURE_CYCLE";
/// How many kills, from which seed, and where the figures go: `cargo xtask torture audit` sets them.
const CYCLES: &str = "RESILIENCE_AUDIT_TORTURE_CYCLES";
const SEED: &str = "RESILIENCE_AUDIT_TORTURE_SEED";
const REPORT: &str = "RESILIENCE_AUDIT_TORTURE_REPORT";
const CYCLES_A_LOG: u64 = 40;

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

/// What the kills came to.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Outcome {
    kills: u64,
    logs: u64,
    records: u64,
    acknowledged: u64,
    torn_tails: u64,
    lost: u64,
    duplicated: u64,
    unverifiable: u64,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// How many records were acknowledged before the writer was killed, added to `acknowledged`.
fn write_and_be_killed(dir: &Path, cycle: u64, random: u64, acknowledged: &mut BTreeMap<String, Anchor>) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer", "--nocapture"])
        .env(DIR, dir)
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
    if random.is_multiple_of(8) {
        // While it starts or opens the log, most likely; how long that takes is nobody's business.
        for turn in 0..random >> 40 {
            std::hint::black_box(turn);
        }
    } else {
        let kill_after = (random >> 33) % 60;
        let mut count = 0;
        while count <= kill_after {
            let line = lines.next().expect("the writer ended by itself").unwrap();
            count += note(&line);
        }
    }
    child.0.kill().unwrap();
    // What was still in the pipe was acknowledged too.
    for line in lines.map_while(Result::ok) {
        note(&line);
    }
}

/// Opens the log as the next writer would, and adds what is wrong with it to `outcome`.
fn open_and_verify(dir: &Path, cycle: u64, acknowledged: &BTreeMap<String, Anchor>, outcome: &mut Outcome) {
    let log = AuditLog::open(dir).unwrap();
    outcome.torn_tails += u64::from(log.open_report().unwrap().torn.is_some());
    log.close().unwrap();
    let anchors: Vec<Anchor> = acknowledged.values().copied().collect();
    let report = verify_against(dir, &anchors).unwrap();
    if !report.is_sound() {
        eprintln!("cycle {cycle}: {report}");
        outcome.unverifiable += 1;
    }
}

/// Reads the whole log and counts what was acknowledged and is not there once.
fn count(dir: &Path, acknowledged: &BTreeMap<String, Anchor>, outcome: &mut Outcome) {
    let mut seen = HashSet::new();
    for record in Reader::open(dir).unwrap() {
        let record = record.unwrap();
        outcome.records += 1;
        if record.kind() == Kind::Event && record.action() == "write" && !seen.insert(record.resource().to_owned()) {
            eprintln!("{} is there twice", record.resource());
            outcome.duplicated += 1;
        }
    }
    for name in acknowledged.keys().filter(|name| !seen.contains(*name)) {
        eprintln!("{name} was acknowledged and is lost");
        outcome.lost += 1;
    }
    outcome.acknowledged += acknowledged.len() as u64;
    outcome.logs += 1;
}

#[test]
fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let cycles = number(CYCLES, 30);
    // A fixed sequence of pseudo-random points, so that a failure can be repeated as far as a kill can be.
    let mut random = number(SEED, 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut outcome = Outcome::default();
    let mut cycle = 0;
    while cycle < cycles {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("audit");
        let mut acknowledged: BTreeMap<String, Anchor> = BTreeMap::new();
        // Every kill looks at the whole log again, so a log that grew for ever would make most of the work.
        for _ in 0..CYCLES_A_LOG.min(cycles - cycle) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            write_and_be_killed(&dir, cycle, random, &mut acknowledged);
            open_and_verify(&dir, cycle, &acknowledged, &mut outcome);
            outcome.kills += 1;
            cycle += 1;
        }
        count(&dir, &acknowledged, &mut outcome);
        println!("{cycle} of {cycles} kills, {} acknowledged, {} torn tails", outcome.acknowledged, outcome.torn_tails);
    }
    if let Some(path) = std::env::var_os(REPORT) {
        std::fs::write(path, serde_json::to_vec(&outcome).unwrap()).unwrap();
    }
    let found = (outcome.lost, outcome.duplicated, outcome.unverifiable);
    assert_eq!(found, (0, 0, 0), "lost, duplicated, unverifiable: {outcome:?}");
    assert!(outcome.acknowledged > 0, "nothing was acknowledged, so nothing was shown");
}
