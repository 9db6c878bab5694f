//! Handlers: what a shutdown calls, and in which order. Names are unique and dependencies exist and are no circle,
//! checked at registration. The order closes a thing after everything that depends on it, else last in, first out.

use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use resilience_core::ConfigError;

use crate::shutdown::phase::{Budgets, Phase};

/// What a handler does. `Err` is its failure in words.
pub(crate) type Action = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// Something to do while shutting down.
///
/// It runs on a thread of its own, so it may block; a panic is caught, and at its time limit it is left behind.
///
/// ```
/// use std::time::Duration;
/// use resilience_health::shutdown::Handler;
///
/// Handler::close("http server", || Ok::<(), std::io::Error>(()))
///     .depends_on(["database"]) // so it is closed before the database
///     .limit(Duration::from_secs(2));
/// ```
#[must_use = "a handler does nothing until it is registered"]
pub struct Handler {
    pub(crate) name: String,
    pub(crate) phase: Phase,
    pub(crate) limit: Option<Duration>,
    pub(crate) depends_on: Vec<String>,
    pub(crate) action: Action,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Handler {
    fn new<R: IntoHandlerResult>(
        name: impl Into<String>,
        phase: Phase,
        action: impl FnOnce() -> R + Send + 'static,
    ) -> Self {
        let action = Box::new(move || action().into_handler_result());
        Self { name: name.into(), phase, limit: None, depends_on: Vec::new(), action }
    }

    /// A handler that closes something, in [`Phase::Close`].
    pub fn close<R: IntoHandlerResult>(name: impl Into<String>, action: impl FnOnce() -> R + Send + 'static) -> Self {
        Self::new(name, Phase::Close, action)
    }

    /// A handler that brings data to safety, in [`Phase::Flush`], whose time nothing before it can use up.
    pub fn flush<R: IntoHandlerResult>(name: impl Into<String>, action: impl FnOnce() -> R + Send + 'static) -> Self {
        Self::new(name, Phase::Flush, action)
    }

    /// How long it may take. Without a limit it gets an equal share of what the others leave of the phase's budget.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Handlers of things this one still needs while it closes: they run after it.
    pub fn depends_on<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.depends_on.extend(names.into_iter().map(Into::into));
        self
    }
}

/// What a handler's closure may return: nothing, or a `Result` whose error can be shown.
pub trait IntoHandlerResult {
    /// The failure in words, if it is one.
    ///
    /// # Errors
    /// The handler's own.
    fn into_handler_result(self) -> Result<(), String>;
}

impl IntoHandlerResult for () {
    fn into_handler_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<T, E: fmt::Display> IntoHandlerResult for Result<T, E> {
    fn into_handler_result(self) -> Result<(), String> {
        self.map(drop).map_err(|error| error.to_string())
    }
}

/// Why a shutdown cannot be built, or a handler not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// Two handlers carry the same name.
    #[error("shutdown handler `{name}` is registered twice; names are unique")]
    DuplicateHandler {
        /// The name.
        name: String,
    },
    /// A handler depends on one that does not exist.
    #[error("shutdown handler `{handler}` depends on `{dependency}`, which is not registered")]
    UnknownDependency {
        /// The handler.
        handler: String,
        /// What it names.
        dependency: String,
    },
    /// A flushing handler depends on a closing one, which is gone by then.
    #[error("shutdown handler `{handler}` runs in flush and depends on `{dependency}`, which is closed before")]
    ClosedBefore {
        /// The handler.
        handler: String,
        /// What it names.
        dependency: String,
    },
    /// Handlers depend on each other in a circle, so that there is no order.
    #[error("shutdown handlers depend on each other in a circle, among: {}", names.join(", "))]
    DependencyCycle {
        /// The handlers that cannot be ordered.
        names: Vec<String>,
    },
    /// The time limits of a phase's handlers do not fit its budget.
    #[error("the limits of the `{phase}` handlers ({handlers}) add up to {sum:?}; allowed: {allowed}")]
    LimitsExceedBudget {
        /// The phase.
        phase: Phase,
        /// The handlers with a limit, and their limits.
        handlers: String,
        /// What the limits add up to.
        sum: Duration,
        /// What would fit.
        allowed: String,
    },
    /// The shutdown has begun: what registers now would not be closed.
    #[error("shutdown handler `{name}` comes too late: the shutdown has begun")]
    AlreadyRequested {
        /// The handler.
        name: String,
    },
    /// A value that cannot be used.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

/// A registered handler without what it does: all that order and time limits depend on.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) phase: Phase,
    pub(crate) limit: Option<Duration>,
    depends_on: Vec<String>,
}

impl From<&Handler> for Plan {
    fn from(handler: &Handler) -> Self {
        Self {
            name: handler.name.clone(),
            phase: handler.phase,
            limit: handler.limit,
            depends_on: handler.depends_on.clone(),
        }
    }
}

/// Checks names, dependencies and limits of all handlers together.
pub(crate) fn validate(plans: &[Plan], budgets: &Budgets) -> Result<(), ShutdownError> {
    for (at, plan) in plans.iter().enumerate() {
        if plan.name.is_empty() || plan.name.len() > 128 || plan.name.chars().any(char::is_control) {
            let shown: String = plan.name.chars().take(140).collect();
            let allowed = "1 to 128 bytes, no control characters";
            return Err(ConfigError::new("handler name", format!("{shown:?}"), allowed).into());
        }
        if plans[..at].iter().any(|other| other.name == plan.name) {
            return Err(ShutdownError::DuplicateHandler { name: plan.name.clone() });
        }
        if plan.limit.is_some_and(|limit| limit.is_zero()) {
            return Err(ConfigError::new(format!("{}.limit", plan.name), "0ns", "more than 0").into());
        }
        for dependency in &plan.depends_on {
            let names = || (plan.name.clone(), dependency.clone());
            match plans.iter().find(|other| other.name == *dependency) {
                None => {
                    let (handler, dependency) = names();
                    return Err(ShutdownError::UnknownDependency { handler, dependency });
                }
                Some(other) if other.phase < plan.phase => {
                    let (handler, dependency) = names();
                    return Err(ShutdownError::ClosedBefore { handler, dependency });
                }
                Some(_) => {}
            }
        }
    }
    for phase in [Phase::Close, Phase::Flush] {
        limits_fit(plans, phase, budgets.of(phase))?;
        order(plans, phase)?;
    }
    Ok(())
}

fn limits_fit(plans: &[Plan], phase: Phase, budget: Duration) -> Result<(), ShutdownError> {
    let of_phase = || plans.iter().filter(|plan| plan.phase == phase);
    let limits: Vec<(&str, Duration)> =
        of_phase().filter_map(|plan| plan.limit.map(|limit| (plan.name.as_str(), limit))).collect();
    let sum = limits.iter().fold(Duration::ZERO, |sum, (_, limit)| sum.saturating_add(*limit));
    let has_unlimited = of_phase().any(|plan| plan.limit.is_none());
    if sum < budget || (sum == budget && !has_unlimited) {
        return Ok(());
    }
    let allowed = if has_unlimited {
        format!("less than the budget of {budget:?}, so that handlers without a limit get their share")
    } else {
        format!("at most the budget of {budget:?}")
    };
    let handlers = limits.iter().map(|(name, limit)| format!("{name} {limit:?}")).collect::<Vec<_>>().join(", ");
    Err(ShutdownError::LimitsExceedBudget { phase, handlers, sum, allowed })
}

/// The order of a phase's handlers: of those that nothing open depends on any more, always the one registered last.
pub(crate) fn order(plans: &[Plan], phase: Phase) -> Result<Vec<usize>, ShutdownError> {
    let members: Vec<usize> = (0..plans.len()).filter(|at| plans[*at].phase == phase).collect();
    let needs = |at: usize, other: usize| plans[at].depends_on.contains(&plans[other].name);
    // How many open handlers depend on each.
    let mut dependents: Vec<usize> = vec![0; plans.len()];
    for &at in &members {
        dependents[at] = members.iter().filter(|other| needs(**other, at)).count();
    }
    let mut ready: BinaryHeap<usize> = members.iter().copied().filter(|at| dependents[*at] == 0).collect();
    let mut ordered = Vec::with_capacity(members.len());
    while let Some(at) = ready.pop() {
        ordered.push(at);
        for &other in &members {
            if needs(at, other) {
                dependents[other] -= 1;
                if dependents[other] == 0 {
                    ready.push(other);
                }
            }
        }
    }
    if ordered.len() < members.len() {
        let names = members.iter().filter(|at| !ordered.contains(at)).map(|at| plans[*at].name.clone()).collect();
        return Err(ShutdownError::DependencyCycle { names });
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, depends_on: &[&str]) -> Plan {
        Plan::from(&Handler::close(name, || ()).depends_on(depends_on.iter().copied()))
    }

    fn ordered(plans: &[Plan]) -> Vec<&str> {
        let order = order(plans, Phase::Close).expect("no circle");
        order.into_iter().map(|at| plans[at].name.as_str()).collect()
    }

    #[test]
    fn without_dependencies_the_last_registered_closes_first() {
        assert_eq!(ordered(&[plan("a", &[]), plan("b", &[]), plan("c", &[])]), ["c", "b", "a"]);
    }

    #[test]
    fn a_thing_closes_after_everything_that_depends_on_it_whenever_it_was_registered() {
        let plans = [plan("server", &["database", "cache"]), plan("database", &[]), plan("cache", &["database"])];
        assert_eq!(ordered(&plans), ["server", "cache", "database"]);
    }

    #[test]
    fn mistakes_are_refused_with_the_names() {
        let check = |plans: &[Plan]| validate(plans, &Budgets::default()).unwrap_err().to_string();
        assert_eq!(
            check(&[plan("a", &["b"]), plan("b", &["a"]), plan("c", &[])]),
            "shutdown handlers depend on each other in a circle, among: a, b"
        );
        assert_eq!(
            check(&[plan("a", &[]), plan("a", &[])]),
            "shutdown handler `a` is registered twice; names are unique"
        );
        assert_eq!(check(&[plan("a", &["b"])]), "shutdown handler `a` depends on `b`, which is not registered");
        let limited = |name: &str, seconds| Plan { limit: Some(Duration::from_secs(seconds)), ..plan(name, &[]) };
        assert_eq!(
            check(&[limited("a", 4), limited("b", 2)]),
            "the limits of the `close` handlers (a 4s, b 2s) add up to 6s; allowed: at most the budget of 5s"
        );
        assert_eq!(
            check(&[limited("a", 5), plan("b", &[])]),
            "the limits of the `close` handlers (a 5s) add up to 5s; allowed: less than the budget of 5s, so that handlers without a limit get their share"
        );
        let flush = Plan { phase: Phase::Flush, ..plan("audit", &["database"]) };
        assert_eq!(
            check(&[plan("database", &[]), flush]),
            "shutdown handler `audit` runs in flush and depends on `database`, which is closed before"
        );
    }
}
