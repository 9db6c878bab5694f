//! The writing side of a durable log: appends groups of records, one write and one `fdatasync` each.
//! A group is in the log whole and durable, or not at all; what a failed write left behind is taken back.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec;
use crate::event::AuditEvent;
use crate::format::{self, GROUP_BYTES, HEADER_LEN, Header};
use crate::hash::Anchor;
use crate::record::{Kind, Stamp};
use crate::storage::{Storage, StorageFile, write_all};
use crate::walk::End;

/// Why a group was not committed.
#[derive(Debug)]
pub(crate) struct CommitError {
    pub(crate) reason: String,
    /// Whether it is unknown what is on the disk now. Otherwise the log is as it was before, and may be tried again.
    pub(crate) fatal: bool,
}

impl CommitError {
    fn again(step: &str, path: &Path, error: &io::Error) -> Self {
        Self { reason: format!("cannot {step} {}: {error}", path.display()), fatal: false }
    }

    fn fatal(step: &str, path: &Path, error: &io::Error) -> Self {
        Self { fatal: true, ..Self::again(step, path, error) }
    }
}

/// An open log, ready to be appended to, and the lock that makes this its only writer.
pub(crate) struct Store {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    segment_bytes: u64,
    file: Box<dyn StorageFile>,
    header: Header,
    path: PathBuf,
    /// The durable end of the segment, and of the log.
    len: u64,
    last: Anchor,
    /// The group being built, and the last record in it.
    group: Vec<u8>,
    group_last: Anchor,
    position: u32,
    // Held, not looked at.
    #[cfg_attr(not(feature = "checkpoints"), expect(dead_code))]
    lock: Arc<dyn Any + Send + Sync>,
}

/// The open segment that a store goes on with.
pub(crate) struct Opened {
    pub(crate) file: Box<dyn StorageFile>,
    pub(crate) header: Header,
    pub(crate) len: u64,
    pub(crate) last: Anchor,
    pub(crate) lock: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn new(storage: Arc<dyn Storage>, dir: &Path, segment_bytes: u64, opened: Opened) -> Self {
        Self {
            storage,
            dir: dir.to_owned(),
            segment_bytes,
            file: opened.file,
            header: opened.header,
            path: format::segment_path(dir, opened.header.first_sequence),
            len: opened.len,
            last: opened.last,
            group: Vec::with_capacity(64 << 10),
            group_last: opened.last,
            position: 0,
            lock: opened.lock.into(),
        }
    }

    /// The last durable record.
    pub(crate) fn last(&self) -> Anchor {
        self.last
    }

    /// The lock that makes this the log's only writer, to hold it for longer than the store lives.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn lock(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.lock)
    }

    /// The durable end of the log.
    pub(crate) fn end(&self) -> End {
        End { first: self.header.first_sequence, offset: self.len }
    }

    /// Begins a group, in a new segment when this one is full.
    pub(crate) fn begin(&mut self) -> Result<(), CommitError> {
        self.group.clear();
        self.group_last = self.last;
        self.position = 0;
        if self.len >= self.segment_bytes && self.len > HEADER_LEN as u64 {
            self.rotate()?;
        }
        Ok(())
    }

    /// Whether the group has reached its size and must be committed before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.group.len() >= GROUP_BYTES
    }

    /// Adds a record to the group. Its anchor holds once the group is committed.
    pub(crate) fn push(&mut self, kind: Kind, wall_nanos: u64, monotonic_nanos: u64, event: &AuditEvent) -> Anchor {
        let sequence = self.group_last.sequence + 1;
        let stamp = Stamp {
            kind,
            sequence,
            wall_nanos,
            monotonic_nanos,
            position: self.position,
            previous: self.group_last.hash,
        };
        let hash = format::put_frame(self.header.salt(), &mut self.group, |out| codec::encode(&stamp, event, out));
        self.position += 1;
        self.group_last = Anchor { sequence, hash };
        self.group_last
    }

    /// Writes the group and makes it durable.
    pub(crate) fn commit(&mut self) -> Result<(), CommitError> {
        if let Err(error) = write_all(self.file.as_mut(), self.len, &self.group) {
            // A short write may have left a part behind: it goes, so that the next attempt starts clean.
            return Err(match self.file.set_len(self.len) {
                Ok(()) => CommitError::again("write", &self.path, &error),
                Err(second) => CommitError::fatal("take back a failed write to", &self.path, &second),
            });
        }
        if let Err(error) = self.file.sync_data() {
            // The kernel may have dropped the pages and call them clean, so a second sync would succeed without
            // writing. The group is taken out of sight instead: whoever opens the log next sees what was durable
            // before. Should this fail too, the log is no worse off: it is poisoned either way.
            let _ = self.file.set_len(self.len);
            return Err(CommitError::fatal("sync", &self.path, &error));
        }
        self.len += self.group.len() as u64;
        self.last = self.group_last;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), CommitError> {
        let header =
            Header { log_id: self.header.log_id, first_sequence: self.last.sequence + 1, previous: self.last.hash };
        self.file = create_segment(self.storage.as_ref(), &self.dir, &header)?;
        self.header = header;
        self.path = format::segment_path(&self.dir, header.first_sequence);
        self.len = HEADER_LEN as u64;
        Ok(())
    }
}

/// Makes a segment with nothing but its header. Its name appears only when the header is durable, so a segment with a
/// part of a header is never the trace of a crash.
pub(crate) fn create_segment(
    storage: &dyn Storage,
    dir: &Path,
    header: &Header,
) -> Result<Box<dyn StorageFile>, CommitError> {
    let prepared = format::new_segment_path(dir, header.first_sequence);
    let path = format::segment_path(dir, header.first_sequence);
    let mut file = match storage.create(&prepared) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left by an attempt that failed before it was renamed: it holds nothing but a header.
            storage.remove(&prepared).and_then(|()| storage.create(&prepared))
        }
        created => created,
    }
    .map_err(|error| CommitError::again("create", &prepared, &error))?;
    let give_up = |error: CommitError| {
        // Best effort: what stays behind is removed at the next attempt or opening.
        let _ = storage.remove(&prepared);
        error
    };
    write_all(file.as_mut(), 0, &header.encode())
        .map_err(|error| give_up(CommitError::again("write", &prepared, &error)))?;
    file.sync_data().map_err(|error| give_up(CommitError::fatal("sync", &prepared, &error)))?;
    storage.rename(&prepared, &path).map_err(|error| give_up(CommitError::again("rename", &prepared, &error)))?;
    storage.sync_dir(dir).map_err(|error| CommitError::fatal("sync", dir, &error))?;
    Ok(file)
}
