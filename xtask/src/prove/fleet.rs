//! The simulated fleet: runs the core's test of it, which writes the time series, and draws them.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::LIMIT;
use crate::Stop;
use crate::steps::{Bench, Verdict};
use crate::workspace::Workspace;

/// What the test writes.
#[derive(Debug, Deserialize)]
struct Report {
    scenario: String,
    drop_at: u32,
    back_at: u32,
    end: u32,
    runs: Vec<Run>,
}

/// One fleet: figures for each second.
#[derive(Debug, Deserialize)]
struct Run {
    protection: String,
    recovered_after_seconds: Option<u64>,
    good: Vec<u32>,
    requests: Vec<u32>,
    queued: Vec<u32>,
}

pub(super) fn run(workspace: &Workspace, bench: &mut Bench<'_>) -> Result<Verdict, Stop> {
    let folder = workspace.target.join("prove");
    std::fs::create_dir_all(&folder).map_err(|error| Stop::write(&folder, &error))?;
    let (data, plot) = (folder.join("fleet.json"), folder.join("fleet.svg"));
    // What an earlier run left must not be taken for this one's.
    let _ = std::fs::remove_file(&data);
    let mut command = workspace.cargo();
    command.args(["test", "--package", "resilience-core", "--test", "fleet"]).env("FLEET_REPORT", &data);
    let ended = bench.run(&mut command, LIMIT)?;
    let verdict = crate::test::judge(ended, &bench.output());
    if verdict.counts.failed > 0 {
        return Ok(verdict);
    }
    let report = match read(&data) {
        Ok(report) => report,
        Err(line) => return Ok(Verdict::failed(line)),
    };
    std::fs::write(&plot, draw(&report)).map_err(|error| Stop::write(&plot, &error))?;
    let note = format!("{}; {}", told(&report), plot.display());
    Ok(Verdict { note, ..verdict })
}

fn read(path: &Path) -> Result<Report, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("the test wrote no {shown}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{shown}: {error}"))
}

/// `retry only: still down at the end; …: back after 0 s`
fn told(report: &Report) -> String {
    let line = |run: &Run| match run.recovered_after_seconds {
        Some(seconds) => format!("{}: back after {seconds} s", run.protection),
        None => format!("{}: down to the end", run.protection),
    };
    report.runs.iter().map(line).collect::<Vec<_>>().join(", ")
}

const COLOURS: [&str; 4] = ["#7f7f7f", "#d62728", "#ff7f0e", "#1f77b4"];
const WIDTH: f64 = 860.0;
const LEFT: f64 = 60.0;
const PANEL: f64 = 170.0;
const GAP: f64 = 44.0;

/// Which figures of a run a panel shows.
type Figures = fn(&Run) -> &[u32];

/// Three panels over one axis of time: good calls, requests, the queue.
fn draw(report: &Report) -> String {
    let panels: [(&str, Figures); 3] = [
        ("calls that ended well, per second", |run| &run.good),
        ("requests that the server received, per second", |run| &run.requests),
        ("requests in its queue", |run| &run.queued),
    ];
    let height = 70.0 + panels.len() as f64 * (PANEL + GAP);
    let at = |second: u32| LEFT + (WIDTH - LEFT - 20.0) * f64::from(second) / f64::from(report.end.max(1));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(&report.scenario)
    );
    for (index, (run, colour)) in report.runs.iter().zip(COLOURS).enumerate() {
        let x = LEFT + 200.0 * index as f64;
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"32\" width=\"14\" height=\"4\" fill=\"{colour}\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"38\">{}</text>", x + 20.0, escaped(&run.protection));
    }
    for (index, (title, series)) in panels.into_iter().enumerate() {
        let top = 66.0 + index as f64 * (PANEL + GAP);
        let most = report.runs.iter().flat_map(series).copied().max().unwrap_or(1).max(1);
        let (from, to) = (at(report.drop_at), at(report.back_at));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"#eee\"/>\n\
             <text x=\"{LEFT}\" y=\"{}\">{title}</text>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most}</text>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">0</text>\n\
             <path d=\"M{LEFT} {top}V{}H{}\" fill=\"none\" stroke=\"#000\"/>",
            to - from,
            top - 6.0,
            LEFT - 6.0,
            top + 10.0,
            LEFT - 6.0,
            top + PANEL,
            top + PANEL,
            WIDTH - 20.0,
        );
        for second in (0..=report.end).step_by(30) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>",
                at(second),
                top + PANEL + 15.0
            );
        }
        for (run, colour) in report.runs.iter().zip(COLOURS) {
            let points: Vec<String> = (0..)
                .zip(series(run))
                .map(|(second, value)| {
                    format!("{:.1},{:.1}", at(second), top + PANEL * (1.0 - f64::from(*value) / f64::from(most)))
                })
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                points.join(" ")
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        serde_json::from_value(serde_json::json!({
            "scenario": "a < b", "seed": 1, "drop_at": 1, "back_at": 2, "end": 3,
            "runs": [
                {"protection": "retry only", "recovered_after_seconds": null, "good": [9, 4, 0], "requests": [9, 20, 30], "queued": [0, 5, 9]},
                {"protection": "breaker", "recovered_after_seconds": 2, "good": [9, 4, 9], "requests": [9, 8, 9], "queued": [0, 1, 0]},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn the_note_says_who_came_back_and_who_did_not() {
        assert_eq!(told(&report()), "retry only: down to the end, breaker: back after 2 s");
    }

    #[test]
    fn the_plot_has_a_line_for_each_fleet_in_each_panel_and_no_bare_text() {
        let svg = draw(&report());
        assert_eq!(svg.matches("<polyline").count(), 6);
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b") && !svg.contains("NaN"));
        // The highest value of a panel touches its upper edge.
        assert!(svg.contains(&format!("{LEFT:.1},66.0")), "{svg}");
    }
}
