//! Runs one child process: output into a log file, a time limit, and its whole process group stopped when we are.
//!
//! Invariant: when [`run`] returns, no process of the child's group is left running.
//! It doesn't judge exit codes and prints nothing; callers do.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Stop;

/// How often a running child is looked at: short enough to feel immediate, long enough to cost nothing.
const POLL: Duration = Duration::from_millis(50);
/// Time between asking a group to stop and killing it.
const GRACE: Duration = Duration::from_secs(3);
/// A child that writes more than this is out of control; the disk is worth more than its output.
const LOG_LIMIT: u64 = 256 << 20;

/// Ctrl-C and SIGTERM, noticed instead of obeyed, so that children can be stopped first.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Takes over SIGINT and SIGTERM for the rest of this process.
    pub(crate) fn watch() -> Result<Self, Stop> {
        let caught = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(signal, Arc::clone(&caught), signal.unsigned_abs() as usize)
                .map_err(|error| Stop::Setup(format!("cannot watch for Ctrl-C: {error}")))?;
        }
        Ok(Self(caught))
    }

    /// The signal that asked us to stop, if one did.
    pub(crate) fn caught(&self) -> Option<i32> {
        // Relaxed: the number is all there is to see; nothing else was written before it.
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}

/// How a child came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It exited by itself with this code.
    Code(i32),
    /// It was killed by this signal (not by us).
    Signal(i32),
    /// We killed it: it ran longer than it was given.
    TimedOut(Duration),
    /// We killed it: its log grew past [`LOG_LIMIT`].
    TooMuchOutput,
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }

    /// Whether the child exited with code 0.
    pub(crate) fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut(limit) => write!(f, "stopped after its limit of {} s", limit.as_secs()),
            Self::TooMuchOutput => write!(f, "stopped after {} MiB of output", LOG_LIMIT >> 20),
        }
    }
}

/// A process group of ours; dropping it kills what is left of it.
struct Group {
    child: Child,
    pid: Pid,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // An error means that the group is gone already, which is what we want.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Asks the group to stop, waits for [`GRACE`] at most, then kills it.
    fn stop(&mut self) {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs `command` with both output streams in `log` (in the order written) until it ends, `limit` passes or we are
/// interrupted. `tick` is called about twenty times a second with the time elapsed.
///
/// # Errors
/// [`Stop::Setup`] when the log can't be written or the program can't be started; [`Stop::Interrupted`] on Ctrl-C.
pub(crate) fn run(
    command: &mut Command,
    log: &Path,
    limit: Duration,
    interrupt: &Interrupt,
    mut tick: impl FnMut(Duration),
) -> Result<Ended, Stop> {
    let write = |error| Stop::write(log, &error);
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).map_err(write)?;
    }
    let output = File::create(log).map_err(write)?;
    let errors = output.try_clone().map_err(write)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|error| Stop::Setup(format!("cannot start `{}`: {error}", shown(command))))?;
    let pid = Pid::from_child(&child);
    let mut group = Group { child, pid };
    let started = Instant::now();
    loop {
        match group.child.try_wait() {
            Ok(Some(status)) => return Ok(Ended::of(status)),
            Ok(None) => {}
            Err(error) => {
                return Err(Stop::Setup(format!("cannot wait for `{}`: {error}", shown(command))));
            }
        }
        if let Some(signal) = interrupt.caught() {
            group.stop();
            return Err(Stop::Interrupted(signal));
        }
        if started.elapsed() > limit {
            group.stop();
            return Ok(Ended::TimedOut(limit));
        }
        if fs::metadata(log).is_ok_and(|log| log.len() > LOG_LIMIT) {
            group.stop();
            return Ok(Ended::TooMuchOutput);
        }
        tick(started.elapsed());
        std::thread::sleep(POLL);
    }
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let word = |word: &OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word.into_owned() } else { format!("'{word}'") }
    };
    let environment = command
        .get_envs()
        .filter(|(name, _)| *name != "CARGO_TERM_COLOR")
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), word(value?))));
    // The toolchain's own cargo has a long path that says nothing.
    let program = Path::new(command.get_program());
    let program = if program.ends_with("cargo") { OsStr::new("cargo") } else { program.as_os_str() };
    environment.chain([word(program)]).chain(command.get_args().map(word)).collect::<Vec<_>>().join(" ")
}

/// The last line of a log that says something, for progress; reads at most the last 2 KiB.
pub(crate) fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2048))).ok()?;
    let mut tail = Vec::new();
    file.take(2048).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Interrupt {
        Interrupt(Arc::new(AtomicUsize::new(0)))
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_land_in_the_log_in_order_and_the_code_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("deep/er/step.log");
        let ended =
            run(&mut shell("echo one; echo two >&2; echo three; exit 7"), &log, GRACE * 20, &watch(), |_| {}).unwrap();
        assert_eq!(ended, Ended::Code(7));
        assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(last_line(&log).as_deref(), Some("three"));
    }

    #[test]
    fn a_child_past_its_limit_is_stopped_with_its_own_children() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let limit = Duration::from_millis(200);
        // The grandchild ignores the polite signal; its number goes to the log.
        let script = "sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo $!; wait";
        let ended = run(&mut shell(script), &log, limit, &watch(), |_| {}).unwrap();
        assert_eq!(ended, Ended::TimedOut(limit));
        let grandchild = fs::read_to_string(&log).unwrap().lines().next().unwrap().to_owned();
        let state = || fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        let gone = |stat: String| stat.is_empty() || stat.contains(") Z ");
        assert!((0..200).any(|_| {
            let done = gone(state());
            if !done {
                std::thread::sleep(POLL);
            }
            done
        }));
    }

    #[test]
    fn an_interrupt_stops_the_child_and_names_the_signal() {
        let folder = tempfile::tempdir().unwrap();
        let interrupt = watch();
        let flag = Arc::clone(&interrupt.0);
        let stop = run(&mut shell("sleep 600"), &folder.path().join("log"), GRACE * 100, &interrupt, |_| {
            flag.store(2, Ordering::Relaxed);
        });
        assert!(matches!(stop, Err(Stop::Interrupted(2))), "{stop:?}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_a_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let stop = run(&mut Command::new("no-such-program"), &folder.path().join("log"), GRACE, &watch(), |_| {});
        let line = stop.unwrap_err().to_string();
        assert!(line.starts_with("cannot start `no-such-program`: "), "{line}");
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("RUSTDOCFLAGS", "-D warnings").args(["test", "-p", "core", "--test", "loom*"]);
        assert_eq!(shown(&command), "RUSTDOCFLAGS='-D warnings' cargo test -p core --test 'loom*'");
    }
}
