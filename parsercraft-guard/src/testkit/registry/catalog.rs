//! The packages of the misbehaving registry, generated from a seed.
//! The same seed gives the same names, versions and bytes; the checksums in the index are the right ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::registry::Checksum;

/// A release the registry serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRelease {
    /// The crate's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The bytes of its file.
    pub bytes: Arc<[u8]>,
    /// Whether the index says it is yanked.
    pub yanked: bool,
    /// Name and requirement of each dependency.
    pub dependencies: Vec<(String, String)>,
}

impl PublishedRelease {
    /// A release without dependencies.
    pub fn new(name: &str, version: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            bytes: bytes.into(),
            yanked: false,
            dependencies: Vec::new(),
        }
    }

    /// The checksum of its bytes.
    pub fn checksum(&self) -> Checksum {
        Checksum::of(&self.bytes)
    }

    fn index_line(&self) -> String {
        let dependencies: Vec<_> = self
            .dependencies
            .iter()
            .map(|(name, requirement)| {
                serde_json::json!({
                    "name": name, "req": requirement, "features": [], "optional": false,
                    "default_features": true, "target": null, "kind": "normal",
                })
            })
            .collect();
        serde_json::json!({
            "name": self.name, "vers": self.version, "deps": dependencies, "cksum": self.checksum(),
            "features": {}, "yanked": self.yanked,
        })
        .to_string()
    }
}

/// Everything the registry serves; cloning shares the bytes.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    releases: Vec<PublishedRelease>,
    /// Index files by path, kept up to date so that a request costs no hashing.
    index: BTreeMap<String, Arc<[u8]>>,
}

/// Crates in a generated catalog.
const CRATES: usize = 48;

const WORDS: [&str; 16] = [
    "lex", "parse", "token", "tree", "type", "infer", "gen", "wasm", "span", "arena", "intern", "graph", "lint",
    "query", "render", "trace",
];

impl Catalog {
    pub(super) fn generate(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut catalog = Self::default();
        let mut names: Vec<String> = ["q", "zz", "abc"].map(String::from).into();
        while names.len() < CRATES {
            let (left, right) = (WORDS[random.usize(..WORDS.len())], WORDS[random.usize(..WORDS.len())]);
            let name = format!("{left}{}{right}", ["-", "_", ""][random.usize(..3)]);
            let same = |other: &String| other.replace('_', "-") == name.replace('_', "-");
            if !names.iter().any(same) {
                names.push(name);
            }
        }
        for (position, name) in names.iter().enumerate() {
            let majors = random.u32(1..=3);
            for (major, minor) in (0..majors).flat_map(|major| [(major, 0), (major, 3), (major, 12)]) {
                let mut bytes = vec![0; random.usize(512..=48 * 1024)];
                random.fill(&mut bytes);
                let mut version = format!("{major}.{minor}.{}", random.u32(..20));
                if random.u8(..) < 20 {
                    version += "-rc.1";
                }
                let dependencies = (0..random.usize(..=position.min(3)))
                    .map(|_| (names[random.usize(..position)].clone(), "*".into()))
                    .collect();
                // The first release of a crate is never yanked, so that every crate has something to offer.
                let yanked = minor > 0 && random.u8(..) < 20;
                catalog.releases.push(PublishedRelease {
                    name: name.clone(),
                    version,
                    bytes: bytes.into(),
                    yanked,
                    dependencies,
                });
            }
        }
        for name in &names {
            catalog.rebuild(name);
        }
        catalog
    }

    /// Every release, grouped by crate, ascending.
    pub fn releases(&self) -> &[PublishedRelease] {
        &self.releases
    }

    /// The crates' names, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.releases.iter().map(|release| release.name.as_str()).collect();
        names.dedup();
        names
    }

    /// The release of that name and version.
    pub fn release(&self, name: &str, version: &str) -> Option<&PublishedRelease> {
        self.releases.iter().find(|release| release.name == name && release.version == version)
    }

    pub(super) fn publish(&mut self, release: PublishedRelease) {
        let name = release.name.clone();
        let at = self.releases.iter().rposition(|other| other.name == name);
        match self.releases.iter_mut().find(|other| other.name == name && other.version == release.version) {
            Some(existing) => *existing = release,
            None => self.releases.insert(at.map_or(self.releases.len(), |at| at + 1), release),
        }
        self.rebuild(&name);
    }

    /// The bytes at a path of the index, without the leading `/index/`.
    pub(super) fn index_file(&self, path: &str) -> Option<Arc<[u8]>> {
        self.index.get(path).cloned()
    }

    /// The bytes at `<name>/<version>/download`.
    pub(super) fn package_file(&self, path: &str) -> Option<Arc<[u8]>> {
        let (name, version) = path.strip_suffix("/download")?.split_once('/')?;
        self.release(name, version).map(|release| Arc::clone(&release.bytes))
    }

    fn rebuild(&mut self, name: &str) {
        let mut body = String::new();
        for release in self.releases.iter().filter(|release| release.name == name) {
            // Writing to a string cannot fail.
            let _ = writeln!(body, "{}", release.index_line());
        }
        self.index.insert(index_path(name), body.into_bytes().into());
    }
}

/// The server's own statement of cargo's path rule, so that a client's mistake shows.
fn index_path(name: &str) -> String {
    let lower = name.to_lowercase();
    match lower.len() {
        1 => format!("1/{lower}"),
        2 => format!("2/{lower}"),
        3 => format!("3/{}/{lower}", lower.split_at(1).0),
        _ => format!("{}/{}/{lower}", &lower[..2], &lower[2..4]),
    }
}
