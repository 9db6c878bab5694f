//! What stays the same from call to call: a pipeline's policies in their order, and what follows from them.

use std::sync::Arc;
use std::time::Duration;

use super::gate::Gate;
use crate::chaos::Chaos;
use crate::clock::Clock;
use crate::event::Observers;
use crate::hedge::Hedge;
use crate::retry::Retry;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) observers: Observers,
    /// From the outside in; those from `inner` on stand inside the retry.
    pub(crate) gates: Vec<Gate>,
    pub(crate) inner: usize,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) retry: Option<Retry>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) chaos: Option<Chaos>,
    pub(crate) hedge: Option<Hedge>,
    /// Whether it makes a difference when a call started.
    pub(crate) wants_time: bool,
    /// Whether nothing at all is to be done around a first attempt that succeeds.
    pub(crate) is_bare: bool,
}

impl Plan {
    /// A plan without policies.
    pub(super) fn new(name: Arc<str>, clock: Clock, observers: Observers) -> Self {
        Self {
            name,
            clock,
            observers,
            gates: Vec::new(),
            inner: 0,
            call_timeout: None,
            retry: None,
            attempt_timeout: None,
            chaos: None,
            hedge: None,
            wants_time: false,
            is_bare: false,
        }
    }

    /// Draws the conclusions, once all policies are in.
    pub(super) fn concluded(mut self) -> Self {
        if self.retry.is_none() {
            self.inner = self.gates.len();
        }
        let retry_needs_start = self.retry.as_ref().is_some_and(Retry::needs_start);
        self.wants_time = self.call_timeout.is_some() || retry_needs_start || !self.observers.is_empty();
        let innermost = self.attempt_timeout.is_some() || self.chaos.is_some() || self.hedge.is_some();
        self.is_bare = !self.wants_time && self.gates.is_empty() && !innermost;
        self
    }
}
