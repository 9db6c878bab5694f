//! The subtype relation, decided co-inductively: a question met again while it is being answered holds.
//!
//! Answers are remembered by pairs of type ids. A "no" is final at once; a "yes" that leaned on a question still open is
//! provisional and is forgotten if that question turns out "no". Each step costs fuel, so every question ends.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::ExpressionError;
use super::explain::{Fault, Reason, Step};
use super::expr::Variance;
use super::term::{DefId, Fast, Interner, Substitution, Term, TypeId, number};
use super::universe::{Kind, Member, Universe};

/// Nested questions answered on the caller's stack, of which little may be left.
const LEVELS_ON_CALLER: usize = 48;
/// Nested questions answered on each stack after that.
const LEVELS_PER_STACK: usize = 1_000;
/// Size of such a stack: 16 KiB a level, several times what an unoptimised build needs. Only pages in use cost memory.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// The limit that ended a check before it had an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// All steps were spent.
    #[error("out of fuel after {spent} steps")]
    Fuel {
        /// How many were granted.
        spent: u64,
    },
    /// Questions nested too deeply: almost always a type that grows with each unfolding.
    #[error("types still unfolding after {depth} levels")]
    Depth {
        /// The deepest allowed.
        depth: usize,
    },
    /// A type grew too deep by substitution.
    #[error("a type grew more than {depth} levels deep")]
    Size {
        /// The deepest allowed.
        depth: u16,
    },
    /// The system had no thread to continue on.
    #[error("no thread to continue the check on")]
    Thread,
}

/// Steps left for the question at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fuel {
    granted: u64,
    left: u64,
}

impl Fuel {
    pub(crate) fn new(steps: u64) -> Self {
        Self { granted: steps, left: steps }
    }

    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), Limit> {
        match self.left.checked_sub(steps as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Limit::Fuel { spent: self.granted }),
        }
    }
}

/// Why a question was not answered with yes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    No(Reason),
    Limit(Limit),
}

impl From<Limit> for Stop {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::No(Reason::Fault(fault))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// Being answered, at this depth of nesting.
    Open(u32),
    /// Yes, if the open question at this depth turns out yes.
    Provisional(u32),
    Yes,
    No(Reason),
}

/// `found` may stand where `expected` is required.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Pair {
    pub(crate) found: TypeId,
    pub(crate) expected: TypeId,
}

/// The depth that no open question has: an answer that leans on nothing.
pub(crate) const GROUND: u32 = u32::MAX;

/// The algorithm with all it remembers.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) universe: Arc<Universe>,
    pub(crate) interner: Interner,
    pub(crate) fuel: Fuel,
    pub(crate) max_depth: usize,
    /// Members of the universe's definitions, then those of generic instances.
    pub(crate) members: Vec<Member>,
    /// Where in `members` an instance's members are.
    pub(crate) instances: HashMap<TypeId, (u32, u32), Fast>,
    pub(crate) memo: HashMap<Pair, Answer, Fast>,
    /// Open questions, outermost first.
    pub(crate) open: Vec<Pair>,
    /// Provisional answers in order.
    pub(crate) provisional: Vec<Pair>,
    /// The outermost open question that the current one leans on.
    pub(crate) leans_on: u32,
}

impl Engine {
    pub(crate) fn new(universe: Arc<Universe>, max_depth: usize) -> Self {
        Self {
            interner: universe.interner.clone(),
            members: universe.members.clone(),
            universe,
            fuel: Fuel::new(0),
            max_depth,
            instances: HashMap::default(),
            memo: HashMap::default(),
            open: Vec::new(),
            provisional: Vec::new(),
            leans_on: GROUND,
        }
    }

    /// Terms and answers held, as a measure of memory.
    pub(crate) fn size(&self) -> usize {
        self.interner.size() + self.memo.len() + self.members.len()
    }

    /// The remembered answer, if there is a final one.
    pub(crate) fn recall(&self, found: TypeId, expected: TypeId) -> Option<bool> {
        if trivially(found, expected) {
            return Some(true);
        }
        match self.memo.get(&Pair { found, expected })? {
            Answer::Yes => Some(true),
            Answer::No(_) => Some(false),
            Answer::Open(_) | Answer::Provisional(_) => None,
        }
    }

    /// Why the remembered answer is no.
    pub(crate) fn reason(&self, pair: Pair) -> Option<Reason> {
        match self.memo.get(&pair) {
            Some(Answer::No(reason)) => Some(*reason),
            _ => None,
        }
    }

    /// Answers one question within `fuel` steps.
    pub(crate) fn ask(&mut self, found: TypeId, expected: TypeId, fuel: u64) -> Result<bool, Limit> {
        self.fuel = Fuel::new(fuel);
        self.leans_on = GROUND;
        match self.holds(found, expected) {
            Ok(()) => Ok(true),
            Err(Stop::No(_)) => Ok(false),
            Err(Stop::Limit(limit)) => {
                // Answers that lean on questions never answered must not outlive this one.
                for pair in self.open.drain(..).chain(self.provisional.drain(..)) {
                    self.memo.remove(&pair);
                }
                Err(limit)
            }
        }
    }

    /// As part of another question: does `found` fit `expected`, reached by `step`?
    pub(crate) fn part(&mut self, step: Step, found: TypeId, expected: TypeId) -> Result<(), Stop> {
        match self.holds(found, expected) {
            Err(Stop::No(_)) => Err(Stop::No(Reason::Part { step, pair: Pair { found, expected } })),
            other => other,
        }
    }

    fn holds(&mut self, found: TypeId, expected: TypeId) -> Result<(), Stop> {
        if trivially(found, expected) {
            return Ok(());
        }
        let pair = Pair { found, expected };
        match self.memo.get(&pair) {
            Some(Answer::Yes) => return Ok(()),
            Some(Answer::No(reason)) => return Err(Stop::No(*reason)),
            Some(&(Answer::Open(depth) | Answer::Provisional(depth))) => {
                self.leans_on = self.leans_on.min(depth);
                return Ok(());
            }
            None => {}
        }
        self.fuel.spend(1)?;
        let depth = self.open.len();
        if depth >= self.max_depth {
            return Err(Limit::Depth { depth: self.max_depth }.into());
        }
        self.memo.insert(pair, Answer::Open(number(depth)));
        self.open.push(pair);
        let outer = std::mem::replace(&mut self.leans_on, GROUND);
        let mark = self.provisional.len();

        let result = if depth % LEVELS_PER_STACK == LEVELS_ON_CALLER {
            self.decide_on_fresh_stack(pair)
        } else {
            self.decide(pair)
        };
        if let Err(Stop::Limit(_)) = result {
            return result;
        }
        self.open.pop();
        match result {
            Ok(()) if self.leans_on >= number(depth) => {
                // Leans on nothing outside: this answer and all that lean on it are final.
                for settled in self.provisional.drain(mark..) {
                    self.memo.insert(settled, Answer::Yes);
                }
                self.memo.insert(pair, Answer::Yes);
                self.leans_on = outer;
            }
            Ok(()) => {
                self.memo.insert(pair, Answer::Provisional(self.leans_on));
                self.provisional.push(pair);
                self.leans_on = self.leans_on.min(outer);
            }
            Err(Stop::No(reason)) => {
                // Answers are monotone in what is assumed, so a no under assumptions is a no. The yeses since may lean on it.
                for doubtful in self.provisional.drain(mark..) {
                    self.memo.remove(&doubtful);
                }
                self.memo.insert(pair, Answer::No(reason));
                self.leans_on = outer;
            }
            Err(Stop::Limit(_)) => {}
        }
        result
    }

    /// Depth is bounded by `max_depth`, not by the caller's stack.
    fn decide_on_fresh_stack(&mut self, pair: Pair) -> Result<(), Stop> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.decide(pair))
                .map_err(|_| Stop::Limit(Limit::Thread))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn decide(&mut self, pair: Pair) -> Result<(), Stop> {
        let Pair { found, expected } = pair;
        if let Some(unfolded) = self.unfold(found)? {
            return self.part(Step::Unfold, unfolded, expected);
        }
        if let Some(unfolded) = self.unfold(expected)? {
            return self.part(Step::Unfold, found, unfolded);
        }
        let (found_term, expected_term) = (self.interner.term(found).clone(), self.interner.term(expected).clone());
        match (&found_term, &expected_term) {
            (Term::Union(members), _) => {
                self.fuel.spend(members.len())?;
                for &member in members.iter() {
                    self.part(Step::Alternative(member), member, expected)?;
                }
                Ok(())
            }
            (_, Term::Union(members)) => self.fits_one_of(found, members),
            (Term::Param(param), _) => match self.interner.param(*param).bound {
                Some(bound) => self.part(Step::Unfold, bound, expected),
                None => Err(Fault::Mismatch.into()),
            },
            (Term::Callable(found), Term::Callable(expected)) => self.overloads(found, expected),
            (Term::Named(..), Term::Callable(_)) => match self.call_member(found)? {
                Some(callable) => self.part(Step::Unfold, callable, expected),
                None => Err(Fault::NotCallable.into()),
            },
            (Term::Named(def, args), Term::Named(target, wanted)) if def == target => {
                self.arguments(*def, args, wanted)
            }
            (_, Term::Named(target, wanted)) => match self.universe.defs[target.0 as usize].kind {
                Kind::Protocol => self.structure(found, expected),
                Kind::Type => match self.ancestor(found, *target)? {
                    Some(args) => self.arguments(*target, &args, wanted),
                    None => Err(Fault::Mismatch.into()),
                },
                Kind::Alias => Err(Fault::Mismatch.into()),
            },
            _ => Err(Fault::Mismatch.into()),
        }
    }

    /// What an alias stands for; `None` for anything else.
    fn unfold(&mut self, ty: TypeId) -> Result<Option<TypeId>, Limit> {
        let Term::Named(def, args) = self.interner.term(ty) else {
            return Ok(None);
        };
        let Some(body) = self.universe.defs[def.0 as usize].body else {
            return Ok(None);
        };
        let pairs = self.universe.pairs(*def, args);
        self.interner.substitute(body, &Substitution { pairs: &pairs, this: None }, &mut self.fuel).map(Some)
    }

    fn fits_one_of(&mut self, found: TypeId, members: &[TypeId]) -> Result<(), Stop> {
        self.fuel.spend(members.len())?;
        for &member in members {
            match self.holds(found, member) {
                Err(Stop::No(_)) => {}
                other => return other,
            }
        }
        // Of `T | None`, the interesting question is `T`.
        let mut candidates = members.iter().filter(|&&member| member != self.universe.none);
        match (candidates.next(), candidates.next()) {
            (Some(&only), None) => {
                Err(Stop::No(Reason::Part { step: Step::Option, pair: Pair { found, expected: only } }))
            }
            _ => Err(Fault::Mismatch.into()),
        }
    }

    /// Same definition on both sides: the arguments decide, by declared variance.
    fn arguments(&mut self, def: DefId, found: &[TypeId], expected: &[TypeId]) -> Result<(), Stop> {
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let variance = self.universe.defs[def.0 as usize].variances[index];
            let step = Step::Argument(number(index));
            if variance != Variance::Contravariant {
                self.part(step, found, expected)?;
            }
            if variance != Variance::Covariant {
                self.part(Step::ArgumentReversed(number(index)), expected, found)?;
            }
        }
        Ok(())
    }

    /// The arguments with which `found` extends `target`, if it does.
    pub(crate) fn ancestor(&mut self, found: TypeId, target: DefId) -> Result<Option<Arc<[TypeId]>>, Limit> {
        let Term::Named(def, args) = self.interner.term(found).clone() else {
            return Ok(None);
        };
        let universe = self.universe.clone();
        let Some(&(_, as_target)) =
            universe.defs[def.0 as usize].ancestors.iter().find(|(ancestor, _)| *ancestor == target)
        else {
            return Ok(None);
        };
        let pairs = universe.pairs(def, &args);
        let ty = self.interner.substitute(as_target, &Substitution { pairs: &pairs, this: None }, &mut self.fuel)?;
        match self.interner.term(ty) {
            Term::Named(_, args) => Ok(Some(args.clone())),
            _ => Ok(None),
        }
    }

    /// The first argument of `ty` that is outside its parameter's bound.
    pub(crate) fn outside_bound(&mut self, ty: TypeId, fuel: u64) -> Result<Option<ExpressionError>, Limit> {
        let Term::Named(def, args) = self.interner.term(ty).clone() else {
            return Ok(None);
        };
        let pairs = self.universe.pairs(def, &args);
        for &(param, argument) in &pairs {
            let info = self.interner.param(param);
            let Some(bound) = info.bound else { continue };
            let mut substitution_fuel = Fuel::new(fuel);
            let with = Substitution { pairs: &pairs, this: None };
            let bound = self.interner.substitute(bound, &with, &mut substitution_fuel)?;
            if !self.ask(argument, bound, fuel)? {
                return Ok(Some(ExpressionError::OutsideBound {
                    name: self.universe.defs[def.0 as usize].name.to_string(),
                    param: self.interner.name(info.name).to_owned(),
                    argument: self.render(argument),
                    bound: self.render(bound),
                }));
            }
        }
        Ok(None)
    }
}

/// What needs neither memory nor fuel.
fn trivially(found: TypeId, expected: TypeId) -> bool {
    found == expected
        || found == TypeId::ANY
        || expected == TypeId::ANY
        || expected == TypeId::OBJECT
        || found == TypeId::NEVER
}
