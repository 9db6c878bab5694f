//! Signed checkpoints: size and root of a log's tree under Ed25519 signatures, in the text form that C2SP specifies
//! (`c2sp.org/tlog-checkpoint`, `c2sp.org/signed-note`), so that others check them with their own tools.
//! A [`Checkpoint`] exists only with a signature that was verified; nothing unsigned is ever taken for one.

mod check;
mod due;
mod files;
mod key;
mod note;
mod proof;
mod settings;
mod signer;

use std::fmt;
use std::time::SystemTime;

use crate::hash::Hash;

pub use check::{CheckpointReport, verify_with_checkpoints, verify_with_checkpoints_in};
pub(crate) use due::Due;
pub(crate) use files::newest_size;
pub use files::{KnownFile, list_checkpoints};
pub use key::{KeyError, SigningKey, VerifyingKey};
pub use note::CheckpointError;
pub use proof::{Proof, ProofError, Proven, check_proof, prove, prove_consistency, prove_in};
pub(crate) use settings::Settings;
pub(crate) use signer::Signer;

/// A checkpoint whose signature was verified: how many records a log had, and the root of their tree.
///
/// Keep it, or have it kept, outside of the log's machine: [`verify_with_checkpoints`] then finds what was cut off or
/// rewritten later, and a [`Proof`] shows a record to someone who has only the checkpoint's key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Which log it is of.
    pub origin: String,
    /// How many records it covers.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// When it was made, by the clock of the log that made it.
    pub time: Option<SystemTime>,
    /// The keys, of those given, that have signed it.
    pub signed_by: Vec<VerifyingKey>,
    note: String,
}

impl Checkpoint {
    /// Reads a checkpoint and verifies its signatures: at least one must be of one of `keys`, and none of theirs may be
    /// wrong. Signatures of other keys are ignored. To demand several, look at [`signed_by`](Self::signed_by).
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`], [`UnknownKey`](CheckpointError::UnknownKey) or
    /// [`Signature`](CheckpointError::Signature).
    pub fn open(note: &[u8], keys: &[VerifyingKey]) -> Result<Self, CheckpointError> {
        let note = note::Note::parse(note)?;
        let signed_by = note.verify(keys)?;
        let body = note::Body::parse(note.text)?;
        let note::Body { origin, size, root, time } = body;
        Ok(Self { origin: origin.to_owned(), size, root, time, signed_by, note: note.whole.to_owned() })
    }

    /// The same checkpoint with one more signature. It can be read again by whoever knows any of its keys.
    #[must_use]
    pub fn cosign(&self, key: &SigningKey) -> Self {
        let mut cosigned = self.clone();
        let verifying = key.verifying_key();
        if !self.signed_by.contains(&verifying) {
            cosigned.note = note::add_signature(&self.note, key);
            cosigned.signed_by.push(verifying);
        }
        cosigned
    }

    /// The signed note, as it is sent and stored.
    pub fn as_str(&self) -> &str {
        &self.note
    }
}

/// The signed note.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.note)
    }
}
