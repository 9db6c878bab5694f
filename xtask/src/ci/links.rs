//! Links in the project's Markdown lead somewhere: to a file that is there, and, where the link's text is the name of a
//! test or another function (`` [`name`](path.rs) ``), to a file that has it. Links to the network are not followed.

use std::path::Path;
use std::process::Command;

use crate::Stop;
use crate::steps::Verdict;
use crate::workspace::Workspace;

/// A link in a file.
#[derive(Debug, PartialEq, Eq)]
struct Link<'a> {
    text: &'a str,
    target: &'a str,
}

/// Looks through every tracked Markdown file, and those that `git add` would take.
pub(super) fn check(workspace: &Workspace) -> Result<Verdict, Stop> {
    let listed = Command::new("git")
        .current_dir(&workspace.root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"])
        .output()
        .map_err(|error| Stop::Setup(format!("cannot start git: {error}; install git")))?;
    if !listed.status.success() {
        return Ok(Verdict::skipped("NOT CHECKED: this is not a git checkout"));
    }
    let (mut count, mut broken) = (0, Vec::new());
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let path = workspace.root.join(&name);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let folder = path.parent().unwrap_or(&workspace.root);
        for (number, line) in (1..).zip(text.lines()) {
            for link in links(line).filter(|link| is_relative(link.target)) {
                count += 1;
                broken.extend(fault(folder, &link).map(|fault| format!("{name}:{number}: {fault}")));
            }
        }
    }
    Ok(if broken.is_empty() {
        Verdict::passed(format!("{count} links"))
    } else {
        Verdict::failed(format!("{} links lead nowhere", broken.len())).details(broken.join("\n"))
    })
}

/// The links of a line: `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = Link<'_>> {
    line.match_indices("](").filter_map(|(at, mark)| {
        let text = &line[line[..at].rfind('[')? + 1..at];
        let rest = &line[at + mark.len()..];
        let target = &rest[..rest.find(')')?];
        Some(Link { text, target: target.split(' ').next().unwrap_or(target) })
    })
}

fn is_relative(target: &str) -> bool {
    !target.is_empty() && !target.starts_with('#') && !target.contains("://") && !target.starts_with("mailto:")
}

/// What is wrong with a link of a file in `folder`.
fn fault(folder: &Path, link: &Link<'_>) -> Option<String> {
    let file = link.target.split('#').next().unwrap_or(link.target);
    // Rustdoc resolves the paths of items in a crate's README.
    if file.contains("::") {
        return None;
    }
    let path = folder.join(file);
    if !path.exists() {
        return Some(format!("`{}` does not exist", link.target));
    }
    let name = link.text.strip_prefix('`')?.strip_suffix('`')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if path.extension().is_some_and(|extension| extension == "rs") && is_name {
        let code = std::fs::read_to_string(&path).unwrap_or_default();
        let has_it = [format!("fn {name}("), format!("fn {name}<")].iter().any(|function| code.contains(function));
        return (!has_it).then(|| format!("`{file}` has no function `{name}`"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_a_line() {
        let line = "see [`a_test`](tests/x.rs), ![plot](plot.svg \"title\") and [the web](https://example.org)";
        let found: Vec<_> = links(line).map(|link| (link.text, link.target)).collect();
        assert_eq!(found, [("`a_test`", "tests/x.rs"), ("plot", "plot.svg"), ("the web", "https://example.org")]);
        assert!(!is_relative("https://example.org") && !is_relative("#below") && is_relative("x.md#below"));
    }

    #[test]
    fn a_missing_file_and_a_missing_function_are_faults() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.rs"), "fn is_here() {}\nfn generic<T>() {}\n").unwrap();
        let fault = |text, target| fault(folder.path(), &Link { text, target });
        assert_eq!(fault("`is_here`", "x.rs"), None);
        assert_eq!(fault("`generic`", "x.rs"), None);
        assert_eq!(fault("`is_gone`", "x.rs"), Some("`x.rs` has no function `is_gone`".to_owned()));
        assert_eq!(fault("any text", "x.rs#L1"), None);
        assert_eq!(fault("any text", "y.rs"), Some("`y.rs` does not exist".to_owned()));
    }
}
