//! Times cases in interleaved rounds: each round runs a short slice of every case, so that whatever else the machine does
//! falls on all of them. The smallest slice is the figure; the median tells how quiet the machine was.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::Prepared;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds over all cases.
    pub rounds: u32,
    /// What one slice of a case takes about.
    pub slice: Duration,
}

/// Nanoseconds a call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timed {
    /// Of the fastest slice.
    pub min: f64,
    /// Of the slice in the middle.
    pub median: f64,
    /// Slices that count.
    pub slices: usize,
}

impl Timed {
    /// Of these slices; none when there are none.
    pub fn of(mut slices: Vec<f64>) -> Option<Self> {
        slices.sort_by(f64::total_cmp);
        Some(Self { min: *slices.first()?, median: slices[slices.len() / 2], slices: slices.len() })
    }
}

/// Times all `cases` on one thread, by case id. `progress` hears of each round.
pub fn alone(cases: &[Prepared], plan: Plan, mut progress: impl FnMut(u32)) -> BTreeMap<String, Timed> {
    let lengths: Vec<u64> = cases.iter().map(|case| calls_within(case, plan.slice)).collect();
    let mut slices: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        progress(round);
        for ((case, calls), slices) in cases.iter().zip(&lengths).zip(&mut slices) {
            // What the neighbour put out of the caches comes back before the clock starts.
            case.run(calls / 8 + 1);
            slices.push(slice(|| case.run(*calls)) / *calls as f64);
        }
    }
    let timed = cases.iter().zip(slices);
    timed.filter_map(|(case, slices)| Some((case.case.id(), Timed::of(slices)?))).collect()
}

/// The processor time that `work` takes on this thread, in nanoseconds: what other programs get meanwhile is not in it.
pub(crate) fn slice(work: impl FnOnce()) -> f64 {
    let before = thread_time();
    work();
    thread_time().saturating_sub(before).as_secs_f64() * 1e9
}

/// What this thread has used of the processor so far.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// How many calls take about `slice`.
pub(crate) fn calls_within(case: &Prepared, slice: Duration) -> u64 {
    let mut calls = 64;
    loop {
        let began = Instant::now();
        black_box(case).run(calls);
        let took = began.elapsed();
        if took * 4 >= slice || calls >= 1 << 30 {
            let scale = slice.as_secs_f64() / took.as_secs_f64().max(1e-9);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive count far below 2^63"
            )]
            return ((calls as f64 * scale) as u64).max(16);
        }
        calls *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_slice_and_the_one_in_the_middle_are_kept() {
        let timed = Timed::of(vec![3.0, 1.0, 2.0, 9.0, 4.0]).unwrap();
        assert_eq!(timed, Timed { min: 1.0, median: 3.0, slices: 5 });
        assert_eq!(Timed::of(Vec::new()), None);
    }
}
