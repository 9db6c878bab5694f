//! The one trait a parser implements to be guarded, and the table of languages known by name.
//! Invariant: host and worker hold the same table, so a name means the same on both sides of the pipe.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::lexis::Lexis;
use super::operation::{Operation, Output};

/// A parser, or a whole compiler front end, behind one name.
///
/// An implementation may panic, overflow its stack, loop or eat memory: containing that is the guard's work. It
/// should not start threads that outlive the call, and it need not look at [`Cancel`] unless it can.
///
/// ```
/// use parsercraft_guard::ast::{Cancel, Diagnostic, Language, Languages, Lexis, Operation, Output, Refusal, Summary};
///
/// /// Lines of `key = value`.
/// struct Properties;
///
/// impl Language for Properties {
///     fn name(&self) -> &str {
///         "properties"
///     }
///     fn lexis(&self) -> Lexis {
///         Lexis { line_comments: &["#"], ..Lexis::PLAIN }
///     }
///     fn operations(&self) -> &[Operation] {
///         &[Operation::Parse]
///     }
///     fn run(&self, _: Operation, source: &str, _: &Cancel) -> Result<Output, Refusal> {
///         for (index, line) in source.lines().enumerate() {
///             if !line.is_empty() && !line.starts_with('#') && !line.contains('=') {
///                 return Err(Refusal::Syntax(Diagnostic::new(index + 1, 1, "expected `key = value`")));
///             }
///         }
///         Ok(Output::Summary(Summary { lines: source.lines().count(), ..Summary::default() }))
///     }
/// }
///
/// let languages = Languages::builtin().with(Properties);
/// assert!(languages.names().any(|name| name == "properties"));
/// ```
pub trait Language: Send + Sync + 'static {
    /// The name callers use: lower case, stable.
    fn name(&self) -> &str;

    /// How comments and strings are written, for the scan before parsing.
    fn lexis(&self) -> Lexis;

    /// The operations [`run`](Self::run) can do. Others are never passed to it.
    fn operations(&self) -> &[Operation];

    /// Does `operation` with `source`, which has passed the limits.
    ///
    /// # Errors
    /// [`Refusal`] when the source is not valid: the caller's fault. Everything else that goes wrong may panic.
    fn run(&self, operation: Operation, source: &str, cancel: &Cancel) -> Result<Output, Refusal>;
}

/// Why a language refuses a source: the source's fault, never counted against the parser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not parse.
    #[error("syntax error at {0}")]
    Syntax(Diagnostic),
    /// It parses but means nothing: unknown names, types that do not fit.
    #[error("semantic error at {0}")]
    Semantic(Diagnostic),
    /// The work was given up because [`Cancel`] said so.
    #[error("cancelled")]
    Cancelled,
}

/// A place in the source and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("line {line}, column {column}: {message}")]
#[non_exhaustive]
pub struct Diagnostic {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, at most [`Diagnostic::MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Diagnostic {
    /// Longer messages are cut: some parsers quote their whole input.
    pub const MAX_MESSAGE: usize = 512;

    /// Something wrong at `line` and `column`, both from 1.
    pub fn new(line: usize, column: usize, message: impl Into<String>) -> Self {
        Self { line, column, message: cut(message.into(), Self::MAX_MESSAGE) }
    }
}

/// Cuts `text` to at most `max` bytes, between characters.
pub(super) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Tells a cooperative parser when to give up: its caller is gone or its time is over.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Cancel {
    /// Never cancels by itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels at `deadline`.
    pub fn at(deadline: Instant) -> Self {
        Self { flag: Arc::default(), deadline: Some(deadline) }
    }

    /// Cancels now, for all clones.
    pub fn cancel(&self) {
        // A flag alone: nothing is published with it.
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether to give up. Costs a clock reading (about 30 ns) when there is a deadline.
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The languages known by name.
#[derive(Clone, Default)]
pub struct Languages(Arc<BTreeMap<String, Arc<dyn Language>>>);

impl Languages {
    /// No language.
    pub fn none() -> Self {
        Self::default()
    }

    /// The languages this crate brings: `rust` with the feature `syn`.
    pub fn builtin() -> Self {
        let languages = Self::none();
        #[cfg(feature = "syn")]
        let languages = languages.with(super::Rust);
        languages
    }

    /// The same with one more; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, language: impl Language) -> Self {
        Arc::make_mut(&mut self.0).insert(language.name().to_owned(), Arc::new(language));
        self
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The language called `name`.
    pub fn get(&self, name: &str) -> Option<&dyn Language> {
        self.0.get(name).map(|language| &**language)
    }
}

impl fmt::Debug for Languages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = Diagnostic::new(1, 1, "é".repeat(400));
        assert_eq!(long.message.len(), Diagnostic::MAX_MESSAGE);
        let odd = Diagnostic::new(1, 1, format!("a{}", "é".repeat(400)));
        assert_eq!(odd.message.len(), Diagnostic::MAX_MESSAGE - 1);
    }

    #[test]
    fn cancelling_reaches_every_clone_and_a_past_deadline_counts() {
        let cancel = Cancel::new();
        let clone = cancel.clone();
        assert!(!clone.is_cancelled());
        cancel.cancel();
        assert!(clone.is_cancelled());
        assert!(Cancel::at(Instant::now()).is_cancelled());
    }
}
