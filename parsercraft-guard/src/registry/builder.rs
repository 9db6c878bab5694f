//! The settings of a registry guard, checked when it is built.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use resilience_core::{CircuitBreaker, Clock, ConfigError, Observers, Pipeline, RateLimiter, Retry};

use super::cache::Cache;
use super::error::{RegistryError, SafeUrl};
use super::guard::RegistryGuard;
use super::upstream::Upstream;
use crate::defaults;

/// Settings of a [`RegistryGuard`]; every one has a default that suits a public registry.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until `build`"]
pub struct Builder {
    index: String,
    cache: PathBuf,
    clock: Clock,
    observers: Observers,
    breaker: Option<CircuitBreaker>,
    limiter: Option<RateLimiter>,
    retry: Option<Retry>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    attempt_timeout: Duration,
    download_timeout: Duration,
    total_timeout: Duration,
    max_stale: Duration,
    max_answer_bytes: u64,
    max_file_bytes: u64,
    max_cache_bytes: u64,
    redirect_hosts: Vec<String>,
}

impl Builder {
    pub(super) fn new(index: &str, cache: PathBuf) -> Self {
        Self {
            index: index.into(),
            cache,
            clock: Clock::system(),
            observers: Observers::new(),
            breaker: None,
            limiter: None,
            retry: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(10),
            download_timeout: Duration::from_secs(120),
            total_timeout: Duration::from_secs(300),
            max_stale: Duration::from_secs(30 * 24 * 60 * 60),
            max_answer_bytes: 64 << 20,
            max_file_bytes: 512 << 20,
            max_cache_bytes: 10 << 30,
            redirect_hosts: Vec::new(),
        }
    }

    /// The clock of the policies, and of the age of stored answers (its wall time). The system's by default.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who is told about retries, breaker states, stale answers and bad checksums.
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// The breaker to use. By default `registry_fetch`: opens after 5 failures in a row, for 120 s.
    pub fn breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// The limiter to use for each request. By default `registry_query`: 500 per 60 s, all of them at once if need be.
    pub fn limiter(mut self, limiter: RateLimiter) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// How to retry. By default 3 attempts, 100 ms × 2ⁿ between them, at most 30 s, ±20 %.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// How long connecting may take; 5 s by default.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long the registry may send nothing; 10 s by default.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// How long one attempt at an index answer may take, body included; 10 s by default.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = limit;
        self
    }

    /// How long one attempt at a package file may take; 120 s by default.
    pub fn download_timeout(mut self, limit: Duration) -> Self {
        self.download_timeout = limit;
        self
    }

    /// How long a call may take with all of its attempts and pauses; 300 s by default.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total_timeout = limit;
        self
    }

    /// How old an index answer may be that is served because the registry fails, counted from its last confirmation;
    /// 30 days by default, zero for never.
    pub fn max_stale(mut self, age: Duration) -> Self {
        self.max_stale = age;
        self
    }

    /// The largest index answer that is read; 64 MiB by default.
    pub fn max_answer_bytes(mut self, bytes: u64) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// The largest package file that is read; 512 MiB by default.
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// How much the cache keeps; 10 GiB by default.
    pub fn max_cache_bytes(mut self, bytes: u64) -> Self {
        self.max_cache_bytes = bytes;
        self
    }

    /// A host that redirects may lead to besides the one that was asked, for example a mirror's storage.
    pub fn allow_redirects_to(mut self, host: impl Into<String>) -> Self {
        self.redirect_hosts.push(host.into());
        self
    }

    /// Builds the guard and opens its cache. Asks the registry nothing.
    ///
    /// # Errors
    /// [`RegistryError::Config`] naming the setting that is wrong, [`RegistryError::Cache`] when the folder cannot be used.
    pub fn build(self) -> Result<RegistryGuard, RegistryError> {
        for (field, limit) in [
            ("connect_timeout", self.connect_timeout),
            ("idle_timeout", self.idle_timeout),
            ("attempt_timeout", self.attempt_timeout),
            ("download_timeout", self.download_timeout),
            ("total_timeout", self.total_timeout),
        ] {
            if limit.is_zero() {
                return Err(ConfigError::new(field, "0", "more than zero").into());
            }
        }
        for (field, bytes) in [
            ("max_answer_bytes", self.max_answer_bytes),
            ("max_file_bytes", self.max_file_bytes),
            ("max_cache_bytes", self.max_cache_bytes),
        ] {
            if bytes == 0 {
                return Err(ConfigError::new(field, "0", "at least 1").into());
            }
        }
        let index = index_url(&self.index)?;
        let breaker = match self.breaker {
            Some(breaker) => breaker,
            None => CircuitBreaker::builder(defaults::REGISTRY_FETCH)
                .consecutive_failures(defaults::REGISTRY_FETCH_FAILURES)
                .open_for(defaults::REGISTRY_FETCH_OPEN_FOR)
                .half_open_successes(defaults::REGISTRY_FETCH_PROBES)
                .clock(self.clock.clone())
                .observers(self.observers.clone())
                .build()?,
        };
        let limiter = match self.limiter {
            Some(limiter) => limiter,
            None => RateLimiter::builder(defaults::REGISTRY_QUERY)
                .rate(defaults::REGISTRY_QUERY_PERMITS, defaults::REGISTRY_QUERY_PER)
                .burst(defaults::REGISTRY_QUERY_PERMITS)
                .clock(self.clock.clone())
                .observers(self.observers.clone())
                .build()?,
        };
        let retry = match self.retry {
            Some(retry) => retry,
            None => Retry::builder().build()?,
        };
        let pipeline = |name: &str, attempt: Duration| {
            Pipeline::builder(name)
                .timeout(self.total_timeout)
                .retry(retry.clone())
                .circuit_breaker(breaker.clone())
                .rate_limiter(limiter.clone())
                .timeout(attempt)
                .clock(self.clock.clone())
                .observers(self.observers.clone())
                .build()
        };
        let query = pipeline("registry_query", self.attempt_timeout)?;
        let download = pipeline("registry_download", self.download_timeout)?;
        let upstream =
            Upstream::new(&index, self.connect_timeout, self.idle_timeout, self.redirect_hosts, self.clock.clone())?;
        Ok(RegistryGuard::from_parts(super::guard::Parts {
            index,
            upstream,
            cache: Cache::open(self.cache, self.max_cache_bytes)?,
            query,
            download,
            breaker,
            limiter,
            clock: self.clock,
            observers: self.observers,
            max_stale: self.max_stale,
            max_answer_bytes: self.max_answer_bytes,
            max_file_bytes: self.max_file_bytes,
        }))
    }
}

/// The index's address, ending in a slash so that paths can be appended.
fn index_url(text: &str) -> Result<Url, ConfigError> {
    let shown = |url: Option<&Url>| {
        // Text that is no address may still hold a password, and `user:password` counts as an address without a host.
        let shown = url.filter(|url| url.has_host()).map(|url| SafeUrl::new(url).to_string());
        shown.unwrap_or_else(|| "not an address".into())
    };
    let refuse = |url: Option<&Url>, allowed: &str| Err(ConfigError::new("index", shown(url), allowed));
    let allowed = "an http or https address, optionally after `sparse+`";
    let Ok(mut url) = text.strip_prefix("sparse+").unwrap_or(text).parse::<Url>() else { return refuse(None, allowed) };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse(Some(&url), allowed);
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return refuse(Some(&url), "an address without user, password, query and fragment");
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_prefix_and_slash_are_the_same_index() {
        for text in ["sparse+http://x.test/index", "http://x.test/index/", "http://x.test/index"] {
            assert_eq!(index_url(text).unwrap().as_str(), "http://x.test/index/");
        }
    }

    #[test]
    fn wrong_settings_are_named_with_what_is_allowed_and_without_secrets() {
        let refusal = |builder: Builder| builder.build().unwrap_err().to_string();
        let with = |index: &str| Builder::new(index, PathBuf::from("/nonexistent"));
        let refusals = [
            refusal(with("user:secret")),
            refusal(with("https://user:secret@x.test/")),
            refusal(with("ftp://x.test/")),
            refusal(with("https://x.test/").idle_timeout(Duration::ZERO)),
            refusal(with("https://x.test/").max_file_bytes(0)),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r"
        `index` is not an address; allowed: an http or https address, optionally after `sparse+`
        `index` is https://x.test/; allowed: an address without user, password, query and fragment
        `index` is ftp://x.test/; allowed: an http or https address, optionally after `sparse+`
        `idle_timeout` is 0; allowed: more than zero
        `max_file_bytes` is 0; allowed: at least 1
        ");
    }

    #[test]
    fn a_cache_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Builder::new("http://127.0.0.1:1/", file.path().into()).build().unwrap_err();
        let RegistryError::Cache { action, path, .. } = error else { panic!("{error}") };
        assert_eq!((action, path.starts_with(file.path())), ("create", true));
    }
}
