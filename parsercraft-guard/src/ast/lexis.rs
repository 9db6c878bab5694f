//! What the pre-scan must know of a language: comments, strings, and which words continue a statement.
//! Invariant: a description only makes the scan count less; [`Lexis::PLAIN`] counts every byte.
//! It is no lexer: it never decides whether a source is valid.

/// How a language writes comments and strings. Build your own from [`Lexis::PLAIN`]:
///
/// ```
/// use parsercraft_guard::ast::{Lexis, StringForm};
///
/// const SHELL: Lexis = Lexis {
///     line_comments: &["#"],
///     strings: &[StringForm::new("\"").multiline(), StringForm::new("'").multiline().raw()],
///     ..Lexis::PLAIN
/// };
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Lexis {
    /// What starts a comment that ends with its line.
    pub line_comments: &'static [&'static str],
    /// The comment with an end of its own.
    pub block_comment: Option<BlockComment>,
    /// The string forms, longer delimiters before their prefixes (`"""` before `"`).
    pub strings: &'static [StringForm],
    /// Whether Rust's literals are used: raw strings `r#"…"#`, and `'` for both characters and lifetimes.
    pub rust_literals: bool,
    /// The words that continue a statement after a closing brace, as `else` does.
    pub continuations: &'static [&'static str],
}

/// A comment with a start and an end.
#[derive(Debug, Clone, Copy)]
pub struct BlockComment {
    /// What starts it.
    pub open: &'static str,
    /// What ends it.
    pub close: &'static str,
    /// Whether comments inside comments are counted.
    pub nested: bool,
}

/// A string that starts and ends with the same delimiter.
#[derive(Debug, Clone, Copy)]
pub struct StringForm {
    pub(super) delimiter: &'static str,
    pub(super) multiline: bool,
    pub(super) escapes: bool,
}

impl StringForm {
    /// A string between two `delimiter`s on one line, with backslash escapes.
    pub const fn new(delimiter: &'static str) -> Self {
        Self { delimiter, multiline: false, escapes: true }
    }

    /// The same, allowed to span lines. Without this a string that is not closed ends with its line.
    #[must_use]
    pub const fn multiline(self) -> Self {
        Self { multiline: true, ..self }
    }

    /// The same without escapes: a backslash is a character like any other.
    #[must_use]
    pub const fn raw(self) -> Self {
        Self { escapes: false, ..self }
    }
}

const SLASHES: Option<BlockComment> = Some(BlockComment { open: "/*", close: "*/", nested: false });

impl Lexis {
    /// Nothing is a comment or a string: every bracket counts. Right for data, and safe for everything.
    pub const PLAIN: Self =
        Self { line_comments: &[], block_comment: None, strings: &[], rust_literals: false, continuations: &[] };

    /// Rust: nested block comments, raw strings, characters and lifetimes.
    pub const RUST: Self = Self {
        line_comments: &["//"],
        block_comment: Some(BlockComment { open: "/*", close: "*/", nested: true }),
        strings: &[StringForm::new("\"").multiline()],
        rust_literals: true,
        continuations: &["else"],
    };

    /// C and languages that look like it.
    pub const C: Self = Self {
        line_comments: &["//"],
        block_comment: SLASHES,
        strings: &[StringForm::new("\""), StringForm::new("'")],
        rust_literals: false,
        continuations: &["else", "while", "catch", "finally"],
    };

    /// Python: triple-quoted strings first.
    pub const PYTHON: Self = Self {
        line_comments: &["#"],
        block_comment: None,
        strings: &[
            StringForm::new("\"\"\"").multiline(),
            StringForm::new("'''").multiline(),
            StringForm::new("\""),
            StringForm::new("'"),
        ],
        rust_literals: false,
        continuations: &[],
    };
}
