//! What a log holds, counted in one pass.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use resilience_audit::{Kind, Reader};
use serde::Serialize;

use super::super::unless_closed;
use crate::Failure;

/// Names counted apart; a log with more of one sort has the rest under `other`, so that memory stays small.
const NAMES: usize = 1_000;
/// Names shown of each sort.
const SHOWN: usize = 10;

/// Count what the log holds, by type, status and severity. Exit codes: 0 printed, 2 cannot read.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The log's directory.
    directory: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Stats {
    records: u64,
    segments: u64,
    bytes: u64,
    first: Option<String>,
    last: Option<String>,
    gaps: u64,
    recoveries: u64,
    types: Counted,
    statuses: Counted,
    severities: Counted,
    actors: Counted,
}

#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
struct Counted(BTreeMap<String, u64>);

impl Counted {
    fn add(&mut self, name: &str) {
        let name = if name.is_empty() { "(none)" } else { name };
        if let Some(count) = self.0.get_mut(name) {
            *count += 1;
        } else {
            let name = if self.0.len() < NAMES { name } else { "(other)" };
            *self.0.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// The most frequent first.
    fn top(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.0.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let mut stats = Stats::default();
    for record in Reader::open(&args.directory)? {
        let record = record?;
        let time = humantime::format_rfc3339_millis(record.time()).to_string();
        stats.records += 1;
        stats.first.get_or_insert_with(|| time.clone());
        stats.last = Some(time);
        stats.gaps += u64::from(record.kind() == Kind::Gap);
        stats.recoveries += u64::from(record.kind() == Kind::Recovered);
        stats.types.add(record.event_type());
        stats.statuses.add(record.status().as_str());
        stats.severities.add(record.severity().map_or("", |severity| severity.as_str()));
        stats.actors.add(record.actor());
    }
    for entry in std::fs::read_dir(&args.directory)? {
        let entry = entry?;
        let is_segment = entry.path().extension().is_some_and(|ending| ending == "audit");
        stats.segments += u64::from(is_segment);
        stats.bytes += if is_segment { entry.metadata()?.len() } else { 0 };
    }
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    unless_closed(if args.json {
        writeln!(out, "{}", serde_json::to_string(&stats)?)
    } else {
        show(&mut out, &stats)
    })?;
    Ok(0)
}

/// For people.
fn show(out: &mut impl Write, stats: &Stats) -> io::Result<()> {
    let Stats { records, segments, bytes, first, last, gaps, recoveries, .. } = stats;
    writeln!(out, "{records} records in {segments} segments, {bytes} bytes")?;
    if let (Some(first), Some(last)) = (first, last) {
        writeln!(out, "from {first} to {last}")?;
    }
    writeln!(out, "gaps {gaps}, recoveries {recoveries}")?;
    let sorts = [
        ("type", &stats.types),
        ("status", &stats.statuses),
        ("severity", &stats.severities),
        ("actor", &stats.actors),
    ];
    for (sort, counted) in sorts {
        // A name is a caller's text: what could move a cursor is shown, not done.
        let all: Vec<_> =
            counted.top().into_iter().map(|(name, count)| (name.escape_debug().to_string(), count)).collect();
        let width = all.iter().take(SHOWN).map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        writeln!(out, "\nby {sort}")?;
        for (name, count) in all.iter().take(SHOWN) {
            writeln!(out, "  {name:<width$}  {count}")?;
        }
        if all.len() > SHOWN {
            writeln!(out, "  and {} more", all.len() - SHOWN)?;
        }
    }
    Ok(())
}
