//! Definitions as users write them: types, protocols and aliases, read by any serde format.
//!
//! This is data only: unknown fields and duplicate keys are refused while reading, everything else by
//! [`Universe::load`](super::Universe::load).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A set of named types, protocols and aliases.
///
/// Types are compared by name and inheritance, protocols by structure. A small prelude is always there: the scalars
/// `None`, `bool`, `int`, `float`, `str`, `bytes` (unrelated to each other, without members) and the invariant
/// containers `list[T]`, `set[T]` and `dict[K, V]`; defining one of these names replaces it. `Any`, `Never`, `object`
/// and `Self` belong to the language.
///
/// # Examples
///
/// ```
/// use parsercraft_guard::protocol::Definitions;
///
/// let definitions: Definitions = serde_json::from_str(r#"{
///     "protocols": {
///         "Reader": { "methods": { "read": "(n: int = ...) -> bytes" }, "properties": { "closed": "bool" } }
///     },
///     "types": {
///         "File": { "methods": { "read": "(n: int = ...) -> bytes" }, "properties": { "closed": "bool" } }
///     },
///     "aliases": { "Source": "Reader | str" }
/// }"#)?;
/// assert_eq!(definitions.protocols.len(), 1);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definitions {
    /// Compared by structure.
    #[serde(deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub protocols: BTreeMap<String, Definition>,
    /// Compared by name and inheritance.
    #[serde(deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, Definition>,
    /// Other names for type expressions.
    #[serde(deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, Alias>,
}

/// One type or protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definition {
    /// Type parameters: `"T"` (invariant), `"out T"` (covariant), `"in T"` (contravariant), with a bound `"out T: B"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
    /// What it extends: `"Sized"`, `"Iterable[T]"`. Of members with the same name, its own wins, then the first base's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extends: Vec<String>,
    /// Methods by name.
    #[serde(deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub methods: BTreeMap<String, Method>,
    /// Properties by name.
    #[serde(deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Property>,
}

/// A method: one signature, several (overloads), or a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a method is a signature such as \"(n: int) -> str\", a list of them (overloads), or a table with \
                 `overloads` (a list) and `optional` (true or false)"
)]
pub enum Method {
    /// `"(n: int) -> str"`.
    One(String),
    /// Overloads, tried in order.
    Overloads(Vec<String>),
    /// The long form.
    Full(FullMethod),
}

/// The long form of a [`Method`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullMethod {
    /// The signatures, at least one.
    pub overloads: Vec<String>,
    /// In a protocol: conforming types may lack it. In a type: an instance may lack it.
    #[serde(default)]
    pub optional: bool,
}

impl Method {
    pub(crate) fn signatures(&self) -> &[String] {
        match self {
            Self::One(signature) => std::slice::from_ref(signature),
            Self::Overloads(signatures) => signatures,
            Self::Full(full) => &full.overloads,
        }
    }

    pub(crate) fn optional(&self) -> bool {
        matches!(self, Self::Full(full) if full.optional)
    }
}

/// A property: the type of a mutable one, or a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a property is a type such as \"int\" (mutable), or a table with `type`, `readonly` and `optional` (true or \
                 false)"
)]
pub enum Property {
    /// A mutable, required property of this type.
    Mutable(String),
    /// The long form.
    Full(FullProperty),
}

/// The long form of a [`Property`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullProperty {
    /// The type expression.
    #[serde(rename = "type")]
    pub ty: String,
    /// Only read: the type may be narrower than the protocol's. Mutable properties must match exactly.
    #[serde(default)]
    pub readonly: bool,
    /// In a protocol: conforming types may lack it. In a type: an instance may lack it.
    #[serde(default)]
    pub optional: bool,
}

impl Property {
    /// Type expression, read-only, optional.
    pub(crate) fn parts(&self) -> (&str, bool, bool) {
        match self {
            Self::Mutable(ty) => (ty, false, false),
            Self::Full(full) => (&full.ty, full.readonly, full.optional),
        }
    }
}

/// Another name for a type expression; it may be generic and, inside type arguments or callables, recursive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an alias is a type such as \"int | None\", or a table with `params` (a list) and `type`"
)]
pub enum Alias {
    /// `"int | None"`.
    Plain(String),
    /// With type parameters.
    Generic(GenericAlias),
}

/// The long form of an [`Alias`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenericAlias {
    /// Type parameters by name; variance follows from the body.
    #[serde(default)]
    pub params: Vec<String>,
    /// The type expression.
    #[serde(rename = "type")]
    pub ty: String,
}

impl Alias {
    pub(crate) fn parts(&self) -> (&[String], &str) {
        match self {
            Self::Plain(ty) => (&[], ty),
            Self::Generic(generic) => (&generic.params, &generic.ty),
        }
    }
}

/// Size bounds on a set of definitions, so that loading a hostile one stays cheap.
///
/// ```
/// use parsercraft_guard::protocol::Bounds;
///
/// let bounds = Bounds { definitions: 100, ..Bounds::default() };
/// assert_eq!(bounds.members, 1_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Types, protocols and aliases together. Default 10 000.
    pub definitions: usize,
    /// Members of one definition, inherited ones included. Default 1 000.
    pub members: usize,
    /// Members of all definitions together, inherited ones included. Default 200 000.
    pub total_members: usize,
    /// Definitions that one definition extends, directly or not. Default 256.
    pub ancestors: usize,
    /// Type parameters of one definition or signature. Default 16.
    pub params: usize,
    /// Overloads of one method. Default 32.
    pub overloads: usize,
    /// Fuel for checking the definitions themselves (overrides, bounds of parameters), for each. Default 100 000 steps.
    pub fuel: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            definitions: 10_000,
            members: 1_000,
            total_members: 200_000,
            ancestors: 256,
            params: 16,
            overloads: 32,
            fuel: 100_000,
        }
    }
}

/// Reads a map and refuses a key that comes twice: serde's own maps keep the last one silently.
fn unique<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = access.next_key::<String>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("`{key}` is defined twice; allowed: once")));
                }
                map.insert(key, access.next_value()?);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}
