//! From the status of each check to the answer of each probe: one table, applied without state and without I/O.
//! Failures are reported by their root cause; what failing dependencies explain is named with them, not beside them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use resilience_core::Instant;

use crate::graph::Graph;
use crate::snapshot::{Cause, CheckView, Snapshot, Verdict};
use crate::status::{Criticality, Kind, Scope, Status};

/// Makes the snapshot of these checks at `now`. A result past its age counts as unknown, whoever should have noticed.
pub(crate) fn assemble(
    mut checks: Vec<CheckView>,
    graph: &Graph,
    draining: bool,
    now: Instant,
    wall: SystemTime,
) -> Snapshot {
    for check in &mut checks {
        if check.fresh_until.is_some_and(|fresh_until| fresh_until <= now) {
            check.message = too_old(check.max_age, check.status, &check.message);
            check.status = Status::Unknown;
            check.fresh_until = None;
        }
    }
    for at in 0..checks.len() {
        let roots = if explains(checks[at].status) { roots(graph, &checks, at) } else { Vec::new() };
        checks[at].root_causes = roots.into_iter().map(|root| Arc::clone(&checks[root].name)).collect();
    }
    let verdict = |concerns: &dyn Fn(&CheckView) -> bool| {
        let causes = collapse(graph, &checks, concerns);
        Verdict { pass: causes.is_empty(), causes: causes.into() }
    };
    let live = verdict(&not_live);
    let started = verdict(&not_started);
    let mut ready = verdict(&not_ready);
    if draining {
        let cause = Cause {
            check: "draining".into(),
            status: Status::Unhealthy,
            message: "the process is shutting down".into(),
            runbook: None,
            explains: Vec::new(),
        };
        ready = Verdict { pass: false, causes: std::iter::once(cause).chain(ready.causes.iter().cloned()).collect() };
    }
    let counts = |check: &CheckView| check.criticality != Criticality::Informational && check.status != Status::Healthy;
    let notes = |check: &CheckView| check.criticality == Criticality::Informational && check.status != Status::Healthy;
    Snapshot {
        status: overall(&checks),
        live,
        ready,
        started,
        draining,
        causes: collapse(graph, &checks, &counts).into(),
        notes: collapse(graph, &checks, &notes).into(),
        stuck: checks.iter().filter(|check| check.stuck).count(),
        at: wall,
        valid_until: checks.iter().filter_map(|check| check.fresh_until).min(),
        checks,
    }
}

/// Liveness: only a local check that fails. One whose result is too old is no reason to restart.
fn not_live(check: &CheckView) -> bool {
    check.kind == Kind::Liveness && check.status == Status::Unhealthy
}

fn not_started(check: &CheckView) -> bool {
    check.kind == Kind::Startup && matches!(check.status, Status::Unhealthy | Status::Unknown)
}

/// Readiness: what this process cannot serve without. Not knowing counts as failing.
fn not_ready(check: &CheckView) -> bool {
    let fails = matches!(check.status, Status::Unhealthy | Status::Unknown);
    let matters = match check.kind {
        Kind::Liveness | Kind::Startup => true,
        Kind::Readiness => {
            check.criticality == Criticality::Critical && (check.scope != Scope::Shared || check.gates_readiness)
        }
    };
    fails && matters
}

fn overall(checks: &[CheckView]) -> Status {
    if checks.is_empty() {
        // Nobody looks at anything: that is not the same as fine.
        return Status::Unknown;
    }
    checks.iter().map(contribution).fold(Status::Healthy, Status::worst)
}

fn contribution(check: &CheckView) -> Status {
    match (check.criticality, check.status) {
        (Criticality::Informational, _) | (_, Status::Healthy) => Status::Healthy,
        (Criticality::Critical, Status::Unhealthy) => Status::Unhealthy,
        _ => Status::Degraded,
    }
}

/// Can this status explain that something which depends on it fails?
fn explains(status: Status) -> bool {
    matches!(status, Status::Degraded | Status::Unhealthy)
}

fn roots(graph: &Graph, checks: &[CheckView], at: usize) -> Vec<usize> {
    graph.roots(at, &|other| explains(checks[other].status))
}

/// The root causes of the concerned checks, in the order of registration.
fn collapse(graph: &Graph, checks: &[CheckView], concerns: &dyn Fn(&CheckView) -> bool) -> Vec<Cause> {
    let mut explained: Vec<Option<Vec<Arc<str>>>> = vec![None; checks.len()];
    for (at, check) in checks.iter().enumerate().filter(|(_, check)| concerns(check)) {
        let roots = if explains(check.status) { roots(graph, checks, at) } else { Vec::new() };
        if roots.is_empty() {
            explained[at].get_or_insert_default();
        }
        for root in roots {
            explained[root].get_or_insert_default().push(Arc::clone(&check.name));
        }
    }
    explained
        .into_iter()
        .zip(checks)
        .filter_map(|(explains, check)| {
            explains.map(|explains| Cause {
                check: Arc::clone(&check.name),
                status: check.status,
                message: Arc::clone(&check.message),
                runbook: check.runbook.clone(),
                explains,
            })
        })
        .collect()
}

/// The message of a check whose last result is past its age.
pub(crate) fn too_old(max_age: Duration, status: Status, message: &str) -> Arc<str> {
    format!("no result for {max_age:?}; the last one was {status}: {message}").into()
}
