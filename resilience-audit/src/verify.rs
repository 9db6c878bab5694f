//! Verifying: reads the whole log and names the first place that is not what was written.
//! It changes nothing and needs no key; what only an outside memory can reveal is checked against an `Anchor`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::ReadError;
use crate::hash::{Anchor, Hash};
use crate::problem::{Problem, ProblemKind};
use crate::record::Kind;
use crate::storage::{FileStorage, Storage};
use crate::walk::{End, Walker};

/// What verifying found. The counts cover the sound part of the log, up to the first problem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Records checked and sound.
    pub records: u64,
    /// Segments entered.
    pub segments: u64,
    /// Gap records among them: places where the log itself says that events are missing.
    pub gaps: u64,
    /// Recovery records among them: places where a torn tail was cut after a crash.
    pub recoveries: u64,
    /// The last sound record. Keep it: it is what a later [`verify_against`] needs.
    pub end: Anchor,
    /// The first place that is not sound.
    pub problem: Option<Problem>,
}

impl VerifyReport {
    /// Whether the whole log is what was written.
    pub fn is_sound(&self) -> bool {
        self.problem.is_none()
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => write!(f, "sound: {} records in {} segments", self.records, self.segments)?,
            Some(problem) => write!(f, "not sound after {} records: {problem}", self.records)?,
        }
        write!(f, "; gaps {}, recoveries {}; end {}", self.gaps, self.recoveries, self.end)
    }
}

/// Verifies the log in the directory `path`: headers, checksums, sequence, hash chain, the seams of segments.
///
/// Truncation at the end of a record cannot be seen from the log alone: [`verify_against`] sees it. On a log that is
/// being written, a group in flight shows as [`ProblemKind::TornTail`]; [`AuditLog::verify`](crate::AuditLog::verify)
/// stops at what is durable.
///
/// # Errors
/// When there is no log, it cannot be read, or it was written by a newer version. A log that can be read but is not
/// sound is not an error: see [`VerifyReport::problem`].
pub fn verify(path: impl AsRef<Path>) -> Result<VerifyReport, ReadError> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    run(&storage, path.as_ref(), None, &[])
}

/// Verifies the log and that it still contains the records that `anchors` name, unchanged. An anchor is a durable
/// acknowledgement or the `end` of an earlier report, kept outside the log. Finds truncation and rollback to an older
/// copy, and a history that was rewritten with consistent hashes.
///
/// ```
/// use resilience_audit::{AuditEvent, AuditLog, verify_against};
///
/// # let place = tempfile::tempdir()?;
/// # let dir = place.path().join("audit");
/// let log = AuditLog::open(&dir)?;
/// let anchor = log.append_durable(AuditEvent::new("user", "login", "ada"))?.wait()?;
/// log.close()?;
/// assert!(verify_against(&dir, &[anchor])?.is_sound());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`verify`].
pub fn verify_against(path: impl AsRef<Path>, anchors: &[Anchor]) -> Result<VerifyReport, ReadError> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    run(&storage, path.as_ref(), None, anchors)
}

/// The same through another [`Storage`].
///
/// # Errors
/// As [`verify`].
pub fn verify_in(
    storage: &Arc<dyn Storage>,
    path: impl AsRef<Path>,
    anchors: &[Anchor],
) -> Result<VerifyReport, ReadError> {
    run(storage, path.as_ref(), None, anchors)
}

pub(crate) fn run(
    storage: &Arc<dyn Storage>,
    path: &Path,
    end: Option<End>,
    anchors: &[Anchor],
) -> Result<VerifyReport, ReadError> {
    let mut report = VerifyReport {
        records: 0,
        segments: 0,
        gaps: 0,
        recoveries: 0,
        end: Anchor { sequence: 0, hash: Hash::ZERO },
        problem: None,
    };
    match walk(storage, path, end, anchors, &mut report) {
        Ok(()) => {}
        Err(ReadError::Damaged(problem)) => report.problem = Some(problem),
        Err(error) => return Err(error),
    }
    Ok(report)
}

fn walk(
    storage: &Arc<dyn Storage>,
    path: &Path,
    end: Option<End>,
    anchors: &[Anchor],
    report: &mut VerifyReport,
) -> Result<(), ReadError> {
    let mut anchors = anchors.to_vec();
    anchors.sort_unstable_by_key(|anchor| anchor.sequence);
    let mut anchors = anchors.into_iter().peekable();
    let mut walker = Walker::new(storage, path, end)?;
    loop {
        report.segments = walker.segments;
        report.end = walker.last();
        while let Some(anchor) = anchors.next_if(|anchor| anchor.sequence <= report.end.sequence) {
            if anchor != report.end {
                return Err(walker.problem_with_last(ProblemKind::AnchorMismatch));
            }
        }
        let kind = match walker.step() {
            Ok(Some(step)) => step.body.stamp.kind,
            Ok(None) => break,
            Err(error) => {
                report.segments = walker.segments;
                return Err(error);
            }
        };
        report.records += 1;
        match kind {
            Kind::Gap => report.gaps += 1,
            Kind::Recovered => report.recoveries += 1,
            Kind::Event | Kind::Cleared => {}
        }
    }
    report.segments = walker.segments;
    let bytes = walker.left_over()?;
    if bytes > 0 {
        return Err(walker.problem(ProblemKind::TornTail { bytes }));
    }
    // The furthest acknowledgement says most about how much is gone.
    if let Some(anchor) = anchors.last() {
        let last = report.end.sequence;
        return Err(walker.problem(ProblemKind::RolledBack { last, anchor: anchor.sequence }));
    }
    Ok(())
}
