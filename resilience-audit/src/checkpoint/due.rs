//! How the writer wakes the checkpoint thread: one load per group until a checkpoint is due.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;

use crate::checkpoint::signer::Request;

#[derive(Debug)]
pub(crate) struct Due {
    at: AtomicU64,
    requests: OnceLock<Sender<Request>>,
}

impl Default for Due {
    fn default() -> Self {
        Self { at: AtomicU64::new(u64::MAX), requests: OnceLock::new() }
    }
}

impl Due {
    pub(crate) fn listen(&self, requests: Sender<Request>) {
        let _ = self.requests.set(requests);
    }

    /// Sets the record after which the thread is to be woken.
    // Relaxed here and below: a hint; who misses it sees the next one, or the thread's own time is up.
    pub(crate) fn at(&self, sequence: u64) {
        self.at.store(sequence, Ordering::Relaxed);
    }

    /// Records up to this one are durable.
    pub(crate) fn durable(&self, sequence: u64) {
        if sequence >= self.at.load(Ordering::Relaxed) {
            self.at(u64::MAX);
            if let Some(requests) = self.requests.get() {
                let _ = requests.try_send(Request::Due);
            }
        }
    }
}
