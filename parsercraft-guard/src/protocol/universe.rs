//! A loaded set of definitions: resolved, flattened, free of cycles in `extends`, sound in variance and overrides.
//!
//! Immutable once loaded. It answers nothing by itself: [`Checker`](super::Checker) does.

use std::collections::HashMap;
use std::sync::Arc;

use super::definition::{Bounds, Definitions};
use super::error::DefinitionErrors;
use super::expr::Variance;
use super::load::Loader;
use super::term::{DefId, Interner, ParamId, Sym, TypeId};

/// What a definition defines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Type,
    Protocol,
    Alias,
}

/// A member of a type or protocol; methods are read-only members that can be called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) name: Sym,
    pub(crate) ty: TypeId,
    pub(crate) readonly: bool,
    pub(crate) optional: bool,
}

/// A resolved definition.
#[derive(Clone, Debug)]
pub(crate) struct Def {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) params: Vec<ParamId>,
    /// One for each parameter; empty for aliases.
    pub(crate) variances: Vec<Variance>,
    /// What an alias stands for.
    pub(crate) body: Option<TypeId>,
    /// Itself and all it extends, in terms of its own parameters; nearest first.
    pub(crate) ancestors: Vec<(DefId, TypeId)>,
    /// Where its members, inherited ones included, are in `Universe::members`.
    pub(crate) members: (u32, u32),
}

/// A loaded set of definitions.
///
/// # Examples
///
/// ```
/// use parsercraft_guard::protocol::{Bounds, Definitions, Universe};
///
/// let definitions: Definitions = serde_json::from_str(r#"{
///     "protocols": { "Sized": { "methods": { "len": "() -> integer" } } }
/// }"#)?;
/// let errors = Universe::load(&definitions, &Bounds::default()).unwrap_err();
/// assert!(errors.to_string().starts_with("in method `Sized.len`, `() -> integer`: unknown type `integer`"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug)]
pub struct Universe {
    pub(crate) interner: Interner,
    pub(crate) defs: Vec<Def>,
    pub(crate) names: HashMap<Arc<str>, DefId>,
    pub(crate) members: Vec<Member>,
    /// The type `None`.
    pub(crate) none: TypeId,
    /// The name `__call__`.
    pub(crate) call: Sym,
}

impl Universe {
    /// Resolves and verifies `definitions` together with the prelude.
    ///
    /// # Errors
    ///
    /// Everything found wrong, at most [`DefinitionErrors::MAX`] errors: names, expressions, arities, cycles, variance,
    /// overrides, bounds. The first kind of defect found may hide others that only show once it is mended.
    pub fn load(definitions: &Definitions, bounds: &Bounds) -> Result<Self, DefinitionErrors> {
        Loader::new(bounds).load(definitions)
    }

    /// Names of the protocols, sorted.
    pub fn protocols(&self) -> Vec<&str> {
        self.names_of(Kind::Protocol)
    }

    /// Names of the types, those of the prelude included, sorted.
    pub fn types(&self) -> Vec<&str> {
        self.names_of(Kind::Type)
    }

    fn names_of(&self, kind: Kind) -> Vec<&str> {
        let mut names: Vec<&str> = self.defs.iter().filter(|def| def.kind == kind).map(|def| &*def.name).collect();
        names.sort_unstable();
        names
    }

    /// Terms and members held, as a measure of memory.
    pub(crate) fn size(&self) -> usize {
        self.interner.size() + self.members.len()
    }

    /// The parameters of a definition paired with arguments.
    pub(crate) fn pairs(&self, def: DefId, args: &[TypeId]) -> Vec<(ParamId, TypeId)> {
        self.defs[def.0 as usize].params.iter().copied().zip(args.iter().copied()).collect()
    }
}
