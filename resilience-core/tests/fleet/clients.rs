//! The fleet: clients with a pipeline each, their users, and the loop that moves the manual clock from tick to tick.
//! One thread, seeded, nothing is measured: the same fleet gives the same figures on every machine.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use resilience_core::{Backoff, CircuitBreaker, Clock, Jitter, ManualClock, Pipeline, Retry, RetryBudget};

use crate::server::{Request, Server};

const TICK: Duration = Duration::from_millis(1);
const TICKS_PER_SECOND: u64 = 1_000;

pub(crate) const CLIENTS: usize = 10;
/// Calls of one client's users per second, at random moments.
pub(crate) const CALLS_PER_SECOND: f64 = 25.0;
/// Workers of 100 ms: 350 jobs per second, for 250 calls.
pub(crate) const WORKERS: usize = 35;
const JOB_NANOS: u64 = 100_000_000;
/// Two seconds of work at full capacity: longer than anybody waits.
const LONGEST_QUEUE: usize = 700;

pub(crate) const DROP_AT: u64 = 30;
pub(crate) const BACK_AT: u64 = 60;
pub(crate) const END: u64 = 120;

/// What stands between a client and the server, besides a limit of a second for each attempt and four for the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// No retry at all: what the others are measured by.
    NoRetry,
    /// Three attempts, with backoff and jitter.
    RetryOnly,
    /// The same under a budget.
    Budget,
    /// The same under a budget and behind a breaker.
    BudgetAndBreaker,
}

impl Protection {
    pub(crate) const ALL: [Self; 4] = [Self::NoRetry, Self::RetryOnly, Self::Budget, Self::BudgetAndBreaker];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoRetry => "no retry",
            Self::RetryOnly => "retry only",
            Self::Budget => "retry with a budget",
            Self::BudgetAndBreaker => "retry with a budget, breaker",
        }
    }

    fn pipeline(self, client: u64, clock: &Clock) -> Pipeline {
        let pipeline = Pipeline::builder("client").clock(clock.clone()).timeout(Duration::from_secs(4));
        let retry = Retry::builder()
            .max_attempts(3)
            .backoff(Backoff::exponential(Duration::from_millis(100), 2.0, Duration::from_secs(1)))
            .jitter(Jitter::Ratio(0.5))
            .seed(client << 32);
        let budget = || RetryBudget::builder().ratio(0.1).min_per_second(0.5).build().unwrap();
        let breaker = CircuitBreaker::builder("server")
            .failure_rate_over(0.5, Duration::from_secs(5), 20)
            .open_for(Duration::from_secs(2))
            .open_jitter(0.5)
            .half_open_permits(2)
            .half_open_successes(3)
            .ramp_up(Duration::from_secs(3))
            .seed(client)
            .clock(clock.clone());
        let pipeline = match self {
            Self::NoRetry => pipeline,
            Self::RetryOnly => pipeline.retry(retry.build().unwrap()),
            Self::Budget => pipeline.retry(retry.budget(budget()).build().unwrap()),
            Self::BudgetAndBreaker => {
                pipeline.retry(retry.budget(budget()).build().unwrap()).circuit_breaker(breaker.build().unwrap())
            }
        };
        // Without a retry between them, two limits would be two on the same side.
        let pipeline = if self == Self::NoRetry { Pipeline::builder("client").clock(clock.clone()) } else { pipeline };
        pipeline.timeout(Duration::from_secs(1)).build().unwrap()
    }
}

/// What happened in each second, by its number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Series {
    /// Calls that users made.
    pub(crate) calls: Vec<u64>,
    /// Calls that ended well.
    pub(crate) good: Vec<u64>,
    /// Requests that the server received.
    pub(crate) requests: Vec<u64>,
    /// The queue at the end of the second.
    pub(crate) queued: Vec<u64>,
}

impl Series {
    /// Good calls per second from second `from` up to `to`.
    pub(crate) fn goodput(&self, from: u64, to: u64) -> f64 {
        mean(&self.good, from, to)
    }

    /// Calls per second that users made.
    pub(crate) fn called(&self, from: u64, to: u64) -> f64 {
        mean(&self.calls, from, to)
    }

    /// Requests for each call.
    pub(crate) fn amplification(&self, from: u64, to: u64) -> f64 {
        mean(&self.requests, from, to) / self.called(from, to)
    }

    /// How many seconds after the capacity was back goodput was at 85 % of what it had been, in each of ten seconds. Calls
    /// come at random, so that one second of perfect health has some more or less than another.
    pub(crate) fn recovered_after(&self) -> Option<u64> {
        let enough = 0.85 * self.goodput(5, DROP_AT);
        let well = |second: u64| self.goodput(second, second + 1) >= enough;
        (BACK_AT..=END - 10).find(|from| (*from..from + 10).all(well)).map(|from| from - BACK_AT)
    }
}

fn mean(figures: &[u64], from: u64, to: u64) -> f64 {
    let seconds = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
    figures[seconds].iter().sum::<u64>() as f64 / (to - from) as f64
}

type Call = Pin<Box<dyn Future<Output = ()>>>;

/// Remembers which calls can go on.
struct Ready {
    call: usize,
    list: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.list.lock().unwrap().push(self.call);
    }
}

pub(crate) fn simulate(protection: Protection, seed: u64) -> Series {
    let time = ManualClock::new();
    let clock = time.clock();
    let origin = clock.now();
    let pipelines: Vec<_> = (1..=CLIENTS as u64).map(|client| protection.pipeline(client, &clock)).collect();
    let server = Rc::new(RefCell::new(Server::new(WORKERS, JOB_NANOS, LONGEST_QUEUE, seed)));
    let mut random = fastrand::Rng::with_seed(seed ^ 0x0005_EED0);
    let mut gap = move || 2.0 * random.f64() / CALLS_PER_SECOND * TICKS_PER_SECOND as f64;
    let mut next_call: Vec<f64> = (0..CLIENTS).map(|_| gap()).collect();

    let list = Arc::new(Mutex::new(Vec::new()));
    let mut calls: Vec<Option<(Call, Waker)>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let good = Rc::new(Cell::new(0_u64));
    let (mut made, mut series) = (0, Series::default());
    let mut received = 0;

    for tick in 0..END * TICKS_PER_SECOND {
        time.advance_to(origin + TICK * u32::try_from(tick).unwrap());
        let mut working = server.borrow_mut();
        if tick == DROP_AT * TICKS_PER_SECOND {
            working.set_workers(WORKERS / 2);
        } else if tick == BACK_AT * TICKS_PER_SECOND {
            working.set_workers(WORKERS);
        }
        working.work(clock.now().as_nanos());
        drop(working);
        for (client, pipeline) in pipelines.iter().enumerate() {
            while next_call[client] <= tick as f64 {
                next_call[client] += gap();
                made += 1;
                let (pipeline, server, good) = (pipeline.clone(), Rc::clone(&server), Rc::clone(&good));
                let call: Call = Box::pin(async move {
                    if pipeline.call_async(|| Request::to(&server)).await.is_ok() {
                        good.set(good.get() + 1);
                    }
                });
                let slot = free.pop().unwrap_or_else(|| {
                    calls.push(None);
                    calls.len() - 1
                });
                calls[slot] = Some((call, Waker::from(Arc::new(Ready { call: slot, list: Arc::clone(&list) }))));
                list.lock().unwrap().push(slot);
            }
        }
        loop {
            let ready = std::mem::take(&mut *list.lock().unwrap());
            if ready.is_empty() {
                break;
            }
            for slot in ready {
                // Woken twice, or by a timer of a call that is over.
                let Some((call, waker)) = &mut calls[slot] else { continue };
                if let Poll::Ready(()) = call.as_mut().poll(&mut Context::from_waker(waker)) {
                    calls[slot] = None;
                    free.push(slot);
                }
            }
        }
        if (tick + 1) % TICKS_PER_SECOND == 0 {
            let server = server.borrow();
            series.calls.push(made);
            series.good.push(good.replace(0));
            series.requests.push(server.received - received);
            series.queued.push(server.queued() as u64);
            (made, received) = (0, server.received);
        }
    }
    series
}
