//! parsercraft-guard

#[cfg(feature = "ast")]
pub mod ast;
#[cfg(feature = "lsp")]
pub mod lsp;
#[cfg(feature = "registry")]
pub mod registry;

#[cfg(feature = "testkit")]
pub mod testkit;
