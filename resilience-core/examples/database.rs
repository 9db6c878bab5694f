//! A blocking database call: SQLite is busy because somebody else writes, and the retry gets through.
//! `cargo run -p resilience-core --example database`

use std::time::Duration;

use resilience_core::{Backoff, Bulkhead, CallOptions, Category, Class, ManualClock, Pipeline, Retry, Severity};
use rusqlite::{Connection, Error, ErrorCode, params};

/// What SQLite's errors mean: a lock goes away, a broken rule stays broken, a full disk needs somebody.
fn meaning(error: &Error) -> Class {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Class::of(Category::Resource).severity(Severity::Low)
        }
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseCorrupt) => {
            Class::of(Category::Resource).severity(Severity::Critical).retryable(false)
        }
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => Class::of(Category::Validation),
        _ => Class::of(Category::Unknown),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two connections to one database in memory; neither waits by itself for the other.
    let open = || Connection::open("file:stock?mode=memory&cache=shared");
    let (ours, theirs) = (open()?, open()?);
    ours.execute_batch("CREATE TABLE stock (part TEXT PRIMARY KEY, count INTEGER NOT NULL)")?;

    let pipeline = Pipeline::builder("stock")
        .timeout(Duration::from_secs(5))
        .retry(Retry::builder().max_attempts(5).backoff(Backoff::fixed(Duration::from_millis(50))).build()?)
        .bulkhead(Bulkhead::builder("stock_connections").max_concurrent(8).build()?)
        .clock(ManualClock::auto_advancing().clock()) // on the system's clock in earnest
        .build()?;
    let stock = pipeline.classified_by(meaning);
    let insert = |part: &str| ours.execute("INSERT INTO stock VALUES (?1, 1)", params![part]);

    theirs.execute_batch("BEGIN IMMEDIATE; INSERT INTO stock VALUES ('nut', 7)")?;
    let mut attempts = 0;
    let rows = stock.call_with(CallOptions::new(), |attempt| {
        attempts = attempt.number;
        if attempt.number == 3 {
            theirs.execute_batch("COMMIT")?;
        }
        insert("bolt")
    })?;
    assert_eq!((rows, attempts), (1, 3));

    // A row that is there already is the caller's mistake: it is not tried again.
    let refused = stock.call(|| insert("bolt")).unwrap_err();
    assert_eq!(refused.attempts, 1);
    println!("written at attempt {attempts}; the second time: {refused}");
    Ok(())
}
