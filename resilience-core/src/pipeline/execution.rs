//! One call's way through a pipeline as a state machine: it says what to do next and is told what came of it.
//! It never sleeps and never runs the operation. Whatever it holds (breaker permits, reserved rate, room in a bulkhead,
//! a place in a queue) is given back when it is dropped, so neither a panic nor a cancelled future can leak anything.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::{Attempt, CallOptions, Gate, MAX_GATES, Plan};
use crate::bulkhead::Ticket;
use crate::circuit_breaker::Token;
use crate::class::{Class, Classify};
use crate::clock::Instant;
use crate::event::Event;
use crate::outcome::{Error, ErrorKind, Outcome, Reason, Rejection, Stopped, TimedOut};
use crate::rate_limiter::Place;
use crate::retry::{Entered, Retry, RetryDecision, RetryProgress};

/// What to do next.
pub(crate) enum Step {
    /// Wait until then, and ask again.
    Sleep(Instant),
    /// Wait until then, or until it [has its turn](Execution::has_turn), and ask again.
    Queue(Instant),
    /// Run the operation, and hand its result over.
    Run(Attempt),
    /// The call is over without the operation's doing.
    End(Ended),
}

/// An end that carries no error of the operation.
pub(crate) struct Ended(Error<Infallible>);

impl Ended {
    pub(crate) fn cast<E>(self) -> Error<E> {
        let Error { kind, attempts, stopped } = self.0;
        let kind = match kind {
            ErrorKind::Operation(never) => match never {},
            ErrorKind::Rejected(rejection) => ErrorKind::Rejected(rejection),
            ErrorKind::TimedOut(timeout) => ErrorKind::TimedOut(timeout),
        };
        Error { kind, attempts, stopped }
    }
}

#[derive(Clone, Copy)]
enum Stage {
    /// At this gate around the retry.
    CallGate(usize),
    /// Pausing before the next attempt.
    Backoff(Instant),
    /// At this gate inside the retry.
    AttemptGate(usize),
    /// The operation is running.
    Running,
    Over,
}

/// What follows a failed try.
enum AfterFailure {
    Again,
    /// The call is over; why, when there is a retry that could say so.
    Over(Option<Stopped>),
}

/// What is held from a gate until the outcome is known.
#[derive(Clone, Copy)]
enum Held {
    Token(Token),
    /// Room in a bulkhead.
    Room,
}

/// What is held from the gates of one side.
type AllHeld = [Option<Held>; MAX_GATES];

/// A place in a gate's queue.
enum Queued {
    Limiter(Place),
    Bulkhead(Ticket),
}

pub(crate) struct Execution<P: Deref<Target = Plan>> {
    plan: P,
    options: CallOptions,
    stage: Stage,
    started: Instant,
    deadline: Option<Instant>,
    retry: Option<RetryProgress>,
    attempts: u32,
    attempt_deadline: Option<Instant>,
    /// A place in a queue that is being waited for, and at which gate: only the one of the stage.
    queued: Option<(bool, usize, Queued)>,
    /// Whether the operation's own code is on the stack: only then is a panic its doing.
    inside_operation: bool,
    call_held: AllHeld,
    attempt_held: AllHeld,
}

// What every call passes through is marked `inline`: it halves what a call costs, since most of it is moving state.
impl<P: Deref<Target = Plan>> Execution<P> {
    #[inline]
    pub(crate) fn new(plan: P, options: CallOptions) -> Self {
        let wants_time = plan.call_timeout.is_some()
            || plan.retry.as_ref().is_some_and(Retry::needs_start)
            || options.deadline.is_some()
            || !plan.observers.is_empty();
        // Reading the clock is the dearest thing on this path: only who needs it pays.
        let started = if wants_time { plan.clock.now() } else { Instant::default() };
        let own = plan.call_timeout.map(|limit| started + limit);
        let deadline = match (own, options.deadline) {
            (Some(own), Some(given)) => Some(own.min(given)),
            (own, given) => own.or(given),
        };
        let retry = plan.retry.as_ref().map(|retry| retry.start(started));
        Self {
            plan,
            options,
            stage: Stage::CallGate(0),
            started,
            deadline,
            retry,
            attempts: 0,
            attempt_deadline: None,
            queued: None,
            inside_operation: false,
            call_held: [None; MAX_GATES],
            attempt_held: [None; MAX_GATES],
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What to do next.
    #[inline]
    pub(crate) fn next(&mut self) -> Step {
        loop {
            match self.stage {
                // Before anything is taken: a probe or a permit would be wasted on a call that comes too late.
                Stage::CallGate(0) if self.options.deadline.is_some_and(|deadline| self.started >= deadline) => {
                    return self.refuse_as_too_late();
                }
                Stage::CallGate(index) => match self.pass(false, index) {
                    Ok(None) => self.stage = Stage::CallGate(index + 1),
                    Ok(Some(wait)) => return wait,
                    Err(None) => self.stage = Stage::AttemptGate(0),
                    Err(Some(rejection)) => return self.end(ErrorKind::Rejected(rejection), None),
                },
                Stage::Backoff(until) => {
                    if self.plan.clock.now() < until {
                        return Step::Sleep(until);
                    }
                    self.stage = Stage::AttemptGate(0);
                }
                Stage::AttemptGate(index) => match self.pass(true, index) {
                    Ok(None) => self.stage = Stage::AttemptGate(index + 1),
                    Ok(Some(wait)) => return wait,
                    Err(None) => return self.begin_attempt(),
                    Err(Some(rejection)) => {
                        self.settle_attempt(&Outcome::Rejected);
                        if let AfterFailure::Over(stopped) = self.after_failure(&rejection.class()) {
                            return self.end(ErrorKind::Rejected(rejection), stopped);
                        }
                    }
                },
                Stage::Running | Stage::Over => {
                    unreachable!("the shell asks again only after the attempt's end was handed over")
                }
            }
        }
    }

    /// Goes through one gate. `Ok(None)`: passed; `Ok(Some)`: wait first; `Err(None)`: there is no such gate, all are
    /// passed; `Err(Some)`: refused.
    #[inline]
    fn pass(&mut self, inside: bool, index: usize) -> Result<Option<Step>, Option<Rejection>> {
        let gates = if inside { &self.plan.attempt_gates } else { &self.plan.call_gates };
        match gates.get(index) {
            None => Err(None),
            Some(Gate::Breaker(breaker)) => {
                let token = breaker.admit().map_err(Some)?;
                self.hold(inside, index, Held::Token(token));
                Ok(None)
            }
            Some(Gate::Limiter { limiter, max_wait }) => {
                let place = match self.queued {
                    Some((_, _, Queued::Limiter(place))) => place,
                    _ if max_wait.is_zero() => {
                        return limiter.try_acquire(self.permits()).map(|()| None).map_err(Some);
                    }
                    _ => limiter.place(self.permits(), self.bounded_wait(*max_wait)).map_err(Some)?,
                };
                if self.plan.clock.now() < place.usable_from {
                    self.queued = Some((inside, index, Queued::Limiter(place)));
                    return Ok(Some(Step::Sleep(place.usable_from)));
                }
                self.queued = None;
                Ok(None)
            }
            Some(Gate::Bulkhead { bulkhead, max_wait }) => {
                let ticket = if let Some((_, _, Queued::Bulkhead(ticket))) = &self.queued {
                    let Poll::Ready(entered) = bulkhead.claim(ticket, self.plan.clock.now()) else {
                        return Ok(Some(Step::Queue(ticket.until)));
                    };
                    self.queued = None;
                    entered.map(|()| None)
                } else {
                    bulkhead.enter_or_queue(|| {
                        let wait = self.bounded_wait(*max_wait);
                        (!wait.is_zero()).then(|| self.plan.clock.now() + wait)
                    })
                };
                if let Some(ticket) = ticket.map_err(Some)? {
                    let until = ticket.until;
                    self.queued = Some((inside, index, Queued::Bulkhead(ticket)));
                    return Ok(Some(Step::Queue(until)));
                }
                self.hold(inside, index, Held::Room);
                Ok(None)
            }
        }
    }

    fn hold(&mut self, inside: bool, index: usize, held: Held) {
        let all = if inside { &mut self.attempt_held } else { &mut self.call_held };
        all[index] = Some(held);
    }

    /// Whether the wait of a [`Step::Queue`] is over before its time; if not, `waker` is woken when it is.
    pub(crate) fn has_turn(&self, waker: &Waker) -> bool {
        match &self.queued {
            Some((inside, index, Queued::Bulkhead(ticket))) => match self.gates(*inside).get(*index) {
                Some(Gate::Bulkhead { bulkhead, .. }) => bulkhead.watch(ticket, waker),
                _ => false,
            },
            _ => false,
        }
    }

    fn gates(&self, inside: bool) -> &[Gate] {
        if inside { &self.plan.attempt_gates } else { &self.plan.call_gates }
    }

    fn permits(&self) -> u32 {
        self.options.permits.max(1)
    }

    /// A wait that leaves no time before the deadline is not begun.
    fn bounded_wait(&self, max_wait: Duration) -> Duration {
        match self.deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(self.plan.clock.now());
                max_wait.min(left.saturating_sub(Duration::from_nanos(1)))
            }
            None => max_wait,
        }
    }

    /// Ends a call whose time was over before its first attempt: the dependency never saw it, so it is a refusal.
    fn refuse_as_too_late(&mut self) -> Step {
        let rejection = Rejection::new(Arc::clone(&self.plan.name), Reason::DeadlineTooClose, None);
        self.end(ErrorKind::Rejected(rejection), None)
    }

    #[inline]
    fn begin_attempt(&mut self) -> Step {
        let attempt_limit = self.plan.attempt_timeout;
        let now =
            if self.deadline.is_some() || attempt_limit.is_some() { self.plan.clock.now() } else { Instant::default() };
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.settle_attempt(&Outcome::Cancelled);
            if self.attempts == 0 {
                return self.refuse_as_too_late();
            }
            return self.end(ErrorKind::TimedOut(self.call_limit()), Some(Stopped::DeadlineTooClose));
        }
        self.attempts += 1;
        let attempt_deadline = attempt_limit.map(|limit| now + limit);
        self.attempt_deadline = match (attempt_deadline, self.deadline) {
            (Some(attempt), Some(call)) => Some(attempt.min(call)),
            (attempt, call) => attempt.or(call),
        };
        self.stage = Stage::Running;
        self.inside_operation = true;
        Step::Run(Attempt { number: self.attempts, deadline: self.attempt_deadline })
    }

    /// The operation is left while it runs (`false`), or entered again (`true`).
    pub(crate) fn set_inside_operation(&mut self, inside: bool) {
        self.inside_operation = inside;
    }

    /// While the guard lives, calls made on this thread under the same retry budget are part of this one.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Entered> {
        self.plan.retry.as_ref().and_then(Retry::enter)
    }

    /// Takes an attempt's result: `Some` is the call's, `None` means there is more to do.
    #[inline]
    pub(crate) fn attempt_ended<T, E>(
        &mut self,
        result: Result<T, E>,
        judge: impl FnOnce(&Result<T, E>) -> Option<Class>,
    ) -> Option<Result<T, Error<E>>> {
        let (outcome, stopped) = match judge(&result) {
            None => {
                self.settle_attempt(&Outcome::Success);
                (Outcome::Success, None)
            }
            Some(class) => {
                self.inside_operation = false;
                self.settle_attempt(&Outcome::Failure(class));
                let AfterFailure::Over(stopped) = self.after_failure(&class) else { return None };
                (Outcome::Failure(class), stopped)
            }
        };
        self.finish(&outcome, stopped);
        Some(result.map_err(|error| Error { kind: ErrorKind::Operation(error), attempts: self.attempts, stopped }))
    }

    /// The running attempt did not finish by its deadline and was dropped.
    pub(crate) fn attempt_timed_out(&mut self) -> Option<Ended> {
        self.settle_attempt(&Outcome::TimedOut);
        let timeout = match self.plan.attempt_timeout {
            Some(limit) if self.attempt_deadline != self.deadline => TimedOut { limit },
            _ => self.call_limit(),
        };
        let AfterFailure::Over(stopped) = self.after_failure(&timeout.class()) else { return None };
        match self.end(ErrorKind::TimedOut(timeout), stopped) {
            Step::End(ended) => Some(ended),
            Step::Sleep(_) | Step::Queue(_) | Step::Run(_) => None,
        }
    }

    /// The limit to report when the call as a whole ran out of time.
    fn call_limit(&self) -> TimedOut {
        let limit = self.deadline.map(|deadline| deadline.saturating_duration_since(self.started));
        TimedOut { limit: limit.unwrap_or_default() }
    }

    /// Decides whether there will be another try, and when.
    fn after_failure(&mut self, class: &Class) -> AfterFailure {
        let (Some(retry), Some(progress)) = (&self.plan.retry, &mut self.retry) else {
            return AfterFailure::Over(None);
        };
        let now = self.plan.clock.now();
        match retry.decide(progress, class, now, self.deadline) {
            RetryDecision::Stop(stopped) => AfterFailure::Over(Some(stopped)),
            RetryDecision::After(delay) => {
                self.stage = Stage::Backoff(now + delay);
                let (pipeline, attempt, class) = (&*self.plan.name, self.attempts, *class);
                self.plan.observers.emit(&Event::RetryScheduled { pipeline, attempt, delay, class });
                AfterFailure::Again
            }
        }
    }

    fn end(&mut self, kind: ErrorKind<Infallible>, stopped: Option<Stopped>) -> Step {
        let outcome = match &kind {
            ErrorKind::TimedOut(_) => Outcome::TimedOut,
            ErrorKind::Rejected(rejection) => {
                // Policies tell of their own refusals; this one is the pipeline's.
                if rejection.reason == Reason::DeadlineTooClose {
                    self.plan.observers.emit(&Event::Rejected { rejection });
                }
                Outcome::Rejected
            }
            ErrorKind::Operation(never) => match *never {},
        };
        self.finish(&outcome, stopped);
        Step::End(Ended(Error { kind, attempts: self.attempts, stopped }))
    }

    #[inline]
    fn settle_attempt(&mut self, outcome: &Outcome) {
        settle(&self.plan.attempt_gates, &mut self.attempt_held, outcome);
    }

    /// Settles whatever is held and tells the observers, once.
    #[inline]
    fn finish(&mut self, outcome: &Outcome, stopped: Option<Stopped>) {
        self.stage = Stage::Over;
        if let Some((inside, index, queued)) = self.queued.take() {
            match (self.gates(inside).get(index), queued) {
                (Some(Gate::Limiter { limiter, .. }), Queued::Limiter(place)) => limiter.give_up(place),
                (Some(Gate::Bulkhead { bulkhead, .. }), Queued::Bulkhead(ticket)) => bulkhead.give_up(&ticket),
                _ => {}
            }
        }
        settle(&self.plan.attempt_gates, &mut self.attempt_held, outcome);
        settle(&self.plan.call_gates, &mut self.call_held, outcome);
        if !self.plan.observers.is_empty() {
            let elapsed = self.plan.clock.now().saturating_duration_since(self.started);
            let (pipeline, attempts) = (&*self.plan.name, self.attempts);
            self.plan.observers.emit(&Event::CallFinished { pipeline, outcome, attempts, elapsed, stopped });
        }
    }
}

/// Settles in reverse: the policy next to the operation hears first.
#[inline]
fn settle(gates: &[Gate], held: &mut AllHeld, outcome: &Outcome) {
    for (gate, held) in gates.iter().zip(held).rev() {
        match (gate, held.take()) {
            (Gate::Breaker(breaker), Some(Held::Token(token))) => breaker.settle(token, outcome),
            (Gate::Bulkhead { bulkhead, .. }, Some(Held::Room)) => bulkhead.leave(),
            _ => {}
        }
    }
}

impl<P: Deref<Target = Plan>> Drop for Execution<P> {
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Over) {
            // A call that is dropped because something else panics was cancelled.
            let panicked = self.inside_operation && std::thread::panicking();
            let outcome = if panicked { Outcome::Panicked } else { Outcome::Cancelled };
            self.finish(&outcome, None);
        }
    }
}
