//! The durable backend of a log: the caller's side of the queue to the writer thread.
//! Every event it takes is either in the queue or counted; it never touches a file itself.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};

use crate::acknowledge::{self, Acknowledged, Acknowledgement};
#[cfg(feature = "checkpoints")]
use crate::checkpoint::{self, Signer};
use crate::config::{AuditLogBuilder, Backpressure};
use crate::error::{AppendError, OpenError};
use crate::open::{self, OpenReport};
use crate::storage::Storage;
use crate::writer::{self, Command, FAILING, Item, POISONED, Shared, WRITABLE, Writer};

pub(crate) struct Durable {
    pub(crate) path: PathBuf,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) report: OpenReport,
    pub(crate) backpressure: Backpressure,
    queue: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sender: Sender<Command>,
    closing: Sender<()>,
    thread: Mutex<Option<JoinHandle<Acknowledged>>>,
    #[cfg(feature = "checkpoints")]
    pub(crate) signer: Option<Box<Signer>>,
}

impl Durable {
    /// Opens or makes the log in `path` and starts its writer.
    pub(crate) fn open(settings: &AuditLogBuilder, path: PathBuf) -> Result<Self, OpenError> {
        let now = (time_nanos(settings.clock.wall()).unwrap_or(0), settings.clock.now().as_nanos());
        #[cfg(feature = "checkpoints")]
        let covered = checkpoint::newest_size(settings.storage.as_ref(), &path, &settings.checkpoints.own())?;
        #[cfg(not(feature = "checkpoints"))]
        let covered = 0;
        let (store, report) = open::open(&settings.storage, &path, settings.segment_bytes, now, covered)?;
        let shared = Arc::new(Shared::new(&store));
        #[cfg(feature = "checkpoints")]
        let signer = if settings.checkpoints.keys.is_empty() {
            None
        } else {
            let (checkpoints, clock) = (&settings.checkpoints, &settings.clock);
            let signer = Signer::start(checkpoints, clock, &settings.storage, &path, &shared, store.lock())?;
            Some(Box::new(signer))
        };
        let (sender, receiver) = crossbeam_channel::bounded(settings.queue);
        let (closing, closing_receiver) = crossbeam_channel::bounded(1);
        let writer = Writer {
            store,
            shared: Arc::clone(&shared),
            receiver,
            closing: closing_receiver,
            redaction: settings.redaction.clone(),
            clock: settings.clock.clone(),
            group: settings.group,
            hold: settings.queue,
            retry_every: settings.retry_every,
        };
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || writer::run(writer))
            .map_err(OpenError::io("start the writer thread of", &path))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self {
            path,
            storage: Arc::clone(&settings.storage),
            report,
            backpressure: settings.backpressure,
            queue: settings.queue,
            shared,
            sender,
            closing,
            thread,
            #[cfg(feature = "checkpoints")]
            signer,
        })
    }

    /// Asks for an answer once everything before is durable.
    pub(crate) fn flush(&self) -> Result<Acknowledgement, AppendError> {
        let state = self.shared.state();
        if state != WRITABLE {
            return Err(self.refusal(state));
        }
        let (acknowledger, acknowledgement) = acknowledge::pair();
        // A flush waits anyway, so waiting for room in the queue changes nothing for the caller.
        self.sender.send(Command::Flush(acknowledger)).map_err(|_| self.refusal(self.shared.state()))?;
        Ok(acknowledgement)
    }

    /// Puts an event into the queue, or does what the policy says when that cannot be.
    pub(crate) fn hand_over(&self, item: Item, policy: Backpressure) -> Result<(), AppendError> {
        let durable = item.acknowledger.is_some();
        let refuse = |error| {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            Err(error)
        };
        let state = self.shared.state();
        match (state, policy) {
            (WRITABLE, _) => {}
            (FAILING, Backpressure::FailOpen | Backpressure::Block(_)) if !durable => {}
            (POISONED, Backpressure::FailOpen) => {
                self.shared.count_dropped();
                return Ok(());
            }
            _ => return refuse(self.refusal(state)),
        }
        // Counted before it is sent, so that the writer's numbers never run ahead of the callers'.
        self.shared.handed_over.fetch_add(1, Ordering::Relaxed);
        let command = Command::Append(item);
        let (sent, waited) = match policy {
            Backpressure::Block(max) => {
                let sent = self
                    .sender
                    .send_timeout(command, max)
                    .map_err(|error| matches!(error, SendTimeoutError::Timeout(_)));
                (sent, max)
            }
            Backpressure::FailClosed | Backpressure::FailOpen => {
                let sent = self.sender.try_send(command).map_err(|error| matches!(error, TrySendError::Full(_)));
                (sent, Duration::ZERO)
            }
        };
        let Err(full) = sent else { return Ok(()) };
        self.shared.handed_over.fetch_sub(1, Ordering::Relaxed);
        match policy {
            Backpressure::FailOpen => {
                self.shared.count_dropped();
                Ok(())
            }
            _ if full => refuse(AppendError::Full { capacity: self.queue, waited }),
            _ => refuse(self.refusal(self.shared.state())),
        }
    }

    /// The error for a log found in this state, or whose writer takes nothing any more.
    fn refusal(&self, state: u8) -> AppendError {
        match state {
            FAILING => AppendError::Unavailable { reason: self.shared.reason() },
            POISONED => AppendError::Poisoned { reason: self.shared.reason() },
            _ => AppendError::Closed,
        }
    }

    /// Ends the writer once it has written what is in the queue; returns the last durable record.
    pub(crate) fn close(&self) -> Acknowledged {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else {
            return match self.shared.state() {
                POISONED => Err(AppendError::Poisoned { reason: self.shared.reason() }),
                _ => Ok(self.shared.end().1),
            };
        };
        self.shared.close();
        // The signal is for a writer that waits with a full hold; the command for one that listens. A writer that
        // is gone already is no error here.
        let _ = self.closing.try_send(());
        let _ = self.sender.send(Command::Close);
        let last = thread.join().unwrap_or(Err(AppendError::Closed));
        #[cfg(feature = "checkpoints")]
        if let Some(signer) = &self.signer {
            signer.close();
        }
        last
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, path = %self.path.display(), "audit log: closed with an error");
        }
    }
}

/// Nanoseconds from 1970, the time as it is stored.
pub(crate) fn time_nanos(time: SystemTime) -> Result<u64, AppendError> {
    let out_of_range = |seconds_from_1970| AppendError::TimeOutOfRange { seconds_from_1970 };
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => u64::try_from(since.as_nanos()).map_err(|_| out_of_range(i128::from(since.as_secs()))),
        // Rounded away from 1970, so that a time just before it does not read as 0.
        Err(before) => {
            let before = before.duration();
            Err(out_of_range(-i128::from(before.as_secs()) - i128::from(before.subsec_nanos() > 0)))
        }
    }
}
