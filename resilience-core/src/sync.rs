//! The synchronisation primitives the state machines are built on: the standard library's, or loom's under
//! `--cfg resilience_loom`, so that the models check exactly the code that ships. Nothing else may import them directly.

#[cfg(not(resilience_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(resilience_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Locks, going on after a panic elsewhere: every critical section in this crate leaves the data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
