//! Figures for people: a table for the terminal, Markdown for files. It rounds and marks; it computes nothing.

use std::fmt::Write;

use super::figures::{Case, Growth, Judged, Report, Row, Verdict, figure};
use crate::machine::Machine;

/// Nothing was measured.
const NONE: &str = "–";

const HEAD: [&str; 8] =
    ["work", "whose", "1 thread", "2 threads", "4 threads", "instructions", "allocations", "ours / best peer"];

/// A number with as many digits as mean something.
fn number(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        ..10.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index) % 3 == 0 {
                    text.push(' ');
                }
                text.push(digit);
            }
            text
        }
    }
}

/// Small whole numbers stay whole; parts of an allocation are told.
fn count(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.into(), |ratio| format!("{ratio:.2}"))
}

fn or_none(value: Option<f64>, shown: fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.into(), shown)
}

/// All cases of all rows; the first line is the head. The work's name stands once.
pub(super) fn cases(report: &Report) -> Vec<Vec<String>> {
    let rows = report.rows.iter().flat_map(|row| {
        row.cases.iter().enumerate().map(|(index, case)| case_line(row, case, index == 0, &report.machine))
    });
    std::iter::once(HEAD.map(str::to_owned).to_vec()).chain(rows).collect()
}

fn case_line(row: &Row, case: &Case, first: bool, machine: &Machine) -> Vec<String> {
    let nanos = |threads| or_none(figure(case, threads, machine), number);
    let whose = case.version.as_ref().map_or_else(|| case.who.clone(), |version| with_version(&case.who, version));
    let best = |threads: u32| row.ratio_to_best.get(&threads).copied();
    let ratios = match (case.who == super::figures::OURS, best(1), best(2)) {
        (true, Some(alone), Some(two)) => format!("{alone:.2}, 2 threads {two:.2}"),
        (true, Some(alone), None) => format!("{alone:.2}"),
        _ => String::new(),
    };
    vec![
        if first { row.title.clone() } else { String::new() },
        if case.failed.is_some() { format!("{whose} (fails)") } else { whose },
        nanos(1),
        nanos(2),
        nanos(4),
        or_none(case.instructions, number),
        or_none(case.allocations, count),
        ratios,
    ]
}

/// `tower-resilience, 3 layers` and `0.13.0` make `tower-resilience 0.13.0, 3 layers`.
fn with_version(who: &str, version: &str) -> String {
    match who.split_once(", ") {
        Some((name, rest)) => format!("{name} {version}, {rest}"),
        None => format!("{who} {version}"),
    }
}

/// Every target with its verdict; the first line is the head.
pub(super) fn targets(report: &Report) -> Vec<(Vec<String>, Verdict)> {
    let times = report.targets().map(|(row, judged)| (target_line(row, judged), judged.verdict));
    let with_promise = report.rows.iter().filter_map(|row| Some((row, row.no_allocations?)));
    let promises = with_promise.map(|(row, verdict)| {
        let found = row.ours().and_then(|ours| ours.allocations);
        let asked = "0 allocations".to_owned();
        (vec![row.title.clone(), asked, or_none(found, count), verdict.as_str().to_owned()], verdict)
    });
    times.chain(promises).collect()
}

pub(super) const TARGETS_HEAD: [&str; 4] = ["target", "asked", "found", "verdict"];

fn target_line(row: &Row, judged: &Judged) -> Vec<String> {
    let target = &judged.target;
    let threads = if target.threads == 1 { String::new() } else { format!(", {} threads", target.threads) };
    vec![
        format!("{}{threads}", row.title),
        format!("≤ {} × {}", target.at_most, target.peer),
        ratio(judged.ratio),
        judged.verdict.as_str().to_owned(),
    ]
}

/// What can't be in the table.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let out = report.left_out.iter().map(|failed| format!("left out: {} {}", failed.id, failed.reason));
    let failed = report.rows.iter().flat_map(|row| {
        let failed = row.cases.iter().filter_map(|case| Some((case, case.failed.as_ref()?)));
        failed.map(|(case, reason)| format!("fails: {}: {} {reason}", row.title, case.who))
    });
    let mut remarks: Vec<String> = out.chain(failed).collect();
    if report.quick {
        remarks.push("a smoke run: the times mean little".into());
    } else if report.machine.was_busy() {
        remarks.push(format!(
            "the machine was busy (load {:.1}): times are the fastest of many slices, those of several threads may be missing",
            report.machine.load
        ));
    }
    remarks
}

fn markdown(rows: &[Vec<String>], right_from: usize) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let rule = (0..row.len()).map(|column| if column < right_from { "---" } else { "--:" });
            let _ = writeln!(text, "|{}|", rule.collect::<Vec<_>>().join("|"));
        }
    }
    text
}

/// The comparison as Markdown, without a title. Plots are linked in `plots`.
pub(super) fn peers(report: &Report, plots: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "Measured {}.\n", report.machine.line());
    for remark in remarks(report) {
        let _ = writeln!(text, "- {remark}");
    }
    text.push_str("\n### Targets\n\n");
    let head = TARGETS_HEAD.map(str::to_owned).to_vec();
    let judged = targets(report).into_iter().map(|(mut line, verdict)| {
        if verdict != Verdict::Met
            && let Some(last) = line.last_mut()
        {
            *last = format!("**{last}**");
        }
        line
    });
    text.push_str(&markdown(&std::iter::once(head).chain(judged).collect::<Vec<_>>(), 4));
    let _ = writeln!(text, "\n![Ratios]({plots}/ratios.svg)\n\n### Every case\n");
    text.push_str("Nanoseconds a call; of several threads on one object: of all of them together. Instructions and\n");
    text.push_str("allocations are per call, on one thread.\n\n");
    text.push_str(&markdown(&cases(report), 2));
    text.push_str("\n### What a call does\n\n");
    for row in &report.rows {
        let _ = writeln!(text, "- **{}**: {}.", row.title, row.work);
    }
    text.push_str("\n### Memory\n\n");
    let head = ["what", "whose", "bytes each"].map(str::to_owned).to_vec();
    let mut bytes: Vec<_> = report.bytes.iter().collect();
    // Stable: ours stay before the others.
    bytes.sort_by(|a, b| a.what.cmp(&b.what));
    let lines = bytes.iter().map(|it| vec![it.what.clone(), it.who.clone(), number(it.each)]);
    text.push_str(&markdown(&std::iter::once(head).chain(lines).collect::<Vec<_>>(), 2));
    text
}

/// The growth curves as Markdown, without a title.
pub(super) fn growth(growth: &Growth, plots: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "Measured {}.", growth.machine.line());
    if growth.quick {
        text.push_str("\n- a smoke run: the times mean little\n");
    }
    for plot in &growth.plots {
        let _ = writeln!(text, "\n### {}: {}\n\n![{0}]({plots}/{}.svg)\n", plot.title, plot.x, plot.id);
        let mut sizes: Vec<u64> =
            plot.lines.iter().flat_map(|line| line.points.iter().map(|(size, _)| *size)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let head = std::iter::once(plot.y.clone())
            .chain(sizes.iter().map(|size| if *size < 10 { size.to_string() } else { number(*size as f64) }))
            .collect();
        let lines = plot.lines.iter().map(|line| {
            let at = |size: &u64| line.points.iter().find(|(x, _)| x == size).map(|(_, nanos)| *nanos);
            std::iter::once(line.who.clone()).chain(sizes.iter().map(|size| or_none(at(size), number))).collect()
        });
        text.push_str(&markdown(&std::iter::once(head).chain(lines).collect::<Vec<Vec<String>>>(), 1));
    }
    if !growth.criterion.is_empty() {
        text.push_str("\n### The workspace's own benchmarks\n\n");
        let head = vec!["benchmark".to_owned(), "time".to_owned()];
        let lines = growth.criterion.iter().map(|it| vec![it.name.clone(), it.time.clone()]);
        text.push_str(&markdown(&std::iter::once(head).chain(lines).collect::<Vec<_>>(), 1));
    }
    text
}

/// The curated page: both parts, as far as they were measured.
pub(super) fn page(report: &Report, grown: Option<&Growth>) -> String {
    let mut text = String::from("<!-- @generated by `cargo xtask bench --peers --save` -->\n# Benchmarks\n\n");
    text.push_str(
        "Ours beside its peers, doing the same work in one run on one machine. Figures of different runs don't compare; the\n\
         ratios do, roughly. How it is measured: [decision 22](decisions/0022-benchmarks.md). Run it yourself:\n\n\
         ```sh\n\
         cargo xtask bench --peers   # this page's first part, in target/bench/peers.md, .json and .svg\n\
         cargo xtask bench           # its second part\n\
         ```\n\n## Beside its peers\n\n",
    );
    text.push_str(&peers(report, "benchmarks"));
    if let Some(grown) = grown {
        text.push_str("\n## How cost grows\n\n");
        text.push_str(&growth(grown, "benchmarks"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::figures::Criterion;
    use super::super::figures::tests::measured;
    use super::*;
    use crate::ui;

    #[test]
    fn every_case_is_a_line_and_what_was_not_measured_is_said() {
        let report = Report::new(measured());
        insta::assert_snapshot!(ui::table(&cases(&report)), @r"
        work                whose                    1 thread  2 threads  4 threads  instructions  allocations  ours / best peer
        breaker, closed     resilience-core          9.0       8.0        16         42            0            0.90, 2 threads 1.60
                            resilience-core, permit  –         –          –          –             –
                            peer 1.4.0               10        10         –          –             –
                            slow                     90        5.0        –          –             2.500
                            panics (fails)           –         –          –          –             –
        pipeline | of five  resilience-core          100       –          –          –             0.001
        ");
        insta::assert_snapshot!(remarks(&report).join("\n"), @r"
        left out: gone does not build
        fails: breaker, closed: panics panicked: not today
        ");
    }

    #[test]
    fn every_target_and_promise_is_marked() {
        let report = Report::new(measured());
        let lines: Vec<_> = targets(&report).into_iter().map(|(line, _)| line).collect();
        insta::assert_snapshot!(ui::table(&lines), @r"
        breaker, closed             ≤ 1 × peer     0.90   met
        breaker, closed, 2 threads  ≤ 0.6 × peer   0.80   not met
        breaker, closed, 4 threads  ≤ 1 × peer     –      not measured
        breaker, closed             0 allocations  0      met
        pipeline | of five          0 allocations  0.001  not met
        ");
    }

    #[test]
    fn the_page_has_both_parts() {
        let grown = Growth {
            machine: Machine::example(),
            quick: false,
            plots: vec![super::super::plot::tests::plot()],
            criterion: vec![Criterion { name: "breaker/open".into(), time: "31.4 ns".into() }],
        };
        insta::assert_snapshot!(page(&Report::new(measured()), Some(&grown)));
    }

    #[test]
    fn a_busy_machine_and_a_smoke_run_are_said() {
        let mut busy = measured();
        busy.machine.load = 9.3;
        let mut quick = measured();
        quick.quick = true;
        let last = |measured| remarks(&Report::new(measured)).pop().unwrap();
        assert!(last(busy).starts_with("the machine was busy (load 9.3)"));
        assert_eq!(last(quick), "a smoke run: the times mean little");
    }

    #[test]
    fn numbers_are_rounded_to_what_they_mean() {
        assert_eq!(
            [0.0, 0.54, 9.95, 12.4, 1_234.5, 1_234_567.0].map(number),
            ["0", "0.5", "9.9", "12", "1 234", "1 234 567"]
        );
        assert_eq!([0.0, 2.0, 0.999].map(count), ["0", "2", "0.999"]);
    }
}
