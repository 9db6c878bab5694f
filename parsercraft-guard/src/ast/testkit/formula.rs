//! The language `formula`: small, complete, and offering every operation, so that each has a real backend to be guarded.
//! Invariant: a source that type-checks generates C and WebAssembly that compute the same. The parser recurses freely.
//!
//! ```text
//! fn area(w, h) = w * h * 1.0;                               # (float, float) -> float, inferred
//! fn fact(n) = if n <= 1 then 1 else n * fact(n - 1);        # (int) -> int
//! fn hypot2(a, b) = let s = a * a in s + b * b + area(a, b);
//! ```

mod emit;
mod infer;
mod parse;

use infer::Type;

use crate::ast::operation::{Code, FunctionFlow, Summary, TypedName};
use crate::ast::{Cancel, Diagnostic, Language, Lexis, Operation, Output, Refusal};

/// The language `formula`: functions over integers (64 bit, wrapping), floats (64 bit) and booleans. Types are
/// inferred; `/` is for floats; `let … in`, `if … then … else`, `&&`, `||`, recursion.
#[derive(Debug, Clone, Copy, Default)]
pub struct Formula;

impl Language for Formula {
    fn name(&self) -> &'static str {
        "formula"
    }

    fn lexis(&self) -> Lexis {
        Lexis { line_comments: &["#"], ..Lexis::PLAIN }
    }

    fn operations(&self) -> &'static [Operation] {
        &Operation::ALL
    }

    fn run(&self, operation: Operation, source: &str, _: &Cancel) -> Result<Output, Refusal> {
        let parsed = parse::program(source)?;
        if operation == Operation::Parse {
            return Ok(Output::Summary(summary(source, &parsed)));
        }
        if operation == Operation::ControlFlow {
            return Ok(Output::ControlFlow(parsed.functions.iter().map(flow).collect()));
        }
        let typed = infer::infer(&parsed)?;
        Ok(match operation {
            Operation::GenerateC => Output::Code(Code::Text(emit::c(&parsed, &typed))),
            Operation::GenerateWasm => Output::Code(Code::Text(emit::wasm(&parsed, &typed))),
            _ => Output::Types(parsed.functions.iter().zip(&typed.signatures).map(signature).collect()),
        })
    }
}

/// A whole source.
struct Program {
    functions: Vec<Function>,
    tokens: usize,
    /// How many expressions there are: each has a type slot.
    expressions: usize,
}

struct Function {
    name: String,
    line: usize,
    /// Parameters come first, then every `let`.
    locals: Vec<String>,
    parameters: usize,
    body: Expr,
}

struct Expr {
    /// Its number, under which its type is found.
    id: usize,
    line: usize,
    column: usize,
    kind: Kind,
}

enum Kind {
    Int(i64),
    Float(f64),
    Bool(bool),
    Local(usize),
    Unary(char, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    Let(usize, Box<Expr>, Box<Expr>),
    Call(usize, Vec<Expr>),
}

fn refuse(semantic: bool, line: usize, column: usize, message: impl Into<String>) -> Refusal {
    let diagnostic = Diagnostic::new(line, column, message);
    if semantic { Refusal::Semantic(diagnostic) } else { Refusal::Syntax(diagnostic) }
}

fn summary(source: &str, program: &Program) -> Summary {
    Summary {
        bytes: source.len(),
        lines: source.lines().count(),
        tokens: program.tokens,
        items: program.functions.len(),
        functions: program.functions.len(),
        names: program.functions.iter().map(|function| function.name.clone()).take(256).collect(),
        ..Summary::default()
    }
}

fn signature((function, signature): (&Function, &(Vec<Type>, Type))) -> TypedName {
    let (parameters, result) = signature;
    let parameters: Vec<_> = parameters.iter().map(|one| one.name()).collect();
    TypedName {
        name: function.name.clone(),
        type_name: format!("({}) -> {}", parameters.join(", "), result.name()),
        line: u32::try_from(function.line).unwrap_or(u32::MAX),
    }
}

fn flow(function: &Function) -> FunctionFlow {
    fn visit(expression: &Expr, depth: u32, flow: &mut FunctionFlow) {
        match &expression.kind {
            Kind::If(condition, then, otherwise) => {
                flow.branches += 1;
                flow.depth = flow.depth.max(depth + 1);
                for inner in [condition, then, otherwise] {
                    visit(inner, depth + 1, flow);
                }
            }
            Kind::Binary(operator, left, right) => {
                flow.branches += u32::from(matches!(*operator, "&&" | "||"));
                visit(left, depth, flow);
                visit(right, depth, flow);
            }
            Kind::Let(_, left, right) => {
                visit(left, depth, flow);
                visit(right, depth, flow);
            }
            Kind::Unary(_, inner) => visit(inner, depth, flow),
            Kind::Call(_, arguments) => arguments.iter().for_each(|one| visit(one, depth, flow)),
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) | Kind::Local(_) => {}
        }
    }
    let line = u32::try_from(function.line).unwrap_or(u32::MAX);
    let mut flow = FunctionFlow { name: function.name.clone(), line, ..FunctionFlow::default() };
    visit(&function.body, 0, &mut flow);
    flow.cyclomatic = flow.branches + 1;
    flow
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
fn area(w, h) = w * h * 1.0;   # floats, because of the last factor
fn fact(n) = if n <= 1 then 1 else n * fact(n - 1);
fn both(a, b) = a && !b || a == b;
fn mix(x) = let y = x / 2.0 in let z = -y in if y < z then area(y, z) else y - z;
";

    fn run(operation: Operation, source: &str) -> Result<Output, Refusal> {
        Formula.run(operation, source, &Cancel::new())
    }

    fn code(operation: Operation) -> String {
        match run(operation, SOURCE).unwrap() {
            Output::Code(Code::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn types_are_inferred_from_use() {
        let Output::Types(types) = run(Operation::InferTypes, SOURCE).unwrap() else { panic!("no types") };
        let shown: Vec<_> = types.iter().map(|one| format!("{}: {}", one.name, one.type_name)).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        area: (float, float) -> float
        fact: (int) -> int
        both: (bool, bool) -> bool
        mix: (float) -> float
        ");
    }

    #[test]
    fn errors_name_the_place_and_what_was_expected() {
        let error = |source| run(Operation::InferTypes, source).unwrap_err().to_string();
        insta::assert_snapshot!(error("fn f(x) = x + true;"), @"semantic error at line 1, column 15: expected a number, found bool");
        insta::assert_snapshot!(error("fn f(x) = if x then 1 else 1.0;"), @"semantic error at line 1, column 28: expected int, found float");
        insta::assert_snapshot!(error("fn f(x) =\n  y;"), @"semantic error at line 2, column 3: nothing is called `y` here");
        insta::assert_snapshot!(error("fn f(x) = f();"), @"semantic error at line 1, column 11: `f` takes 1 argument, not 0");
        insta::assert_snapshot!(error("fn f(x) = (x;"), @"syntax error at line 1, column 13: expected `)`, found `;`");
        insta::assert_snapshot!(error("fn f(x) = 99999999999999999999;"), @"syntax error at line 1, column 11: `99999999999999999999` does not fit 64 bits");
        insta::assert_snapshot!(error("fn f() = 1; fn f() = 2;"), @"semantic error at line 1, column 16: `f` is defined twice");
        insta::assert_snapshot!(error("fn f(a, a) = 1"), @"semantic error at line 1, column 9: `a` is defined twice");
    }

    #[test]
    fn control_flow_counts_decisions() {
        let Output::ControlFlow(flows) = run(Operation::ControlFlow, SOURCE).unwrap() else { panic!("no flow") };
        let shown: Vec<_> =
            flows.iter().map(|one| (one.name.as_str(), one.branches, one.cyclomatic, one.depth)).collect();
        assert_eq!(shown, [("area", 0, 1, 0), ("fact", 1, 2, 1), ("both", 2, 3, 0), ("mix", 1, 2, 1)]);
    }

    #[test]
    fn the_generated_webassembly_is_as_reviewed() {
        insta::assert_snapshot!(code(Operation::GenerateWasm), @r#"
        (module
          (func $area (export "area") (param f64) (param f64) (result f64)
            (f64.mul (f64.mul (local.get 0) (local.get 1)) (f64.const 1.0)))
          (func $fact (export "fact") (param i64) (result i64)
            (if (result i64) (i64.le_s (local.get 0) (i64.const 1)) (then (i64.const 1)) (else (i64.mul (local.get 0) (call $fact (i64.sub (local.get 0) (i64.const 1)))))))
          (func $both (export "both") (param i32) (param i32) (result i32)
            (if (result i32) (if (result i32) (local.get 0) (then (i32.eqz (local.get 1))) (else (i32.const 0))) (then (i32.const 1)) (else (i32.eq (local.get 0) (local.get 1)))))
          (func $mix (export "mix") (param f64) (result f64) (local f64) (local f64)
            (block (result f64) (local.set 1 (f64.div (local.get 0) (f64.const 2.0))) (block (result f64) (local.set 2 (f64.neg (local.get 1))) (if (result f64) (f64.lt (local.get 1) (local.get 2)) (then (call $area (local.get 1) (local.get 2))) (else (f64.sub (local.get 1) (local.get 2)))))))
        )
        "#);
    }

    #[test]
    fn the_generated_c_compiles_without_warnings_and_computes_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("formula.c"), folder.path().join("formula"));
        let main = "
#include <stdio.h>
int main(void) {
    printf(\"%g %lld %d%d%d%d %g %g\\n\", formula_area(2.5, 4), (long long)formula_fact(20),
        formula_both(0, 0), formula_both(0, 1), formula_both(1, 0), formula_both(1, 1), formula_mix(3), formula_mix(-3));
    return formula_fact(21) != (int64_t)(UINT64_C(2432902008176640000) * 21);
}
";
        std::fs::write(&source, code(Operation::GenerateC) + main).unwrap();
        // The linker of every Rust installation on Unix is a C compiler.
        let compiled = std::process::Command::new("cc")
            .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover", "-o"])
            .args([&program, &source])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let ran = std::process::Command::new(&program).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        insta::assert_snapshot!(String::from_utf8_lossy(&ran.stdout), @"10 2432902008176640000 1011 3 -2.25");
    }
}
