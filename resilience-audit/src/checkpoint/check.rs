//! Verifying a log against signed checkpoints: those in its directory and those kept elsewhere.
//! Finds what the chain alone cannot show: a log cut at its end, an older copy, a rewritten history, two histories.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointError, VerifyingKey, files};
use crate::error::ReadError;
use crate::hash::Anchor;
use crate::problem::{Problem, ProblemKind};
use crate::storage::{FileStorage, Storage};
use crate::tree::{CompactRange, LeavesCheck, LeavesError, LogTree};
use crate::verify::{self, VerifyReport};
use crate::walk::{Walker, existing_segments};

/// What verifying a log with its checkpoints found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// What was found of the log; its problem may also be one of a checkpoint or a `.leaves` file.
    pub log: VerifyReport,
    /// How many checkpoints the records were compared with and had the root of.
    pub checkpoints: u64,
    /// The newest of them.
    pub latest: Option<Checkpoint>,
}

impl CheckpointReport {
    /// Whether everything is what was written and signed.
    pub fn is_sound(&self) -> bool {
        self.log.is_sound()
    }
}

impl fmt::Display for CheckpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; checkpoints {}", self.log, self.checkpoints)?;
        match &self.latest {
            Some(latest) => write!(f, ", the newest of {} records", latest.size),
            None => Ok(()),
        }
    }
}

/// Verifies the log in the directory `path` as [`verify`](crate::verify) does, and that it continues every checkpoint:
/// those in its directory, each of which must be signed by one of `keys`, and the `known` ones, kept elsewhere. The
/// `.leaves` files are compared with the records too. Without keys, the checkpoints in the directory are passed over.
///
/// Only a checkpoint kept elsewhere shows that someone with access to the directory cut records *and* checkpoints off.
///
/// # Errors
/// When there is no log, it cannot be read, or it was written by a newer version. What is not sound is in the report.
pub fn verify_with_checkpoints(
    path: impl AsRef<Path>,
    keys: &[VerifyingKey],
    known: &[Checkpoint],
) -> Result<CheckpointReport, ReadError> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    verify_with_checkpoints_in(&storage, path, keys, known, &[])
}

/// The same through another [`Storage`], and against anchors as well.
///
/// # Errors
/// As [`verify_with_checkpoints`].
pub fn verify_with_checkpoints_in(
    storage: &Arc<dyn Storage>,
    path: impl AsRef<Path>,
    keys: &[VerifyingKey],
    known: &[Checkpoint],
    anchors: &[Anchor],
) -> Result<CheckpointReport, ReadError> {
    let dir = path.as_ref();
    let log = verify::run(storage, dir, None, anchors)?;
    let mut report = CheckpointReport { log, checkpoints: 0, latest: None };
    if report.log.is_sound() {
        match compare(storage, dir, keys, known, &mut report) {
            Ok(()) => {}
            Err(ReadError::Damaged(problem)) => report.log.problem = Some(problem),
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// A checkpoint and where it was found.
struct Found {
    place: PathBuf,
    checkpoint: Checkpoint,
}

impl Found {
    fn problem(&self, kind: ProblemKind) -> ReadError {
        problem(&self.place, self.checkpoint.size, kind)
    }
}

fn problem(place: &Path, sequence: u64, kind: ProblemKind) -> ReadError {
    ReadError::Damaged(Problem { segment: place.to_owned(), offset: 0, sequence, kind })
}

fn compare(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    keys: &[VerifyingKey],
    known: &[Checkpoint],
    report: &mut CheckpointReport,
) -> Result<(), ReadError> {
    let mut found: Vec<Found> =
        known.iter().map(|checkpoint| Found { place: dir.to_owned(), checkpoint: checkpoint.clone() }).collect();
    let mut bad_file = None;
    if !keys.is_empty() {
        for file in files::list(storage.as_ref(), dir, keys)? {
            match file.checkpoint {
                Ok(checkpoint) => found.push(Found { place: file.path, checkpoint }),
                Err(error) if bad_file.is_none() => bad_file = Some(problem(&file.path, file.size, kind_of(error))),
                Err(_) => {}
            }
        }
    }
    if let Some(first) = found.first() {
        let expected = &first.checkpoint.origin;
        if let Some(other) = found.iter().find(|other| other.checkpoint.origin != *expected) {
            let (found, expected) = (other.checkpoint.origin.clone(), expected.clone());
            return Err(other.problem(ProblemKind::Origin { found, expected }));
        }
    }
    found.sort_by_key(|found| found.checkpoint.size);
    for pair in found.windows(2) {
        let (one, other) = (&pair[0].checkpoint, &pair[1].checkpoint);
        if one.size == other.size && one.root != other.root {
            return Err(pair[1].problem(ProblemKind::Fork { size: one.size }));
        }
    }
    walk(storage, dir, &found, report)?;
    bad_file.map_or(Ok(()), Err)
}

fn kind_of(error: CheckpointError) -> ProblemKind {
    match error {
        CheckpointError::Malformed(what) => ProblemKind::Checkpoint(what),
        CheckpointError::Signature { key } => ProblemKind::Signature { key },
        _ => ProblemKind::UnknownKey,
    }
}

/// Computes the tree from the records and compares it with the checkpoints and the files of leaf hashes.
fn walk(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    found: &[Found],
    report: &mut CheckpointReport,
) -> Result<(), ReadError> {
    let disk = storage.as_ref();
    let segments = existing_segments(disk, dir)?;
    let first = segments.first().copied().unwrap_or(1);
    let mut walker = Walker::from_segment(storage, dir, first, None)?;
    let log_id = walker.log_id();
    let mut tree = CompactRange::new(0);
    let mut found = found.iter().peekable();
    let mut confirmed = 0;
    let mut accept = |found: &Found, root, confirmed: &mut u64| {
        let checkpoint = &found.checkpoint;
        if checkpoint.root != root {
            return Err(ProblemKind::RootMismatch { from: *confirmed + 1, size: checkpoint.size });
        }
        *confirmed = checkpoint.size;
        report.checkpoints += 1;
        report.latest = Some(checkpoint.clone());
        Ok(())
    };
    if first > 1 && found.peek().is_some() {
        // The beginning was removed; what is left of it is its part of the tree, which the checkpoints confirm.
        let removed = LogTree::open_in(storage, dir)?;
        while let Some(earlier) = found.next_if(|found| found.checkpoint.size < first) {
            let root = removed.root(earlier.checkpoint.size)?;
            accept(earlier, root, &mut confirmed).map_err(|kind| earlier.problem(kind))?;
        }
        tree = removed.range(0..first - 1)?;
    } else if first > 1 {
        // Nothing signed to compare with.
        return Ok(());
    }
    let mut check: Option<LeavesCheck> = None;
    let mut segment = first;
    let bad_leaves = |segment: u64, sequence: u64, error| {
        let path = crate::tree::leaves_path(dir, segment);
        match error {
            LeavesError::Io(error) => ReadError::io("read", &path)(error),
            LeavesError::Damaged(what) => problem(&path, sequence, ProblemKind::Leaves(what)),
        }
    };
    loop {
        while let Some(next) = found.next_if(|found| found.checkpoint.size == tree.end()) {
            accept(next, tree.root(), &mut confirmed)
                .map_err(|kind| if tree.end() == 0 { next.problem(kind) } else { walker.problem_with_last(kind) })?;
        }
        let Some(step) = walker.step()? else { break };
        let (sequence, leaf) = (step.body.stamp.sequence, step.hash);
        if segments.contains(&sequence) {
            if let Some(check) = check.take() {
                check.finish().map_err(|error| bad_leaves(segment, segment, error))?;
            }
            segment = sequence;
            if segments.last() != Some(&segment) {
                let begun = LeavesCheck::begin(disk, dir, &log_id, &tree);
                check = begun.map_err(|error| bad_leaves(segment, segment, error))?;
            }
        }
        tree.push(leaf);
        if let Some(check) = &mut check {
            check.push(leaf).map_err(|error| bad_leaves(segment, sequence, error))?;
        }
    }
    // The furthest says most about how much is gone.
    if let Some(furthest) = found.last() {
        let size = furthest.checkpoint.size;
        return Err(walker.problem(ProblemKind::BehindCheckpoint { last: tree.end(), size }));
    }
    Ok(())
}
