//! What threads can do to a flight: `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test 'loom*'`.
#![cfg(resilience_loom)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;
use resilience_core::{Coalesce, Error};

type Flights = Coalesce<u8, u8, ()>;
type Call = Pin<Box<dyn Future<Output = Result<u8, Error<()>>> + Send>>;

fn flights() -> Flights {
    Coalesce::builder("model").build().unwrap()
}

/// How many operations run now. Not loom's: the threads of a model take turns on one thread, so that whether two
/// operations overlap depends on the interleaving of the flight's own steps alone.
#[derive(Clone, Default)]
struct Running(Arc<AtomicU32>);

struct Inside(Arc<AtomicU32>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A call whose operation is over at the second poll.
fn call(flights: &Flights, running: &Running, value: u8) -> Call {
    let (flights, running) = (flights.clone(), running.clone());
    Box::pin(async move {
        let operation = || async move {
            assert_eq!(running.0.fetch_add(1, Ordering::SeqCst), 0, "two operations run for one key");
            let _inside = Inside(running.0);
            let mut polled = false;
            std::future::poll_fn(
                move |_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending },
            )
            .await;
            Ok(value)
        };
        flights.call_async(1, operation).await
    })
}

/// Remembers that it was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Bell {
    fn rang(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

fn look(call: &mut Call, waker: &Waker) -> Option<u8> {
    match call.as_mut().poll(&mut Context::from_waker(waker)) {
        Poll::Ready(result) => Some(result.expect("no operation fails")),
        Poll::Pending => None,
    }
}

/// Polled twice, a leader is over.
fn finish(mut call: Call) -> u8 {
    (0..3).find_map(|_| look(&mut call, Waker::noop())).expect("who leads makes progress")
}

fn nothing_is_left(flights: &Flights) {
    let statistics = flights.statistics();
    assert_eq!((statistics.in_flight, statistics.following), (0, 0));
}

#[test]
fn who_comes_while_the_leader_lands_gets_its_result_or_leads() {
    loom::model(|| {
        let (flights, running) = (flights(), Running::default());
        let mut leader = call(&flights, &running, 1);
        assert!(look(&mut leader, Waker::noop()).is_none());
        let landing = thread::spawn(move || finish(leader));
        let bell = Arc::new(Bell::default());
        let mut late = call(&flights, &running, 2);
        let mut seen = look(&mut late, &Waker::from(bell.clone()));
        assert_eq!(landing.join().unwrap(), 1);
        if seen.is_none() {
            let led = running.0.load(Ordering::SeqCst) == 1;
            assert!(led || bell.rang(), "it neither leads nor was told");
            seen = Some(finish(late));
            assert_eq!(seen, Some(if led { 2 } else { 1 }));
        }
        assert!(matches!(seen, Some(1 | 2)));
        nothing_is_left(&flights);
    });
}

#[test]
fn who_comes_while_the_leader_is_dropped_leads() {
    loom::model(|| {
        let (flights, running) = (flights(), Running::default());
        let mut leader = call(&flights, &running, 1);
        assert!(look(&mut leader, Waker::noop()).is_none());
        let dropping = thread::spawn(move || drop(leader));
        let bell = Arc::new(Bell::default());
        let mut late = call(&flights, &running, 2);
        assert!(look(&mut late, &Waker::from(bell.clone())).is_none());
        dropping.join().unwrap();
        let leads = running.0.load(Ordering::SeqCst) == 1;
        assert!(leads || bell.rang(), "it neither leads nor was told");
        assert_eq!(finish(late), 2);
        nothing_is_left(&flights);
    });
}

#[test]
fn the_lead_passed_to_a_follower_that_is_dropped_goes_to_the_next() {
    loom::model(|| {
        let (flights, running) = (flights(), Running::default());
        let mut leader = call(&flights, &running, 1);
        assert!(look(&mut leader, Waker::noop()).is_none());
        let mut first = call(&flights, &running, 2);
        assert!(look(&mut first, Waker::noop()).is_none());
        let bell = Arc::new(Bell::default());
        let mut second = call(&flights, &running, 3);
        assert!(look(&mut second, &Waker::from(bell.clone())).is_none());
        let dropping = thread::spawn(move || drop(first));
        drop(leader);
        dropping.join().unwrap();
        assert!(bell.rang(), "the last that waits was told");
        assert_eq!(finish(second), 3);
        nothing_is_left(&flights);
    });
}

#[test]
fn two_that_take_over_at_once_do_not_both_lead() {
    loom::model(|| {
        let (flights, running) = (flights(), Running::default());
        let mut leader = call(&flights, &running, 1);
        assert!(look(&mut leader, Waker::noop()).is_none());
        let bell = Arc::new(Bell::default());
        let mut follower = call(&flights, &running, 2);
        assert!(look(&mut follower, &Waker::from(bell.clone())).is_none());
        drop(leader);
        assert!(bell.rang());
        let newcomer = call(&flights, &running, 3);
        let coming = thread::spawn(move || {
            let mut newcomer = newcomer;
            let seen = look(&mut newcomer, Waker::noop()).or_else(|| look(&mut newcomer, Waker::noop()));
            drop(newcomer);
            seen
        });
        let mut seen = look(&mut follower, &Waker::from(bell.clone()));
        seen = seen.or_else(|| look(&mut follower, &Waker::from(bell.clone())));
        let theirs = coming.join().unwrap();
        assert!(theirs.is_none_or(|value| value == 2 || value == 3));
        let seen = seen.unwrap_or_else(|| finish(follower));
        assert!(seen == 2 || seen == 3);
        nothing_is_left(&flights);
    });
}
