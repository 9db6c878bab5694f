//! A call's way through a flight: it joins, then leads or follows. Whatever it is when it is dropped, the flight goes
//! on. The waiting is the same for both faces; here is also the async one.

use std::cell::RefCell;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::machine::{Flight, Joined, Seen};
use super::{Shared, count};
use crate::outcome::{Error, Rejection};

type FlightOf<K, T, E> = Arc<Flight<K, Result<T, E>>>;

/// What a call's turn is.
pub(super) enum Turn<K: Eq + Hash, T, E> {
    /// To run the operation and land its result.
    Lead(Lead<K, T, E>),
    /// Nothing: the result is there.
    Landed(Result<T, E>),
}

/// A call that has not had its turn yet. Dropping it leaves the flight that it follows.
pub(super) struct Joining<K: Eq + Hash, T, E> {
    shared: Arc<Shared<K, T, E>>,
    step: Step<K, T, E>,
}

enum Step<K, T, E> {
    New(K),
    Following { flight: FlightOf<K, T, E>, number: u64 },
    Over,
}

impl<K: Eq + Hash, T, E> Joining<K, T, E> {
    pub(super) fn new(shared: Arc<Shared<K, T, E>>, key: K) -> Self {
        Self { shared, step: Step::New(key) }
    }

    fn lead(&self, flight: FlightOf<K, T, E>, taken_over: bool) -> Turn<K, T, E> {
        count(&self.shared.counts.led);
        if taken_over {
            count(&self.shared.counts.taken_over);
        }
        Turn::Lead(Lead { shared: Arc::clone(&self.shared), flight: Some(flight) })
    }
}

impl<K: Eq + Hash, T: Clone, E: Clone> Joining<K, T, E> {
    /// Joins when polled first, and is ready when the call has its turn.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn<K, T, E>, Rejection>> {
        if let Step::New(_) = self.step {
            let Step::New(key) = std::mem::replace(&mut self.step, Step::Over) else { unreachable!("just seen") };
            match self.shared.machine.join(key, is_led_here) {
                Ok(Joined::Lead(flight)) => return Poll::Ready(Ok(self.lead(flight, false))),
                Ok(Joined::Follow { flight, number }) => self.step = Step::Following { flight, number },
                Err(reason) => return Poll::Ready(Err(self.shared.reject(reason))),
            }
        }
        let Step::Following { flight, number } = &self.step else { panic!("a future is not polled after its end") };
        let seen = ready!(self.shared.machine.look(flight, *number, cx.waker()));
        let flight = Arc::clone(flight);
        self.step = Step::Over;
        Poll::Ready(Ok(match seen {
            Seen::Lead => self.lead(flight, true),
            Seen::Landed(result) => {
                count(&self.shared.counts.shared);
                drop(flight);
                // The last one to look need not clone.
                Turn::Landed(Arc::unwrap_or_clone(result))
            }
        }))
    }
}

impl<K: Eq + Hash, T, E> Drop for Joining<K, T, E> {
    fn drop(&mut self) {
        if let Step::Following { flight, number } = &self.step {
            self.shared.machine.leave(flight, *number);
        }
    }
}

/// The lead of a flight. Dropping it without a result hands it to a follower.
pub(super) struct Lead<K: Eq + Hash, T, E> {
    shared: Arc<Shared<K, T, E>>,
    /// Gone when it has landed.
    flight: Option<FlightOf<K, T, E>>,
}

impl<K: Eq + Hash, T, E> Lead<K, T, E> {
    /// While the guard lives, what runs on this thread is part of the flight's operation.
    pub(super) fn inside(&self) -> Inside {
        let address = self.flight.as_ref().map_or(0, address);
        LED_HERE.with_borrow_mut(|led| led.push(address));
        Inside(())
    }
}

impl<K: Eq + Hash, T: Clone, E: Clone> Lead<K, T, E> {
    /// Gives the result to everybody who follows, and back.
    pub(super) fn land(mut self, result: Result<T, E>) -> Result<T, E> {
        let Some(flight) = &self.flight else { unreachable!("a lead is used up by landing") };
        let result = self.shared.machine.land(flight, result);
        self.flight = None;
        result
    }
}

impl<K: Eq + Hash, T, E> Drop for Lead<K, T, E> {
    fn drop(&mut self) {
        if let Some(flight) = &self.flight {
            self.shared.machine.give_up(flight);
        }
    }
}

thread_local! {
    /// The flights whose operations are on this thread's stack, by address: each lives as long as its lead.
    static LED_HERE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn address<T>(flight: &Arc<T>) -> usize {
    Arc::as_ptr(flight).cast::<()>().addr()
}

fn is_led_here<T>(flight: &Arc<T>) -> bool {
    LED_HERE.with_borrow(|led| led.contains(&address(flight)))
}

pub(super) struct Inside(());

impl Drop for Inside {
    fn drop(&mut self) {
        LED_HERE.with_borrow_mut(Vec::pop);
    }
}

pin_project! {
    /// An async call under way. The operation does nothing before it is polled, which is when the call leads.
    pub(super) struct CoalesceFuture<K, T, E, F>
    where
        K: Eq,
        K: Hash,
    {
        // Declared, and so dropped, before the lead: one operation is gone before another one begins.
        #[pin]
        operation: Option<F>,
        lead: Option<Lead<K, T, E>>,
        joining: Joining<K, T, E>,
    }
}

impl<K: Eq + Hash, T, E, F> CoalesceFuture<K, T, E, F> {
    pub(super) fn new(joining: Joining<K, T, E>, operation: F) -> Self {
        Self { operation: Some(operation), lead: None, joining }
    }
}

impl<K, T, E, F> Future for CoalesceFuture<K, T, E, F>
where
    K: Eq + Hash,
    T: Clone,
    E: Clone,
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.lead.is_none() {
            match ready!(this.joining.poll_turn(cx))? {
                Turn::Lead(lead) => *this.lead = Some(lead),
                Turn::Landed(result) => return Poll::Ready(result.map_err(|error| Error::operation(error, 1))),
            }
        }
        let (Some(operation), Some(lead)) = (this.operation.as_mut().as_pin_mut(), &this.lead) else {
            panic!("a future is not polled after its end")
        };
        let inside = lead.inside();
        let polled = operation.poll(cx);
        drop(inside);
        let result = ready!(polled);
        this.operation.set(None);
        let Some(lead) = this.lead.take() else { unreachable!("it leads: its operation was polled") };
        Poll::Ready(lead.land(result).map_err(|error| Error::operation(error, 1)))
    }
}
