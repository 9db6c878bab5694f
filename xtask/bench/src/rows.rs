//! The rows of the table: what each call does, what ours promises, what it is held against.
//! The figures that targets ask for are here and nowhere else.

use serde::Serialize;

/// The work that all cases of a row do.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Row {
    /// Short and stable.
    pub id: &'static str,
    /// For the table.
    pub title: &'static str,
    /// What one call does, and with which settings.
    pub work: &'static str,
    /// Whether it is also measured with 2 and 4 threads on one object.
    pub shared: bool,
    /// Whether ours promises to allocate nothing.
    pub no_allocations: bool,
    /// What ours is held to.
    pub targets: &'static [Target],
}

/// At most so many times what a peer takes, in the same run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Target {
    /// On so many threads.
    pub threads: u32,
    /// The case it is held against.
    pub peer: &'static str,
    /// The largest ratio that meets it.
    pub at_most: f64,
}

const fn target(threads: u32, peer: &'static str, at_most: f64) -> Target {
    Target { threads, peer, at_most }
}

/// A stack of three layers against which whole pipelines are held.
pub const THREE_LAYERS: &str = "tower-resilience, 3 layers";

/// All rows, in the table's order.
pub const ROWS: &[Row] = &[
    Row {
        id: "limits",
        title: "limits of the machine",
        work: "the smallest operations there are, as a yardstick; a ready boxed future; 64 bytes allocated and freed",
        shared: true,
        no_allocations: false,
        targets: &[],
    },
    Row {
        id: "breaker_closed",
        title: "breaker, closed, success",
        work: "one blocking call that succeeds and is counted in a window of the last 100 calls",
        shared: true,
        no_allocations: true,
        targets: &[target(1, "recloser", 1.0), target(2, "recloser", 0.6)],
    },
    Row {
        id: "breaker_in_a_row",
        title: "breaker, closed, success, no window",
        work: "one blocking call that succeeds; 5 failures in a row would open it (`circuit_breaker`: 5 failures ever, \
               `circuitbreaker-rs`: or half of all calls)",
        shared: true,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "breaker_closed_async",
        title: "breaker, closed, success, async",
        work: "the same with a future that is ready at once",
        shared: true,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "breaker_time",
        title: "breaker, closed, success, time window",
        work: "one call that succeeds; the window is the last 10 s",
        shared: true,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "breaker_open",
        title: "breaker, open, rejected",
        work: "one call that is refused by a breaker that opened for an hour because calls failed",
        shared: true,
        no_allocations: true,
        targets: &[target(1, "recloser", 0.5)],
    },
    Row {
        id: "limiter_allowed",
        title: "limiter, allowed",
        work: "one permit is asked for and granted: one comes back each nanosecond, 4 s of them are saved up",
        shared: true,
        no_allocations: true,
        targets: &[target(1, "governor", 1.0), target(2, "governor", 1.0)],
    },
    Row {
        id: "limiter_denied",
        title: "limiter, denied",
        work: "one permit is asked for and refused: one comes back in a million seconds, none is left",
        shared: true,
        no_allocations: true,
        targets: &[target(1, "governor", 1.0), target(2, "governor", 1.0)],
    },
    Row {
        id: "keyed_number",
        title: "limiter by key, 1 000 numbers",
        work: "one permit of one of 1 000 `u64` keys in turn is granted: one comes back a second, many are saved up",
        shared: true,
        no_allocations: true,
        targets: &[target(1, "governor", 0.9)],
    },
    Row {
        id: "keyed_text",
        title: "limiter by key, 1 000 strings",
        work: "the same with keys like `tenant-417`",
        shared: true,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "retry_async",
        title: "retry, first try succeeds, async",
        work: "an async closure that succeeds at once, under 3 attempts with exponential backoff",
        shared: false,
        no_allocations: true,
        targets: &[target(1, "backon", 1.0)],
    },
    Row {
        id: "retry_blocking",
        title: "retry, first try succeeds, blocking",
        work: "the same, blocking",
        shared: false,
        no_allocations: true,
        targets: &[target(1, "backon", 1.0)],
    },
    Row {
        id: "bulkhead",
        title: "bulkhead, enter and leave",
        work: "one of 64 places is taken and given back",
        shared: true,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "bulkhead_async",
        title: "bulkhead, enter and leave, async",
        work: "the same by a future that may wait",
        shared: true,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "timeout_async",
        title: "timeout, async, at once",
        work: "a future that is ready at once, under a limit of 10 s",
        shared: false,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "tower_two",
        title: "tower: places and timeout",
        work: "a tower service that is ready at once, under 64 places and a limit of 10 s",
        shared: false,
        no_allocations: true,
        targets: &[],
    },
    Row {
        id: "pipeline_async",
        title: "pipeline of five, async, success",
        work: "timeout + retry + limiter + breaker (last 100 calls) + bulkhead around a future that is ready at once; \
               the peer's stacks are tower services",
        shared: true,
        no_allocations: true,
        targets: &[target(1, THREE_LAYERS, 0.15)],
    },
    Row {
        id: "pipeline_tower",
        title: "pipeline of five, one tower layer",
        work: "the same pipeline as one layer around a tower service that is ready at once",
        shared: true,
        no_allocations: true,
        targets: &[target(1, THREE_LAYERS, 0.2)],
    },
    Row {
        id: "pipeline_blocking",
        title: "pipeline of five, blocking, success",
        work: "the same pipeline around a blocking closure; no peer has one",
        shared: true,
        no_allocations: true,
        targets: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_row_every_target_its_peer_and_no_two_share_an_id() {
        let cases = crate::cases();
        for case in &cases {
            assert!(ROWS.iter().any(|row| row.id == case.row), "{}", case.id());
            assert_eq!(cases.iter().filter(|other| other.id() == case.id()).count(), 1, "{}", case.id());
        }
        for row in ROWS {
            for target in row.targets {
                assert!(cases.iter().any(|case| case.row == row.id && case.who == target.peer), "{target:?}");
            }
        }
    }
}
