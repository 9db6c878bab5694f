//! Where and how a log differs from what was written.
//! A problem always names a place: segment, byte offset and the sequence number expected there.

use std::fmt;
use std::path::PathBuf;

/// The first place at which a log is not sound.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The segment file.
    pub segment: PathBuf,
    /// The byte in it at which the record (or header) in question begins.
    pub offset: u64,
    /// The sequence number that belongs there.
    pub sequence: u64,
    /// What is wrong.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} (record {}): {}", self.segment.display(), self.offset, self.sequence, self.kind)
    }
}

impl std::error::Error for Problem {}

/// What is wrong at a place in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The header of the segment is not one, or is damaged.
    #[error("the segment's header is damaged ({0})")]
    Header(&'static str),
    /// The segment belongs to another log.
    #[error("the segment belongs to another log")]
    ForeignSegment,
    /// The segment before this one is missing, or this one was put in its place.
    #[error("the segment begins at record {found}, so records are missing before it or it was moved")]
    MissingSegment {
        /// The first sequence number in the segment.
        found: u64,
    },
    /// The record is damaged: its length, checksum or trailer do not fit its bytes.
    #[error("the record is damaged ({0})")]
    Frame(&'static str),
    /// The bytes have the right checksum but are not a record of this format.
    #[error("the record is malformed ({0})")]
    Record(&'static str),
    /// A record with another sequence number stands here: something was removed, swapped or inserted.
    #[error("record {found} stands here")]
    Sequence {
        /// The sequence number found.
        found: u64,
    },
    /// The record does not carry the hash of the one before it: one of the two was changed or replaced.
    #[error("the hash chain is broken: this record does not follow the one before it")]
    Chain,
    /// The log ends in the middle of a record: a group being written at this moment, the trace of a crash, or a cut.
    #[error("the log ends within a record ({bytes} bytes of it are there)")]
    TornTail {
        /// How many bytes follow the last whole record.
        bytes: u64,
    },
    /// More bytes are unreadable at the end than one write can tear.
    #[error("the last {bytes} bytes are unreadable, more than a crash can tear")]
    TailTooLong {
        /// How many bytes follow the last whole record.
        bytes: u64,
    },
    /// The log ends before the anchor: it was truncated, or replaced by an older copy.
    #[error("the log ends at record {last}, but record {anchor} was acknowledged: it was truncated or rolled back")]
    RolledBack {
        /// The last sequence number in the log.
        last: u64,
        /// The sequence number of the anchor.
        anchor: u64,
    },
    /// The record the anchor names is there, with another content: history was rewritten.
    #[error("the record is not the one that was acknowledged: history was rewritten")]
    AnchorMismatch,
}
