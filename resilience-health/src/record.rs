//! One check's state: its run, its latest result, its status and its two histories, all in fixed memory.
//! Told what happened and when; it keeps a run single (one at a time) but starts none itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use resilience_core::Instant;

use crate::aggregate::too_old;
use crate::check::CheckResult;
use crate::hysteresis::Hysteresis;
use crate::ring::Ring;
use crate::snapshot::{CheckView, History, Sample, Transition};
use crate::spec::{CheckSpec, Source};
use crate::status::{Kind, Status};

/// Where a check is between two results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Waiting for its time.
    Idle { due: Instant },
    /// Its time has come; waiting for a worker.
    Queued,
    /// With a worker, within its time limit.
    Running { id: u64, started: Instant },
    /// Past its time limit and not back: quarantined. Not started again; counted as failed once per interval.
    Stuck { id: u64, started: Instant, again: Instant },
    /// Never run: pushed, or a startup check that has passed.
    Never,
}

pub(crate) struct Record {
    pub(crate) spec: CheckSpec,
    pub(crate) name: Arc<str>,
    pub(crate) run: Run,
    max_age: Duration,
    runbook: Option<Arc<str>>,
    hysteresis: Hysteresis,
    samples: Ring<Sample>,
    transitions: Ring<Transition>,
    result: Option<Arc<CheckResult>>,
    message: Arc<str>,
    response_time: Option<Duration>,
    checked_at: Option<SystemTime>,
    fresh_until: Option<Instant>,
    consecutive_failures: u32,
    random: fastrand::Rng,
}

/// A moment on both clocks: the monotonic one decides, the wall one labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Record {
    pub(crate) fn new(spec: CheckSpec, now: Instant) -> Self {
        let run = match spec.source {
            Source::Run(_) => Run::Idle { due: now },
            Source::Pushed => Run::Never,
        };
        // Seeded by the name: two checks differ, two runs of the same program do not.
        let seed = spec
            .name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self {
            name: spec.name.as_str().into(),
            run,
            max_age: spec.effective_max_age(),
            runbook: spec.runbook.as_deref().map(Into::into),
            hysteresis: Hysteresis::new(),
            samples: Ring::new(spec.samples),
            transitions: Ring::new(spec.transitions),
            result: None,
            message: "no result yet".into(),
            response_time: None,
            checked_at: None,
            fresh_until: None,
            consecutive_failures: 0,
            random: fastrand::Rng::with_seed(seed),
            spec,
        }
    }

    /// When something about this check happens by the mere passing of time.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        let run = match self.run {
            Run::Idle { due } => Some(due),
            Run::Running { started, .. } => Some(started + self.spec.timeout),
            Run::Stuck { again, .. } => Some(again),
            Run::Queued | Run::Never => None,
        };
        match (run, self.fresh_until) {
            (Some(run), Some(fresh_until)) => Some(run.min(fresh_until)),
            (run, fresh_until) => run.or(fresh_until),
        }
    }

    /// The run after one that started at `started`: an interval later, a little earlier by jitter, never in the past.
    pub(crate) fn schedule(&mut self, started: Instant, now: Instant) {
        let early = self.spec.interval.mul_f64(self.spec.jitter * self.random.f64());
        self.run = Run::Idle { due: (started + self.spec.interval.saturating_sub(early)).max(now) };
    }

    /// Takes a result; returns the change of status it made.
    pub(crate) fn accept(
        &mut self,
        result: CheckResult,
        response_time: Option<Duration>,
        at: Moment,
    ) -> Option<Transition> {
        let status = result.status;
        let message: Arc<str> = match self.samples.last() {
            Some(last) if *last.message == *result.message => Arc::clone(&last.message),
            _ => result.message.as_str().into(),
        };
        self.samples.push(Sample { at: at.wall, status, message: Arc::clone(&message), response_time });
        self.message = message;
        self.result = Some(Arc::new(result));
        self.response_time = response_time;
        self.checked_at = Some(at.wall);
        match status {
            Status::Unhealthy => self.consecutive_failures = self.consecutive_failures.saturating_add(1),
            Status::Healthy | Status::Degraded => self.consecutive_failures = 0,
            Status::Unknown => {}
        }
        if status != Status::Unknown {
            self.fresh_until = Some(at.now + self.max_age);
        }
        let before = self.hysteresis.status();
        let after = self.hysteresis.record(status, self.spec.thresholds);
        if self.spec.kind == Kind::Startup && matches!(after, Status::Healthy | Status::Degraded) {
            // Started is started: it is not run again and does not grow old.
            self.run = Run::Never;
            self.fresh_until = None;
        }
        self.changed(before, after, at.wall)
    }

    /// Applies the age of the latest result.
    pub(crate) fn expire(&mut self, at: Moment) -> Option<Transition> {
        if self.fresh_until.is_none_or(|fresh_until| at.now < fresh_until) {
            return None;
        }
        self.fresh_until = None;
        let before = self.hysteresis.status();
        self.hysteresis.forget();
        self.message = too_old(self.max_age, before, &self.message);
        self.changed(before, Status::Unknown, at.wall)
    }

    fn changed(&mut self, from: Status, to: Status, at: SystemTime) -> Option<Transition> {
        if from == to {
            return None;
        }
        let transition = Transition { check: Arc::clone(&self.name), from, to, message: Arc::clone(&self.message), at };
        self.transitions.push(transition.clone());
        Some(transition)
    }

    pub(crate) fn history(&self, limit: usize) -> History {
        History {
            samples: self.samples.newest(limit).cloned().collect(),
            transitions: self.transitions.newest(limit).cloned().collect(),
        }
    }

    pub(crate) fn view(&self) -> CheckView {
        CheckView {
            name: Arc::clone(&self.name),
            kind: self.spec.kind,
            criticality: self.spec.criticality,
            scope: self.spec.scope,
            status: self.hysteresis.status(),
            message: Arc::clone(&self.message),
            result: self.result.clone(),
            response_time: self.response_time,
            checked_at: self.checked_at,
            consecutive_failures: self.consecutive_failures,
            stuck: matches!(self.run, Run::Stuck { .. }),
            root_causes: Vec::new(),
            runbook: self.runbook.clone(),
            gates_readiness: self.spec.gates_readiness,
            fresh_until: self.fresh_until,
            max_age: self.max_age,
        }
    }
}
