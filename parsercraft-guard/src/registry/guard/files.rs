//! Package files: from the cache, or streamed from the registry into it.
//! A file is handed out only after its bytes were hashed and found to be the promised ones.

use std::time::Duration;

use reqwest::Url;
use tokio::sync::mpsc;

use super::{GuardError, RegistryGuard, before_any_attempt};
use crate::registry::cache::{Artifact, Cache, Lookup};
use crate::registry::checksum::Checksum;
use crate::registry::error::{RegistryError, SafeUrl};
use crate::registry::index::PackageId;
use crate::registry::served::{Served, WithOrigin};
use crate::registry::upstream::{BoundedBody, Reply};

/// An index's configuration is not asked for again before each download: it changes once in years.
const CONFIG_FRESH_FOR: Duration = Duration::from_secs(600);

impl RegistryGuard {
    pub(super) async fn find_or_fetch(&self, id: &PackageId) -> Result<WithOrigin<Artifact>, GuardError> {
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
}
