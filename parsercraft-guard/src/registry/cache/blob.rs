//! Package files: content under its own checksum.
//! A file is hashed when it is written and again whenever it is handed out; the handle given out is the one that was
//! hashed, so eviction or replacement of the name cannot change it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Cache, Lookup, at, discard, evict, open};
use crate::registry::checksum::{Checksum, Hasher};
use crate::registry::error::RegistryError;

const KIND: &str = "blob";

/// A package file whose bytes were checked against its checksum when this value was made.
#[derive(Debug)]
pub struct Artifact {
    file: File,
    path: PathBuf,
    checksum: Checksum,
    len: u64,
}

impl Artifact {
    /// The checksum of its bytes.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it lies in the cache. The name can disappear by eviction; [`into_file`](Self::into_file) cannot.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of its bytes, hashed once more on the way.
    ///
    /// # Errors
    /// The disk's, or `InvalidData` when the file changed since it was checked.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        file.take(self.len + 1).read_to_end(&mut bytes)?;
        if Checksum::of(&bytes) != self.checksum {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file changed after it was checked"));
        }
        Ok(bytes)
    }

    /// The open file at its start, for streaming.
    ///
    /// # Errors
    /// The disk's.
    pub fn into_file(mut self) -> io::Result<File> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(self.file)
    }
}

impl Cache {
    /// The package file with this checksum, hashed on this read.
    ///
    /// # Errors
    /// [`RegistryError::Cache`] when the disk fails.
    pub fn artifact(&self, checksum: &Checksum) -> Result<Lookup<Artifact>, RegistryError> {
        let path = self.path(KIND, checksum);
        let Some(file) = open(&path)? else { return Ok(Lookup::Miss) };
        let (actual, len) = Checksum::of_reader(&file).map_err(at("read", &path))?;
        if actual != *checksum {
            discard(&path)?;
            return Ok(Lookup::Corrupt);
        }
        evict::used(&file);
        Ok(Lookup::Hit(Artifact { file, path, checksum: *checksum, len }))
    }

    /// Stores bytes under the checksum they are said to have.
    ///
    /// # Errors
    /// [`RegistryError::Cache`] when the disk fails, or with `InvalidData` when they have another checksum.
    pub fn store(&self, expected: &Checksum, bytes: &[u8]) -> Result<Artifact, RegistryError> {
        let mut writer = self.blob_writer()?;
        writer.write(bytes)?;
        writer.commit(expected)?.map_err(|actual| {
            let mismatch = io::Error::new(io::ErrorKind::InvalidData, format!("the checksum is {actual}"));
            at("store bytes as", &self.path(KIND, expected))(mismatch)
        })
    }

    /// Starts a file that gets its name when it is complete and its checksum is right.
    pub(crate) fn blob_writer(&self) -> Result<BlobWriter, RegistryError> {
        Ok(BlobWriter { cache: self.clone(), file: self.temporary_file()?, hasher: Hasher::default() })
    }
}

/// A package file that is being written. Dropping it removes what was written.
pub(crate) struct BlobWriter {
    cache: Cache,
    file: NamedTempFile,
    hasher: Hasher,
}

impl BlobWriter {
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), RegistryError> {
        let bytes = bytes.as_ref();
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(at("write", self.file.path()))
    }

    /// Publishes the file when its checksum is `expected`; otherwise removes it and returns the actual one.
    pub(crate) fn commit(self, expected: &Checksum) -> Result<Result<Artifact, Checksum>, RegistryError> {
        let (checksum, len) = self.hasher.finish();
        if checksum != *expected {
            return Ok(Err(checksum));
        }
        let path = self.cache.path(KIND, &checksum);
        let file = self.cache.publish(self.file, &path, len)?;
        Ok(Ok(Artifact { file, path, checksum, len }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        (folder, cache)
    }

    fn files_below(folder: &Path) -> usize {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
            .sum()
    }

    #[test]
    fn a_flipped_bit_is_detected_removed_and_healed_by_the_next_store() {
        let (_folder, cache) = cache();
        let checksum = Checksum::of(b"content");
        let path = cache.store(&checksum, b"content").unwrap().path().to_owned();
        fs::write(&path, b"cOntent").unwrap();
        assert!(matches!(cache.artifact(&checksum).unwrap(), Lookup::Corrupt));
        assert!(matches!(cache.artifact(&checksum).unwrap(), Lookup::Miss));
        cache.store(&checksum, b"content").unwrap();
        let Lookup::Hit(artifact) = cache.artifact(&checksum).unwrap() else { panic!("stored above") };
        assert_eq!(artifact.read().unwrap(), b"content");
    }

    #[test]
    fn bytes_with_another_checksum_leave_no_trace() {
        let (folder, cache) = cache();
        let error = cache.store(&Checksum::of(b"promised"), b"delivered").unwrap_err();
        assert!(matches!(error, RegistryError::Cache { source, .. } if source.kind() == io::ErrorKind::InvalidData));
        assert!(matches!(cache.artifact(&Checksum::of(b"promised")).unwrap(), Lookup::Miss));
        assert!(matches!(cache.artifact(&Checksum::of(b"delivered")).unwrap(), Lookup::Miss));
        assert_eq!(files_below(folder.path()), 0);
    }

    #[test]
    fn an_abandoned_write_leaves_no_trace_and_a_crashed_one_is_never_served() {
        let (folder, cache) = cache();
        let mut writer = cache.blob_writer().unwrap();
        writer.write(b"half").unwrap();
        drop(writer);
        assert_eq!(files_below(folder.path()), 0);

        // What a kill before the rename leaves: bytes under a temporary name.
        let mut writer = cache.blob_writer().unwrap();
        writer.write(b"content").unwrap();
        let (_, left_over) = writer.file.keep().unwrap();
        let reopened = Cache::open(folder.path(), u64::MAX).unwrap();
        assert!(matches!(reopened.artifact(&Checksum::of(b"content")).unwrap(), Lookup::Miss));
        assert!(left_over.exists());
        reopened.store(&Checksum::of(b"content"), b"content").unwrap();
        assert!(matches!(reopened.artifact(&Checksum::of(b"content")).unwrap(), Lookup::Hit(_)));
    }

    #[test]
    fn every_torn_length_of_a_file_is_detected() {
        let (_folder, cache) = cache();
        let content = b"0123456789abcdef";
        let checksum = Checksum::of(content);
        for length in 0..content.len() {
            let path = cache.store(&checksum, content).unwrap().path().to_owned();
            File::options().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
            assert!(matches!(cache.artifact(&checksum).unwrap(), Lookup::Corrupt), "{length} bytes");
        }
    }

    #[test]
    fn a_file_handed_out_survives_the_removal_of_its_name() {
        let (_folder, cache) = cache();
        let artifact = cache.store(&Checksum::of(b"content"), b"content").unwrap();
        fs::remove_file(artifact.path()).unwrap();
        assert_eq!(artifact.read().unwrap(), b"content");
    }
}
