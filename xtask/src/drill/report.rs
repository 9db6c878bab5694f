//! The drill's result as a page, as JSON and as a table. Everything is in the one file; it decides nothing.

use std::fmt::Write;

use serde_json::json;

use super::line::{Check, Stage};
use super::plot::{escape, scatter, timeline};
use super::watch::Story;
use crate::ui;

/// The areas judged, in the order in which they are shown, and what they are about.
const AREAS: [(&str, &str); 8] = [
    ("ast", "real and hostile Rust files through worker processes"),
    ("registry", "a real HTTP registry that fails in every way"),
    ("protocol", "conformance of types whose truth is known"),
    ("lsp", "an editor's session over a server that crashes and hangs"),
    ("kill -9", "the guarded process killed once on the way"),
    ("audit", "the log afterwards"),
    ("health", "what operators would have seen"),
    ("shutdown", "SIGTERM at the end"),
];

fn of<'s>(story: &'s Story, area: &'s str) -> impl Iterator<Item = &'s Check> {
    story.checks().filter(move |(one, _)| *one == area).map(|(_, check)| check)
}

/// Whether an area is as it must be: checked at all, and each check well.
fn is_well(story: &Story, area: &str) -> bool {
    let mut checks = of(story, area).peekable();
    checks.peek().is_some() && checks.all(|check| check.ok)
}

/// The result for a terminal.
pub(super) fn table(story: &Story) -> String {
    let mut rows = vec![["area", "result", "checks", "faults", "time"].map(str::to_owned).to_vec()];
    for (area, _) in AREAS {
        let (all, well) = (of(story, area).count(), of(story, area).filter(|check| check.ok).count());
        let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == area).and_then(|it| story.stages.get(&it));
        rows.push(vec![
            area.to_owned(),
            if is_well(story, area) { "ok" } else { "FAILED" }.to_owned(),
            format!("{well}/{all}"),
            stage.map_or(String::new(), |it| it.faults.to_string()),
            stage.map_or(String::new(), |it| format!("{:.1} s", it.seconds)),
        ]);
    }
    let mut text = ui::table(&rows);
    for (area, check) in story.checks().filter(|(_, check)| !check.ok) {
        let _ = writeln!(text, "{} {area}: {}; found: {}", ui::paint(ui::BAD, "✗"), check.what, check.found);
    }
    for trouble in &story.troubles {
        let _ = writeln!(text, "{} {trouble}", ui::paint(ui::BAD, "✗"));
    }
    let verdict = if story.passed() { ui::paint(ui::GOOD, "passed") } else { ui::paint(ui::BAD, "FAILED") };
    let checks = story.checks().count();
    let _ = writeln!(
        text,
        "\ndrill {verdict}: {checks} checks, {} faults, {} acknowledged records, {:.1} s, seed {}",
        story.faults.len(),
        story.acknowledged.len(),
        story.took.as_secs_f64(),
        story.seed
    );
    text
}

/// The result for machines.
pub(super) fn json(story: &Story) -> String {
    let areas: serde_json::Map<_, _> = AREAS
        .iter()
        .map(|(area, _)| {
            let checks: Vec<_> = of(story, area)
                .map(|check| json!({ "what": check.what, "found": check.found, "ok": check.ok }))
                .collect();
            ((*area).to_owned(), json!({ "ok": is_well(story, area), "checks": checks }))
        })
        .collect();
    let figures: serde_json::Map<_, _> =
        story.stages.iter().map(|(stage, it)| (stage.as_str().to_owned(), json!(it.figures))).collect();
    let value = json!({
        "passed": story.passed(),
        "seed": story.seed,
        "seconds": story.took.as_secs_f64(),
        "faults": story.faults.len(),
        "acknowledged_records": story.acknowledged.len(),
        "areas": areas,
        "figures": figures,
        "troubles": story.troubles,
    });
    serde_json::to_string_pretty(&value)
        .unwrap_or_else(|error| json!({ "passed": false, "troubles": [error.to_string()] }).to_string())
}

/// The result as a page that stands alone.
pub(super) fn html(story: &Story) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\
         <link rel=\"icon\" href=\"data:,\"><title>Drill report, seed {0}</title><style>{STYLE}</style></head><body><main>\n<h1>Drill report</h1>",
        story.seed
    );
    let (class, word) = if story.passed() { ("ok", "passed") } else { ("failed", "FAILED") };
    let _ = write!(
        page,
        "<p class=\"verdict {class}\">{word}</p><p>{} checks, {} faults injected, {} records acknowledged by the audit log, \
         {:.1} s. Repeat it with <code>cargo xtask drill --seed {}</code>.</p>",
        story.checks().count(),
        story.faults.len(),
        story.acknowledged.len(),
        story.took.as_secs_f64(),
        story.seed
    );
    for trouble in &story.troubles {
        let _ = write!(page, "<p class=\"failed\">✗ {}</p>", escape(trouble));
    }
    page.push_str("<h2>What operators would have seen</h2>");
    page.push_str(&health(story));
    for (area, about) in AREAS {
        section(&mut page, story, area, about);
    }
    page.push_str(
        "<h2>In the audit log</h2><div class=\"wide\"><table><tr><th>event</th><th class=\"n\">records</th></tr>",
    );
    for (event, count) in &story.audit_counts {
        let _ = write!(page, "<tr><td>{}</td><td class=\"n\">{count}</td></tr>", escape(event));
    }
    page.push_str("</table></div></main></body></html>\n");
    page
}

fn health(story: &Story) -> String {
    let total = u64::try_from(story.took.as_millis()).unwrap_or(u64::MAX);
    let restarted = story.killed.map(|(at, ..)| at);
    let mut states = Vec::new();
    for (number, life) in story.health.iter().enumerate() {
        let end = if number == 0 { restarted.unwrap_or(total) } else { total };
        for (index, (at, status, _)) in life.iter().enumerate() {
            let until = life.get(index + 1).map_or(end, |next| next.0);
            states.push((*at, until.max(*at), status.clone()));
        }
    }
    let mut marks: Vec<_> = story.faults.iter().map(|(at, what)| (*at, what.clone(), false)).collect();
    if let Some((at, stage, ..)) = story.killed {
        marks.push((at, format!("kill -9 of the guarded process in `{}`", stage.as_str()), true));
    }
    let mut html =
        format!("<figure>{}", timeline("Health over time, with the faults injected", total, &states, &marks));
    html.push_str(
        "<figcaption>Overall health over time: <span class=\"key healthy\">healthy</span> \
         <span class=\"key degraded\">degraded</span> <span class=\"key unhealthy\">unhealthy</span> \
         <span class=\"key unknown\">unknown (no check has run yet)</span>. Short marks are faults, the tall one is kill -9.</figcaption></figure>",
    );
    html
}

fn section(page: &mut String, story: &Story, area: &str, about: &str) {
    let mark =
        if is_well(story, area) { "<span class=\"ok\">ok</span>" } else { "<span class=\"failed\">FAILED</span>" };
    let _ = write!(page, "<section><h2>{} {mark}</h2><p>{}</p>", escape(area), escape(about));
    page.push_str("<div class=\"wide checks\"><table><tr><th></th><th>must be so</th><th>found</th></tr>");
    for check in of(story, area) {
        let (class, sign) = if check.ok { ("ok", "✓") } else { ("failed", "✗") };
        let _ = write!(
            page,
            "<tr><td class=\"{class}\">{sign}</td><td>{}</td><td>{}</td></tr>",
            escape(&check.what),
            escape(&check.found)
        );
    }
    page.push_str("</table></div>");
    let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == area).and_then(|it| story.stages.get(&it));
    if let Some(findings) = stage {
        page.push_str("<dl>");
        for (name, value) in &findings.figures {
            let _ = write!(page, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        page.push_str("</dl>");
        for (name, points) in &findings.series {
            let (title, x, y) = match name.as_str() {
                "batch_ms_by_kb" => ("Time for a batch of 16 files by its size", "KB", "ms"),
                "fetch_ms" => ("Time for one fetch, over the stage", "s", "ms"),
                "request_ms" => ("Time to an answer, by request", "requests", "ms"),
                "row_us" => ("Time for one type against all protocols", "types", "µs"),
                other => (other, "", ""),
            };
            let _ = write!(
                page,
                "<figure>{}<figcaption>{}</figcaption></figure>",
                scatter(title, x, y, points),
                escape(title)
            );
        }
    }
    page.push_str("</section>");
}

const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1c2024;--bg:#fff;--dim:#57606a;--line:#d8dee4;--good:#116329;--bad:#b3261e;--warn:#8a5a00;--dot:#0a58ca}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--dim:#9aa5b1;--line:#30363d;--good:#56d364;--bad:#ff7b72;--warn:#e3b341;--dot:#79b8ff}}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem}
h2{margin:2.2rem 0 .3rem;text-transform:none}
.verdict{font-size:1.6rem;font-weight:700;margin:.2rem 0}
.ok{color:var(--good);font-weight:600}.failed{color:var(--bad);font-weight:700}
h2 span{font-size:.9rem;margin-left:.4rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th{text-align:left;color:var(--dim);font-weight:600}
td,th{padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
td:first-child{white-space:nowrap}td:nth-child(2){min-width:16rem}.n{text-align:right}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:.92rem;margin:.8rem 0}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
figure{margin:1rem 0}figcaption{color:var(--dim);font-size:.85rem}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}
svg text{fill:var(--dim)}svg circle{fill:var(--dot);fill-opacity:.55}.grid{stroke:var(--line)}
.state.healthy,.key.healthy{fill:#2da44e;background:#2da44e}.state.degraded,.key.degraded{fill:#d4a72c;background:#d4a72c}
.state.unhealthy,.key.unhealthy{fill:#cf222e;background:#cf222e}.state.unknown,.key.unknown{fill:#8c959f;background:#8c959f}
.key{color:#0d1117;padding:0 .35rem;border-radius:.2rem}
figure{overflow-x:auto}
@media(max-width:40rem){main{padding:1rem}svg{min-width:36rem}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}
.checks tr{display:grid;grid-template-columns:1.3rem 1fr;border-bottom:1px solid var(--line);padding:.3rem 0}
.checks tr:first-child{display:none}.checks td{border:0;padding:0}.checks td:nth-child(2){min-width:0}
.checks td:nth-child(3){grid-column:2;color:var(--dim)}}
.mark{stroke:var(--dim);stroke-width:1.5}.mark.strong{stroke:var(--bad);stroke-width:3}
";
