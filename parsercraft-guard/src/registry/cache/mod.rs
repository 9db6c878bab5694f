//! The disk cache: package files by checksum, index answers by address.
//! Whatever it returns was hashed on this very read; what fails that is removed and reported as corrupt. Files appear
//! under their name only complete and synced, so a process may be killed at any point, and several may share a
//! folder. It never asks a registry anything.

mod answer;
mod blob;
mod evict;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::NamedTempFile;

pub(crate) use answer::Answer;
pub use blob::Artifact;
use evict::Bound;

use super::checksum::Checksum;
use super::error::RegistryError;

/// A folder of verified package files and index answers. Cheap to clone; every method blocks on the disk.
#[derive(Clone, Debug)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    bound: Bound,
}

/// What a look into the cache gave.
#[derive(Debug)]
pub enum Lookup<T> {
    /// It is there and its hash is right.
    Hit(T),
    /// It is not there.
    Miss,
    /// It was there, but not what was stored: removed.
    Corrupt,
}

/// The layout's version: another layout goes into another folder.
const LAYOUT: &str = "v1";

impl Cache {
    /// Opens the cache in `root`, creating the folder when it is missing. At most about `max_bytes` are kept: what was
    /// not used for the longest time goes first.
    ///
    /// # Errors
    /// [`RegistryError::Cache`] when the folder cannot be created or written to.
    ///
    /// # Examples
    /// ```
    /// use parsercraft_guard::registry::{Cache, Checksum, Lookup};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let cache = Cache::open(folder.path(), 1 << 30)?;
    /// assert!(matches!(cache.artifact(&Checksum::of(b"bytes"))?, Lookup::Miss));
    /// cache.store(&Checksum::of(b"bytes"), b"bytes")?;
    /// let Lookup::Hit(artifact) = cache.artifact(&Checksum::of(b"bytes"))? else { panic!("stored above") };
    /// assert_eq!(artifact.read()?, b"bytes");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(root: impl Into<PathBuf>, max_bytes: u64) -> Result<Self, RegistryError> {
        let root = root.into().join(LAYOUT);
        let cache = Self { inner: Arc::new(Inner { root, bound: Bound::new(max_bytes) }) };
        let temporary = cache.temporary_folder();
        fs::create_dir_all(&temporary).map_err(at("create", &temporary))?;
        // Fails now rather than at the first download when the folder is read-only.
        tempfile::tempfile_in(&temporary).map_err(at("write to", &temporary))?;
        Ok(cache)
    }

    /// The folder of this cache.
    pub fn folder(&self) -> &Path {
        self.inner.root.parent().unwrap_or(&self.inner.root)
    }

    /// Where unfinished files live: on the same file system as the finished ones, so that a rename is atomic.
    fn temporary_folder(&self) -> PathBuf {
        self.inner.root.join("tmp")
    }

    fn temporary_file(&self) -> Result<NamedTempFile, RegistryError> {
        let folder = self.temporary_folder();
        NamedTempFile::new_in(&folder).map_err(at("create a file in", &folder))
    }

    /// `<root>/<kind>/ab/cdef…`: 256 folders keep each one small.
    fn path(&self, kind: &str, key: &Checksum) -> PathBuf {
        let key = key.to_string();
        let (folder, file) = key.split_at(2);
        self.inner.root.join(kind).join(folder).join(file)
    }

    /// Gives a finished file its name: sync it, rename it, sync the folder. After a crash the name leads to the whole
    /// content or to nothing.
    fn publish(&self, file: NamedTempFile, target: &Path, bytes: u64) -> Result<File, RegistryError> {
        let file = persist(file, target)?;
        self.inner.bound.added(bytes, &self.inner.root);
        Ok(file)
    }
}

/// Writes `bytes` under `target` so that a crash leaves the old content or the new one, never a mixture.
///
/// # Errors
/// [`RegistryError::Cache`] naming the file.
pub(crate) fn write_atomically(target: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    let folder = parent(target);
    let mut file = NamedTempFile::new_in(folder).map_err(at("create a file in", folder))?;
    io::Write::write_all(&mut file, bytes).map_err(at("write", target))?;
    persist(file, target).map(drop)
}

fn persist(file: NamedTempFile, target: &Path) -> Result<File, RegistryError> {
    let folder = parent(target);
    if !folder.is_dir() {
        fs::create_dir_all(folder).map_err(at("create", folder))?;
        sync_folder(parent(folder))?;
    }
    file.as_file().sync_all().map_err(at("sync", file.path()))?;
    let file = file.persist(target).map_err(|failed| at("rename to", target)(failed.error))?;
    sync_folder(folder)?;
    Ok(file)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a rename in `folder` durable. Windows has no such thing and does not need it.
fn sync_folder(folder: &Path) -> Result<(), RegistryError> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at("sync", folder))?;
    }
    Ok(())
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    move |source| RegistryError::Cache { action, path: path.into(), source }
}

/// Removes what turned out to be corrupt. Another process may have removed or replaced it meanwhile: a good
/// replacement lost this way is fetched once more, nothing worse.
fn discard(path: &Path) -> Result<(), RegistryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove the corrupt", path)(error)),
        _ => Ok(()),
    }
}

/// Opens a file of the cache; `None` when there is none.
fn open(path: &Path) -> Result<Option<File>, RegistryError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("open", path)(error)),
    }
}
