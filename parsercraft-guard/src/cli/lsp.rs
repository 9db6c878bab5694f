//! `parsercraft-guard lsp`: a guarded language server on stdin and stdout.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use parsercraft_guard::lsp::{LspConfig, ServerCommand, run_stdio};
use resilience_audit::{AuditLog, AuditObserver};
use resilience_core::Observers;
use resilience_health::shutdown::{Handler, Shutdown, Signals};

use crate::Failure;

/// The arguments of `lsp`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Keep an audit log of crashes, restarts and refusals in this directory.
    #[arg(long)]
    audit: Option<PathBuf>,
    /// The language server and its arguments, after `--`.
    #[arg(required = true, last = true)]
    server: Vec<OsString>,
}

/// The session's own exit code.
pub(crate) fn run(args: Args) -> Result<u8, Failure> {
    let mut server = args.server.into_iter();
    let program = server.next().ok_or("no language server was named after `--`")?;
    let mut config = LspConfig::default();
    let log = args.audit.map(AuditLog::open).transpose()?;
    if let Some(log) = &log {
        config.observers = Observers::new().with(Arc::new(AuditObserver::new(log.clone())));
    }
    let mut signals = None;
    let end = run_stdio(config, ServerCommand::new(program).args(server), |supervisor| {
        signals = stop_on_signal(supervisor.clone());
    })?;
    drop(signals);
    if let Some(log) = log {
        log.close()?;
    }
    Ok(u8::try_from(end.code).unwrap_or(1))
}

/// Ctrl-C and SIGTERM end the session as if the editor had left; a third signal ends the process at once.
fn stop_on_signal(supervisor: parsercraft_guard::lsp::Supervisor) -> Option<Signals> {
    let stop = Handler::close("language server", move || supervisor.stop());
    let shutdown = Shutdown::builder().handler(stop).build().ok()?;
    let signals = Signals::install(&shutdown).ok()?;
    std::thread::Builder::new().name("shutdown".to_owned()).spawn(move || shutdown.run()).ok()?;
    Some(signals)
}
