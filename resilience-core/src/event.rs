//! What the policies tell the outside: one event type, one observer trait.
//! Observers are isolated: one that panics is removed, and none runs under a policy's lock.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::circuit_breaker::BreakerState;
use crate::class::{Class, Severity};
use crate::context::ErrorContext;
use crate::outcome::{Outcome, Rejection, Stopped};

/// Something a policy did or decided. Borrowed: an observer copies what it wants to keep.
///
/// ```
/// use resilience_core::{Event, Severity};
///
/// fn line(event: &Event<'_>) -> Option<String> {
///     match event {
///         Event::BreakerStateChanged { breaker, to, .. } => Some(format!("{breaker} is {}", to.as_str())),
///         Event::Rejected { rejection, .. } => Some(rejection.to_string()),
///         Event::Notice { component, action, .. } => Some(format!("{component}: {action}")),
///         _ => None, // there will be more
///     }
/// }
/// assert_eq!(line(&Event::notice("cache", "served_stale", "", Severity::Low, "")).unwrap(), "cache: served_stale");
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A call through a pipeline ended.
    #[non_exhaustive]
    CallFinished {
        /// The pipeline's name.
        pipeline: &'a str,
        /// What the call did, when it said so: [`CallOptions::operation`](crate::CallOptions::operation).
        operation: Option<&'a str>,
        /// How it ended.
        outcome: &'a Outcome,
        /// How many times the operation was started.
        attempts: u32,
        /// From the call to its end, waits included.
        elapsed: Duration,
        /// Why no further attempt was made, when the call failed under a retry.
        stopped: Option<Stopped>,
    },
    /// An attempt failed and another one will be made.
    #[non_exhaustive]
    RetryScheduled {
        /// The pipeline's name.
        pipeline: &'a str,
        /// The attempt that failed, counted from 1; 0 when a policy refused the call before its first attempt.
        attempt: u32,
        /// The pause before the next one.
        delay: Duration,
        /// What the failure meant.
        class: Class,
    },
    /// An attempt is slow, and its operation was started once more beside it.
    #[non_exhaustive]
    HedgeStarted {
        /// The pipeline's name.
        pipeline: &'a str,
        /// The attempt that is slow, counted from 1.
        attempt: u32,
        /// Its runs beside the first, this one included.
        hedge: u32,
    },
    /// A policy refused a call.
    #[non_exhaustive]
    Rejected {
        /// Who refused it and why.
        rejection: &'a Rejection,
    },
    /// A call failed, and a fallback was asked to answer in its place.
    #[non_exhaustive]
    FallbackUsed {
        /// The fallback's name.
        fallback: &'a str,
        /// What the call's failure meant.
        class: Class,
        /// Whether there was an answer; `false` when the fallback failed as well.
        answered: bool,
    },
    /// A circuit breaker changed its state.
    #[non_exhaustive]
    BreakerStateChanged {
        /// The breaker's name.
        breaker: &'a str,
        /// The state it left.
        from: BreakerState,
        /// The state it is in now.
        to: BreakerState,
        /// Counts the breaker's state changes.
        generation: u64,
    },
    /// An error was handled by a [`Registry`](crate::Registry).
    #[non_exhaustive]
    ErrorHandled {
        /// Everything known about it.
        context: &'a ErrorContext,
    },
    /// Something worth recording in a component built on this crate: a restart, a degraded answer, a bad checksum.
    #[non_exhaustive]
    Notice {
        /// The component that speaks.
        component: &'a str,
        /// What happened, as a fixed term (`restarted`, `served_stale`, …).
        action: &'a str,
        /// What it happened to.
        resource: &'a str,
        /// How bad it is.
        severity: Severity,
        /// More, for people.
        detail: &'a str,
    },
}

impl<'a> Event<'a> {
    /// A notice of a component built on this crate.
    ///
    /// ```
    /// use resilience_core::{Event, Severity};
    ///
    /// let event = Event::notice("cache", "served_stale", "index", Severity::Low, "2 minutes old");
    /// assert!(matches!(event, Event::Notice { action: "served_stale", severity: Severity::Low, .. }));
    /// ```
    pub const fn notice(
        component: &'a str,
        action: &'a str,
        resource: &'a str,
        severity: Severity,
        detail: &'a str,
    ) -> Self {
        Self::Notice { component, action, resource, severity, detail }
    }
}

/// Listens to what policies do.
///
/// Runs on the thread of the call it hears about: it must be quick and must not block. One that panics is heard no
/// more; the panic is logged once and the call goes on.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use resilience_core::{Event, Observer, Observers, Pipeline};
///
/// #[derive(Default)]
/// struct Calls(AtomicU64);
/// impl Observer for Calls {
///     fn on_event(&self, event: &Event<'_>) {
///         if matches!(event, Event::CallFinished { .. }) {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let calls = Arc::new(Calls::default());
/// let pipeline = Pipeline::builder("store").observers(Observers::new().with(calls.clone())).build()?;
/// pipeline.call(|| Ok::<_, std::io::Error>(())).unwrap();
/// assert_eq!(calls.0.load(Ordering::Relaxed), 1);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub trait Observer: Send + Sync {
    /// Called once per event.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use resilience_core::{Event, Observer, Severity};
    ///
    /// let heard = AtomicU32::new(0);
    /// let count = |_: &Event<'_>| { heard.fetch_add(1, Ordering::Relaxed); }; // a closure is an observer, too
    /// count.on_event(&Event::notice("cache", "restarted", "", Severity::Medium, ""));
    /// assert_eq!(heard.load(Ordering::Relaxed), 1);
    /// ```
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

struct Slot {
    observer: Arc<dyn Observer>,
    removed: AtomicBool,
}

/// Who listens. Cheap to clone; empty by default, and then it costs one branch.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use resilience_core::{CircuitBreaker, Event, Observers};
///
/// let opened = Arc::new(AtomicU32::new(0));
/// let count = Arc::clone(&opened);
/// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
///     if let Event::BreakerStateChanged { .. } = event {
///         count.fetch_add(1, Ordering::Relaxed);
///     }
/// }));
/// let breaker = CircuitBreaker::builder("db").observers(observers).build()?;
/// breaker.force_open();
/// assert_eq!(opened.load(Ordering::Relaxed), 1);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Observers(Option<Arc<[Arc<Slot>]>>);

impl Observers {
    /// Nobody listens.
    ///
    /// ```
    /// use resilience_core::Observers;
    ///
    /// assert!(Observers::new().is_empty());
    /// ```
    pub const fn new() -> Self {
        Self(None)
    }

    /// The same and one more listener.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use resilience_core::{Event, Observers, Severity};
    ///
    /// let heard = Arc::new(Mutex::new(Vec::new()));
    /// let listener = |name: &'static str| {
    ///     let heard = Arc::clone(&heard);
    ///     Arc::new(move |_: &Event<'_>| heard.lock().unwrap().push(name))
    /// };
    /// let observers = Observers::new().with(listener("metrics")).with(listener("log"));
    /// observers.emit(&Event::notice("cache", "restarted", "", Severity::Medium, ""));
    /// assert_eq!(*heard.lock().unwrap(), ["metrics", "log"]);
    /// ```
    #[must_use]
    pub fn with(self, observer: Arc<dyn Observer>) -> Self {
        let mut slots: Vec<Arc<Slot>> = self.0.as_deref().unwrap_or_default().to_vec();
        slots.push(Arc::new(Slot { observer, removed: AtomicBool::new(false) }));
        Self(Some(slots.into()))
    }

    /// Whether nobody listens.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use resilience_core::{Observers, event::TracingObserver};
    ///
    /// assert!(Observers::default().is_empty());
    /// assert!(!Observers::new().with(Arc::new(TracingObserver)).is_empty());
    /// ```
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Tells everyone. Must not be called under a lock that an observer might want.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use resilience_core::{Event, Observers, Severity};
    ///
    /// let actions = Arc::new(Mutex::new(Vec::new()));
    /// let log = Arc::clone(&actions);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::Notice { action, .. } = event {
    ///         log.lock().unwrap().push((*action).to_owned());
    ///     }
    /// }));
    /// observers.emit(&Event::notice("cache", "served_stale", "index", Severity::Low, "2 minutes old"));
    /// assert_eq!(*actions.lock().unwrap(), ["served_stale"]);
    /// ```
    pub fn emit(&self, event: &Event<'_>) {
        let Some(slots) = &self.0 else { return };
        for slot in slots.iter() {
            // Relaxed: at worst a removed observer hears one more event.
            if slot.removed.load(Ordering::Relaxed) {
                continue;
            }
            let heard = catch_unwind(AssertUnwindSafe(|| slot.observer.on_event(event)));
            if heard.is_err() && !slot.removed.swap(true, Ordering::Relaxed) {
                tracing::error!(?event, "an observer panicked and is removed");
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observers({})", self.0.as_deref().map_or(0, <[_]>::len))
    }
}

/// Writes every event to `tracing`: failures and rejections at `DEBUG`, state changes and notices at `INFO` or
/// above by severity.
///
/// ```
/// use std::sync::Arc;
/// use resilience_core::{CircuitBreaker, Observers, event::TracingObserver};
///
/// let observers = Observers::new().with(Arc::new(TracingObserver));
/// let breaker = CircuitBreaker::builder("store").observers(observers).build()?;
/// breaker.force_open(); // logged as a warning: circuit breaker changed
/// # assert_eq!(breaker.state().as_str(), "forced_open");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::CallFinished { pipeline, operation, outcome, attempts, elapsed, stopped } => {
                tracing::debug!(
                    pipeline,
                    operation,
                    outcome = outcome.as_str(),
                    attempts,
                    ?elapsed,
                    stopped = stopped.map(|stopped| stopped.as_str()),
                    "call finished"
                );
            }
            Event::RetryScheduled { pipeline, attempt, delay, class } => {
                tracing::debug!(pipeline, attempt, ?delay, category = class.category.as_str(), "retry scheduled");
            }
            Event::HedgeStarted { pipeline, attempt, hedge } => {
                tracing::debug!(pipeline, attempt, hedge, "hedge started");
            }
            Event::Rejected { rejection } => tracing::debug!(reason = rejection.reason.as_str(), "{rejection}"),
            Event::FallbackUsed { fallback, class, answered } => {
                tracing::debug!(fallback, category = class.category.as_str(), answered, "fallback used");
            }
            Event::BreakerStateChanged { breaker, from, to, generation } => {
                tracing::warn!(breaker, from = from.as_str(), to = to.as_str(), generation, "circuit breaker changed");
            }
            Event::ErrorHandled { context } => {
                tracing::warn!(
                    id = %context.id,
                    component = context.component,
                    operation = context.operation,
                    category = context.class.category.as_str(),
                    severity = context.class.severity.as_str(),
                    attempts = context.attempts,
                    message = ?context.message,
                    "error handled"
                );
            }
            Event::Notice { component, action, resource, severity, detail } => match severity {
                Severity::Low | Severity::Medium => {
                    tracing::info!(component, action, ?resource, severity = severity.as_str(), ?detail, "notice");
                }
                Severity::High | Severity::Critical => {
                    tracing::error!(component, action, ?resource, severity = severity.as_str(), ?detail, "notice");
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_panicking_observer_is_heard_once_and_does_not_disturb_the_others() {
        let (bad, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (bad_count, good_count) = (Arc::clone(&bad), Arc::clone(&good));
        let observers = Observers::new()
            .with(Arc::new(move |_: &Event<'_>| {
                bad_count.fetch_add(1, Ordering::Relaxed);
                panic!("a broken observer");
            }))
            .with(Arc::new(move |_: &Event<'_>| {
                good_count.fetch_add(1, Ordering::Relaxed);
            }));
        for _ in 0..3 {
            observers.emit(&Event::notice("test", "spoke", "", Severity::Low, ""));
        }
        assert_eq!((bad.load(Ordering::Relaxed), good.load(Ordering::Relaxed)), (1, 3));
    }
}
