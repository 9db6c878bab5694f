//! Loading definitions: names, then expressions, then inheritance, then soundness. Each stage needs the one before.
//!
//! Defects are collected, not stopped at, until the end of the stage that finds them. Work is bounded by [`Bounds`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::definition::{Alias, Bounds, Definition, Definitions};
use super::error::{DefinitionError, DefinitionErrors, ExpressionError, shorten};
use super::expr::{self, Expr, ParamExpr};
use super::resolve::Resolver;
use super::term::{DefId, Interner, Term, TypeId, number};
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

enum Source<'a> {
    Definition(&'a Definition),
    Alias(&'a Alias),
    Prelude,
}

pub(crate) struct Loader<'a> {
    pub(crate) bounds: &'a Bounds,
    pub(crate) errors: Vec<DefinitionError>,
    pub(crate) interner: Interner,
    pub(crate) defs: Vec<Def>,
    pub(crate) names: HashMap<Arc<str>, DefId>,
    /// What each definition extends, in order.
    pub(crate) bases: Vec<Vec<(DefId, TypeId)>>,
    /// Each definition's own members.
    pub(crate) own: Vec<Vec<Member>>,
    /// Uses of parameters with bounds, and where.
    pub(crate) bounded: Vec<(TypeId, String)>,
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

    pub(crate) fn check(&mut self) -> Result<(), DefinitionErrors> {
        DefinitionErrors::check(&mut self.errors)
    }

    pub(crate) fn report(&mut self, error: DefinitionError) {
        // A hostile file must not make the report itself large.
        if self.errors.len() < DefinitionErrors::MAX {
            self.errors.push(error);
        }
    }

    pub(crate) fn too_large(&mut self, place: &str, what: &'static str, found: usize, allowed: usize) {
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
