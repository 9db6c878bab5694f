//! The guarded client: cache first, then the registry through the policies, then the cache again when that failed.
//! Every request to the registry goes through one of two pipelines that share the breaker and the limiter.

use std::fmt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Url;
use resilience_core::class::Fault;
use resilience_core::{
    CircuitBreaker, Classify as _, Clock, Error, ErrorKind, Event, Observers, Pipeline, RateLimiter, Severity,
};
use semver::{Version, VersionReq};
use tokio::sync::mpsc;

use super::builder::Builder;
use super::cache::{Answer, Artifact, Cache, Lookup};
use super::checksum::Checksum;
use super::error::{RegistryError, SafeUrl};
use super::freshness::Freshness;
use super::index::{IndexConfig, Metadata, PackageId, Release};
use super::lock::LockFile;
use super::name::{Ecosystem, PackageName};
use super::served::{Served, WithOrigin};
use super::upstream::{BoundedBody, Reply, Upstream};

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

/// An index's configuration is not asked for again before each download: it changes once in years.
const CONFIG_FRESH_FOR: Duration = Duration::from_secs(600);

/// How exact the stored age of an answer is that is confirmed on every use.
const AGE_GRAIN: Duration = Duration::from_secs(60 * 60);

/// What the registry said about an index answer.
enum Confirmed<T> {
    /// The known one is still right; this is how long.
    Same(Freshness),
    New(Answer, T),
}

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

    /// An index answer: the cached one while it is fresh (`fresh_for` at least), else a confirmed or new one, else the
    /// old one, marked.
    async fn answer<T: Clone + Send + 'static>(
        &self,
        url: &Url,
        fresh_for: Duration,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<WithOrigin<T>, GuardError> {
        let stored = self.stored_answer(url, &parse).await;
        let result = self.confirm_or_fetch(url, fresh_for, stored, &parse).await;
        self.count(result.as_ref().map(|answer| &answer.served));
        result
    }

    async fn stored_answer<T>(&self, url: &Url, parse: impl Fn(&[u8]) -> Result<T, String>) -> Option<(Answer, T)> {
        let key = url.clone();
        match self.on_disk(move |cache| cache.answer(key.as_str())).await.ok()? {
            Lookup::Hit(answer) => {
                let value = parse(&answer.body).ok()?;
                Some((answer, value))
            }
            Lookup::Miss => None,
            Lookup::Corrupt => {
                self.report_corrupt(url.as_str());
                None
            }
        }
    }

    async fn confirm_or_fetch<T: Clone>(
        &self,
        url: &Url,
        fresh_for: Duration,
        stored: Option<(Answer, T)>,
        parse: &(impl Fn(&[u8]) -> Result<T, String> + Sync),
    ) -> Result<WithOrigin<T>, GuardError> {
        let parts = &self.parts;
        if let Some((answer, value)) = &stored
            && answer.freshness.is_fresh(answer.stored, parts.clock.wall(), fresh_for)
        {
            return Ok(WithOrigin::new(value.clone(), Served::Cached));
        }
        let known = stored.as_ref().map(|(answer, _)| answer);
        match parts.query.call_async(|| self.ask(url, known, parse)).await {
            Ok(Confirmed::Same(freshness)) => {
                // A confirmation implies that something was stored.
                let Some((answer, value)) = stored else {
                    let reason = "nothing to confirm".into();
                    return Err(before_any_attempt(RegistryError::Malformed { url: SafeUrl::new(url), reason }));
                };
                let age = parts.clock.wall().duration_since(answer.stored);
                // Writing costs a sync; where every use is confirmed anyway, an age that is right to the hour will do.
                if freshness.max_age > 0 || freshness != answer.freshness || age.is_ok_and(|age| age > AGE_GRAIN) {
                    self.keep(url, Answer { freshness, stored: parts.clock.wall(), body: answer.body }).await;
                }
                Ok(WithOrigin::new(value, Served::Revalidated))
            }
            Ok(Confirmed::New(answer, value)) => {
                self.keep(url, answer).await;
                Ok(WithOrigin::new(value, Served::Fresh))
            }
            Err(error) if error.class().fault == Fault::Caller => {
                if let Some(RegistryError::NotFound { .. }) = error.as_operation() {
                    self.forget(url).await;
                }
                Err(error)
            }
            Err(error) => self.stale(url, stored, error),
        }
    }

    /// The stored answer in place of one that did not come, if it may be used.
    fn stale<T>(&self, url: &Url, stored: Option<(Answer, T)>, error: GuardError) -> Result<WithOrigin<T>, GuardError> {
        let Some((answer, value)) = stored else { return Err(error) };
        let age = self.parts.clock.wall().duration_since(answer.stored).unwrap_or_default();
        if answer.freshness.must_revalidate || age > self.parts.max_stale || self.parts.max_stale.is_zero() {
            return Err(error);
        }
        let why = with_root_cause(&error);
        self.notice("served_stale", SafeUrl::new(url).as_str(), Severity::Medium, &why);
        Ok(WithOrigin::new(value, Served::Stale { age, why }))
    }

    /// One attempt at an index answer.
    async fn ask<T>(
        &self,
        url: &Url,
        known: Option<&Answer>,
        parse: &impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Confirmed<T>, RegistryError> {
        let parts = &self.parts;
        // Ages count from the question, not from the last byte of the answer.
        let stored = parts.clock.wall();
        match (parts.upstream.get(url, known.map(|known| &known.freshness)).await?, known) {
            (Reply::NotModified(headers), Some(known)) => Ok(Confirmed::Same(known.freshness.renewed_by(&headers))),
            (Reply::NotModified(_), None) => {
                let reason = "304 without a question for it".into();
                Err(RegistryError::Malformed { url: SafeUrl::new(url), reason })
            }
            (Reply::Found(response), _) => {
                let freshness = Freshness::of(response.headers());
                let body = BoundedBody::new(response, parts.max_answer_bytes)?.read_all().await?;
                let value =
                    parse(&body).map_err(|reason| RegistryError::Malformed { url: SafeUrl::new(url), reason })?;
                Ok(Confirmed::New(Answer { freshness, stored, body }, value))
            }
        }
    }

    async fn find_or_fetch(&self, id: &PackageId) -> Result<WithOrigin<Artifact>, GuardError> {
        let checksum = id.checksum;
        match self.on_disk(move |cache| cache.artifact(&checksum)).await {
            Ok(Lookup::Hit(artifact)) => return Ok(WithOrigin::new(artifact, Served::Cached)),
            Ok(Lookup::Corrupt) => self.report_corrupt(&format!("{} {}", id.name, id.version)),
            Ok(Lookup::Miss) | Err(_) => {}
        }
        let url = self.download_url(id).await?;
        let artifact = self.parts.download.call_async(|| self.fetch(&url, checksum)).await?;
        Ok(WithOrigin::new(artifact, Served::Fresh))
    }

    async fn download_url(&self, id: &PackageId) -> Result<Url, GuardError> {
        let config = self.config(CONFIG_FRESH_FOR).await?;
        let malformed = |reason: &str| {
            let url = SafeUrl::new(&self.parts.index);
            before_any_attempt(RegistryError::Malformed { url, reason: format!("its config.json {reason}") })
        };
        if config.auth_required {
            return Err(malformed("asks for credentials, which this client does not send"));
        }
        let url: Url = config.download_url(id).parse().map_err(|_| malformed("has no usable download address"))?;
        match (self.parts.index.scheme(), url.scheme()) {
            (_, "https") | ("http", "http") => Ok(url),
            _ => Err(malformed("leads downloads to a weaker scheme than the index has")),
        }
    }

    /// One attempt at a package file: streamed into a file without a name, which gets one only if its checksum is right.
    async fn fetch(&self, url: &Url, expected: Checksum) -> Result<Artifact, RegistryError> {
        let parts = &self.parts;
        let Reply::Found(response) = parts.upstream.get(url, None).await? else {
            let reason = "304 without a question for it".into();
            return Err(RegistryError::Malformed { url: SafeUrl::new(url), reason });
        };
        let mut body = BoundedBody::new(response, parts.max_file_bytes)?;
        let mut writer = self.on_disk(Cache::blob_writer).await?;
        // A few chunks may wait for the disk; past that the network waits.
        let (chunks, mut queue) = mpsc::channel(8);
        let writing = self.on_disk(move |_| {
            loop {
                match queue.blocking_recv() {
                    Some(Some(chunk)) => writer.write(chunk)?,
                    Some(None) => return writer.commit(&expected).map(Some),
                    // The download failed or was dropped: so is the file.
                    None => return Ok(None),
                }
            }
        });
        let reading = async move {
            loop {
                let chunk = body.next().await?;
                let last = chunk.is_none();
                // The writer stops listening only when it failed, which it tells itself.
                if chunks.send(chunk).await.is_err() || last {
                    return Ok(());
                }
            }
        };
        let (read, written): (Result<(), RegistryError>, _) = tokio::join!(reading, writing);
        read?;
        match written? {
            Some(Ok(artifact)) => Ok(artifact),
            Some(Err(actual)) => Err(RegistryError::ChecksumMismatch { url: SafeUrl::new(url), expected, actual }),
            // Cannot happen: reading ended well, so the end was sent. An error is the safe answer all the same.
            None => Err(RegistryError::Malformed { url: SafeUrl::new(url), reason: "it ended early".into() }),
        }
    }

    /// Stores an answer if it may be stored. A full disk must not keep a good answer from the caller; it is reported.
    async fn keep(&self, url: &Url, answer: Answer) {
        if answer.freshness.no_store {
            return self.forget(url).await;
        }
        let key = url.clone();
        self.on_disk(move |cache| cache.store_answer(key.as_str(), &answer)).await.ok();
    }

    async fn forget(&self, url: &Url) {
        let key = url.clone();
        self.on_disk(move |cache| cache.forget_answer(key.as_str())).await.ok();
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

/// The error and what lies at the bottom of it, such as `connection refused`.
fn with_root_cause(error: &GuardError) -> String {
    let first = std::error::Error::source(error);
    let root = std::iter::successors(first, |cause| cause.source()).last();
    root.map_or_else(|| error.to_string(), |root| format!("{error}: {root}"))
}
