//! Which records a reader wants: a conjunction of simple conditions, checked record by record.
//! A query holds no position and no results.

use std::borrow::Cow;
use std::time::SystemTime;

use resilience_core::Severity;

use crate::event::Status;
use crate::record::{Kind, Record};

/// Conditions that a record must all meet; without any, every record does.
///
/// ```
/// use resilience_audit::{AuditEvent, AuditLog, Query, Status};
///
/// let log = AuditLog::default();
/// log.append(AuditEvent::new("registry", "download", "serde").status(Status::Success))?;
/// log.append(AuditEvent::new("registry", "download", "syn").error("connection refused"))?;
/// let failed = log.query(Query::new().event_type("registry").status(Status::Failure))?;
/// let resources: Vec<String> = failed.map(|record| record.map(|r| r.resource().to_owned())).collect::<Result<_, _>>()?;
/// assert_eq!(resources, ["syn"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    event_type: Option<Cow<'static, str>>,
    action: Option<Cow<'static, str>>,
    resource: Option<Cow<'static, str>>,
    actor: Option<Cow<'static, str>>,
    correlation_id: Option<Cow<'static, str>>,
    status: Option<Status>,
    kind: Option<Kind>,
    at_least: Option<Severity>,
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, text: impl Into<Cow<'static, str>>) -> Self {
            self.$name = Some(text.into());
            self
        }
    )+};
}

impl Query {
    /// Every record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Recorded at this wall time or later.
    #[must_use]
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Recorded before this wall time.
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    conditions! {
        /// With exactly this type of event.
        event_type,
        /// With exactly this action.
        action,
        /// Done to exactly this resource.
        resource,
        /// Done by exactly this actor.
        actor,
        /// With exactly this correlation id.
        correlation_id,
    }

    /// With this status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Of this kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// At least this severe; records without a severity do not count.
    #[must_use]
    pub fn at_least(mut self, severity: Severity) -> Self {
        self.at_least = Some(severity);
        self
    }

    /// Whether a record meets every condition.
    pub fn matches(&self, record: &Record) -> bool {
        let text = |wanted: &Option<Cow<'static, str>>, found: &str| wanted.as_deref().is_none_or(|text| text == found);
        self.since.is_none_or(|time| record.time() >= time)
            && self.until.is_none_or(|time| record.time() < time)
            && self.status.is_none_or(|status| record.status() == status)
            && self.kind.is_none_or(|kind| record.kind() == kind)
            && self.at_least.is_none_or(|severity| record.severity() >= Some(severity))
            && text(&self.event_type, record.event_type())
            && text(&self.action, record.action())
            && text(&self.resource, record.resource())
            && text(&self.actor, record.actor())
            && text(&self.correlation_id, record.correlation_id())
    }
}
