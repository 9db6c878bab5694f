//! How the cost of a call grows with what there is: keys, breakers, window, threads. Lines that should be flat show
//! whether they are.

use std::hint::black_box;
use std::time::Duration;

use resilience_core::Registry;
use serde::Serialize;

use crate::case::{Run, repeat};
use crate::footprint::breaker_name;
use crate::timing::{Plan, Timed};
use crate::{Case, Prepared, cases, ours, peers, prepare, threads, timing};

/// A plot of one quantity's growth.
#[derive(Debug, Clone, Serialize)]
pub struct Plot {
    /// For the file's name.
    pub id: &'static str,
    /// For people.
    pub title: &'static str,
    /// What grows.
    pub x: &'static str,
    /// What was measured.
    pub y: &'static str,
    /// One line each.
    pub lines: Vec<Line>,
}

/// One line of a plot.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Whose it is.
    pub who: &'static str,
    /// What there is, and nanoseconds a call.
    pub points: Vec<(u64, f64)>,
}

/// A line as it is measured: its object at some size.
struct Curve {
    who: &'static str,
    make: fn(u64) -> Run,
}

const KEYS: &[u64] = &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
const BREAKERS: &[u64] = &[1, 10, 100, 1_000, 10_000];
const WINDOWS: &[u64] = &[10, 100, 1_000, 10_000, 100_000];
const THREADS: &[usize] = &[1, 2, 4, 8, 16, 32, 64];

/// Numbers below `count`, in an order that no cache foresees.
fn scattered(count: u64) -> impl FnMut() -> u64 {
    let mut random = fastrand::Rng::with_seed(7);
    move || random.u64(..count)
}

fn keys() -> Vec<Curve> {
    let mut curves = vec![Curve {
        who: ours::WHO,
        make: |count| {
            let limiter = ours::keyed::<u64>(1 << 20);
            (0..count).for_each(|key| limiter.try_acquire(&key, 1).expect("plenty"));
            Box::new(move |calls| {
                let mut next = scattered(count);
                repeat(calls, || black_box(&limiter).try_acquire(&next(), 1).is_ok())
            })
        },
    }];
    #[cfg(feature = "governor")]
    curves.push(Curve {
        who: "governor",
        make: |count| {
            let limiter = peers::governor::keyed::<u64>();
            (0..count).for_each(|key| limiter.check_key(&key).expect("plenty"));
            Box::new(move |calls| {
                let mut next = scattered(count);
                repeat(calls, || black_box(&limiter).check_key(&next()).is_ok())
            })
        },
    });
    curves.push(Curve {
        who: "one relaxed load of an array",
        make: |count| {
            let words: Vec<u64> = (0..count).map(|_| 1).collect();
            Box::new(move |calls| {
                let mut next = scattered(count);
                repeat(calls, || words[usize::try_from(next()).unwrap_or_default()] == 1)
            })
        },
    });
    curves
}

fn breakers() -> Vec<Curve> {
    vec![
        Curve {
            who: "resilience-core, found by name and called",
            make: |count| {
                let (registry, names) = registry(count);
                Box::new(move |calls| {
                    let mut next = scattered(count);
                    repeat(calls, || {
                        let name = &names[usize::try_from(next()).unwrap_or_default()];
                        black_box(&registry)
                            .breaker(name, |builder| builder)
                            .is_ok_and(|it| it.call(ours::success).is_ok())
                    })
                })
            },
        },
        Curve {
            who: "resilience-core, called by a handle that was kept",
            make: |count| {
                let (registry, names) = registry(count);
                let handles: Vec<_> =
                    names.iter().map(|name| registry.breaker(name, |builder| builder).unwrap()).collect();
                Box::new(move |calls| {
                    let mut next = scattered(count);
                    repeat(calls, || {
                        let breaker = &handles[usize::try_from(next()).unwrap_or_default()];
                        black_box(breaker).call(ours::success).is_ok()
                    })
                })
            },
        },
    ]
}

fn registry(count: u64) -> (Registry, Vec<String>) {
    let registry = Registry::default().max_policies(10_000);
    let names: Vec<String> = (0..count).map(breaker_name).collect();
    for name in &names {
        registry.breaker(name, |builder| builder.failure_rate(0.5, 100, 10)).expect("valid settings");
    }
    (registry, names)
}

fn windows() -> Vec<Curve> {
    let mut curves = vec![Curve {
        who: ours::WHO,
        make: |calls| {
            let breaker = ours::counting(u32::try_from(calls).unwrap_or(u32::MAX));
            Box::new(move |calls| repeat(calls, || black_box(&breaker).call(ours::success).is_ok()))
        },
    }];
    #[cfg(feature = "recloser")]
    curves.push(Curve {
        who: "recloser",
        make: |calls| {
            let breaker = peers::recloser::counting(usize::try_from(calls).unwrap_or(usize::MAX));
            Box::new(move |calls| repeat(calls, || black_box(&breaker).call(ours::success).is_ok()))
        },
    });
    curves
}

/// Measures all plots; `quick` leaves the largest sizes out. `progress` hears what is measured.
pub fn all(plan: Plan, quick: bool, mut progress: impl FnMut(&str)) -> Vec<Plot> {
    let upto = |sizes: &'static [u64], most: u64| -> Vec<u64> {
        sizes.iter().copied().filter(|size| !quick || *size <= most).collect()
    };
    let plots = [
        ("keys", "limiter by key", "keys, asked for at random", keys(), upto(KEYS, 10_000)),
        ("registry", "breakers in a registry", "breakers, called at random", breakers(), upto(BREAKERS, 1_000)),
        ("window", "breaker, closed, success", "calls in the window", windows(), upto(WINDOWS, 10_000)),
    ];
    let mut measured: Vec<Plot> = Vec::new();
    for (id, title, x, curves, sizes) in plots {
        let mut lines: Vec<Line> = curves.iter().map(|curve| Line { who: curve.who, points: Vec::new() }).collect();
        for size in sizes {
            progress(&format!("{title}: {size} {x}"));
            // Of one size at a time, all lines side by side.
            let sized: Vec<Run> = curves.iter().map(|curve| (curve.make)(size)).collect();
            for (line, timed) in lines.iter_mut().zip(side_by_side(&sized, plan)) {
                line.points.extend(timed.map(|timed| (size, timed.min)));
            }
        }
        measured.push(Plot { id, title, x, y: "ns a call", lines });
    }
    measured.extend(by_threads(plan, quick, progress));
    measured
}

/// The smallest slices of `runs`, in interleaved rounds.
fn side_by_side(runs: &[Run], plan: Plan) -> Vec<Option<Timed>> {
    let mut slices: Vec<Vec<f64>> = runs.iter().map(|_| Vec::new()).collect();
    let per_slice = |run: &Run| {
        run(1_000);
        let took = timing::slice(|| assert!(run(2_000) > 0)).max(1.0) / 2_000.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count far below 2^63")]
        return ((plan.slice.as_secs_f64() * 1e9 / took) as u64).max(16);
    };
    let lengths: Vec<u64> = runs.iter().map(per_slice).collect();
    for _ in 0..plan.rounds {
        for ((run, calls), slices) in runs.iter().zip(&lengths).zip(&mut slices) {
            slices.push(timing::slice(|| assert_eq!(run(*calls), *calls, "every call succeeds")) / *calls as f64);
        }
    }
    slices.into_iter().map(Timed::of).collect()
}

/// What the whole takes per call while so many threads call one object.
fn by_threads(plan: Plan, quick: bool, mut progress: impl FnMut(&str)) -> Vec<Plot> {
    let of = |row: &str, who: &[&str]| -> Vec<Prepared> {
        let chosen = |case: &Case| case.row == row && who.contains(&case.who);
        cases().into_iter().filter(chosen).filter_map(|case| prepare(case).ok()).collect()
    };
    let plots = [
        ("threads_breaker", "one breaker, closed, success", of("breaker_closed", &[ours::WHO, "recloser"])),
        ("threads_limiter", "one limiter, allowed", of("limiter_allowed", &[ours::WHO, "governor", "ratelimit"])),
        ("threads_keyed", "one limiter by key, 1 000 numbers", of("keyed_number", &[ours::WHO, "governor"])),
        (
            "threads_pipeline",
            "one pipeline of five, async, success",
            of("pipeline_async", &[ours::WHO, crate::rows::THREE_LAYERS]),
        ),
    ];
    let sizes: Vec<usize> = THREADS.iter().copied().filter(|threads| !quick || *threads <= 4).collect();
    let mut measured = Vec::new();
    for (id, title, prepared) in plots {
        let mut lines: Vec<Line> =
            prepared.iter().map(|case| Line { who: case.case.who, points: Vec::new() }).collect();
        for threads in &sizes {
            progress(&format!("{title}: {threads} threads"));
            // More threads than processors take turns; slices must be longer than a turn.
            let plan = Plan {
                slice: plan.slice.max(Duration::from_millis(if *threads > 2 && !quick { 10 } else { 1 })),
                ..plan
            };
            let timed = threads::together(&prepared, *threads, plan, |_| {});
            for (line, case) in lines.iter_mut().zip(&prepared) {
                let point = timed.get(&case.case.id()).map(|timed| (*threads as u64, timed.median));
                line.points.extend(point);
            }
        }
        measured.push(Plot { id, title, x: "threads on one object", y: "ns a call, of all threads together", lines });
    }
    measured
}
