//! The settings of a log and their limits: one builder for logs in memory and logs with a path.
//! Every value is checked when the log is built; nothing is clamped silently.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use resilience_core::{Clock, ConfigError};

use crate::error::OpenError;
use crate::log::AuditLog;
use crate::redact::Redaction;
use crate::storage::{FileStorage, Storage};

/// What a hand-over does when the log cannot take the event: the queue to the writer is full, or writing fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backpressure {
    /// Refuse with a typed error, so that the operation can be refused too: nothing happens unrecorded.
    #[default]
    FailClosed,
    /// Go on without a record. What is dropped is counted, and a gap record says so once the log can be written again.
    FailOpen,
    /// Wait for room, at most so long, then refuse.
    Block(Duration),
}

/// How large an event may be. Larger ones are refused with a typed error, never cut silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of each short text: event type, action, resource, actor, correlation id, key of a detail.
    /// 1 to 65 535; 1 024 by default.
    pub name_bytes: usize,
    /// Bytes of the error text. 0 to 65 535; 4 096 by default.
    pub error_bytes: usize,
    /// Bytes of all details together, as stored. 0 to 524 288; 16 384 by default.
    pub details_bytes: usize,
    /// Number of details. 0 to 1 024; 64 by default.
    pub details: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { name_bytes: 1024, error_bytes: 4096, details_bytes: 16 << 10, details: 64 }
    }
}

/// Builds an [`AuditLog`]. Without a path the log lives in memory; with one it is durable.
///
/// ```
/// use resilience_audit::{AuditLog, Backpressure};
///
/// # let place = tempfile::tempdir()?;
/// # let dir = place.path().join("audit");
/// let log = AuditLog::builder().path(&dir).backpressure(Backpressure::FailOpen).queue(4096).build()?;
/// assert!(log.open_report().is_some_and(|report| report.created));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct AuditLogBuilder {
    pub(crate) path: Option<PathBuf>,
    pub(crate) capacity: usize,
    pub(crate) permit_clear: bool,
    pub(crate) queue: usize,
    pub(crate) group: usize,
    pub(crate) backpressure: Backpressure,
    pub(crate) segment_bytes: u64,
    pub(crate) retry_every: Duration,
    pub(crate) limits: Limits,
    pub(crate) redaction: Redaction,
    pub(crate) clock: Clock,
    pub(crate) storage: Arc<dyn Storage>,
    #[cfg(feature = "checkpoints")]
    pub(crate) checkpoints: crate::checkpoint::Settings,
}

impl Default for AuditLogBuilder {
    fn default() -> Self {
        Self {
            path: None,
            capacity: 10_000,
            permit_clear: false,
            queue: 8192,
            group: 4096,
            backpressure: Backpressure::FailClosed,
            segment_bytes: 64 << 20,
            retry_every: Duration::from_millis(100),
            limits: Limits::default(),
            redaction: Redaction::default(),
            clock: Clock::system(),
            storage: Arc::new(FileStorage),
            #[cfg(feature = "checkpoints")]
            checkpoints: crate::checkpoint::Settings::default(),
        }
    }
}

impl AuditLogBuilder {
    /// The directory of a durable log. It is made when it does not exist; its parent must.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// How many records a log in memory keeps: 1 to 1 000 000, 10 000 by default. Older ones make room.
    pub fn capacity(mut self, records: usize) -> Self {
        self.capacity = records;
        self
    }

    /// Whether [`AuditLog::clear`] is permitted on a log in memory. Off by default.
    pub fn permit_clear(mut self, permitted: bool) -> Self {
        self.permit_clear = permitted;
        self
    }

    /// How many events may wait for the writer of a durable log: 1 to 1 048 576, 8 192 by default. It bounds the
    /// memory the log may take: so many events of the size that [`limits`](Self::limits) allow.
    pub fn queue(mut self, events: usize) -> Self {
        self.queue = events;
        self
    }

    /// How many records share one `fdatasync` at most: 1 to 65 536, 4 096 by default.
    pub fn group(mut self, records: usize) -> Self {
        self.group = records;
        self
    }

    /// What to do when an event cannot be taken. [`Backpressure::FailClosed`] by default.
    pub fn backpressure(mut self, policy: Backpressure) -> Self {
        self.backpressure = policy;
        self
    }

    /// The size at which a new segment file is begun: 4 096 bytes to 1 TiB, 64 MiB by default. Opening a log reads
    /// its last segment.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// How long to wait before writing is tried again after it failed: 1 ms to 1 h, 100 ms by default.
    pub fn retry_every(mut self, pause: Duration) -> Self {
        self.retry_every = pause;
        self
    }

    /// How large an event may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What happens to secrets in the details.
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Where the times of the records come from.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// Another file system than the real one.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Opens or makes the log.
    ///
    /// # Errors
    /// [`OpenError::Config`] for a setting out of range; for a durable log everything else that [`OpenError`] names.
    /// Nothing of an existing log is overwritten, whatever the error.
    pub fn build(self) -> Result<AuditLog, OpenError> {
        self.check()?;
        AuditLog::from_builder(self)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        in_range("audit.capacity", self.capacity, 1, 1_000_000)?;
        in_range("audit.queue", self.queue, 1, 1 << 20)?;
        in_range("audit.group", self.group, 1, 1 << 16)?;
        in_range("audit.segment_bytes", self.segment_bytes, 4096, 1 << 40)?;
        in_range("audit.limits.name_bytes", limits.name_bytes, 1, 65_535)?;
        in_range("audit.limits.error_bytes", limits.error_bytes, 0, 65_535)?;
        in_range("audit.limits.details_bytes", limits.details_bytes, 0, 512 << 10)?;
        in_range("audit.limits.details", limits.details, 0, 1024)?;
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&self.retry_every) {
            return Err(ConfigError::new("audit.retry_every", format!("{:?}", self.retry_every), "1 ms to 1 h"));
        }
        if let Backpressure::Block(max) = self.backpressure
            && (max.is_zero() || max > Duration::from_secs(3600))
        {
            return Err(ConfigError::new("audit.backpressure", format!("Block({max:?})"), "more than 0, at most 1 h"));
        }
        #[cfg(feature = "checkpoints")]
        self.checkpoints.check()?;
        self.redaction.check()
    }
}

fn in_range<T: PartialOrd + Display + Copy>(field: &str, value: T, min: T, max: T) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError::new(field, value, format!("{min} to {max}"))) }
}
