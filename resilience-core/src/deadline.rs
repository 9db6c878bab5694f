//! Deadlines that travel: whoever works under one passes it on to every call it makes, without a parameter.
//! Carried by the thread, set only while the work runs or is polled, and never left behind. It interrupts nothing:
//! pipelines and waits read it and stay within it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::clock::{Clock, Instant};

/// On so many clocks work can be under a deadline at once; one that is under more keeps to the outer ones.
const CLOCKS: usize = 4;

thread_local! {
    /// The deadlines of the code on this thread: of which clock, and when. Each clock has one place, taken in order.
    static CURRENT: [Cell<Option<(usize, Instant)>>; CLOCKS] = const { [const { Cell::new(None) }; CLOCKS] };
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
/// A thread that runs other people's work meanwhile lends them the deadline: an executor entered by `block_on` inside such a
/// call, and tasks that it polls there.
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, Deadline};
    ///
    /// let (clock, time) = Clock::manual();
    /// let deadline = Deadline::new(clock.clone(), clock.now() + Duration::from_secs(2));
    /// assert_eq!(deadline.remaining(), Duration::from_secs(2));
    /// # let _ = time;
    /// ```
    pub const fn new(clock: Clock, at: Instant) -> Self {
        Self { clock, at }
    }

    /// The deadline `limit` from now.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, Deadline};
    ///
    /// let (clock, time) = Clock::manual();
    /// let deadline = Deadline::after(&clock, Duration::from_secs(2));
    /// assert_eq!(deadline.at(), clock.now() + Duration::from_secs(2));
    /// # let _ = time;
    /// ```
    pub fn after(clock: &Clock, limit: Duration) -> Self {
        Self { at: clock.now() + limit, clock: clock.clone() }
    }

    /// The deadline that the code here runs under, on `clock`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, Deadline};
    ///
    /// let (clock, time) = Clock::manual();
    /// let deadline = Deadline::after(&clock, Duration::from_secs(2));
    /// assert!(Deadline::current(&clock).is_none());
    /// assert_eq!(deadline.run(|| Deadline::current(&clock)).map(|it| it.at()), Some(deadline.at()));
    /// # let _ = time;
    /// ```
    pub fn current(clock: &Clock) -> Option<Self> {
        current(clock).map(|at| Self { clock: clock.clone(), at })
    }

    /// When it is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CallOptions, Clock, Deadline, Pipeline};
    ///
    /// let (clock, _time) = Clock::manual();
    /// let deadline = Deadline::after(&clock, Duration::from_secs(2));
    /// let pipeline = Pipeline::builder("store").clock(clock).build()?;
    /// let options = CallOptions::new().deadline(deadline.at()); // for this one call
    /// let seen = pipeline.call_with(options, |attempt| Ok::<_, std::io::Error>(attempt.deadline));
    /// assert_eq!(seen.unwrap(), Some(deadline.at()));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// How long until then; zero when it is over.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, Deadline};
    ///
    /// let (clock, time) = Clock::manual();
    /// let deadline = Deadline::after(&clock, Duration::from_secs(2));
    /// time.advance(Duration::from_secs(5));
    /// assert_eq!(deadline.remaining(), Duration::ZERO);
    /// ```
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(self.clock.now())
    }

    /// Whether it is over.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, Deadline};
    ///
    /// let (clock, time) = Clock::manual();
    /// let deadline = Deadline::after(&clock, Duration::from_secs(2));
    /// assert!(!deadline.is_over());
    /// time.advance(Duration::from_secs(2));
    /// assert!(deadline.is_over());
    /// ```
    pub fn is_over(&self) -> bool {
        self.clock.now() >= self.at
    }

    /// Runs `work` under this deadline, or under the one around it when that is earlier. A future that `work` only makes
    /// runs later, and not under it: see [`scope`](Self::scope).
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Clock, Deadline};
    ///
    /// let (clock, time) = Clock::manual();
    /// let (soon, late) = (Deadline::after(&clock, Duration::from_secs(1)), Deadline::after(&clock, Duration::from_secs(9)));
    /// let within = soon.run(|| late.run(|| Deadline::current(&clock))); // the earlier one counts
    /// assert_eq!(within.map(|it| it.at()), Some(soon.at()));
    /// # let _ = time;
    /// ```
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
    ///
    /// ```
    /// use std::future::{Ready, ready};
    /// use std::time::Duration;
    /// use resilience_core::deadline::{Deadline, Scope};
    /// use resilience_core::Clock;
    ///
    /// struct Request {
    ///     answer: Scope<Ready<u16>>,
    /// }
    ///
    /// let (clock, _time) = Clock::manual();
    /// let request = Request { answer: Deadline::after(&clock, Duration::from_secs(2)).scope(ready(200)) };
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(request.answer), 200);
    /// # Ok::<(), std::io::Error>(())
    /// ```
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
    if !any() {
        return None;
    }
    let id = clock.id();
    CURRENT.with(|places| places.iter().filter_map(Cell::get).find(|(of, _)| *of == id).map(|(_, at)| at))
}

/// Whether there is a deadline at all, of whatever clock: one look.
#[inline]
pub(crate) fn any() -> bool {
    CURRENT.with(|places| places[0].get().is_some())
}

/// A wait of at most `max_wait` that does not outlast the deadline of the code on this thread.
pub(crate) fn bounded(clock: &Clock, max_wait: Duration) -> Duration {
    current(clock).map_or(max_wait, |at| max_wait.min(at.saturating_duration_since(clock.now())))
}

/// Until the guard is dropped, the code on this thread runs under `at`.
#[inline]
pub(crate) fn enter(clock: &Clock, at: Instant) -> Entered {
    enter_by_id(clock.id(), at)
}

fn enter_by_id(id: usize, at: Instant) -> Entered {
    CURRENT.with(|places| {
        let own = |place: &&Cell<Option<(usize, Instant)>>| place.get().is_none_or(|(of, _)| of == id);
        let Some((index, place)) = places.iter().enumerate().find(|(_, place)| own(place)) else {
            return Entered { place: CLOCKS, before: None };
        };
        let before = place.get();
        let at = before.map_or(at, |(_, outer)| at.min(outer));
        place.set(Some((id, at)));
        Entered { place: index, before }
    })
}

/// Restores what was entered before, also when the work panics.
#[derive(Debug)]
pub(crate) struct Entered {
    place: usize,
    before: Option<(usize, Instant)>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|places| {
            if let Some(place) = places.get(self.place) {
                place.set(self.before);
            }
        });
    }
}

/// The deadlines of the code on this thread, to be taken up on another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited([Option<(usize, Instant)>; CLOCKS]);

impl Inherited {
    pub(crate) fn here() -> Self {
        Self(CURRENT.with(|places| std::array::from_fn(|index| places[index].get())))
    }

    /// Until the guards are dropped, the code on this thread runs under them.
    pub(crate) fn enter(&self) -> [Option<Entered>; CLOCKS] {
        self.0.map(|deadline| deadline.map(|(id, at)| enter_by_id(id, at)))
    }
}
