//! Structural typing that hostile definitions cannot hang: does this type conform to that protocol, and if not, why?
//!
//! The invariant: every question ends, within a budget of steps, nesting and memory, with yes, with no and a path to the
//! clash, or with "out of fuel". Nothing here reads files or source code; definitions come through serde.
//!
//! # What the checker knows
//! - **Protocols** are compared by structure, **types** by name and what they extend. Both have methods (with overloads),
//!   properties (mutable unless `readonly`; either may be `optional`), bases and type parameters.
//! - **Parameters** of callables are contravariant, returns covariant. `(x: int) -> str` can be called by keyword,
//!   `(int) -> str` by position only; `= ...` is a default; `*`, `*args: T` and `**kwargs: T` mean what they do in Python;
//!   `(...) -> T` takes anything; `[T](T) -> list[T]` is generic.
//! - **Mutable properties** are invariant, read-only ones covariant. A mutable one serves where a read-only one is asked for.
//! - **Type parameters** are invariant, `out` (covariant) or `in` (contravariant), as declared; a declaration that
//!   contradicts its use is refused. Two instances of the same definition are compared by their arguments alone.
//! - **Recursive types** are compared co-inductively: a question met again while it is being answered holds.
//! - `Any` fits everything both ways, `object` is above and `Never` below every type, `Self` is the type that is asked about.
//! - An object with a `__call__` method can stand for a callable, and a callable for such a protocol.
//!
//! # What holds
//! Every type is compatible with itself. Compatibility is transitive as long as no `Any`, no `(...)`, no optional member,
//! no `Self` in a parameter, no generic method and no parameter declared narrower than its use is involved: each of
//! these gives it up on purpose, as in Python and TypeScript.
//!
//! # Limits worth knowing
//! A union is compared member by member: `list[int | str]` is not `list[int] | list[str]`, and a type is found to fit a
//! union only if it fits one of its members. Arguments of a generic method are inferred from parameters first, then from the
//! return, to first order.

mod check;
mod checker;
mod definition;
mod error;
mod explain;
mod expr;
#[cfg(feature = "testkit")]
mod generate;
mod guard;
mod inherit;
mod load;
mod order;
mod render;
mod resolve;
mod signature;
mod structure;
mod term;
mod universe;
mod variance;

pub use check::Limit;
pub use checker::{Answer, Budget, Checker, Matrix, Verdict};
pub use definition::{
    Alias, Bounds, Definition, Definitions, FullMethod, FullProperty, GenericAlias, Method, Property,
};
pub use error::{CheckError, DefinitionError, DefinitionErrors, ExpressionError};
pub use explain::{PathStep, Problem, Violation};
#[cfg(feature = "testkit")]
pub use generate::{Mutant, Sample, generate};
pub use guard::{Builder, ProtocolError, ProtocolGuard};
pub use universe::Universe;
