//! Rust through `syn`: parsing with a summary, and control-flow analysis.
//! Invariant: accepts exactly what `syn::parse_file` accepts. It does not resolve names, expand macros or check types.

mod flow;
mod summary;

use proc_macro2::{LineColumn, Span, TokenStream};

use super::language::{Cancel, Diagnostic, Language, Refusal};
use super::lexis::Lexis;
use super::operation::{Operation, Output};
use super::scan::block_comment;

/// The language `rust`: [`Operation::Parse`] and [`Operation::ControlFlow`].
///
/// `syn` recurses once per nested expression and never looks at [`Cancel`]: deep input overflows its stack, so run it
/// behind [`Limits`](super::Limits) or in a worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rust;

impl Language for Rust {
    fn name(&self) -> &'static str {
        "rust"
    }

    fn lexis(&self) -> Lexis {
        Lexis::RUST
    }

    fn operations(&self) -> &'static [Operation] {
        &[Operation::Parse, Operation::ControlFlow]
    }

    fn run(&self, operation: Operation, source: &str, _: &Cancel) -> Result<Output, Refusal> {
        let result = parse(source).map(|(tokens, file)| match operation {
            Operation::ControlFlow => Output::ControlFlow(flow::analyse(&file)),
            _ => Output::Summary(summary::summarise(source, tokens, &file)),
        });
        // `proc-macro2` keeps the text of everything parsed on this thread for its spans; none is alive here. Without
        // this a warm worker would grow with each source.
        proc_macro2::extra::invalidate_current_thread_spans();
        result.map_err(Refusal::Syntax)
    }
}

/// The lexer's own message says nothing.
const NO_TOKEN: &str = "no token begins here, or what begins is never closed";

fn parse(source: &str) -> Result<(TokenStream, syn::File), Diagnostic> {
    let code = strip(source);
    let diagnostic = |span: Span, message: String| {
        let LineColumn { line, column } = span.start();
        let place = if at_end(span, &message) { end_of(code) } else { (line, column + 1) };
        Diagnostic::new(place.0, place.1, message)
    };
    let tokens: TokenStream =
        code.parse().map_err(|error: proc_macro2::LexError| diagnostic(error.span(), NO_TOKEN.to_owned()))?;
    let file = syn::parse2(tokens.clone()).map_err(|error| diagnostic(error.span(), error.to_string()))?;
    Ok((tokens, file))
}

/// Errors at the end of input carry the span of nothing, which reads as the beginning.
fn at_end(span: Span, message: &str) -> bool {
    let start = span.start();
    start == span.end() && start.column == 0 && start.line <= 1 && message.starts_with("unexpected end of input")
}

fn end_of(code: &str) -> (usize, usize) {
    let line = code.lines().count().max(1);
    (line, code.lines().next_back().map_or(0, |last| last.chars().count()) + 1)
}

/// Takes a byte order mark and a `#!` line away, as `syn::parse_file` does. The line's end stays, so lines still count.
fn strip(source: &str) -> &str {
    let code = source.strip_prefix('\u{feff}').unwrap_or(source);
    match code.strip_prefix("#!") {
        // `#![…]` is an attribute, also with white space and comments in between.
        Some(rest) if !skip_trivia(rest).starts_with('[') => code.find('\n').map_or("", |end| &code[end..]),
        _ => code,
    }
}

/// `code` from its first token on; documentation is a token.
fn skip_trivia(mut code: &str) -> &str {
    loop {
        code = code.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200e}' | '\u{200f}'));
        let is_doc = (code.starts_with("///") && !code.starts_with("////"))
            || code.starts_with("//!")
            || (code.starts_with("/**") && !code.starts_with("/***") && !code.starts_with("/**/"))
            || code.starts_with("/*!");
        if is_doc {
            return code;
        }
        if code.starts_with("//") {
            code = code.find('\n').map_or("", |end| &code[end..]);
        } else if code.starts_with("/*") {
            code = &code[block_comment(code.as_bytes(), b"/*", b"*/", true)..];
        } else {
            return code;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(operation: Operation, source: &str) -> Result<Output, Refusal> {
        Rust.run(operation, source, &Cancel::new())
    }

    fn error(source: &str) -> String {
        run(Operation::Parse, source).unwrap_err().to_string()
    }

    #[test]
    fn syntax_errors_name_line_and_column() {
        insta::assert_snapshot!(error("fn main() {\n    let é = ;\n}\n"), @"syntax error at line 2, column 13: expected an expression");
        insta::assert_snapshot!(error("fn f() {\n"), @"syntax error at line 1, column 8: no token begins here, or what begins is never closed");
        insta::assert_snapshot!(error("fn"), @"syntax error at line 1, column 3: unexpected end of input, expected identifier");
        insta::assert_snapshot!(error("#!/usr/bin/env rust\nfn f( {}\n"), @"syntax error at line 2, column 5: no token begins here, or what begins is never closed");
        insta::assert_snapshot!(error("struct S;\n\n\"unterminated\n"), @"syntax error at line 3, column 1: no token begins here, or what begins is never closed");
    }

    #[test]
    fn it_accepts_what_syn_accepts() {
        for source in [
            "",
            "\u{feff}fn f() {}",
            "#!/usr/bin/env run\nfn f() {}",
            "#![allow(x)]\nfn f() {}",
            "#! [allow(x)]\nfn f() {}",
            "#!/* c */ [allow(x)]\nfn f() {}",
            "#!/bin/sh",
            "#!// c\n[allow(x)]\nfn f() {}",
            "#!/* [ */ x\nfn f() {}",
            "#!/// d\n[allow(x)]\nfn f() {}",
            "#!/** d */ [allow(x)]\nfn f() {}",
            "#!/**/[allow(x)]\nfn f() {}",
            "#!/* never closed\nfn f() {}",
            "#!",
            "fn f() { let x = ; }",
            "macro_rules! m { () => {} }",
        ] {
            assert_eq!(run(Operation::Parse, source).is_ok(), syn::parse_file(source).is_ok(), "{source:?}");
        }
    }

    #[test]
    fn a_thread_keeps_nothing_of_what_it_parsed() {
        // A span counts bytes over all sources its thread still holds.
        let place = || {
            let tokens: TokenStream = "x".parse().unwrap();
            tokens.into_iter().map(|token| format!("{:?}", token.span())).collect::<Vec<_>>()
        };
        let before = place();
        assert_ne!(before, place(), "spans do not tell how much is held");
        proc_macro2::extra::invalidate_current_thread_spans();
        for source in ["fn f() {}", "fn f( {", "\"unterminated"] {
            let _ = run(Operation::Parse, source);
            assert_eq!(place(), before, "after {source:?}");
            proc_macro2::extra::invalidate_current_thread_spans();
        }
    }
}
