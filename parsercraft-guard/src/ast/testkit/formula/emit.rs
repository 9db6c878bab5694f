//! C99 and WebAssembly text from a typed program. Invariant: both wrap integers, so both compute the same.

use std::fmt::Write;

use super::infer::{Type, Typed};
use super::{Expr, Function, Kind, Program};

/// C: `int64_t`, `double` and `int`; each function as `formula_<name>`.
pub(super) fn c(program: &Program, typed: &Typed) -> String {
    let mut out = String::from("#include <stdint.h>\n\n");
    let each = || program.functions.iter().zip(&typed.signatures).zip(&typed.locals);
    let head = |function: &Function, (parameters, result): &(Vec<Type>, Type)| {
        let parameters: Vec<_> =
            (0..).zip(parameters).map(|(n, one): (usize, _)| format!("{} v{n}", c_type(*one))).collect();
        let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
        format!("{} formula_{}({parameters})", c_type(*result), function.name)
    };
    // Writing to a string cannot fail.
    for ((function, signature), _) in each() {
        let _ = writeln!(out, "{};", head(function, signature));
    }
    for ((function, signature), locals) in each() {
        let _ = writeln!(out, "\n{} {{", head(function, signature));
        for (number, local) in locals.iter().enumerate().skip(function.parameters) {
            let _ = writeln!(out, "    {} v{number};", c_type(*local));
        }
        // An unused parameter is no mistake here.
        for number in 0..function.parameters {
            let _ = writeln!(out, "    (void)v{number};");
        }
        out.push_str("    return ");
        c_expression(&function.body, program, typed, &mut out);
        out.push_str(";\n}\n");
    }
    out
}

const fn c_type(one: Type) -> &'static str {
    match one {
        Type::Int => "int64_t",
        Type::Float => "double",
        Type::Bool => "int",
    }
}

fn c_expression(expression: &Expr, program: &Program, typed: &Typed, out: &mut String) {
    let is_int = |one: &Expr| typed.expressions[one.id] == Type::Int;
    let mut nested = |parts: &[Part<'_>]| {
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Inner(inner) => c_expression(inner, program, typed, out),
            }
        }
    };
    match &expression.kind {
        Kind::Int(value) => nested(&[Part::Text(&format!("INT64_C({value})"))]),
        Kind::Float(value) => nested(&[Part::Text(&format!("{value:?}"))]),
        Kind::Bool(value) => nested(&[Part::Text(if *value { "1" } else { "0" })]),
        Kind::Local(local) => nested(&[Part::Text(&format!("v{local}"))]),
        Kind::Unary('-', inner) if is_int(inner) => {
            nested(&[Part::Text("(int64_t)(0 - (uint64_t)"), Part::Inner(inner), Part::Text(")")]);
        }
        Kind::Unary(operator, inner) => {
            nested(&[Part::Text(&format!("({operator} ")), Part::Inner(inner), Part::Text(")")]);
        }
        // Signed overflow is undefined in C; unsigned wraps.
        Kind::Binary(operator @ ("+" | "-" | "*"), left, right) if is_int(left) => nested(&[
            Part::Text("(int64_t)((uint64_t)"),
            Part::Inner(left),
            Part::Text(&format!(" {operator} (uint64_t)")),
            Part::Inner(right),
            Part::Text(")"),
        ]),
        Kind::Binary(operator, left, right) => nested(&[
            Part::Text("("),
            Part::Inner(left),
            Part::Text(&format!(" {operator} ")),
            Part::Inner(right),
            Part::Text(")"),
        ]),
        Kind::If(condition, then, otherwise) => nested(&[
            Part::Text("("),
            Part::Inner(condition),
            Part::Text(" ? "),
            Part::Inner(then),
            Part::Text(" : "),
            Part::Inner(otherwise),
            Part::Text(")"),
        ]),
        Kind::Let(local, value, body) => nested(&[
            Part::Text(&format!("(v{local} = ")),
            Part::Inner(value),
            Part::Text(", "),
            Part::Inner(body),
            Part::Text(")"),
        ]),
        Kind::Call(callee, arguments) => {
            let mut parts = vec![Part::Text("("), Part::Text("formula_"), Part::Text(&program.functions[*callee].name)];
            for (index, argument) in arguments.iter().enumerate() {
                parts.extend([Part::Text(if index == 0 { "(" } else { ", " }), Part::Inner(argument)]);
            }
            parts.push(Part::Text(if arguments.is_empty() { "())" } else { "))" }));
            nested(&parts);
        }
    }
}

enum Part<'a> {
    Text(&'a str),
    Inner(&'a Expr),
}

/// WebAssembly text: `i64`, `f64` and `i32`; each function exported under its name.
pub(super) fn wasm(program: &Program, typed: &Typed) -> String {
    let mut out = String::from("(module\n");
    for ((function, (parameters, result)), locals) in program.functions.iter().zip(&typed.signatures).zip(&typed.locals)
    {
        // Writing to a string cannot fail.
        let _ = write!(out, "  (func ${0} (export \"{0}\")", function.name);
        for parameter in parameters {
            let _ = write!(out, " (param {})", wasm_type(*parameter));
        }
        let _ = write!(out, " (result {})", wasm_type(*result));
        for local in &locals[function.parameters..] {
            let _ = write!(out, " (local {})", wasm_type(*local));
        }
        out.push_str("\n    ");
        wasm_expression(&function.body, program, typed, &mut out);
        out.push_str(")\n");
    }
    out.push_str(")\n");
    out
}

const fn wasm_type(one: Type) -> &'static str {
    match one {
        Type::Int => "i64",
        Type::Float => "f64",
        Type::Bool => "i32",
    }
}

fn wasm_expression(expression: &Expr, program: &Program, typed: &Typed, out: &mut String) {
    let of = |one: &Expr| typed.expressions[one.id];
    let result = wasm_type(of(expression));
    let (before, inner): (String, Vec<(&Expr, &str)>) = match &expression.kind {
        Kind::Int(value) => (format!("(i64.const {value}"), vec![]),
        Kind::Float(value) => (format!("(f64.const {value:?}"), vec![]),
        Kind::Bool(value) => (format!("(i32.const {}", u8::from(*value)), vec![]),
        Kind::Local(local) => (format!("(local.get {local}"), vec![]),
        Kind::Unary('!', inner) => ("(i32.eqz ".into(), vec![(&**inner, "")]),
        Kind::Unary(_, inner) if of(inner) == Type::Float => ("(f64.neg ".into(), vec![(&**inner, "")]),
        Kind::Unary(_, inner) => ("(i64.sub (i64.const 0) ".into(), vec![(&**inner, "")]),
        Kind::Binary("&&", left, right) => {
            ("(if (result i32) ".into(), vec![(&**left, " (then "), (&**right, ") (else (i32.const 0))")])
        }
        Kind::Binary("||", left, right) => {
            ("(if (result i32) ".into(), vec![(&**left, " (then (i32.const 1)) (else "), (&**right, ")")])
        }
        Kind::Binary(operator, left, right) => (
            format!("({}.{} ", wasm_type(of(left)), wasm_operator(operator, of(left))),
            vec![(&**left, " "), (&**right, "")],
        ),
        Kind::If(condition, then, otherwise) => (
            format!("(if (result {result}) "),
            vec![(&**condition, " (then "), (&**then, ") (else "), (&**otherwise, ")")],
        ),
        Kind::Let(local, value, body) => {
            (format!("(block (result {result}) (local.set {local} "), vec![(&**value, ") "), (&**body, "")])
        }
        Kind::Call(callee, arguments) => (
            format!("(call ${}", program.functions[*callee].name),
            arguments.iter().map(|argument| (argument, "")).collect(),
        ),
    };
    out.push_str(&before);
    let is_call = matches!(expression.kind, Kind::Call(..));
    for (one, after) in inner {
        if is_call {
            out.push(' ');
        }
        wasm_expression(one, program, typed, out);
        out.push_str(after);
    }
    out.push(')');
}

fn wasm_operator(operator: &str, operands: Type) -> &'static str {
    // Floats have no sign suffix.
    match (operator, operands) {
        ("+", _) => "add",
        ("-", _) => "sub",
        ("*", _) => "mul",
        ("/", _) => "div",
        ("==", _) => "eq",
        ("!=", _) => "ne",
        ("<", Type::Float) => "lt",
        ("<", _) => "lt_s",
        ("<=", Type::Float) => "le",
        ("<=", _) => "le_s",
        (">", Type::Float) => "gt",
        (">", _) => "gt_s",
        (_, Type::Float) => "ge",
        (_, _) => "ge_s",
    }
}
