//! Is the log what was written?

use std::io::Write;
use std::path::PathBuf;

use resilience_audit::{Anchor, verify_against};
use serde_json::json;

use super::super::unless_closed;
use crate::Failure;

/// Is the log what was written? Exit codes: 0 sound, 1 not sound (the place is named), 2 cannot read.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The log's directory.
    directory: PathBuf,
    /// A record that must be in it, as an earlier verification printed it (`end`). May be given several times.
    #[arg(long)]
    anchor: Vec<Anchor>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let report = verify_against(&args.directory, &args.anchor)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let line = json!({
            "sound": report.is_sound(),
            "records": report.records,
            "segments": report.segments,
            "gaps": report.gaps,
            "recoveries": report.recoveries,
            "end": report.end.to_string(),
            "problem": report.problem.as_ref().map(ToString::to_string),
        });
        unless_closed(writeln!(out, "{line}"))?;
    } else {
        unless_closed(writeln!(out, "{report}"))?;
    }
    Ok(u8::from(!report.is_sound()))
}
