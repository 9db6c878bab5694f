//! The `parsercraft-guard` command: the guards at the command line. Only argument handling and printing live here.
//!
//! Exit codes: 0 well; 1 something was checked and found wrong; 2 it could not be done as asked; for `lsp`, the
//! guarded session's own code.

mod cli;

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Guards for language tooling: parsers, type checkers and language servers that survive what they are fed.
#[derive(Debug, Parser)]
#[command(name = "parsercraft-guard", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Parse or analyse files that you do not trust, in worker processes.
    #[cfg(feature = "ast")]
    Ast(cli::ast::Args),
    /// Read and verify an audit log.
    #[command(subcommand)]
    Audit(cli::audit::Verb),
    /// Run a language server behind the guard, on stdin and stdout, for an editor.
    #[cfg(feature = "lsp")]
    Lsp(cli::lsp::Args),
    /// Check whether a type conforms to a protocol, and why not.
    Protocol(cli::protocol::Args),
}

/// Why a command could not be done as asked: one line for whoever reads it.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    #[cfg(feature = "ast")]
    parsercraft_guard::ast::worker::run_if_requested();
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(tracing::Level::WARN).init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprintln!("{}", in_one_line(&error.to_string()));
            return ExitCode::from(2);
        }
        // Help and the version, which clap prints, on stdout and with 0 when they were asked for.
        Err(help) => help.exit(),
    };
    let done = match cli.command {
        #[cfg(feature = "ast")]
        Command::Ast(args) => cli::ast::run(&args),
        Command::Audit(verb) => cli::audit::run(&verb),
        #[cfg(feature = "lsp")]
        Command::Lsp(args) => cli::lsp::run(args),
        Command::Protocol(args) => cli::protocol::run(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) if cli::is_closed_pipe(failure.as_ref()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}

/// What is wrong with the arguments, without the page about all that is right.
fn in_one_line(usage_error: &str) -> String {
    let what = usage_error.split("\n\nUsage:").next().unwrap_or_default();
    let what = what.split("\n\nFor more information").next().unwrap_or_default();
    let words: Vec<&str> = what.split_whitespace().collect();
    format!("{}; see --help", words.join(" "))
}
