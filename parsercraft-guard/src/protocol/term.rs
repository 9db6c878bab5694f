//! Types as the checker sees them: hash-consed terms, so that equal types have equal ids and comparing them is one
//! integer comparison.
//!
//! Ids are never reused or changed while an interner lives. Nothing here decides what is a subtype of what.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::check::{Fuel, Limit};

/// A type, by its term's place in the interner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct TypeId(pub(crate) u32);

/// A definition, by its place in the universe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct DefId(pub(crate) u32);

/// A type parameter: each declaration has its own number, so none can capture another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ParamId(pub(crate) u32);

/// A member's or parameter's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Sym(pub(crate) u32);

impl TypeId {
    /// Compatible with everything, both ways.
    pub(crate) const ANY: Self = Self(0);
    /// Below every type.
    pub(crate) const NEVER: Self = Self(1);
    /// Above every type.
    pub(crate) const OBJECT: Self = Self(2);
    /// The type whose members are looked at.
    pub(crate) const SELF: Self = Self(3);
}

/// One level of a type.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Term {
    Any,
    Never,
    Object,
    SelfType,
    Param(ParamId),
    Named(DefId, Arc<[TypeId]>),
    /// Sorted, without duplicates, at least two, none of them a union, `Never` or `object`.
    Union(Arc<[TypeId]>),
    /// Overloads in order, at least one.
    Callable(Arc<[Signature]>),
}

/// One signature of a callable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Signature {
    pub(crate) generics: Arc<[ParamId]>,
    /// Positional ones first.
    pub(crate) params: Arc<[Parameter]>,
    pub(crate) rest: Option<TypeId>,
    pub(crate) keywords: Option<TypeId>,
    pub(crate) any: bool,
    pub(crate) returns: TypeId,
}

/// One parameter of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Parameter {
    /// `None`: by position only.
    pub(crate) name: Option<Sym>,
    pub(crate) ty: TypeId,
    pub(crate) keyword_only: bool,
    pub(crate) default: bool,
}

/// What the interner remembers about a type parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParamInfo {
    pub(crate) name: Sym,
    pub(crate) bound: Option<TypeId>,
}

/// Deepest nesting a type may reach by substitution; several times what can be written down.
const MAX_DEPTH: u16 = 300;

const HAS_PARAM: u8 = 1;
const HAS_SELF: u8 = 2;

/// Replaces type parameters, and `Self` when `this` is given.
pub(crate) struct Substitution<'a> {
    pub(crate) pairs: &'a [(ParamId, TypeId)],
    pub(crate) this: Option<TypeId>,
}

/// All terms, names and type parameters met so far.
#[derive(Clone, Debug)]
pub(crate) struct Interner {
    terms: Vec<Term>,
    flags: Vec<u8>,
    depths: Vec<u16>,
    index: HashMap<Term, TypeId, Fast>,
    names: Vec<Arc<str>>,
    name_bytes: usize,
    symbols: HashMap<Arc<str>, Sym>,
    params: Vec<ParamInfo>,
}

impl Interner {
    pub(crate) fn new() -> Self {
        let mut interner = Self {
            terms: Vec::new(),
            flags: Vec::new(),
            depths: Vec::new(),
            index: HashMap::default(),
            names: Vec::new(),
            name_bytes: 0,
            symbols: HashMap::new(),
            params: Vec::new(),
        };
        // The order is that of the constants of `TypeId`.
        for term in [Term::Any, Term::Never, Term::Object, Term::SelfType] {
            interner.intern(term);
        }
        interner
    }

    /// Terms, parameters and names held, as a measure of memory: about a hundred bytes each.
    pub(crate) fn size(&self) -> usize {
        self.terms.len() + self.params.len() + self.names.len() + self.name_bytes / 100
    }

    pub(crate) fn term(&self, ty: TypeId) -> &Term {
        &self.terms[ty.0 as usize]
    }

    pub(crate) fn has_self(&self, ty: TypeId) -> bool {
        self.flags[ty.0 as usize] & HAS_SELF != 0
    }

    pub(crate) fn intern(&mut self, term: Term) -> TypeId {
        if let Some(&id) = self.index.get(&term) {
            return id;
        }
        let flags = self.flags_of(&term);
        let depth = self.depth_of(&term);
        let id = TypeId(number(self.terms.len()));
        self.terms.push(term.clone());
        self.flags.push(flags);
        self.depths.push(depth);
        self.index.insert(term, id);
        id
    }

    fn flags_of(&self, term: &Term) -> u8 {
        let of = |types: &mut dyn Iterator<Item = TypeId>| types.fold(0, |all, ty| all | self.flags[ty.0 as usize]);
        match term {
            Term::Any | Term::Never | Term::Object => 0,
            Term::SelfType => HAS_SELF,
            Term::Param(_) => HAS_PARAM,
            Term::Named(_, types) | Term::Union(types) => of(&mut types.iter().copied()),
            Term::Callable(signatures) => of(&mut signatures.iter().flat_map(Signature::types)),
        }
    }

    fn depth_of(&self, term: &Term) -> u16 {
        let of = |types: &mut dyn Iterator<Item = TypeId>| types.map(|ty| self.depths[ty.0 as usize]).max();
        let deepest = match term {
            Term::Any | Term::Never | Term::Object | Term::SelfType | Term::Param(_) => None,
            Term::Named(_, types) | Term::Union(types) => of(&mut types.iter().copied()),
            Term::Callable(signatures) => of(&mut signatures.iter().flat_map(Signature::types)),
        };
        deepest.map_or(0, |deepest| deepest.saturating_add(1))
    }

    /// `ty`, unless it has grown too deep for algorithms that recurse over a type.
    fn bounded(&self, ty: TypeId) -> Result<TypeId, Limit> {
        if self.depths[ty.0 as usize] > MAX_DEPTH { Err(Limit::Size { depth: MAX_DEPTH }) } else { Ok(ty) }
    }

    pub(crate) fn named(&mut self, def: DefId, args: &[TypeId]) -> TypeId {
        self.intern(Term::Named(def, args.into()))
    }

    /// The union of `members`: flat, sorted, without duplicates; `object` absorbs the others, `Any` does not.
    pub(crate) fn union(&mut self, members: &[TypeId]) -> TypeId {
        let mut flat = Vec::with_capacity(members.len());
        for &member in members {
            match self.term(member) {
                Term::Never => {}
                Term::Union(inner) => flat.extend_from_slice(inner),
                _ => flat.push(member),
            }
        }
        if flat.contains(&TypeId::OBJECT) {
            return TypeId::OBJECT;
        }
        flat.sort_unstable();
        flat.dedup();
        match flat.as_slice() {
            [] => TypeId::NEVER,
            [only] => *only,
            _ => self.intern(Term::Union(flat.into())),
        }
    }

    pub(crate) fn symbol(&mut self, name: &str) -> Sym {
        if let Some(&sym) = self.symbols.get(name) {
            return sym;
        }
        let sym = Sym(number(self.names.len()));
        let name: Arc<str> = name.into();
        self.name_bytes += name.len();
        self.names.push(name.clone());
        self.symbols.insert(name, sym);
        sym
    }

    pub(crate) fn name(&self, sym: Sym) -> &str {
        &self.names[sym.0 as usize]
    }

    pub(crate) fn new_param(&mut self, name: &str) -> ParamId {
        let name = self.symbol(name);
        let id = ParamId(number(self.params.len()));
        self.params.push(ParamInfo { name, bound: None });
        id
    }

    pub(crate) fn param(&self, param: ParamId) -> ParamInfo {
        self.params[param.0 as usize]
    }

    pub(crate) fn set_bound(&mut self, param: ParamId, bound: TypeId) {
        self.params[param.0 as usize].bound = Some(bound);
    }

    /// `ty` with the substitution applied, at the price of a step of fuel for each term visited and for
    /// each member of a union.
    pub(crate) fn substitute(&mut self, ty: TypeId, with: &Substitution<'_>, fuel: &mut Fuel) -> Result<TypeId, Limit> {
        let params = if with.pairs.is_empty() { 0 } else { HAS_PARAM };
        let wanted = params | if with.this.is_some() { HAS_SELF } else { 0 };
        if self.flags[ty.0 as usize] & wanted == 0 {
            return Ok(ty);
        }
        fuel.spend(1)?;
        match self.term(ty).clone() {
            Term::Any | Term::Never | Term::Object => Ok(ty),
            Term::SelfType => Ok(with.this.unwrap_or(ty)),
            Term::Param(param) => Ok(with.pairs.iter().find(|(from, _)| *from == param).map_or(ty, |&(_, to)| to)),
            Term::Named(def, args) => {
                let args = self.substitute_all(&args, with, fuel)?;
                let ty = self.intern(Term::Named(def, args.into()));
                self.bounded(ty)
            }
            Term::Union(members) => {
                fuel.spend(members.len())?;
                let members = self.substitute_all(&members, with, fuel)?;
                let ty = self.union(&members);
                self.bounded(ty)
            }
            Term::Callable(signatures) => {
                let mut replaced = Vec::with_capacity(signatures.len());
                for signature in signatures.iter() {
                    replaced.push(self.substitute_signature(signature, with, fuel)?);
                }
                let ty = self.intern(Term::Callable(replaced.into()));
                self.bounded(ty)
            }
        }
    }

    fn substitute_all(
        &mut self,
        types: &[TypeId],
        with: &Substitution<'_>,
        fuel: &mut Fuel,
    ) -> Result<Vec<TypeId>, Limit> {
        types.iter().map(|&ty| self.substitute(ty, with, fuel)).collect()
    }

    pub(crate) fn substitute_signature(
        &mut self,
        signature: &Signature,
        with: &Substitution<'_>,
        fuel: &mut Fuel,
    ) -> Result<Signature, Limit> {
        let mut params = Vec::with_capacity(signature.params.len());
        for param in signature.params.iter() {
            params.push(Parameter { ty: self.substitute(param.ty, with, fuel)?, ..*param });
        }
        let mut optional = |ty: Option<TypeId>| ty.map(|ty| self.substitute(ty, with, fuel)).transpose();
        let (rest, keywords) = (optional(signature.rest)?, optional(signature.keywords)?);
        Ok(Signature {
            generics: signature.generics.clone(),
            params: params.into(),
            rest,
            keywords,
            any: signature.any,
            returns: self.substitute(signature.returns, with, fuel)?,
        })
    }
}

impl Signature {
    /// Every type that occurs directly in the signature.
    pub(crate) fn types(&self) -> impl Iterator<Item = TypeId> {
        self.params.iter().map(|param| param.ty).chain(self.rest).chain(self.keywords).chain([self.returns])
    }
}

/// An index as an id.
///
/// # Panics
///
/// Past 2^32 ids; the bounds on definitions and the caps of the checker stay far below.
pub(crate) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("ids are capped far below 2^32")
}

/// A multiplicative hash for keys made of ids we number ourselves; not for text from outside.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct FastHasher(u64);

pub(crate) type Fast = BuildHasherDefault<FastHasher>;

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        // The table picks buckets by the low bits, the multiplication mixes into the high ones.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        // The constant of rustc-hash 2.
        self.0 = (self.0.wrapping_add(value)).wrapping_mul(0xf135_7aea_2e62_a9c5);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}
