//! The bulkhead alone: never more than its maximum inside, waiters in order, and permits that always come back.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::bulkhead::Permit;
use resilience_core::{Bulkhead, Clock, Event, Instant, ManualClock, Observers, Reason, Rejection};

const SECOND: Duration = Duration::from_secs(1);

/// Lets `calls` in at once and `callers` wait.
fn bulkhead(calls: u32, callers: u32, clock: &Clock) -> Bulkhead {
    Bulkhead::builder("b").max_concurrent(calls).max_waiting(callers).clock(clock.clone()).build().unwrap()
}

type Acquiring<'a> = Pin<Box<dyn Future<Output = Result<Permit<'a>, Rejection>> + Send + 'a>>;

fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits in the queue already.
fn queued(bulkhead: &Bulkhead, max_wait: Duration) -> Acquiring<'_> {
    let mut acquiring: Acquiring<'_> = Box::pin(bulkhead.acquire_async(max_wait));
    assert!(poll_once(&mut acquiring).is_pending());
    acquiring
}

fn reason<T>(result: Result<T, Rejection>) -> Option<Reason> {
    result.err().map(|rejection| rejection.reason)
}

/// Lets other threads go on until `condition` holds.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

#[test]
fn waiters_are_let_in_one_at_a_time_in_the_order_of_coming() {
    let bulkhead = bulkhead(1, 10, &Clock::manual().0);
    let mut inside = Some(bulkhead.try_acquire().unwrap());
    let mut waiting: VecDeque<_> = (0..5).map(|_| queued(&bulkhead, SECOND)).collect();
    while let Some(mut first) = waiting.pop_front() {
        drop(inside.take());
        for other in &mut waiting {
            assert!(poll_once(other).is_pending(), "it is not this one's turn");
        }
        let Poll::Ready(Ok(permit)) = poll_once(&mut first) else { panic!("it was the first") };
        inside = Some(permit);
        assert_eq!(bulkhead.statistics().waiting as usize, waiting.len());
    }
}

#[test]
fn who_does_not_wait_is_never_served_ahead_of_those_who_do() {
    let bulkhead = bulkhead(1, 10, &Clock::manual().0);
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiting = queued(&bulkhead, SECOND);
    drop(permit);
    assert_eq!(reason(bulkhead.try_acquire()), Some(Reason::BulkheadFull));
    assert!(poll_once(&mut waiting).is_ready());
}

#[test]
fn a_permit_handed_to_a_waiter_that_is_dropped_goes_to_the_next() {
    let bulkhead = bulkhead(1, 10, &Clock::manual().0);
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiting: Vec<_> = (0..4).map(|_| queued(&bulkhead, SECOND)).collect();
    drop(waiting.remove(1));
    drop(permit);
    // The permit is the first one's now, who never looks; then the next one's, who does not look either.
    drop(waiting.remove(0));
    drop(waiting.remove(0));
    let Poll::Ready(Ok(last)) = poll_once(&mut waiting[0]) else { panic!("it went on to the last") };
    assert_eq!((bulkhead.statistics().in_flight, bulkhead.statistics().waiting), (1, 0));
    drop(last);
    assert!(bulkhead.try_acquire().is_ok());
}

#[test]
fn a_wait_ends_in_time_and_a_queue_has_an_end() {
    let (clock, time) = Clock::manual();
    let bulkhead = bulkhead(1, 2, &clock);
    let permit = bulkhead.try_acquire().unwrap();
    let mut patient = queued(&bulkhead, SECOND * 10);
    let mut hasty = queued(&bulkhead, SECOND);
    let mut third: Acquiring<'_> = Box::pin(bulkhead.acquire_async(SECOND));
    let Poll::Ready(refused) = poll_once(&mut third) else { panic!("the queue is full: refused at once") };
    assert_eq!(reason(refused), Some(Reason::BulkheadQueueFull));
    assert_eq!(reason(bulkhead.acquire(SECOND)), Some(Reason::BulkheadQueueFull));
    time.advance(SECOND);
    let Poll::Ready(refused) = poll_once(&mut hasty) else { panic!("its time is over") };
    assert_eq!(reason(refused), Some(Reason::BulkheadWaitedTooLong));
    assert!(poll_once(&mut patient).is_pending());
    drop(permit);
    assert!(poll_once(&mut patient).is_ready());
    let statistics = bulkhead.statistics();
    assert_eq!((statistics.rejected_full, statistics.rejected_queue_full), (0, 2));
    assert_eq!((statistics.rejected_waited_too_long, statistics.rejected), (1, 3));
}

#[test]
fn who_was_handed_a_permit_keeps_it_even_when_it_looks_late() {
    let (clock, time) = Clock::manual();
    let bulkhead = bulkhead(1, 1, &clock);
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiting = queued(&bulkhead, SECOND);
    drop(permit);
    time.advance(SECOND * 60);
    assert!(matches!(poll_once(&mut waiting), Poll::Ready(Ok(_))));
}

#[test]
fn without_a_wait_there_is_no_place_in_the_queue() {
    let bulkhead = bulkhead(1, 0, &Clock::manual().0);
    let _permit = bulkhead.try_acquire().unwrap();
    assert_eq!(reason(bulkhead.acquire(Duration::ZERO)), Some(Reason::BulkheadFull));
    assert_eq!(reason(bulkhead.acquire(SECOND)), Some(Reason::BulkheadQueueFull));
}

#[test]
fn a_thread_that_waits_is_woken_by_whoever_leaves() {
    let (clock, _time) = Clock::manual();
    let bulkhead = bulkhead(1, 10, &clock);
    let permit = bulkhead.try_acquire().unwrap();
    let other = bulkhead.clone();
    let waiting = thread::spawn(move || other.acquire(SECOND).map(drop));
    until(|| bulkhead.statistics().waiting == 1);
    drop(permit);
    waiting.join().unwrap().expect("its turn came, and time stood still");
}

#[test]
fn a_thread_that_waits_on_a_manual_clock_gives_up_when_the_clock_says_so() {
    let (clock, time) = Clock::manual();
    let bulkhead = bulkhead(1, 10, &clock);
    let _permit = bulkhead.try_acquire().unwrap();
    let other = bulkhead.clone();
    let waiting = thread::spawn(move || reason(other.acquire(SECOND)));
    until(|| bulkhead.statistics().waiting == 1);
    time.advance(SECOND);
    assert_eq!(waiting.join().unwrap(), Some(Reason::BulkheadWaitedTooLong));
    assert_eq!(bulkhead.statistics().waiting, 0);
}

#[test]
fn threads_and_tasks_wait_in_one_queue() {
    let (clock, _time) = Clock::manual();
    let bulkhead = bulkhead(1, 10, &clock);
    let permit = bulkhead.try_acquire().unwrap();
    let mut task = queued(&bulkhead, SECOND);
    let other = bulkhead.clone();
    let thread = thread::spawn(move || other.acquire(SECOND).map(Permit::into_owned));
    until(|| bulkhead.statistics().waiting == 2);
    drop(permit);
    let Poll::Ready(Ok(permit)) = poll_once(&mut task) else { panic!("the task came first") };
    assert_eq!(bulkhead.statistics().waiting, 1);
    drop(permit);
    let permit = thread.join().unwrap().unwrap();
    assert_eq!(bulkhead.statistics().in_flight, 1);
    drop(permit);
    assert_eq!(bulkhead.statistics().in_flight, 0);
}

#[test]
fn a_permit_comes_back_once_however_it_is_owned_and_whatever_ends_it() {
    let bulkhead = bulkhead(1, 0, &Clock::manual().0);
    drop(bulkhead.try_acquire().unwrap());
    drop(bulkhead.try_acquire_owned().unwrap());
    drop(bulkhead.try_acquire().unwrap().into_owned());
    drop(bulkhead.try_acquire_owned().unwrap().into_owned());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _permit = bulkhead.try_acquire().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let owned = bulkhead.try_acquire_owned().unwrap();
    thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(bulkhead.statistics().in_flight, 0);
    assert!(bulkhead.try_acquire().is_ok());
}

#[test]
fn a_waker_that_panics_disturbs_neither_who_leaves_nor_who_comes_next() {
    struct Broken;
    impl Wake for Broken {
        fn wake(self: Arc<Self>) {
            panic!("on purpose: a broken executor");
        }
    }
    let bulkhead = bulkhead(1, 2, &Clock::manual().0);
    let permit = bulkhead.try_acquire().unwrap();
    let mut broken: Acquiring<'_> = Box::pin(bulkhead.acquire_async(SECOND));
    assert!(broken.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Broken)))).is_pending());
    let mut next = queued(&bulkhead, SECOND);
    drop(permit);
    drop(broken);
    assert!(poll_once(&mut next).is_ready());
}

#[test]
fn observers_hear_of_refusals_and_may_ask_the_bulkhead_back() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked: Arc<Mutex<Option<Bulkhead>>> = Arc::default();
    let (sink, ask) = (Arc::clone(&heard), Arc::clone(&asked));
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        let Event::Rejected { rejection, .. } = event else { return };
        let waiting = ask.lock().unwrap().as_ref().map_or(0, |bulkhead| bulkhead.statistics().waiting);
        sink.lock().unwrap().push(format!("{rejection} ({waiting} wait)"));
    }));
    let time = ManualClock::auto_advancing();
    let bulkhead = Bulkhead::builder("b").max_concurrent(1).max_waiting(1).clock(time.clock()).observers(observers);
    let bulkhead = bulkhead.build().unwrap();
    *asked.lock().unwrap() = Some(bulkhead.clone());
    let _permit = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_err());
    assert!(bulkhead.acquire(SECOND).is_err());
    insta::assert_snapshot!(heard.lock().unwrap().join("\n"), @r"
    bulkhead `b` is full (0 wait)
    bulkhead `b` had no room in the time allowed (0 wait)
    ");
}

#[test]
fn values_that_cannot_be_used_are_refused() {
    let of = |builder: resilience_core::bulkhead::BulkheadBuilder| builder.build().unwrap_err().to_string();
    insta::assert_snapshot!(of(Bulkhead::builder("b").max_concurrent(0)), @"`b.max_concurrent` is 0; allowed: 1 to 4294967295");
    insta::assert_snapshot!(of(Bulkhead::builder("b").max_waiting(u32::MAX)), @"`b.max_waiting` is 4294967295; allowed: 0 to 1000000");
    insta::assert_snapshot!(of(Bulkhead::builder("")), @r#"`name` is ""; allowed: 1 to 128 of A-Z a-z 0-9 _ - . : /"#);
}

/// Says whether it was woken since it was last asked.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The naive bulkhead: a list of who waits and a number.
struct Model {
    max: usize,
    max_waiting: usize,
    inside: usize,
    waiting: VecDeque<usize>,
    handed: Vec<usize>,
}

impl Model {
    fn leave(&mut self) {
        self.inside -= 1;
        if let Some(first) = self.waiting.pop_front() {
            self.inside += 1;
            self.handed.push(first);
        }
    }

    fn forget(&mut self, id: usize) -> bool {
        let was_handed = self.handed.contains(&id);
        self.handed.retain(|other| *other != id);
        self.waiting.retain(|other| *other != id);
        was_handed
    }
}

struct Waiter<'a> {
    id: usize,
    acquiring: Acquiring<'a>,
    bell: Arc<Bell>,
    until: Instant,
}

impl<'a> Waiter<'a> {
    fn poll(&mut self) -> Poll<Result<Permit<'a>, Rejection>> {
        self.bell.0.store(false, Ordering::Relaxed);
        self.acquiring.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.bell))))
    }
}

proptest! {
    /// Whoever comes, leaves, gives up, looks or is late, in any order: the bulkhead answers as the naive one does,
    /// and wakes everyone whose turn it is.
    #[test]
    fn it_agrees_with_a_naive_queue(
        max in 1_usize..4,
        max_waiting in 0_usize..5,
        steps in proptest::collection::vec((0_u8..10, any::<usize>()), 1..150),
    ) {
        let (clock, time) = Clock::manual();
        let bulkhead = bulkhead(u32::try_from(max).unwrap(), u32::try_from(max_waiting).unwrap(), &clock);
        let mut model = Model { max, max_waiting, inside: 0, waiting: VecDeque::new(), handed: Vec::new() };
        let (mut permits, mut waiters, mut next, mut rejected) = (Vec::new(), Vec::<Waiter<'_>>::new(), 0, 0);
        for (step, pick) in steps {
            match step {
                0 => {
                    let free = model.waiting.is_empty() && model.inside < model.max;
                    match bulkhead.try_acquire() {
                        Ok(permit) => { prop_assert!(free); model.inside += 1; permits.push(permit); }
                        Err(refused) => { prop_assert!(!free); prop_assert_eq!(refused.reason, Reason::BulkheadFull); rejected += 1; }
                    }
                }
                1..=3 => {
                    let wait = SECOND * u32::try_from(1 + pick % 4).unwrap();
                    let bell = Arc::new(Bell::default());
                    let mut waiter = Waiter { id: next, acquiring: Box::pin(bulkhead.acquire_async(wait)), bell, until: clock.now() + wait };
                    next += 1;
                    let free = model.waiting.is_empty() && model.inside < model.max;
                    match waiter.poll() {
                        Poll::Ready(Ok(permit)) => { prop_assert!(free); model.inside += 1; permits.push(permit); }
                        Poll::Ready(Err(refused)) => {
                            prop_assert!(!free && model.waiting.len() == model.max_waiting);
                            prop_assert_eq!(refused.reason, Reason::BulkheadQueueFull);
                            rejected += 1;
                        }
                        Poll::Pending => {
                            prop_assert!(!free && model.waiting.len() < model.max_waiting);
                            model.waiting.push_back(waiter.id);
                            waiters.push(waiter);
                        }
                    }
                }
                4 | 5 if !permits.is_empty() => {
                    drop(permits.swap_remove(pick % permits.len()));
                    model.leave();
                }
                6 if !waiters.is_empty() => {
                    let waiter = waiters.remove(pick % waiters.len());
                    if model.forget(waiter.id) { model.leave(); }
                }
                7 | 8 if !waiters.is_empty() => {
                    let index = pick % waiters.len();
                    let (id, late) = (waiters[index].id, clock.now() >= waiters[index].until);
                    let polled = waiters[index].poll();
                    if polled.is_ready() { drop(waiters.remove(index)); }
                    match polled {
                        Poll::Ready(Ok(permit)) => { prop_assert!(model.forget(id), "it was handed no permit"); permits.push(permit); }
                        Poll::Ready(Err(refused)) => {
                            prop_assert!(!model.forget(id) && late);
                            prop_assert_eq!(refused.reason, Reason::BulkheadWaitedTooLong);
                            rejected += 1;
                        }
                        Poll::Pending => prop_assert!(!late && model.waiting.contains(&id)),
                    }
                }
                _ => time.advance(SECOND),
            }
            for waiter in &waiters {
                let due = model.handed.contains(&waiter.id) || clock.now() >= waiter.until;
                prop_assert!(!due || waiter.bell.0.load(Ordering::Relaxed), "waiter {} was not woken", waiter.id);
            }
            let statistics = bulkhead.statistics();
            prop_assert!(statistics.in_flight <= statistics.max_concurrent);
            prop_assert_eq!((statistics.in_flight as usize, statistics.waiting as usize), (model.inside, model.waiting.len()));
            prop_assert_eq!(statistics.rejected, rejected);
        }
        drop((waiters, permits));
        let statistics = bulkhead.statistics();
        prop_assert_eq!((statistics.in_flight, statistics.waiting), (0, 0));
    }
}

#[test]
fn permits_are_conserved_under_random_cancellation_by_many_threads() {
    const MAX: u32 = 3;
    let bulkhead = bulkhead(MAX, 100, &Clock::manual().0);
    let inside = AtomicU32::new(0);
    let work = |_permit: Permit<'_>| {
        assert!(inside.fetch_add(1, Ordering::SeqCst) < MAX, "too many are inside");
        thread::yield_now();
        inside.fetch_sub(1, Ordering::SeqCst);
    };
    thread::scope(|scope| {
        for seed in 0..6 {
            let (bulkhead, work) = (&bulkhead, &work);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..3_000 {
                    match random.u8(0..4) {
                        0 => drop(bulkhead.try_acquire().map(work)),
                        // Waits until it is served: the time stands still.
                        1 => bulkhead.acquire(SECOND).map(work).expect("the queue is long enough"),
                        _ => {
                            let mut acquiring: Acquiring<'_> = Box::pin(bulkhead.acquire_async(SECOND));
                            for _ in 0..random.u8(1..4) {
                                if let Poll::Ready(entered) = poll_once(&mut acquiring) {
                                    work(entered.expect("the queue is long enough"));
                                    break;
                                }
                                thread::yield_now();
                            }
                        }
                    }
                }
            });
        }
    });
    let statistics = bulkhead.statistics();
    assert_eq!((statistics.in_flight, statistics.waiting), (0, 0));
    let all: Vec<_> = (0..MAX).map(|_| bulkhead.try_acquire()).collect();
    assert!(all.iter().all(Result::is_ok) && bulkhead.try_acquire().is_err());
}
