//! Builds the crate of the peers, which is a workspace of its own. A peer that doesn't build is left out and named, because
//! the others' figures are worth having all the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::figures::Failed;
use crate::Stop;
use crate::process::Ended;
use crate::steps::{Bench, Verdict};
use crate::workspace::Workspace;

const MANIFEST: &str = "xtask/bench/Cargo.toml";
const LOCK: &str = "xtask/bench/Cargo.lock";
/// Cold, on two cores, it takes three minutes.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// The programs that measure, built.
#[derive(Debug, Default)]
pub(super) struct Built {
    folder: PathBuf,
    /// Peers that don't build, and why.
    pub(super) left_out: Vec<Failed>,
}

impl Built {
    /// The command that runs one of the programs.
    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.folder.join(name))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[derive(Deserialize)]
struct Manifest {
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
}

/// Builds with all peers, or with those that build.
pub(super) fn build(workspace: &Workspace, bench: &mut Bench<'_>) -> Result<(Verdict, Built), Stop> {
    let mut peers = read::<Manifest>(workspace, MANIFEST)?.features.remove("default").unwrap_or_default();
    let target = workspace.target.join("peers");
    let mut built = Built { folder: target.join("release"), left_out: Vec::new() };
    loop {
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--locked", "--manifest-path", MANIFEST, "--target-dir"]).arg(&target);
        command.args(["--no-default-features", "--features", &peers.join(",")]);
        let ended = bench.run(&mut command, LIMIT)?;
        if ended.success() {
            let names: Vec<&str> = built.left_out.iter().map(|failed| failed.id.as_str()).collect();
            let note = if names.is_empty() { String::new() } else { format!("WITHOUT {}", names.join(", ")) };
            return Ok((Verdict::passed(note), built));
        }
        let broken = if matches!(ended, Ended::Code(_)) { culprit(&bench.output(), &peers) } else { None };
        let Some(index) = broken else { return Ok((Verdict::of(ended), built)) };
        let id = peers.remove(index);
        built.left_out.push(Failed { id, reason: "does not build".into() });
    }
}

/// Which of `peers` cargo could not compile, by itself or one of its own parts (`name-part`).
fn culprit(output: &str, peers: &[String]) -> Option<usize> {
    let named = |line: &str| Some(line.split_once("could not compile `")?.1.split_once('`')?.0.to_owned());
    let broken: Vec<String> = output.lines().filter_map(named).collect();
    let is_of = |peer: &String| broken.iter().any(|name| name == peer || name.starts_with(&format!("{peer}-")));
    peers.iter().position(is_of)
}

/// The versions of all packages that the lock file names.
pub(super) fn versions(workspace: &Workspace) -> Result<BTreeMap<String, String>, Stop> {
    let lock: Lock = read(workspace, LOCK)?;
    Ok(lock.package.into_iter().map(|package| (package.name, package.version)).collect())
}

fn read<T: serde::de::DeserializeOwned>(workspace: &Workspace, name: &str) -> Result<T, Stop> {
    let text = std::fs::read_to_string(workspace.root.join(name)).map_err(|error| {
        Stop::Missing(format!("cannot read {name}: {error}; restore it, e.g. with `git checkout {name}`"))
    })?;
    toml::from_str(&text).map_err(|error| Stop::Missing(format!("{name}: {}", error.message())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_that_does_not_compile_is_found_by_its_own_name_or_a_part_of_it() {
        let peers = ["backon", "circuit_breaker", "circuitbreaker-rs", "tower-resilience"].map(str::to_owned);
        let said = |name: &str| {
            format!("error[E0308]: mismatched types\nerror: could not compile `{name}` (lib) due to 1 error\n")
        };
        assert_eq!(culprit(&said("circuitbreaker-rs"), &peers), Some(2));
        assert_eq!(culprit(&said("tower-resilience-retry"), &peers), Some(3));
        assert_eq!(culprit(&said("tower"), &peers), None, "not a peer that can be left out");
        assert_eq!(culprit("error: failed to select a version", &peers), None);
    }

    #[test]
    fn the_committed_lock_file_knows_every_peer() {
        let workspace = Workspace::load(&crate::workspace::root().unwrap()).unwrap();
        let known = versions(&workspace).unwrap();
        for peer in &read::<Manifest>(&workspace, MANIFEST).unwrap().features["default"] {
            assert!(known.contains_key(peer), "{peer}");
            assert!(!workspace.packages.iter().any(|package| package.name == *peer), "{peer} is in the workspace");
        }
    }
}
