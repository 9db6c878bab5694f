//! The newest records, and those that are still to come.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use resilience_audit::{Query, Reader, Record, newest_first};

use super::filter::Filter;
use super::show;
use crate::Failure;

/// How often a log is looked at for more: a person should not notice, a disk neither.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Print the last records. Exit codes: 0 printed, 2 cannot read.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The log's directory.
    directory: PathBuf,
    /// How many.
    #[arg(short, default_value_t = 20)]
    n: usize,
    /// Go on with what is written from now on, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// One JSON object per record.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    let query = args.filter.query();
    // Taken before the records are read, so that one written in between is not missed.
    let newest = newest_first(&args.directory, Query::new())?.next().transpose()?;
    let mut records = newest_first(&args.directory, query.clone())?.take(args.n).collect::<Result<Vec<_>, _>>()?;
    records.reverse();
    for record in &records {
        show::line(&mut out, record, args.json)?;
    }
    if !args.follow {
        return Ok(0);
    }
    let seen = newest.iter().chain(records.last()).map(Record::sequence).max().unwrap_or(0);
    let mut reader = Reader::open(&args.directory)?;
    loop {
        for record in reader.by_ref() {
            let record = record?;
            if record.sequence() > seen && query.matches(&record) {
                show::line(&mut out, &record, args.json)?;
            }
        }
        out.flush()?;
        std::thread::sleep(LOOK_EVERY);
    }
}
