//! Recovery plans: what to do when an operation fails, by the operation's name.
//! Each plan is compiled to a pipeline of core policies when it is built; this module adds the alternative and the record, no
//! policy of its own.
//!
//! ```
//! use std::io::{Error, ErrorKind};
//! use resilience_core::{CircuitBreaker, ManualClock};
//! use resilience_health::recovery::{How, Recovery, RecoveryPlan};
//!
//! let time = ManualClock::auto_advancing();
//! let recovery = Recovery::builder()
//!     .clock(time.clock())
//!     .plan(RecoveryPlan::retry("fetch_package"))
//!     .plan(RecoveryPlan::circuit_break("check_protocol", CircuitBreaker::builder("protocol_check").build()?))
//!     .plan(RecoveryPlan::graceful_degrade("lsp_operation"))
//!     .build()?;
//!
//! let mut refusals = 2;
//! let fetched = recovery.call("fetch_package", |_attempt| {
//!     if refusals > 0 {
//!         refusals -= 1;
//!         return Err(Error::from(ErrorKind::ConnectionRefused));
//!     }
//!     Ok("serde 1.0.228")
//! })?;
//! assert_eq!((fetched.value, fetched.how), ("serde 1.0.228", How::Retried { attempts: 3 }));
//!
//! let completions = recovery.call_or(
//!     "lsp_operation",
//!     |_attempt| Err(Error::from(ErrorKind::TimedOut)),
//!     |_error| Ok(vec!["word from this file"]), // less, but an answer
//! )?;
//! assert_eq!(completions.how, How::Degraded);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use resilience_core::class::Fault;
use resilience_core::{
    Attempt, Backoff, CallOptions, CircuitBreaker, Classify, Clock, ConfigError, Error, Observers, Pipeline, Retry,
};

use crate::check::bounded;
use crate::graph::names;
use crate::monitor::panic_message;
use crate::ring::Ring;

const MAX_HISTORY: usize = 65_536;

/// What a plan does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Strategy {
    /// Tries again after a pause, where the error is one that repeating may cure.
    Retry,
    /// Does something else that gives a full answer.
    Fallback,
    /// Leaves a failing dependency alone for a while.
    CircuitBreak,
    /// Gives a lesser answer, and says that it is one.
    GracefulDegrade,
}

impl Strategy {
    /// The name used in records, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Fallback => "fallback",
            Self::CircuitBreak => "circuit_break",
            Self::GracefulDegrade => "graceful_degrade",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What each strategy needs to know.
#[derive(Debug, Clone)]
enum Settings {
    Retry { max_attempts: u32, delay: Duration },
    Fallback,
    CircuitBreak(CircuitBreaker),
    GracefulDegrade,
}

/// The plan for one operation. Its time limit, 5 s unless set, covers everything it does except the alternative.
///
/// The limit is kept as core keeps it for blocking calls: no attempt starts after it, and each attempt is told its
/// [deadline](Attempt::deadline) so that it can pass it on. For async operations, take the
/// [pipeline](Recovery::pipeline): there an attempt is dropped when its time is over.
#[derive(Debug, Clone)]
#[must_use = "a plan does nothing until it is registered"]
pub struct RecoveryPlan {
    operation: String,
    settings: Settings,
    timeout: Duration,
}

impl RecoveryPlan {
    fn new(operation: impl Into<String>, settings: Settings) -> Self {
        Self { operation: operation.into(), settings, timeout: Duration::from_secs(5) }
    }

    /// Tries up to 3 times with 100 ms between, give or take 20 %; see [`retry_with`](Self::retry_with).
    pub fn retry(operation: impl Into<String>) -> Self {
        Self::retry_with(operation, 3, Duration::from_millis(100))
    }

    /// Tries up to `max_attempts` times, the first included (at least 1), with `delay` between.
    pub fn retry_with(operation: impl Into<String>, max_attempts: u32, delay: Duration) -> Self {
        Self::new(operation, Settings::Retry { max_attempts, delay })
    }

    /// Tries once; the alternative of [`call_or`](Recovery::call_or) then gives a full answer.
    pub fn fallback(operation: impl Into<String>) -> Self {
        Self::new(operation, Settings::Fallback)
    }

    /// Goes through `breaker`, which may be shared with others: when it is open, the operation is not called.
    pub fn circuit_break(operation: impl Into<String>, breaker: CircuitBreaker) -> Self {
        Self::new(operation, Settings::CircuitBreak(breaker))
    }

    /// Tries once; the alternative of [`call_or`](Recovery::call_or) then gives a lesser answer, marked
    /// [`How::Degraded`].
    pub fn graceful_degrade(operation: impl Into<String>) -> Self {
        Self::new(operation, Settings::GracefulDegrade)
    }

    /// The time limit; more than 0.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn strategy(&self) -> Strategy {
        match self.settings {
            Settings::Retry { .. } => Strategy::Retry,
            Settings::Fallback => Strategy::Fallback,
            Settings::CircuitBreak(_) => Strategy::CircuitBreak,
            Settings::GracefulDegrade => Strategy::GracefulDegrade,
        }
    }

    fn compile(&self, clock: &Clock, observers: &Observers) -> Result<Pipeline, ConfigError> {
        let pipeline = Pipeline::builder(self.operation.as_str())
            .clock(clock.clone())
            .observers(observers.clone())
            .timeout(self.timeout);
        match &self.settings {
            Settings::Retry { max_attempts, delay } => {
                let retry = Retry::builder().max_attempts(*max_attempts).backoff(Backoff::fixed(*delay)).build();
                // Core knows the field, this plan knows the operation.
                let retry = retry.map_err(|error| {
                    ConfigError::new(format!("{}.{}", self.operation, error.field), error.value, error.allowed)
                })?;
                pipeline.retry(retry).build()
            }
            Settings::CircuitBreak(breaker) => pipeline.circuit_breaker(breaker.clone()).build(),
            Settings::Fallback | Settings::GracefulDegrade => pipeline.build(),
        }
    }
}

/// How a value came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum How {
    /// At the first try: nothing had to be recovered.
    FirstTry,
    /// After failures, at this attempt.
    Retried {
        /// Attempts made, the successful one included.
        attempts: u32,
    },
    /// By the alternative, in full.
    Fallback,
    /// By the alternative, with less than was asked for.
    Degraded,
}

/// A value and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered<T> {
    /// The value.
    pub value: T,
    /// How it came about.
    pub how: How,
}

/// Why a call with a plan gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryError<E> {
    /// There is no plan for that operation.
    UnknownOperation {
        /// The name asked for.
        operation: String,
        /// The names there are.
        registered: String,
    },
    /// The plan was carried out and did not help.
    Failed {
        /// The operation.
        operation: Arc<str>,
        /// What the operation or a policy said last.
        error: Error<E>,
        /// What the alternative said, where one was tried; it does not hide the first error.
        alternative: Option<E>,
    },
}

impl<E: fmt::Display> fmt::Display for RecoveryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownOperation { operation, registered } => {
                write!(f, "no recovery plan is named `{operation}`; there are: {registered}")
            }
            Self::Failed { operation, error, alternative: None } => write!(f, "`{operation}` failed: {error}"),
            Self::Failed { operation, error, alternative: Some(alternative) } => {
                write!(f, "`{operation}` failed: {error}; the alternative failed too: {alternative}")
            }
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for RecoveryError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnknownOperation { .. } => None,
            // The error's own text is part of this one's, so the chain goes on behind it.
            Self::Failed { error, .. } => error.source(),
        }
    }
}

/// Something that had to be recovered, whether it could be or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecoveryRecord {
    /// Wall time of the end.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_ms", serialize_with = "crate::ser::unix_ms"))]
    pub at: SystemTime,
    /// The operation.
    pub operation: Arc<str>,
    /// The plan's strategy.
    pub strategy: Strategy,
    /// How it was recovered; none when it was not.
    pub how: Option<How>,
    /// The first error that was not recovered by trying again, or how many attempts it took.
    pub message: String,
    /// From the call to its end.
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_ms", serialize_with = "crate::ser::ms"))]
    pub elapsed: Duration,
}

struct Compiled {
    operation: Arc<str>,
    strategy: Strategy,
    pipeline: Pipeline,
}

/// All recovery plans of a program. Cheap to clone; all clones are the same.
///
/// See the [module](self) for an example.
#[derive(Clone)]
pub struct Recovery(Arc<Inner>);

struct Inner {
    clock: Clock,
    plans: BTreeMap<String, Compiled>,
    history: Mutex<Ring<RecoveryRecord>>,
    listeners: Vec<Listener>,
}

type Listener = Box<dyn Fn(&RecoveryRecord) + Send + Sync>;

/// Collects plans. Made by [`Recovery::builder`].
#[must_use = "call `build`"]
pub struct RecoveryBuilder {
    clock: Clock,
    observers: Observers,
    plans: Vec<RecoveryPlan>,
    remember: usize,
    listeners: Vec<Listener>,
}

impl fmt::Debug for RecoveryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryBuilder").field("plans", &self.plans).finish_non_exhaustive()
    }
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery").field("plans", &self.0.plans.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl RecoveryBuilder {
    /// The clock of pauses and time limits. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears the events of the plans' pipelines.
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Registers a plan.
    pub fn plan(mut self, plan: RecoveryPlan) -> Self {
        self.plans.push(plan);
        self
    }

    /// How many records are kept, at most 65 536. Default 256.
    pub fn remember(mut self, records: usize) -> Self {
        self.remember = records;
        self
    }

    /// Calls `listener` with every record, on the thread of the call that made it. Its panics are caught.
    pub fn on_record(mut self, listener: impl Fn(&RecoveryRecord) + Send + Sync + 'static) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Compiles the plans.
    ///
    /// # Errors
    /// [`ConfigError`] for two plans of one operation, 0 attempts, a time limit of 0, and other values that cannot be
    /// used; it names the operation.
    pub fn build(self) -> Result<Recovery, ConfigError> {
        if self.remember > MAX_HISTORY {
            return Err(ConfigError::new("remember", self.remember, format!("0 to {MAX_HISTORY}")));
        }
        let mut plans = BTreeMap::new();
        for plan in self.plans {
            let pipeline = plan.compile(&self.clock, &self.observers)?;
            let operation: Arc<str> = plan.operation.as_str().into();
            let compiled = Compiled { operation, strategy: plan.strategy(), pipeline };
            if plans.insert(plan.operation.clone(), compiled).is_some() {
                let allowed = "one plan for each operation";
                return Err(ConfigError::new("plan", format!("`{}` for the second time", plan.operation), allowed));
            }
        }
        Ok(Recovery(Arc::new(Inner {
            clock: self.clock,
            plans,
            history: Mutex::new(Ring::new(self.remember)),
            listeners: self.listeners,
        })))
    }
}

impl Recovery {
    /// Starts with no plans and the system clock.
    pub fn builder() -> RecoveryBuilder {
        RecoveryBuilder {
            clock: Clock::default(),
            observers: Observers::default(),
            plans: Vec::new(),
            remember: 256,
            listeners: Vec::new(),
        }
    }

    /// Calls an operation as its plan says, without an alternative.
    ///
    /// # Errors
    /// [`RecoveryError`] when there is no such plan, or it did not help.
    pub fn call<T, E: Classify + fmt::Display>(
        &self,
        operation: &str,
        attempt: impl FnMut(Attempt) -> Result<T, E>,
    ) -> Result<Recovered<T>, RecoveryError<E>> {
        self.run(operation, attempt, None::<fn(&Error<E>) -> Result<T, E>>)
    }

    /// Calls an operation as its plan says; when that fails, `alternative` gives the answer. It is not asked when the
    /// failure is the caller's own mistake, which no alternative cures.
    ///
    /// # Errors
    /// [`RecoveryError`] when there is no such plan, or neither it nor the alternative helped; it holds both errors.
    pub fn call_or<T, E: Classify + fmt::Display>(
        &self,
        operation: &str,
        attempt: impl FnMut(Attempt) -> Result<T, E>,
        alternative: impl FnOnce(&Error<E>) -> Result<T, E>,
    ) -> Result<Recovered<T>, RecoveryError<E>> {
        self.run(operation, attempt, Some(alternative))
    }

    /// The pipeline that an operation's plan was compiled to, to call it in other ways, as async.
    pub fn pipeline(&self, operation: &str) -> Option<&Pipeline> {
        self.0.plans.get(operation).map(|plan| &plan.pipeline)
    }

    /// The newest `limit` records, oldest first. Calls that succeeded at once leave none.
    pub fn history(&self, limit: usize) -> Vec<RecoveryRecord> {
        let history = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.newest(limit).cloned().collect()
    }

    fn run<T, E: Classify + fmt::Display>(
        &self,
        operation: &str,
        mut attempt: impl FnMut(Attempt) -> Result<T, E>,
        alternative: Option<impl FnOnce(&Error<E>) -> Result<T, E>>,
    ) -> Result<Recovered<T>, RecoveryError<E>> {
        let Some(plan) = self.0.plans.get(operation) else {
            return Err(RecoveryError::UnknownOperation {
                operation: operation.chars().take(140).collect(),
                registered: names(self.0.plans.keys().map(String::as_str)),
            });
        };
        let started = self.0.clock.now();
        let mut attempts = 0;
        let result = plan.pipeline.call_with(CallOptions::new(), |this| {
            attempts = this.number;
            attempt(this)
        });
        let record = |how: Option<How>, message: String| {
            self.record(RecoveryRecord {
                at: self.0.clock.wall(),
                operation: Arc::clone(&plan.operation),
                strategy: plan.strategy,
                how,
                message: bounded(message),
                elapsed: self.0.clock.now().saturating_duration_since(started),
            });
        };
        let error = match result {
            Ok(value) if attempts <= 1 => return Ok(Recovered { value, how: How::FirstTry }),
            Ok(value) => {
                let how = How::Retried { attempts };
                record(Some(how), format!("succeeded at attempt {attempts}"));
                return Ok(Recovered { value, how });
            }
            Err(error) => error,
        };
        let failed =
            |error, alternative| RecoveryError::Failed { operation: Arc::clone(&plan.operation), error, alternative };
        let Some(alternative) = alternative.filter(|_| error.class().fault != Fault::Caller) else {
            record(None, error.to_string());
            return Err(failed(error, None));
        };
        match alternative(&error) {
            Ok(value) => {
                let how = if plan.strategy == Strategy::GracefulDegrade { How::Degraded } else { How::Fallback };
                record(Some(how), error.to_string());
                Ok(Recovered { value, how })
            }
            Err(second) => {
                let error = failed(error, Some(second));
                record(None, error.to_string());
                Err(error)
            }
        }
    }

    fn record(&self, record: RecoveryRecord) {
        for listener in &self.0.listeners {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(&record))) {
                tracing::error!(panic = panic_message(&*panic), "a recovery listener panicked");
            }
        }
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }
}
