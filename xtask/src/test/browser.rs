//! Opens pages in headless Chromium and hears what their console says.
//!
//! A page of ours has nothing to say: any console message is a failure. Chromium doesn't report blocked or missing
//! resources there, so the page is opened under a content security policy that forbids every resource but inline ones, and
//! a violation of that *is* a message. Pages broken on purpose prove that this hears what it should.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Stop;
use crate::steps::{Bench, Counts, Verdict};

/// A page opens within a second; a busy machine may need some more.
const LIMIT: Duration = Duration::from_secs(120);

/// Forbids whatever doesn't come with the page itself.
const POLICY: &str = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
     script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:\">";

/// A page, and what its console must say (nothing, for a clean one).
pub(super) struct Control {
    name: &'static str,
    body: &'static str,
    says: Option<&'static str>,
}

pub(super) const CONTROLS: [Control; 6] = [
    Control {
        name: "clean",
        body: "<svg width=9 height=9></svg><script>document.title = String(6 * 7)</script>",
        says: None,
    },
    Control { name: "throws", body: "<script>missing()</script>", says: Some("missing is not defined") },
    Control {
        name: "complains",
        body: "<script>console.error('broken on purpose')</script>",
        says: Some("on purpose"),
    },
    Control {
        name: "throws later",
        body: "<script>setTimeout(() => { throw new Error('too late') }, 100)</script>",
        says: Some("too late"),
    },
    Control {
        name: "rejects",
        body: "<script>Promise.reject(new Error('turned down'))</script>",
        says: Some("turned down"),
    },
    Control { name: "not self-contained", body: "<img src='missing.png'>", says: Some("missing.png") },
];

/// What came of opening a page.
struct Opened {
    /// What the page said.
    console: Vec<String>,
    /// The document as it stood when its scripts had run.
    document: String,
}

/// Opens the clean page and the broken ones: each is one test.
pub(super) fn controls(
    _: &crate::workspace::Workspace,
    bench: &mut Bench<'_>,
    program: &Path,
) -> Result<Verdict, Stop> {
    let mut counts = Counts::default();
    let mut wrong = Vec::new();
    for control in &CONTROLS {
        let page = format!("<!doctype html><html><head><title>x</title></head><body>{}</body></html>", control.body);
        let problem = match open(bench, program, &page)? {
            Err(problem) => Some(problem),
            Ok(opened) => match control.says {
                None if !opened.console.is_empty() => Some(format!("clean, but says {:?}", opened.console)),
                None if !opened.document.contains("<title>42</title>") => Some("its script did not run".to_owned()),
                Some(words) if !opened.console.iter().any(|line| line.contains(words)) => {
                    Some(format!("{words:?} not heard, but {:?}", opened.console))
                }
                _ => None,
            },
        };
        match problem {
            None => counts.passed += 1,
            Some(problem) => {
                counts.failed += 1;
                wrong.push(format!("page that is `{}`: {problem}", control.name));
            }
        }
    }
    Ok(Verdict { counts, note: program.display().to_string(), details: wrong.join("\n") })
}

/// Opens the drill's report: it must be self-contained, silent, complete, and have plots.
pub(super) fn report(bench: &mut Bench<'_>, program: &Path, report: &Path) -> Result<Verdict, Stop> {
    let page = match std::fs::read_to_string(report) {
        Ok(page) => page,
        Err(error) => {
            return Ok(Verdict::failed(format!("cannot read {}: {error}", report.display())));
        }
    };
    let opened = match open(bench, program, &page)? {
        Ok(opened) => opened,
        Err(problem) => return Ok(Verdict::failed(problem)),
    };
    let plotted = ["<svg", "<canvas"].iter().any(|plot| opened.document.contains(plot));
    Ok(match opened.console.len() {
        0 if !plotted => Verdict::failed("it shows no plot"),
        0 => Verdict::passed(format!("{} KiB, console silent", page.len() / 1024)),
        n => Verdict::failed(format!("{n} console messages")).details(opened.console.join("\n")),
    })
}

/// Opens `page` under [`POLICY`] until its scripts are done. The inner error is the browser's failure to open it.
fn open(bench: &mut Bench<'_>, program: &Path, page: &str) -> Result<Result<Opened, String>, Stop> {
    let folder = tempfile::tempdir().map_err(|error| Stop::write(&std::env::temp_dir(), &error))?;
    let file = folder.path().join("page.html");
    std::fs::write(&file, under_policy(page)).map_err(|error| Stop::write(&file, &error))?;
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-quic", "--disable-dev-shm-usage"])
        // Console messages go to standard error; two virtual seconds let timers run without waiting for them.
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("file://{}", file.display()));
    let ended = bench.run(&mut command, LIMIT)?;
    let output = bench.output();
    if !ended.success() {
        return Ok(Err(format!("chromium did not open it: {ended}")));
    }
    let (log, document): (Vec<&str>, Vec<&str>) = output.lines().partition(|line| is_log(line));
    let document = document.join("\n");
    if !document.contains("</html>") {
        return Ok(Err("chromium printed no document".to_owned()));
    }
    let console = log.into_iter().filter(|line| line.contains(":CONSOLE:") || line.contains(":CONSOLE("));
    Ok(Ok(Opened { console: console.map(str::to_owned).collect(), document }))
}

/// `page` with the policy first in its head, where it governs all that follows.
fn under_policy(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let head = lower.find("<head").and_then(|at| Some(at + lower[at..].find('>')? + 1));
    let doctype = || lower.find("<!doctype").and_then(|at| Some(at + lower[at..].find('>')? + 1));
    let (before, after) = page.split_at(head.or_else(doctype).unwrap_or(0));
    format!("{before}{POLICY}{after}")
}

/// `[13730:13730:1124/214619.171404:INFO:CONSOLE:1] "fine", …`
fn is_log(line: &str) -> bool {
    let Some(inside) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    [":INFO:", ":WARNING:", ":ERROR:", ":FATAL:", ":VERBOSE"].iter().any(|level| inside.0.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_comes_before_anything_that_loads() {
        for page in ["<!DOCTYPE html><html lang=en><HEAD><link></HEAD>", "<!doctype html><link>", "<link>"] {
            let opened = under_policy(page);
            let (policy, link) = (opened.find(POLICY), opened.find("<link>"));
            assert!(policy < link && policy.is_some(), "{opened}");
        }
    }

    #[test]
    fn only_the_browsers_own_lines_are_its_log() {
        assert!(is_log("[13730:13730:1124/214619.171404:INFO:CONSOLE:1] \"fine\", source: file:///x (1)"));
        assert!(!is_log("[1, 2, 3] in a page's text"));
        assert!(!is_log("<p>an :INFO: of the page</p>"));
    }
}
