//! The real components that workflows need beyond Rust: how each is looked for and how it is got.
//!
//! The table is data (`components.toml` beside `Cargo.toml`). Nothing is installed into the system except by its own
//! package manager, as root, in a container or CI, and then it is said; the rest goes into `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::steps::Bench;
use crate::workspace::Workspace;
use crate::{Stop, process, ui};

/// Fetching and, for cargo, building one component.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// One component.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Component {
    pub(crate) name: String,
    /// What for; completes "needed because …".
    pub(crate) why: String,
    /// Names of its program; the first one found is used.
    pub(crate) programs: Vec<String>,
    get: Get,
}

/// Where a component comes from. A version is asked for where the registry keeps old ones.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Get {
    Apt(String),
    Cargo { package: String, version: String },
    Npm { package: String, version: String },
    Pip { package: String, version: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    component: Vec<Component>,
}

/// Who and where we are, as far as installing goes.
#[derive(Debug, Clone, Copy)]
struct Machine {
    root: bool,
    disposable: bool,
    apt: bool,
}

impl Machine {
    fn here() -> Self {
        let marked = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            root: rustix::process::geteuid().is_root(),
            disposable: marked("CI")
                || ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists()),
            apt: on_path("apt-get").is_some(),
        }
    }
}

impl Component {
    /// The component called `name`.
    ///
    /// # Errors
    /// [`Stop::Setup`] when the table is broken or doesn't have it.
    pub(crate) fn named(name: &str) -> Result<Self, Stop> {
        let table = table()?;
        let known: Vec<&str> = table.iter().map(|component| component.name.as_str()).collect();
        let known = known.join(", ");
        table
            .into_iter()
            .find(|component| component.name == name)
            .ok_or_else(|| Stop::Setup(format!("no component `{name}`; components.toml has: {known}")))
    }

    /// Its program, when it is here: on `PATH`, or in the tools folder.
    pub(crate) fn find(&self, tools: &Path) -> Option<PathBuf> {
        let folders = ["bin", "node_modules/.bin", "venv/bin"].map(|folder| tools.join(folder));
        self.programs.iter().find_map(|program| {
            on_path(program).or_else(|| folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file()))
        })
    }

    /// The commands that get it, in order.
    fn commands(&self, tools: &Path) -> Vec<Command> {
        let command = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        };
        let folder = tools.to_string_lossy();
        match &self.get {
            Get::Apt(package) => {
                let mut commands = [
                    command(Path::new("apt-get"), &["update"]),
                    command(Path::new("apt-get"), &["install", "--yes", "--no-install-recommends", package]),
                ];
                for command in &mut commands {
                    command.env("DEBIAN_FRONTEND", "noninteractive");
                }
                commands.into()
            }
            Get::Cargo { package, version } => {
                // Cargo then builds in a temporary folder: the tool's features must not mix with the workspace's builds.
                let arguments = ["install", package, "--version", version, "--locked", "--root", &folder];
                let mut command = command(Path::new("cargo"), &arguments);
                command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
                vec![command]
            }
            Get::Npm { package, version } => {
                let wanted = format!("{package}@{version}");
                let arguments = ["install", "--no-audit", "--no-fund", "--prefix", &folder, &wanted];
                vec![command(Path::new("npm"), &arguments)]
            }
            Get::Pip { package, version } => {
                let venv = tools.join("venv");
                let wanted = format!("{package}=={version}");
                vec![
                    command(Path::new("python3"), &["-m", "venv", &venv.to_string_lossy()]),
                    command(&venv.join("bin/pip"), &["install", &wanted]),
                ]
            }
        }
    }

    /// Whether we may run [`Self::commands`] ourselves.
    fn may_install(&self, machine: Machine) -> bool {
        match self.get {
            Get::Apt(_) => machine.root && machine.disposable && machine.apt,
            Get::Cargo { .. } | Get::Npm { .. } | Get::Pip { .. } => true,
        }
    }

    /// What a person has to type, one command a line.
    fn instructions(&self, tools: &Path) -> String {
        let sudo = if matches!(self.get, Get::Apt(_)) { "sudo " } else { "" };
        let lines: Vec<_> =
            self.commands(tools).iter().map(|command| format!("{sudo}{}", process::shown(command))).collect();
        lines.join("\n")
    }

    /// The component's program, got first when it is missing and may be installed.
    ///
    /// # Errors
    /// [`Stop::Setup`] with the exact commands when it is missing and stays so; [`Stop::Interrupted`] on Ctrl-C.
    pub(crate) fn ensure(&self, workspace: &Workspace, bench: &mut Bench<'_>) -> Result<PathBuf, Stop> {
        let tools = workspace.tools();
        if let Some(program) = self.find(&tools) {
            return Ok(program);
        }
        let missing = |reason: &str| {
            let commands = self.instructions(&tools).replace('\n', " && ");
            Stop::Setup(format!("{} is missing ({}){reason}; get it with: {commands}", self.name, self.why))
        };
        if !self.may_install(Machine::here()) {
            return Err(missing(""));
        }
        std::fs::create_dir_all(&tools).map_err(|error| Stop::write(&tools, &error))?;
        for mut command in self.commands(&tools) {
            // Said before it is done: this changes the machine, or takes minutes.
            let line = format!("\ninstalling {}: {}", self.name, process::shown(&command));
            anstream::eprintln!("{}", ui::paint(ui::NOTE, &line));
            let ended = bench.run(command.current_dir(&workspace.root), LIMIT)?;
            if !ended.success() {
                return Err(missing(&format!(", and `{}` failed: {ended}", process::shown(&command))));
            }
        }
        self.find(&tools).ok_or_else(|| missing(", and is not there after it was installed"))
    }
}

/// All components.
fn table() -> Result<Vec<Component>, Stop> {
    let table: Table = toml::from_str(include_str!("../components.toml"))
        .map_err(|error| Stop::Setup(format!("xtask/components.toml: {error}")))?;
    Ok(table.component)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_OF_EACH: &str = r#"
        component = [
            { name = "a", why = "w", programs = ["a"], get = { apt = "a-deb" } },
            { name = "c", why = "w", programs = ["c"], get = { cargo = { package = "c", version = "1.2.3" } } },
            { name = "n", why = "w", programs = ["n"], get = { npm = { package = "@s/n", version = "4.5.6" } } },
            { name = "p", why = "w", programs = ["p"], get = { pip = { package = "p", version = "7.8.9" } } },
        ]
    "#;

    fn one_of_each() -> Vec<Component> {
        toml::from_str::<Table>(ONE_OF_EACH).unwrap().component
    }

    #[test]
    fn the_table_has_what_the_workflows_ask_for_and_names_each_once() {
        let table = table().unwrap();
        for name in ["chromium", "cargo-deny", "valgrind"] {
            Component::named(name).unwrap();
        }
        for component in &table {
            assert!(!component.programs.is_empty() && !component.why.is_empty(), "{component:?}");
            assert_eq!(table.iter().filter(|other| other.name == component.name).count(), 1, "{}", component.name);
        }
        let line = Component::named("postgres").unwrap_err().to_string();
        assert_eq!(line, "no component `postgres`; components.toml has: cargo-deny, cargo-mutants, chromium, valgrind");
    }

    #[test]
    fn each_source_has_its_exact_commands() {
        let shown: Vec<_> = one_of_each().iter().map(|c| c.instructions(Path::new("t/tools"))).collect();
        insta::assert_snapshot!(shown.join("\n\n"), @r"
        sudo DEBIAN_FRONTEND=noninteractive apt-get update
        sudo DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends a-deb

        cargo install c --version 1.2.3 --locked --root t/tools

        npm install --no-audit --no-fund --prefix t/tools @s/n@4.5.6

        python3 -m venv t/tools/venv
        t/tools/venv/bin/pip install p==7.8.9
        ");
    }

    #[test]
    fn the_system_is_changed_only_as_root_on_a_disposable_machine() {
        let [apt, rest @ ..] = &one_of_each()[..] else { panic!("four components") };
        for bits in 0..8_u8 {
            let machine = Machine { root: bits & 1 != 0, disposable: bits & 2 != 0, apt: bits & 4 != 0 };
            assert_eq!(apt.may_install(machine), bits == 7, "{machine:?}");
            assert!(rest.iter().all(|component| component.may_install(machine)));
        }
    }

    #[test]
    fn a_program_in_the_tools_folder_is_found() {
        let tools = tempfile::tempdir().unwrap();
        let [_, component, ..] = &one_of_each()[..] else { panic!("four components") };
        let component = Component { programs: vec!["no-such-tool-anywhere".into()], ..component.clone() };
        assert_eq!(component.find(tools.path()), None);
        let program = tools.path().join("bin/no-such-tool-anywhere");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::write(&program, "").unwrap();
        assert_eq!(component.find(tools.path()), Some(program));
    }
}
