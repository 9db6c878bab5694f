//! Records into other programs' formats.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use resilience_audit::export_json_lines;

use super::filter::Filter;
use super::query;
use crate::Failure;

/// Write records in another format, oldest first. Exit codes: 0 written, 2 cannot read or write.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The log's directory.
    directory: PathBuf,
    /// Where to; without it, stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let records = query::records(&args.directory, true, &args.filter)?;
    match &args.output {
        None => {
            export_json_lines(records, &mut std::io::stdout().lock())?;
        }
        Some(path) => {
            let file = std::fs::File::create_new(path)
                .map_err(|error| format!("cannot make {}: {error}; nothing is overwritten", path.display()))?;
            let mut out = BufWriter::new(file);
            let written = export_json_lines(records, &mut out)?;
            out.flush()?;
            eprintln!("{written} records written to {}", path.display());
        }
    }
    Ok(0)
}
