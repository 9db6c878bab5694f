//! The signed note and the checkpoint's text in it, as C2SP specifies them. Parsing trusts nothing and accepts one
//! form of each number and hash; a signature is looked at before the text it signs is.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::key::{SigningKey, VerifyingKey, valid_name};
use crate::hash::Hash;

/// The largest note read: room for the 16 signatures that must be accepted, large ones too.
pub(crate) const MAX_NOTE: usize = 128 << 10;
const MAX_SIGNATURES: usize = 100;
const MARK: &str = "\u{2014} ";
const TIME: &str = "time ";

/// Why a text is not a checkpoint that one of the keys has signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The text is not a signed note with a checkpoint.
    #[error("not a checkpoint ({0})")]
    Malformed(&'static str),
    /// None of the keys given has signed it.
    #[error("the checkpoint is signed by none of the keys given")]
    UnknownKey,
    /// The signature that names a given key is not that key's.
    #[error("the checkpoint's signature is not that of the key {key}: it was changed or forged")]
    Signature {
        /// The key's name and id.
        key: String,
    },
    /// The log makes no checkpoints: it was built without a key, or lives in memory.
    #[error("the log makes no checkpoints; allowed: a log with a path, built with `sign_checkpoints`")]
    NotSigning,
    /// No checkpoint could be made.
    #[error("no checkpoint was made: {reason}")]
    NotMade {
        /// Why.
        reason: std::sync::Arc<str>,
    },
}

/// A note taken apart; nothing is verified yet.
pub(crate) struct Note<'a> {
    pub(crate) whole: &'a str,
    pub(crate) text: &'a str,
    /// Name, id and bytes of each signature.
    signatures: Vec<(&'a str, u32, Vec<u8>)>,
}

impl<'a> Note<'a> {
    pub(crate) fn parse(note: &'a [u8]) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        if note.len() > MAX_NOTE {
            return Err(malformed("it is too long"));
        }
        let whole = std::str::from_utf8(note).map_err(|_| malformed("it is not UTF-8"))?;
        if whole.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(malformed("it has control characters"));
        }
        let split = whole.rfind("\n\n").ok_or(malformed("it has no signatures"))?;
        let (text, signatures) = (&whole[..=split], &whole[split + 2..]);
        let lines = signatures.strip_suffix('\n').ok_or(malformed("it ends early"))?;
        let mut found = Vec::new();
        for line in lines.split('\n') {
            let (name, encoded) = line
                .strip_prefix(MARK)
                .and_then(|line| line.split_once(' '))
                .ok_or(malformed("a line is no signature"))?;
            let bytes = STANDARD.decode(encoded).map_err(|_| malformed("a signature is not base64"))?;
            let Some((id, signature)) = bytes.split_first_chunk() else {
                return Err(malformed("a signature is too short"));
            };
            if !valid_name(name) || signature.is_empty() {
                return Err(malformed("a line is no signature"));
            }
            found.push((name, u32::from_be_bytes(*id), signature.to_vec()));
            if found.len() > MAX_SIGNATURES {
                return Err(malformed("it has more than 100 signatures"));
            }
        }
        Ok(Self { whole, text, signatures: found })
    }

    /// The given keys that have signed it.
    pub(crate) fn verify(&self, keys: &[VerifyingKey]) -> Result<Vec<VerifyingKey>, CheckpointError> {
        let mut signed_by: Vec<VerifyingKey> = Vec::new();
        for (name, id, signature) in &self.signatures {
            let named = || keys.iter().filter(|key| key.name() == *name && key.id() == *id);
            if named().next().is_none() {
                continue;
            }
            match named().find(|key| key.verifies(self.text.as_bytes(), signature)) {
                Some(key) if signed_by.contains(key) => {}
                Some(key) => signed_by.push(key.clone()),
                None => return Err(CheckpointError::Signature { key: format!("{name}+{id:08x}") }),
            }
        }
        if signed_by.is_empty() { Err(CheckpointError::UnknownKey) } else { Ok(signed_by) }
    }
}

/// The lines of a checkpoint.
pub(crate) struct Body<'a> {
    pub(crate) origin: &'a str,
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) time: Option<SystemTime>,
}

impl<'a> Body<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let mut lines = text.strip_suffix('\n').ok_or(malformed("it ends early"))?.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty()).ok_or(malformed("a line is missing"));
        let (origin, size, root) = (next()?, next()?, next()?);
        let size = decimal(size).ok_or(malformed("its size is not a number"))?;
        let root = decode_hash(root).ok_or(malformed("its root is not a hash"))?;
        let mut time = None;
        for line in lines {
            if line.is_empty() {
                return Err(malformed("a line is empty"));
            }
            if let Some(text) = line.strip_prefix(TIME) {
                time = humantime::parse_rfc3339(text).ok();
            }
        }
        Ok(Self { origin, size, root, time })
    }

    pub(crate) fn render(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, encode_hash(self.root));
        if let Some(time) = self.time.filter(|time| *time >= SystemTime::UNIX_EPOCH) {
            text.push_str(TIME);
            text.push_str(&humantime::format_rfc3339_seconds(time).to_string());
            text.push('\n');
        }
        text
    }
}

/// A number as it must be written: digits, no zero before them.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

pub(crate) fn decode_hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok().map(Hash)
}

pub(crate) fn encode_hash(hash: Hash) -> String {
    STANDARD.encode(hash.0)
}

/// The text as a note signed by these keys.
pub(crate) fn sign(text: &str, keys: &[SigningKey]) -> String {
    keys.iter().fold(format!("{text}\n"), |note, key| add_signature(&note, key))
}

/// The note, whose text ends with its last empty line, with one more signature.
pub(crate) fn add_signature(note: &str, key: &SigningKey) -> String {
    let text = note.rfind("\n\n").map_or(note, |split| &note[..=split]);
    let verifying = key.verifying_key();
    let mut bytes = verifying.id().to_be_bytes().to_vec();
    bytes.extend_from_slice(&key.sign(text.as_bytes()));
    format!("{note}{MARK}{} {}\n", verifying.name(), STANDARD.encode(bytes))
}
