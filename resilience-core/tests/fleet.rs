//! A retry storm, simulated on the manual clock: 10 clients with the real policies call a server with a queue, which
//! loses half of its capacity for 30 s.
//!
//! Timeouts fill the queue with work that nobody waits for any more. With plain retries each call becomes three, so the
//! queue stays full when the capacity is back: the fleet keeps itself down. This is the metastable failure of
//! "Metastable Failures in Distributed Systems" (N. Bronson et al., 2021). With a budget and a breaker the load
//! falls below the capacity, and the queue empties.
//!
//! With `FLEET_REPORT` set to a file's path, the time series are written there as JSON.

#[path = "fleet/clients.rs"]
mod clients;
#[path = "fleet/server.rs"]
mod server;

use std::sync::OnceLock;

use clients::{BACK_AT, DROP_AT, END, Protection, Series, simulate};

const SEED: u64 = 2026;
/// Within so many seconds after the capacity is back, a fleet with budget and breaker does all its work again.
const RECOVERY: u64 = 10;

fn series(protection: Protection) -> &'static Series {
    static RUNS: [OnceLock<Series>; 4] = [const { OnceLock::new() }; 4];
    let run = Protection::ALL.iter().position(|known| *known == protection).expect("one of all");
    RUNS[run].get_or_init(|| simulate(protection, SEED))
}

#[test]
fn before_the_drop_everything_is_well_with_any_protection() {
    for protection in Protection::ALL {
        let series = series(protection);
        assert!(series.goodput(5, DROP_AT) >= 0.99 * series.called(5, DROP_AT), "{protection:?}");
        assert!(series.amplification(5, DROP_AT) < 1.01, "{protection:?}");
    }
}

#[test]
fn plain_retries_keep_the_fleet_down_long_after_the_capacity_is_back() {
    let series = series(Protection::RetryOnly);
    assert_eq!(series.recovered_after(), None);
    assert!(series.goodput(END - 30, END) < 0.1 * series.goodput(5, DROP_AT), "it has collapsed");
    assert!(series.amplification(END - 30, END) > 2.0, "by the retries");
}

#[test]
fn without_retries_the_same_fleet_recovers_so_it_is_the_retries_that_keep_it_down() {
    assert!(series(Protection::NoRetry).recovered_after().is_some());
}

#[test]
fn a_budget_and_a_breaker_bring_the_fleet_back_within_seconds() {
    let series = series(Protection::BudgetAndBreaker);
    let recovered = series.recovered_after().expect("it recovers");
    assert!(recovered <= RECOVERY, "{recovered} s");
    assert!(series.goodput(END - 30, END) >= 0.99 * series.called(END - 30, END));
}

#[test]
fn a_budget_keeps_the_load_within_its_ratio_while_everything_fails() {
    for protection in [Protection::Budget, Protection::BudgetAndBreaker] {
        // A tenth of the calls, and half a retry per second for each client of 25 calls.
        let amplification = series(protection).amplification(DROP_AT + 10, BACK_AT);
        assert!(amplification <= 1.0 + 0.1 + 0.02 + 0.01, "{protection:?}: {amplification}");
    }
}

#[test]
fn a_breaker_does_more_good_work_during_the_loss_than_retries_alone() {
    let good = |protection| series(protection).goodput(DROP_AT + 5, BACK_AT);
    assert!(good(Protection::RetryOnly) < 1.0);
    assert!(good(Protection::BudgetAndBreaker) > 50.0, "of 175 that there is capacity for");
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    assert_eq!(simulate(Protection::BudgetAndBreaker, SEED), *series(Protection::BudgetAndBreaker));
}

#[test]
fn another_seed_tells_the_same_story() {
    assert_eq!(simulate(Protection::RetryOnly, SEED + 1).recovered_after(), None);
    let recovered = simulate(Protection::BudgetAndBreaker, SEED + 1).recovered_after();
    assert!(recovered.is_some_and(|seconds| seconds <= RECOVERY), "{recovered:?}");
}

#[test]
fn the_report_has_every_figure() {
    let runs: Vec<_> = Protection::ALL
        .into_iter()
        .map(|protection| {
            let series = series(protection);
            serde_json::json!({
                "protection": protection.name(),
                "goodput_before": series.goodput(5, DROP_AT),
                "goodput_during": series.goodput(DROP_AT + 5, BACK_AT),
                "goodput_at_the_end": series.goodput(END - 30, END),
                "amplification_during": series.amplification(DROP_AT + 5, BACK_AT),
                "amplification_at_the_end": series.amplification(END - 30, END),
                "recovered_after_seconds": series.recovered_after(),
                "calls": series.calls,
                "good": series.good,
                "requests": series.requests,
                "queued": series.queued,
            })
        })
        .collect();
    assert!(runs.iter().all(|run| run["good"].as_array().is_some_and(|good| good.len() as u64 == END)));
    let report = serde_json::json!({
        "scenario": "capacity 350/s, half of it from second 30 to 60; 10 clients of 25 calls/s; attempts of 1 s",
        "seed": SEED, "drop_at": DROP_AT, "back_at": BACK_AT, "end": END, "runs": runs,
    });
    if let Some(path) = std::env::var_os("FLEET_REPORT") {
        std::fs::write(path, report.to_string()).expect("the report can be written");
    }
}
