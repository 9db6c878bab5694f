//! The errors of building and driving a monitor. Each names the check and what would be right.

use resilience_core::ConfigError;

/// Why a monitor cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two checks carry the same name.
    #[error("check `{name}` is registered twice; names are unique")]
    DuplicateCheck {
        /// The name.
        name: String,
    },
    /// A check depends on one that does not exist.
    #[error("check `{check}` depends on `{dependency}`, which is not registered; registered are: {registered}")]
    UnknownDependency {
        /// The check that names the dependency.
        check: String,
        /// What it names.
        dependency: String,
        /// The names there are.
        registered: String,
    },
    /// Checks depend on each other in a circle, so that no root cause could be named.
    #[error("checks depend on each other in a circle: {}", names.join(" -> "))]
    DependencyCycle {
        /// The circle; the first name is repeated at the end.
        names: Vec<String>,
    },
    /// A value that cannot be used.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

/// No check of that name is registered, or it is of the wrong sort.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// There is no such check.
    #[error("no check is named `{name}`; registered are: {registered}")]
    UnknownCheck {
        /// The name asked for.
        name: String,
        /// The names there are.
        registered: String,
    },
    /// A result was pushed to a check that the monitor runs itself.
    #[error("check `{name}` is run by the monitor and takes no pushed results; register it with `CheckSpec::pushed`")]
    NotPushed {
        /// The check's name.
        name: String,
    },
    /// A run was asked of a check whose results are pushed.
    #[error("check `{name}` is pushed: there is nothing to run")]
    NotRun {
        /// The check's name.
        name: String,
    },
}

/// Why background checking did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It has already been started.
    #[error("the monitor already checks in the background; start it once and keep what `start` returns")]
    AlreadyStarted,
    /// The system gave no thread.
    #[error("cannot start a thread for health checks")]
    Thread(#[from] std::io::Error),
}
