//! Index answers: body, validators and the time they were stored, in one file per address.
//! A file is used only when its checksum line fits everything after it and it is about the address asked for.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Cache, Lookup, at, discard, evict, open};
use crate::registry::checksum::Checksum;
use crate::registry::error::RegistryError;
use crate::registry::freshness::Freshness;

const KIND: &str = "answer";
/// A checksum in hex and a line end come before the header.
const CHECKSUM_LINE: usize = 65;

/// A stored answer of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) freshness: Freshness,
    /// When the registry last confirmed it.
    pub(crate) stored: SystemTime,
    pub(crate) body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    url: std::borrow::Cow<'a, str>,
    stored_millis: u64,
    freshness: Freshness,
}

impl Cache {
    /// The stored answer for `url`, hashed on this read.
    pub(crate) fn answer(&self, url: &str) -> Result<Lookup<Answer>, RegistryError> {
        let path = self.path(KIND, &Checksum::of(url.as_bytes()));
        let Some(mut file) = open(&path)? else { return Ok(Lookup::Miss) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at("read", &path))?;
        if let Some(answer) = decode(url, bytes) {
            evict::used(&file);
            Ok(Lookup::Hit(answer))
        } else {
            discard(&path)?;
            Ok(Lookup::Corrupt)
        }
    }

    /// Stores an answer for `url` in place of the one before.
    pub(crate) fn store_answer(&self, url: &str, answer: &Answer) -> Result<(), RegistryError> {
        let path = self.path(KIND, &Checksum::of(url.as_bytes()));
        let bytes = encode(url, answer);
        let mut file = self.temporary_file()?;
        file.write_all(&bytes).map_err(at("write", file.path()))?;
        self.publish(file, &path, bytes.len() as u64).map(drop)
    }

    /// Forgets the answer for `url`.
    pub(crate) fn forget_answer(&self, url: &str) -> Result<(), RegistryError> {
        discard(&self.path(KIND, &Checksum::of(url.as_bytes())))
    }
}

fn encode(url: &str, answer: &Answer) -> Vec<u8> {
    let stored = answer.stored.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let header = Header {
        url: url.into(),
        stored_millis: u64::try_from(stored.as_millis()).unwrap_or(u64::MAX),
        freshness: answer.freshness.clone(),
    };
    // Strings, numbers and booleans always serialize.
    let mut rest = serde_json::to_vec(&header).unwrap_or_default();
    rest.push(b'\n');
    rest.extend_from_slice(&answer.body);
    let mut bytes = format!("{}\n", Checksum::of(&rest)).into_bytes();
    bytes.append(&mut rest);
    bytes
}

fn decode(url: &str, mut bytes: Vec<u8>) -> Option<Answer> {
    let (line, rest) = bytes.split_at_checked(CHECKSUM_LINE)?;
    let expected: Checksum = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.parse().ok()?;
    if Checksum::of(rest) != expected {
        return None;
    }
    let header_end = rest.iter().position(|byte| *byte == b'\n')?;
    let header: Header<'_> = serde_json::from_slice(&rest[..header_end]).ok()?;
    if header.url != url {
        return None;
    }
    let stored = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(header.stored_millis))?;
    let freshness = header.freshness;
    bytes.drain(..=CHECKSUM_LINE + header_end);
    Some(Answer { freshness, stored, body: bytes })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    fn answer(body: &[u8], max_age: u64) -> Answer {
        let freshness = Freshness { max_age, etag: Some("\"x\"".into()), ..Freshness::default() };
        Answer { freshness, stored: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567), body: body.into() }
    }

    #[test]
    fn an_answer_filed_under_another_address_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        cache.store_answer("http://x.test/a", &answer(b"a", 0)).unwrap();
        let path = |url: &str| cache.path(KIND, &Checksum::of(url.as_bytes()));
        fs::create_dir_all(path("http://x.test/b").parent().unwrap()).unwrap();
        fs::copy(path("http://x.test/a"), path("http://x.test/b")).unwrap();
        assert!(matches!(cache.answer("http://x.test/b").unwrap(), Lookup::Corrupt));
        assert!(matches!(cache.answer("http://x.test/b").unwrap(), Lookup::Miss));
        assert!(matches!(cache.answer("http://x.test/a").unwrap(), Lookup::Hit(_)));
    }

    proptest! {
        #[test]
        fn answers_round_trip_and_any_damage_is_noticed(
            body in proptest::collection::vec(any::<u8>(), 0..200), max_age in any::<u32>(),
            at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let stored = answer(&body, max_age.into());
            let bytes = encode("http://x.test/", &stored);
            prop_assert_eq!(decode("http://x.test/", bytes.clone()), Some(stored));
            let at = at.index(bytes.len());
            prop_assert_eq!(decode("http://x.test/", bytes[..at].to_vec()), None);
            let mut damaged = bytes;
            let original = damaged[at];
            damaged[at] ^= flip;
            // The case of a hex digit carries no information.
            if !damaged[at].eq_ignore_ascii_case(&original) {
                prop_assert_eq!(decode("http://x.test/", damaged), None);
            }
        }
    }
}
