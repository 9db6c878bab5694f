//! Lock files: which packages were chosen, with the checksums their files must have.
//! A lock file is read whole or refused, and written so that a crash leaves the old one or the new one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cache::write_atomically;
use super::error::RegistryError;
use super::index::PackageId;
use super::name::{Ecosystem, PackageName};

/// The largest lock file that is read, in bytes.
const LIMIT: u64 = 16 << 20;

const HEADER: &str = "# Written by parsercraft-guard: exact versions and the checksums their files must have.\n";

/// A set of chosen packages of one index, sorted by name and version.
///
/// # Examples
/// ```
/// use parsercraft_guard::registry::LockFile;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("packages.lock");
/// let lock = LockFile::new("https://index.example/", Vec::new());
/// lock.write(&path)?;
/// assert_eq!(LockFile::read(&path)?, lock);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFile {
    index: String,
    packages: Vec<PackageId>,
}

impl LockFile {
    /// A lock file of these packages, chosen from `index`.
    pub fn new(index: impl Into<String>, mut packages: Vec<PackageId>) -> Self {
        packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        packages.dedup();
        Self { index: index.into(), packages }
    }

    /// The address of the index they were chosen from.
    pub fn index(&self) -> &str {
        &self.index
    }

    /// The packages.
    pub fn packages(&self) -> &[PackageId] {
        &self.packages
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// [`RegistryError::Cache`] when it cannot be read, [`RegistryError::InvalidLock`] when it is not one.
    pub fn read(path: &Path) -> Result<Self, RegistryError> {
        let io = |source| RegistryError::Cache { action: "read", path: path.into(), source };
        let invalid = |reason: String| RegistryError::InvalidLock { path: path.into(), reason };
        let mut bytes = Vec::new();
        File::open(path).map_err(io)?.take(LIMIT + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LIMIT {
            return Err(invalid(format!("it has more than {LIMIT} bytes")));
        }
        let document: Document = toml::from_slice(&bytes).map_err(|error| invalid(error.message().into()))?;
        if document.version != 1 {
            return Err(invalid(format!("its version is {}; allowed: 1", document.version)));
        }
        let packages = document.package.into_iter().map(Package::into_id).collect::<Result<_, _>>().map_err(invalid)?;
        Ok(Self::new(document.index, packages))
    }

    /// Writes the lock file in place of the one before.
    ///
    /// # Errors
    /// [`RegistryError::Cache`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RegistryError> {
        let document = Document {
            version: 1,
            index: self.index.clone(),
            package: self.packages.iter().map(Package::from_id).collect(),
        };
        let text = toml::to_string(&document)
            .map_err(|error| RegistryError::InvalidLock { path: path.into(), reason: error.to_string() })?;
        write_atomically(path, format!("{HEADER}{text}").as_bytes())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    index: String,
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    name: String,
    version: String,
    checksum: String,
}

impl Package {
    fn from_id(id: &PackageId) -> Self {
        Self { name: id.name.to_string(), version: id.version.to_string(), checksum: id.checksum.to_string() }
    }

    fn into_id(self) -> Result<PackageId, String> {
        let version = |error| format!("version {:?} of {} is not valid: {error}", self.version, self.name);
        Ok(PackageId {
            name: PackageName::parse(Ecosystem::Cargo, &self.name).map_err(|error| error.to_string())?,
            version: self.version.parse().map_err(version)?,
            checksum: self.checksum.parse().map_err(|error| format!("{}: {error}", self.name))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Checksum;
    use semver::Version;

    fn id(name: &str, minor: u64) -> PackageId {
        PackageId {
            name: PackageName::parse(Ecosystem::Cargo, name).unwrap(),
            version: Version::new(1, minor, 0),
            checksum: Checksum::of(name.as_bytes()),
        }
    }

    #[test]
    fn a_lock_file_reads_well_and_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = LockFile::new("https://index.example/", vec![id("serde", 2), id("rand", 8), id("serde", 2)]);
        lock.write(&path).unwrap();
        assert_eq!(LockFile::read(&path).unwrap(), lock);
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r#"
        # Written by parsercraft-guard: exact versions and the checksums their files must have.
        version = 1
        index = "https://index.example/"

        [[package]]
        name = "rand"
        version = "1.8.0"
        checksum = "1c1c65e8f2de96f1f1dd8a3b574871477a13cc8fbd46b591e988206170735238"

        [[package]]
        name = "serde"
        version = "1.2.0"
        checksum = "8b917c4b6163bc82ef4aff025c6f5f4d54205232c4595f39b7b43008256a6cb7"
        "#);
        LockFile::new("https://index.example/", vec![]).write(&path).unwrap();
        assert!(LockFile::read(&path).unwrap().packages().is_empty());
    }

    #[test]
    fn what_is_no_lock_file_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let refusal = |text: &str| {
            std::fs::write(&path, text).unwrap();
            match LockFile::read(&path).unwrap_err() {
                RegistryError::InvalidLock { reason, .. } => reason,
                other => panic!("{other}"),
            }
        };
        insta::assert_snapshot!(refusal("version = 2\nindex = ''"), @"its version is 2; allowed: 1");
        insta::assert_snapshot!(refusal("version = 1"), @"missing field `index`");
        insta::assert_snapshot!(refusal("version = 1\nindex = ''\nhooks = []"), @"unknown field `hooks`, expected one of `version`, `index`, `package`");
        let package = |name: &str, version: &str, checksum: &str| {
            format!(
                "version = 1\nindex = ''\n[[package]]\nname = '{name}'\nversion = '{version}'\nchecksum = '{checksum}'\n"
            )
        };
        insta::assert_snapshot!(refusal(&package("serde", "1", "")), @r#"version "1" of serde is not valid: unexpected end of input while parsing major version number"#);
        insta::assert_snapshot!(refusal(&package("serde", "1.0.0", "00")), @r#"serde: checksum "00" is not valid; allowed: 64 hex digits"#);
        assert!(refusal(&package("../serde", "1.0.0", "")).contains("is not valid"));
        assert!(matches!(LockFile::read(&folder.path().join("none")), Err(RegistryError::Cache { .. })));
    }
}
