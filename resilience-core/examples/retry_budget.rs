//! One retry budget across layers: an outage of the innermost one, with and without a budget.
//! `cargo run -p resilience-core --example retry_budget`

use std::io;
use std::time::Duration;

use resilience_core::{ConfigError, ManualClock, Pipeline, Retry, RetryBudget};

/// How often the store is asked when a thousand calls in ten seconds go through three layers, each with three attempts.
fn outage(budget: Option<&RetryBudget>) -> Result<u32, ConfigError> {
    let time = ManualClock::auto_advancing(); // on the system's clock in earnest
    let layer = |name: &str| {
        let retry = match budget {
            Some(budget) => Retry::builder().budget(budget.clone()),
            None => Retry::builder(),
        };
        Pipeline::builder(name).retry(retry.build()?).clock(time.clock()).build()
    };
    let (page, search, store) = (layer("page")?, layer("search")?, layer("store")?);

    let mut asked = 0;
    for _ in 0..1_000 {
        let answer = page.call(|| {
            search.call(|| {
                store.call(|| {
                    asked += 1;
                    Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused))
                })
            })
        });
        assert!(answer.is_err());
        time.advance(Duration::from_millis(10));
    }
    Ok(asked)
}

fn main() -> Result<(), ConfigError> {
    let without = outage(None)?;
    let budget = RetryBudget::builder().ratio(0.2).min_per_second(1.0).build()?;
    let with = outage(Some(&budget))?;
    println!("without a budget: {without:>6} calls of the store");
    println!("with a budget:    {with:>6} calls of the store");
    assert_eq!(without, 27_000); // three layers, three attempts each
    assert!(with < 2_000);
    Ok(())
}
