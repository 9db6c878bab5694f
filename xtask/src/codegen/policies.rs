//! `docs/catalog/policies.toml`: the guards' breakers, limiters, recovery plans and thresholds, checked and turned into
//! constants for the guards and a page for people. It knows names and numbers, not what the policies do with them.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::{File, HEADER, source};
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

impl Strategy {
    fn words(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Fallback => "fallback",
            Self::CircuitBreak => "circuit break",
            Self::GracefulDegrade => "graceful degradation",
        }
    }
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
        let unit = ["ms", "s", "min", "h"]
            .into_iter()
            .find(|unit| *unit == &text[digits..])?;
        // Ten years: far above any sense, far below any overflow.
        let number = text[..digits]
            .parse()
            .ok()
            .filter(|number| (1..=315_360_000).contains(number))?;
        Some(Self { number, unit })
    }

    fn expression(self) -> String {
        match self.unit {
            "ms" => format!("Duration::from_millis({})", grouped(self.number)),
            "min" => format!("Duration::from_secs({})", grouped(self.number * 60)),
            "h" => format!("Duration::from_secs({})", grouped(self.number * 3600)),
            _ => format!("Duration::from_secs({})", grouped(self.number)),
        }
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
            de::Error::custom(format!(
                "`{text}` is no duration; allowed: a whole number above 0 and ms, s, min or h"
            ))
        })
    }
}

/// Digits in groups of three, as clippy wants literals.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// The files made of the catalogue under `root`.
pub(super) fn generate(root: &Path) -> Result<Vec<File>, Stop> {
    let catalog =
        read(&source(root, SOURCE)?).map_err(|line| Stop::Setup(format!("{SOURCE}: {line}")))?;
    Ok(vec![
        File {
            path: "parsercraft-guard/src/defaults.rs",
            content: constants(&catalog),
        },
        File {
            path: "docs/reference/defaults.md",
            content: page(&catalog),
        },
    ])
}

/// Reads and checks; the error is one line that says what is allowed.
fn read(text: &str) -> Result<Catalog, String> {
    let catalog: Catalog = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message().replace('\n', " "))
    })?;
    let mut names = Vec::new();
    let mut name = |name: &String| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
            return Err(format!(
                "name `{name}`; allowed: lower case letters, digits and _"
            ));
        }
        if names.contains(name) {
            return Err(format!(
                "name `{name}` is given twice; each name stands for one thing"
            ));
        }
        names.push(name.clone());
        Ok(())
    };
    let positive = |of: &str, field: &str, value: u32| {
        if value == 0 {
            Err(format!(
                "`{field}` of {of} is 0; allowed: 1 to {}",
                u32::MAX
            ))
        } else {
            Ok(())
        }
    };
    for Breaker {
        name: of,
        consecutive_failures,
        half_open_successes,
        ..
    } in &catalog.breaker
    {
        name(of)?;
        positive(of, "consecutive_failures", *consecutive_failures)?;
        positive(of, "half_open_successes", *half_open_successes)?;
    }
    for Limiter {
        name: of, permits, ..
    } in &catalog.limiter
    {
        name(of)?;
        positive(of, "permits", *permits)?;
    }
    for Plan {
        operation,
        strategy,
        max_attempts,
        ..
    } in &catalog.plan
    {
        name(operation)?;
        match (strategy, max_attempts) {
            (Strategy::Retry, Some(attempts)) => positive(operation, "max_attempts", *attempts)?,
            (Strategy::Retry, None) => {
                return Err(format!("{operation} retries; it needs `max_attempts`"));
            }
            (_, Some(_)) => {
                return Err(format!(
                    "{operation} doesn't retry; `max_attempts` has no meaning for it"
                ));
            }
            (_, None) => {}
        }
    }
    for Threshold {
        name: of, above, ..
    } in &catalog.threshold
    {
        name(of)?;
        if let Measure::Ratio(ratio) = above
            && !(*ratio > 0.0 && *ratio < 1.0)
        {
            return Err(format!(
                "`above` of {of} is {ratio}; allowed: a ratio between 0 and 1, or a duration"
            ));
        }
    }
    Ok(catalog)
}

/// The guards' constants, as rustfmt would write them.
fn constants(catalog: &Catalog) -> String {
    let mut text = format!(
        "//! Names and limits of the guards' policies, as the guards use them unless configured otherwise.\n\
         //!\n\
         //! {HEADER} from `{SOURCE}`: change that file, never this one.\n\n\
         use std::time::Duration;\n"
    );
    let mut constant = |doc: String, name: String, kind: &str, value: String| {
        let _ = write!(text, "\n/// {doc}\npub const {name}: {kind} = {value};\n");
    };
    for breaker in &catalog.breaker {
        let upper = breaker.name.to_uppercase();
        let doc = format!(
            "Breaker of the {} guard for {}.",
            breaker.guard, breaker.protects
        );
        constant(doc, upper.clone(), "&str", format!("\"{}\"", breaker.name));
        let doc = format!("Failures in a row that open [`{upper}`].");
        constant(
            doc,
            format!("{upper}_FAILURES"),
            "u32",
            grouped(breaker.consecutive_failures.into()),
        );
        let doc = format!("Time for which [`{upper}`] stays open before it lets probes through.");
        constant(
            doc,
            format!("{upper}_OPEN_FOR"),
            "Duration",
            breaker.open_for.expression(),
        );
        let doc = format!("Probes in a row that must succeed to close [`{upper}`].");
        constant(
            doc,
            format!("{upper}_PROBES"),
            "u32",
            grouped(breaker.half_open_successes.into()),
        );
    }
    for limiter in &catalog.limiter {
        let upper = limiter.name.to_uppercase();
        let doc = format!(
            "Limiter of the {} guard for {}.",
            limiter.guard, limiter.limits
        );
        constant(doc, upper.clone(), "&str", format!("\"{}\"", limiter.name));
        let doc = format!("Permits of [`{upper}`] in each [`{upper}_PER`].");
        constant(
            doc,
            format!("{upper}_PERMITS"),
            "u32",
            grouped(limiter.permits.into()),
        );
        let doc = format!("Time in which [`{upper}`] gives [`{upper}_PERMITS`].");
        constant(
            doc,
            format!("{upper}_PER"),
            "Duration",
            limiter.per.expression(),
        );
    }
    for plan in &catalog.plan {
        let upper = plan.operation.to_uppercase();
        let doc = format!(
            "Operation of the {} guard that recovers by {}.",
            plan.guard,
            plan.strategy.words()
        );
        constant(
            doc,
            upper.clone(),
            "&str",
            format!("\"{}\"", plan.operation),
        );
        if let Some(attempts) = plan.max_attempts {
            let doc = format!("Attempts at [`{upper}`], the first one among them.");
            constant(
                doc,
                format!("{upper}_ATTEMPTS"),
                "u32",
                grouped(attempts.into()),
            );
        }
        let doc = format!("Time that recovering [`{upper}`] may take.");
        constant(
            doc,
            format!("{upper}_TIME_LIMIT"),
            "Duration",
            plan.time_limit.expression(),
        );
    }
    for threshold in &catalog.threshold {
        let upper = threshold.name.to_uppercase();
        let doc = format!(
            "An operator should look when this is exceeded: {}.",
            threshold.measures
        );
        match threshold.above {
            Measure::Ratio(ratio) => constant(doc, upper, "f64", format!("{ratio:?}")),
            Measure::Time(span) => constant(doc, upper, "Duration", span.expression()),
        }
    }
    text
}

/// The page for people.
fn page(catalog: &Catalog) -> String {
    let mut text = format!(
        "<!-- {HEADER} from {SOURCE}: change that file, never this one. -->\n\n# Defaults of the guards\n"
    );
    let mut section = |title: &str, lead: &str, head: &[&str], rows: Vec<Vec<String>>| {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = line(&vec!["---".to_owned(); head.len()]);
        let head = line(&head.iter().map(ToString::to_string).collect::<Vec<_>>());
        let rows: String = rows.iter().map(|row| line(row)).collect();
        let _ = write!(text, "\n## {title}\n\n{lead}\n\n{head}{rule}{rows}");
    };
    let code = |name: &str| format!("`{name}`");
    section(
        "Circuit breakers",
        "A breaker opens after so many failures in a row, stays open for a time, then closes after so many successful probes.",
        &[
            "breaker", "guard", "protects", "failures", "open for", "probes",
        ],
        (catalog.breaker.iter())
            .map(|b| {
                let (failures, probes) = (
                    b.consecutive_failures.to_string(),
                    b.half_open_successes.to_string(),
                );
                vec![
                    code(&b.name),
                    b.guard.clone(),
                    b.protects.clone(),
                    failures,
                    b.open_for.to_string(),
                    probes,
                ]
            })
            .collect(),
    );
    section(
        "Rate limiters",
        "A limiter gives so many permits in each period.",
        &["limiter", "guard", "limits", "permits", "per"],
        (catalog.limiter.iter())
            .map(|l| {
                vec![
                    code(&l.name),
                    l.guard.clone(),
                    l.limits.clone(),
                    l.permits.to_string(),
                    l.per.to_string(),
                ]
            })
            .collect(),
    );
    section(
        "Recovery plans",
        "What is done when an operation fails, and how long that may take.",
        &["operation", "guard", "strategy", "attempts", "time limit"],
        (catalog.plan.iter())
            .map(|p| {
                let attempts = p
                    .max_attempts
                    .map_or_else(|| "–".to_owned(), |n| n.to_string());
                let strategy = p.strategy.words().to_owned();
                vec![
                    code(&p.operation),
                    p.guard.clone(),
                    strategy,
                    attempts,
                    p.time_limit.to_string(),
                ]
            })
            .collect(),
    );
    section(
        "Thresholds",
        "From where an operator should look. An open breaker always deserves a look.",
        &["threshold", "measures", "above"],
        (catalog.threshold.iter())
            .map(|t| {
                let above = match t.above {
                    Measure::Ratio(ratio) => format!("{} %", ratio * 100.0),
                    Measure::Time(span) => span.to_string(),
                };
                vec![code(&t.name), t.measures.clone(), above]
            })
            .collect(),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real() -> String {
        source(&crate::workspace::root().unwrap(), SOURCE).unwrap()
    }

    fn refused(from: &str, to: &str) -> String {
        let text = real();
        assert!(text.contains(from), "{from}");
        read(&text.replacen(from, to, 1))
            .err()
            .unwrap_or_else(|| panic!("{to} was accepted"))
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
    fn generated_rust_is_as_rustfmt_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("defaults.rs");
        std::fs::write(&file, constants(&read(&real()).unwrap())).unwrap();
        let rustfmt = std::process::Command::new("rustfmt")
            .args(["--check", "--edition", "2024"])
            .arg(&file)
            .output();
        let rustfmt = rustfmt.unwrap();
        assert!(
            rustfmt.status.success(),
            "{}",
            String::from_utf8_lossy(&rustfmt.stdout)
        );
    }

    #[test]
    fn one_of_each_kind_reads_well() {
        let text = constants(&read(&real()).unwrap());
        let from = |start: &str| {
            text.lines()
                .skip_while(|l| !l.contains(start))
                .take(3)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let shown = [
            "Breaker of the registry",
            "Permits of [`LSP",
            "Attempts at",
            "one registry fetch",
        ]
        .map(from);
        insta::assert_snapshot!(shown.join("\n"), @r#"
        /// Breaker of the registry guard for requests to one registry.
        pub const REGISTRY_FETCH: &str = "registry_fetch";

        /// Permits of [`LSP_REQUESTS`] in each [`LSP_REQUESTS_PER`].
        pub const LSP_REQUESTS_PERMITS: u32 = 2000;

        /// Attempts at [`FETCH_PACKAGE`], the first one among them.
        pub const FETCH_PACKAGE_ATTEMPTS: u32 = 3;

        /// An operator should look when this is exceeded: one registry fetch.
        pub const REGISTRY_FETCH_SLOW: Duration = Duration::from_secs(5);
        "#);
    }

    #[test]
    fn durations_need_a_number_and_a_unit() {
        let shown = |text| Span::parse(text).map(|span| format!("{span} = {}", span.expression()));
        assert_eq!(
            shown("250ms").as_deref(),
            Some("250 ms = Duration::from_millis(250)")
        );
        assert_eq!(
            shown("5min").as_deref(),
            Some("5 min = Duration::from_secs(300)")
        );
        assert_eq!(
            shown("100000s").as_deref(),
            Some("100000 s = Duration::from_secs(100_000)")
        );
        for wrong in [
            "",
            "s",
            "5",
            "0s",
            "-5s",
            "5m",
            "1.5s",
            "99999999999999999999s",
            "315360001h",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
