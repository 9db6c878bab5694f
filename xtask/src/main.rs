//! Workflows of this workspace.
fn main() {}
