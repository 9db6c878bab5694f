//! What can be wrong with a type expression, with definitions, or with a question put to the checker.
//!
//! Every message names the thing at fault and what is allowed. A type that does not conform is not an error: that is a
//! [`Verdict`](super::Verdict).

use super::check::Limit;
use super::explain::Violation;

/// A type expression that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionError {
    /// The text does not follow the grammar.
    #[error("{found} at byte {at}; allowed here: {expected}")]
    Syntax {
        /// Byte offset into the expression.
        at: usize,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// The text is longer than any sensible type.
    #[error("the type is {length} bytes long; allowed: up to {allowed}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The longest accepted.
        allowed: usize,
    },
    /// Brackets nest too deeply.
    #[error("the type nests more than {allowed} levels deep")]
    TooDeep {
        /// The deepest accepted.
        allowed: usize,
    },
    /// A union or a parameter list has too many members.
    #[error("{found} {what}; allowed: up to {allowed}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many were found.
        found: usize,
        /// How many are accepted.
        allowed: usize,
    },
    /// Nobody defined this name.
    #[error(
        "unknown type `{name}`; allowed: a name under `types`, `protocols` or `aliases`, a type parameter in scope, or a \
         built-in type"
    )]
    UnknownType {
        /// The name.
        name: String,
    },
    /// A generic definition got the wrong number of arguments.
    #[error("`{name}` got {found} type arguments; allowed: exactly {expected}")]
    Arity {
        /// The definition.
        name: String,
        /// How many parameters it declares.
        expected: usize,
        /// How many arguments were given.
        found: usize,
    },
    /// A type argument is outside its parameter's bound.
    #[error("`{argument}` is not allowed for parameter `{param}` of `{name}`: it must conform to `{bound}`")]
    OutsideBound {
        /// The definition.
        name: String,
        /// Its parameter.
        param: String,
        /// The argument given.
        argument: String,
        /// What the argument must conform to.
        bound: String,
    },
    /// Whether a type argument is within its bound could not be decided.
    #[error("whether the type arguments are within their bounds is undecided: {limit}")]
    Undecided {
        /// What ended the attempt.
        limit: Limit,
    },
    /// `Self` was used where there is no enclosing definition.
    #[error("`Self` is only allowed in members of a type or protocol")]
    SelfOutside,
    /// The same parameter name appears twice.
    #[error("parameter `{name}` is declared twice; allowed: once")]
    DuplicateParameter {
        /// The name.
        name: String,
    },
}

/// A defect in a set of definitions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// A type expression inside a definition has no meaning.
    #[error("in {place}, `{text}`: {error}")]
    Expression {
        /// The definition and member.
        place: String,
        /// The expression as written, shortened when long.
        text: String,
        /// What is wrong with it.
        #[source]
        error: ExpressionError,
    },
    /// The same name is defined twice.
    #[error("`{name}` is defined as {first} and as {second}; allowed: one definition per name")]
    Duplicate {
        /// The name.
        name: String,
        /// Where it was seen first.
        first: &'static str,
        /// Where it was seen again.
        second: &'static str,
    },
    /// One member name is declared both as a method and as a property.
    #[error("`{owner}.{member}` is declared as a method and as a property; allowed: one of them")]
    DuplicateMember {
        /// The definition.
        owner: String,
        /// The member.
        member: String,
    },
    /// A name of the language itself is redefined.
    #[error("`{name}` cannot be defined: `Any`, `Never`, `object` and `Self` have fixed meanings")]
    Reserved {
        /// The name.
        name: String,
    },
    /// A name that could not be written in a type expression.
    #[error(
        "`{name}` is not a name; allowed: a letter or `_`, then letters, digits, `_` and `.`, at most 256 bytes, not `in` \
         or `out`"
    )]
    BadName {
        /// The name, shortened when long.
        name: String,
    },
    /// A definition extends itself, directly or through others.
    #[error("`{}` extends itself: {}; allowed: extending without cycles", path[0], path.join(" → "))]
    CyclicExtends {
        /// The cycle, its first name repeated at the end.
        path: Vec<String>,
    },
    /// An alias stands for itself with nothing in between.
    #[error(
        "alias `{}` stands for itself: {}; allowed: recursion inside type arguments or callables only",
        path[0],
        path.join(" → ")
    )]
    CyclicAlias {
        /// The cycle, its first name repeated at the end.
        path: Vec<String>,
    },
    /// Something was extended that cannot be.
    #[error("`{owner}` cannot extend `{base}`; allowed: {allowed}")]
    NotExtendable {
        /// The definition.
        owner: String,
        /// What it tried to extend.
        base: String,
        /// What it may extend.
        allowed: &'static str,
    },
    /// A parameter's declared variance contradicts its use.
    #[error("`{owner}` declares `{param}` {declared}, but uses it in {place}; allowed there: {allowed}")]
    UnsoundVariance {
        /// The definition.
        owner: String,
        /// The type parameter.
        param: String,
        /// The variance it declares.
        declared: &'static str,
        /// The member or base where the use contradicts it.
        place: String,
        /// The variances which that use permits.
        allowed: &'static str,
    },
    /// A member replaces an inherited one it does not conform to.
    #[error("`{owner}.{member}` does not fit the one inherited from `{base}`: {violation}")]
    IncompatibleOverride {
        /// The definition.
        owner: String,
        /// The member.
        member: String,
        /// Where the inherited member comes from.
        base: String,
        /// How it differs.
        violation: Box<Violation>,
    },
    /// A definition is larger than its bounds.
    #[error("{place} has {found} {what}; allowed: up to {allowed}")]
    TooLarge {
        /// The definition, or all of them.
        place: String,
        /// What there is too much of.
        what: &'static str,
        /// How many were found.
        found: usize,
        /// How many are accepted.
        allowed: usize,
    },
    /// Checking the definition's own members ran out of fuel.
    #[error("{place} is too complex to check within {fuel} steps of fuel")]
    TooComplex {
        /// The definition.
        place: String,
        /// The fuel that was not enough.
        fuel: u64,
    },
}

/// Everything found wrong with a set of definitions, in order of discovery; at least one, at most
/// [`DefinitionErrors::MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionErrors(Vec<DefinitionError>);

impl DefinitionErrors {
    /// Errors past this many are not collected.
    pub const MAX: usize = 64;

    /// The collected errors; `Ok` when there are none.
    pub(crate) fn check(errors: &mut Vec<DefinitionError>) -> Result<(), Self> {
        errors.truncate(Self::MAX);
        if errors.is_empty() { Ok(()) } else { Err(Self(std::mem::take(errors))) }
    }

    /// The errors, never empty.
    pub fn as_slice(&self) -> &[DefinitionError] {
        &self.0
    }
}

impl std::fmt::Display for DefinitionErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DefinitionErrors {}

/// A question the checker cannot make sense of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// An expression in the question has no meaning.
    #[error("`{text}`: {error}")]
    Expression {
        /// The expression as given, shortened when long.
        text: String,
        /// What is wrong with it.
        #[source]
        error: Box<ExpressionError>,
    },
    /// Conformance was asked against something that is not a protocol.
    #[error("`{text}` is not a protocol; allowed: a name under `protocols`, with its type arguments")]
    NotAProtocol {
        /// The expression as given, shortened when long.
        text: String,
    },
}

/// `text`, cut to a length fit for a message.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 120;
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
