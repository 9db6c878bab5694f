//! Reads what `cargo test` printed: the summary line of each test program, and programs that died before printing theirs.
//! It counts; it doesn't decide what the counts mean.

use crate::steps::Counts;

/// The sums over all test programs of one `cargo test`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Tests; ignored ones are the skipped.
    pub(super) counts: Counts,
    /// Test programs that began, documentation tests among them.
    pub(super) programs: u64,
    /// Programs that began and never summed up: aborted, killed, out of stack.
    pub(super) broken: u64,
}

/// Reads `output`, in which other text may stand between and around the lines looked for.
pub(super) fn read(output: &str) -> Report {
    let mut report = Report::default();
    let mut open = false;
    for line in output.lines() {
        if is_start(line) {
            report.programs += 1;
            report.broken += u64::from(open);
            open = true;
        } else if let Some(counts) = line.find("test result: ").and_then(|at| summary(&line[at..])) {
            report.counts += counts;
            open = false;
        }
    }
    report.broken += u64::from(open);
    report
}

/// `running 5 tests`
fn is_start(line: &str) -> bool {
    let Some(rest) = line.trim().strip_prefix("running ") else {
        return false;
    };
    let mut words = rest.split(' ');
    words.next().is_some_and(|n| n.parse::<u64>().is_ok())
        && matches!(words.next(), Some("test" | "tests"))
        && words.next().is_none()
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`
fn summary(line: &str) -> Option<Counts> {
    let (_, numbers) = line.split_once(". ")?;
    let mut counts = Counts::default();
    let mut found = 0;
    for part in numbers.split("; ") {
        let Some((number, what)) = part.split_once(' ') else {
            continue;
        };
        let field = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" => &mut counts.skipped,
            _ => continue,
        };
        *field = number.parse().ok()?;
        found += 1;
    }
    (found == 3).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_all_programs_are_added_up() {
        let output = "
   Compiling x v0.1.0
     Running unittests src/lib.rs (target/debug/deps/x-1)

running 3 tests
test a ... ok
test b ... ignored
test c ... FAILED

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests x

running 1 test
test src/lib.rs - y (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s
";
        let counts = Counts { passed: 2, failed: 1, skipped: 1 };
        assert_eq!(read(output), Report { counts, programs: 2, broken: 0 });
    }

    #[test]
    fn a_program_that_dies_without_a_summary_is_counted() {
        let died = "running 2 tests\nthread 'a' has overflowed its stack\nerror: test failed";
        assert_eq!(read(died).broken, 1);
        let between = format!("{died}\nrunning 1 test\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!(
            read(&between),
            Report { counts: Counts { passed: 1, failed: 0, skipped: 0 }, programs: 2, broken: 1 }
        );
    }

    #[test]
    fn text_that_only_looks_like_a_summary_is_left_alone() {
        assert_eq!(read("running out of tests\nrunning 2 tests now\ntest result: unclear\n"), Report::default());
    }

    #[test]
    fn a_summary_behind_other_text_on_its_line_is_found() {
        let output = "running 1 test\nprinted by a child: test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(read(output).counts.passed, 1);
    }
}
