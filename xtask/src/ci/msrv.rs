//! The minimum supported Rust version: stated once, watched by clippy, kept by every dependency, and built with where a
//! toolchain of that version is installed or the machine is CI's.

use std::process::Command;
use std::time::Duration;

use super::rustup;
use crate::Stop;
use crate::steps::{Bench, Verdict};
use crate::workspace::{Package, Workspace};

/// A cold `cargo check` of the workspace on two cores takes a fraction of this.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// A Rust version, `1.88` and `1.88.0` being the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version([u32; 3]);

impl Version {
    /// Reads `1.88`, `1.88.1`, `1.90.0-nightly`.
    fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = [0; 3];
        for (index, part) in core.split('.').enumerate() {
            *parts.get_mut(index)? = part.parse().ok()?;
        }
        Some(Self(parts))
    }
}

/// Everything about the version that can be read, without compiling.
pub(super) fn check(workspace: &Workspace) -> Result<Verdict, Stop> {
    let mut problems = Vec::new();
    let Some(ours) = stated(workspace, &mut problems) else {
        return Ok(Verdict::failed("rust-version is not stated").details(problems.join("\n")));
    };
    problems.extend(unwatched(workspace)?);
    problems.extend(too_new(&workspace.packages, ours.1));
    let output = workspace.cargo().arg("--version").output();
    let toolchain = output.ok().and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_default();
    let version = toolchain.split(' ').nth(1).and_then(Version::parse);
    if version.is_none_or(|version| version < ours.1) {
        problems.push(format!(
            "this toolchain is `{}`; at least {} is needed: rustup update",
            toolchain.trim(),
            ours.0
        ));
    }
    let count = workspace.packages.len();
    Ok(if problems.is_empty() {
        Verdict::passed(format!("{}: {count} packages", ours.0))
    } else {
        Verdict::failed(format!("{} of {count} packages and settings", problems.len())).details(problems.join("\n"))
    })
}

/// Checks the workspace with a toolchain of exactly that version.
pub(super) fn build(workspace: &Workspace, bench: &mut Bench<'_>) -> Result<Verdict, Stop> {
    let Some((text, _)) = stated(workspace, &mut Vec::new()) else {
        return Ok(Verdict::failed("rust-version is not stated"));
    };
    let add = ["toolchain", "install", &text, "--profile", "minimal"];
    let find = |list: &str| installed(list, &text).map(ToOwned::to_owned);
    let toolchain = match rustup::ensure(workspace, bench, &["toolchain", "list"], &add, find)? {
        Ok(toolchain) => toolchain,
        Err(verdict) => return Ok(verdict),
    };
    let mut command = Command::new("rustup");
    command
        .current_dir(&workspace.root)
        .args(["run", &toolchain, "cargo", "check", "--workspace", "--all-features"])
        // Another compiler's artefacts would push ours out.
        .arg("--target-dir")
        .arg(workspace.target.join("msrv"));
    Ok(Verdict::of(bench.run(&mut command, LIMIT)?))
}

/// The installed toolchain for `version`, by the name rustup gives it.
fn installed<'a>(list: &'a str, version: &str) -> Option<&'a str> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.into_iter().find(|name| {
        name.strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with('-') || rest.starts_with('.'))
    })
}

/// The one version all members state.
fn stated(workspace: &Workspace, problems: &mut Vec<String>) -> Option<(String, Version)> {
    let mut found: Option<(String, Version)> = None;
    for member in workspace.members() {
        let Some(text) = &member.rust_version else {
            problems.push(format!("{} states no rust-version; add `rust-version.workspace = true`", member.name));
            continue;
        };
        let version = Version::parse(text)?;
        match &found {
            Some((first, other)) if *other != version => {
                problems.push(format!("{} states {text}, others {first}", member.name));
            }
            _ => found = Some((text.clone(), version)),
        }
    }
    found
}

/// Members where `clippy::incompatible_msrv` is not on.
fn unwatched(workspace: &Workspace) -> Result<Vec<String>, Stop> {
    let read = |path: &std::path::Path| -> Result<toml::Table, Stop> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Stop::Setup(format!("cannot read {}: {error}", path.display())))?;
        text.parse().map_err(|error| Stop::Setup(format!("{}: {error}", path.display())))
    };
    let root = read(&workspace.root.join("Cargo.toml"))?;
    let level = ["workspace", "lints", "clippy"]
        .iter()
        .try_fold(&root, |table, key| table.get(*key)?.as_table())
        .and_then(|lints| lints.get("incompatible_msrv")?.as_str());
    let mut problems = Vec::new();
    if !matches!(level, Some("warn" | "deny" | "forbid")) {
        problems.push("clippy::incompatible_msrv is not on in [workspace.lints.clippy]".to_owned());
    }
    for member in workspace.members() {
        let manifest = read(&member.manifest_path)?;
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            problems.push(format!("{} doesn't inherit the workspace's lints", member.name));
        }
    }
    Ok(problems)
}

/// Packages that need a newer Rust than we promise.
fn too_new(packages: &[Package], ours: Version) -> Vec<String> {
    let needs = |package: &Package| {
        let text = package.rust_version.as_deref()?;
        let newer = Version::parse(text).is_none_or(|version| version > ours);
        newer.then(|| format!("{} {} needs Rust {text}; choose an older version of it", package.name, package.version))
    };
    packages.iter().filter_map(needs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert_eq!(version("1.88"), version("1.88.0"));
        assert!(version("1.9") < version("1.88"));
        assert!(version("1.97.0-nightly") > version("1.88.2"));
        assert_eq!(Version::parse("1.x"), None);
        assert_eq!(Version::parse("1.2.3.4"), None);
    }

    #[test]
    fn a_dependency_that_needs_a_newer_rust_is_named() {
        let workspace = Workspace::load(&crate::workspace::root().unwrap()).unwrap();
        let mut package = workspace.members().next().unwrap().clone();
        package.name = "greedy".to_owned();
        package.rust_version = Some("1.99".to_owned());
        let problems = too_new(&[package], Version([1, 88, 0]));
        assert_eq!(problems, ["greedy 0.1.0 needs Rust 1.99; choose an older version of it"]);
    }

    #[test]
    fn only_a_toolchain_of_that_version_counts_as_installed() {
        let list = "stable-x86_64-unknown-linux-gnu (active)\n1.8-x\n1.88.0-x86_64-unknown-linux-gnu\n";
        assert_eq!(installed(list, "1.88"), Some("1.88.0-x86_64-unknown-linux-gnu"));
        assert_eq!(installed(list, "1.87"), None);
        assert_eq!(installed("1.880-x\n", "1.88"), None);
    }
}
