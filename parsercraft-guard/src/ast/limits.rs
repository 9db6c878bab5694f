//! The first layer: what a source must satisfy before any parser sees it.
//! Invariant: checking takes one pass, time linear in the source and memory linear in the nesting allowed, whatever the input.
//! It judges shape only; whether the source is correct is the parser's business.

use resilience_core::ConfigError;
use serde::{Deserialize, Serialize};

use super::lexis::Lexis;
use super::scan;

/// How large and how deep a source may be. Every value is a maximum that is still accepted.
///
/// ```
/// use parsercraft_guard::ast::{Lexis, LimitExceeded, Limits};
///
/// let limits = Limits { nesting: 3, ..Limits::default() };
/// assert_eq!(limits.check(b"((1))", &Lexis::PLAIN).unwrap(), "((1))");
/// let error = limits.check(b"((((1))))", &Lexis::PLAIN).unwrap_err();
/// assert_eq!(error, LimitExceeded::Nesting { line: 1, column: 4, depth: 4, allowed: 3 });
/// assert_eq!(error.to_string(), "brackets are nested 4 deep at line 1, column 4; allowed: 3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Length of the source in bytes.
    pub bytes: usize,
    /// Length of one line in bytes, its line feed not counted.
    pub line_bytes: usize,
    /// Length of one word (identifier, keyword, number) in bytes: some parsers take quadratic time for a number.
    pub word_bytes: usize,
    /// How deep brackets `( [ {` may be nested.
    pub nesting: usize,
    /// How many tokens the unfinished statements around any point may have, all enclosing levels together.
    ///
    /// This is what bounds recursion that needs no bracket: `-----1`, `&&&&T`, `a = b = c`, `1 + 1 + 1`,
    /// `if … else if …`, `A<A<A<…`.
    pub chain: usize,
}

impl Default for Limits {
    /// 4 MiB, lines of 1 MiB, words of 16 KiB, 256 brackets deep, chains of 16 384 tokens: above what people write, and what the
    /// default stack and memory of [`InProcess`](super::InProcess) and [`WorkerPool`](super::WorkerPool) hold (`syn`
    /// takes about 220 bytes per byte of dense code).
    fn default() -> Self {
        Self { bytes: 4 << 20, line_bytes: 1 << 20, word_bytes: 16 << 10, nesting: 256, chain: 16_384 }
    }
}

impl Limits {
    /// Limits that refuse nothing but sources of 4 GiB and more. Only for parsers behind process isolation.
    pub const NONE: Self = Self {
        bytes: u32::MAX as usize,
        line_bytes: usize::MAX,
        word_bytes: usize::MAX,
        nesting: usize::MAX,
        chain: usize::MAX,
    };

    /// Checks `source` against the limits and returns it as text.
    ///
    /// `lexis` says which bytes are comments and strings, so that brackets inside them do not count.
    ///
    /// # Errors
    /// The first limit that is exceeded, with its value, its place and what is allowed.
    pub fn check<'a>(&self, source: &'a [u8], lexis: &Lexis) -> Result<&'a str, LimitExceeded> {
        if source.len() > self.bytes {
            return Err(LimitExceeded::Bytes { bytes: source.len(), allowed: self.bytes });
        }
        let text = std::str::from_utf8(source).map_err(|error| not_utf8(source, error.valid_up_to()))?;
        self.check_lines(source)?;
        scan::measure(text, lexis, self)?;
        Ok(text)
    }

    /// Refuses values with which nothing could be parsed.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let fields = [
            ("limits.bytes", self.bytes),
            ("limits.line_bytes", self.line_bytes),
            ("limits.word_bytes", self.word_bytes),
            ("limits.nesting", self.nesting),
            ("limits.chain", self.chain),
        ];
        for (field, value) in fields {
            if value == 0 {
                return Err(ConfigError::new(field, value, format!("1 to {}", usize::MAX)));
            }
        }
        if self.bytes > u32::MAX as usize {
            return Err(ConfigError::new("limits.bytes", self.bytes, format!("1 to {}", u32::MAX)));
        }
        Ok(())
    }

    /// Looks at line ends only where a line could have become too long: a source shorter than the limit costs nothing.
    fn check_lines(&self, source: &[u8]) -> Result<(), LimitExceeded> {
        let mut start = 0;
        while source.len() - start > self.line_bytes {
            // A line that fits ends within this window; the last one that does is the farthest safe jump.
            let window = &source[start..=start + self.line_bytes];
            let Some(end) = window.iter().rposition(|&byte| byte == b'\n') else {
                let rest = &source[start..];
                let bytes = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                let line = line_of(source, start);
                return Err(LimitExceeded::LineBytes { line, bytes, allowed: self.line_bytes });
            };
            start += end + 1;
        }
        Ok(())
    }
}

/// A source that was refused before parsing. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LimitExceeded {
    /// The source is too long.
    #[error("source has {bytes} bytes; allowed: {allowed}")]
    Bytes {
        /// Its length.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// The source is not UTF-8.
    #[error("source is not UTF-8: byte 0x{byte:02x} at line {line}, column {column} (offset {offset}); allowed: UTF-8")]
    NotUtf8 {
        /// Where the bytes stop being UTF-8.
        offset: usize,
        /// The line of that place.
        line: usize,
        /// The column of that place.
        column: usize,
        /// The byte found there.
        byte: u8,
    },
    /// A line is too long.
    #[error("line {line} has {bytes} bytes; allowed: {allowed}")]
    LineBytes {
        /// The line.
        line: usize,
        /// Its length.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// A word is too long.
    #[error("the word at line {line}, column {column} has {bytes} bytes; allowed: {allowed}")]
    WordBytes {
        /// Its line.
        line: usize,
        /// Its column.
        column: usize,
        /// Its length.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// Brackets are nested too deep.
    #[error("brackets are nested {depth} deep at line {line}, column {column}; allowed: {allowed}")]
    Nesting {
        /// The line of the first bracket that is too deep.
        line: usize,
        /// Its column.
        column: usize,
        /// Its depth: the first one past the limit, the scan ends there.
        depth: usize,
        /// The limit.
        allowed: usize,
    },
    /// Too many tokens without an end of statement.
    #[error("unfinished statements have {tokens} tokens at line {line}, column {column}; allowed: {allowed}")]
    Chain {
        /// The line of the first token past the limit.
        line: usize,
        /// Its column.
        column: usize,
        /// The count there: the first one past the limit, the scan ends there.
        tokens: usize,
        /// The limit.
        allowed: usize,
    },
}

fn not_utf8(source: &[u8], offset: usize) -> LimitExceeded {
    let (line, column) = place_of(source, offset);
    LimitExceeded::NotUtf8 { offset, line, column, byte: source.get(offset).copied().unwrap_or_default() }
}

fn line_of(source: &[u8], offset: usize) -> usize {
    // As many pieces as line feeds and one more, so at least one.
    source[..offset].split(|&byte| byte == b'\n').count()
}

/// Line and column of `offset`, both from 1; columns count characters, so continuation bytes are skipped.
pub(super) fn place_of(source: &[u8], offset: usize) -> (usize, usize) {
    let start = source[..offset].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let column = 1 + source[start..offset].iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
    (line_of(source, offset), column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_exactly_the_limit_passes_and_one_more_byte_does_not() {
        let limits = Limits { bytes: 5, ..Limits::default() };
        assert_eq!(limits.check(b"abcde", &Lexis::PLAIN), Ok("abcde"));
        assert_eq!(limits.check(b"abcdef", &Lexis::PLAIN), Err(LimitExceeded::Bytes { bytes: 6, allowed: 5 }));
    }

    #[test]
    fn a_long_line_is_found_wherever_it_stands() {
        let limits = Limits { line_bytes: 3, ..Limits::default() };
        for good in ["", "abc", "abc\n", "abc\nabc", "\n\n\nabc\n\n", "a\nb\nc\nabc\nab"] {
            assert!(limits.check(good.as_bytes(), &Lexis::PLAIN).is_ok(), "{good:?}");
        }
        for (bad, line, bytes) in
            [("abcd", 1, 4), ("abc\nabcd\n", 2, 4), ("a\nb\nc\nabcdefg", 4, 7), ("\n\nabcdef\nabc", 3, 6)]
        {
            assert_eq!(
                limits.check(bad.as_bytes(), &Lexis::PLAIN),
                Err(LimitExceeded::LineBytes { line, bytes, allowed: 3 }),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_line_check_agrees_with_splitting_the_lines() {
        proptest::proptest!(|(source in "[ab\n]{0,40}", allowed in 1_usize..8)| {
            let limits = Limits { line_bytes: allowed, ..Limits::default() };
            let first = source.split('\n').enumerate().find(|(_, line)| line.len() > allowed);
            let expected = first.map(|(index, line)| LimitExceeded::LineBytes { line: index + 1, bytes: line.len(), allowed });
            proptest::prop_assert_eq!(limits.check(source.as_bytes(), &Lexis::PLAIN).err(), expected);
        });
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named_with_their_place() {
        let error = Limits::default().check(b"ok\n\xC3\xA9x\xFFy", &Lexis::PLAIN).unwrap_err();
        insta::assert_snapshot!(error, @"source is not UTF-8: byte 0xff at line 2, column 3 (offset 6); allowed: UTF-8");
    }

    #[test]
    fn a_limit_of_zero_is_a_configuration_error() {
        let error = Limits { chain: 0, ..Limits::default() }.validate().unwrap_err();
        insta::assert_snapshot!(error, @"`limits.chain` is 0; allowed: 1 to 18446744073709551615");
    }
}
