//! That public items come with a running example of their own. What is public is rustdoc's to say: it writes down the
//! crate's API, and the documentation of each item in it is looked through here. That the examples pass is the tests' to see.
//!
//! Counted are types, traits, functions, methods (of traits: those with a body; the others are what the trait's own example
//! shows), macros and constants. Fields, variants and what a type does because of a trait are not.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::cargo;
use crate::Stop;
use crate::steps::{Bench, Verdict};
use crate::workspace::{Package, Workspace};

/// The crates in which every item must have one; in the others they are only counted.
const COMPLETE: [&str; 1] = ["resilience-core"];
/// A cold check of a crate's dependencies on two cores takes a fraction of this.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// What has documentation, and an example, of its own.
const ITEMS: [&str; 10] =
    ["struct", "enum", "union", "trait", "function", "macro", "proc_macro", "constant", "static", "assoc_const"];

pub(super) fn check(workspace: &Workspace, bench: &mut Bench<'_>, package: &Package) -> Result<Verdict, Stop> {
    let mut command = cargo(workspace, &["rustdoc", "--package", &package.name, "--lib", "--all-features"]);
    command.args(["--", "-Zunstable-options", "--output-format", "json"]).env("RUSTDOC", rustdoc(workspace)?);
    let ended = bench.run(&mut command, LIMIT)?;
    if !ended.success() {
        return Ok(Verdict::of(ended));
    }
    let file = workspace.target.join("doc").join(package.name.replace('-', "_")).with_extension("json");
    let text = fs::read_to_string(&file)
        .map_err(|error| Stop::Setup(format!("cannot read {}: {error}; see the log above", file.display())))?;
    let changed = |why: &dyn std::fmt::Display| {
        Stop::Setup(format!("rustdoc writes what we can't read: {why}; see whether its format has changed"))
    };
    let api: Api = serde_json::from_str(&text).map_err(|error| changed(&error))?;
    let items = api.items();
    if items.is_empty() {
        return Err(changed(&"an API without items"));
    }
    Ok(judge(&items, COMPLETE.contains(&package.name.as_str())))
}

fn judge(items: &[Found], must_be_complete: bool) -> Verdict {
    let lacking: Vec<_> = items.iter().filter(|item| !item.has_example).map(|item| item.shown.as_str()).collect();
    let note = format!("{} of {} public items have an example", items.len() - lacking.len(), items.len());
    if must_be_complete && !lacking.is_empty() {
        Verdict::failed(note).details(lacking.join("\n"))
    } else {
        Verdict::passed(note)
    }
}

/// Rustdoc, allowed to write down the API on a stable toolchain, too. A program of its own, because dependencies look for
/// the variable when they are built: cargo would build them anew for it, and again without it.
fn rustdoc(workspace: &Workspace) -> Result<PathBuf, Stop> {
    let path = workspace.target.join("xtask/rustdoc");
    let write = |error| Stop::write(&path, &error);
    fs::write(&path, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n").map_err(write)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(write)?;
    Ok(path)
}

type Id = u64;

/// A crate's API, as rustdoc writes it.
#[derive(Deserialize)]
struct Api {
    root: Id,
    index: HashMap<Id, Item>,
}

#[derive(Deserialize)]
struct Item {
    name: Option<String>,
    docs: Option<String>,
    span: Option<Span>,
    /// What it is, and what it consists of: one entry.
    inner: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct Span {
    filename: String,
    begin: (u32, u32),
}

/// One item of the API.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Where it is, what it is, its path.
    shown: String,
    has_example: bool,
}

impl Api {
    /// Every item that can be reached from the root, by place.
    fn items(&self) -> Vec<Found> {
        let mut found = Vec::new();
        self.visit(self.root, "", &mut HashSet::new(), &mut found);
        found.sort_by(|a: &Found, b| a.shown.cmp(&b.shown));
        found
    }

    fn visit(&self, id: Id, path: &str, seen: &mut HashSet<Id>, found: &mut Vec<Found>) {
        // What is not in the index is hidden, or another crate's.
        let Some(item) = self.index.get(&id).filter(|_| seen.insert(id)) else { return };
        let Some((kind, inner)) = item.inner.iter().next() else { return };
        let path = match &item.name {
            Some(name) if path.is_empty() => name.clone(),
            Some(name) => format!("{path}::{name}"),
            None => path.to_owned(),
        };
        if ITEMS.contains(&kind.as_str()) {
            found.push(item.found(kind, &path));
        }
        let methods =
            |id: &Id| self.index.get(id).is_some_and(|item| item.inner.values().any(|it| it["has_body"] == true));
        let next: Vec<Id> = match kind.as_str() {
            "module" => ids(&inner["items"]),
            "use" => inner["id"].as_u64().into_iter().collect(),
            "struct" | "enum" | "union" => ids(&inner["impls"]),
            "trait" => ids(&inner["items"]).into_iter().filter(methods).collect(),
            "impl" if inner["trait"].is_null() => ids(&inner["items"]),
            _ => Vec::new(),
        };
        for id in next {
            self.visit(id, &path, seen, found);
        }
    }
}

impl Item {
    fn found(&self, kind: &str, path: &str) -> Found {
        let place = self.span.as_ref().map(|span| format!("{}:{}", span.filename, span.begin.0)).unwrap_or_default();
        Found {
            shown: format!("{place}: {kind} {path}"),
            has_example: self.docs.as_deref().is_some_and(has_running_example),
        }
    }
}

fn ids(list: &Value) -> Vec<Id> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// Whether one of the code blocks is run by `cargo test`: it is Rust, and neither ignored nor only compiled.
fn has_running_example(docs: &str) -> bool {
    let runs = |tag: &str| matches!(tag, "rust" | "should_panic") || tag.starts_with("edition");
    let fences = docs.lines().filter_map(|line| line.trim_start().strip_prefix("```"));
    // Every other fence ends a block.
    let mut beginnings = fences.step_by(2).map(|tags| tags.split([',', ' ']).filter(|tag| !tag.is_empty()));
    beginnings.any(|mut tags| tags.all(runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_is_run_is_an_example() {
        for docs in ["```\nx();\n```", "words\n\n```rust\nx();\n```", "```text\na b\n```\n```should_panic\nx();\n```"] {
            assert!(has_running_example(docs), "{docs}");
        }
        for docs in
            ["", "words", "```no_run\nx();\n```", "```ignore\nx();\n```", "```text\nx\n```", "`x`", "```toml\n```"]
        {
            assert!(!has_running_example(docs), "{docs}");
        }
    }

    /// Two modules, one of them private and re-exported from; a struct with two methods of its own and one of a trait; a
    /// trait with a method to be written and one that is there.
    const API: &str = r#"{"root": 0, "index": {
        "0": {"name": "x", "docs": null, "span": null, "inner": {"module": {"items": [1, 2, 9]}}},
        "1": {"name": null, "docs": null, "span": null, "inner": {"use": {"id": 3, "name": "Shown"}}},
        "2": {"name": "part", "docs": null, "span": null, "inner": {"module": {"items": [1, 6]}}},
        "3": {"name": "Shown", "docs": "Words.", "span": {"filename": "src/a.rs", "begin": [5, 1]},
              "inner": {"struct": {"impls": [4, 5, 99]}}},
        "4": {"name": null, "docs": null, "span": null, "inner": {"impl": {"trait": null, "items": [10, 11]}}},
        "5": {"name": null, "docs": null, "span": null, "inner": {"impl": {"trait": {"path": "Eq"}, "items": [12]}}},
        "6": {"name": "Do", "docs": "```\nx();\n```", "span": null, "inner": {"trait": {"items": [7, 8]}}},
        "7": {"name": "must", "docs": null, "span": null, "inner": {"function": {"has_body": false}}},
        "8": {"name": "can", "docs": null, "span": null, "inner": {"function": {"has_body": true}}},
        "9": {"name": "Alias", "docs": null, "span": null, "inner": {"type_alias": {}}},
        "10": {"name": "new", "docs": "```\nx();\n```", "span": null, "inner": {"function": {"has_body": true}}},
        "11": {"name": "MAX", "docs": null, "span": null, "inner": {"assoc_const": {}}},
        "12": {"name": "eq", "docs": null, "span": null, "inner": {"function": {"has_body": true}}}
    }}"#;

    #[test]
    fn items_are_found_once_each_and_those_without_an_example_are_named() {
        let items = serde_json::from_str::<Api>(API).unwrap().items();
        let shown = |has| items.iter().filter(|i| i.has_example == has).map(|i| i.shown.as_str()).collect::<Vec<_>>();
        assert_eq!(shown(true), [": function x::Shown::new", ": trait x::part::Do"]);
        let lacking = [": assoc_const x::Shown::MAX", ": function x::part::Do::can", "src/a.rs:5: struct x::Shown"];
        assert_eq!(shown(false), lacking);
        let failed = judge(&items, true);
        assert_eq!((failed.counts.failed, failed.details), (1, lacking.join("\n")));
        let counted = judge(&items, false);
        assert_eq!((counted.counts.passed, counted.note.as_str()), (1, "2 of 5 public items have an example"));
    }
}
