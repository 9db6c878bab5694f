//! The guarded language servers of a toolchain: their shared limiter, their health, their end.
//! A session that has ended is forgotten; once stopped, no server is taken in any more. Restarts nothing: the guards do.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilience_core::{BreakerState, CircuitBreaker, Event, Observers, RateLimiter, Registry};
use resilience_health::{CheckResult, CheckSpec, Status};

use crate::lsp::{EditorStreams, LspConfig, LspError, LspState, ServerCommand, Supervisor, server_breaker};

#[derive(Debug, Clone)]
pub(super) struct Servers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limiter: RateLimiter,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    servers: Vec<Server>,
    stopped: bool,
}

#[derive(Debug, Clone)]
struct Server {
    name: String,
    supervisor: Supervisor,
    breaker: CircuitBreaker,
}

impl Servers {
    pub(super) fn new(limiter: RateLimiter) -> Self {
        Self(Arc::new(Shared { limiter, list: Mutex::default() }))
    }

    /// Starts a guarded server with the toolchain's limiter, clock and observers.
    pub(super) fn start(
        &self,
        policies: &Registry,
        mut config: LspConfig,
        command: ServerCommand,
        editor: EditorStreams,
    ) -> Result<Supervisor, LspError> {
        if self.list().stopped {
            return Err(stopped());
        }
        config.observers = both(policies.observers(), config.observers);
        config.requests.limiter.get_or_insert_with(|| self.0.limiter.clone());
        let breaker = match config.requests.breaker.take() {
            Some(breaker) => breaker,
            None => server_breaker(&config.requests, &config.observers, policies.clock())?,
        };
        config.requests.breaker = Some(breaker.clone());
        let name = command.name();
        let supervisor = Supervisor::start(config, command, editor)?;

        let mut list = self.list();
        if list.stopped {
            drop(list);
            supervisor.stop();
            return Err(stopped());
        }
        list.servers.push(Server { name, supervisor: supervisor.clone(), breaker });
        Ok(supervisor)
    }

    fn list(&self) -> MutexGuard<'_, List> {
        let mut list = self.0.list.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgets the ended ones, so that a long life of many sessions does not grow the list.
        list.servers.retain(|server| server.supervisor.stats().state != LspState::Stopped);
        list
    }

    /// Ends every session and waits until the servers are gone.
    pub(super) fn stop(&self) {
        let servers = {
            let mut list = self.list();
            list.stopped = true;
            std::mem::take(&mut list.servers)
        };
        // All are told before the first is waited for: together they take as long as the slowest.
        for server in &servers {
            server.supervisor.stop();
        }
        for server in servers {
            // How the session went is its owner's concern; here it counts that it is over.
            drop(server.supervisor.wait());
        }
    }

    pub(super) fn check(&self, interval: Duration) -> CheckSpec {
        let servers = self.clone();
        let check = move || {
            let running = servers.list().servers.clone();
            let whole = CheckResult::healthy(format!("servers guarded: {}", running.len()));
            running.iter().fold(whole, |whole, server| {
                let (status, message) = server.health();
                whole.sub_check(&server.name, status, message)
            })
        };
        CheckSpec::readiness("language servers", check).interval(interval)
    }
}

impl Server {
    fn health(&self) -> (Status, String) {
        let numbers = self.supervisor.stats();
        let is = numbers.state.as_str();
        match numbers.state {
            LspState::Restarting | LspState::Degraded => {
                let why = numbers.last_failure.unwrap_or_else(|| "no reason known".to_owned());
                (Status::Degraded, format!("{is}: {why}"))
            }
            _ if matches!(self.breaker.state(), BreakerState::Open | BreakerState::ForcedOpen) => {
                let name = self.breaker.name();
                (Status::Degraded, format!("{is}, but the breaker `{name}` is open: too many requests went unanswered"))
            }
            _ => (Status::Healthy, is.to_owned()),
        }
    }
}

/// Listeners of the toolchain, and those that this server was given.
fn both(all: &Observers, own: Observers) -> Observers {
    if own.is_empty() { all.clone() } else { all.clone().with(Arc::new(move |event: &Event<'_>| own.emit(event))) }
}

fn stopped() -> LspError {
    LspError::Io(io::Error::other("the toolchain has been shut down"))
}
