//! Reads what callgrind counted: one part a run of a case, two runs of different length a case. The difference of the two
//! has nothing in it but calls.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// What `resilience-bench instructions` writes: which runs there were, in order.
#[derive(Debug, Deserialize)]
pub(super) struct Runs {
    pub(super) calls: [u64; 2],
    pub(super) cases: Vec<String>,
}

/// Instructions a call, by case. Empty when there aren't as many parts as runs: then no part can be told from another.
///
/// `parts(n)` is the text of part n, from 1. The first ends where the first run begins.
pub(super) fn per_call(runs: &Runs, parts: impl Fn(usize) -> Option<String>) -> BTreeMap<String, f64> {
    let total = |number: usize| total(&parts(number)?);
    let [short, long] = runs.calls;
    let more = long.saturating_sub(short).max(1) as f64;
    let each = (0..).zip(&runs.cases).map(|(index, case)| {
        let first = 2 + 2 * index;
        Some((case.clone(), total(first + 1)?.saturating_sub(total(first)?) as f64 / more))
    });
    let all: Option<BTreeMap<String, f64>> = each.collect();
    let one_too_many = total(2 + 2 * runs.cases.len()).is_some();
    all.filter(|_| !one_too_many).unwrap_or_default()
}

/// The part files beside `out`.
pub(super) fn read(out: &Path, number: usize) -> Option<String> {
    std::fs::read_to_string(out.with_extension(number.to_string())).ok()
}

/// How many instructions a part has.
fn total(part: &str) -> Option<u64> {
    part.lines().find_map(|line| line.strip_prefix("summary: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Runs {
        Runs { calls: [200, 1_200], cases: vec!["a".into(), "b".into()] }
    }

    fn parts(totals: &[u64]) -> impl Fn(usize) -> Option<String> {
        let totals = totals.to_vec();
        move |number| Some(format!("events: Ir\nsummary: {}\n\nfn=x\n", totals.get(number.checked_sub(1)?)?))
    }

    #[test]
    fn the_difference_of_two_runs_is_the_calls() {
        let found = per_call(&runs(), parts(&[999_999, 5_000, 45_000, 2_100, 12_100]));
        assert_eq!(found, BTreeMap::from([("a".to_owned(), 40.0), ("b".to_owned(), 10.0)]));
    }

    #[test]
    fn parts_that_do_not_match_the_runs_are_not_guessed_at() {
        assert!(per_call(&runs(), parts(&[1, 2, 3, 4])).is_empty());
        assert!(per_call(&runs(), parts(&[1, 2, 3, 4, 5, 6])).is_empty());
        assert!(per_call(&runs(), |_| Some("nothing".into())).is_empty());
    }
}
