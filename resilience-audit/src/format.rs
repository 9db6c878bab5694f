//! The bytes around records: segment header, record frame, file names. Specified in `docs/audit-format.md`.
//! Everything here is a pure function over bytes; nothing is read, written or decided.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::codec::{MAX_BODY, MIN_BODY};
use crate::hash::Hash;

/// The newest format version this build reads, and the one it writes.
pub const FORMAT_VERSION: u16 = 1;

/// Like PNG's: a byte beyond ASCII, a name, and line ends that a text-mode copy would change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89RAL\r\n\x1a\n";
pub(crate) const HEADER_LEN: usize = 80;
/// The part of a header that no version may change: magic, version, header length.
const HEADER_PREFIX: usize = 12;
const MAX_HEADER_LEN: usize = 4096;

/// Length and checksum before a record, and its length again after it, so that the log can be read backwards.
pub(crate) const FRAME_PREFIX: usize = 8;
pub(crate) const FRAME_SUFFIX: usize = 4;
pub(crate) const MAX_FRAME: usize = FRAME_PREFIX + MAX_BODY + FRAME_SUFFIX;

/// A group closes when it has this many bytes; with the record that filled it, it stays below `MAX_GROUP_BYTES`.
pub(crate) const GROUP_BYTES: usize = 1 << 20;
/// No write is larger, so no crash can tear more.
pub(crate) const MAX_GROUP_BYTES: u64 = 4 << 20;

/// The lock file of a log.
pub(crate) const LOCK_NAME: &str = "audit.lock";
const SEGMENT_SUFFIX: &str = ".audit";
const NEW_SUFFIX: &str = ".audit.new";

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) log_id: [u8; 16],
    pub(crate) first_sequence: u64,
    pub(crate) previous: Hash,
}

/// Why bytes are not a header of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged(&'static str),
    Newer(u16),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&80_u16.to_le_bytes());
        out[16..32].copy_from_slice(&self.log_id);
        out[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[40..72].copy_from_slice(&self.previous.0);
        let checksum = crc32c::crc32c(&out[..HEADER_LEN - 4]);
        out[HEADER_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header from the first bytes of a segment; give it `MAX_HEADER_LEN` of them where there are as many.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let prefix = bytes.get(..HEADER_PREFIX).ok_or(HeaderError::Damaged("it ends early"))?;
        if prefix[..8] != MAGIC {
            return Err(HeaderError::Damaged("wrong magic"));
        }
        let version = u16::from_le_bytes([prefix[8], prefix[9]]);
        let len = usize::from(u16::from_le_bytes([prefix[10], prefix[11]]));
        if !(HEADER_PREFIX + 4..=MAX_HEADER_LEN).contains(&len) {
            return Err(HeaderError::Damaged("impossible length"));
        }
        let header = bytes.get(..len).ok_or(HeaderError::Damaged("it ends early"))?;
        let (content, checksum) = header.split_at(len - 4);
        if crc32c::crc32c(content).to_le_bytes() != checksum {
            return Err(HeaderError::Damaged("wrong checksum"));
        }
        if version > FORMAT_VERSION {
            return Err(HeaderError::Newer(version));
        }
        let (Some(log_id), Some(first), Some(previous)) =
            (chunk(content, 16), chunk(content, 32), chunk(content, 40).map(Hash))
        else {
            return Err(HeaderError::Damaged("it ends early"));
        };
        let header = Self { log_id, first_sequence: u64::from_le_bytes(first), previous };
        // Only one encoding per header: the reserved bytes and the version are what this version writes.
        if bytes[..len] != header.encode() {
            return Err(HeaderError::Damaged("not canonical"));
        }
        Ok(header)
    }

    /// How many bytes to read for `parse`.
    pub(crate) const READ: usize = MAX_HEADER_LEN;

    /// The start value of every record's checksum. It depends on the log, so that a frame smuggled into an event's
    /// text, or left by another log in a reused disk block, is no frame here.
    pub(crate) fn salt(&self) -> u32 {
        crc32c::crc32c(&self.log_id)
    }
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// What stands at the beginning of some bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A whole frame with the right checksum, and the record in it.
    Whole(&'a [u8]),
    /// The first part of what may be a frame; so many bytes are needed to know.
    Partial(usize),
    /// Not a frame.
    Bad(&'static str),
}

/// Looks for a frame at the beginning of `bytes`.
pub(crate) fn frame(salt: u32, bytes: &[u8]) -> Frame<'_> {
    let Some(prefix) = bytes.first_chunk::<FRAME_PREFIX>() else { return Frame::Partial(FRAME_PREFIX) };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *prefix;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    let body_len = len as usize;
    if !(MIN_BODY..=MAX_BODY).contains(&body_len) {
        return Frame::Bad("impossible length");
    }
    let total = FRAME_PREFIX + body_len + FRAME_SUFFIX;
    let Some(whole) = bytes.get(..total) else { return Frame::Partial(total) };
    let body = &whole[FRAME_PREFIX..total - FRAME_SUFFIX];
    if checksum(salt, len, body) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Frame::Bad("wrong checksum");
    }
    if whole[total - FRAME_SUFFIX..] != len.to_le_bytes() {
        return Frame::Bad("wrong trailer");
    }
    Frame::Whole(body)
}

fn checksum(salt: u32, len: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &len.to_le_bytes()), body)
}

/// Appends a frame around the record that `write` appends; returns the record's hash.
pub(crate) fn put_frame(salt: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Hash {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_PREFIX]);
    write(out);
    let body = &out[start + FRAME_PREFIX..];
    let hash = Hash::of_record(body);
    // The limits keep every record below `MAX_BODY`.
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let checksum = checksum(salt, len, body);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    hash
}

/// The file of the segment that begins with this record.
pub(crate) fn segment_path(dir: &Path, first_sequence: u64) -> PathBuf {
    dir.join(format!("{first_sequence:020}{SEGMENT_SUFFIX}"))
}

/// The name under which that segment is prepared.
pub(crate) fn new_segment_path(dir: &Path, first_sequence: u64) -> PathBuf {
    dir.join(format!("{first_sequence:020}{NEW_SUFFIX}"))
}

/// Where a torn tail is kept: the `attempt`th file for this place.
pub(crate) fn torn_path(dir: &Path, first_sequence: u64, offset: u64, attempt: u32) -> PathBuf {
    dir.join(format!("{first_sequence:020}.torn-{offset}-{attempt}"))
}

/// What a name in the log's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    /// A segment that was being prepared when the process died.
    New,
    Lock,
    /// Made by the file system itself.
    System,
    Foreign,
}

pub(crate) fn classify(name: &OsStr) -> Name {
    let Some(name) = name.to_str() else { return Name::Foreign };
    let number = |digits: &str| {
        let whole = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        whole.then(|| digits.parse::<u64>().ok()).flatten()
    };
    if let Some(first) = name.strip_suffix(SEGMENT_SUFFIX).and_then(number) {
        return Name::Segment(first);
    }
    if name.strip_suffix(NEW_SUFFIX).and_then(number).is_some() {
        return Name::New;
    }
    match name {
        LOCK_NAME => Name::Lock,
        "lost+found" => Name::System,
        _ => Name::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { log_id: [7; 16], first_sequence: 42, previous: Hash([9; 32]) }
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_no_flipped_bit_goes_unnoticed() {
        let bytes = header().encode();
        assert_eq!(Header::parse(&bytes), Ok(header()));
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::parse(&flipped), Err(HeaderError::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_header_is_recognised_whatever_its_length_and_content() {
        let mut bytes = vec![0xA5; 200];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&9_u16.to_le_bytes());
        bytes[10..12].copy_from_slice(&200_u16.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..196]);
        bytes[196..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Newer(9)));
    }

    #[test]
    fn a_frame_of_another_log_is_no_frame_here() {
        let mut bytes = Vec::new();
        put_frame(1, &mut bytes, |out| out.resize(out.len() + MIN_BODY, 0));
        assert!(matches!(frame(1, &bytes), Frame::Whole(body) if body.len() == MIN_BODY));
        assert_eq!(frame(2, &bytes), Frame::Bad("wrong checksum"));
    }

    #[test]
    fn names_that_only_look_like_ours_are_foreign() {
        let class = |name: &str| classify(OsStr::new(name));
        assert_eq!(class("00000000000000000001.audit"), Name::Segment(1));
        assert_eq!(class("00000000000000000001.audit.new"), Name::New);
        for foreign in ["1.audit", "+0000000000000000001.audit", "99999999999999999999.audit", "notes.txt", ".audit"] {
            assert_eq!(class(foreign), Name::Foreign, "{foreign}");
        }
    }
}
