//! Questions in text, answers with explanations: the checker's public face.
//!
//! Shared and thread-safe: remembered answers are read together, new ones are worked out one at a time. Memory is bounded
//! by starting afresh, never by a wrong answer.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use resilience_core::ConfigError;
use serde::{Deserialize, Serialize};

use super::check::{Engine, Limit};
use super::definition::{Bounds, Definitions};
use super::error::{CheckError, DefinitionErrors, ExpressionError, shorten};
use super::explain::Violation;
use super::expr;
use super::resolve::Resolver;
use super::term::{Term, TypeId};
use super::universe::{Kind, Universe};

/// Longest expression whose meaning is remembered by its text, in bytes; longer ones are read again each time.
const REMEMBERED_TEXT: usize = 200;

/// What one question may cost and how much a checker may remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Steps for one question: 1 to 10 000 000. Default 100 000, a few milliseconds.
    pub fuel: u64,
    /// Levels of types within types that one question unfolds: 1 to 10 000. Default 4 000. A method
    /// returning a protocol is two levels.
    pub depth: usize,
    /// Types and answers remembered before starting afresh: 1 000 to 100 000 000. Default 1 000 000, about 100 MB.
    pub remembered: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { fuel: 100_000, depth: 4_000, remembered: 1_000_000 }
    }
}

impl Budget {
    fn validate(self) -> Result<Self, ConfigError> {
        let check = |field: &str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::new(field, value, format!("{min} to {max}")))
            }
        };
        check("fuel", self.fuel, 1, 10_000_000)?;
        check("depth", self.depth as u64, 1, 10_000)?;
        check("remembered", self.remembered as u64, 1_000, 100_000_000)?;
        Ok(self)
    }
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[must_use]
pub enum Verdict {
    /// It conforms.
    Conforms,
    /// It does not, and why.
    Violates(Violation),
    /// There is no answer within the budget. Treat it as "does not conform": nothing was shown.
    OutOfFuel(Limit),
}

impl Verdict {
    /// Whether conformance was shown.
    pub fn conforms(&self) -> bool {
        matches!(self, Self::Conforms)
    }
}

/// One cell of a [`Matrix`]: a [`Verdict`] without its explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It conforms.
    Conforms,
    /// It does not; [`Checker::check_conformance`] says why.
    Violates,
    /// There is no answer within the budget.
    OutOfFuel,
}

/// The answers for many types against many protocols, row by row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    protocols: usize,
    answers: Vec<Answer>,
}

impl Matrix {
    /// The answer for a type and a protocol, by their places in the question; `None` outside of it.
    pub fn get(&self, ty: usize, protocol: usize) -> Option<Answer> {
        if protocol >= self.protocols {
            return None;
        }
        self.answers.get(ty * self.protocols + protocol).copied()
    }

    /// All answers: those of the first type against each protocol, then those of the second, and so on.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// How many of the answers are `answer`.
    pub fn count(&self, answer: Answer) -> usize {
        self.answers.iter().filter(|&&other| other == answer).count()
    }
}

/// Decides whether types conform to protocols, remembers the answers and explains the failures.
///
/// Cheap to clone; clones share what they remember. Questions already answered take a read lock; new ones are worked out
/// under a write lock, for at most [`Budget::fuel`] steps.
///
/// # Examples
///
/// ```
/// use parsercraft_guard::protocol::{Checker, Definitions};
///
/// let definitions: Definitions = toml::from_str(r#"
///     [protocols.Node]
///     methods.next = "() -> Node | None"
///
///     [types.Linked]
///     methods.next = "() -> Linked | None"
/// "#)?;
/// let checker = Checker::new(&definitions).unwrap();
/// assert!(checker.check_conformance("Linked", "Node").unwrap().conforms());
/// assert!(checker.check_compatible("() -> Linked", "() -> Node | None").unwrap().conforms());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    universe: Arc<Universe>,
    budget: Budget,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    /// Expressions met, so that asking again costs one look-up.
    expressions: HashMap<Box<str>, TypeId>,
}

impl State {
    fn new(universe: &Arc<Universe>, budget: Budget) -> Self {
        Self { engine: Engine::new(universe.clone(), budget.depth), expressions: HashMap::new() }
    }

    /// The meaning of a text met before.
    fn known(&self, text: &str) -> Option<TypeId> {
        self.expressions.get(text).copied()
    }
}

impl Checker {
    /// A checker for `definitions`, with default bounds and budget.
    ///
    /// # Errors
    ///
    /// As [`Universe::load`].
    pub fn new(definitions: &Definitions) -> Result<Self, DefinitionErrors> {
        let universe = Universe::load(definitions, &Bounds::default())?;
        Ok(Self::from_parts(universe, Budget::default()))
    }

    /// A checker for a universe already loaded.
    ///
    /// # Errors
    ///
    /// When a value of `budget` is outside its range.
    pub fn with_budget(universe: Universe, budget: Budget) -> Result<Self, ConfigError> {
        Ok(Self::from_parts(universe, budget.validate()?))
    }

    fn from_parts(universe: Universe, budget: Budget) -> Self {
        let universe = Arc::new(universe);
        let state = RwLock::new(State::new(&universe, budget));
        Self { shared: Arc::new(Shared { universe, budget, state }) }
    }

    /// The definitions it answers for.
    pub fn universe(&self) -> &Universe {
        &self.shared.universe
    }

    /// Forgets all answers, as if newly made.
    pub fn forget(&self) {
        *self.write() = State::new(&self.shared.universe, self.shared.budget);
    }

    /// Whether the type `ty` conforms to `protocol`, both given as expressions: `"list[int]"`, `"Reader"`.
    ///
    /// # Errors
    ///
    /// When an expression has no meaning, or `protocol` is not a protocol. Not conforming is not an error.
    pub fn check_conformance(&self, ty: &str, protocol: &str) -> Result<Verdict, CheckError> {
        self.ask(ty, protocol, true)
    }

    /// Whether a value of type `found` may stand where `expected` is required, for any two type expressions.
    ///
    /// # Errors
    ///
    /// When an expression has no meaning.
    pub fn check_compatible(&self, found: &str, expected: &str) -> Result<Verdict, CheckError> {
        self.ask(found, expected, false)
    }

    /// Every type against every protocol.
    ///
    /// Each pair has a full budget of its own; the state is locked until all are answered.
    ///
    /// # Errors
    ///
    /// When any expression has no meaning, or one of `protocols` is not a protocol; then nothing was checked.
    pub fn check_all<T: AsRef<str>, P: AsRef<str>>(&self, types: &[T], protocols: &[P]) -> Result<Matrix, CheckError> {
        if let Some(matrix) = self.recall_all(types, protocols) {
            return Ok(matrix);
        }
        let mut state = self.write();
        let types = types.iter().map(|ty| self.resolve(&mut state, ty.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let protocols =
            protocols.iter().map(|ty| self.resolve_protocol(&mut state, ty.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let mut answers = Vec::with_capacity(types.len().saturating_mul(protocols.len()));
        for &ty in &types {
            for &protocol in &protocols {
                let answer = match state.engine.recall(ty, protocol) {
                    Some(answer) => Ok(answer),
                    None => state.engine.ask(ty, protocol, self.shared.budget.fuel),
                };
                answers.push(answer.map_or(Answer::OutOfFuel, Answer::from));
            }
        }
        Ok(Matrix { protocols: protocols.len(), answers })
    }

    /// All answers from memory, or `None` when one is missing.
    fn recall_all<T: AsRef<str>, P: AsRef<str>>(&self, types: &[T], protocols: &[P]) -> Option<Matrix> {
        let state = self.read()?;
        let known = |text: &str| state.known(text);
        let types = types.iter().map(|ty| known(ty.as_ref())).collect::<Option<Vec<_>>>()?;
        let protocols = protocols.iter().map(|ty| known(ty.as_ref())).collect::<Option<Vec<_>>>()?;
        if !protocols.iter().all(|&protocol| self.is_protocol(&state, protocol)) {
            return None;
        }
        let mut answers = Vec::with_capacity(types.len() * protocols.len());
        for &ty in &types {
            for &protocol in &protocols {
                answers.push(Answer::from(state.engine.recall(ty, protocol)?));
            }
        }
        Some(Matrix { protocols: protocols.len(), answers })
    }

    fn ask(&self, found: &str, expected: &str, conformance: bool) -> Result<Verdict, CheckError> {
        if let Some(verdict) = self.recall(found, expected, conformance) {
            return Ok(verdict);
        }
        let mut state = self.write();
        let found = self.resolve(&mut state, found)?;
        let expected = if conformance {
            self.resolve_protocol(&mut state, expected)?
        } else {
            self.resolve(&mut state, expected)?
        };
        Ok(match state.engine.ask(found, expected, self.shared.budget.fuel) {
            Ok(true) => Verdict::Conforms,
            Ok(false) => Verdict::Violates(state.engine.explain(found, expected)),
            Err(limit) => Verdict::OutOfFuel(limit),
        })
    }

    fn recall(&self, found: &str, expected: &str, conformance: bool) -> Option<Verdict> {
        let state = self.read()?;
        let (found, expected) = (state.known(found)?, state.known(expected)?);
        if conformance && !self.is_protocol(&state, expected) {
            return None;
        }
        Some(if state.engine.recall(found, expected)? {
            Verdict::Conforms
        } else {
            Verdict::Violates(state.engine.explain(found, expected))
        })
    }

    fn is_protocol(&self, state: &State, ty: TypeId) -> bool {
        match state.engine.interner.term(ty) {
            Term::Named(def, _) => self.shared.universe.defs[def.0 as usize].kind == Kind::Protocol,
            _ => false,
        }
    }

    fn resolve_protocol(&self, state: &mut State, text: &str) -> Result<TypeId, CheckError> {
        let ty = self.resolve(state, text)?;
        if self.is_protocol(state, ty) { Ok(ty) } else { Err(CheckError::NotAProtocol { text: shorten(text) }) }
    }

    fn resolve(&self, state: &mut State, text: &str) -> Result<TypeId, CheckError> {
        if let Some(&ty) = state.expressions.get(text) {
            return Ok(ty);
        }
        let fail = |error| CheckError::Expression { text: shorten(text), error: Box::new(error) };
        let expr = expr::parse_type(text).map_err(fail)?;
        let universe = &self.shared.universe;
        let mut resolver = Resolver {
            interner: &mut state.engine.interner,
            names: &universe.names,
            defs: &universe.defs,
            scope: Vec::new(),
            allow_self: false,
            max_params: Bounds::default().params,
            bounded: Vec::new(),
        };
        let ty = resolver.ty(&expr).map_err(fail)?;
        for bounded in resolver.bounded {
            match state.engine.outside_bound(bounded, self.shared.budget.fuel) {
                Ok(None) => {}
                Ok(Some(error)) => return Err(fail(error)),
                Err(limit) => return Err(fail(ExpressionError::Undecided { limit })),
            }
        }
        if text.len() <= REMEMBERED_TEXT {
            state.expressions.insert(text.into(), ty);
        }
        Ok(ty)
    }

    /// `None` after a panic in the checker; the next [`Checker::write`] mends the state.
    fn read(&self) -> Option<RwLockReadGuard<'_, State>> {
        self.shared.state.read().ok()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        let shared = &self.shared;
        let (mut state, poisoned) = match shared.state.write() {
            Ok(state) => (state, false),
            Err(poisoned) => (poisoned.into_inner(), true),
        };
        let remembered = state.engine.size() + state.expressions.len();
        if poisoned || remembered > shared.budget.remembered.max(2 * shared.universe.size()) {
            *state = State::new(&shared.universe, shared.budget);
            shared.state.clear_poison();
        }
        state
    }
}

impl From<bool> for Answer {
    fn from(conforms: bool) -> Self {
        if conforms { Self::Conforms } else { Self::Violates }
    }
}
