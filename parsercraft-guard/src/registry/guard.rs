//! The guarded client: cache first, then the registry through the policies, then the cache again when that failed.
//! Every request to the registry goes through one of two pipelines that share the breaker and the limiter.

mod answers;
mod files;

use std::fmt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Url;
use resilience_core::{CircuitBreaker, Clock, Error, ErrorKind, Event, Observers, Pipeline, RateLimiter, Severity};
use semver::{Version, VersionReq};

use super::builder::Builder;
use super::cache::{Artifact, Cache};
use super::error::{RegistryError, SafeUrl};
use super::index::{IndexConfig, Metadata, PackageId, Release};
use super::lock::LockFile;
use super::name::{Ecosystem, PackageName};
use super::served::{Served, WithOrigin};
use super::upstream::Upstream;

/// An error of the guard: the registry's, or a policy's refusal, or a timeout.
pub type GuardError = Error<RegistryError>;

/// A client of one cargo sparse index, guarded by a breaker, a limiter, retries, timeouts and a disk cache.
///
/// Cheap to clone; clones share everything. Needs a tokio runtime with I/O and time.
#[derive(Clone)]
pub struct RegistryGuard {
    parts: Arc<Parts>,
    counters: Arc<Counters>,
}

pub(super) struct Parts {
    pub(super) index: Url,
    pub(super) upstream: Upstream,
    pub(super) cache: Cache,
    pub(super) query: Pipeline,
    pub(super) download: Pipeline,
    pub(super) breaker: CircuitBreaker,
    pub(super) limiter: RateLimiter,
    pub(super) clock: Clock,
    pub(super) observers: Observers,
    pub(super) max_stale: Duration,
    pub(super) max_answer_bytes: u64,
    pub(super) max_file_bytes: u64,
}

/// How many answers came from where, since the guard was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Answers from the registry.
    pub fresh: u64,
    /// Answers from the cache without asking.
    pub cached: u64,
    /// Answers from the cache, confirmed.
    pub revalidated: u64,
    /// Old answers in place of ones that did not come.
    pub stale: u64,
    /// Calls that ended in an error.
    pub failed: u64,
    /// Package files whose bytes were not the promised ones.
    pub checksum_mismatches: u64,
    /// Cache entries that were damaged on disk.
    pub corrupt_entries: u64,
}

#[derive(Default)]
struct Counters {
    fresh: AtomicU64,
    cached: AtomicU64,
    revalidated: AtomicU64,
    stale: AtomicU64,
    failed: AtomicU64,
    checksum_mismatches: AtomicU64,
    corrupt_entries: AtomicU64,
}

/// The component's name in notices.
const COMPONENT: &str = "registry";

impl RegistryGuard {
    /// A guard for the sparse index at `index`, with its cache in a folder of its own.
    pub fn builder(index: &str, cache: impl Into<PathBuf>) -> Builder {
        Builder::new(index, cache.into())
    }

    pub(super) fn from_parts(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), counters: Arc::default() }
    }

    /// The index file of a crate: every release with its checksum.
    ///
    /// # Errors
    /// An invalid name, a crate that does not exist, or a registry that fails while nothing usable is cached.
    pub async fn metadata(&self, name: &str) -> Result<WithOrigin<Metadata>, GuardError> {
        let name = PackageName::parse(Ecosystem::Cargo, name).map_err(before_any_attempt)?;
        let url = self.index_file(&name.index_path())?;
        self.answer(&url, Duration::ZERO, move |body| Metadata::parse(&name, body)).await
    }

    /// The versions of a crate that are not yanked, ascending.
    ///
    /// # Errors
    /// As [`metadata`](Self::metadata).
    pub async fn versions(&self, name: &str) -> Result<WithOrigin<Vec<Version>>, GuardError> {
        Ok(self.metadata(name).await?.map(|metadata| metadata.versions()))
    }

    /// The newest release of a crate that fits a requirement such as `1.2` or `>=1, <3` and is not yanked.
    ///
    /// # Errors
    /// As [`metadata`](Self::metadata); a requirement that cannot be read or that nothing fits.
    pub async fn resolve(&self, name: &str, requirement: &str) -> Result<WithOrigin<Release>, GuardError> {
        let requirement: VersionReq = requirement.parse().map_err(|error: semver::Error| {
            let text = requirement.chars().take(80).collect();
            before_any_attempt(RegistryError::InvalidRequirement { text, reason: error.to_string() })
        })?;
        let WithOrigin { value: metadata, served } = self.metadata(name).await?;
        let release = metadata.resolve(&requirement).map_err(before_any_attempt)?.clone();
        Ok(WithOrigin::new(release, served))
    }

    /// Resolves each `(name, requirement)` into a lock file; dependencies of dependencies are not followed. The origin
    /// is stale when any part of it is.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), for the first one that fails.
    pub async fn lock(&self, wanted: &[(&str, &str)]) -> Result<WithOrigin<LockFile>, GuardError> {
        let mut packages = Vec::with_capacity(wanted.len());
        let mut origin = Served::Cached;
        for (name, requirement) in wanted {
            let WithOrigin { value: release, served } = self.resolve(name, requirement).await?;
            packages.push(release.id);
            if !origin.is_stale() && served != Served::Cached {
                origin = served;
            }
        }
        Ok(WithOrigin::new(LockFile::new(self.parts.index.as_str(), packages), origin))
    }

    /// The file of a package, its bytes checked against the checksum: from the cache, or else from the registry.
    ///
    /// # Errors
    /// [`RegistryError::ChecksumMismatch`] when other bytes came; a registry that fails while the file is not cached.
    pub async fn download(&self, id: &PackageId) -> Result<WithOrigin<Artifact>, GuardError> {
        let result = self.find_or_fetch(id).await;
        self.count(result.as_ref().map(|artifact| &artifact.served));
        if let Err(Error { kind: ErrorKind::Operation(error @ RegistryError::ChecksumMismatch { .. }), .. }) = &result {
            self.counters.checksum_mismatches.fetch_add(1, Ordering::Relaxed);
            self.notice(
                "checksum_mismatch",
                &format!("{} {}", id.name, id.version),
                Severity::Critical,
                &error.to_string(),
            );
            // The file or the index may be the wrong one: ask for both the next time.
            if let Ok(url) = self.index_file(&id.name.index_path()) {
                self.on_disk(move |cache| cache.forget_answer(url.as_str())).await.ok();
            }
        }
        result
    }

    /// Asks the registry for its configuration: the cheapest real request, for health checks. The origin tells whether
    /// the registry itself answered.
    ///
    /// # Errors
    /// As [`metadata`](Self::metadata).
    pub async fn probe(&self) -> Result<Served, GuardError> {
        Ok(self.config(Duration::ZERO).await?.served)
    }

    /// The breaker in front of the registry.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.parts.breaker
    }

    /// The limiter in front of the registry.
    pub fn limiter(&self) -> &RateLimiter {
        &self.parts.limiter
    }

    /// The cache behind this guard.
    pub fn cache(&self) -> &Cache {
        &self.parts.cache
    }

    /// The address of the index.
    pub fn index(&self) -> &str {
        self.parts.index.as_str()
    }

    /// How many answers came from where; each number is right by itself, they are not read in one instant.
    pub fn statistics(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Statistics {
            fresh: read(&counters.fresh),
            cached: read(&counters.cached),
            revalidated: read(&counters.revalidated),
            stale: read(&counters.stale),
            failed: read(&counters.failed),
            checksum_mismatches: read(&counters.checksum_mismatches),
            corrupt_entries: read(&counters.corrupt_entries),
        }
    }

    async fn config(&self, fresh_for: Duration) -> Result<WithOrigin<IndexConfig>, GuardError> {
        let url = self.index_file("config.json")?;
        self.answer(&url, fresh_for, IndexConfig::parse).await
    }

    fn index_file(&self, path: &str) -> Result<Url, GuardError> {
        self.parts.index.join(path).map_err(|error| {
            let url = SafeUrl::new(&self.parts.index);
            before_any_attempt(RegistryError::Malformed { url, reason: error.to_string() })
        })
    }

    /// Runs a disk operation where it may block, and reports its failure.
    async fn on_disk<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Cache) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let cache = self.parts.cache.clone();
        let result = match tokio::task::spawn_blocking(move || operation(&cache)).await {
            Ok(result) => result,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is going down and drops this future with everything else.
                Err(_) => std::future::pending().await,
            },
        };
        if let Err(error @ RegistryError::Cache { path, .. }) = &result {
            self.notice("cache_failed", &path.to_string_lossy(), Severity::High, &error.to_string());
        }
        result
    }

    fn report_corrupt(&self, resource: &str) {
        self.counters.corrupt_entries.fetch_add(1, Ordering::Relaxed);
        self.notice("cache_entry_corrupt", resource, Severity::High, "damaged on disk: removed, fetched again");
    }

    fn notice(&self, action: &str, resource: &str, severity: Severity, detail: &str) {
        self.parts.observers.emit(&Event::notice(COMPONENT, action, resource, severity, detail));
    }

    fn count(&self, result: Result<&Served, &GuardError>) {
        let counter = match result {
            Ok(Served::Fresh) => &self.counters.fresh,
            Ok(Served::Cached) => &self.counters.cached,
            Ok(Served::Revalidated) => &self.counters.revalidated,
            Ok(Served::Stale { .. }) => &self.counters.stale,
            Err(_) => &self.counters.failed,
        };
        // Relaxed: these are statistics, nothing is ordered by them.
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for RegistryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryGuard")
            .field("index", &self.index())
            .field("breaker", &self.parts.breaker.state())
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

fn before_any_attempt(error: RegistryError) -> GuardError {
    Error::operation(error, 0)
}
