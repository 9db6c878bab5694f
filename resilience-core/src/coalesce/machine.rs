//! Who leads and who follows, by key. A flight is in the table until it has landed, and there it is either led by exactly
//! one call or vacant, and then one of its followers has been woken to take it over. Runs no operation; wakers and
//! results, which are other people's code, are cloned, called and dropped outside the locks.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::outcome::Reason;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::wait;

/// The call under way for one key. Its lock is taken after the table's, where both are needed.
pub(super) struct Flight<K, R> {
    key: Arc<K>,
    state: Mutex<State<R>>,
}

struct State<R> {
    phase: Phase<R>,
    /// Each with what wakes it: nothing, until it has said so, and once it was woken.
    followers: BTreeMap<u64, Waker>,
    next: u64,
}

enum Phase<R> {
    Led,
    /// The leader is gone: whoever looks first leads.
    Vacant,
    /// Over, and no longer in the table.
    Landed(Arc<R>),
}

type Table<K, R> = HashMap<Arc<K>, Arc<Flight<K, R>>>;

/// What comes of joining.
pub(super) enum Joined<K, R> {
    /// To be landed or given up.
    Lead(Arc<Flight<K, R>>),
    /// To be looked at until it is over, or left. Where the flight is vacant, the first look leads.
    Follow { flight: Arc<Flight<K, R>>, number: u64 },
}

/// What a follower sees.
pub(super) enum Seen<R> {
    /// The leader is gone: to be landed or given up by who sees this.
    Lead,
    Landed(Arc<R>),
}

pub(super) struct Machine<K, R> {
    max_keys: u32,
    max_followers: u32,
    flights: Mutex<Table<K, R>>,
    /// How many follow, over all flights: for the statistics only.
    following: AtomicU64,
}

impl<K, R> Machine<K, R> {
    pub(super) fn new(max_keys: u32, max_followers: u32) -> Self {
        Self { max_keys, max_followers, flights: Mutex::new(HashMap::new()), following: AtomicU64::new(0) }
    }

    pub(super) fn max_keys(&self) -> u32 {
        self.max_keys
    }

    pub(super) fn max_followers(&self) -> u32 {
        self.max_followers
    }

    pub(super) fn in_flight(&self) -> u32 {
        u32::try_from(lock(&self.flights).len()).unwrap_or(u32::MAX)
    }

    pub(super) fn following(&self) -> u32 {
        // Relaxed: a figure, nothing is published through it.
        u32::try_from(self.following.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    fn forget_followers(&self, followers: usize) {
        // Relaxed: as above.
        self.following.fetch_sub(followers as u64, Ordering::Relaxed);
    }

    /// What a follower sees now; if nothing yet, `waker` is woken when there is. Who has seen is no follower any more.
    pub(super) fn look(&self, flight: &Flight<K, R>, number: u64, waker: &Waker) -> Poll<Seen<R>> {
        let waker = waker.clone();
        let mut state = lock(&flight.state);
        let (seen, before) = match &state.phase {
            // A flight that has landed has no followers.
            Phase::Landed(result) => (Poll::Ready(Seen::Landed(Arc::clone(result))), None),
            Phase::Vacant => {
                state.phase = Phase::Led;
                (Poll::Ready(Seen::Lead), state.followers.remove(&number))
            }
            Phase::Led => (Poll::Pending, state.followers.insert(number, waker)),
        };
        drop(state);
        if let Poll::Ready(Seen::Lead) = seen {
            self.forget_followers(1);
        }
        drop(before);
        seen
    }
}

impl<K: Eq + Hash, R> Machine<K, R> {
    /// Joins the call under way for `key`, or begins one. `is_mine` says of a flight that the caller is part of what it
    /// waits for.
    pub(super) fn join(
        &self,
        key: K,
        is_mine: impl FnOnce(&Arc<Flight<K, R>>) -> bool,
    ) -> Result<Joined<K, R>, Reason> {
        let key = Arc::new(key);
        let mut flights = lock(&self.flights);
        let Some(flight) = flights.get(&key) else {
            if flights.len() >= self.max_keys as usize {
                return Err(Reason::TooManyFlights { max_keys: self.max_keys });
            }
            let state = State { phase: Phase::Led, followers: BTreeMap::new(), next: 0 };
            let flight = Arc::new(Flight { key: Arc::clone(&key), state: Mutex::new(state) });
            flights.insert(key, Arc::clone(&flight));
            return Ok(Joined::Lead(flight));
        };
        if is_mine(flight) {
            return Err(Reason::WaitsForItself);
        }
        let flight = Arc::clone(flight);
        let mut state = lock(&flight.state);
        if state.followers.len() >= self.max_followers as usize {
            return Err(Reason::TooManyFollowers { max_followers: self.max_followers });
        }
        let number = state.next;
        state.next += 1;
        state.followers.insert(number, Waker::noop().clone());
        drop(state);
        // Relaxed: a figure, nothing is published through it.
        self.following.fetch_add(1, Ordering::Relaxed);
        Ok(Joined::Follow { flight, number })
    }

    /// A follower goes away without having seen anything.
    pub(super) fn leave(&self, flight: &Arc<Flight<K, R>>, number: u64) {
        let mut flights = lock(&self.flights);
        let mut state = lock(&flight.state);
        let left = state.followers.remove(&number);
        // It may have been the one that was woken to take over.
        let next = match state.phase {
            Phase::Vacant => Self::vacate(&mut flights, flight, &mut state),
            Phase::Led | Phase::Landed(_) => None,
        };
        drop((state, flights));
        if left.is_some() {
            self.forget_followers(1);
        }
        next.into_iter().for_each(wait::wake);
    }

    /// The leader goes away without a result.
    pub(super) fn give_up(&self, flight: &Arc<Flight<K, R>>) {
        let mut flights = lock(&self.flights);
        let mut state = lock(&flight.state);
        state.phase = Phase::Vacant;
        let next = Self::vacate(&mut flights, flight, &mut state);
        drop((state, flights));
        next.into_iter().for_each(wait::wake);
    }

    /// A flight without a leader: the first follower is to be woken; without any, the flight is over.
    fn vacate(flights: &mut Table<K, R>, flight: &Arc<Flight<K, R>>, state: &mut State<R>) -> Option<Waker> {
        let Some(mut first) = state.followers.first_entry() else {
            flights.remove(&flight.key);
            return None;
        };
        // Its place stays: it is a follower until it has looked.
        Some(std::mem::replace(first.get_mut(), Waker::noop().clone()))
    }
}

impl<K: Eq + Hash, R: Clone> Machine<K, R> {
    /// The leader's result for everybody who follows, and back for itself.
    pub(super) fn land(&self, flight: &Arc<Flight<K, R>>, result: R) -> R {
        let mut shared = None;
        loop {
            let mut flights = lock(&self.flights);
            let mut state = lock(&flight.state);
            if shared.is_some() || state.followers.is_empty() {
                flights.remove(&flight.key);
                let followers = std::mem::take(&mut state.followers);
                if let Some(shared) = shared {
                    state.phase = Phase::Landed(shared);
                }
                drop((state, flights));
                self.forget_followers(followers.len());
                followers.into_values().for_each(wait::wake);
                return result;
            }
            drop((state, flights));
            // Made outside the locks, and before anything is changed: a clone that panics leaves the flight led.
            shared = Some(Arc::new(result.clone()));
        }
    }
}
