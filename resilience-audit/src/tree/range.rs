//! Compact ranges: the fewest whole subtrees that cover a run of leaves, at most two for each level of the tree.
//! They are what must be remembered of any number of leaves to go on with the tree. No leaf is kept.
//!
//! The idea is that of Trillian's `compact` package (github.com/transparency-dev/merkle, `docs/compact_ranges.md`).

use crate::hash::Hash;

/// A whole subtree: `2^level` leaves from `start`, a multiple of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    start: u64,
    level: u32,
    hash: Hash,
}

/// What is needed of the leaves `begin..end` of a tree to compute its roots.
///
/// ```
/// use resilience_audit::{Hash, tree::CompactRange};
///
/// let leaf = Hash([7; 32]);
/// let mut tree = CompactRange::new(0);
/// tree.push(leaf);
/// assert_eq!(tree.root(), leaf); // one leaf is its own root
/// tree.push(leaf);
/// assert_eq!((tree.end(), tree.root() == leaf), (2, false));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactRange {
    begin: u64,
    end: u64,
    /// In the order of their leaves; no two of them are the halves of a larger subtree.
    nodes: Vec<Node>,
}

impl CompactRange {
    /// No leaves yet; the first to come is leaf `begin` of the tree.
    pub fn new(begin: u64) -> Self {
        Self { begin, end: begin, nodes: Vec::new() }
    }

    /// The first leaf covered.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// The leaf after the last one covered; for a range from 0, the size of the tree.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds the next leaf: one hash on average, at most one per level.
    pub fn push(&mut self, leaf: Hash) {
        self.push_node(0, leaf);
    }

    /// Adds the leaves of a range that begins where this one ends; `false` and no change when it does not.
    #[must_use]
    pub fn append(&mut self, next: &Self) -> bool {
        if next.begin != self.end {
            return false;
        }
        for node in &next.nodes {
            self.push_node(node.level, node.hash);
        }
        true
    }

    fn push_node(&mut self, level: u32, hash: Hash) {
        let mut node = Node { start: self.end, level, hash };
        self.end += 1 << level;
        // A right half joins its left half, as a carry does in addition.
        while let Some(left) = self.nodes.last()
            && left.level == node.level
            && left.start.trailing_zeros() > left.level
        {
            node = Node { start: left.start, level: left.level + 1, hash: Hash::of_node(left.hash, node.hash) };
            self.nodes.pop();
        }
        self.nodes.push(node);
    }

    /// The hash of these leaves as a tree of their own (`MTH` in RFC 6962): of a range from 0, the root at that size;
    /// of a range that lies in one subtree and begins where it does, that subtree's part of it.
    pub fn root(&self) -> Hash {
        let hashes = self.nodes.iter().map(|node| node.hash);
        hashes.rev().reduce(|right, left| Hash::of_node(left, right)).unwrap_or_else(Hash::of_empty_tree)
    }

    /// The hashes of the subtrees, in the order of their leaves.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = Hash> {
        self.nodes.iter().map(|node| node.hash)
    }

    /// The range with these subtrees; `None` when their number is wrong.
    pub(crate) fn from_hashes(begin: u64, end: u64, hashes: &[Hash]) -> Option<Self> {
        if Self::count(begin, end) != hashes.len() {
            return None;
        }
        let nodes = cover(begin, end).zip(hashes).map(|((start, level), hash)| Node { start, level, hash: *hash });
        Some(Self { begin, end, nodes: nodes.collect() })
    }

    /// How many subtrees cover these leaves.
    pub(crate) fn count(begin: u64, end: u64) -> usize {
        cover(begin, end).count()
    }
}

/// The start and level of each subtree that covers `begin..end`, the largest possible from the left.
fn cover(begin: u64, end: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let level = end.checked_sub(at)?.checked_ilog2()?.min(at.trailing_zeros());
        let start = at;
        at += 1 << level;
        Some((start, level))
    })
}
