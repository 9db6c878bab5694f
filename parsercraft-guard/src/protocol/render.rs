//! Types as text, in the syntax they are written in.
//!
//! The work and the length of the result are bounded whatever the size of the type.

use super::term::{Interner, ParamId, Signature, Term, TypeId};
use super::universe::Universe;

/// Longest rendering of one type in bytes; longer ones end in `…`.
const LONGEST_TYPE: usize = 200;
/// Deepest nesting that is rendered.
const DEEPEST_TYPE: usize = 8;

/// A type as text; [`Renderer`] bounds the work, whatever the type's size.
pub(crate) fn render(interner: &Interner, universe: &Universe, ty: TypeId) -> String {
    let mut renderer = Renderer { interner, universe, out: String::new() };
    renderer.ty(ty, 0);
    let mut out = renderer.out;
    if out.len() > LONGEST_TYPE {
        let end = (0..=LONGEST_TYPE).rev().find(|&at| out.is_char_boundary(at)).unwrap_or(0);
        out.truncate(end);
        out.push('…');
    }
    out
}

struct Renderer<'a> {
    interner: &'a Interner,
    universe: &'a Universe,
    out: String,
}

impl Renderer<'_> {
    fn ty(&mut self, ty: TypeId, depth: usize) {
        if self.out.len() > LONGEST_TYPE || depth > DEEPEST_TYPE {
            self.out.push('…');
            return;
        }
        match self.interner.term(ty) {
            Term::Any => self.out.push_str("Any"),
            Term::Never => self.out.push_str("Never"),
            Term::Object => self.out.push_str("object"),
            Term::SelfType => self.out.push_str("Self"),
            Term::Param(param) => self.param(*param),
            Term::Named(def, args) => {
                self.out.push_str(&self.universe.defs[def.0 as usize].name);
                if !args.is_empty() {
                    self.out.push('[');
                    self.list(args, ", ", depth);
                    self.out.push(']');
                }
            }
            Term::Union(members) => {
                // `None` reads best at the end.
                let none = self.universe.none;
                let mut members: Vec<TypeId> = members.to_vec();
                members.sort_by_key(|&member| member == none);
                self.list(&members, " | ", depth);
            }
            Term::Callable(signatures) => {
                for (index, signature) in signatures.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(" & ");
                    }
                    if self.out.len() > LONGEST_TYPE {
                        return;
                    }
                    self.signature(signature, depth);
                }
            }
        }
    }

    fn list(&mut self, types: &[TypeId], separator: &str, depth: usize) {
        for (index, &ty) in types.iter().enumerate() {
            if index > 0 {
                self.out.push_str(separator);
            }
            let callable_in_union = separator == " | " && matches!(self.interner.term(ty), Term::Callable(_));
            if callable_in_union {
                self.out.push('(');
            }
            self.ty(ty, depth + 1);
            if callable_in_union {
                self.out.push(')');
            }
            if self.out.len() > LONGEST_TYPE {
                return;
            }
        }
    }

    fn param(&mut self, param: ParamId) {
        let name = self.interner.param(param).name;
        self.out.push_str(self.interner.name(name));
    }

    fn signature(&mut self, signature: &Signature, depth: usize) {
        if !signature.generics.is_empty() {
            self.out.push('[');
            for (index, &param) in signature.generics.iter().enumerate() {
                if index > 0 {
                    self.out.push_str(", ");
                }
                self.param(param);
            }
            self.out.push(']');
        }
        self.out.push('(');
        let mut separator = "";
        let mut star = false;
        if signature.any {
            self.out.push_str("...");
        }
        for param in signature.params.iter() {
            if param.keyword_only && !star {
                star = true;
                self.rest(signature.rest, &mut separator, depth);
            }
            self.out.push_str(separator);
            separator = ", ";
            if let Some(name) = param.name {
                self.out.push_str(self.interner.name(name));
                self.out.push_str(": ");
            }
            self.ty(param.ty, depth + 1);
            if param.default {
                self.out.push_str(" = ...");
            }
            if self.out.len() > LONGEST_TYPE {
                return;
            }
        }
        if !star && signature.rest.is_some() {
            self.rest(signature.rest, &mut separator, depth);
        }
        if let Some(keywords) = signature.keywords {
            self.out.push_str(separator);
            self.out.push_str("**kwargs: ");
            self.ty(keywords, depth + 1);
        }
        self.out.push_str(") -> ");
        self.ty(signature.returns, depth + 1);
    }

    fn rest(&mut self, rest: Option<TypeId>, separator: &mut &str, depth: usize) {
        self.out.push_str(separator);
        *separator = ", ";
        match rest {
            Some(rest) => {
                self.out.push_str("*args: ");
                self.ty(rest, depth + 1);
            }
            None => self.out.push('*'),
        }
    }
}
