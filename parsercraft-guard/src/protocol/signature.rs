//! When one callable can stand in for another: parameters contravariant, returns covariant, overloads, generics.
//!
//! A generic candidate is instantiated from the signature it must fit. The inference is first order: sound, but it gives
//! up on parameters that only occur inside protocols of a different name.

use super::check::{Engine, Stop};
use super::explain::{Fault, Step};
use super::expr::Variance;
use super::term::{ParamId, Parameter, Signature, Substitution, Sym, Term, TypeId, number};

impl Engine {
    /// Every expected overload must be served by one of the found.
    pub(crate) fn overloads(&mut self, found: &[Signature], expected: &[Signature]) -> Result<(), Stop> {
        for (index, wanted) in expected.iter().enumerate() {
            if let [only] = found {
                self.signature(only, wanted)?;
                continue;
            }
            let mut served = false;
            for candidate in found {
                match self.signature(candidate, wanted) {
                    Ok(()) => {
                        served = true;
                        break;
                    }
                    Err(Stop::No(_)) => {}
                    Err(limit) => return Err(limit),
                }
            }
            if !served {
                return Err(Fault::Overload(number(index)).into());
            }
        }
        Ok(())
    }

    fn signature(&mut self, found: &Signature, expected: &Signature) -> Result<(), Stop> {
        self.fuel.spend(1 + expected.params.len())?;
        let instantiated;
        let found = if found.generics.is_empty() {
            found
        } else {
            instantiated = self.instantiate(found, expected)?;
            &instantiated
        };
        if !found.any && !expected.any {
            self.positional(found, expected)?;
            self.keywords(found, expected)?;
        }
        self.part(Step::Return, found.returns, expected.returns)
    }

    fn positional(&mut self, found: &Signature, expected: &Signature) -> Result<(), Stop> {
        let offered = positional(found);
        let wanted = positional(expected);
        for (index, want) in wanted.iter().enumerate() {
            let at = number(index);
            let Some(offer) = offered.get(index) else {
                let Some(rest) = found.rest else {
                    return Err(Fault::TooManyArguments(at).into());
                };
                self.part(Step::Parameter(at), want.ty, rest)?;
                if let Some(name) = want.name {
                    let Some(keywords) = found.keywords else {
                        return Err(Fault::Keyword(name).into());
                    };
                    self.part(Step::Keyword(name), want.ty, keywords)?;
                }
                continue;
            };
            if let Some(name) = want.name
                && offer.name != Some(name)
            {
                return Err(Fault::Keyword(name).into());
            }
            if want.default && !offer.default {
                return Err(Fault::Default(at).into());
            }
            self.part(Step::Parameter(at), want.ty, offer.ty)?;
        }
        for (index, extra) in offered.iter().enumerate().skip(wanted.len()) {
            if let Some(rest) = expected.rest {
                self.part(Step::Rest, rest, extra.ty)?;
            }
            let by_keyword = extra.name.is_some_and(|name| keyword_only(expected, name).is_some());
            if !extra.default && !by_keyword {
                return Err(Fault::ExtraRequired(number(index)).into());
            }
        }
        match (expected.rest, found.rest) {
            (Some(want), Some(offer)) => self.part(Step::Rest, want, offer),
            (Some(_), None) => Err(Fault::Rest.into()),
            (None, _) => Ok(()),
        }
    }

    fn keywords(&mut self, found: &Signature, expected: &Signature) -> Result<(), Stop> {
        let by_position = positional(expected).len();
        for want in expected.params.iter().filter(|param| param.keyword_only) {
            let Some(name) = want.name else { continue };
            let beyond = positional(found).iter().skip(by_position).find(|param| param.name == Some(name));
            match beyond.or_else(|| keyword_only(found, name)) {
                Some(offer) => {
                    if want.default && !offer.default {
                        return Err(Fault::KeywordDefault(name).into());
                    }
                    self.part(Step::Keyword(name), want.ty, offer.ty)?;
                }
                None => match found.keywords {
                    Some(keywords) => self.part(Step::Keyword(name), want.ty, keywords)?,
                    None => return Err(Fault::Keyword(name).into()),
                },
            }
        }
        for offer in found.params.iter().filter(|param| param.keyword_only) {
            let Some(name) = offer.name else { continue };
            if keyword_only(expected, name).is_some() {
                continue;
            }
            if !offer.default {
                return Err(Fault::ExtraKeyword(name).into());
            }
            if let Some(keywords) = expected.keywords {
                self.part(Step::Keyword(name), keywords, offer.ty)?;
            }
        }
        match (expected.keywords, found.keywords) {
            (Some(want), Some(offer)) => self.part(Step::Keywords, want, offer),
            (Some(_), None) => Err(Fault::Keywords.into()),
            (None, _) => Ok(()),
        }
    }

    /// `found` with types in place of its type parameters, chosen so that it may fit `expected`.
    fn instantiate(&mut self, found: &Signature, expected: &Signature) -> Result<Signature, Stop> {
        let mut inference = Inference { params: &found.generics, lower: Vec::new(), upper: Vec::new() };
        for (offer, want) in positional(found).iter().zip(positional(expected)) {
            self.infer(offer.ty, want.ty, false, &mut inference)?;
        }
        for want in expected.params.iter().filter(|param| param.keyword_only) {
            let offer = found.params.iter().find(|param| param.name == want.name);
            if let Some(offer) = offer {
                self.infer(offer.ty, want.ty, false, &mut inference)?;
            }
        }
        if let (Some(offer), Some(want)) = (found.rest, expected.rest) {
            self.infer(offer, want, false, &mut inference)?;
        }
        self.infer(found.returns, expected.returns, true, &mut inference)?;

        let Inference { lower, upper, .. } = inference;
        let of = |all: &[(ParamId, TypeId)], param| -> Vec<TypeId> {
            all.iter().filter(|(of, _)| *of == param).map(|&(_, ty)| ty).collect()
        };
        let mut pairs = Vec::with_capacity(found.generics.len());
        for &param in found.generics.iter() {
            let (lower, upper) = (of(&lower, param), of(&upper, param));
            let bound = self.interner.param(param).bound;
            let chosen = match (lower.as_slice(), upper.first()) {
                ([], Some(&upper)) => upper,
                ([], None) => bound.unwrap_or(TypeId::OBJECT),
                (lower, _) => self.interner.union(lower),
            };
            pairs.push((param, chosen));
        }
        let with = Substitution { pairs: &pairs, this: None };
        for &(param, chosen) in &pairs {
            if let Some(bound) = self.interner.param(param).bound {
                let bound = self.interner.substitute(bound, &with, &mut self.fuel)?;
                self.part(Step::Bound(self.interner.param(param).name), chosen, bound)?;
            }
        }
        Ok(self.interner.substitute_signature(found, &with, &mut self.fuel)?)
    }

    /// Notes what `pattern` matching `target` says about the parameters: with `upper`, pattern ≤ target, else target ≤
    /// pattern.
    fn infer(
        &mut self,
        pattern: TypeId,
        target: TypeId,
        upper: bool,
        inference: &mut Inference<'_>,
    ) -> Result<(), Stop> {
        self.fuel.spend(1)?;
        let (pattern_term, target_term) = (self.interner.term(pattern).clone(), self.interner.term(target).clone());
        match (&pattern_term, &target_term) {
            (Term::Param(param), _) if inference.params.contains(param) => {
                let side = if upper { &mut inference.upper } else { &mut inference.lower };
                side.push((*param, target));
            }
            (Term::Named(def, args), _) if !args.is_empty() => {
                let matching = match &target_term {
                    Term::Named(other, args) if other == def => Some(args.clone()),
                    _ if !upper => self.ancestor(target, *def)?,
                    _ => None,
                };
                let Some(matching) = matching else {
                    return Ok(());
                };
                for (index, (&arg, &target)) in args.iter().zip(matching.iter()).enumerate() {
                    let variances = &self.universe.defs[def.0 as usize].variances;
                    // Aliases have no variance of their own.
                    let flip = variances.get(index) == Some(&Variance::Contravariant);
                    self.infer(arg, target, upper != flip, inference)?;
                }
            }
            (Term::Union(members), _) => {
                let targets: &[TypeId] = match &target_term {
                    Term::Union(targets) => targets,
                    _ => std::slice::from_ref(&target),
                };
                let (open, fixed): (Vec<TypeId>, Vec<TypeId>) =
                    members.iter().partition(|&&member| inference.mentions(self.interner.term(member)));
                let left: Vec<TypeId> = targets.iter().copied().filter(|ty| !fixed.contains(ty)).collect();
                if let ([only], false) = (open.as_slice(), left.is_empty()) {
                    let left = self.interner.union(&left);
                    self.infer(*only, left, upper, inference)?;
                }
            }
            (Term::Callable(pattern), Term::Callable(target)) => {
                if let ([pattern], [target]) = (pattern.as_ref(), target.as_ref()) {
                    for (pattern, target) in positional(pattern).iter().zip(positional(target)) {
                        self.infer(pattern.ty, target.ty, !upper, inference)?;
                    }
                    self.infer(pattern.returns, target.returns, upper, inference)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

struct Inference<'a> {
    params: &'a [ParamId],
    lower: Vec<(ParamId, TypeId)>,
    upper: Vec<(ParamId, TypeId)>,
}

impl Inference<'_> {
    /// Whether a member of a union is what is to be inferred.
    fn mentions(&self, term: &Term) -> bool {
        match term {
            Term::Param(param) => self.params.contains(param),
            Term::Named(_, args) => !args.is_empty(),
            Term::Callable(_) => true,
            _ => false,
        }
    }
}

/// The positional parameters, which come first.
fn positional(signature: &Signature) -> &[Parameter] {
    let end = signature.params.iter().position(|param| param.keyword_only).unwrap_or(signature.params.len());
    &signature.params[..end]
}

fn keyword_only(signature: &Signature, name: Sym) -> Option<&Parameter> {
    signature.params.iter().find(|param| param.keyword_only && param.name == Some(name))
}
