//! `parsercraft-guard protocol`: does a type conform to a protocol, and why not?

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use parsercraft_guard::protocol::{Checker, Definitions, ProtocolGuard, Verdict};

use super::unless_closed;
use crate::Failure;

/// The arguments of `protocol`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The definitions, as JSON or TOML (by the file's ending).
    definitions: PathBuf,
    /// The type.
    #[arg(value_name = "TYPE")]
    ty: String,
    /// The protocol.
    protocol: String,
}

/// 0 when it conforms, 1 when it does not or that could not be decided.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let path = args.definitions.display();
    let text = std::fs::read_to_string(&args.definitions).map_err(|error| format!("cannot read {path}: {error}"))?;
    let definitions: Definitions = match args.definitions.extension().and_then(|ending| ending.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?,
        Some("toml") => toml::from_str(&text).map_err(|error| format!("{path}: {}", in_one_line(&error, &text)))?,
        _ => return Err(format!("{path} is of no known format; allowed: .json, .toml").into()),
    };
    let guard = ProtocolGuard::builder(Checker::new(&definitions)?).build()?;
    let verdict = guard.check_conformance(&args.ty, &args.protocol)?;
    let (ty, protocol) = (&args.ty, &args.protocol);
    let mut out = std::io::stdout().lock();
    unless_closed(match &verdict {
        Verdict::Conforms => writeln!(out, "{ty} conforms to {protocol}"),
        Verdict::Violates(violation) => writeln!(out, "{ty} does not conform to {protocol}: {violation}"),
        Verdict::OutOfFuel(limit) => writeln!(out, "not decided: {limit}"),
    })?;
    Ok(u8::from(!verdict.conforms()))
}

/// As `serde_json` says it: what, and where.
fn in_one_line(error: &toml::de::Error, text: &str) -> String {
    let what = error.message().replace('\n', ", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return what };
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|it| *it != '\n').count() + 1);
    format!("{what} at line {line} column {column}")
}
