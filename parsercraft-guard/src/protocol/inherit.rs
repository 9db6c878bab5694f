//! The second half of loading: who extends whom, which members that gives, and whether replaced ones fit.
//!
//! It relies on every expression being resolved, and leaves a universe the checker can trust.

use std::sync::Arc;

use super::check::{Engine, Fuel, Limit, Stop};
use super::error::{DefinitionError, DefinitionErrors};
use super::load::Loader;
use super::order::{Order, order};
use super::term::{DefId, Substitution, Term, TypeId, number};
use super::universe::{Def, Kind, Member, Universe};

/// Deepest nesting of questions while verifying definitions.
const DEPTH: usize = 4_000;

/// A member that replaces an inherited one.
pub(crate) struct Override {
    owner: usize,
    own: Member,
    inherited: Member,
    base: usize,
}

impl Loader<'_> {
    /// Definitions in an order where bases come first.
    pub(crate) fn inheritance(&mut self) -> Result<Vec<usize>, DefinitionErrors> {
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
    pub(crate) fn flatten(&mut self, sorted: &[usize]) -> Result<(Vec<Member>, Vec<Override>), DefinitionErrors> {
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
    pub(crate) fn verify(mut self, members: Vec<Member>, overrides: &[Override]) -> Result<Universe, DefinitionErrors> {
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
