//! The thread that makes a log's checkpoints. It is a reader: it walks what is durable, verifies every record on the
//! way, and signs only what continues the last checkpoint. The writer never waits for it.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use resilience_core::Clock;

use crate::checkpoint::note::Body;
use crate::checkpoint::settings::Settings;
use crate::checkpoint::{Checkpoint, CheckpointError, files};
use crate::error::{OpenError, ReadError};
use crate::hash::Anchor;
use crate::storage::Storage;
use crate::tree::{CompactRange, LogTree};
use crate::walk::{End, Walker};
use crate::writer::Shared;

pub(crate) enum Request {
    Make(Sender<Result<Checkpoint, CheckpointError>>),
    /// So many records came that one is due.
    Due,
    Close,
}

#[derive(Default)]
struct Status {
    latest: Option<Checkpoint>,
    failure: Option<Arc<str>>,
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The callers' side.
pub(crate) struct Signer {
    requests: Sender<Request>,
    status: Arc<Mutex<Status>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Signer {
    /// Starts the thread. `guard` is the lock of the log, held until the last checkpoint is made.
    pub(crate) fn start(
        settings: &Settings,
        clock: &Clock,
        storage: &Arc<dyn Storage>,
        dir: &std::path::Path,
        shared: &Arc<Shared>,
        guard: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, OpenError> {
        let latest = files::newest(storage.as_ref(), dir, &settings.own())?;
        let (requests, receiver) = bounded(16);
        let status = Arc::new(Mutex::new(Status { latest, failure: None }));
        let worker = Worker {
            settings: settings.clone(),
            clock: clock.clone(),
            storage: Arc::clone(storage),
            dir: dir.to_owned(),
            shared: Arc::clone(shared),
            status: Arc::clone(&status),
            tracker: None,
            sealed: 0,
            _guard: guard,
        };
        shared.due.listen(requests.clone());
        worker.expect_next();
        let thread = std::thread::Builder::new()
            .name("audit-checkpoints".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(OpenError::io("start the checkpoint thread of", dir))?;
        Ok(Self { requests, status, shared: Arc::clone(shared), thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn make(&self) -> Result<Checkpoint, CheckpointError> {
        let (reply, answer) = bounded(1);
        if self.requests.send(Request::Make(reply)).is_ok()
            && let Ok(answer) = answer.recv()
        {
            return answer;
        }
        // The thread has ended with the log; its last checkpoint may cover everything.
        let last = self.shared.end().1.sequence;
        self.latest().filter(|latest| latest.size == last).ok_or(CheckpointError::NotSigning)
    }

    pub(crate) fn latest(&self) -> Option<Checkpoint> {
        lock(&self.status).latest.clone()
    }

    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        lock(&self.status).failure.clone()
    }

    /// Makes the last checkpoint and ends the thread.
    pub(crate) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let _ = self.requests.send(Request::Close);
        if thread.join().is_err() {
            let reason: Arc<str> = Arc::from("the checkpoint thread panicked");
            tracing::error!("audit log: {reason}");
            lock(&self.status).failure = Some(reason);
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

struct Worker {
    settings: Settings,
    clock: Clock,
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    shared: Arc<Shared>,
    status: Arc<Mutex<Status>>,
    tracker: Option<Tracker>,
    /// The segment before which all have their `.leaves` files.
    sealed: u64,
    _guard: Arc<dyn Any + Send + Sync>,
}

/// How far the records were read and verified, and the tree over them.
struct Tracker {
    walker: Walker,
    tree: CompactRange,
}

impl Tracker {
    fn advance(&mut self, end: End, last: Anchor) -> Result<(), String> {
        self.walker.extend(end);
        while let Some(step) = self.walker.step().map_err(|error| error.to_string())? {
            self.tree.push(step.hash);
        }
        let there = self.walker.last() == last && self.tree.end() == last.sequence;
        if there { Ok(()) } else { Err(format!("the log does not end with record {} as written", last.sequence)) }
    }
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(self.settings.interval) {
                Ok(Request::Make(reply)) => {
                    let made = self.make();
                    let _ = reply.send(made);
                }
                Ok(Request::Due) | Err(RecvTimeoutError::Timeout) => self.make_if_behind(),
                Ok(Request::Close) | Err(RecvTimeoutError::Disconnected) => return self.make_if_behind(),
            }
        }
    }

    fn make_if_behind(&mut self) {
        let size = lock(&self.status).latest.as_ref().map_or(0, |latest| latest.size);
        if self.shared.end().1.sequence != size {
            // What went wrong is kept in the status and logged.
            let _ = self.make();
        }
    }

    fn make(&mut self) -> Result<Checkpoint, CheckpointError> {
        let made = self.try_make();
        let mut status = lock(&self.status);
        let answer = match made {
            Ok(checkpoint) => {
                status.failure = None;
                status.latest = Some(checkpoint.clone());
                Ok(checkpoint)
            }
            Err(reason) => {
                let reason: Arc<str> = Arc::from(reason);
                tracing::error!(%reason, "audit log: no checkpoint was made");
                status.failure = Some(Arc::clone(&reason));
                Err(CheckpointError::NotMade { reason })
            }
        };
        drop(status);
        self.expect_next();
        answer
    }

    /// Tells the writer after which record to wake this thread.
    fn expect_next(&self) {
        let from = lock(&self.status).latest.as_ref().map_or(0, |latest| latest.size);
        let from = from.max(if self.tracker.is_some() { self.shared.end().1.sequence } else { 0 });
        self.shared.due.at(from.saturating_add(self.settings.records));
    }

    fn try_make(&mut self) -> Result<Checkpoint, String> {
        let (end, last) = self.shared.end();
        let latest = lock(&self.status).latest.clone();
        // Without a tracker, the records were not yet compared with that checkpoint.
        let mut tracker = match self.tracker.take() {
            Some(tracker) => tracker,
            None => self.start(end, latest.as_ref())?,
        };
        // After an error the tracker is gone, and the next attempt starts from the last checkpoint.
        tracker.advance(end, last)?;
        let root = tracker.tree.root();
        self.tracker = Some(tracker);
        if let Some(latest) = latest.filter(|latest| latest.size == last.sequence && latest.root == root) {
            return Ok(latest);
        }
        let origin = self.settings.origin();
        let body = Body { origin: &origin, size: last.sequence, root, time: Some(self.clock.wall()) };
        let disk = self.storage.as_ref();
        let note = files::store(disk, &self.dir, &body, &self.settings.keys)?;
        let checkpoint = Checkpoint::open(note.as_bytes(), &self.settings.own()).map_err(|error| error.to_string())?;
        // From here on the checkpoint is made; what is left to do can be done next time.
        if let Err(error) = self.tidy(end) {
            tracing::warn!(%error, "audit log: checkpoint made, but files beside it could not be");
        }
        Ok(checkpoint)
    }

    fn tidy(&mut self, end: End) -> Result<(), ReadError> {
        files::prune(self.storage.as_ref(), &self.dir, self.settings.keep)?;
        if self.sealed != end.first {
            LogTree::until(&self.storage, &self.dir, Some(end))?.seal()?;
            self.sealed = end.first;
        }
        Ok(())
    }

    /// Begins at the last checkpoint, once the tree there has its root; without one, at the first record.
    fn start(&self, end: End, latest: Option<&Checkpoint>) -> Result<Tracker, String> {
        let mut tree = LogTree::until(&self.storage, &self.dir, Some(end)).map_err(|error| error.to_string())?;
        let mut known = 0;
        if let Some(latest) = latest {
            let continues = |tree: &LogTree| tree.root(latest.size).is_ok_and(|root| root == latest.root);
            if !continues(&tree) {
                // Files of leaf hashes may be damaged or forged; what counts is the records.
                tree = tree.from_records();
                if !continues(&tree) {
                    return Err(format!("records 1 to {} are not those that were signed before", latest.size));
                }
            }
            known = latest.size;
        }
        let first = tree.segment_of(known).ok_or("the log has no segment")?;
        let before = tree.range(0..first - 1).map_err(|error| error.to_string())?;
        let walker = Walker::from_segment(&self.storage, &self.dir, first, Some(end));
        Ok(Tracker { walker: walker.map_err(|error| error.to_string())?, tree: before })
    }
}
