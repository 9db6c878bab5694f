//! Records that meet conditions, as a table.

use std::path::PathBuf;

use resilience_audit::{Reader, Records, newest_first};

use super::filter::Filter;
use super::show::{self, Table};
use crate::Failure;

/// Print the records that meet all conditions. Exit codes: 0 printed (also when there are none), 2 cannot read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  parsercraft-guard audit query log --since 2h --severity high\n  \
    parsercraft-guard audit query log --type registry --status failure -n 1000 --json | jq .resource")]
pub(crate) struct Args {
    /// The log's directory.
    directory: PathBuf,
    /// At most so many.
    #[arg(short, default_value_t = 100)]
    n: usize,
    /// The oldest first instead of the newest.
    #[arg(long)]
    oldest_first: bool,
    /// One JSON object per record.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    let records = records(&args.directory, args.oldest_first, &args.filter)?;
    if args.json {
        for record in records.take(args.n) {
            show::line(&mut out, &record?, true)?;
        }
        return Ok(0);
    }
    let mut table = Table::new(out);
    for record in records.take(args.n) {
        table.row(&record?)?;
    }
    table.end()?;
    Ok(0)
}

/// The stream of what a filter wants.
pub(super) fn records(directory: &std::path::Path, oldest_first: bool, filter: &Filter) -> Result<Records, Failure> {
    let query = filter.query();
    Ok(if oldest_first { Reader::open(directory)?.matching(query) } else { newest_first(directory, query)? })
}
