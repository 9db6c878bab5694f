//! The nesting pre-scan: how deep a recursive parser would have to go, found without recursion.
//! Invariant: one pass, constant work per byte, memory for at most `nesting` open brackets.
//! It over-counts where it cannot know (`<` as an operator) and stops at the first limit exceeded.

use super::lexis::{Lexis, StringForm};
use super::limits::{LimitExceeded, Limits, place_of};

/// What the scan saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Measured {
    /// The deepest nesting of brackets.
    pub(super) nesting: usize,
    /// The most tokens in unfinished statements, over all enclosing levels.
    pub(super) chain: usize,
}

/// Measures `source`, or fails at the first place that exceeds a limit.
pub(super) fn measure(source: &str, lexis: &Lexis, limits: &Limits) -> Result<Measured, LimitExceeded> {
    let mut scan = Scan {
        bytes: source.as_bytes(),
        at: 0,
        lexis,
        classes: classes(lexis),
        outer: Vec::new(),
        level: Level::default(),
        base: 0,
        limits,
        measured: Measured::default(),
    };
    scan.run()?;
    Ok(scan.measured)
}

/// What a byte may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Word,
    Open,
    Close,
    Brace,
    /// `;`
    End,
    /// `,`
    Comma,
    Angle,
    Unangle,
    Bar,
    Punctuation,
    /// May start a comment or a string: ask the description.
    Special,
}

fn classes(lexis: &Lexis) -> [Class; 256] {
    let mut classes = [Class::Punctuation; 256];
    for (byte, class) in (0_u8..=255).zip(&mut classes) {
        *class = match byte {
            // Control characters too: a parser may skip them.
            0..=b' ' | 0x7F => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | 0x80..=0xFF => Class::Word,
            b'(' | b'[' | b'{' => Class::Open,
            b')' | b']' => Class::Close,
            b'}' => Class::Brace,
            b';' => Class::End,
            b',' => Class::Comma,
            b'<' => Class::Angle,
            b'>' => Class::Unangle,
            b'|' => Class::Bar,
            _ => Class::Punctuation,
        };
    }
    let comments = lexis.line_comments.iter().copied().chain(lexis.block_comment.map(|comment| comment.open));
    let strings = lexis.strings.iter().map(|form| form.delimiter);
    let character = lexis.rust_literals.then_some("'");
    for start in comments.chain(strings).chain(character) {
        if let Some(&byte) = start.as_bytes().first() {
            classes[usize::from(byte)] = Class::Special;
        }
    }
    classes
}

/// The unfinished statement of one bracket level.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    /// Tokens since the statement began.
    chain: usize,
    /// Angle brackets open in it: a comma does not end what they began.
    angles: usize,
    /// Bars in it: a comma between closure parameters ends nothing either.
    bars: usize,
    /// A brace was closed; the next token tells whether the statement went on.
    after_brace: bool,
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    lexis: &'a Lexis,
    classes: [Class; 256],
    outer: Vec<Level>,
    level: Level,
    /// The chains of all outer levels together.
    base: usize,
    limits: &'a Limits,
    measured: Measured,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), LimitExceeded> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match self.classes[usize::from(byte)] {
                Class::Space => self.at += 1,
                Class::Word => self.word()?,
                Class::Open => self.open()?,
                Class::Close => self.close(false),
                Class::Brace => self.close(true),
                Class::End => {
                    self.level = Level::default();
                    self.at += 1;
                }
                Class::Comma => {
                    self.level.chain = self.level.angles + self.level.bars;
                    self.at += 1;
                }
                Class::Angle => {
                    self.level.angles += 1;
                    self.token(1)?;
                }
                Class::Unangle => {
                    // The arrows `->` and `=>` close nothing.
                    if !matches!(self.bytes[..self.at].last(), Some(b'-' | b'=')) {
                        self.level.angles = self.level.angles.saturating_sub(1);
                    }
                    self.token(1)?;
                }
                Class::Bar => {
                    self.level.bars += 1;
                    self.token(1)?;
                }
                Class::Punctuation => {
                    if byte == b'#' && self.level.after_brace {
                        self.level = Level::default();
                    }
                    self.token(1)?;
                }
                Class::Special => self.special(byte)?,
            }
        }
        Ok(())
    }

    /// Counts one token of `length` bytes.
    fn token(&mut self, length: usize) -> Result<(), LimitExceeded> {
        self.level.chain += 1;
        self.level.after_brace = false;
        let tokens = self.base + self.level.chain;
        if tokens > self.measured.chain {
            self.measured.chain = tokens;
            if tokens > self.limits.chain {
                let (line, column) = place_of(self.bytes, self.at);
                return Err(LimitExceeded::Chain { line, column, tokens, allowed: self.limits.chain });
            }
        }
        self.at += length;
        Ok(())
    }

    fn word(&mut self) -> Result<(), LimitExceeded> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| self.classes[usize::from(byte)] != Class::Word).unwrap_or(rest.len());
        let word = &rest[..length];
        if length > self.limits.word_bytes {
            let (line, column) = place_of(self.bytes, self.at);
            return Err(LimitExceeded::WordBytes { line, column, bytes: length, allowed: self.limits.word_bytes });
        }
        if self.level.after_brace && !self.lexis.continuations.iter().any(|one| one.as_bytes() == word) {
            self.level = Level::default();
        }
        if self.lexis.rust_literals
            && matches!(word, b"r" | b"br" | b"cr")
            && let Some(raw) = raw_string(&rest[length..])
        {
            return self.token(length + raw);
        }
        self.token(length)
    }

    fn open(&mut self) -> Result<(), LimitExceeded> {
        let depth = self.outer.len() + 1;
        if depth > self.limits.nesting {
            let (line, column) = place_of(self.bytes, self.at);
            return Err(LimitExceeded::Nesting { line, column, depth, allowed: self.limits.nesting });
        }
        self.measured.nesting = self.measured.nesting.max(depth);
        self.token(1)?;
        self.base += self.level.chain;
        self.outer.push(std::mem::take(&mut self.level));
        Ok(())
    }

    /// A closing bracket without an opening one is left to the parser to complain about.
    fn close(&mut self, brace: bool) {
        if let Some(level) = self.outer.pop() {
            self.level = level;
            self.base -= level.chain;
        }
        self.level.after_brace = brace;
        self.at += 1;
    }

    /// Skips a comment, counts a string as one token, and treats everything else as punctuation.
    fn special(&mut self, byte: u8) -> Result<(), LimitExceeded> {
        let rest = &self.bytes[self.at..];
        if self.lexis.line_comments.iter().any(|start| rest.starts_with(start.as_bytes())) {
            self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            return Ok(());
        }
        if let Some(comment) = self.lexis.block_comment.filter(|comment| rest.starts_with(comment.open.as_bytes())) {
            self.at += block_comment(rest, comment.open.as_bytes(), comment.close.as_bytes(), comment.nested);
            return Ok(());
        }
        if let Some(form) = self.lexis.strings.iter().find(|form| rest.starts_with(form.delimiter.as_bytes())) {
            return self.token(string(rest, form));
        }
        if self.lexis.rust_literals && byte == b'\'' {
            return self.token(character(rest));
        }
        if byte == b'#' && self.level.after_brace {
            self.level = Level::default();
        }
        self.token(1)
    }
}

/// Length of the raw string whose `#…"` starts at `rest`, or `None` when it is no raw string.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut at = hashes + 1;
    while let Some(quote) = rest[at..].iter().position(|&byte| byte == b'"') {
        at += quote + 1;
        let found = rest[at..].iter().take(hashes).take_while(|&&byte| byte == b'#').count();
        if found == hashes {
            return Some(at + hashes);
        }
        // Hashes that are too few hold no quote, so no byte is looked at more than twice.
        at += found;
    }
    Some(rest.len())
}

/// Length of the comment at `rest`; all of it when the comment never ends.
pub(super) fn block_comment(rest: &[u8], open: &[u8], close: &[u8], nested: bool) -> usize {
    let mut depth = 1_usize;
    let mut at = open.len();
    while at < rest.len() {
        if rest[at..].starts_with(close) {
            at += close.len();
            depth -= 1;
            if depth == 0 {
                return at;
            }
        } else if nested && rest[at..].starts_with(open) {
            at += open.len();
            depth += 1;
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string(rest: &[u8], form: &StringForm) -> usize {
    let delimiter = form.delimiter.as_bytes();
    let mut at = delimiter.len();
    while at < rest.len() {
        match rest[at] {
            b'\\' if form.escapes => at += 2,
            b'\n' if !form.multiline => return at,
            _ if rest[at..].starts_with(delimiter) => return at + delimiter.len(),
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of the Rust character literal at `rest`, or 1 for the `'` of a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b'\\') => {
            // The longest escape is `'\u{10FFFF}'`, with underscores a few more; anything longer is no literal.
            let window = &rest[3.min(rest.len())..rest.len().min(32)];
            window.iter().position(|&byte| byte == b'\'').map_or(1, |end| 3 + end + 1)
        }
        Some(&first) => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xE0 => 2,
                0xE0..0xF0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 1 }
        }
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(source: &str) -> Measured {
        measure(source, &Lexis::RUST, &Limits::NONE).unwrap()
    }

    #[test]
    fn brackets_in_strings_comments_and_characters_do_not_count() {
        for source in [
            r#""(((""#,
            r#"b"((\"((""#,
            "// ((((",
            "/* (( /* [[ */ {{ */",
            r#"r"(((""#,
            r###"br##"(( "# (("##"###,
            "'('",
            r"b'\'' '(' '\u{28}' '\\' '['",
            "'a '(' 'static '{' 'é' '('",
        ] {
            assert_eq!(rust(source).nesting, 0, "{source}");
        }
    }

    #[test]
    fn brackets_after_strings_comments_and_lifetimes_do_count() {
        for source in [
            r#""\\" ((1))"#,
            "/* /* */ */ ((1))",
            r##"r#"""# ((1))"##,
            "r#type ((1))",
            "f::<'a>((1))",
            "'\\'' ((1))",
            "for<'a>((1))",
            "// x\n((1))",
        ] {
            assert_eq!(rust(source).nesting, 2, "{source}");
        }
    }

    #[test]
    fn an_unclosed_literal_swallows_the_rest_without_a_panic() {
        for source in ["\"((", "r#\"((\"", "/* ((", "'\\", "'", "\"\\", "b'", "r####"] {
            assert_eq!(rust(source).nesting, 0, "{source}");
        }
    }

    #[test]
    fn statements_end_chains_and_recursion_without_brackets_does_not() {
        let short = [
            "a; ".repeat(500),
            "fn f() {} ".repeat(500),
            "#[x] struct S {} ".repeat(500),
            "1, ".repeat(500),
            "x => {} ".repeat(500),
            "/// text text text\n".repeat(500),
        ];
        for source in short {
            assert!(rust(&source).chain < 20, "{} {source}", rust(&source).chain);
        }
        let long = [
            "-".repeat(500),
            "&mut ".repeat(500),
            "!".repeat(500),
            "return ".repeat(500),
            "if a {} else ".repeat(500),
            "a = ".repeat(500),
            "1 + ".repeat(500),
            ".f()".repeat(500),
            "A<u8, ".repeat(500),
            "|a, b| ".repeat(500),
            "|a, b| 1 > ".repeat(500),
            "fn(a, b) -> ".repeat(500),
            "as T ".repeat(500),
            "{ ---- ".repeat(500),
            "[0]".repeat(500),
        ];
        for source in long {
            assert!(rust(&source).chain >= 500, "{} {source}", rust(&source).chain);
        }
    }

    #[test]
    fn chains_of_enclosing_levels_add_up() {
        // 10 levels of 10 minus signs and a bracket, and the operand.
        let source = format!("{}{}1", "-".repeat(10), format!("({}", "-".repeat(9)).repeat(10));
        assert_eq!(rust(&source), Measured { nesting: 10, chain: 10 + 10 * 10 + 1 });
    }

    #[test]
    fn the_first_place_past_a_limit_is_named() {
        let deep = measure("a\n (((", &Lexis::RUST, &Limits { nesting: 2, ..Limits::NONE }).unwrap_err();
        assert_eq!(deep, LimitExceeded::Nesting { line: 2, column: 4, depth: 3, allowed: 2 });
        let long = measure("é\n - - - -", &Lexis::RUST, &Limits { chain: 3, ..Limits::NONE }).unwrap_err();
        assert_eq!(long, LimitExceeded::Chain { line: 2, column: 6, tokens: 4, allowed: 3 });
        let wide =
            measure("aaa 'b' \"cccc\" 1234", &Lexis::RUST, &Limits { word_bytes: 3, ..Limits::NONE }).unwrap_err();
        assert_eq!(wide, LimitExceeded::WordBytes { line: 1, column: 16, bytes: 4, allowed: 3 });
    }

    #[test]
    fn python_strings_span_lines_only_with_three_quotes() {
        let python = |source| measure(source, &Lexis::PYTHON, &Limits::NONE).unwrap().nesting;
        assert_eq!(python("\"\"\" ((\n(( \" \"\"\" # (("), 0);
        assert_eq!(python("' ((\n((1))"), 2);
    }

    /// Brackets only, counted the obvious way.
    fn naive_nesting(source: &str) -> usize {
        let (mut depth, mut deepest) = (0_usize, 0);
        for c in source.chars() {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    #[test]
    fn plain_nesting_agrees_with_a_naive_count() {
        proptest::proptest!(|(source in "[(){}\\[\\]a;,<>|' \"-]{0,60}")| {
            let measured = measure(&source, &Lexis::PLAIN, &Limits::NONE).unwrap();
            proptest::prop_assert_eq!(measured.nesting, naive_nesting(&source));
        });
    }

    #[test]
    fn any_text_is_scanned_to_its_end_in_every_lexis() {
        proptest::proptest!(|(source in "(?s).{0,80}", quotes in "[r#\"'\\\\bc/*\n(){}]{0,80}")| {
            for lexis in [Lexis::PLAIN, Lexis::RUST, Lexis::C, Lexis::PYTHON] {
                for text in [&source, &quotes] {
                    let measured = measure(text, &lexis, &Limits::NONE).unwrap();
                    proptest::prop_assert!(measured.nesting <= text.len() && measured.chain <= text.len());
                }
            }
        });
    }
}
