//! Checks that every program can use: a heartbeat, a circuit breaker's state, a TCP connection.
//! Each only looks and says what it saw; what follows from that is the monitor's.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resilience_core::{BreakerState, CircuitBreaker, Clock, Instant};

use crate::check::{Check, CheckContext, CheckResult, LocalCheck};
use crate::status::Status;

/// A loop says that it still turns: call [`beat`](Self::beat) once a round. Silence is unhealthy.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Clock;
/// use resilience_health::{CheckSpec, HealthMonitor, Heartbeat};
///
/// let (clock, time) = Clock::manual();
/// let heartbeat = Heartbeat::new(clock.clone(), Duration::from_secs(5));
/// let monitor = HealthMonitor::builder()
///     .clock(clock)
///     .check(CheckSpec::liveness("event_loop", heartbeat.clone()).interval(Duration::from_secs(1)).fail_after(1))
///     .build()?;
/// heartbeat.beat();
/// monitor.tick();
/// assert!(monitor.live().pass);
///
/// time.advance(Duration::from_secs(6)); // the loop hangs
/// monitor.tick();
/// assert_eq!(&*monitor.live().causes[0].message, "silent for 6s, the limit is 5s");
/// # Ok::<(), resilience_health::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Heartbeat {
    clock: Clock,
    max_silence: Duration,
    last: Arc<AtomicU64>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("max_silence", &self.max_silence).finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// A heartbeat that may be silent for as long as `max_silence`. Its making is the first beat.
    pub fn new(clock: Clock, max_silence: Duration) -> Self {
        let last = Arc::new(AtomicU64::new(clock.now().as_nanos()));
        Self { clock, max_silence, last }
    }

    /// Says that the loop turns. Costs a reading of the clock.
    pub fn beat(&self) {
        // Relaxed: the time is all there is to know, nothing else is published with it.
        self.last.store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }
}

impl Check for Heartbeat {
    fn check(&self, _context: &CheckContext) -> CheckResult {
        let last = Instant::from_nanos(self.last.load(Ordering::Relaxed));
        let silence = self.clock.now().saturating_duration_since(last);
        if silence > self.max_silence {
            CheckResult::unhealthy(format!("silent for {silence:?}, the limit is {:?}", self.max_silence))
        } else {
            CheckResult::healthy("beats")
        }
    }
}

impl LocalCheck for Heartbeat {}

/// What an open circuit breaker means for health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum OnOpen {
    /// Nothing; the message still says that it is open.
    Ignore,
    /// Degraded: the breaker does its work, the service is less than full.
    #[default]
    Degrade,
    /// Unhealthy.
    Fail,
}

/// Looks at the state of a circuit breaker. Never calls what the breaker protects.
///
/// Open means what [`on_open`](Self::on_open) says, by default degraded; half-open is degraded, unless open is ignored.
/// A breaker protects something outside, so this is no [`LocalCheck`].
#[derive(Debug, Clone)]
pub struct BreakerCheck {
    breaker: CircuitBreaker,
    on_open: OnOpen,
}

impl BreakerCheck {
    /// Looks at `breaker`; open degrades.
    pub fn new(breaker: CircuitBreaker) -> Self {
        Self { breaker, on_open: OnOpen::default() }
    }

    /// What it means when the breaker is open.
    #[must_use]
    pub fn on_open(mut self, on_open: OnOpen) -> Self {
        self.on_open = on_open;
        self
    }
}

impl Check for BreakerCheck {
    fn check(&self, _context: &CheckContext) -> CheckResult {
        let state = self.breaker.state();
        let (status, note) = match (state, self.on_open) {
            (BreakerState::Closed, _) => (Status::Healthy, ""),
            (BreakerState::Disabled | BreakerState::MetricsOnly, _) => {
                (Status::Healthy, ": it lets every call through")
            }
            (_, OnOpen::Ignore) => (Status::Healthy, ": ignored by on_open"),
            (BreakerState::HalfOpen, _) => (Status::Degraded, ": it tries whether calls succeed again"),
            (_, OnOpen::Degrade) => (Status::Degraded, ": calls are rejected; on_open says degrade"),
            (_, OnOpen::Fail) => (Status::Unhealthy, ": calls are rejected; on_open says fail"),
        };
        let name = self.breaker.name();
        CheckResult::new(status, format!("breaker `{name}` is {}{note}", state.as_str()))
            .detail("breaker", name)
            .detail("state", state.as_str())
    }
}

/// Opens a TCP connection and closes it again.
///
/// Each address that the name resolves to is tried within the check's time limit. The name is resolved at every run, so
/// that a change of DNS is seen; a resolver that hangs is caught by the monitor's time limit.
#[derive(Debug, Clone)]
pub struct TcpConnect {
    address: String,
}

impl TcpConnect {
    /// Connects to `address`, as in `"db.internal:5432"`.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

impl Check for TcpConnect {
    fn check(&self, context: &CheckContext) -> CheckResult {
        let address = &self.address;
        let addresses: Vec<_> = match address.to_socket_addrs() {
            Ok(addresses) => addresses.take(8).collect(),
            Err(error) => return CheckResult::unhealthy(format!("cannot resolve {address}: {error}")),
        };
        // Shared out, so that a first address that swallows packets leaves time for the second.
        let share = context.timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut result = CheckResult::unhealthy(format!("{address} resolves to no address"));
        for target in addresses {
            match TcpStream::connect_timeout(&target, share.max(Duration::from_millis(1))) {
                Ok(_) => return CheckResult::healthy(format!("connected to {target}")),
                Err(error) => result = CheckResult::unhealthy(format!("cannot connect to {target}: {error}")),
            }
        }
        result
    }
}
