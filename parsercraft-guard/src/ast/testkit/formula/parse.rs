//! From text to tree, by recursive descent. Names are resolved on the way; types are not looked at.

use super::{Expr, Function, Kind, Program, refuse};
use crate::ast::Refusal;

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    line: usize,
    column: usize,
}

const SYMBOLS: [&str; 19] =
    ["<=", ">=", "==", "!=", "&&", "||", "<", ">", "+", "-", "*", "/", "!", "=", "(", ")", ",", ";", "."];

fn tokens(source: &str) -> Result<Vec<Token<'_>>, Refusal> {
    let mut tokens = Vec::new();
    for (index, line) in source.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        let mut rest = code;
        loop {
            rest = rest.trim_start();
            let Some(first) = rest.chars().next() else { break };
            let column = code[..code.len() - rest.len()].chars().count() + 1;
            let length = if first.is_ascii_digit() {
                number(rest)
            } else if first.is_ascii_alphabetic() || first == '_' {
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                symbol.len()
            } else {
                return Err(refuse(false, index + 1, column, format!("`{}` begins nothing", first.escape_default())));
            };
            tokens.push(Token { text: &rest[..length], line: index + 1, column });
            rest = &rest[length..];
        }
    }
    Ok(tokens)
}

/// Length of the number at `rest`: digits, and digits after a point.
fn number(rest: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let whole = digits(rest);
    match rest[whole..].strip_prefix('.') {
        Some(fraction) if digits(fraction) > 0 => whole + 1 + digits(fraction),
        _ => whole,
    }
}

pub(super) fn program(source: &str) -> Result<Program, Refusal> {
    let tokens = tokens(source)?;
    let end = (source.lines().count().max(1), source.lines().next_back().map_or(0, |line| line.chars().count()) + 1);
    let count = tokens.len();
    let mut parser =
        Parser { tokens, at: 0, end, functions: Vec::new(), expressions: 0, locals: Vec::new(), scope: Vec::new() };
    let mut functions = Vec::new();
    while parser.at < count {
        functions.push(parser.function()?);
    }
    Ok(Program { functions, tokens: count, expressions: parser.expressions })
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    end: (usize, usize),
    /// Names and numbers of parameters, so far.
    functions: Vec<(&'a str, usize)>,
    expressions: usize,
    locals: Vec<String>,
    /// The locals that can be seen, innermost last.
    scope: Vec<(&'a str, usize)>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        let (line, column) = self.end;
        self.tokens.get(self.at).copied().unwrap_or(Token { text: "", line, column })
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.peek().text == text;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<(), Refusal> {
        if self.accept(text) { Ok(()) } else { Err(self.unexpected(&format!("`{text}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> Refusal {
        let Token { text, line, column } = self.peek();
        let found = if text.is_empty() { "the end".to_owned() } else { format!("`{text}`") };
        refuse(false, line, column, format!("expected {wanted}, found {found}"))
    }

    fn name(&mut self) -> Result<Token<'a>, Refusal> {
        let token = self.peek();
        let is_name = token.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !is_name || ["fn", "let", "in", "if", "then", "else", "true", "false"].contains(&token.text) {
            return Err(self.unexpected("a name"));
        }
        Ok(self.next())
    }

    fn function(&mut self) -> Result<Function, Refusal> {
        self.expect("fn")?;
        let name = self.name()?;
        if self.functions.iter().any(|(known, _)| *known == name.text) {
            return Err(refuse(true, name.line, name.column, format!("`{}` is defined twice", name.text)));
        }
        self.locals.clear();
        self.scope.clear();
        self.expect("(")?;
        while !self.accept(")") {
            if !self.scope.is_empty() {
                self.expect(",")?;
            }
            let parameter = self.name()?;
            if self.scope.iter().any(|(known, _)| *known == parameter.text) {
                let Token { text, line, column } = parameter;
                return Err(refuse(true, line, column, format!("`{text}` is defined twice")));
            }
            self.local(parameter.text);
        }
        let parameters = self.scope.len();
        self.functions.push((name.text, parameters));
        self.expect("=")?;
        let body = self.expression()?;
        self.expect(";")?;
        Ok(Function {
            name: name.text.to_owned(),
            line: name.line,
            locals: std::mem::take(&mut self.locals),
            parameters,
            body,
        })
    }

    fn local(&mut self, name: &'a str) -> usize {
        self.locals.push(name.to_owned());
        self.scope.push((name, self.locals.len() - 1));
        self.locals.len() - 1
    }

    fn node(&mut self, at: Token<'_>, kind: Kind) -> Expr {
        self.expressions += 1;
        Expr { id: self.expressions - 1, line: at.line, column: at.column, kind }
    }

    fn expression(&mut self) -> Result<Expr, Refusal> {
        let at = self.peek();
        if self.accept("let") {
            let name = self.name()?;
            self.expect("=")?;
            let value = Box::new(self.expression()?);
            self.expect("in")?;
            let local = self.local(name.text);
            let body = Box::new(self.expression()?);
            self.scope.pop();
            return Ok(self.node(at, Kind::Let(local, value, body)));
        }
        if self.accept("if") {
            let condition = Box::new(self.expression()?);
            self.expect("then")?;
            let then = Box::new(self.expression()?);
            self.expect("else")?;
            let otherwise = Box::new(self.expression()?);
            return Ok(self.node(at, Kind::If(condition, then, otherwise)));
        }
        self.binary(0)
    }

    /// Operators by level, loosest first; all group to the left.
    fn binary(&mut self, level: usize) -> Result<Expr, Refusal> {
        const LEVELS: [&[&str]; 5] = [&["||"], &["&&"], &["<", "<=", ">", ">=", "==", "!="], &["+", "-"], &["*", "/"]];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.peek().text == **operator) {
            let at = self.next();
            let right = self.binary(level + 1)?;
            left = self.node(at, Kind::Binary(operator, Box::new(left), Box::new(right)));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Refusal> {
        let at = self.peek();
        for operator in ['-', '!'] {
            if self.accept(operator.encode_utf8(&mut [0; 4])) {
                let inner = Box::new(self.unary()?);
                return Ok(self.node(at, Kind::Unary(operator, inner)));
            }
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr, Refusal> {
        let at = self.peek();
        if self.accept("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if at.text.starts_with(|c: char| c.is_ascii_digit()) {
            self.next();
            let kind = if at.text.contains('.') {
                at.text.parse().ok().map(Kind::Float)
            } else {
                at.text.parse().ok().map(Kind::Int)
            };
            let kind =
                kind.ok_or_else(|| refuse(false, at.line, at.column, format!("`{}` does not fit 64 bits", at.text)))?;
            return Ok(self.node(at, kind));
        }
        for (text, value) in [("true", true), ("false", false)] {
            if self.accept(text) {
                return Ok(self.node(at, Kind::Bool(value)));
            }
        }
        if self.name().is_err() {
            return Err(self.unexpected("an expression"));
        }
        if self.accept("(") { self.call(at) } else { self.variable(at) }
    }

    fn variable(&mut self, name: Token<'a>) -> Result<Expr, Refusal> {
        match self.scope.iter().rev().find(|(known, _)| *known == name.text) {
            Some(&(_, local)) => Ok(self.node(name, Kind::Local(local))),
            None => Err(refuse(true, name.line, name.column, format!("nothing is called `{}` here", name.text))),
        }
    }

    fn call(&mut self, name: Token<'a>) -> Result<Expr, Refusal> {
        let Some(callee) = self.functions.iter().position(|(known, _)| *known == name.text) else {
            return Err(refuse(true, name.line, name.column, format!("no function is called `{}` here", name.text)));
        };
        let mut arguments = Vec::new();
        while !self.accept(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            arguments.push(self.expression()?);
        }
        let takes = self.functions[callee].1;
        if arguments.len() != takes {
            let plural = if takes == 1 { "argument" } else { "arguments" };
            let message = format!("`{}` takes {takes} {plural}, not {}", name.text, arguments.len());
            return Err(refuse(true, name.line, name.column, message));
        }
        Ok(self.node(name, Kind::Call(callee, arguments)))
    }
}
