//! From expressions to terms: names are looked up, arities checked, type parameters given their numbers.
//!
//! Recursion follows the expression's nesting, which the parser bounds.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::ExpressionError;
use super::expr::{Expr, ParamExpr, SignatureExpr};
use super::term::{DefId, Interner, ParamId, Parameter, Signature, Term, TypeId};
use super::universe::Def;

/// Most members of one union, as written.
const MAX_UNION: usize = 256;
/// Most parameters of one callable.
const MAX_PARAMETERS: usize = 128;

/// Resolves expressions within one scope of type parameters.
pub(crate) struct Resolver<'a> {
    pub(crate) interner: &'a mut Interner,
    pub(crate) names: &'a HashMap<Arc<str>, DefId>,
    pub(crate) defs: &'a [Def],
    /// Type parameters in scope, innermost last.
    pub(crate) scope: Vec<(String, ParamId)>,
    pub(crate) allow_self: bool,
    pub(crate) max_params: usize,
    /// Types met whose parameters have bounds, to be checked by the caller.
    pub(crate) bounded: Vec<TypeId>,
}

impl Resolver<'_> {
    pub(crate) fn ty(&mut self, expr: &Expr) -> Result<TypeId, ExpressionError> {
        match expr {
            Expr::Name { name, args } => self.name(name, args),
            Expr::Union(members) => {
                limit("members in one union", members.len(), MAX_UNION)?;
                let members = members.iter().map(|member| self.ty(member)).collect::<Result<Vec<_>, _>>()?;
                Ok(self.interner.union(&members))
            }
            Expr::Callable(signature) => {
                let signature = self.signature(signature)?;
                Ok(self.interner.intern(Term::Callable([signature].into())))
            }
        }
    }

    fn name(&mut self, name: &str, args: &[Expr]) -> Result<TypeId, ExpressionError> {
        let arity = |expected: usize| {
            if args.len() == expected {
                Ok(())
            } else {
                Err(ExpressionError::Arity { name: name.to_owned(), expected, found: args.len() })
            }
        };
        if let Some(&(_, param)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            arity(0)?;
            return Ok(self.interner.intern(Term::Param(param)));
        }
        let special = match name {
            "Any" => Some(TypeId::ANY),
            "Never" => Some(TypeId::NEVER),
            "object" => Some(TypeId::OBJECT),
            "Self" if self.allow_self => Some(TypeId::SELF),
            "Self" => return Err(ExpressionError::SelfOutside),
            _ => None,
        };
        if let Some(ty) = special {
            arity(0)?;
            return Ok(ty);
        }
        let Some(&def) = self.names.get(name) else {
            return Err(ExpressionError::UnknownType { name: name.to_owned() });
        };
        let params = &self.defs[def.0 as usize].params;
        arity(params.len())?;
        let args = args.iter().map(|arg| self.ty(arg)).collect::<Result<Vec<_>, _>>()?;
        let ty = self.interner.named(def, &args);
        if params.iter().any(|&param| self.interner.param(param).bound.is_some()) {
            self.bounded.push(ty);
        }
        Ok(ty)
    }

    pub(crate) fn signature(&mut self, signature: &SignatureExpr) -> Result<Signature, ExpressionError> {
        limit("parameters in one signature", signature.params.len(), MAX_PARAMETERS)?;
        let outer = self.scope.len();
        let generics = self.declare(&signature.generics)?;
        let mut params = Vec::with_capacity(signature.params.len());
        for (index, argument) in signature.params.iter().enumerate() {
            if let Some(name) = &argument.name
                && signature.params[..index].iter().any(|earlier| earlier.name.as_ref() == Some(name))
            {
                return Err(ExpressionError::DuplicateParameter { name: name.clone() });
            }
            params.push(Parameter {
                ty: self.ty(&argument.ty)?,
                name: argument.name.as_deref().map(|name| self.interner.symbol(name)),
                keyword_only: argument.keyword_only,
                default: argument.default,
            });
        }
        let rest = signature.rest.as_ref().map(|ty| self.ty(ty)).transpose()?;
        let keywords = signature.keywords.as_ref().map(|ty| self.ty(ty)).transpose()?;
        let returns = self.ty(&signature.returns)?;
        self.scope.truncate(outer);
        Ok(Signature { generics: generics.into(), params: params.into(), rest, keywords, any: signature.any, returns })
    }

    /// Brings type parameters into scope, then resolves their bounds, which may mention each other.
    pub(crate) fn declare(&mut self, params: &[ParamExpr]) -> Result<Vec<ParamId>, ExpressionError> {
        limit("type parameters", params.len(), self.max_params)?;
        let outer = self.scope.len();
        for param in params {
            if self.scope[outer..].iter().any(|(name, _)| *name == param.name) {
                return Err(ExpressionError::DuplicateParameter { name: param.name.clone() });
            }
            let id = self.interner.new_param(&param.name);
            self.scope.push((param.name.clone(), id));
        }
        let ids: Vec<ParamId> = self.scope[outer..].iter().map(|&(_, id)| id).collect();
        for (param, &id) in params.iter().zip(&ids) {
            if let Some(bound) = &param.bound {
                let bound = self.ty(bound)?;
                self.interner.set_bound(id, bound);
            }
        }
        Ok(ids)
    }
}

fn limit(what: &'static str, found: usize, allowed: usize) -> Result<(), ExpressionError> {
    if found > allowed { Err(ExpressionError::TooMany { what, found, allowed }) } else { Ok(()) }
}
