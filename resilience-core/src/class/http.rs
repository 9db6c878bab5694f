//! What HTTP answers mean: a class for every status, and the server's own word on when to come back.
//! Reads status and headers only, never bodies; nothing a server sends makes it panic or wait without bound.
//!
//! ```
//! use ::http::{Response, StatusCode};
//! use resilience_core::class::http;
//! use resilience_core::{ManualClock, Pipeline, Retry};
//!
//! # let clock = ManualClock::auto_advancing().clock();
//! # let retry = Retry::builder().clock(clock.clone()).build()?;
//! # let pipeline = Pipeline::builder("web").retry(retry).clock(clock).build()?;
//! let mut answers = [503, 200].into_iter();
//! let mut ask = || Response::builder().status(answers.next().unwrap_or(500)).body("…");
//! let answer = pipeline.judged_by(http::response).call(|| ask().map_err(std::io::Error::other));
//! assert_eq!(answer.unwrap().status(), StatusCode::OK);
//! # Ok::<(), resilience_core::ConfigError>(())
//! ```

use std::time::{Duration, SystemTime};

use ::http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use ::http::{Response, StatusCode};

use super::{Category, Class, Classify, MAX_RETRY_AFTER, Severity};
use crate::clock::Clock;

/// A judge of HTTP answers, for [`Pipeline::judged_by`](crate::Pipeline::judged_by): [`answer`] for a response, an
/// error says itself what it means. Goes by the system's clock.
///
/// ```
/// use http::{Response, StatusCode};
/// use resilience_core::{CircuitBreaker, class::http::response};
///
/// let breaker = CircuitBreaker::builder("web").consecutive_failures(1).build()?;
/// let web = breaker.judged_by(response);
/// let answer = |status: StatusCode| {
///     let mut answer = Response::new("…");
///     *answer.status_mut() = status;
///     Ok::<_, std::io::Error>(answer)
/// };
/// assert!(web.call(|| answer(StatusCode::NOT_FOUND)).is_ok());
/// assert_eq!(breaker.state().as_str(), "closed"); // the caller's mistake
/// assert!(web.call(|| answer(StatusCode::BAD_GATEWAY)).is_ok());
/// assert_eq!(breaker.state().as_str(), "open");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub fn response<B, E: Classify>(result: &Result<Response<B>, E>) -> Option<Class> {
    judge(result, &Clock::system())
}

/// [`response`] that takes the wall time from `clock`: for tests.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use http::{Response, StatusCode};
/// use resilience_core::{Clock, class::http::response_on};
///
/// let (clock, time) = Clock::manual();
/// time.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_740)); // 08:49:00
/// let busy = Response::builder()
///     .status(StatusCode::SERVICE_UNAVAILABLE)
///     .header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")
///     .body(())?;
/// let class = response_on(clock)(&Ok::<_, std::io::Error>(busy)).expect("a failure");
/// assert_eq!(class.retry_after, Some(Duration::from_secs(37)));
/// # Ok::<(), http::Error>(())
/// ```
pub fn response_on<B, E: Classify>(clock: Clock) -> impl Fn(&Result<Response<B>, E>) -> Option<Class> + Clone {
    move |result| judge(result, &clock)
}

fn judge<B, E: Classify>(result: &Result<Response<B>, E>, clock: &Clock) -> Option<Class> {
    match result {
        Ok(response) => answer(response.status(), response.headers(), clock),
        Err(error) => Some(error.class()),
    }
}

/// What an answer with this status and these headers means: [`status`], and [`retry_after`] where trying again makes
/// sense. For clients whose response type is their own.
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, HeaderValue, StatusCode};
/// use resilience_core::{Clock, class::http::answer};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("retry-after", HeaderValue::from_static("120"));
/// let clock = Clock::system();
/// let class = answer(StatusCode::TOO_MANY_REQUESTS, &headers, &clock).expect("a failure");
/// assert_eq!(class.retry_after, Some(Duration::from_secs(120)));
/// assert_eq!(answer(StatusCode::NO_CONTENT, &headers, &clock), None);
/// ```
pub fn answer(status: StatusCode, headers: &HeaderMap, clock: &Clock) -> Option<Class> {
    let class = self::status(status)?;
    // The clock is read only when there is something to read it for.
    if !class.retryable || !headers.contains_key(RETRY_AFTER) {
        return Some(class);
    }
    Some(retry_after(headers, clock.wall()).map_or(class, |delay| class.retry_after(delay)))
}

/// What a status means; `None` below 400: all is well.
///
/// | status | category | fault | retryable |
/// |---|---|---|---|
/// | 408, 504 | timeout | dependency | yes |
/// | 425 | resource, low | dependency | yes |
/// | 429, 503 | resource | dependency | yes |
/// | other 4xx | validation | caller | no |
/// | 501, 505, 506, 508, 510, 511 | internal | dependency | no |
/// | 502 | network | dependency | yes |
/// | 507 | resource, critical | dependency | no |
/// | other 5xx, and what is no status (RFC 9110, section 15) | internal | dependency | yes |
///
/// "Retryable" says that the same request may fare better later. Whether it may be sent twice, only the caller knows.
///
/// ```
/// use http::StatusCode;
/// use resilience_core::{Category, class::http::status};
///
/// let missing = status(StatusCode::NOT_FOUND).expect("a failure");
/// assert_eq!((missing.category, missing.retryable), (Category::Validation, false));
/// let broken = status(StatusCode::BAD_GATEWAY).expect("a failure");
/// assert_eq!((broken.category, broken.retryable), (Category::Network, true));
/// assert_eq!(status(StatusCode::OK), None);
/// ```
pub const fn status(status: StatusCode) -> Option<Class> {
    Some(match status.as_u16() {
        ..=399 => return None,
        408 | 504 => Class::of(Category::Timeout),
        // The server is well; it only won't take this before the handshake is over.
        425 => Class::of(Category::Resource).severity(Severity::Low),
        429 => Class::of(Category::Resource).severity(Severity::Medium),
        400..=499 => Class::of(Category::Validation),
        // Asking again changes neither what a server can do nor how it is set up.
        501 | 505 | 506 | 508 | 510 | 511 => Class::of(Category::Internal),
        502 => Class::of(Category::Network),
        503 => Class::of(Category::Resource),
        507 => Class::of(Category::Resource).severity(Severity::Critical).retryable(false),
        _ => Class::of(Category::Internal).retryable(true),
    })
}

/// How long the server asks to be left alone by `Retry-After` (RFC 9110, section 10.2.3): seconds, or the time until a
/// date. A date is counted from the answer's own `Date`, where it has one, else from `wall`: what the two clocks say
/// differs, and both dates are the server's. A date that is over is a zero; more than [`MAX_RETRY_AFTER`] is cut to it.
///
/// `None` when there is no such header or it makes no sense.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use http::HeaderMap;
/// use resilience_core::class::http::retry_after;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("date", "Sun, 06 Nov 1994 08:49:00 GMT".parse()?);
/// headers.insert("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT".parse()?);
/// assert_eq!(retry_after(&headers, SystemTime::now()), Some(Duration::from_secs(37)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?;
    let delay = if let Some(seconds) = seconds(value) {
        Duration::from_secs(seconds)
    } else {
        let from = text(headers, &DATE).and_then(date).unwrap_or(wall);
        date(value)?.duration_since(from).unwrap_or(Duration::ZERO)
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

/// A header's first value without the white space around it.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    Some(headers.get(name)?.to_str().ok()?.trim_ascii())
}

/// A number of seconds; too large for a `u64` is its largest.
fn seconds(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.bytes().fold(0, |sum: u64, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// A date in one of HTTP's three forms.
fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}
