//! Hedged calls: a second run beside a slow one, within a budget.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::clock::Sleep;
use resilience_core::{
    Attempt, Background, CallOptions, CircuitBreaker, Clock, Error, Event, Hedge, ManualClock, Observers, Pipeline,
    Retry, RetryBudget,
};

const MS: Duration = Duration::from_millis(1);

/// A call polled by hand, so that the test says when time passes.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// For each run, how many milliseconds it takes and what it answers.
type Script = Vec<(u64, io::Result<&'static str>)>;

/// Runs that take as long as scripted, and fail or not; `running` are under way, `dropped` did not come to their end.
#[derive(Clone)]
struct Replicas {
    clock: Clock,
    script: Rc<RefCell<Script>>,
    running: Rc<Cell<u32>>,
    dropped: Rc<Cell<u32>>,
    attempts: Rc<RefCell<Vec<Attempt>>>,
}

struct Run {
    of: Replicas,
    sleep: Sleep,
    answer: Option<io::Result<&'static str>>,
}

impl Future for Run {
    type Output = io::Result<&'static str>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.sleep).poll(cx).map(|()| self.answer.take().expect("polled to its end once"))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.of.running.set(self.of.running.get() - 1);
        if self.answer.is_some() {
            self.of.dropped.set(self.of.dropped.get() + 1);
        }
    }
}

impl Replicas {
    fn new(clock: &Clock, script: Script) -> Self {
        Self {
            clock: clock.clone(),
            script: Rc::new(RefCell::new(script)),
            running: Rc::default(),
            dropped: Rc::default(),
            attempts: Rc::default(),
        }
    }

    fn run(&self, attempt: Attempt) -> Run {
        let (millis, answer) = self.script.borrow_mut().remove(0);
        self.running.set(self.running.get() + 1);
        self.attempts.borrow_mut().push(attempt);
        Run { of: self.clone(), sleep: self.clock.sleep(MS * u32::try_from(millis).unwrap()), answer: Some(answer) }
    }

    fn numbers(&self) -> Vec<(u32, u32)> {
        self.attempts.borrow().iter().map(|attempt| (attempt.number, attempt.hedge)).collect()
    }
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

fn plenty() -> RetryBudget {
    RetryBudget::builder().min_per_second(1_000.0).build().unwrap()
}

fn pipeline(clock: &Clock, hedge: Hedge) -> Pipeline {
    Pipeline::builder("store").hedge(hedge).clock(clock.clone()).build().unwrap()
}

#[test]
fn a_fast_call_is_not_hedged() {
    let (clock, time) = Clock::manual();
    let hedge = Hedge::builder().after(MS * 50).build().unwrap();
    let replicas = Replicas::new(&clock, vec![(49, Ok("first"))]);
    let pipeline = pipeline(&clock, hedge.clone());
    let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
    assert!(poll(call.as_mut()).is_pending());
    time.advance(MS * 49);
    assert!(matches!(poll(call), Poll::Ready(Ok("first"))));
    assert_eq!(hedge.statistics().started, 0);
}

#[test]
fn a_slow_call_is_run_again_and_the_first_answer_wins() {
    let (clock, time) = Clock::manual();
    let hedge = Hedge::builder().after(MS * 50).build().unwrap();
    let replicas = Replicas::new(&clock, vec![(1_000, Ok("slow")), (10, Ok("fast"))]);
    let pipeline = pipeline(&clock, hedge.clone());
    let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
    assert!(poll(call.as_mut()).is_pending());
    time.advance(MS * 50);
    assert!(poll(call.as_mut()).is_pending());
    assert_eq!(replicas.running.get(), 2);
    time.advance(MS * 10);
    assert!(matches!(poll(call), Poll::Ready(Ok("fast"))));
    assert_eq!((replicas.running.get(), replicas.dropped.get()), (0, 1), "the loser was dropped");
    assert_eq!(replicas.numbers(), [(1, 0), (1, 1)]);
    assert_eq!((hedge.statistics().started, hedge.statistics().won), (1, 1));
}

#[test]
fn the_first_run_may_still_win_against_its_hedge() {
    let (clock, time) = Clock::manual();
    let hedge = Hedge::builder().after(MS * 50).build().unwrap();
    let replicas = Replicas::new(&clock, vec![(60, Ok("first")), (100, Ok("second"))]);
    let pipeline = pipeline(&clock, hedge.clone());
    let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
    assert!(poll(call.as_mut()).is_pending());
    time.advance(MS * 50);
    assert!(poll(call.as_mut()).is_pending());
    time.advance(MS * 10);
    assert!(matches!(poll(call), Poll::Ready(Ok("first"))));
    assert_eq!((hedge.statistics().started, hedge.statistics().won), (1, 0));
}

#[test]
fn a_failure_waits_for_the_other_run_and_the_last_failure_is_the_result() {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("store").build().unwrap();
    let hedge = Hedge::builder().after(MS * 50).budget(plenty()).build().unwrap();
    let pipeline =
        Pipeline::builder("store").circuit_breaker(breaker.clone()).hedge(hedge).clock(clock.clone()).build().unwrap();
    for (second, expected) in [(Ok("second"), (1, 0)), (Err(io::Error::from(io::ErrorKind::BrokenPipe)), (1, 1))] {
        let fails = second.is_err();
        let replicas = Replicas::new(&clock, vec![(60, Err(refused())), (30, second)]);
        let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
        assert!(poll(call.as_mut()).is_pending());
        time.advance(MS * 50);
        assert!(poll(call.as_mut()).is_pending());
        time.advance(MS * 10);
        assert!(poll(call.as_mut()).is_pending(), "the failure of one run decides nothing");
        time.advance(MS * 20);
        match poll(call) {
            Poll::Ready(Ok(answer)) => assert!(!fails && answer == "second"),
            Poll::Ready(Err(error)) => {
                assert!(fails);
                assert_eq!(error.as_operation().unwrap().kind(), io::ErrorKind::BrokenPipe);
            }
            Poll::Pending => panic!("both runs are over"),
        }
        // One attempt, however many runs: the breaker hears once.
        assert_eq!((breaker.statistics().successes, breaker.statistics().failures), expected);
    }
}

#[test]
fn a_hedge_stops_when_its_budget_is_spent() {
    let (clock, time) = Clock::manual();
    let budget = RetryBudget::builder().ratio(0.1).min_per_second(0.0).build().unwrap();
    let hedge = Hedge::builder().after(MS * 10).max_hedges(3).budget(budget).build().unwrap();
    let pipeline = pipeline(&clock, hedge.clone());
    let mut runs = 0;
    for _ in 0..100 {
        let replicas = Replicas::new(&clock, (0..4).map(|_| (50, Ok("slow"))).collect());
        let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
        while poll(call.as_mut()).is_pending() {
            time.advance(MS * 10);
        }
        runs += replicas.attempts.borrow().len();
    }
    assert_eq!(runs, 110, "everything is slow, and a tenth is all it adds");
    assert_eq!(hedge.statistics().started, 10);
    assert!(hedge.statistics().refused > 0);
}

#[test]
fn a_budget_shared_with_the_retry_counts_a_call_once() {
    let time = ManualClock::auto_advancing();
    let budget = RetryBudget::builder().ratio(1.0).min_per_second(0.0).build().unwrap();
    let retry = Retry::builder().budget(budget.clone()).build().unwrap();
    let hedge = Hedge::builder().budget(budget.clone()).build().unwrap();
    let pipeline = Pipeline::builder("store").retry(retry).hedge(hedge).clock(time.clock()).build().unwrap();
    let call = pipeline.call_async(|| async { Ok::<_, io::Error>(()) });
    assert!(matches!(poll(pin!(call)), Poll::Ready(Ok(()))));
    assert_eq!(budget.statistics(time.now()).calls, 1);
}

#[test]
fn an_attempts_limit_ends_every_run_and_the_retry_begins_anew() {
    let (clock, time) = Clock::manual();
    let hedge = Hedge::builder().after(MS * 50).budget(plenty()).build().unwrap();
    let pipeline = Pipeline::builder("store")
        .retry(Retry::builder().max_attempts(2).backoff(resilience_core::Backoff::fixed(MS * 5)).build().unwrap())
        .timeout(MS * 80)
        .hedge(hedge)
        .clock(clock.clone())
        .build()
        .unwrap();
    let replicas = Replicas::new(&clock, vec![(500, Ok("a")), (500, Ok("b")), (10, Ok("c"))]);
    let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
    let mut result = poll(call.as_mut());
    while result.is_pending() {
        time.advance(MS);
        result = poll(call.as_mut());
    }
    assert!(matches!(result, Poll::Ready(Ok("c"))));
    assert_eq!(replicas.numbers(), [(1, 0), (1, 1), (2, 0)]);
    assert_eq!((replicas.running.get(), replicas.dropped.get()), (0, 2));
}

#[test]
fn what_must_not_run_twice_is_not_hedged() {
    let (clock, time) = Clock::manual();
    let hedge = Hedge::builder().after(MS * 50).build().unwrap();
    let replicas = Replicas::new(&clock, vec![(500, Ok("ordered"))]);
    let pipeline = pipeline(&clock, hedge.clone());
    let options = CallOptions::new().not_idempotent();
    let mut call = pin!(pipeline.call_async_with(options, |attempt| replicas.run(attempt)));
    assert!(poll(call.as_mut()).is_pending());
    time.advance(MS * 100);
    assert!(poll(call.as_mut()).is_pending());
    time.advance(MS * 400);
    assert!(matches!(poll(call), Poll::Ready(Ok("ordered"))));
    assert_eq!(hedge.statistics().started, 0);
}

#[test]
fn dropping_the_call_drops_every_run_under_its_permits() {
    let (clock, time) = Clock::manual();
    let breaker = CircuitBreaker::builder("store").build().unwrap();
    let hedge = Hedge::builder().after(MS * 50).build().unwrap();
    let pipeline =
        Pipeline::builder("store").circuit_breaker(breaker.clone()).hedge(hedge).clock(clock.clone()).build().unwrap();
    let replicas = Replicas::new(&clock, vec![(500, Ok("a")), (500, Ok("b"))]);
    {
        let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
        assert!(poll(call.as_mut()).is_pending());
        time.advance(MS * 50);
        assert!(poll(call.as_mut()).is_pending());
        assert_eq!(replicas.running.get(), 2);
    }
    assert_eq!((replicas.running.get(), replicas.dropped.get()), (0, 2));
    assert_eq!((breaker.statistics().ignored, breaker.statistics().failures), (1, 0));
}

#[test]
fn the_pause_is_learned_from_what_calls_take() {
    let (clock, time) = Clock::manual();
    let hedge = Hedge::builder().after(MS * 500).after_percentile(0.9).build().unwrap();
    let pipeline = pipeline(&clock, hedge.clone());
    for round in 0..128_u64 {
        let millis = if round % 10 == 9 { 200 } else { 20 };
        let replicas = Replicas::new(&clock, vec![(millis, Ok("row")), (millis, Ok("row"))]);
        let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
        assert!(poll(call.as_mut()).is_pending());
        time.advance(MS * u32::try_from(millis).unwrap());
        assert!(poll(call).is_ready());
    }
    let delay = hedge.statistics().delay;
    assert!(delay >= MS * 20 && delay <= MS * 23, "{delay:?}");
}

#[test]
fn refusals_that_come_at_once_do_not_teach_a_short_pause_and_timeouts_teach_a_long_one() {
    let time = ManualClock::auto_advancing();
    let hedge = Hedge::builder().after(MS * 100).after_percentile(0.9).build().unwrap();
    let pipeline = Pipeline::builder("p").timeout(MS * 400).hedge(hedge.clone()).clock(time.clock()).build().unwrap();
    for _ in 0..200 {
        assert!(poll(pin!(pipeline.call_async(|| async { Err::<(), _>(refused()) }))).is_ready());
    }
    assert_eq!(hedge.statistics().delay, MS * 100, "nothing was learned");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..200 {
        assert!(runtime.block_on(pipeline.call_async(std::future::pending::<io::Result<()>>)).is_err());
    }
    assert!(hedge.statistics().delay >= MS * 400, "{:?}", hedge.statistics().delay);
}

#[test]
fn a_hedge_that_never_comes_in_time_is_refused() {
    let builder = Pipeline::builder("p").timeout(MS * 50).hedge(Hedge::builder().after(MS * 100).build().unwrap());
    insta::assert_snapshot!(builder.build().unwrap_err(), @"`p.hedge` is after 100ms; allowed: less than the limit of 50ms");
}

#[test]
fn observers_hear_of_a_hedge() {
    let (clock, time) = Clock::manual();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::HedgeStarted { pipeline, attempt, hedge, .. } = event {
            log.lock().unwrap().push(format!("{pipeline} {attempt} {hedge}"));
        }
    }));
    let hedge = Hedge::builder().after(MS * 50).build().unwrap();
    let pipeline = Pipeline::builder("store").hedge(hedge).clock(clock.clone()).observers(observers).build().unwrap();
    let replicas = Replicas::new(&clock, vec![(60, Ok("a")), (60, Ok("b"))]);
    let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
    while poll(call.as_mut()).is_pending() {
        time.advance(MS * 10);
    }
    assert_eq!(*heard.lock().unwrap(), ["store 1 1"]);
}

#[test]
fn a_blocking_call_runs_once() {
    let hedge = Hedge::builder().after(Duration::ZERO).build().unwrap();
    let pipeline = Pipeline::builder("store").hedge(hedge.clone()).build().unwrap();
    let mut runs = 0;
    let answer: Result<_, Error<io::Error>> = pipeline.call(|| {
        runs += 1;
        Ok("row")
    });
    assert_eq!((answer.unwrap(), runs, hedge.statistics().started), ("row", 1, 0));
}

#[test]
fn a_blocking_call_on_threads_is_hedged_and_the_run_that_hangs_is_left_behind() {
    let hedge = Hedge::builder().after(Duration::ZERO).build().unwrap();
    let pipeline = Pipeline::builder("store").hedge(hedge.clone()).build().unwrap();
    let threads = Background::builder("runs").max_running(2).build().unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let (runs, hang) = (AtomicU32::new(0), Mutex::new(hang));
    let answer = pipeline.call_on_threads(&threads, move || {
        if runs.fetch_add(1, Ordering::Relaxed) == 0 {
            let _over = hang.lock().unwrap().recv();
        }
        Ok::<_, io::Error>("row")
    });
    assert_eq!(answer.unwrap(), "row");
    assert_eq!((hedge.statistics().started, threads.statistics().left_behind), (1, 1));
    drop(release);
}

#[test]
fn a_hedge_must_be_the_last_policy() {
    let hedge = Hedge::builder().build().unwrap();
    let error = Pipeline::builder("store").hedge(hedge).timeout(MS).build().unwrap_err();
    insta::assert_snapshot!(error, @"`store.hedge` is not the last policy; allowed: the hedge as the last policy: it runs the operation, and nothing else, side by side");
}

proptest! {
    #[test]
    fn bad_values_are_refused_by_name(after: Duration, part in prop::option::of(prop::num::f64::ANY), hedges: u32) {
        let mut builder = Hedge::builder().after(after).max_hedges(hedges);
        if let Some(part) = part {
            builder = builder.after_percentile(part);
        }
        let years = Duration::from_secs(10 * 366 * 86_400);
        let good = (1..=8).contains(&hedges) && part.is_none_or(|part| part > 0.0 && part < 1.0);
        match builder.build() {
            Ok(_) => prop_assert!(good && after <= years),
            Err(error) => prop_assert!(error.to_string().starts_with("`hedge."), "{error}"),
        }
    }

    /// Whatever the runs take and return, the call ends with the first success, or the last failure, at its moment.
    #[test]
    fn the_earliest_success_decides(runs in prop::collection::vec((1_u64..200, prop::bool::ANY), 4), after in 0_u64..80) {
        let (clock, time) = Clock::manual();
        let hedge = Hedge::builder().after(MS * u32::try_from(after).unwrap()).max_hedges(3).budget(plenty()).build().unwrap();
        let pipeline = pipeline(&clock, hedge);
        let script = runs.iter().map(|(millis, good)| (*millis, if *good { Ok("row") } else { Err(refused()) })).collect();
        let replicas = Replicas::new(&clock, script);
        let began = clock.now();
        let mut call = pin!(pipeline.call_async_with(CallOptions::new(), |attempt| replicas.run(attempt)));
        let mut result = poll(call.as_mut());
        while result.is_pending() {
            time.advance(MS);
            result = poll(call.as_mut());
        }
        // The model: run n starts at n × after, as long as something runs by then.
        let mut ends: Vec<(u64, bool)> = Vec::new();
        for (index, (millis, good)) in runs.iter().enumerate() {
            let start = after * index as u64;
            let over = index > 0 && (ends.iter().any(|(end, good)| *good && *end <= start) || ends.iter().all(|(end, _)| *end <= start));
            if over {
                break;
            }
            ends.push((start + millis, *good));
        }
        let expected = ends.iter().filter(|(_, good)| *good).map(|(end, _)| *end).min();
        let took = clock.now().saturating_duration_since(began);
        match (result, expected) {
            (Poll::Ready(Ok(_)), Some(end)) => prop_assert_eq!(took, MS * u32::try_from(end).unwrap()),
            (Poll::Ready(Err(_)), None) => {
                let last = ends.iter().map(|(end, _)| *end).max().unwrap();
                prop_assert_eq!(took, MS * u32::try_from(last).unwrap());
            }
            (result, expected) => prop_assert!(false, "{result:?}, expected {expected:?}"),
        }
        prop_assert_eq!(replicas.running.get(), 0);
    }
}
