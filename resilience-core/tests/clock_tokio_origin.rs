//! Where tokio's time line begins. In a program of its own: the beginning is the process's first look at the clock.
#![cfg(feature = "tokio")]

use std::time::Duration;

use resilience_core::Clock;
use tokio::runtime::Builder;

#[test]
fn a_runtime_whose_time_lags_behind_the_origin_keeps_order_to_the_nanosecond() {
    let paused = || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let steps = |step: Duration| async move {
        let first = Clock::tokio().now();
        tokio::time::advance(step).await;
        Clock::tokio().now().saturating_duration_since(first)
    };
    let early = paused();
    // The time line begins here, after the runtime's time stopped.
    let origin = Clock::tokio().now();
    early.block_on(async {
        assert!(Clock::tokio().now() < origin);
        assert_eq!(steps(Duration::from_nanos(1)).await, Duration::from_nanos(1));
        assert_eq!(steps(Duration::from_secs(3_600)).await, Duration::from_secs(3_600));
    });
    assert_eq!(paused().block_on(steps(Duration::from_nanos(1))), Duration::from_nanos(1));
}
