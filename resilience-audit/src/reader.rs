//! Reading: streams of records, oldest first or newest first, in bounded memory and without a lock.
//! Every record a reader gives out has been checked against the hash chain; a reader never changes the log.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::ReadError;
use crate::query::Query;
use crate::record::Record;
use crate::reverse::Reverse;
use crate::storage::{FileStorage, Storage};
use crate::walk::{End, Walker};

/// Reads a log from its first record on, also while it is being written.
///
/// After `None` it may be asked again: it goes on when more has been written, which makes a `tail -f`. A group that is
/// just being written may be seen before it is durable; [`AuditLog::query`](crate::AuditLog::query) shows only what is
/// durable. After an error it is at its end.
///
/// ```no_run
/// for record in resilience_audit::Reader::open("/var/lib/service/audit")? {
///     println!("{}", record?);
/// }
/// # Ok::<(), resilience_audit::ReadError>(())
/// ```
pub struct Reader {
    walker: Option<Walker>,
}

impl Reader {
    /// A reader of the log in the directory `path`.
    ///
    /// # Errors
    /// When there is no log, it cannot be read, or its first segment is not sound.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let storage: Arc<dyn Storage> = Arc::new(FileStorage);
        Self::open_in(&storage, path)
    }

    /// The same through another [`Storage`].
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(storage: &Arc<dyn Storage>, path: impl AsRef<Path>) -> Result<Self, ReadError> {
        Self::until(storage, path.as_ref(), None)
    }

    pub(crate) fn until(storage: &Arc<dyn Storage>, path: &Path, end: Option<End>) -> Result<Self, ReadError> {
        Ok(Self { walker: Some(Walker::new(storage, path, end)?) })
    }

    /// Only the records that a query matches, as a stream.
    pub fn matching(self, query: Query) -> Records {
        Records { source: Source::Forward(self), query }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("last", &self.walker.as_ref().map(Walker::last)).finish()
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.walker.as_mut()?.step() {
            Ok(step) => step.map(|step| Ok(step.body.to_record(step.hash))),
            Err(error) => {
                self.walker = None;
                Some(Err(error))
            }
        }
    }
}

/// A stream of the records that a query matches.
pub struct Records {
    source: Source,
    query: Query,
}

enum Source {
    Forward(Reader),
    Backward(Option<Reverse>),
    Memory(VecDeque<Arc<Record>>),
}

impl Records {
    pub(crate) fn newest_first(
        storage: &Arc<dyn Storage>,
        path: &Path,
        end: Option<End>,
        query: Query,
    ) -> Result<Self, ReadError> {
        Ok(Self { source: Source::Backward(Some(Reverse::new(storage, path, end)?)), query })
    }

    pub(crate) fn in_memory(records: VecDeque<Arc<Record>>, query: Query) -> Self {
        Self { source: Source::Memory(records), query }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("query", &self.query).finish_non_exhaustive()
    }
}

impl Iterator for Records {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match &mut self.source {
                Source::Forward(reader) => reader.next()?,
                Source::Backward(reverse) => match reverse.as_mut()?.step().transpose()? {
                    Ok(record) => Ok(record),
                    Err(error) => {
                        *reverse = None;
                        Err(error)
                    }
                },
                Source::Memory(records) => Ok(records.pop_front()?.as_ref().clone()),
            };
            match record {
                Ok(record) if !self.query.matches(&record) => {}
                record => return Some(record),
            }
        }
    }
}

/// The records of the log in the directory `path`, newest first.
///
/// # Errors
/// When there is no log, or its last segment cannot be read or is not sound.
pub fn newest_first(path: impl AsRef<Path>, query: Query) -> Result<Records, ReadError> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    Records::newest_first(&storage, path.as_ref(), None, query)
}

/// The last `n` records of the log in the directory `path`, oldest of them first.
///
/// # Errors
/// When there is no log, or what is read of it is not sound.
pub fn tail(path: impl AsRef<Path>, n: usize) -> Result<Vec<Record>, ReadError> {
    newest_first(path, Query::new()).and_then(|records| last_of(records, n))
}

/// The first `n` of a stream of the newest, turned round.
pub(crate) fn last_of(newest_first: Records, n: usize) -> Result<Vec<Record>, ReadError> {
    let mut records = newest_first.take(n).collect::<Result<Vec<_>, _>>()?;
    records.reverse();
    Ok(records)
}
