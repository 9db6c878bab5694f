//! The Rust files that the drill parses: the workspace's and those of its dependencies, as cargo unpacked them for the build.
//! It never asks the network: what the build had no need of is left out, in the same order every time.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::Stop;

/// Fewer real files than this would show nothing.
pub(super) const LEAST: usize = 1_000;

/// What cargo tells of a checkout without looking at its dependencies, which may not all be here.
#[derive(Debug, Deserialize)]
pub(super) struct Checkout {
    pub(super) target_directory: PathBuf,
    workspace_root: PathBuf,
    packages: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
}

impl Checkout {
    /// The checkout at `root`.
    ///
    /// # Errors
    /// [`Stop::Setup`] when cargo refuses.
    pub(super) fn load(root: &Path) -> Result<Self, Stop> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root).args(["metadata", "--format-version=1", "--no-deps", "--offline", "--color=never"]);
        let output = command.output().map_err(|error| {
            Stop::Setup(format!("cannot start cargo: {error}; install Rust from https://rustup.rs"))
        })?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            let words = String::from_utf8_lossy(&output.stderr);
            let words = words.lines().next().map_or_else(|| error.to_string(), str::to_owned);
            Stop::Setup(format!("cargo cannot read the workspace in {}: {words}", root.display()))
        })
    }

    /// At most `most` files in a fixed order, spread evenly over all there are.
    ///
    /// # Errors
    /// [`Stop::Setup`] when there are fewer than [`LEAST`].
    pub(super) fn files(&self, most: usize) -> Result<Vec<PathBuf>, Stop> {
        let store = store();
        let mut files = Vec::new();
        for folder in self.packages.iter().filter_map(|member| member.manifest_path.parent()) {
            collect(folder, &self.target_directory, &mut files);
        }
        for folder in unpacked(&store, &self.dependencies()?) {
            collect(&folder, &self.target_directory, &mut files);
        }
        files.sort_unstable();
        files.dedup();
        if files.len() < LEAST {
            return Err(Stop::Setup(format!(
                "only {} Rust files in the workspace and in {}, at least {LEAST} are needed; run `cargo fetch`",
                files.len(),
                store.display()
            )));
        }
        Ok(spread(files, most))
    }

    /// The dependencies' folder names in cargo's store, by the lock file.
    fn dependencies(&self) -> Result<Vec<String>, Stop> {
        let path = self.workspace_root.join("Cargo.lock");
        let failed = |error: &dyn std::fmt::Display| Stop::Setup(format!("cannot read {}: {error}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let lock: Lock = toml::from_str(&text).map_err(|error| failed(&error.message()))?;
        let foreign = lock.package.iter().filter(|package| package.source.is_some());
        Ok(foreign.map(|package| format!("{}-{}", package.name, package.version)).collect())
    }
}

/// Where cargo unpacks what it builds.
fn store() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).unwrap_or_default().join("registry/src")
}

/// The folders called `names` below any registry in `store`.
fn unpacked(store: &Path, names: &[String]) -> Vec<PathBuf> {
    let registries = std::fs::read_dir(store).into_iter().flatten().flatten();
    registries.flat_map(|registry| names.iter().map(move |name| registry.path().join(name))).collect()
}

/// `most` of the files, spread evenly.
fn spread(files: Vec<PathBuf>, most: usize) -> Vec<PathBuf> {
    let all = files.len();
    if all <= most {
        return files;
    }
    let keep = |index: usize| index * most / all != (index + 1) * most / all;
    files.into_iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, file)| file).collect()
}

fn collect(folder: &Path, except: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        // Links are not followed: none can lead out of the store or round in a circle.
        match kind {
            Ok(kind) if kind.is_dir() && path != except => collect(&path, except, files),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|ending| ending == "rs") => files.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_are_taken_as_were_asked_for_from_the_whole_range() {
        let files: Vec<_> = (0..2_503).map(|number| PathBuf::from(format!("{number:04}.rs"))).collect();
        let taken = spread(files.clone(), 1_000);
        assert_eq!(taken.len(), 1_000);
        assert!(taken.is_sorted() && taken[0] < files[3] && taken[999] > files[2_499], "{:?}", &taken[999]);
        assert_eq!(spread(files.clone(), 2_503), files);
    }

    #[test]
    fn this_checkout_and_its_dependencies_are_found_without_the_network() {
        let checkout = Checkout::load(&crate::workspace::root().unwrap()).unwrap();
        assert!(checkout.target_directory.is_absolute());
        let names = checkout.dependencies().unwrap();
        assert!(names.iter().any(|name| name.starts_with("serde_json-1.")), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("xtask-")), "{names:?}");
        let files = checkout.files(usize::MAX).unwrap();
        assert!(files.iter().any(|file| file.ends_with("xtask/src/drill/sources.rs")));
        assert!(
            files
                .iter()
                .any(|file| file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("syn-2")))
        );
        assert!(!files.iter().any(|file| file.starts_with(&checkout.target_directory)));
    }

    #[test]
    fn a_folder_without_a_workspace_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let line = Checkout::load(folder.path()).unwrap_err().to_string();
        assert!(line.starts_with("cargo cannot read the workspace in ") && line.lines().count() == 1, "{line}");
    }
}
