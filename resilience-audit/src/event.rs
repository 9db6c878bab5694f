//! What a caller hands over: an event, not yet stamped with sequence, time and hash.
//! An event never prints the values of its details, because secrets are taken out only when it is recorded.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use resilience_core::{Category, Class, ErrorId, Severity};

use crate::config::Limits;
use crate::error::AppendError;

/// How the thing that is recorded ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Status {
    /// Neither success nor failure: a state change, a notice.
    #[default]
    Info,
    /// It worked.
    Success,
    /// It failed.
    Failure,
    /// A policy or a permission refused it.
    Rejected,
    /// It took longer than allowed.
    TimedOut,
    /// The caller gave up.
    Cancelled,
    /// The operation panicked.
    Panicked,
}

impl Status {
    /// Every status, in the order of its code in the file format.
    pub const ALL: [Self; 7] =
        [Self::Info, Self::Success, Self::Failure, Self::Rejected, Self::TimedOut, Self::Cancelled, Self::Panicked];

    /// The name used in exports and queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Panicked => "panicked",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The value of a detail. There is deliberately no conversion from secret-holding types.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A secret stood here; the redaction policy took it out.
    Redacted,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(Cow<'static, str>),
    /// The keyed hash (HMAC-SHA-256) of a text that the redaction policy took out: equal texts stay comparable.
    Hashed([u8; 32]),
}

macro_rules! value_from {
    ($($from:ty => $make:expr),+ $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                ($make)(value)
            }
        }
    )+};
}

value_from! {
    bool => Self::Bool,
    i32 => |value| Self::Int(i64::from(value)),
    u32 => |value| Self::Int(i64::from(value)),
    i64 => Self::Int,
    f64 => Self::Float,
    String => |value| Self::Text(Cow::Owned(value)),
    &'static str => |value| Self::Text(Cow::Borrowed(value)),
    Cow<'static, str> => Self::Text,
    // A number beyond i64 keeps its digits as text rather than its sign as a surprise.
    u64 => |value: u64| i64::try_from(value).map_or_else(|_| Self::Text(value.to_string().into()), Self::Int),
    usize => |value: usize| i64::try_from(value).map_or_else(|_| Self::Text(value.to_string().into()), Self::Int),
}

impl Value {
    /// Bytes of the value in the file format, its tag included.
    pub(crate) fn encoded_len(&self) -> usize {
        1 + match self {
            Self::Redacted => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 8,
            Self::Text(text) => 2 + text.len(),
            Self::Hashed(_) => 32,
        }
    }
}

/// One thing to record. Built in one line, handed to [`AuditLog::append`](crate::AuditLog::append).
///
/// ```
/// use resilience_audit::{AuditEvent, AuditLog, Status};
///
/// let log = AuditLog::default();
/// log.append(AuditEvent::new("registry", "download", "serde 1.0.228").status(Status::Success).detail("bytes", 83_652))?;
/// # Ok::<(), resilience_audit::AppendError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct AuditEvent {
    pub(crate) event_type: Cow<'static, str>,
    pub(crate) action: Cow<'static, str>,
    pub(crate) resource: Cow<'static, str>,
    pub(crate) actor: Cow<'static, str>,
    pub(crate) correlation_id: Cow<'static, str>,
    pub(crate) error: Cow<'static, str>,
    pub(crate) status: Status,
    pub(crate) severity: Option<Severity>,
    pub(crate) category: Option<Category>,
    pub(crate) error_id: Option<ErrorId>,
    pub(crate) details: Vec<(Cow<'static, str>, Value)>,
    pub(crate) at: Option<SystemTime>,
}

impl AuditEvent {
    /// An event of a type (`registry`), an action (`download`) and the resource it was done to. Its status is
    /// [`Status::Info`] until one is given.
    pub fn new(
        event_type: impl Into<Cow<'static, str>>,
        action: impl Into<Cow<'static, str>>,
        resource: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            event_type: event_type.into(),
            action: action.into(),
            resource: resource.into(),
            actor: Cow::Borrowed(""),
            correlation_id: Cow::Borrowed(""),
            error: Cow::Borrowed(""),
            status: Status::Info,
            severity: None,
            category: None,
            error_id: None,
            details: Vec::new(),
            at: None,
        }
    }

    /// How it ended.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Who did it: a user, a service, a job.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<Cow<'static, str>>) -> Self {
        self.actor = actor.into();
        self
    }

    /// The trace or correlation id that ties it to other systems.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<Cow<'static, str>>) -> Self {
        self.correlation_id = id.into();
        self
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn category(mut self, category: Category) -> Self {
        self.category = Some(category);
        self
    }

    /// Severity and category of a classified error.
    #[must_use]
    pub fn class(self, class: Class) -> Self {
        self.severity(class.severity).category(class.category)
    }

    /// The id of the error occurrence, as users see it.
    #[must_use]
    pub fn error_id(mut self, id: ErrorId) -> Self {
        self.error_id = Some(id);
        self
    }

    /// The error's own text. The status becomes [`Status::Failure`] when it was [`Status::Info`].
    #[must_use]
    pub fn error(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.error = text.into();
        if self.status == Status::Info {
            self.status = Status::Failure;
        }
        self
    }

    /// One more detail; a key given twice keeps its last value.
    #[must_use]
    pub fn detail(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.details.push((key.into(), value.into()));
        self
    }

    /// The wall time to record, instead of the moment of the hand-over.
    #[must_use]
    pub fn at(mut self, time: SystemTime) -> Self {
        self.at = Some(time);
        self
    }

    /// Names and lengths of the five short texts.
    fn names(&self) -> [(&'static str, usize); 5] {
        [
            ("event_type", self.event_type.len()),
            ("action", self.action.len()),
            ("resource", self.resource.len()),
            ("actor", self.actor.len()),
            ("correlation_id", self.correlation_id.len()),
        ]
    }

    fn details_len(&self) -> usize {
        self.details.iter().map(|(key, value)| 2 + key.len() + value.encoded_len()).sum()
    }

    /// Checks the event against the limits of the log.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), AppendError> {
        let too_large = |field: &'static str, size: usize, limit: usize| {
            if size > limit { Err(AppendError::TooLarge { field, size, limit }) } else { Ok(()) }
        };
        for (field, size) in self.names() {
            too_large(field, size, limits.name_bytes)?;
        }
        too_large("error", self.error.len(), limits.error_bytes)?;
        if !self.details.is_empty() {
            if self.details.len() > limits.details {
                return Err(AppendError::TooManyDetails { count: self.details.len(), limit: limits.details });
            }
            for (key, value) in &self.details {
                too_large("details key", key.len(), limits.name_bytes)?;
                if let Value::Text(text) = value {
                    too_large("details value", text.len(), usize::from(u16::MAX))?;
                }
            }
            too_large("details", self.details_len(), limits.details_bytes)?;
        }
        Ok(())
    }

    /// Cuts what is longer than the limits, marking each cut with `…`; details that do not fit are left out and
    /// counted. For sources that cannot answer an error, such as an observer.
    pub(crate) fn fit(&mut self, limits: &Limits) {
        const NOTE: &str = "details_left_out";
        for text in
            [&mut self.event_type, &mut self.action, &mut self.resource, &mut self.actor, &mut self.correlation_id]
        {
            cut(text, limits.name_bytes);
        }
        cut(&mut self.error, limits.error_bytes);
        for (key, value) in &mut self.details {
            cut(key, limits.name_bytes);
            if let Value::Text(text) = value {
                cut(text, usize::from(u16::MAX));
            }
        }
        let before = self.details.len();
        // Room for the note about what was left out: its key, its tag and its number.
        let note_len = 2 + NOTE.len() + 9;
        while self.details.len() > limits.details || self.details_len() > limits.details_bytes {
            self.details.pop();
        }
        if self.details.len() < before {
            while !self.details.is_empty()
                && (self.details.len() >= limits.details || self.details_len() + note_len > limits.details_bytes)
            {
                self.details.pop();
            }
            if note_len <= limits.details_bytes && NOTE.len() <= limits.name_bytes {
                let left_out = before - self.details.len();
                self.details.push((Cow::Borrowed(NOTE), Value::from(left_out)));
            }
        }
    }

    /// Brings the details into canonical form: sorted by key, one value per key, the last one given.
    pub(crate) fn normalise(&mut self) {
        if self.details.len() < 2 || self.details.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        // A stable sort of the reversed list puts the last value given first among equals, and dedup keeps the first.
        self.details.reverse();
        self.details.sort_by(|a, b| a.0.cmp(&b.0));
        self.details.dedup_by(|later, kept| later.0 == kept.0);
    }
}

impl fmt::Debug for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditEvent")
            .field("event_type", &self.event_type)
            .field("action", &self.action)
            .field("resource", &self.resource)
            .field("actor", &self.actor)
            .field("status", &self.status)
            .field("error", &self.error)
            .field("details", &self.details.iter().map(|(key, _)| key).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Cuts `text` to at most `limit` bytes between characters, ending in `…` where there is room for it.
fn cut(text: &mut Cow<'static, str>, limit: usize) {
    const MARK: &str = "…";
    if text.len() <= limit {
        return;
    }
    let mark = if limit >= MARK.len() { MARK } else { "" };
    let mut end = limit - mark.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    *text = Cow::Owned(format!("{}{mark}", &text[..end]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_twice_keeps_its_last_value_and_keys_come_out_sorted() {
        let mut event = AuditEvent::new("t", "a", "r").detail("b", 1).detail("a", 2).detail("b", 3).detail("a", 4);
        event.normalise();
        let expected: Vec<(Cow<'static, str>, Value)> = vec![("a".into(), Value::Int(4)), ("b".into(), Value::Int(3))];
        assert_eq!(event.details, expected);
    }

    #[test]
    fn what_is_fitted_passes_the_check_whatever_it_was() {
        let limits = Limits { name_bytes: 20, error_bytes: 10, details_bytes: 60, details: 3 };
        let mut event = AuditEvent::new("é".repeat(40), "a", "r").error("x".repeat(100_000));
        for number in 0..50 {
            event = event.detail(format!("key-{number}"), "v".repeat(20));
        }
        assert!(event.check(&limits).is_err());
        event.fit(&limits);
        event.check(&limits).unwrap();
        assert!(event.error.ends_with('…') && event.event_type.ends_with('…'));
        assert_eq!(event.details.last(), Some(&("details_left_out".into(), Value::Int(49))));
    }

    #[test]
    fn debug_output_does_not_show_the_values_of_details() {
        let event = AuditEvent::new("t", "a", "r").detail("note", "hunter2");
        assert!(!format!("{event:?}").contains("hunter2"));
    }
}
