//! The catalogue of policies as constants for the guards and as a page for people. It trusts what was checked before.

use std::fmt::Write as _;

use super::super::HEADER;
use super::{Catalog, Measure, SOURCE, Span, Strategy};

/// The guards' constants, as rustfmt would write them.
pub(super) fn constants(catalog: &Catalog) -> String {
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
        let doc = format!("Breaker of the {} guard for {}.", breaker.guard, breaker.protects);
        constant(doc, upper.clone(), "&str", format!("\"{}\"", breaker.name));
        let doc = format!("Failures in a row that open [`{upper}`].");
        constant(doc, format!("{upper}_FAILURES"), "u32", grouped(breaker.consecutive_failures.into()));
        let doc = format!("Time for which [`{upper}`] stays open before it lets probes through.");
        constant(doc, format!("{upper}_OPEN_FOR"), "Duration", breaker.open_for.expression());
        let doc = format!("Probes in a row that must succeed to close [`{upper}`].");
        constant(doc, format!("{upper}_PROBES"), "u32", grouped(breaker.half_open_successes.into()));
    }
    for limiter in &catalog.limiter {
        let upper = limiter.name.to_uppercase();
        let doc = format!("Limiter of the {} guard for {}.", limiter.guard, limiter.limits);
        constant(doc, upper.clone(), "&str", format!("\"{}\"", limiter.name));
        let doc = format!("Permits of [`{upper}`] in each [`{upper}_PER`].");
        constant(doc, format!("{upper}_PERMITS"), "u32", grouped(limiter.permits.into()));
        let doc = format!("Time in which [`{upper}`] gives [`{upper}_PERMITS`].");
        constant(doc, format!("{upper}_PER"), "Duration", limiter.per.expression());
    }
    for plan in &catalog.plan {
        let upper = plan.operation.to_uppercase();
        let doc = format!("Operation of the {} guard that recovers by {}.", plan.guard, plan.strategy.words());
        constant(doc, upper.clone(), "&str", format!("\"{}\"", plan.operation));
        if let Some(attempts) = plan.max_attempts {
            let doc = format!("Attempts at [`{upper}`], the first one among them.");
            constant(doc, format!("{upper}_ATTEMPTS"), "u32", grouped(attempts.into()));
        }
        let doc = format!("Time that recovering [`{upper}`] may take.");
        constant(doc, format!("{upper}_TIME_LIMIT"), "Duration", plan.time_limit.expression());
    }
    for threshold in &catalog.threshold {
        let upper = threshold.name.to_uppercase();
        let doc = format!("An operator should look when this is exceeded: {}.", threshold.measures);
        match threshold.above {
            Measure::Ratio(ratio) => constant(doc, upper, "f64", format!("{ratio:?}")),
            Measure::Time(span) => constant(doc, upper, "Duration", span.expression()),
        }
    }
    text
}

/// The page for people.
pub(super) fn page(catalog: &Catalog) -> String {
    let mut text =
        format!("<!-- {HEADER} from {SOURCE}: change that file, never this one. -->\n\n# Defaults of the guards\n");
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
        &["breaker", "guard", "protects", "failures", "open for", "probes"],
        (catalog.breaker.iter())
            .map(|b| {
                let (failures, probes) = (b.consecutive_failures.to_string(), b.half_open_successes.to_string());
                vec![code(&b.name), b.guard.clone(), b.protects.clone(), failures, b.open_for.to_string(), probes]
            })
            .collect(),
    );
    section(
        "Rate limiters",
        "A limiter gives so many permits in each period, all of them at once if need be: the burst equals the permits.",
        &["limiter", "guard", "limits", "permits", "per"],
        (catalog.limiter.iter())
            .map(|l| vec![code(&l.name), l.guard.clone(), l.limits.clone(), l.permits.to_string(), l.per.to_string()])
            .collect(),
    );
    section(
        "Recovery plans",
        "What is done when an operation fails, and how long that may take.",
        &["operation", "guard", "strategy", "attempts", "time limit"],
        (catalog.plan.iter())
            .map(|p| {
                let attempts = p.max_attempts.map_or_else(|| "–".to_owned(), |n| n.to_string());
                let strategy = p.strategy.words().to_owned();
                vec![code(&p.operation), p.guard.clone(), strategy, attempts, p.time_limit.to_string()]
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

impl Span {
    pub(super) fn expression(self) -> String {
        match self.unit {
            "ms" => format!("Duration::from_millis({})", grouped(self.number)),
            "min" => format!("Duration::from_secs({})", grouped(self.number * 60)),
            "h" => format!("Duration::from_secs({})", grouped(self.number * 3600)),
            _ => format!("Duration::from_secs({})", grouped(self.number)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codegen::policies::{read, tests::real};

    #[test]
    fn generated_rust_is_as_rustfmt_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("defaults.rs");
        std::fs::write(&file, constants(&read(&real()).unwrap())).unwrap();
        let rustfmt = std::process::Command::new("rustfmt").args(["--check", "--edition", "2024"]).arg(&file).output();
        let rustfmt = rustfmt.unwrap();
        assert!(rustfmt.status.success(), "{}", String::from_utf8_lossy(&rustfmt.stdout));
    }

    #[test]
    fn one_of_each_kind_reads_well() {
        let text = constants(&read(&real()).unwrap());
        let from = |start: &str| text.lines().skip_while(|l| !l.contains(start)).take(3).collect::<Vec<_>>().join("\n");
        let shown = ["Breaker of the registry", "Permits of [`LSP", "Attempts at", "one registry fetch"].map(from);
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
}
