//! `parsercraft-guard audit`: read, verify, count and export an audit log.
//! One module per verb; the library does the work, these read arguments and print. No verb takes a lock or writes to the
//! log.

mod export;
mod filter;
mod query;
mod show;
mod stats;
mod tail;
mod verify;

use clap::Subcommand;

use crate::Failure;

/// What `audit` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Export(export::Args),
    Query(query::Args),
    Stats(stats::Args),
    Tail(tail::Args),
    Verify(verify::Args),
}

pub(crate) fn run(verb: &Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Export(args) => export::run(args),
        Verb::Query(args) => query::run(args),
        Verb::Stats(args) => stats::run(args),
        Verb::Tail(args) => tail::run(args),
        Verb::Verify(args) => verify::run(args),
    }
}
