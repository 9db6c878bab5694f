//! What probes read: a finished picture of all checks, immutable and shared.
//! A snapshot never blocks and never runs anything; what it says about the whole comes from [`aggregate`](crate::aggregate).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use resilience_core::Instant;

use crate::check::CheckResult;
use crate::status::{Criticality, Kind, Scope, Status};

/// All checks at one moment, and what follows from them.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The status of the whole.
    pub status: Status,
    /// Liveness: does the process need a restart?
    pub live: Verdict,
    /// Readiness: should it get traffic?
    pub ready: Verdict,
    /// Startup: is it up for the first time?
    pub started: Verdict,
    /// Is it on its way out?
    pub draining: bool,
    /// Why the whole is not healthy: root causes only.
    pub causes: Arc<[Cause]>,
    /// Informational checks that fail, which leave the whole healthy.
    pub notes: Arc<[Cause]>,
    /// How many checks hang at this moment, each holding one worker.
    pub stuck: usize,
    /// Wall time of the snapshot.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms", serialize_with = "crate::ser::unix_ms"))]
    pub at: SystemTime,
    /// Every check, in the order of registration.
    pub checks: Vec<CheckView>,
    /// From here on some result is too old, and the verdicts must be worked out again.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) valid_until: Option<Instant>,
}

impl Snapshot {
    /// The check of this name.
    pub fn check(&self, name: &str) -> Option<&CheckView> {
        self.checks.iter().find(|check| &*check.name == name)
    }
}

/// The answer to a probe, with the reasons when it is no.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Verdict {
    /// Yes (HTTP 200) or no (503).
    pub pass: bool,
    /// The root causes of a no.
    pub causes: Arc<[Cause]>,
}

/// A failing check that explains a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cause {
    /// The check's name; `draining` for a process on its way out.
    pub check: Arc<str>,
    /// Its status.
    pub status: Status,
    /// Its message.
    pub message: Arc<str>,
    /// The runbook that says what to do.
    pub runbook: Option<Arc<str>>,
    /// The checks that fail because of this one.
    pub explains: Vec<Arc<str>>,
}

/// One check in a snapshot.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CheckView {
    /// The check's name.
    pub name: Arc<str>,
    /// Which probe it answers for.
    pub kind: Kind,
    /// What its failure means.
    pub criticality: Criticality,
    /// Whom else its failure hits.
    pub scope: Scope,
    /// Its status: thresholds and age applied.
    pub status: Status,
    /// The latest message, or why there is none.
    pub message: Arc<str>,
    /// The latest result in full, as the check gave it.
    pub result: Option<Arc<CheckResult>>,
    /// How long the latest run took. None for pushed results and before the first.
    #[cfg_attr(feature = "serde", serde(rename = "response_time_ms", serialize_with = "crate::ser::opt_ms"))]
    pub response_time: Option<Duration>,
    /// Wall time of the latest result.
    #[cfg_attr(feature = "serde", serde(rename = "checked_at_unix_ms", serialize_with = "crate::ser::opt_unix_ms"))]
    pub checked_at: Option<SystemTime>,
    /// Unhealthy results in a row.
    pub consecutive_failures: u32,
    /// Did its latest run pass its time limit, and is it still not back?
    pub stuck: bool,
    /// The failing dependencies that explain its own failure.
    pub root_causes: Vec<Arc<str>>,
    /// The runbook that says what to do.
    pub runbook: Option<Arc<str>>,
    /// Does a shared dependency's failure take the process out of service?
    pub gates_readiness: bool,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) fresh_until: Option<Instant>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) max_age: Duration,
}

/// One result in a check's history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Sample {
    /// Wall time.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms", serialize_with = "crate::ser::unix_ms"))]
    pub at: SystemTime,
    /// What the check found, before thresholds.
    pub status: Status,
    /// Its message; equal messages in a row share their memory.
    pub message: Arc<str>,
    /// How long it took; none when it was pushed.
    #[cfg_attr(feature = "serde", serde(rename = "response_time_ms", serialize_with = "crate::ser::opt_ms"))]
    pub response_time: Option<Duration>,
}

/// A change of a check's status.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The check's name.
    pub check: Arc<str>,
    /// Before.
    pub from: Status,
    /// After.
    pub to: Status,
    /// The message of the result that tipped it.
    pub message: Arc<str>,
    /// Wall time.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms", serialize_with = "crate::ser::unix_ms"))]
    pub at: SystemTime,
}

/// A check's two histories, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct History {
    /// The latest results.
    pub samples: Vec<Sample>,
    /// The latest changes of status.
    pub transitions: Vec<Transition>,
}

/// The whole in a few lines, for people: prints as a table.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct Summary(pub(crate) Arc<Snapshot>);

impl Summary {
    /// The status of the whole.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// How many checks have this status.
    pub fn count(&self, status: Status) -> usize {
        self.0.checks.iter().filter(|check| check.status == status).count()
    }

    /// The snapshot it was made from.
    pub fn snapshot(&self) -> &Snapshot {
        &self.0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = &self.0;
        let answer = |verdict: &Verdict| if verdict.pass { "yes" } else { "no" };
        writeln!(
            f,
            "{}{}   live {}   ready {}   started {}",
            snapshot.status,
            if snapshot.draining { ", draining" } else { "" },
            answer(&snapshot.live),
            answer(&snapshot.ready),
            answer(&snapshot.started),
        )?;
        let width = snapshot.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        for check in &snapshot.checks {
            let time = check
                .response_time
                .map_or_else(|| "-".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
            write!(f, "  {:width$}  {:9}  {time:>10}  {}", check.name, check.status, check.message)?;
            if !check.root_causes.is_empty() {
                write!(f, " (because of {})", check.root_causes.join(", "))?;
            }
            if let Some(runbook) = &check.runbook
                && check.status != Status::Healthy
            {
                write!(f, " [runbook {runbook}]")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
