//! Signed checkpoints and proofs through the public API: what they find, what they prove, and that nothing changed,
//! forged, foreign or incomplete passes for one. Each finding is typed and names its place.
#![cfg(feature = "checkpoints")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use resilience_audit::checkpoint::{
    Checkpoint, CheckpointError, CheckpointReport, KeyError, Proof, ProofError, SigningKey, VerifyingKey, check_proof,
    prove_in, verify_with_checkpoints_in,
};
use resilience_audit::tree::LogTree;
use resilience_audit::{Anchor, AuditEvent, AuditLog, AuditLogBuilder, OpenError, ProblemKind};
use resilience_core::Clock;
use support::Disk;

const DIR: &str = "/audit";

fn key(name: &str) -> SigningKey {
    SigningKey::generate(name).unwrap()
}

fn builder(disk: &Disk, keys: &[SigningKey]) -> AuditLogBuilder {
    let builder = AuditLog::builder().path(DIR).storage(disk.storage()).segment_bytes(4096);
    // No checkpoint comes by itself while a test runs.
    let builder = builder.checkpoint_every(Duration::from_secs(24 * 3600));
    keys.iter().fold(builder, |builder, key| builder.sign_checkpoints(key.clone()))
}

fn append(log: &AuditLog, numbers: std::ops::RangeInclusive<u64>) -> Vec<Anchor> {
    let event = |number: u64| AuditEvent::new("t", "a", number.to_string()).detail("filler", "x".repeat(700));
    numbers.map(|number| log.append_durable(event(number)).unwrap().wait().unwrap()).collect()
}

/// A log of 20 records in several segments, with checkpoints of 7 and, from closing it, 20.
fn sample(keys: &[SigningKey]) -> (Disk, Vec<Anchor>, [Checkpoint; 2]) {
    let disk = Disk::new();
    let log = builder(&disk, keys).build().unwrap();
    let mut anchors = append(&log, 1..=7);
    let first = log.checkpoint().unwrap();
    anchors.extend(append(&log, 8..=20));
    log.close().unwrap();
    let last = log.latest_checkpoint().unwrap();
    assert_eq!((first.size, last.size, log.checkpoint_failure()), (7, 20, None));
    (disk, anchors, [first, last])
}

fn public(keys: &[SigningKey]) -> Vec<VerifyingKey> {
    keys.iter().map(SigningKey::verifying_key).collect()
}

fn verify(disk: &Disk, keys: &[VerifyingKey], known: &[Checkpoint]) -> CheckpointReport {
    verify_with_checkpoints_in(&disk.storage(), DIR, keys, known, &[]).unwrap()
}

fn kind(report: &CheckpointReport) -> &ProblemKind {
    &report.log.problem.as_ref().unwrap_or_else(|| panic!("must be found: {report}")).kind
}

fn of_kind(disk: &Disk, suffix: &str) -> Vec<PathBuf> {
    disk.names().into_iter().filter(|name| name.to_string_lossy().ends_with(suffix)).collect()
}

fn checkpoint_file(size: u64) -> PathBuf {
    Path::new(DIR).join(format!("{size:020}.checkpoint"))
}

fn content(disk: &Disk, path: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    disk.edit(path, |bytes| content.clone_from(bytes));
    content
}

fn snapshot(disk: &Disk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.names().into_iter().map(|path| (path.clone(), content(disk, &path))).collect()
}

fn restore(disk: &Disk, snapshot: &BTreeMap<PathBuf, Vec<u8>>) {
    for path in disk.names() {
        disk.remove_name(&path);
    }
    for (path, bytes) in snapshot {
        disk.storage().create(path).unwrap();
        disk.edit(path, |content| content.clone_from(bytes));
    }
}

#[test]
fn a_sound_log_verifies_with_its_checkpoints_and_its_files_of_leaf_hashes() {
    let keys = [key("example.com/a")];
    let (disk, _, [first, last]) = sample(&keys);
    assert_eq!(of_kind(&disk, ".leaves").len(), of_kind(&disk, ".audit").len() - 1);
    let report = verify(&disk, &public(&keys), &[first]);
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.checkpoints, report.latest), (3, Some(last.clone())));
    let root = LogTree::open_in(&disk.storage(), DIR).unwrap().from_records().root(20).unwrap();
    assert_eq!((last.root, last.origin.as_str()), (root, "example.com/a"));
}

#[test]
fn a_checkpoint_has_the_three_lines_and_a_time_and_is_read_as_it_was_written() {
    let (disk, keys) = (Disk::new(), [key("example.com/a"), key("example.com/b")]);
    let (clock, manual) = Clock::manual();
    manual.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let log = builder(&disk, &keys).clock(clock).origin("the log of tests").build().unwrap();
    append(&log, 1..=1);
    let made = log.checkpoint().unwrap();
    let lines: Vec<&str> = made.as_str().lines().collect();
    assert_eq!((lines[0], lines[1], lines[3], lines[4]), ("the log of tests", "1", "time 2023-11-14T22:13:20Z", ""));
    assert_eq!(lines.len(), 7, "a signature of each key");
    assert_eq!(made.signed_by, public(&keys));
    for key in public(&keys) {
        let read = Checkpoint::open(made.as_str().as_bytes(), std::slice::from_ref(&key)).unwrap();
        assert_eq!((read.size, read.root, read.time, read.signed_by), (1, made.root, made.time, vec![key]));
    }
    // One right signature does not make up for a wrong one of another known key.
    let (head, last) = made.as_str().trim_end().rsplit_once(' ').unwrap();
    let changed = if last.as_bytes()[40] == b'A' { "B" } else { "A" };
    let forged = format!("{head} {}{changed}{}\n", &last[..40], &last[41..]);
    let refused = Checkpoint::open(forged.as_bytes(), &public(&keys)).unwrap_err();
    assert!(matches!(&refused, CheckpointError::Signature { key } if key.starts_with("example.com/b+")), "{refused}");
    assert_eq!(Checkpoint::open(forged.as_bytes(), &public(&keys[..1])).unwrap().signed_by, public(&keys[..1]));
    let third = self::key("example.com/witness");
    let cosigned = made.cosign(&third).cosign(&third);
    let read = Checkpoint::open(cosigned.as_str().as_bytes(), &[third.verifying_key()]).unwrap();
    assert_eq!((read.root, read.signed_by.len(), cosigned.as_str().lines().count()), (made.root, 1, 8));
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_found_in_its_file() {
    let keys = [key("example.com/a")];
    let (disk, _, _) = sample(&keys);
    let (path, sound) = (checkpoint_file(7), content(&disk, &checkpoint_file(7)));
    for bit in 0..sound.len() * 8 {
        disk.edit(&path, |bytes| {
            bytes.clone_from(&sound);
            bytes[bit / 8] ^= 1 << (bit % 8);
        });
        let report = verify(&disk, &public(&keys), &[]);
        let place = report.log.problem.as_ref().unwrap_or_else(|| panic!("bit {bit} must be found: {report}"));
        assert_eq!((&place.segment, place.sequence), (&path, 7), "bit {bit}: {report}");
        let typed =
            matches!(place.kind, ProblemKind::Checkpoint(_) | ProblemKind::UnknownKey | ProblemKind::Signature { .. });
        assert!(typed, "bit {bit}: {report}");
    }
    for len in 0..sound.len() {
        disk.edit(&path, |bytes| *bytes = sound[..len].to_vec());
        assert!(!verify(&disk, &public(&keys), &[]).is_sound(), "cut to {len}");
    }
}

#[test]
fn every_flipped_bit_of_a_file_of_leaf_hashes_is_found_at_its_record() {
    let keys = [key("example.com/a")];
    let (disk, _, _) = sample(&keys);
    let path = of_kind(&disk, ".leaves")[1].clone();
    let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let sound = content(&disk, &path);
    let count = u64::from_le_bytes(sound[sound.len() - 24..][..8].try_into().unwrap());
    for bit in 0..sound.len() * 8 {
        disk.edit(&path, |bytes| {
            bytes.clone_from(&sound);
            bytes[bit / 8] ^= 1 << (bit % 8);
        });
        let report = verify(&disk, &public(&keys), &[]);
        let place = report.log.problem.as_ref().unwrap_or_else(|| panic!("bit {bit} must be found: {report}"));
        let leaf = bit as u64 / 256;
        let sequence = if leaf < count { first + leaf } else { first };
        assert_eq!((&place.segment, place.sequence), (&path, sequence), "bit {bit}: {report}");
        assert!(matches!(place.kind, ProblemKind::Leaves(_)), "bit {bit}: {report}");
    }
}

/// Changes a byte of the subtrees in a `.leaves` file, and its checksum with it.
fn forge(disk: &Disk, path: &Path, at: impl FnOnce(usize, usize) -> usize) {
    disk.edit(path, |bytes| {
        let footer = bytes.len() - 64;
        let count = u64::from_le_bytes(bytes[footer + 40..][..8].try_into().unwrap());
        let subtrees = usize::try_from(count).unwrap() * 32;
        bytes[at(subtrees, footer)] ^= 1;
        let checksum = crc32c::crc32c(&bytes[subtrees..footer + 60]);
        bytes[footer + 60..].copy_from_slice(&checksum.to_le_bytes());
    });
}

#[test]
fn forged_subtrees_with_a_right_checksum_are_found_and_those_before_a_segment_are_made_again() {
    let keys = [key("example.com/a")];
    let (disk, _, _) = sample(&keys);
    let path = of_kind(&disk, ".leaves")[1].clone();
    let sound = content(&disk, &path);
    // The first subtree is one before the segment, the last one of the segment's own.
    forge(&disk, &path, |subtrees, _| subtrees);
    let report = verify(&disk, &public(&keys), &[]);
    assert!(matches!(kind(&report), ProblemKind::Leaves(what) if what.contains("before")), "{report}");
    assert_eq!(report.log.problem.as_ref().unwrap().segment, path);
    assert_eq!(LogTree::open_in(&disk.storage(), DIR).unwrap().seal().unwrap(), 1);
    assert!(content(&disk, &path) == sound);

    forge(&disk, &path, |_, footer| footer - 1);
    let report = verify(&disk, &public(&keys), &[]);
    assert!(matches!(kind(&report), ProblemKind::Leaves(what) if what.contains("subtrees")), "{report}");
    assert_eq!(report.log.problem.unwrap().segment, path);
}

#[test]
fn a_log_cut_behind_a_checkpoint_is_found_and_not_opened() {
    let keys = [key("example.com/a")];
    let (disk, _, [_, last]) = sample(&keys);
    let newest = of_kind(&disk, ".audit").pop().unwrap();
    let at_rest = snapshot(&disk);
    // Cut at the end of a record, within one, and down to nothing: none of it may pass for the trace of a crash.
    let len = at_rest[&newest].len();
    for cut in [len - 1, len - 300, 80] {
        disk.edit(&newest, |bytes| bytes.truncate(cut));
        let before = snapshot(&disk);
        let opened = builder(&disk, &keys).build();
        let Err(OpenError::Tampered(problem)) = &opened else { panic!("{cut}: {opened:?}") };
        assert!(matches!(problem.kind, ProblemKind::BehindCheckpoint { size: 20, .. }), "{cut}: {problem}");
        assert_eq!(before.keys().collect::<Vec<_>>(), snapshot(&disk).keys().collect::<Vec<_>>());
        assert!(before == snapshot(&disk), "a refused log must be left as it is");
    }
    let report = verify(&disk, &public(&keys), &[]);
    let (first, last_left) = (report.log.end.sequence + 1, report.log.end.sequence);
    let place = report.log.problem.clone().unwrap();
    assert_eq!((place.segment, place.sequence), (newest, first));
    assert_eq!(place.kind, ProblemKind::BehindCheckpoint { last: last_left, size: 20 });

    // With the checkpoint removed too, only one kept elsewhere shows it.
    disk.remove_name(&checkpoint_file(20));
    assert!(verify(&disk, &public(&keys), &[]).is_sound());
    assert!(matches!(kind(&verify(&disk, &public(&keys), &[last])), ProblemKind::BehindCheckpoint { size: 20, .. }));
}

#[test]
fn an_older_copy_put_back_is_found_by_a_checkpoint_kept_elsewhere() {
    let keys = [key("example.com/a")];
    let disk = Disk::new();
    let log = builder(&disk, &keys).build().unwrap();
    append(&log, 1..=5);
    log.close().unwrap();
    let old = snapshot(&disk);
    let log = builder(&disk, &keys).build().unwrap();
    append(&log, 6..=9);
    log.close().unwrap();
    let known = log.latest_checkpoint().unwrap();
    drop(log);
    restore(&disk, &old);
    assert!(verify(&disk, &public(&keys), &[]).is_sound(), "taken alone it is a sound log");
    let report = verify(&disk, &public(&keys), std::slice::from_ref(&known));
    assert_eq!(*kind(&report), ProblemKind::BehindCheckpoint { last: 5, size: 9 });

    // Written on from there, the log has a second history.
    let log = builder(&disk, &keys).build().unwrap();
    append(&log, 16..=19);
    log.close().unwrap();
    let other = log.latest_checkpoint().unwrap();
    assert_eq!((other.size, other.root == known.root), (9, false));
    let report = verify(&disk, &public(&keys), std::slice::from_ref(&known));
    assert_eq!(*kind(&report), ProblemKind::Fork { size: 9 });
    disk.remove_name(&checkpoint_file(9));
    let report = verify(&disk, &public(&keys), &[known]);
    assert_eq!(*kind(&report), ProblemKind::RootMismatch { from: 6, size: 9 });
    assert_eq!(report.log.problem.unwrap().sequence, 9);
}

#[test]
fn a_rewritten_history_is_found_and_never_signed() {
    let keys = [key("example.com/a")];
    let (disk, _, _) = sample(&keys);
    let (other, _, _) = sample(&keys);
    let mut forged = snapshot(&other);
    forged.retain(|path, _| !path.to_string_lossy().ends_with(".checkpoint"));
    for size in [7, 20] {
        forged.insert(checkpoint_file(size), content(&disk, &checkpoint_file(size)));
    }
    restore(&disk, &forged);
    let report = verify(&disk, &public(&keys), &[]);
    assert_eq!(*kind(&report), ProblemKind::RootMismatch { from: 1, size: 7 });
    let log = builder(&disk, &keys).build().unwrap();
    append(&log, 21..=21);
    let refused = log.checkpoint().unwrap_err();
    assert!(matches!(&refused, CheckpointError::NotMade { reason } if reason.contains("signed before")), "{refused}");
    assert!(log.checkpoint_failure().is_some());
    log.close().unwrap();
    assert!(!disk.names().contains(&checkpoint_file(21)), "nothing was signed");
}

#[test]
fn forged_files_of_leaf_hashes_do_not_lead_the_signer_astray() {
    let keys = [key("example.com/a")];
    let (disk, _, _) = sample(&keys);
    let (other, _, _) = sample(&keys);
    // Files of another history of the same length: whole in themselves but for the log's id, which is put in.
    let id = content(&disk, &of_kind(&disk, ".audit")[0])[16..32].to_vec();
    for path in of_kind(&disk, ".leaves") {
        let mut bytes = content(&other, &path);
        let (len, first) = (bytes.len(), u64::from_le_bytes(bytes[bytes.len() - 32..][..8].try_into().unwrap()));
        assert!(first >= 1);
        bytes[len - 48..len - 32].copy_from_slice(&id);
        let count = usize::try_from(u64::from_le_bytes(bytes[len - 24..len - 16].try_into().unwrap())).unwrap();
        let checksum = crc32c::crc32c(&bytes[count * 32..len - 4]);
        bytes[len - 4..].copy_from_slice(&checksum.to_le_bytes());
        disk.edit(&path, |content| content.clone_from(&bytes));
    }
    let forged = LogTree::open_in(&disk.storage(), DIR).unwrap();
    assert_ne!(forged.root(20).unwrap(), forged.from_records().root(20).unwrap(), "the forgery must be a good one");
    let report = verify(&disk, &public(&keys), &[]);
    assert!(matches!(kind(&report), ProblemKind::Leaves(_)), "{report}");

    let proof = prove_in(&disk.storage(), DIR, 3, &public(&keys)).unwrap();
    assert_eq!(proof.verify(&public(&keys)).unwrap().record.resource(), "3");
    let log = builder(&disk, &keys).build().unwrap();
    append(&log, 21..=21);
    let made = log.checkpoint().unwrap();
    assert_eq!(made.root, LogTree::open_in(&disk.storage(), DIR).unwrap().from_records().root(21).unwrap());
}

#[test]
fn a_checkpoint_of_an_unknown_key_is_none_and_keys_can_be_changed() {
    let (old, new) = ([key("example.com/a")], [key("example.com/a")]);
    let (disk, _, _) = sample(&old);
    assert_eq!(*kind(&verify(&disk, &public(&new), &[])), ProblemKind::UnknownKey);

    let log = builder(&disk, &new).former_key(old[0].verifying_key()).build().unwrap();
    assert_eq!(log.latest_checkpoint().map(|latest| latest.size), Some(20), "it goes on from the old key's");
    append(&log, 21..=22);
    log.close().unwrap();
    let both = [public(&old), public(&new)].concat();
    let report = verify(&disk, &both, &[]);
    assert!(report.is_sound() && report.checkpoints == 3, "{report}");
    assert_eq!(report.latest.unwrap().signed_by, public(&new));
    assert_eq!(*kind(&verify(&disk, &public(&new), &[])), ProblemKind::UnknownKey);
}

#[test]
fn a_checkpoint_of_another_log_is_named_by_its_origin() {
    let (one, two) = ([key("example.com/a")], [key("example.com/b")]);
    let (disk, _, _) = sample(&one);
    let (_, _, [foreign, _]) = sample(&two);
    let report = verify(&disk, &public(&one), &[foreign]);
    assert!(matches!(kind(&report), ProblemKind::Origin { .. }), "{report}");
}

#[test]
fn checkpoints_come_after_so_many_records_and_old_ones_go() {
    let keys = [key("example.com/a")];
    let disk = Disk::new();
    let log = builder(&disk, &keys).checkpoint_records(2).keep_checkpoints(3).build().unwrap();
    for number in 1..=12_u64 {
        append(&log, number..=number);
        if number % 2 == 0 {
            // Made by itself, on its own thread; asking again only waits for that.
            while log.latest_checkpoint().is_none_or(|latest| latest.size < number) {
                std::thread::yield_now();
            }
        }
    }
    log.close().unwrap();
    assert_eq!(of_kind(&disk, ".checkpoint"), [8, 10, 12].map(checkpoint_file));
    assert!(verify(&disk, &public(&keys), &[]).is_sound());
}

#[test]
fn a_proof_is_checked_without_the_log_and_every_flipped_bit_of_it_is_noticed() {
    let keys = [key("example.com/a")];
    let (disk, anchors, [_, last]) = sample(&keys);
    for anchor in &anchors {
        let proof = prove_in(&disk.storage(), DIR, anchor.sequence, &public(&keys)).unwrap();
        let text = proof.to_string();
        assert_eq!(Proof::parse(text.as_bytes()).unwrap(), proof);
        let proven = check_proof(text.as_bytes(), &public(&keys)).unwrap();
        assert_eq!((proven.record.anchor(), proven.checkpoint.root), (*anchor, last.root));
    }
    let text = prove_in(&disk.storage(), DIR, 11, &public(&keys)).unwrap().to_string().into_bytes();
    for bit in 0..text.len() * 8 {
        let mut changed = text.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(check_proof(&changed, &public(&keys)).is_err(), "bit {bit}");
    }
    for len in 0..text.len() {
        assert!(check_proof(&text[..len], &public(&keys)).is_err(), "cut to {len}");
    }
    let other = public(&[key("example.com/a")]);
    let unknown = check_proof(&text, &other).unwrap_err();
    assert!(matches!(unknown, ProofError::Checkpoint(CheckpointError::UnknownKey)), "{unknown}");
    for sequence in [0, 21, u64::MAX] {
        let refused = prove_in(&disk.storage(), DIR, sequence, &public(&keys)).unwrap_err();
        assert!(matches!(refused, ProofError::NoCheckpoint { .. }), "{refused}");
    }
}

#[test]
fn a_removed_record_is_still_proven_by_its_anchor() {
    let keys = [key("example.com/a")];
    let (disk, anchors, _) = sample(&keys);
    let whole = prove_in(&disk.storage(), DIR, 2, &public(&keys)).unwrap();
    disk.remove_name(&of_kind(&disk, ".audit")[0]);
    let proof = prove_in(&disk.storage(), DIR, 2, &public(&keys)).unwrap();
    assert!(matches!(proof.verify(&public(&keys)), Err(ProofError::NoRecord)));
    assert_eq!(proof.verify_anchor(anchors[1], &public(&keys)).unwrap().size, 20);
    let wrong = proof.verify_anchor(anchors[2], &public(&keys)).unwrap_err();
    assert!(matches!(wrong, ProofError::NotIncluded { sequence: 3 }), "{wrong}");
    let moved = Anchor { sequence: 3, ..anchors[1] };
    assert!(proof.verify_anchor(moved, &public(&keys)).is_err(), "the right hash under another number");
    assert_eq!(whole.verify(&public(&keys)).unwrap().record.resource(), "2", "proofs made before hold as well");
    let later = prove_in(&disk.storage(), DIR, 15, &public(&keys)).unwrap();
    assert_eq!(later.verify(&public(&keys)).unwrap().record.resource(), "15");
}

#[test]
fn no_failing_step_of_making_a_checkpoint_harms_the_log_or_leaves_a_wrong_one() {
    let keys = [key("example.com/a")];
    for fault in support::FAULTS {
        for step in 0.. {
            let disk = Disk::new();
            let log = builder(&disk, &keys).build().unwrap();
            append(&log, 1..=8);
            disk.plan(step, fault);
            let made = log.checkpoint();
            let crashed = disk.crashed();
            let struck = disk.disarm();
            if !crashed {
                append(&log, 9..=9);
            }
            let closed = log.close();
            drop(log);
            if crashed {
                disk.reboot(support::Survives::Nothing);
            } else {
                assert_eq!(closed.unwrap().sequence, 9, "{fault:?} at {step}");
            }
            let known: Vec<Checkpoint> = made.into_iter().collect();
            let report = verify(&disk, &public(&keys), &known);
            assert!(report.is_sound(), "{fault:?} at {step}: {report}");
            assert!(crashed || report.latest.is_some_and(|latest| latest.size == 9), "{fault:?} at {step}");
            let log = builder(&disk, &keys).build().unwrap();
            assert!(log.checkpoint().is_ok(), "{fault:?} at {step}");
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn keys_are_read_as_gos_note_package_writes_them() {
    // The example keys of golang.org/x/mod/sumdb/note.
    let private = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    let key: SigningKey = private.parse().unwrap();
    assert_eq!(key.expose().as_str(), private);
    assert_eq!(key.verifying_key().to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
    let shown = format!("{key:?} {:?}", builder(&Disk::new(), std::slice::from_ref(&key)));
    assert!(shown.contains("PeterNeumann+c74f20a3") && !shown.contains("AYEKFALV"), "{shown}");

    for bad in ["", "x", "PRIVATE+KEY+", &private.replace("c74f20a3", "c74f20a4"), &private.replace("Peter", "P")] {
        let error = bad.parse::<SigningKey>().unwrap_err();
        assert!(!error.to_string().contains("AYEKFALV"), "{error}");
        assert!(bad.parse::<VerifyingKey>().is_err(), "{bad}");
    }
    for name in ["", "a b", "a+b", "a\nb", &"x".repeat(256)] {
        assert!(matches!(SigningKey::generate(name), Err(KeyError::Name(_))), "{name}");
    }
    let list = VerifyingKey::parse_list(&format!("# ours\n\n{}\n", key.verifying_key())).unwrap();
    assert_eq!(list, [key.verifying_key()]);
    assert!(VerifyingKey::parse_list("# none\n").is_err());
}

#[cfg(unix)]
#[test]
fn a_private_key_is_kept_in_a_file_of_its_own_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let (path, key) = (place.path().join("key"), key("example.com/a"));
    key.write_new(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SigningKey::read(&path).unwrap().verifying_key(), key.verifying_key());
    assert!(matches!(key.write_new(&path), Err(KeyError::Io { .. })), "never overwritten");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = SigningKey::read(&path).unwrap_err();
    assert!(matches!(refused, KeyError::InsecurePermissions { mode: 0o640, .. }), "{refused}");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let disk = Disk::new();
    let cases = [
        ("checkpoint_every", builder(&disk, &[]).checkpoint_every(Duration::ZERO)),
        ("checkpoint_every", builder(&disk, &[]).checkpoint_every(Duration::MAX)),
        ("checkpoint_records", builder(&disk, &[]).checkpoint_records(0)),
        ("keep_checkpoints", builder(&disk, &[]).keep_checkpoints(0)),
        ("origin", builder(&disk, &[]).origin("a\nb")),
        ("origin", builder(&disk, &[]).origin("")),
    ];
    for (field, builder) in cases {
        let error = builder.build().unwrap_err();
        assert!(matches!(&error, OpenError::Config(error) if error.to_string().contains(field)), "{error}");
    }
    let log = builder(&disk, &[]).build().unwrap();
    assert_eq!(log.checkpoint().unwrap_err(), CheckpointError::NotSigning);
    assert_eq!(AuditLog::default().checkpoint().unwrap_err(), CheckpointError::NotSigning);
}
