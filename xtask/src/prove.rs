//! `cargo xtask prove`: what the core claims, shown anew: loom models of its concurrent parts, property tests with many
//! cases, the simulated fleet with a plot, fuzz targets, Miri; on request, mutants. What could not be had is counted as
//! skipped and says why. Everything but the mutants is over within a quarter of an hour on two cores.

mod fleet;
mod fuzz;
mod mutants;

use std::process::Command;
use std::time::Duration;

use crate::Stop;
use crate::process::Ended;
use crate::steps::{self, Counts, Step, Verdict};
use crate::test;
use crate::workspace::Workspace;

/// The core's tests with many cases take a few minutes.
const LIMIT: Duration = Duration::from_secs(15 * 60);

const MIRI_LIMIT: Duration = Duration::from_secs(6 * 60);

/// What runs under Miri: the unit tests, which is where state machines and windows are looked at from inside, without three
/// that do the same thing thousands of times. An interpreter is a hundred times slower than a processor; the other tests
/// would take hours.
const MIRI_TESTS: &[&str] = &[
    "--lib",
    "--",
    "--skip",
    "threads_that_advance_at_once",
    "--skip",
    "ids_sort_in_the_order",
    "--skip",
    "it_forgets_what_was_long_ago",
    // Snapshots ask cargo for the workspace, which is a process.
    "--skip",
    "errors_say_what_happened",
];

/// Proofs of what the core claims.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these groups, e.g. `fleet,fuzz`.
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<String>,
    /// How many cases each property is tried with.
    #[arg(long, default_value_t = 1_024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cases: u32,
    /// Change the code in many small ways and see whether tests notice, and nothing else: in all files of breaker,
    /// limiter, retry, hedge, deadline and pipeline, or in those whose path contains one of these words.
    #[arg(long, num_args = 0.., value_name = "FILE")]
    mutants: Option<Vec<String>>,
    /// How many minutes the mutants may take; then what was found by then is told.
    #[arg(long, default_value_t = 60, value_name = "N", requires = "mutants", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// List the steps instead of running them.
    #[arg(long)]
    list: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the proofs; true when none failed.
pub(crate) fn run(args: &Args) -> Result<bool, Stop> {
    let workspace = Workspace::load(&crate::workspace::root()?)?;
    let steps = match &args.mutants {
        Some(words) => mutants::plan(&workspace, words, Duration::from_secs(args.minutes * 60))?,
        None => plan(&workspace, args.cases),
    };
    let steps = steps::select(steps, &args.only)?;
    if args.list {
        steps::list(&steps);
        return Ok(true);
    }
    let summary = steps::run("prove", steps, &workspace.target.join("xtask/prove"))?;
    summary.print(args.json)?;
    Ok(summary.passed())
}

/// The quick ones first.
fn plan(workspace: &Workspace, cases: u32) -> Vec<Step<'_>> {
    let mut steps = vec![Step::new("fleet", "a fleet under a retry storm", |bench| fleet::run(workspace, bench))];
    let mut properties = workspace.cargo();
    properties.env("PROPTEST_CASES", cases.to_string());
    properties.args(["test", "--no-fail-fast", "--package", "resilience-core", "--all-features", "--lib", "--tests"]);
    steps.push(test::suite("properties", format!("resilience-core, {cases} cases for each property"), properties));
    steps.extend(test::loom_models(workspace));
    steps.extend(fuzz::plan(workspace));
    steps.push(Step::new("miri", "resilience-core, unit tests under Miri", |bench| {
        let Some(mut command) = nightly(workspace, &["cargo", "miri", "--version"], &["cargo", "miri", "test"]) else {
            return Ok(Verdict::skipped("NOT PROVEN: `rustup +nightly component add miri rust-src` would let it"));
        };
        command
            .env("CARGO_TARGET_DIR", workspace.target.join("miri"))
            // Time is read from the system's clock in a few tests; few cases, as each takes long.
            .env("MIRIFLAGS", "-Zmiri-disable-isolation")
            .env("PROPTEST_CASES", "1")
            .args(["--package", "resilience-core"])
            .args(MIRI_TESTS);
        let ended = bench.run(&mut command, MIRI_LIMIT)?;
        let output = bench.output();
        Ok(if matches!(ended, Ended::TimedOut(_)) && !output.contains("Undefined Behavior") {
            // Building for it takes minutes, and so may a single test: what passed by then did pass.
            let passed = output.lines().filter(|line| line.ends_with("... ok")).count();
            let note = format!("NOT PROVEN in full: {passed} tests passed, then its time was over");
            Verdict {
                counts: Counts { passed: passed as u64, skipped: 1, ..Counts::default() },
                ..Verdict::skipped(note)
            }
        } else {
            test::judge(ended, &output)
        })
    }));
    steps
}

/// A command of the nightly toolchain, if `probe` works with it.
fn nightly(workspace: &Workspace, probe: &[&str], arguments: &[&str]) -> Option<Command> {
    let command = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        command.current_dir(&workspace.root).args(["run", "nightly"]).args(arguments);
        // What our own toolchain told us must not reach another one.
        for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        command
    };
    let works = command(probe).output().is_ok_and(|output| output.status.success());
    works.then(|| command(arguments))
}
