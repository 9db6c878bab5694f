//! One call's way through a pipeline as a state machine: it says what to do next and is told what came of it.
//! It never sleeps and never runs the operation. Whatever it holds (breaker permits, reserved rate, room in a bulkhead,
//! a place in a queue) is given back when it is dropped, so neither a panic nor a cancelled future can leak anything.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::gate::{AllHeld, Gate, Held, Queued};
use super::options::{Attempt, CallOptions, Idempotency};
use super::plan::Plan;
use crate::chaos::Chaos;
use crate::class::{Class, Classify};
use crate::clock::Instant;
use crate::deadline;
use crate::event::Event;
use crate::outcome::{Error, ErrorKind, Outcome, Reason, Rejection, Stopped, TimedOut};
use crate::rate_limiter::Place;
use crate::retry::{self, Retry, RetryBudget, RetryDecision, RetryProgress};

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
    /// At this gate.
    Gate(usize),
    /// Pausing before the next attempt.
    Backoff(Instant),
    /// Held up by chaos, in the place of the operation.
    Disturbed(Instant),
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

/// While it lives, the code on this thread works for an attempt: calls under the same retry budget are part of it, and
/// they keep to its deadline.
#[derive(Debug)]
pub(crate) struct Entered {
    // Dropped in the opposite order of entering.
    _hedge_budget: Option<retry::Entered>,
    _budget: Option<retry::Entered>,
    _deadline: Option<deadline::Entered>,
}

pub(crate) struct Execution<'a, P: Deref<Target = Plan>> {
    plan: P,
    options: CallOptions<'a>,
    stage: Stage,
    started: Instant,
    /// The time, as long as nothing that takes time has happened since it was read.
    fresh: Option<Instant>,
    /// The latest moment that was waited for; the time is not before it, whatever the clock says.
    waited: Instant,
    deadline: Option<Instant>,
    retry: Option<RetryProgress>,
    attempts: u32,
    attempt_deadline: Option<Instant>,
    /// A place in a queue that is being waited for, and at which gate: only the one of the stage.
    queued: Option<(usize, Queued)>,
    /// What chaos lets the attempt come to, once it has been held up.
    fault: Option<Rejection>,
    /// Whether the operation's own code is on the stack: only then is a panic its doing.
    inside_operation: bool,
    held: AllHeld,
}

// What every call passes through is marked `inline`: it halves what a call costs, since most of it is moving state.
impl<'a, P: Deref<Target = Plan>> Execution<'a, P> {
    #[inline]
    pub(crate) fn new(plan: P, options: CallOptions<'a>) -> Self {
        let around = deadline::current(&plan.clock);
        let given = earlier(options.deadline, around);
        // Reading the clock is the dearest thing on this path: only who needs it pays.
        let fresh = (plan.wants_time || given.is_some()).then(|| plan.clock.now());
        let started = fresh.unwrap_or_default();
        let deadline = earlier(plan.call_timeout.map(|limit| started + limit), given);
        // Before anything is taken: a probe or a permit would be wasted on a call that comes too late.
        let too_late = given.is_some_and(|given| started >= given);
        let retry = plan.retry.as_ref().filter(|_| !too_late).map(|retry| retry.start(started));
        Self {
            stage: Stage::Gate(if too_late { usize::MAX } else { 0 }),
            plan,
            options,
            started,
            fresh,
            waited: Instant::default(),
            deadline,
            retry,
            attempts: 0,
            attempt_deadline: None,
            queued: None,
            fault: None,
            inside_operation: false,
            held: AllHeld::NOTHING,
        }
    }

    /// A call whose first attempt ran before this was made: only for a [bare](Plan::is_bare) plan.
    #[cold]
    pub(crate) fn of_bare(plan: P, options: CallOptions<'a>) -> Self {
        let mut this = Self::new(plan, options);
        this.stage = Stage::Running;
        this.attempts = 1;
        this
    }

    #[inline]
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether the operation may run more than once.
    #[inline]
    pub(crate) fn is_idempotent(&self) -> bool {
        self.options.idempotency == Idempotency::Idempotent
    }

    /// What to do next.
    #[inline]
    pub(crate) fn next(&mut self) -> Step {
        let step = self.step();
        self.fresh = None;
        step
    }

    #[inline]
    fn step(&mut self) -> Step {
        loop {
            match self.stage {
                Stage::Gate(usize::MAX) => return self.refuse_as_too_late(),
                Stage::Gate(index) => match self.pass(index) {
                    Ok(None) => self.stage = Stage::Gate(index + 1),
                    Ok(Some(wait)) => return wait,
                    Err(None) => {
                        if let Some(step) = self.begin_attempt() {
                            return step;
                        }
                    }
                    Err(Some(rejection)) => {
                        let inside = index >= self.plan.inner;
                        if inside {
                            self.settle_attempt(&Outcome::Rejected);
                        }
                        let next = if inside { self.after_failure(&rejection.class(), false) } else { OVER };
                        if let AfterFailure::Over(stopped) = next {
                            return self.end(ErrorKind::Rejected(rejection), stopped);
                        }
                    }
                },
                Stage::Disturbed(until) => {
                    if let Some(step) = self.after_disturbance(until) {
                        return step;
                    }
                }
                Stage::Backoff(until) => {
                    if self.now_after_wait() < until {
                        return Step::Sleep(until);
                    }
                    self.stage = Stage::Gate(self.plan.inner);
                }
                Stage::Running | Stage::Over => {
                    unreachable!("the shell asks again only after the attempt's end was handed over")
                }
            }
        }
    }

    /// Goes through one gate. `Ok(None)`: passed; `Ok(Some)`: wait first; `Err(None)`: there is no such gate, all are
    /// passed; `Err(Some)`: refused.
    #[inline]
    fn pass(&mut self, index: usize) -> Result<Option<Step>, Option<Rejection>> {
        match self.plan.gates.get(index) {
            None => Err(None),
            Some(Gate::Breaker(breaker)) => {
                let token = breaker.admit().map_err(Some)?;
                self.held.hold(index, Held::Token(token));
                Ok(None)
            }
            Some(Gate::Limiter { max_wait, .. } | Gate::Keyed { max_wait, .. }) => {
                let place = match self.queued {
                    Some((_, Queued::Limiter(place))) => place,
                    _ if max_wait.is_zero() => return self.place(index, Duration::ZERO).map(|_| None).map_err(Some),
                    _ => self.place(index, self.bounded_wait(*max_wait)).map_err(Some)?,
                };
                if self.now_after_wait() < place.usable_from {
                    self.queued = Some((index, Queued::Limiter(place)));
                    return Ok(Some(Step::Sleep(place.usable_from)));
                }
                self.queued = None;
                Ok(None)
            }
            Some(Gate::Shedder(shedder)) => {
                shedder.enter(self.options.priority).map_err(Some)?;
                self.held.hold(index, Held::Room);
                Ok(None)
            }
            Some(Gate::Bulkhead { bulkhead, max_wait }) => {
                let ticket = if let Some((_, Queued::Bulkhead(ticket))) = &self.queued {
                    let Poll::Ready(entered) = bulkhead.claim(ticket, self.now_after_wait()) else {
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
                    self.queued = Some((index, Queued::Bulkhead(ticket)));
                    return Ok(Some(Step::Queue(until)));
                }
                self.held.hold(index, Held::Room);
                Ok(None)
            }
        }
    }

    /// Takes the call's permits from the limiter at the gate, for now or within `max_wait`.
    #[inline]
    fn place(&mut self, index: usize, max_wait: Duration) -> Result<Place, Rejection> {
        let permits = self.options.permits.max(1);
        // Read before the gate is borrowed; a limiter on another clock reads its own.
        let same_clock = self.plan.gates[index].names_moments().is_some_and(|(_, clock)| clock.same(&self.plan.clock));
        let now = same_clock.then(|| self.now());
        let key = self.options.key.as_deref().unwrap_or_default();
        match (&self.plan.gates[index], now) {
            (Gate::Limiter { limiter, .. }, Some(now)) => limiter.place_at(now, permits, max_wait),
            (Gate::Limiter { limiter, .. }, None) => limiter.place(permits, max_wait),
            (Gate::Keyed { limiter, .. }, Some(now)) => limiter.place_at(now, key, permits, max_wait),
            (Gate::Keyed { limiter, .. }, None) => limiter.place(key, permits, max_wait),
            _ => unreachable!("only limiters are asked for a place"),
        }
    }

    /// Whether the wait of a [`Step::Queue`] is over before its time; if not, `waker` is woken when it is.
    pub(crate) fn has_turn(&self, waker: &Waker) -> bool {
        self.queued.as_ref().is_some_and(|(index, place)| self.plan.gates[*index].watch(place, waker))
    }

    /// The time. Reading the clock is the dearest thing here, and gates that are passed at once take no time to speak of.
    #[inline]
    fn now(&mut self) -> Instant {
        *self.fresh.get_or_insert_with(|| self.plan.clock.now())
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
    fn begin_attempt(&mut self) -> Option<Step> {
        let attempt_limit = self.plan.attempt_timeout;
        let wants_time = self.deadline.is_some() || attempt_limit.is_some();
        let now = if wants_time { self.now() } else { Instant::default() };
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.settle_attempt(&Outcome::Cancelled);
            if self.attempts == 0 {
                return Some(self.refuse_as_too_late());
            }
            return Some(self.end(ErrorKind::TimedOut(self.call_limit()), Some(Stopped::DeadlineTooClose)));
        }
        self.attempts += 1;
        self.attempt_deadline = earlier(attempt_limit.map(|limit| now + limit), self.deadline);
        if self.plan.chaos.as_ref().is_some_and(Chaos::is_enabled) {
            return self.disturb();
        }
        Some(self.run())
    }

    #[inline]
    fn run(&mut self) -> Step {
        self.stage = Stage::Running;
        self.inside_operation = true;
        Step::Run(self.attempt(0))
    }

    /// Lets chaos do what it will, in the place of the operation.
    #[cold]
    fn disturb(&mut self) -> Option<Step> {
        let injection = self.plan.chaos.as_ref()?.decide();
        self.stage = Stage::Running;
        self.inside_operation = true;
        if let Some(behaviour) = injection.behaviour {
            behaviour.run();
        }
        self.inside_operation = false;
        self.fault = injection.fault;
        // Both may take time.
        self.fresh = None;
        let until = injection.latency.map_or(Instant::default(), |latency| self.plan.clock.now() + latency);
        self.stage = Stage::Disturbed(until);
        None
    }

    /// Goes on when the harm is done: with the operation, or with the fault in its place. `None`: there is more to do.
    #[cold]
    fn after_disturbance(&mut self, until: Instant) -> Option<Step> {
        let now = self.now_after_wait();
        // First of all: harm that takes exactly as long as the attempt may is over too late.
        if until != Instant::default() && self.attempt_deadline.is_some_and(|deadline| now >= deadline) {
            self.fault = None;
            return self.attempt_timed_out().map(Step::End);
        }
        if now < until {
            return Some(Step::Sleep(earlier(Some(until), self.attempt_deadline).unwrap_or(until)));
        }
        let Some(fault) = self.fault.take() else { return Some(self.run()) };
        self.settle_attempt(&fault.outcome());
        match self.after_failure(&fault.class(), true) {
            AfterFailure::Again => None,
            AfterFailure::Over(stopped) => Some(self.end(ErrorKind::Rejected(fault), stopped)),
        }
    }

    /// The attempt that runs, as its operation is told.
    #[inline]
    pub(crate) fn attempt(&self, hedge: u32) -> Attempt {
        Attempt { number: self.attempts, hedge, deadline: self.attempt_deadline }
    }

    /// A wait that was asked for is over. A clock that stands still meanwhile, as tokio's does when it is paused, must not
    /// make a thread wait for ever.
    pub(crate) fn has_waited(&mut self, until: Instant) {
        self.waited = self.waited.max(until);
    }

    /// The time after a wait.
    fn now_after_wait(&self) -> Instant {
        self.plan.clock.now().max(self.waited)
    }

    /// The operation is left while it runs (`false`), or entered again (`true`).
    #[inline]
    pub(crate) fn set_inside_operation(&mut self, inside: bool) {
        self.inside_operation = inside;
    }

    /// While the guard lives, what this thread does is the attempt's work.
    #[inline]
    pub(crate) fn enter(&self) -> Entered {
        let budget = self.plan.retry.as_ref().and_then(Retry::enter);
        let hedge_budget = self.plan.hedge.as_ref().and_then(|hedge| hedge.budget()).map(RetryBudget::enter);
        Entered {
            _hedge_budget: hedge_budget,
            _budget: budget,
            _deadline: self.attempt_deadline.map(|at| deadline::enter(&self.plan.clock, at)),
        }
    }

    /// Takes an attempt's result and what it means: `Some` is the call's, `None` means there is more to do.
    #[inline]
    pub(crate) fn attempt_ended<T, E>(
        &mut self,
        result: Result<T, E>,
        class: Option<Class>,
    ) -> Option<Result<T, Error<E>>> {
        let (outcome, stopped) = match class {
            None => {
                self.settle_attempt(&Outcome::Success);
                (Outcome::Success, None)
            }
            Some(class) => {
                self.inside_operation = false;
                self.settle_attempt(&Outcome::Failure(class));
                let AfterFailure::Over(stopped) = self.after_failure(&class, true) else { return None };
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
        let AfterFailure::Over(stopped) = self.after_failure(&timeout.class(), true) else { return None };
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

    /// Decides whether there will be another try, and when. `ran`: the operation was started.
    fn after_failure(&mut self, class: &Class, ran: bool) -> AfterFailure {
        let (Some(retry), Some(progress)) = (&self.plan.retry, &mut self.retry) else { return OVER };
        if ran && self.options.idempotency == Idempotency::NotIdempotent {
            return AfterFailure::Over(Some(Stopped::NotIdempotent));
        }
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
                rejection.outcome()
            }
            ErrorKind::Operation(never) => match *never {},
        };
        self.finish(&outcome, stopped);
        Step::End(Ended(Error { kind, attempts: self.attempts, stopped }))
    }

    #[inline]
    fn settle_attempt(&mut self, outcome: &Outcome) {
        self.held.settle(&self.plan.gates, self.plan.inner, outcome);
    }

    /// Settles whatever is held and tells the observers, once.
    #[inline]
    fn finish(&mut self, outcome: &Outcome, stopped: Option<Stopped>) {
        self.stage = Stage::Over;
        if let Some((index, place)) = self.queued.take() {
            let key = self.options.key.as_deref().unwrap_or_default();
            self.plan.gates[index].give_up(key, place);
        }
        self.held.settle(&self.plan.gates, 0, outcome);
        if !self.plan.observers.is_empty() {
            let elapsed = self.plan.clock.now().saturating_duration_since(self.started);
            let (pipeline, operation, attempts) = (&*self.plan.name, self.options.operation, self.attempts);
            let event = Event::CallFinished { pipeline, operation, outcome, attempts, elapsed, stopped };
            self.plan.observers.emit(&event);
        }
    }
}

const OVER: AfterFailure = AfterFailure::Over(None);

/// The earlier of two moments that may be set.
#[inline]
fn earlier(one: Option<Instant>, two: Option<Instant>) -> Option<Instant> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    }
}

impl<P: Deref<Target = Plan>> Drop for Execution<'_, P> {
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Over) {
            // Who leaves the operation says so, unless by a panic. That may be over by now: executors catch it and drop the
            // future later. A call that is dropped because something else panics was cancelled.
            let outcome = if self.inside_operation { Outcome::Panicked } else { Outcome::Cancelled };
            self.finish(&outcome, None);
        }
    }
}
