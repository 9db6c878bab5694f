//! What the log keeps: an event with its sequence number, times and place in the hash chain.
//! A record is immutable; its text form escapes everything that could move a cursor or fake a line.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use resilience_core::{Category, ErrorId, Instant, Severity};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::event::{AuditEvent, Status, Value};
use crate::hash::{Anchor, Hash};

/// Who made a record: a caller, or the log about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An event of a caller.
    Event,
    /// The log cut a torn tail when it was opened after a crash.
    Recovered,
    /// Events are missing here: the log could not be written, or the queue was full and the policy was to go on.
    Gap,
    /// The log in memory was cleared.
    Cleared,
}

impl Kind {
    /// Every kind, in the order of its code in the file format.
    pub const ALL: [Self; 4] = [Self::Event, Self::Recovered, Self::Gap, Self::Cleared];

    /// The name used in exports and queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Recovered => "recovered",
            Self::Gap => "gap",
            Self::Cleared => "cleared",
        }
    }
}

/// Everything about a record that is not in the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) wall_nanos: u64,
    pub(crate) monotonic_nanos: u64,
    /// How many records of the same commit group stand before this one.
    pub(crate) position: u32,
    pub(crate) previous: Hash,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub(crate) stamp: Stamp,
    pub(crate) event: AuditEvent,
    pub(crate) hash: Hash,
}

impl Record {
    /// The number of the record: 1 for the first, then without gaps.
    pub fn sequence(&self) -> u64 {
        self.stamp.sequence
    }

    /// When it was handed over, by the wall clock, to the nanosecond.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.stamp.wall_nanos)
    }

    /// When it was handed over, on the monotonic clock of the process that wrote it.
    pub fn monotonic(&self) -> Instant {
        Instant::from_nanos(self.stamp.monotonic_nanos)
    }

    /// Who made it: a caller, or the log about itself.
    pub fn kind(&self) -> Kind {
        self.stamp.kind
    }

    /// The type of event.
    pub fn event_type(&self) -> &str {
        &self.event.event_type
    }

    /// What was done.
    pub fn action(&self) -> &str {
        &self.event.action
    }

    /// To what it was done.
    pub fn resource(&self) -> &str {
        &self.event.resource
    }

    /// Who did it; empty when not known.
    pub fn actor(&self) -> &str {
        &self.event.actor
    }

    /// The trace or correlation id; empty when there is none.
    pub fn correlation_id(&self) -> &str {
        &self.event.correlation_id
    }

    /// The error's own text; empty when there is none.
    pub fn error(&self) -> &str {
        &self.event.error
    }

    /// How it ended.
    pub fn status(&self) -> Status {
        self.event.status
    }

    /// How bad it is.
    pub fn severity(&self) -> Option<Severity> {
        self.event.severity
    }

    /// What kind of thing went wrong.
    pub fn category(&self) -> Option<Category> {
        self.event.category
    }

    /// The id of the error occurrence.
    pub fn error_id(&self) -> Option<ErrorId> {
        self.event.error_id
    }

    /// The details, sorted by key.
    pub fn details(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.event.details.iter().map(|(key, value)| (&**key, value))
    }

    /// The value of one detail.
    pub fn detail(&self, key: &str) -> Option<&Value> {
        let found = self.event.details.binary_search_by(|(candidate, _)| (**candidate).cmp(key));
        found.ok().map(|at| &self.event.details[at].1)
    }

    /// The hash of the record before this one; all zeros in a log in memory.
    pub fn previous_hash(&self) -> Hash {
        self.stamp.previous
    }

    /// The hash of this record; all zeros in a log in memory.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// This record as an anchor to verify the log against later.
    pub fn anchor(&self) -> Anchor {
        Anchor { sequence: self.stamp.sequence, hash: self.hash }
    }
}

/// `time #sequence type action resource status …` on one line, safe to print on a terminal.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = &self.event;
        write!(
            f,
            "{} #{} {} {} {} {}",
            humantime::format_rfc3339_nanos(self.time()),
            self.stamp.sequence,
            Word(&event.event_type),
            Word(&event.action),
            Word(&event.resource),
            event.status
        )?;
        for (name, text) in [("actor", &event.actor), ("correlation_id", &event.correlation_id)] {
            if !text.is_empty() {
                write!(f, " {name}={}", Word(text))?;
            }
        }
        if let Some(severity) = event.severity {
            write!(f, " severity={severity}")?;
        }
        if let Some(category) = event.category {
            write!(f, " category={category}")?;
        }
        if let Some(id) = event.error_id {
            write!(f, " error_id={id}")?;
        }
        for (key, value) in &event.details {
            write!(f, " {}={value}", Word(key))?;
        }
        if !event.error.is_empty() {
            write!(f, " error={}", Word(&event.error))?;
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redacted => f.write_str("[redacted]"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{}", Word(text)),
            Self::Hashed(hash) => write!(f, "[hmac-sha256:{}]", Hash(*hash)),
        }
    }
}

/// Text as one word of a line: as it is when it is plain, else quoted, with everything unprintable escaped.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain =
            |c: char| !c.is_whitespace() && !is_unprintable(c) && !matches!(c, '"' | '\\' | '=' | '[' | ']' | '#');
        if !self.0.is_empty() && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if is_unprintable(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Characters that can move a cursor, hide text or change its direction: controls, line and paragraph separators,
/// zero-width and bidirectional formatting characters, tags.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// One flat JSON object; absent fields are left out, `details` is an object of its own.
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = &self.event;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("sequence", &self.stamp.sequence)?;
        map.serialize_entry("time", &humantime::format_rfc3339_nanos(self.time()).to_string())?;
        map.serialize_entry("monotonic_ns", &self.stamp.monotonic_nanos)?;
        map.serialize_entry("kind", self.stamp.kind.as_str())?;
        map.serialize_entry("event_type", &event.event_type)?;
        map.serialize_entry("action", &event.action)?;
        map.serialize_entry("resource", &event.resource)?;
        map.serialize_entry("status", event.status.as_str())?;
        for (name, text) in
            [("actor", &event.actor), ("correlation_id", &event.correlation_id), ("error", &event.error)]
        {
            if !text.is_empty() {
                map.serialize_entry(name, text)?;
            }
        }
        if let Some(severity) = event.severity {
            map.serialize_entry("severity", severity.as_str())?;
        }
        if let Some(category) = event.category {
            map.serialize_entry("category", category.as_str())?;
        }
        if let Some(id) = event.error_id {
            map.serialize_entry("error_id", &id.to_string())?;
        }
        if !event.details.is_empty() {
            map.serialize_entry("details", &Details(&event.details))?;
        }
        if self.hash != Hash::ZERO {
            map.serialize_entry("previous_hash", &self.stamp.previous.to_string())?;
            map.serialize_entry("hash", &self.hash.to_string())?;
        }
        map.end()
    }
}

struct Details<'a>(&'a [(Cow<'static, str>, Value)]);

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            // JSON has no infinities; like the redaction marks they are shown as the text form shows them.
            Self::Float(_) | Self::Redacted | Self::Hashed(_) => serializer.collect_str(self),
        }
    }
}
