//! The host's side of one worker process: start it, exchange frames with it, know how it died.
//! Invariant: dropping it kills and reaps the process, so no path leaves a zombie or a descriptor behind; no read or
//! write blocks past its deadline; what is kept of the worker's output is bounded.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::Signal;

use super::error::Fault;
use super::language::cut;
use super::protocol::{self, HEADER, Hello, MAX_GREETING, Ready, VERSION};
use super::worker::{ARGUMENT, MARK};

/// How much of a worker's last words is kept.
const TAIL: usize = 2048;

/// What is read from a pipe at once: its usual capacity.
const CHUNK: usize = 64 << 10;

/// A running worker.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    errors: Option<ChildStderr>,
    incoming: Vec<u8>,
    chunk: Vec<u8>,
    tail: Vec<u8>,
    /// Calls answered so far.
    pub(super) calls: u32,
}

/// Why an exchange ended early. The worker is of no use afterwards.
#[derive(Debug)]
pub(super) enum Broken {
    /// The worker closed its end: it is dead or dying.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// It sent nonsense.
    Protocol(String),
}

/// What an exchange expects after a frame.
pub(super) enum Next {
    /// Another frame, by then.
    Frame(Instant),
    /// Nothing.
    Done,
}

impl WorkerProcess {
    /// Starts a worker and waits until it is ready.
    pub(super) fn start(program: &Program, hello: &Hello, timeout: Duration) -> Result<(Self, Ready), Fault> {
        let spawn = |why: String| Fault::Spawn { why };
        let mut child =
            program.command().spawn().map_err(|error| spawn(format!("{}: {error}", program.path.display())))?;
        let (Some(input), Some(output), errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            unreachable!("all three were asked for as pipes");
        };
        let mut worker = Self {
            child,
            input,
            output,
            errors,
            incoming: Vec::new(),
            chunk: vec![0; CHUNK],
            tail: Vec::new(),
            calls: 0,
        };
        worker.set_nonblocking().map_err(|error| spawn(error.to_string()))?;
        let greeting = protocol::encode(Vec::new(), hello, MAX_GREETING)
            .map_err(|(_, bytes)| spawn(format!("a greeting of {bytes} bytes")))?;
        let mut ready = None;
        let exchanged = worker.exchange(&greeting, Instant::now() + timeout, MAX_GREETING, &mut |frame| {
            ready = postcard::from_bytes::<Ready>(frame).ok();
            Ok(Next::Done)
        });
        match (exchanged, ready) {
            (Ok(()), Some(ready)) if ready.version == VERSION => Ok((worker, ready)),
            (Err(Broken::Closed), _) => {
                let status = worker.reap();
                let last = worker.last_words();
                Err(spawn(format!("{} ended at once ({status}){last}; {}", program.path.display(), Self::ADVICE)))
            }
            _ => Err(spawn(format!(
                "{} did not answer as a worker within {timeout:?}; {}",
                program.path.display(),
                Self::ADVICE
            ))),
        }
    }

    const ADVICE: &str = "call `ast::worker::run_if_requested()` first in its `main`";

    fn set_nonblocking(&self) -> rustix::io::Result<()> {
        ioctl_fionbio(&self.input, true)?;
        ioctl_fionbio(&self.output, true)?;
        self.errors.as_ref().map_or(Ok(()), |errors| ioctl_fionbio(errors, true))
    }

    /// The process's id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes `outgoing` while reading frames of at most `max` bytes, until `on_frame` says that was the last one.
    pub(super) fn exchange(
        &mut self,
        mut outgoing: &[u8],
        mut deadline: Instant,
        max: usize,
        on_frame: &mut dyn FnMut(&[u8]) -> Result<Next, String>,
    ) -> Result<(), Broken> {
        self.incoming.clear();
        loop {
            while !outgoing.is_empty() {
                match self.input.write(outgoing) {
                    Ok(written) => outgoing = &outgoing[written..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // It is gone, but may have answered before: read on to the end.
                    Err(_) => outgoing = &[],
                }
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            let readable = self.wait(!outgoing.is_empty(), remaining)?;
            if readable {
                match self.output.read(&mut self.chunk) {
                    Ok(0) => return Err(Broken::Closed),
                    Ok(length) => self.incoming.extend_from_slice(&self.chunk[..length]),
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(_) => return Err(Broken::Closed),
                }
                match self.frames(max, on_frame)? {
                    Some(Next::Done) => return Ok(()),
                    Some(Next::Frame(later)) => deadline = later,
                    None => {}
                }
            }
        }
    }

    /// Hands out the frames that are complete; what the last one asked for.
    fn frames(
        &mut self,
        max: usize,
        on_frame: &mut dyn FnMut(&[u8]) -> Result<Next, String>,
    ) -> Result<Option<Next>, Broken> {
        let mut start = 0;
        let mut next = None;
        while let Some((header, rest)) = self.incoming[start..].split_first_chunk::<HEADER>() {
            let length = protocol::length(*header, max)
                .map_err(|length| Broken::Protocol(format!("a frame of {length} bytes; allowed: {max}")))?;
            let Some(frame) = rest.get(..length) else { break };
            let asked = on_frame(frame).map_err(Broken::Protocol)?;
            start += HEADER + length;
            let done = matches!(asked, Next::Done);
            next = Some(asked);
            if done {
                break;
            }
        }
        self.incoming.drain(..start);
        Ok(next)
    }

    /// Waits until there is something to read (`true`) or, when `writing`, to write; drains what it says on the side.
    fn wait(&mut self, writing: bool, remaining: Duration) -> Result<bool, Broken> {
        let timeout = Timespec::try_from(remaining).ok();
        let (output, errors) = {
            let output = PollFd::new(&self.output, PollFlags::IN);
            let errors = self.errors.as_ref().map(|errors| PollFd::new(errors, PollFlags::IN));
            let input = writing.then(|| PollFd::new(&self.input, PollFlags::OUT));
            // What there is no need to watch is replaced by the output a second time.
            let mut pipes = [output.clone(), errors.unwrap_or_else(|| output.clone()), input.unwrap_or(output)];
            match poll(&mut pipes, timeout.as_ref()) {
                Ok(0) => return Err(Broken::TimedOut),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Broken::Protocol(error.to_string())),
            }
            (!pipes[0].revents().is_empty(), !pipes[1].revents().is_empty())
        };
        if errors && self.errors.is_some() {
            self.drain_errors();
        }
        Ok(output)
    }

    fn drain_errors(&mut self) {
        let Some(errors) = &mut self.errors else { return };
        let mut closed = false;
        loop {
            match errors.read(&mut self.chunk) {
                Ok(0) => closed = true,
                Ok(length) => {
                    self.tail.extend_from_slice(&self.chunk[..length]);
                    let excess = self.tail.len().saturating_sub(TAIL);
                    self.tail.drain(..excess);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => closed = true,
            }
            break;
        }
        if closed {
            self.errors = None;
        }
    }

    /// Ends the process if it has not ended itself, and says how it ended.
    fn reap(&mut self) -> ExitStatus {
        // A process that closed its pipes by dying has its status already; this does not change it.
        let _ = self.child.kill();
        // Waiting fails only when someone else reaped the child; nothing is known then.
        let status = self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()));
        self.drain_errors();
        status
    }

    /// What a broken exchange means for the call that was under way.
    pub(super) fn autopsy(mut self, broken: Broken, timeout: Duration, hello: &Hello) -> Fault {
        match broken {
            Broken::TimedOut => return Fault::TimedOut { limit: timeout },
            Broken::Protocol(what) => return Fault::Protocol { what },
            Broken::Closed => {}
        }
        let status = self.reap();
        let said = String::from_utf8_lossy(&self.tail);
        let Some(signal) = status.signal() else {
            return Fault::Exited { code: status.code().unwrap_or_default(), detail: self.last_words() };
        };
        if said.contains("has overflowed its stack") {
            return Fault::StackOverflow;
        }
        if said.contains("memory allocation of ") && said.contains(" failed") {
            return Fault::OutOfMemory { limit: hello.memory_bytes };
        }
        let from_outside = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
        if signal == Signal::XCPU.as_raw() {
            Fault::CpuExhausted { limit: hello.cpu }
        } else if from_outside.iter().any(|outside| outside.as_raw() == signal) {
            Fault::Killed { signal }
        } else {
            Fault::Crashed { signal, detail: self.last_words() }
        }
    }

    /// The last line that was written to standard error, after `: `; empty when there is none.
    fn last_words(&self) -> String {
        let said = String::from_utf8_lossy(&self.tail);
        match said.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
            Some(line) => {
                let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                cut(format!(": {clean}"), 256)
            }
            None => String::new(),
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is started as a worker.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    name: OsString,
}

impl Program {
    /// This very executable, even when its file was replaced or deleted since it was started.
    pub(super) fn this() -> io::Result<Self> {
        let current = std::env::current_exe()?;
        let name = current.file_name().unwrap_or(current.as_os_str()).to_owned();
        let linux = Path::new("/proc/self/exe");
        let path = if linux.exists() { linux.to_owned() } else { current };
        Ok(Self { path, name })
    }

    /// Another executable that calls `run_if_requested`.
    pub(super) fn other(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_owned();
        Ok(Self { path, name })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .arg0(&self.name)
            .arg(ARGUMENT)
            // A parser needs none of the host's environment, least of all its secrets.
            .env_clear()
            .env(MARK, "1")
            .current_dir("/")
            // Ctrl-C in a terminal is for the host, which then ends its workers in its own time.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for kept in ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
    }
}
