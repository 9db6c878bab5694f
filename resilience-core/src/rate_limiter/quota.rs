//! What a limiter tells those whom it limits: the values of the `RateLimit` response headers and of `Retry-After`.
//! Whole seconds are rounded up, so who keeps to them is never too early. Writes no headers itself: needs no HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::gcra::Rate;
use crate::clock::Instant;

/// `duration` in whole seconds, rounded up: what `Retry-After` carries ("delay-seconds", RFC 9110, section 10.2.3).
///
/// ```
/// use std::time::Duration;
/// use resilience_core::rate_limiter::delay_seconds;
///
/// assert_eq!(delay_seconds(Duration::from_millis(1_001)), 2);
/// ```
pub const fn delay_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(if duration.subsec_nanos() == 0 { 0 } else { 1 })
}

/// What a limiter of either kind holds at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    pub(super) available: u32,
    pub(super) used: u32,
    pub(super) burst: u32,
    pub(super) window: Duration,
    /// How long until there is one more; zero when all are there.
    pub(super) next_permit: Duration,
    pub(super) per_second: f64,
}

impl Figures {
    pub(super) fn of(rate: Rate, empty_at: u64, now: Instant) -> Self {
        let available = rate.available(empty_at, now);
        Self {
            available,
            used: rate.burst() - available,
            burst: rate.burst(),
            window: Duration::from_nanos(rate.capacity()),
            next_permit: rate.next_permit(empty_at, now),
            per_second: rate.per_second(),
        }
    }
}

/// What a limiter would tell its caller at one moment.
///
/// The values are those of the IETF draft "`RateLimit` header fields for HTTP" (`draft-ietf-httpapi-ratelimit-headers-11`,
/// a work in progress). For a token bucket the quota is the burst, its window is how long an empty bucket takes to fill,
/// and the reset is when the next permit comes back; a sliding window says what it is.
///
/// | header | value |
/// |---|---|
/// | `RateLimit-Policy`, `RateLimit` | [`policy_field`](Self::policy_field), [`limit_field`](Self::limit_field) |
/// | `RateLimit-Limit`, `X-RateLimit-Limit` | [`limit`](Self::limit) |
/// | `RateLimit-Remaining`, `X-RateLimit-Remaining` | [`remaining`](Self::remaining) |
/// | `RateLimit-Reset`, and `X-RateLimit-Reset` where it counts seconds from now | [`reset_seconds`](Self::reset_seconds) |
/// | `X-RateLimit-Reset` where it is a date in seconds since 1970, as at GitHub | [`reset_unix`](Self::reset_unix) |
/// | `Retry-After` | [`retry_after`](Self::retry_after), or [`delay_seconds`] of a refusal's |
///
/// [`older_fields`](Self::older_fields) gives the pairs of the older names.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, RateLimiter};
///
/// let (clock, _time) = Clock::manual();
/// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(6)).burst(10).clock(clock).build()?;
/// limiter.try_acquire(4).unwrap();
/// let quota = limiter.quota();
/// assert_eq!((quota.limit, quota.remaining, quota.reset), (10, 6, Duration::from_secs(6)));
/// assert_eq!(quota.policy_field().to_string(), r#""search";q=10;w=60"#);
/// assert_eq!(quota.limit_field().to_string(), r#""search";r=6;t=6"#);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// The limiter's name.
    pub policy: Arc<str>,
    /// Permits that can be had at once at most: `RateLimit-Limit` of older drafts.
    pub limit: u32,
    /// How long an empty bucket takes until all of them are back; the span of a sliding window.
    pub window: Duration,
    /// Permits that could be had at once now: `RateLimit-Remaining` of older drafts.
    pub remaining: u32,
    /// How long until there is one more; zero when all are there: `RateLimit-Reset` of older drafts.
    pub reset: Duration,
}

impl Quota {
    pub(super) fn of(policy: &Arc<str>, figures: &Figures) -> Self {
        Self {
            policy: Arc::clone(policy),
            limit: figures.burst,
            window: figures.window,
            remaining: figures.available,
            reset: figures.next_permit,
        }
    }

    /// The value of the `RateLimit-Policy` field: quota and window in seconds (at least 1).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::RateLimiter;
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(6)).burst(10).build()?;
    /// assert_eq!(limiter.quota().policy_field().to_string(), r#""search";q=10;w=60"#);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn policy_field(&self) -> impl fmt::Display + '_ {
        let window = delay_seconds(self.window).max(1);
        Field { policy: &self.policy, first: ('q', u64::from(self.limit)), second: ('w', window) }
    }

    /// The value of the `RateLimit` field: what remains, and for how many seconds that is all.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, RateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(6)).burst(10).clock(clock).build()?;
    /// limiter.try_acquire(3)?;
    /// assert_eq!(limiter.quota().limit_field().to_string(), r#""search";r=7;t=6"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit_field(&self) -> impl fmt::Display + '_ {
        let reset = delay_seconds(self.reset);
        Field { policy: &self.policy, first: ('r', u64::from(self.remaining)), second: ('t', reset) }
    }

    /// Seconds until there is one permit more, rounded up; 0 when all are there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, RateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_millis(1_200)).clock(clock).build()?;
    /// assert_eq!(limiter.quota().reset_seconds(), 0);
    /// limiter.try_acquire(1)?;
    /// assert_eq!(limiter.quota().reset_seconds(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn reset_seconds(&self) -> u64 {
        delay_seconds(self.reset)
    }

    /// When there is one permit more, in seconds since 1970, rounded up. `wall` is the wall time at which the quota was
    /// taken, of [`Clock::wall`](crate::Clock::wall). For people and headers only: wall clocks step and differ.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let (clock, time) = Clock::manual();
    /// time.set_wall(SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_500));
    /// let limiter = RateLimiter::builder("api").rate(1, Duration::from_secs(6)).burst(1).clock(clock.clone()).build()?;
    /// limiter.try_acquire(1).unwrap();
    /// assert_eq!(limiter.quota().reset_unix(clock.wall()), 1_800_000_007);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn reset_unix(&self, wall: SystemTime) -> u64 {
        let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        delay_seconds(wall.saturating_add(self.reset))
    }

    /// Names and values of the headers that were used before the draft: limit, remaining, and the seconds until the
    /// reset, with the `prefix` `RateLimit` (drafts up to 06) or `X-RateLimit` (custom).
    ///
    /// ```
    /// use resilience_core::RateLimiter;
    ///
    /// let limiter = RateLimiter::builder("api").burst(10).build()?;
    /// let lines: Vec<_> =
    ///     limiter.quota().older_fields("X-RateLimit").map(|(name, value)| format!("{name}: {value}")).collect();
    /// assert_eq!(lines, ["X-RateLimit-Limit: 10", "X-RateLimit-Remaining: 10", "X-RateLimit-Reset: 0"]);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn older_fields(&self, prefix: &str) -> impl Iterator<Item = (String, u64)> + use<> {
        let (limit, remaining) = (u64::from(self.limit), u64::from(self.remaining));
        [("Limit", limit), ("Remaining", remaining), ("Reset", self.reset_seconds())]
            .map(|(name, value)| (format!("{prefix}-{name}"), value))
            .into_iter()
    }

    /// The value of `Retry-After` in seconds, when nothing remains. For a request that was refused although something
    /// does, take the [`retry_after`](crate::Rejection::retry_after) of its refusal.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, RateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("search").rate(1, Duration::from_secs(6)).burst(2).clock(clock).build()?;
    /// limiter.try_acquire(1)?;
    /// assert_eq!(limiter.quota().retry_after(), None);
    /// limiter.try_acquire(1)?;
    /// assert_eq!(limiter.quota().retry_after(), Some(6));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry_after(&self) -> Option<u64> {
        (self.remaining == 0).then(|| delay_seconds(self.reset))
    }
}

/// One item of a structured field (RFC 9651): names of policies need no escaping inside its quotes.
struct Field<'a> {
    policy: &'a str,
    first: (char, u64),
    second: (char, u64),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, first, second } = self;
        write!(f, "\"{policy}\";{}={};{}={}", first.0, first.1, second.0, second.1)
    }
}
