//! A shutdown as a state machine: told the time and what happened, it says what to do next.
//! Every handler gets its turn whatever the others do, and flush gets its whole budget. It calls, spawns and waits for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use resilience_core::Instant;

use crate::shutdown::handler::{Plan, ShutdownError, order};
use crate::shutdown::phase::{Budgets, Phase};
use crate::shutdown::report::{
    HandlerOutcome, HandlerReport, PhaseOutcome, PhaseReport, ShutdownReason, ShutdownReport,
};

/// Every handler is waited for this long even when its phase's time is gone, as after a late wake-up of this thread: else
/// a handler that works would be reported as left behind.
const SHORTEST_TURN: Duration = Duration::from_millis(5);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A phase begins.
    Enter(Phase),
    /// Call this handler.
    Run(usize),
    /// Nothing until this time, or until something happens.
    Wait(Option<Instant>),
    /// The report is ready.
    Done,
}

/// What a signal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalStep {
    /// It began the shutdown, or the shutdown had already been requested by the program.
    Requested,
    /// The second one: the shutdown goes straight to closing, with little time.
    Escalated,
    /// The third one: exit now, with this code (128 + signal).
    ExitNow(i32),
}

struct Running {
    index: usize,
    started: Instant,
    deadline: Instant,
}

pub(crate) struct Sequence {
    budgets: Budgets,
    plans: Vec<Plan>,
    /// None until requested.
    phase: Option<Phase>,
    reason: Option<ShutdownReason>,
    requested: Instant,
    entered: Instant,
    deadline: Instant,
    /// The handlers of this phase still to be called, and the one that is out.
    queue: VecDeque<usize>,
    running: Option<Running>,
    signals: u32,
    escalated: bool,
    left_in_flight: usize,
    phases: Vec<PhaseReport>,
    handlers: Vec<HandlerReport>,
    ended: Instant,
}

impl Sequence {
    pub(crate) fn new(budgets: Budgets, plans: Vec<Plan>) -> Self {
        let origin = Instant::default();
        Self {
            budgets,
            plans,
            phase: None,
            reason: None,
            requested: origin,
            entered: origin,
            deadline: origin,
            queue: VecDeque::new(),
            running: None,
            signals: 0,
            escalated: false,
            left_in_flight: 0,
            phases: Vec::new(),
            handlers: Vec::new(),
            ended: origin,
        }
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        self.phase
    }

    /// Adds a handler while nothing has been requested.
    pub(crate) fn register(&mut self, plan: Plan) -> Result<(), ShutdownError> {
        if self.phase.is_some() {
            return Err(ShutdownError::AlreadyRequested { name: plan.name });
        }
        self.plans.push(plan);
        let valid = crate::shutdown::handler::validate(&self.plans, &self.budgets);
        if valid.is_err() {
            self.plans.pop();
        }
        valid
    }

    /// Begins the shutdown; false when it has begun already.
    pub(crate) fn request(&mut self, reason: ShutdownReason, now: Instant) -> bool {
        if self.phase.is_some() {
            return false;
        }
        self.reason = Some(reason);
        self.requested = now;
        self.entered = now;
        self.deadline = now;
        self.phase = Some(Phase::Requested);
        true
    }

    pub(crate) fn signal(&mut self, number: i32, now: Instant) -> SignalStep {
        self.signals = self.signals.saturating_add(1);
        match self.signals {
            1 => {
                self.request(ShutdownReason::Signal(number), now);
                SignalStep::Requested
            }
            2 => {
                self.escalate(now);
                SignalStep::Escalated
            }
            _ => SignalStep::ExitNow(128_i32.saturating_add(number)),
        }
    }

    /// Goes to closing at once and shortens it. Flush keeps its time.
    pub(crate) fn escalate(&mut self, now: Instant) {
        self.request(ShutdownReason::Requested("escalation".to_owned()), now);
        self.escalated = true;
        match self.phase {
            Some(Phase::Close) => {
                self.deadline = self.deadline.min(now + self.budgets.escalated_close);
                if let Some(index) = self.running.as_ref().map(|running| running.index) {
                    let shorter = now + self.allotted(index, now);
                    if let Some(running) = &mut self.running {
                        running.deadline = running.deadline.min(shorter);
                    }
                }
            }
            Some(Phase::Requested | Phase::NotReady | Phase::Drain | Phase::Cancel) => {
                self.deadline = self.deadline.min(now);
            }
            Some(Phase::Flush | Phase::Exit) | None => {}
        }
    }

    /// A handler came back. One that was given up before is ignored.
    pub(crate) fn finished(&mut self, index: usize, outcome: HandlerOutcome, now: Instant) -> bool {
        if self.running.as_ref().is_none_or(|running| running.index != index) {
            return false;
        }
        self.settle(outcome, now);
        true
    }

    fn settle(&mut self, outcome: HandlerOutcome, now: Instant) {
        let Some(running) = self.running.take() else { return };
        let plan = &self.plans[running.index];
        self.handlers.push(HandlerReport {
            name: plan.name.clone(),
            phase: plan.phase,
            outcome,
            elapsed: now.saturating_duration_since(running.started),
        });
    }

    /// What to do now, with this much in flight. Call it until it says wait or done.
    pub(crate) fn next(&mut self, in_flight: usize, now: Instant) -> Step {
        let Some(phase) = self.phase else { return Step::Wait(None) };
        let over = now >= self.deadline;
        let spent = if self.escalated { PhaseOutcome::CutShort } else { PhaseOutcome::BudgetSpent };
        match phase {
            Phase::Requested => self.enter(Phase::NotReady, PhaseOutcome::Completed, now),
            // Serving on for its whole budget is what this phase is for.
            Phase::NotReady if over => {
                let cut = self.escalated && now < self.entered + self.budgets.not_ready;
                let outcome = if cut { PhaseOutcome::CutShort } else { PhaseOutcome::Completed };
                self.enter(Phase::Drain, outcome, now)
            }
            Phase::Drain if in_flight == 0 => self.enter(Phase::Cancel, PhaseOutcome::Completed, now),
            Phase::Drain if over => self.enter(Phase::Cancel, spent, now),
            Phase::Cancel if in_flight == 0 => self.enter(Phase::Close, PhaseOutcome::Completed, now),
            Phase::Cancel if over => {
                self.left_in_flight = in_flight;
                self.enter(Phase::Close, spent, now)
            }
            Phase::NotReady | Phase::Drain | Phase::Cancel => Step::Wait(Some(self.deadline)),
            Phase::Close | Phase::Flush => self.next_handler(phase, spent, now),
            Phase::Exit => Step::Done,
        }
    }

    fn next_handler(&mut self, phase: Phase, spent: PhaseOutcome, now: Instant) -> Step {
        if let Some(running) = &self.running {
            if now < running.deadline {
                return Step::Wait(Some(running.deadline));
            }
            self.settle(HandlerOutcome::Abandoned, now);
        }
        let Some(index) = self.queue.front().copied() else {
            let outcome = if now >= self.deadline { spent } else { PhaseOutcome::Completed };
            let next = if phase == Phase::Close { Phase::Flush } else { Phase::Exit };
            return self.enter(next, outcome, now);
        };
        let deadline = now + self.allotted(index, now);
        self.queue.pop_front();
        self.running = Some(Running { index, started: now, deadline });
        Step::Run(index)
    }

    /// The time for a handler: its limit, or its share and what earlier ones left over. When there is less time than all
    /// that remain may claim, as after a second signal, each gets the same part of its claim, so none is left without.
    fn allotted(&self, index: usize, now: Instant) -> Duration {
        let phase = self.plans[index].phase;
        let claims: Duration = self.queue.iter().filter(|at| **at != index).map(|at| self.claim(*at)).sum::<Duration>()
            + self.claim(index);
        let claim = self.claim(index);
        let remaining = self.deadline.saturating_duration_since(now).min(self.budgets.of(phase));
        if remaining < claims {
            let part = remaining.mul_f64(claim.as_secs_f64() / claims.as_secs_f64());
            part.max(SHORTEST_TURN.min(claim))
        } else if self.plans[index].limit.is_some() {
            claim
        } else {
            claim + remaining.saturating_sub(claims)
        }
    }

    /// What a handler may count on: its limit, or an equal share of what the limits leave of the phase's budget.
    fn claim(&self, index: usize) -> Duration {
        let plan = &self.plans[index];
        if let Some(limit) = plan.limit {
            return limit;
        }
        let same_phase = || self.plans.iter().filter(|other| other.phase == plan.phase);
        let limits: Duration = same_phase().filter_map(|other| other.limit).sum();
        let sharers = same_phase().filter(|other| other.limit.is_none()).count();
        let left = self.budgets.of(plan.phase).saturating_sub(limits);
        left / u32::try_from(sharers.max(1)).unwrap_or(u32::MAX)
    }

    fn enter(&mut self, next: Phase, outcome: PhaseOutcome, now: Instant) -> Step {
        if let Some(phase) = self.phase {
            let elapsed = now.saturating_duration_since(self.entered);
            self.phases.push(PhaseReport { phase, outcome, elapsed });
        }
        let budget = match next {
            Phase::NotReady | Phase::Drain | Phase::Cancel if self.escalated => Duration::ZERO,
            Phase::Close if self.escalated => self.budgets.escalated_close,
            _ => self.budgets.of(next),
        };
        self.phase = Some(next);
        self.entered = now;
        self.deadline = now + budget;
        self.ended = now;
        if matches!(next, Phase::Close | Phase::Flush) {
            // The order was found when the handlers were registered; a circle cannot get here.
            self.queue = order(&self.plans, next).unwrap_or_default().into();
        }
        Step::Enter(next)
    }

    /// The report of what has happened so far.
    pub(crate) fn report(&self) -> ShutdownReport {
        ShutdownReport {
            reason: self.reason.clone().unwrap_or_else(|| ShutdownReason::Requested("nobody".to_owned())),
            escalated: self.escalated,
            phases: self.phases.clone(),
            handlers: self.handlers.clone(),
            left_in_flight: self.left_in_flight,
            elapsed: self.ended.saturating_duration_since(self.requested),
        }
    }

    /// The handlers that have ended so far.
    pub(crate) fn handlers(&self) -> &[HandlerReport] {
        &self.handlers
    }

    pub(crate) fn reason(&self) -> Option<&ShutdownReason> {
        self.reason.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::handler::{Handler, validate};
    use proptest::prelude::*;

    /// What a simulated handler does when it is called.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Behaviour {
        Returns(Duration),
        Panics,
        Fails,
        Hangs,
    }

    impl Behaviour {
        /// When it is back, and with what; nothing when it never is.
        fn ends(self) -> Option<(Duration, HandlerOutcome)> {
            match self {
                Self::Returns(after) => Some((after, HandlerOutcome::Completed)),
                Self::Panics => Some((Duration::ZERO, HandlerOutcome::Panicked("boom".to_owned()))),
                Self::Fails => Some((Duration::ZERO, HandlerOutcome::Failed("no".to_owned()))),
                Self::Hangs => None,
            }
        }
    }

    const START: Instant = Instant::from_nanos(1_000_000_000);

    /// Runs a whole shutdown in no time: jumps from event to event. A second signal comes when `second` has passed.
    fn simulate(
        sequence: &mut Sequence,
        behaviours: &[Behaviour],
        in_flight: usize,
        second: Option<Duration>,
    ) -> ShutdownReport {
        let mut now = START;
        let mut second = second.map(|after| START + after);
        let mut back: Option<(Instant, usize, HandlerOutcome)> = None;
        assert_eq!(sequence.signal(15, now), SignalStep::Requested);
        loop {
            match sequence.next(in_flight, now) {
                Step::Enter(_) => {}
                Step::Run(index) => {
                    back = behaviours[index].ends().map(|(after, outcome)| (now + after, index, outcome));
                }
                Step::Wait(deadline) => {
                    let deadline = deadline.expect("a requested shutdown always has a next time");
                    let returns = back.as_ref().map_or(deadline, |(at, _, _)| *at);
                    let signal = second.unwrap_or(deadline);
                    now = deadline.min(returns).min(signal).max(now);
                    if second.is_some_and(|at| at <= now) {
                        second = None;
                        sequence.signal(15, now);
                    }
                    if let Some((at, index, outcome)) = back.take() {
                        if at <= now {
                            sequence.finished(index, outcome, now);
                        } else {
                            back = Some((at, index, outcome));
                        }
                    }
                }
                Step::Done => return sequence.report(),
            }
        }
    }

    fn sequence(handlers: &[Handler], budgets: &Budgets) -> Sequence {
        let plans: Vec<Plan> = handlers.iter().map(Plan::from).collect();
        validate(&plans, budgets).expect("valid handlers");
        Sequence::new(budgets.clone(), plans)
    }

    fn three_and_a_flush() -> Vec<Handler> {
        vec![
            Handler::close("a", || ()),
            Handler::close("b", || ()).limit(Duration::from_secs(2)),
            Handler::close("c", || ()),
            Handler::flush("audit", || ()),
        ]
    }

    #[test]
    fn in_every_cell_of_the_matrix_every_handler_runs_and_no_budget_is_overrun() {
        let budgets = Budgets::kubernetes();
        let quick = Behaviour::Returns(Duration::from_millis(1));
        let seconds: Vec<Option<Duration>> =
            std::iter::once(None).chain((0..26).map(|after| Some(Duration::from_secs(after)))).collect();
        for bad in [quick, Behaviour::Hangs, Behaviour::Panics, Behaviour::Fails] {
            for at in 0..4 {
                for in_flight in [0, 7] {
                    for second in &seconds {
                        let mut behaviours = [quick; 4];
                        behaviours[at] = bad;
                        let mut sequence = sequence(&three_and_a_flush(), &budgets);
                        let report = simulate(&mut sequence, &behaviours, in_flight, *second);
                        let cell =
                            format!("{bad:?} in {at}, {in_flight} in flight, second signal {second:?}: {report}");
                        let names: Vec<&str> = report.handlers.iter().map(|handler| handler.name.as_str()).collect();
                        assert_eq!(names, ["c", "b", "a", "audit"], "{cell}");
                        assert!(report.elapsed <= budgets.total(), "{cell}");
                        if let Some(second) = second
                            && report.escalated
                            && *second < Duration::from_secs(18)
                        {
                            let most = *second + budgets.escalated_close + budgets.flush;
                            assert!(report.elapsed <= most, "{cell}");
                        }
                        let hung = report.handlers.iter().filter(|h| h.outcome == HandlerOutcome::Abandoned).count();
                        assert_eq!(hung, usize::from(bad == Behaviour::Hangs), "{cell}");
                        assert_eq!(report.is_clean(), bad == quick && in_flight == 0, "{cell}");
                        assert_eq!(report.phases.len(), 6, "{cell}");
                    }
                }
            }
        }
    }

    #[test]
    fn flush_has_its_whole_budget_even_when_everything_before_it_hangs() {
        let budgets = Budgets::default();
        let hangs = [Behaviour::Hangs; 4];
        let report = simulate(&mut sequence(&three_and_a_flush(), &budgets), &hangs, 1, None);
        let audit = report.handlers.last().expect("it ran");
        assert_eq!((audit.name.as_str(), audit.elapsed), ("audit", budgets.flush));
        assert_eq!(report.elapsed, budgets.total());
    }

    #[test]
    fn what_quick_handlers_leave_over_goes_to_the_slow_one() {
        let budgets = Budgets::default();
        let quick = Behaviour::Returns(Duration::ZERO);
        let handlers: Vec<Handler> = ["slow", "b", "c", "d", "e"].map(|name| Handler::close(name, || ())).into();
        let mut behaviours = [quick; 5];
        behaviours[0] = Behaviour::Returns(Duration::from_secs(4));
        let report = simulate(&mut sequence(&handlers, &budgets), &behaviours, 0, None);
        assert!(report.is_clean(), "{report}");
    }

    proptest! {
        #[test]
        fn no_handler_is_left_out_and_no_budget_overrun_whatever_happens(
            handlers in prop::collection::vec((prop::option::of(1u64..400), 0u8..4, 0u64..3000, any::<bool>()), 0..8),
            in_flight in 0usize..2,
            second in prop::option::of(0u64..25_000),
        ) {
            let budgets = Budgets::default();
            let mut registered = Vec::new();
            let mut behaviours = Vec::new();
            for (at, (limit, kind, millis, flush)) in handlers.iter().enumerate() {
                let name = format!("h{at}");
                let handler = if *flush { Handler::flush(name, || ()) } else { Handler::close(name, || ()) };
                // At most 8 × 180 ms of limits fit the smaller budget, so every draw is valid.
                let limit = limit.map(|limit| Duration::from_millis(limit.min(180)));
                registered.push(limit.into_iter().fold(handler, Handler::limit));
                behaviours.push(match kind {
                    0 => Behaviour::Returns(Duration::from_millis(*millis)),
                    1 => Behaviour::Panics,
                    2 => Behaviour::Fails,
                    _ => Behaviour::Hangs,
                });
            }
            let mut sequence = sequence(&registered, &budgets);
            let report = simulate(&mut sequence, &behaviours, in_flight, second.map(Duration::from_millis));
            prop_assert_eq!(report.handlers.len(), registered.len());
            // Shares of a budget are rounded to nanoseconds.
            prop_assert!(report.elapsed <= budgets.total() + Duration::from_nanos(100));
            for handler in &report.handlers {
                prop_assert!(handler.elapsed <= budgets.of(handler.phase));
            }
        }
    }
}
