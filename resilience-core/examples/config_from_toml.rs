//! All policies from one file, changed while calls are made.
//! `cargo run -p resilience-core --example config_from_toml --features serde`

use resilience_core::config::ResilienceConfig;
use resilience_core::{Pipeline, Registry};

const FILE: &str = include_str!("resilience.toml");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config: ResilienceConfig = toml::from_str(FILE)?;
    let registry = Registry::from_config(&config)?;

    // A name that nothing has is an error here, not a pipeline that protects nothing.
    let search: Pipeline = registry.get("search")?;
    let lines = search.call(|| std::fs::read_to_string("Cargo.toml"))?.lines().count();
    println!("read {lines} lines through `{}`", search.name());

    // An operator edits the file; whoever holds a handle sees the new limits, and the counts go on.
    let edited =
        FILE.replace("max_concurrent = 32", "max_concurrent = 8").replace("max_attempts = 4", "max_attempts = 2");
    let changes = registry.apply(&toml::from_str(&edited)?)?;
    assert_eq!(changes.changed.len(), 2);
    assert!(changes.replaced.is_empty());
    println!("changed in place: {:?}, made anew: {:?}", changes.changed, changes.replaced);

    // A mistake changes nothing and is told by its path.
    let mistaken = FILE.replace("failure_rate = \"50%\"", "failure_rate = \"500%\"");
    let refused = toml::from_str::<ResilienceConfig>(&mistaken).expect_err("more than everything cannot fail");
    assert!(refused.message().contains("breakers.search.failure_rate"));
    println!("refused: {}", refused.message());

    println!("{}", serde_json::to_string_pretty(&registry.snapshot())?);
    Ok(())
}
