//! A history in fixed memory: the newest entries stay, the oldest make room. Allocates once, at its first entry.

use std::collections::VecDeque;

/// The newest `capacity` entries, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Ring<T> {
    entries: VecDeque<T>,
    capacity: usize,
}

impl<T> Ring<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity }
    }

    pub(crate) fn push(&mut self, entry: T) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(self.capacity);
        }
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.entries.back()
    }

    /// The newest `limit` entries, oldest first.
    pub(crate) fn newest(&self, limit: usize) -> impl Iterator<Item = &T> {
        self.entries.iter().skip(self.entries.len().saturating_sub(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_forgets_the_oldest_and_never_grows() {
        let mut ring = Ring::new(3);
        for n in 0..1000 {
            ring.push(n);
        }
        assert_eq!(ring.newest(10).copied().collect::<Vec<_>>(), [997, 998, 999]);
        assert_eq!(ring.newest(2).copied().collect::<Vec<_>>(), [998, 999]);
        assert_eq!(ring.entries.capacity(), 3);
    }
}
