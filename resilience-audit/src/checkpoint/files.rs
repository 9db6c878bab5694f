//! The checkpoints kept in a log's directory: `NNNNNNNNNNNNNNNNNNNN.checkpoint`, named by size. A file appears whole
//! and durable or not at all; one of a size that is there already is never replaced by another root.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::note::{self, CheckpointError, MAX_NOTE};
use crate::checkpoint::{Checkpoint, SigningKey, VerifyingKey};
use crate::error::ReadError;
use crate::storage::{FileStorage, Storage, read_full, write_all};

const SUFFIX: &str = ".checkpoint";
const PREPARED: &str = "checkpoint.new";

/// A checkpoint file of a log, and what it holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct KnownFile {
    /// The file.
    pub path: PathBuf,
    /// The size in its name.
    pub size: u64,
    /// The checkpoint, or why it is none.
    pub checkpoint: Result<Checkpoint, CheckpointError>,
}

/// The checkpoints in the directory of a log, smallest first, each verified with `keys`.
///
/// # Errors
/// When the directory or a file cannot be read.
pub fn list_checkpoints(path: impl AsRef<Path>, keys: &[VerifyingKey]) -> Result<Vec<KnownFile>, ReadError> {
    list(&FileStorage, path.as_ref(), keys)
}

pub(crate) fn list(storage: &dyn Storage, dir: &Path, keys: &[VerifyingKey]) -> Result<Vec<KnownFile>, ReadError> {
    let sizes = sizes(storage, dir)?;
    sizes.into_iter().map(|size| load(storage, dir, size, keys)).collect()
}

/// The newest that is signed by one of the keys.
pub(crate) fn newest(
    storage: &dyn Storage,
    dir: &Path,
    keys: &[VerifyingKey],
) -> Result<Option<Checkpoint>, ReadError> {
    for size in sizes(storage, dir)?.into_iter().rev() {
        if let Ok(checkpoint) = load(storage, dir, size, keys)?.checkpoint {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

/// The size of that checkpoint; 0 without one, also when there is no directory yet.
pub(crate) fn newest_size(storage: &dyn Storage, dir: &Path, keys: &[VerifyingKey]) -> Result<u64, ReadError> {
    let info = storage.info(dir).map_err(ReadError::io("look at", dir))?;
    if !info.is_some_and(|info| info.is_dir) {
        return Ok(0);
    }
    Ok(newest(storage, dir, keys)?.map_or(0, |checkpoint| checkpoint.size))
}

fn sizes(storage: &dyn Storage, dir: &Path) -> Result<Vec<u64>, ReadError> {
    let names = storage.list(dir).map_err(ReadError::io("list", dir))?;
    let mut sizes: Vec<u64> = names.iter().filter_map(|name| size_of(name)).collect();
    sizes.sort_unstable();
    Ok(sizes)
}

fn size_of(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(SUFFIX)?;
    let whole = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| digits.parse().ok()).flatten()
}

fn path(dir: &Path, size: u64) -> PathBuf {
    dir.join(format!("{size:020}{SUFFIX}"))
}

fn read(storage: &dyn Storage, path: &Path) -> io::Result<Vec<u8>> {
    let mut file = storage.open(path, false)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(MAX_NOTE + 1);
    let mut bytes = vec![0; len];
    let read = read_full(file.as_mut(), 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn load(storage: &dyn Storage, dir: &Path, size: u64, keys: &[VerifyingKey]) -> Result<KnownFile, ReadError> {
    let path = path(dir, size);
    let bytes = read(storage, &path).map_err(ReadError::io("read", &path))?;
    let checkpoint = Checkpoint::open(&bytes, keys).and_then(|checkpoint| {
        let named = checkpoint.size == size;
        if named { Ok(checkpoint) } else { Err(CheckpointError::Malformed("its size is not the one in its name")) }
    });
    Ok(KnownFile { path, size, checkpoint })
}

/// Signs the text of a checkpoint and stores it. Where one of this size is there already, its text is signed instead,
/// which keeps its signatures.
pub(crate) fn store(
    storage: &dyn Storage,
    dir: &Path,
    body: &note::Body<'_>,
    keys: &[SigningKey],
) -> Result<String, String> {
    let path = path(dir, body.size);
    let failed = |step: &'static str| {
        let path = path.display().to_string();
        move |error: io::Error| format!("cannot {step} {path}: {error}")
    };
    let there = match read(storage, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.map_err(failed("read"))?),
    };
    let signed = match there.as_deref().map(note::Note::parse) {
        None => note::sign(&body.render(), keys),
        Some(Ok(there)) => {
            let found = note::Body::parse(there.text).map_err(|error| format!("{}: {error}", path.display()))?;
            if (found.origin, found.root) != (body.origin, body.root) {
                return Err(format!("{} has another root than the log", path.display()));
            }
            keys.iter().fold(there.whole.to_owned(), |note, key| note::add_signature(&note, key))
        }
        Some(Err(error)) => return Err(format!("{}: {error}", path.display())),
    };
    let prepared = dir.join(PREPARED);
    let write = || {
        let mut file = crate::tree::create_prepared(storage, &prepared)?;
        write_all(file.as_mut(), 0, signed.as_bytes())?;
        file.sync_data()?;
        storage.rename(&prepared, &path)?;
        storage.sync_dir(dir)
    };
    write().map_err(failed("write"))?;
    Ok(signed)
}

/// Removes all but the `keep` newest.
pub(crate) fn prune(storage: &dyn Storage, dir: &Path, keep: usize) -> Result<(), ReadError> {
    let sizes = sizes(storage, dir)?;
    for size in &sizes[..sizes.len().saturating_sub(keep)] {
        let path = path(dir, *size);
        storage.remove(&path).map_err(ReadError::io("remove", &path))?;
    }
    Ok(())
}
