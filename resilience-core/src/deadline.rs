//! Deadlines that travel: whoever works under one passes it on to every call it makes, without a parameter.
//! Carried by the thread, set only while the work runs or is polled, so it never leaks to anybody else's work. It
//! interrupts nothing: pipelines read it and stay within it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::clock::{Clock, Instant};

thread_local! {
    /// Of which clock, and when; for the code on this thread.
    static CURRENT: Cell<Option<(usize, Instant)>> = const { Cell::new(None) };
}

/// A moment by which work must be over, on a clock.
///
/// Every call through a [`Pipeline`](crate::Pipeline) on the same clock keeps to the deadline it runs under: its
/// attempts and pauses end by then, and a call that comes too late is refused before it asks any policy. An attempt of
/// a pipeline with a time limit runs under that limit in turn, so an inner call never outlives the outer one. What an
/// attempt spawns elsewhere, on another thread or as a task, does not inherit it: hand it
/// [`Attempt::deadline`](crate::Attempt::deadline), and take it up there with [`run`](Self::run) or
/// [`scope`](Self::scope).
///
/// Also known as deadline propagation (gRPC) or a context's deadline (Go).
///
/// ```
/// use std::time::Duration;
/// use resilience_core::deadline::Deadline;
/// use resilience_core::{CallOptions, Clock, Pipeline};
///
/// let (clock, time) = Clock::manual();
/// let inner = Pipeline::builder("inner").timeout(Duration::from_secs(60)).clock(clock.clone()).build()?;
/// let request = Deadline::after(&clock, Duration::from_secs(2)); // what the client of ours allows
/// request.run(|| {
///     time.advance(Duration::from_millis(500));
///     let left = inner.call_with(CallOptions::new(), |attempt| Ok::<_, std::io::Error>(attempt.deadline));
///     assert_eq!(left.unwrap(), Some(request.at()));
///     assert_eq!(request.remaining(), Duration::from_millis(1500)); // for a header to the next service
/// });
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Deadline {
    clock: Clock,
    at: Instant,
}

impl Deadline {
    /// The deadline at `at`, an instant of `clock`.
    pub const fn new(clock: Clock, at: Instant) -> Self {
        Self { clock, at }
    }

    /// The deadline `limit` from now.
    pub fn after(clock: &Clock, limit: Duration) -> Self {
        Self { at: clock.now() + limit, clock: clock.clone() }
    }

    /// The deadline that the code here runs under, on `clock`.
    pub fn current(clock: &Clock) -> Option<Self> {
        current(clock).map(|at| Self { clock: clock.clone(), at })
    }

    /// When it is.
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// How long until then; zero when it is over.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(self.clock.now())
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.clock.now() >= self.at
    }

    /// Runs `work` under this deadline, or under the one around it when that is earlier.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = enter(&self.clock, self.at);
        work()
    }

    /// Polls `work` under this deadline, or under the one around it when that is earlier.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use resilience_core::deadline::Deadline;
    /// use resilience_core::{Clock, Pipeline, Reason};
    ///
    /// let clock = Clock::system();
    /// let pipeline = Pipeline::builder("store").build()?;
    /// let over = Deadline::after(&clock, Duration::ZERO);
    /// let call = over.scope(async { pipeline.call_async(|| async { Ok::<_, std::io::Error>(()) }).await });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let error = runtime.block_on(call).unwrap_err();
    /// assert_eq!(error.as_rejection().map(|it| it.reason), Some(Reason::DeadlineTooClose));
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, work: F) -> Scope<F> {
        Scope { deadline: self.clone(), work }
    }
}

pin_project! {
    /// Work under a deadline: made by [`Deadline::scope`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Scope<F> {
        deadline: Deadline,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = enter(&this.deadline.clock, this.deadline.at);
        this.work.poll(cx)
    }
}

/// The deadline of the code on this thread, if it is one of `clock`.
#[inline]
pub(crate) fn current(clock: &Clock) -> Option<Instant> {
    let (of, at) = CURRENT.get()?;
    (of == clock.id()).then_some(at)
}

/// Whether there is a deadline at all, of whatever clock: one look.
#[inline]
pub(crate) fn any() -> bool {
    CURRENT.get().is_some()
}

/// Until the guard is dropped, the code on this thread runs under `at`.
#[inline]
pub(crate) fn enter(clock: &Clock, at: Instant) -> Entered {
    let id = clock.id();
    let at = match CURRENT.get() {
        Some((of, outer)) if of == id => at.min(outer),
        _ => at,
    };
    Entered { before: CURRENT.replace(Some((id, at))) }
}

/// Restores what was entered before, also when the work panics.
#[derive(Debug)]
pub(crate) struct Entered {
    before: Option<(usize, Instant)>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}
