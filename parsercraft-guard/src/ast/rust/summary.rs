//! What a Rust source contains. Invariant: counts declarations, never expands macros.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ForeignItem, ImplItem, Item, ItemImpl, TraitItem};

use crate::ast::operation::Summary;

/// How many top-level names are listed.
const MAX_NAMES: usize = 256;

pub(super) fn summarise(source: &str, tokens: TokenStream, file: &syn::File) -> Summary {
    let (tokens, max_nesting) = count_tokens(tokens);
    let mut counter = Counter::default();
    counter.visit_file(file);
    let names = file.items.iter().filter_map(name_of).take(MAX_NAMES).collect();
    Summary {
        bytes: source.len(),
        lines: source.lines().count(),
        tokens,
        max_nesting,
        items: counter.items,
        functions: counter.functions,
        types: counter.types,
        names,
    }
}

/// Tokens, each bracket counted, and the deepest nesting; without recursion.
fn count_tokens(tokens: TokenStream) -> (usize, usize) {
    let mut open = vec![tokens.into_iter()];
    let (mut count, mut deepest) = (0, 0);
    while let Some(level) = open.last_mut() {
        match level.next() {
            Some(TokenTree::Group(group)) => {
                count += 2;
                open.push(group.stream().into_iter());
                deepest = deepest.max(open.len() - 1);
            }
            Some(_) => count += 1,
            None => {
                open.pop();
            }
        }
    }
    (count, deepest)
}

#[derive(Default)]
struct Counter {
    items: usize,
    functions: usize,
    types: usize,
}

impl<'ast> Visit<'ast> for Counter {
    fn visit_item(&mut self, item: &'ast Item) {
        self.items += 1;
        match item {
            Item::Fn(_) => self.functions += 1,
            Item::Struct(_) | Item::Enum(_) | Item::Union(_) | Item::Trait(_) | Item::Type(_) => self.types += 1,
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        self.items += 1;
        if matches!(item, ImplItem::Fn(_)) {
            self.functions += 1;
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        self.items += 1;
        if matches!(item, TraitItem::Fn(function) if function.default.is_some()) {
            self.functions += 1;
        }
        visit::visit_trait_item(self, item);
    }

    fn visit_foreign_item(&mut self, item: &'ast ForeignItem) {
        self.items += 1;
        visit::visit_foreign_item(self, item);
    }
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Impl(item) => return Some(format!("impl {}", implemented(item))),
        _ => return None,
    };
    Some(name.to_string())
}

/// The name of the type an `impl` is for, `_` when it has none of its own.
pub(super) fn implemented(item: &ItemImpl) -> String {
    let mut implemented = &*item.self_ty;
    while let syn::Type::Reference(reference) = implemented {
        implemented = &reference.elem;
    }
    match implemented {
        syn::Type::Path(path) => path.path.segments.last().map_or_else(|| "_".into(), |last| last.ident.to_string()),
        _ => "_".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_what_is_declared() {
        let source = "
mod inner { pub struct A; impl A { fn f(&self) { fn nested() {} } const C: u8 = 1; } }
trait T { fn without(); fn with() {} }
enum E { X((u8, [u8; 2])) }
extern \"C\" { fn foreign(); }
impl<'a> T for &'a E {}
";
        let tokens: TokenStream = source.parse().unwrap();
        let file = syn::parse2(tokens.clone()).unwrap();
        let summary = summarise(source, tokens, &file);
        insta::assert_json_snapshot!(summary, @r#"
        {
          "bytes": 208,
          "lines": 6,
          "tokens": 86,
          "max_nesting": 4,
          "items": 13,
          "functions": 3,
          "types": 3,
          "names": [
            "inner",
            "T",
            "E",
            "impl E"
          ]
        }
        "#);
    }
}
