//! The Merkle tree over a log's records, as RFC 6962 defines it: roots, inclusion proofs, consistency proofs.
//! Record `s` is leaf `s - 1`; its hash is its leaf hash. The tree is never stored: it is folded from leaf hashes, in
//! memory that grows with the logarithm of the log. Nothing here is signed: that is what checkpoints do.
//!
//! ```
//! use resilience_audit::{AuditEvent, AuditLog, tree::LogTree};
//!
//! # let place = tempfile::tempdir()?;
//! # let dir = place.path().join("audit");
//! let log = AuditLog::open(&dir)?;
//! let mut anchors = Vec::new();
//! for name in ["ada", "grace", "edsger"] {
//!     anchors.push(log.append_durable(AuditEvent::new("user", "login", name))?.wait()?);
//! }
//! let tree = LogTree::open(&dir)?;
//! let root = tree.root(3)?;
//! // Two hashes prove that the second record is in the log, to anyone who trusts the root.
//! let proof = tree.prove_inclusion(1, 3)?;
//! assert!(proof.verify(anchors[1].hash, root));
//! assert!(!proof.verify(anchors[2].hash, root));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod leaves;
mod log_tree;
mod proof;
mod range;

#[cfg(feature = "checkpoints")]
pub(crate) use leaves::{LeavesCheck, LeavesError, create_prepared, path as leaves_path};
pub use log_tree::LogTree;
pub use proof::{ConsistencyProof, InclusionProof};
pub use range::CompactRange;
