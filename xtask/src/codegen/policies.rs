//! `docs/catalog/policies.toml`: the guards' breakers, limiters, recovery plans and thresholds, checked and turned into
//! constants for the guards and a page for people. It knows names and numbers, not what the policies do with them.

mod render;

use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::{File, source};
use crate::Stop;

const SOURCE: &str = "docs/catalog/policies.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    breaker: Vec<Breaker>,
    limiter: Vec<Limiter>,
    plan: Vec<Plan>,
    threshold: Vec<Threshold>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Breaker {
    name: String,
    guard: String,
    protects: String,
    consecutive_failures: u32,
    open_for: Span,
    half_open_successes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limiter {
    name: String,
    guard: String,
    limits: String,
    permits: u32,
    per: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    operation: String,
    guard: String,
    strategy: Strategy,
    max_attempts: Option<u32>,
    time_limit: Span,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    Retry,
    Fallback,
    CircuitBreak,
    GracefulDegrade,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    name: String,
    measures: String,
    above: Measure,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Measure {
    Ratio(f64),
    Time(Span),
}

/// A duration as it is written: kept in its own unit, so that constants and page read like the source.
#[derive(Clone, Copy)]
struct Span {
    number: u64,
    unit: &'static str,
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let unit = ["ms", "s", "min", "h"].into_iter().find(|unit| *unit == &text[digits..])?;
        // Ten years: far above any sense, far below any overflow.
        let number = text[..digits].parse().ok().filter(|number| (1..=315_360_000).contains(number))?;
        Some(Self { number, unit })
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.number, self.unit)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is no duration; allowed: a whole number above 0 and ms, s, min or h"))
        })
    }
}

/// The files made of the catalogue under `root`.
pub(super) fn generate(root: &Path) -> Result<Vec<File>, Stop> {
    let catalog = read(&source(root, SOURCE)?).map_err(|line| Stop::Setup(format!("{SOURCE}: {line}")))?;
    Ok(vec![
        File { path: "parsercraft-guard/src/defaults.rs", content: render::constants(&catalog) },
        File { path: "docs/reference/defaults.md", content: render::page(&catalog) },
    ])
}

/// Reads and checks; the error is one line that says what is allowed.
fn read(text: &str) -> Result<Catalog, String> {
    let catalog: Catalog = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message().replace('\n', " "))
    })?;
    let mut names = Vec::new();
    let mut name = |name: &String| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
            return Err(format!("name `{name}`; allowed: lower case letters, digits and _"));
        }
        if names.contains(name) {
            return Err(format!("name `{name}` is given twice; each name stands for one thing"));
        }
        names.push(name.clone());
        Ok(())
    };
    let positive = |of: &str, field: &str, value: u32| {
        if value == 0 { Err(format!("`{field}` of {of} is 0; allowed: 1 to {}", u32::MAX)) } else { Ok(()) }
    };
    for Breaker { name: of, consecutive_failures, half_open_successes, .. } in &catalog.breaker {
        name(of)?;
        positive(of, "consecutive_failures", *consecutive_failures)?;
        positive(of, "half_open_successes", *half_open_successes)?;
    }
    for Limiter { name: of, permits, .. } in &catalog.limiter {
        name(of)?;
        positive(of, "permits", *permits)?;
    }
    for Plan { operation, strategy, max_attempts, .. } in &catalog.plan {
        name(operation)?;
        match (strategy, max_attempts) {
            (Strategy::Retry, Some(attempts)) => positive(operation, "max_attempts", *attempts)?,
            (Strategy::Retry, None) => {
                return Err(format!("{operation} retries; it needs `max_attempts`"));
            }
            (_, Some(_)) => {
                return Err(format!("{operation} doesn't retry; `max_attempts` has no meaning for it"));
            }
            (_, None) => {}
        }
    }
    for Threshold { name: of, above, .. } in &catalog.threshold {
        name(of)?;
        if let Measure::Ratio(ratio) = above
            && !(*ratio > 0.0 && *ratio < 1.0)
        {
            return Err(format!("`above` of {of} is {ratio}; allowed: a ratio between 0 and 1, or a duration"));
        }
    }
    Ok(catalog)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn real() -> String {
        source(&crate::workspace::root().unwrap(), SOURCE).unwrap()
    }

    fn refused(from: &str, to: &str) -> String {
        let text = real();
        assert!(text.contains(from), "{from}");
        read(&text.replacen(from, to, 1)).err().unwrap_or_else(|| panic!("{to} was accepted"))
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_allowed() {
        let lines = [
            refused("consecutive_failures = 10", "consecutive_failures = 0"),
            refused("open_for = \"120s\"", "open_for = \"2 minutes\""),
            refused("name = \"protocol_check\"", "name = \"ast_codegen\""),
            refused("name = \"ast_codegen\"", "name = \"AST codegen\""),
            refused("permits = 500", "permits = 500\nburst = 3"),
            refused("max_attempts = 3", ""),
            refused("above = 0.01", "above = 1.0"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        `consecutive_failures` of ast_codegen is 0; allowed: 1 to 4294967295
        line 26: `2 minutes` is no duration; allowed: a whole number above 0 and ms, s, min or h
        name `ast_codegen` is given twice; each name stands for one thing
        name `AST codegen`; allowed: lower case letters, digits and _
        line 40: unknown field `burst`, expected one of `name`, `guard`, `limits`, `permits`, `per`
        fetch_package retries; it needs `max_attempts`
        `above` of error_ratio_high is 1; allowed: a ratio between 0 and 1, or a duration
        ");
    }

    #[test]
    fn durations_need_a_number_and_a_unit() {
        let shown = |text| Span::parse(text).map(|span| format!("{span} = {}", span.expression()));
        assert_eq!(shown("250ms").as_deref(), Some("250 ms = Duration::from_millis(250)"));
        assert_eq!(shown("5min").as_deref(), Some("5 min = Duration::from_secs(300)"));
        assert_eq!(shown("100000s").as_deref(), Some("100000 s = Duration::from_secs(100_000)"));
        for wrong in ["", "s", "5", "0s", "-5s", "5m", "1.5s", "99999999999999999999s", "315360001h"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
