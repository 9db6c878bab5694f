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
    /// A file of leaf hashes is not one, or does not fit the records.
    #[error("the file of leaf hashes is damaged ({0})")]
    Leaves(&'static str),
    /// Neither the record nor a file with its hash is there, and the tree cannot be computed without.
    #[error("neither this record nor its hash is there any more")]
    MissingLeaves,
    /// The log has fewer records than were asked for.
    #[error("the log has {last} records; allowed: 1 to {last}, not {wanted}")]
    BeyondEnd {
        /// The last sequence number in the log.
        last: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// The file of a checkpoint is not a signed note, or not one of a checkpoint.
    #[error("the checkpoint is damaged ({0})")]
    Checkpoint(&'static str),
    /// No key that was given has signed the checkpoint.
    #[error("the checkpoint is signed by none of the keys given")]
    UnknownKey,
    /// A key that was given is named in the checkpoint, but did not sign this text: it was changed or forged.
    #[error("the checkpoint's signature is not that of the key {key}: it was changed or forged")]
    Signature {
        /// The key's name and id.
        key: String,
    },
    /// The checkpoint is of another log.
    #[error("the checkpoint is of the log `{found}`, not of `{expected}`")]
    Origin {
        /// The origin in the checkpoint.
        found: String,
        /// The origin in the others.
        expected: String,
    },
    /// Two checkpoints of one size, both signed, have different roots: the log has shown two histories.
    #[error("two signed checkpoints of {size} records have different roots: there are two histories of this log")]
    Fork {
        /// The size of both.
        size: u64,
    },
    /// The first records do not have the root that was signed: history was rewritten, or is another log's.
    #[error("records {from} to {size} are not all those a signed checkpoint covers: history was rewritten")]
    RootMismatch {
        /// The first record that no earlier checkpoint confirms.
        from: u64,
        /// The size of the checkpoint.
        size: u64,
    },
    /// The log ends before a signed checkpoint: it was truncated, or replaced by an older copy.
    #[error(
        "the log ends at record {last}, but a checkpoint of {size} records was signed: it was truncated or rolled back"
    )]
    BehindCheckpoint {
        /// The last sequence number in the log.
        last: u64,
        /// The size of the checkpoint.
        size: u64,
    },
}
