//! The `parsercraft-guard` command.
fn main() {}
