//! `cargo xtask bench`: the workspace's own benchmarks and how cost grows; with `--peers`, ours beside the peers in one run,
//! judged against the targets. Output goes to `target/bench`; `--save` puts a copy into `docs/benchmarks.md`.
//!
//! Times are noise on a busy machine, so they only mark targets; an allocation where none is promised fails the run.

mod build;
mod callgrind;
mod figures;
mod plot;
mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::build::Built;
use self::figures::{Criterion, Growth, Measured, Report, Verdict as Judgement};
use crate::machine::Machine;
use crate::steps::{self, Bench, Step, Summary, Verdict};
use crate::tools::Component;
use crate::workspace::{Package, Workspace};
use crate::{Stop, ui};

/// Each step takes a fraction of this on two cores.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The page that `--save` writes, and the folder of its plots.
const PAGE: &str = "docs/benchmarks.md";
const PLOTS: &str = "docs/benchmarks";

/// Benchmarks: alone, or beside the peers.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub(crate) struct Args {
    /// Measure ours beside its peers in one run, and judge the targets.
    #[arg(long)]
    peers: bool,
    /// A smoke run of seconds: everything runs, the times mean little.
    #[arg(long)]
    quick: bool,
    /// Fail when a target is not met or not measured, too.
    #[arg(long, requires = "peers")]
    strict: bool,
    /// Copy what was measured, and what is there of the other part, into docs/benchmarks.md.
    #[arg(long, conflicts_with = "quick")]
    save: bool,
    /// Only these libraries' own benchmarks.
    #[arg(long, short, value_name = "CRATE", conflicts_with = "peers")]
    package: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Measures; false when a step failed, a promise was broken or, if asked so, a target is not met.
pub(crate) fn run(args: &Args) -> Result<bool, Stop> {
    let workspace = Workspace::load(&crate::workspace::root()?)?;
    workspace.known(&args.package)?;
    let folder = Folder::make(&workspace)?;
    if args.peers { beside_peers(args, &workspace, &folder) } else { alone(args, &workspace, &folder) }
}

/// Where results go.
struct Folder {
    /// `target/bench`.
    results: PathBuf,
    logs: PathBuf,
}

impl Folder {
    fn make(workspace: &Workspace) -> Result<Self, Stop> {
        let results = workspace.target.join("bench");
        let raw = results.join("raw");
        fs::create_dir_all(&raw).map_err(|error| Stop::write(&raw, &error))?;
        Ok(Self { results, logs: workspace.target.join("xtask/bench") })
    }

    /// What a program writes, before it is put together.
    fn raw(&self, name: &str) -> PathBuf {
        self.results.join("raw").join(name)
    }

    fn write(&self, name: &str, content: &str) -> Result<(), Stop> {
        write(&self.results.join(name), content)
    }

    /// What an earlier run left, if it can be read.
    fn earlier<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        read(&self.results.join(name)).ok()
    }
}

fn write(path: &Path, content: &str) -> Result<(), Stop> {
    fs::write(path, content).map_err(|error| Stop::write(path, &error))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Stop> {
    let broken = |error: &dyn std::fmt::Display| Stop::Setup(format!("cannot read {}: {error}", path.display()));
    let text = fs::read(path).map_err(|error| broken(&error))?;
    serde_json::from_slice(&text).map_err(|error| broken(&error))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Stop> {
    serde_json::to_string_pretty(value).map_err(|error| Stop::Setup(error.to_string()))
}

/// A step that builds the programs; those after it use them.
fn build<'a>(workspace: &'a Workspace, built: &'a RefCell<Built>) -> Step<'a> {
    Step::new("build", "build ours and the peers", |bench| {
        let (verdict, programs) = build::build(workspace, bench)?;
        *built.borrow_mut() = programs;
        Ok(verdict)
    })
}

/// A step that runs one of the programs, which leaves its figures in `raw`.
fn measure<'a>(
    name: &'static str,
    built: &'a RefCell<Built>,
    program: &'static str,
    arguments: &'static [&'static str],
    raw: PathBuf,
    quick: bool,
) -> Step<'a> {
    Step::new("measure", name, move |bench| {
        // What an earlier run left must not be taken for this one's.
        drop(fs::remove_file(&raw));
        let mut command = built.borrow().program(program);
        command.args(arguments).arg("--out").arg(&raw);
        if quick {
            command.arg("--quick");
        }
        Ok(Verdict::of(bench.run(&mut command, LIMIT)?))
    })
}

fn beside_peers(args: &Args, workspace: &Workspace, folder: &Folder) -> Result<bool, Stop> {
    // Before anything is built: the load is what others do, not what we are about to.
    let machine = Machine::here(workspace);
    let built = RefCell::new(Built::default());
    let instructions = RefCell::new(BTreeMap::new());
    let (times, counts) = (folder.raw("times.json"), folder.raw("counts.json"));
    let steps = vec![
        build(workspace, &built),
        measure("allocations and memory", &built, "count", &[], counts.clone(), false),
        Step::new("measure", "instructions", |bench| {
            let (verdict, counted) = count_instructions(workspace, folder, &built.borrow(), bench)?;
            *instructions.borrow_mut() = counted;
            Ok(verdict)
        }),
        measure("times", &built, "resilience-bench", &["time"], times.clone(), args.quick),
    ];
    let summary = steps::run("bench", steps, &folder.logs)?;
    if !summary.passed() {
        return failed(&summary, args);
    }
    let report = Report::new(Measured {
        machine,
        quick: args.quick,
        times: read(&times)?,
        counts: read(&counts)?,
        instructions: instructions.into_inner(),
        left_out: built.into_inner().left_out,
        versions: build::versions(workspace)?,
    });
    folder.write("peers.json", &to_json(&report)?)?;
    folder.write("peers.md", &format!("# Ours beside its peers\n\n{}", table::peers(&report, ".")))?;
    folder.write("ratios.svg", &plot::ratios(&report))?;
    if args.json {
        anstream::println!("{}", to_json(&report)?);
    } else {
        print(&report, folder);
    }
    if args.save {
        save(workspace, &report, folder.earlier("growth.json").as_ref())?;
    }
    Ok(!report.promise_broken() && (!args.strict || report.all_met()))
}

/// The steps' own table says why.
fn failed(summary: &Summary, args: &Args) -> Result<bool, Stop> {
    summary.print(args.json)?;
    Ok(false)
}

fn print(report: &Report, folder: &Folder) {
    let text = ui::table(&table::cases(report));
    anstream::println!("\n{text}");
    let judged = table::targets(report);
    let head = table::TARGETS_HEAD.map(str::to_owned).to_vec();
    let lines: Vec<_> = std::iter::once(head).chain(judged.iter().map(|(line, _)| line.clone())).collect();
    let text = ui::table(&lines);
    let mut lines = text.lines();
    anstream::println!("{}", ui::paint(ui::BOLD, lines.next().unwrap_or_default()));
    for ((_, verdict), line) in judged.iter().zip(lines) {
        let style = match verdict {
            Judgement::Met => ui::GOOD,
            Judgement::NotMet => ui::BAD,
            Judgement::NotMeasured => ui::NOTE,
        };
        anstream::println!("{}", ui::paint(style, line));
    }
    anstream::println!();
    for remark in table::remarks(report) {
        anstream::println!("{}", ui::paint(ui::NOTE, &remark));
    }
    let of = |wanted| judged.iter().filter(|(_, verdict)| *verdict == wanted).count();
    let (met, not_met, unknown) = (of(Judgement::Met), of(Judgement::NotMet), of(Judgement::NotMeasured));
    anstream::println!("written: peers.md, peers.json, ratios.svg in {}", folder.results.display());
    let style = if not_met + unknown == 0 { ui::GOOD } else { ui::NOTE };
    anstream::println!("{}", ui::paint(style, &format!("{met} met, {not_met} not met, {unknown} not measured")));
}

/// Instructions a call, by callgrind; a skip when it is not here and can't be got.
fn count_instructions(
    workspace: &Workspace,
    folder: &Folder,
    built: &Built,
    bench: &mut Bench<'_>,
) -> Result<(Verdict, BTreeMap<String, f64>), Stop> {
    let valgrind = match Component::named("valgrind")?.ensure(workspace, bench) {
        Ok(program) => program,
        Err(Stop::Setup(line)) => {
            return Ok((Verdict::skipped("NOT COUNTED: valgrind is missing").details(line), BTreeMap::new()));
        }
        Err(stop) => return Err(stop),
    };
    let parts = folder.raw("callgrind");
    if parts.exists() {
        fs::remove_dir_all(&parts).map_err(|error| Stop::write(&parts, &error))?;
    }
    fs::create_dir_all(&parts).map_err(|error| Stop::write(&parts, &error))?;
    let (out, runs) = (parts.join("part"), folder.raw("instructions.json"));
    let mut command = std::process::Command::new(valgrind);
    command.args(["--tool=callgrind", "--dump-before=*counted_run*"]);
    command.arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(built.path("resilience-bench")).args(["instructions", "--out"]).arg(&runs);
    let ended = bench.run(&mut command, LIMIT)?;
    if !ended.success() {
        return Ok((Verdict::of(ended), BTreeMap::new()));
    }
    let counted = callgrind::per_call(&read(&runs)?, |number| callgrind::read(&out, number));
    let verdict = if counted.is_empty() {
        Verdict::failed("the profiler's parts don't match the runs")
    } else {
        Verdict::passed(format!("{} cases", counted.len()))
    };
    Ok((verdict, counted))
}

fn alone(args: &Args, workspace: &Workspace, folder: &Folder) -> Result<bool, Stop> {
    let machine = Machine::here(workspace);
    let built = RefCell::new(Built::default());
    let criterion = RefCell::new(Vec::new());
    let plots = folder.raw("growth.json");
    let chosen =
        |package: &&Package| has_benches(package) && (args.package.is_empty() || args.package.contains(&package.name));
    let mut steps: Vec<_> =
        workspace.members().filter(chosen).map(|package| own(workspace, package, args.quick, &criterion)).collect();
    steps.push(build(workspace, &built));
    steps.push(measure("how cost grows", &built, "resilience-bench", &["growth"], plots.clone(), args.quick));
    let summary = steps::run("bench", steps, &folder.logs)?;
    if !summary.passed() {
        return failed(&summary, args);
    }
    let grown = Growth { machine, quick: args.quick, plots: read(&plots)?, criterion: criterion.into_inner() };
    folder.write("growth.json", &to_json(&grown)?)?;
    folder.write("growth.md", &format!("# How cost grows\n\n{}", table::growth(&grown, ".")))?;
    for plot in &grown.plots {
        folder.write(&format!("{}.svg", plot.id), &plot::growth(plot))?;
    }
    if args.json {
        anstream::println!("{}", to_json(&grown)?);
    } else {
        anstream::println!("\n{}", table::growth(&grown, "."));
        anstream::println!(
            "written: growth.md, growth.json, {} plots in {}",
            grown.plots.len(),
            folder.results.display()
        );
    }
    if args.save {
        let Some(report) = folder.earlier("peers.json").filter(|report: &Report| !report.quick) else {
            return Err(Stop::Setup("--save needs both parts; run `cargo xtask bench --peers --save` as well".into()));
        };
        save(workspace, &report, Some(&grown))?;
    }
    Ok(true)
}

fn has_benches(package: &Package) -> bool {
    package.manifest_path.parent().is_some_and(|folder| folder.join("benches").is_dir())
}

/// One package's own benchmarks.
fn own<'a>(
    workspace: &'a Workspace,
    package: &'a Package,
    quick: bool,
    found: &'a RefCell<Vec<Criterion>>,
) -> Step<'a> {
    Step::new("own", format!("benchmarks of {}", package.name), move |bench| {
        let mut command = workspace.cargo();
        command.args(["bench", "--package", &package.name, "--all-features", "--bench", "*"]);
        if quick {
            command.args(["--", "--quick"]);
        }
        let ended = bench.run(&mut command, LIMIT)?;
        let times = criterion(&bench.output());
        let note = format!("{} benchmarks", times.len());
        found.borrow_mut().extend(times);
        Ok(if ended.success() { Verdict::passed(note) } else { Verdict::of(ended) })
    })
}

/// The estimates that criterion printed: a name, then on its line or on the next `time: [low middle high]`.
fn criterion(output: &str) -> Vec<Criterion> {
    let mut found = Vec::new();
    let mut before = "";
    for line in output.lines() {
        if let Some((name, times)) = line.split_once("time:   [") {
            let words: Vec<&str> = times.split_whitespace().collect();
            let name = if name.trim().is_empty() { before.trim() } else { name.trim() };
            if let [_, _, middle, unit, ..] = words[..] {
                found.push(Criterion { name: name.to_owned(), time: format!("{middle} {unit}") });
            }
        }
        before = line;
    }
    found
}

/// Writes the page and its plots.
fn save(workspace: &Workspace, report: &Report, grown: Option<&Growth>) -> Result<(), Stop> {
    let grown = grown.filter(|grown| !grown.quick);
    let plots = workspace.root.join(PLOTS);
    fs::create_dir_all(&plots).map_err(|error| Stop::write(&plots, &error))?;
    write(&plots.join("ratios.svg"), &plot::ratios(report))?;
    for plot in grown.iter().flat_map(|grown| &grown.plots) {
        write(&plots.join(format!("{}.svg", plot.id)), &plot::growth(plot))?;
    }
    write(&workspace.root.join(PAGE), &table::page(report, grown))?;
    anstream::eprintln!("saved: {PAGE} and its plots; commit them");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterions_estimates_are_read_with_short_names_and_with_long_ones() {
        let output = "\
breaker/open            time:   [31.000 ns 31.400 ns 32.000 ns]
                        change: [-1.0% +0.1% +1.2%] (p = 0.90 > 0.05)
breaker/closed, failures in a row, success
                        time:   [1.3000 µs 1.3500 µs 1.4000 µs]
Found 3 outliers among 100 measurements (3.00%)
";
        let read: Vec<_> = criterion(output).into_iter().map(|it| (it.name, it.time)).collect();
        let expected = [("breaker/open", "31.400 ns"), ("breaker/closed, failures in a row, success", "1.3500 µs")];
        assert_eq!(read, expected.map(|(name, time)| (name.to_owned(), time.to_owned())));
    }
}
