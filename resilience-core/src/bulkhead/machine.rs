//! The bulkhead's state machine: how much room there is and how many wait, in one word, and who waits, in order.
//! Never more than the maximum inside; whoever leaves hands over to the first who still waits, so a permit meant for
//! a waiter that is gone goes to the next. It is told the time and never waits; wakers run outside its lock.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::clock::Instant;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::wait;

/// One waiter in the word's upper 24 bits: a queue is at most a million long. The lower 40 bits hold the room.
const WAITER: u64 = 1 << 40;
/// The lower 40 bits when there is no room. Less than this is a debt: the maximum was lowered and that many have to
/// leave before anybody comes in. Room and debt are 32 bits each at most, so they never touch the waiters.
const NO_ROOM: u64 = 1 << 33;

const fn waiting(state: u64) -> u32 {
    (state >> 40) as u32
}

/// Whether somebody can come in.
const fn has_room(state: u64) -> bool {
    state % WAITER > NO_ROOM
}

/// Whether who comes now can come in without overtaking anybody.
const fn is_free(state: u64) -> bool {
    waiting(state) == 0 && has_room(state)
}

/// A place in the queue. Whoever holds one must claim it to the end, or give it up.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    /// Until when it is waited for.
    pub(crate) until: Instant,
}

/// What comes of asking to enter.
pub(super) enum Entry {
    /// Inside: to be left again.
    Inside,
    Queued(Ticket),
    QueueFull,
}

/// What became of a place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Inside: to be left again. The place is gone.
    Inside,
    Waiting,
    /// The time is over and the place is gone.
    TooLate,
}

/// The limits, and who waits, by number: the lowest came first. As many as the word says whenever the lock is free.
#[derive(Debug)]
struct Queue {
    /// Each with what wakes it: nothing, until it has said so.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
    max_concurrent: u32,
    max_waiting: u32,
}

/// A bulkhead's counts at one moment.
pub(super) struct Counts {
    pub(super) in_flight: u32,
    pub(super) waiting: u32,
    pub(super) max_concurrent: u32,
    pub(super) max_waiting: u32,
}

#[derive(Debug)]
pub(super) struct Machine {
    /// The room is in the word itself, so that nobody decides by a maximum that was changed meanwhile.
    state: AtomicU64,
    queue: Mutex<Queue>,
}

impl Machine {
    pub(super) fn new(max_concurrent: u32, max_waiting: u32) -> Self {
        let queue = Queue { waiting: BTreeMap::new(), next: 0, max_concurrent, max_waiting };
        Self { state: AtomicU64::new(NO_ROOM + u64::from(max_concurrent)), queue: Mutex::new(queue) }
    }

    pub(super) fn counts(&self) -> Counts {
        let queue = lock(&self.queue);
        // Relaxed: figures for people. Under the lock the maximum is the one that the room was made for.
        let state = self.state.load(Ordering::Relaxed);
        let inside = NO_ROOM + u64::from(queue.max_concurrent) - state % WAITER;
        Counts {
            in_flight: u32::try_from(inside).unwrap_or(u32::MAX),
            waiting: waiting(state),
            max_concurrent: queue.max_concurrent,
            max_waiting: queue.max_waiting,
        }
    }

    /// Other limits from now on. Who is inside or waits stays; more room is used at once by those who wait, less means
    /// that as many have to leave before anybody comes in.
    pub(super) fn set_limits(&self, max_concurrent: u32, max_waiting: u32) {
        let mut queue = lock(&self.queue);
        queue.max_waiting = max_waiting;
        let before = std::mem::replace(&mut queue.max_concurrent, max_concurrent);
        // In two's complement, so that less room is taken away by adding.
        let more = u64::from(max_concurrent).wrapping_sub(u64::from(before));
        // Relaxed: whoever comes in by the new room pairs with those who left, not with this; the limits themselves
        // are read under the lock.
        self.state.fetch_add(more, Ordering::Relaxed);
        drop(queue);
        self.hand_over();
    }

    /// Enters, unless it is full or somebody waits.
    pub(super) fn try_enter(&self) -> bool {
        let enter = |state| is_free(state).then(|| state - 1);
        // Acquire pairs with the release in `leave`: who comes in sees what those did who went.
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok()
    }

    /// Enters, or takes a place in the queue until `until`.
    pub(super) fn enter(&self, until: Instant) -> Entry {
        let mut queue = lock(&self.queue);
        let enter = |state| {
            if is_free(state) { Some(state - 1) } else { (waiting(state) < queue.max_waiting).then(|| state + WAITER) }
        };
        // The word decides: whoever leaves before this left room, whoever leaves after it sees the waiter. Acquire as
        // in `try_enter`.
        match self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter) {
            Ok(before) if is_free(before) => Entry::Inside,
            Ok(_) => {
                let number = queue.next;
                queue.next += 1;
                queue.waiting.insert(number, Waker::noop().clone());
                Entry::Queued(Ticket { number, until })
            }
            Err(_) => Entry::QueueFull,
        }
    }

    /// Whether a place has its turn; if not, `waker` is woken when it comes.
    pub(super) fn watch(&self, ticket: &Ticket, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut queue = lock(&self.queue);
        let Some(place) = queue.waiting.get_mut(&ticket.number) else { return true };
        let before = std::mem::replace(place, waker);
        drop(queue);
        drop(before);
        false
    }

    /// Looks what became of a place. One that was handed a permit has it, also when it looks late.
    pub(super) fn claim(&self, ticket: &Ticket, now: Instant) -> Claim {
        let mut queue = lock(&self.queue);
        if !queue.waiting.contains_key(&ticket.number) {
            return Claim::Inside;
        }
        if now < ticket.until {
            return Claim::Waiting;
        }
        let place = self.remove(&mut queue, ticket);
        drop(queue);
        drop(place);
        Claim::TooLate
    }

    fn remove(&self, queue: &mut Queue, ticket: &Ticket) -> Option<Waker> {
        let place = queue.waiting.remove(&ticket.number);
        if place.is_some() {
            // Relaxed: nothing is published by going away.
            self.state.fetch_sub(WAITER, Ordering::Relaxed);
        }
        place
    }

    /// Gives a place up; a permit that was handed to it goes on to the next.
    pub(super) fn give_up(&self, ticket: &Ticket) {
        let mut queue = lock(&self.queue);
        let place = self.remove(&mut queue, ticket);
        drop(queue);
        if place.is_none() {
            self.leave();
        }
    }

    /// Leaves, and lets the first in who waits.
    pub(super) fn leave(&self) {
        // Release: what was done inside is seen by who comes in next.
        let before = self.state.fetch_add(1, Ordering::Release);
        if waiting(before) > 0 {
            self.hand_over();
        }
    }

    #[cold]
    fn hand_over(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let hand = |state| {
                let possible = waiting(state) > 0 && has_room(state);
                possible.then(|| state - WAITER - 1)
            };
            // Acquire as in `try_enter`, on behalf of the one let in, who learns of it through the lock.
            if self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, hand).is_err() {
                return;
            }
            let first = queue.waiting.pop_first();
            drop(queue);
            debug_assert!(first.is_some(), "the word and the queue agree under the lock");
            if let Some((_, waker)) = first {
                wait::wake(waker);
            }
        }
    }
}
