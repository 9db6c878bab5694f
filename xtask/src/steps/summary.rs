//! What came of a list of steps: counts, one row a step, and how it is shown (table or JSON).
//! It neither runs steps nor decides what a failure means.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::Stop;
use crate::process::Ended;
use crate::ui::{self, paint};

/// What a step counted: tests, or itself as one check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// How a step came out.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) counts: Counts,
    /// One short line for the table.
    pub(crate) note: String,
    /// What to show when it failed, where there is no log to show.
    pub(crate) details: String,
}

impl Verdict {
    pub(crate) fn passed(note: impl Into<String>) -> Self {
        Self { counts: Counts { passed: 1, ..Counts::default() }, note: note.into(), details: String::new() }
    }

    pub(crate) fn failed(note: impl Into<String>) -> Self {
        Self { counts: Counts { failed: 1, ..Counts::default() }, note: note.into(), details: String::new() }
    }

    pub(crate) fn skipped(note: impl Into<String>) -> Self {
        Self { counts: Counts { skipped: 1, ..Counts::default() }, note: note.into(), details: String::new() }
    }

    pub(crate) fn details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// Passed when the command exited with 0.
    pub(crate) fn of(ended: Ended) -> Self {
        if ended.success() { Self::passed("") } else { Self::failed(ended.to_string()) }
    }

    pub(super) fn result(&self) -> StepResult {
        match self.counts {
            Counts { failed: 1.., .. } => StepResult::Failed,
            Counts { passed: 0, skipped: 1.., .. } => StepResult::Skipped,
            Counts { .. } => StepResult::Ok,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepResult {
    Ok,
    Failed,
    Skipped,
}

impl StepResult {
    pub(super) fn mark(self) -> (&'static str, anstyle::Style) {
        match self {
            Self::Ok => ("ok", ui::GOOD),
            Self::Failed => ("FAILED", ui::BAD),
            Self::Skipped => ("SKIPPED", ui::NOTE),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) step: String,
    pub(super) result: StepResult,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) seconds: f64,
    pub(super) note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<PathBuf>,
}

/// All rows, and their sum.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(super) verb: &'static str,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    pub(super) seconds: f64,
    pub(super) steps: Vec<Row>,
}

impl Summary {
    /// Whether nothing failed.
    pub(crate) fn passed(&self) -> bool {
        self.counts.failed == 0
    }

    /// Prints the table (or JSON) to standard output. The counts are the last line of the table's form.
    pub(crate) fn print(&self, json: bool) -> Result<(), Stop> {
        if json {
            let text = serde_json::to_string_pretty(self).map_err(|error| Stop::Setup(error.to_string()))?;
            anstream::println!("{text}");
            return Ok(());
        }
        let table = ui::table(&self.rows());
        let mut lines = table.lines();
        anstream::println!("\n{}", paint(ui::BOLD, lines.next().unwrap_or_default()));
        for (row, line) in self.steps.iter().zip(lines) {
            let style = match row.result {
                StepResult::Ok => anstyle::Style::new(),
                other => other.mark().1,
            };
            anstream::println!("{}", paint(style, line));
        }
        let skipped: Vec<&str> =
            self.steps.iter().filter(|row| row.counts.skipped > 0).map(|row| row.step.as_str()).collect();
        if !skipped.is_empty() {
            let line = format!("NOT DONE ({} skipped): {}", self.counts.skipped, skipped.join(", "));
            anstream::println!("\n{}", paint(ui::NOTE, &line));
        }
        let style = if self.passed() { ui::GOOD } else { ui::BAD };
        anstream::println!("\n{}", paint(style, &self.counts.to_string()));
        Ok(())
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let head = ["step", "result", "passed", "failed", "skipped", "time", "note"].map(str::to_owned).to_vec();
        let row = |row: &Row| {
            let number = |n: u64| {
                if n == 0 { "·".to_owned() } else { n.to_string() }
            };
            vec![
                row.step.clone(),
                row.result.mark().0.to_owned(),
                number(row.counts.passed),
                number(row.counts.failed),
                number(row.counts.skipped),
                ui::elapsed(Duration::from_secs_f64(row.seconds)),
                row.note.clone(),
            ]
        };
        std::iter::once(head).chain(self.steps.iter().map(row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: &str, verdict: Verdict) -> Row {
        let (result, counts) = (verdict.result(), verdict.counts);
        Row { group: "suites", step: step.into(), result, counts, seconds: 2.5, note: verdict.note, log: None }
    }

    #[test]
    fn machines_get_the_same_rows_as_people() {
        let suite =
            Verdict { counts: Counts { passed: 7, failed: 1, skipped: 2 }, ..Verdict::passed("3 test programs") };
        let steps = vec![row("core", suite), row("report", Verdict::skipped("no browser"))];
        let counts = Counts { passed: 7, failed: 1, skipped: 3 };
        let summary = Summary { verb: "test", counts, seconds: 5.0, steps };
        insta::assert_snapshot!(ui::table(&summary.rows()), @r"
        step    result   passed  failed  skipped  time   note
        core    FAILED   7       1       2        2.5 s  3 test programs
        report  SKIPPED  ·       ·       1        2.5 s  no browser
        ");
        let json = serde_json::to_string(&summary).unwrap();
        insta::assert_snapshot!(json, @r#"{"verb":"test","passed":7,"failed":1,"skipped":3,"seconds":5.0,"steps":[{"group":"suites","step":"core","result":"failed","passed":7,"failed":1,"skipped":2,"seconds":2.5,"note":"3 test programs"},{"group":"suites","step":"report","result":"skipped","passed":0,"failed":0,"skipped":1,"seconds":2.5,"note":"no browser"}]}"#);
    }
}
