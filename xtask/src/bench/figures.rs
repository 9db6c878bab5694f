//! What was measured, put together and judged: rows with their cases, ratios, targets, promises.
//!
//! [`Report`] is the schema of `target/bench/peers.json`: `nanos` are per call and by number of threads (of several threads:
//! from the first beginning to the last end, divided by all calls); `allocations` and `instructions` are per call, on one
//! thread; a `ratio` is ours divided by the peer's, so smaller is better, and 1 is as fast; what could not be measured is
//! absent, and says why in `failed`. It measures nothing and shows nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Whose cases are ours; variants of it add a comma and words.
pub(super) const OURS: &str = "resilience-core";

/// What `resilience-bench time` writes.
#[derive(Debug, Deserialize)]
pub(super) struct Times {
    pub(super) rows: Vec<RowWork>,
    pub(super) cases: Vec<CaseName>,
    pub(super) nanos: BTreeMap<u32, BTreeMap<String, Timed>>,
    pub(super) failed: Vec<Failed>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct RowWork {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) work: String,
    pub(super) no_allocations: bool,
    pub(super) targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) threads: u32,
    pub(super) peer: String,
    pub(super) at_most: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct CaseName {
    pub(super) id: String,
    pub(super) row: String,
    pub(super) who: String,
    pub(super) package: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Timed {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) slices: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) id: String,
    pub(super) reason: String,
}

/// What `count` writes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Counts {
    pub(super) allocations: BTreeMap<String, f64>,
    pub(super) bytes: Vec<Bytes>,
}

/// What one object, or each of many, takes in memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bytes {
    pub(super) what: String,
    pub(super) who: String,
    pub(super) each: f64,
}

/// All that the steps of one run brought.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) machine: Machine,
    pub(super) quick: bool,
    pub(super) times: Times,
    pub(super) counts: Counts,
    /// By case; empty where there was nothing to count with.
    pub(super) instructions: BTreeMap<String, f64>,
    /// Peers that don't build, and why.
    pub(super) left_out: Vec<Failed>,
    /// Versions by package.
    pub(super) versions: BTreeMap<String, String>,
}

/// One run, judged.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    /// A smoke run: the figures mean little.
    pub(super) quick: bool,
    pub(super) rows: Vec<Row>,
    pub(super) bytes: Vec<Bytes>,
    pub(super) left_out: Vec<Failed>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) work: String,
    pub(super) cases: Vec<Case>,
    /// Ours against the fastest of the others, by threads.
    pub(super) ratio_to_best: BTreeMap<u32, f64>,
    pub(super) targets: Vec<Judged>,
    /// Whether ours allocated nothing, where that is promised.
    pub(super) no_allocations: Option<Verdict>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Case {
    pub(super) who: String,
    pub(super) version: Option<String>,
    pub(super) nanos: BTreeMap<u32, Timed>,
    pub(super) instructions: Option<f64>,
    pub(super) allocations: Option<f64>,
    pub(super) failed: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Judged {
    #[serde(flatten)]
    pub(super) target: Target,
    pub(super) ratio: Option<f64>,
    pub(super) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Met,
    NotMet,
    NotMeasured,
}

impl Verdict {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::NotMeasured => "not measured",
        }
    }

    fn of(held: Option<bool>) -> Self {
        held.map_or(Self::NotMeasured, |held| if held { Self::Met } else { Self::NotMet })
    }
}

impl Case {
    /// Ours, or a variant of ours.
    pub(super) fn is_ours(&self) -> bool {
        self.who.starts_with(OURS)
    }
}

impl Report {
    /// Puts together and judges.
    pub(super) fn new(measured: Measured) -> Self {
        let rows = measured.times.rows.iter().map(|work| row(work, &measured)).collect();
        let Measured { machine, quick, counts, left_out, .. } = measured;
        Self { machine, quick, rows, bytes: counts.bytes, left_out }
    }

    /// Every row with every target it is held to.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&Row, &Judged)> {
        self.rows.iter().flat_map(|row| row.targets.iter().map(move |judged| (row, judged)))
    }

    /// Whether ours allocates where it promised not to.
    pub(super) fn promise_broken(&self) -> bool {
        self.rows.iter().any(|row| row.no_allocations == Some(Verdict::NotMet))
    }

    /// Whether every target is met, of time and of allocations.
    pub(super) fn all_met(&self) -> bool {
        self.targets().all(|(_, judged)| judged.verdict == Verdict::Met)
            && self.rows.iter().all(|row| row.no_allocations.is_none_or(|verdict| verdict == Verdict::Met))
    }
}

impl Row {
    pub(super) fn ours(&self) -> Option<&Case> {
        self.cases.iter().find(|case| case.who == OURS)
    }
}

/// The figure of a case on so many threads. The fastest slice is the one that least was in the way of; where threads must
/// take turns, the fastest one is where they didn't meet, so there it is the one in the middle.
pub(super) fn figure(case: &Case, threads: u32, machine: &Machine) -> Option<f64> {
    let timed = case.nanos.get(&threads)?;
    Some(if threads <= machine.processors { timed.min } else { timed.median })
}

fn row(work: &RowWork, measured: &Measured) -> Row {
    let machine = &measured.machine;
    let named = measured.times.cases.iter().filter(|name| name.row == work.id);
    let cases: Vec<Case> = named.map(|name| case(name, measured)).collect();
    let ours = cases.iter().find(|case| case.who == OURS);
    let ratio = |threads: u32, peer: &Case| {
        Some(figure(ours?, threads, machine)? / figure(peer, threads, machine).filter(|nanos| *nanos > 0.0)?)
    };
    let against = |target: &Target| cases.iter().find(|case| case.who == target.peer);
    let judge = |target: &Target| {
        let ratio = against(target).and_then(|peer| ratio(target.threads, peer));
        let verdict = Verdict::of(ratio.map(|ratio| ratio <= target.at_most));
        Judged { target: target.clone(), ratio, verdict }
    };
    let targets = work.targets.iter().map(judge).collect();
    let best = |threads: &u32| {
        // The largest ratio is the one to the fastest.
        let ratios = cases.iter().filter(|case| !case.is_ours()).filter_map(|peer| ratio(*threads, peer));
        ratios.max_by(f64::total_cmp).map(|ratio| (*threads, ratio))
    };
    let ratio_to_best = measured.times.nanos.keys().filter_map(best).collect();
    let allocates = ours.and_then(|ours| ours.allocations).map(|allocations| allocations == 0.0);
    let no_allocations = work.no_allocations.then(|| Verdict::of(allocates));
    let (id, title) = (work.id.clone(), work.title.clone());
    Row { id, title, work: work.work.clone(), cases, ratio_to_best, targets, no_allocations }
}

fn case(name: &CaseName, measured: &Measured) -> Case {
    let times = &measured.times;
    let on = |(threads, cases): (&u32, &BTreeMap<String, Timed>)| Some((*threads, *cases.get(&name.id)?));
    Case {
        who: name.who.clone(),
        version: name.package.as_ref().and_then(|package| measured.versions.get(package)).cloned(),
        nanos: times.nanos.iter().filter_map(on).collect(),
        instructions: measured.instructions.get(&name.id).copied(),
        allocations: measured.counts.allocations.get(&name.id).copied(),
        failed: times.failed.iter().find(|failed| failed.id == name.id).map(|failed| failed.reason.clone()),
    }
}

/// What `resilience-bench growth` writes: one plot of one quantity's growth.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plot {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) lines: Vec<Line>,
}

/// A line of a plot: what there is, and what was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) who: String,
    pub(super) points: Vec<(u64, f64)>,
}

/// The schema of `target/bench/growth.json`: plots of nanoseconds a call, and the workspace's own benchmarks by name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Growth {
    pub(super) machine: Machine,
    pub(super) quick: bool,
    pub(super) plots: Vec<Plot>,
    pub(super) criterion: Vec<Criterion>,
}

/// One of the workspace's own benchmarks: its estimate with its unit, as criterion prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Criterion {
    pub(super) name: String,
    pub(super) time: String,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn timed(min: f64) -> Timed {
        Timed { min, median: min * 2.0, slices: 5 }
    }

    /// A small run: one row with a target on one, two and four threads, and one without peers.
    pub(in super::super) fn measured() -> Measured {
        let target = |threads, at_most| Target { threads, peer: "peer".into(), at_most };
        let name = |row: &str, who: &str, package: Option<&str>| CaseName {
            id: format!("{row}: {who}"),
            row: row.into(),
            who: who.into(),
            package: package.map(str::to_owned),
        };
        let work = |id: &str, title: &str, no_allocations, targets| RowWork {
            id: id.into(),
            title: title.into(),
            work: format!("what a call of {title} does"),
            no_allocations,
            targets,
        };
        let nanos = |of: &[(&str, f64)]| of.iter().map(|(id, min)| ((*id).to_owned(), timed(*min))).collect();
        Measured {
            machine: Machine::example(),
            quick: false,
            times: Times {
                rows: vec![
                    work("a", "breaker, closed", true, vec![target(1, 1.0), target(2, 0.6), target(4, 1.0)]),
                    work("b", "pipeline | of five", true, Vec::new()),
                ],
                cases: vec![
                    name("a", "resilience-core", None),
                    name("a", "resilience-core, permit", None),
                    name("a", "peer", Some("peer")),
                    name("a", "slow", Some("slow")),
                    name("a", "panics", Some("panics")),
                    name("b", "resilience-core", None),
                ],
                nanos: BTreeMap::from([
                    (
                        1,
                        nanos(&[
                            ("a: resilience-core", 9.0),
                            ("a: peer", 10.0),
                            ("a: slow", 90.0),
                            ("b: resilience-core", 100.0),
                        ]),
                    ),
                    (2, nanos(&[("a: resilience-core", 8.0), ("a: peer", 10.0), ("a: slow", 5.0)])),
                    (4, nanos(&[("a: resilience-core", 8.0)])),
                ]),
                failed: vec![Failed { id: "a: panics".into(), reason: "panicked: not today".into() }],
            },
            counts: Counts {
                allocations: BTreeMap::from([
                    ("a: resilience-core".to_owned(), 0.0),
                    ("a: slow".to_owned(), 2.5),
                    ("b: resilience-core".to_owned(), 0.001),
                ]),
                bytes: vec![Bytes { what: "breaker".into(), who: OURS.into(), each: 1_234.5 }],
            },
            instructions: BTreeMap::from([("a: resilience-core".to_owned(), 41.7)]),
            left_out: vec![Failed { id: "gone".into(), reason: "does not build".into() }],
            versions: BTreeMap::from([("peer".to_owned(), "1.4.0".to_owned())]),
        }
    }

    #[test]
    fn targets_are_judged_by_the_ratio_to_their_peer_on_their_threads() {
        let report = Report::new(measured());
        let judged: Vec<_> = report.targets().map(|(_, it)| (it.target.threads, it.ratio, it.verdict)).collect();
        assert_eq!(
            judged,
            [(1, Some(0.9), Verdict::Met), (2, Some(0.8), Verdict::NotMet), (4, None, Verdict::NotMeasured)]
        );
        assert!(!report.all_met());
    }

    #[test]
    fn the_best_peer_is_the_fastest_and_variants_of_ours_are_no_peers() {
        let row = &Report::new(measured()).rows[0];
        assert_eq!(row.ratio_to_best, BTreeMap::from([(1, 0.9), (2, 1.6)]));
        let alone = Report::new(measured());
        assert!(alone.rows[1].ratio_to_best.is_empty());
    }

    #[test]
    fn a_ratio_that_is_just_at_its_limit_is_met() {
        let mut measured = measured();
        measured.times.nanos.get_mut(&1).unwrap().get_mut("a: resilience-core").unwrap().min = 10.0;
        assert_eq!(Report::new(measured).rows[0].targets[0].verdict, Verdict::Met);
    }

    #[test]
    fn one_allocation_in_a_thousand_calls_breaks_the_promise_and_an_unmeasured_one_is_not_kept() {
        let verdicts =
            |measured| -> Vec<_> { Report::new(measured).rows.iter().map(|row| row.no_allocations).collect() };
        assert_eq!(verdicts(measured()), [Some(Verdict::Met), Some(Verdict::NotMet)]);
        assert!(Report::new(measured()).promise_broken());
        let mut unmeasured = measured();
        unmeasured.counts.allocations.clear();
        assert!(!Report::new(unmeasured).promise_broken());
        let mut unmeasured = measured();
        unmeasured.counts.allocations.clear();
        assert_eq!(verdicts(unmeasured), [Some(Verdict::NotMeasured); 2]);
        let mut unpromised = measured();
        unpromised.times.rows[1].no_allocations = false;
        assert!(!Report::new(unpromised).promise_broken());
    }

    #[test]
    fn where_threads_take_turns_the_middle_slice_counts() {
        let report = Report::new(measured());
        let ours = report.rows[0].ours().unwrap();
        let on = |threads| figure(ours, threads, &report.machine);
        assert_eq!((on(1), on(2), on(4), on(8)), (Some(9.0), Some(8.0), Some(16.0), None));
    }

    #[test]
    fn a_report_survives_being_written_and_read() {
        let report = Report::new(measured());
        let text = serde_json::to_string(&report).unwrap();
        let again: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}
