//! Listens to the policies of `resilience-core` and records what they do.
//! It runs on the caller's thread and never blocks it: what the log cannot take is counted, not waited for.

use resilience_core::{BreakerState, Event, Observer, Outcome, Severity};

use crate::event::{AuditEvent, Status};
use crate::log::AuditLog;

/// Records the events of policies: failed calls, retries, refusals, changes of circuit breakers, handled errors and
/// notices. Successful calls are left out unless [`with_successes`](Self::with_successes) asks for them.
///
/// ```
/// use std::sync::Arc;
/// use resilience_audit::{AuditLog, AuditObserver, Query};
/// use resilience_core::{CircuitBreaker, Observers};
///
/// let log = AuditLog::default();
/// let observers = Observers::new().with(Arc::new(AuditObserver::new(log.clone())));
/// let breaker = CircuitBreaker::builder("registry_fetch").observers(observers).build()?;
/// breaker.force_open();
/// let record = log.query(Query::new().resource("registry_fetch"))?.next().unwrap()?;
/// assert_eq!((record.event_type(), record.action()), ("circuit_breaker", "forced_open"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AuditObserver {
    log: AuditLog,
    successes: bool,
}

impl AuditObserver {
    /// An observer that records into `log`, whatever the log's policy for a full queue, without blocking.
    pub fn new(log: AuditLog) -> Self {
        Self { log, successes: false }
    }

    /// Records successful calls too: one record per call.
    #[must_use]
    pub fn with_successes(mut self) -> Self {
        self.successes = true;
        self
    }
}

impl Observer for AuditObserver {
    fn on_event(&self, event: &Event<'_>) {
        if let Some(event) = translate(event, self.successes) {
            self.log.offer(event);
        }
    }
}

fn status(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Success => Status::Success,
        Outcome::TimedOut => Status::TimedOut,
        Outcome::Rejected => Status::Rejected,
        Outcome::Cancelled => Status::Cancelled,
        Outcome::Panicked => Status::Panicked,
        // An outcome that this version does not know is not taken for a success.
        _ => Status::Failure,
    }
}

fn translate(event: &Event<'_>, successes: bool) -> Option<AuditEvent> {
    Some(match event {
        Event::CallFinished { outcome: Outcome::Success, .. } if !successes => return None,
        Event::CallFinished { pipeline, operation, outcome, attempts, elapsed, stopped, .. } => {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            let mut finished = AuditEvent::new("call", "finished", (*pipeline).to_owned())
                .status(status(outcome))
                .detail("attempts", *attempts)
                .detail("elapsed_us", micros);
            if let Some(operation) = operation {
                finished = finished.detail("operation", (*operation).to_owned());
            }
            if let Some(stopped) = stopped {
                finished = finished.detail("stopped", stopped.as_str());
            }
            match outcome {
                Outcome::Failure(class) => finished.class(*class),
                _ => finished,
            }
        }
        Event::RetryScheduled { pipeline, attempt, delay, class, .. } => {
            let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
            AuditEvent::new("call", "retry_scheduled", (*pipeline).to_owned())
                .status(Status::Failure)
                .class(*class)
                .detail("attempt", *attempt)
                .detail("delay_us", micros)
        }
        Event::HedgeStarted { pipeline, attempt, hedge, .. } => {
            AuditEvent::new("call", "hedge_started", (*pipeline).to_owned())
                .detail("attempt", *attempt)
                .detail("hedge", *hedge)
        }
        Event::FallbackUsed { fallback, class, answered, .. } => {
            AuditEvent::new("fallback", if *answered { "answered" } else { "failed" }, (*fallback).to_owned())
                .status(Status::Failure)
                .class(*class)
        }
        Event::Rejected { rejection, .. } => {
            AuditEvent::new("policy", rejection.reason.as_str(), rejection.policy.to_string())
                .status(Status::Rejected)
                .error(rejection.to_string())
        }
        Event::BreakerStateChanged { breaker, from, to, generation, .. } => {
            let severity = match to {
                BreakerState::Open | BreakerState::ForcedOpen => Severity::High,
                _ => Severity::Low,
            };
            AuditEvent::new("circuit_breaker", to.as_str(), (*breaker).to_owned())
                .severity(severity)
                .detail("from", from.as_str())
                .detail("generation", *generation)
        }
        Event::ErrorHandled { context, .. } => {
            let mut handled = AuditEvent::new("error", context.operation.clone(), context.component.clone())
                .error(context.message.clone())
                .class(context.class)
                .error_id(context.id)
                .at(context.at);
            if let Some(trace) = &context.trace {
                handled = handled.correlation_id(trace.clone());
            }
            for (key, value) in &context.details {
                handled = handled.detail(key.clone(), value.clone());
            }
            handled = handled.detail("attempts", context.attempts);
            if !context.causes.is_empty() {
                handled = handled.detail("causes", context.causes.join(": "));
            }
            handled
        }
        Event::Notice { component, action, resource, severity, detail, .. } => {
            let notice = AuditEvent::new((*component).to_owned(), (*action).to_owned(), (*resource).to_owned())
                .severity(*severity);
            if detail.is_empty() { notice } else { notice.detail("detail", (*detail).to_owned()) }
        }
        // Newer events than this version knows have no fields it could record.
        _ => return None,
    })
}
