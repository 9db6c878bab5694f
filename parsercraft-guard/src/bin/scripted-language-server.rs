//! A language server that misbehaves on command; see `parsercraft_guard::testkit::lsp_server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    parsercraft_guard::testkit::lsp_server::main()
}
