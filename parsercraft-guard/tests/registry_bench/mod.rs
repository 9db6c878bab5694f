//! What the tests of the registry guard share: a misbehaving registry, a cache folder, clocks and an ear.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use parsercraft_guard::registry::{Builder, GuardError, PackageId, RegistryGuard};
use parsercraft_guard::testkit::registry::{FaultyRegistry, PublishedRelease};
use resilience_core::{Backoff, CircuitBreaker, Event, Jitter, ManualClock, Observers, RateLimiter, Retry};

/// Everything a test needs: a registry, a folder for the cache, a clock for breaker and ages, and what was observed.
pub(crate) struct Bench {
    pub(crate) registry: FaultyRegistry,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) breaker_time: ManualClock,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            registry: FaultyRegistry::start(42).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            breaker_time: ManualClock::new(),
            events: Arc::default(),
        }
    }

    pub(crate) fn observers(&self) -> Observers {
        let events = Arc::clone(&self.events);
        Observers::new().with(Arc::new(move |event: &Event<'_>| {
            let line = match event {
                Event::RetryScheduled { delay, .. } => format!("retry after {delay:?}"),
                Event::BreakerStateChanged { from, to, .. } => format!("{from:?} -> {to:?}"),
                Event::Notice { action, severity, .. } => format!("{action} {}", severity.as_str()),
                _ => return,
            };
            events.lock().unwrap().push(line);
        }))
    }

    pub(crate) fn saw(&self, line: &str) -> usize {
        self.events.lock().unwrap().iter().filter(|seen| seen.as_str() == line).count()
    }

    /// Quick retries, a breaker that opens after 5 failures, on a clock that only the test moves.
    pub(crate) fn builder(&self) -> Builder {
        let breaker = CircuitBreaker::builder("registry_fetch")
            .consecutive_failures(5)
            .open_for(Duration::from_secs(120))
            .half_open_successes(2)
            .clock(self.breaker_time.clock())
            .observers(self.observers())
            .build()
            .unwrap();
        let retry = Retry::builder()
            .max_attempts(3)
            .backoff(Backoff::fixed(Duration::from_millis(1)))
            .jitter(Jitter::None)
            .build()
            .unwrap();
        // Out of the way, except where it is what is tested.
        let limiter = RateLimiter::builder("registry_query").rate(1_000_000, Duration::from_secs(1)).build().unwrap();
        RegistryGuard::builder(&self.registry.index_url(), self.folder.path())
            .observers(self.observers())
            .breaker(breaker)
            .limiter(limiter)
            .retry(retry)
    }

    pub(crate) fn guard(&self) -> RegistryGuard {
        self.builder().build().unwrap()
    }

    /// A crate of the catalog.
    pub(crate) fn name(&self) -> String {
        self.registry.catalog().names()[10].to_owned()
    }

    pub(crate) fn release(&self) -> PublishedRelease {
        let (catalog, name) = (self.registry.catalog(), self.name());
        catalog.releases().iter().find(|release| release.name == name).unwrap().clone()
    }

    pub(crate) fn index_path(&self) -> String {
        let name = self.name();
        format!("/index/{}/{}/{name}", &name[..2], &name[2..4])
    }
}

/// The identity of a release, from the index.
pub(crate) async fn id(guard: &RegistryGuard, release: &PublishedRelease) -> Result<PackageId, GuardError> {
    let metadata = guard.metadata(&release.name).await?;
    Ok(metadata.release(&release.version.parse().unwrap()).unwrap().id.clone())
}
