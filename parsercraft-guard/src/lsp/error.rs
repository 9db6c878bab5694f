//! Why guarding a language server failed as a whole. What the server does wrong is no error here: that is what the
//! guard is for.

use std::io;

use resilience_core::{Category, Class, Classify, ConfigError, Severity};

use super::frame::FrameError;

/// Why a session could not be, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LspError {
    /// A setting is out of range.
    #[error("bad language server settings: {0}")]
    Config(#[from] ConfigError),
    /// There is no such program, or it may not be run.
    #[error("cannot start the language server `{program}`: {source}; check that it is installed and in PATH")]
    CannotStart {
        /// The program as given.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// What the editor sent is not the protocol.
    #[error("what the editor sends is not the language server protocol: {0}")]
    Editor(#[source] FrameError),
    /// A thread or a stream of the guard itself.
    #[error("the guard cannot work: {0}")]
    Io(#[from] io::Error),
}

impl Classify for LspError {
    fn class(&self) -> Class {
        match self {
            Self::Config(_) | Self::CannotStart { .. } | Self::Editor(_) => {
                Class::of(Category::Validation).severity(Severity::Low)
            }
            Self::Io(error) => error.class(),
        }
    }
}
