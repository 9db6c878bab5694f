//! One HTTP exchange with a registry: status, redirects and body size are checked here.
//! Nothing unbounded is read, no redirect is followed to a place that is not allowed, no credentials are sent. It
//! neither retries nor caches.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Response, StatusCode, Url};
use resilience_core::{Clock, ConfigError};
use rustls::RootCertStore;
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::error::{RegistryError, SafeUrl};
use super::freshness::{Freshness, retry_after};

/// Redirects followed before an answer must come.
const REDIRECTS: usize = 5;

#[derive(Debug)]
pub(crate) struct Upstream {
    client: Client,
    /// Hosts that redirects may lead to, besides the one that was asked.
    redirect_hosts: Vec<String>,
    clock: Clock,
}

/// What a question with validators got.
pub(crate) enum Reply {
    /// What is stored is still right.
    NotModified(HeaderMap),
    /// A new answer, its body not read yet.
    Found(Response),
}

impl Upstream {
    pub(crate) fn new(
        index: &Url,
        connect: Duration,
        idle: Duration,
        redirect_hosts: Vec<String>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        let builder = Client::builder()
            .tls_backend_preconfigured(tls(index)?)
            .user_agent(concat!("parsercraft-guard/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // Retrying is the pipeline's business: a second layer would multiply attempts behind its back.
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(connect)
            .read_timeout(idle);
        // A proxy from the environment cannot reach this machine's loopback.
        let builder = if is_loopback(index) { builder.no_proxy() } else { builder };
        let client =
            builder.build().map_err(|error| ConfigError::new("index", SafeUrl::new(index), error.to_string()))?;
        Ok(Self { client, redirect_hosts, clock })
    }

    /// Asks for `url`, with the validators of a stored answer if there is one.
    pub(crate) async fn get(&self, url: &Url, stored: Option<&Freshness>) -> Result<Reply, RegistryError> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS {
            let mut request = self.client.get(at.clone());
            if let Some(etag) = stored.and_then(|stored| stored.etag.as_deref()) {
                request = request.header(header::IF_NONE_MATCH, etag);
            } else if let Some(date) = stored.and_then(|stored| stored.last_modified.as_deref()) {
                request = request.header(header::IF_MODIFIED_SINCE, date);
            }
            let response = request.send().await.map_err(|error| RegistryError::transport(&at, error))?;
            match response.status() {
                StatusCode::OK => return Ok(Reply::Found(response)),
                StatusCode::NOT_MODIFIED if stored.is_some() => {
                    return Ok(Reply::NotModified(response.headers().clone()));
                }
                // Cargo's protocol: each of these says that there is no such crate.
                StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
                    return Err(RegistryError::NotFound { url: SafeUrl::new(&at) });
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => at = self.redirect(&at, response.headers())?,
                status => {
                    return Err(RegistryError::Status {
                        url: SafeUrl::new(&at),
                        status: status.as_u16(),
                        retry_after: retry_after(response.headers(), self.clock.wall()),
                    });
                }
            }
        }
        let reason = "it is one redirect too many; allowed: 5 in a row";
        Err(RegistryError::RedirectRefused { from: SafeUrl::new(url), to: SafeUrl::new(&at), reason })
    }

    fn redirect(&self, from: &Url, headers: &HeaderMap) -> Result<Url, RegistryError> {
        let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let Some(to) = location.and_then(|location| from.join(location).ok()) else {
            let reason = "it redirects without a usable address".into();
            return Err(RegistryError::Malformed { url: SafeUrl::new(from), reason });
        };
        let host = to.host_str().unwrap_or_default();
        let reason = if to.scheme() != from.scheme() {
            "the scheme may not change"
        } else if to.origin() != from.origin() && !self.redirect_hosts.iter().any(|allowed| allowed == host) {
            "that host is not among the allowed ones"
        } else {
            return Ok(to);
        };
        Err(RegistryError::RedirectRefused { from: SafeUrl::new(from), to: SafeUrl::new(&to), reason })
    }
}

/// A body that is read piece by piece, never past its limit.
pub(crate) struct BoundedBody {
    response: Response,
    url: Url,
    limit: u64,
    read: u64,
}

impl BoundedBody {
    /// Refuses at once when the announced length is past the limit.
    pub(crate) fn new(response: Response, limit: u64) -> Result<Self, RegistryError> {
        let body = Self { url: response.url().clone(), response, limit, read: 0 };
        match body.response.content_length() {
            Some(length) if length > limit => Err(body.too_large()),
            _ => Ok(body),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + Send + use<>>, RegistryError> {
        let chunk = self.response.chunk().await.map_err(|error| RegistryError::transport(&self.url, error))?;
        self.read += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.read > self.limit { Err(self.too_large()) } else { Ok(chunk) }
    }

    pub(crate) async fn read_all(mut self) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(chunk.as_ref());
        }
        Ok(bytes)
    }

    fn too_large(&self) -> RegistryError {
        RegistryError::TooLarge { url: SafeUrl::new(&self.url), limit: self.limit }
    }
}

/// TLS by rustls with the system's certificates. Built here because the process-wide default provider belongs to the
/// application, not to a library.
fn tls(index: &Url) -> Result<rustls::ClientConfig, ConfigError> {
    let unusable = |error: rustls::Error| {
        ConfigError::new("index", SafeUrl::new(index), format!("an https address once TLS works here: {error}"))
    };
    let builder = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)
    };
    let verified = match builder()?.with_platform_verifier() {
        Ok(verified) => verified,
        // A machine without certificates can still use a plain index; https addresses fail there with a clear error.
        Err(_) if index.scheme() == "http" => builder()?.with_root_certificates(RootCertStore::empty()),
        Err(error) => return Err(unusable(error)),
    };
    Ok(verified.with_no_client_auth())
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    // An IPv6 host comes in brackets.
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}
