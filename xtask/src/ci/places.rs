//! No file of the project names a place on the machine it was written on: home and checkout folders, this machine's
//! package mirrors. A path like that works for one person only, and tells strangers about their machine.

use std::path::Path;
use std::process::Command;

use crate::Stop;
use crate::steps::Verdict;
use crate::workspace::Workspace;

/// Folders under which people keep homes; a name must follow, so that `/home/` alone may be written about.
const HOMES: [&str; 4] = ["/home/", "/Users/", "C:\\Users\\", "/root/"];
/// Folders that exist everywhere: a checkout inside one of them tells nothing by their name.
const COMMON: [&str; 6] = ["/", "/tmp", "/var/tmp", "/usr/src", "/src", "/opt"];
/// Settings that may point package managers at a mirror.
const MIRRORS: [&str; 6] = [
    "PIP_INDEX_URL",
    "UV_INDEX_URL",
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
    "CARGO_REGISTRIES_CRATES_IO_INDEX",
    "GOPROXY",
];
/// Hosts anybody may name.
const PUBLIC: [&str; 8] = [
    "crates.io",
    "index.crates.io",
    "static.crates.io",
    "github.com",
    "pypi.org",
    "registry.npmjs.org",
    "proxy.golang.org",
    "deb.debian.org",
];

/// Looks through every tracked file, and those that `git add` would take.
pub(super) fn check(workspace: &Workspace) -> Result<Verdict, Stop> {
    let listed = Command::new("git")
        .current_dir(&workspace.root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| Stop::Setup(format!("cannot start git: {error}; install git")))?;
    if !listed.status.success() {
        return Ok(Verdict::skipped("NOT CHECKED: this is not a git checkout"));
    }
    let needles = Needles::of_this_machine(&workspace.root);
    let (mut files, mut found) = (0, Vec::new());
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        // A file that is listed but gone is being deleted; a binary one has no lines.
        let Ok(text) = std::fs::read_to_string(workspace.root.join(&name)) else {
            continue;
        };
        files += 1;
        let lines = (1..).zip(text.lines());
        found.extend(lines.filter_map(|(n, line)| Some(format!("{name}:{n}: {}", needles.find(line)?))));
    }
    Ok(if found.is_empty() {
        Verdict::passed(format!("{files} files"))
    } else {
        Verdict::failed(format!("{} places named", found.len())).details(found.join("\n"))
    })
}

/// What must not be written.
struct Needles {
    folders: Vec<String>,
    hosts: Vec<String>,
}

impl Needles {
    fn of_this_machine(root: &Path) -> Self {
        let cargo_home = std::env::var("CARGO_HOME").ok();
        let checkout = root.ancestors().take(2).filter_map(Path::to_str).map(str::to_owned);
        // A home in the usual place is found by the general rule.
        let usual = |folder: &String| HOMES.iter().any(|home| format!("{folder}/").starts_with(home));
        let home = std::env::var("HOME").ok().filter(|home| !usual(home));
        let folders = checkout.chain(cargo_home.clone()).chain(home);
        let folders = folders.filter(|folder| folder.len() > 1 && !COMMON.contains(&folder.as_str()));
        let config = cargo_home.and_then(|home| std::fs::read_to_string(Path::new(&home).join("config.toml")).ok());
        let settings = MIRRORS.iter().filter_map(|name| std::env::var(name).ok()).chain(config);
        Self {
            folders: folders.map(|folder| format!("{folder}/")).collect(),
            hosts: settings.flat_map(|setting| hosts(&setting)).collect(),
        }
    }

    /// The first place named in `line`.
    fn find(&self, line: &str) -> Option<String> {
        let folder = self.folders.iter().find_map(|folder| {
            at_word_start(line, folder).next().map(|_| format!("`{folder}` is a folder of this machine"))
        });
        let home = || {
            HOMES.iter().find_map(|home| {
                let named = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_');
                let mut hits = at_word_start(line, home);
                hits.any(named).then(|| format!("`{home}…` is somebody's home"))
            })
        };
        let host = || self.hosts.iter().find(|host| line.contains(*host)).map(|host| format!("`{host}` is a mirror"));
        folder.or_else(home).or_else(host)
    }
}

/// What follows each occurrence of `needle` in `line` that begins a path (and is not the middle of a longer one).
fn at_word_start<'a>(line: &'a str, needle: &str) -> impl Iterator<Item = &'a str> {
    line.match_indices(needle).filter_map(move |(at, needle)| {
        let inside = |c: char| c.is_alphanumeric() || "._-~/:}$>*\\".contains(c);
        let begins = !line[..at].ends_with(inside);
        begins.then(|| &line[at + needle.len()..])
    })
}

/// Host names in `text` that are not everybody's.
fn hosts(text: &str) -> Vec<String> {
    let after = text.split("://").skip(1);
    let host = |rest: &str| {
        let authority: String = rest.chars().take_while(|c| !"/\"' ,\n".contains(*c)).collect();
        let host = authority.rsplit('@').next()?.split(':').next()?.to_owned();
        (!host.is_empty() && !PUBLIC.contains(&host.as_str())).then_some(host)
    };
    after.filter_map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needles() -> Needles {
        Needles { folders: vec!["/quux/checkout/".to_owned()], hosts: vec!["mirror.corp.example".to_owned()] }
    }

    #[test]
    fn homes_checkouts_and_mirrors_are_found() {
        // Put together here, so that this file passes its own check.
        for line in [
            format!("see {}{}/notes", HOMES[0], "anna"),
            format!("\"{}{}\"", HOMES[3], ".cargo"),
            "path = \"/quux/checkout/y.rs\"".to_owned(),
            "index = https://mirror.corp.example/simple".to_owned(),
        ] {
            assert!(needles().find(&line).is_some(), "{line}");
        }
    }

    #[test]
    fn addresses_and_general_words_are_not_places() {
        for line in
            ["https://example.org/home/page", "/home/ is where homes are", "a/quux/checkout/y", "~/home/x", "$X/root/x"]
        {
            assert_eq!(needles().find(line), None, "{line}");
        }
    }

    #[test]
    fn hosts_are_taken_from_settings_unless_they_are_everybodys() {
        let config =
            "registry = \"sparse+https://user:pw@mirror.corp.example:8443/index/\"\nold = 'https://crates.io/x'";
        assert_eq!(hosts(config), ["mirror.corp.example"]);
    }
}
