//! Losing a server and getting a new one to where the old one was.
//! The editor keeps its session: what the lost server owed is answered, what it knew is told to the next one.

use std::time::Duration;

use resilience_core::{Instant, Outcome, Severity};
use serde_json::json;

use super::pending::WaitingMessage;
use super::{Action, Editor, OWN_ID, Server, Session};
use crate::lsp::fallback::Cause;
use crate::lsp::frame::Frame;
use crate::lsp::message::{self, Message, RequestId};

/// How a server was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Loss {
    #[error("{0}")]
    Ended(String),
    #[error("no sign of life for {0:?}")]
    Silent(Duration),
    #[error("it reads nothing")]
    Deaf,
    #[error("it broke the protocol: {0}")]
    Protocol(String),
    #[error("it cannot be started: {0}")]
    NotStarted(String),
}

impl Session {
    /// Server `generation` runs.
    pub fn server_started(&mut self, now: Instant, generation: u32) {
        if generation != self.generation || !matches!(self.server, Server::Starting) {
            // The editor has left in the meantime: nobody wants this server.
            return self.actions.push_back(Action::Kill { generation });
        }
        let detail = format!("{} (number {generation} of this session)", self.name);
        self.notice("server_started", Severity::Low, detail);
        self.silent_since = None;
        match self.editor {
            Editor::New => self.server = Server::Live { since: now },
            Editor::Initializing => {
                // The editor still waits for the answer, so this is no replay: the answer goes to it.
                self.server = Server::Live { since: now };
                if let Some(initialize) = self.initialize.clone() {
                    self.silent_since = Some(now);
                    self.tell_server(initialize);
                }
                self.release(now);
            }
            Editor::Ready => {
                let deadline = now + self.config.deadlines.initialize;
                self.server = Server::Replaying { deadline };
                let params = self
                    .initialize
                    .as_ref()
                    .and_then(|frame| Message::parse(frame.body()).ok())
                    .and_then(|message| message.params);
                let replay = message::request(&replay_id(generation), "initialize", params);
                self.tell_server(replay);
            }
            Editor::ShutDown | Editor::Gone => {
                self.actions.push_back(Action::Kill { generation });
                self.server = Server::Down { retry_at: None, degraded: true };
            }
        }
    }

    /// Server `generation` could not be started. `permanent` when trying again is pointless: no such program.
    pub fn server_not_started(&mut self, now: Instant, generation: u32, error: &str, permanent: bool) {
        if generation != self.generation || !matches!(self.server, Server::Starting) {
            return;
        }
        if permanent && generation == 1 {
            self.last_failure = Some(error.to_owned());
            self.server = Server::Down { retry_at: None, degraded: true };
            self.notice("server_degraded", Severity::Critical, format!("{} cannot be started: {error}", self.name));
            let cause = Cause::CannotStart(error.to_owned());
            self.give_up(&cause);
        } else {
            self.lost(now, &Loss::NotStarted(error.to_owned()));
        }
    }

    /// Server `generation` has ended; `how` in words, `code` if it ended with one.
    pub fn server_ended(&mut self, now: Instant, generation: u32, how: &str, code: Option<i32>) {
        if generation != self.generation {
            return;
        }
        match self.server {
            Server::Closing { .. } => self.end(code),
            Server::Starting | Server::Replaying { .. } | Server::Live { .. } => {
                self.lost(now, &Loss::Ended(how.to_owned()));
            }
            Server::Down { .. } | Server::Ended => {}
        }
    }

    /// Server `generation` has not read what was written to it for [`hang_after`](super::LspConfig::hang_after).
    pub fn server_deaf(&mut self, now: Instant, generation: u32) {
        if generation == self.generation && matches!(self.server, Server::Live { .. } | Server::Replaying { .. }) {
            self.lost(now, &Loss::Deaf);
        }
    }

    /// The server is of no more use: answers what it owes, decides about the next one.
    pub(super) fn lost(&mut self, now: Instant, loss: &Loss) {
        let was_live_since = match self.server {
            Server::Live { since } => Some(since),
            Server::Starting | Server::Replaying { .. } => None,
            Server::Closing { .. } => return self.end(None),
            Server::Down { .. } | Server::Ended => return,
        };
        match loss {
            Loss::Silent(_) | Loss::Deaf => self.counters.hangs += 1,
            Loss::Protocol(_) => self.counters.protocol_errors += 1,
            Loss::Ended(_) | Loss::NotStarted(_) => self.counters.crashes += 1,
        }
        let reason = loss.to_string();
        self.actions.push_back(Action::Kill { generation: self.generation });
        self.silent_since = None;
        self.last_failure = Some(reason.clone());
        self.answer_in_flight(&Cause::Lost(reason.clone()));
        self.end_progress();
        self.notice("server_lost", Severity::High, format!("{}: {reason}", self.name));
        if matches!(self.editor, Editor::ShutDown | Editor::Gone) {
            self.server = Server::Down { retry_at: None, degraded: true };
            return;
        }

        let policy = &self.config.restart;
        let stable = was_live_since.is_some_and(|since| now.saturating_duration_since(since) >= policy.stable_after);
        self.losses_in_a_row = if stable { 1 } else { self.losses_in_a_row.saturating_add(1) };
        while self.restarts.front().is_some_and(|at| *at + policy.window <= now) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= policy.max_restarts as usize {
            let retry_in = policy.retry_after;
            let (count, window) = (self.restarts.len(), policy.window);
            self.server = Server::Down { retry_at: Some(now + retry_in), degraded: true };
            let detail = format!("{}: {reason}; {count} restarts within {window:?}", self.name);
            self.notice("server_degraded", Severity::Critical, detail);
            let cause = Cause::Down { reason, retry_in };
            return self.give_up(&cause);
        }
        self.restarts.push_back(now);
        let delay = restart_delay(self.losses_in_a_row, policy.first_delay, policy.max_delay);
        self.server = Server::Down { retry_at: Some(now + delay), degraded: false };
        if !self.announced_loss {
            self.announced_loss = true;
            self.show(2, &format!("{} was lost ({reason}) and is being restarted", self.name));
        }
        if delay.is_zero() {
            self.start_again();
        }
    }

    /// Asks for the next server.
    pub(super) fn start_again(&mut self) {
        self.generation += 1;
        self.counters.restarts += 1;
        self.server = Server::Starting;
        self.actions.push_back(Action::Start { generation: self.generation });
    }

    /// Nobody needs the server that is being started.
    pub(super) fn stop_starting(&mut self) {
        if matches!(self.server, Server::Starting | Server::Replaying { .. }) {
            self.actions.push_back(Action::Kill { generation: self.generation });
        }
        self.silent_since = None;
        self.server = Server::Down { retry_at: None, degraded: true };
    }

    /// No server for now: whoever waits is told.
    fn give_up(&mut self, cause: &Cause) {
        self.announced_loss = true;
        self.show(1, &cause.to_string());
        self.answer_everything(cause);
        if matches!(self.editor, Editor::Initializing) {
            self.editor = Editor::New;
        }
    }

    pub(super) fn down_cause(&self, now: Instant) -> Cause {
        let reason = self.last_failure.clone().unwrap_or_else(|| "not started".to_owned());
        match self.server {
            Server::Down { retry_at: Some(at), .. } => {
                Cause::Down { reason, retry_in: at.saturating_duration_since(now) }
            }
            Server::Down { retry_at: None, .. } => Cause::CannotStart(reason),
            _ => Cause::Stopping,
        }
    }

    /// Answers what the lost server had. `initialize` stays open: the next server will answer it.
    fn answer_in_flight(&mut self, cause: &Cause) {
        for (id, mut request) in self.pending.drain() {
            if let Some(pass) = request.pass.take() {
                pass.settle(&Outcome::TimedOut);
            }
            match &*request.method {
                "initialize" => self.pending.insert(id, request),
                "shutdown" => {
                    self.counters.degraded += 1;
                    self.tell_editor(message::response(&id, ()));
                }
                _ => self.degrade(&id, &request.method, request.frame.as_ref(), cause),
            }
        }
    }

    /// Ends the progress bars of a server that will not end them any more.
    fn end_progress(&mut self) {
        for token in std::mem::take(&mut self.progress) {
            let params = json!({"token": token, "value": {"kind": "end"}});
            self.tell_editor(message::notification("$/progress", params));
        }
    }

    pub(super) fn is_replay(&self, id: &RequestId) -> bool {
        *id == replay_id(self.generation)
    }

    /// The new server answered the old `initialize`.
    pub(super) fn replayed(&mut self, now: Instant, answer: &Message<'_>) {
        if let Some(error) = answer.error {
            return self.lost(now, &Loss::Protocol(format!("it refused the replayed initialize: {error}")));
        }
        self.learn_encoding(answer.result);
        self.forget_registrations();
        for frame in [self.initialized.clone(), self.configuration.clone()].into_iter().flatten() {
            self.tell_server(frame);
        }
        let documents: Vec<Frame> = self.documents.replay().collect();
        let count = documents.len();
        self.actions.extend(documents.into_iter().map(Action::ToServer));
        self.server = Server::Live { since: now };
        self.gate.server_is_new();
        self.release(now);
        let detail = format!("{} is back; {count} open documents restored", self.name);
        self.notice("server_recovered", Severity::Low, detail.clone());
        if std::mem::take(&mut self.announced_loss) {
            self.show(3, &detail);
        }
    }

    /// The new server registers anew, perhaps under other names; the editor must not hold both.
    fn forget_registrations(&mut self) {
        let old: Vec<_> = std::mem::take(&mut self.registrations)
            .into_iter()
            .map(|(id, method)| json!({"id": id, "method": method}))
            .collect();
        if !old.is_empty() {
            let id = self.own_id("unregister");
            // The protocol's own spelling.
            let params = json!({ "unregisterations": old });
            self.tell_editor(message::request(&id, "client/unregisterCapability", Some(params)));
        }
    }

    /// Gives the server what waited for it.
    fn release(&mut self, now: Instant) {
        for message in self.waiting.drain() {
            match message {
                WaitingMessage::Request(request) => self.ask_server(now, request),
                WaitingMessage::Notification(frame) => self.tell_server(frame),
            }
        }
    }
}

fn replay_id(generation: u32) -> RequestId {
    RequestId::Text(format!("{OWN_ID}initialize/{generation}").into())
}

/// The first restart in a row comes at once, each further one after twice the pause.
fn restart_delay(losses_in_a_row: u32, first: Duration, max: Duration) -> Duration {
    match losses_in_a_row.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_in_a_row_come_later_and_later_up_to_the_limit() {
        let delay = |n| restart_delay(n, Duration::from_millis(100), Duration::from_secs(10)).as_millis();
        assert_eq!([1, 2, 3, 4, 8, 9, 40, u32::MAX].map(delay), [0, 100, 200, 400, 6400, 10_000, 10_000, 10_000]);
    }
}
