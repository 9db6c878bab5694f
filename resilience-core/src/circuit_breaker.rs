//! The circuit breaker: stops calling what keeps failing, and finds out when it works again.
//! One word says state and generation; a call is judged only by the generation that admitted it, and a permit that
//! is dropped (cancelled, panicked, timed out) is always returned. The state machine never sleeps or does I/O.

mod config;
mod machine;
mod permit;

pub use config::{CircuitBreakerBuilder, Trip};
pub use permit::Permit;

pub(crate) use permit::Token;

use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use crate::class::Classify;
use crate::clock::Clock;
use crate::event::{Event, Observers};
use crate::outcome::{Error, Outcome, Rejection};
use machine::Machine;

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum BreakerState {
    /// Everything passes; results are counted.
    Closed,
    /// Nothing passes until the open time is over.
    Open,
    /// A few probes pass; they decide.
    HalfOpen,
    /// Nothing passes until an operator says otherwise.
    ForcedOpen,
    /// Everything passes and nothing is judged, until an operator says otherwise.
    Disabled,
}

impl BreakerState {
    /// The name used in metrics, logs and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a breaker has seen since it was made, and where it stands. `calls` is always the sum of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BreakerStatistics {
    /// The state now.
    pub state: BreakerState,
    /// How many state changes there have been.
    pub generation: u64,
    /// Admitted calls that ended: successes + failures + ignored.
    pub calls: u64,
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed by the dependency's fault.
    pub failures: u64,
    /// Calls that say nothing of the dependency: the caller's mistakes, cancellations.
    pub ignored: u64,
    /// Calls that were refused.
    pub rejected: u64,
    /// Failures in a row, up to now.
    pub consecutive_failures: u32,
    /// Calls in the window that the failure rate is computed over; 0 when consecutive failures are counted.
    pub window_calls: u64,
    /// Failures among them.
    pub window_failures: u64,
    /// How long until probes are admitted, while open.
    pub probes_in: Option<std::time::Duration>,
}

/// A circuit breaker. Cheap to clone: clones share one state, in every thread, sync and async.
///
/// The defaults open it after 5 failures in a row, for 60 s, then admit one probe at a time; 2 probe successes
/// in a row close it, one failure opens it again.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{BreakerState, CircuitBreaker, Clock};
///
/// let (clock, time) = Clock::manual();
/// let breaker = CircuitBreaker::builder("registry_fetch").consecutive_failures(2).clock(clock).build()?;
/// let refused = || Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
/// assert!(breaker.call(refused).is_err());
/// assert!(breaker.call(refused).is_err());
/// assert_eq!(breaker.state(), BreakerState::Open);
///
/// let error = breaker.call(|| Ok::<_, std::io::Error>(())).unwrap_err();
/// assert_eq!(error.to_string(), "circuit breaker `registry_fetch` is open; retry in 60.0s");
///
/// time.advance(Duration::from_secs(60));
/// assert!(breaker.call(|| Ok::<_, std::io::Error>(())).is_ok()); // a probe
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    clock: Clock,
    observers: Observers,
    machine: Machine,
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl CircuitBreaker {
    /// Starts building a breaker called `name`, from the defaults.
    pub fn builder(name: impl Into<Arc<str>>) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::new(name.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The state now. An open breaker whose time is over stays `Open` until the next call probes it.
    pub fn state(&self) -> BreakerState {
        self.0.machine.state()
    }

    /// What it has seen, and where it stands.
    pub fn statistics(&self) -> BreakerStatistics {
        self.0.machine.statistics(self.0.clock.now())
    }

    /// Asks to make a call. Settle the permit with the call's outcome; a permit that is dropped counts as cancelled,
    /// or as panicked when the thread is unwinding, and frees its place.
    ///
    /// # Errors
    /// A [`Rejection`] when the breaker does not let the call through.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Class, Category, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("parser").build()?;
    /// let permit = breaker.try_acquire().expect("it is closed");
    /// match "12x".parse::<u32>() {
    ///     Ok(_) => permit.settle(&Outcome::Success),
    ///     Err(_) => permit.settle(&Outcome::Failure(Class::of(Category::Validation))), // nobody's fault but ours
    /// }
    /// assert_eq!((breaker.statistics().failures, breaker.statistics().ignored), (0, 1));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        self.admit().map(|token| Permit::new(Cow::Borrowed(self), token))
    }

    /// As [`try_acquire`](Self::try_acquire), for a permit that must outlive the borrow: kept in a table, moved into a
    /// task. Costs a reference count.
    ///
    /// # Errors
    /// A [`Rejection`] when the breaker does not let the call through.
    pub fn try_acquire_owned(&self) -> Result<Permit<'static>, Rejection> {
        self.admit().map(|token| Permit::new(Cow::Owned(self.clone()), token))
    }

    pub(crate) fn admit(&self) -> Result<Token, Rejection> {
        let (decision, change) = self.0.machine.admit(|| self.0.clock.now());
        self.announce(change);
        decision.map_err(|(reason, retry_after)| {
            let rejection = Rejection::new(Arc::clone(&self.0.name), reason, retry_after);
            self.0.observers.emit(&Event::Rejected { rejection: &rejection });
            rejection
        })
    }

    pub(crate) fn settle(&self, token: Token, outcome: &Outcome) {
        let change = self.0.machine.settle(token, outcome, || self.0.clock.now());
        self.announce(change);
    }

    /// Makes one call through the breaker.
    ///
    /// # Errors
    /// The operation's own error, or a rejection.
    pub fn call<T, E: Classify>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>> {
        let permit = self.try_acquire()?;
        let result = operation();
        permit.settle(&outcome_of(&result));
        result.map_err(|error| Error::operation(error, 1))
    }

    /// Makes one async call through the breaker, on any executor. Dropping the future returns the permit.
    ///
    /// # Errors
    /// The operation's own error, or a rejection.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::CircuitBreaker;
    ///
    /// let breaker = CircuitBreaker::builder("store").build()?;
    /// let call = breaker.call_async(async { Ok::<_, std::io::Error>("stored") });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let answer = runtime.block_on(call)?;
    /// assert_eq!(answer, "stored");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_async<T, E: Classify>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        let mut permit = self.try_acquire()?;
        let mut operation = pin!(operation);
        let result = poll_fn(|cx| permit.poll(operation.as_mut(), cx)).await;
        permit.settle(&outcome_of(&result));
        result.map_err(|error| Error::operation(error, 1))
    }

    /// Refuses every call until [`reset`](Self::reset) or [`disable`](Self::disable).
    pub fn force_open(&self) {
        self.set(BreakerState::ForcedOpen);
    }

    /// Lets every call through and judges none, until [`reset`](Self::reset) or [`force_open`](Self::force_open).
    pub fn disable(&self) {
        self.set(BreakerState::Disabled);
    }

    /// Closes the breaker and forgets what it counted towards opening; calls under way from before are not judged.
    pub fn reset(&self) {
        self.set(BreakerState::Closed);
    }

    fn set(&self, state: BreakerState) {
        let change = self.0.machine.set(state);
        self.announce(change);
    }

    fn announce(&self, change: Option<machine::Change>) {
        if let Some(machine::Change { from, to, generation }) = change {
            self.0.observers.emit(&Event::BreakerStateChanged { breaker: &self.0.name, from, to, generation });
        }
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn from_parts(name: Arc<str>, clock: Clock, observers: Observers, machine: Machine) -> Self {
        Self(Arc::new(Shared { name, clock, observers, machine }))
    }
}

fn outcome_of<T, E: Classify>(result: &Result<T, E>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(error.class()),
    }
}
