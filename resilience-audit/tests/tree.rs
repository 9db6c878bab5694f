//! The Merkle tree of a log against a naive recursive implementation, written down from RFC 6962 word by word, and
//! against the published vectors. Proofs of every leaf and every pair of sizes are made and checked, and false ones not.

mod support;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use resilience_audit::tree::{CompactRange, ConsistencyProof, InclusionProof, LogTree};
use resilience_audit::{AuditEvent, AuditLog, Hash, ProblemKind, ReadError};
use sha2::{Digest, Sha256};
use support::Disk;

const DIR: &str = "/audit";

fn leaf_hash(data: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

fn node_hash(left: Hash, right: Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The largest power of two smaller than `n`.
fn k(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// RFC 6962, 2.1: MTH.
fn mth(d: &[Hash]) -> Hash {
    match d {
        [] => Hash(Sha256::digest([]).into()),
        [only] => *only,
        _ => node_hash(mth(&d[..k(d.len())]), mth(&d[k(d.len())..])),
    }
}

/// RFC 6962, 2.1.1: PATH.
fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
    let n = d.len();
    if n == 1 {
        return Vec::new();
    }
    let k = k(n);
    let (mut inside, beside) =
        if m < k { (path(m, &d[..k]), mth(&d[k..])) } else { (path(m - k, &d[k..]), mth(&d[..k])) };
    inside.push(beside);
    inside
}

/// RFC 6962, 2.1.2: SUBPROOF.
fn subproof(m: usize, d: &[Hash], whole: bool) -> Vec<Hash> {
    let n = d.len();
    if m == n {
        return if whole { Vec::new() } else { vec![mth(d)] };
    }
    let k = k(n);
    let (mut inside, beside) = if m <= k {
        (subproof(m, &d[..k], whole), mth(&d[k..]))
    } else {
        (subproof(m - k, &d[k..], false), mth(&d[..k]))
    };
    inside.push(beside);
    inside
}

fn numbered(count: usize) -> Vec<Hash> {
    (0..count).map(|number| leaf_hash(&number.to_le_bytes())).collect()
}

fn folded(begin: usize, leaves: &[Hash]) -> CompactRange {
    let mut range = CompactRange::new(begin as u64);
    for leaf in leaves {
        range.push(*leaf);
    }
    range
}

#[test]
fn the_roots_are_those_of_the_published_vectors() {
    // Leaves and roots of the certificate-transparency project's reference tests.
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut tree = CompactRange::new(0);
    assert_eq!(tree.root().to_string(), roots[0]);
    for (leaf, root) in leaves.into_iter().zip(&roots[1..]) {
        tree.push(leaf_hash(leaf));
        assert_eq!(tree.root().to_string(), *root);
    }
}

proptest! {
    #[test]
    fn ranges_put_together_anywhere_are_the_tree(size in 0_usize..300, cuts in prop::collection::vec(0_usize..300, 0..6)) {
        let leaves = numbered(size);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(size)).chain([0, size]).collect();
        cuts.sort_unstable();
        let mut tree = CompactRange::new(0);
        for pair in cuts.windows(2) {
            prop_assert!(tree.append(&folded(pair[0], &leaves[pair[0]..pair[1]])));
        }
        prop_assert_eq!(tree.root(), mth(&leaves));
        prop_assert_eq!(&tree, &folded(0, &leaves));
        prop_assert!(!tree.append(&CompactRange::new(size as u64 + 1)));
    }

    #[test]
    fn proofs_of_the_rfc_are_accepted_and_changed_ones_are_not(
        size in 1_usize..300, at in 0_usize..300, old in 0_usize..300, change in 0_usize..32, bit in 0_u8..8,
    ) {
        let leaves = numbered(size);
        let (at, old) = (at % size, old % (size + 1));
        let (root, old_root) = (mth(&leaves), mth(&leaves[..old]));

        let sound = InclusionProof { index: at as u64, size: size as u64, hashes: path(at, &leaves) };
        prop_assert!(sound.verify(leaves[at], root));
        let wrong_leaf = leaf_hash(b"another");
        prop_assert!(!sound.verify(wrong_leaf, root));
        let mut longer = sound.clone();
        longer.hashes.push(root);
        prop_assert!(!longer.verify(leaves[at], root));
        let mut moved = sound.clone();
        moved.index = (moved.index + 1) % size as u64;
        prop_assert!(size == 1 || !moved.verify(leaves[at], root));
        if !sound.hashes.is_empty() {
            let mut changed = sound.clone();
            let which = change % changed.hashes.len();
            changed.hashes[which].0[change] ^= 1 << bit;
            prop_assert!(!changed.verify(leaves[at], root));
            let mut shorter = sound.clone();
            shorter.hashes.pop();
            prop_assert!(!shorter.verify(leaves[at], root));
        }

        let hashes = if old == 0 { Vec::new() } else { subproof(old, &leaves, true) };
        let sound = ConsistencyProof { old_size: old as u64, new_size: size as u64, hashes };
        prop_assert!(sound.verify(old_root, root));
        let other = leaf_hash(b"another root");
        prop_assert!(!sound.verify(other, root));
        prop_assert!(old == 0 || !sound.verify(old_root, other));
        let mut longer = sound.clone();
        longer.hashes.push(root);
        prop_assert!(!longer.verify(old_root, root));
        if !sound.hashes.is_empty() {
            let mut changed = sound.clone();
            let which = change % changed.hashes.len();
            changed.hashes[which].0[change] ^= 1 << bit;
            prop_assert!(!changed.verify(old_root, root));
        }
    }

    #[test]
    fn no_proof_however_strange_panics(
        index in any::<u64>(), size in any::<u64>(), count in 0_usize..70,
    ) {
        let hashes = numbered(count);
        let proof = InclusionProof { index, size, hashes: hashes.clone() };
        prop_assert!(!proof.verify(Hash::ZERO, Hash::ZERO));
        let proof = ConsistencyProof { old_size: index, new_size: size, hashes };
        prop_assert!(!proof.verify(Hash::ZERO, leaf_hash(b"")));
    }
}

/// A log of 30 records in several segments, and its leaves.
fn sample() -> (Disk, Vec<Hash>) {
    let disk = Disk::new();
    let log = AuditLog::builder().path(DIR).storage(disk.storage()).segment_bytes(4096).build().unwrap();
    let event = |number: u32| AuditEvent::new("t", "a", number.to_string()).detail("filler", "x".repeat(700));
    let leaves = (0..30).map(|number| log.append_durable(event(number)).unwrap().wait().unwrap().hash).collect();
    log.close().unwrap();
    (disk, leaves)
}

fn of_kind(disk: &Disk, suffix: &str) -> Vec<PathBuf> {
    disk.names().into_iter().filter(|name| name.to_string_lossy().ends_with(suffix)).collect()
}

fn check_all(tree: &LogTree, leaves: &[Hash]) {
    for size in 0..=leaves.len() {
        let root = tree.root(size as u64).unwrap();
        assert_eq!(root, mth(&leaves[..size]), "{size}");
        for at in 0..size {
            let proof = tree.prove_inclusion(at as u64, size as u64).unwrap();
            assert_eq!(proof.hashes, path(at, &leaves[..size]), "{at} in {size}");
            assert!(proof.verify(leaves[at], root));
        }
        for old in 0..=size {
            let proof = tree.prove_consistency(old as u64, size as u64).unwrap();
            let expected = if old == 0 { Vec::new() } else { subproof(old, &leaves[..size], true) };
            assert_eq!(proof.hashes, expected, "{old} to {size}");
            assert!(proof.verify(mth(&leaves[..old]), root));
        }
    }
}

#[test]
fn every_proof_of_a_log_is_the_rfcs_from_records_from_files_and_when_records_are_gone() {
    let (disk, leaves) = sample();
    let tree = || LogTree::open_in(&disk.storage(), DIR).unwrap();
    let segments = of_kind(&disk, ".audit");
    assert!(segments.len() >= 5, "{segments:?}");
    check_all(&tree(), &leaves);

    assert_eq!(tree().seal().unwrap(), segments.len() as u64 - 1, "all but the last segment");
    assert_eq!(tree().seal().unwrap(), 0, "nothing is left to do");
    check_all(&tree(), &leaves);

    disk.remove_name(&of_kind(&disk, ".leaves")[1]);
    check_all(&tree(), &leaves);
    assert_eq!(tree().seal().unwrap(), 1, "what is missing is made again");

    for removed in &segments[..3] {
        disk.remove_name(removed);
    }
    check_all(&tree(), &leaves);
    disk.remove_name(&of_kind(&disk, ".leaves")[1]);
    let error = tree().root(30).unwrap_err();
    assert!(matches!(&error, ReadError::Damaged(problem) if problem.kind == ProblemKind::MissingLeaves), "{error}");
}

#[test]
fn a_damaged_file_of_leaf_hashes_never_changes_what_the_records_say() {
    let (disk, leaves) = sample();
    LogTree::open_in(&disk.storage(), DIR).unwrap().seal().unwrap();
    let file = of_kind(&disk, ".leaves")[1].clone();
    let mut sound = Vec::new();
    disk.edit(&file, |bytes| sound.clone_from(bytes));
    let root = mth(&leaves);
    let count = usize::try_from(u64::from_le_bytes(sound[sound.len() - 24..][..8].try_into().unwrap())).unwrap();
    for len in 0..sound.len() {
        disk.edit(&file, |bytes| *bytes = sound[..len].to_vec());
        assert_eq!(LogTree::open_in(&disk.storage(), DIR).unwrap().root(30).unwrap(), root, "cut to {len}");
    }
    for bit in count * 32 * 8..sound.len() * 8 {
        disk.edit(&file, |bytes| {
            bytes.clone_from(&sound);
            bytes[bit / 8] ^= 1 << (bit % 8);
        });
        let tree = LogTree::open_in(&disk.storage(), DIR).unwrap();
        assert_eq!(tree.root(30).unwrap(), root, "bit {bit} of the subtrees or the footer");
    }
    let tree = LogTree::open_in(&disk.storage(), DIR).unwrap();
    assert_eq!(tree.seal().unwrap(), 1, "a damaged file is written again");
    disk.edit(&file, |bytes| assert!(*bytes == sound));
}

#[test]
fn what_the_log_does_not_have_is_refused() {
    let (disk, _) = sample();
    let tree = LogTree::open_in(&disk.storage(), Path::new(DIR)).unwrap();
    assert_eq!(tree.size(), 30);
    for error in [
        tree.root(31).unwrap_err(),
        tree.prove_inclusion(30, 30).unwrap_err(),
        tree.prove_inclusion(u64::MAX, u64::MAX).unwrap_err(),
        tree.prove_inclusion(3, 31).unwrap_err(),
        tree.prove_consistency(5, 4).map(|_| ()).unwrap_err(),
        tree.prove_consistency(5, 31).map(|_| ()).unwrap_err(),
        tree.leaf(0).unwrap_err(),
        tree.leaf(31).unwrap_err(),
    ] {
        let ReadError::Damaged(problem) = &error else { panic!("{error}") };
        assert!(matches!(problem.kind, ProblemKind::BeyondEnd { last: 30, .. }), "{error}");
    }
}
