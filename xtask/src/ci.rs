//! `cargo xtask ci`: what a change must pass besides its tests: format, lints over every feature set, docs and their
//! examples, generated files, the browser, minimum Rust version, licences, that no file names a place on somebody's machine,
//! and that nothing in the core waits for real time.
//!
//! Each check says in its row what it found; checks that can't be made here are counted as skipped, loudly.

mod examples;
mod links;
mod msrv;
mod places;
mod rustup;
mod sleeps;
mod wasm;

use std::process::Command;
use std::time::Duration;

use crate::steps::{self, Bench, Step, Verdict};
use crate::tools::Component;
use crate::workspace::{Package, Workspace};
use crate::{Stop, codegen};

/// One cargo command on a cold machine with two cores takes a fraction of this.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// A database that doesn't answer within this is not reachable.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// The crate of the benchmarks, a workspace of its own.
const BENCH: &str = "xtask/bench/Cargo.toml";

/// Everything a change must pass besides its tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these groups of checks, e.g. `fmt,clippy`.
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<String>,
    /// Only these crates, where a check is made crate by crate.
    #[arg(long, short, value_name = "CRATE")]
    package: Vec<String>,
    /// List the checks instead of making them.
    #[arg(long)]
    list: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Makes the checks; true when none failed.
pub(crate) fn run(args: &Args) -> Result<bool, Stop> {
    let workspace = Workspace::load(&crate::workspace::root()?)?;
    workspace.known(&args.package)?;
    let steps = steps::select(plan(&workspace, &args.package), &args.only)?;
    if args.list {
        steps::list(&steps);
        return Ok(true);
    }
    let summary = steps::run("ci", steps, &workspace.target.join("xtask/ci"))?;
    summary.print(args.json)?;
    Ok(summary.passed())
}

/// Cheap checks first, so that a slip shows within seconds.
fn plan<'a>(workspace: &'a Workspace, packages: &'a [String]) -> Vec<Step<'a>> {
    let mut steps = vec![
        Step::command("fmt", "format", cargo(workspace, &["fmt", "--all", "--check"]), LIMIT),
        Step::command(
            "fmt",
            "format of the benchmarks",
            cargo(workspace, &["fmt", "--check", "--manifest-path", BENCH]),
            LIMIT,
        ),
        Step::new("generated", "generated files are fresh", |_| generated(workspace)),
        Step::new("places", "no file names a place on a machine", |_| places::check(workspace)),
        Step::new("links", "links in the documentation lead somewhere", |_| links::check(workspace)),
        Step::new("sleeps", "nothing in the core waits for real time", |_| sleeps::check(workspace)),
        Step::new("msrv", "minimum Rust version is stated and kept", |_| msrv::check(workspace)),
        Step::new("licenses", "licences, bans, sources", |bench| licenses(workspace, bench)),
        Step::new("advisories", "security advisories", |bench| advisories(workspace, bench)),
    ];
    let chosen = |package: &&Package| packages.is_empty() || packages.contains(&package.name);
    for package in workspace.libraries().filter(chosen) {
        for set in package.feature_sets() {
            let mut command = cargo(workspace, &["clippy", "--package", &package.name]);
            command.args(&set.arguments);
            // Tests, benches and examples see the two ends; in between it is the library that must build.
            if !set.alone {
                command.arg("--all-targets");
            }
            command.args(["--", "-D", "warnings"]);
            steps.push(Step::command("clippy", format!("clippy {}, {}", package.name, set.name), command, LIMIT));
        }
    }
    if packages.is_empty() {
        let everything = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
        steps.push(Step::command("clippy", "clippy workspace, all", cargo(workspace, &everything), LIMIT));
        let mut benchmarks =
            cargo(workspace, &["clippy", "--locked", "--release", "--all-targets", "--manifest-path", BENCH]);
        benchmarks.arg("--target-dir").arg(workspace.target.join("peers")).args(["--", "-D", "warnings"]);
        steps.push(Step::command("clippy", "clippy benchmarks", benchmarks, LIMIT));
        let mut command = cargo(workspace, &["doc", "--workspace", "--no-deps", "--all-features"]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        steps.push(Step::command("doc", "documentation", command, LIMIT));
    }
    for package in workspace.libraries().filter(chosen) {
        let name = format!("examples {}", package.name);
        steps.push(Step::new("examples", name, |bench| examples::check(workspace, bench, package)));
    }
    if packages.is_empty() || packages.iter().any(|package| package == wasm::PACKAGE) {
        steps.push(Step::new("wasm", "the core builds for the browser", |bench| wasm::build(workspace, bench)));
    }
    steps.push(Step::new("msrv-build", "builds with the minimum Rust version", |bench| msrv::build(workspace, bench)));
    steps
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo();
    command.args(arguments);
    command
}

fn generated(workspace: &Workspace) -> Result<Verdict, Stop> {
    let stale = codegen::stale(&workspace.root)?;
    if stale.is_empty() {
        return Ok(Verdict::passed(""));
    }
    let files: Vec<_> = stale.iter().map(|file| file.display().to_string()).collect();
    Ok(Verdict::failed("stale; refresh with `cargo xtask codegen`").details(files.join("\n")))
}

fn licenses(workspace: &Workspace, bench: &mut Bench<'_>) -> Result<Verdict, Stop> {
    let program = Component::named("cargo-deny")?.ensure(workspace, bench)?;
    let mut command = Command::new(program);
    command.current_dir(&workspace.root).args(["--offline", "--all-features", "check", "licenses", "bans", "sources"]);
    Ok(Verdict::of(bench.run(&mut command, LIMIT)?))
}

/// The advisory database is fetched from the network; where it isn't reachable, that is not this change's fault.
fn advisories(workspace: &Workspace, bench: &mut Bench<'_>) -> Result<Verdict, Stop> {
    let program = Component::named("cargo-deny")?.ensure(workspace, bench)?;
    let mut fetch = Command::new(&program);
    // Git must fail, not ask somebody for a password.
    fetch.current_dir(&workspace.root).env("GIT_TERMINAL_PROMPT", "0").args(["fetch", "db"]);
    if !bench.run(&mut fetch, FETCH_LIMIT)?.success() {
        return Ok(Verdict::skipped("NOT CHECKED: the advisory database is not reachable from here"));
    }
    let mut check = Command::new(&program);
    check.current_dir(&workspace.root).args(["--offline", "--all-features", "check", "advisories"]);
    Ok(Verdict::of(bench.run(&mut check, LIMIT)?))
}
