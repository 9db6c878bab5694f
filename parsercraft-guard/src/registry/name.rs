//! Package names, validated by the rules of the ecosystem they belong to.
//! A `PackageName` is safe to put into a URL path or a file name: no separator, no dot-dot, bounded length.
//! It does not know whether such a package exists.

use std::fmt;
use std::sync::Arc;

use super::error::RegistryError;

/// The family of registries a name belongs to; each has its own rules for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ecosystem {
    /// Cargo registries: ASCII letters, digits, `-` and `_`, first a letter, at most 64 bytes.
    Cargo,
    /// Python package indexes (PEP 508): ASCII letters, digits, `.`, `-` and `_`, letter or digit at both ends, at most 128 bytes.
    PyPi,
    /// npm: lower case URL-safe names, optionally `@scope/name`, at most 214 bytes.
    Npm,
}

impl Ecosystem {
    /// The lower-case name used in messages and cache keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cargo => "cargo",
            Self::PyPi => "pypi",
            Self::Npm => "npm",
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Self::Cargo => "1 to 64 ASCII letters, digits, `-` and `_`, the first one a letter",
            Self::PyPi => "1 to 128 ASCII letters, digits, `.`, `-` and `_`, with a letter or digit at both ends",
            Self::Npm => {
                "`name` or `@scope/name`, at most 214 of a-z, 0-9, `-`, `.`, `_` and `~`, no part starting with `.` or `_`"
            }
        }
    }
}

impl fmt::Display for Ecosystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A package name that passed its ecosystem's rules. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageName(Arc<str>);

impl PackageName {
    /// Checks `name` against the rules of `ecosystem`.
    ///
    /// # Errors
    /// [`RegistryError::InvalidName`] naming what is allowed.
    ///
    /// # Examples
    /// ```
    /// use parsercraft_guard::registry::{Ecosystem, PackageName};
    ///
    /// assert!(PackageName::parse(Ecosystem::Cargo, "serde_json").is_ok());
    /// assert!(PackageName::parse(Ecosystem::Npm, "@types/node").is_ok());
    /// assert!(PackageName::parse(Ecosystem::Cargo, "../../etc/passwd").is_err());
    /// ```
    pub fn parse(ecosystem: Ecosystem, name: &str) -> Result<Self, RegistryError> {
        let valid = match ecosystem {
            Ecosystem::Cargo => is_cargo(name),
            Ecosystem::PyPi => is_pypi(name),
            Ecosystem::Npm => is_npm(name),
        };
        if valid {
            Ok(Self(name.into()))
        } else {
            Err(RegistryError::InvalidName {
                ecosystem,
                name: name.chars().take(80).collect(),
                allowed: ecosystem.allowed(),
            })
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of this crate's file in a cargo index, lower case: `1/a`, `2/ab`, `3/a/abc`, `se/rd/serde`.
    ///
    /// # Examples
    /// ```
    /// use parsercraft_guard::registry::{Ecosystem, PackageName};
    ///
    /// let name = PackageName::parse(Ecosystem::Cargo, "Serde")?;
    /// assert_eq!(name.index_path(), "se/rd/serde");
    /// # Ok::<(), parsercraft_guard::registry::RegistryError>(())
    /// ```
    pub fn index_path(&self) -> String {
        let lower = self.0.to_ascii_lowercase();
        let prefix = index_prefix(&lower);
        format!("{prefix}/{lower}")
    }

    /// The `{prefix}` of the name for download templates, in the name's own case.
    pub(crate) fn prefix(&self) -> String {
        index_prefix(&self.0)
    }

    /// Whether `other` means the same cargo crate: case and `-` versus `_` do not matter.
    pub(crate) fn is_same_crate(&self, other: &str) -> bool {
        let canonical = |byte: u8| match byte.to_ascii_lowercase() {
            b'_' => b'-',
            lower => lower,
        };
        self.0.bytes().map(canonical).eq(other.bytes().map(canonical))
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Cargo's rule for the folder of an index file. `name` is non-empty ASCII.
fn index_prefix(name: &str) -> String {
    match name.len() {
        0..=2 => name.len().to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    }
}

fn is_cargo(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn is_pypi(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn is_npm(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '_'])
            && part.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_' | b'~')
            })
    };
    name.len() <= 214
        && match name.strip_prefix('@') {
            Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
            None => part(name),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cargo(name: &str) -> PackageName {
        PackageName::parse(Ecosystem::Cargo, name).unwrap()
    }

    #[test]
    fn index_paths_follow_cargos_rules() {
        for (name, path) in [
            ("a", "1/a"),
            ("cc", "2/cc"),
            ("syn", "3/s/syn"),
            ("rand", "ra/nd/rand"),
            ("Inflector", "in/fl/inflector"),
            ("x-y_z", "x-/y_/x-y_z"),
        ] {
            assert_eq!(cargo(name).index_path(), path);
        }
        assert_eq!(cargo("Inflector").prefix(), "In/fl");
    }

    #[test]
    fn hostile_names_are_refused_in_every_ecosystem() {
        let long = "a".repeat(300);
        for name in [
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/b",
            "a\\b",
            "a\0b",
            "a b",
            "a?b",
            "a#b",
            "a%2fb",
            "ä",
            "-a",
            "_a",
            "/a",
            "@/a",
            "@a/",
            "@a/../b",
            "@a/b/c",
            "a\n",
            long.as_str(),
        ] {
            for ecosystem in [Ecosystem::Cargo, Ecosystem::PyPi, Ecosystem::Npm] {
                let npm_allows = ecosystem == Ecosystem::Npm && name == "-a";
                assert_eq!(PackageName::parse(ecosystem, name).is_ok(), npm_allows, "{ecosystem}: {name:?}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let error = PackageName::parse(Ecosystem::Cargo, "no/slash").unwrap_err();
        insta::assert_snapshot!(error, @r#"cargo package name "no/slash" is not valid; allowed: 1 to 64 ASCII letters, digits, `-` and `_`, the first one a letter"#);
    }

    /// The rule of the cargo book, written without slicing: the naive model.
    fn naive_path(name: &str) -> String {
        let chars: Vec<char> = name.to_lowercase().chars().collect();
        let text = |part: &[char]| part.iter().collect::<String>();
        match chars.as_slice() {
            [_] => format!("1/{}", text(&chars)),
            [_, _] => format!("2/{}", text(&chars)),
            [first, _, _] => format!("3/{first}/{}", text(&chars)),
            [a, b, c, d, ..] => format!("{a}{b}/{c}{d}/{}", text(&chars)),
            [] => unreachable!("generated names are not empty"),
        }
    }

    proptest! {
        #[test]
        fn every_valid_name_has_the_naive_path(name in "[A-Za-z][A-Za-z0-9_-]{0,63}") {
            prop_assert_eq!(cargo(&name).index_path(), naive_path(&name));
        }

        #[test]
        fn whatever_parses_stays_inside_its_folder(name in any::<String>()) {
            for ecosystem in [Ecosystem::Cargo, Ecosystem::PyPi, Ecosystem::Npm] {
                if let Ok(name) = PackageName::parse(ecosystem, &name) {
                    let scoped = ecosystem == Ecosystem::Npm && name.as_str().starts_with('@');
                    let separators = name.as_str().matches('/').count();
                    prop_assert_eq!(separators, usize::from(scoped));
                    for part in name.as_str().split('/') {
                        prop_assert!(part != "." && part != ".." && !part.is_empty());
                        prop_assert!(part.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'%'));
                    }
                }
            }
        }
    }
}
