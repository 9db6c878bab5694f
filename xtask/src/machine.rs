//! Where and when figures were taken: without it they say nothing.

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::workspace::Workspace;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// As its maker calls the processor.
    pub(crate) processor: String,
    /// How many threads run at once.
    pub(crate) processors: u32,
    pub(crate) system: String,
    pub(crate) toolchain: String,
    /// Of the sources that were measured; `+` when they had changes that aren't committed.
    pub(crate) commit: String,
    /// Year, month, day.
    pub(crate) date: String,
    /// How many programs wanted a processor in the minute before: more than a few, and times are noisy.
    pub(crate) load: f64,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here(workspace: &Workspace) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        // The version; what its builder added after the dash says nothing to others.
        let release = read("/proc/sys/kernel/osrelease");
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).current_dir(&workspace.root).args(arguments).output().ok();
            let output = output.filter(|output| output.status.success())?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|it| !it.is_empty());
        let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
        Self {
            processor: model.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned()),
            processors: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            system: format!("{} {}", std::env::consts::OS, release.split('-').next().unwrap_or_default().trim()),
            toolchain: said("rustc", &["--version"]).unwrap_or_else(|| "unknown".into()),
            commit: if changed { commit + "+" } else { commit },
            date: said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(|| "unknown".into()),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }

    /// For people, in one line.
    pub(crate) fn line(&self) -> String {
        let Self { processor, processors, system, toolchain, commit, date, load } = self;
        format!(
            "{date}, commit {commit}, {processor}, {processors} processors, {system}, {toolchain}, load {load:.1} at the start"
        )
    }

    /// Whether more programs wanted to run than there are processors.
    pub(crate) fn was_busy(&self) -> bool {
        self.load > f64::from(self.processors)
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            processor: "Some Processor".into(),
            processors: 2,
            system: "linux 6.1".into(),
            toolchain: "rustc 1.95.0".into(),
            commit: "abc1234".into(),
            date: "2026-01-02".into(),
            load: 0.5,
        }
    }
}
