//! Servers that misbehave on command, for tests and drills.
//! They are real servers on loopback or stdio; none of them is meant for production.

pub mod lsp_client;
pub mod lsp_server;
pub mod registry;
