//! `parsercraft-guard ast`: files through the AST guard, in worker processes.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use parsercraft_guard::Toolchain;
use parsercraft_guard::ast::{AstError, Languages, Operation, Output, WorkerPool};
use parsercraft_guard::defaults;
use serde_json::json;

use crate::Failure;

/// The arguments of `ast`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// What to do: parse, infer_types, control_flow, generate_c, generate_wasm.
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
    let toolchain = Toolchain::builder()
        .policies(|policies| {
            policies
                .limiter(defaults::AST_ANALYSIS, |it| it.rate(1_000_000, std::time::Duration::from_secs(1)).burst(1_000_000))
                .map(drop)
        })
        .ast(Languages::builtin(), WorkerPool::builder().build()?)
        .build()?;
    let guard = toolchain.ast().ok_or("the AST guard was not built")?;
    let mut out = std::io::stdout().lock();
    let mut accepted = true;
    for file in &args.files {
        let source = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let result = guard.run(args.operation, &args.language, &source);
        if let Err(error @ (AstError::UnknownLanguage { .. } | AstError::Unsupported { .. })) = result {
            return Err(error.into());
        }
        accepted &= result.is_ok();
        print(&mut out, file, result.as_deref(), args.json)?;
    }
    Ok(u8::from(!accepted))
}

fn print(out: &mut impl Write, file: &Path, result: Result<&Output, &AstError>, as_json: bool) -> std::io::Result<()> {
    let name = file.display().to_string();
    match (result, as_json) {
        (Ok(output), true) => writeln!(out, "{}", json!({ "file": name, "ok": true, "output": output })),
        (Err(error), true) => writeln!(out, "{}", json!({ "file": name, "ok": false, "error": error.to_string() })),
        (Err(error), false) => writeln!(out, "{name}: {error}"),
        (Ok(Output::Summary(summary)), false) => {
            writeln!(out, "{name}: ok, {} functions, {} tokens", summary.functions, summary.tokens)
        }
        (Ok(output), false) => writeln!(out, "{name}: {output:?}"),
    }
}
