//! The shell around [`Session`]: threads, pipes and processes. It decides nothing; it does what the session says.
//! Every message is parsed, followed and written on by the thread that read it, under one short lock and without a
//! thread switch: threads, not an async runtime, because each hop between tasks would cost more than all the work.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilience_core::{Clock, Event, Instant, Severity};

use super::config::LspConfig;
use super::error::LspError;
use super::frame::{FrameDecoder, FrameError};
use super::outbox::{Outbox, Sink};
use super::process::{ServerCommand, ServerProcess};
use super::session::{Action, Notice, Session};
use super::stats::LspStats;

/// The editor's side of a guarded server: what it writes, and what it reads.
pub struct EditorStreams {
    input: Box<dyn Read + Send>,
    output: Sink,
}

impl std::fmt::Debug for EditorStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EditorStreams").field("output", &self.output).finish_non_exhaustive()
    }
}

impl EditorStreams {
    /// Any two streams. `input` is what the editor says; its end is the editor's leaving.
    pub fn new(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> Self {
        Self { input: Box::new(input), output: Sink::Stream(Box::new(output)) }
    }

    /// Two pipes or sockets; what is written to them passes without a thread switch.
    #[cfg(unix)]
    pub fn from_descriptors(input: impl Into<std::os::fd::OwnedFd>, output: impl Into<std::os::fd::OwnedFd>) -> Self {
        Self { input: Box::new(File::from(input.into())), output: Sink::Descriptor(File::from(output.into())) }
    }

    /// This process's stdin and stdout.
    ///
    /// # Errors
    /// When one of them is closed.
    #[cfg(unix)]
    pub fn stdio() -> io::Result<Self> {
        use std::os::fd::AsFd;
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::from_descriptors(input, output))
    }

    /// This process's stdin and stdout.
    ///
    /// # Errors
    /// None on this platform.
    #[cfg(not(unix))]
    pub fn stdio() -> io::Result<Self> {
        Ok(Self::new(io::stdin(), io::stdout()))
    }
}

/// How a session ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct LspEnd {
    /// The exit code for the process: the server's own, or what the protocol says (1 for `exit` without `shutdown`).
    pub code: i32,
    /// The final numbers.
    pub stats: LspStats,
}

/// A guarded language server: one session between an editor and a server that may die.
///
/// Cheap to clone; all clones are the same session. Dropping them does not end it: the editor's leaving does, or
/// [`stop`](Self::stop).
///
/// ```no_run
/// use parsercraft_guard::lsp::{EditorStreams, LspConfig, ServerCommand, Supervisor};
///
/// let command = ServerCommand::new("pyright-langserver").arg("--stdio");
/// let guard = Supervisor::start(LspConfig::default(), command, EditorStreams::stdio()?)?;
/// let end = guard.wait()?;
/// eprintln!("{} restarts, {} requests answered in the server's place", end.stats.restarts, end.stats.degraded);
/// # Ok::<(), parsercraft_guard::lsp::LspError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: LspConfig,
    command: ServerCommand,
    name: String,
    clock: Clock,
    editor: Arc<Outbox>,
    state: Mutex<State>,
    /// A deadline came nearer.
    nearer: Condvar,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    session: Session,
    server: Option<Arc<ServerProcess>>,
    /// What the timer thread sleeps until.
    alarm: Option<Instant>,
    end: Option<i32>,
    /// Why the session is over, when that is an error.
    error: Option<LspError>,
}

/// How long the end of the session waits for the editor to read what is left for it.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// How long a server whose output has ended may take to exit by itself, so that its own status is known.
const EXIT_GRACE: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Starts `command` and guards it for the editor at the other end of `editor`.
    ///
    /// A program that does not exist is no error here: the editor, if there is one, is told, and
    /// [`wait`](Self::wait) returns the error.
    ///
    /// # Errors
    /// [`LspError::Config`] for a bad setting, [`LspError::Io`] when no thread can be started.
    pub fn start(config: LspConfig, command: ServerCommand, editor: EditorStreams) -> Result<Self, LspError> {
        let clock = Clock::system();
        let name = command.name();
        let session = Session::new(&name, config.clone(), &clock)?;
        let EditorStreams { input, output } = editor;
        let shared = Arc::new(Shared {
            config,
            command,
            name,
            clock,
            editor: Outbox::start(output, "lsp-to-editor")?,
            state: Mutex::new(State { session, server: None, alarm: None, end: None, error: None }),
            nearer: Condvar::new(),
            ended: Condvar::new(),
        });
        let timekeeper = Arc::clone(&shared);
        let reader = Arc::clone(&shared);
        thread("lsp-timer", move || timekeeper.keep_time())?;
        shared.with(|_, _| {}); // the first action: start the server
        thread("lsp-from-editor", move || reader.read_editor(input))?;
        Ok(Self(shared))
    }

    /// The numbers so far.
    pub fn stats(&self) -> LspStats {
        self.0.lock().session.stats()
    }

    /// The process id of the server, while one runs.
    pub fn server_pid(&self) -> Option<u32> {
        self.0.lock().server.as_ref().map(|server| server.pid())
    }

    /// Kills the server and what it started; the guard goes on as after any crash. Whether a server ran.
    pub fn kill_server(&self) -> bool {
        // Not taken out of the state: that it is gone is found out as it would be after a real crash.
        self.0.lock().server.as_ref().inspect(|server| server.kill()).is_some()
    }

    /// The text and version of an open document, as the editor shows it.
    pub fn document(&self, uri: &str) -> Option<(String, i64)> {
        let state = self.0.lock();
        state.session.documents().get(uri).map(|document| (document.text().to_owned(), document.version()))
    }

    /// Ends the session as if the editor had left: the server is asked to exit, then killed. Returns at once.
    pub fn stop(&self) {
        self.0.with(Session::editor_closed);
    }

    /// Waits for the end of the session.
    ///
    /// # Errors
    /// [`LspError::CannotStart`] when there was no server at all, [`LspError::Editor`] when what the editor sent
    /// could not be read.
    pub fn wait(&self) -> Result<LspEnd, LspError> {
        let mut state = self.0.lock();
        let code = loop {
            match state.end {
                Some(code) => break code,
                None => state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        let numbers = state.session.stats();
        let error = state.error.take();
        drop(state);
        self.0.editor.close();
        self.0.editor.wait_below(0, LAST_WRITES);
        error.map_or(Ok(LspEnd { code, stats: numbers }), Err)
    }
}

/// Guards `command` on this process's stdin and stdout until the editor leaves: what
/// `parsercraft-guard lsp -- <server> [args]` does. `started` is given the session, for signals and statistics.
///
/// ```no_run
/// use parsercraft_guard::lsp::{LspConfig, ServerCommand, run_stdio};
///
/// let end = run_stdio(LspConfig::default(), ServerCommand::new("clangd"), |_| {})?;
/// std::process::exit(end.code);
/// # #[allow(unreachable_code)]
/// # Ok::<(), parsercraft_guard::lsp::LspError>(())
/// ```
///
/// # Errors
/// [`LspError::CannotStart`] when there is no such program; with an editor at the other end it is told first. Else as
/// [`Supervisor::start`] and [`Supervisor::wait`].
pub fn run_stdio(
    config: LspConfig,
    command: ServerCommand,
    started: impl FnOnce(&Supervisor),
) -> Result<LspEnd, LspError> {
    let supervisor = Supervisor::start(config, command, EditorStreams::stdio()?)?;
    started(&supervisor);
    let nobody_there = io::stdin().is_terminal();
    if nobody_there && let Some(error) = supervisor.0.lock().error.take() {
        return Err(error);
    }
    supervisor.wait()
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the session something and does what it says.
    fn with(self: &Arc<Self>, tell: impl FnOnce(&mut Session, Instant)) {
        let mut state = self.lock();
        tell(&mut state.session, self.clock.now());
        let notices = self.perform(&mut state);
        let next = state.session.next_deadline();
        if next.is_some_and(|next| state.alarm.is_none_or(|alarm| next < alarm)) {
            state.alarm = next;
            self.nearer.notify_one();
        }
        drop(state);
        for notice in notices {
            self.announce(&notice);
        }
    }

    fn perform(self: &Arc<Self>, state: &mut State) -> Vec<Notice> {
        let mut notices = Vec::new();
        while let Some(action) = state.session.poll_action() {
            match action {
                Action::ToEditor(frame) => self.editor.send(frame),
                Action::ToServer(frame) => {
                    if let Some(server) = &state.server {
                        server.input.send(frame);
                    }
                }
                Action::Start { generation } => self.start_server(state, generation),
                Action::Kill { generation } => {
                    if let Some(server) = state.server.take_if(|server| server.generation == generation) {
                        server.kill();
                    }
                }
                Action::CloseServer => {
                    if let Some(server) = &state.server {
                        server.input.close();
                    }
                }
                Action::Notice(notice) => notices.push(notice),
                Action::End { code } => {
                    if let Some(server) = state.server.take() {
                        server.kill();
                    }
                    state.end = Some(code);
                    self.nearer.notify_one();
                    self.ended.notify_all();
                }
            }
        }
        notices
    }

    fn start_server(self: &Arc<Self>, state: &mut State, generation: u32) {
        let started =
            ServerProcess::start(&self.command, generation, self.config.forward_stderr).and_then(|(server, stdout)| {
                let server = Arc::new(server);
                let (shared, reader) = (Arc::clone(self), Arc::clone(&server));
                match thread("lsp-from-server", move || shared.read_server(&reader, stdout)) {
                    Ok(()) => Ok(server),
                    Err(error) => {
                        server.kill();
                        server.reap(Duration::ZERO);
                        Err(error)
                    }
                }
            });
        let now = self.clock.now();
        match started {
            Ok(server) => {
                state.server = Some(server);
                state.session.server_started(now, generation);
            }
            Err(source) => {
                let permanent = matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
                let program = self.command.program();
                let text = format!("{program}: {source}");
                if permanent && generation == 1 {
                    state.error = Some(LspError::CannotStart { program, source });
                }
                state.session.server_not_started(now, generation, &text, permanent);
            }
        }
    }

    fn announce(&self, notice: &Notice) {
        match notice.severity {
            Severity::Low | Severity::Medium => {
                tracing::debug!(action = notice.action, server = self.name, detail = notice.detail);
            }
            Severity::High | Severity::Critical => {
                tracing::warn!(action = notice.action, server = self.name, detail = notice.detail);
            }
        }
        self.config.observers.emit(&Event::notice("lsp", notice.action, &self.name, notice.severity, &notice.detail));
    }

    fn keep_time(self: Arc<Self>) {
        let mut state = self.lock();
        while state.end.is_none() {
            let now = self.clock.now();
            state.alarm = state.session.next_deadline();
            state = match state.alarm {
                Some(alarm) if alarm <= now => {
                    drop(state);
                    self.with(Session::tick);
                    self.lock()
                }
                Some(alarm) => {
                    let pause = alarm.saturating_duration_since(now);
                    self.nearer.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.nearer.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn read_editor(self: Arc<Self>, mut input: Box<dyn Read + Send>) {
        let mut decoder = FrameDecoder::new(self.config.frames);
        loop {
            let more = match decoder.read_from(&mut input) {
                Ok(count) => count > 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A stdin made non-blocking by whoever shares it; there is nothing to wait on portably.
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(_) => false,
            };
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => {
                        self.with(|session, now| session.editor_sent(now, frame));
                        self.hold_back();
                    }
                    Ok(None) => break,
                    Err(error) => return self.editor_broke(&error),
                }
            }
            if !more {
                return match decoder.finish() {
                    Ok(()) => self.with(Session::editor_closed),
                    Err(error) => self.editor_broke(&error),
                };
            }
            if self.lock().end.is_some() {
                return;
            }
        }
    }

    fn editor_broke(self: &Arc<Self>, error: &FrameError) {
        // First the reason, then the end: whoever waits for the end takes the reason along.
        self.lock().error.get_or_insert(LspError::Editor(error.clone()));
        self.with(|session, now| session.editor_broke(now, error));
    }

    /// Lets the editor wait while too much is unwritten: memory is bounded, and a server that reads nothing is found
    /// out although nobody asks it anything.
    fn hold_back(self: &Arc<Self>) {
        let max = self.config.max_unwritten_bytes;
        let server = self.lock().server.clone();
        if let Some(server) = server
            && !server.input.wait_below(max, self.config.hang_after)
        {
            self.with(|session, now| session.server_deaf(now, server.generation));
        }
        while !self.editor.wait_below(max, Duration::from_secs(60)) {
            if self.lock().end.is_some() {
                return;
            }
        }
    }

    fn read_server(self: Arc<Self>, server: &ServerProcess, mut stdout: ChildStdout) {
        let mut decoder = FrameDecoder::new(self.config.frames);
        let generation = server.generation;
        let mut broken = None;
        while let Ok(count) = decoder.read_from(&mut stdout) {
            let step = loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => self.with(|session, now| session.server_sent(now, generation, frame)),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            if let Err(error) = step {
                broken = Some(error);
            }
            if count == 0 || broken.is_some() {
                break;
            }
            while !self.editor.wait_below(self.config.max_unwritten_bytes, Duration::from_secs(60)) {
                if self.lock().end.is_some() {
                    break;
                }
            }
        }
        if let Some(error) = broken {
            server.kill();
            self.with(|session, now| session.server_broke(now, generation, &error));
        }
        let ended = server.reap(EXIT_GRACE);
        self.with(|session, now| session.server_ended(now, generation, &ended.how, ended.code));
    }
}
