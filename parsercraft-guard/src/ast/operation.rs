//! The guarded operations and what they return, in a form that crosses a process border.
//! Invariant: everything here is plain data; nothing refers to a parser's own types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a language may offer to do with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Parse and summarise: [`Output::Summary`].
    Parse,
    /// Infer types: [`Output::Types`].
    InferTypes,
    /// Analyse control flow: [`Output::ControlFlow`].
    ControlFlow,
    /// Generate C: [`Output::Code`].
    GenerateC,
    /// Generate WebAssembly: [`Output::Code`].
    GenerateWasm,
}

impl Operation {
    /// Every operation, in order.
    pub const ALL: [Self; 5] = [Self::Parse, Self::InferTypes, Self::ControlFlow, Self::GenerateC, Self::GenerateWasm];

    /// The name used in logs, configuration and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::InferTypes => "infer_types",
            Self::ControlFlow => "control_flow",
            Self::GenerateC => "generate_c",
            Self::GenerateWasm => "generate_wasm",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no [`Operation`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no operation; allowed: parse, infer_types, control_flow, generate_c, generate_wasm")]
pub struct UnknownOperation(String);

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(name: &str) -> Result<Self, UnknownOperation> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.as_str() == name)
            .ok_or_else(|| UnknownOperation(name.chars().take(64).collect()))
    }
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Output {
    /// Of [`Operation::Parse`].
    Summary(Summary),
    /// Of [`Operation::InferTypes`]: every name with its type, in source order.
    Types(Vec<TypedName>),
    /// Of [`Operation::ControlFlow`]: every function, in source order.
    ControlFlow(Vec<FunctionFlow>),
    /// Of [`Operation::GenerateC`] and [`Operation::GenerateWasm`].
    Code(Code),
}

impl Output {
    /// The summary, when it is one.
    pub const fn as_summary(&self) -> Option<&Summary> {
        match self {
            Self::Summary(summary) => Some(summary),
            _ => None,
        }
    }

    /// The types, when they are.
    pub fn as_types(&self) -> Option<&[TypedName]> {
        match self {
            Self::Types(types) => Some(types),
            _ => None,
        }
    }

    /// The control flow, when it is.
    pub fn as_control_flow(&self) -> Option<&[FunctionFlow]> {
        match self {
            Self::ControlFlow(functions) => Some(functions),
            _ => None,
        }
    }

    /// The code, when it is.
    pub const fn as_code(&self) -> Option<&Code> {
        match self {
            Self::Code(code) => Some(code),
            _ => None,
        }
    }

    /// About how many bytes it occupies: what a cache counts.
    pub(crate) fn weight(&self) -> usize {
        let inside: usize = match self {
            Self::Summary(summary) => summary.names.iter().map(|name| size_of::<String>() + name.len()).sum(),
            Self::Types(types) => types.iter().map(|one| size_of_val(one) + one.name.len() + one.type_name.len()).sum(),
            Self::ControlFlow(functions) => {
                functions.iter().map(|one| size_of_val(one) + one.name.len() + 4 * one.unreachable.len()).sum()
            }
            Self::Code(Code::Text(text)) => text.len(),
            Self::Code(Code::Binary(bytes)) => bytes.len(),
        };
        size_of::<Self>() + inside
    }
}

/// What a source contains. A language fills in what it has; the rest stays 0 or empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Length of the source in bytes.
    pub bytes: usize,
    /// Its lines.
    pub lines: usize,
    /// Tokens, brackets included, comments not.
    pub tokens: usize,
    /// The deepest nesting of brackets.
    pub max_nesting: usize,
    /// Items (declarations), nested ones included.
    pub items: usize,
    /// Functions and methods with a body.
    pub functions: usize,
    /// Types declared.
    pub types: usize,
    /// The names declared at the top level, in source order, the first 256 of them.
    pub names: Vec<String>,
}

/// A name and the type found for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedName {
    /// The name.
    pub name: String,
    /// Its type, as the language writes it.
    pub type_name: String,
    /// Where it is declared, from 1.
    pub line: u32,
}

/// How control flows through one function; closures inside count as part of it, functions inside do not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionFlow {
    /// The function's path inside the source: `module::Type::function`.
    pub name: String,
    /// Where it starts, from 1.
    pub line: u32,
    /// Places where one of several ways is taken: `if`, each arm of a `match` past the first, `&&`, `||`.
    pub branches: u32,
    /// Loops of any kind.
    pub loops: u32,
    /// Ways out before the end: `return` and `?`.
    pub returns: u32,
    /// `McCabe`'s number: independent paths, 1 for straight code.
    pub cyclomatic: u32,
    /// How deep branches and loops are nested.
    pub depth: u32,
    /// The lines of statements that can never be reached, the first of each block.
    pub unreachable: Vec<u32>,
}

/// Generated code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// Source text: C, or WebAssembly's text format.
    Text(String),
    /// Machine-readable code: a WebAssembly module.
    Binary(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_name() {
        for operation in Operation::ALL {
            assert_eq!(operation.as_str().parse(), Ok(operation));
        }
        let error = "optimise".parse::<Operation>().unwrap_err();
        insta::assert_snapshot!(error, @"`optimise` is no operation; allowed: parse, infer_types, control_flow, generate_c, generate_wasm");
    }
}
