//! The shedder's state machine: one count, and for each priority the count below which it is let in.
//! The count decides who is in, by compare-and-swap, so no limit is ever passed; limits grow with importance at every
//! moment, also while they are changed, so nobody is let in where a more important call would be refused.

use super::Priority;
use crate::sync::{AtomicU32, Mutex, Ordering, lock};

const PRIORITIES: usize = Priority::ALL.len();

/// Shares and pressure are kept in millionths: whole numbers, so that a limit is never off by a rounding error.
pub(super) const WHOLE: u32 = 1_000_000;

/// What the limits follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) max_concurrent: u32,
    /// In millionths, by priority; never less for the more important.
    pub(super) shares: [u32; PRIORITIES],
    /// In millionths.
    pub(super) pressure: u32,
}

impl Terms {
    /// How many may be in flight when a call of this priority is the last to be let in.
    fn limit(&self, priority: usize) -> u32 {
        let left = u64::from(self.shares[priority].saturating_sub(self.pressure));
        let limit = (u64::from(self.max_concurrent) * left).div_ceil(u64::from(WHOLE));
        // A share is at most the whole, so the limit is at most the maximum.
        u32::try_from(limit).unwrap_or(self.max_concurrent)
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    in_flight: AtomicU32,
    limits: [AtomicU32; PRIORITIES],
    /// Only who changes or shows them takes the lock.
    terms: Mutex<Terms>,
}

impl Machine {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            limits: std::array::from_fn(|priority| AtomicU32::new(terms.limit(priority))),
            terms: Mutex::new(terms),
        }
    }

    /// Lets one in, or not. Who is let in must leave.
    pub(super) fn try_enter(&self, priority: Priority) -> bool {
        // Acquire pairs with `change`: who sees a limit sees every limit that was changed before it.
        let limit = self.limits[priority.index()].load(Ordering::Acquire);
        let enter = |in_flight| (in_flight < limit).then(|| in_flight + 1);
        // Acquire pairs with `leave`: who comes in sees what those did who went.
        self.in_flight.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok()
    }

    pub(super) fn leave(&self) {
        // Release: what was done inside is seen by who comes in next.
        let before = self.in_flight.fetch_sub(1, Ordering::Release);
        debug_assert!(before > 0, "nobody leaves who is not inside");
    }

    pub(super) fn in_flight(&self) -> u32 {
        // Relaxed: a figure for people.
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The terms, and the limits that follow from them, by priority.
    pub(super) fn terms(&self) -> (Terms, [u32; PRIORITIES]) {
        let terms = *lock(&self.terms);
        (terms, std::array::from_fn(|priority| terms.limit(priority)))
    }

    /// Changes the terms and lets the limits follow. Who is in stays in.
    ///
    /// First those that fall, least important first, then those that rise, most important first: in between as well,
    /// no limit is above a more important one.
    pub(super) fn change(&self, change: impl FnOnce(&mut Terms)) {
        let mut terms = lock(&self.terms);
        let before = *terms;
        change(&mut terms);
        for (priority, limit) in self.limits.iter().enumerate() {
            if terms.limit(priority) < before.limit(priority) {
                // Release, here and below, pairs with the load in `try_enter`.
                limit.store(terms.limit(priority), Ordering::Release);
            }
        }
        for (priority, limit) in self.limits.iter().enumerate().rev() {
            if terms.limit(priority) > before.limit(priority) {
                limit.store(terms.limit(priority), Ordering::Release);
            }
        }
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_limit_is_its_share_rounded_up_and_never_above_a_more_important_one(
            max_concurrent in 1_u32..,
            mut shares in proptest::array::uniform5(0..=WHOLE),
            pressure in 0..=WHOLE,
        ) {
            shares.sort_unstable();
            shares[PRIORITIES - 1] = WHOLE;
            let terms = Terms { max_concurrent, shares, pressure };
            let limits: [u32; PRIORITIES] = std::array::from_fn(|priority| terms.limit(priority));
            prop_assert!(limits.is_sorted());
            for (limit, share) in limits.into_iter().zip(shares) {
                let exact = u128::from(max_concurrent) * u128::from(share.saturating_sub(pressure));
                let whole = u128::from(WHOLE);
                prop_assert!(u128::from(limit) * whole >= exact && u128::from(limit) * whole < exact + whole);
            }
            prop_assert!(pressure > 0 || limits[PRIORITIES - 1] == max_concurrent);
        }
    }
}
