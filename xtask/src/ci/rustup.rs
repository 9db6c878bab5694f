//! What rustup has, and what it lacks: got where the machine is CI's (`CI` is set), and then it is said; elsewhere the
//! person is told the command. Nobody's own machine gets a toolchain by running checks.

use std::process::Command;
use std::time::Duration;

use crate::steps::{Bench, Verdict};
use crate::workspace::Workspace;
use crate::{Stop, process, ui};

/// Downloading a toolchain on a slow line.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What `find` finds in the output of `rustup <list>`, after `rustup <add>` where it wasn't there; else the verdict that
/// the check could not be made.
pub(super) fn ensure(
    workspace: &Workspace,
    bench: &mut Bench<'_>,
    list: &[&str],
    add: &[&str],
    find: impl Fn(&str) -> Option<String>,
) -> Result<Result<String, Verdict>, Stop> {
    if let Some(found) = find(&output(workspace, list)) {
        return Ok(Ok(found));
    }
    let mut command = rustup(workspace, add);
    let shown = process::shown(&command);
    if std::env::var_os("CI").is_none_or(|value| value.is_empty()) {
        return Ok(Err(Verdict::skipped(format!("NOT CHECKED: `{shown}` would let it"))));
    }
    anstream::eprintln!("{}", ui::paint(ui::NOTE, &format!("\ninstalling: {shown}")));
    let ended = bench.run(&mut command, LIMIT)?;
    let found = find(&output(workspace, list));
    Ok(found.ok_or_else(|| Verdict::skipped(format!("NOT CHECKED: `{shown}` failed: {ended}"))))
}

/// A rustup command that runs in the root, and so for the workspace's toolchain.
fn rustup(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(&workspace.root).args(arguments);
    command
}

/// What it prints; nothing where there is no rustup.
fn output(workspace: &Workspace, arguments: &[&str]) -> String {
    let output = rustup(workspace, arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
