//! Times several threads that call one object. On a busy machine threads that should meet take turns instead, which looks
//! like no contention at all: slices in which they weren't all running all the time are not counted.

use std::collections::BTreeMap;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Prepared;
use crate::timing::{Plan, Timed, calls_within, thread_time};

/// Part of the slice during which every thread must have been on a processor, together with the others.
const TOGETHER: f64 = 0.9;

/// Slices that count after which a case needs no more.
const WANTED: usize = 40;

/// One thread's part of a slice.
#[derive(Debug, Clone, Copy)]
struct Part {
    began: Instant,
    ended: Instant,
    calls: u64,
    on_processor: Duration,
}

/// Times `threads` threads on each of `cases`, in nanoseconds of the whole per call; by case id. Where there are no more
/// threads than processors, slices in which the threads weren't together don't count, and a case may have none that do.
/// Where there are more, they must take turns, and every slice counts.
pub fn together(
    cases: &[Prepared],
    threads: usize,
    plan: Plan,
    mut progress: impl FnMut(u32),
) -> BTreeMap<String, Timed> {
    let enough = threads > std::thread::available_parallelism().map_or(1, usize::from);
    let batches: Vec<u64> = cases.iter().map(|case| calls_within(case, plan.slice / 200)).collect();
    let mut slices: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        progress(round);
        for ((case, batch), slices) in cases.iter().zip(&batches).zip(&mut slices) {
            if slices.len() >= WANTED {
                continue;
            }
            let parts = run(case, threads, *batch, plan.slice);
            if enough || were_together(&parts) {
                slices.push(nanos(&parts) / parts.iter().map(|part| part.calls).sum::<u64>() as f64);
            }
        }
    }
    cases.iter().zip(slices).filter_map(|(case, slices)| Some((case.case.id(), Timed::of(slices)?))).collect()
}

/// Runs `threads` threads, which begin together and call until `slice` is over. Each looks at the clock after every `batch`
/// of calls: how long calls take that meet is not known before, and may be a thousand times as long as alone.
fn run(case: &Prepared, threads: usize, batch: u64, slice: Duration) -> Vec<Part> {
    let waiting = AtomicUsize::new(threads);
    std::thread::scope(|scope| {
        let one = || {
            case.run(batch);
            waiting.fetch_sub(1, Ordering::AcqRel);
            let mut spins = 0_u32;
            while waiting.load(Ordering::Acquire) > 0 {
                // A thread that isn't on a processor yet must be let onto this one if there is no other.
                spins += 1;
                if spins.is_multiple_of(1_024) { std::thread::yield_now() } else { spin_loop() }
            }
            let (began, before) = (Instant::now(), thread_time());
            let mut calls = 0;
            while began.elapsed() < slice {
                case.run(batch);
                calls += batch;
            }
            Part { began, calls, on_processor: thread_time().saturating_sub(before), ended: Instant::now() }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().map(|thread| thread.join().expect("a case that worked goes on working")).collect()
    })
}

/// From the first beginning to the last end.
fn nanos(parts: &[Part]) -> f64 {
    let began = parts.iter().map(|part| part.began).min();
    let ended = parts.iter().map(|part| part.ended).max();
    began.zip(ended).map_or(0.0, |(began, ended)| (ended - began).as_secs_f64() * 1e9)
}

fn were_together(parts: &[Part]) -> bool {
    let whole = nanos(parts);
    let last_began = parts.iter().map(|part| part.began).max();
    let first_ended = parts.iter().map(|part| part.ended).min();
    let shared = last_began.zip(first_ended).map_or(Duration::ZERO, |(from, to)| to.saturating_duration_since(from));
    let ran =
        |part: &Part| part.on_processor.as_secs_f64() * 1e9 >= TOGETHER * (part.ended - part.began).as_secs_f64() * 1e9;
    shared.as_secs_f64() * 1e9 >= TOGETHER * whole && parts.iter().all(ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_took_turns_were_not_together() {
        let start = Instant::now();
        let part = |from: u64, to: u64, ran: u64| Part {
            began: start + Duration::from_millis(from),
            ended: start + Duration::from_millis(to),
            calls: 1,
            on_processor: Duration::from_millis(ran),
        };
        assert!(were_together(&[part(0, 100, 100), part(2, 99, 95)]));
        assert!(!were_together(&[part(0, 100, 100), part(50, 150, 100)]), "one after the other");
        assert!(!were_together(&[part(0, 100, 100), part(0, 100, 60)]), "one was made to wait");
        assert!((nanos(&[part(0, 100, 1), part(50, 150, 1)]) - 150e6).abs() < 1.0);
    }
}
