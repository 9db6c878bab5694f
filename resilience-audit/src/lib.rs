#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acknowledge;
#[cfg(feature = "checkpoints")]
#[cfg_attr(docsrs, doc(cfg(feature = "checkpoints")))]
pub mod checkpoint;
mod codec;
mod config;
mod durable;
mod error;
mod event;
mod export;
mod format;
mod hash;
mod log;
mod memory;
mod observer;
mod open;
mod problem;
mod query;
mod reader;
mod record;
mod redact;
mod reverse;
pub mod storage;
mod store;
pub mod tree;
mod verify;
mod walk;
mod writer;

pub use acknowledge::{Acknowledged, Acknowledgement};
pub use config::{AuditLogBuilder, Backpressure, Limits};
pub use error::{AppendError, ClearError, OpenError, ReadError};
pub use event::{AuditEvent, Status, Value};
pub use export::{ExportError, export_json_lines, json_line};
pub use format::FORMAT_VERSION;
pub use hash::{Anchor, Hash, ParseAnchorError};
pub use log::{AuditLog, LogState, Statistics};
pub use observer::AuditObserver;
pub use open::{OpenReport, TornTail};
pub use problem::{Problem, ProblemKind};
pub use query::Query;
pub use reader::{Reader, Records, newest_first, tail};
pub use record::{Kind, Record};
pub use redact::Redaction;
pub use verify::{VerifyReport, verify, verify_against, verify_in};
