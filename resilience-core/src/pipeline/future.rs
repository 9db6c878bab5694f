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
use crate::event::Event;
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
        hedges: Hedges<F>,
        timer: Option<Sleep>,
        deadline: Option<Instant>,
        execution: Execution<'a, P>,
        operation: O,
        judge: J,
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
    since: Instant,
}

impl<'a, P: Deref<Target = Plan>, O, F, J> CallFuture<'a, P, O, F, J> {
    #[inline]
    pub(crate) fn new(plan: P, options: CallOptions<'a>, operation: O, judge: J) -> Self {
        let hedges = Hedges { running: Vec::new(), started: 0, next_at: None, since: Instant::default() };
        let execution = Execution::new(plan, options);
        Self { attempt: None, hedges, timer: None, deadline: None, execution, operation, judge }
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
        loop {
            if (self.attempt.is_some() || !self.hedges.running.is_empty())
                && let Some(result) = ready!(self.as_mut().poll_attempt(cx))
            {
                return Poll::Ready(result);
            }
            let mut this = self.as_mut().project();
            if let Some(pause) = this.timer {
                if !this.execution.has_turn(cx.waker()) {
                    ready!(Pin::new(pause).poll(cx));
                }
                *this.timer = None;
            }
            match this.execution.next() {
                Step::Sleep(until) | Step::Queue(until) => {
                    *this.timer = Some(this.execution.plan().clock.sleep_until(until));
                }
                Step::Run(attempt) => {
                    *this.deadline = attempt.deadline;
                    this.hedges.begin(this.execution);
                    let entered = this.execution.enter();
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
    /// Goes on with the attempt under way: ready when it is over, with the call's result or with `None` when there is
    /// more to do.
    #[inline]
    fn poll_attempt(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error<E>>>> {
        loop {
            let polled = self.as_mut().poll_runs(cx);
            let mut this = self.as_mut().project();
            if let Poll::Ready((result, class)) = polled {
                *this.timer = None;
                return Poll::Ready(this.execution.attempt_ended(result, class));
            }
            let until = match (*this.deadline, this.hedges.next_at) {
                (Some(deadline), Some(next)) => deadline.min(next),
                (Some(until), None) | (None, Some(until)) => until,
                (None, None) => return Poll::Pending,
            };
            // The timer is made only now: an attempt that is ready at once never pays for it.
            if this.timer.as_ref().is_none_or(|timer| timer.deadline() != until) {
                *this.timer = Some(this.execution.plan().clock.sleep_until(until));
            }
            if let Some(timer) = this.timer {
                ready!(Pin::new(timer).poll(cx));
            }
            *this.timer = None;
            if this.deadline.is_none_or(|deadline| until < deadline) {
                self.as_mut().hedge();
                continue;
            }
            this.attempt.set(None);
            this.hedges.give_up();
            return Poll::Ready(this.execution.attempt_timed_out().map(|ended| Err(ended.cast())));
        }
    }

    /// Polls every run of the attempt: ready with the first success, or the last failure, when no run is left.
    #[inline]
    fn poll_runs(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Result<T, E>, Option<Class>)> {
        let mut this = self.project();
        this.execution.set_inside_operation(true);
        let entered = this.execution.enter();
        let mut ended = None;
        if let Some(attempt) = this.attempt.as_mut().as_pin_mut()
            && let Poll::Ready(result) = attempt.poll(cx)
        {
            this.attempt.set(None);
            let class = this.judge.judge(&result);
            ended = Some((result, class, false));
        }
        if !this.hedges.running.is_empty() {
            let mut index = 0;
            while index < this.hedges.running.len() && ended.as_ref().is_none_or(|(_, class, _)| class.is_some()) {
                match this.hedges.running[index].as_mut().poll(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(result) => {
                        drop(this.hedges.running.swap_remove(index));
                        let class = this.judge.judge(&result);
                        ended = Some((result, class, true));
                    }
                }
            }
        }
        drop(entered);
        let Some((result, class, by_hedge)) = ended else {
            this.execution.set_inside_operation(false);
            return Poll::Pending;
        };
        if class.is_some() && (this.attempt.is_some() || !this.hedges.running.is_empty()) {
            // Another run may still succeed.
            this.execution.set_inside_operation(false);
            return Poll::Pending;
        }
        // The losers' clean-up runs under the permits as well.
        this.attempt.set(None);
        this.hedges.end(this.execution.plan(), by_hedge && class.is_none());
        Poll::Ready((result, class))
    }

    /// Starts one more run beside those there are, if the budget allows.
    #[cold]
    fn hedge(self: Pin<&mut Self>) {
        let this = self.project();
        let plan = this.execution.plan();
        let (Some(hedge), now) = (&plan.hedge, plan.clock.now()) else { return };
        if !hedge.withdraw(now) {
            this.hedges.next_at = None;
            return;
        }
        this.hedges.started += 1;
        let attempt = this.execution.attempt(this.hedges.started);
        let more = this.hedges.started < hedge.max_hedges();
        this.hedges.next_at = more.then(|| now + hedge.delay());
        let event = Event::HedgeStarted { pipeline: &plan.name, attempt: attempt.number, hedge: attempt.hedge };
        plan.observers.emit(&event);
        this.execution.set_inside_operation(true);
        let entered = this.execution.enter();
        let run = Box::pin(this.operation.start(attempt));
        drop(entered);
        this.execution.set_inside_operation(false);
        this.hedges.running.push(run);
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
            self.since = plan.clock.now();
            self.started = 0;
            self.next_at = Some(self.since + hedge.delay());
            hedge.begin(self.since, plan.retry.as_ref());
        }
    }

    /// An attempt ended, with the answer of a hedge or not.
    #[inline]
    fn end(&mut self, plan: &Plan, won: bool) {
        if let Some(hedge) = &plan.hedge
            && self.since != Instant::default()
        {
            self.give_up();
            hedge.ended(plan.clock.now().saturating_duration_since(self.since), won);
        }
    }
}
