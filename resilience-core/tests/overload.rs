//! What is left of a service's capacity when more comes than it can do: simulated on the manual clock, where a peer's
//! adaptive limit fell to one call at a time and 6 % of the capacity.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use resilience_core::bulkhead::Permit;
use resilience_core::{Bulkhead, Clock, Instant, Rejection};

/// The service: so many calls at once, each as long.
const SERVERS: u32 = 16;
const SERVICE_TIME: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(20);
const SIMULATED: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Account {
    arrived: u32,
    done: u32,
    refused: u32,
    longest: Duration,
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Permit<'a>, Rejection>> + 'a>>;

/// Calls arrive at random at `load` times the capacity, through a bulkhead of the service's size.
fn simulate(load: f64) -> Account {
    let (clock, time) = Clock::manual();
    let bulkhead = Bulkhead::builder("service")
        .max_concurrent(SERVERS)
        .max_waiting(2 * SERVERS)
        .clock(clock.clone())
        .build()
        .unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mean_gap = SERVICE_TIME.as_secs_f64() / f64::from(SERVERS) / load;
    let mut account = Account::default();
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiting: VecDeque<(Instant, Waiting<'_>)> = VecDeque::new();
    let mut running: VecDeque<(Instant, Instant, Permit<'_>)> = VecDeque::new();
    let end = clock.now() + SIMULATED;
    let mut next_arrival = clock.now();
    while clock.now() < end {
        if clock.now() >= next_arrival {
            account.arrived += 1;
            waiting.push_back((clock.now(), Box::pin(bulkhead.acquire_async(LONGEST_WAIT))));
            next_arrival = clock.now() + Duration::from_secs_f64(-mean_gap * (1.0 - random.f64()).ln());
        }
        // Everything takes as long, so that who began first is done first.
        while running.front().is_some_and(|(_, done_at, _)| *done_at <= clock.now()) {
            let (arrived, done_at, permit) = running.pop_front().unwrap();
            account.done += 1;
            account.longest = account.longest.max(done_at.saturating_duration_since(arrived));
            drop(permit);
        }
        waiting.retain_mut(|(arrived, entering)| match entering.as_mut().poll(&mut cx) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(Err(_)) => {
                account.refused += 1;
                false
            }
            std::task::Poll::Ready(Ok(permit)) => {
                assert!(running.len() < SERVERS as usize, "never more inside than there is room");
                running.push_back((*arrived, clock.now() + SERVICE_TIME, permit));
                false
            }
        });
        let next_done = running.front().map_or(next_arrival, |(_, done_at, _)| *done_at);
        let next_refusal = waiting.front().map_or(next_arrival, |(arrived, _)| *arrived + LONGEST_WAIT);
        time.advance_to(next_arrival.min(next_done).min(next_refusal));
    }
    account
}

fn capacity() -> f64 {
    f64::from(SERVERS) * SIMULATED.as_secs_f64() / SERVICE_TIME.as_secs_f64()
}

#[test]
fn twice_and_five_times_the_load_leave_the_goodput_at_capacity() {
    for load in [2.0, 5.0] {
        let account = simulate(load);
        let goodput = f64::from(account.done) / capacity();
        assert!(goodput > 0.98, "{:.1} % of the capacity at {load} times the load", goodput * 100.0);
        assert!(account.longest <= LONGEST_WAIT + SERVICE_TIME, "{:?}", account.longest);
        let refused = f64::from(account.refused) / f64::from(account.arrived);
        assert!(refused < 1.0 - 0.98 / load, "{:.1} % refused, more than there is no room for", refused * 100.0);
    }
}

#[test]
fn below_capacity_hardly_anything_is_refused() {
    let account = simulate(0.7);
    assert!(account.refused * 1_000 < account.arrived, "{} of {} refused", account.refused, account.arrived);
}
