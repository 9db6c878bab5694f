//! `cargo xtask torture`: does the same cruel thing many times to something that promises to survive it, and tells figures.
//! The tests do it a few times and the suites a few hundred; a night's worth of it is what this is for.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Stop;
use crate::machine::Machine;
use crate::page;
use crate::steps::{self, Bench, Step, Verdict};
use crate::test;
use crate::workspace::Workspace;

/// The page that `--save` writes to.
const PAGE: &str = "docs/reliability.md";

/// A kill takes tenths of a second; a night has many seconds.
const LIMIT: Duration = Duration::from_secs(12 * 60 * 60);

/// Torture.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What: `audit` kills the loaded writer of an audit log with SIGKILL and looks for what it acknowledged.
    #[arg(value_enum)]
    what: What,
    /// How many times.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// Where the random points begin.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Write the figures into docs/reliability.md.
    #[arg(long)]
    save: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    Audit,
}

/// What the test of the audit log counts.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    kills: u64,
    logs: u64,
    records: u64,
    acknowledged: u64,
    torn_tails: u64,
    lost: u64,
    duplicated: u64,
    unverifiable: u64,
}

/// Runs it; true when nothing was lost.
pub(crate) fn run(args: &Args) -> Result<bool, Stop> {
    let workspace = Workspace::load(&crate::workspace::root()?)?;
    let What::Audit = args.what;
    let steps = vec![audit(&workspace, args.cycles, args.seed, args.save)];
    let summary = steps::run("torture", steps, &workspace.target.join("xtask/torture"))?;
    summary.print(args.json)?;
    Ok(summary.passed())
}

/// The audit log's writer, killed `cycles` times.
pub(crate) fn audit(workspace: &Workspace, cycles: u64, seed: u64, save: bool) -> Step<'_> {
    Step::new("torture", format!("an audit log whose writer is killed {cycles} times"), move |bench| {
        let folder = workspace.target.join("torture");
        std::fs::create_dir_all(&folder).map_err(|error| Stop::write(&folder, &error))?;
        kill(workspace, bench, &folder.join("audit.json"), (cycles, seed), save)
    })
}

fn kill(
    workspace: &Workspace,
    bench: &mut Bench<'_>,
    data: &Path,
    (cycles, seed): (u64, u64),
    save: bool,
) -> Result<Verdict, Stop> {
    // What an earlier run left must not be taken for this one's.
    let _ = std::fs::remove_file(data);
    let machine = Machine::here(workspace);
    let mut command = workspace.cargo();
    command
        .args(["test", "--package", "resilience-audit", "--test", "kill", "--", "--nocapture"])
        .env("RESILIENCE_AUDIT_TORTURE_CYCLES", cycles.to_string())
        .env("RESILIENCE_AUDIT_TORTURE_SEED", seed.to_string())
        .env("RESILIENCE_AUDIT_TORTURE_REPORT", data);
    let ended = bench.run(&mut command, LIMIT)?;
    let verdict = test::judge(ended, &bench.output());
    let shown = data.display();
    let read = std::fs::read(data).map_err(|error| format!("the test wrote no {shown}: {error}"));
    let outcome: Outcome =
        match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| format!("{shown}: {error}"))) {
            Ok(outcome) => outcome,
            Err(_) if verdict.counts.failed > 0 => return Ok(verdict),
            Err(line) => return Ok(Verdict::failed(line)),
        };
    if save {
        page::replace(&workspace.root.join(PAGE), "torture-audit", &told(&outcome, seed, &machine))?;
        anstream::eprintln!("saved: {PAGE}; commit it");
    }
    let Outcome { acknowledged, lost, duplicated, unverifiable, .. } = outcome;
    let note = format!(
        "{acknowledged} acknowledged: {lost} lost, {duplicated} duplicated; {unverifiable} of {cycles} times unverifiable"
    );
    Ok(Verdict { note, ..verdict })
}

/// The figures as Markdown.
fn told(outcome: &Outcome, seed: u64, machine: &Machine) -> String {
    let Outcome { kills, logs, records, acknowledged, torn_tails, lost, duplicated, unverifiable } = outcome;
    format!(
        "`cargo xtask torture audit --cycles {kills} --seed {seed} --save`; {}\n\n\
         | writers killed with SIGKILL | logs | records | acknowledged | lost | duplicated | unverifiable | torn tails cut |\n\
         |---|---|---|---|---|---|---|---|\n\
         | {kills} | {logs} | {records} | {acknowledged} | {lost} | {duplicated} | {unverifiable} | {torn_tails} |\n",
        machine.line()
    )
}
