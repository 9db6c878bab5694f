//! Saying what errors and answers mean: for a type of your own, for somebody else's, and for values that are failures.
//! `cargo run -p resilience-core --example custom_classifier`

use std::fmt;
use std::num::ParseIntError;
use std::time::Duration;

use resilience_core::{Category, CircuitBreaker, Class, Classify, ConfigError, ManualClock, Pipeline, Retry, Severity};

/// A type of your own says itself what it means.
#[derive(Debug)]
enum StoreError {
    NoSuchKey(&'static str),
    Overloaded { retry_after: Duration },
    Corrupt,
}

impl Classify for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::NoSuchKey(_) => Class::of(Category::Validation), // the caller's fault
            Self::Overloaded { retry_after } => Class::of(Category::Resource).retry_after(*retry_after),
            Self::Corrupt => Class::of(Category::Internal).severity(Severity::Critical), // not worth a retry
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchKey(key) => write!(f, "no key {key}"),
            Self::Overloaded { .. } => f.write_str("overloaded"),
            Self::Corrupt => f.write_str("corrupt"),
        }
    }
}

fn main() -> Result<(), ConfigError> {
    let time = ManualClock::auto_advancing(); // on the system's clock in earnest
    let breaker = CircuitBreaker::builder("store").clock(time.clock()).build()?;
    let retry = Retry::builder().clock(time.clock()).build()?;
    let store = Pipeline::builder("store").retry(retry).circuit_breaker(breaker.clone()).clock(time.clock()).build()?;

    // Retried after the pause that was asked for.
    let mut answers = [Err(StoreError::Overloaded { retry_after: Duration::from_secs(5) }), Ok("value")].into_iter();
    assert_eq!(store.call(|| answers.next().expect("two attempts")).unwrap(), "value");
    assert!(time.elapsed() >= Duration::from_secs(5));

    // Not retried: one is the caller's mistake, which the breaker doesn't count; the other is beyond repair.
    let failures = breaker.statistics().failures;
    let error = store.call(|| Err::<(), _>(StoreError::NoSuchKey("colour"))).unwrap_err();
    assert_eq!((error.attempts, breaker.statistics().failures), (1, failures));
    println!("{error}");
    let error = store.call(|| Err::<(), _>(StoreError::Corrupt)).unwrap_err();
    assert_eq!((error.attempts, breaker.statistics().failures), (1, failures + 1));
    println!("{error}");

    // Somebody else's error type: a closure says what it means.
    let parsed = store.classified_by(|_: &ParseIntError| Class::of(Category::Validation)).call(|| "4x".parse::<u8>());
    assert_eq!(parsed.unwrap_err().attempts, 1);

    // A value that is a failure: a closure over whole results.
    let mut lengths = [0, 0, 7].into_iter();
    let filled = store
        .judged_by(|length: &Result<u32, StoreError>| match length {
            Ok(0) => Some(Class::of(Category::Resource)),
            Ok(_) => None,
            Err(error) => Some(error.class()),
        })
        .call(|| Ok(lengths.next().unwrap_or_default()));
    assert_eq!(filled.unwrap(), 7);
    Ok(())
}
