//! `count --out FILE`: what each case allocates a call, and what objects take in memory. A program of its own, because its
//! allocator counts, which must not be part of any time.

use std::collections::BTreeMap;
use std::process::ExitCode;

use allocation_counter::measure;
use resilience_bench::{cases, footprint, prepare};
use serde::Serialize;

const CALLS: u64 = 1_000;

#[derive(Serialize)]
struct Counts {
    /// Allocations a call, by case.
    allocations: BTreeMap<String, f64>,
    bytes: Vec<Bytes>,
}

#[derive(Serialize)]
struct Bytes {
    what: &'static str,
    who: &'static str,
    each: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [_, out] = &arguments[..] else {
        eprintln!("usage: count --out FILE; or use `cargo xtask bench`");
        return ExitCode::from(2);
    };
    std::panic::set_hook(Box::new(|_| {}));
    let good = cases().into_iter().filter_map(|case| prepare(case).ok());
    let allocations = good
        .map(|case| {
            case.run(CALLS);
            let total = measure(|| case.run(CALLS)).count_total;
            (case.case.id(), total as f64 / CALLS as f64)
        })
        .collect();
    let _ = std::panic::take_hook();
    let bytes = footprint::all().into_iter().map(|it| {
        // Once before: what a crate sets up for the whole process is not the object's.
        drop((it.make)());
        let mut kept = None;
        let counted = measure(|| kept = Some((it.make)()));
        drop(kept);
        Bytes { what: it.what, who: it.who, each: counted.bytes_current as f64 / it.of as f64 }
    });
    let counts = Counts { allocations, bytes: bytes.collect() };
    match serde_json::to_vec_pretty(&counts).map_err(std::io::Error::from).and_then(|text| std::fs::write(out, text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {out}: {error}");
            ExitCode::from(2)
        }
    }
}
