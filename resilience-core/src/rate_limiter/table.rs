//! The keys of one shard: a dense list of buckets, and an index by hash over it (open addressing, linear probing).
//! A hand goes round the list and removes buckets that are full again, a few at a time. It knows no clock and no lock.
//! Own code rather than `HashMap`, which has no place to stop at and go on from, and would hash each key twice.

use std::borrow::Borrow;

use super::gaps::Held;

struct Slot<K> {
    key: K,
    hash: u64,
    held: Held,
}

/// Every slot stands in the index once, on the first free position from its hash on.
pub(super) struct Table<K> {
    slots: Vec<Slot<K>>,
    /// Slot number + 1; 0 is free. A power of two long, at most half used.
    index: Vec<u32>,
    /// Which slot the eviction looks at next.
    hand: usize,
    /// No bucket is earlier: takes only move them later, and who moves one back [tells](Self::not_before).
    earliest: u64,
}

/// What a round of eviction came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swept {
    pub(super) looked_at: usize,
    pub(super) evicted: usize,
    /// None of the buckets that stayed and were looked at is earlier; nor is any other after a whole round.
    pub(super) earliest: u64,
}

impl<K> Table<K> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), index: Vec::new(), hand: 0, earliest: u64::MAX }
    }

    #[cfg(test)]
    const fn len(&self) -> usize {
        self.slots.len()
    }

    const fn mask(&self) -> usize {
        self.index.len().wrapping_sub(1)
    }

    /// Where the index is looked up first. The low bits: the high ones chose the shard.
    #[expect(clippy::cast_possible_truncation, reason = "the mask takes the low bits anyway")]
    const fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask()
    }

    /// The bucket of `key`.
    #[inline]
    pub(super) fn get_mut<Q>(&mut self, hash: u64, key: &Q) -> Option<&mut Held>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        if self.index.is_empty() {
            return None;
        }
        let (mask, mut position) = (self.mask(), self.home(hash));
        loop {
            let number = (self.index[position] as usize).checked_sub(1)?;
            let slot = &self.slots[number];
            if slot.hash == hash && slot.key.borrow() == key {
                return Some(&mut self.slots[number].held);
            }
            position = (position + 1) & mask;
        }
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, hash: u64, key: K, held: Held) {
        if (self.slots.len() + 1) * 2 > self.index.len() {
            self.grow();
        }
        self.not_before(held.empty_at);
        self.slots.push(Slot { key, hash, held });
        self.enter(self.slots.len() - 1);
    }

    /// A bucket may be as early as this.
    pub(super) fn not_before(&mut self, empty_at: u64) {
        self.earliest = self.earliest.min(empty_at);
    }

    /// Changes every bucket.
    pub(super) fn change(&mut self, mut change: impl FnMut(&mut Held)) {
        self.earliest = u64::MAX;
        for slot in &mut self.slots {
            change(&mut slot.held);
            self.earliest = self.earliest.min(slot.held.empty_at);
        }
    }

    fn grow(&mut self) {
        self.index = vec![0; (self.index.len() * 2).max(8)];
        for number in 0..self.slots.len() {
            self.enter(number);
        }
    }

    /// Enters a slot into the index.
    fn enter(&mut self, number: usize) {
        let position = self.position(self.slots[number].hash, 0);
        self.index[position] = Self::entry_of(number);
    }

    /// Where `entry` (0: a free place) stands in the index for this hash.
    fn position(&self, hash: u64, entry: u32) -> usize {
        let mut position = self.home(hash);
        while self.index[position] != entry {
            position = (position + 1) & self.mask();
        }
        position
    }

    /// A slot's entry in the index. There are fewer keys than 2^32, so it fits.
    fn entry_of(number: usize) -> u32 {
        u32::try_from(number + 1).unwrap_or(u32::MAX)
    }

    /// Removes a slot; the last one takes its number.
    fn remove(&mut self, number: usize) {
        let mask = self.mask();
        let mut free = self.position(self.slots[number].hash, Self::entry_of(number));
        let mut next = (free + 1) & mask;
        // Those behind it in its chain move up, so that no search ends at the free place before it finds them.
        while self.index[next] != 0 {
            let wanted = self.home(self.slots[self.index[next] as usize - 1].hash);
            if next.wrapping_sub(wanted) & mask >= next.wrapping_sub(free) & mask {
                self.index[free] = self.index[next];
                free = next;
            }
            next = (next + 1) & mask;
        }
        self.index[free] = 0;
        let last = self.slots.len() - 1;
        if number != last {
            let position = self.position(self.slots[last].hash, Self::entry_of(last));
            self.index[position] = Self::entry_of(number);
        }
        self.slots.swap_remove(number);
    }

    /// Looks at up to `budget` buckets, from where the hand stopped, and removes those not later than `full`.
    pub(super) fn sweep(&mut self, full: u64, budget: usize) -> Swept {
        if full < self.earliest {
            return Swept { looked_at: 0, evicted: 0, earliest: self.earliest };
        }
        let looked_at = budget.min(self.slots.len());
        let whole_round = looked_at == self.slots.len();
        if whole_round {
            // From the start: on the second half of a round, removing would bring slots to the hand that it has seen.
            self.hand = 0;
        }
        let mut swept = Swept { looked_at, evicted: 0, earliest: u64::MAX };
        for _ in 0..looked_at {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let empty_at = self.slots[self.hand].held.empty_at;
            if empty_at <= full {
                // The last slot comes to the hand: it is looked at next.
                self.remove(self.hand);
                swept.evicted += 1;
            } else {
                swept.earliest = swept.earliest.min(empty_at);
                self.hand += 1;
            }
        }
        if whole_round {
            self.earliest = swept.earliest;
        }
        swept
    }
}

#[cfg(all(test, not(resilience_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map; few hashes, so that chains are long and wrap around the end.
        #[test]
        fn it_finds_what_a_map_finds(steps in proptest::collection::vec((0_u8..8, 0_u16..60, 1_u64..100, 0_u64..9), 1..300)) {
            let (mut table, mut model) = (Table::new(), BTreeMap::new());
            let hash = |key: u16| u64::from(key % 7).wrapping_sub(3);
            for (step, key, empty_at, budget) in steps {
                match step {
                    0..6 => {
                        if let Some(found) = table.get_mut(hash(key), &key) {
                            let later = empty_at.max(found.empty_at);
                            prop_assert_eq!(model.insert(key, later), Some(found.empty_at));
                            found.empty_at = later;
                        } else {
                            prop_assert_eq!(model.insert(key, empty_at), None);
                            table.insert(hash(key), key, Held::new(empty_at));
                        }
                    }
                    6 => {
                        let before = model.len();
                        let swept = table.sweep(empty_at, usize::try_from(budget).unwrap());
                        model.retain(|key, _| table.get_mut(hash(*key), key).is_some());
                        prop_assert_eq!(before - model.len(), swept.evicted);
                        prop_assert!(swept.evicted <= swept.looked_at);
                    }
                    _ => {
                        let swept = table.sweep(empty_at, usize::MAX);
                        model.retain(|_, it| *it > empty_at);
                        prop_assert!(swept.earliest <= model.values().min().copied().unwrap_or(u64::MAX));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                for (key, empty_at) in &model {
                    prop_assert_eq!(table.get_mut(hash(*key), key).map(|held| held.empty_at), Some(*empty_at));
                }
            }
        }
    }
}
