//! `parsercraft-guard audit`: read and verify an audit log. Never writes to it.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use resilience_audit::{Anchor, json_line, tail, verify_against};
use serde_json::json;

use super::unless_closed;
use crate::Failure;

/// What `audit` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print the last records. Exit codes: 0 printed, 2 cannot read.
    Tail {
        /// The log's directory.
        directory: PathBuf,
        /// How many.
        #[arg(short, default_value_t = 20)]
        n: usize,
        /// One JSON object per record.
        #[arg(long)]
        json: bool,
    },
    /// Is the log what was written? Exit codes: 0 sound, 1 not sound (the place is named), 2 cannot read.
    Verify {
        /// The log's directory.
        directory: PathBuf,
        /// A record that must be in it, as an earlier verification printed it (`end`). May be given several times.
        #[arg(long)]
        anchor: Vec<Anchor>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(verb: &Verb) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    match verb {
        Verb::Tail { directory, n, json } => {
            for record in tail(directory, *n)? {
                if *json {
                    writeln!(out, "{}", json_line(&record).trim_end())?;
                } else {
                    writeln!(out, "{record}")?;
                }
            }
            Ok(0)
        }
        Verb::Verify { directory, anchor, json } => {
            let report = verify_against(directory, anchor)?;
            if *json {
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
    }
}
