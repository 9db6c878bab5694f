//! One of the two algorithms behind a limiter: the token bucket, in one atomic word, or the sliding window, under a
//! lock. Both hand out places in time, first come first served, and are told the time.

use std::time::Duration;

use super::bucket::Bucket;
use super::gcra::{Place, Rate, Refused};
use super::quota::Figures;
use super::window::Window;
use crate::clock::Instant;
use crate::config::{self, ConfigError};
use crate::sync::{Mutex, lock};

/// What a limiter keeps to, checked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Bucket(Rate),
    Window { permits: u32, span: Duration },
}

/// Every grant of a span is remembered, so this bounds the memory (16 MB) and the longest search.
const MAX_WINDOW_PERMITS: u32 = 1_000_000;

impl Limit {
    /// Checks the values a user gave for the sliding window called `name`.
    pub(super) fn window(name: &str, permits: u32, span: Duration) -> Result<Self, ConfigError> {
        config::in_range(name, "sliding_window.permits", permits, &1, &MAX_WINDOW_PERMITS)?;
        config::positive(name, "sliding_window.span", span)?;
        Ok(Self::Window { permits, span })
    }

    /// How many permits it can grant at once at most.
    pub(super) const fn at_once(self) -> u32 {
        match self {
            Self::Bucket(rate) => rate.burst(),
            Self::Window { permits, .. } => permits,
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Bucket(_) => "a token bucket",
            Self::Window { .. } => "a sliding window",
        }
    }
}

#[derive(Debug)]
pub(super) enum Algorithm {
    Bucket(Bucket),
    Window(Mutex<Window>),
}

impl Algorithm {
    /// The algorithm for `limit`, with `start_with` permits to be had now.
    pub(super) fn new(limit: Limit, start_with: u32, now: Instant) -> Self {
        match limit {
            Limit::Bucket(rate) => Self::Bucket(Bucket::new(rate, rate.holding(start_with, now))),
            Limit::Window { permits, span } => {
                Self::Window(Mutex::new(Window::new(permits, span, permits - start_with, now)))
            }
        }
    }

    /// Takes `permits` and says from when on they may be used, provided that is not after `latest`.
    #[inline]
    pub(super) fn reserve(&self, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        match self {
            Self::Bucket(bucket) => bucket.reserve(permits, now, latest),
            Self::Window(window) => Self::reserve_in(window, permits, now, latest),
        }
    }

    /// Not part of the bucket's short path.
    #[inline(never)]
    fn reserve_in(window: &Mutex<Window>, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        lock(window).reserve(permits, now, latest)
    }

    /// What [`reserve`](Self::reserve) without a wait would answer. Takes nothing.
    pub(super) fn peek(&self, permits: u32, now: Instant) -> Result<(), Refused> {
        match self {
            Self::Bucket(bucket) => bucket.peek(permits, now),
            Self::Window(window) => lock(window).peek(permits, now),
        }
    }

    /// Gives up a place that was not used.
    pub(super) fn give_up(&self, place: Place, now: Instant) {
        match self {
            Self::Bucket(bucket) => bucket.give_up(place, now),
            Self::Window(window) => lock(window).give_up(place, now),
        }
    }

    /// Keeps to `limit` from now on, with the permits and promises it has.
    pub(super) fn change(&self, name: &str, limit: Limit, now: Instant) -> Result<(), ConfigError> {
        let built = match (self, limit) {
            (Self::Bucket(bucket), Limit::Bucket(rate)) => return bucket.change(now, |_| Ok(rate)),
            (Self::Window(window), Limit::Window { permits, span }) => {
                lock(window).change(permits, span, now);
                return Ok(());
            }
            (Self::Bucket(_), _) => "a token bucket",
            (Self::Window(_), _) => "a sliding window",
        };
        Err(ConfigError::new(format!("{name}.algorithm"), limit.kind(), format!("{built}, as it was built")))
    }

    /// Its rate from now on; of a window, its permits and span.
    pub(super) fn set_rate(&self, name: &str, permits: u32, period: Duration, now: Instant) -> Result<(), ConfigError> {
        match self {
            Self::Bucket(bucket) => {
                // The burst of 1 stands in: whether the real one still refills in time is checked when it cannot change.
                let nanos_per_permit = Rate::new(name, permits, period, 1)?.nanos_per_permit();
                bucket.change(now, |old| Rate::of(nanos_per_permit, old.burst()).checked(name))
            }
            Self::Window(_) => self.change(name, Limit::window(name, permits, period)?, now),
        }
    }

    /// Its burst from now on; a window has none.
    pub(super) fn set_burst(&self, name: &str, burst: u32, now: Instant) -> Result<(), ConfigError> {
        config::in_range(name, "burst", burst, &1, &u32::MAX)?;
        match self {
            Self::Bucket(bucket) => bucket.change(now, |old| Rate::of(old.nanos_per_permit(), burst).checked(name)),
            Self::Window(_) => Err(no_burst(name, burst)),
        }
    }

    /// What it holds now.
    pub(super) fn figures(&self, now: Instant) -> Figures {
        match self {
            Self::Bucket(bucket) => {
                let (rate, empty_at) = bucket.state();
                Figures::of(rate, empty_at, now)
            }
            Self::Window(window) => lock(window).figures(now),
        }
    }
}

/// A burst was given to a sliding window.
pub(super) fn no_burst(name: &str, burst: u32) -> ConfigError {
    ConfigError::new(format!("{name}.burst"), burst, "no burst: a sliding window grants all its permits at once")
}
