//! What became of a shutdown: every phase and every handler, in order, and the exit code that follows.

use std::fmt;
use std::time::Duration;

use crate::shutdown::phase::Phase;

/// Why the process shuts down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShutdownReason {
    /// A signal, by its number.
    Signal(i32),
    /// The program itself, in its own words.
    Requested(String),
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(2) => f.write_str("signal 2 (SIGINT)"),
            Self::Signal(15) => f.write_str("signal 15 (SIGTERM)"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::Requested(reason) => f.write_str(reason),
        }
    }
}

/// A finished shutdown. Prints as a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Who asked.
    pub reason: ShutdownReason,
    /// Did a second signal cut it short?
    pub escalated: bool,
    /// The phases, in order.
    pub phases: Vec<PhaseReport>,
    /// Every handler, in the order they were called.
    pub handlers: Vec<HandlerReport>,
    /// What was still in flight when closing began.
    pub left_in_flight: usize,
    /// From the request to the end.
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_ms", serialize_with = "crate::ser::ms"))]
    pub elapsed: Duration,
}

impl ShutdownReport {
    /// Has everything ended as it should: every handler completed, nothing cut off in flight?
    pub fn is_clean(&self) -> bool {
        self.left_in_flight == 0 && self.handlers.iter().all(|handler| handler.outcome == HandlerOutcome::Completed)
    }

    /// 0 for a [clean](Self::is_clean) shutdown, else 1.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_clean())
    }

    /// The handler of this name.
    pub fn handler(&self, name: &str) -> Option<&HandlerReport> {
        self.handlers.iter().find(|handler| handler.name == name)
    }
}

/// One phase of a shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// How it ended.
    pub outcome: PhaseOutcome,
    /// How long it took.
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_ms", serialize_with = "crate::ser::ms"))]
    pub elapsed: Duration,
}

/// How a phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PhaseOutcome {
    /// What it waited for happened.
    Completed,
    /// Its time was over first.
    BudgetSpent,
    /// A second signal ended it.
    CutShort,
}

impl PhaseOutcome {
    /// The name used in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::BudgetSpent => "budget spent",
            Self::CutShort => "cut short",
        }
    }
}

/// One handler of a shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HandlerReport {
    /// Its name.
    pub name: String,
    /// The phase it ran in.
    pub phase: Phase,
    /// How it ended.
    pub outcome: HandlerOutcome,
    /// How long it took, or was waited for.
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_ms", serialize_with = "crate::ser::ms"))]
    pub elapsed: Duration,
}

/// How a handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HandlerOutcome {
    /// It did what it should.
    Completed,
    /// It said that it failed.
    Failed(String),
    /// It panicked.
    Panicked(String),
    /// It was not back at its time limit and was left behind.
    Abandoned,
}

impl fmt::Display for HandlerOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Abandoned => f.write_str("abandoned at its time limit"),
        }
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shutdown by {}: ", self.reason)?;
        f.write_str(if self.is_clean() { "clean" } else { "not clean" })?;
        if self.escalated {
            f.write_str(", cut short by a second signal")?;
        }
        if self.left_in_flight > 0 {
            write!(f, ", {} left in flight", self.left_in_flight)?;
        }
        writeln!(f, ", exit code {}, {}", self.exit_code(), millis(self.elapsed))?;
        let width = self.handlers.iter().map(|handler| handler.name.chars().count()).max().unwrap_or(0);
        for phase in &self.phases {
            writeln!(f, "  {:9}  {:>10}  {}", phase.phase, millis(phase.elapsed), phase.outcome.as_str())?;
            for handler in self.handlers.iter().filter(|handler| handler.phase == phase.phase) {
                writeln!(f, "    {:width$}  {:>10}  {}", handler.name, millis(handler.elapsed), handler.outcome)?;
            }
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
