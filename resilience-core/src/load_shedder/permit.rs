//! The right to be in flight under a load shedder. It comes back when it is dropped, whatever the reason, exactly once.

use std::borrow::Cow;
use std::fmt;

use super::LoadShedder;

/// The right to make one call, given by [`LoadShedder::try_acquire`] and its kin. Dropping it gives it back.
///
/// ```
/// use resilience_core::{LoadShedder, Priority};
///
/// let shedder = LoadShedder::builder("api").build()?;
/// {
///     let _permit = shedder.try_acquire(Priority::Normal).expect("nobody is inside");
///     assert_eq!(shedder.statistics().in_flight, 1);
/// }
/// assert_eq!(shedder.statistics().in_flight, 0);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[must_use = "a permit that is dropped at once bounds nothing"]
pub struct Permit<'a> {
    /// Only gone when the permit was turned into another one.
    shedder: Option<Cow<'a, LoadShedder>>,
}

impl<'a> Permit<'a> {
    /// Whoever makes one has entered.
    pub(super) fn new(shedder: Cow<'a, LoadShedder>) -> Self {
        Self { shedder: Some(shedder) }
    }

    /// The same permit, holding a handle of its shedder: to be kept in a table or moved into a task. Costs a reference
    /// count.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").build()?;
    /// let permit = shedder.try_acquire(Priority::Low).expect("nobody is inside").into_owned();
    /// let work = std::thread::spawn(move || drop(permit)); // the work, and then the permit back
    /// work.join().unwrap();
    /// assert_eq!(shedder.statistics().in_flight, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn into_owned(mut self) -> Permit<'static> {
        Permit { shedder: self.shedder.take().map(|shedder| Cow::Owned(shedder.into_owned())) }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(shedder) = &self.shedder {
            shedder.leave();
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("shedder", &self.shedder.as_deref().map(LoadShedder::name)).finish()
    }
}
