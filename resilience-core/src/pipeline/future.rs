//! The async shell: a future that does what the execution says. It holds one attempt, its hedges, and at most one timer.
//! Dropping it drops the attempt first and then the execution, which gives everything back.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::execution::{Execution, Step};
use super::{Attempt, CallOptions, Judge, Plan};
use crate::class::Class;
use crate::clock::{Instant, Sleep};
use crate::deadline;
use crate::event::Event;
use crate::hedge::Ending;
use crate::outcome::Error;

/// What a pipeline runs: each attempt is started anew. Any closure that makes a future is one.
pub(crate) trait Operation {
    /// One attempt under way.
    type Attempt: Future;

    /// Starts an attempt.
    fn start(&mut self, attempt: Attempt) -> Self::Attempt;
}

impl<O: FnMut(Attempt) -> F, F: Future> Operation for O {
    type Attempt = F;

    fn start(&mut self, attempt: Attempt) -> F {
        self(attempt)
    }
}

/// A closure that does not want to know which attempt it makes.
pub(crate) struct Plain<F>(pub(crate) F);

impl<F: FnMut() -> Fut, Fut: Future> Operation for Plain<F> {
    type Attempt = Fut;

    #[inline]
    fn start(&mut self, _: Attempt) -> Fut {
        (self.0)()
    }
}

pin_project! {
    /// A call under way: the future behind `Pipeline::call_async`.
    #[must_use = "futures do nothing unless awaited"]
    pub(crate) struct CallFuture<'a, P, O, F, J>
    where
        P: Deref<Target = Plan>,
    {
        // Declared, and so dropped, before the execution: the operation's clean-up runs under its permits.
        #[pin]
        attempt: Option<F>,
        progress: Progress<'a, P, F>,
        operation: O,
        judge: J,
    }
}

/// How far a call has come.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each call")]
enum Progress<'a, P: Deref<Target = Plan>, F> {
    /// Not polled yet: nothing has happened.
    New { plan: P, options: CallOptions<'a> },
    /// Under way. A first attempt that succeeds at once under a [bare](Plan::is_bare) plan never gets here.
    Begun(Begun<'a, P, F>),
    /// Nothing is left to do.
    Over,
}

/// What a call that is under way needs, beside its attempt's first run.
struct Begun<'a, P: Deref<Target = Plan>, F> {
    hedges: Hedges<F>,
    timer: Option<Sleep>,
    execution: Execution<'a, P>,
}

impl<'a, P: Deref<Target = Plan>, F> Progress<'a, P, F> {
    #[inline]
    fn begin(&mut self, make: impl FnOnce(P, CallOptions<'a>) -> Execution<'a, P>) {
        if let Self::New { plan, options } = std::mem::replace(self, Self::Over) {
            let hedges = Hedges { running: Vec::new(), started: 0, next_at: None, since: None };
            *self = Self::Begun(Begun { hedges, timer: None, execution: make(plan, options) });
        }
    }

    #[inline]
    fn begun(&mut self) -> &mut Begun<'a, P, F> {
        match self {
            Self::Begun(begun) => begun,
            Self::New { .. } | Self::Over => unreachable!("a call is polled to its end and no further"),
        }
    }
}

/// Runs of an attempt beside its first.
struct Hedges<F> {
    /// Boxed, so that a call without hedges is not larger for them.
    running: Vec<Pin<Box<F>>>,
    /// How many of this attempt were started.
    started: u32,
    /// When the next one is.
    next_at: Option<Instant>,
    /// When the attempt's first run began.
    since: Option<Instant>,
}

impl<'a, P: Deref<Target = Plan>, O, F, J> CallFuture<'a, P, O, F, J> {
    #[inline]
    pub(crate) fn new(plan: P, options: CallOptions<'a>, operation: O, judge: J) -> Self {
        Self { attempt: None, progress: Progress::New { plan, options }, operation, judge }
    }
}

impl<P: Deref<Target = Plan>, O, F, J> std::fmt::Debug for CallFuture<'_, P, O, F, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallFuture").field("running", &self.attempt.is_some()).finish_non_exhaustive()
    }
}

impl<P, O, F, J, T, E> Future for CallFuture<'_, P, O, F, J>
where
    P: Deref<Target = Plan>,
    O: Operation<Attempt = F>,
    F: Future<Output = Result<T, E>>,
    J: Judge<T, E>,
{
    type Output = Result<T, Error<E>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.progress, Progress::New { .. })
            && let Some(result) = self.as_mut().begin(cx)
        {
            return Poll::Ready(result);
        }
        loop {
            let this = self.as_mut().project();
            let begun = this.progress.begun();
            if (this.attempt.is_some() || !begun.hedges.running.is_empty())
                && let Some(result) = ready!(self.as_mut().poll_attempt(cx))
            {
                return Poll::Ready(result);
            }
            let mut this = self.as_mut().project();
            let Begun { execution, timer, hedges } = this.progress.begun();
            if let Some(pause) = timer {
                if !execution.has_turn(cx.waker()) {
                    ready!(Pin::new(pause).poll(cx));
                }
                *timer = None;
            }
            match execution.next() {
                Step::Sleep(until) | Step::Queue(until) => {
                    *timer = Some(execution.plan().clock.sleep_until(until));
                }
                Step::Run(attempt) => {
                    hedges.begin(execution);
                    let entered = execution.enter();
                    this.attempt.set(Some(this.operation.start(attempt)));
                    drop(entered);
                }
                Step::End(ended) => return Poll::Ready(Err(ended.cast())),
            }
        }
    }
}

impl<P, O, F, J, T, E> CallFuture<'_, P, O, F, J>
where
    P: Deref<Target = Plan>,
    O: Operation<Attempt = F>,
    F: Future<Output = Result<T, E>>,
    J: Judge<T, E>,
{
    /// The first poll: makes the execution, unless a first attempt that succeeds at once does without.
    #[inline]
    fn begin(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Option<Result<T, Error<E>>> {
        let mut this = self.project();
        let Progress::New { plan, options } = this.progress else { return None };
        if !plan.is_bare || options.deadline.is_some() || deadline::any() {
            this.progress.begin(Execution::new);
            return None;
        }
        this.attempt.set(Some(this.operation.start(Attempt::FIRST)));
        let polled = this.attempt.as_mut().as_pin_mut()?.poll(cx);
        let Poll::Ready(result) = polled else {
            this.progress.begin(Execution::of_bare);
            this.progress.begun().execution.set_inside_operation(false);
            return None;
        };
        this.attempt.set(None);
        let Some(class) = this.judge.judge(&result) else {
            *this.progress = Progress::Over;
            return Some(result.map_err(|error| Error::operation(error, 1)));
        };
        this.progress.begin(Execution::of_bare);
        this.progress.begun().execution.attempt_ended(result, Some(class))
    }

    /// Goes on with the attempt under way: ready when it is over, with the call's result or with `None` when there is
    /// more to do.
    #[inline]
    fn poll_attempt(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error<E>>>> {
        loop {
            let polled = self.as_mut().poll_runs(cx);
            let mut this = self.as_mut().project();
            let Begun { execution, timer, hedges } = this.progress.begun();
            if let Poll::Ready((result, class)) = polled {
                *timer = None;
                return Poll::Ready(execution.attempt_ended(result, class));
            }
            let deadline = execution.attempt(0).deadline;
            let until = match (deadline, hedges.next_at) {
                (Some(deadline), Some(next)) => deadline.min(next),
                (Some(until), None) | (None, Some(until)) => until,
                (None, None) => return Poll::Pending,
            };
            // The timer is made only now: an attempt that is ready at once never pays for it.
            if timer.as_ref().is_none_or(|timer| timer.deadline() != until) {
                *timer = Some(execution.plan().clock.sleep_until(until));
            }
            if let Some(timer) = timer {
                ready!(Pin::new(timer).poll(cx));
            }
            *timer = None;
            if deadline.is_none_or(|deadline| until < deadline) {
                self.as_mut().hedge();
                continue;
            }
            this.attempt.set(None);
            hedges.end(execution.plan(), Ending::TimedOut);
            return Poll::Ready(execution.attempt_timed_out().map(|ended| Err(ended.cast())));
        }
    }

    /// Polls every run of the attempt: ready with the first success, or the last failure, when no run is left.
    #[inline]
    fn poll_runs(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Result<T, E>, Option<Class>)> {
        let mut this = self.project();
        let Begun { execution, hedges, .. } = this.progress.begun();
        execution.set_inside_operation(true);
        let entered = execution.enter();
        let mut ended = None;
        if let Some(attempt) = this.attempt.as_mut().as_pin_mut()
            && let Poll::Ready(result) = attempt.poll(cx)
        {
            this.attempt.set(None);
            let class = this.judge.judge(&result);
            ended = Some((result, class, false));
        }
        if !hedges.running.is_empty() {
            let mut index = 0;
            while index < hedges.running.len() && ended.as_ref().is_none_or(|(_, class, _)| class.is_some()) {
                match hedges.running[index].as_mut().poll(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(result) => {
                        drop(hedges.running.swap_remove(index));
                        let class = this.judge.judge(&result);
                        ended = Some((result, class, true));
                    }
                }
            }
        }
        drop(entered);
        let Some((result, class, by_hedge)) = ended else {
            execution.set_inside_operation(false);
            return Poll::Pending;
        };
        if class.is_some() && (this.attempt.is_some() || !hedges.running.is_empty()) {
            // Another run may still succeed.
            execution.set_inside_operation(false);
            return Poll::Pending;
        }
        // The losers' clean-up runs under the permits as well.
        this.attempt.set(None);
        let ending = if class.is_some() { Ending::Failure } else { Ending::Success { by_hedge } };
        hedges.end(execution.plan(), ending);
        Poll::Ready((result, class))
    }

    /// Starts one more run beside those there are, if the budget allows.
    #[cold]
    fn hedge(self: Pin<&mut Self>) {
        let this = self.project();
        let Begun { execution, hedges, .. } = this.progress.begun();
        let plan = execution.plan();
        let (Some(hedge), now) = (&plan.hedge, plan.clock.now()) else { return };
        if !hedge.withdraw(now) {
            hedges.next_at = None;
            return;
        }
        hedges.started += 1;
        let attempt = execution.attempt(hedges.started);
        let more = hedges.started < hedge.max_hedges();
        hedges.next_at = more.then(|| now + hedge.delay());
        let event = Event::HedgeStarted { pipeline: &plan.name, attempt: attempt.number, hedge: attempt.hedge };
        plan.observers.emit(&event);
        execution.set_inside_operation(true);
        let entered = execution.enter();
        let run = Box::pin(this.operation.start(attempt));
        drop(entered);
        execution.set_inside_operation(false);
        hedges.running.push(run);
    }
}

impl<F> Hedges<F> {
    /// Every run is dropped, and no other will be started.
    fn give_up(&mut self) {
        self.running.clear();
        self.next_at = None;
    }

    /// An attempt begins.
    #[inline]
    fn begin<P: Deref<Target = Plan>>(&mut self, execution: &Execution<'_, P>) {
        let plan = execution.plan();
        if let Some(hedge) = &plan.hedge
            && execution.is_idempotent()
        {
            let now = plan.clock.now();
            self.since = Some(now);
            self.started = 0;
            self.next_at = Some(now + hedge.delay());
            hedge.begin(now, plan.retry.as_ref());
        }
    }

    /// An attempt ended: whatever still runs is dropped.
    #[inline]
    fn end(&mut self, plan: &Plan, ending: Ending) {
        if let (Some(hedge), Some(since)) = (&plan.hedge, self.since.take()) {
            self.give_up();
            hedge.ended(plan.clock.now().saturating_duration_since(since), ending);
        }
    }
}
