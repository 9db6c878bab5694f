//! What this workspace consists of, asked from cargo: root, target folder, crates and their features.
//! Nothing here is a list kept by hand; a new crate or feature is picked up by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::Stop;

/// The workspace this program belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// Every package cargo resolved, for all platforms and features, the members among them.
    pub(crate) packages: Vec<Package>,
    members: Vec<String>,
}

/// One package, as `cargo metadata` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) rust_version: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) features: std::collections::BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
}

#[derive(Debug, Clone, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Package {
    fn is_library(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"))
    }

    /// The names of its examples.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &str> {
        let is_example = |target: &&Target| target.kind.iter().any(|kind| kind == "example");
        self.targets.iter().filter(is_example).map(|target| target.name.as_str())
    }

    /// The feature sets to check: none, each alone, all. A set that equals another is left out.
    pub(crate) fn feature_sets(&self) -> Vec<FeatureSet> {
        let set = |name: String, arguments: &[&str], alone| FeatureSet {
            name,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            alone,
        };
        let counts = |(name, gives): &(&String, &Vec<String>)| *name != "default" || !gives.is_empty();
        let names: Vec<&String> = self.features.iter().filter(counts).map(|(name, _)| name).collect();
        let mut sets = vec![set("no features".into(), &["--no-default-features"], false)];
        if names.len() > 1 {
            let alone =
                |name: &&String| set(format!("only {name}"), &["--no-default-features", "--features", name], true);
            sets.extend(names.iter().map(alone));
        }
        if !names.is_empty() {
            sets.push(set("all features".into(), &["--all-features"], false));
        }
        sets
    }
}

/// A choice of a crate's features.
#[derive(Debug)]
pub(crate) struct FeatureSet {
    pub(crate) name: String,
    /// How cargo is told.
    pub(crate) arguments: Vec<String>,
    /// One feature out of several, between the two ends.
    pub(crate) alone: bool,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo about the workspace at `root`. Needs no network when the lock file's packages are there already.
    ///
    /// # Errors
    /// [`Stop::Setup`] with cargo's own words when it refuses.
    pub(crate) fn load(root: &Path) -> Result<Self, Stop> {
        let output =
            cargo(root).args(["metadata", "--format-version=1", "--all-features"]).output().map_err(|error| {
                Stop::Setup(format!("cannot start cargo: {error}; install Rust from https://rustup.rs"))
            })?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(Stop::Setup(format!("cargo metadata failed in {}: {}", root.display(), words.trim())));
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout)
            .map_err(|error| Stop::Setup(format!("cargo metadata answered what we can't read: {error}")))?;
        Ok(Self {
            root: root.to_owned(),
            target: metadata.target_directory,
            packages: metadata.packages,
            members: metadata.workspace_members,
        })
    }

    /// The workspace's own crates.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.members.contains(&package.id))
    }

    /// The crates users depend on, each of which must build, document and test alone.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = &Package> {
        self.members().filter(|package| package.is_library())
    }

    /// Whether all `names` are libraries of this workspace.
    ///
    /// # Errors
    /// [`Stop::Setup`] with the names that are allowed.
    pub(crate) fn known(&self, names: &[String]) -> Result<(), Stop> {
        let known: Vec<&str> = self.libraries().map(|package| package.name.as_str()).collect();
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Stop::Setup(format!("--package {name}: no such library; allowed: {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    /// Where what the workflows need beyond Rust is put.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A cargo command that runs in the root.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }
}

/// The workspace's root: where cargo says this package is, else the nearest `Cargo.toml` with a `[workspace]` upwards.
///
/// # Errors
/// [`Stop::Setup`] when there is none.
pub(crate) fn root() -> Result<PathBuf, Stop> {
    if let Some(package) = std::env::var_os("CARGO_MANIFEST_DIR")
        && let Some(root) = Path::new(&package).parent()
    {
        return Ok(root.to_owned());
    }
    let here = std::env::current_dir().map_err(|error| {
        Stop::Setup(format!("cannot tell the current directory: {error}; change to one that exists"))
    })?;
    let is_root = |folder: &&Path| {
        std::fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|manifest| manifest.contains("[workspace]"))
    };
    here.ancestors().find(is_root).map(Path::to_owned).ok_or_else(|| {
        Stop::Setup(format!("{} is not inside the workspace; run `cargo xtask` from the checkout", here.display()))
    })
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).env("CARGO_TERM_COLOR", "never");
    // What `cargo run` told *us* about our package must not reach the builds we start.
    for (name, _) in std::env::vars_os() {
        let told = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|p| name.starts_with(p));
        if name.to_str().is_some_and(told) {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(features: &[(&str, &[&str])]) -> Package {
        let features =
            features.iter().map(|(name, gives)| ((*name).to_owned(), gives.iter().map(ToString::to_string).collect()));
        Package {
            id: String::new(),
            name: "x".into(),
            version: "1.0.0".into(),
            rust_version: None,
            manifest_path: PathBuf::new(),
            features: features.collect(),
            targets: Vec::new(),
        }
    }

    fn names(package: &Package) -> Vec<String> {
        package.feature_sets().into_iter().map(|set| set.name).collect()
    }

    #[test]
    fn feature_sets_are_none_each_alone_and_all_without_doubles() {
        assert_eq!(names(&package(&[])), ["no features"]);
        assert_eq!(names(&package(&[("default", &[]), ("serde", &["dep:serde"])])), ["no features", "all features"]);
        assert_eq!(
            names(&package(&[("default", &["a"]), ("a", &["dep:a"]), ("b", &["dep:b"])])),
            ["no features", "only a", "only b", "only default", "all features"]
        );
    }

    #[test]
    fn this_workspace_is_found_with_its_libraries() {
        let workspace = Workspace::load(&root().unwrap()).unwrap();
        let libraries: Vec<_> = workspace.libraries().map(|package| package.name.as_str()).collect();
        assert!(libraries.contains(&"resilience-core"), "{libraries:?}");
        assert!(!libraries.contains(&"xtask"), "{libraries:?}");
        assert!(workspace.target.is_absolute());
        let core = workspace.libraries().find(|package| package.name == "resilience-core").unwrap();
        assert!(core.examples().any(|example| example == "quick_start"));
    }
}
