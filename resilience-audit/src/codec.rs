//! The bytes of a record, canonical: every record has one encoding, and only that one is accepted.
//! Reads borrow from the input, never allocate and never trust a length. The layout is in `docs/audit-format.md`.

use std::borrow::Cow;

use resilience_core::{Category, ErrorId, Severity};

use crate::event::{AuditEvent, Status, Value};
use crate::hash::Hash;
use crate::record::{Kind, Record, Stamp};

/// The version byte every record begins with.
pub(crate) const RECORD_VERSION: u8 = 1;
/// The smallest record: the fixed part and six empty texts.
pub(crate) const MIN_BODY: usize = FIXED + 6 * 2;
/// The largest record a reader accepts; the largest a writer can make is smaller (see `Limits`).
pub(crate) const MAX_BODY: usize = 1 << 20;

/// Bytes before the first text.
const FIXED: usize = 84;

/// Appends the bytes of a record. The event must have passed `AuditEvent::check` and be normalised, which bounds
/// every length below what its field holds.
pub(crate) fn encode(stamp: &Stamp, event: &AuditEvent, out: &mut Vec<u8>) {
    let code = |position: Option<usize>| position.map_or(0, |at| u8::try_from(at + 1).unwrap_or(0));
    let severity = code(event.severity.and_then(|s| Severity::ALL.iter().position(|c| *c == s)));
    // A category this version does not know is written as unknown rather than as absent.
    let category =
        event.category.map(|c| Category::ALL.iter().position(|k| *k == c).unwrap_or(Category::ALL.len() - 1));
    out.extend_from_slice(&[RECORD_VERSION, stamp.kind as u8, event.status as u8, severity, code(category), 0]);
    out.extend_from_slice(&length(event.details.len()));
    out.extend_from_slice(&stamp.sequence.to_le_bytes());
    out.extend_from_slice(&stamp.wall_nanos.to_le_bytes());
    out.extend_from_slice(&stamp.monotonic_nanos.to_le_bytes());
    out.extend_from_slice(&stamp.position.to_le_bytes());
    out.extend_from_slice(&stamp.previous.0);
    // Big-endian, as a UUID is written; zero stands for none.
    out.extend_from_slice(&event.error_id.map_or(0, ErrorId::as_u128).to_be_bytes());
    for text in [&event.event_type, &event.action, &event.resource, &event.actor, &event.correlation_id, &event.error] {
        put_text(text, out);
    }
    for (key, value) in &event.details {
        put_text(key, out);
        match value {
            Value::Redacted => out.push(0),
            Value::Bool(value) => out.extend_from_slice(&[1, u8::from(*value)]),
            Value::Int(value) => {
                out.push(2);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Float(value) => {
                out.push(3);
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Value::Text(text) => {
                out.push(4);
                put_text(text, out);
            }
            Value::Hashed(hash) => {
                out.push(5);
                out.extend_from_slice(hash);
            }
        }
    }
}

fn length(len: usize) -> [u8; 2] {
    let len = u16::try_from(len);
    debug_assert!(len.is_ok(), "checked before encoding");
    len.unwrap_or(u16::MAX).to_le_bytes()
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&length(text.len()));
    out.extend_from_slice(text.as_bytes());
}

/// A record's bytes, checked from end to end but not copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body<'a> {
    pub(crate) stamp: Stamp,
    status: Status,
    severity: Option<Severity>,
    category: Option<Category>,
    error_id: u128,
    texts: [&'a str; 6],
    details: &'a [u8],
    details_count: u16,
}

/// What is wrong with the bytes.
type Malformed = &'static str;

impl<'a> Body<'a> {
    /// Checks and reads a record. Accepts exactly the bytes that `encode` can make.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        let [version, kind, status, severity, category, reserved] = input.array()?;
        if version != RECORD_VERSION {
            return Err("unknown record version");
        }
        let kind = *Kind::ALL.get(usize::from(kind)).ok_or("unknown kind")?;
        let status = *Status::ALL.get(usize::from(status)).ok_or("unknown status")?;
        let severity = optional(&Severity::ALL, severity, "unknown severity")?;
        let category = optional(&Category::ALL, category, "unknown category")?;
        let details_count = u16::from_le_bytes(input.array()?);
        let stamp = Stamp {
            kind,
            sequence: u64::from_le_bytes(input.array()?),
            wall_nanos: u64::from_le_bytes(input.array()?),
            monotonic_nanos: u64::from_le_bytes(input.array()?),
            position: u32::from_le_bytes(input.array()?),
            previous: Hash(input.array()?),
        };
        let error_id = u128::from_be_bytes(input.array()?);
        if reserved != 0 {
            return Err("a reserved byte that is not zero");
        }
        let mut texts = [""; 6];
        for text in &mut texts {
            *text = input.text()?;
        }
        let body = Self { stamp, status, severity, category, error_id, texts, details: input.0, details_count };
        let mut last: Option<&str> = None;
        for _ in 0..details_count {
            // The values are only walked over: nothing is copied.
            let (key, _) = input.detail(|_| Cow::Borrowed(""))?;
            if last.is_some_and(|last| last >= key) {
                return Err("details out of order");
            }
            last = Some(key);
        }
        if !input.0.is_empty() {
            return Err("bytes after the end");
        }
        Ok(body)
    }

    /// Copies what was read into a record. `hash` is the hash of the bytes.
    pub(crate) fn to_record(self, hash: Hash) -> Record {
        let [event_type, action, resource, actor, correlation_id, error] = self.texts.map(owned);
        let mut input = Input(self.details);
        let mut details = Vec::with_capacity(usize::from(self.details_count).min(64));
        // `parse` has walked the same bytes, so this ends after exactly `details_count` rounds.
        while let Ok((key, value)) = input.detail(owned) {
            details.push((owned(key), value));
        }
        let event = AuditEvent {
            event_type,
            action,
            resource,
            actor,
            correlation_id,
            error,
            status: self.status,
            severity: self.severity,
            category: self.category,
            error_id: (self.error_id != 0).then(|| ErrorId::from_u128(self.error_id)),
            details,
            at: None,
        };
        Record { stamp: self.stamp, event, hash }
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    if text.is_empty() { Cow::Borrowed("") } else { Cow::Owned(text.to_owned()) }
}

/// The value with this code; 0 means absent.
fn optional<T: Copy>(all: &[T], code: u8, unknown: Malformed) -> Result<Option<T>, Malformed> {
    match usize::from(code).checked_sub(1) {
        None => Ok(None),
        Some(at) => all.get(at).map(|value| Some(*value)).ok_or(unknown),
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let len = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| "text that is not UTF-8")
    }

    /// One detail; `keep` decides what becomes of the text of its value.
    fn detail(&mut self, keep: impl Fn(&str) -> Cow<'static, str>) -> Result<(&'a str, Value), Malformed> {
        let key = self.text()?;
        let [tag] = self.array()?;
        let value = match tag {
            0 => Value::Redacted,
            1 => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err("a truth value that is neither 0 nor 1"),
            },
            2 => Value::Int(i64::from_le_bytes(self.array()?)),
            3 => Value::Float(f64::from_bits(u64::from_le_bytes(self.array()?))),
            4 => Value::Text(keep(self.text()?)),
            5 => Value::Hashed(self.array()?),
            _ => return Err("unknown type of detail"),
        };
        Ok((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Redacted),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            // NaN is not equal to itself, so equality of records could not be tested with it.
            any::<f64>().prop_filter("not NaN", |value| !value.is_nan()).prop_map(Value::Float),
            any::<String>().prop_map(Value::from),
            any::<[u8; 32]>().prop_map(Value::Hashed),
        ]
    }

    fn any_event() -> impl Strategy<Value = AuditEvent> {
        (
            (any::<String>(), any::<String>(), any::<String>(), any::<String>(), any::<String>(), any::<String>()),
            0..Status::ALL.len(),
            0..=Severity::ALL.len(),
            0..=Category::ALL.len(),
            any::<u128>(),
            vec((any::<String>(), any_value()), 0..6),
        )
            .prop_map(|(texts, status, severity, category, id, details)| {
                let (event_type, action, resource, actor, correlation_id, error) = texts;
                let mut event = AuditEvent::new(event_type, action, resource)
                    .actor(actor)
                    .correlation_id(correlation_id)
                    .error(error)
                    .status(Status::ALL[status]);
                event.severity = Severity::ALL.get(severity).copied();
                event.category = Category::ALL.get(category).copied();
                event.error_id = (id != 0).then(|| ErrorId::from_u128(id));
                for (key, value) in details {
                    event = event.detail(key, value);
                }
                event.normalise();
                event
            })
    }

    fn any_stamp() -> impl Strategy<Value = Stamp> {
        (0..Kind::ALL.len(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<[u8; 32]>()).prop_map(
            |(kind, sequence, wall_nanos, monotonic_nanos, position, previous)| Stamp {
                kind: Kind::ALL[kind],
                sequence,
                wall_nanos,
                monotonic_nanos,
                position,
                previous: Hash(previous),
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(stamp in any_stamp(), event in any_event()) {
            let mut bytes = Vec::new();
            encode(&stamp, &event, &mut bytes);
            let record = Body::parse(&bytes).unwrap().to_record(Hash::ZERO);
            prop_assert_eq!(record, Record { stamp, event, hash: Hash::ZERO });
        }

        #[test]
        fn whatever_is_accepted_is_the_only_encoding_of_its_record(
            stamp in any_stamp(), event in any_event(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = Vec::new();
            encode(&stamp, &event, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(body) = Body::parse(&bytes) {
                let record = body.to_record(Hash::ZERO);
                let mut again = Vec::new();
                encode(&record.stamp, &record.event, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(mut bytes in vec(any::<u8>(), 0..400)) {
            let _ = Body::parse(&bytes);
            if let Some(version) = bytes.first_mut() {
                *version = RECORD_VERSION;
            }
            let _ = Body::parse(&bytes);
        }
    }
}
