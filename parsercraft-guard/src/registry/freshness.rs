//! How long a stored answer may be used, from its headers (RFC 9111, RFC 5861), as far as a package index needs it.
//! Ages are measured on the wall clock, since they outlive the process; a clock that stepped back makes an answer
//! stale, never fresh for longer.

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

/// What the headers of an answer say about its reuse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Freshness {
    /// Seconds for which it needs no question.
    pub(crate) max_age: u64,
    /// Whether it must not be used past that, even when the registry is gone.
    pub(crate) must_revalidate: bool,
    /// Whether it must not be kept at all.
    pub(crate) no_store: bool,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

/// A year: no answer is fresh for longer, whatever it says.
const LONGEST: u64 = 365 * 24 * 60 * 60;

impl Freshness {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut freshness = Self {
            etag: text(headers, header::ETAG),
            last_modified: text(headers, header::LAST_MODIFIED),
            ..Self::default()
        };
        let (mut max_age, mut shared_max_age) = (None, None);
        for value in headers.get_all(header::CACHE_CONTROL) {
            for directive in value.to_str().unwrap_or_default().split(',') {
                let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
                // RFC 9111 1.2.2: a number too large counts as the largest; anything else unreadable as already stale.
                let seconds = || match value.trim().trim_matches('"') {
                    digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                        digits.parse().unwrap_or(LONGEST).min(LONGEST)
                    }
                    _ => 0,
                };
                match name.trim().to_ascii_lowercase().as_str() {
                    "max-age" => max_age = Some(seconds()),
                    "s-maxage" => shared_max_age = Some(seconds()),
                    "no-cache" => {
                        freshness.must_revalidate = true;
                        shared_max_age = Some(0);
                        break;
                    }
                    "must-revalidate" => freshness.must_revalidate = true,
                    "no-store" => freshness.no_store = true,
                    _ => {}
                }
            }
        }
        let age = text(headers, header::AGE).and_then(|age| age.parse().ok()).unwrap_or(0);
        freshness.max_age = shared_max_age.or(max_age).unwrap_or(0).saturating_sub(age);
        freshness
    }

    /// What a 304 changes: new times, and validators where it names some.
    pub(crate) fn renewed_by(&self, headers: &HeaderMap) -> Self {
        let new = Self::of(headers);
        Self {
            etag: new.etag.or_else(|| self.etag.clone()),
            last_modified: new.last_modified.or_else(|| self.last_modified.clone()),
            ..new
        }
    }

    /// Whether an answer stored at `stored` needs no question at `now`; `at_least` so long, unless it forbids that.
    pub(crate) fn is_fresh(&self, stored: SystemTime, now: SystemTime, at_least: Duration) -> bool {
        let at_least = if self.must_revalidate { Duration::ZERO } else { at_least };
        now.duration_since(stored).is_ok_and(|age| age < at_least.max(Duration::from_secs(self.max_age)))
    }
}

/// The delay of a `Retry-After` header: seconds, or an HTTP date seen from `now`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, header::RETRY_AFTER)?;
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(&value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn lifetimes_follow_the_headers() {
        let max_age = |control: &str| Freshness::of(&headers(&[("cache-control", control)])).max_age;
        let rows = [
            ("", 0),
            ("public, max-age=600", 600),
            ("MAX-AGE=\"60\"", 60),
            ("max-age=600, s-maxage=10", 10),
            ("max-age=600, no-cache", 0),
            ("no-cache, max-age=600", 0),
            ("max-age=-1", 0),
            ("max-age=soon", 0),
            ("max-age=99999999999999999999999", LONGEST),
        ];
        for (control, expected) in rows {
            assert_eq!(max_age(control), expected, "{control}");
        }
        assert_eq!(Freshness::of(&headers(&[("cache-control", "max-age=600"), ("age", "590")])).max_age, 10);
        assert!(Freshness::of(&headers(&[("cache-control", "no-store")])).no_store);
        assert!(Freshness::of(&headers(&[("cache-control", "max-age=1, must-revalidate")])).must_revalidate);
    }

    #[test]
    fn a_clock_that_stepped_back_makes_an_answer_stale() {
        let freshness = Freshness { max_age: 60, ..Freshness::default() };
        let stored = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let fresh_at =
            |seconds| freshness.is_fresh(stored, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), Duration::ZERO);
        assert_eq!([999, 1000, 1059, 1060].map(fresh_at), [false, true, true, false]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let delay = |value: &str| retry_after(&headers(&[("retry-after", value)]), now).map(|delay| delay.as_secs());
        assert_eq!(delay("120"), Some(120));
        assert_eq!(delay("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(delay("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(delay("soon"), None);
        assert_eq!(delay("-1"), None);
    }
}
