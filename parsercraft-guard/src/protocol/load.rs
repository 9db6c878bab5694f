//! Loading definitions: names, then expressions, then inheritance, then soundness. Each stage needs the one before.
//!
//! Defects are collected, not stopped at, until the end of the stage that finds them. Work is bounded by [`Bounds`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::check::{Engine, Fuel, Limit, Stop};
use super::definition::{Alias, Bounds, Definition, Definitions};
use super::error::{DefinitionError, DefinitionErrors, ExpressionError, shorten};
use super::expr::{self, Expr, ParamExpr};
use super::order::{Order, order};
use super::resolve::Resolver;
use super::term::{DefId, Interner, Substitution, Term, TypeId, number};
use super::universe::{Def, Kind, Member, Universe};

/// What is there without being defined; each may be redefined.
const PRELUDE: &[(&str, &[&str])] = &[
    ("None", &[]),
    ("bool", &[]),
    ("bytes", &[]),
    ("float", &[]),
    ("int", &[]),
    ("str", &[]),
    ("list", &["T"]),
    ("set", &["T"]),
    ("dict", &["K", "V"]),
];

/// Deepest nesting of questions while verifying definitions.
const DEPTH: usize = 4_000;

enum Source<'a> {
    Definition(&'a Definition),
    Alias(&'a Alias),
    Prelude,
}

/// A member that replaces an inherited one.
pub(crate) struct Override {
    owner: usize,
    own: Member,
    inherited: Member,
    base: usize,
}

pub(crate) struct Loader<'a> {
    bounds: &'a Bounds,
    pub(crate) errors: Vec<DefinitionError>,
    pub(crate) interner: Interner,
    pub(crate) defs: Vec<Def>,
    names: HashMap<Arc<str>, DefId>,
    /// What each definition extends, in order.
    bases: Vec<Vec<(DefId, TypeId)>>,
    /// Each definition's own members.
    own: Vec<Vec<Member>>,
    /// Uses of parameters with bounds, and where.
    bounded: Vec<(TypeId, String)>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(bounds: &'a Bounds) -> Self {
        Self {
            bounds,
            errors: Vec::new(),
            interner: Interner::new(),
            defs: Vec::new(),
            names: HashMap::new(),
            bases: Vec::new(),
            own: Vec::new(),
            bounded: Vec::new(),
        }
    }

    pub(crate) fn load(mut self, definitions: &Definitions) -> Result<Universe, DefinitionErrors> {
        self.sizes(definitions);
        self.check()?;
        let sources = self.declare(definitions);
        self.check()?;
        self.params(&sources);
        self.check()?;
        self.bodies(&sources);
        self.check()?;
        let inheritance = self.inheritance()?;
        let members = self.flatten(&inheritance)?;
        super::variance::verify(
            &mut self.errors,
            &mut self.interner,
            &self.defs,
            &self.own,
            &self.bases,
            self.bounds.fuel,
        );
        self.check()?;
        self.verify(members.0, &members.1)
    }

    fn check(&mut self) -> Result<(), DefinitionErrors> {
        DefinitionErrors::check(&mut self.errors)
    }

    fn report(&mut self, error: DefinitionError) {
        // A hostile file must not make the report itself large.
        if self.errors.len() < DefinitionErrors::MAX {
            self.errors.push(error);
        }
    }

    fn too_large(&mut self, place: &str, what: &'static str, found: usize, allowed: usize) {
        if found > allowed {
            self.report(DefinitionError::TooLarge { place: shorten(place), what, found, allowed });
        }
    }

    fn sizes(&mut self, definitions: &Definitions) {
        let count = definitions.protocols.len() + definitions.types.len() + definitions.aliases.len();
        self.too_large("the file", "definitions", count, self.bounds.definitions);
        for (name, definition) in definitions.protocols.iter().chain(&definitions.types) {
            let members = definition.methods.len() + definition.properties.len();
            self.too_large(&format!("`{name}`"), "members", members, self.bounds.members);
            self.too_large(&format!("`{name}`"), "bases", definition.extends.len(), self.bounds.ancestors);
            for (member, method) in &definition.methods {
                let overloads = method.signatures().len();
                self.too_large(&format!("`{name}.{member}`"), "overloads", overloads, self.bounds.overloads);
            }
        }
    }

    fn declare<'d>(&mut self, definitions: &'d Definitions) -> Vec<Source<'d>> {
        // Numbered in alphabetical order, so that members sort, and violations come, by name.
        let all = definitions.protocols.values().chain(definitions.types.values());
        let members: BTreeSet<&String> = all.flat_map(|d| d.methods.keys().chain(d.properties.keys())).collect();
        for name in members {
            if !expr::is_name(name) {
                self.report(DefinitionError::BadName { name: shorten(name) });
            }
            self.interner.symbol(name);
        }

        let mut sources = Vec::new();
        for (name, definition) in &definitions.protocols {
            self.add(name, Kind::Protocol, Source::Definition(definition), &mut sources);
        }
        for (name, definition) in &definitions.types {
            self.add(name, Kind::Type, Source::Definition(definition), &mut sources);
        }
        for (name, alias) in &definitions.aliases {
            self.add(name, Kind::Alias, Source::Alias(alias), &mut sources);
        }
        for (name, _) in PRELUDE {
            if !self.names.contains_key(*name) {
                self.add(name, Kind::Type, Source::Prelude, &mut sources);
            }
        }
        sources
    }

    fn add<'d>(&mut self, name: &str, kind: Kind, source: Source<'d>, sources: &mut Vec<Source<'d>>) {
        if matches!(name, "Any" | "Never" | "object" | "Self") {
            return self.report(DefinitionError::Reserved { name: name.to_owned() });
        }
        if !expr::is_name(name) {
            return self.report(DefinitionError::BadName { name: shorten(name) });
        }
        if let Some(&first) = self.names.get(name) {
            let first = word(self.defs[first.0 as usize].kind);
            return self.report(DefinitionError::Duplicate { name: name.to_owned(), first, second: word(kind) });
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), DefId(number(self.defs.len())));
        self.defs.push(Def {
            name,
            kind,
            params: Vec::new(),
            variances: Vec::new(),
            body: None,
            ancestors: Vec::new(),
            members: (0, 0),
        });
        self.bases.push(Vec::new());
        self.own.push(Vec::new());
        sources.push(source);
    }

    /// Type parameters of all definitions: names and variances first, as bounds may mention any definition.
    fn params(&mut self, sources: &[Source<'_>]) {
        let mut declared: Vec<Vec<ParamExpr>> = Vec::with_capacity(sources.len());
        for (index, source) in sources.iter().enumerate() {
            let name = self.defs[index].name.clone();
            let texts: Vec<&str> = match source {
                Source::Definition(definition) => definition.params.iter().map(String::as_str).collect(),
                Source::Alias(alias) => alias.parts().0.iter().map(String::as_str).collect(),
                Source::Prelude => {
                    let prelude = PRELUDE.iter().find(|(known, _)| **known == *name);
                    prelude.map(|(_, params)| params.to_vec()).unwrap_or_default()
                }
            };
            if !matches!(source, Source::Prelude) {
                self.too_large(&format!("`{name}`"), "type parameters", texts.len(), self.bounds.params);
            }
            let mut params: Vec<ParamExpr> = Vec::new();
            // Enough of them to see what is wrong; looking for duplicates costs the square.
            for text in texts.into_iter().take(64) {
                let param = expr::parse_param(text).and_then(|param| {
                    if params.iter().any(|p| p.name == param.name) {
                        Err(ExpressionError::DuplicateParameter { name: param.name })
                    } else {
                        Ok(param)
                    }
                });
                match param {
                    Ok(param) => params.push(param),
                    Err(error) => {
                        self.expression(&format!("the parameters of `{name}`"), text, error);
                    }
                }
            }
            let ids = params.iter().map(|param| self.interner.new_param(&param.name)).collect();
            self.defs[index].params = ids;
            if !matches!(source, Source::Alias(_)) {
                self.defs[index].variances = params.iter().map(|param| param.variance).collect();
            }
            declared.push(params);
        }
        for (index, params) in declared.iter().enumerate() {
            for (at, param) in params.iter().enumerate() {
                let Some(bound) = &param.bound else { continue };
                let place = format!("the bound of `{}` of `{}`", param.name, self.defs[index].name);
                if let Some(bound) = self.resolve(index, false, &place, &param.name, bound) {
                    self.interner.set_bound(self.defs[index].params[at], bound);
                }
            }
        }
    }

    fn expression(&mut self, place: &str, text: &str, error: ExpressionError) {
        self.report(DefinitionError::Expression { place: shorten(place), text: shorten(text), error });
    }

    /// Resolves an expression that stands in definition `index`.
    fn resolve(&mut self, index: usize, allow_self: bool, place: &str, text: &str, expr: &Expr) -> Option<TypeId> {
        let scope = self.defs[index].params.iter().map(|&param| {
            let name = self.interner.param(param).name;
            (self.interner.name(name).to_owned(), param)
        });
        let scope = scope.collect();
        let mut resolver = Resolver {
            interner: &mut self.interner,
            names: &self.names,
            defs: &self.defs,
            scope,
            allow_self,
            max_params: self.bounds.params,
            bounded: Vec::new(),
        };
        let result = resolver.ty(expr);
        let bounded = resolver.bounded;
        self.bounded.extend(bounded.into_iter().map(|ty| (ty, place.to_owned())));
        match result {
            Ok(ty) => Some(ty),
            Err(error) => {
                self.expression(place, text, error);
                None
            }
        }
    }

    fn parse(&mut self, index: usize, allow_self: bool, place: &str, text: &str) -> Option<TypeId> {
        match expr::parse_type(text) {
            Ok(expr) => self.resolve(index, allow_self, place, text, &expr),
            Err(error) => {
                self.expression(place, text, error);
                None
            }
        }
    }

    fn bodies(&mut self, sources: &[Source<'_>]) {
        for (index, source) in sources.iter().enumerate() {
            let name = self.defs[index].name.clone();
            match source {
                Source::Definition(definition) => {
                    for text in &definition.extends {
                        self.base(index, text);
                    }
                    self.methods(index, definition);
                    self.properties(index, definition);
                }
                Source::Alias(alias) => {
                    self.defs[index].body = self.parse(index, false, &format!("alias `{name}`"), alias.parts().1);
                }
                Source::Prelude => {}
            }
        }
    }

    fn base(&mut self, index: usize, text: &str) {
        let name = self.defs[index].name.clone();
        let Some(ty) = self.parse(index, false, &format!("what `{name}` extends"), text) else {
            return;
        };
        let allowed = match self.defs[index].kind {
            Kind::Protocol => "protocols",
            _ => "types and protocols",
        };
        let base = match self.interner.term(ty) {
            Term::Named(def, _) => match (self.defs[index].kind, self.defs[def.0 as usize].kind) {
                (_, Kind::Alias) | (Kind::Protocol, Kind::Type) => None,
                _ => Some(*def),
            },
            _ => None,
        };
        match base {
            Some(def) => self.bases[index].push((def, ty)),
            None => {
                self.report(DefinitionError::NotExtendable { owner: name.to_string(), base: shorten(text), allowed });
            }
        }
    }

    fn methods(&mut self, index: usize, definition: &Definition) {
        let name = self.defs[index].name.clone();
        for (member, method) in &definition.methods {
            if definition.properties.contains_key(member) {
                self.report(DefinitionError::DuplicateMember { owner: name.to_string(), member: member.clone() });
            }
            let place = format!("method `{name}.{member}`");
            let mut signatures = Vec::new();
            if method.signatures().is_empty() {
                self.expression(&place, "[]", not_a_signature("no overload"));
            }
            for text in method.signatures() {
                let Some(ty) = self.parse(index, true, &place, text) else {
                    continue;
                };
                match self.interner.term(ty) {
                    Term::Callable(callable) => signatures.extend_from_slice(callable),
                    _ => self.expression(&place, text, not_a_signature("a type")),
                }
            }
            if !signatures.is_empty() {
                let ty = self.interner.intern(Term::Callable(signatures.into()));
                let name = self.interner.symbol(member);
                self.own[index].push(Member { name, ty, readonly: true, optional: method.optional() });
            }
        }
    }

    fn properties(&mut self, index: usize, definition: &Definition) {
        let name = self.defs[index].name.clone();
        for (member, property) in &definition.properties {
            let (text, readonly, optional) = property.parts();
            if let Some(ty) = self.parse(index, true, &format!("property `{name}.{member}`"), text) {
                let name = self.interner.symbol(member);
                self.own[index].push(Member { name, ty, readonly, optional });
            }
        }
    }

    /// Definitions in an order where bases come first.
    fn inheritance(&mut self) -> Result<Vec<usize>, DefinitionErrors> {
        let names = |cycle: Vec<usize>, defs: &[Def]| cycle.into_iter().map(|def| defs[def].name.to_string()).collect();
        let heads: Vec<Vec<usize>> = self.defs.iter().map(|def| self.heads(def)).collect();
        if let Order::Cycle(cycle) = order(&heads) {
            let path = names(cycle, &self.defs);
            self.report(DefinitionError::CyclicAlias { path });
        }
        let edges: Vec<Vec<usize>> =
            self.bases.iter().map(|bases| bases.iter().map(|(def, _)| def.0 as usize).collect()).collect();
        let sorted = match order(&edges) {
            Order::Sorted(sorted) => sorted,
            Order::Cycle(cycle) => {
                let path = names(cycle, &self.defs);
                self.report(DefinitionError::CyclicExtends { path });
                Vec::new()
            }
        };
        self.check()?;
        Ok(sorted)
    }

    /// The aliases an alias may turn into without passing through a type constructor.
    fn heads(&self, def: &Def) -> Vec<usize> {
        let mut heads = Vec::new();
        let mut left: Vec<TypeId> = def.body.into_iter().collect();
        while let Some(ty) = left.pop() {
            match self.interner.term(ty) {
                Term::Union(members) => left.extend_from_slice(members),
                Term::Named(def, args) if self.defs[def.0 as usize].kind == Kind::Alias => {
                    heads.push(def.0 as usize);
                    // The alias may be its own argument: `Id[T] = T`.
                    left.extend_from_slice(args);
                }
                _ => {}
            }
        }
        heads
    }

    /// Fills in ancestors and members; returns all members and the overrides among them.
    fn flatten(&mut self, sorted: &[usize]) -> Result<(Vec<Member>, Vec<Override>), DefinitionErrors> {
        let mut all: Vec<Member> = Vec::new();
        let mut overrides = Vec::new();
        for &index in sorted {
            if self.errors.len() >= DefinitionErrors::MAX || all.len() > self.bounds.total_members {
                break;
            }
            if self.defs[index].kind == Kind::Alias {
                continue;
            }
            let params: Vec<TypeId> =
                self.defs[index].params.clone().into_iter().map(|p| self.interner.intern(Term::Param(p))).collect();
            let id = DefId(number(index));
            let this = self.interner.named(id, &params);
            let mut ancestors = vec![(id, this)];
            let mut members = self.own[index].clone();
            let name = self.defs[index].name.clone();
            let mut fuel = Fuel::new(self.bounds.fuel);
            for (base, ty) in self.bases[index].clone() {
                let Term::Named(_, args) = self.interner.term(ty).clone() else {
                    continue;
                };
                let pairs: Vec<_> =
                    self.defs[base.0 as usize].params.iter().copied().zip(args.iter().copied()).collect();
                let with = Substitution { pairs: &pairs, this: None };
                let inherited = self.defs[base.0 as usize].members;
                let result: Result<(), Limit> = (|| {
                    for (ancestor, ty) in self.defs[base.0 as usize].ancestors.clone() {
                        let ty = self.interner.substitute(ty, &with, &mut fuel)?;
                        if !ancestors.iter().any(|(known, _)| *known == ancestor) {
                            ancestors.push((ancestor, ty));
                        }
                    }
                    for &member in &all[inherited.0 as usize..inherited.1 as usize] {
                        let ty = self.interner.substitute(member.ty, &with, &mut fuel)?;
                        let member = Member { ty, ..member };
                        match members.iter().find(|own| own.name == member.name) {
                            Some(&own) => {
                                overrides.push(Override {
                                    owner: index,
                                    own,
                                    inherited: member,
                                    base: base.0 as usize,
                                });
                            }
                            None => members.push(member),
                        }
                        fuel.spend(1)?;
                    }
                    Ok(())
                })();
                if result.is_err() {
                    self.report(DefinitionError::TooComplex { place: format!("`{name}`"), fuel: self.bounds.fuel });
                    break;
                }
            }
            self.too_large(&format!("`{name}`"), "ancestors", ancestors.len() - 1, self.bounds.ancestors);
            self.too_large(&format!("`{name}`"), "members with inherited ones", members.len(), self.bounds.members);
            members.sort_by_key(|member| member.name);
            let start = number(all.len());
            all.extend(members);
            self.defs[index].members = (start, number(all.len()));
            self.defs[index].ancestors = ancestors;
        }
        self.too_large("the file", "members with inherited ones", all.len(), self.bounds.total_members);
        self.check()?;
        Ok((all, overrides))
    }

    /// Overrides and bounds, which need the finished universe to be checked.
    fn verify(mut self, members: Vec<Member>, overrides: &[Override]) -> Result<Universe, DefinitionErrors> {
        let call = self.interner.symbol("__call__");
        let none = self.names.get("None").copied().unwrap_or(DefId(0));
        let none = self.interner.named(none, &[]);
        let fuel = self.bounds.fuel;
        let universe =
            Arc::new(Universe { interner: self.interner, defs: self.defs, names: self.names, members, none, call });
        let mut errors = self.errors;
        let mut engine = Engine::new(universe.clone(), DEPTH);
        for (ty, place) in self.bounded {
            match engine.outside_bound(ty, fuel) {
                Ok(None) => {}
                Ok(Some(error)) => {
                    let text = engine.render(ty);
                    errors.push(DefinitionError::Expression { place, text, error });
                }
                Err(_) => errors.push(DefinitionError::TooComplex { place, fuel }),
            }
            if errors.len() >= DefinitionErrors::MAX {
                break;
            }
        }
        for Override { owner, own, inherited, base } in overrides {
            if errors.len() >= DefinitionErrors::MAX {
                break;
            }
            let (_, this) = universe.defs[*owner].ancestors[0];
            let (_, as_base) = universe.defs[*base].ancestors[0];
            let (name, member) = (&universe.defs[*owner].name, engine.interner.name(own.name).to_owned());
            match engine.overrides(*own, *inherited, this, fuel) {
                Ok(()) => {}
                Err(Stop::No(reason)) => errors.push(DefinitionError::IncompatibleOverride {
                    owner: name.to_string(),
                    member,
                    base: universe.defs[*base].name.to_string(),
                    violation: Box::new(engine.explain_reason(reason, this, as_base)),
                }),
                Err(Stop::Limit(_)) => {
                    errors.push(DefinitionError::TooComplex { place: format!("`{name}.{member}`"), fuel });
                }
            }
        }
        DefinitionErrors::check(&mut errors)?;
        drop(engine);
        Ok(Arc::into_inner(universe).expect("the engine held the only other reference"))
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Type => "a type",
        Kind::Protocol => "a protocol",
        Kind::Alias => "an alias",
    }
}

fn not_a_signature(found: &str) -> ExpressionError {
    ExpressionError::Syntax { at: 0, found: found.to_owned(), expected: "a signature such as `(int) -> str`" }
}
