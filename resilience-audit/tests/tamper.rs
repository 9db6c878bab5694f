//! A small log, changed behind its back in every way: each bit flipped, records removed, swapped and repeated,
//! the end cut at every byte, segments taken away. `verify` must name the place; opening must destroy nothing.

mod support;

use std::ops::Range;
use std::path::{Path, PathBuf};

use resilience_audit::{
    Anchor, AuditEvent, AuditLog, OpenError, Problem, ProblemKind, ReadError, VerifyReport, verify_in,
};
use support::Disk;

const DIR: &str = "/audit";
const HEADER: usize = 80;

fn segment(first: u64) -> PathBuf {
    Path::new(DIR).join(format!("{first:020}.audit"))
}

fn builder(disk: &Disk) -> resilience_audit::AuditLogBuilder {
    AuditLog::builder().path(DIR).storage(disk.storage()).segment_bytes(4096)
}

/// A log of `records` records in groups of one, except that the last three are one group.
fn sample(records: u64) -> (Disk, Vec<u8>, Vec<Anchor>) {
    let disk = Disk::new();
    let log = builder(&disk).build().unwrap();
    let event = |number: u64| AuditEvent::new("t", "a", number.to_string()).detail("k", "v");
    let mut anchors: Vec<Anchor> =
        (1..=records - 4).map(|number| log.append_durable(event(number)).unwrap().wait().unwrap()).collect();
    disk.pause();
    let held = log.append_durable(event(records - 3)).unwrap();
    disk.wait_for_held_write();
    let group: Vec<_> = (records - 2..=records).map(|number| log.append_durable(event(number)).unwrap()).collect();
    disk.resume();
    anchors.push(held.wait().unwrap());
    anchors.extend(group.into_iter().map(|acknowledgement| acknowledgement.wait().unwrap()));
    drop(log);
    let mut bytes = Vec::new();
    disk.edit(&segment(1), |content| bytes.clone_from(content));
    (disk, bytes, anchors)
}

/// Where each record's frame lies in a segment.
fn frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut at = HEADER;
    let mut found = Vec::new();
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        found.push(at..at + 8 + len + 4);
        at += 8 + len + 4;
    }
    found
}

fn verify_bytes(disk: &Disk, bytes: &[u8], anchors: &[Anchor]) -> VerifyReport {
    disk.edit(&segment(1), |content| *content = bytes.to_vec());
    verify_in(&disk.storage(), DIR, anchors).unwrap()
}

fn problem(report: &VerifyReport) -> &Problem {
    report.problem.as_ref().unwrap_or_else(|| panic!("must be found: {report}"))
}

/// Opens the log; when that is refused, checks that not a byte was changed.
fn try_open(disk: &Disk, bytes: &[u8]) -> Result<AuditLog, OpenError> {
    disk.edit(&segment(1), |content| *content = bytes.to_vec());
    let opened = builder(disk).build();
    if opened.is_err() {
        disk.edit(&segment(1), |content| assert!(content == bytes, "a refused log must be left as it is"));
    }
    opened
}

#[test]
fn every_flipped_bit_is_found_at_its_record_and_opening_never_cuts_what_an_earlier_group_made_durable() {
    let (disk, sound, _) = sample(7);
    assert!(verify_bytes(&disk, &sound, &[]).is_sound());
    let frames = frames(&sound);
    assert_eq!(frames.len(), 7);
    for bit in 0..sound.len() * 8 {
        let at = bit / 8;
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (bit % 8);
        let report = verify_bytes(&disk, &bytes, &[]);
        let problem = problem(&report);
        let record = frames.iter().position(|frame| frame.contains(&at));
        let (offset, sequence) = record.map_or((0, 1), |record| (frames[record].start, record + 1));
        assert_eq!((problem.offset, problem.sequence), (offset as u64, sequence as u64), "bit {bit}: {report}");
        assert_eq!(report.records, sequence as u64 - 1, "bit {bit}: what stands before it is sound");

        match (try_open(&disk, &bytes), record) {
            (Err(OpenError::Tampered(_)), _) => {}
            // In the last group, damage cannot be told from a crash: it is cut, but kept and recorded.
            (Ok(log), Some(record)) if record >= 4 => {
                let torn = log.open_report().unwrap().torn.clone().unwrap();
                assert_eq!(torn.offset, offset as u64, "bit {bit}");
                disk.edit(&torn.kept_in, |kept| assert!(*kept == bytes[offset..], "bit {bit}: what is cut is kept"));
                disk.remove_name(&torn.kept_in);
            }
            (opened, _) => panic!("bit {bit}: {opened:?}"),
        }
    }
}

#[test]
fn every_removed_swapped_or_repeated_record_is_found_where_it_is() {
    let (disk, sound, _) = sample(7);
    let frames = frames(&sound);
    let rebuilt = |order: &[usize]| {
        let mut bytes = sound[..HEADER].to_vec();
        for record in order {
            bytes.extend_from_slice(&sound[frames[*record].clone()]);
        }
        bytes
    };
    let all: Vec<usize> = (0..7).collect();
    let mut changed = Vec::new();
    for record in 0..7 {
        let mut order = all.clone();
        order.remove(record);
        // Without the last record the log is a sound shorter log: see the test on truncation.
        if record != 6 {
            changed.push((order, record));
        }
        let mut order = all.clone();
        order.insert(record, record);
        changed.push((order, record + 1));
        for other in record + 1..7 {
            let mut order = all.clone();
            order.swap(record, other);
            changed.push((order, record));
        }
    }
    for (order, place) in changed {
        let bytes = rebuilt(&order);
        let report = verify_bytes(&disk, &bytes, &[]);
        let problem = problem(&report);
        assert_eq!(problem.sequence, place as u64 + 1, "{order:?}: {report}");
        assert!(matches!(problem.kind, ProblemKind::Sequence { .. }), "{order:?}: {report}");
        let opened = try_open(&disk, &bytes);
        assert!(matches!(opened, Err(OpenError::Tampered(_))), "{order:?}: {opened:?}");
    }
}

#[test]
fn a_cut_at_any_byte_is_found_with_an_anchor_and_within_a_record_also_without() {
    let (disk, sound, anchors) = sample(7);
    let last = *anchors.last().unwrap();
    let frames = frames(&sound);
    for len in HEADER..sound.len() {
        let whole = frames.iter().filter(|frame| frame.end <= len).count();
        let boundary = len == HEADER || frames.iter().any(|frame| frame.end == len);
        let report = verify_bytes(&disk, &sound[..len], &[]);
        assert_eq!((report.records, report.is_sound()), (whole as u64, boundary), "{len}: {report}");
        let report = verify_bytes(&disk, &sound[..len], &[anchors[0], last]);
        match &problem(&report).kind {
            ProblemKind::TornTail { bytes } => assert!(!boundary && *bytes > 0, "{len}: {report}"),
            ProblemKind::RolledBack { last, anchor } => {
                assert_eq!((*last, *anchor, boundary), (whole as u64, 7, true), "{len}: {report}");
            }
            other => panic!("{len}: {other}"),
        }
    }
    for len in 0..HEADER {
        let report = verify_bytes(&disk, &sound[..len], &[]);
        assert!(matches!(problem(&report).kind, ProblemKind::Header(_)), "{len}: {report}");
    }
}

#[test]
fn a_consistent_log_with_another_history_does_not_match_the_anchor() {
    let (disk, _, anchors) = sample(7);
    let (_, other, _) = sample(7);
    let report = verify_bytes(&disk, &other, &[]);
    assert!(report.is_sound(), "taken alone it is a sound log: {report}");
    let report = verify_bytes(&disk, &other, &anchors[2..3]);
    assert_eq!((&problem(&report).kind, problem(&report).sequence), (&ProblemKind::AnchorMismatch, 3));
}

/// A log of several segments: their first sequence numbers.
fn segmented() -> (Disk, Vec<u64>, Anchor) {
    let disk = Disk::new();
    let log = builder(&disk).build().unwrap();
    for number in 0..40 {
        let event = AuditEvent::new("t", "a", number.to_string()).detail("filler", "x".repeat(300));
        log.append_durable(event).unwrap().wait().unwrap();
    }
    let end = log.close().unwrap();
    let names = disk.names();
    let firsts = names.iter().filter_map(|name| name.file_name()?.to_str()?.strip_suffix(".audit")?.parse().ok());
    (disk.clone(), firsts.collect(), end)
}

#[test]
fn a_missing_or_misplaced_segment_is_found_at_its_seam() {
    let (_, firsts, _) = segmented();
    assert!(firsts.len() >= 4, "{firsts:?}");
    for (index, first) in firsts.iter().enumerate() {
        let (disk, _, end) = segmented();
        disk.remove_name(&segment(*first));
        let without = verify_in(&disk.storage(), DIR, &[]).unwrap();
        let with = verify_in(&disk.storage(), DIR, &[end]).unwrap();
        if index + 1 == firsts.len() {
            assert!(without.is_sound() && matches!(problem(&with).kind, ProblemKind::RolledBack { .. }), "{with}");
            continue;
        }
        let place = problem(&without);
        assert_eq!((place.sequence, &place.kind), (*first, &ProblemKind::MissingSegment { found: firsts[index + 1] }));
        assert!(matches!(builder(&disk).build(), Err(OpenError::Tampered(_))));
    }

    // The content of one segment under the name of another.
    let (disk, _, _) = segmented();
    let mut content = Vec::new();
    disk.edit(&segment(firsts[1]), |bytes| content.clone_from(bytes));
    disk.edit(&segment(firsts[2]), |bytes| bytes.clone_from(&content));
    let report = verify_in(&disk.storage(), DIR, &[]).unwrap();
    assert_eq!(problem(&report).kind, ProblemKind::MissingSegment { found: firsts[1] });
    // A segment of another log in the same place.
    let (other, _, _) = segmented();
    other.edit(&segment(firsts[2]), |bytes| content.clone_from(bytes));
    disk.edit(&segment(firsts[2]), |bytes| bytes.clone_from(&content));
    let report = verify_in(&disk.storage(), DIR, &[]).unwrap();
    assert_eq!((&problem(&report).kind, problem(&report).sequence), (&ProblemKind::ForeignSegment, firsts[2]));
}

#[test]
fn a_torn_end_of_an_older_segment_is_tampering() {
    let (disk, firsts, _) = segmented();
    disk.edit(&segment(firsts[1]), |bytes| bytes.truncate(bytes.len() - 5));
    let report = verify_in(&disk.storage(), DIR, &[]).unwrap();
    assert!(matches!(problem(&report).kind, ProblemKind::TornTail { .. }), "{report}");
    assert!(matches!(builder(&disk).build(), Err(OpenError::Tampered(_))));
}

#[test]
fn more_unreadable_bytes_than_a_crash_can_tear_are_refused() {
    let (disk, mut bytes, _) = sample(7);
    bytes.resize(bytes.len() + (4 << 20) + 1, 0xFF);
    let opened = try_open(&disk, &bytes);
    assert!(matches!(opened, Err(OpenError::Tampered(_))), "{opened:?}");
    // One byte less could be a torn group.
    bytes.pop();
    assert_eq!(try_open(&disk, &bytes).unwrap().open_report().unwrap().torn.as_ref().unwrap().bytes, 4 << 20);
}

#[test]
fn a_newer_format_is_refused_by_its_version_and_left_as_it_is() {
    let (disk, mut bytes, _) = sample(7);
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..76]).to_le_bytes();
    bytes[76..80].copy_from_slice(&checksum);
    let opened = try_open(&disk, &bytes);
    assert!(matches!(opened, Err(OpenError::NewerVersion { found: 2, supported: 1, .. })), "{opened:?}");
    assert!(matches!(verify_in(&disk.storage(), DIR, &[]), Err(ReadError::NewerVersion { found: 2, .. })));
}

#[test]
fn a_frame_smuggled_into_a_torn_record_does_not_pass_for_one_that_was_durable() {
    // An attacker who can write events puts the bytes of a later record into one, then waits for a crash.
    let (donor, _, _) = sample(9);
    let mut forged = Vec::new();
    donor.edit(&segment(1), |bytes| forged.extend_from_slice(&bytes[frames(bytes)[8].clone()]));
    let (disk, mut bytes, _) = sample(7);
    bytes.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3, 4]);
    bytes.extend_from_slice(&forged);
    let torn = try_open(&disk, &bytes).unwrap().open_report().unwrap().torn.clone();
    assert_eq!(torn.unwrap().bytes, forged.len() as u64 + 8);
}
