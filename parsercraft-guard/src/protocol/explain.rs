//! Why a type does not conform, as a path from the protocol down to the types that clash.
//!
//! The checker leaves one compact reason with each "no" it remembers; here the reasons are followed and put into words.
//! Nothing is checked again, and every text is bounded in length.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::check::{Engine, Pair};
use super::render::render;
use super::term::{Sym, Term, TypeId};

/// Longest path; past it the middle is left out.
const LONGEST_PATH: usize = 32;

/// Why one question was answered with no.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    Fault(Fault),
    /// Because the part reached by `step` does not fit.
    Part {
        step: Step,
        pair: Pair,
    },
}

/// How a question leads to one of its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Member(Sym),
    /// What is assigned to a mutable member: the roles of found and expected are exchanged, as for parameters.
    Assignment(Sym),
    Parameter(u32),
    Keyword(Sym),
    Rest,
    Keywords,
    Return,
    Argument(u32),
    ArgumentReversed(u32),
    Alternative(TypeId),
    Bound(Sym),
    /// `T` of `T | None`.
    Option,
    /// An alias, a bound or `__call__` in place of what stands for it.
    Unfold,
}

impl Step {
    fn reverses(self) -> bool {
        matches!(
            self,
            Self::Assignment(_)
                | Self::Parameter(_)
                | Self::Keyword(_)
                | Self::Rest
                | Self::Keywords
                | Self::ArgumentReversed(_)
        )
    }
}

/// What is wrong where the path ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Mismatch,
    NotCallable,
    Missing(Sym),
    ReadOnly(Sym),
    Optional(Sym),
    TooManyArguments(u32),
    ExtraRequired(u32),
    Default(u32),
    KeywordDefault(Sym),
    Keyword(Sym),
    ExtraKeyword(Sym),
    Rest,
    Keywords,
    Overload(u32),
}

/// Why a type does not conform.
///
/// # Examples
///
/// ```
/// use parsercraft_guard::protocol::{Checker, Definitions, Verdict};
///
/// let definitions: Definitions = serde_json::from_str(r#"{
///     "protocols": { "Reader": { "methods": { "read": "(n: int) -> bytes" } } },
///     "types": { "Socket": { "methods": { "read": "(n: int) -> str" } } }
/// }"#)?;
/// let checker = Checker::new(&definitions).unwrap();
/// let Verdict::Violates(violation) = checker.check_conformance("Socket", "Reader").unwrap() else { panic!() };
/// assert_eq!(violation.to_string(), "`Reader.read` → return: expected `bytes`, found `str`");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// From what was asked to where it fails; empty when the types clash as a whole.
    pub path: Vec<PathStep>,
    /// What is wrong there.
    pub problem: Problem,
}

impl Violation {
    /// The path alone: "`Reader.read` → return".
    pub fn path_text(&self) -> String {
        let steps: Vec<String> = self.path.iter().map(ToString::to_string).collect();
        steps.join(" → ")
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path_text())?;
        }
        write!(f, "{}", self.problem)
    }
}

/// One step of the path to a [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PathStep {
    /// A member of a protocol.
    Member {
        /// The protocol.
        owner: String,
        /// The member.
        name: String,
    },
    /// What may be assigned to the member before it.
    Assignment,
    /// A positional parameter, counted from 1.
    Parameter(u32),
    /// A parameter given by keyword.
    Keyword(String),
    /// `*args`.
    Rest,
    /// `**kwargs`.
    Keywords,
    /// What a callable returns.
    Return,
    /// A type argument, counted from 1.
    TypeArgument(u32),
    /// One alternative of a union.
    Alternative(String),
    /// The bound of a type parameter.
    Bound(String),
    /// Steps left out of a very long path.
    Omitted(usize),
}

impl fmt::Display for PathStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member { owner, name } => write!(f, "`{owner}.{name}`"),
            Self::Assignment => f.write_str("assignment"),
            Self::Parameter(index) => write!(f, "parameter {index}"),
            Self::Keyword(name) => write!(f, "parameter `{name}`"),
            Self::Rest => f.write_str("`*args`"),
            Self::Keywords => f.write_str("`**kwargs`"),
            Self::Return => f.write_str("return"),
            Self::TypeArgument(index) => write!(f, "type argument {index}"),
            Self::Alternative(ty) => write!(f, "alternative `{ty}`"),
            Self::Bound(param) => write!(f, "bound of `{param}`"),
            Self::Omitted(count) => write!(f, "… {count} more …"),
        }
    }
}

/// What is wrong where the path ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Problem {
    /// Another type than required.
    #[error("expected `{expected}`, found `{found}`")]
    Mismatch {
        /// The protocol's side.
        expected: String,
        /// The conforming side.
        found: String,
    },
    /// The member does not exist.
    #[error("missing in `{found_in}`")]
    Missing {
        /// The type that lacks it.
        found_in: String,
    },
    /// A mutable property is required.
    #[error("must be mutable, is read-only in `{found_in}`")]
    ReadOnly {
        /// The type that has it read-only.
        found_in: String,
    },
    /// A member that is always there is required.
    #[error("must always be there, is optional in `{found_in}`")]
    Optional {
        /// The type that has it optional.
        found_in: String,
    },
    /// Something that can be called is required.
    #[error("expected `{expected}`, found `{found}`, which cannot be called")]
    NotCallable {
        /// The protocol's side.
        expected: String,
        /// The conforming side.
        found: String,
    },
    /// The parameters differ in number, name or kind.
    #[error("{what}: expected `{expected}`, found `{found}`")]
    Parameters {
        /// The difference in words.
        what: String,
        /// The protocol's side.
        expected: String,
        /// The conforming side.
        found: String,
    },
}

impl Engine {
    /// Why the remembered answer for `found` against `expected` is no.
    pub(crate) fn explain(&self, found: TypeId, expected: TypeId) -> Violation {
        let mut pair = Pair { found, expected };
        let mut path = Vec::new();
        let mut reversed = false;
        let mut reason = self.reason(pair);
        // Each part was answered before the whole, so the reasons form no cycle.
        while let Some(Reason::Part { step, pair: part }) = reason {
            self.push_step(step, pair.expected, &mut path);
            reversed = match step {
                Step::Member(_) => false,
                Step::Assignment(_) => true,
                _ => reversed ^ step.reverses(),
            };
            pair = part;
            reason = self.reason(pair);
        }
        let fault = match reason {
            Some(Reason::Fault(fault)) => fault,
            _ => Fault::Mismatch,
        };
        let problem = self.problem(fault, pair, reversed, &mut path);
        if path.len() > LONGEST_PATH {
            let omitted = path.len() - LONGEST_PATH;
            let half = LONGEST_PATH / 2;
            path.splice(half..half + omitted, [PathStep::Omitted(omitted)]);
        }
        Violation { path, problem }
    }

    /// Like [`Engine::explain`], from a reason that belongs to `expected` but is not remembered.
    pub(crate) fn explain_reason(&self, reason: Reason, found: TypeId, expected: TypeId) -> Violation {
        let mut path = Vec::new();
        match reason {
            Reason::Part { step, pair } => {
                self.push_step(step, expected, &mut path);
                let mut rest = self.explain(pair.found, pair.expected);
                if let (true, Problem::Mismatch { expected, found }) = (step.reverses(), &mut rest.problem) {
                    std::mem::swap(expected, found);
                }
                path.append(&mut rest.path);
                Violation { path, problem: rest.problem }
            }
            Reason::Fault(fault) => {
                let problem = self.problem(fault, Pair { found, expected }, false, &mut path);
                Violation { path, problem }
            }
        }
    }

    fn push_step(&self, step: Step, expected: TypeId, path: &mut Vec<PathStep>) {
        let name = |sym| self.interner.name(sym).to_owned();
        let next = match step {
            Step::Member(sym) => self.member_step(sym, expected),
            Step::Assignment(sym) => {
                path.push(self.member_step(sym, expected));
                PathStep::Assignment
            }
            Step::Parameter(index) => PathStep::Parameter(index + 1),
            Step::Keyword(sym) => PathStep::Keyword(name(sym)),
            Step::Rest => PathStep::Rest,
            Step::Keywords => PathStep::Keywords,
            Step::Return => PathStep::Return,
            Step::Argument(index) | Step::ArgumentReversed(index) => PathStep::TypeArgument(index + 1),
            Step::Alternative(ty) => PathStep::Alternative(self.render(ty)),
            Step::Bound(sym) => PathStep::Bound(name(sym)),
            Step::Option | Step::Unfold => return,
        };
        path.push(next);
    }

    fn member_step(&self, sym: Sym, owner: TypeId) -> PathStep {
        let owner = match self.interner.term(owner) {
            Term::Named(def, _) => self.universe.defs[def.0 as usize].name.to_string(),
            _ => self.render(owner),
        };
        PathStep::Member { owner, name: self.interner.name(sym).to_owned() }
    }

    fn problem(&self, fault: Fault, pair: Pair, reversed: bool, path: &mut Vec<PathStep>) -> Problem {
        let name = |sym| self.interner.name(sym);
        let found_in = self.render(pair.found);
        // In a parameter the conforming side is the one that must accept.
        let (found, expected) = if reversed { (pair.expected, pair.found) } else { (pair.found, pair.expected) };
        let (found, expected) = (self.render(found), self.render(expected));
        let what = match fault {
            Fault::Mismatch => return Problem::Mismatch { expected, found },
            Fault::NotCallable => return Problem::NotCallable { expected, found },
            Fault::Missing(sym) => {
                path.push(self.member_step(sym, pair.expected));
                return Problem::Missing { found_in };
            }
            Fault::ReadOnly(sym) => {
                path.push(self.member_step(sym, pair.expected));
                return Problem::ReadOnly { found_in };
            }
            Fault::Optional(sym) => {
                path.push(self.member_step(sym, pair.expected));
                return Problem::Optional { found_in };
            }
            Fault::TooManyArguments(index) => format!("parameter {} is not accepted", index + 1),
            Fault::ExtraRequired(index) => {
                format!("parameter {} is required, but not passed", index + 1)
            }
            Fault::Default(index) => format!("parameter {} must have a default", index + 1),
            Fault::KeywordDefault(sym) => format!("parameter `{}` must have a default", name(sym)),
            Fault::Keyword(sym) => {
                format!("parameter `{}` is not accepted by that name", name(sym))
            }
            Fault::ExtraKeyword(sym) => {
                format!("parameter `{}` is required, but not passed", name(sym))
            }
            Fault::Rest => "further positional arguments are not accepted".to_owned(),
            Fault::Keywords => "further keyword arguments are not accepted".to_owned(),
            Fault::Overload(index) => {
                format!("overload {} is served by none of the signatures", index + 1)
            }
        };
        Problem::Parameters { what, expected, found }
    }

    pub(crate) fn render(&self, ty: TypeId) -> String {
        render(&self.interner, &self.universe, ty)
    }
}
