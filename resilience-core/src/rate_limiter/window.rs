//! The sliding window: what was granted, and when, in order. The permit after the next `permits` ones may be used no
//! sooner than a span after the first of them, so any span has at most so many: exactly, not by parts of the span.
//! Single-threaded and told the time; O(log permits) at worst, O(1) as a rule, whatever the pause before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::gcra::{Place, Refused};
use super::quota::Figures;
use crate::clock::{Instant, nanos};

/// Grants that have left the window and are dropped with each request: two, so that this outruns the grants.
const DROPPED_AT_ONCE: usize = 2;

/// Permits granted for one moment.
#[derive(Debug, Clone, Copy)]
struct Grant {
    at: u64,
    /// The number of the last of them, counted from 1 since the window was made.
    last: u64,
}

/// At most `permits` in any span of time `[t, t + span)`.
#[derive(Debug)]
pub(super) struct Window {
    permits: u32,
    span: u64,
    /// In order of time, also those to come, for who waits. Memory is set aside for all that a span can have.
    grants: VecDeque<Grant>,
    /// The number of the last permit whose grant was dropped.
    dropped: u64,
    /// Permits that were given up while others queue behind them, by their time: they still count, but not as used.
    gaps: BTreeMap<u64, u32>,
    /// The latest time it was told: threads that looked at the clock a little earlier do not turn it back.
    now: u64,
}

impl Window {
    /// A window in which `used` permits were granted just now.
    pub(super) fn new(permits: u32, span: Duration, used: u32, now: Instant) -> Self {
        let mut window = Self {
            permits,
            span: nanos(span),
            grants: VecDeque::with_capacity(permits as usize),
            dropped: 0,
            gaps: BTreeMap::new(),
            now: now.as_nanos(),
        };
        if used > 0 {
            window.grants.push_back(Grant { at: window.now, last: u64::from(used) });
        }
        window
    }

    /// The number of the last permit that was granted.
    fn last(&self) -> u64 {
        self.grants.back().map_or(self.dropped, |grant| grant.last)
    }

    /// The time of the last grant.
    fn newest(&self) -> u64 {
        self.grants.back().map_or(0, |grant| grant.at)
    }

    /// From when on `permits` more may be used, behind everybody else.
    fn at_the_end(&self, permits: u32) -> u64 {
        let soonest = self.now.max(self.newest());
        // Permit number n waits for number n - `permits` to leave the window.
        let leaving = (self.last() + u64::from(permits)).saturating_sub(u64::from(self.permits));
        if permits == 0 || leaving <= self.dropped {
            return soonest;
        }
        let front = self.grants.front().filter(|grant| grant.last >= leaving);
        let grant = front.or_else(|| self.grants.get(self.grants.partition_point(|grant| grant.last < leaving)));
        grant.map_or(soonest, |grant| soonest.max(grant.at.saturating_add(self.span)))
    }

    /// The first place given up that is not past and has so many permits.
    fn gap(&self, permits: u32) -> Option<u64> {
        if permits == 0 {
            return None;
        }
        self.gaps.range(self.now..).find(|(_, free)| **free >= permits).map(|(at, _)| *at)
    }

    /// From when on `permits` could be used, provided that is not after `latest`; and whether that is in a gap.
    fn find(&mut self, permits: u32, now: Instant, latest: Instant) -> Result<(u64, bool), Refused> {
        if permits > self.permits {
            return Err(Refused::ExceedsBurst { burst: self.permits });
        }
        self.advance(now);
        let gap = self.gap(permits);
        let at = gap.unwrap_or_else(|| self.at_the_end(permits));
        // The very end of time is no place: there the arithmetic ends.
        if at > latest.as_nanos().max(self.now) || at == u64::MAX {
            return Err(Refused::NotBefore(Instant::from_nanos(at)));
        }
        Ok((at, gap.is_some()))
    }

    /// Takes `permits` and says from when on they may be used, provided that is not after `latest`.
    pub(super) fn reserve(&mut self, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        let (at, is_gap) = self.find(permits, now, latest)?;
        let start = self.last();
        if is_gap {
            self.fill(at, permits);
        } else if permits > 0 {
            let last = start + u64::from(permits);
            match self.grants.back_mut() {
                Some(grant) if grant.at == at => grant.last = last,
                _ => self.grants.push_back(Grant { at, last }),
            }
        }
        let usable_from = Instant::from_nanos(at);
        Ok(Place { usable_from, start, end: start + u64::from(permits), changes: 0 })
    }

    /// What [`reserve`](Self::reserve) without a wait would answer. Takes nothing.
    pub(super) fn peek(&mut self, permits: u32, now: Instant) -> Result<(), Refused> {
        self.find(permits, now, now).map(|_| ())
    }

    fn fill(&mut self, at: u64, permits: u32) {
        if let Some(free) = self.gaps.get_mut(&at) {
            *free -= permits;
            if *free == 0 {
                self.gaps.remove(&at);
            }
        }
    }

    /// Gives up a place that was not used. The last ones are as if they had never been, together with all that were
    /// given up before them; others are free for who comes next, and when their time has passed, they leave the window
    /// as used ones do.
    pub(super) fn give_up(&mut self, place: Place, now: Instant) {
        self.advance(now);
        let at = place.usable_from.as_nanos();
        let permits = u32::try_from(place.end - place.start).unwrap_or_default();
        if permits == 0 || at.saturating_add(self.span) <= self.now {
            return;
        }
        *self.gaps.entry(at).or_default() += permits;
        while let Some(grant) = self.grants.back_mut()
            && let Some(free) = self.gaps.remove(&grant.at)
        {
            grant.last -= u64::from(free);
            let last = grant.last;
            let before = self.grants.iter().nth_back(1).map_or(self.dropped, |grant| grant.last);
            if last > before {
                break;
            }
            self.grants.pop_back();
        }
    }

    /// Changes both numbers. Who waits keeps the time that was promised.
    pub(super) fn change(&mut self, permits: u32, span: Duration, now: Instant) {
        // What has left the old window does not come back into a longer one.
        self.advance(now);
        self.dropped = self.dropped.max(self.out(self.now));
        while self.grants.front().is_some_and(|grant| grant.last <= self.dropped) {
            self.grants.pop_front();
        }
        self.grants.reserve_exact((permits as usize).saturating_sub(self.grants.len()));
        (self.permits, self.span) = (permits, nanos(span));
    }

    /// The number of the last permit that is out of the window at `time`.
    fn out(&self, time: u64) -> u64 {
        let out = self.grants.partition_point(|grant| grant.at.saturating_add(self.span) <= time);
        out.checked_sub(1).map_or(self.dropped, |index| self.grants[index].last)
    }

    /// It is `now`: drops a few of those that have left the window. Correct without it; it bounds the memory.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now.as_nanos());
        let (now, span) = (self.now, self.span);
        let is_out = |at: u64| at.saturating_add(span) <= now;
        if is_out(self.newest()) {
            self.dropped = self.last();
            self.grants.clear();
        }
        for _ in 0..DROPPED_AT_ONCE {
            let Some(grant) = self.grants.front().filter(|grant| is_out(grant.at)) else { break };
            self.dropped = grant.last;
            self.grants.pop_front();
            if let Some(gap) = self.gaps.first_entry().filter(|gap| is_out(*gap.key())) {
                gap.remove();
            }
        }
        if self.grants.is_empty() {
            self.gaps.clear();
        }
    }

    /// What it holds now.
    pub(super) fn figures(&mut self, now: Instant) -> Figures {
        self.advance(now);
        let in_window = self.last() - self.out(self.now);
        let in_window = u32::try_from(in_window).unwrap_or(u32::MAX);
        // Behind those who wait nothing can be had at once.
        let available = if self.newest() > self.now { 0 } else { self.permits.saturating_sub(in_window) };
        let one_more = if available == self.permits { self.now } else { self.at_the_end(available + 1) };
        Figures {
            available,
            used: in_window.min(self.permits),
            burst: self.permits,
            window: Duration::from_nanos(self.span),
            next_permit: Duration::from_nanos(one_more - self.now),
            per_second: f64::from(self.permits) * 1e9 / self.span as f64,
        }
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn grants_that_have_left_are_dropped_a_few_at_a_time_and_the_memory_stays_as_it_was_set_aside() {
        let mut window = Window::new(1_000, Duration::from_micros(1), 0, at(0));
        let capacity = window.grants.capacity();
        for now in 0..50_000 {
            let before = window.grants.len();
            window.reserve(1, at(now * (1 + now / 25_000)), at(now * 2)).unwrap();
            assert!(window.grants.len() + DROPPED_AT_ONCE > before || window.grants.len() == 1, "no sweep");
            assert!(window.grants.len() <= 1_000);
        }
        assert_eq!(window.grants.capacity(), capacity);
    }

    #[test]
    fn at_the_end_of_time_nothing_is_granted_and_nothing_overflows() {
        let mut window = Window::new(2, Duration::from_secs(1), 0, at(0));
        let end = at(u64::MAX);
        assert!(window.reserve(1, end, end).is_err());
        assert!(window.reserve(2, at(u64::MAX - 1), end).is_err());
        assert_eq!(window.figures(end).next_permit, Duration::ZERO);
    }

    #[test]
    fn gaps_that_nobody_fills_are_forgotten() {
        let mut window = Window::new(1, Duration::from_nanos(10), 0, at(0));
        let places: Vec<_> = (0..100).map(|_| window.reserve(1, at(0), at(u64::MAX)).unwrap()).collect();
        for place in places.iter().step_by(2) {
            window.give_up(*place, at(0));
        }
        assert_eq!(window.gaps.len(), 50);
        window.figures(at(1_000));
        assert!(window.gaps.is_empty() && window.grants.is_empty());
    }

    #[test]
    fn a_thread_that_looked_at_the_clock_earlier_is_not_refused_for_it() {
        let mut window = Window::new(2, Duration::from_nanos(10), 0, at(0));
        window.reserve(1, at(5), at(5)).unwrap();
        assert_eq!(window.reserve(1, at(4), at(4)).unwrap().usable_from, at(5));
    }
}
