//! The words of health: status, probe kind, criticality, scope.
//! `Unknown` is a status of its own and never counts as fine. Nothing here decides; [`aggregate`](crate::aggregate) does.

use std::fmt;

/// How something is doing.
///
/// ```
/// use resilience_health::Status;
///
/// assert_eq!(Status::Healthy.worst(Status::Unknown), Status::Unknown);
/// assert_eq!(Status::Unhealthy.worst(Status::Degraded), Status::Unhealthy);
/// assert_eq!(Status::Degraded.to_string(), "degraded");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Status {
    /// Works as intended.
    Healthy,
    /// Works, with less than its full service.
    Degraded,
    /// Does not work.
    Unhealthy,
    /// Nobody knows: no result yet, or the last one is too old.
    Unknown,
}

impl Status {
    /// The worse of two: healthy, unknown, degraded, unhealthy, from best to worst.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        if self.rank() >= other.rank() { self } else { other }
    }

    /// The status in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }

    /// Position from best to worst.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Unknown => 1,
            Self::Degraded => 2,
            Self::Unhealthy => 3,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which probe a check answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Kind {
    /// Should the process be restarted? Only a [`LocalCheck`](crate::LocalCheck) can ask for that.
    Liveness,
    /// Should this process get traffic?
    Readiness,
    /// Has the process finished starting? Runs until it has been healthy once, then never again.
    Startup,
}

/// What a failing check means for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Criticality {
    /// The whole is unhealthy.
    Critical,
    /// The whole is degraded.
    Important,
    /// The whole stays healthy, with a note.
    Informational,
}

/// Whom else a failure of the checked thing hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Scope {
    /// Inside this process.
    Local,
    /// Outside, but only this instance uses it.
    Exclusive,
    /// Every replica uses it: taking them all out of service would turn one failure into an outage, so a failure
    /// leaves readiness alone unless the check [gates readiness](crate::CheckSpec::gates_readiness).
    Shared,
}
