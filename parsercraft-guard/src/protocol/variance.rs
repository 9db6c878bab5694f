//! Declared variance against actual use: a covariant parameter may not be consumed, a contravariant one not produced.
//!
//! Without this, comparing arguments by declared variance would be unsound.

use std::collections::HashSet;

use super::check::{Fuel, Limit};
use super::error::{DefinitionError, DefinitionErrors};
use super::expr::Variance;
use super::term::{DefId, Interner, ParamId, Substitution, Term, TypeId};
use super::universe::{Def, Member};

/// Appends an error for each definition and member where use contradicts declaration.
pub(crate) fn verify(
    errors: &mut Vec<DefinitionError>,
    interner: &mut Interner,
    defs: &[Def],
    own: &[Vec<Member>],
    bases: &[Vec<(DefId, TypeId)>],
    fuel: u64,
) {
    for (index, def) in defs.iter().enumerate() {
        if def.variances.iter().all(|&variance| variance == Variance::Invariant) {
            continue;
        }
        let members = own[index].iter().map(|member| {
            let position = if member.readonly { Variance::Covariant } else { Variance::Invariant };
            (Some(member.name), member.ty, position)
        });
        let bases = bases[index].iter().map(|&(_, ty)| (None, ty, Variance::Covariant));
        let uses: Vec<_> = members.chain(bases).collect();
        for (name, ty, position) in uses {
            if errors.len() >= DefinitionErrors::MAX {
                return;
            }
            let place = match name {
                Some(name) => format!("`{}`", interner.name(name)),
                None => "what it extends".to_owned(),
            };
            match misuse(interner, defs, def, ty, position, &mut Fuel::new(fuel)) {
                Ok(None) => {}
                Ok(Some((param, position))) => errors.push(DefinitionError::UnsoundVariance {
                    owner: def.name.to_string(),
                    param: interner.name(interner.param(def.params[param]).name).to_owned(),
                    declared: def.variances[param].word(),
                    place,
                    allowed: match position {
                        Variance::Covariant => "covariant (`out`) or invariant",
                        Variance::Contravariant => "contravariant (`in`) or invariant",
                        Variance::Invariant => "invariant",
                    },
                }),
                Err(_) => {
                    errors.push(DefinitionError::TooComplex { place: format!("{place} of `{}`", def.name), fuel });
                }
            }
        }
    }
}

/// The first parameter of `def` that `ty` uses in a position its declaration forbids, and that position.
fn misuse(
    interner: &mut Interner,
    defs: &[Def],
    def: &Def,
    ty: TypeId,
    position: Variance,
    fuel: &mut Fuel,
) -> Result<Option<(usize, Variance)>, Limit> {
    let index_of = |param: ParamId| def.params.iter().position(|&own| own == param);
    // A list of work, not recursion: aliases may chain to any length.
    let mut left = vec![(ty, position)];
    let mut seen = HashSet::new();
    while let Some((ty, position)) = left.pop() {
        if !seen.insert((ty, position)) {
            continue;
        }
        fuel.spend(1)?;
        match interner.term(ty).clone() {
            Term::Any | Term::Never | Term::Object | Term::SelfType => {}
            Term::Param(param) => {
                if let Some(index) = index_of(param)
                    && def.variances[index] != Variance::Invariant
                    && def.variances[index] != position
                {
                    return Ok(Some((index, position)));
                }
            }
            Term::Union(members) => left.extend(members.iter().map(|&member| (member, position))),
            Term::Callable(signatures) => {
                for signature in signatures.iter() {
                    left.push((signature.returns, position));
                    let taken = signature.params.iter().map(|param| param.ty);
                    let taken = taken.chain(signature.rest).chain(signature.keywords);
                    left.extend(taken.map(|ty| (ty, compose(position, Variance::Contravariant))));
                }
            }
            Term::Named(named, args) => {
                let named = &defs[named.0 as usize];
                if let Some(body) = named.body {
                    let pairs: Vec<_> = named.params.iter().copied().zip(args.iter().copied()).collect();
                    let unfolded = interner.substitute(body, &Substitution { pairs: &pairs, this: None }, fuel)?;
                    left.push((unfolded, position));
                } else {
                    let args = args.iter().zip(&named.variances);
                    left.extend(args.map(|(&arg, &variance)| (arg, compose(position, variance))));
                }
            }
        }
    }
    Ok(None)
}

/// The position of something at `inner` within something at `outer`.
fn compose(outer: Variance, inner: Variance) -> Variance {
    match (outer, inner) {
        (Variance::Invariant, _) | (_, Variance::Invariant) => Variance::Invariant,
        (outer, inner) if outer == inner => Variance::Covariant,
        _ => Variance::Contravariant,
    }
}
