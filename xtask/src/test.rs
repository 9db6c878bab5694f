//! `cargo xtask test`: sets itself up, then runs every test there is: each library alone without and with all its
//! features and its examples, this crate, loom models, an audit log whose writer is killed, the benchmarks for a moment, the
//! drill end to end, its report in a real browser, and drills with a guard broken on purpose, which must fail. Counts are
//! taken from what ran; the last line is the sum.

mod browser;
mod libtest;

use std::process::Command;
use std::time::Duration;

use crate::Stop;
use crate::process::Ended;
use crate::steps::{self, Bench, Counts, Step, Verdict};
use crate::tools::Component;
use crate::torture;
use crate::workspace::{Package, Workspace};

/// Building and running one crate's tests on a cold machine with two cores takes a fraction of this.
const SUITE_LIMIT: Duration = Duration::from_secs(20 * 60);
/// An example takes seconds; building what only it needs takes some more.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// A drill takes about a minute once built; building it cold takes some more.
const DRILL_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Guards that `cargo xtask drill --break <guard>` breaks on purpose; each such drill must notice and exit with 1.
const BREAKS: &[&str] = &["ast", "audit", "health", "lsp", "protocol", "registry", "shutdown"];
/// How often the audit log's writer is killed; `cargo xtask torture audit --cycles N` does it more often.
const KILLS: u64 = 200;
/// The seed of the end-to-end drill: any would do, a fixed one makes a failure repeatable.
const SEED: &str = "1";

/// All tests, with their set-up.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on without components that are missing and can't be installed; what needs them is counted as skipped.
    #[arg(long)]
    skip_missing: bool,
    /// Only these groups of tests, e.g. `suites,drill`.
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<String>,
    /// Only these libraries' suites.
    #[arg(long, short, value_name = "CRATE")]
    package: Vec<String>,
    /// List the steps instead of running them.
    #[arg(long)]
    list: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the tests; true when none failed.
pub(crate) fn run(args: &Args) -> Result<bool, Stop> {
    let workspace = Workspace::load(&crate::workspace::root()?)?;
    workspace.known(&args.package)?;
    let steps = steps::select(plan(&workspace, args), &args.only)?;
    if args.list {
        steps::list(&steps);
        return Ok(true);
    }
    let summary = steps::run("test", steps, &workspace.target.join("xtask/test"))?;
    summary.print(args.json)?;
    Ok(summary.passed())
}

/// The browser comes first: what can't be set up should show before half an hour of tests, not after.
fn plan<'a>(workspace: &'a Workspace, args: &'a Args) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    if args.package.is_empty() {
        let skip = args.skip_missing;
        steps.push(Step::new("report", "chromium tells clean pages from broken ones", move |bench| {
            with_browser(workspace, bench, skip, browser::CONTROLS.len(), browser::controls)
        }));
    }
    let chosen = |package: &&Package| args.package.is_empty() || args.package.contains(&package.name);
    for package in workspace.libraries().filter(chosen) {
        // Features one by one are for the lints; tests see the two ends.
        for set in package.feature_sets().into_iter().filter(|set| !set.alone) {
            let mut command = workspace.cargo();
            command.args(["test", "--no-fail-fast", "--package", &package.name]).args(&set.arguments);
            steps.push(suite("suites", format!("{}, {}", package.name, set.name), command));
        }
        // An example asserts what it shows: it passes when it comes to its end.
        for example in package.examples() {
            let mut command = workspace.cargo();
            command.args(["run", "--quiet", "--package", &package.name, "--all-features", "--example", example]);
            steps.push(Step::command(
                "examples",
                format!("{}, example {example}", package.name),
                command,
                EXAMPLE_LIMIT,
            ));
        }
    }
    if !args.package.is_empty() {
        return steps;
    }
    let mut own = workspace.cargo();
    own.args(["test", "--no-fail-fast", "--package", "xtask"]);
    steps.push(suite("suites", "xtask", own));
    steps.extend(loom_models(workspace));
    steps.push(torture::audit(workspace, KILLS, 1, false));
    // Compiles the peers, two minutes on two cores: what promises no allocation is checked beside them, and they go on
    // doing the rows' work.
    let mut bench = workspace.cargo();
    bench.args(["run", "--quiet", "--package", "xtask", "--", "bench", "--peers", "--quick"]);
    steps.push(Step::command("bench", "benchmarks beside the peers, smoke run", bench, SUITE_LIMIT));
    // Before the whole drill, whose report is the one that should be left behind.
    for guard in BREAKS {
        steps.push(Step::new("broken", format!("drill notices a broken guard: {guard}"), |bench| {
            broken_drill(workspace, bench, guard)
        }));
    }
    steps.push(Step::new("drill", "drill, end to end", |bench| drill(workspace, bench)));
    steps.push(Step::new("report", "the drill's report in chromium", move |bench| {
        with_browser(workspace, bench, args.skip_missing, 1, |workspace, bench, program| {
            browser::report(bench, program, &workspace.target.join("drill/report.html"))
        })
    }));
    steps
}

/// A `cargo test` whose tests are counted; a suite without a single test is a mistake in the suite.
pub(crate) fn suite<'a>(group: &'static str, name: impl Into<String>, mut command: Command) -> Step<'a> {
    Step::new(group, name, move |bench| {
        let ended = bench.run(&mut command, SUITE_LIMIT)?;
        Ok(judge(ended, &bench.output()))
    })
}

/// The verdict on a `cargo test` that printed `output`.
pub(crate) fn judge(ended: Ended, output: &str) -> Verdict {
    weigh(ended, &libtest::read(output))
}

/// A suite's verdict: the counts it printed, corrected by what its exit code knows better.
fn weigh(ended: Ended, report: &libtest::Report) -> Verdict {
    let mut counts = report.counts;
    let mut note = format!("{} test programs", report.programs);
    if report.broken > 0 {
        counts.failed += report.broken;
        note = format!("{} of {} test programs died", report.broken, report.programs);
    }
    if !ended.success() && counts.failed == 0 {
        // It didn't compile, or was stopped: nothing was counted, but it surely didn't pass.
        counts.failed = 1;
        note = ended.to_string();
    } else if ended.success() && counts == Counts::default() {
        counts.failed = 1;
        "no test ran".clone_into(&mut note);
    }
    Verdict { counts, note, details: String::new() }
}

/// Loom explores every interleaving of the core's concurrent parts. It replaces the atomics of the whole build, hence the
/// target folder of its own.
pub(crate) fn loom_models(workspace: &Workspace) -> Option<Step<'_>> {
    let tests = workspace.root.join("resilience-core/tests");
    let is_model = |name: &str| name.starts_with("loom");
    let any = std::fs::read_dir(tests).ok()?.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_model));
    if !any {
        return None;
    }
    let mut command = workspace.cargo();
    command
        .env("RUSTFLAGS", "--cfg resilience_loom")
        .args([
            "test",
            "--no-fail-fast",
            "--package",
            "resilience-core",
            "--release",
            "--test",
            "loom*",
            "--target-dir",
        ])
        .arg(workspace.target.join("loom"));
    Some(suite("loom", "resilience-core, loom models", command))
}

fn drill_command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--package", "xtask", "--", "drill", "--seed", SEED]).args(arguments);
    command
}

fn drill(workspace: &Workspace, bench: &mut Bench<'_>) -> Result<Verdict, Stop> {
    let report = workspace.target.join("drill/report.html");
    // What an earlier drill left must not be taken for this one's.
    if report.exists() {
        std::fs::remove_file(&report).map_err(|error| Stop::write(&report, &error))?;
    }
    let ended = bench.run(&mut drill_command(workspace, &[]), DRILL_LIMIT)?;
    Ok(match Verdict::of(ended) {
        verdict if verdict.counts.failed == 0 && !report.is_file() => Verdict::failed("it wrote no report"),
        verdict => verdict,
    })
}

fn broken_drill(workspace: &Workspace, bench: &mut Bench<'_>, guard: &str) -> Result<Verdict, Stop> {
    let result = workspace.target.join("drill/result.json");
    if result.exists() {
        std::fs::remove_file(&result).map_err(|error| Stop::write(&result, &error))?;
    }
    let ended = bench.run(&mut drill_command(workspace, &["--break", guard]), DRILL_LIMIT)?;
    let text = std::fs::read_to_string(&result).unwrap_or_default();
    Ok(noticed(ended, guard, &serde_json::from_str(&text).unwrap_or_default()))
}

/// Exit code 1 with the guard's own area failed is "noticed"; 0 is blindness, and anything else (2: bad usage, another
/// area) proves nothing.
fn noticed(ended: Ended, guard: &str, result: &serde_json::Value) -> Verdict {
    match ended {
        Ended::Code(1) if result["areas"][guard]["ok"] == false => {
            Verdict::passed("exit code 1, its area failed, as it must")
        }
        Ended::Code(1) => Verdict::failed(format!("exit code 1, but not because of `{guard}`")),
        Ended::Code(0) => Verdict::failed("the drill passed with its guard broken"),
        other => Verdict::failed(format!("{other}; exit code 1 expected")),
    }
}

/// Runs `work`, which is so many `tests`, with the browser. Without one: an end to everything (exit code 2), or a skip when that was asked for.
fn with_browser(
    workspace: &Workspace,
    bench: &mut Bench<'_>,
    skip_missing: bool,
    tests: usize,
    work: impl FnOnce(&Workspace, &mut Bench<'_>, &std::path::Path) -> Result<Verdict, Stop>,
) -> Result<Verdict, Stop> {
    let browser = Component::named("chromium")?;
    match browser.ensure(workspace, bench) {
        Ok(program) => work(workspace, bench, &program),
        Err(Stop::Setup(line)) if skip_missing => {
            let counts = Counts { skipped: tests as u64, ..Counts::default() };
            let note = format!("NOT TESTED: {} is missing", browser.name);
            Ok(Verdict { counts, note, details: line })
        }
        Err(Stop::Setup(line)) => Err(Stop::Missing(format!("{line}; or go on without: --skip-missing"))),
        Err(stop) => Err(stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(passed: u64, failed: u64, broken: u64) -> libtest::Report {
        libtest::Report { counts: Counts { passed, failed, skipped: 0 }, programs: 2, broken }
    }

    #[test]
    fn a_suite_is_judged_by_its_counts_and_its_exit_code() {
        let judged = |ended, report| {
            let verdict = weigh(ended, &report);
            (verdict.counts.passed, verdict.counts.failed, verdict.note)
        };
        assert_eq!(judged(Ended::Code(0), report(5, 0, 0)), (5, 0, "2 test programs".to_owned()));
        assert_eq!(judged(Ended::Code(101), report(5, 2, 0)), (5, 2, "2 test programs".to_owned()));
        assert_eq!(judged(Ended::Code(101), report(5, 0, 1)), (5, 1, "1 of 2 test programs died".to_owned()));
        assert_eq!(judged(Ended::Code(101), report(5, 0, 0)), (5, 1, "exit code 101".to_owned()));
        assert_eq!(judged(Ended::Code(0), report(0, 0, 0)), (0, 1, "no test ran".to_owned()));
    }

    #[test]
    fn only_exit_code_1_with_its_own_area_failed_shows_that_a_drill_noticed_its_broken_guard() {
        let result = serde_json::json!({"areas": {"lsp": {"ok": false}, "ast": {"ok": true}}});
        let passed = |ended, guard| noticed(ended, guard, &result).counts.passed;
        assert_eq!(passed(Ended::Code(1), "lsp"), 1);
        assert_eq!((passed(Ended::Code(1), "ast"), passed(Ended::Code(1), "unknown")), (0, 0));
        for other in [Ended::Code(0), Ended::Code(2), Ended::Code(101), Ended::Signal(9), Ended::TimedOut(DRILL_LIMIT)]
        {
            assert_eq!(passed(other, "lsp"), 0, "{other}");
        }
    }
}
