//! Requests of the editor that are not answered yet: those the server has, and messages that wait for a server.
//! Each identifier is in at most one place; both are bounded by the session. Knows deadlines, decides nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use resilience_core::Instant;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::lsp::frame::Frame;
use crate::lsp::gate::Pass;
use crate::lsp::message::RequestId;

/// A request that the server has.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) method: Box<str>,
    pub(super) sent: Instant,
    deadline: Instant,
    /// The request itself, for methods whose answer in the server's place depends on it.
    pub(super) frame: Option<Frame>,
    /// The version of the document the request was about, for answers worth keeping.
    pub(super) version: Option<i64>,
    pub(super) pass: Option<Pass>,
}

impl InFlight {
    fn limit(&self) -> Duration {
        self.deadline.saturating_duration_since(self.sent)
    }

    pub(super) fn new(method: &str, sent: Instant, deadline: Instant) -> Self {
        Self { method: method.into(), sent, deadline, frame: None, version: None, pass: None }
    }
}

/// The requests that the server has.
#[derive(Debug, Default)]
pub(super) struct Pending {
    by_id: HashMap<RequestId, InFlight>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// How many requests may take how long.
    limits: BTreeMap<Duration, usize>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn contains(&self, id: &RequestId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn insert(&mut self, id: RequestId, request: InFlight) {
        self.deadlines.insert((request.deadline, id.clone()));
        *self.limits.entry(request.limit()).or_default() += 1;
        self.by_id.insert(id, request);
    }

    pub(super) fn remove(&mut self, id: &RequestId) -> Option<InFlight> {
        let request = self.by_id.remove(id)?;
        self.deadlines.remove(&(request.deadline, id.clone()));
        self.forget_limit(request.limit());
        Some(request)
    }

    /// The longest time that any of them may take.
    pub(super) fn longest_limit(&self) -> Duration {
        self.limits.last_key_value().map_or(Duration::ZERO, |(limit, _)| *limit)
    }

    fn forget_limit(&mut self, limit: Duration) {
        if let Some(count) = self.limits.get_mut(&limit) {
            *count -= 1;
            if *count == 0 {
                self.limits.remove(&limit);
            }
        }
    }

    /// All of them, the earliest deadline first.
    pub(super) fn drain(&mut self) -> Vec<(RequestId, InFlight)> {
        let order = std::mem::take(&mut self.deadlines);
        self.limits.clear();
        order.into_iter().filter_map(|(_, id)| self.by_id.remove(&id).map(|request| (id, request))).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(RequestId, InFlight)> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, id) = self.deadlines.first()?.clone();
        self.remove(&id).map(|request| (id, request))
    }
}

/// A request that waits for a server.
#[derive(Debug)]
pub(super) struct WaitingRequest {
    pub(super) id: RequestId,
    pub(super) method: Box<str>,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
    pub(super) frame: Frame,
}

#[derive(Debug)]
pub(super) enum WaitingMessage {
    Request(WaitingRequest),
    Notification(Frame),
}

impl WaitingMessage {
    fn size(&self) -> usize {
        match self {
            Self::Request(WaitingRequest { frame, .. }) | Self::Notification(frame) => frame.as_bytes().len(),
        }
    }
}

/// Messages that wait for a server, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: VecDeque<WaitingMessage>,
    bytes: usize,
    dropped: u64,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn contains(&self, id: &RequestId) -> bool {
        self.requests().any(|request| request.id == *id)
    }

    pub(super) fn push(&mut self, message: WaitingMessage) {
        self.bytes += message.size();
        self.messages.push_back(message);
    }

    /// Makes room by dropping the oldest notifications; whether there is room now.
    pub(super) fn make_room(&mut self, size: usize, max_messages: usize, max_bytes: usize) -> bool {
        while self.messages.len() >= max_messages || self.bytes + size > max_bytes {
            let oldest = self.messages.iter().position(|message| matches!(message, WaitingMessage::Notification(_)));
            let Some(dropped) = oldest.and_then(|at| self.messages.remove(at)) else { return false };
            self.bytes -= dropped.size();
            self.dropped += 1;
        }
        true
    }

    pub(super) fn count_dropped(&mut self) {
        self.dropped += 1;
    }

    pub(super) fn remove(&mut self, id: &RequestId) -> Option<WaitingRequest> {
        self.remove_where(|request| request.id == *id)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests().map(|request| request.deadline).min()
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<WaitingRequest> {
        self.remove_where(|request| request.deadline <= now)
    }

    pub(super) fn drain(&mut self) -> VecDeque<WaitingMessage> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    /// The requests, taken out; the notifications stay.
    pub(super) fn drain_requests(&mut self) -> Vec<WaitingRequest> {
        std::iter::from_fn(|| self.remove_where(|_| true)).collect()
    }

    fn requests(&self) -> impl Iterator<Item = &WaitingRequest> {
        self.messages.iter().filter_map(|message| match message {
            WaitingMessage::Request(request) => Some(request),
            WaitingMessage::Notification(_) => None,
        })
    }

    fn remove_where(&mut self, wanted: impl Fn(&WaitingRequest) -> bool) -> Option<WaitingRequest> {
        let at = self
            .messages
            .iter()
            .position(|message| matches!(message, WaitingMessage::Request(request) if wanted(request)))?;
        let message = self.messages.remove(at)?;
        self.bytes -= message.size();
        match message {
            WaitingMessage::Request(request) => Some(request),
            WaitingMessage::Notification(_) => None,
        }
    }
}

/// The document that the parameters of a request are about.
pub(super) fn document_of(params: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "textDocument")]
        document: Document<'a>,
    }
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        uri: Cow<'a, str>,
    }
    serde_json::from_str::<Params<'_>>(params.get()).ok().map(|params| params.document.uri)
}
