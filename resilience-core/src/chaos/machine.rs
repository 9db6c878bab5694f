//! What is injected into which call: decided by a seeded generator, counted, and done elsewhere.
//! Every decision draws the same number of numbers, so one kind's rate does not change what happens to the others, and a
//! higher rate hits the calls that a lower one hits, and more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ChaosStatistics;
use crate::class::Class;

/// What is run before a call.
#[derive(Clone)]
pub(crate) struct Behaviour(pub(super) Arc<dyn Fn() + Send + Sync>);

impl Behaviour {
    pub(crate) fn run(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Behaviour")
    }
}

/// What may be injected, each with its rate from 0 to 1.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) behaviour: Option<(f64, Behaviour)>,
    pub(super) latency: Option<(f64, Duration)>,
    pub(super) fault: Option<(f64, Class)>,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some((rate, _)) = &self.behaviour {
            write!(f, "behaviour at a rate of {rate}")?;
            separator = ", ";
        }
        if let Some((rate, latency)) = &self.latency {
            write!(f, "{separator}{latency:?} at a rate of {rate}")?;
            separator = ", ";
        }
        match &self.fault {
            Some((rate, class)) => write!(f, "{separator}{} fault at a rate of {rate}", class.category),
            None if separator.is_empty() => f.write_str("nothing by itself"),
            None => Ok(()),
        }
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Default)]
pub(super) struct Decision {
    pub(super) behaviour: Option<Behaviour>,
    pub(super) latency: Option<Duration>,
    pub(super) fault: Option<Class>,
    pub(super) outcome: bool,
}

#[derive(Debug)]
pub(super) struct Machine {
    random: fastrand::Rng,
    pub(super) statistics: ChaosStatistics,
}

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), statistics: ChaosStatistics::default() }
    }

    /// Decides for the next call. A result made up takes the operation's place only where no fault does.
    pub(super) fn decide(&mut self, settings: &Settings, outcome_rate: f64) -> Decision {
        // Below the rate: numbers are from 0 up to but not including 1, so 0 is never and 1 is always.
        let [behaviour, latency, fault, outcome] = std::array::from_fn(|_| self.random.f64());
        let decision = Decision {
            behaviour: settings.behaviour.as_ref().filter(|(rate, _)| behaviour < *rate).map(|(_, it)| it.clone()),
            latency: settings.latency.filter(|(rate, _)| latency < *rate).map(|(_, it)| it),
            fault: settings.fault.filter(|(rate, _)| fault < *rate).map(|(_, it)| it),
            outcome: false,
        };
        let decision = Decision { outcome: decision.fault.is_none() && outcome < outcome_rate, ..decision };
        let counts = &mut self.statistics;
        counts.calls += 1;
        counts.behaviours += u64::from(decision.behaviour.is_some());
        counts.latencies += u64::from(decision.latency.is_some());
        counts.faults += u64::from(decision.fault.is_some());
        counts.outcomes += u64::from(decision.outcome);
        decision
    }
}
