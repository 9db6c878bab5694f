//! The program as people meet it: its list of verbs, its answers to wrong use, its exit codes, and generated files in a
//! workspace of the test's own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn xtask(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        // Where cargo says that the package is; the workspace's root is one above.
        .env("CARGO_MANIFEST_DIR", root.join("xtask"))
        .output()
        .unwrap()
}

fn this_workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder with nothing but a copy of the catalogue.
fn catalogue_alone() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let catalog = root.path().join("docs/catalog");
    fs::create_dir_all(&catalog).unwrap();
    fs::copy(this_workspace().join("docs/catalog/policies.toml"), catalog.join("policies.toml")).unwrap();
    root
}

#[test]
fn alone_it_lists_the_verbs() {
    let output = xtask(this_workspace(), &[]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(words(&output.stdout), @r"
        cargo xtask <verb> [options]; `cargo xtask <verb> --help` tells its options

        run
          drill     Run the guarded toolchain on real input while faults are injected, and write a report (--seed N repeats a run)

        measure
          bench     Measure what calls cost and how that grows; --peers: beside other crates, against the targets

        check
          ci        Check format, lints over all feature sets, docs, generated files, minimum Rust version and licences
          prove     Show what the core claims: models, properties, a simulated fleet, fuzzing, Miri; on request, mutants
          test      Run every test there is, with its own set-up: suites, models, drill, report in a browser
          torture   Do the same cruel thing many times (audit: SIGKILL to a loaded writer) and tell what was lost

        generate
          codegen   Generate constants and reference pages from docs/catalog (--check: only say what is stale)
        ");
}

#[test]
fn wrong_use_is_answered_in_one_line_with_exit_code_2() {
    let answer = |arguments: &[&str]| {
        let output = xtask(this_workspace(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        words(&output.stderr)
    };
    insta::assert_snapshot!(answer(&["tset"]), @"error: there is no verb `tset`; `cargo xtask` lists them");
    insta::assert_snapshot!(answer(&["ci", "--only", "fmt,clipy"]), @"error: --only clipy: no such group; allowed: fmt, generated, places, links, sleeps, msrv, licenses, advisories, clippy, doc, examples, wasm, msrv-build");
    let line = answer(&["test", "--only", "suite"]);
    assert!(line.starts_with("error: --only suite: no such group; allowed: report, suites, "), "{line}");
    let line = answer(&["test", "--package", "serde"]);
    assert!(line.starts_with("error: --package serde: no such library; allowed: "), "{line}");
}

#[test]
fn outside_of_a_workspace_it_says_where_to_run_it() {
    let elsewhere = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["codegen", "--check"])
        .env_remove("CARGO_MANIFEST_DIR")
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    let line = words(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.ends_with("is not inside the workspace; run `cargo xtask` from the checkout\n"), "{line}");
}

#[test]
fn the_committed_generated_files_are_fresh() {
    let output = xtask(this_workspace(), &["codegen", "--check"]);
    assert_eq!((output.status.code(), words(&output.stdout).as_str()), (Some(0), ""));
}

#[test]
fn a_changed_file_is_named_by_the_check_and_mended_by_a_run() {
    let root = catalogue_alone();
    let check = || {
        let output = xtask(root.path(), &["codegen", "--check"]);
        (output.status.code(), words(&output.stdout))
    };
    assert_eq!(xtask(root.path(), &["codegen"]).status.code(), Some(0));
    assert_eq!(check(), (Some(0), String::new()));

    let page = root.path().join("docs/reference/defaults.md");
    let whole = fs::read_to_string(&page).unwrap();
    fs::write(&page, whole.replace("15", "16")).unwrap();
    fs::remove_file(root.path().join("parsercraft-guard/src/defaults.rs")).unwrap();
    let (code, said) = check();
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(said, @r"
        stale: parsercraft-guard/src/defaults.rs
        stale: docs/reference/defaults.md
        refresh with `cargo xtask codegen`, and commit the result
        ");

    assert_eq!(xtask(root.path(), &["codegen"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&page).unwrap(), whole);
    assert_eq!(check().0, Some(0));
}

#[test]
fn a_missing_or_broken_catalogue_changes_nothing_and_is_one_line() {
    let root = catalogue_alone();
    let catalog = root.path().join("docs/catalog/policies.toml");
    let answer = || {
        let output = xtask(root.path(), &["codegen"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(!root.path().join("parsercraft-guard").exists());
        words(&output.stderr)
    };
    let broken = fs::read_to_string(&catalog).unwrap().replace("permits = 500", "permits = -500");
    fs::write(&catalog, broken).unwrap();
    insta::assert_snapshot!(answer(), @"error: docs/catalog/policies.toml: line 40: invalid value: integer `-500`, expected u32");
    fs::remove_file(&catalog).unwrap();
    insta::assert_snapshot!(answer(), @"error: cannot read docs/catalog/policies.toml: No such file or directory (os error 2); restore it, e.g. with `git checkout docs/catalog/policies.toml`");
}

#[test]
fn a_target_that_cannot_be_written_is_one_line_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("occupied");
    fs::write(&file, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["ci", "--only", "fmt"])
        .env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", &file)
        .output()
        .unwrap();
    let line = words(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.starts_with("error: cannot write ") && line.lines().count() == 1, "{line}");
}

#[test]
fn the_readmes_example_is_the_one_that_is_compiled() {
    let read = |path: &str| fs::read_to_string(this_workspace().join(path)).unwrap();
    let (readme, example) = (read("README.md"), read("resilience-core/examples/quick_start.rs"));
    let (_, rest) = example.split_once("// README: begin\n").unwrap();
    let (block, _) = rest.split_once("    // README: end").unwrap();
    let lines: String = block.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect();
    assert!(readme.contains(&lines), "README.md does not contain:\n{lines}");
}
