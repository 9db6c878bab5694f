//! Runs a list of steps one after the other, all of them even when one fails, and sums up.
//!
//! Invariant: every step ends as exactly one row of the summary; what was not done is counted as skipped, never left out.
//! Shared by `ci` and `test`, which say what the steps are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::process::{self, Ended, Interrupt};
use crate::ui::{self, Running};
use crate::{Stop, ui::paint};

/// Lines of a failed step's output that are shown at once; the log has the rest.
const SHOWN_LINES: usize = 120;

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
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
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
        Self {
            counts: Counts {
                passed: 1,
                ..Counts::default()
            },
            note: note.into(),
            details: String::new(),
        }
    }

    pub(crate) fn failed(note: impl Into<String>) -> Self {
        Self {
            counts: Counts {
                failed: 1,
                ..Counts::default()
            },
            note: note.into(),
            details: String::new(),
        }
    }

    pub(crate) fn skipped(note: impl Into<String>) -> Self {
        Self {
            counts: Counts {
                skipped: 1,
                ..Counts::default()
            },
            note: note.into(),
            details: String::new(),
        }
    }

    pub(crate) fn details(self, details: impl Into<String>) -> Self {
        Self {
            details: details.into(),
            ..self
        }
    }

    /// Passed when the command exited with 0.
    pub(crate) fn of(ended: Ended) -> Self {
        if ended.success() {
            Self::passed("")
        } else {
            Self::failed(ended.to_string())
        }
    }

    fn result(&self) -> StepResult {
        match self.counts {
            Counts { failed: 1.., .. } => StepResult::Failed,
            Counts {
                passed: 0,
                skipped: 1..,
                ..
            } => StepResult::Skipped,
            Counts { .. } => StepResult::Ok,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum StepResult {
    Ok,
    Failed,
    Skipped,
}

impl StepResult {
    fn mark(self) -> (&'static str, anstyle::Style) {
        match self {
            Self::Ok => ("ok", ui::GOOD),
            Self::Failed => ("FAILED", ui::BAD),
            Self::Skipped => ("SKIPPED", ui::NOTE),
        }
    }
}

type Work<'a> = Box<dyn FnOnce(&mut Bench<'_>) -> Result<Verdict, Stop> + 'a>;

/// One step: a group to select it by, a name, and the work.
pub(crate) struct Step<'a> {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    work: Work<'a>,
}

impl std::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.group, self.name)
    }
}

impl<'a> Step<'a> {
    pub(crate) fn new(
        group: &'static str,
        name: impl Into<String>,
        work: impl FnOnce(&mut Bench<'_>) -> Result<Verdict, Stop> + 'a,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            work: Box::new(work),
        }
    }

    /// A step that passes when `command` exits with 0 within `limit`.
    pub(crate) fn command(
        group: &'static str,
        name: impl Into<String>,
        mut command: Command,
        limit: Duration,
    ) -> Self {
        Self::new(group, name, move |bench| {
            Ok(Verdict::of(bench.run(&mut command, limit)?))
        })
    }
}

/// What a step works with: it runs commands here, so that progress, logs and Ctrl-C are the same for all.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    interrupt: &'a Interrupt,
    running: &'a mut Running,
    started: Instant,
    log: PathBuf,
    commands: usize,
}

impl Bench<'_> {
    /// Runs `command`; its output becomes the step's log (a further command of the same step gets a log of its own).
    pub(crate) fn run(&mut self, command: &mut Command, limit: Duration) -> Result<Ended, Stop> {
        self.commands += 1;
        if self.commands > 1 {
            self.log.set_extension(format!("{}.log", self.commands));
        }
        let (running, started, log) = (&mut *self.running, self.started, &self.log);
        process::run(command, log, limit, self.interrupt, |_| {
            running.tick(started.elapsed(), || process::last_line(log));
        })
    }

    /// The output of the command that ran last.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

#[derive(Debug, Serialize)]
struct Row {
    group: &'static str,
    step: String,
    result: StepResult,
    #[serde(flatten)]
    counts: Counts,
    seconds: f64,
    note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<PathBuf>,
}

/// All rows, and their sum.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    verb: &'static str,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    seconds: f64,
    steps: Vec<Row>,
}

impl Summary {
    /// Whether nothing failed.
    pub(crate) fn passed(&self) -> bool {
        self.counts.failed == 0
    }

    /// Prints the table (or JSON) to standard output. The counts are the last line of the table's form.
    pub(crate) fn print(&self, json: bool) -> Result<(), Stop> {
        if json {
            let text = serde_json::to_string_pretty(self)
                .map_err(|error| Stop::Setup(error.to_string()))?;
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
        let skipped: Vec<&str> = self
            .steps
            .iter()
            .filter(|row| row.counts.skipped > 0)
            .map(|row| row.step.as_str())
            .collect();
        if !skipped.is_empty() {
            let line = format!(
                "NOT DONE ({} skipped): {}",
                self.counts.skipped,
                skipped.join(", ")
            );
            anstream::println!("\n{}", paint(ui::NOTE, &line));
        }
        let style = if self.passed() { ui::GOOD } else { ui::BAD };
        anstream::println!("\n{}", paint(style, &self.counts.to_string()));
        Ok(())
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let head = [
            "step", "result", "passed", "failed", "skipped", "time", "note",
        ]
        .map(str::to_owned)
        .to_vec();
        let row = |row: &Row| {
            let number = |n: u64| {
                if n == 0 {
                    "·".to_owned()
                } else {
                    n.to_string()
                }
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
        std::iter::once(head)
            .chain(self.steps.iter().map(row))
            .collect()
    }
}

/// Leaves the steps whose group is named in `only` (all when it is empty).
///
/// # Errors
/// [`Stop::Setup`] when a name in `only` is no group of any step.
pub(crate) fn select<'a>(steps: Vec<Step<'a>>, only: &[String]) -> Result<Vec<Step<'a>>, Stop> {
    let mut groups: Vec<&str> = Vec::new();
    for step in &steps {
        if !groups.contains(&step.group) {
            groups.push(step.group);
        }
    }
    if let Some(unknown) = only.iter().find(|name| !groups.contains(&name.as_str())) {
        return Err(Stop::Setup(format!(
            "--only {unknown}: no such group; allowed: {}",
            groups.join(", ")
        )));
    }
    Ok(steps
        .into_iter()
        .filter(|step| only.is_empty() || only.iter().any(|name| name == step.group))
        .collect())
}

/// Prints groups and names, without running anything.
pub(crate) fn list(steps: &[Step<'_>]) {
    let head = vec!["group".to_owned(), "step".to_owned()];
    let rows: Vec<_> = std::iter::once(head)
        .chain(
            steps
                .iter()
                .map(|step| vec![step.group.to_owned(), step.name.clone()]),
        )
        .collect();
    anstream::print!("{}", ui::table(&rows));
}

/// Runs all steps and keeps their output in `logs`, which is emptied first.
///
/// # Errors
/// [`Stop::Setup`] when the logs can't be written, [`Stop::Interrupted`] on Ctrl-C. A failing step is not an error.
pub(crate) fn run(verb: &'static str, steps: Vec<Step<'_>>, logs: &Path) -> Result<Summary, Stop> {
    let interrupt = Interrupt::watch()?;
    if logs.exists() {
        fs::remove_dir_all(logs).map_err(|error| Stop::write(logs, &error))?;
    }
    fs::create_dir_all(logs).map_err(|error| Stop::write(logs, &error))?;
    let (began, total) = (Instant::now(), steps.len());
    let mut summary = Summary {
        verb,
        counts: Counts::default(),
        seconds: 0.0,
        steps: Vec::with_capacity(total),
    };
    for (number, step) in (1..).zip(steps) {
        let mut running = Running::begin(number, total, &step.name);
        let started = Instant::now();
        let log = logs.join(format!("{number:02}-{}.log", file_name(&step.name)));
        let mut bench = Bench {
            interrupt: &interrupt,
            running: &mut running,
            started,
            log,
            commands: 0,
        };
        let verdict = match (step.work)(&mut bench) {
            Ok(verdict) => verdict,
            Err(stop @ (Stop::Interrupted(_) | Stop::Missing(_))) => return Err(stop),
            // One step that can't do its work must not keep the others from theirs.
            Err(Stop::Setup(line)) => Verdict::failed(line),
        };
        let (log, ran) = (bench.log.clone(), bench.commands > 0);
        let (result, time) = (verdict.result(), started.elapsed());
        let (mark, style) = result.mark();
        running.end(mark, style, time, &verdict.note);
        if result == StepResult::Failed {
            show(&verdict.details, ran.then_some(&log));
        }
        summary.counts += verdict.counts;
        summary.steps.push(Row {
            group: step.group,
            step: step.name,
            result,
            counts: verdict.counts,
            seconds: time.as_secs_f64(),
            note: verdict.note,
            log: ran.then_some(log),
        });
    }
    summary.seconds = began.elapsed().as_secs_f64();
    Ok(summary)
}

/// Shows why a step failed, at once: a person watching should not have to wait for the end.
fn show(details: &str, log: Option<&PathBuf>) {
    for line in details.lines() {
        anstream::eprintln!("    {line}");
    }
    let Some(log) = log else { return };
    let output = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = output.lines().collect();
    let skip = lines.len().saturating_sub(SHOWN_LINES);
    if skip > 0 {
        anstream::eprintln!("    … {skip} lines before these");
    }
    for line in &lines[skip..] {
        anstream::eprintln!("    {line}");
    }
    anstream::eprintln!("    full output: {}", log.display());
}

/// A step's name as part of a file name.
fn file_name(name: &str) -> String {
    let word = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars()
        .map(word)
        .collect::<String>()
        .split('-')
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps<'a>() -> Vec<Step<'a>> {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let limit = Duration::from_secs(60);
        vec![
            Step::command("one", "first: breaks", shell("echo why; exit 3"), limit),
            Step::command("two", "second", shell("true"), limit),
            Step::command("two", "third", Command::new("no-such-program"), limit),
            Step::new("three", "fourth", |_| {
                Ok(Verdict::skipped("no such thing here"))
            }),
        ]
    }

    #[test]
    fn every_step_runs_and_is_counted_even_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let summary = run("ci", steps(), &folder.path().join("logs")).unwrap();
        assert!(!summary.passed());
        let rows: Vec<_> = summary
            .steps
            .iter()
            .map(|row| (row.step.as_str(), row.result, row.note.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                ("first: breaks", StepResult::Failed, "exit code 3"),
                ("second", StepResult::Ok, ""),
                (
                    "third",
                    StepResult::Failed,
                    "cannot start `no-such-program`: No such file or directory (os error 2)"
                ),
                ("fourth", StepResult::Skipped, "no such thing here"),
            ]
        );
        assert_eq!(summary.counts.to_string(), "1 passed, 2 failed, 1 skipped");
        assert_eq!(
            fs::read_to_string(folder.path().join("logs/01-first-breaks.log")).unwrap(),
            "why\n"
        );
    }

    #[test]
    fn a_selection_keeps_whole_groups_and_refuses_unknown_ones() {
        let left = select(steps(), &["two".to_owned()]).unwrap();
        assert_eq!(
            left.iter()
                .map(|step| step.name.as_str())
                .collect::<Vec<_>>(),
            ["second", "third"]
        );
        let stop = select(steps(), &["tow".to_owned()]).unwrap_err();
        assert_eq!(
            stop.to_string(),
            "--only tow: no such group; allowed: one, two, three"
        );
    }

    #[test]
    fn logs_that_cannot_be_written_stop_with_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let line = run("ci", steps(), &file.join("logs"))
            .unwrap_err()
            .to_string();
        assert!(
            line.starts_with("cannot write")
                && line.contains("file/logs")
                && line.lines().count() == 1,
            "{line}"
        );
    }
}
