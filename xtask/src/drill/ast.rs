//! The AST stage: thousands of real Rust files, and hostile ones among them, through worker processes.
//! Nothing may take this process down, and no hostile file may harm the real ones.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parsercraft_guard::ast::{AstError, Cancel, InProcess, Language, Languages, Operation, Rust, hostile};
use resilience_core::BreakerState;

use super::guarded::{Bench, Trouble, wait_until, without_limits};
use super::line::{Findings, Stage};
use super::sources::LEAST;
use super::{Guard, ROLE, UNGUARDED};

const STAGE: Stage = Stage::Ast;
/// Files sent to a worker at a time.
const BATCH: usize = 16;
/// Parentheses that a 10 KB file can nest, and that overflow an unguarded parser's stack.
const DEPTH: usize = 5_000;

#[derive(Default)]
struct Tally {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    over_limit: AtomicUsize,
    faults: AtomicUsize,
    bytes: AtomicUsize,
    done: AtomicUsize,
}

pub(super) fn run(bench: &Bench) -> Result<Findings, Trouble> {
    let (mut findings, mut among_them) = (Findings::default(), Findings::default());
    unguarded(&mut findings)?;
    // Both at once, through the same two workers: the hostile files come in among the real ones.
    let (real, hostile) = std::thread::scope(|scope| {
        let hostile = scope.spawn(|| hostile_files(bench, &mut among_them));
        let real = real_files(bench, &mut findings);
        (real, hostile.join().unwrap_or_else(|_| Err("the thread with the hostile files panicked".into())))
    });
    real.and(hostile)?;
    findings.checks.append(&mut among_them.checks);
    findings.figures.append(&mut among_them.figures);
    bombs(bench, &mut findings)?;
    outage(bench, &mut findings)?;
    Ok(findings)
}

/// A 10 KB file that ends a process which parses it without a guard.
fn bomb() -> String {
    format!("fn f() {{ let x = {}1{}; }}", "(".repeat(DEPTH), ")".repeat(DEPTH))
}

/// The body of a process that has no guard.
pub(super) fn parse_unguarded() -> u8 {
    u8::from(Rust.run(Operation::Parse, &bomb(), &Cancel::new()).is_err())
}

/// What the guard is for: the same parser without it, in a process of its own.
fn unguarded(findings: &mut Findings) -> Result<(), Trouble> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program);
    let status =
        child.env(ROLE, UNGUARDED).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let what = format!("without a guard, a file of {} KB ends the process", bomb().len() / 1000);
    findings.check(status.signal().is_some(), what, status);
    Ok(())
}

fn real_files(bench: &Bench, findings: &mut Findings) -> Result<(), Trouble> {
    let guard = bench.toolchain.ast().ok_or("no AST guard")?;
    let sources = &bench.orders.sources;
    let (tally, begun) = (Tally::default(), Instant::now());
    let next = AtomicUsize::new(0);
    let latencies = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let start = next.fetch_add(BATCH, Ordering::Relaxed);
                    let Some(paths) = sources.get(start..sources.len().min(start + BATCH)) else { return };
                    if paths.is_empty() {
                        return;
                    }
                    let batch: Vec<Vec<u8>> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
                    let size: usize = batch.iter().map(Vec::len).sum();
                    let sent = Instant::now();
                    for result in guard.run_batch(Operation::Parse, "rust", &batch) {
                        let counter = match result {
                            Ok(_) => &tally.accepted,
                            Err(AstError::Refused(_)) => &tally.refused,
                            Err(AstError::Limit(_)) => &tally.over_limit,
                            Err(_) => &tally.faults,
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    let milliseconds = sent.elapsed().as_secs_f64() * 1e3;
                    let kilobytes = size as f64 / 1024.0;
                    lock(&latencies).push((kilobytes, milliseconds));
                    tally.bytes.fetch_add(size, Ordering::Relaxed);
                    let done = tally.done.fetch_add(paths.len(), Ordering::Relaxed) + paths.len();
                    bench.progress(STAGE, done, sources.len());
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let (accepted, faults) = (read(&tally.accepted), read(&tally.faults));
    findings.check(faults == 0, "no real file makes a parser fail", format!("{faults} faults"));
    let share = accepted as f64 / sources.len().max(1) as f64;
    findings.check(
        share > 0.95 && sources.len() >= LEAST,
        "at least 1 000 real files, more than 95 % of them accepted",
        format!("{accepted} of {} ({:.1} %)", sources.len(), share * 100.0),
    );
    findings.figure("real files parsed", sources.len());
    findings.figure("accepted / refused / over a limit", {
        format!("{accepted} / {} / {}", read(&tally.refused), read(&tally.over_limit))
    });
    findings.figure(
        "throughput",
        format!("{:.1} MB/s, {:.0} files/s", read(&tally.bytes) as f64 / 1e6 / seconds, sources.len() as f64 / seconds),
    );
    findings.series.insert("batch_ms_by_kb".into(), thin(lock(&latencies).clone()));
    same_answers(bench, findings)
}

/// What workers answer is what the parser says when it is asked directly.
fn same_answers(bench: &Bench, findings: &mut Findings) -> Result<(), Trouble> {
    let guard = bench.toolchain.ast().ok_or("no AST guard")?;
    let direct = InProcess::builder().build(Languages::builtin())?;
    let (mut compared, mut different) = (0, 0);
    for path in bench.orders.sources.iter().step_by((bench.orders.sources.len() / 100).max(1)) {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let (Ok(guarded), Ok(Ok(plain))) =
            (guard.run(Operation::Parse, "rust", &text), direct.run("rust", Operation::Parse, &text))
        else {
            continue;
        };
        compared += 1;
        different += usize::from(*guarded != plain);
    }
    findings.check(
        compared >= 50 && different == 0,
        "workers answer what the parser answers when asked directly",
        format!("{different} of {compared} differ"),
    );
    Ok(())
}

/// Every kind of hostile source against the limits: a typed error or a result, each time.
fn hostile_files(bench: &Bench, findings: &mut Findings) -> Result<(), Trouble> {
    let guard = bench.toolchain.ast().ok_or("no AST guard")?;
    if bench.is_broken(Guard::Ast) {
        // Without the guard this ends the process, which is the point.
        let survived = parse_unguarded();
        findings.check(false, "an unguarded parser survives", survived);
    }
    bench.fault(STAGE, "hostile files")?;
    let (mut sent, mut stopped, mut reached_a_parser) = (0_usize, 0_usize, 0_usize);
    for sample in hostile::corpus(DEPTH) {
        sent += 1;
        match guard.run(Operation::Parse, "rust", &sample.source) {
            Err(AstError::Limit(_)) => stopped += 1,
            Ok(_) | Err(AstError::Refused(_)) => {}
            Err(_) => reached_a_parser += 1,
        }
    }
    findings.check(
        sent >= 100 && reached_a_parser == 0,
        "limits stop every hostile file before it harms a parser",
        format!("{sent} sent, {stopped} stopped, {reached_a_parser} harmed a worker"),
    );
    findings.figure("hostile files", sent);
    if reached_a_parser > 0 {
        return Ok(());
    }
    bench.recovered(STAGE, "hostile files")
}

/// The same without limits: workers die, the calls get typed errors, a bomb is not let in twice.
fn bombs(bench: &Bench, findings: &mut Findings) -> Result<(), Trouble> {
    let guard = bench.toolchain.ast().ok_or("no AST guard")?;
    let open = without_limits(&bench.toolchain, guard.isolation())?;
    let nested = format!("fn f() {{ let x = {}1{}; }}", "(".repeat(400_000), ")".repeat(400_000));
    let bombs = [
        ("rust", nested.as_str(), "400 000 nested parentheses"),
        ("misbehaving", "recurse", "endless recursion"),
        ("misbehaving", "abort", "abort"),
        ("misbehaving", "panic", "panic"),
        ("misbehaving", "loop", "endless loop"),
        ("misbehaving", "hog", "memory bomb"),
        ("misbehaving", "exit", "exit"),
    ];
    let (mut died, mut refused, mut others) = (0, 0, 0);
    let mut kinds = Vec::new();
    for (language, source, what) in bombs {
        bench.fault(STAGE, what)?;
        match open.run(Operation::Parse, language, source) {
            Err(AstError::Fault(fault)) => {
                died += 1;
                kinds.push(format!("{what}: {fault}"));
            }
            other => kinds.push(format!("{what}: NOT a fault: {:?}", other.map(drop))),
        }
        refused += u32::from(matches!(open.run(Operation::Parse, language, source), Err(AstError::Poisoned { .. })));
        // A real file right after it is parsed as if nothing had happened, and its success keeps the breaker closed.
        if open.run(Operation::Parse, "rust", format!("fn after_{died}() {{}}")).is_ok() {
            others += 1;
            bench.recovered(STAGE, what)?;
        }
    }
    findings.check(died == bombs.len(), "every bomb is a typed error", kinds.join("; "));
    findings.check(refused == 7, "no bomb is let in a second time", format!("{refused} of 7 refused"));
    findings.check(others == 7, "the file after a bomb is parsed", format!("{others} of 7"));
    Ok(())
}

/// A parser that fails each time: the breaker opens, and closes again when the parser works.
fn outage(bench: &Bench, findings: &mut Findings) -> Result<(), Trouble> {
    let guard = bench.toolchain.ast().ok_or("no AST guard")?;
    bench.fault(STAGE, "a parser that fails every time")?;
    for number in 0..20 {
        // Different sources: the poison list knows the ones before.
        let _ = guard.run(Operation::Parse, "misbehaving", format!("panic {number}"));
    }
    findings.check(guard.breaker().state() == BreakerState::Open, "the breaker opens", guard.breaker().state());
    let rejected = matches!(guard.run(Operation::Parse, "rust", "fn late() {}"), Err(AstError::Rejected(_)));
    findings.check(rejected, "calls are refused while it is open", rejected);
    let mut number = 0;
    let closed = wait_until(|| {
        number += 1;
        let _ = guard.run(Operation::Parse, "rust", format!("fn probe_{number}() {{}}"));
        guard.breaker().state() == BreakerState::Closed
    });
    findings.check(closed, "the breaker closes when the parser works again", guard.breaker().state());
    if !closed {
        return Ok(());
    }
    bench.recovered(STAGE, "a parser that fails every time")
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// At most 400 of the points: more would not be seen.
pub(super) fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(400).max(1);
    points.into_iter().step_by(step).collect()
}
