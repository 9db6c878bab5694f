//! The one hash of the log: SHA-256 with RFC 6962's leaf prefix, so that the chain's links are Merkle leaves too.
//! Anchors pair a hash with its sequence number; keeping one elsewhere is what makes truncation visible.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A SHA-256 hash, printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// All zeros: the hash of nothing, used by logs in memory, which have no chain.
    pub const ZERO: Self = Self([0; 32]);

    /// The hash of a record's bytes: SHA-256 of a zero byte and the bytes (the leaf hash of RFC 6962).
    pub(crate) fn of_record(body: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(body).finalize().into())
    }

    /// The hash of a tree's inner node: SHA-256 of a byte 1 and its two children (RFC 6962).
    pub(crate) fn of_node(left: Self, right: Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    /// The root of a tree without leaves: SHA-256 of nothing (RFC 6962).
    pub(crate) fn of_empty_tree() -> Self {
        Self(Sha256::new().finalize().into())
    }

    /// What the first record of a log carries as the hash before it.
    pub(crate) fn genesis(log_id: &[u8; 16]) -> Self {
        Self(Sha256::new().chain_update(b"resilience-audit genesis 1").chain_update(log_id).finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A known point of a log: a record's sequence number and hash. Every durable acknowledgement is one.
///
/// Kept outside the log, it proves later that the log still contains that record and everything before it,
/// unchanged: see [`verify_against`](crate::verify_against). As text: `sequence:hash`.
///
/// ```
/// use resilience_audit::Anchor;
///
/// let anchor: Anchor = format!("7:{}", "ab".repeat(32)).parse()?;
/// assert_eq!(anchor.sequence, 7);
/// assert_eq!(anchor.to_string().parse::<Anchor>()?, anchor);
/// # Ok::<(), resilience_audit::ParseAnchorError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Anchor {
    /// The record's sequence number; 0 stands for the log before its first record.
    pub sequence: u64,
    /// The record's hash.
    pub hash: Hash,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

/// The text is not an anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an anchor; allowed: a sequence number, `:`, 64 hexadecimal digits")]
#[non_exhaustive]
pub struct ParseAnchorError;

impl FromStr for Anchor {
    type Err = ParseAnchorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sequence, digits) = text.split_once(':').ok_or(ParseAnchorError)?;
        // `u64::from_str` takes a leading `+`, which no anchor is printed with.
        if sequence.starts_with('+') || digits.len() != 64 || !digits.is_ascii() {
            return Err(ParseAnchorError);
        }
        let sequence = sequence.parse().map_err(|_| ParseAnchorError)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(ParseAnchorError);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).map_err(|_| ParseAnchorError)?;
        }
        Ok(Self { sequence, hash: Hash(hash) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_hash_is_the_leaf_hash_of_rfc_6962() {
        // The leaf hash of the empty string, as published in RFC 6962's test vectors.
        let expected = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(Hash::of_record(b"").to_string(), expected);
    }

    #[test]
    fn text_that_is_not_an_anchor_is_refused() {
        let digits = "0".repeat(64);
        for bad in [
            String::new(),
            "1".into(),
            "1:".into(),
            format!("+1:{digits}"),
            format!("x:{digits}"),
            format!("1:{digits}0"),
        ] {
            assert!(bad.parse::<Anchor>().is_err(), "{bad}");
        }
        assert!(format!("1:{}", "g".repeat(64)).parse::<Anchor>().is_err());
    }
}
