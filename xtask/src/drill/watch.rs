//! Starts the guarded process, follows what it tells, kills it once at a moment drawn from the seed, starts it again and
//! finally tells it to stop. It writes down what happened; judging is not its business.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::guarded::Orders;
use super::line::{Check, Findings, HandlerLine, Line, Stage, now_ms};
use super::{GUARDED, ROLE};
use crate::Stop;
use crate::process::Interrupt;
use crate::ui;

/// Silence about the work longer than this means that the guarded process hangs.
const SILENCE: Duration = Duration::from_secs(90);

/// Everything that happened.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) seed: u64,
    pub(super) began_ms: u64,
    pub(super) took: Duration,
    pub(super) stages: BTreeMap<Stage, Findings>,
    /// What was watched and judged from outside, by area.
    pub(super) outside: BTreeMap<&'static str, Vec<Check>>,
    /// Records that the audit log promised to keep.
    pub(super) acknowledged: Vec<String>,
    /// Milliseconds since the beginning, and what was injected.
    pub(super) faults: Vec<(u64, String)>,
    /// Milliseconds since the beginning, status and reasons; per life of the process.
    pub(super) health: Vec<Vec<(u64, String, String)>>,
    /// When and where the process was killed.
    pub(super) killed: Option<(u64, Stage, u64, u64)>,
    /// For each life: records in the log when it began, and whether a torn tail was cut.
    pub(super) lives: Vec<(u64, bool)>,
    pub(super) handlers: Vec<HandlerLine>,
    pub(super) audit_counts: BTreeMap<String, u64>,
    pub(super) troubles: Vec<String>,
}

impl Story {
    pub(super) fn checks(&self) -> impl Iterator<Item = (&'static str, &Check)> {
        let inside = self.stages.iter().flat_map(|(stage, it)| it.checks.iter().map(|check| (stage.as_str(), check)));
        let outside = self.outside.iter().flat_map(|(area, checks)| checks.iter().map(|check| (*area, check)));
        inside.chain(outside)
    }

    pub(super) fn passed(&self) -> bool {
        self.troubles.is_empty()
            && Stage::ALL.iter().all(|stage| self.stages.contains_key(stage))
            && self.checks().all(|(_, check)| check.ok)
    }

    fn since(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(self.began_ms)
    }
}

/// How one life of the guarded process ended.
enum End {
    /// We killed it, as planned; what it had started.
    Killed(Vec<Started>),
    /// It ended by itself, with what the system says.
    Over(String, bool),
}

struct Guarded {
    child: Child,
    lines: Receiver<Line>,
    /// Open for as long as we live: the guarded process ends when it closes.
    _tether: Option<ChildStdin>,
}

impl Guarded {
    fn start(orders: &Orders) -> Result<Self, Stop> {
        let failed = |error: std::io::Error| Stop::Setup(format!("cannot start the guarded process: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let log = orders.directory.join("stderr.log");
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let mut child = Command::new(program)
            .env(ROLE, GUARDED)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.map_err(|error| Stop::write(&log, &error))?)
            .spawn()
            .map_err(failed)?;
        let text = serde_json::to_string(orders).map_err(|error| Stop::Setup(error.to_string()))?;
        let mut tether = child.stdin.take();
        if let Some(input) = &mut tether {
            // A process that died already is found out by its silence.
            let _ = writeln!(input, "{text}");
        }
        let (sender, lines) = channel();
        let output = child.stdout.take();
        std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                // A half line of a killed process is no line.
                if let Ok(line) = serde_json::from_str(&line)
                    && sender.send(line).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { child, lines, _tether: tether })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the whole drill.
pub(super) fn run(mut orders: Orders, interrupt: &Interrupt) -> Result<Story, Stop> {
    let mut random = fastrand::Rng::with_seed(orders.seed);
    let kill_at = (Stage::ALL[random.usize(..Stage::ALL.len())], random.f64() * 0.8 + 0.1);
    let mut story = Story { seed: orders.seed, began_ms: now_ms(), ..Story::default() };
    let begun = Instant::now();
    let mut kill_at = Some(kill_at);
    loop {
        story.health.push(Vec::new());
        let mut guarded = Guarded::start(&orders)?;
        match live(&mut guarded, &mut story, &mut kill_at, interrupt)? {
            End::Killed(started) => {
                drop(guarded);
                orphans(&mut story, &started);
                orders.skip = story.stages.keys().copied().collect();
            }
            End::Over(how, as_told) => {
                let check =
                    Check::new(as_told, "the process ends when it is told to, with the code of its report", how);
                story.outside.entry("shutdown").or_default().push(check);
                break;
            }
        }
    }
    story.took = begun.elapsed();
    Ok(story)
}

/// Follows one life of the process to its end.
fn live(
    guarded: &mut Guarded,
    story: &mut Story,
    kill_at: &mut Option<(Stage, f64)>,
    interrupt: &Interrupt,
) -> Result<End, Stop> {
    let mut running: Option<(ui::Running, Instant)> = None;
    let mut heard = Instant::now();
    let mut progress = String::new();
    let mut told_to_stop = false;
    let mut expected_code = None;
    loop {
        if let Some(signal) = interrupt.caught() {
            return Err(Stop::Interrupted(signal));
        }
        let line = match guarded.lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) if heard.elapsed() < SILENCE => {
                if let Some((running, begun)) = &mut running {
                    running.tick(begun.elapsed(), || Some(progress.clone()));
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {
                story.troubles.push(format!("the guarded process said nothing for {} s", SILENCE.as_secs()));
                let _ = guarded.child.kill();
                return Ok(End::Over("it hung and was killed".into(), false));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = guarded.child.wait().map_err(|error| Stop::Setup(error.to_string()))?;
                let as_told = told_to_stop && status.code().map(u32::try_from) == expected_code.map(Ok);
                let how = match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, signal) => format!("died of signal {}", signal.unwrap_or(0)),
                };
                if !told_to_stop {
                    story.troubles.push(format!("the guarded process ended by itself: {how}"));
                }
                return Ok(End::Over(how, as_told));
            }
        };
        // A health that flaps is no sign that the work goes on.
        if !matches!(line, Line::Health { .. }) {
            heard = Instant::now();
        }
        match line {
            Line::Started { records, torn } => story.lives.push((records, torn)),
            Line::Stage { stage } => {
                let number = Stage::ALL.iter().position(|one| *one == stage).unwrap_or(0) + 1;
                running = Some((ui::Running::begin(number, Stage::ALL.len(), stage.as_str()), Instant::now()));
            }
            Line::Progress { stage, done, total } => {
                progress = format!("{done} of {total}");
                if let Some((running, begun)) = &mut running {
                    running.tick(begun.elapsed(), || Some(progress.clone()));
                }
                let due = kill_at.is_some_and(|(at, part)| at == stage && done as f64 >= part * total as f64);
                if due {
                    *kill_at = None;
                    let started = descendants(guarded.child.id());
                    let _ = guarded.child.kill();
                    story.killed = Some((story.since(now_ms()), stage, done, total));
                    if let Some((running, begun)) = running.take() {
                        running.end("killed", ui::NOTE, begun.elapsed(), "kill -9 on purpose; starting it again");
                    }
                    // What it said before it died still counts.
                    while let Ok(line) = guarded.lines.recv() {
                        hear(story, line);
                    }
                    return Ok(End::Killed(started));
                }
            }
            Line::Finished { stage, findings } => {
                let failed = findings.checks.iter().filter(|check| !check.ok).count();
                if let Some((running, begun)) = running.take() {
                    let (mark, style) = if failed == 0 { ("ok", ui::GOOD) } else { ("FAILED", ui::BAD) };
                    let note = format!("{} checks, {} faults injected", findings.checks.len(), findings.faults);
                    running.end(mark, style, begun.elapsed(), &note);
                }
                story.stages.insert(stage, findings);
            }
            Line::Waiting => {
                told_to_stop = true;
                // An error means that it is gone already; its exit status tells.
                let _ = kill_process(Pid::from_child(&guarded.child), Signal::TERM);
            }
            Line::Shutdown { handlers, exit_code } => {
                story.handlers = handlers;
                expected_code = Some(u32::from(exit_code));
            }
            other => hear(story, other),
        }
    }
}

/// What is only written down.
fn hear(story: &mut Story, line: Line) {
    match line {
        Line::Acknowledged { anchor } => story.acknowledged.push(anchor),
        Line::Fault { at_ms, what } => {
            let at = story.since(at_ms);
            story.faults.push((at, what));
        }
        Line::Health { at_ms, status, why } => {
            let at = story.since(at_ms);
            if let Some(life) = story.health.last_mut() {
                life.push((at, status, why));
            }
        }
        Line::Failed { why } => story.troubles.push(why),
        _ => {}
    }
}

/// A process by its number and the time it was started, so that a number used again is not mistaken for it.
type Started = (u32, u64);

/// Parent and start time of every process, on systems that tell.
fn processes() -> BTreeMap<u32, (u32, u64)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in brackets may hold anything; what follows the last bracket does not: state, parent, …, start time.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let ended = fields.first() == Some(&"Z");
        if let (false, Some(parent), Some(started)) = (ended, field(1), field(19)) {
            found.insert(pid, (u32::try_from(parent).unwrap_or(0), started));
        }
    }
    found
}

/// The processes below `parent` at this moment.
fn descendants(parent: u32) -> Vec<Started> {
    let all = processes();
    let (mut above, mut found) = (vec![parent], Vec::new());
    while let Some(one) = above.pop() {
        for (pid, (parent, started)) in &all {
            if *parent == one {
                above.push(*pid);
                found.push((*pid, *started));
            }
        }
    }
    found
}

/// Whatever the killed process had started must end with it.
fn orphans(story: &mut Story, started: &[Started]) {
    let begun = Instant::now();
    let left = loop {
        let all = processes();
        let left = started.iter().filter(|(pid, at)| all.get(pid).is_some_and(|(_, started)| started == at)).count();
        if left == 0 || begun.elapsed() > Duration::from_secs(10) {
            break left;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let found = format!("{} there, {left} left after {:.1} s", started.len(), begun.elapsed().as_secs_f64());
    let well = left == 0 && !started.is_empty();
    let check = Check::new(well, "workers and servers of the killed process end with it", found);
    story.outside.entry("kill -9").or_default().push(check);
}
