//! Runs a list of steps one after the other, all of them even when one fails, and sums up.
//!
//! Invariant: every step ends as exactly one row of the summary; what was not done is counted as skipped, never left out.
//! Shared by `ci` and `test`, which say what the steps are.

mod summary;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

pub(crate) use self::summary::{Counts, Summary, Verdict};
use self::summary::{Row, StepResult};
use crate::Stop;
use crate::process::{self, Ended, Interrupt};
use crate::ui::{self, Running};

/// Lines of a failed step's output that are shown at once; the log has the rest.
const SHOWN_LINES: usize = 120;

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
        Self { group, name: name.into(), work: Box::new(work) }
    }

    /// A step that passes when `command` exits with 0 within `limit`.
    pub(crate) fn command(group: &'static str, name: impl Into<String>, mut command: Command, limit: Duration) -> Self {
        Self::new(group, name, move |bench| Ok(Verdict::of(bench.run(&mut command, limit)?)))
    }
}

/// What a step works with: it runs commands here, so that progress, logs and Ctrl-C are the same for all.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    interrupt: &'a Interrupt,
    running: &'a mut Running,
    started: Instant,
    /// The step's log without its extension.
    stem: PathBuf,
    commands: usize,
}

impl Bench<'_> {
    /// Runs `command`; its output becomes the step's log (a further command of the same step gets a log of its own).
    pub(crate) fn run(&mut self, command: &mut Command, limit: Duration) -> Result<Ended, Stop> {
        self.commands += 1;
        let log = self.stem.with_extension(self.extension());
        let (running, started) = (&mut *self.running, self.started);
        process::run(command, &log, limit, self.interrupt, |_| {
            running.tick(started.elapsed(), || process::last_line(&log));
        })
    }

    /// The log of the command that ran last, if one did.
    fn log(&self) -> Option<PathBuf> {
        (self.commands > 0).then(|| self.stem.with_extension(self.extension()))
    }

    /// `log` for a step's first command, then `2.log` and so on.
    fn extension(&self) -> String {
        if self.commands > 1 { format!("{}.log", self.commands) } else { "log".to_owned() }
    }

    /// The output of the command that ran last.
    pub(crate) fn output(&self) -> String {
        self.log()
            .and_then(|log| fs::read(log).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
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
        return Err(Stop::Setup(format!("--only {unknown}: no such group; allowed: {}", groups.join(", "))));
    }
    Ok(steps.into_iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.group)).collect())
}

/// Prints groups and names, without running anything.
pub(crate) fn list(steps: &[Step<'_>]) {
    let head = vec!["group".to_owned(), "step".to_owned()];
    let rows: Vec<_> =
        std::iter::once(head).chain(steps.iter().map(|step| vec![step.group.to_owned(), step.name.clone()])).collect();
    anstream::print!("{}", ui::table(&rows));
}

/// Runs all steps and keeps their output in `logs`, which is emptied first.
///
/// # Errors
/// [`Stop::Setup`] when the logs can't be written, [`Stop::Interrupted`] on Ctrl-C. A failing step is not an error.
pub(crate) fn run(verb: &'static str, steps: Vec<Step<'_>>, logs: &Path) -> Result<Summary, Stop> {
    let interrupt = Interrupt::watch()?;
    let lock = lock(verb, logs)?;
    if logs.exists() {
        fs::remove_dir_all(logs).map_err(|error| Stop::write(logs, &error))?;
    }
    fs::create_dir_all(logs).map_err(|error| Stop::write(logs, &error))?;
    let (began, total) = (Instant::now(), steps.len());
    let mut summary = Summary { verb, counts: Counts::default(), seconds: 0.0, steps: Vec::with_capacity(total) };
    for (number, step) in (1..).zip(steps) {
        let mut running = Running::begin(number, total, &step.name);
        let started = Instant::now();
        let stem = logs.join(format!("{number:02}-{}", file_name(&step.name)));
        let mut bench = Bench { interrupt: &interrupt, running: &mut running, started, stem, commands: 0 };
        let verdict = match (step.work)(&mut bench) {
            Ok(verdict) => verdict,
            Err(stop @ (Stop::Interrupted(_) | Stop::Missing(_))) => return Err(stop),
            // One step that can't do its work must not keep the others from theirs.
            Err(Stop::Setup(line)) => Verdict::failed(line),
        };
        let log = bench.log();
        let (result, time) = (verdict.result(), started.elapsed());
        let (mark, style) = result.mark();
        running.end(mark, style, time, &verdict.note);
        if result != StepResult::Ok {
            show(&verdict.details, log.as_deref());
        }
        summary.counts += verdict.counts;
        summary.steps.push(Row {
            group: step.group,
            step: step.name,
            result,
            counts: verdict.counts,
            seconds: time.as_secs_f64(),
            note: verdict.note,
            log,
        });
    }
    summary.seconds = began.elapsed().as_secs_f64();
    drop(lock);
    Ok(summary)
}

/// Held while a verb runs: a second one would empty the first one's logs and report its files as its own.
pub(crate) fn lock(verb: &str, logs: &Path) -> Result<File, Stop> {
    let path = logs.with_extension("lock");
    let write = |error| Stop::write(&path, &error);
    fs::create_dir_all(path.parent().unwrap_or(logs)).map_err(write)?;
    let file = File::create(&path).map_err(write)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => Stop::Setup(format!(
            "another `cargo xtask {verb}` is running in this checkout; wait for it to end, or set CARGO_TARGET_DIR"
        )),
        other => write(other.into()),
    })?;
    Ok(file)
}

/// Shows why a step failed or was skipped, at once: a person watching should not have to wait for the end.
fn show(details: &str, log: Option<&Path>) {
    for line in details.lines() {
        anstream::eprintln!("    {line}");
    }
    let Some(log) = log else { return };
    if !details.is_empty() {
        // The step knew what matters in its output.
        anstream::eprintln!("    full output: {}", log.display());
        return;
    }
    let output = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
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
        if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }
    };
    name.chars().map(word).collect::<String>().split('-').filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-")
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
            Step::new("three", "fourth", |_| Ok(Verdict::skipped("no such thing here"))),
        ]
    }

    #[test]
    fn every_step_runs_and_is_counted_even_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let summary = run("ci", steps(), &folder.path().join("logs")).unwrap();
        assert!(!summary.passed());
        let rows: Vec<_> = summary.steps.iter().map(|row| (row.step.as_str(), row.result, row.note.as_str())).collect();
        assert_eq!(
            rows,
            [
                ("first: breaks", StepResult::Failed, "exit code 3"),
                ("second", StepResult::Ok, ""),
                ("third", StepResult::Failed, "cannot start `no-such-program`: No such file or directory (os error 2)"),
                ("fourth", StepResult::Skipped, "no such thing here"),
            ]
        );
        assert_eq!(summary.counts.to_string(), "1 passed, 2 failed, 1 skipped");
        assert_eq!(fs::read_to_string(folder.path().join("logs/01-first-breaks.log")).unwrap(), "why\n");
    }

    #[test]
    fn a_selection_keeps_whole_groups_and_refuses_unknown_ones() {
        let left = select(steps(), &["two".to_owned()]).unwrap();
        assert_eq!(left.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["second", "third"]);
        let stop = select(steps(), &["tow".to_owned()]).unwrap_err();
        assert_eq!(stop.to_string(), "--only tow: no such group; allowed: one, two, three");
    }

    #[test]
    fn a_second_run_at_the_same_time_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("ci");
        let inner = logs.clone();
        let outer = Step::new("one", "outer", move |_| {
            let line = run("ci", steps(), &inner).unwrap_err().to_string();
            Ok(Verdict::skipped(line))
        });
        let summary = run("ci", vec![outer], &logs).unwrap();
        let line = &summary.steps[0].note;
        assert!(line.starts_with("another `cargo xtask ci` is running"), "{line}");
        assert_eq!(run("ci", steps(), &logs).unwrap().steps.len(), 4);
    }

    #[test]
    fn logs_that_cannot_be_written_stop_with_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let line = run("ci", steps(), &file.join("logs")).unwrap_err().to_string();
        assert!(line.starts_with("cannot write") && line.contains("file/logs") && line.lines().count() == 1, "{line}");
    }
}
