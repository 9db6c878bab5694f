//! Everything the log asks of a file system, as one small trait, and its implementation on real files.
//! The trait exists so that every I/O step can be made to fail in a test; it knows nothing of records.

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Unix permission bits, where the system has them.
    pub mode: Option<u32>,
}

/// A file system as the log sees it. [`FileStorage`] is the real one; tests bring their own to inject faults.
pub trait Storage: fmt::Debug + Send + Sync {
    /// What is at `path`; `None` when nothing is.
    ///
    /// # Errors
    /// What the file system says, other than "not found".
    fn info(&self, path: &Path) -> io::Result<Option<PathInfo>>;

    /// Makes a directory that only its owner can use. Its parent must exist.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes a file that only its owner can use, for reading and writing.
    ///
    /// # Errors
    /// What the file system says; `AlreadyExists` when there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// Opens an existing file, for writing too when `write` is set.
    ///
    /// # Errors
    /// What the file system says.
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn StorageFile>>;

    /// Gives a file another name in the same directory, atomically.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes names created, changed and removed in a directory durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file at `path`, making it when it is missing, and writes `holder` into it for people to read.
    /// `None` when another holds it. The lock is held until the value is dropped or the process dies.
    ///
    /// # Errors
    /// What the file system says.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
}

/// An open file of a [`Storage`].
pub trait StorageFile: Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn len(&mut self) -> io::Result<u64>;

    /// Whether it is empty.
    ///
    /// # Errors
    /// What the file system says.
    fn is_empty(&mut self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at `offset`; fewer bytes than asked for are allowed, none only at the end.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes at `offset`; fewer bytes than given are allowed.
    ///
    /// # Errors
    /// What the file system says.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the file system says.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Makes what was written durable, and the length with it.
    ///
    /// # Errors
    /// What the file system says. After an error it is unknown what is on the disk.
    fn sync_data(&mut self) -> io::Result<()>;
}

/// Writes all of `bytes` at `offset`, however many steps that takes.
pub(crate) fn write_all(file: &mut dyn StorageFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                bytes = bytes.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends; returns how much was read.
pub(crate) fn read_full(file: &mut dyn StorageFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Real files: directories are made with mode 0700 and files with 0600, and locks are the system's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileStorage;

impl Storage for FileStorage {
    fn info(&self, path: &Path) -> io::Result<Option<PathInfo>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(PathInfo { is_dir: metadata.is_dir(), mode: mode(&metadata) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(private().create_new(true).open(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(write).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Elsewhere a directory cannot be opened, and names are durable with the file system's own journal.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut file = private().create(true).truncate(false).open(path)?;
        // Named in full: `File::try_lock` of std is newer than the oldest Rust this crate builds with.
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => return Ok(None),
            Err(fs4::TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.write_all(holder.as_bytes())?;
        Ok(Some(Box::new(file)))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)] // Not every system has them.
fn mode(metadata: &fs::Metadata) -> Option<u32> {
    Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777)
}

#[cfg(not(unix))]
fn mode(_: &fs::Metadata) -> Option<u32> {
    None
}

impl StorageFile for File {
    fn len(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.seek(SeekFrom::Start(offset))?;
        self.read(buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.seek(SeekFrom::Start(offset))?;
        self.write(bytes)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }
}
