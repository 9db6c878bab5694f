//! What checkpoints cost: appends with and without a key, the first and a later checkpoint, a proof, and verifying.
//! `cargo run --release -p resilience-audit --features checkpoints --example checkpoint_cost [EVENTS]`

use std::path::Path;
use std::time::{Duration, Instant};

use resilience_audit::checkpoint::{SigningKey, check_proof, prove, verify_with_checkpoints};
use resilience_audit::tree::LogTree;
use resilience_audit::{AuditEvent, AuditLog, Backpressure, verify};

type Error = Box<dyn std::error::Error>;

fn write(dir: &Path, events: u64, key: Option<&SigningKey>) -> Result<(AuditLog, f64), Error> {
    let log = AuditLog::builder().path(dir).backpressure(Backpressure::Block(Duration::from_secs(60)));
    let log = key.into_iter().fold(log, |log, key| log.sign_checkpoints(key.clone())).build()?;
    let begin = Instant::now();
    for number in 0..events {
        log.append(AuditEvent::new("registry", "download", "serde").actor("ci").detail("number", number))?;
    }
    log.flush()?.wait()?;
    Ok((log, events as f64 / begin.elapsed().as_secs_f64()))
}

fn timed<T>(what: &str, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let begin = Instant::now();
    let done = run()?;
    println!("{what:<40} {:>10.2} ms", begin.elapsed().as_secs_f64() * 1e3);
    Ok(done)
}

fn main() -> Result<(), Error> {
    let events: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let place = std::env::temp_dir().join(format!("checkpoint-cost-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let key = SigningKey::generate("example.com/audit")?;
    for round in 0..3 {
        let (plain, keyed) = (place.join(format!("plain-{round}")), place.join(format!("keyed-{round}")));
        let without = write(&plain, events, None)?.1;
        let (log, with) = write(&keyed, events, Some(&key))?;
        println!("events/s without a key {without:>12.0}, with one {with:>12.0}");
        if round == 2 {
            let keys = [key.verifying_key()];
            timed("checkpoint right after the last event", || Ok(log.checkpoint()?))?;
            log.append_durable(AuditEvent::new("t", "a", "r"))?.wait()?;
            timed("checkpoint of one more record", || Ok(log.checkpoint()?))?;
            log.close()?;
            let proof = timed("prove a record in the middle", || Ok(prove(&keyed, events / 2, &keys)?.to_string()))?;
            timed("check that proof", || Ok(check_proof(proof.as_bytes(), &keys)?))?;
            timed("root from .leaves files", || Ok(LogTree::open(&keyed)?.root(events)?))?;
            timed("root from records", || Ok(LogTree::open(&keyed)?.from_records().root(events)?))?;
            timed("verify", || Ok(verify(&keyed)?))?;
            let report = timed("verify with checkpoints", || Ok(verify_with_checkpoints(&keyed, &keys, &[])?))?;
            println!("{report}");
        }
    }
    std::fs::remove_dir_all(&place)?;
    Ok(())
}
