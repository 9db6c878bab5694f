//! The errors of this crate, one enum per thing a caller does: append, open, read, clear.
//! Every message names the value and what would be right; none carries the content of an event.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resilience_core::ConfigError;

use crate::problem::Problem;

/// Why an event was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// A text or the details are larger than the log's limits allow.
    #[error("`{field}` has {size} bytes; allowed: at most {limit}")]
    TooLarge {
        /// Which part of the event.
        field: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More details than the log's limits allow.
    #[error("the event has {count} details; allowed: at most {limit}")]
    TooManyDetails {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The wall time cannot be recorded: before 1970, or after 2554.
    #[error("the wall time is {seconds_from_1970} s from 1970-01-01T00:00:00Z; allowed: 0 to 18446744073")]
    TimeOutOfRange {
        /// Whole seconds from 1970, negative before it.
        seconds_from_1970: i128,
    },
    /// The queue to the writer is full and the policy is to refuse.
    #[error("the event was refused: {capacity} events wait to be written, waited {waited:?} for room")]
    Full {
        /// The capacity of the queue.
        capacity: usize,
        /// How long the call waited for room.
        waited: Duration,
    },
    /// The log cannot be written at the moment and tries again by itself; the event was refused.
    #[error("the event was refused: the log cannot be written at the moment ({reason})")]
    Unavailable {
        /// What the last attempt to write said.
        reason: Arc<str>,
    },
    /// The event was handed over but could not be made durable, and was taken out of the log again.
    #[error("the event was not made durable: {reason}")]
    NotDurable {
        /// What writing said.
        reason: Arc<str>,
    },
    /// An earlier error left it unknown what is on the disk; nothing can be appended until the log is opened again.
    #[error("the log takes no more events until it is opened again: {reason}")]
    Poisoned {
        /// The error that poisoned it.
        reason: Arc<str>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Why a log could not be opened. Nothing of an existing log was overwritten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system refused something.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is not a directory of an audit log, and not an empty directory either.
    #[error("{} is not an audit log: {found}; allowed: a new path, an empty directory or the directory of a log", path.display())]
    NotALog {
        /// The path that was given.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Another writer has the log open.
    #[error("{} is open in another writer ({holder}); a log has one writer at a time, readers need no lock", path.display())]
    Locked {
        /// The directory of the log.
        path: PathBuf,
        /// What the lock file says of its holder.
        holder: String,
    },
    /// Others than the owner may read or change the log.
    #[error("{} has mode {mode:04o}, so others can reach the log; allowed: {allowed:04o} (chmod {allowed:o} {})", path.display(), path.display())]
    InsecurePermissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they may be at most.
        allowed: u32,
    },
    /// The log was written by a newer version of this crate.
    #[error("{} has format version {found}; this build reads up to {supported}", path.display())]
    NewerVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version known here.
        supported: u16,
    },
    /// What was durable once is no longer what it was. The log is left exactly as it was found.
    #[error("the log was tampered with or damaged: {0}")]
    Tampered(Problem),
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refused something.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no log at the path.
    #[error("{} is not an audit log: {found}", path.display())]
    NotALog {
        /// The path that was given.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The log was written by a newer version of this crate.
    #[error("{} has format version {found}; this build reads up to {supported}", path.display())]
    NewerVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version known here.
        supported: u16,
    },
    /// The log is not what was written.
    #[error("{0}")]
    Damaged(Problem),
    /// The log lives in memory: there is no file to verify.
    #[error("the log is kept in memory; only a log with a path can be verified")]
    InMemory,
}

impl ReadError {
    pub(crate) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, path: path.to_owned(), source }
    }
}

impl OpenError {
    pub(crate) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, path: path.to_owned(), source }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { step, path, source } => Self::Io { step, path, source },
            ReadError::NotALog { path, found } => Self::NotALog { path, found },
            ReadError::NewerVersion { path, found, supported } => Self::NewerVersion { path, found, supported },
            ReadError::Damaged(problem) => Self::Tampered(problem),
            ReadError::InMemory => Self::NotALog { path: PathBuf::new(), found: "a log in memory".to_owned() },
        }
    }
}

/// Why a log was not cleared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClearError {
    /// A durable log is append-only.
    #[error("a log with a path is append-only and cannot be cleared")]
    AppendOnly,
    /// The log was not built with `permit_clear`.
    #[error("clearing is not permitted; allowed: on a log in memory built with `permit_clear(true)`")]
    NotPermitted,
    /// Clearing is audited itself, and its record was refused.
    #[error("nothing was cleared: {0}")]
    NotRecorded(#[from] AppendError),
}
