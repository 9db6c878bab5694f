//! One module per command. Each reads its arguments, calls the library and prints; none decides anything else.

#[cfg(feature = "ast")]
pub(crate) mod ast;
pub(crate) mod audit;
#[cfg(feature = "lsp")]
pub(crate) mod lsp;
pub(crate) mod protocol;

use std::io;

/// Whether whoever reads our output has had enough (`… | head`): that is no error.
pub(crate) fn is_closed_pipe(failure: &(dyn std::error::Error + 'static)) -> bool {
    failure.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// For commands whose exit code is an answer: it is right also when nobody reads the words.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        other => other,
    }
}
