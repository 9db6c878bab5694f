//! Opening a durable log: takes the lock, checks what is there, and cuts what a crash tore, keeping what it cuts.
//! Only bytes that were never acknowledged are cut; everything else that is wrong is refused and left as it is.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::codec::Body;
use crate::error::{OpenError, ReadError};
use crate::event::AuditEvent;
use crate::format::{self, FRAME_PREFIX, Frame, HEADER_LEN, Header, LOCK_NAME, MAX_GROUP_BYTES, Name};
use crate::hash::{Anchor, Hash};
use crate::problem::{Problem, ProblemKind};
use crate::record::Kind;
use crate::reverse::Reverse;
use crate::storage::{Storage, read_full, write_all};
use crate::store::{Opened, Store, create_segment};
use crate::walk::{End, Segment, Walker, check_continues, segments};

/// What opening a durable log found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether the log did not exist before.
    pub created: bool,
    /// Segments of the log.
    pub segments: u64,
    /// The last record after opening, with a recovery record counted.
    pub end: Anchor,
    /// What a crash had torn and opening cut off.
    pub torn: Option<TornTail>,
}

/// Bytes at the end of a log that were being written when the process or the machine died. None of them had been
/// acknowledged. They were cut off, kept in a file of their own, and a recovery record in the log says so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment that was cut.
    pub segment: PathBuf,
    /// Where it was cut: the end of its last whole record.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// The file that keeps them.
    pub kept_in: PathBuf,
}

/// Opens the log in `dir`, or makes one. The first `signed` records must be there: a checkpoint covers them. `wall` and `monotonic` stamp the recovery record, if one is needed.
pub(crate) fn open(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    segment_bytes: u64,
    (wall, monotonic): (u64, u64),
    signed: u64,
) -> Result<(Store, OpenReport), OpenError> {
    let disk = storage.as_ref();
    prepare_directory(disk, dir)?;
    let lock = lock(disk, dir)?;
    remove_unfinished(disk, dir)?;
    let found = segments(disk, dir).map_err(OpenError::io("list", dir))?;
    for first in &found {
        private(disk, &format::segment_path(dir, *first), 0o600)?;
    }
    let Some(&newest) = found.last() else {
        let (opened, end) = create(disk, dir, lock)?;
        let report = OpenReport { created: true, segments: 1, end, torn: None };
        return Ok((Store::new(Arc::clone(storage), dir, segment_bytes, opened), report));
    };
    check_seams(storage, dir, &found)?;
    let (offset, last, tail) = scan(storage, dir, newest)?;
    let mut segment = Segment::open(disk, dir, newest, true)?;
    if last.sequence < signed {
        // Whatever is missing was durable before it was signed, so no crash took it.
        let kind = ProblemKind::BehindCheckpoint { last: last.sequence, size: signed };
        return Err(segment.problem(offset, last.sequence + 1, kind).into());
    }
    let torn = tail.map(|tail| cut(disk, dir, &mut segment, offset, &tail)).transpose()?;
    let Segment { file, header, path, .. } = segment;
    let mut store =
        Store::new(Arc::clone(storage), dir, segment_bytes, Opened { file, header, len: offset, last, lock });
    if let Some(torn) = &torn {
        let note = AuditEvent::new("audit", "recovered", segment_name(&torn.segment))
            .detail("bytes", torn.bytes)
            .detail("kept_in", segment_name(&torn.kept_in))
            .detail("offset", torn.offset);
        let written = store.begin().and_then(|()| {
            store.push(Kind::Recovered, wall, monotonic, &note);
            store.commit()
        });
        written.map_err(|error| OpenError::Io {
            step: "record the recovery in",
            path,
            source: io::Error::other(error.reason),
        })?;
        tracing::warn!(bytes = torn.bytes, kept_in = %torn.kept_in.display(), "audit log: cut a torn tail");
    }
    let report = OpenReport { created: false, segments: found.len() as u64, end: store.last(), torn };
    Ok((store, report))
}

fn segment_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Makes the directory, or checks that it is a log's or empty, and that nobody else can reach it.
fn prepare_directory(storage: &dyn Storage, dir: &Path) -> Result<(), OpenError> {
    let not_a_log = |found: String| OpenError::NotALog { path: dir.to_owned(), found };
    match storage.info(dir).map_err(OpenError::io("look at", dir))? {
        None => {
            match storage.create_dir(dir) {
                // Another process was quicker; the lock decides between us.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(OpenError::io("create directory", dir))?,
            }
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            storage.sync_dir(parent).map_err(OpenError::io("sync", parent))?;
        }
        Some(info) if !info.is_dir => return Err(not_a_log("it is a file".to_owned())),
        Some(_) => {}
    }
    private(storage, dir, 0o700)?;
    let names = storage.list(dir).map_err(OpenError::io("list", dir))?;
    let ours = names.iter().any(|name| matches!(format::classify(name), Name::Segment(_)));
    match names.iter().find(|name| format::classify(name) == Name::Foreign) {
        Some(foreign) if !ours => Err(not_a_log(format!("it holds `{}` and no segment", foreign.display()))),
        _ => Ok(()),
    }
}

/// Checks that nobody but the owner can use a file or directory.
fn private(storage: &dyn Storage, path: &Path, allowed: u32) -> Result<(), OpenError> {
    let info = storage.info(path).map_err(OpenError::io("look at", path))?;
    match info.and_then(|info| info.mode) {
        Some(mode) if mode & 0o077 != 0 => Err(OpenError::InsecurePermissions { path: path.to_owned(), mode, allowed }),
        _ => Ok(()),
    }
}

fn lock(storage: &dyn Storage, dir: &Path) -> Result<Box<dyn std::any::Any + Send + Sync>, OpenError> {
    let path = dir.join(LOCK_NAME);
    let taken = storage.lock(&path, &format!("process {}", std::process::id()));
    taken.map_err(OpenError::io("lock", &path))?.ok_or_else(|| {
        let mut text = [0; 64];
        let read = storage.open(&path, false).and_then(|mut file| read_full(file.as_mut(), 0, &mut text));
        let holder: String =
            String::from_utf8_lossy(&text[..read.unwrap_or(0)]).chars().filter(|c| !c.is_control()).collect();
        let holder = if holder.is_empty() { "it does not say which".to_owned() } else { holder };
        OpenError::Locked { path: dir.to_owned(), holder }
    })
}

/// Removes segments that were being prepared when a process died: they hold no records.
fn remove_unfinished(storage: &dyn Storage, dir: &Path) -> Result<(), OpenError> {
    for name in storage.list(dir).map_err(OpenError::io("list", dir))? {
        if format::classify(&name) == Name::New {
            let path = dir.join(name);
            storage.remove(&path).map_err(OpenError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn create(
    storage: &dyn Storage,
    dir: &Path,
    lock: Box<dyn std::any::Any + Send + Sync>,
) -> Result<(Opened, Anchor), OpenError> {
    let log_id = new_log_id();
    let header = Header { log_id, first_sequence: 1, previous: Hash::genesis(&log_id) };
    let file = create_segment(storage, dir, &header).map_err(|error| OpenError::Io {
        step: "create a log in",
        path: dir.to_owned(),
        source: io::Error::other(error.reason),
    })?;
    let last = Anchor { sequence: 0, hash: header.previous };
    Ok((Opened { file, header, len: HEADER_LEN as u64, last, lock }, last))
}

/// 128 bits that no one else can guess or will make again: std's hash keys come from the system's random source.
fn new_log_id() -> [u8; 16] {
    let mut seed = Sha256::new();
    for _ in 0..4 {
        seed.update(RandomState::new().build_hasher().finish().to_le_bytes());
    }
    seed.update(std::process::id().to_le_bytes());
    if let Ok(since) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        seed.update(since.as_nanos().to_le_bytes());
    }
    let digest: [u8; 32] = seed.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// Checks that the log begins at its beginning and that every segment continues the one before it. The records inside
/// older segments are `verify`'s business: opening must not take longer the older a log is.
fn check_seams(storage: &Arc<dyn Storage>, dir: &Path, found: &[u64]) -> Result<(), OpenError> {
    let disk = storage.as_ref();
    let oldest = Segment::open(disk, dir, found[0], false)?;
    let log_id = oldest.header.log_id;
    let beginning = Anchor { sequence: 0, hash: Hash::genesis(&log_id) };
    check_continues(&oldest, &log_id, beginning)?;
    for pair in found.windows(2) {
        let mut older = Segment::open(disk, dir, pair[0], false)?;
        let offset = older.file.len().map_err(OpenError::io("read", &older.path))?;
        let mut back = Reverse::new(storage, dir, Some(End { first: pair[0], offset }))?;
        let last = match back.step()? {
            Some(record) => record.anchor(),
            None => Anchor { sequence: 0, hash: Hash::ZERO },
        };
        check_continues(&Segment::open(disk, dir, pair[1], false)?, &log_id, last)?;
    }
    Ok(())
}

/// Walks the newest segment. Returns the end of its last whole record, that record, and the torn tail behind it.
fn scan(storage: &Arc<dyn Storage>, dir: &Path, newest: u64) -> Result<(u64, Anchor, Option<Vec<u8>>), OpenError> {
    let mut walker = Walker::from_segment(storage, dir, newest, None)?;
    let problem = loop {
        match walker.step() {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            // Only bytes that are no frame can be torn. A frame with the right checksum was written as it stands.
            Err(ReadError::Damaged(problem)) if matches!(problem.kind, ProblemKind::Frame(_)) => break Some(problem),
            Err(error) => return Err(error.into()),
        }
    };
    let last = walker.last();
    let (path, offset) = walker.place();
    let path = path.to_owned();
    let bytes = walker.left_over()?;
    if bytes == 0 {
        return Ok((offset, last, None));
    }
    let tampered = |kind| {
        let named = Problem { segment: path.clone(), offset, sequence: last.sequence + 1, kind };
        OpenError::Tampered(problem.clone().unwrap_or(named))
    };
    if bytes > MAX_GROUP_BYTES {
        return Err(tampered(ProblemKind::TailTooLong { bytes }));
    }
    let mut segment = Segment::open(storage.as_ref(), dir, newest, false)?;
    let mut tail = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let read = read_full(segment.file.as_mut(), offset, &mut tail).map_err(OpenError::io("read", &path))?;
    tail.truncate(read);
    if was_durable(segment.salt, &tail, last.sequence + 1) {
        return Err(tampered(ProblemKind::Frame("its length runs past the records behind it")));
    }
    Ok((offset, last, Some(tail)))
}

/// Whether record `sequence`, unreadable at the beginning of `tail`, had been made durable: a later record is there
/// that belongs to a later group, and no group is begun before the one before it is durable.
fn was_durable(salt: u32, tail: &[u8], sequence: u64) -> bool {
    (1..tail.len()).any(|at| {
        let candidate = &tail[at..];
        // A cheap look at the sequence number first: most places are no frames, and a checksum over each would let
        // hostile bytes make opening slow.
        let number = candidate.get(FRAME_PREFIX + 8..).and_then(|bytes| bytes.first_chunk());
        let number = u64::from_le_bytes(*number.unwrap_or(&[0; 8]));
        if number <= sequence || number - sequence > MAX_GROUP_BYTES {
            return false;
        }
        match format::frame(salt, candidate) {
            Frame::Whole(bytes) => Body::parse(bytes)
                .is_ok_and(|body| body.stamp.sequence.saturating_sub(u64::from(body.stamp.position)) > sequence),
            Frame::Partial(_) | Frame::Bad(_) => false,
        }
    })
}

/// Keeps the torn tail in a file of its own, then cuts it off the segment.
fn cut(
    storage: &dyn Storage,
    dir: &Path,
    segment: &mut Segment,
    offset: u64,
    tail: &[u8],
) -> Result<TornTail, OpenError> {
    let mut attempt = 0;
    let (mut file, kept_in) = loop {
        attempt += 1;
        let path = format::torn_path(dir, segment.header.first_sequence, offset, attempt);
        match storage.create(&path) {
            Ok(file) => break (file, path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {}
            Err(error) => return Err(OpenError::io("keep the torn tail in", &path)(error)),
        }
    };
    let kept = write_all(file.as_mut(), 0, tail).and_then(|()| file.sync_data()).and_then(|()| storage.sync_dir(dir));
    if let Err(error) = kept {
        // Nothing was cut, so nothing is lost; the next opening tries again.
        let _ = storage.remove(&kept_in);
        return Err(OpenError::io("keep the torn tail in", &kept_in)(error));
    }
    segment
        .file
        .set_len(offset)
        .and_then(|()| segment.file.sync_data())
        .map_err(OpenError::io("cut the torn tail off", &segment.path))?;
    Ok(TornTail { segment: segment.path.clone(), offset, bytes: tail.len() as u64, kept_in })
}
