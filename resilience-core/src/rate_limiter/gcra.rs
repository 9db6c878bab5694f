//! The decision of every limiter: the generic cell rate algorithm (GCRA, ITU-T I.371), a token bucket kept in one
//! number. Pure arithmetic: the number and the time go in, an answer comes out; where the number lives is others' part.
//! Over any span it grants at most burst + rate × span.

use std::time::Duration;

use crate::clock::{Instant, nanos};
use crate::config::{self, ConfigError, MAX_DURATION};

/// The buckets' time line starts ten years before the clock's origin, so that the moment since which a bucket has
/// been filling, at most ten years ago, is always on it.
const ORIGIN: u64 = MAX_DURATION.as_secs() * 1_000_000_000;

/// A moment of the clock on the buckets' time line.
#[inline]
pub(super) fn on_line(instant: Instant) -> u64 {
    instant.as_nanos().saturating_add(ORIGIN)
}

/// The permits cannot be had at all, or not before the time given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refused {
    ExceedsBurst { burst: u32 },
    NotBefore(Instant),
}

/// Permits that were taken: a stretch of the bucket's time line as long as they take to come back, or of the numbers
/// of a sliding window's permits.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// From when on they may be used.
    pub(crate) usable_from: Instant,
    pub(super) start: u64,
    pub(super) end: u64,
    /// How often the bucket had been changed when it was taken.
    pub(super) changes: u32,
}

/// How fast permits come back and how many can be saved up.
///
/// A bucket is the moment at which it was empty, had nothing been taken since: it holds what came back from then on.
/// A moment to come means that all permits until then are promised to those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    nanos_per_permit: u64,
    burst: u32,
}

impl Rate {
    /// Checks the values a user gave for the limiter called `name`.
    pub(super) fn new(name: &str, permits: u32, period: Duration, burst: u32) -> Result<Self, ConfigError> {
        config::in_range(name, "rate", permits, &1, &u32::MAX)?;
        config::positive(name, "period", period)?;
        config::in_range(name, "burst", burst, &1, &u32::MAX)?;
        // Rounded up, so the rate is never exceeded.
        Self::of(nanos(period).div_ceil(u64::from(permits)), burst).checked(name)
    }

    pub(super) const fn of(nanos_per_permit: u64, burst: u32) -> Self {
        Self { nanos_per_permit, burst }
    }

    /// Filling the whole bucket must stay far from the end of the time line.
    pub(super) fn checked(self, name: &str) -> Result<Self, ConfigError> {
        if self.capacity() > ORIGIN {
            let allowed = "a burst that refills within 10 years at this rate";
            return Err(ConfigError::new(format!("{name}.burst"), self.burst, allowed));
        }
        Ok(self)
    }

    pub(super) const fn nanos_per_permit(self) -> u64 {
        self.nanos_per_permit
    }

    pub(super) const fn burst(self) -> u32 {
        self.burst
    }

    pub(super) const fn per_second(self) -> f64 {
        1e9 / self.nanos_per_permit as f64
    }

    /// How long it takes for `permits` to come back.
    pub(super) const fn span(self, permits: u32) -> u64 {
        self.nanos_per_permit.saturating_mul(permits as u64)
    }

    /// How long it takes to fill the whole bucket.
    pub(super) const fn capacity(self) -> u64 {
        self.span(self.burst)
    }

    /// The bucket that holds `permits` now.
    pub(super) fn holding(self, permits: u32, now: Instant) -> u64 {
        on_line(now).saturating_sub(self.span(permits))
    }

    /// The bucket that is just full now; any earlier moment is a full bucket too.
    pub(super) fn full(self, now: Instant) -> u64 {
        self.holding(self.burst, now)
    }

    /// Takes `permits` out of the bucket: where they stand, provided that they may be used at `latest`, which is not
    /// before `now`. The end of the place is the bucket that remains.
    #[inline]
    pub(super) fn take(self, empty_at: u64, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        if permits > self.burst {
            return Err(Refused::ExceedsBurst { burst: self.burst });
        }
        // No overflow: the whole burst refills within ten years.
        let (capacity, cost) =
            (self.nanos_per_permit * u64::from(self.burst), self.nanos_per_permit * u64::from(permits));
        let start = empty_at.max(on_line(now).saturating_sub(capacity));
        let end = start.saturating_add(cost);
        // The very end of the line is no place: there the arithmetic ends.
        if end > on_line(latest) || end == u64::MAX {
            return Err(Refused::NotBefore(Self::usable_from(end, now)));
        }
        Ok(Place { usable_from: Self::usable_from(end, now), start, end, changes: 0 })
    }

    /// When a place that ends at `end` may be used.
    #[inline]
    pub(super) fn usable_from(end: u64, now: Instant) -> Instant {
        Instant::from_nanos(end.saturating_sub(ORIGIN)).max(now)
    }

    /// How many permits the bucket holds.
    pub(super) fn available(self, empty_at: u64, now: Instant) -> u32 {
        let back = on_line(now).saturating_sub(empty_at) / self.nanos_per_permit;
        u32::try_from(back).unwrap_or(u32::MAX).min(self.burst)
    }

    /// How long until the bucket holds one permit more; zero when it is full.
    pub(super) fn next_permit(self, empty_at: u64, now: Instant) -> Duration {
        let available = self.available(empty_at, now);
        if available == self.burst {
            return Duration::ZERO;
        }
        Duration::from_nanos(empty_at.saturating_add(self.span(available + 1)).saturating_sub(on_line(now)))
    }

    /// The same permits under `new`: saved ones are neither made nor lost, except for less than a nanosecond's worth
    /// and for what did not fit into the old bucket; promised ones keep their time, and the new rate holds from the
    /// last of them on. With another rate and something saved, it is never the same number: who read the old one can
    /// tell.
    pub(super) fn convert(self, before: u64, new: Self, now: Instant) -> u64 {
        let here = on_line(now);
        let empty_at = before.max(self.full(now));
        if empty_at >= here || new.nanos_per_permit == self.nanos_per_permit {
            return empty_at;
        }
        let saved = u128::from(here - empty_at);
        let saved = saved * u128::from(new.nanos_per_permit) / u128::from(self.nanos_per_permit);
        let after = here.saturating_sub(u64::try_from(saved).unwrap_or(u64::MAX));
        after + u64::from(after == before)
    }

    /// What lies before this on the line means something else once the rate has become `new`: it is not given back.
    pub(super) fn floor(self, new: Self, now: Instant) -> u64 {
        if new.nanos_per_permit == self.nanos_per_permit { self.full(now) } else { on_line(now) }
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn at_the_end_of_the_time_line_nothing_comes_back_and_nothing_overflows() {
        let rate = Rate::of(SECOND, 10);
        let end = Instant::from_nanos(u64::MAX);
        let mut bucket = 0;
        let takes = (0..100).map_while(|_| rate.take(bucket, 1, end, end).ok().map(|place| bucket = place.end));
        assert!(takes.count() <= 10);
        assert!(matches!(rate.take(u64::MAX, 1, Instant::default(), end), Err(Refused::NotBefore(_))));
    }

    #[test]
    fn the_next_permit_is_told_from_what_is_saved_and_what_is_promised() {
        let (rate, now) = (Rate::of(SECOND, 10), Instant::from_nanos(100 * SECOND));
        assert_eq!(rate.next_permit(rate.full(now), now), Duration::ZERO);
        assert_eq!(rate.next_permit(rate.holding(9, now), now), Duration::from_secs(1));
        assert_eq!(rate.next_permit(rate.holding(0, now) + SECOND / 2, now), Duration::from_millis(1_500));
        assert_eq!(rate.available(rate.holding(0, now) + SECOND / 2, now), 0);
    }

    #[test]
    fn a_change_of_rate_keeps_the_permits_that_are_saved_and_the_times_that_are_promised() {
        let (slow, fast) = (Rate::of(SECOND, 10), Rate::of(SECOND / 1_000, 10));
        let now = Instant::from_nanos(100 * SECOND);
        for saved in 0..=10 {
            assert_eq!(slow.convert(slow.holding(saved, now), fast, now), fast.holding(saved, now));
            assert_eq!(fast.convert(fast.holding(saved, now), slow, now), slow.holding(saved, now));
        }
        assert_eq!(slow.convert(0, fast, now), fast.full(now), "and no more than the burst");
        let promised = slow.holding(0, now) + 7 * SECOND;
        assert_eq!(slow.convert(promised, fast, now), promised);
    }
}
