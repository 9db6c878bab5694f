//! Testing without waiting: a breaker's minute and an hour of backoff pass in microseconds, and nothing is left to chance.
//! `cargo run -p resilience-core --example manual_clock`

use std::io;
use std::time::Duration;

use resilience_core::{
    Backoff, BreakerState, CircuitBreaker, Clock, ConfigError, Jitter, ManualClock, Pipeline, Retry,
};

fn failing() -> io::Result<()> {
    Err(io::ErrorKind::ConnectionRefused.into())
}

fn main() -> Result<(), ConfigError> {
    // Time stands still until the test moves it: for what happens *between* calls.
    let (clock, time) = Clock::manual();
    let breaker =
        CircuitBreaker::builder("db").consecutive_failures(2).open_for(Duration::from_secs(60)).clock(clock).build()?;
    assert!(breaker.call(failing).is_err() && breaker.call(failing).is_err());
    assert_eq!(breaker.state(), BreakerState::Open);
    time.advance(Duration::from_secs(59));
    assert!(breaker.call(|| Ok::<_, io::Error>(())).unwrap_err().as_rejection().is_some());
    time.advance(Duration::from_secs(1));
    assert!(breaker.call(|| Ok::<_, io::Error>(())).is_ok());

    // Every wait moves the time to its own end: for what happens *within* a call.
    let time = ManualClock::auto_advancing();
    let hourly = Backoff::fixed(Duration::from_secs(3_600));
    let retry = Retry::builder().backoff(hourly).jitter(Jitter::None).clock(time.clock()).build()?;
    let pipeline = Pipeline::builder("nightly").retry(retry).clock(time.clock()).build()?;
    let error = pipeline.call(failing).unwrap_err();
    assert_eq!((error.attempts, time.elapsed()), (3, Duration::from_secs(2 * 3_600)));
    println!("{error}, two hours later");
    Ok(())
}
