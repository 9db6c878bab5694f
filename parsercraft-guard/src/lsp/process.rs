//! One server process: started, written to, ended, its last words kept.
//! It is killed with everything it started (its process group, on Unix), and reaped exactly once.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::outbox::{Outbox, Sink};

/// How to start a language server.
///
/// ```
/// use parsercraft_guard::lsp::ServerCommand;
///
/// let command = ServerCommand::new("pyright-langserver").arg("--stdio");
/// assert_eq!(command.name(), "pyright-langserver");
/// ```
#[derive(Debug, Clone)]
pub struct ServerCommand {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
}

impl ServerCommand {
    /// A server started by `program`, looked up in `PATH` unless it has a slash.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), directory: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable; the others are inherited.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory; by default the guard's own.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What it is called in messages: the program without its path.
    pub fn name(&self) -> String {
        let path = Path::new(&self.program);
        path.file_name().unwrap_or(&self.program).to_string_lossy().into_owned()
    }

    /// The program as given.
    pub(crate) fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    pub(crate) generation: u32,
    pub(crate) input: Arc<Outbox>,
    child: Mutex<Option<Child>>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
    pid: u32,
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) how: String,
    pub(crate) code: Option<i32>,
}

/// How much of the server's stderr is kept.
const LAST_WORDS: usize = 8 << 10;

impl ServerProcess {
    pub(crate) fn start(
        command: &ServerCommand,
        generation: u32,
        forward_stderr: bool,
    ) -> io::Result<(Self, ChildStdout)> {
        let mut start = Command::new(&command.program);
        start.args(&command.args).envs(command.env.iter().map(|(name, value)| (name, value)));
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(directory) = &command.directory {
            start.current_dir(directory);
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut start, 0);
        let mut child = start.spawn()?;
        let pid = child.id();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(io::Error::other("the server's pipes are missing"));
        };
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let words = Arc::clone(&last_words);
        let sink = sink(stdin);
        let threads = Outbox::start(sink, "lsp-to-server").and_then(|input| {
            let reader = std::thread::Builder::new().name("lsp-stderr".to_owned());
            reader.spawn(move || listen(stderr, &words, forward_stderr)).map(|_| input)
        });
        match threads {
            Ok(input) => Ok((Self { generation, input, child: Mutex::new(Some(child)), last_words, pid }, stdout)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The process id, for diagnostics.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the server and what it started.
    pub(crate) fn kill(&self) {
        if let Some(child) = &mut *self.child() {
            kill_group(child);
        }
    }

    /// Waits for the end for at most `grace`, then kills; returns how it ended. Called once, when its output ended.
    pub(crate) fn reap(&self, grace: Duration) -> Ended {
        let until = Instant::now() + grace;
        loop {
            // Locked only for an instant, so that `kill` gets its turn; reaped under the lock, so that a process id
            // is never used after it is free.
            let mut slot = self.child();
            let Some(child) = &mut *slot else { return Ended { how: "it ended".to_owned(), code: None } };
            let status = match child.try_wait() {
                Ok(None) if Instant::now() < until => None,
                Ok(None) => {
                    kill_group(child);
                    child.wait().ok()
                }
                Ok(Some(status)) => Some(status),
                Err(_) => child.wait().ok(),
            };
            if let Some(status) = status {
                *slot = None;
                drop(slot);
                self.input.close();
                return Ended { how: self.describe(status), code: status.code() };
            }
            drop(slot);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, status: ExitStatus) -> String {
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = words.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        match text.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("{status}; last words: {}", line.trim().chars().take(200).collect::<String>()),
            None => status.to_string(),
        }
    }
}

/// Kills the process group while its leader is not reaped, so that its number cannot belong to anyone else.
fn kill_group(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
}

#[cfg(unix)]
fn sink(stdin: std::process::ChildStdin) -> Sink {
    Sink::Descriptor(File::from(std::os::fd::OwnedFd::from(stdin)))
}

#[cfg(not(unix))]
fn sink(stdin: std::process::ChildStdin) -> Sink {
    Sink::Stream(Box::new(stdin))
}

/// Reads stderr to its end, keeping the last of it.
fn listen(mut stderr: ChildStderr, last_words: &Mutex<VecDeque<u8>>, forward: bool) {
    let mut chunk = [0; 4096];
    loop {
        match stderr.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
                words.extend(&chunk[..count]);
                let surplus = words.len().saturating_sub(LAST_WORDS);
                words.drain(..surplus);
                drop(words);
                if forward {
                    // A stderr that is closed is no reason to stop listening.
                    let _ = io::stderr().write_all(&chunk[..count]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
