//! That nothing in the core waits for real time, its tests, examples and documentation included: a wait goes through a
//! clock, which a test moves by hand. Looked for are the calls by which a thread or a task waits for time, by their names;
//! where one has to be, [`ALLOWED`] says why.

use std::process::Command;

use crate::Stop;
use crate::steps::Verdict;
use crate::workspace::Workspace;

const FOLDER: &str = "resilience-core";

/// By which a thread or a task waits for time.
const WAITS: [&str; 10] = [
    "thread::sleep",
    "time::sleep",
    "sleep_ms",
    "park_timeout",
    "park_deadline",
    "recv_timeout",
    "recv_deadline",
    "wait_timeout",
    "set_read_timeout",
    "set_write_timeout",
];

/// What waits for real all the same: the file, the call, how often, and why.
const ALLOWED: [(&str, &str, usize, &str); 3] = [
    ("resilience-core/src/clock/system.rs", "thread::sleep", 1, "how a thread waits by the system's clock"),
    ("resilience-core/src/clock/tokio.rs", "time::sleep", 1, "how a task waits by tokio's clock, which tests pause"),
    ("resilience-core/src/timers.rs", "wait_timeout", 1, "how the timer thread waits for the first timer"),
];

/// Looks through every tracked file of the core, and those that `git add` would take.
pub(super) fn check(workspace: &Workspace) -> Result<Verdict, Stop> {
    let listed = Command::new("git")
        .current_dir(&workspace.root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", FOLDER])
        .output()
        .map_err(|error| Stop::Setup(format!("cannot start git: {error}; install git")))?;
    if !listed.status.success() {
        return Ok(Verdict::skipped("NOT CHECKED: this is not a git checkout"));
    }
    let (mut files, mut found) = (0, Vec::new());
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let code = [".rs", ".md"].iter().any(|extension| name.ends_with(extension));
        let Some(text) = code.then(|| std::fs::read_to_string(workspace.root.join(&name)).ok()).flatten() else {
            continue;
        };
        files += 1;
        found.extend(waits(&text).map(|(line, call)| Wait { file: name.clone(), line, call }));
    }
    let wrong = judge(&found);
    Ok(if wrong.is_empty() {
        Verdict::passed(format!("{files} files"))
    } else {
        Verdict::failed(format!("{} waits for real time", wrong.len())).details(wrong.join("\n"))
    })
}

/// A call that waits.
#[derive(Debug)]
struct Wait {
    file: String,
    line: usize,
    call: &'static str,
}

/// The calls in `text`, with their lines.
fn waits(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    (1..).zip(text.lines()).flat_map(|(number, line)| {
        WAITS.iter().filter(move |call| line.contains(**call)).map(move |call| (number, *call))
    })
}

/// What is wrong with `found`, a line each: waits that are not allowed, and reasons without a wait.
fn judge(found: &[Wait]) -> Vec<String> {
    let allowed = |wait: &&Wait| ALLOWED.iter().any(|(file, call, ..)| *file == wait.file && *call == wait.call);
    let excess = found.iter().filter(|wait| !allowed(wait)).map(|wait| {
        let Wait { file, line, call } = wait;
        format!("{file}:{line}: `{call}` waits for real; take a manual clock, or tokio's paused time")
    });
    let stale = ALLOWED.iter().filter_map(|(file, call, times, reason)| {
        let count = found.iter().filter(|wait| wait.file == *file && wait.call == *call).count();
        (count != *times).then(|| format!("{file}: `{call}` {count} times, not {times} ({reason})"))
    });
    excess.chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<Wait> {
        ALLOWED.iter().map(|(file, call, ..)| Wait { file: (*file).to_owned(), line: 1, call }).collect()
    }

    #[test]
    fn waits_are_found_in_code_and_in_its_documentation() {
        let text =
            "use std::thread;\n    thread::sleep(PAUSE);\n/// tokio::time::sleep(pause).await;\nclock.sleep(x)\n";
        assert_eq!(waits(text).collect::<Vec<_>>(), [(2, "thread::sleep"), (3, "time::sleep")]);
    }

    #[test]
    fn each_wait_needs_a_reason_and_each_reason_a_wait() {
        assert!(judge(&allowed()).is_empty());
        let mut more = allowed();
        more.push(Wait { file: "resilience-core/tests/x.rs".to_owned(), line: 7, call: "thread::sleep" });
        more.push(Wait { file: ALLOWED[0].0.to_owned(), line: 9, call: ALLOWED[0].1 });
        let wrong = judge(&more);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].starts_with("resilience-core/tests/x.rs:7: `thread::sleep` waits for real"), "{}", wrong[0]);
        assert!(wrong[1].contains("2 times, not 1"), "{}", wrong[1]);
        assert_eq!(judge(&allowed()[1..]).len(), 1);
    }
}
