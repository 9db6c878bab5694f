//! The `.leaves` file beside a sealed segment: the leaf hashes of its records and the subtrees they form, so that the
//! tree can be computed without reading the records again, and also when they are gone. Specified in
//! `docs/audit-format.md`. It is a cache: whoever uses it checks the result against a root, or the records.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::hash::Hash;
use crate::storage::{Storage, StorageFile, read_full, write_all};
use crate::tree::range::CompactRange;

const MAGIC: [u8; 8] = *b"\x89RAT\r\n\x1a\n";
const VERSION: u16 = 1;
const FOOTER: usize = 64;
const HASH: u64 = 32;
const SUFFIX: &str = ".leaves";
const PREPARED: &str = "leaves.new";
/// Leaf hashes read or written at once.
const CHUNK: usize = 2048;

/// The first record of the segment to which a file with this name belongs.
pub(crate) fn first_of(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(SUFFIX)?;
    let whole = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| digits.parse().ok()).flatten()
}

pub(crate) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SUFFIX}"))
}

/// What a file is not, or not any more.
#[derive(Debug)]
pub(crate) enum LeavesError {
    Io(io::Error),
    Damaged(&'static str),
}

impl From<io::Error> for LeavesError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An open file whose footer and subtrees are whole. Its leaves are not checked by opening it.
pub(crate) struct Leaves {
    file: Box<dyn StorageFile>,
    /// The leaves before the segment.
    pub(crate) before: CompactRange,
    /// The leaves of the segment.
    pub(crate) own: CompactRange,
}

impl Leaves {
    /// Opens the file of the segment that begins with record `first`; `None` when there is none.
    pub(crate) fn open(
        storage: &dyn Storage,
        dir: &Path,
        first: u64,
        log_id: &[u8; 16],
    ) -> Result<Option<Self>, LeavesError> {
        let mut file = match storage.open(&path(dir, first), false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let damaged = |what| Err(LeavesError::Damaged(what));
        let len = file.len()?;
        let Some(end) = len.checked_sub(FOOTER as u64) else { return damaged("it ends early") };
        let mut footer = [0; FOOTER];
        if read_full(file.as_mut(), end, &mut footer)? != FOOTER || footer[..8] != MAGIC {
            return damaged("wrong magic");
        }
        let number = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().unwrap_or_default());
        let count = number(40);
        if footer[16..32] != *log_id || number(32) != first {
            return damaged("it belongs to another segment");
        }
        // Any number may stand here, so the length of the file decides before anything is allocated.
        let (begin, after) = (first.wrapping_sub(1), first.wrapping_sub(1).checked_add(count));
        let Some(after) = after.filter(|_| count <= len / HASH && first > 0) else { return damaged("wrong count") };
        let nodes = (CompactRange::count(0, begin), CompactRange::count(begin, after));
        let mut subtrees = vec![0; (nodes.0 + nodes.1) * 32];
        if len != count * HASH + subtrees.len() as u64 + FOOTER as u64 {
            return damaged("wrong length");
        }
        if read_full(file.as_mut(), count * HASH, &mut subtrees)? != subtrees.len() {
            return damaged("it ends early");
        }
        // Only one encoding: what this version writes for these subtrees.
        if footer != encode_footer(log_id, first, count, &subtrees) {
            return damaged("wrong checksum");
        }
        let subtrees = hashes(&subtrees);
        let before = CompactRange::from_hashes(0, begin, &subtrees[..nodes.0]);
        let own = CompactRange::from_hashes(begin, after, &subtrees[nodes.0..]);
        let (Some(before), Some(own)) = (before, own) else { return damaged("wrong count") };
        Ok(Some(Self { file, before, own }))
    }

    /// Gives each of the leaves `begin..end`, which the segment must have, to `take`.
    pub(crate) fn read(&mut self, begin: u64, end: u64, mut take: impl FnMut(u64, Hash)) -> Result<(), LeavesError> {
        let mut buffer = vec![0; CHUNK * 32];
        let mut at = begin;
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = &mut buffer[..count * 32];
            let offset = (at - self.own.begin()) * HASH;
            if read_full(self.file.as_mut(), offset, chunk)? != chunk.len() {
                return Err(LeavesError::Damaged("it ends early"));
            }
            for hash in hashes(chunk) {
                take(at, hash);
                at += 1;
            }
        }
        Ok(())
    }
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.chunks_exact(32).filter_map(|chunk| chunk.try_into().ok().map(Hash)).collect()
}

fn encode_footer(log_id: &[u8; 16], first: u64, count: u64, subtrees: &[u8]) -> [u8; FOOTER] {
    let mut out = [0; FOOTER];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    out[10..12].copy_from_slice(&64_u16.to_le_bytes());
    out[16..32].copy_from_slice(log_id);
    out[32..40].copy_from_slice(&first.to_le_bytes());
    out[40..48].copy_from_slice(&count.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(subtrees), &out[..FOOTER - 4]);
    out[FOOTER - 4..].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Writes the file of a segment, leaf by leaf. Its name appears only when it is whole and durable.
pub(crate) struct LeavesWriter<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    file: Box<dyn StorageFile>,
    written: u64,
    buffer: Vec<u8>,
    own: CompactRange,
}

impl<'a> LeavesWriter<'a> {
    pub(crate) fn new(storage: &'a dyn Storage, dir: &'a Path, begin: u64) -> io::Result<Self> {
        let file = create_prepared(storage, &dir.join(PREPARED))?;
        let buffer = Vec::with_capacity(CHUNK * 32);
        Ok(Self { storage, dir, file, written: 0, buffer, own: CompactRange::new(begin) })
    }

    pub(crate) fn push(&mut self, leaf: Hash) -> io::Result<()> {
        self.own.push(leaf);
        self.buffer.extend_from_slice(&leaf.0);
        if self.buffer.len() >= CHUNK * 32 { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> io::Result<()> {
        write_all(self.file.as_mut(), self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    pub(crate) fn finish(mut self, log_id: &[u8; 16], before: &CompactRange) -> io::Result<CompactRange> {
        let subtrees: Vec<u8> = before.hashes().chain(self.own.hashes()).flat_map(|hash| hash.0).collect();
        let first = self.own.begin() + 1;
        let footer = encode_footer(log_id, first, self.own.end() - self.own.begin(), &subtrees);
        self.buffer.extend_from_slice(&subtrees);
        self.buffer.extend_from_slice(&footer);
        self.write_out()?;
        self.file.sync_data()?;
        self.storage.rename(&self.dir.join(PREPARED), &path(self.dir, first))?;
        self.storage.sync_dir(self.dir)?;
        Ok(self.own)
    }
}

/// Makes a file that is renamed when it is complete; what an earlier attempt left under its name is removed.
pub(crate) fn create_prepared(storage: &dyn Storage, path: &Path) -> io::Result<Box<dyn StorageFile>> {
    match storage.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(path).and_then(|()| storage.create(path))
        }
        created => created,
    }
}

#[cfg(feature = "checkpoints")]
/// Compares a `.leaves` file with the records of its segment, one after the other.
pub(crate) struct LeavesCheck {
    leaves: Leaves,
    buffer: Vec<Hash>,
    own: CompactRange,
}

#[cfg(feature = "checkpoints")]
impl LeavesCheck {
    /// Begins with a segment that stands behind the leaves `before`; `None` when it has no such file.
    pub(crate) fn begin(
        storage: &dyn Storage,
        dir: &Path,
        log_id: &[u8; 16],
        before: &CompactRange,
    ) -> Result<Option<Self>, LeavesError> {
        let Some(leaves) = Leaves::open(storage, dir, before.end() + 1, log_id)? else { return Ok(None) };
        if leaves.before != *before {
            return Err(LeavesError::Damaged("its subtrees before the segment are not those of the records"));
        }
        Ok(Some(Self { leaves, buffer: Vec::new(), own: CompactRange::new(before.end()) }))
    }

    /// The next record of the segment.
    pub(crate) fn push(&mut self, leaf: Hash) -> Result<(), LeavesError> {
        let differs = LeavesError::Damaged("its hash of this record is not the record's");
        if self.buffer.is_empty() {
            let begin = self.own.end();
            let end = self.leaves.own.end().min(begin + CHUNK as u64);
            let buffer = &mut self.buffer;
            self.leaves.read(begin, end, |_, hash| buffer.push(hash))?;
            buffer.reverse();
        }
        self.own.push(leaf);
        if self.buffer.pop() == Some(leaf) { Ok(()) } else { Err(differs) }
    }

    /// After the segment's last record.
    pub(crate) fn finish(self) -> Result<(), LeavesError> {
        let same = self.own == self.leaves.own;
        if same { Ok(()) } else { Err(LeavesError::Damaged("its subtrees are not those of the records")) }
    }
}
