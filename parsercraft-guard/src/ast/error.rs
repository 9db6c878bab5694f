//! What can go wrong, and what it means to the policies.
//! Invariant: everything about the source is `Validation`; everything that happened to the parser is a [`Fault`].
//! Only faults move the breaker.

use std::time::Duration;

use resilience_core::{Category, Class, Classify, Rejection, Severity};
use serde::{Deserialize, Serialize};

use super::language::Refusal;
use super::limits::LimitExceeded;
use super::operation::Operation;

/// Why the guard gives no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AstError {
    /// The source exceeds a limit and was not parsed.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The source was parsed and is not valid.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no language of that name.
    #[error("no language is called `{name}`; known: {known}")]
    UnknownLanguage {
        /// The name that was asked for, cut to 64 bytes.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The language does not offer the operation.
    #[error("language `{language}` does not offer `{operation}`; it offers: {offered}")]
    Unsupported {
        /// The language.
        language: String,
        /// What was asked for.
        operation: Operation,
        /// What it offers.
        offered: String,
    },
    /// This very source made the parser fail before; it is not tried again for a while.
    #[error("this source is refused: it made the parser fail before ({fault})")]
    Poisoned {
        /// What happened then.
        fault: Fault,
    },
    /// A policy refused the call: the rate is used up or the breaker is open.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The parser failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl AstError {
    /// The fault, when the parser failed in this very call.
    pub const fn as_fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}

impl Classify for AstError {
    fn class(&self) -> Class {
        match self {
            Self::Limit(_)
            | Self::Refused(_)
            | Self::UnknownLanguage { .. }
            | Self::Unsupported { .. }
            | Self::Poisoned { .. } => Class::of(Category::Validation).severity(Severity::Medium),
            Self::Rejected(rejection) => rejection.class(),
            Self::Fault(fault) => fault.class(),
        }
    }
}

/// What happened to a parser, or to the process it ran in. Concerns exactly the call that gets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fault {
    /// It panicked.
    #[error("the parser panicked: {message}")]
    Panicked {
        /// The panic's message, cut to 512 bytes.
        message: String,
    },
    /// It overflowed its stack, and the worker process died of it.
    #[error("the parser overflowed its stack")]
    StackOverflow,
    /// It asked for more memory than a worker may have, and the worker process died of it.
    #[error("the parser ran out of memory (a worker may use {limit} bytes)")]
    OutOfMemory {
        /// The worker's address space in bytes.
        limit: u64,
    },
    /// It gave no answer in time and was killed, or left behind when it ran in a thread.
    #[error("the parser gave no answer within {limit:?}")]
    TimedOut {
        /// The time allowed.
        limit: Duration,
    },
    /// It used more processor time than a worker may use for one call, and the worker process died of it.
    #[error("the parser used more than {limit:?} of processor time")]
    CpuExhausted {
        /// The processor time allowed.
        limit: Duration,
    },
    /// The worker process died of a signal raised by the parser: `SIGSEGV`, `SIGABRT`, `SIGBUS`, `SIGILL`, `SIGFPE`…
    #[error("the parser's process died of signal {signal}{detail}")]
    Crashed {
        /// The signal's number.
        signal: i32,
        /// The last line the process wrote, after `: `; empty when there was none.
        detail: String,
    },
    /// Someone else ended the worker process: an operator, or the kernel when the machine ran out of memory.
    #[error("the parser's process was killed from outside by signal {signal}")]
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// The worker process ended by itself without an answer.
    #[error("the parser's process ended with code {code}{detail}")]
    Exited {
        /// Its exit code.
        code: i32,
        /// The last line the process wrote, after `: `; empty when there was none.
        detail: String,
    },
    /// The answer was larger than a frame may be.
    #[error("the answer has {bytes} bytes; allowed: {allowed}")]
    AnswerTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// The worker sent something that is no answer.
    #[error("the parser's process broke the protocol: {what}")]
    Protocol {
        /// What was wrong.
        what: String,
    },
    /// No worker process could be started.
    #[error("no worker process could be started: {why}")]
    Spawn {
        /// Why, and what to do.
        why: String,
    },
    /// All workers were busy, or too many callers waited for one.
    #[error("all {workers} workers are busy; none became free within {waited:?}")]
    Busy {
        /// How many there are.
        workers: usize,
        /// How long this call waited.
        waited: Duration,
    },
}

impl Fault {
    /// Whether the source is to blame, so that trying it again would do the same again.
    pub const fn is_poison(&self) -> bool {
        match self {
            Self::Panicked { .. }
            | Self::StackOverflow
            | Self::OutOfMemory { .. }
            | Self::TimedOut { .. }
            | Self::CpuExhausted { .. }
            | Self::Crashed { .. }
            | Self::Exited { .. }
            | Self::AnswerTooLarge { .. } => true,
            Self::Killed { .. } | Self::Protocol { .. } | Self::Spawn { .. } | Self::Busy { .. } => false,
        }
    }
}

impl Classify for Fault {
    fn class(&self) -> Class {
        match self {
            Self::TimedOut { .. } => Class::of(Category::Timeout).severity(Severity::High).retryable(false),
            Self::OutOfMemory { .. } | Self::CpuExhausted { .. } => {
                Class::of(Category::Resource).severity(Severity::High).retryable(false)
            }
            // Nothing is wrong with the parser or the source: come again.
            Self::Busy { .. } => {
                Class::of(Category::Resource).severity(Severity::Medium).fault(resilience_core::class::Fault::Policy)
            }
            Self::Killed { .. } => Class::of(Category::Unknown).severity(Severity::Critical).retryable(true),
            Self::Spawn { .. } => Class::of(Category::Internal).severity(Severity::High).retryable(true),
            Self::Panicked { .. }
            | Self::StackOverflow
            | Self::Crashed { .. }
            | Self::Exited { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Protocol { .. } => Class::of(Category::Internal).severity(Severity::High),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::language::Diagnostic;
    use super::*;

    #[test]
    fn severities_are_medium_for_input_high_for_faults_and_critical_for_the_unknown() {
        let refused = AstError::Refused(Refusal::Syntax(Diagnostic::new(1, 1, "x")));
        let limit = AstError::Limit(LimitExceeded::Bytes { bytes: 2, allowed: 1 });
        let poisoned = AstError::Poisoned { fault: Fault::StackOverflow };
        for error in [refused, limit, poisoned] {
            assert_eq!((error.class().category, error.class().severity), (Category::Validation, Severity::Medium));
        }
        let faults = [
            Fault::Panicked { message: String::new() },
            Fault::StackOverflow,
            Fault::OutOfMemory { limit: 1 },
            Fault::TimedOut { limit: Duration::ZERO },
            Fault::Crashed { signal: 11, detail: String::new() },
        ];
        for fault in faults {
            let class = AstError::Fault(fault.clone()).class();
            assert_eq!(class.severity, Severity::High, "{fault}");
            assert_eq!(class.fault, resilience_core::class::Fault::Dependency, "{fault}");
            assert!(fault.is_poison() && !class.retryable, "{fault}");
        }
        let killed = Fault::Killed { signal: 9 };
        assert_eq!((killed.class().category, killed.class().severity), (Category::Unknown, Severity::Critical));
        assert!(!killed.is_poison());
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let error = AstError::Unsupported {
            language: "rust".into(),
            operation: Operation::GenerateC,
            offered: "parse, control_flow".into(),
        };
        insta::assert_snapshot!(error, @"language `rust` does not offer `generate_c`; it offers: parse, control_flow");
        let error = AstError::Poisoned { fault: Fault::StackOverflow };
        insta::assert_snapshot!(error, @"this source is refused: it made the parser fail before (the parser overflowed its stack)");
    }
}
