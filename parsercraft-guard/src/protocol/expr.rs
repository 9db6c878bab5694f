//! The text form of types: `list[int] | None`, `(n: int = ...) -> bytes`, `[T](T) -> T`.
//!
//! Parsing is total: any input ends in an expression or a typed error, in time linear in its length, with nesting
//! and size bounded. Nothing here knows which names exist.

use super::error::ExpressionError;

/// Longest accepted expression in bytes.
pub(crate) const MAX_LENGTH: usize = 4096;
/// Deepest accepted nesting of brackets, parentheses and arrows.
pub(crate) const MAX_NESTING: usize = 64;

/// A type as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    Name { name: String, args: Vec<Expr> },
    Union(Vec<Expr>),
    Callable(Box<SignatureExpr>),
}

/// A callable as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignatureExpr {
    pub(crate) generics: Vec<ParamExpr>,
    pub(crate) params: Vec<ArgumentExpr>,
    pub(crate) rest: Option<Expr>,
    pub(crate) keywords: Option<Expr>,
    /// `(...)`: any arguments at all.
    pub(crate) any: bool,
    pub(crate) returns: Expr,
}

/// One parameter of a callable as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArgumentExpr {
    pub(crate) name: Option<String>,
    pub(crate) ty: Expr,
    pub(crate) keyword_only: bool,
    pub(crate) default: bool,
}

/// How a definition's type parameter may vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variance {
    Invariant,
    Covariant,
    Contravariant,
}

impl Variance {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Invariant => "invariant",
            Self::Covariant => "covariant (`out`)",
            Self::Contravariant => "contravariant (`in`)",
        }
    }
}

/// A type parameter as written: `T`, `out T`, `in T: Bound`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParamExpr {
    pub(crate) name: String,
    pub(crate) variance: Variance,
    pub(crate) bound: Option<Expr>,
}

/// Parses a whole type expression.
pub(crate) fn parse_type(text: &str) -> Result<Expr, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.union()?;
    parser.end()?;
    Ok(expr)
}

/// Parses a type parameter of a definition.
pub(crate) fn parse_param(text: &str) -> Result<ParamExpr, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let param = parser.type_param(true)?;
    parser.end()?;
    Ok(param)
}

/// Whether `name` can stand in an expression.
pub(crate) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(starts_name)
        && chars.all(continues_name)
        && name.len() <= 256
        && !matches!(name, "in" | "out")
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_LENGTH {
            return Err(ExpressionError::TooLong { length: text.len(), allowed: MAX_LENGTH });
        }
        Ok(Self { text, at: 0, nesting: 0 })
    }

    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    /// Consumes `token` when it is next.
    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &'static str) -> Result<(), ExpressionError> {
        if self.eat(token) {
            return Ok(());
        }
        Err(self.unexpected(match token {
            "(" => "`(`",
            ")" => "`)` or `,`",
            "]" => "`]` or `,`",
            ":" => "`:` and a type",
            _ => "`...`",
        }))
    }

    fn unexpected(&mut self, expected: &'static str) -> ExpressionError {
        let found = self.rest().chars().next().map_or_else(|| "the end".to_owned(), |c| format!("`{c}`"));
        ExpressionError::Syntax { at: self.at, found, expected }
    }

    fn end(&mut self) -> Result<(), ExpressionError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.unexpected("the end of the type")) }
    }

    /// The name at the cursor, without consuming it.
    fn peek_name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        if !rest.starts_with(starts_name) {
            return None;
        }
        let end = rest.find(|c| !continues_name(c)).unwrap_or(rest.len());
        // `(...)` and `= ...` are tokens of their own; a name never ends in a dot.
        Some(rest[..end].trim_end_matches('.'))
    }

    fn name(&mut self, expected: &'static str) -> Result<&'a str, ExpressionError> {
        let name = self.peek_name().ok_or_else(|| self.unexpected(expected))?;
        self.at += name.len();
        Ok(name)
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, ExpressionError>) -> Result<T, ExpressionError> {
        if self.nesting == MAX_NESTING {
            return Err(ExpressionError::TooDeep { allowed: MAX_NESTING });
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    fn union(&mut self) -> Result<Expr, ExpressionError> {
        self.nested(|parser| {
            let mut members = vec![parser.optional()?];
            while parser.eat("|") {
                members.push(parser.optional()?);
            }
            Ok(if members.len() == 1 { members.remove(0) } else { Expr::Union(members) })
        })
    }

    /// `T?` is `T | None`.
    fn optional(&mut self) -> Result<Expr, ExpressionError> {
        let expr = self.atom()?;
        if self.eat("?") {
            let none = Expr::Name { name: "None".to_owned(), args: Vec::new() };
            return Ok(Expr::Union(vec![expr, none]));
        }
        Ok(expr)
    }

    fn atom(&mut self) -> Result<Expr, ExpressionError> {
        if self.eat("[") {
            let generics = self.list("]", |parser| parser.type_param(false))?;
            self.expect("(")?;
            return self.callable(generics);
        }
        if self.eat("(") {
            return self.callable(Vec::new());
        }
        let name = self.name("a type name, `(` or `[`")?.to_owned();
        let args = if self.eat("[") { self.list("]", Self::union)? } else { Vec::new() };
        Ok(Expr::Name { name, args })
    }

    /// Items separated by commas up to `close`, at least one.
    fn list<T>(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, ExpressionError>,
    ) -> Result<Vec<T>, ExpressionError> {
        let mut items = vec![item(self)?];
        while self.eat(",") {
            items.push(item(self)?);
        }
        self.expect(close)?;
        Ok(items)
    }

    fn type_param(&mut self, variance_allowed: bool) -> Result<ParamExpr, ExpressionError> {
        let mut variance = Variance::Invariant;
        if variance_allowed && let Some(word @ ("in" | "out")) = self.peek_name() {
            variance = if word == "in" { Variance::Contravariant } else { Variance::Covariant };
            self.at += word.len();
        }
        let name = self.name("a type parameter's name")?.to_owned();
        let bound = if self.eat(":") { Some(self.union()?) } else { None };
        Ok(ParamExpr { name, variance, bound })
    }

    /// After `(`: a callable, or a type in parentheses.
    fn callable(&mut self, generics: Vec<ParamExpr>) -> Result<Expr, ExpressionError> {
        let mut signature = SignatureExpr {
            generics,
            params: Vec::new(),
            rest: None,
            keywords: None,
            any: false,
            returns: Expr::Union(Vec::new()),
        };
        if self.eat("...") {
            signature.any = true;
            self.expect(")")?;
        } else if !self.eat(")") {
            self.arguments(&mut signature)?;
        }
        if self.eat("->") {
            signature.returns = self.union()?;
            return Ok(Expr::Callable(Box::new(signature)));
        }
        match signature.params.as_mut_slice() {
            [only]
                if signature.generics.is_empty()
                    && signature.rest.is_none()
                    && signature.keywords.is_none()
                    && only.name.is_none()
                    && !only.default
                    && !only.keyword_only =>
            {
                Ok(signature.params.remove(0).ty)
            }
            _ => Err(self.unexpected("`->` and the return type")),
        }
    }

    fn arguments(&mut self, signature: &mut SignatureExpr) -> Result<(), ExpressionError> {
        let mut keyword_only = false;
        loop {
            if self.eat("**") {
                self.star_name()?;
                signature.keywords = Some(self.union()?);
                return self.expect(")");
            }
            if self.eat("*") {
                if keyword_only {
                    return Err(self.unexpected("a single `*`"));
                }
                keyword_only = true;
                if !self.rest().starts_with(',') {
                    self.star_name()?;
                    signature.rest = Some(self.union()?);
                }
            } else {
                let argument = self.argument(keyword_only)?;
                if keyword_only && argument.name.is_none() {
                    return Err(self.unexpected("a name for a parameter after `*`"));
                }
                let required_after_default =
                    !keyword_only && !argument.default && signature.params.last().is_some_and(|p| p.default);
                if required_after_default {
                    return Err(self.unexpected("a default, as the parameter before it has one"));
                }
                signature.params.push(argument);
            }
            if !self.eat(",") {
                return self.expect(")");
            }
        }
    }

    /// The name of `*args: T` or `**kwargs: T`; it carries no meaning.
    fn star_name(&mut self) -> Result<(), ExpressionError> {
        self.name("a name after `*`")?;
        self.expect(":")
    }

    fn argument(&mut self, keyword_only: bool) -> Result<ArgumentExpr, ExpressionError> {
        let start = self.at;
        let mut name = None;
        if let Some(candidate) = self.peek_name() {
            self.at += candidate.len();
            if self.eat(":") {
                name = Some(candidate.to_owned());
            } else {
                self.at = start;
            }
        }
        let ty = self.union()?;
        let default = self.eat("=");
        if default {
            self.expect("...")?;
        }
        Ok(ArgumentExpr { name, ty, keyword_only, default })
    }
}
