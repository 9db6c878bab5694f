//! The tree of a log on disk: roots and proofs from its segments and their `.leaves` files, in one pass each.
//! Files that are missing or damaged are made up for by the records; what neither has is a typed error.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::ReadError;
use crate::hash::Hash;
use crate::problem::{Problem, ProblemKind};
use crate::reverse::Reverse;
use crate::storage::{FileStorage, Storage};
use crate::tree::leaves::{self, Leaves, LeavesError, LeavesWriter};
use crate::tree::proof::{ConsistencyProof, InclusionProof, consistency_parts, inclusion_parts};
use crate::tree::range::CompactRange;
use crate::walk::{End, Segment, Walker, existing_segments};

/// The Merkle tree of the log in a directory, as large as the log was when it was opened.
///
/// It needs no lock and changes nothing, except by [`seal`](Self::seal). Leaf hashes come from the `.leaves` files where
/// there are any, else from the records. The files are not signed: compare a root with a checkpoint's, or use
/// [`from_records`](Self::from_records).
pub struct LogTree {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    log_id: [u8; 16],
    /// The leaves of each segment, in order.
    pieces: Vec<Piece>,
    size: u64,
    end: Option<End>,
    use_files: bool,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    first: u64,
    end: u64,
    /// Whether the records are still there; otherwise only their hashes are.
    has_records: bool,
}

impl fmt::Debug for LogTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTree").field("dir", &self.dir).field("size", &self.size).finish_non_exhaustive()
    }
}

impl LogTree {
    /// The tree of the log in the directory `path`.
    ///
    /// # Errors
    /// When there is no log, it cannot be read, or its last segment is not sound.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let storage: Arc<dyn Storage> = Arc::new(FileStorage);
        Self::open_in(&storage, path)
    }

    /// The same through another [`Storage`].
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(storage: &Arc<dyn Storage>, path: impl AsRef<Path>) -> Result<Self, ReadError> {
        Self::until(storage, path.as_ref(), None)
    }

    pub(crate) fn until(storage: &Arc<dyn Storage>, dir: &Path, end: Option<End>) -> Result<Self, ReadError> {
        let disk = storage.as_ref();
        let segments = existing_segments(disk, dir)?;
        let segments: Vec<u64> =
            segments.into_iter().filter(|first| end.is_none_or(|end| *first <= end.first)).collect();
        let newest = segments.last().copied().unwrap_or(1);
        let log_id = Segment::open(disk, dir, newest, false)?.header.log_id;
        let size = match Reverse::new(storage, dir, end)?.step()? {
            Some(record) => record.sequence(),
            None => newest - 1,
        };
        let mut firsts: BTreeMap<u64, bool> = BTreeMap::new();
        for name in disk.list(dir).map_err(ReadError::io("list", dir))? {
            if let Some(first) = leaves::first_of(&name).filter(|first| *first < newest) {
                firsts.insert(first, false);
            }
        }
        firsts.extend(segments.iter().map(|first| (*first, true)));
        let ends: Vec<u64> = firsts.keys().skip(1).map(|next| next - 1).chain([size]).collect();
        let pieces = firsts.into_iter().zip(ends);
        let pieces = pieces.map(|((first, has_records), end)| Piece { first, end, has_records }).collect();
        Ok(Self { storage: Arc::clone(storage), dir: dir.to_owned(), log_id, pieces, size, end, use_files: true })
    }

    /// The same tree, computed from the records alone wherever they are still there.
    #[must_use]
    pub fn from_records(mut self) -> Self {
        self.use_files = false;
        self
    }

    /// How many leaves it has: the sequence number of the last record.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over the first `size` records.
    ///
    /// # Errors
    /// When the log is shorter, cannot be read, or is damaged where it must be read.
    pub fn root(&self, size: u64) -> Result<Hash, ReadError> {
        Ok(self.range(0..size)?.root())
    }

    /// The subtrees that cover these leaves.
    pub(crate) fn range(&self, leaves: Range<u64>) -> Result<CompactRange, ReadError> {
        let begin = leaves.start;
        Ok(self.ranges(&[leaves])?.pop().unwrap_or_else(|| CompactRange::new(begin)))
    }

    /// The hash of a record: the leaf `sequence - 1`.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn leaf(&self, sequence: u64) -> Result<Hash, ReadError> {
        let index = sequence.checked_sub(1).ok_or_else(|| self.too_short(0))?;
        Ok(self.range(index..sequence)?.root())
    }

    /// Proves that leaf `index` (a record's sequence number less one) is in the tree of the first `size` records.
    ///
    /// # Errors
    /// As [`root`](Self::root); also when `index` is not less than `size`.
    pub fn prove_inclusion(&self, index: u64, size: u64) -> Result<InclusionProof, ReadError> {
        if index >= size {
            return Err(self.too_short(index.saturating_add(1)));
        }
        let hashes = self.roots(&inclusion_parts(index, size))?;
        Ok(InclusionProof { index, size, hashes })
    }

    /// Proves that the first `new_size` records begin with the first `old_size` ones, unchanged.
    ///
    /// # Errors
    /// As [`root`](Self::root); also when `old_size` is greater than `new_size`.
    pub fn prove_consistency(&self, old_size: u64, new_size: u64) -> Result<ConsistencyProof, ReadError> {
        if old_size > new_size {
            return Err(self.too_short(old_size));
        }
        let hashes = self.roots(&consistency_parts(old_size, new_size))?;
        Ok(ConsistencyProof { old_size, new_size, hashes })
    }

    /// The roots over parts of the tree that do not overlap, in any order.
    fn roots(&self, parts: &[Range<u64>]) -> Result<Vec<Hash>, ReadError> {
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_unstable_by_key(|part| parts[*part].start);
        let sorted: Vec<Range<u64>> = order.iter().map(|part| parts[*part].clone()).collect();
        let mut roots = vec![Hash::ZERO; parts.len()];
        for (part, range) in order.into_iter().zip(self.ranges(&sorted)?) {
            roots[part] = range.root();
        }
        Ok(roots)
    }

    /// The subtrees that cover each of these ranges, which ascend and do not overlap: one pass over what is needed.
    fn ranges(&self, wanted: &[Range<u64>]) -> Result<Vec<CompactRange>, ReadError> {
        if let Some(last) = wanted.last().filter(|last| last.end > self.size) {
            return Err(self.too_short(last.end));
        }
        let mut found: Vec<CompactRange> = wanted.iter().map(|range| CompactRange::new(range.start)).collect();
        for piece in &self.pieces {
            let (begin, end) = (piece.first - 1, piece.end);
            let touched = wanted.iter().position(|range| range.end > begin && range.start < end);
            let Some(touched) = touched else { continue };
            let last = wanted.iter().rposition(|range| range.start < end).unwrap_or(touched);
            if wanted[touched].start <= begin && wanted[touched].end >= end {
                let own = self.own(piece)?;
                // Ranges from files fit by their footers, so this fails only where records are missing in between.
                if !found[touched].append(&own) {
                    return Err(self.missing(found[touched].end() + 1));
                }
                continue;
            }
            let needed = wanted[touched].start.max(begin)..wanted[last].end.min(end);
            let mut at = touched;
            self.leaves(piece, needed, |index, leaf| {
                while at < last && index >= wanted[at].end {
                    at += 1;
                }
                if wanted[at].contains(&index) {
                    found[at].push(leaf);
                }
            })?;
        }
        match found.iter().zip(wanted).find(|(found, wanted)| found.end() != wanted.end) {
            Some((found, _)) => Err(self.missing(found.end() + 1)),
            None => Ok(found),
        }
    }

    /// The subtrees over all leaves of a segment.
    fn own(&self, piece: &Piece) -> Result<CompactRange, ReadError> {
        if let Some(leaves) = self.open_leaves(piece)? {
            return Ok(leaves.own);
        }
        let mut own = CompactRange::new(piece.first - 1);
        self.walk(piece, piece.end, |_, leaf| own.push(leaf))?;
        Ok(own)
    }

    /// Gives some leaves of a segment to `take`, in order.
    fn leaves(&self, piece: &Piece, needed: Range<u64>, mut take: impl FnMut(u64, Hash)) -> Result<(), ReadError> {
        if let Some(mut leaves) = self.open_leaves(piece)? {
            return leaves.read(needed.start, needed.end, take).map_err(|error| self.bad_leaves(piece, error));
        }
        self.walk(piece, needed.end, |index, leaf| {
            if index >= needed.start {
                take(index, leaf);
            }
        })
    }

    /// A segment's file, if it may be used and is sound. When the records are gone, it must be.
    fn open_leaves(&self, piece: &Piece) -> Result<Option<Leaves>, ReadError> {
        if piece.has_records && (!self.use_files || piece.end == self.size) {
            return Ok(None);
        }
        match Leaves::open(self.storage.as_ref(), &self.dir, piece.first, &self.log_id) {
            Ok(Some(leaves)) if leaves.own.end() == piece.end => Ok(Some(leaves)),
            _ if piece.has_records => Ok(None),
            Ok(Some(leaves)) => Err(self.missing(leaves.own.end() + 1)),
            Ok(None) => Err(self.missing(piece.first)),
            Err(error) => Err(self.bad_leaves(piece, error)),
        }
    }

    fn bad_leaves(&self, piece: &Piece, error: LeavesError) -> ReadError {
        let segment = leaves::path(&self.dir, piece.first);
        match error {
            LeavesError::Io(error) => ReadError::io("read", &segment)(error),
            LeavesError::Damaged(what) => {
                let kind = ProblemKind::Leaves(what);
                ReadError::Damaged(Problem { segment, offset: 0, sequence: piece.first, kind })
            }
        }
    }

    /// Gives the leaves of a segment up to `end` to `take`, from its records.
    fn walk(&self, piece: &Piece, end: u64, mut take: impl FnMut(u64, Hash)) -> Result<(), ReadError> {
        let whole = self.end_of(piece)?;
        let mut walker = Walker::from_segment(&self.storage, &self.dir, piece.first, Some(whole))?;
        for index in piece.first - 1..end {
            match walker.step()? {
                Some(step) => take(index, step.hash),
                None => return Err(self.missing(index + 1)),
            }
        }
        Ok(())
    }

    fn end_of(&self, piece: &Piece) -> Result<End, ReadError> {
        if let Some(end) = self.end.filter(|end| end.first == piece.first) {
            return Ok(end);
        }
        let mut segment = Segment::open(self.storage.as_ref(), &self.dir, piece.first, false)?;
        let offset = segment.file.len().map_err(ReadError::io("read", &segment.path))?;
        Ok(End { first: piece.first, offset })
    }

    /// Writes the `.leaves` files that sealed segments lack, or that are damaged; returns how many. Those that are there
    /// are not compared with the records: verifying does that.
    ///
    /// Call it before segments are removed: afterwards their part of the tree can come from nowhere else.
    ///
    /// # Errors
    /// When a segment cannot be read or is not sound, or a file cannot be written.
    pub fn seal(&self) -> Result<u64, ReadError> {
        let mut written = 0;
        let mut before = CompactRange::new(0);
        for piece in self.pieces.iter().filter(|piece| piece.end < self.size) {
            let own = match self.open_leaves(piece)? {
                Some(leaves) if leaves.before == before => leaves.own,
                _ if !piece.has_records => return Err(self.missing(before.end() + 1)),
                _ => {
                    written += 1;
                    self.write_leaves(piece, &before)?
                }
            };
            if !before.append(&own) {
                return Err(self.missing(before.end() + 1));
            }
        }
        Ok(written)
    }

    fn write_leaves(&self, piece: &Piece, before: &CompactRange) -> Result<CompactRange, ReadError> {
        let path = leaves::path(&self.dir, piece.first);
        let mut writer = LeavesWriter::new(self.storage.as_ref(), &self.dir, piece.first - 1)
            .map_err(ReadError::io("create", &path))?;
        let mut failed = None;
        self.walk(piece, piece.end, |_, leaf| {
            if failed.is_none() {
                failed = writer.push(leaf).err();
            }
        })?;
        let finished = failed.map_or_else(|| writer.finish(&self.log_id, before), Err);
        finished.map_err(ReadError::io("write", &path))
    }

    /// Where the segment that holds leaf `index` begins: its first record.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn segment_of(&self, index: u64) -> Option<u64> {
        self.pieces.iter().rev().find(|piece| piece.has_records && piece.first <= index + 1).map(|piece| piece.first)
    }

    fn too_short(&self, wanted: u64) -> ReadError {
        self.problem(self.size, ProblemKind::BeyondEnd { last: self.size, wanted })
    }

    fn missing(&self, sequence: u64) -> ReadError {
        self.problem(sequence, ProblemKind::MissingLeaves)
    }

    fn problem(&self, sequence: u64, kind: ProblemKind) -> ReadError {
        ReadError::Damaged(Problem { segment: self.dir.clone(), offset: 0, sequence, kind })
    }
}
