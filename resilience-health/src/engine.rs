//! The monitor as a state machine: told the time, it says which checks to run and takes their results.
//! It never runs a check, sleeps or spawns; a check is out at most once, and a hanging one costs one worker at most.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use resilience_core::Instant;

use crate::check::{Check, CheckResult};
use crate::record::{Moment, Record, Run};
use crate::snapshot::{CheckView, History, Transition};
use crate::spec::{CheckSpec, Source};

/// Checks due within this span of each other are started together: a thousand checks then cost a few dozen wake-ups a second.
/// Within a check's own jitter only, so it never runs late and, without jitter, never early.
const BATCH: Duration = Duration::from_millis(20);
/// Changes of status that wait for the listener; more than that and the oldest are lost, counted.
const MAX_PENDING: usize = 1024;

pub(crate) struct Engine {
    records: Vec<Record>,
    /// When something next happens to each check that has such a time: (time, index), one entry a check.
    timers: BTreeSet<(Instant, usize)>,
    timer_of: Vec<Option<Instant>>,
    queue: VecDeque<usize>,
    pending: VecDeque<Transition>,
    lost: u64,
    stuck: usize,
    next_run: u64,
    /// Something a snapshot shows has changed.
    pub(crate) dirty: bool,
    /// A status has changed: the snapshot must not wait.
    pub(crate) urgent: bool,
}

/// A run to be made, outside of any lock.
pub(crate) struct Job {
    pub(crate) index: usize,
    pub(crate) id: u64,
    pub(crate) check: Arc<dyn Check>,
    pub(crate) timeout: Duration,
}

impl Engine {
    pub(crate) fn new(specs: Vec<CheckSpec>, now: Instant) -> Self {
        let records: Vec<Record> = specs.into_iter().map(|spec| Record::new(spec, now)).collect();
        let mut engine = Self {
            timers: BTreeSet::new(),
            timer_of: vec![None; records.len()],
            records,
            queue: VecDeque::new(),
            pending: VecDeque::new(),
            lost: 0,
            stuck: 0,
            next_run: 0,
            dirty: true,
            urgent: true,
        };
        for index in 0..engine.records.len() {
            engine.set_timer(index);
        }
        engine
    }

    fn set_timer(&mut self, index: usize) {
        let next = self.records[index].next_event();
        if let Some(old) = std::mem::replace(&mut self.timer_of[index], next) {
            self.timers.remove(&(old, index));
        }
        if let Some(next) = next {
            self.timers.insert((next, index));
        }
    }

    /// Lets time pass: due checks are queued, runs past their limit fail, old results become unknown.
    pub(crate) fn advance(&mut self, at: Moment) {
        while let Some(&(time, index)) = self.timers.first()
            && time <= at.now
        {
            self.happen(index, at);
        }
        let early: Vec<usize> = self
            .timers
            .range(..=(at.now + BATCH, usize::MAX))
            .map(|&(_, index)| index)
            .filter(|index| self.may_start(*index, at.now))
            .collect();
        for index in early {
            self.enqueue(index);
            self.set_timer(index);
        }
    }

    fn may_start(&self, index: usize, now: Instant) -> bool {
        let record = &self.records[index];
        let early = BATCH.min(record.spec.interval.mul_f64(record.spec.jitter));
        matches!(record.run, Run::Idle { due } if due <= now + early)
    }

    fn enqueue(&mut self, index: usize) {
        self.records[index].run = Run::Queued;
        self.queue.push_back(index);
    }

    fn happen(&mut self, index: usize, at: Moment) {
        let record = &mut self.records[index];
        let timeout = record.spec.timeout;
        let failure = match record.run {
            Run::Idle { due } if due <= at.now => {
                self.enqueue(index);
                None
            }
            Run::Running { id, started } if started + timeout <= at.now => {
                record.run = Run::Stuck { id, started, again: at.now + record.spec.interval };
                self.stuck += 1;
                Some((started, format!("timed out: no answer within {timeout:?}")))
            }
            Run::Stuck { id, started, again } if again <= at.now => {
                record.run = Run::Stuck { id, started, again: at.now + record.spec.interval };
                let out = at.now.saturating_duration_since(started);
                Some((started, format!("hangs: no answer for {out:?}; not started again until it returns")))
            }
            _ => None,
        };
        if let Some((started, message)) = failure {
            let took = at.now.saturating_duration_since(started);
            let transition = self.records[index].accept(CheckResult::unhealthy(message), Some(took), at);
            self.note(transition);
        }
        let transition = self.records[index].expire(at);
        self.note(transition);
        self.set_timer(index);
    }

    /// The next run to make, if one is queued.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Job> {
        while let Some(index) = self.queue.pop_front() {
            let record = &mut self.records[index];
            let (Run::Queued, Source::Run(check)) = (record.run, &record.spec.source) else { continue };
            let job = Job { index, id: self.next_run, check: Arc::clone(check), timeout: record.spec.timeout };
            self.next_run += 1;
            record.run = Run::Running { id: job.id, started: now };
            self.set_timer(index);
            return Some(job);
        }
        None
    }

    /// Takes the result of a run. Returns true when the run had been given up as stuck.
    pub(crate) fn complete(&mut self, index: usize, id: u64, result: CheckResult, at: Moment) -> bool {
        let record = &mut self.records[index];
        let was_stuck = match record.run {
            Run::Running { id: current, started } if current == id => {
                let took = at.now.saturating_duration_since(started);
                let timeout = record.spec.timeout;
                let result = if took >= timeout {
                    CheckResult::unhealthy(format!(
                        "timed out: took {took:?}, the limit is {timeout:?}; it then said {}: {}",
                        result.status, result.message
                    ))
                } else {
                    result
                };
                record.schedule(started, at.now);
                let transition = record.accept(result, Some(took), at);
                self.note(transition);
                false
            }
            Run::Stuck { id: current, .. } if current == id => {
                // Its answer is older than its time limit and is not used; a fresh one is asked for at once.
                record.run = Run::Idle { due: at.now };
                self.stuck -= 1;
                self.dirty = true;
                true
            }
            _ => false,
        };
        self.set_timer(index);
        was_stuck
    }

    /// Takes a pushed result; false when the check is one that the monitor runs.
    pub(crate) fn push(&mut self, index: usize, result: CheckResult, at: Moment) -> bool {
        let record = &mut self.records[index];
        if !matches!(record.spec.source, Source::Pushed) {
            return false;
        }
        let transition = record.accept(result, None, at);
        self.note(transition);
        self.set_timer(index);
        true
    }

    /// Makes a check due now, unless it is out already; false when it is a pushed one.
    pub(crate) fn trigger(&mut self, index: usize, now: Instant) -> bool {
        let record = &mut self.records[index];
        if matches!(record.spec.source, Source::Pushed) {
            return false;
        }
        if let Run::Idle { .. } = record.run {
            record.run = Run::Idle { due: now };
            self.set_timer(index);
        }
        true
    }

    fn note(&mut self, transition: Option<Transition>) {
        self.dirty = true;
        let Some(transition) = transition else { return };
        self.urgent = true;
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_front();
            self.lost += 1;
            tracing::warn!(lost = self.lost, "health transitions lost: the listener is too slow");
        }
        self.pending.push_back(transition);
    }

    /// When to call [`advance`](Self::advance) again.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.timers.first().map(|(time, _)| *time)
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn stuck(&self) -> usize {
        self.stuck
    }

    /// The next change of status to tell the listener.
    pub(crate) fn next_transition(&mut self) -> Option<Transition> {
        self.pending.pop_front()
    }

    pub(crate) fn has_transitions(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.records.iter().position(|record| &*record.name == name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.records.iter().map(|record| &*record.name)
    }

    pub(crate) fn history(&self, index: usize, limit: usize) -> History {
        self.records[index].history(limit)
    }

    pub(crate) fn views(&self) -> Vec<CheckView> {
        self.records.iter().map(Record::view).collect()
    }
}
