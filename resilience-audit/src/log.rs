//! The handle: one API over the log in memory and the durable log.
//! Appending never blocks unless that policy was chosen; whatever happens to the disk, callers get typed answers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use resilience_core::{Clock, ConfigError};

use crate::acknowledge::{self, Acknowledged, Acknowledgement};
use crate::config::{AuditLogBuilder, Backpressure, Limits};
use crate::durable::{Durable, time_nanos};
use crate::error::{AppendError, ClearError, OpenError, ReadError};
use crate::event::AuditEvent;
use crate::hash::{Anchor, Hash};
use crate::memory::Ring;
use crate::open::OpenReport;
use crate::query::Query;
use crate::reader::{Reader, Records, last_of};
use crate::record::{Kind, Record};
use crate::redact::Redaction;
use crate::verify::{self, VerifyReport};
use crate::writer::Item;

/// An audit log: in memory without a path, durable and tamper-evident with one.
///
/// Cheap to clone; all clones are one log. When the last one is dropped, or [`close`](Self::close) is called, what was
/// handed over is written first.
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    limits: Limits,
    redaction: Redaction,
    clock: Clock,
    backend: Backend,
}

enum Backend {
    Memory { ring: Ring, permit_clear: bool, handed_over: AtomicU64 },
    Durable(Durable),
}

/// Whether a log takes events at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogState {
    /// It does.
    Writable,
    /// Writing fails; it is tried again by itself. What happens to events is up to [`Backpressure`].
    Failing {
        /// What the last attempt said.
        reason: Arc<str>,
    },
    /// An error left it unknown what is on the disk. The log must be opened again; reading still works.
    Poisoned {
        /// The error.
        reason: Arc<str>,
    },
    /// It was closed.
    Closed,
}

/// Numbers since the log was opened. Each is exact; together they may be a few events apart while events arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Events taken: put into the queue to the writer, or into the ring.
    pub handed_over: u64,
    /// Records written and durable, the log's own ones included; in memory the same as `handed_over`.
    pub recorded: u64,
    /// Events that went unrecorded because the policy is to go on.
    pub dropped: u64,
    /// Events refused with an error at the hand-over: queue full, log failing, poisoned or closed.
    pub refused: u64,
    /// Events taken that could not be made durable; their acknowledgements said so.
    pub not_durable: u64,
    /// Events waiting for the writer.
    pub queued: usize,
    /// The last record.
    pub last_sequence: u64,
    /// Whether the log takes events.
    pub state: LogState,
}

/// In memory, with the default capacity of 10 000 records.
impl Default for AuditLog {
    fn default() -> Self {
        Self::memory(AuditLogBuilder::default())
    }
}

impl AuditLog {
    /// A durable log in the directory `path`, made when it does not exist, with the default settings.
    ///
    /// ```
    /// use resilience_audit::{AuditEvent, AuditLog};
    ///
    /// # let place = tempfile::tempdir()?;
    /// # let dir = place.path().join("audit");
    /// let log = AuditLog::open(&dir)?;
    /// let anchor = log.append_durable(AuditEvent::new("user", "login", "ada"))?.wait()?;
    /// assert_eq!(anchor.sequence, 1); // it is on the disk now
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing of an existing log is overwritten, whatever the error. What a crash tore off the end
    /// is cut, kept and reported: [`open_report`](Self::open_report).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::builder().path(path).build()
    }

    /// A log in memory that keeps the last `capacity` records: 1 to 1 000 000.
    ///
    /// # Errors
    /// When the capacity is out of range.
    pub fn in_memory(capacity: usize) -> Result<Self, ConfigError> {
        Self::builder().capacity(capacity).build().map_err(|error| match error {
            OpenError::Config(error) => error,
            // Without a path nothing but the settings is looked at.
            other => ConfigError::new("audit", other, "a log in memory"),
        })
    }

    /// Settings for a log: without a path it lives in memory, with one it is durable.
    pub fn builder() -> AuditLogBuilder {
        AuditLogBuilder::default()
    }

    pub(crate) fn from_builder(settings: AuditLogBuilder) -> Result<Self, OpenError> {
        match settings.path.clone() {
            None => Ok(Self::memory(settings)),
            Some(path) => Self::durable(&settings, path),
        }
    }

    fn memory(settings: AuditLogBuilder) -> Self {
        let AuditLogBuilder { capacity, permit_clear, limits, redaction, clock, .. } = settings;
        let backend = Backend::Memory { ring: Ring::new(capacity), permit_clear, handed_over: AtomicU64::new(0) };
        Self(Arc::new(Inner { limits, redaction, clock, backend }))
    }

    fn durable(settings: &AuditLogBuilder, path: PathBuf) -> Result<Self, OpenError> {
        let (limits, redaction, clock) = (settings.limits, settings.redaction.clone(), settings.clock.clone());
        let backend = Backend::Durable(Durable::open(settings, path)?);
        Ok(Self(Arc::new(Inner { limits, redaction, clock, backend })))
    }

    /// Hands an event over. Returns at once (unless the policy is [`Backpressure::Block`]); the record is durable a
    /// little later. Under [`Backpressure::FailOpen`] an event that cannot be taken is counted and `Ok` returned.
    ///
    /// # Errors
    /// When the event is too large, its time cannot be recorded, or the log cannot take it: see [`AppendError`].
    pub fn append(&self, event: AuditEvent) -> Result<(), AppendError> {
        let item = self.item(event)?;
        match &self.0.backend {
            Backend::Memory { .. } => {
                self.remember(item);
                Ok(())
            }
            Backend::Durable(durable) => durable.hand_over(item, durable.backpressure),
        }
    }

    /// Hands an event over and returns an [`Acknowledgement`] to wait for or to await: it resolves to the record's
    /// [`Anchor`](crate::Anchor) once the record is durable. In memory it is resolved at once.
    ///
    /// # Errors
    /// As [`append`](Self::append); also under [`Backpressure::FailOpen`], because what is not recorded cannot be
    /// acknowledged, and while the log is failing, whatever the policy.
    pub fn append_durable(&self, event: AuditEvent) -> Result<Acknowledgement, AppendError> {
        let mut item = self.item(event)?;
        match &self.0.backend {
            Backend::Memory { .. } => Ok(Acknowledgement::ready(Ok(self.remember(item)))),
            Backend::Durable(durable) => {
                let (acknowledger, acknowledgement) = acknowledge::pair();
                item.acknowledger = Some(acknowledger);
                let policy = match durable.backpressure {
                    Backpressure::Block(max) => Backpressure::Block(max),
                    Backpressure::FailClosed | Backpressure::FailOpen => Backpressure::FailClosed,
                };
                durable.hand_over(item, policy)?;
                Ok(acknowledgement)
            }
        }
    }

    /// Hands an event over without ever blocking or failing, for sources that can do nothing about an error: texts
    /// that are too long are cut and marked, and an event that cannot be taken is counted, whatever the policy.
    pub fn offer(&self, mut event: AuditEvent) {
        event.fit(&self.0.limits);
        match (&self.0.backend, self.item(event)) {
            (Backend::Memory { .. }, Ok(item)) => {
                self.remember(item);
            }
            (Backend::Memory { .. }, Err(_)) => {}
            (Backend::Durable(durable), Err(_)) => durable.shared.count_dropped(),
            (Backend::Durable(durable), Ok(item)) => {
                if durable.hand_over(item, Backpressure::FailOpen).is_err() {
                    durable.shared.count_dropped();
                }
            }
        }
    }

    fn item(&self, event: AuditEvent) -> Result<Item, AppendError> {
        event.check(&self.0.limits)?;
        let wall_nanos = time_nanos(event.at.unwrap_or_else(|| self.0.clock.wall()))?;
        let monotonic_nanos = self.0.clock.now().as_nanos();
        Ok(Item { event: AuditEvent { at: None, ..event }, wall_nanos, monotonic_nanos, acknowledger: None })
    }

    /// Puts an item into the ring of a log in memory.
    fn remember(&self, mut item: Item) -> Anchor {
        item.event.normalise();
        for (key, value) in &mut item.event.details {
            self.0.redaction.apply(key, value);
        }
        match &self.0.backend {
            Backend::Memory { ring, handed_over, .. } => {
                handed_over.fetch_add(1, Ordering::Relaxed);
                ring.push(Kind::Event, item.wall_nanos, item.monotonic_nanos, item.event)
            }
            Backend::Durable(durable) => durable.shared.end().1,
        }
    }

    /// Resolves when everything handed over before by this thread is durable, to the last record's anchor.
    ///
    /// # Errors
    /// When the log is failing, poisoned or closed, or its queue has no room.
    pub fn flush(&self) -> Result<Acknowledgement, AppendError> {
        match &self.0.backend {
            Backend::Memory { ring, .. } => {
                let anchor = Anchor { sequence: ring.counts().0, hash: Hash::ZERO };
                Ok(Acknowledgement::ready(Ok(anchor)))
            }
            Backend::Durable(durable) => durable.flush(),
        }
    }

    /// The last `n` records, oldest of them first: of a durable log what is durable, of a log in memory what it keeps.
    ///
    /// # Errors
    /// When a durable log cannot be read or is damaged there.
    pub fn last(&self, n: usize) -> Result<Vec<Record>, ReadError> {
        match &self.0.backend {
            Backend::Memory { ring, .. } => Ok(ring.last(n)),
            Backend::Durable(_) => last_of(self.newest_first(Query::new())?, n),
        }
    }

    /// The records a query matches, oldest first, as a stream in bounded memory, up to what is durable now.
    ///
    /// # Errors
    /// When a durable log cannot be read. Damage further on ends the stream with an error.
    pub fn query(&self, query: Query) -> Result<Records, ReadError> {
        match &self.0.backend {
            Backend::Memory { ring, .. } => Ok(Records::in_memory(ring.snapshot(), query)),
            Backend::Durable(durable) => {
                let end = durable.shared.end().0;
                Ok(Reader::until(&durable.storage, &durable.path, Some(end))?.matching(query))
            }
        }
    }

    /// The same, newest first.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn newest_first(&self, query: Query) -> Result<Records, ReadError> {
        match &self.0.backend {
            Backend::Memory { ring, .. } => {
                let mut records = ring.snapshot();
                records.make_contiguous().reverse();
                Ok(Records::in_memory(records, query))
            }
            Backend::Durable(durable) => {
                let end = durable.shared.end().0;
                Records::newest_first(&durable.storage, &durable.path, Some(end), query)
            }
        }
    }

    /// Verifies what is durable now, while the log goes on being written.
    ///
    /// # Errors
    /// When the log lives in memory or cannot be read. Damage is not an error but in the report.
    pub fn verify(&self) -> Result<VerifyReport, ReadError> {
        match &self.0.backend {
            Backend::Memory { .. } => Err(ReadError::InMemory),
            Backend::Durable(durable) => {
                verify::run(&durable.storage, &durable.path, Some(durable.shared.end().0), &[])
            }
        }
    }

    /// Removes every record of a log in memory that was built with `permit_clear(true)`, and leaves one that says who
    /// did it and how many were removed. Returns that number.
    ///
    /// # Errors
    /// When the log is durable, clearing is not permitted, or its record is refused (a name too long).
    pub fn clear(&self, actor: &str) -> Result<usize, ClearError> {
        let Backend::Memory { ring, permit_clear, .. } = &self.0.backend else { return Err(ClearError::AppendOnly) };
        if !permit_clear {
            return Err(ClearError::NotPermitted);
        }
        let note = AuditEvent::new("audit", "cleared", "log").actor(actor.to_owned());
        let item = self.item(note)?;
        let note = |removed: usize| item.event.detail("removed", removed);
        Ok(ring.clear(item.wall_nanos, item.monotonic_nanos, note))
    }

    /// What opening found and did; `None` for a log in memory.
    pub fn open_report(&self) -> Option<&OpenReport> {
        match &self.0.backend {
            Backend::Memory { .. } => None,
            Backend::Durable(durable) => Some(&durable.report),
        }
    }

    /// The directory of a durable log.
    pub fn path(&self) -> Option<&Path> {
        match &self.0.backend {
            Backend::Memory { .. } => None,
            Backend::Durable(durable) => Some(&durable.path),
        }
    }

    /// Whether the log takes events.
    pub fn state(&self) -> LogState {
        match &self.0.backend {
            Backend::Memory { .. } => LogState::Writable,
            Backend::Durable(durable) => durable.shared.described(),
        }
    }

    /// Numbers since the log was opened.
    pub fn statistics(&self) -> Statistics {
        match &self.0.backend {
            Backend::Memory { ring, handed_over, .. } => {
                let handed_over = handed_over.load(Ordering::Relaxed);
                Statistics {
                    handed_over,
                    recorded: handed_over,
                    dropped: 0,
                    refused: 0,
                    not_durable: 0,
                    queued: 0,
                    last_sequence: ring.counts().0,
                    state: LogState::Writable,
                }
            }
            Backend::Durable(durable) => {
                let shared = &durable.shared;
                Statistics {
                    handed_over: shared.handed_over.load(Ordering::Relaxed),
                    recorded: shared.recorded.load(Ordering::Relaxed),
                    dropped: shared.dropped.load(Ordering::Relaxed),
                    refused: shared.refused.load(Ordering::Relaxed),
                    not_durable: shared.not_durable.load(Ordering::Relaxed),
                    queued: durable.sender.len(),
                    last_sequence: shared.end().1.sequence,
                    state: shared.described(),
                }
            }
        }
    }

    #[cfg(feature = "checkpoints")]
    pub(crate) fn backend(&self) -> Option<&Durable> {
        match &self.0.backend {
            Backend::Memory { .. } => None,
            Backend::Durable(durable) => Some(durable),
        }
    }

    /// Writes what was handed over, closes the log and returns the anchor of its last record. Other clones can still
    /// read; their appends are refused. What another thread hands over at the same moment may be refused too.
    ///
    /// # Errors
    /// When what was handed over could not be made durable.
    pub fn close(&self) -> Acknowledged {
        match &self.0.backend {
            Backend::Memory { ring, .. } => Ok(Anchor { sequence: ring.counts().0, hash: Hash::ZERO }),
            Backend::Durable(durable) => durable.close(),
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("path", &self.path()).field("state", &self.state()).finish_non_exhaustive()
    }
}
