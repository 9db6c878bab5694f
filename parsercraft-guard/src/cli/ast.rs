//! `parsercraft-guard ast`: files through the AST guard, in worker processes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use parsercraft_guard::Toolchain;
use parsercraft_guard::ast::{AstError, AstGuard, Languages, LimitExceeded, Limits, Operation, Output, WorkerPool};
use parsercraft_guard::defaults;
use resilience_core::Classify;
use serde_json::json;

use super::unless_closed;
use crate::Failure;

/// The arguments of `ast`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[arg(help = "What to do: parse, infer_types, control_flow, generate_c, generate_wasm")]
    operation: Operation,
    /// The files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Their language.
    #[arg(long, default_value = "rust")]
    language: String,
    /// Print one JSON object per file.
    #[arg(long)]
    json: bool,
}

/// 0 when every file was accepted, 1 when one was not.
pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    // A person at the command line is no tenant that could flood the machine: the rate is as good as unlimited.
    let (calls, second) = (1_000_000, Duration::from_secs(1));
    let toolchain = Toolchain::builder()
        .policies(move |policies| {
            policies.limiter(defaults::AST_ANALYSIS, |it| it.rate(calls, second).burst(calls)).map(drop)
        })
        .ast(Languages::builtin(), WorkerPool::builder().build()?)
        .build()?;
    let guard = toolchain.ast().ok_or("the AST guard was not built")?;
    let mut out = io::stdout().lock();
    let mut accepted = true;
    for file in &args.files {
        let result = run_file(guard, args, file)?;
        if let Err(error @ (AstError::UnknownLanguage { .. } | AstError::Unsupported { .. })) = result {
            return Err(error.into());
        }
        accepted &= result.is_ok();
        unless_closed(print(&mut out, file, result.as_deref(), args.json))?;
    }
    Ok(u8::from(!accepted))
}

/// The inner result is about the file's content, the outer one about the file.
fn run_file(guard: &AstGuard, args: &Args, file: &Path) -> Result<Result<Arc<Output>, AstError>, Failure> {
    let allowed = Limits::default().bytes;
    let (source, bytes) =
        read_at_most(file, allowed).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(match bytes {
        Some(bytes) => Err(LimitExceeded::Bytes { bytes, allowed }.into()),
        None => guard.run(args.operation, &args.language, &source),
    })
}

/// The file's content; and how long it is if that is more than `allowed`. A file without an end is not read to it.
fn read_at_most(path: &Path, allowed: usize) -> io::Result<(Vec<u8>, Option<usize>)> {
    let file = File::open(path)?;
    let announced = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut source = Vec::with_capacity(announced.min(allowed));
    file.take(allowed as u64 + 1).read_to_end(&mut source)?;
    let bytes = (source.len() > allowed).then(|| source.len().max(announced));
    Ok((source, bytes))
}

fn print(out: &mut impl Write, file: &Path, result: Result<&Output, &AstError>, as_json: bool) -> io::Result<()> {
    let name = file.display().to_string();
    match (result, as_json) {
        (Ok(output), true) => writeln!(out, "{}", json!({ "file": name, "ok": true, "output": output })),
        (Err(error), true) => {
            let (category, error) = (error.class().category, error.to_string());
            writeln!(out, "{}", json!({ "file": name, "ok": false, "category": category, "error": error }))
        }
        (Err(error), false) => writeln!(out, "{name}: {error}"),
        (Ok(Output::Summary(summary)), false) => {
            writeln!(out, "{name}: ok, {} functions, {} tokens", summary.functions, summary.tokens)
        }
        (Ok(Output::ControlFlow(functions)), false) => functions.iter().try_for_each(|it| {
            let what = format!("{} branches, {} loops, complexity {}", it.branches, it.loops, it.cyclomatic);
            writeln!(out, "{name}:{}: {}: {what}, {} deep", it.line, it.name, it.depth)?;
            it.unreachable.iter().try_for_each(|line| writeln!(out, "{name}:{line}: never reached"))
        }),
        // What the built-in languages do not offer yet is at least printed in full.
        (Ok(output), false) => writeln!(out, "{name}: {}", json!(output)),
    }
}
