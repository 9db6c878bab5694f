//! Walks a log backwards from its end, so that the newest records are found without reading the oldest.
//! Every frame and link it passes is checked; it reads bounded windows and never changes a byte.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::Body;
use crate::error::ReadError;
use crate::format::{self, FRAME_PREFIX, FRAME_SUFFIX, Frame, HEADER_LEN, MAX_FRAME};
use crate::hash::{Anchor, Hash};
use crate::problem::ProblemKind;
use crate::record::Record;
use crate::storage::{Storage, read_full};
use crate::walk::{End, Segment, Walker, check_continues, existing_segments};

/// How much is read at once.
const WINDOW: u64 = 64 << 10;

/// A walk from the newest record to the oldest.
pub(crate) struct Reverse {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// Segments not entered yet, ascending.
    older: Vec<u64>,
    segment: Segment,
    /// The end of the part of the segment that was not walked yet.
    end: u64,
    window: Vec<u8>,
    window_start: u64,
    /// What the record before the one last seen must be.
    expected: Option<Anchor>,
}

impl Reverse {
    /// A backward walk from the end of the log, or from `end`.
    pub(crate) fn new(storage: &Arc<dyn Storage>, dir: &Path, end: Option<End>) -> Result<Self, ReadError> {
        let mut older = existing_segments(storage.as_ref(), dir)?;
        if let Some(end) = end {
            older.retain(|first| *first <= end.first);
        }
        let newest = older.pop().unwrap_or(1);
        let mut segment = Segment::open(storage.as_ref(), dir, newest, false)?;
        let mut offset = match end {
            Some(end) => end.offset,
            None => segment.file.len().map_err(ReadError::io("read", &segment.path))?,
        };
        let mut this = Self {
            storage: Arc::clone(storage),
            dir: dir.to_owned(),
            older,
            segment,
            end: offset,
            window: Vec::new(),
            window_start: 0,
            expected: None,
        };
        // A group in flight, or the trace of a crash, ends the file within a record: its last whole record is found
        // from the front of the segment.
        if end.is_none() && offset > HEADER_LEN as u64 && this.frame_before(offset)?.is_none() {
            let mut walker = Walker::from_segment(storage, dir, newest, None)?;
            while walker.step()?.is_some() {}
            let (path, place) = walker.place();
            offset = if path == this.segment.path { place } else { offset };
            this.end = offset;
        }
        Ok(this)
    }

    /// The next older record; `None` before the first one.
    pub(crate) fn step(&mut self) -> Result<Option<Record>, ReadError> {
        while self.end <= HEADER_LEN as u64 {
            let Some(first) = self.older.pop() else { return Ok(None) };
            let last = Anchor {
                sequence: self.segment.header.first_sequence.saturating_sub(1),
                hash: self.segment.header.previous,
            };
            let mut segment = Segment::open(self.storage.as_ref(), &self.dir, first, false)?;
            check_continues(&self.segment, &segment.header.log_id, last)?;
            self.end = segment.file.len().map_err(ReadError::io("read", &segment.path))?;
            self.segment = segment;
            self.window.clear();
            self.window_start = 0;
            self.expected = Some(last);
        }
        let end = self.end;
        let sequence = self.expected.map_or(0, |expected| expected.sequence);
        let Some((start, len)) = self.frame_before(end)? else {
            return Err(self.segment.problem(end, sequence, ProblemKind::Frame("no record ends here")));
        };
        let from = usize::try_from(start - self.window_start).unwrap_or(usize::MAX) + FRAME_PREFIX;
        let bytes = &self.window[from..from + len];
        let body =
            Body::parse(bytes).map_err(|what| self.segment.problem(start, sequence, ProblemKind::Record(what)))?;
        let hash = Hash::of_record(bytes);
        if let Some(expected) = self.expected {
            if body.stamp.sequence != expected.sequence {
                let kind = ProblemKind::Sequence { found: body.stamp.sequence };
                return Err(self.segment.problem(start, sequence, kind));
            }
            if hash != expected.hash {
                return Err(self.segment.problem(start, sequence, ProblemKind::Chain));
            }
        }
        let record = body.to_record(hash);
        self.expected = Some(Anchor { sequence: record.sequence().saturating_sub(1), hash: record.previous_hash() });
        self.end = start;
        Ok(Some(record))
    }

    /// Finds the frame that ends at `end`: where it starts, and the length of its record. The window then holds it.
    fn frame_before(&mut self, end: u64) -> Result<Option<(u64, usize)>, ReadError> {
        let body_start = HEADER_LEN as u64;
        if end < body_start + FRAME_SUFFIX as u64 {
            return Ok(None);
        }
        self.load(end - FRAME_SUFFIX as u64, end)?;
        let Some(trailer) = self.slice(end - FRAME_SUFFIX as u64, end) else { return Ok(None) };
        let len = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]) as usize;
        let total = FRAME_PREFIX + len + FRAME_SUFFIX;
        if total > MAX_FRAME || (total as u64) > end - body_start {
            return Ok(None);
        }
        let start = end - total as u64;
        self.load(start, end)?;
        let Some(bytes) = self.slice(start, end) else { return Ok(None) };
        match format::frame(self.segment.salt, bytes) {
            Frame::Whole(body) if body.len() == len => Ok(Some((start, len))),
            _ => Ok(None),
        }
    }

    fn slice(&self, start: u64, end: u64) -> Option<&[u8]> {
        let from = usize::try_from(start.checked_sub(self.window_start)?).ok()?;
        let to = usize::try_from(end.checked_sub(self.window_start)?).ok()?;
        self.window.get(from..to)
    }

    /// Makes the window hold `start..end` where the file has it, reading backwards in large steps.
    fn load(&mut self, start: u64, end: u64) -> Result<(), ReadError> {
        if self.slice(start, end).is_some() {
            return Ok(());
        }
        let from = start.min(end.saturating_sub(WINDOW));
        let mut window = vec![0; usize::try_from(end - from).unwrap_or(0)];
        let read = read_full(self.segment.file.as_mut(), from, &mut window);
        window.truncate(read.map_err(ReadError::io("read", &self.segment.path))?);
        self.window = window;
        self.window_start = from;
        Ok(())
    }
}
