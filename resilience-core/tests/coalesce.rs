//! Coalescing: one execution for all who ask at once, and nobody who waits is forgotten, whatever becomes of the others.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use proptest::prelude::*;
use resilience_core::{Coalesce, Error, Event, Observers, Pipeline, Reason};

type Flights = Coalesce<u8, u32, &'static str>;
type Answer = Result<u32, Error<&'static str>>;

fn flights() -> Flights {
    Coalesce::builder("users").build().unwrap()
}

fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn reason(answer: &Answer) -> Option<Reason> {
    answer.as_ref().err().and_then(Error::as_rejection).map(|rejection| rejection.reason)
}

/// Lets other threads go on until `condition` holds.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// What opens for everybody once it was opened.
#[derive(Clone, Default)]
struct Gate(Rc<Cell<bool>>);

impl Gate {
    fn open(&self) {
        self.0.set(true);
    }

    async fn passed(self) {
        poll_fn(|_| if self.0.get() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// A call whose operation counts itself and gives `value` when the gate is open.
fn gated<'a>(
    flights: &'a Flights,
    gate: &Gate,
    runs: &'a Cell<u32>,
    value: u32,
) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
    let gate = gate.clone();
    Box::pin(flights.call_async(1, move || async move {
        runs.set(runs.get() + 1);
        gate.passed().await;
        Ok(value)
    }))
}

#[test]
fn calls_under_way_at_once_share_one_execution_and_later_ones_do_not() {
    let (flights, gate, runs) = (flights(), Gate::default(), Cell::new(0));
    let mut leader = gated(&flights, &gate, &runs, 10);
    let mut followers: Vec<_> = (11..20).map(|value| gated(&flights, &gate, &runs, value)).collect();
    assert!(poll_once(&mut leader).is_pending());
    assert!(followers.iter_mut().all(|follower| poll_once(follower).is_pending()));
    let statistics = flights.statistics();
    assert_eq!((statistics.in_flight, statistics.following), (1, 9));
    gate.open();
    assert!(followers.iter_mut().all(|follower| poll_once(follower).is_pending()), "the leader carries the flight");
    assert_eq!(poll_once(&mut leader), Poll::Ready(Ok(10)));
    // What comes when the flight has landed is a flight of its own, also while others have not looked yet.
    assert_eq!(poll_once(&mut gated(&flights, &gate, &runs, 99)), Poll::Ready(Ok(99)));
    assert!(followers.iter_mut().all(|follower| poll_once(follower) == Poll::Ready(Ok(10))));
    let statistics = flights.statistics();
    assert_eq!((runs.get(), statistics.led, statistics.shared, statistics.taken_over), (2, 2, 9, 0));
    assert_eq!((statistics.in_flight, statistics.following), (0, 0));
}

#[test]
fn different_keys_do_not_wait_for_each_other() {
    let flights = flights();
    let mut one = Box::pin(flights.call_async(1, pending));
    assert!(poll_once(&mut one).is_pending());
    assert_eq!(flights.call(2, || Ok(2)), Ok(2));
}

#[test]
fn errors_are_shared_as_values_are() {
    let flights = flights();
    let gate = Gate::default();
    let fail = || {
        let gate = gate.clone();
        Box::pin(flights.call_async(1, move || async move {
            gate.passed().await;
            Err("down")
        }))
    };
    let (mut leader, mut follower) = (fail(), fail());
    assert!(poll_once(&mut leader).is_pending() && poll_once(&mut follower).is_pending());
    gate.open();
    assert_eq!(poll_once(&mut leader), Poll::Ready(Err(Error::operation("down", 1))));
    assert_eq!(poll_once(&mut follower), Poll::Ready(Err(Error::operation("down", 1))));
}

#[test]
fn a_dropped_leader_is_followed_by_one_that_runs_its_own_operation() {
    let (flights, gate, runs) = (flights(), Gate::default(), Cell::new(0));
    let mut leader = gated(&flights, &gate, &runs, 1);
    let mut first = gated(&flights, &gate, &runs, 2);
    let mut second = gated(&flights, &gate, &runs, 3);
    for call in [&mut leader, &mut first, &mut second] {
        assert!(poll_once(call).is_pending());
    }
    drop(leader);
    assert!(poll_once(&mut first).is_pending());
    assert!(poll_once(&mut second).is_pending());
    assert_eq!((runs.get(), flights.statistics().taken_over), (2, 1));
    gate.open();
    assert_eq!(poll_once(&mut first), Poll::Ready(Ok(2)));
    assert_eq!(poll_once(&mut second), Poll::Ready(Ok(2)));
    assert_eq!(runs.get(), 2);
}

#[test]
fn an_operation_is_gone_before_the_flight_is_anybody_elses() {
    /// Ready at the second poll, and asserts when it is dropped that nobody else can lead yet.
    struct Operation<'a>(&'a Flights, u32);
    impl Future for Operation<'_> {
        type Output = Result<u32, &'static str>;
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            self.1 += 1;
            if self.1 == 2 { Poll::Ready(Ok(1)) } else { Poll::Pending }
        }
    }
    impl Drop for Operation<'_> {
        fn drop(&mut self) {
            assert_eq!(self.0.statistics().in_flight, 1);
        }
    }
    let flights = flights();
    for polls in [1, 2] {
        let mut call = Box::pin(flights.call_async(1, || Operation(&flights, 0)));
        for _ in 0..polls {
            assert_eq!(poll_once(&mut call).is_ready(), flights.statistics().in_flight == 0);
        }
        drop(call);
        assert_eq!(flights.statistics().in_flight, 0);
    }
}

#[test]
fn whoever_looks_first_takes_a_vacant_flight_over() {
    let (flights, gate, runs) = (flights(), Gate::default(), Cell::new(0));
    gate.open();
    let mut leader = Box::pin(flights.call_async(1, pending));
    let mut asleep = gated(&flights, &gate, &runs, 2);
    assert!(poll_once(&mut leader).is_pending() && poll_once(&mut asleep).is_pending());
    drop(leader);
    // The one that was woken does not look: that holds up nobody.
    assert_eq!(flights.call(1, || Ok(3)), Ok(3));
    assert_eq!(poll_once(&mut asleep), Poll::Ready(Ok(3)));
}

#[test]
fn a_dropped_follower_leaves_the_flight_alone() {
    let (flights, gate, runs) = (flights(), Gate::default(), Cell::new(0));
    let mut leader = gated(&flights, &gate, &runs, 1);
    let mut follower = gated(&flights, &gate, &runs, 2);
    assert!(poll_once(&mut leader).is_pending() && poll_once(&mut follower).is_pending());
    drop(follower);
    assert_eq!((flights.statistics().following, flights.statistics().in_flight), (0, 1));
    gate.open();
    assert_eq!((poll_once(&mut leader), runs.get()), (Poll::Ready(Ok(1)), 1));
}

#[test]
fn when_all_are_dropped_nothing_is_left() {
    let (flights, gate, runs) = (flights(), Gate::default(), Cell::new(0));
    let mut calls: Vec<_> = (0..5).map(|value| gated(&flights, &gate, &runs, value)).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    drop(calls);
    let statistics = flights.statistics();
    assert_eq!((statistics.in_flight, statistics.following, runs.get()), (0, 0, 1));
    drop(gated(&flights, &gate, &runs, 7));
    assert_eq!(flights.statistics().in_flight, 0, "what was never polled never joined");
}

#[test]
fn a_panic_is_the_leaders_own_and_its_followers_go_on() {
    let flights = flights();
    let leading = Barrier::new(2);
    let followers = thread::scope(|scope| {
        let leader = scope.spawn(|| {
            flights.call(1, || {
                leading.wait();
                until(|| flights.statistics().following == 2);
                panic!("a bug");
            })
        });
        leading.wait();
        let followers = [2, 3].map(|value| {
            let flights = &flights;
            scope.spawn(move || flights.call(1, || Ok(value)))
        });
        assert!(leader.join().is_err(), "the panic went on where it happened");
        followers.map(|follower| follower.join().unwrap())
    });
    assert!(followers.iter().all(|answer| matches!(answer, Ok(2 | 3))), "{followers:?}");
    let statistics = flights.statistics();
    assert_eq!((statistics.in_flight, statistics.following), (0, 0));
    assert!(statistics.taken_over >= 1);
}

#[test]
fn a_result_whose_clone_panics_leaves_the_flight_to_a_follower() {
    #[derive(Debug)]
    struct Moody(bool);
    impl Clone for Moody {
        fn clone(&self) -> Self {
            assert!(self.0, "this one cannot be cloned");
            Self(self.0)
        }
    }
    let flights = Coalesce::<u8, Moody, ()>::builder("moody").build().unwrap();
    let gate = Gate::default();
    let call = |good| {
        let gate = gate.clone();
        Box::pin(flights.call_async(1, move || async move {
            gate.passed().await;
            Ok(Moody(good))
        }))
    };
    let (mut leader, mut follower) = (call(false), call(true));
    assert!(poll_once(&mut leader).is_pending() && poll_once(&mut follower).is_pending());
    gate.open();
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut leader))).is_err());
    assert!(matches!(poll_once(&mut follower), Poll::Ready(Ok(Moody(true)))));
    assert_eq!(flights.statistics().in_flight, 0);
}

#[test]
fn blocking_and_async_callers_share_one_flight() {
    let flights = flights();
    let blocking = flights.clone();
    let (entered, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (inside, outside) = (Arc::clone(&entered), Arc::clone(&leave));
    let leader = thread::spawn(move || {
        blocking.call(1, || {
            inside.wait();
            outside.wait();
            Ok(5)
        })
    });
    entered.wait();
    let mut follower = Box::pin(flights.call_async(1, || async { panic!("its operation does not run") }));
    assert!(poll_once(&mut follower).is_pending());
    leave.wait();
    assert_eq!(leader.join().unwrap(), Ok(5));
    assert_eq!(poll_once(&mut follower), Poll::Ready(Ok(5)));
}

#[test]
fn a_thread_that_follows_takes_over_from_a_dropped_future() {
    let flights = flights();
    let mut leader = Box::pin(flights.call_async(1, pending));
    assert!(poll_once(&mut leader).is_pending());
    let other = flights.clone();
    let follower = thread::spawn(move || other.call(1, || Ok(6)));
    until(|| flights.statistics().following == 1);
    drop(leader);
    assert_eq!(follower.join().unwrap(), Ok(6));
}

#[test]
fn a_call_that_would_wait_for_itself_is_refused() {
    let flights = flights();
    let nested = flights.call(1, || {
        let again = flights.call(1, || Ok(1));
        assert_eq!(reason(&again), Some(Reason::WaitsForItself));
        let alike = poll_once(&mut Box::pin(flights.call_async(1, || async { Ok(1) })));
        assert!(matches!(alike, Poll::Ready(answer) if reason(&answer) == Some(Reason::WaitsForItself)));
        flights.call(2, || Ok(2)).map_err(|_| "another key is another flight")
    });
    assert_eq!(nested, Ok(2));
    let nested = poll_once(&mut Box::pin(flights.call_async(1, || async {
        assert_eq!(reason(&flights.call(1, || Ok(1))), Some(Reason::WaitsForItself));
        assert_eq!(reason(&flights.call_async(1, || async { Ok(1) }).await), Some(Reason::WaitsForItself));
        Ok(3)
    })));
    assert_eq!(nested, Poll::Ready(Ok(3)));
    // After a panic inside, the thread is outside again.
    assert!(catch_unwind(AssertUnwindSafe(|| flights.call(1, || panic!("a bug")))).is_err());
    assert_eq!((flights.call(1, || Ok(4)), flights.statistics().rejected), (Ok(4), 4));
}

#[test]
fn keys_and_followers_are_bounded_and_refusals_are_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&told);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::Rejected { rejection, .. } = event {
            ears.lock().unwrap().push(rejection.to_string());
        }
    }));
    let flights = Coalesce::<u8, u32, &'static str>::builder("users").max_keys(2).max_followers(1);
    let flights = flights.observers(observers).build().unwrap();
    let mut calls: Vec<_> = [1, 2, 1].map(|key| Box::pin(flights.call_async(key, pending))).into();
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    assert_eq!(reason(&flights.call(3, || Ok(1))), Some(Reason::TooManyFlights { max_keys: 2 }));
    assert_eq!(reason(&flights.call(1, || Ok(1))), Some(Reason::TooManyFollowers { max_followers: 1 }));
    insta::assert_snapshot!(told.lock().unwrap().join("\n"), @r"
    coalescing `users` has no room for a new key: calls for 2 are under way
    coalescing `users` lets at most 1 calls wait for one result
    ");
    drop(calls);
    assert_eq!(flights.call(3, || Ok(1)), Ok(1));
    assert_eq!(flights.statistics().rejected, 2);
}

#[test]
fn around_a_pipeline_two_errors_become_one() {
    let pipeline = Pipeline::builder("p").build().unwrap();
    let flights = Coalesce::<u8, u32, _>::builder("users").build().unwrap();
    let failed = flights.call(1, || pipeline.call(|| Err(std::io::ErrorKind::TimedOut))).map_err(Error::flatten);
    assert_eq!(failed, Err(Error::operation(std::io::ErrorKind::TimedOut, 1)));
    let refused = flights.call(1, || flights.call(1, || Ok(1)).map_err(Error::flatten)).map_err(Error::flatten);
    assert_eq!(refused.unwrap_err().as_rejection().unwrap().reason, Reason::WaitsForItself);
}

proptest! {
    #[test]
    fn building_never_panics(name in ".{0,4}", keys: u32, followers: u32) {
        let built = Coalesce::<u8, u8, ()>::builder(name).max_keys(keys).max_followers(followers).build();
        let fits = |value| (1..=1_000_000).contains(&value);
        if !fits(keys) || !fits(followers) {
            prop_assert!(built.is_err());
        }
    }
}

/// Remembers that it was woken.
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A call and what wakes it.
struct Caller<'a> {
    call: Pin<Box<dyn Future<Output = Answer> + 'a>>,
    bell: Arc<Bell>,
}

#[derive(Debug, Clone, Copy)]
enum Do {
    Begin { slot: usize, key: u8 },
    Poll(usize),
    Drop(usize),
    Open(u8),
}

const SLOTS: usize = 6;

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        (0..SLOTS, 0..2_u8).prop_map(|(slot, key)| Do::Begin { slot, key }),
        (0..SLOTS).prop_map(Do::Poll),
        (0..SLOTS).prop_map(Do::Drop),
        (0..2_u8).prop_map(Do::Open),
    ];
    prop::collection::vec(step, 0..120)
}

/// What an operation leaves behind when it is over, however it ends.
struct Leaves(Rc<Cell<u32>>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

proptest! {
    /// Calls are polled only when they were woken, so a wake that is missing shows as a call that never ends.
    #[test]
    fn whatever_is_dropped_nobody_who_waits_is_forgotten(steps in steps()) {
        let flights = flights();
        // For each key: how many operations run, what wakes the one that does, and how often the gate was opened.
        let running = [0, 1].map(|_| Rc::new(Cell::new(0_u32)));
        let wakers: [Rc<Cell<Option<Waker>>>; 2] = Default::default();
        let tickets = [0, 1].map(|_| Rc::new(Cell::new(0_u32)));
        let mut slots: [Option<Caller<'_>>; SLOTS] = [const { None }; SLOTS];
        let begin = |key: u8| {
            let at = usize::from(key);
            let (running, waker, tickets) =
                (Rc::clone(&running[at]), Rc::clone(&wakers[at]), Rc::clone(&tickets[at]));
            let call = flights.call_async(key, move || async move {
                running.set(running.get() + 1);
                assert_eq!(running.get(), 1, "two operations run for one key");
                let _leaves = Leaves(running);
                poll_fn(|cx| {
                    if tickets.get() > 0 {
                        tickets.set(tickets.get() - 1);
                        return Poll::Ready(());
                    }
                    waker.set(Some(cx.waker().clone()));
                    Poll::Pending
                })
                .await;
                Ok(u32::from(key))
            });
            Caller { call: Box::pin(call), bell: Arc::new(Bell(AtomicBool::new(true))) }
        };
        let poll = |slot: &mut Option<Caller<'_>>| {
            let Some(caller) = slot else { return };
            if !caller.bell.0.swap(false, Ordering::SeqCst) {
                return;
            }
            let waker = Waker::from(Arc::clone(&caller.bell));
            if let Poll::Ready(answer) = caller.call.as_mut().poll(&mut Context::from_waker(&waker)) {
                assert!(answer.is_ok());
                *slot = None;
            }
        };
        let open = |key: usize| {
            tickets[key].set(tickets[key].get() + 1);
            if let Some(waker) = wakers[key].take() {
                waker.wake();
            }
        };
        for step in steps {
            match step {
                Do::Begin { slot, key } => slots[slot] = Some(begin(key)),
                Do::Poll(slot) => poll(&mut slots[slot]),
                Do::Drop(slot) => slots[slot] = None,
                Do::Open(key) => open(usize::from(key)),
            }
        }
        for _ in 0..4 * SLOTS {
            open(0);
            open(1);
            slots.iter_mut().for_each(poll);
        }
        prop_assert!(slots.iter().all(Option::is_none), "somebody waits for ever");
        let statistics = flights.statistics();
        prop_assert_eq!((statistics.in_flight, statistics.following), (0, 0));
    }
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = Box::pin(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn under_stress_with_drops_and_panics_one_runs_at_a_time_and_everybody_comes_to_an_end() {
    const ROUNDS: u32 = 4_000;
    let flights = flights();
    let running: [AtomicU32; 2] = Default::default();
    // Asserted at the end: a panic in here would be one of many.
    let overlaps = AtomicU32::new(0);
    let inside = |key: u8| {
        let running = &running[usize::from(key)];
        overlaps.fetch_add(running.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        thread::yield_now();
        running.fetch_sub(1, Ordering::SeqCst);
    };
    thread::scope(|scope| {
        for seed in 0..4 {
            let (flights, inside) = (&flights, &inside);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..ROUNDS {
                    let (key, panics) = (random.u8(0..2), random.u8(0..20) == 0);
                    let operation = move || {
                        inside(key);
                        // Unlike a panic, this does not print.
                        if panics { std::panic::resume_unwind(Box::new("a bug")) } else { Ok(u32::from(key)) }
                    };
                    let answer = catch_unwind(AssertUnwindSafe(|| match random.u8(0..3) {
                        0 => Some(flights.call(key, operation)),
                        1 => Some(block_on(flights.call_async(key, || async {
                            let mut turns = 2;
                            poll_fn(|cx| {
                                turns -= 1;
                                cx.waker().wake_by_ref();
                                if turns == 0 { Poll::Ready(()) } else { Poll::Pending }
                            })
                            .await;
                            operation()
                        }))),
                        _ => {
                            // Looks a few times, and is dropped as a leader or as a follower.
                            let mut call = Box::pin(flights.call_async(key, pending));
                            (0..random.u8(0..3)).any(|_| poll_once(&mut call).is_ready());
                            None
                        }
                    }));
                    if let Ok(Some(answer)) = answer {
                        assert_eq!(answer, Ok(u32::from(key)));
                    }
                }
            });
        }
    });
    let statistics = flights.statistics();
    assert_eq!((statistics.in_flight, statistics.following, statistics.rejected), (0, 0, 0));
    assert!(statistics.shared > 0 && statistics.taken_over > 0, "{statistics:?}");
    assert_eq!(overlaps.into_inner(), 0, "two operations ran for one key");
}

#[cfg(feature = "tower")]
mod layer {
    use super::*;
    use resilience_core::coalesce::CoalesceLayer;
    use tower::limit::ConcurrencyLimit;
    use tower::{Layer, Service, service_fn};

    #[test]
    fn requests_with_the_same_key_share_a_call_and_only_who_leads_needs_a_ready_service() {
        let (calls, gate) = (Rc::new(Cell::new(0)), Gate::default());
        let (counted, opened) = (Rc::clone(&calls), gate.clone());
        let inner = service_fn(move |request: (u8, u32)| {
            counted.set(counted.get() + 1);
            let gate = opened.clone();
            async move {
                gate.passed().await;
                Ok::<_, &'static str>(request.1)
            }
        });
        let flights = flights();
        let layer = CoalesceLayer::new(flights.clone(), |request: &(u8, u32)| request.0);
        let mut service = layer.layer(ConcurrencyLimit::new(inner, 1));
        assert!(matches!(service.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))));
        let mut leader = Box::pin(service.call((1, 10)));
        let mut follower = Box::pin(service.call((1, 20)));
        let mut other = Box::pin(service.call((2, 30)));
        assert!(poll_once(&mut leader).is_pending());
        assert!(poll_once(&mut follower).is_pending());
        assert!(poll_once(&mut other).is_pending(), "the limit is used by the leader");
        drop(leader);
        assert!(poll_once(&mut other).is_pending(), "the limit has room, and it is called");
        assert!(poll_once(&mut follower).is_pending(), "it leads and waits for room");
        gate.open();
        assert_eq!(poll_once(&mut other), Poll::Ready(Ok(30)));
        drop(other);
        assert_eq!(poll_once(&mut follower), Poll::Ready(Ok(20)));
        assert_eq!((calls.get(), flights.statistics().taken_over), (3, 1));
    }
}
