//! `resilience-bench time | growth | instructions | list`: measures, and writes JSON to the file named by `--out`; progress
//! goes to standard error. Run by `cargo xtask bench`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use resilience_bench::timing::{Plan, Timed};
use resilience_bench::{Case, Failed, Prepared, cases, growth, prepare, rows, threads, timing};
use serde::Serialize;

/// Calls of the two runs whose instructions are counted; their difference has no set-up in it.
const COUNTED: [u64; 2] = [200, 1_200];

/// What `time` writes.
#[derive(Serialize)]
struct Times {
    rows: &'static [rows::Row],
    cases: Vec<Described>,
    /// By number of threads, then by case.
    nanos: BTreeMap<usize, BTreeMap<String, Timed>>,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Described {
    id: String,
    row: &'static str,
    who: &'static str,
    package: Option<&'static str>,
}

impl From<&Case> for Described {
    fn from(case: &Case) -> Self {
        Self { id: case.id(), row: case.row, who: case.who, package: case.package }
    }
}

/// What `instructions` writes: the order in which the profiler's parts come.
#[derive(Serialize)]
struct Counted {
    calls: [u64; 2],
    cases: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (verb, out, quick) = match arguments[..] {
        [verb, "--out", out] => (verb, out, false),
        [verb, "--out", out, "--quick"] | [verb, "--quick", "--out", out] => (verb, out, true),
        _ => return usage(),
    };
    let written = match verb {
        "time" => write(out, &time(quick)),
        "growth" => {
            let plan = if quick { plan(3, 300) } else { plan(40, 2_000) };
            write(out, &growth::all(plan, quick, |what| eprintln!("{what}")))
        }
        "instructions" => write(out, &instructions()),
        _ => return usage(),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {out}: {error}");
            ExitCode::from(2)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: resilience-bench time|growth|instructions --out FILE [--quick]; or use `cargo xtask bench`");
    ExitCode::from(2)
}

fn plan(rounds: u32, slice_micros: u64) -> Plan {
    Plan { rounds, slice: Duration::from_micros(slice_micros) }
}

/// Sets all cases up; those that don't do their work are told apart.
fn prepared(cases: Vec<Case>) -> (Vec<Prepared>, Vec<Failed>) {
    // The panic is caught and reported; its backtrace would say nothing more.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut good, mut failed) = (Vec::new(), Vec::new());
    for case in cases {
        match prepare(case) {
            Ok(case) => good.push(case),
            Err(reason) => failed.push(reason),
        }
    }
    let _ = std::panic::take_hook();
    (good, failed)
}

fn time(quick: bool) -> Times {
    let all = cases();
    let described = all.iter().map(Described::from).collect();
    let (good, mut failed) = prepared(all);
    let mut times = BTreeMap::new();
    let said = |threads: usize, rounds: u32| {
        move |round: u32| {
            if round.is_multiple_of(10) {
                eprintln!("{threads} threads: round {round} of {rounds}");
            }
        }
    };
    let alone = if quick { plan(5, 200) } else { plan(100, 2_000) };
    times.insert(1, timing::alone(&good, alone, said(1, alone.rounds)));
    let shared = |case: &Prepared| rows::ROWS.iter().any(|row| row.id == case.case.row && row.shared);
    let (shared, others): (Vec<Prepared>, Vec<Prepared>) = good.into_iter().partition(shared);
    for (count, full) in [(2, plan(250, 2_000)), (4, plan(8, 40_000))] {
        let plan = if quick { plan(5, 300) } else { full };
        times.insert(count, threads::together(&shared, count, plan, said(count, plan.rounds)));
    }
    failed.extend(shared.iter().chain(&others).filter_map(Prepared::wrong));
    Times { rows: rows::ROWS, cases: described, nanos: times, failed }
}

/// Runs each case twice in a function at whose entry the profiler is told to write down what it counted: each part is one
/// run. A last entry ends the last part.
fn instructions() -> Counted {
    let (good, _) = prepared(cases());
    for case in &good {
        for calls in COUNTED {
            case.counted_run(calls);
        }
    }
    if let Some(case) = good.first() {
        case.counted_run(1);
    }
    Counted { calls: COUNTED, cases: good.iter().map(|case| case.case.id()).collect() }
}

fn write(path: &str, content: &impl Serialize) -> std::io::Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(content)?)
}
