//! The session between one editor and one language server, as a state machine without I/O.
//! It is told what arrived and what time it is, and answers with [`Action`]s. Its promise: every request of the
//! editor is answered exactly once, whatever the server does, and a restarted server knows every open document.
//! It never blocks, spawns, reads a clock or touches a stream; [`Supervisor`](super::Supervisor) does that.

mod editor;
mod pending;
mod recovery;
mod server;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use resilience_core::{Instant, Severity};
use serde_json::json;
use serde_json::value::RawValue;

use self::pending::{Pending, Waiting};
use super::config::LspConfig;
use super::document::Documents;
use super::fallback::{self, Cause, LastGood};
use super::frame::{Frame, FrameError};
use super::gate::Gate;
use super::message::{self, RequestId};
use super::stats::{LspState, LspStats, Methods};

/// What the shell must do, in this order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// Write to the editor.
    ToEditor(Frame),
    /// Write to the current server.
    ToServer(Frame),
    /// Start the server, then report [`Session::server_started`] or [`Session::server_not_started`].
    Start {
        /// The number of this server, to be given with everything that comes from it.
        generation: u32,
    },
    /// End server `generation` at once; whatever it still says is ignored.
    Kill {
        /// Its number.
        generation: u32,
    },
    /// Close the server's input after what was written: it is asked to end by itself.
    CloseServer,
    /// Tell the observers.
    Notice(Notice),
    /// The session is over.
    End {
        /// The exit code for the process.
        code: i32,
    },
}

/// Something worth an audit record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// What happened: `server_started`, `server_lost`, `server_recovered`, `server_degraded`, `request_degraded`,
    /// `bad_message`, `document_lost`, `message_dropped`, `session_ended`.
    pub action: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// In words.
    pub detail: String,
}

/// How far the editor is in the protocol's life cycle.
#[derive(Debug)]
enum Editor {
    /// `initialize` has not come.
    New,
    /// `initialize` waits for its answer.
    Initializing,
    /// `initialize` was answered.
    Ready,
    /// `shutdown` has come.
    ShutDown,
    /// `exit` has come, or the stream has ended.
    Gone,
}

#[derive(Debug)]
enum Server {
    /// A start was asked for.
    Starting,
    /// A new server was sent the old `initialize`; everything waits for its answer.
    Replaying { deadline: Instant },
    /// Messages go through.
    Live { since: Instant },
    /// Lost; the next start comes at `retry_at`. When `degraded`, nothing waits for it.
    Down { retry_at: Option<Instant>, degraded: bool },
    /// Asked to end; killed at the deadline.
    Closing { deadline: Instant },
    /// The session is over.
    Ended,
}

/// A request of the server to the editor that waits for its answer.
#[derive(Debug)]
struct ServerRequest {
    generation: u32,
    /// The server's identifier, when the editor was given another one.
    original: Option<RequestId>,
}

/// The state machine. Give it events, then take [`poll_action`](Self::poll_action) until it returns `None`.
///
/// ```
/// use parsercraft_guard::lsp::{Action, Frame, LspConfig, Session};
/// use resilience_core::Clock;
///
/// let (clock, _) = Clock::manual();
/// let mut session = Session::new("pyright", LspConfig::default(), &clock)?;
/// assert!(matches!(session.poll_action(), Some(Action::Start { generation: 1 })));
/// session.server_started(clock.now(), 1);
/// session.editor_sent(clock.now(), Frame::new(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#));
/// assert!(matches!(session.poll_action(), Some(Action::Notice(_)))); // server_started
/// assert!(matches!(session.poll_action(), Some(Action::ToServer(_))));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Session {
    name: Arc<str>,
    config: LspConfig,
    gate: Gate,
    editor: Editor,
    server: Server,
    generation: u32,
    /// What a new server is told again.
    initialize: Option<Frame>,
    initialized: Option<Frame>,
    configuration: Option<Frame>,
    documents: Documents,
    registrations: Vec<(String, String)>,
    progress: Vec<Box<RawValue>>,
    pending: Pending,
    waiting: Waiting,
    server_requests: HashMap<RequestId, ServerRequest>,
    last_good: LastGood,
    /// Since when requests have been unanswered without any message from the server.
    silent_since: Option<Instant>,
    restarts: VecDeque<Instant>,
    losses_in_a_row: u32,
    last_failure: Option<String>,
    announced_loss: bool,
    own_requests: u64,
    counters: Counters,
    methods: Methods,
    actions: VecDeque<Action>,
}

#[derive(Debug, Default)]
struct Counters {
    restarts: u64,
    crashes: u64,
    hangs: u64,
    protocol_errors: u64,
    requests: u64,
    answered: u64,
    degraded: u64,
    timed_out: u64,
    refused: u64,
    dropped_answers: u64,
    bad_messages: u64,
}

/// The prefix of the identifiers of the guard's own requests.
const OWN_ID: &str = "parsercraft-guard/";

impl Session {
    /// A session whose first action is to start the server called `name` in messages and events.
    ///
    /// # Errors
    /// [`ConfigError`](resilience_core::ConfigError) names the bad setting.
    pub fn new(
        name: &str,
        config: LspConfig,
        clock: &resilience_core::Clock,
    ) -> Result<Self, resilience_core::ConfigError> {
        config.validate()?;
        Ok(Self {
            name: name.into(),
            gate: Gate::new(&config.requests, &config.observers, clock)?,
            editor: Editor::New,
            server: Server::Starting,
            generation: 1,
            initialize: None,
            initialized: None,
            configuration: None,
            documents: Documents::new(config.max_document_bytes),
            registrations: Vec::new(),
            progress: Vec::new(),
            pending: Pending::default(),
            waiting: Waiting::default(),
            server_requests: HashMap::new(),
            last_good: LastGood::default(),
            silent_since: None,
            restarts: VecDeque::new(),
            losses_in_a_row: 0,
            last_failure: None,
            announced_loss: false,
            own_requests: 0,
            counters: Counters::default(),
            methods: Methods::default(),
            actions: VecDeque::from([Action::Start { generation: 1 }]),
            config,
        })
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The documents that are open.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// What the server is doing.
    pub fn state(&self) -> LspState {
        match (&self.server, &self.editor) {
            (Server::Ended, _) => LspState::Stopped,
            (Server::Closing { .. }, _) | (_, Editor::ShutDown | Editor::Gone) => LspState::Stopping,
            (Server::Down { degraded: true, .. }, _) => LspState::Degraded,
            (Server::Live { .. }, Editor::Ready) => LspState::Ready,
            (_, Editor::Ready) | (Server::Down { .. }, _) => LspState::Restarting,
            _ => LspState::Starting,
        }
    }

    /// The numbers so far.
    pub fn stats(&self) -> LspStats {
        let counters = &self.counters;
        LspStats {
            state: self.state(),
            generation: self.generation,
            restarts: counters.restarts,
            crashes: counters.crashes,
            hangs: counters.hangs,
            protocol_errors: counters.protocol_errors,
            requests: counters.requests,
            answered: counters.answered,
            degraded: counters.degraded,
            timed_out: counters.timed_out,
            refused: counters.refused,
            dropped_answers: counters.dropped_answers,
            dropped_notifications: self.waiting.dropped(),
            bad_messages: counters.bad_messages,
            open_documents: self.documents.len(),
            in_flight: self.pending.len(),
            waiting: self.waiting.len(),
            last_failure: self.last_failure.clone(),
            methods: self.methods.snapshot(),
        }
    }

    /// When [`tick`](Self::tick) must be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let server = match self.server {
            Server::Replaying { deadline } | Server::Closing { deadline } => Some(deadline),
            Server::Down { retry_at, .. } => retry_at,
            Server::Starting | Server::Live { .. } | Server::Ended => None,
        };
        let silence = self.silent_since.map(|since| since + self.patience());
        [server, silence, self.pending.next_deadline(), self.waiting.next_deadline()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        while let Some((id, request)) = self.pending.pop_due(now) {
            self.expire(now, &id, request);
        }
        while let Some(request) = self.waiting.pop_due(now) {
            let limit = self.config.deadlines.of(&request.method);
            self.counters.timed_out += 1;
            self.degrade(&request.id, &request.method, Some(&request.frame), &Cause::Late(limit));
        }
        let patience = self.patience();
        if self.silent_since.is_some_and(|since| since + patience <= now) {
            self.lost(now, &recovery::Loss::Silent(patience));
        }
        match self.server {
            Server::Replaying { deadline } if deadline <= now => {
                self.lost(now, &recovery::Loss::Silent(self.config.deadlines.initialize));
            }
            Server::Down { retry_at: Some(at), .. } if at <= now => self.start_again(),
            Server::Closing { deadline } if deadline <= now => {
                self.actions.push_back(Action::Kill { generation: self.generation });
                self.end(None);
            }
            _ => {}
        }
    }

    /// How long the server may be silent while it owes answers: a build that it runs for the editor may take long.
    fn patience(&self) -> Duration {
        self.config.hang_after.max(self.pending.longest_limit())
    }

    /// Sends `frame` to the editor.
    fn tell_editor(&mut self, frame: Frame) {
        self.actions.push_back(Action::ToEditor(frame));
    }

    fn tell_server(&mut self, frame: Frame) {
        self.actions.push_back(Action::ToServer(frame));
    }

    fn notice(&mut self, action: &'static str, severity: Severity, detail: String) {
        self.actions.push_back(Action::Notice(Notice { action, severity, detail }));
    }

    /// Shows a message in the editor, once it can show any. Types are the protocol's: 1 error, 2 warning, 3 info.
    fn show(&mut self, kind: u8, text: &str) {
        if self.config.show_messages && matches!(self.editor, Editor::Initializing | Editor::Ready) {
            let params = json!({"type": kind, "message": format!("parsercraft-guard: {text}")});
            self.tell_editor(message::notification("window/showMessage", params));
        }
    }

    /// Answers request `id` in the server's place. `frame` is the request itself, where it is still at hand.
    fn degrade(&mut self, id: &RequestId, method: &str, frame: Option<&Frame>, cause: &Cause) {
        let params = frame.and_then(|frame| message::Message::parse(frame.body()).ok()?.params);
        let last_good = params
            .filter(|_| LastGood::keeps(method))
            .and_then(|params| self.last_good.get(&pending::document_of(params)?, method, params.get()));
        let answer = fallback::answer(id, method, params, last_good, cause);
        self.counters.degraded += 1;
        self.methods.degraded(method);
        let detail = format!("{method}: {cause}");
        self.actions.push_back(Action::ToEditor(answer));
        self.notice("request_degraded", Severity::Medium, detail);
    }

    fn own_id(&mut self, purpose: &str) -> RequestId {
        self.own_requests += 1;
        RequestId::Text(format!("{OWN_ID}{purpose}/{}", self.own_requests).into())
    }

    /// A frame of the editor could not be delimited: nothing that follows can be understood.
    pub fn editor_broke(&mut self, now: Instant, error: &FrameError) {
        self.counters.bad_messages += 1;
        self.notice("bad_message", Severity::High, format!("from the editor: {error}"));
        self.refuse(None, message::code::PARSE_ERROR, error.to_string());
        self.editor_closed(now);
    }

    /// Answers with an error that is the editor's own doing.
    fn refuse(&mut self, id: Option<&RequestId>, code: i64, text: String) {
        let error = message::ResponseError { code, message: text.into(), data: None };
        self.tell_editor(message::error_response(id, error));
    }

    /// The end of the session: no server, nothing more to do.
    fn end(&mut self, server_code: Option<i32>) {
        if matches!(self.server, Server::Ended) {
            return;
        }
        let shut_down_first = !self.exited_without_shutdown();
        let code = server_code.unwrap_or(i32::from(!shut_down_first));
        self.server = Server::Ended;
        self.silent_since = None;
        self.answer_everything(&Cause::Stopping);
        self.notice("session_ended", Severity::Low, format!("exit code {code}"));
        self.actions.push_back(Action::End { code });
    }
}
