//! Places in a bucket's queue that were given up while others stand behind them, free for who comes next. Those behind
//! keep the times they were promised: moving the whole queue up would let two of them go at once.
//! Knows the buckets' time line, but no clock and no lock.

use std::collections::BTreeMap;

use super::gcra::{Place, Rate, Refused, on_line};
use crate::clock::Instant;

/// Start and end of each gap, joined where they touch.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<u64, u64>);

impl Gaps {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first gap that is long enough and not past, and where in it a place for `permits` would end.
    fn find(&self, rate: Rate, permits: u32, now: Instant) -> Option<(u64, u64)> {
        if !(1..=rate.burst()).contains(&permits) {
            return None;
        }
        let (past, cost) = (on_line(now), rate.span(permits));
        self.0.iter().find_map(|(&gap, &gap_end)| {
            let start = gap.max(past.saturating_sub(cost));
            start.checked_add(cost).filter(|end| (past..=gap_end).contains(end)).map(|end| (gap, end))
        })
    }

    /// What [`fill`](Self::fill) would answer.
    pub(super) fn peek(&self, rate: Rate, permits: u32, now: Instant, latest: Instant) -> Option<Result<(), Refused>> {
        self.find(rate, permits, now).map(|(_, end)| within(end, now, latest).map(|_| ()))
    }

    /// Takes the first gap that will do. `None`: there is none.
    pub(super) fn fill(
        &mut self,
        rate: Rate,
        permits: u32,
        now: Instant,
        latest: Instant,
    ) -> Option<Result<Place, Refused>> {
        if permits == 0 {
            return None;
        }
        self.forget_past(now);
        let (gap, end) = self.find(rate, permits, now)?;
        Some(within(end, now, latest).map(|usable_from| {
            // What lies before the new place is past.
            let gap_end = self.0.remove(&gap).unwrap_or(end);
            if end < gap_end {
                self.0.insert(end, gap_end);
            }
            Place { usable_from, start: end - rate.span(permits), end, changes: 0 }
        }))
    }

    /// Takes back a place from `start` to `end`. `shorten` is asked, with the place and all gaps that touch it, whether
    /// it was the queue's last, which then ends where it started; any other place leaves a gap.
    pub(super) fn give_up(
        &mut self,
        mut start: u64,
        mut end: u64,
        now: Instant,
        shorten: impl FnOnce(u64, u64) -> bool,
    ) {
        if let Some((&before, &before_end)) = self.0.range(..start).next_back()
            && before_end == start
        {
            self.0.remove(&before);
            start = before;
        }
        if let Some(behind_end) = self.0.remove(&end) {
            end = behind_end;
        }
        let was_last = shorten(start, end);
        self.forget_past(now);
        if !was_last && end >= on_line(now) {
            self.0.insert(start, end);
        }
    }

    /// What could have been used before now is gone: used late, it could meet the one behind it.
    fn forget_past(&mut self, now: Instant) {
        self.0.retain(|_, end| *end >= on_line(now));
    }

    /// The rate changes now: what came back for a gap so far came back at the old one.
    pub(super) fn cut(&mut self, now: Instant) {
        let here = on_line(now);
        let started: Vec<_> = self.0.range(..here).map(|(start, end)| (*start, *end)).collect();
        for (start, end) in started {
            self.0.remove(&start);
            if end > here {
                self.0.insert(here, end);
            }
        }
    }
}

/// When a place that ends at `end` may be used, provided that is not after `latest`.
fn within(end: u64, now: Instant, latest: Instant) -> Result<Instant, Refused> {
    let usable_from = Rate::usable_from(end, now);
    if usable_from > latest { Err(Refused::NotBefore(usable_from)) } else { Ok(usable_from) }
}

/// One key's bucket and its gaps, for who holds them alone.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) empty_at: u64,
    /// Almost always none: a word per key, not a map.
    gaps: Option<Box<Gaps>>,
}

impl Held {
    pub(super) const fn new(empty_at: u64) -> Self {
        Self { empty_at, gaps: None }
    }

    #[inline]
    pub(super) fn take(&mut self, rate: Rate, permits: u32, now: Instant, latest: Instant) -> Result<Place, Refused> {
        if let Some(answer) = self.fill(rate, permits, now, latest) {
            return answer;
        }
        let place = rate.take(self.empty_at, permits, now, latest)?;
        self.empty_at = place.end;
        Ok(place)
    }

    #[inline]
    fn fill(&mut self, rate: Rate, permits: u32, now: Instant, latest: Instant) -> Option<Result<Place, Refused>> {
        let answer = self.gaps.as_mut()?.fill(rate, permits, now, latest);
        self.tidy();
        answer
    }

    pub(super) fn peek(&self, rate: Rate, permits: u32, now: Instant) -> Result<(), Refused> {
        let gap = self.gaps.as_ref().and_then(|gaps| gaps.peek(rate, permits, now, now));
        gap.unwrap_or_else(|| rate.take(self.empty_at, permits, now, now).map(|_| ()))
    }

    pub(super) fn give_up(&mut self, start: u64, end: u64, now: Instant) {
        let Self { empty_at, gaps } = self;
        gaps.get_or_insert_default().give_up(start, end, now, |start, end| {
            let was_last = *empty_at == end;
            if was_last {
                *empty_at = start;
            }
            was_last
        });
        self.tidy();
    }

    pub(super) fn change(&mut self, old: Rate, new: Rate, now: Instant) {
        self.empty_at = old.convert(self.empty_at, new, now);
        if let Some(gaps) = &mut self.gaps
            && old.nanos_per_permit() != new.nanos_per_permit()
        {
            gaps.cut(now);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.gaps.as_ref().is_some_and(|gaps| gaps.is_empty()) {
            self.gaps = None;
        }
    }
}
