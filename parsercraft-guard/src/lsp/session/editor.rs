//! What the editor sends: the life cycle, requests, notifications, answers to the server's own requests.
//! Everything the server may see passes unchanged; what it cannot see now is remembered, waits, or is answered here.

use std::time::Duration;

use resilience_core::{Instant, Severity};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pending::{InFlight, WaitingMessage, WaitingRequest, document_of};
use super::recovery::Loss;
use super::{Action, Editor, OWN_ID, Server, ServerRequest, Session};
use crate::lsp::fallback::{self, Cause, LastGood};
use crate::lsp::frame::Frame;
use crate::lsp::message::{self, Kind, Message, RequestId, code};
use resilience_core::Outcome;

impl Session {
    /// The editor sent `frame`.
    pub fn editor_sent(&mut self, now: Instant, frame: Frame) {
        if matches!(self.server, Server::Ended) {
            return;
        }
        let message = match Message::parse(frame.body()) {
            Ok(message) => message,
            Err(error) => {
                self.counters.bad_messages += 1;
                self.notice("bad_message", Severity::Low, format!("from the editor: {error}"));
                self.refuse(None, code::PARSE_ERROR, error.to_string());
                return;
            }
        };
        match message.kind {
            Kind::Request(id, ref method) => {
                let method: Box<str> = method.as_ref().into();
                self.request(now, id, &method, frame);
            }
            Kind::Notification(ref method) => {
                // The frame is moved on, so what is needed of it is looked at first.
                let method: Box<str> = method.as_ref().into();
                self.follow(&method, message.params);
                let cancelled = (&*method == "$/cancelRequest").then(|| cancelled_id(message.params)).flatten();
                self.notification(now, &method, cancelled, frame);
            }
            Kind::Response(Some(ref id)) => {
                let id = id.clone();
                self.answer_to_server(&id, frame);
            }
            Kind::Response(None) => self.pass_on(frame),
        }
    }

    /// The editor's stream has ended.
    pub fn editor_closed(&mut self, now: Instant) {
        self.leave(now, false);
    }

    /// Whether the protocol was left without `shutdown`, which is exit code 1.
    pub(super) fn exited_without_shutdown(&self) -> bool {
        matches!(self.editor, Editor::Gone)
    }

    fn request(&mut self, now: Instant, id: RequestId, method: &str, frame: Frame) {
        self.counters.requests += 1;
        if self.pending.contains(&id) || self.waiting.contains(&id) {
            let text = format!("the request id {id} is already in use");
            return self.refuse(Some(&id), code::INVALID_REQUEST, text);
        }
        match (&self.editor, method) {
            (Editor::New, "initialize") => return self.first_request(now, id, frame),
            (Editor::New, _) => {
                let text = "`initialize` must come first".to_owned();
                return self.refuse(Some(&id), code::SERVER_NOT_INITIALIZED, text);
            }
            (Editor::Initializing | Editor::Ready, "initialize") => {
                return self.refuse(Some(&id), code::INVALID_REQUEST, "`initialize` has already come".to_owned());
            }
            (Editor::ShutDown | Editor::Gone, _) => {
                let text = format!("{method} after `shutdown`; only `exit` is allowed");
                return self.refuse(Some(&id), code::INVALID_REQUEST, text);
            }
            (Editor::Initializing | Editor::Ready, "shutdown") => return self.shutdown(now, id, frame),
            (Editor::Initializing | Editor::Ready, _) => {}
        }
        if let Err(rejection) = self.gate.admit() {
            self.counters.refused += 1;
            let cause = Cause::Refused(rejection.to_string(), rejection.retry_after);
            return self.degrade(&id, method, Some(&frame), &cause);
        }
        let request = WaitingRequest {
            id,
            method: method.into(),
            arrived: now,
            deadline: now + self.config.deadlines.of(method),
            frame,
        };
        match self.server {
            Server::Live { .. } => self.ask_server(now, request),
            Server::Starting | Server::Replaying { .. } | Server::Down { degraded: false, .. } => self.wait(request),
            Server::Down { degraded: true, .. } => {
                let cause = self.down_cause(now);
                self.degrade(&request.id, method, Some(&request.frame), &cause);
            }
            Server::Closing { .. } | Server::Ended => {
                self.degrade(&request.id, method, Some(&request.frame), &Cause::Stopping);
            }
        }
    }

    /// Gives `request` to the server, if the breaker lets it.
    pub(super) fn ask_server(&mut self, now: Instant, request: WaitingRequest) {
        let WaitingRequest { id, method, arrived, deadline, frame } = request;
        if self.pending.len() >= self.config.requests.max_pending {
            return self.refuse_crowded(&id, &method, &frame);
        }
        let pass = match self.gate.enter() {
            Ok(pass) => pass,
            Err(rejection) => {
                self.counters.refused += 1;
                let cause = Cause::Refused(rejection.to_string(), rejection.retry_after);
                return self.degrade(&id, &method, Some(&frame), &cause);
            }
        };
        let mut in_flight = InFlight::new(&method, arrived, deadline);
        in_flight.pass = Some(pass);
        if LastGood::keeps(&method) {
            in_flight.version = Message::parse(frame.body())
                .ok()
                .and_then(|message| document_of(message.params?))
                .and_then(|uri| self.documents.get(&uri).map(crate::lsp::Document::version));
        }
        if in_flight.version.is_some() || fallback::needs_params(&method) {
            in_flight.frame = Some(frame.clone());
        }
        self.send_request(now, id, in_flight, frame);
    }

    fn send_request(&mut self, now: Instant, id: RequestId, request: InFlight, frame: Frame) {
        self.pending.insert(id, request);
        self.silent_since.get_or_insert(now);
        self.tell_server(frame);
    }

    fn wait(&mut self, request: WaitingRequest) {
        let size = request.frame.as_bytes().len();
        let limits = &self.config.requests;
        if self.waiting.make_room(size, limits.max_pending, limits.max_waiting_bytes) {
            self.waiting.push(WaitingMessage::Request(request));
        } else {
            self.refuse_crowded(&request.id, &request.method, &request.frame);
        }
    }

    fn refuse_crowded(&mut self, id: &RequestId, method: &str, frame: &Frame) {
        self.counters.refused += 1;
        let text = format!("{} requests are already waiting for the language server", self.config.requests.max_pending);
        self.degrade(id, method, Some(frame), &Cause::Refused(text, Some(Duration::from_secs(1))));
    }

    fn first_request(&mut self, now: Instant, id: RequestId, frame: Frame) {
        self.editor = Editor::Initializing;
        self.initialize = Some(frame.clone());
        let deadline = now + self.config.deadlines.initialize;
        let request = InFlight::new("initialize", now, deadline);
        match self.server {
            Server::Live { .. } => self.send_request(now, id, request, frame),
            // Sent as soon as there is a server; its deadline runs from now.
            Server::Starting | Server::Replaying { .. } | Server::Down { degraded: false, .. } => {
                self.pending.insert(id, request);
            }
            Server::Down { degraded: true, .. } | Server::Closing { .. } | Server::Ended => {
                let cause = self.down_cause(now);
                self.show(1, &cause.to_string());
                self.degrade(&id, "initialize", None, &cause);
                self.editor = Editor::New;
            }
        }
    }

    fn shutdown(&mut self, now: Instant, id: RequestId, frame: Frame) {
        self.editor = Editor::ShutDown;
        match self.server {
            Server::Live { .. } => {
                let deadline = now + self.config.deadlines.of("shutdown").min(self.config.shutdown_grace);
                self.send_request(now, id, InFlight::new("shutdown", now, deadline), frame);
            }
            Server::Ended | Server::Closing { .. } => self.tell_editor(message::response(&id, ())),
            Server::Starting | Server::Replaying { .. } | Server::Down { .. } => {
                // Nobody needs a server any more.
                self.stop_starting();
                self.answer_everything(&Cause::Stopping);
                self.tell_editor(message::response(&id, ()));
            }
        }
    }

    /// Keeps what a new server must be told.
    fn follow(&mut self, method: &str, params: Option<&RawValue>) {
        if let "textDocument/didChange" | "textDocument/didClose" = method
            && let Some(uri) = params.and_then(document_of)
        {
            self.last_good.forget(&uri);
        }
        if let Err(error) = self.documents.follow(method, params) {
            self.notice("document_lost", Severity::Medium, format!("{error}; a restart will not restore it"));
        }
    }

    fn notification(&mut self, now: Instant, method: &str, cancelled: Option<RequestId>, frame: Frame) {
        match method {
            "exit" => return self.leave(now, true),
            // The protocol: notifications before `initialize` are dropped.
            _ if matches!(self.editor, Editor::New) => return self.waiting.count_dropped(),
            "initialized" => self.initialized = Some(frame.clone()),
            "workspace/didChangeConfiguration" => self.configuration = Some(frame.clone()),
            "$/cancelRequest" => {
                if let Some(request) = cancelled.and_then(|id| self.waiting.remove(&id)) {
                    let text = "cancelled while the language server was being restarted".to_owned();
                    return self.refuse(Some(&request.id), code::REQUEST_CANCELLED, text);
                }
            }
            _ => {}
        }
        match self.server {
            Server::Live { .. } => self.tell_server(frame),
            Server::Closing { .. } | Server::Ended => {}
            // Told again when the new server is told everything else.
            _ if is_replayed(method) || method == "$/cancelRequest" => {}
            Server::Starting | Server::Replaying { .. } | Server::Down { .. } => {
                let size = frame.as_bytes().len();
                let limits = &self.config.requests;
                if self.waiting.make_room(size, limits.max_pending, limits.max_waiting_bytes) {
                    self.waiting.push(WaitingMessage::Notification(frame));
                } else {
                    self.waiting.count_dropped();
                    let detail = format!("{method}: {} bytes already wait for a restart", self.waiting.bytes());
                    self.notice("message_dropped", Severity::Medium, detail);
                }
            }
        }
    }

    /// The editor answered a request of the server.
    fn answer_to_server(&mut self, id: &RequestId, frame: Frame) {
        let Some(ServerRequest { generation, original }) = self.server_requests.remove(id) else {
            let own = matches!(id, RequestId::Text(text) if text.starts_with(OWN_ID));
            self.counters.dropped_answers += u64::from(!own);
            return;
        };
        if generation != self.generation || !matches!(self.server, Server::Live { .. } | Server::Replaying { .. }) {
            self.counters.dropped_answers += 1;
            return;
        }
        let frame = match (original, Message::parse(frame.body())) {
            (Some(original), Ok(message)) => message::response_with_id(&original, &message),
            _ => frame,
        };
        self.tell_server(frame);
    }

    fn pass_on(&mut self, frame: Frame) {
        if matches!(self.server, Server::Live { .. }) {
            self.tell_server(frame);
        }
    }

    /// The editor goes: by `exit`, or by closing its stream, which is the same without a good-bye.
    fn leave(&mut self, now: Instant, by_exit: bool) {
        match self.server {
            Server::Ended => return,
            Server::Closing { .. } if by_exit => return,
            _ => {}
        }
        if !matches!(self.editor, Editor::ShutDown) {
            self.editor = Editor::Gone;
        }
        match self.server {
            Server::Live { .. } => {
                self.tell_server(Frame::new(r#"{"jsonrpc":"2.0","method":"exit"}"#));
                self.close_server(now);
            }
            Server::Starting | Server::Replaying { .. } | Server::Down { .. } => {
                self.stop_starting();
                self.end(None);
            }
            Server::Closing { .. } | Server::Ended => {}
        }
    }

    fn close_server(&mut self, now: Instant) {
        self.actions.push_back(Action::CloseServer);
        self.server = Server::Closing { deadline: now + self.config.shutdown_grace };
        self.silent_since = None;
        self.answer_everything(&Cause::Stopping);
    }

    /// A request that the server has is past its deadline.
    pub(super) fn expire(&mut self, now: Instant, id: &RequestId, request: InFlight) {
        let limit = self.config.deadlines.of(&request.method);
        if let Some(pass) = request.pass {
            pass.settle(&Outcome::TimedOut);
        }
        self.counters.timed_out += 1;
        match &*request.method {
            "shutdown" => {
                self.tell_editor(message::response(id, ()));
                self.counters.degraded += 1;
                return;
            }
            "initialize" => {
                self.degrade(id, "initialize", None, &Cause::Late(limit));
                self.editor = Editor::New;
                return self.lost(now, &Loss::Silent(limit));
            }
            _ => {}
        }
        if matches!(self.server, Server::Live { .. }) {
            let cancel = serde_json::json!({ "id": id });
            self.tell_server(message::notification("$/cancelRequest", cancel));
        }
        self.degrade(id, &request.method, request.frame.as_ref(), &Cause::Late(limit));
    }

    /// Answers everything that is not answered yet.
    pub(super) fn answer_everything(&mut self, cause: &Cause) {
        for (id, request) in self.pending.drain() {
            if &*request.method == "shutdown" {
                self.tell_editor(message::response(&id, ()));
                self.counters.degraded += 1;
            } else {
                self.degrade(&id, &request.method, request.frame.as_ref(), cause);
            }
        }
        for request in self.waiting.drain_requests() {
            self.degrade(&request.id, &request.method, Some(&request.frame), cause);
        }
    }
}

/// Notifications whose effect a new server learns by the replay.
fn is_replayed(method: &str) -> bool {
    matches!(
        method,
        "initialized"
            | "workspace/didChangeConfiguration"
            | "textDocument/didOpen"
            | "textDocument/didChange"
            | "textDocument/didClose"
    )
}

fn cancelled_id(params: Option<&RawValue>) -> Option<RequestId> {
    #[derive(Deserialize)]
    struct Cancel {
        id: RequestId,
    }
    serde_json::from_str::<Cancel>(params?.get()).ok().map(|cancel| cancel.id)
}
