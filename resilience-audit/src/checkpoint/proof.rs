//! Proofs as files: a record, its inclusion proof and the checkpoint, in the text form of `c2sp.org/tlog-proof`, so that
//! a third party with nothing but a public key can check that the record is in the log. All of a proof is untrusted.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::note::{MAX_NOTE, decimal, decode_hash, encode_hash};
use crate::checkpoint::{Checkpoint, CheckpointError, VerifyingKey, files};
use crate::codec::{self, Body, MAX_BODY};
use crate::error::ReadError;
use crate::hash::{Anchor, Hash};
use crate::record::Record;
use crate::storage::{FileStorage, Storage};
use crate::tree::{InclusionProof, LogTree};
use crate::walk::Walker;

const MAGIC: &str = "c2sp.org/tlog-proof@v1";
const MAX_PROOF: usize = MAX_BODY * 4 / 3 + MAX_NOTE + 8192;

/// Why there is no proof, or why a proof proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The text is not a proof.
    #[error("not a proof ({0})")]
    Malformed(&'static str),
    /// The checkpoint in the proof is not one that a given key signed, or none could be made.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint does not cover the record, or its tree does not contain it at this place.
    #[error("record {sequence} is not in the tree of the checkpoint")]
    NotIncluded {
        /// The record's sequence number.
        sequence: u64,
    },
    /// The proof does not hold the record; its anchor is needed to check it.
    #[error("the proof holds no record; it can be checked with the record's anchor")]
    NoRecord,
    /// No checkpoint in the log's directory covers the record.
    #[error("no checkpoint signed by one of the keys given covers record {sequence}")]
    NoCheckpoint {
        /// The record's sequence number.
        sequence: u64,
    },
    /// The log could not be read, or does not have the root that was signed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The records of the log do not have the root that was signed.
    #[error("the log does not have the root that was signed for its first {size} records")]
    RootMismatch {
        /// The size of the checkpoint.
        size: u64,
    },
}

/// A proof that a record is in a log. Its text form, [`to_string`](ToString::to_string), is the content of a
/// `.tlog-proof` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    record: Option<Vec<u8>>,
    index: u64,
    hashes: Vec<Hash>,
    note: String,
}

/// What a proof proves.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Proven {
    /// The record.
    pub record: Record,
    /// The checkpoint whose tree contains it.
    pub checkpoint: Checkpoint,
}

/// Checks a proof without the log: that one of `keys` has signed its checkpoint and that the checkpoint's tree contains
/// the record in it.
///
/// # Errors
/// See [`ProofError`].
pub fn check_proof(proof: &[u8], keys: &[VerifyingKey]) -> Result<Proven, ProofError> {
    Proof::parse(proof)?.verify(keys)
}

impl Proof {
    /// Reads a proof. Nothing in it is verified.
    ///
    /// # Errors
    /// When the text is not a proof.
    pub fn parse(proof: &[u8]) -> Result<Self, ProofError> {
        let malformed = ProofError::Malformed;
        if proof.len() > MAX_PROOF {
            return Err(malformed("it is too long"));
        }
        let text = std::str::from_utf8(proof).map_err(|_| malformed("it is not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(malformed("it has no checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(MAGIC) {
            return Err(malformed("it begins otherwise"));
        }
        let record = lines.next_if(|line| line.starts_with("extra ")).map(|line| STANDARD.decode(&line[6..]));
        let record = record.transpose().map_err(|_| malformed("its record is not base64"))?;
        let index = lines.next().and_then(|line| decimal(line.strip_prefix("index ")?));
        let index = index.ok_or(malformed("its index is not a number"))?;
        let hashes: Option<Vec<Hash>> = lines.map(decode_hash).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= 64).ok_or(malformed("its hashes are not such"))?;
        Ok(Self { record, index, hashes, note: note.to_owned() })
    }

    /// The sequence number of the record it is about.
    pub fn sequence(&self) -> u64 {
        self.index.saturating_add(1)
    }

    /// Checks the proof: see [`check_proof`].
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify(&self, keys: &[VerifyingKey]) -> Result<Proven, ProofError> {
        let bytes = self.record.as_deref().ok_or(ProofError::NoRecord)?;
        let hash = Hash::of_record(bytes);
        let record = Body::parse(bytes).map_err(ProofError::Malformed)?.to_record(hash);
        let checkpoint = self.verify_anchor(record.anchor(), keys)?;
        Ok(Proven { record, checkpoint })
    }

    /// Checks that the proof is about the record this anchor names, whether or not it holds the record.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify_anchor(&self, anchor: Anchor, keys: &[VerifyingKey]) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::open(self.note.as_bytes(), keys)?;
        let inclusion = InclusionProof { index: self.index, size: checkpoint.size, hashes: self.hashes.clone() };
        if anchor.sequence != self.sequence() || !inclusion.verify(anchor.hash, checkpoint.root) {
            return Err(ProofError::NotIncluded { sequence: anchor.sequence });
        }
        Ok(checkpoint)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MAGIC}")?;
        if let Some(record) = &self.record {
            writeln!(f, "extra {}", STANDARD.encode(record))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", encode_hash(*hash)))?;
        write!(f, "\n{}", self.note)
    }
}

/// Proves that record `sequence` is in the log in the directory `path`, for the newest checkpoint there that one of
/// `keys` has signed. Of a record that was removed, only its hash may be left: the proof is then without the record.
///
/// # Errors
/// When there is no such checkpoint, the log cannot be read, or it does not have the root that was signed.
pub fn prove(path: impl AsRef<Path>, sequence: u64, keys: &[VerifyingKey]) -> Result<Proof, ProofError> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    prove_in(&storage, path, sequence, keys)
}

/// The same through another [`Storage`].
///
/// # Errors
/// As [`prove`].
pub fn prove_in(
    storage: &Arc<dyn Storage>,
    path: impl AsRef<Path>,
    sequence: u64,
    keys: &[VerifyingKey],
) -> Result<Proof, ProofError> {
    let newest = files::newest(storage.as_ref(), path.as_ref(), keys)?;
    let covering = newest.filter(|checkpoint| (1..=checkpoint.size).contains(&sequence));
    let checkpoint = covering.ok_or(ProofError::NoCheckpoint { sequence })?;
    prove_at(storage, path.as_ref(), sequence, &checkpoint)
}

pub(crate) fn prove_at(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    sequence: u64,
    checkpoint: &Checkpoint,
) -> Result<Proof, ProofError> {
    let index = sequence.checked_sub(1).ok_or(ProofError::NotIncluded { sequence })?;
    let tree = LogTree::open_in(storage, dir)?;
    let record = tree.segment_of(index).map(|first| record(storage, dir, first, sequence)).transpose()?.flatten();
    let prove = |tree: &LogTree| -> Result<Option<InclusionProof>, ProofError> {
        let leaf = record.as_ref().map_or_else(|| tree.leaf(sequence), |record| Ok(record.hash()))?;
        let inclusion = tree.prove_inclusion(index, checkpoint.size)?;
        Ok(inclusion.verify(leaf, checkpoint.root).then_some(inclusion))
    };
    // The files of leaf hashes are only a short cut: when the proof fails with them, the records decide.
    let inclusion = match prove(&tree) {
        Ok(Some(inclusion)) => inclusion,
        _ => prove(&tree.from_records())?.ok_or(ProofError::RootMismatch { size: checkpoint.size })?,
    };
    let record = record.map(|record| {
        let mut bytes = Vec::new();
        codec::encode(&record.stamp, &record.event, &mut bytes);
        bytes
    });
    Ok(Proof { record, index, hashes: inclusion.hashes, note: checkpoint.as_str().to_owned() })
}

/// One record of the segment that begins with `first`.
fn record(storage: &Arc<dyn Storage>, dir: &Path, first: u64, sequence: u64) -> Result<Option<Record>, ReadError> {
    let mut walker = Walker::from_segment(storage, dir, first, None)?;
    while let Some(step) = walker.step()? {
        if step.body.stamp.sequence == sequence {
            return Ok(Some(step.body.to_record(step.hash)));
        }
    }
    Ok(None)
}

/// Proves that the newest checkpoint in the directory `path` signed by one of `keys` continues the first `old_size`
/// records, as the body of a witness's `add-checkpoint` request (`c2sp.org/tlog-witness`): `old` and the size, the hashes
/// of the consistency proof, an empty line, the checkpoint.
///
/// # Errors
/// As [`prove`].
pub fn prove_consistency(path: impl AsRef<Path>, old_size: u64, keys: &[VerifyingKey]) -> Result<String, ProofError> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    let newest = files::newest(storage.as_ref(), path.as_ref(), keys)?;
    let covering = newest.filter(|checkpoint| checkpoint.size >= old_size);
    let checkpoint = covering.ok_or(ProofError::NoCheckpoint { sequence: old_size })?;
    let prove = |tree: &LogTree| -> Result<_, ProofError> {
        let proof = tree.prove_consistency(old_size, checkpoint.size)?;
        Ok(proof.verify(tree.root(old_size)?, checkpoint.root).then_some(proof))
    };
    let tree = LogTree::open_in(&storage, path)?;
    let proof = match prove(&tree) {
        Ok(Some(proof)) => proof,
        _ => prove(&tree.from_records())?.ok_or(ProofError::RootMismatch { size: checkpoint.size })?,
    };
    let hashes: String = proof.hashes.iter().map(|hash| encode_hash(*hash) + "\n").collect();
    Ok(format!("old {old_size}\n{hashes}\n{checkpoint}"))
}
