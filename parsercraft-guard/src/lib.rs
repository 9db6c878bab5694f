//! parsercraft-guard

#[cfg(feature = "ast")]
pub mod ast;
pub mod defaults;
#[cfg(feature = "lsp")]
pub mod lsp;
pub mod protocol;
#[cfg(feature = "registry")]
pub mod registry;

#[cfg(feature = "testkit")]
pub mod testkit;
