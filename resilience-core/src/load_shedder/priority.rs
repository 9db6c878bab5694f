//! How important a call is. Only the order matters; what a priority may use is the shedder's business.

use std::fmt;

/// How important a call is: what matters less is refused first. The order of the variants is that of importance, so
/// `Priority::Critical > Priority::Normal`.
///
/// Sources: the criticality of requests in "Site Reliability Engineering", chapter 21 (Google, 2016): few levels, given
/// by the caller and handed on from service to service.
///
/// ```
/// use resilience_core::Priority;
///
/// assert!(Priority::Critical > Priority::Background);
/// assert_eq!(Priority::default(), Priority::Normal);
/// assert_eq!(Priority::Low.as_str(), "low");
/// ```
#[doc(alias = "criticality")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Priority {
    /// Nobody waits for it: backfills, prefetching, batch jobs.
    Background,
    /// Can be left out, or made later: suggestions, refreshes.
    Low,
    /// What is not said to be anything else.
    #[default]
    Normal,
    /// A user would notice at once that it fails.
    High,
    /// The last to be refused: what everything else depends on, and health checks.
    Critical,
}

impl Priority {
    /// Every priority, least important first.
    ///
    /// ```
    /// use resilience_core::Priority;
    ///
    /// assert!(Priority::ALL.is_sorted());
    /// ```
    pub const ALL: [Self; 5] = [Self::Background, Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The name used in metrics, logs, configuration and audit records.
    ///
    /// ```
    /// use resilience_core::Priority;
    ///
    /// assert_eq!(Priority::ALL.map(Priority::as_str), ["background", "low", "normal", "high", "critical"]);
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
