//! Walks a log forward, segment by segment, checking every frame, sequence number and link of the chain.
//! One walker serves reading, verifying and opening; it reads bounded chunks and never changes a byte.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::Body;
use crate::error::ReadError;
use crate::format::{self, FORMAT_VERSION, Frame, Header, HeaderError, Name};
use crate::hash::{Anchor, Hash};
use crate::problem::{Problem, ProblemKind};
use crate::storage::{Storage, StorageFile, read_full};

/// How much is read at once.
const CHUNK: usize = 128 << 10;

/// An open segment whose header is sound and says what the file's name says.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn StorageFile>,
    pub(crate) header: Header,
    pub(crate) salt: u32,
}

impl Segment {
    pub(crate) fn open(storage: &dyn Storage, dir: &Path, first: u64, write: bool) -> Result<Self, ReadError> {
        let path = format::segment_path(dir, first);
        let mut file = storage.open(&path, write).map_err(ReadError::io("open", &path))?;
        let mut bytes = vec![0; Header::READ];
        let read = read_full(file.as_mut(), 0, &mut bytes).map_err(ReadError::io("read", &path))?;
        let problem = |kind| ReadError::Damaged(Problem { segment: path.clone(), offset: 0, sequence: first, kind });
        let header = Header::parse(&bytes[..read]).map_err(|error| match error {
            HeaderError::Damaged(what) => problem(ProblemKind::Header(what)),
            HeaderError::Newer(found) => {
                ReadError::NewerVersion { path: path.clone(), found, supported: FORMAT_VERSION }
            }
        })?;
        if header.first_sequence != first {
            return Err(problem(ProblemKind::MissingSegment { found: header.first_sequence }));
        }
        Ok(Self { salt: header.salt(), path, file, header })
    }

    pub(crate) fn problem(&self, offset: u64, sequence: u64, kind: ProblemKind) -> ReadError {
        ReadError::Damaged(Problem { segment: self.path.clone(), offset, sequence, kind })
    }
}

/// The first sequence numbers of the segments in a directory, ascending.
pub(crate) fn segments(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<u64>> {
    let names = storage.list(dir)?;
    let number = |name: &std::ffi::OsString| match format::classify(name) {
        Name::Segment(first) => Some(first),
        _ => None,
    };
    let mut found: Vec<u64> = names.iter().filter_map(number).collect();
    found.sort_unstable();
    Ok(found)
}

/// The segments of what must be a log.
pub(crate) fn existing_segments(storage: &dyn Storage, dir: &Path) -> Result<Vec<u64>, ReadError> {
    let not_a_log = |found: &str| ReadError::NotALog { path: dir.to_owned(), found: found.to_owned() };
    match storage.info(dir).map_err(ReadError::io("look at", dir))? {
        None => return Err(not_a_log("there is nothing")),
        Some(info) if !info.is_dir => return Err(not_a_log("it is not a directory")),
        Some(_) => {}
    }
    let found = segments(storage, dir).map_err(ReadError::io("list", dir))?;
    if found.is_empty() { Err(not_a_log("it holds no segment")) } else { Ok(found) }
}

/// What a cursor found.
enum Found {
    /// A whole frame: where its record lies in the buffer.
    Record(Range<usize>),
    /// No further whole frame; so many bytes are left.
    End(u64),
    Bad(&'static str),
}

/// A place in a segment, with what was read ahead of it.
struct Cursor {
    segment: Segment,
    buffer: Vec<u8>,
    /// How much of the buffer holds bytes of the file.
    filled: usize,
    /// Where in the buffer the cursor stands; `offset` is the same place in the file.
    at: usize,
    offset: u64,
    /// Nothing is read from here on.
    end: Option<u64>,
}

impl Cursor {
    fn new(segment: Segment, end: Option<u64>) -> Self {
        Self { segment, buffer: vec![0; CHUNK], filled: 0, at: 0, offset: format::HEADER_LEN as u64, end }
    }

    /// Makes `needed` bytes available where the file has them.
    fn fill(&mut self, needed: usize) -> io::Result<()> {
        if self.filled - self.at >= needed {
            return Ok(());
        }
        self.buffer.copy_within(self.at..self.filled, 0);
        self.filled -= self.at;
        self.at = 0;
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
        let from = self.offset + self.filled as u64;
        let room = self.end.map_or(u64::MAX, |end| end.saturating_sub(from));
        let want = (self.buffer.len() - self.filled).min(usize::try_from(room).unwrap_or(usize::MAX));
        let free = &mut self.buffer[self.filled..self.filled + want];
        self.filled += read_full(self.segment.file.as_mut(), from, free)?;
        Ok(())
    }

    /// Finds the next frame and steps over it.
    fn next(&mut self) -> io::Result<Found> {
        let mut needed = format::FRAME_PREFIX;
        loop {
            self.fill(needed)?;
            let available = self.filled - self.at;
            match format::frame(self.segment.salt, &self.buffer[self.at..self.filled]) {
                Frame::Whole(body) => {
                    let start = self.at + format::FRAME_PREFIX;
                    let record = start..start + body.len();
                    let total = format::FRAME_PREFIX + body.len() + format::FRAME_SUFFIX;
                    self.at += total;
                    self.offset += total as u64;
                    return Ok(Found::Record(record));
                }
                Frame::Partial(more) if available < needed || more <= needed => {
                    // The tail of a group in flight may be replaced before the next look, so it is not kept.
                    self.filled = 0;
                    self.at = 0;
                    return Ok(Found::End(available as u64));
                }
                Frame::Partial(more) => needed = more,
                Frame::Bad(what) => return Ok(Found::Bad(what)),
            }
        }
    }

    /// Everything from the cursor to the end of the file; `Found::End` counts only what was looked at.
    fn left_over(&mut self) -> io::Result<u64> {
        let len = self.segment.file.len()?;
        Ok(self.end.map_or(len, |end| len.min(end)).saturating_sub(self.offset))
    }
}

/// One record on the way.
pub(crate) struct Step<'a> {
    pub(crate) body: Body<'a>,
    pub(crate) hash: Hash,
}

/// The end of what may be read: the segment that begins with `first`, up to `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) first: u64,
    pub(crate) offset: u64,
}

/// A forward walk over a whole log, or over its last segment.
pub(crate) struct Walker {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    cursor: Cursor,
    end: Option<End>,
    /// The last record seen; before the first, what the segment's header says.
    last: Anchor,
    /// Where in its segment that record begins.
    begin: u64,
    /// Segments entered so far.
    pub(crate) segments: u64,
}

impl Walker {
    /// A walk from the first record of the log to its end, or to `end`.
    pub(crate) fn new(storage: &Arc<dyn Storage>, dir: &Path, end: Option<End>) -> Result<Self, ReadError> {
        let first = existing_segments(storage.as_ref(), dir)?.first().copied().unwrap_or(1);
        let walker = Self::from_segment(storage, dir, first, end)?;
        if first != 1 {
            let kind = ProblemKind::MissingSegment { found: first };
            return Err(walker.cursor.segment.problem(0, 1, kind));
        }
        if walker.last.hash != Hash::genesis(&walker.log_id()) {
            return Err(walker.cursor.segment.problem(0, 1, ProblemKind::Chain));
        }
        Ok(walker)
    }

    /// A walk that begins with the segment that starts at record `first`, trusting that segment's header.
    pub(crate) fn from_segment(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        first: u64,
        end: Option<End>,
    ) -> Result<Self, ReadError> {
        let segment = Segment::open(storage.as_ref(), dir, first, false)?;
        let last = Anchor { sequence: first.saturating_sub(1), hash: segment.header.previous };
        let limit = end.filter(|end| end.first == first).map(|end| end.offset);
        let cursor = Cursor::new(segment, limit);
        Ok(Self { storage: Arc::clone(storage), dir: dir.to_owned(), cursor, end, last, begin: 0, segments: 1 })
    }

    /// Moves the end of what may be read further on.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn extend(&mut self, end: End) {
        self.end = Some(end);
        self.cursor.end = (end.first == self.cursor.segment.header.first_sequence).then_some(end.offset);
    }

    pub(crate) fn log_id(&self) -> [u8; 16] {
        self.cursor.segment.header.log_id
    }

    /// The last record seen.
    pub(crate) fn last(&self) -> Anchor {
        self.last
    }

    /// Where the next frame begins: the segment's file and the byte in it.
    pub(crate) fn place(&self) -> (&Path, u64) {
        (&self.cursor.segment.path, self.cursor.offset)
    }

    /// A problem at the place of the next record.
    pub(crate) fn problem(&self, kind: ProblemKind) -> ReadError {
        self.cursor.segment.problem(self.cursor.offset, self.last.sequence + 1, kind)
    }

    /// A problem with the last record seen.
    pub(crate) fn problem_with_last(&self, kind: ProblemKind) -> ReadError {
        self.cursor.segment.problem(self.begin, self.last.sequence, kind)
    }

    /// How many bytes lie between here and the end of the segment.
    pub(crate) fn left_over(&mut self) -> Result<u64, ReadError> {
        self.cursor.left_over().map_err(ReadError::io("read", &self.cursor.segment.path))
    }

    /// The next record; `None` at the end, after which it may be called again when more has been written.
    pub(crate) fn step(&mut self) -> Result<Option<Step<'_>>, ReadError> {
        let Some(record) = self.locate()? else { return Ok(None) };
        let begin = self.cursor.offset - (record.len() + format::FRAME_PREFIX + format::FRAME_SUFFIX) as u64;
        let bytes = &self.cursor.buffer[record];
        let expected = self.last.sequence + 1;
        let problem = |kind| Err(self.cursor.segment.problem(begin, expected, kind));
        let body = match Body::parse(bytes) {
            Ok(body) => body,
            Err(what) => return problem(ProblemKind::Record(what)),
        };
        if body.stamp.sequence != expected {
            return problem(ProblemKind::Sequence { found: body.stamp.sequence });
        }
        if body.stamp.previous != self.last.hash {
            return problem(ProblemKind::Chain);
        }
        let hash = Hash::of_record(bytes);
        self.last = Anchor { sequence: expected, hash };
        self.begin = begin;
        Ok(Some(Step { body, hash }))
    }

    fn locate(&mut self) -> Result<Option<Range<usize>>, ReadError> {
        loop {
            let left = match self.found()? {
                Found::Record(record) => return Ok(Some(record)),
                Found::Bad(what) => return Err(self.problem(ProblemKind::Frame(what))),
                Found::End(left) => left,
            };
            if self.end.is_some_and(|end| end.first == self.cursor.segment.header.first_sequence) {
                return Ok(None);
            }
            let current = self.cursor.segment.header.first_sequence;
            let names = segments(self.storage.as_ref(), &self.dir).map_err(ReadError::io("list", &self.dir))?;
            let Some(&next) = names.iter().find(|first| **first > current) else { return Ok(None) };
            // The writer may have finished this segment between our last read and the look at the directory.
            let left = match self.found()? {
                Found::Record(record) => return Ok(Some(record)),
                Found::Bad(what) => return Err(self.problem(ProblemKind::Frame(what))),
                Found::End(again) => left.max(again),
            };
            if left > 0 {
                let bytes = self.left_over()?;
                return Err(self.problem(ProblemKind::TornTail { bytes }));
            }
            self.enter(next)?;
        }
    }

    fn found(&mut self) -> Result<Found, ReadError> {
        self.cursor.next().map_err(ReadError::io("read", &self.cursor.segment.path))
    }

    /// Goes on with the next segment, which must continue this one.
    fn enter(&mut self, first: u64) -> Result<(), ReadError> {
        let expected = self.last.sequence + 1;
        let segment = Segment::open(self.storage.as_ref(), &self.dir, first, false)?;
        check_continues(&segment, &self.log_id(), self.last)?;
        debug_assert_eq!(first, expected, "checked by `check_continues`");
        let limit = self.end.filter(|end| end.first == first).map(|end| end.offset);
        self.cursor = Cursor::new(segment, limit);
        self.segments += 1;
        Ok(())
    }
}

/// Checks that a segment belongs to the log and begins where the one before it ends.
pub(crate) fn check_continues(segment: &Segment, log_id: &[u8; 16], last: Anchor) -> Result<(), ReadError> {
    let header = segment.header;
    let kind = if header.log_id != *log_id {
        ProblemKind::ForeignSegment
    } else if header.first_sequence != last.sequence + 1 {
        ProblemKind::MissingSegment { found: header.first_sequence }
    } else if header.previous != last.hash {
        ProblemKind::Chain
    } else {
        return Ok(());
    };
    Err(segment.problem(0, last.sequence + 1, kind))
}
