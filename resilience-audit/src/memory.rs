//! The log without a path: a bounded ring of the newest records, lost when the process ends.
//! It never holds more than its capacity, and clearing it leaves a record of having been cleared.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::AuditEvent;
use crate::hash::{Anchor, Hash};
use crate::record::{Kind, Record, Stamp};

pub(crate) struct Ring {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: VecDeque<Arc<Record>>,
    last: u64,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record; its sequence number is the order in which calls get here.
    pub(crate) fn push(&self, kind: Kind, wall_nanos: u64, monotonic_nanos: u64, event: AuditEvent) -> Anchor {
        // What falls out of the ring is freed after the lock is released.
        let (anchor, _evicted) = {
            let mut state = self.lock();
            let evicted = if state.records.len() >= self.capacity { state.records.pop_front() } else { None };
            (self.append(&mut state, kind, wall_nanos, monotonic_nanos, event), evicted)
        };
        anchor
    }

    fn append(
        &self,
        state: &mut State,
        kind: Kind,
        wall_nanos: u64,
        monotonic_nanos: u64,
        event: AuditEvent,
    ) -> Anchor {
        debug_assert!(state.records.len() < self.capacity);
        state.last += 1;
        let stamp =
            Stamp { kind, sequence: state.last, wall_nanos, monotonic_nanos, position: 0, previous: Hash::ZERO };
        state.records.push_back(Arc::new(Record { stamp, event, hash: Hash::ZERO }));
        Anchor { sequence: state.last, hash: Hash::ZERO }
    }

    /// Removes every record and adds the one that says so, which `event` makes from the number removed.
    pub(crate) fn clear(
        &self,
        wall_nanos: u64,
        monotonic_nanos: u64,
        event: impl FnOnce(usize) -> AuditEvent,
    ) -> usize {
        let mut state = self.lock();
        let removed = std::mem::take(&mut state.records);
        self.append(&mut state, Kind::Cleared, wall_nanos, monotonic_nanos, event(removed.len()));
        drop(state);
        removed.len()
    }

    /// The newest `n` records, oldest of them first.
    pub(crate) fn last(&self, n: usize) -> Vec<Record> {
        let records: Vec<Arc<Record>> = {
            let state = self.lock();
            state.records.iter().skip(state.records.len().saturating_sub(n)).cloned().collect()
        };
        records.iter().map(|record| record.as_ref().clone()).collect()
    }

    /// All records as they are now, oldest first.
    pub(crate) fn snapshot(&self) -> VecDeque<Arc<Record>> {
        self.lock().records.clone()
    }

    /// The last record's number and how many are kept.
    pub(crate) fn counts(&self) -> (u64, usize) {
        let state = self.lock();
        (state.last, state.records.len())
    }
}
