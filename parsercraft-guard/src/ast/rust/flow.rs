//! Control flow of each Rust function: branches, loops, ways out, `McCabe`'s number, statements never reached.
//! Invariant: looks at syntax only, so a diverging call is not known to diverge; macros' insides are not seen.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, Stmt};

use super::summary::implemented;
use crate::ast::operation::FunctionFlow;

pub(super) fn analyse(file: &syn::File) -> Vec<FunctionFlow> {
    let mut analysis = Analysis::default();
    analysis.visit_file(file);
    analysis.functions
}

#[derive(Default)]
struct Analysis {
    functions: Vec<FunctionFlow>,
    /// The modules, types and functions around this place.
    path: Vec<String>,
    /// The functions around this place, by index, and how deep control is nested in each.
    inside: Vec<(usize, u32)>,
}

impl Analysis {
    fn named(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.path.push(name);
        visit(self);
        self.path.pop();
    }

    fn function(&mut self, name: String, line: usize, visit: impl FnOnce(&mut Self)) {
        self.named(name, |this| {
            let line = u32::try_from(line).unwrap_or(u32::MAX);
            let flow = FunctionFlow { name: this.path.join("::"), line, cyclomatic: 1, ..FunctionFlow::default() };
            this.functions.push(flow);
            this.inside.push((this.functions.len() - 1, 0));
            visit(this);
            if let Some((index, _)) = this.inside.pop() {
                // Outer blocks were visited first.
                this.functions[index].unreachable.sort_unstable();
            }
        });
    }

    /// Records in the innermost function; constants outside functions have no flow.
    fn record(&mut self, change: impl FnOnce(&mut FunctionFlow)) {
        if let Some(&(index, _)) = self.inside.last() {
            change(&mut self.functions[index]);
        }
    }

    fn branch(&mut self, ways: usize) {
        let ways = u32::try_from(ways).unwrap_or(u32::MAX);
        self.record(|flow| {
            flow.branches = flow.branches.saturating_add(ways);
            flow.cyclomatic = flow.cyclomatic.saturating_add(ways);
        });
    }

    fn deeper(&mut self, visit: impl FnOnce(&mut Self)) {
        if let Some((index, depth)) = self.inside.last_mut() {
            *depth += 1;
            let flow = &mut self.functions[*index];
            flow.depth = flow.depth.max(*depth);
        }
        visit(self);
        if let Some((_, depth)) = self.inside.last_mut() {
            *depth -= 1;
        }
    }

    fn repeat(&mut self, conditional: bool, visit: impl FnOnce(&mut Self)) {
        self.record(|flow| {
            flow.loops += 1;
            flow.cyclomatic += u32::from(conditional);
        });
        self.deeper(visit);
    }
}

impl<'ast> Visit<'ast> for Analysis {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.named(item.ident.to_string(), |this| visit::visit_item_mod(this, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.named(implemented(item), |this| visit::visit_item_impl(this, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.named(item.ident.to_string(), |this| visit::visit_item_trait(this, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let ident = &item.sig.ident;
        self.function(ident.to_string(), ident.span().start().line, |this| visit::visit_item_fn(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let ident = &item.sig.ident;
        self.function(ident.to_string(), ident.span().start().line, |this| visit::visit_impl_item_fn(this, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if item.default.is_some() {
            let ident = &item.sig.ident;
            self.function(ident.to_string(), ident.span().start().line, |this| visit::visit_trait_item_fn(this, item));
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        // Items after a `return` are declarations, not statements that would run.
        let mut statements = block.stmts.iter().filter(|statement| !matches!(statement, Stmt::Item(_)));
        if statements.any(diverges)
            && let Some(next) = statements.next()
        {
            let line = u32::try_from(next.span().start().line).unwrap_or(u32::MAX);
            self.record(|flow| flow.unreachable.push(line));
        }
        visit::visit_block(self, block);
    }

    fn visit_expr_if(&mut self, first: &'ast syn::ExprIf) {
        // A chain of `else if` is one decision after the other, not one inside the other.
        self.deeper(|this| {
            let mut current = first;
            loop {
                this.branch(1);
                this.visit_expr(&current.cond);
                this.visit_block(&current.then_branch);
                match current.else_branch.as_ref().map(|(_, otherwise)| &**otherwise) {
                    Some(Expr::If(next)) => current = next,
                    Some(last) => {
                        this.visit_expr(last);
                        break;
                    }
                    None => break,
                }
            }
        });
    }

    fn visit_expr_match(&mut self, expression: &'ast syn::ExprMatch) {
        let guards = expression.arms.iter().filter(|arm| arm.guard.is_some()).count();
        self.branch(expression.arms.len().saturating_sub(1) + guards);
        self.deeper(|this| visit::visit_expr_match(this, expression));
    }

    fn visit_expr_binary(&mut self, expression: &'ast syn::ExprBinary) {
        if matches!(expression.op, BinOp::And(_) | BinOp::Or(_)) {
            self.branch(1);
        }
        visit::visit_expr_binary(self, expression);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if local.init.as_ref().is_some_and(|init| init.diverge.is_some()) {
            self.branch(1);
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_while(&mut self, expression: &'ast syn::ExprWhile) {
        self.repeat(true, |this| visit::visit_expr_while(this, expression));
    }

    fn visit_expr_for_loop(&mut self, expression: &'ast syn::ExprForLoop) {
        self.repeat(true, |this| visit::visit_expr_for_loop(this, expression));
    }

    fn visit_expr_loop(&mut self, expression: &'ast syn::ExprLoop) {
        self.repeat(false, |this| visit::visit_expr_loop(this, expression));
    }

    fn visit_expr_return(&mut self, expression: &'ast syn::ExprReturn) {
        self.record(|flow| flow.returns += 1);
        visit::visit_expr_return(self, expression);
    }

    fn visit_expr_try(&mut self, expression: &'ast syn::ExprTry) {
        self.record(|flow| {
            flow.returns += 1;
            flow.cyclomatic += 1;
        });
        visit::visit_expr_try(self, expression);
    }
}

/// Whether nothing after this statement runs, as far as its own syntax says.
fn diverges(statement: &Stmt) -> bool {
    let macro_path = match statement {
        Stmt::Expr(Expr::Return(_) | Expr::Break(_) | Expr::Continue(_), _) => return true,
        Stmt::Expr(Expr::Macro(expression), _) => &expression.mac.path,
        Stmt::Macro(statement) => &statement.mac.path,
        _ => return false,
    };
    ["panic", "unreachable", "todo", "unimplemented"].iter().any(|name| macro_path.is_ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_measured_under_its_path() {
        let source = r#"
mod m {
    struct S;
    impl S {
        fn straight(&self) -> u8 { 1 }
        fn ways(&self, x: Option<u8>) -> Result<u8, ()> {
            let Some(y) = x else { return Err(()) };
            if y > 1 && y < 9 { g()?; } else if y == 9 { h()?; } else { k() }
            for i in 0..y { while i > 2 { loop { if i == 7 { break } } } }
            match y { 0 => Ok(0), n if n > 3 => Ok(n), _ => { fn inner() { return; } Err(()) } }
        }
    }
}
trait T { fn declared(); fn given() { loop { break; } } }
fn dead(x: u8) -> u8 {
    if x == 0 {
        return 1;
        const FINE: u8 = 1;
        print(x);
        print(x);
    }
    panic!("never");
    2
}
"#;
        let file = syn::parse_file(source).unwrap();
        let rendered: Vec<String> = analyse(&file)
            .iter()
            .map(|flow| {
                format!(
                    "{}:{} branches {} loops {} returns {} cyclomatic {} depth {} unreachable {:?}",
                    flow.name,
                    flow.line,
                    flow.branches,
                    flow.loops,
                    flow.returns,
                    flow.cyclomatic,
                    flow.depth,
                    flow.unreachable
                )
            })
            .collect();
        insta::assert_snapshot!(rendered.join("\n"), @r"
        m::S::straight:5 branches 0 loops 0 returns 0 cyclomatic 1 depth 0 unreachable []
        m::S::ways:6 branches 8 loops 3 returns 3 cyclomatic 13 depth 4 unreachable []
        m::S::ways::inner:10 branches 0 loops 0 returns 1 cyclomatic 1 depth 0 unreachable []
        T::given:14 branches 0 loops 1 returns 0 cyclomatic 1 depth 1 unreachable []
        dead:15 branches 1 loops 0 returns 1 cyclomatic 2 depth 1 unreachable [19, 23]
        ");
    }

    #[test]
    fn a_long_chain_of_else_if_is_flat() {
        let chain = format!("fn f(x: u8) {{ {} {{}} }}", "if x == 1 {} else ".repeat(300));
        let flows = analyse(&syn::parse_file(&chain).unwrap());
        assert_eq!((flows[0].branches, flows[0].cyclomatic, flows[0].depth), (300, 301, 1));
    }
}
