//! The workspace's workflows, as plain Rust: `cargo xtask` lists them.
//!
//! Exit codes: 0 all well; 1 something was checked and found wrong; 2 the work could not be done as asked (usage, set-up);
//! 128 + n when stopped by signal n.

mod bench;
mod ci;
mod codegen;
#[cfg(feature = "drill")]
mod drill;
mod machine;
mod page;
mod process;
mod prove;
mod steps;
mod test;
mod tools;
mod torture;
mod ui;
mod workspace;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

/// Workflows of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true, version)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure what calls cost and how that grows; --peers: beside other crates, against the targets.
    Bench(bench::Args),
    /// Check format, lints over all feature sets, docs, generated files, minimum Rust version and licences.
    Ci(ci::Args),
    /// Generate constants and reference pages from docs/catalog (--check: only say what is stale).
    Codegen(codegen::Args),
    /// Run the guarded toolchain on real input while faults are injected, and write a report (--seed N repeats a run).
    #[cfg(feature = "drill")]
    Drill(drill::Args),
    /// Show what the core claims: models, properties, a simulated fleet, fuzzing, Miri; on request, mutants.
    Prove(prove::Args),
    /// Run every test there is, with its own set-up: suites, models, drill, report in a browser.
    Test(test::Args),
    /// Do the same cruel thing many times (audit: SIGKILL to a loaded writer) and tell what was lost.
    Torture(torture::Args),
}

/// The verbs' groups, for the list.
const GROUPS: &[(&str, &[&str])] = &[
    ("run", &["drill"]),
    ("measure", &["bench"]),
    ("check", &["ci", "prove", "test", "torture"]),
    ("generate", &["codegen"]),
];

/// Why a workflow could not do its work (as opposed to doing it and finding something wrong).
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// One line that says what is wrong and what to do. Inside a list of steps it fails that step only.
    #[error("{0}")]
    Setup(String),
    /// As [`Stop::Setup`], but nothing that follows would make sense.
    #[error("{0}")]
    Missing(String),
    /// A signal asked us to stop; children are stopped already.
    #[error("stopped by signal {0}; what it had started is stopped too")]
    Interrupted(i32),
}

impl Stop {
    /// `path` can't be written.
    fn write(path: &Path, error: &std::io::Error) -> Self {
        let path = path.display();
        Self::Setup(format!(
            "cannot write {path}: {error}; make it writable, or choose another folder (CARGO_TARGET_DIR)"
        ))
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Setup(_) | Self::Missing(_) => 2,
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(130),
        }
    }
}

fn main() -> ExitCode {
    // The drill starts this program again, as the guarded process, its workers and its language server.
    #[cfg(feature = "drill")]
    if let Some(code) = drill::run_role() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let done = match &cli.verb {
        None => {
            anstream::print!("{}", verbs());
            Ok(true)
        }
        Some(Verb::Bench(args)) => bench::run(args),
        Some(Verb::Ci(args)) => ci::run(args),
        Some(Verb::Codegen(args)) => codegen::run(args),
        #[cfg(feature = "drill")]
        Some(Verb::Drill(args)) => drill::run(args),
        Some(Verb::Prove(args)) => prove::run(args),
        Some(Verb::Test(args)) => test::run(args),
        Some(Verb::Torture(args)) => torture::run(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(stop) => {
            anstream::eprintln!("{}: {stop}", ui::paint(ui::BAD, "error"));
            ExitCode::from(stop.exit_code())
        }
    }
}

/// Help and version are no errors; for an unknown verb one line says more than a page of usage.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::InvalidSubcommand {
        let verb = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
        anstream::eprintln!("{}: there is no verb `{verb}`; `cargo xtask` lists them", ui::paint(ui::BAD, "error"));
        return ExitCode::from(2);
    }
    if error.use_stderr() {
        let text = error.to_string();
        // What follows the message is a page of usage.
        let what = text.split("\n\nUsage:").next().and_then(|text| text.split("\n\nFor more").next()).unwrap_or(&text);
        let words: Vec<&str> = what.trim_start_matches("error: ").split_whitespace().collect();
        anstream::eprintln!("{}: {}; `cargo xtask` lists the verbs", ui::paint(ui::BAD, "error"), words.join(" "));
        return ExitCode::from(2);
    }
    // A closed pipe while printing help is nobody's problem.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The list of verbs, by group, one line each.
fn verbs() -> String {
    let command = Cli::command();
    let mut text = "cargo xtask <verb> [options]; `cargo xtask <verb> --help` tells its options\n".to_owned();
    for (group, names) in GROUPS {
        let _ = writeln!(text, "\n{}", ui::paint(ui::BOLD, group));
        for name in *names {
            let about = command.find_subcommand(name).and_then(|verb| verb.get_about()).map(ToString::to_string);
            let _ = writeln!(text, "  {name:<9} {}", about.unwrap_or_default());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_exactly_one_group_in_order() {
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert!(GROUPS.iter().all(|(_, names)| names.is_sorted()));
        listed.sort_unstable();
        let command = Cli::command();
        let mut known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        known.sort_unstable();
        assert_eq!(listed, known);
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
