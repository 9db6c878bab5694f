//! What a check is and what it answers. A check is a closure or a [`Check`]; it knows nothing of intervals, time
//! limits or thresholds, which are the monitor's. A result is bounded: long messages and long lists are cut.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use resilience_core::Clock;

use crate::status::Status;

/// The longest message that is kept, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024;
/// The most sub-checks, and the most details, that one result keeps.
pub const MAX_PARTS: usize = 64;

/// Something that can be asked how it is doing.
///
/// Every `Fn() -> R` is a check when `R` says how it went: `()` (healthy), `bool`, a [`CheckResult`], or a `Result`
/// of those, where an error is unhealthy and becomes the message. A panic is unhealthy too.
///
/// A check may block: it runs on a worker thread and never under a lock. The monitor owns its time limit; the limit is in the
/// context so that a check can pass it on (a connect timeout, for example).
pub trait Check: Send + Sync {
    /// Looks, and says how it is.
    fn check(&self, context: &CheckContext) -> CheckResult;
}

impl<F, R> Check for F
where
    F: Fn() -> R + Send + Sync,
    R: IntoCheckResult,
{
    fn check(&self, _context: &CheckContext) -> CheckResult {
        self().into_check_result()
    }
}

/// A check that looks at nothing outside this process: the only kind that liveness accepts.
///
/// A failing liveness check gets the process restarted. Were it to ask a database, one failure there would restart every
/// replica of every service. Implementing this trait is your promise that it does not; [`local`] makes the same
/// promise for a closure.
pub trait LocalCheck: Check {}

/// A closure promised to be a [`LocalCheck`]. Made by [`local`].
#[derive(Clone, Copy)]
pub struct Local<F>(F);

impl<F> fmt::Debug for Local<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local(..)")
    }
}

/// Promises that `check` looks at nothing outside this process.
///
/// ```
/// use resilience_health::{CheckSpec, local};
///
/// let spec = CheckSpec::liveness("event_loop", local(|| Ok::<(), String>(())));
/// assert_eq!(spec.name(), "event_loop");
/// ```
///
/// Without the promise it is not a liveness check:
///
/// ```compile_fail,E0277
/// use resilience_health::CheckSpec;
///
/// CheckSpec::liveness("database", || Ok::<(), String>(()));
/// ```
pub fn local<F: Check>(check: F) -> Local<F> {
    Local(check)
}

impl<F: Check> Check for Local<F> {
    fn check(&self, context: &CheckContext) -> CheckResult {
        self.0.check(context)
    }
}

impl<F: Check> LocalCheck for Local<F> {}

/// What a running check may want to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckContext {
    /// The time limit of this run. When it has passed, the run counts as failed, whatever it still returns.
    pub timeout: Duration,
    /// The monitor's clock.
    pub clock: Clock,
}

impl CheckContext {
    /// A context for running a check by hand, as in a test.
    pub fn new(timeout: Duration, clock: Clock) -> Self {
        Self { timeout, clock }
    }
}

/// What a check found.
///
/// ```
/// use resilience_health::{CheckResult, Status};
///
/// let result = CheckResult::healthy("2 of 3 mirrors answer")
///     .sub_check("mirror-a", Status::Healthy, "12 ms")
///     .sub_check("mirror-b", Status::Degraded, "no answer")
///     .detail("mirrors", 3);
/// // A part that is worse than the whole makes the whole as bad: a result cannot hide it.
/// assert_eq!(result.status(), Status::Degraded);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a result says nothing until it is returned or pushed"]
pub struct CheckResult {
    pub(crate) status: Status,
    pub(crate) message: String,
    pub(crate) sub_checks: Vec<SubCheck>,
    pub(crate) details: BTreeMap<String, String>,
}

/// A named part of a check's result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SubCheck {
    /// The part's name.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// In words.
    pub message: String,
}

impl CheckResult {
    /// A result with this status and message.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: bounded(message.into()), sub_checks: Vec::new(), details: BTreeMap::new() }
    }

    /// Everything is fine.
    pub fn healthy(message: impl Into<String>) -> Self {
        Self::new(Status::Healthy, message)
    }

    /// Works, with less than its full service.
    pub fn degraded(message: impl Into<String>) -> Self {
        Self::new(Status::Degraded, message)
    }

    /// Does not work.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self::new(Status::Unhealthy, message)
    }

    /// The check could not find out. Counts as no result: the status becomes [`Status::Unknown`] once the last real
    /// result is too old.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Status::Unknown, message)
    }

    /// Adds a named part; the whole becomes at least as bad. At most [`MAX_PARTS`] parts are kept, the status of all counts.
    pub fn sub_check(mut self, name: impl Into<String>, status: Status, message: impl Into<String>) -> Self {
        self.status = self.status.worst(status);
        if self.sub_checks.len() < MAX_PARTS {
            self.sub_checks.push(SubCheck { name: bounded(name.into()), status, message: bounded(message.into()) });
        }
        self
    }

    /// Adds a detail for whoever looks closer. At most [`MAX_PARTS`] are kept.
    pub fn detail(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        if self.details.len() < MAX_PARTS {
            self.details.insert(bounded(name.into()), bounded(value.to_string()));
        }
        self
    }

    /// The status, made as bad as the worst part.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The named parts.
    pub fn sub_checks(&self) -> &[SubCheck] {
        &self.sub_checks
    }

    /// The details.
    pub fn details(&self) -> &BTreeMap<String, String> {
        &self.details
    }
}

/// What a check may return: see [`Check`].
pub trait IntoCheckResult {
    /// The result in full.
    fn into_check_result(self) -> CheckResult;
}

impl IntoCheckResult for CheckResult {
    fn into_check_result(self) -> CheckResult {
        self
    }
}

impl IntoCheckResult for () {
    fn into_check_result(self) -> CheckResult {
        CheckResult::healthy("ok")
    }
}

impl IntoCheckResult for bool {
    fn into_check_result(self) -> CheckResult {
        if self { CheckResult::healthy("ok") } else { CheckResult::unhealthy("the check returned false") }
    }
}

impl<T: IntoCheckResult, E: fmt::Display> IntoCheckResult for Result<T, E> {
    fn into_check_result(self) -> CheckResult {
        match self {
            Ok(value) => value.into_check_result(),
            Err(error) => CheckResult::unhealthy(error.to_string()),
        }
    }
}

/// Cuts `text` to [`MAX_MESSAGE_BYTES`] at a character boundary, with a mark where it was cut.
pub(crate) fn bounded(mut text: String) -> String {
    const MARK: &str = "…";
    if text.len() > MAX_MESSAGE_BYTES {
        let mut end = MAX_MESSAGE_BYTES - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(check: &impl Check) -> CheckResult {
        check.check(&CheckContext::new(Duration::from_secs(1), Clock::system()))
    }

    #[test]
    fn every_kind_of_closure_says_what_it_found() {
        assert_eq!(run(&|| ()).status(), Status::Healthy);
        assert_eq!(run(&|| false).status(), Status::Unhealthy);
        assert_eq!(run(&|| Err::<(), _>("no route")), CheckResult::unhealthy("no route"));
        assert_eq!(run(&|| Ok::<_, String>(CheckResult::degraded("slow"))), CheckResult::degraded("slow"));
    }

    #[test]
    fn a_result_keeps_no_more_than_its_bounds_and_no_part_is_hidden_by_them() {
        let mut result = CheckResult::healthy("ä".repeat(MAX_MESSAGE_BYTES));
        for n in 0..=MAX_PARTS {
            let status = if n == MAX_PARTS { Status::Unhealthy } else { Status::Healthy };
            result = result.sub_check(format!("part-{n}"), status, "").detail(format!("detail-{n}"), n);
        }
        assert!(result.message().len() <= MAX_MESSAGE_BYTES && result.message().ends_with('…'));
        assert_eq!((result.sub_checks().len(), result.details().len()), (MAX_PARTS, MAX_PARTS));
        assert_eq!(result.status(), Status::Unhealthy, "the part that was cut still counts");
    }
}
