//! The one table from which a configuration type is made: its fields, how they are read and written, its schema.
//! A field stands in it once. Values that depend on each other are the builders' to check.

/// Makes the type, and its [`Table`](super::field::Table). A field that is left out has its type's default; one that has
/// it is not written.
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $kind:expr;)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Default)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl $crate::config::field::Table for $name {
            fn read(
                path: &str,
                value: $crate::config::value::Value,
            ) -> Result<Self, $crate::config::ConfigError> {
                use $crate::config::field::{Kind, entries, join};
                let mut entries = entries(path, value, &[$(stringify!($field)),+])?;
                Ok(Self {
                    $($field: match entries.remove(stringify!($field)) {
                        Some(value) => $kind.read(&join(path, stringify!($field)), value)?,
                        None => Default::default(),
                    },)+
                })
            }

            fn write(&self) -> $crate::config::value::Value {
                use $crate::config::field::Kind;
                let mut entries = std::collections::BTreeMap::new();
                $(if self.$field != <$type>::default() {
                    entries.insert(stringify!($field).to_owned(), $kind.write(&self.$field));
                })+
                $crate::config::value::Value::Table(entries)
            }

            fn schema() -> $crate::config::value::Value {
                use $crate::config::field::{Kind, described, object};
                object(concat!($($about),+), [
                    $((stringify!($field), described($kind.schema(), concat!($($doc),+)))),+
                ])
            }
        }
    };
}

/// Lets serde read and write a [`Table`](super::field::Table).
macro_rules! through_serde {
    ($($name:ident),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::config::field::Table::write(self).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = $crate::config::value::Value::deserialize(deserializer)?;
                $crate::config::field::Table::read("", value).map_err(serde::de::Error::custom)
            }
        }
    )+};
}

pub(super) use {settings, through_serde};
