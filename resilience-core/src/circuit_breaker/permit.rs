//! The right to make one call. A permit always comes back: settled with an outcome, or by being dropped.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::CircuitBreaker;
use crate::clock::Instant;
use crate::outcome::Outcome;

/// What the state machine remembers of an admitted call, in two registers. Whoever holds one must settle it exactly
/// once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    /// The generation that admitted the call.
    pub(super) generation: u64,
    /// When the call began, in nanoseconds, or [`NOT_MEASURED`](Self::NOT_MEASURED).
    started: u64,
}

impl Token {
    /// No clock gets there: it would be 584 years old.
    const NOT_MEASURED: u64 = u64::MAX;

    #[inline]
    pub(super) fn new(generation: u64, started: Option<Instant>) -> Self {
        Self { generation, started: started.map_or(Self::NOT_MEASURED, Instant::as_nanos) }
    }

    /// When the call began; only kept where slow calls count.
    #[inline]
    pub(super) fn started(self) -> Option<Instant> {
        (self.started != Self::NOT_MEASURED).then_some(Instant::from_nanos(self.started))
    }
}

/// The right to make one call, given by [`CircuitBreaker::try_acquire`], or by
/// [`try_acquire_owned`](CircuitBreaker::try_acquire_owned) as one that holds a handle of its breaker.
///
/// ```
/// use resilience_core::{CircuitBreaker, Outcome};
///
/// let breaker = CircuitBreaker::builder("store").build()?;
/// let permit = breaker.try_acquire()?;
/// permit.settle(&Outcome::Success);
/// let given_up = breaker.try_acquire()?;
/// drop(given_up); // cancelled: that says nothing of the store
/// let statistics = breaker.statistics();
/// assert_eq!((statistics.successes, statistics.ignored), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit<'a> {
    breaker: Cow<'a, CircuitBreaker>,
    token: Option<Token>,
    /// Whether the call is suspended: a panic is not its doing then.
    suspended: bool,
}

impl<'a> Permit<'a> {
    #[inline]
    pub(super) fn new(breaker: Cow<'a, CircuitBreaker>, token: Token) -> Self {
        Self { breaker, token: Some(token), suspended: false }
    }

    /// Polls `operation` under this permit, so that a panic elsewhere that drops both counts as a cancellation.
    pub(super) fn poll<F: Future>(&mut self, operation: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.suspended = false;
        let polled = operation.poll(cx);
        self.suspended = polled.is_pending();
        polled
    }

    /// Tells the breaker how the call ended.
    ///
    /// ```
    /// use resilience_core::{Category, CircuitBreaker, Class, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("store").build()?;
    /// let outage = Class::of(Category::Network);
    /// breaker.try_acquire()?.settle(&Outcome::Failure(outage));
    /// assert_eq!(breaker.statistics().failures, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn settle(mut self, outcome: &Outcome) {
        if let Some(token) = self.token.take() {
            self.breaker.settle(token, outcome);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            let panicked = !self.suspended && std::thread::panicking();
            let outcome = if panicked { Outcome::Panicked } else { Outcome::Cancelled };
            self.breaker.settle(token, &outcome);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("breaker", &self.breaker.name()).finish_non_exhaustive()
    }
}
