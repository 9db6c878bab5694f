//! The cargo sparse index: one JSON line per release, and the choice of a release for a requirement.
//! A release without a valid name, version and checksum is never offered. This module does no I/O.

use std::sync::Arc;

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::checksum::Checksum;
use super::error::RegistryError;
use super::name::{Ecosystem, PackageName};

/// What identifies a package file: name, version and the checksum its bytes must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackageId {
    /// The package's name.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// The SHA-256 checksum of its file.
    pub checksum: Checksum,
}

/// One published version of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Name, version and checksum.
    pub id: PackageId,
    /// Whether it was withdrawn: it can be downloaded, but [`Metadata::resolve`] never picks it.
    pub yanked: bool,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// A dependency as the index states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The crate depended on (its name in the registry, even if renamed by the dependent).
    pub name: String,
    /// Which versions fit.
    pub requirement: VersionReq,
    /// Whether a feature must turn it on.
    pub optional: bool,
    /// `normal`, `build` or `dev`.
    pub kind: String,
}

/// All releases of one package, in the order of the index (oldest publication first).
#[derive(Clone, Debug)]
pub struct Metadata {
    name: PackageName,
    releases: Arc<[Release]>,
    skipped: usize,
}

impl Metadata {
    /// Reads an index file. Lines of a newer index format, or with an invalid version, requirement or checksum, are
    /// skipped and counted, as cargo does.
    ///
    /// # Errors
    /// A description of what is wrong when a line is not JSON or is about another crate, or no line could be used:
    /// then this is not the index file that was asked for.
    pub(crate) fn parse(name: &PackageName, body: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|error| format!("not UTF-8: {error}"))?;
        let mut releases = Vec::new();
        let mut skipped = 0;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))?;
            if !name.is_same_crate(&line.name) {
                return Err(format!("line {} is about {:?}", number + 1, line.name));
            }
            match line.into_release() {
                Some(release) => releases.push(release),
                None => skipped += 1,
            }
        }
        if releases.is_empty() {
            return Err(format!("no usable release ({skipped} lines skipped)"));
        }
        Ok(Self { name: name.clone(), releases: releases.into(), skipped })
    }

    /// The package's name as it was asked for.
    pub fn name(&self) -> &PackageName {
        &self.name
    }

    /// Every usable release, yanked ones too.
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// How many lines were left out because this version of the guard cannot use them.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The versions that are not yanked, ascending.
    pub fn versions(&self) -> Vec<Version> {
        let mut versions: Vec<_> =
            self.releases.iter().filter(|release| !release.yanked).map(|release| release.id.version.clone()).collect();
        versions.sort();
        versions
    }

    /// The release with exactly this version, yanked or not.
    pub fn release(&self, version: &Version) -> Option<&Release> {
        self.releases.iter().find(|release| release.id.version == *version)
    }

    /// The newest release that fits `requirement` and is not yanked.
    ///
    /// # Errors
    /// [`RegistryError::NoMatchingVersion`] naming the newest version there is.
    pub fn resolve(&self, requirement: &VersionReq) -> Result<&Release, RegistryError> {
        self.releases
            .iter()
            .filter(|release| !release.yanked && requirement.matches(&release.id.version))
            .max_by(|a, b| a.id.version.cmp(&b.id.version))
            .ok_or_else(|| RegistryError::NoMatchingVersion {
                name: self.name.clone(),
                requirement: requirement.clone(),
                newest: self.versions().pop(),
            })
    }
}

/// One line of an index file, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    name: String,
    vers: String,
    cksum: String,
    #[serde(default)]
    yanked: Option<bool>,
    #[serde(default)]
    deps: Vec<LineDependency>,
    /// The version of the index format.
    #[serde(default)]
    v: Option<u32>,
}

#[derive(Deserialize)]
struct LineDependency {
    name: String,
    req: String,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    package: Option<String>,
}

/// The newest index format this module understands.
const INDEX_FORMAT: u32 = 2;

impl Line {
    fn into_release(self) -> Option<Release> {
        if self.v.is_some_and(|format| format > INDEX_FORMAT) {
            return None;
        }
        let dependencies = self.deps.into_iter().map(LineDependency::into_dependency).collect::<Option<_>>()?;
        Some(Release {
            id: PackageId {
                name: PackageName::parse(Ecosystem::Cargo, &self.name).ok()?,
                version: self.vers.parse().ok()?,
                checksum: self.cksum.parse().ok()?,
            },
            yanked: self.yanked.unwrap_or(false),
            dependencies,
        })
    }
}

impl LineDependency {
    fn into_dependency(self) -> Option<Dependency> {
        Some(Dependency {
            name: self.package.unwrap_or(self.name),
            requirement: self.req.parse().ok()?,
            optional: self.optional,
            kind: self.kind.unwrap_or_else(|| "normal".into()),
        })
    }
}

/// The index's `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct IndexConfig {
    dl: String,
    #[serde(default, rename = "auth-required")]
    pub(crate) auth_required: bool,
}

impl IndexConfig {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }

    /// The address of a package file, by cargo's template rules.
    pub(crate) fn download_url(&self, id: &PackageId) -> String {
        const MARKERS: [&str; 5] = ["{crate}", "{version}", "{prefix}", "{lowerprefix}", "{sha256-checksum}"];
        let (name, version) = (id.name.as_str(), id.version.to_string());
        if MARKERS.iter().any(|marker| self.dl.contains(marker)) {
            let prefix = id.name.prefix();
            self.dl
                .replace("{crate}", name)
                .replace("{version}", &version)
                .replace("{lowerprefix}", &prefix.to_ascii_lowercase())
                .replace("{prefix}", &prefix)
                .replace("{sha256-checksum}", &id.checksum.to_string())
        } else {
            format!("{}/{name}/{version}/download", self.dl.trim_end_matches('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> PackageName {
        PackageName::parse(Ecosystem::Cargo, name).unwrap()
    }

    fn line(version: &str, more: &str) -> String {
        let checksum = Checksum::of(version.as_bytes());
        format!(r#"{{"name":"demo","vers":"{version}","cksum":"{checksum}","deps":[]{more}}}"#)
    }

    fn demo(lines: &[String]) -> Result<Metadata, String> {
        Metadata::parse(&name("demo"), lines.join("\n").as_bytes())
    }

    #[test]
    fn the_newest_fitting_version_is_picked_whatever_the_order() {
        let lines = [
            line("1.10.0", ""),
            line("1.9.3", ""),
            line("1.11.0", r#","yanked":true"#),
            line("1.12.0-rc.1", ""),
            line("2.0.0", ""),
        ];
        let metadata = demo(&lines).unwrap();
        let pick = |requirement: &str| {
            metadata.resolve(&requirement.parse().unwrap()).map(|release| release.id.version.to_string())
        };
        assert_eq!(pick("1").unwrap(), "1.10.0");
        assert_eq!(pick("*").unwrap(), "2.0.0");
        assert_eq!(pick("=1.9.3").unwrap(), "1.9.3");
        assert_eq!(pick("1.12.0-rc.1").unwrap(), "1.12.0-rc.1");
        insta::assert_snapshot!(pick("3").unwrap_err(), @"no version of demo fits ^3; the newest is 2.0.0");
        assert!(metadata.release(&Version::new(1, 11, 0)).is_some_and(|release| release.yanked));
    }

    #[test]
    fn lines_of_a_newer_format_are_skipped_and_counted() {
        let lines = [line("1.0.0", ""), line("1.1.0", r#","v":9"#), line("not-a-version", "")];
        let metadata = demo(&lines).unwrap();
        assert_eq!((metadata.releases().len(), metadata.skipped()), (1, 2));
    }

    #[test]
    fn what_is_not_this_crates_index_file_is_refused() {
        let refusal = |body: &str| Metadata::parse(&name("other"), body.as_bytes()).unwrap_err();
        insta::assert_snapshot!(refusal(&line("1.0.0", "")), @r#"line 1 is about "demo""#);
        insta::assert_snapshot!(refusal("<html>log in</html>"), @"line 1: expected value at line 1 column 1");
        insta::assert_snapshot!(refusal(""), @"no usable release (0 lines skipped)");
        assert!(Metadata::parse(&name("other"), b"\xff\xfe").is_err());
    }

    #[test]
    fn download_addresses_follow_cargos_template_rules() {
        let id = PackageId { name: name("Inflector"), version: Version::new(0, 11, 4), checksum: Checksum::of(b"") };
        let url = |dl: &str| IndexConfig { dl: dl.into(), auth_required: false }.download_url(&id);
        assert_eq!(url("https://x.test/api"), "https://x.test/api/Inflector/0.11.4/download");
        assert_eq!(
            url("https://x.test/{prefix}/{lowerprefix}/{crate}-{version}.crate?{sha256-checksum}"),
            format!("https://x.test/In/fl/in/fl/Inflector-0.11.4.crate?{}", Checksum::of(b""))
        );
    }
}
