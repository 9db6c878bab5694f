//! Index answers: the cached one while it is fresh, else the registry's, else the old one, marked as stale.
//! An answer is parsed before it is stored, so nothing unreadable replaces what is known.

use std::time::Duration;

use reqwest::Url;
use resilience_core::class::Fault;
use resilience_core::{Classify as _, Severity};

use super::{GuardError, RegistryGuard, before_any_attempt};
use crate::registry::cache::{Answer, Lookup};
use crate::registry::error::{RegistryError, SafeUrl};
use crate::registry::freshness::Freshness;
use crate::registry::served::{Served, WithOrigin};
use crate::registry::upstream::{BoundedBody, Reply};

/// How exact the stored age of an answer is that is confirmed on every use.
const AGE_GRAIN: Duration = Duration::from_secs(60 * 60);

/// What the registry said about an index answer.
enum Confirmed<T> {
    /// The known one is still right; this is how long.
    Same(Freshness),
    New(Answer, T),
}

impl RegistryGuard {
    /// An index answer: the cached one while it is fresh (`fresh_for` at least), else a confirmed or new one, else the
    /// old one, marked.
    pub(super) async fn answer<T: Clone + Send + 'static>(
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
}

/// The error and what lies at the bottom of it, such as `connection refused`.
fn with_root_cause(error: &GuardError) -> String {
    let first = std::error::Error::source(error);
    let root = std::iter::successors(first, |cause| cause.source()).last();
    root.map_or_else(|| error.to_string(), |root| format!("{error}: {root}"))
}
