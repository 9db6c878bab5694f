//! The language server guard: stands between any editor and any language server, and keeps the editor's session
//! alive when the server crashes, hangs or talks nonsense.
//!
//! - [`Supervisor`] and [`run_stdio`] run it: a process per server, restarted with everything it has to know.
//! - [`Session`] is the same without I/O: events and time in, actions out.
//! - [`FrameDecoder`], [`Message`] and [`Documents`] are its parts, each usable alone.
//!
//! Its promise: every request is answered exactly once, with the server's answer, a result that keeps the editor
//! usable, or an error; no edit is lost; no input from either side crashes it or grows it without bound.
//! It passes on what it does not have to understand, byte for byte; it never invents an edit.

mod config;
mod document;
mod error;
mod fallback;
mod frame;
mod gate;
mod message;
mod outbox;
mod process;
mod session;
mod stats;
mod supervisor;

pub use config::{Deadlines, LspConfig, RequestLimits, RestartPolicy};
pub use document::{Document, DocumentError, Documents, Position, PositionEncoding, Range, Text};
pub use error::LspError;
pub use fallback::Cause;
pub use frame::{Frame, FrameDecoder, FrameError, FrameLimits};
pub(crate) use gate::server_breaker;
pub use message::{Kind, Message, MessageError, RequestId, code};
pub use process::ServerCommand;
pub use session::{Action, Notice, Session};
pub use stats::{LspState, LspStats, MethodStats};
pub use supervisor::{EditorStreams, LspEnd, Supervisor, run_stdio};
