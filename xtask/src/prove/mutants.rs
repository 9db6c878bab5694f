//! Mutation testing by cargo-mutants: each change to the code that no test notices is listed. Each file is judged by the
//! tests of its policy, so that a mutant takes seconds; whoever survives them may still be caught by others.

use std::path::Path;
use std::time::Duration;

use crate::Stop;
use crate::steps::{Bench, Counts, Step, Verdict};
use crate::tools::Component;
use crate::workspace::Workspace;

/// A mutant that makes a test run for ever is noticed as well.
const TIMEOUT_SECONDS: &str = "60";
/// More survivors than this part are a failure.
const BEARABLE: f64 = 0.05;

/// Files of a policy, and the tests that are asked about them.
struct Part {
    name: &'static str,
    files: &'static [&'static str],
    tests: &'static [&'static str],
}

const PARTS: &[Part] = &[
    Part {
        name: "breaker",
        files: &[
            "circuit_breaker.rs",
            "circuit_breaker/*.rs",
            "circuit_breaker/machine/*.rs",
            "window.rs",
            "window/*.rs",
        ],
        tests: &["circuit_breaker", "circuit_breaker_model", "circuit_breaker_times", "circuit_breaker_windows"],
    },
    Part {
        name: "limiter",
        files: &["rate_limiter.rs", "rate_limiter/*.rs"],
        tests: &[
            "rate_limiter",
            "rate_limiter_changes",
            "rate_limiter_reservations",
            "rate_limiter_window",
            "keyed_rate_limiter",
            "keyed_rate_limiter_waiting",
        ],
    },
    Part {
        name: "retry and budget",
        files: &["retry.rs", "retry/*.rs"],
        tests: &["retry", "retry_budget", "retry_results", "mutants_retry"],
    },
    Part { name: "hedge", files: &["hedge.rs", "hedge/*.rs"], tests: &["hedge"] },
    Part { name: "deadline", files: &["deadline.rs"], tests: &["deadline"] },
    Part {
        name: "pipeline",
        files: &["pipeline.rs", "pipeline/*.rs"],
        tests: &["pipeline", "pipeline_accounts", "call_options", "composition", "hedge", "timeout"],
    },
];

/// Asked about every file.
const PARITY: &[&str] = &["parity_polly", "parity_resilience4j"];

/// A step for each part with files that `words` name (all when there are none).
///
/// # Errors
/// [`Stop::Setup`] when a word names no file.
pub(super) fn plan<'a>(workspace: &'a Workspace, words: &[String], limit: Duration) -> Result<Vec<Step<'a>>, Stop> {
    let source = workspace.root.join("resilience-core/src");
    let mut steps = Vec::new();
    let mut unknown: Vec<&String> = words.iter().collect();
    for part in PARTS {
        let mut files: Vec<String> = part.files.iter().flat_map(|pattern| expand(&source, pattern)).collect();
        if !words.is_empty() {
            unknown.retain(|word| !files.iter().any(|file| file.contains(word.as_str())));
            files.retain(|file| words.iter().any(|word| file.contains(word.as_str())));
        }
        if !files.is_empty() {
            let name = format!("mutants of {}", part.name);
            steps.push(Step::new("mutants", name, move |bench| run(workspace, bench, part, &files, limit)));
        }
    }
    match unknown.first() {
        Some(word) => Err(Stop::Setup(format!("--mutants {word}: no file that mutants are made of is called so"))),
        None => Ok(steps),
    }
}

/// The files below `source` that a pattern with one `*` at most stands for, in order.
fn expand(source: &Path, pattern: &str) -> Vec<String> {
    let Some((folder, end)) = pattern.split_once('*') else { return vec![pattern.to_owned()] };
    let mut files: Vec<String> = std::fs::read_dir(source.join(folder))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(end) && name != "tests.rs")
        .map(|name| format!("{folder}{name}"))
        .collect();
    files.sort();
    files
}

fn run(
    workspace: &Workspace,
    bench: &mut Bench<'_>,
    part: &Part,
    files: &[String],
    limit: Duration,
) -> Result<Verdict, Stop> {
    let program = match Component::named("cargo-mutants")?.ensure(workspace, bench) {
        Ok(program) => program,
        Err(Stop::Setup(line)) => return Ok(Verdict::skipped("NOT PROVEN: cargo-mutants is missing").details(line)),
        Err(stop) => return Err(stop),
    };
    let output = workspace.target.join("prove/mutants").join(part.name.replace(' ', "-"));
    std::fs::create_dir_all(&output).map_err(|error| Stop::write(&output, &error))?;
    let mut command = std::process::Command::new(program);
    command.current_dir(&workspace.root);
    command.args(["mutants", "--package", "resilience-core", "--timeout", TIMEOUT_SECONDS, "--no-shuffle", "--output"]);
    command.arg(&output);
    // The copies share what is built of the dependencies.
    command.env("CARGO_TARGET_DIR", workspace.target.join("mutants")).env("PROPTEST_CASES", "32");
    for file in files {
        command.args(["--file", &format!("resilience-core/src/{file}")]);
    }
    // To cargo, not to `cargo test` alone: tests that are not run need not be built either.
    command.arg("--cargo-arg=--lib");
    for test in part.tests.iter().chain(PARITY) {
        if workspace.root.join(format!("resilience-core/tests/{test}.rs")).is_file() {
            command.arg(format!("--cargo-arg=--test={test}"));
        }
    }
    let ended = bench.run(&mut command, limit)?;
    let found = Found::read(&output.join("mutants.out"));
    if found.judged() == 0 {
        return Ok(Verdict::failed(format!("no mutant was judged: {ended}")));
    }
    Ok(found.verdict(matches!(ended, crate::process::Ended::TimedOut(_))))
}

/// What came of the mutants: those that live, one a line, and how many do not.
#[derive(Debug, Default)]
struct Found {
    missed: Vec<String>,
    caught: usize,
}

impl Found {
    fn read(folder: &Path) -> Self {
        let lines = |name: &str| -> Vec<String> {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.lines().map(ToOwned::to_owned).collect()
        };
        Self { missed: lines("missed.txt"), caught: lines("caught.txt").len() + lines("timeout.txt").len() }
    }

    fn judged(&self) -> usize {
        self.missed.len() + self.caught
    }

    fn verdict(&self, stopped: bool) -> Verdict {
        let survived = self.missed.len() as f64 / self.judged() as f64;
        let mut note = format!("{} of {} survived ({:.1} %)", self.missed.len(), self.judged(), survived * 100.0);
        if stopped {
            note.push_str("; stopped before the end, its time was over");
        }
        let many = survived > BEARABLE;
        let counts = Counts {
            passed: self.caught as u64,
            failed: if many { self.missed.len() as u64 } else { 0 },
            skipped: if many { 0 } else { self.missed.len() as u64 },
        };
        Verdict { counts, note, details: self.missed.join("\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_files_and_tests() {
        let workspace = Workspace::load(&crate::workspace::root().unwrap()).unwrap();
        let core = workspace.root.join("resilience-core");
        for part in PARTS {
            for file in part.files.iter().flat_map(|pattern| expand(&core.join("src"), pattern)) {
                assert!(core.join("src").join(&file).is_file(), "{file}");
            }
            let own = part.tests.iter().filter(|test| !test.starts_with("mutants_"));
            for test in own.chain(PARITY) {
                assert!(core.join(format!("tests/{test}.rs")).is_file(), "{test}");
            }
        }
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            plan(&workspace, &words, Duration::ZERO)
                .map(|steps| steps.into_iter().map(|step| step.name).collect::<Vec<_>>())
                .map_err(|stop| stop.to_string())
        };
        assert_eq!(
            names(&["backoff.rs", "deadline"]),
            Ok(vec!["mutants of retry and budget".to_owned(), "mutants of deadline".to_owned()])
        );
        assert!(names(&["backof.rs"]).unwrap_err().starts_with("--mutants backof.rs: no file"));
        assert_eq!(names(&[]).map(|names| names.len()), Ok(PARTS.len()));
    }

    #[test]
    fn few_survivors_are_told_and_many_are_a_failure() {
        let verdict = |missed: usize, caught| {
            let found = Found { missed: vec!["replace + with -".to_owned(); missed], caught };
            let verdict = found.verdict(false);
            (verdict.counts.failed, verdict.counts.skipped, verdict.note)
        };
        assert_eq!(verdict(1, 99), (0, 1, "1 of 100 survived (1.0 %)".to_owned()));
        assert_eq!(verdict(6, 94), (6, 0, "6 of 100 survived (6.0 %)".to_owned()));
    }
}
