//! What the server says: answers, its own requests, notifications.
//! An answer goes to the editor only if the editor waits for it; everything else passes unchanged.

use std::collections::hash_map::Entry;

use resilience_core::{Category, Class, Instant, Outcome, Severity};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pending::{InFlight, document_of};
use super::recovery::Loss;
use super::{Editor, Server, ServerRequest, Session};
use crate::lsp::document::PositionEncoding;
use crate::lsp::fallback::LastGood;
use crate::lsp::frame::{Frame, FrameError};
use crate::lsp::message::{self, Kind, Message, RequestId};

/// At most so many requests of the server, registrations and progress bars are remembered.
const MAX_REMEMBERED: usize = 4096;

impl Session {
    /// Server `generation` sent `frame`.
    pub fn server_sent(&mut self, now: Instant, generation: u32, frame: Frame) {
        if generation != self.generation || matches!(self.server, Server::Down { .. } | Server::Ended) {
            return;
        }
        let message = match Message::parse(frame.body()) {
            Ok(message) => message,
            Err(error) => {
                // The stream is in step, so only this message is lost; a request that waits for it has its deadline.
                self.counters.bad_messages += 1;
                return self.notice("bad_message", Severity::Medium, format!("from {}: {error}", self.name));
            }
        };
        let shown = match &message.kind {
            Kind::Response(Some(id)) => self.server_answered(now, id, &message).then_some(frame),
            Kind::Response(None) => Some(frame),
            Kind::Request(id, method) => {
                self.follow_registrations(method, message.params);
                Some(self.server_asked(id, method, &message).unwrap_or(frame))
            }
            Kind::Notification(method) => {
                if method == "$/progress" {
                    self.follow_progress(message.params);
                }
                Some(frame)
            }
        };
        if let Some(frame) = shown {
            self.tell_editor(frame);
        }
        self.silent_since = self.silent_since.and((!self.pending.is_empty()).then_some(now));
    }

    /// Server `generation` sent bytes that are not frames.
    pub fn server_broke(&mut self, now: Instant, generation: u32, error: &FrameError) {
        if generation == self.generation && !matches!(self.server, Server::Down { .. } | Server::Ended) {
            self.counters.bad_messages += 1;
            self.lost(now, &Loss::Protocol(error.to_string()));
        }
    }

    /// Whether the answer is for the editor.
    fn server_answered(&mut self, now: Instant, id: &RequestId, message: &Message<'_>) -> bool {
        if let Server::Replaying { .. } = self.server
            && self.is_replay(id)
        {
            self.replayed(now, message);
            return false;
        }
        let Some(request) = self.pending.remove(id) else {
            self.counters.dropped_answers += 1;
            return false;
        };
        self.counters.answered += 1;
        self.methods.answered(&request.method, now.saturating_duration_since(request.sent));
        match &*request.method {
            "initialize" if message.error.is_none() => {
                self.learn_encoding(message.result);
                if matches!(self.editor, Editor::Initializing) {
                    self.editor = Editor::Ready;
                }
            }
            "initialize" if matches!(self.editor, Editor::Initializing) => self.editor = Editor::New,
            _ => self.keep_if_good(&request, message),
        }
        if let Some(pass) = request.pass {
            pass.settle(&outcome(message));
        }
        true
    }

    /// Keeps an answer for the time when the server is gone.
    fn keep_if_good(&mut self, request: &InFlight, answer: &Message<'_>) {
        if let (Some(version), Some(frame), Some(result)) = (request.version, &request.frame, answer.result)
            && LastGood::keeps(&request.method)
            && let Ok(question) = Message::parse(frame.body())
            && let Some(params) = question.params
            && let Some(uri) = document_of(params)
            && self.documents.get(&uri).is_some_and(|document| document.version() == version)
        {
            self.last_good.put(&uri, &request.method, params.get(), result);
        }
    }

    pub(super) fn learn_encoding(&mut self, result: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Initialized {
            capabilities: Capabilities,
        }
        #[derive(Deserialize)]
        struct Capabilities {
            #[serde(rename = "positionEncoding", default)]
            encoding: PositionEncoding,
        }
        let encoding = result
            .and_then(|result| serde_json::from_str::<Initialized>(result.get()).ok())
            .map_or_else(PositionEncoding::default, |initialized| initialized.capabilities.encoding);
        self.documents.set_encoding(encoding);
    }

    /// Notes a request of the server. Returns it under another identifier when the editor still owes an answer to
    /// one of the same identifier, from a server before this one.
    fn server_asked(&mut self, id: &RequestId, method: &str, request: &Message<'_>) -> Option<Frame> {
        if self.server_requests.len() >= MAX_REMEMBERED {
            // An editor that answers nothing: what it owes to servers that are gone is of no use.
            let current = self.generation;
            self.server_requests.retain(|_, request| request.generation == current);
            if self.server_requests.len() >= MAX_REMEMBERED {
                self.server_requests.clear();
            }
        }
        let generation = self.generation;
        if let Entry::Vacant(free) = self.server_requests.entry(id.clone()) {
            free.insert(ServerRequest { generation, original: None });
            return None;
        }
        let renamed = self.own_id("of-server");
        let frame = message::request(&renamed, method, request.params);
        self.server_requests.insert(renamed, ServerRequest { generation, original: Some(id.clone()) });
        Some(frame)
    }

    fn follow_registrations(&mut self, method: &str, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Params {
            #[serde(alias = "unregisterations", alias = "unregistrations")]
            registrations: Vec<Registration>,
        }
        #[derive(Deserialize)]
        struct Registration {
            id: String,
            method: String,
        }
        let adds = match method {
            "client/registerCapability" => true,
            "client/unregisterCapability" => false,
            _ => return,
        };
        let Some(Ok(params)) = params.map(|params| serde_json::from_str::<Params>(params.get())) else { return };
        for Registration { id, method } in params.registrations {
            self.registrations.retain(|(known, _)| *known != id);
            if adds && self.registrations.len() < MAX_REMEMBERED {
                self.registrations.push((id, method));
            }
        }
    }

    fn follow_progress(&mut self, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(borrow)]
            token: &'a RawValue,
            value: Value,
        }
        #[derive(Deserialize)]
        struct Value {
            #[serde(default)]
            kind: String,
        }
        let Some(Ok(Params { token, value })) = params.map(|params| serde_json::from_str(params.get())) else { return };
        match value.kind.as_str() {
            "begin" if self.progress.len() < MAX_REMEMBERED => self.progress.push(token.to_owned()),
            "end" => self.progress.retain(|open| open.get() != token.get()),
            _ => {}
        }
    }
}

/// What an answer says about the server's health: only errors of its own making count against it.
fn outcome(answer: &Message<'_>) -> Outcome {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    let Some(error) = answer.error else { return Outcome::Success };
    match serde_json::from_str::<Error>(error.get()) {
        Ok(Error { code: message::code::INTERNAL_ERROR | message::code::UNKNOWN_ERROR }) => {
            Outcome::Failure(Class::of(Category::Internal))
        }
        Ok(Error { code: message::code::REQUEST_CANCELLED }) => Outcome::Cancelled,
        _ => Outcome::Failure(Class::of(Category::Validation)),
    }
}
