//! The fuzz targets of the core, built without cargo-fuzz: libFuzzer is linked in, and the compiler is told to count
//! branches. Where there is no nightly toolchain, the same checks are made by proptest, and the step says so.

use std::time::Duration;

use super::nightly;
use crate::Stop;
use crate::steps::{Bench, Step, Verdict};
use crate::workspace::Workspace;

/// Building libFuzzer and the targets' dependencies, cold.
const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);
const RUN_LIMIT: Duration = Duration::from_secs(3 * 60);

const TARGETS: &[&str] = &["configuration", "retry_after", "traceparent", "units"];
/// Runs of each target, or this many seconds, whichever is over first.
const RUNS: u32 = 1_000_000;
const SECONDS: u32 = 20;
/// Cases of each property in place of a fuzzer.
const CASES: u32 = 20_000;

/// What cargo-fuzz passes, without an address sanitizer: the core has no unsafe code to sanitise.
const COVERAGE: &str = "--cfg fuzzing -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

pub(super) fn plan(workspace: &Workspace) -> Vec<Step<'_>> {
    let Some(host) = host(workspace) else {
        let mut command = workspace.cargo();
        command.env("PROPTEST_CASES", CASES.to_string()).args([
            "test",
            "--package",
            "resilience-core",
            "--features",
            "http,serde",
            "--test",
            "fuzzed",
        ]);
        let name = format!("no nightly toolchain: {CASES} cases by proptest in place of a fuzzer");
        return vec![crate::test::suite("fuzz", name, command)];
    };
    let mut steps = vec![{
        let host = host.clone();
        Step::new("fuzz", "the fuzz targets build", move |bench| build(workspace, bench, &host))
    }];
    for target in TARGETS {
        let host = host.clone();
        steps.push(Step::new("fuzz", format!("fuzz: {target}"), move |bench| run(workspace, bench, &host, target)));
    }
    steps
}

/// The triple that nightly builds for, if there is a nightly.
fn host(workspace: &Workspace) -> Option<String> {
    let mut command = nightly(workspace, &["cargo", "--version"], &["rustc", "-vV"])?;
    let output = command.output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().find_map(|line| line.strip_prefix("host: ")).map(ToOwned::to_owned)
}

fn folder(workspace: &Workspace) -> std::path::PathBuf {
    workspace.target.join("fuzz")
}

fn build(workspace: &Workspace, bench: &mut Bench<'_>, host: &str) -> Result<Verdict, Stop> {
    let arguments =
        ["cargo", "build", "--release", "--manifest-path", "resilience-core/fuzz/Cargo.toml", "--target", host];
    let Some(mut command) = nightly(workspace, &["cargo", "--version"], &arguments) else {
        return Ok(Verdict::failed("the nightly toolchain is gone"));
    };
    // With a target named, build scripts and macros are not built for counting.
    command.env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", folder(workspace));
    Ok(Verdict::of(bench.run(&mut command, BUILD_LIMIT)?))
}

fn run(workspace: &Workspace, bench: &mut Bench<'_>, host: &str, target: &str) -> Result<Verdict, Stop> {
    let program = folder(workspace).join(host).join("release").join(target);
    if !program.is_file() {
        return Ok(Verdict::skipped("NOT PROVEN: it was not built"));
    }
    let corpus = workspace.target.join("prove/corpus").join(target);
    std::fs::create_dir_all(&corpus).map_err(|error| Stop::write(&corpus, &error))?;
    let mut command = std::process::Command::new(program);
    command
        .arg(&corpus)
        .arg(workspace.root.join("resilience-core/fuzz/seeds").join(target))
        .args([format!("-runs={RUNS}"), format!("-max_total_time={SECONDS}"), "-max_len=1024".to_owned()])
        .args(["-print_final_stats=1".to_owned(), format!("-artifact_prefix={}/found-", corpus.display())])
        .current_dir(&workspace.root);
    let ended = bench.run(&mut command, RUN_LIMIT)?;
    let output = bench.output();
    let figure = |name: &str| {
        output
            .lines()
            .find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if !ended.success() {
        return Ok(Verdict::of(ended));
    }
    Ok(match figure("number_of_executed_units") {
        Some(runs) => Verdict::passed(format!("{runs} runs, {} kept", figure("new_units_added").unwrap_or("none"))),
        None => Verdict::failed("it says of no run"),
    })
}
