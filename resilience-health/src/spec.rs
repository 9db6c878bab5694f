//! How one check is registered: its name, what it asks, and everything the monitor decides about it.
//! Values are taken as given and validated when the monitor is built; nothing is clamped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use resilience_core::ConfigError;

use crate::check::{Check, LocalCheck};
use crate::error::BuildError;
use crate::hysteresis::Thresholds;
use crate::status::{Criticality, Kind, Scope};

/// Longest interval, timeout or age: a year. More is a mistake in units.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);
const MAX_RING: usize = 4096;

/// Where results come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// The monitor runs the check.
    Run(Arc<dyn Check>),
    /// Somebody pushes them.
    Pushed,
}

/// A check as it is registered with [`MonitorBuilder::check`](crate::MonitorBuilder::check).
///
/// Defaults: every 10 s (up to 10 % earlier, so that many checks spread out), 2 s time limit, too old after 3 intervals
/// and a time limit, unhealthy after 3 failures in a row (degraded after the first), better after 2 successes in a row,
/// important, and exclusive to this instance (liveness: critical and local, always).
///
/// ```
/// use std::time::Duration;
/// use resilience_health::{CheckSpec, Criticality, Scope};
///
/// let spec = CheckSpec::readiness("registry", || Ok::<(), std::io::Error>(()))
///     .criticality(Criticality::Critical)
///     .scope(Scope::Shared)
///     .interval(Duration::from_secs(5))
///     .timeout(Duration::from_secs(1))
///     .depends_on(["dns"])
///     .runbook("registry-unreachable");
/// assert_eq!(spec.name(), "registry");
/// ```
#[derive(Clone)]
#[must_use = "a check does nothing until it is given to a monitor"]
pub struct CheckSpec {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) source: Source,
    pub(crate) criticality: Criticality,
    pub(crate) scope: Scope,
    pub(crate) gates_readiness: bool,
    pub(crate) interval: Duration,
    pub(crate) jitter: f64,
    pub(crate) timeout: Duration,
    max_age: Option<Duration>,
    pub(crate) thresholds: Thresholds,
    pub(crate) depends_on: Vec<String>,
    pub(crate) runbook: Option<String>,
    pub(crate) samples: usize,
    pub(crate) transitions: usize,
}

impl fmt::Debug for CheckSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckSpec")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("criticality", &self.criticality)
            .field("scope", &self.scope)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("depends_on", &self.depends_on)
            .finish_non_exhaustive()
    }
}

impl CheckSpec {
    fn new(name: impl Into<String>, kind: Kind, source: Source) -> Self {
        let liveness = kind == Kind::Liveness;
        Self {
            name: name.into(),
            kind,
            source,
            criticality: if liveness { Criticality::Critical } else { Criticality::Important },
            scope: if liveness { Scope::Local } else { Scope::Exclusive },
            gates_readiness: false,
            interval: Duration::from_secs(10),
            jitter: 0.1,
            timeout: Duration::from_secs(2),
            max_age: None,
            thresholds: Thresholds { fail: 3, degrade: 1, recover: 2 },
            depends_on: Vec::new(),
            runbook: None,
            samples: 32,
            transitions: 16,
        }
    }

    /// A check whose failure asks for a restart. Takes only what is promised to look at nothing outside the process.
    pub fn liveness(name: impl Into<String>, check: impl LocalCheck + 'static) -> Self {
        Self::new(name, Kind::Liveness, Source::Run(Arc::new(check)))
    }

    /// A check of something this process needs in order to serve.
    pub fn readiness(name: impl Into<String>, check: impl Check + 'static) -> Self {
        Self::new(name, Kind::Readiness, Source::Run(Arc::new(check)))
    }

    /// A check that must be healthy once before the process counts as started; after that it is not run again.
    pub fn startup(name: impl Into<String>, check: impl Check + 'static) -> Self {
        Self::new(name, Kind::Startup, Source::Run(Arc::new(check)))
    }

    /// A check of kind readiness whose results are [pushed](crate::HealthMonitor::push). A result older than
    /// `time_to_live` is unknown. One result is enough to change the status, unless thresholds say otherwise.
    pub fn pushed(name: impl Into<String>, time_to_live: Duration) -> Self {
        let mut spec = Self::new(name, Kind::Readiness, Source::Pushed);
        spec.max_age = Some(time_to_live);
        spec.thresholds = Thresholds { fail: 1, degrade: 1, recover: 1 };
        spec
    }

    /// The check's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its failure means for the whole.
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = criticality;
        self
    }

    /// Whom else a failure of the checked thing hits.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Lets the failure of a critical *shared* dependency take this process out of service. Every replica will do the
    /// same at the same moment: say yes only if serving without it is worse than not serving.
    pub fn gates_readiness(mut self, gates: bool) -> Self {
        self.gates_readiness = gates;
        self
    }

    /// The time from one run's start to the next one's; more than 0.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// By how much of the interval a run may come early, 0 to 0.5. It never comes late, so the interval stays the most
    /// one waits.
    pub fn jitter(mut self, ratio: f64) -> Self {
        self.jitter = ratio;
        self
    }

    /// How long a run may take; more than 0. Kept by the monitor, not by the check: when it has passed, the run has
    /// failed, and a check that still hangs is not started a second time.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// When a result is too old to be believed; at least interval + timeout.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Unhealthy results in a row that make it unhealthy; at least 1.
    pub fn fail_after(mut self, results: u32) -> Self {
        self.thresholds.fail = results;
        self
    }

    /// Degraded or unhealthy results in a row that make it degraded; at least 1.
    pub fn degrade_after(mut self, results: u32) -> Self {
        self.thresholds.degrade = results;
        self
    }

    /// Better results in a row that make it better; at least 1.
    pub fn recover_after(mut self, results: u32) -> Self {
        self.thresholds.recover = results;
        self
    }

    /// The checks whose failure explains a failure of this one.
    pub fn depends_on<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.depends_on.extend(names.into_iter().map(Into::into));
        self
    }

    /// The id of the runbook that says what to do when it fails.
    pub fn runbook(mut self, id: impl Into<String>) -> Self {
        self.runbook = Some(id.into());
        self
    }

    /// How many results and how many changes of status are remembered; at most 4096 each. Default 32 and 16.
    pub fn remember(mut self, samples: usize, transitions: usize) -> Self {
        self.samples = samples;
        self.transitions = transitions;
        self
    }

    pub(crate) fn effective_max_age(&self) -> Duration {
        self.max_age.unwrap_or(self.interval * 3 + self.timeout)
    }

    pub(crate) fn validate(&self) -> Result<(), BuildError> {
        let field = |field: &str| format!("{}.{field}", self.name);
        if self.name.is_empty() || self.name.len() > 128 || self.name.chars().any(char::is_control) {
            let shown: String = self.name.chars().take(140).collect();
            return Err(
                ConfigError::new("check name", format!("{shown:?}"), "1 to 128 bytes, no control characters").into()
            );
        }
        let positive = |name: &str, value: Duration| {
            if value.is_zero() || value > MAX_DURATION {
                return Err(ConfigError::new(field(name), format!("{value:?}"), "more than 0, at most a year"));
            }
            Ok(())
        };
        positive("interval", self.interval)?;
        positive("timeout", self.timeout)?;
        if let Some(max_age) = self.max_age {
            positive("max_age", max_age)?;
            let least = self.interval + self.timeout;
            if matches!(self.source, Source::Run(_)) && max_age < least {
                let allowed =
                    format!("at least interval + timeout = {least:?}, or a good result is too old before the next");
                return Err(ConfigError::new(field("max_age"), format!("{max_age:?}"), allowed).into());
            }
        }
        let thresholds = self.thresholds;
        for (name, value) in [
            ("fail_after", thresholds.fail),
            ("degrade_after", thresholds.degrade),
            ("recover_after", thresholds.recover),
        ] {
            if value == 0 {
                return Err(ConfigError::new(field(name), value, "1 to 4294967295").into());
            }
        }
        if !(0.0..=0.5).contains(&self.jitter) {
            return Err(ConfigError::new(field("jitter"), self.jitter, "0 to 0.5").into());
        }
        for (name, value) in [("samples", self.samples), ("transitions", self.transitions)] {
            if value == 0 || value > MAX_RING {
                return Err(ConfigError::new(field(name), value, format!("1 to {MAX_RING}")).into());
            }
        }
        if self.kind == Kind::Liveness {
            if self.criticality != Criticality::Critical {
                let value = format!("{:?}", self.criticality);
                return Err(
                    ConfigError::new(field("criticality"), value, "Critical (liveness means: restart me)").into()
                );
            }
            if self.scope != Scope::Local || !self.depends_on.is_empty() {
                let value = format!("{:?}, depending on [{}]", self.scope, self.depends_on.join(", "));
                return Err(ConfigError::new(
                    field("scope"),
                    value,
                    "Local without dependencies (liveness looks inside)",
                )
                .into());
            }
        }
        Ok(())
    }
}
