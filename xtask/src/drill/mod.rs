//! `cargo xtask drill`: the guarded toolchain on real input while faults are injected.
//! This process watches: it starts the guarded one, kills it once on the way, starts it again, tells it to stop, and judges
//! what is left behind. Nothing here runs a guard.

mod ast;
mod guarded;
mod judge;
mod line;
mod lsp;
mod plot;
mod protocol;
mod registry;
mod report;
mod sources;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Stop;
use crate::process::Interrupt;

/// Tells a process started by this program what it is: nothing set means the command line decides.
pub(crate) const ROLE: &str = "XTASK_DRILL_ROLE";
const GUARDED: &str = "guarded";
const SERVER: &str = "language-server";
const UNGUARDED: &str = "unguarded-parser";

/// A guard that can be broken on purpose, to see that the drill notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guard {
    /// A hostile file is parsed in the process itself.
    Ast,
    /// One byte of the audit log is changed.
    Audit,
    /// Nobody runs the health checks: an outage leaves no trace in the health.
    Health,
    /// The editor talks to the language server directly.
    Lsp,
    /// The checker says yes to everything.
    Protocol,
    /// Package files are taken as they come, corrupted ones too.
    Registry,
    /// The process ends without its shutdown.
    Shutdown,
}

/// The drill.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Repeat a run: the same faults at the same moments on the same data. Drawn and printed when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// How many real files to parse at most; 1000 or more.
    #[arg(long, default_value_t = 4_000, value_name = "N", value_parser = enough_files)]
    files: usize,
    /// Break a guard on purpose: the drill must then fail.
    #[arg(long = "break", value_name = "GUARD")]
    broken: Option<Guard>,
}

/// Runs what this process was started for by a drill, if that is what it was: the first thing `main` does.
pub(crate) fn run_role() -> Option<ExitCode> {
    parsercraft_guard::ast::worker::run_if_requested_with(parsercraft_guard::ast::testkit::languages);
    match std::env::var(ROLE).ok()?.as_str() {
        GUARDED => Some(ExitCode::from(guarded::main())),
        UNGUARDED => Some(ExitCode::from(ast::parse_unguarded())),
        SERVER => Some(parsercraft_guard::testkit::lsp_server::main()),
        _ => None,
    }
}

/// Runs the drill; true when everything was as it must be.
pub(crate) fn run(args: &Args) -> Result<bool, Stop> {
    let checkout = sources::Checkout::load(&crate::workspace::root()?)?;
    let sources = checkout.files(args.files)?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let folder = checkout.target_directory.join("drill");
    let _lock = crate::steps::lock("drill", &folder)?;
    let work = fresh_folder(&folder)?;
    let (page, data) = (folder.join("report.html"), folder.join("result.json"));
    for old in [&page, &data] {
        forget(old)?;
    }
    let interrupt = Interrupt::watch()?;
    anstream::eprintln!("drill, seed {seed}: {} real files, report in {}", sources.len(), page.display());

    let orders = guarded::Orders { seed, directory: work.clone(), sources, skip: Vec::new(), broken: args.broken };
    let mut story = watch::run(orders, &interrupt)?;
    judge::judge(&mut story, &work, args.broken);

    let json = report::json(&story);
    write_whole(&page, report::html(&story).as_bytes())?;
    write_whole(&data, json.as_bytes())?;
    // Whoever closed the other end of a pipe has seen enough; the exit code still tells.
    let _ = if args.json {
        writeln!(std::io::stdout(), "{json}")
    } else {
        write!(anstream::stdout(), "{}", report::table(&story))
    };
    Ok(story.passed())
}

/// An empty folder for the run's own files; what an earlier run left is removed.
fn fresh_folder(folder: &Path) -> Result<PathBuf, Stop> {
    let work = guarded::directory(folder);
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(|error| Stop::write(&work, &error))?;
    }
    std::fs::create_dir_all(&work).map_err(|error| Stop::write(&work, &error))?;
    Ok(work)
}

/// Removes what an earlier run left: a run that is stopped must not leave the verdict of another one behind.
fn forget(path: &Path) -> Result<(), Stop> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Stop::write(path, &error)),
        _ => Ok(()),
    }
}

/// Reads `--files`.
fn enough_files(text: &str) -> Result<usize, String> {
    let allowed = || format!("allowed: whole numbers from {}", sources::LEAST);
    text.parse().ok().filter(|number| *number >= sources::LEAST).ok_or_else(allowed)
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    let next = path.with_extension("next");
    std::fs::write(&next, bytes).and_then(|()| std::fs::rename(&next, path)).map_err(|error| Stop::write(path, &error))
}
