//! The async shell: a future that does what the execution says. It holds at most one attempt and one timer.
//! Dropping it drops the attempt first and then the execution, which gives everything back.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::execution::{Execution, Step};
use super::{Attempt, CallOptions, Judge, Plan};
use crate::clock::{Instant, Sleep};
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
    pub(crate) struct CallFuture<P, O, F, J>
    where
        P: Deref<Target = Plan>,
    {
        // Declared, and so dropped, before the execution: the operation's clean-up runs under its permits.
        #[pin]
        attempt: Option<F>,
        timer: Option<Sleep>,
        deadline: Option<Instant>,
        execution: Execution<P>,
        operation: O,
        judge: J,
    }
}

impl<P: Deref<Target = Plan>, O, F, J> CallFuture<P, O, F, J> {
    pub(crate) fn new(plan: P, options: CallOptions, operation: O, judge: J) -> Self {
        let execution = Execution::new(plan, options);
        Self { attempt: None, timer: None, deadline: None, execution, operation, judge }
    }
}

impl<P: Deref<Target = Plan>, O, F, J> std::fmt::Debug for CallFuture<P, O, F, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallFuture").field("running", &self.attempt.is_some()).finish_non_exhaustive()
    }
}

impl<P, O, F, J, T, E> Future for CallFuture<P, O, F, J>
where
    P: Deref<Target = Plan>,
    O: Operation<Attempt = F>,
    F: Future<Output = Result<T, E>>,
    J: Judge<T, E>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(attempt) = this.attempt.as_mut().as_pin_mut() {
                this.execution.set_inside_operation(true);
                let entered = this.execution.enter();
                let polled = attempt.poll(cx);
                drop(entered);
                this.execution.set_inside_operation(polled.is_ready());
                if let Poll::Ready(result) = polled {
                    this.attempt.set(None);
                    *this.timer = None;
                    if let Some(result) = this.execution.attempt_ended(result, |result| this.judge.judge(result)) {
                        return Poll::Ready(result);
                    }
                } else {
                    // The timer is made only now: an attempt that is ready at once never pays for it.
                    let Some(deadline) = *this.deadline else { return Poll::Pending };
                    let clock = &this.execution.plan().clock;
                    let timer = this.timer.get_or_insert_with(|| clock.sleep_until(deadline));
                    ready!(Pin::new(timer).poll(cx));
                    this.attempt.set(None);
                    *this.timer = None;
                    if let Some(ended) = this.execution.attempt_timed_out() {
                        return Poll::Ready(Err(ended.cast()));
                    }
                }
            }
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
                    let entered = this.execution.enter();
                    this.attempt.set(Some(this.operation.start(attempt)));
                    drop(entered);
                }
                Step::End(ended) => return Poll::Ready(Err(ended.cast())),
            }
        }
    }
}
