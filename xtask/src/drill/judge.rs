//! Judges from outside what the guarded process left behind: its audit log, its health history, its shutdown report.
//! It trusts nothing that the process said of itself but what it said the log had promised to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use resilience_audit::{Anchor, Reader, verify_against};

use super::Guard;
use super::line::{Check, Stage};
use super::watch::Story;

/// What must be found in the log: event type, action, at least how often, and why.
const TRACES: &[(&str, &str, u64, &str)] = &[
    ("ast", "parser_failed", 7, "every bomb that reached a parser"),
    ("circuit_breaker", "open", 2, "the breakers that opened"),
    ("circuit_breaker", "closed", 2, "the breakers that closed again"),
    ("registry", "checksum_mismatch", 1, "the corrupted file"),
    ("registry", "served_stale", 1, "old answers during the outage"),
    ("lsp", "server_lost", 5, "every loss of the language server"),
    ("health", "degraded", 1, "checks that saw the outage"),
    ("shutdown", "handler_finished", 4, "every handler of the shutdown"),
];

pub(super) fn judge(story: &mut Story, work: &Path, broken: Option<Guard>) {
    let audit = work.join("audit");
    if broken == Some(Guard::Audit) {
        flip_a_byte(&audit);
    }
    let mut outside: BTreeMap<&'static str, Vec<Check>> = BTreeMap::new();
    outside.insert("audit", judge_audit(story, &audit));
    outside.insert("health", judge_health(story));
    outside.insert("kill -9", judge_kill(story));
    outside.insert("shutdown", judge_shutdown(story));
    for (area, checks) in outside {
        story.outside.entry(area).or_default().extend(checks);
    }
}

fn judge_audit(story: &mut Story, audit: &Path) -> Vec<Check> {
    let anchors: Result<Vec<Anchor>, _> = story.acknowledged.iter().map(|anchor| anchor.parse()).collect();
    let anchors = anchors.unwrap_or_default();
    let mut checks = Vec::new();
    match verify_against(audit, &anchors) {
        Ok(report) => {
            checks.push(Check::new(
                report.is_sound(),
                "the log verifies, every acknowledged record in its place",
                &report,
            ));
        }
        Err(error) => checks.push(Check::new(false, "the log verifies", error)),
    }
    let promised = !anchors.is_empty() && anchors.len() == story.acknowledged.len();
    checks.push(Check::new(promised, "records were acknowledged as durable", format!("{} of them", anchors.len())));
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    // Faults without a recovery after them; what a kill cut short happens again in the next life.
    let mut open = BTreeSet::new();
    match Reader::open(audit) {
        Ok(reader) => {
            for record in reader.map_while(Result::ok) {
                match (record.event_type(), record.action()) {
                    ("drill", "fault_injected") => _ = open.insert(record.resource().to_owned()),
                    ("drill", "recovered") => _ = open.remove(record.resource()),
                    _ => {}
                }
                *counts.entry((record.event_type().to_owned(), record.action().to_owned())).or_default() += 1;
            }
        }
        Err(error) => checks.push(Check::new(false, "the log can be read", error)),
    }
    let count =
        |event_type: &str, action: &str| counts.get(&(event_type.to_owned(), action.to_owned())).copied().unwrap_or(0);
    for (event_type, action, least, what) in TRACES {
        let found = count(event_type, action);
        checks.push(Check::new(found >= *least, format!("{what}: `{event_type} {action}` is in the log"), found));
    }
    let (injected, recovered) = (count("drill", "fault_injected"), count("drill", "recovered"));
    let told = story.faults.len() as u64;
    checks.push(Check::new(
        // The last fault before a kill may have been told of and not yet recorded.
        injected + u64::from(story.killed.is_some()) >= told && injected > 0,
        "every fault is in the log",
        format!("{injected} of {told} told"),
    ));
    let left: Vec<_> = open.into_iter().collect();
    checks.push(Check::new(
        left.is_empty() && recovered > 0,
        "every fault in the log is followed by its recovery",
        if left.is_empty() { format!("{recovered} recoveries") } else { format!("none after: {}", left.join(", ")) },
    ));
    story.audit_counts =
        counts.into_iter().map(|((kind, action), count)| (format!("{kind} {action}"), count)).collect();
    checks
}

/// In one life of the process at least, the health went from healthy to degraded and back.
fn judge_health(story: &Story) -> Vec<Check> {
    let round_trip = story.health.iter().any(|life| {
        let mut wanted = ["healthy", "degraded", "healthy"].into_iter().peekable();
        for (_, status, _) in life {
            wanted.next_if(|next| status.eq_ignore_ascii_case(next));
        }
        wanted.peek().is_none()
    });
    let path: Vec<_> = story.health.iter().flatten().map(|(_, status, _)| status.as_str()).collect();
    vec![Check::new(round_trip, "health went Healthy → Degraded → Healthy", path.join(" → "))]
}

fn judge_kill(story: &Story) -> Vec<Check> {
    let where_ = story.killed.map_or_else(
        || "never".to_owned(),
        |(_, stage, done, total): (u64, Stage, u64, u64)| format!("in `{}` at {done} of {total}", stage.as_str()),
    );
    let found = story.lives.get(1).map_or(0, |(records, _)| *records);
    vec![
        Check::new(story.killed.is_some() && story.lives.len() == 2, "killed once and started again", where_),
        Check::new(found > 0, "the second life finds the log of the first", format!("{found} records")),
    ]
}

/// What each handler must have come to: two are made to fail, and fail alone.
fn judge_shutdown(story: &Story) -> Vec<Check> {
    let expected = [
        ("telemetry (panics on purpose)", "panicked"),
        ("remote cache (hangs on purpose)", "abandoned"),
        ("language servers", "completed"),
        ("audit log", "completed"),
    ];
    expected
        .into_iter()
        .map(|(name, outcome)| {
            let found = story.handlers.iter().find(|handler| handler.name == name).map(|handler| &*handler.outcome);
            let found = found.unwrap_or("not reported");
            Check::new(found.starts_with(outcome), format!("handler `{name}` is reported as {outcome}"), found)
        })
        .collect()
}

/// What tampering looks like: one bit in the middle of the newest segment.
fn flip_a_byte(audit: &Path) {
    let mut files: Vec<_> = std::fs::read_dir(audit)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.is_file())
        .collect();
    files.sort_by_key(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
    let Some(largest) = files.pop() else { return };
    let flipped = std::fs::OpenOptions::new().read(true).write(true).open(&largest).and_then(|mut file| {
        let middle = file.metadata()?.len() / 2;
        let mut byte = [0];
        file.seek(SeekFrom::Start(middle))?;
        file.read_exact(&mut byte)?;
        byte[0] ^= 1;
        file.seek(SeekFrom::Start(middle))?;
        file.write_all(&byte)
    });
    if let Err(error) = flipped {
        anstream::eprintln!("cannot tamper with {}: {error}", largest.display());
    }
}
