//! What the guarded process tells the process that watches it: one JSON object per line on its standard output.
//! A line is complete or not there at all, so being killed between two of them loses nothing that was said.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The stages, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    Ast,
    Registry,
    Protocol,
    Lsp,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] = [Self::Ast, Self::Registry, Self::Protocol, Self::Lsp];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ast => "ast",
            Self::Registry => "registry",
            Self::Protocol => "protocol",
            Self::Lsp => "lsp",
        }
    }
}

/// Something that must be so, and whether it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) ok: bool,
}

impl Check {
    #[allow(clippy::needless_pass_by_value, reason = "what was found is mostly made for this call")]
    pub(crate) fn new(ok: bool, what: impl Into<String>, found: impl ToString) -> Self {
        Self { what: what.into(), found: found.to_string(), ok }
    }
}

/// What a stage came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) checks: Vec<Check>,
    /// Figures for the report, by name.
    pub(crate) figures: BTreeMap<String, String>,
    /// Samples for the plots, by series: where on the x axis, and the value.
    pub(crate) series: BTreeMap<String, Vec<(f64, f64)>>,
    /// Faults injected.
    pub(crate) faults: u32,
    pub(crate) seconds: f64,
}

impl Findings {
    pub(crate) fn check(&mut self, ok: bool, what: impl Into<String>, found: impl ToString) {
        self.checks.push(Check::new(ok, what, found));
    }

    #[allow(clippy::needless_pass_by_value, reason = "as for checks")]
    pub(crate) fn figure(&mut self, name: &str, value: impl ToString) {
        self.figures.insert(name.to_owned(), value.to_string());
    }
}

/// One handler of the shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandlerLine {
    pub(crate) name: String,
    pub(crate) phase: String,
    pub(crate) outcome: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum Line {
    /// It runs; what opening the audit log found.
    Started { records: u64, torn: bool },
    /// A stage begins.
    Stage { stage: Stage },
    /// How far the stage is.
    Progress { stage: Stage, done: u64, total: u64 },
    /// A record that the audit log promised to keep.
    Acknowledged { anchor: String },
    /// A fault was injected.
    Fault { at_ms: u64, what: String },
    /// The overall health changed.
    Health { at_ms: u64, status: String, why: String },
    /// A stage is over.
    Finished { stage: Stage, findings: Findings },
    /// All stages are over; it serves until it is told to stop.
    Waiting,
    /// How the shutdown went.
    Shutdown { handlers: Vec<HandlerLine>, exit_code: u8 },
    /// It cannot go on.
    Failed { why: String },
}

/// Milliseconds since 1970, by which the two processes relate their times.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Writes lines to standard output, whole.
#[derive(Debug, Default)]
pub(crate) struct Teller(Mutex<()>);

impl Teller {
    pub(crate) fn tell(&self, line: &Line) {
        let mut text =
            serde_json::to_string(line).unwrap_or_else(|error| format!(r#"{{"line":"failed","why":"{error}"}}"#));
        text.push('\n');
        let _one_at_a_time = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        // When nobody listens any more the drill is over anyway.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_survives_the_way_through_the_pipe() {
        let mut findings = Findings::default();
        findings.check(true, "files parsed", 12);
        findings.figure("rate", "3/s");
        findings.series.insert("latency".into(), vec![(0.0, 1.5)]);
        let lines = [
            Line::Started { records: 3, torn: true },
            Line::Finished { stage: Stage::Lsp, findings },
            Line::Acknowledged { anchor: "1:ab".into() },
            Line::Shutdown { handlers: Vec::new(), exit_code: 0 },
        ];
        for line in lines {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }
}
