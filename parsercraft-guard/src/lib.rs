#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

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

mod toolchain;

pub use toolchain::{Toolchain, ToolchainBuilder, ToolchainError};
