//! What the guard has done, in numbers: counters, latency per method, the server's state.
//! Bounded whatever the editor sends: a fixed number of methods, the rest counted together. Decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// What the guarded server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LspState {
    /// Started; the editor has not finished `initialize` yet.
    Starting,
    /// It answers.
    Ready,
    /// Lost; a new one is being started and told what is open.
    Restarting,
    /// Lost too often or not startable; the guard answers everything itself.
    Degraded,
    /// The session is ending.
    Stopping,
    /// The session has ended.
    Stopped,
}

impl LspState {
    /// Its name in telemetry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// A snapshot of the guard's numbers.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LspStats {
    /// What the server is doing.
    pub state: LspState,
    /// How many servers have been started in this session.
    pub generation: u32,
    /// How often a lost server was replaced.
    pub restarts: u64,
    /// Servers lost because they ended.
    pub crashes: u64,
    /// Servers lost because they did not answer, or did not read.
    pub hangs: u64,
    /// Servers lost because they broke the protocol.
    pub protocol_errors: u64,
    /// Requests of the editor.
    pub requests: u64,
    /// Requests that the server answered.
    pub answered: u64,
    /// Requests that the guard answered in the server's place, with a result or an error.
    pub degraded: u64,
    /// Of those: past their deadline.
    pub timed_out: u64,
    /// Of those: refused by the limiter, the breaker or a bound.
    pub refused: u64,
    /// Answers of the server that nobody waited for: late or repeated.
    pub dropped_answers: u64,
    /// Notifications of the editor dropped because too much waited for a restart; never one of an edit.
    pub dropped_notifications: u64,
    /// Messages that could not be read, from either side.
    pub bad_messages: u64,
    /// Documents open.
    pub open_documents: usize,
    /// Requests the server has.
    pub in_flight: usize,
    /// Messages waiting for a restart.
    pub waiting: usize,
    /// How the last server was lost.
    pub last_failure: Option<String>,
    /// Latency of answered requests, by method; all beyond the first 64 methods under `other`.
    pub methods: BTreeMap<String, MethodStats>,
}

/// Numbers of one method.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct MethodStats {
    /// Requests that the server answered.
    pub answered: u64,
    /// Requests that the guard answered in the server's place.
    pub degraded: u64,
    /// The longest answer.
    pub max: Duration,
    /// Answers by latency: bucket `n` counts those below 2^n microseconds, the last one all others.
    pub buckets: [u64; 32],
}

impl Default for MethodStats {
    fn default() -> Self {
        Self { answered: 0, degraded: 0, max: Duration::ZERO, buckets: [0; 32] }
    }
}

impl MethodStats {
    fn record(&mut self, latency: Duration) {
        self.answered += 1;
        self.max = self.max.max(latency);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()).min(31);
        self.buckets[bucket as usize] += 1;
    }

    /// An upper bound of the latency that a share `q` of the answers (0.0 to 1.0) did not exceed; exact to a factor
    /// of two. Zero without answers.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = q.clamp(0.0, 1.0) * self.answered as f64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= rank {
                return Duration::from_micros(1 << bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Latency by method, bounded.
#[derive(Debug, Default)]
pub(crate) struct Methods(BTreeMap<String, MethodStats>);

impl Methods {
    const MAX: usize = 64;

    fn of(&mut self, method: &str) -> &mut MethodStats {
        let name = if self.0.contains_key(method) || self.0.len() < Self::MAX { method } else { "other" };
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), MethodStats::default());
        }
        self.0.get_mut(name).expect("it was just put there")
    }

    pub(crate) fn answered(&mut self, method: &str, latency: Duration) {
        self.of(method).record(latency);
    }

    pub(crate) fn degraded(&mut self, method: &str) {
        self.of(method).degraded += 1;
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, MethodStats> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_factor_of_two() {
        let mut stats = MethodStats::default();
        for micros in 1..=1000 {
            stats.record(Duration::from_micros(micros));
        }
        for (q, exact) in [(0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1000)] {
            let quantile = stats.quantile(q).as_micros();
            assert!((exact..=exact * 2).contains(&quantile), "{q}: {quantile} for {exact}");
        }
        assert_eq!(MethodStats::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn an_editor_that_invents_methods_does_not_grow_the_statistics() {
        let mut methods = Methods::default();
        for n in 0..1000 {
            methods.answered(&format!("custom/{n}"), Duration::ZERO);
        }
        let snapshot = methods.snapshot();
        assert_eq!(snapshot.len(), Methods::MAX + 1);
        assert_eq!(snapshot["other"].answered, 1000 - Methods::MAX as u64);
    }
}
