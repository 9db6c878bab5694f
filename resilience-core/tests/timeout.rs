//! The timeout alone: an answer in time or none, and what becomes of operations that are not over by then.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::{
    Background, Backoff, CircuitBreaker, Clock, Error, Event, Jitter, ManualClock, Observers, Pipeline, Reason, Retry,
    Stopped, Timeout,
};

const SECOND: Duration = Duration::from_secs(1);

fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn finished<F: Future>(future: F) -> F::Output {
    match poll_once(&mut Box::pin(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits"),
    }
}

/// Lets other threads go on until `condition` holds.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// A timeout of one second on a clock that stands still.
fn timeout() -> (Timeout, ManualClock) {
    let (clock, time) = Clock::manual();
    (Timeout::builder("t").limit(SECOND).clock(clock).build().unwrap(), time)
}

/// A timeout of one second that is over as soon as it is waited for.
fn hasty() -> Timeout {
    Timeout::builder("t").limit(SECOND).clock(ManualClock::auto_advancing().clock()).build().unwrap()
}

/// Blocks until the other end of the channel is dropped.
fn hold<E>(wait: &Mutex<mpsc::Receiver<()>>) -> Result<(), E> {
    wait.lock().unwrap().recv().or(Ok(()))
}

/// What observers are told, as lines.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn observers(&self) -> Observers {
        let heard = self.clone();
        Observers::new().with(Arc::new(move |event: &Event<'_>| {
            if let Event::Notice { component, action, resource, severity, detail, .. } = event {
                let line = format!("{component} {action} {resource} {severity}: {detail}");
                heard.0.lock().unwrap().push(line);
            }
        }))
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// An executor that is run by hand.
#[derive(Default)]
struct Tasks(RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push(Box::pin(task));
    }

    fn run(&self) {
        self.0.borrow_mut().retain_mut(|task| poll_once(task).is_pending());
    }
}

#[test]
fn an_answer_in_time_is_the_operations_own() {
    let (timeout, _time) = timeout();
    assert_eq!(finished(timeout.call_async(ready(Ok::<_, Infallible>(1)))), Ok(1));
    assert_eq!(finished(timeout.call_async(ready(Err::<(), _>("no")))), Err(Error::operation("no", 1)));
}

#[test]
fn what_takes_longer_is_dropped_where_it_awaits() {
    let (timeout, time) = timeout();
    let dropped = Rc::new(());
    let held = Rc::clone(&dropped);
    let mut call = Box::pin(timeout.call_async(async move {
        let never = pending::<Result<(), Infallible>>().await;
        drop(held);
        never
    }));
    assert!(poll_once(&mut call).is_pending());
    time.advance(Duration::from_nanos(999_999_999));
    assert!(poll_once(&mut call).is_pending());
    time.advance(Duration::from_nanos(1));
    let Poll::Ready(Err(error)) = poll_once(&mut call) else { panic!("its time is over") };
    assert!(error.is_timed_out());
    assert_eq!((error.to_string().as_str(), Rc::strong_count(&dropped)), ("no answer within 1s", 1));
}

#[test]
fn an_operation_that_is_ready_when_its_time_is_over_has_made_it() {
    let (timeout, time) = timeout();
    let open = AtomicBool::new(false);
    let operation = poll_fn(|_| if open.load(Ordering::Relaxed) { Poll::Ready(Ok::<_, ()>(1)) } else { Poll::Pending });
    let mut call = Box::pin(timeout.call_async(operation));
    assert!(poll_once(&mut call).is_pending());
    time.advance(SECOND * 60);
    open.store(true, Ordering::Relaxed);
    assert_eq!(poll_once(&mut call), Poll::Ready(Ok(1)));
}

/// Trap 17: a timeout drops a future that is not cancel-safe.
#[test]
fn an_operation_that_must_not_stop_half_way_goes_on_after_the_timeout() {
    let heard = Heard::default();
    let (clock, time) = Clock::manual();
    let timeout = Timeout::builder("transfer").limit(SECOND).clock(clock.clone()).observers(heard.observers());
    let timeout = timeout.build().unwrap();
    let account = Rc::new(Cell::new((100, 0)));
    let (tasks, books) = (Tasks::default(), Rc::clone(&account));
    let transfer = async move {
        books.set((60, 0));
        clock.sleep(SECOND * 3).await;
        books.set((60, 40));
        Ok::<_, io::Error>(40)
    };
    let mut call = Box::pin(timeout.call_detached(|task| tasks.spawn(task), transfer));
    assert!(poll_once(&mut call).is_pending());
    tasks.run();
    time.advance(SECOND);
    assert!(matches!(poll_once(&mut call), Poll::Ready(Err(error)) if error.is_timed_out()));
    assert_eq!((account.get(), timeout.background().statistics().left_behind), ((60, 0), 1), "half way");
    time.advance(SECOND * 2);
    tasks.run();
    assert_eq!(account.get(), (60, 40), "it came to its end");
    let statistics = timeout.background().statistics();
    assert_eq!((statistics.running, statistics.left_behind, statistics.ended_late), (0, 0, 1));
    insta::assert_snapshot!(heard.lines().join("\n"), @r"
    background left_running transfer medium: nobody waits for its result any more
    background ended_late transfer low: succeeded 3s after it was started; nobody waited for the result
    ");
}

/// Trap 17, for code that blocks.
#[test]
fn a_thread_that_takes_longer_is_left_to_itself_and_comes_to_its_end() {
    let heard = Heard::default();
    let time = ManualClock::auto_advancing();
    let timeout = Timeout::builder("render").limit(SECOND).clock(time.clock()).observers(heard.observers());
    let timeout = timeout.build().unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let late = timeout.call_on_thread(move || {
        wait.recv().unwrap();
        done.send("written").unwrap();
        Err::<(), _>("nobody reads this")
    });
    assert!(late.unwrap_err().is_timed_out());
    assert_eq!((time.elapsed(), timeout.background().statistics().left_behind), (SECOND, 1));
    go_on.send(()).unwrap();
    assert_eq!(is_done.recv(), Ok("written"));
    until(|| heard.lines().len() == 2);
    assert!(heard.lines()[1].starts_with("background ended_late render medium: failed 1s"), "{:?}", heard.lines());
    let statistics = timeout.background().statistics();
    assert_eq!((statistics.running, statistics.left_behind, statistics.ended_late), (0, 0, 1));
}

/// Measured in a peer: retry and timeout around a slow operation panic.
#[test]
fn retry_and_timeout_around_a_slow_operation_end_as_a_timeout() {
    let time = ManualClock::auto_advancing();
    let backoff = Backoff::fixed(SECOND);
    let retry = Retry::builder().backoff(backoff).jitter(Jitter::None).max_attempts(3).build().unwrap();
    let pipeline = Pipeline::builder("p").retry(retry.clone()).timeout(SECOND).clock(time.clock()).build().unwrap();
    let error = finished(pipeline.call_async(pending::<io::Result<()>>)).unwrap_err();
    assert_eq!((error.is_timed_out(), error.attempts), (true, 3));
    assert_eq!((error.stopped, time.elapsed()), (Some(Stopped::AttemptsExhausted), SECOND * 5));

    // The same for code that blocks: cut off by the timeout, tried again by the pipeline.
    let pipeline = Pipeline::builder("p").retry(retry).clock(time.clock()).build().unwrap();
    let timeout = Timeout::builder("t").limit(SECOND).clock(time.clock()).build().unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let error = pipeline.call(|| {
        let wait = Arc::clone(&wait);
        timeout.call_on_thread(move || hold::<io::Error>(&wait))
    });
    let error = error.unwrap_err();
    assert_eq!((error.attempts, error.stopped), (3, Some(Stopped::AttemptsExhausted)));
    assert!(error.flatten().is_timed_out());
    assert_eq!(timeout.background().statistics().left_behind, 3);
    drop(go_on);
    until(|| timeout.background().statistics().running == 0);
}

#[test]
fn a_pipeline_races_threads_with_its_own_timeout_and_its_breaker_does_not_blame_the_dependency_for_a_refusal() {
    let time = ManualClock::auto_advancing();
    let breaker = CircuitBreaker::builder("b").consecutive_failures(2).build().unwrap();
    let pipeline = Pipeline::builder("p").circuit_breaker(breaker.clone()).timeout(SECOND).clock(time.clock());
    let pipeline = pipeline.build().unwrap();
    let threads = Background::builder("b").max_running(1).clock(time.clock()).build().unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let render = || {
        let wait = Arc::clone(&wait);
        threads.on_thread(move || hold::<io::Error>(&wait))
    };
    let late = finished(pipeline.call_async(render)).map_err(Error::flatten).unwrap_err();
    assert!(late.is_timed_out());
    let refused = finished(pipeline.call_async(render)).map_err(Error::flatten).unwrap_err();
    assert_eq!(refused.as_rejection().unwrap().reason, Reason::BulkheadFull);
    assert_eq!((breaker.statistics().failures, breaker.statistics().ignored), (1, 1));
    drop(go_on);
    until(|| threads.statistics().running == 0);
}

#[test]
fn threads_left_behind_are_bounded_and_their_room_comes_back() {
    let timeout = Timeout::builder("t").limit(SECOND).max_running(3);
    let timeout = timeout.clock(ManualClock::auto_advancing().clock()).build().unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let call = || {
        let wait = Arc::clone(&wait);
        timeout.call_on_thread(move || hold::<Infallible>(&wait))
    };
    for _ in 0..3 {
        assert!(call().unwrap_err().is_timed_out());
    }
    for _ in 0..2 {
        assert_eq!(call().unwrap_err().as_rejection().unwrap().reason, Reason::BulkheadFull);
    }
    let statistics = timeout.background().statistics();
    assert_eq!((statistics.running, statistics.left_behind, statistics.rejected), (3, 3, 2));
    drop(go_on);
    until(|| timeout.background().statistics().running == 0);
    // In time or too late, but not refused.
    let again = call();
    assert!(again.as_ref().map_or_else(Error::is_timed_out, |()| true), "{again:?}");
}

#[test]
fn who_hears_of_the_end_finds_the_room_free() {
    let (clock, _time) = Clock::manual();
    let threads = Background::builder("b").max_running(1).clock(clock.clone()).build().unwrap();
    let timeout = Timeout::builder("t").max_running(1).clock(clock).build().unwrap();
    for round in 0..500 {
        assert_eq!(timeout.call_on_thread(move || Ok::<_, Infallible>(round)), Ok(round));
    }
    let tasks = Tasks::default();
    let mut first = Box::pin(threads.detach(|task| tasks.spawn(task), ready(Ok::<_, ()>(1))));
    tasks.run();
    drop(threads.detach(|task| tasks.spawn(task), ready(Ok::<_, ()>(2))));
    assert_eq!((poll_once(&mut first), threads.statistics().rejected), (Poll::Ready(Ok(1)), 0));
}

/// Unlike a panic, this does not print.
fn bug() -> Result<(), &'static str> {
    std::panic::resume_unwind(Box::new("a bug"))
}

#[test]
fn a_panic_in_time_is_the_callers_and_a_late_one_is_told() {
    let (timeout, _time) = timeout();
    let panic = catch_unwind(AssertUnwindSafe(|| timeout.call_on_thread(bug))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"a bug"));
    let tasks = Tasks::default();
    let mut call = Box::pin(timeout.call_detached(|task| tasks.spawn(task), async { bug() }));
    assert!(poll_once(&mut call).is_pending());
    tasks.run();
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut call))).is_err());
    let heard = Heard::default();
    let threads = Background::builder("b").observers(heard.observers()).build().unwrap();
    drop(threads.detach(|task| tasks.spawn(task), async { bug() }));
    tasks.run();
    assert!(heard.lines()[1].starts_with("background ended_late b high: panicked"), "{:?}", heard.lines());
    assert_eq!((threads.statistics().running, threads.statistics().ended_late), (0, 1));
}

#[test]
fn a_result_that_nobody_takes_is_told_as_lost() {
    let heard = Heard::default();
    let background = Background::builder("b").observers(heard.observers()).clock(Clock::manual().0).build().unwrap();
    let tasks = Tasks::default();
    let detached = background.detach(|task| tasks.spawn(task), ready(Ok::<_, ()>(1)));
    tasks.run();
    assert!(heard.lines().is_empty());
    drop(detached);
    let expected = "background ended_late b low: succeeded 0ns after it was started; nobody waited for the result";
    assert_eq!(heard.lines(), [expected]);
    assert_eq!(background.statistics().left_behind, 0);
}

/// Ready at the second poll, and asserts when it is dropped that its room is not free yet.
struct Roomy(Background, u32);

impl Future for Roomy {
    type Output = Result<u32, Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.1 += 1;
        if self.1 == 2 { Poll::Ready(Ok(2)) } else { Poll::Pending }
    }
}

impl Drop for Roomy {
    fn drop(&mut self) {
        assert_eq!(self.0.statistics().running, 1);
    }
}

#[test]
fn a_task_is_gone_before_its_end_is_heard_of() {
    let background = Background::builder("b").build().unwrap();
    let tasks = Tasks::default();
    let mut ends = Box::pin(background.detach(|task| tasks.spawn(task), Roomy(background.clone(), 0)));
    tasks.run();
    tasks.run();
    assert_eq!(poll_once(&mut ends), Poll::Ready(Ok(2)));
    assert_eq!(background.statistics().running, 0);
}

#[test]
fn a_task_that_its_executor_drops_ends_the_call() {
    let background = Background::builder("b").build().unwrap();
    let tasks = Tasks::default();
    let mut detached = Box::pin(background.detach(|task| tasks.spawn(task), Roomy(background.clone(), 0)));
    tasks.run();
    assert!(poll_once(&mut detached).is_pending());
    drop(tasks);
    let Poll::Ready(Err(error)) = poll_once(&mut detached) else { panic!("there will be no result") };
    assert_eq!(error.as_rejection().unwrap().reason, Reason::TaskDropped);
    assert_eq!(background.statistics().running, 0);
}

#[test]
fn who_waits_is_woken_by_the_end() {
    struct Bell(AtomicU32);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let background = Background::builder("b").build().unwrap();
    let bell = Arc::new(Bell(AtomicU32::new(0)));
    let (go_on, wait) = mpsc::channel::<()>();
    let mut detached = Box::pin(background.on_thread(move || wait.recv().map_err(|_| ())));
    assert!(detached.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&bell)))).is_pending());
    go_on.send(()).unwrap();
    until(|| bell.0.load(Ordering::SeqCst) == 1);
    assert_eq!(poll_once(&mut detached), Poll::Ready(Ok(())));
}

#[test]
fn tasks_of_tokio_go_on_whether_they_are_send_or_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let timeout = hasty();
        let (done, mut is_done) = tokio::sync::mpsc::unbounded_channel();
        let sent = done.clone();
        let slow = async move {
            tokio::task::yield_now().await;
            sent.send(1).map_err(drop)
        };
        assert!(timeout.call_detached(tokio::spawn, slow).await.unwrap_err().is_timed_out());
        let not_send = Rc::new(2);
        let slow = async move {
            tokio::task::yield_now().await;
            done.send(*not_send).map_err(drop)
        };
        assert!(timeout.call_detached(tokio::task::spawn_local, slow).await.unwrap_err().is_timed_out());
        let mut ended = [is_done.recv().await, is_done.recv().await];
        ended.sort_unstable();
        assert_eq!(ended, [Some(1), Some(2)]);
    });
}

proptest! {
    #[test]
    fn building_never_panics(name in ".{0,4}", nanos: u64, seconds: u64, running: u32) {
        let limit = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos));
        let built = Timeout::builder(name).limit(limit).max_running(running).build();
        if running == 0 || limit.is_zero() || limit > Duration::from_secs(400_000_000) {
            prop_assert!(built.is_err());
        }
    }
}

#[test]
fn limits_that_cannot_be_used_are_refused_by_name() {
    for (limit, shown) in [(Duration::ZERO, "0ns"), (Duration::MAX, "18446744073709551615.999999999s")] {
        let error = Timeout::new(limit).unwrap_err();
        assert_eq!((error.field.as_str(), error.value.as_str()), ("timeout.limit", shown));
    }
}
