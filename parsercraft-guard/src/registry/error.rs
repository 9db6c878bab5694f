//! What can go wrong between a caller, the cache and a registry, and what each error means to the policies.
//! No message carries credentials: addresses appear without user, password and query.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use resilience_core::class::Fault;
use resilience_core::{Category, Class, Classify, ConfigError, Severity};
use semver::{Version, VersionReq};

use super::checksum::Checksum;
use super::name::{Ecosystem, PackageName};

/// What went wrong in the registry guard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The name breaks the rules of its ecosystem.
    #[error("{ecosystem} package name {name:?} is not valid; allowed: {allowed}")]
    InvalidName {
        /// Whose rules.
        ecosystem: Ecosystem,
        /// The start of the name.
        name: String,
        /// The rules.
        allowed: &'static str,
    },
    /// The text is not a version requirement.
    #[error("version requirement {text:?} is not valid: {reason}")]
    InvalidRequirement {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The guard's own settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registry does not have it.
    #[error("{url} does not exist")]
    NotFound {
        /// What was asked for.
        url: SafeUrl,
    },
    /// No release fits.
    #[error("no version of {name} fits {requirement}; {}", newest_is(.newest.as_ref()))]
    NoMatchingVersion {
        /// The package.
        name: PackageName,
        /// What was asked for.
        requirement: VersionReq,
        /// The newest version there is.
        newest: Option<Version>,
    },
    /// The registry answered with a status that is no answer.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for.
        url: SafeUrl,
        /// The HTTP status.
        status: u16,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// The connection could not be made, broke, or ended before the answer was complete.
    #[error("{url} cannot be reached or broke off")]
    Network {
        /// What was asked for.
        url: SafeUrl,
        /// The HTTP client's error.
        source: reqwest::Error,
    },
    /// The registry sent nothing for too long.
    #[error("{url} went silent")]
    Silent {
        /// What was asked for.
        url: SafeUrl,
        /// The HTTP client's error.
        source: reqwest::Error,
    },
    /// The answer is larger than allowed.
    #[error("{url} answers with more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: SafeUrl,
        /// The most that is read.
        limit: u64,
    },
    /// A redirect leads somewhere it must not.
    #[error("{from} redirects to {to}: {reason}")]
    RedirectRefused {
        /// What was asked for.
        from: SafeUrl,
        /// Where it leads.
        to: SafeUrl,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// The answer is not what it should be.
    #[error("{url} is malformed: {reason}")]
    Malformed {
        /// What was asked for.
        url: SafeUrl,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not the ones the index promises. They were neither served nor cached.
    #[error("checksum of {url} is {actual}; the index says {expected}")]
    ChecksumMismatch {
        /// What was asked for.
        url: SafeUrl,
        /// The index's checksum.
        expected: Checksum,
        /// The checksum of what came.
        actual: Checksum,
    },
    /// The cache cannot be used.
    #[error("cannot {action} {}", path.display())]
    Cache {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The text is not a lock file of ours.
    #[error("{} is not a lock file: {reason}", path.display())]
    InvalidLock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl RegistryError {
    pub(crate) fn transport(url: &reqwest::Url, error: reqwest::Error) -> Self {
        // The client's own text would repeat the address, query included.
        let (url, source) = (SafeUrl::new(url), error.without_url());
        if source.is_timeout() { Self::Silent { url, source } } else { Self::Network { url, source } }
    }
}

fn newest_is(newest: Option<&Version>) -> String {
    newest.map_or_else(|| "all are yanked".into(), |newest| format!("the newest is {newest}"))
}

impl Classify for RegistryError {
    fn class(&self) -> Class {
        let network = Class::of(Category::Network).severity(Severity::High);
        let timeout = Class::of(Category::Timeout).severity(Severity::Medium);
        let ours = |category| Class::of(category).fault(Fault::Policy).retryable(false);
        match self {
            Self::InvalidName { .. }
            | Self::InvalidRequirement { .. }
            | Self::Config(_)
            | Self::NotFound { .. }
            | Self::NoMatchingVersion { .. }
            | Self::InvalidLock { .. } => Class::of(Category::Validation),
            Self::Status { status: 429, retry_after, .. } => {
                let class = Class::of(Category::Resource).severity(Severity::Medium).retryable(true);
                retry_after.map_or(class, |delay| class.retry_after(delay))
            }
            Self::Status { status: 408, .. } | Self::Silent { .. } => timeout,
            Self::Status { status: 500.., retry_after, .. } => {
                retry_after.map_or(network, |delay| network.retry_after(delay))
            }
            // 401, 403 and their like: asking again the same way changes nothing.
            Self::Status { .. } => Class::of(Category::Validation).severity(Severity::Medium),
            Self::Network { .. } | Self::Malformed { .. } => network,
            Self::TooLarge { .. } | Self::RedirectRefused { .. } => network.retryable(false),
            Self::ChecksumMismatch { .. } => {
                Class::of(Category::Internal).severity(Severity::Critical).retryable(false)
            }
            // A full disk says nothing about the registry: its breaker must not move.
            Self::Cache { .. } => ours(Category::Resource),
        }
    }
}

/// An address without user, password, query and fragment: safe to log.
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl(String);

impl SafeUrl {
    pub(crate) fn new(url: &reqwest::Url) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Fails only for addresses that cannot have a user, such as `data:`.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self(url.into())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> SafeUrl {
        SafeUrl::new(&text.parse().unwrap())
    }

    #[test]
    fn addresses_are_shown_without_credentials() {
        let shown = url("https://user:secret@x.test/a?token=secret#secret");
        insta::assert_snapshot!(shown, @"https://x.test/a");
        insta::assert_snapshot!(format!("{shown:?}"), @r#""https://x.test/a""#);
    }

    #[test]
    fn only_what_the_registry_did_counts_against_it() {
        let at = || url("http://x.test/");
        let status = |status| RegistryError::Status { url: at(), status, retry_after: None };
        let cache =
            RegistryError::Cache { action: "write", path: "x".into(), source: io::ErrorKind::StorageFull.into() };
        let mismatch =
            RegistryError::ChecksumMismatch { url: at(), expected: Checksum::of(b"a"), actual: Checksum::of(b"b") };
        let rows = [
            (RegistryError::NotFound { url: at() }, Fault::Caller, false, Severity::Low),
            (status(403), Fault::Caller, false, Severity::Medium),
            (status(408), Fault::Dependency, true, Severity::Medium),
            (status(429), Fault::Dependency, true, Severity::Medium),
            (status(503), Fault::Dependency, true, Severity::High),
            (RegistryError::TooLarge { url: at(), limit: 1 }, Fault::Dependency, false, Severity::High),
            (mismatch, Fault::Dependency, false, Severity::Critical),
            (cache, Fault::Policy, false, Severity::High),
        ];
        for (error, fault, retryable, severity) in rows {
            let class = error.class();
            assert_eq!((class.fault, class.retryable, class.severity), (fault, retryable, severity), "{error}");
        }
    }
}
