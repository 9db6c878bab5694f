//! Inclusion and consistency proofs: which subtrees they consist of, and the checks of RFC 9162, 2.1.3.2 and 2.1.4.2.
//! A proof is untrusted input: every number and length in it is checked, nothing panics.

use std::ops::Range;

use crate::hash::Hash;

/// Shows that a leaf is in a tree, to whoever knows the tree's root (RFC 6962, 2.1.1).
#[doc(alias = "audit path")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The leaf: a record's sequence number less one.
    pub index: u64,
    /// How many leaves the tree has.
    pub size: u64,
    /// The hashes of the subtrees beside the way from the leaf to the root.
    pub hashes: Vec<Hash>,
}

impl InclusionProof {
    /// The root of the tree, if `leaf` stands at the proof's place in it; `None` when the proof has no such shape.
    pub fn root(&self, leaf: Hash) -> Option<Hash> {
        if self.index >= self.size {
            return None;
        }
        let (mut at, mut last) = (self.index, self.size - 1);
        let mut root = leaf;
        for hash in &self.hashes {
            if last == 0 {
                return None;
            }
            if at % 2 == 1 || at == last {
                root = Hash::of_node(*hash, root);
                // At the right edge, levels without a sibling have no hash in the proof.
                while at % 2 == 0 && at != 0 {
                    at /= 2;
                    last /= 2;
                }
            } else {
                root = Hash::of_node(root, *hash);
            }
            at /= 2;
            last /= 2;
        }
        (last == 0).then_some(root)
    }

    /// Whether it shows that `leaf` is in the tree with this root.
    #[must_use]
    pub fn verify(&self, leaf: Hash, root: Hash) -> bool {
        self.root(leaf) == Some(root)
    }
}

/// Shows that a tree begins with all the leaves of an older, smaller tree (RFC 6962, 2.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// How many leaves the older tree has.
    pub old_size: u64,
    /// How many leaves the newer tree has.
    pub new_size: u64,
    /// The hashes of the subtrees that both roots can be computed from.
    pub hashes: Vec<Hash>,
}

impl ConsistencyProof {
    /// Whether it shows that the tree with the root `new` continues the one with the root `old`.
    #[must_use]
    pub fn verify(&self, old: Hash, new: Hash) -> bool {
        if self.old_size == 0 {
            // Every tree continues the empty one.
            return self.hashes.is_empty() && old == Hash::of_empty_tree();
        }
        if self.old_size >= self.new_size {
            return self.old_size == self.new_size && self.hashes.is_empty() && old == new;
        }
        let mut hashes = self.hashes.iter().copied();
        let (mut at, mut last) = (self.old_size - 1, self.new_size - 1);
        let ones = at.trailing_ones();
        at >>= ones;
        last >>= ones;
        // The largest subtree at the older tree's right edge; when that is the whole older tree, it is not in the proof.
        let Some(start) = (if at == 0 { Some(old) } else { hashes.next() }) else { return false };
        let (mut old_root, mut new_root) = (start, start);
        for hash in hashes {
            if last == 0 {
                return false;
            }
            if at % 2 == 1 || at == last {
                old_root = Hash::of_node(hash, old_root);
                new_root = Hash::of_node(hash, new_root);
                while at % 2 == 0 && at != 0 {
                    at /= 2;
                    last /= 2;
                }
            } else {
                new_root = Hash::of_node(new_root, hash);
            }
            at /= 2;
            last /= 2;
        }
        last == 0 && old_root == old && new_root == new
    }
}

/// Where RFC 6962 splits a tree of these leaves: the largest power of two smaller than their number.
fn split(leaves: &Range<u64>) -> u64 {
    leaves.start + (1 << (leaves.end - leaves.start - 1).ilog2())
}

/// The leaves under each hash of an inclusion proof, in the proof's order. `index` must be less than `size`.
pub(crate) fn inclusion_parts(index: u64, size: u64) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut tree = 0..size;
    while tree.end - tree.start > 1 {
        let middle = split(&tree);
        let (inside, beside) = if index < middle {
            (tree.start..middle, middle..tree.end)
        } else {
            (middle..tree.end, tree.start..middle)
        };
        parts.push(beside);
        tree = inside;
    }
    parts.reverse();
    parts
}

/// The leaves under each hash of a consistency proof, in the proof's order. `old_size` must be at most `new_size`.
pub(crate) fn consistency_parts(old_size: u64, new_size: u64) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    if old_size == 0 {
        return parts;
    }
    let mut tree = 0..new_size;
    while tree.end != old_size {
        let middle = split(&tree);
        let (inside, beside) = if old_size <= middle {
            (tree.start..middle, middle..tree.end)
        } else {
            (middle..tree.end, tree.start..middle)
        };
        parts.push(beside);
        tree = inside;
    }
    // What both trees have in common down there; when it is the whole older tree, its root is known already.
    if tree.start > 0 {
        parts.push(tree);
    }
    parts.reverse();
    parts
}
