//! A bounded memory of what was seen lately, by content hash: what the poison list and the result cache are made of.
//! Invariant: never more than `capacity` entries nor, where weights are given, more than `max_weight` in all.
//! It approximates least-recently-used with two generations: looking up and inserting cost two map operations.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::operation::Operation;

/// What identifies a call: SHA-256 of language, operation and source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(language: &str, operation: Operation, source: &str) -> Self {
        let mut hash = Sha256::new();
        // Names hold no NUL when they come from a registry that found them; the length rules out any doubt.
        hash.update((language.len() as u64).to_le_bytes());
        hash.update(language);
        hash.update(operation.as_str());
        hash.update([0]);
        hash.update(source);
        Self(hash.finalize().into())
    }
}

/// Two generations: what is used moves to the young one; when that is full, the old one is forgotten.
#[derive(Debug)]
pub(super) struct Recent<V> {
    young: Generation<V>,
    old: Generation<V>,
    capacity: usize,
    max_weight: usize,
}

#[derive(Debug)]
struct Generation<V> {
    entries: HashMap<Key, (V, usize)>,
    weight: usize,
}

impl<V> Default for Generation<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), weight: 0 }
    }
}

impl<V: Clone> Recent<V> {
    /// Room for `capacity` entries that weigh `max_weight` together; nothing is kept when either is 0.
    pub(super) fn new(capacity: usize, max_weight: usize) -> Self {
        Self { young: Generation::default(), old: Generation::default(), capacity, max_weight }
    }

    /// The value under `key`, which thereby counts as used.
    pub(super) fn get(&mut self, key: &Key) -> Option<V> {
        if let Some((value, _)) = self.young.entries.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = self.old.remove(key)?;
        self.insert(*key, value.clone(), weight);
        Some(value)
    }

    /// Remembers `value`. One that alone weighs more than half of what is allowed is not kept.
    pub(super) fn insert(&mut self, key: Key, value: V, weight: usize) {
        self.remove(&key);
        // Each generation gets half, so both together stay within the whole.
        let (entries, heaviest) = ((self.capacity / 2).max(1), self.max_weight / 2);
        if self.capacity == 0 || weight > heaviest {
            return;
        }
        if self.young.entries.len() + 1 > entries || self.young.weight + weight > heaviest {
            self.old = std::mem::take(&mut self.young);
            if self.capacity == 1 {
                self.old = Generation::default();
            }
        }
        self.young.weight += weight;
        self.young.entries.insert(key, (value, weight));
    }

    /// Forgets `key`.
    pub(super) fn remove(&mut self, key: &Key) {
        if self.young.remove(key).is_none() {
            self.old.remove(key);
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.young.entries.len() + self.old.entries.len()
    }

    #[cfg(test)]
    fn weight(&self) -> usize {
        self.young.weight + self.old.weight
    }
}

impl<V> Generation<V> {
    fn remove(&mut self, key: &Key) -> Option<(V, usize)> {
        let entry = self.entries.remove(key)?;
        self.weight -= entry.1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key::of("x", Operation::Parse, &n.to_string())
    }

    #[test]
    fn language_operation_and_source_all_make_a_difference() {
        let keys = [
            Key::of("a", Operation::Parse, "b"),
            Key::of("a", Operation::ControlFlow, "b"),
            Key::of("ab", Operation::Parse, ""),
            Key::of("a", Operation::Parse, "bc"),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(one));
        }
        assert_eq!(keys[0], Key::of("a", Operation::Parse, "b"));
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut recent = Recent::new(8, 1000);
        recent.insert(key(0), 0, 1);
        for n in 1..100 {
            recent.insert(key(n), n, 1);
            assert_eq!(recent.get(&key(0)), Some(0), "after {n}");
        }
        assert_eq!(recent.get(&key(1)), None);
        assert_eq!(recent.get(&key(99)), Some(99));
    }

    #[test]
    fn bounds_hold_and_the_newest_entry_is_there_after_any_history() {
        proptest::proptest!(|(capacity in 0_usize..10, max_weight in 0_usize..100, steps in proptest::collection::vec((0_u32..20, 0_usize..40, proptest::bool::ANY), 0..80))| {
            let mut recent = Recent::new(capacity, max_weight);
            let mut model = HashMap::new();
            for (n, weight, read) in steps {
                if read {
                    // It may have forgotten, but it never makes anything up.
                    let found = recent.get(&key(n));
                    proptest::prop_assert!(found.is_none() || found == model.get(&n).copied());
                } else {
                    recent.insert(key(n), weight, weight);
                    model.insert(n, weight);
                    let kept = capacity > 0 && weight <= max_weight / 2;
                    proptest::prop_assert_eq!(recent.get(&key(n)), kept.then_some(weight));
                }
                proptest::prop_assert!(recent.len() <= capacity && recent.weight() <= max_weight);
            }
        });
    }
}
