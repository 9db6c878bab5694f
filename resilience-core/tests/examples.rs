//! What is promised of the examples: short, with a head that says how to run them, asserting what they show. That they
//! run is `cargo xtask test`'s to see.

use std::fs;
use std::path::Path;

fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let read =
        |path: &Path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap());
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).map(|path| read(&path)).collect()
}

#[test]
fn a_real_http_call_with_four_policies_takes_at_most_12_lines() {
    let (_, text) = examples().into_iter().find(|(name, _)| name == "http_client").expect("the example is there");
    let (_, region) = text.split_once("// 12 lines: begin\n").expect("the region begins");
    let (region, _) = region.split_once("// 12 lines: end\n").expect("the region ends");
    let lines: Vec<_> = region.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert!((1..=12).contains(&lines.len()), "{} lines: {region}", lines.len());
    for part in [".retry(", ".circuit_breaker(", ".rate_limiter(", ".timeout(", ".send()", ".await?"] {
        assert!(region.contains(part), "{part}");
    }
}

#[test]
fn every_example_says_how_to_run_it_and_asserts_what_it_shows() {
    let examples = examples();
    assert!(examples.len() >= 10, "{}", examples.len());
    for (name, text) in examples {
        let head: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let command = format!("`cargo run -p resilience-core --example {name}");
        assert!(head.iter().any(|line| line.contains(&command)), "{name}: no line with {command}");
        assert!(text.contains("assert"), "{name}");
    }
}
