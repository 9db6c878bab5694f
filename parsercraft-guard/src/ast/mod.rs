//! The AST guard: parsing, type inference, control-flow analysis and code generation that hostile source cannot take
//! down. Invariant: each layer works alone, and none trusts the parser. It brings no grammar of its own.
//!
//! | layer | survives | costs |
//! |---|---|---|
//! | [`Limits`] | nothing reaches the parser that is too long, too deep or not UTF-8 | one pass over the bytes |
//! | [`InProcess`] | panics, deep input within its stack; loops are left behind | a thread hop, address space |
//! | [`WorkerPool`] | stack overflow, abort, memory bomb, endless loop | a pipe crossing, a process per worker |
//! | [`AstGuard`] | the same bomb twice, floods, a parser that keeps failing | a hash of the source, a few atomics |
//!
//! A parser joins through one trait, [`Language`]; [`Rust`] (feature `syn`) is ready-made. Unix only.

#[cfg(not(unix))]
compile_error!("the feature `ast` needs a Unix system: worker processes use pipes, poll and resource limits");

mod error;
mod guard;
mod in_process;
mod language;
mod lexis;
mod limits;
mod operation;
mod pool;
mod process;
mod protocol;
mod recent;
#[cfg(feature = "syn")]
mod rust;
mod scan;
pub mod worker;

#[cfg(feature = "testkit")]
pub mod hostile;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use error::{AstError, Fault};
pub use guard::{AstGuard, AstGuardBuilder, AstStatistics, Isolation};
pub use in_process::{Answer, InProcess, InProcessBuilder};
pub use language::{Cancel, Diagnostic, Language, Languages, Refusal};
pub use lexis::{BlockComment, Lexis, StringForm};
pub use limits::{LimitExceeded, Limits};
pub use operation::{Code, FunctionFlow, Operation, Output, Summary, TypedName, UnknownOperation};
pub use pool::{Job, PoolError, PoolStatistics, WorkerPool, WorkerPoolBuilder};
#[cfg(feature = "syn")]
pub use rust::Rust;
