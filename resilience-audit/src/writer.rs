//! The writer thread of a durable log: takes what callers hand over, commits it in groups, answers acknowledgements.
//! It alone touches the files. It never loses an event it holds without counting it, and never retries a failed sync.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use resilience_core::Clock;

use crate::acknowledge::{Acknowledged, Acknowledger};
use crate::durable::time_nanos;
use crate::error::AppendError;
use crate::event::AuditEvent;
use crate::hash::Anchor;
use crate::log::LogState;
use crate::record::Kind;
use crate::redact::Redaction;
use crate::store::{CommitError, Store};
use crate::walk::End;

/// An event on its way to the file.
pub(crate) struct Item {
    pub(crate) event: AuditEvent,
    pub(crate) wall_nanos: u64,
    pub(crate) monotonic_nanos: u64,
    pub(crate) acknowledger: Option<Acknowledger>,
}

/// What callers send to the writer.
// Nearly all of them are events, and a box around each would cost an allocation per event.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Command {
    Append(Item),
    Flush(Acknowledger),
    Close,
}

pub(crate) const WRITABLE: u8 = 0;
pub(crate) const FAILING: u8 = 1;
pub(crate) const POISONED: u8 = 2;
pub(crate) const CLOSED: u8 = 3;

/// What the writer and the callers both see.
#[derive(Debug)]
pub(crate) struct Shared {
    state: AtomicU8,
    reason: Mutex<Arc<str>>,
    /// The durable end of the log, for readers.
    end: Mutex<(End, Anchor)>,
    /// Dropped since the last gap record.
    unreported: AtomicU64,
    pub(crate) handed_over: AtomicU64,
    pub(crate) recorded: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) not_durable: AtomicU64,
    #[cfg(feature = "checkpoints")]
    pub(crate) due: crate::checkpoint::Due,
}

impl Shared {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            state: AtomicU8::new(WRITABLE),
            reason: Mutex::new(Arc::from("")),
            end: Mutex::new((store.end(), store.last())),
            unreported: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            not_durable: AtomicU64::new(0),
            #[cfg(feature = "checkpoints")]
            due: crate::checkpoint::Due::default(),
        }
    }

    /// One of the state constants.
    pub(crate) fn state(&self) -> u8 {
        // Acquire pairs with the release in `set`: who sees the state sees its reason.
        self.state.load(Ordering::Acquire)
    }

    pub(crate) fn reason(&self) -> Arc<str> {
        Arc::clone(&self.reason.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, state: u8, reason: &Arc<str>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(reason);
        self.state.store(state, Ordering::Release);
    }

    /// Marks the log closed, unless it is poisoned: that must stay visible.
    pub(crate) fn close(&self) {
        let _ =
            self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| (state != POISONED).then_some(CLOSED));
    }

    pub(crate) fn described(&self) -> LogState {
        match self.state() {
            WRITABLE => LogState::Writable,
            FAILING => LogState::Failing { reason: self.reason() },
            POISONED => LogState::Poisoned { reason: self.reason() },
            _ => LogState::Closed,
        }
    }

    pub(crate) fn end(&self) -> (End, Anchor) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an event that goes unrecorded because the policy is to go on.
    pub(crate) fn count_dropped(&self) {
        // Relaxed: numbers only, nothing is published through them.
        self.unreported.fetch_add(1, Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A time in which the log could not be written.
struct Outage {
    reason: Arc<str>,
    since: u64,
    refused: u64,
}

pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
    pub(crate) receiver: Receiver<Command>,
    /// Signalled at closing, for the one wait that does not listen to `receiver`.
    pub(crate) closing: Receiver<()>,
    pub(crate) redaction: Redaction,
    pub(crate) clock: Clock,
    /// Records per group.
    pub(crate) group: usize,
    /// Events held while writing fails.
    pub(crate) hold: usize,
    pub(crate) retry_every: Duration,
}

/// Runs the writer until the log is closed or poisoned; returns the last durable record.
pub(crate) fn run(writer: Writer) -> Acknowledged {
    let shared = Arc::clone(&writer.shared);
    let mut loop_ = Loop {
        writer,
        pending: Vec::new(),
        written: Vec::new(),
        flushes: Vec::new(),
        gap: 0,
        outage: None,
        closed: false,
    };
    let ended = catch_unwind(AssertUnwindSafe(|| loop_.run()));
    ended.unwrap_or_else(|_| {
        let reason: Arc<str> = Arc::from("the writer panicked");
        shared.set(POISONED, &reason);
        tracing::error!("audit log: {reason}");
        Err(AppendError::Poisoned { reason })
    })
}

struct Loop {
    writer: Writer,
    /// Taken over and not yet durable, oldest first; already redacted.
    pending: Vec<Item>,
    /// The anchors of the group being committed, in the order of `pending`.
    written: Vec<Anchor>,
    flushes: Vec<Acknowledger>,
    /// Dropped events that the next gap record will report.
    gap: u64,
    outage: Option<Outage>,
    closed: bool,
}

impl Loop {
    fn run(&mut self) -> Acknowledged {
        loop {
            self.collect();
            if self.nothing_to_write() {
                self.answer_flushes();
                if self.closed {
                    return Ok(self.writer.store.last());
                }
                continue;
            }
            if let Err(error) = self.commit() {
                let reason: Arc<str> = Arc::from(error.reason.as_str());
                if error.fatal {
                    return Err(self.poison(reason));
                }
                self.hold(&reason);
                if self.closed {
                    return Err(self.abandon(reason));
                }
            } else if self.pending.is_empty() {
                self.answer_flushes();
            }
        }
    }

    fn nothing_to_write(&self) -> bool {
        self.pending.is_empty() && self.gap == 0 && self.outage.is_none()
    }

    /// Waits for something to do and takes what one group can hold.
    fn collect(&mut self) {
        if self.outage.is_some() {
            self.wait_out();
        } else if self.pending.is_empty() && self.flushes.is_empty() && !self.closed {
            self.take_dropped();
            if self.gap == 0 {
                match self.writer.receiver.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => self.closed = true,
                }
            }
        }
        // A flush or the end waits for what came before it, so nothing is taken past them.
        while self.pending.len() < self.writer.group && self.flushes.is_empty() && !self.closed {
            match self.writer.receiver.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.closed = true,
            }
        }
        if self.closed {
            // What others handed over while the log was being closed.
            while let Ok(command) = self.writer.receiver.try_recv() {
                self.take(command);
            }
        }
        self.take_dropped();
    }

    fn take_dropped(&mut self) {
        self.gap += self.writer.shared.unreported.swap(0, Ordering::Relaxed);
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append(mut item) => {
                if let Some(outage) = &mut self.outage
                    && let Some(acknowledger) = item.acknowledger.take()
                {
                    outage.refused += 1;
                    self.writer.shared.not_durable.fetch_add(1, Ordering::Relaxed);
                    acknowledger.answer(Err(AppendError::NotDurable { reason: Arc::clone(&outage.reason) }));
                    return;
                }
                item.event.normalise();
                for (key, value) in &mut item.event.details {
                    self.writer.redaction.apply(key, value);
                }
                self.pending.push(item);
            }
            Command::Flush(acknowledger) => match &self.outage {
                Some(outage) => {
                    acknowledger.answer(Err(AppendError::NotDurable { reason: Arc::clone(&outage.reason) }));
                }
                None => self.flushes.push(acknowledger),
            },
            Command::Close => self.closed = true,
        }
    }

    /// Lets the pause between two attempts pass, taking over what comes as long as there is room.
    fn wait_out(&mut self) {
        let begin = Instant::now();
        while !self.closed {
            let left = self.writer.retry_every.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return;
            }
            if self.pending.len() < self.writer.hold {
                match self.writer.receiver.recv_timeout(left) {
                    Ok(command) => self.take(command),
                    Err(RecvTimeoutError::Timeout) => return,
                    Err(RecvTimeoutError::Disconnected) => self.closed = true,
                }
            } else if self.writer.closing.recv_timeout(left).is_ok() {
                self.closed = true;
            }
        }
    }

    /// Commits as much of what is pending as one group holds.
    fn commit(&mut self) -> Result<(), CommitError> {
        let store = &mut self.writer.store;
        store.begin()?;
        self.written.clear();
        for item in self.pending.iter().take(self.writer.group) {
            if store.is_full() {
                break;
            }
            self.written.push(store.push(Kind::Event, item.wall_nanos, item.monotonic_nanos, &item.event));
        }
        let reports_gap = self.gap > 0 || self.outage.is_some();
        if reports_gap {
            let (wall, monotonic) = now(&self.writer.clock);
            let note = gap_note(self.gap, self.outage.as_ref());
            store.push(Kind::Gap, wall, monotonic, &note);
        }
        store.commit()?;

        let shared = &self.writer.shared;
        let count = self.written.len() as u64 + u64::from(reports_gap);
        shared.recorded.fetch_add(count, Ordering::Relaxed);
        // Before the answers: who has an acknowledgement must find the record.
        *shared.end.lock().unwrap_or_else(PoisonError::into_inner) = (store.end(), store.last());
        #[cfg(feature = "checkpoints")]
        shared.due.durable(store.last().sequence);
        self.gap = 0;
        if let Some(outage) = self.outage.take() {
            tracing::info!(reason = %outage.reason, "audit log: writable again");
            if shared.state() == FAILING {
                shared.set(WRITABLE, &Arc::from(""));
            }
        }
        for (item, anchor) in self.pending.drain(..self.written.len()).zip(&self.written) {
            if let Some(acknowledger) = item.acknowledger {
                acknowledger.answer(Ok(*anchor));
            }
        }
        Ok(())
    }

    fn answer_flushes(&mut self) {
        let last = self.writer.store.last();
        for acknowledger in self.flushes.drain(..) {
            acknowledger.answer(Ok(last));
        }
    }

    /// After a failed write that left the log as it was: events that nobody waits for are kept for the next attempt,
    /// the others are answered, so that no caller hangs until the disk has room again.
    fn hold(&mut self, reason: &Arc<str>) {
        let shared = &self.writer.shared;
        let since = now(&self.writer.clock).0;
        if self.outage.is_none() {
            tracing::error!(%reason, "audit log: cannot be written");
        }
        let outage = self.outage.get_or_insert_with(|| Outage { reason: Arc::clone(reason), since, refused: 0 });
        if shared.state() != CLOSED {
            shared.set(FAILING, reason);
        }
        let answer = || Err(AppendError::NotDurable { reason: Arc::clone(reason) });
        self.pending.retain_mut(|item| match item.acknowledger.take() {
            None => true,
            Some(acknowledger) => {
                acknowledger.answer(answer());
                outage.refused += 1;
                shared.not_durable.fetch_add(1, Ordering::Relaxed);
                false
            }
        });
        for acknowledger in self.flushes.drain(..) {
            acknowledger.answer(answer());
        }
    }

    /// After an error that leaves it unknown what is on the disk: nothing is written any more.
    fn poison(&mut self, reason: Arc<str>) -> AppendError {
        self.writer.shared.set(POISONED, &reason);
        tracing::error!(%reason, "audit log: poisoned");
        let error = AppendError::Poisoned { reason };
        self.fail_all(&error);
        error
    }

    /// The log is closed while it cannot be written.
    fn abandon(&mut self, reason: Arc<str>) -> AppendError {
        let error = AppendError::NotDurable { reason };
        let lost = self.fail_all(&error);
        tracing::error!(lost, "audit log: closed while it could not be written");
        error
    }

    fn fail_all(&mut self, error: &AppendError) -> u64 {
        let mut failed = 0;
        while let Ok(command) = self.writer.receiver.try_recv() {
            match command {
                Command::Append(item) => self.pending.push(item),
                Command::Flush(acknowledger) => self.flushes.push(acknowledger),
                Command::Close => {}
            }
        }
        for item in self.pending.drain(..) {
            failed += 1;
            if let Some(acknowledger) = item.acknowledger {
                acknowledger.answer(Err(error.clone()));
            }
        }
        for acknowledger in self.flushes.drain(..) {
            acknowledger.answer(Err(error.clone()));
        }
        self.writer.shared.not_durable.fetch_add(failed, Ordering::Relaxed);
        failed
    }
}

fn now(clock: &Clock) -> (u64, u64) {
    // The log's own records must not fail for a clock that stands before 1970: they carry 0 then.
    (time_nanos(clock.wall()).unwrap_or(0), clock.now().as_nanos())
}

fn gap_note(dropped: u64, outage: Option<&Outage>) -> AuditEvent {
    let note = AuditEvent::new("audit", "gap", "log").detail("dropped", dropped);
    match outage {
        None => note.detail("reason", "the queue was full"),
        Some(outage) => {
            let reason: String = outage.reason.chars().take(500).collect();
            note.detail("reason", reason).detail("refused", outage.refused).detail("since_ns", outage.since)
        }
    }
}
