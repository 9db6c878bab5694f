//! Hearing what policies do: counters of your own, and every event to `tracing`.
//! `cargo run -p resilience-core --example observing_events`

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use resilience_core::event::TracingObserver;
use resilience_core::{
    BreakerState, CircuitBreaker, ConfigError, Event, ManualClock, Observer, Observers, Pipeline, Retry,
};

/// Counts events by name. An observer runs within the call it hears about, so it must be quick.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, u32>>);

impl Observer for Counts {
    fn on_event(&self, event: &Event<'_>) {
        let name = match event {
            Event::CallFinished { outcome, .. } => format!("call {}", outcome.as_str()),
            Event::RetryScheduled { class, .. } => format!("retry after {}", class.category),
            Event::Rejected { rejection, .. } => format!("rejected: {}", rejection.reason.as_str()),
            Event::BreakerStateChanged { to, .. } => format!("breaker {}", to.as_str()),
            _ => return, // events that don't interest us, and those to come
        };
        *self.0.lock().expect("no thread panics while it counts").entry(name).or_default() += 1;
    }
}

fn main() -> Result<(), ConfigError> {
    let counts = Arc::new(Counts::default());
    let observers = Observers::new().with(counts.clone()).with(Arc::new(TracingObserver));

    let clock = ManualClock::auto_advancing().clock(); // on the system's clock in earnest
    let retry = Retry::builder().clock(clock.clone()).build()?;
    let breaker = CircuitBreaker::builder("mail").clock(clock.clone()).observers(observers.clone()).build()?;
    let pipeline = Pipeline::builder("mail")
        .retry(retry)
        .circuit_breaker(breaker.clone())
        .clock(clock)
        .observers(observers)
        .build()?;

    pipeline.call(|| Ok::<_, io::Error>(())).expect("it succeeds");
    for _ in 0..2 {
        let refused = pipeline.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert!(refused.is_err());
    }

    let counts = counts.0.lock().expect("no thread panics while it counts");
    for (name, count) in counts.iter() {
        println!("{count} × {name}");
    }
    assert_eq!((counts["call success"], counts["retry after network"], counts["breaker open"]), (1, 4, 1));
    assert_eq!(breaker.state(), BreakerState::Open);
    Ok(())
}
