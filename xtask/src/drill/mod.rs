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
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Stop;
use crate::process::Interrupt;
use crate::workspace::Workspace;

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
    /// How many real files to parse at most.
    #[arg(long, default_value_t = 4_000, value_name = "N")]
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
    let workspace = Workspace::load(&crate::workspace::root()?)?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let folder = workspace.target.join("drill");
    let _lock = crate::steps::lock("drill", &folder)?;
    let work = fresh_folder(&folder)?;
    let sources = sources(&workspace, args.files)?;
    let interrupt = Interrupt::watch()?;
    anstream::eprintln!(
        "drill, seed {seed}: {} real files, report in {}",
        sources.len(),
        folder.join("report.html").display()
    );

    let orders = guarded::Orders { seed, directory: work.clone(), sources, skip: Vec::new(), broken: args.broken };
    let mut story = watch::run(orders, &interrupt)?;
    judge::judge(&mut story, &work, args.broken);

    write_whole(&folder.join("report.html"), report::html(&story).as_bytes())?;
    let json = report::json(&story);
    write_whole(&folder.join("result.json"), json.as_bytes())?;
    if args.json {
        println!("{json}");
    } else {
        anstream::print!("{}", report::table(&story));
    }
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

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    let next = path.with_extension("next");
    std::fs::write(&next, bytes).and_then(|()| std::fs::rename(&next, path)).map_err(|error| Stop::write(path, &error))
}

/// The workspace's Rust files and those of its dependencies in cargo's local store, in a fixed order, `most` of them
/// spread evenly.
fn sources(workspace: &Workspace, most: usize) -> Result<Vec<PathBuf>, Stop> {
    let mut files = Vec::new();
    for package in &workspace.packages {
        if let Some(folder) = package.manifest_path.parent() {
            collect(folder, &workspace.target, &mut files);
        }
    }
    files.sort_unstable();
    files.dedup();
    if files.is_empty() {
        return Err(Stop::Setup("cargo's local store holds no Rust files; run `cargo fetch` first".into()));
    }
    let all = files.len();
    if most < all {
        let keep = |index: usize| index * most / all != (index + 1) * most / all;
        files = files.into_iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, file)| file).collect();
    }
    Ok(files)
}

fn collect(folder: &Path, except: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        // Links are not followed: none can lead out of the store or round in a circle.
        match kind {
            Ok(kind) if kind.is_dir() && path != except => collect(&path, except, files),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|ending| ending == "rs") => files.push(path),
            _ => {}
        }
    }
}
