//! The right to be inside a bulkhead. It comes back when it is dropped, whatever the reason, exactly once.

use std::borrow::Cow;
use std::fmt;

use super::Bulkhead;

/// The right to make one call, given by [`Bulkhead::try_acquire`] and its kin. Dropping it gives it back, to the first
/// who waits.
///
/// ```
/// use resilience_core::Bulkhead;
///
/// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).build()?;
/// {
///     let _permit = bulkhead.try_acquire().expect("nobody is inside");
///     assert_eq!(bulkhead.statistics().in_flight, 1);
/// }
/// assert_eq!(bulkhead.statistics().in_flight, 0);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[must_use = "a permit that is dropped at once bounds nothing"]
pub struct Permit<'a> {
    /// Only gone when the permit was turned into another one.
    bulkhead: Option<Cow<'a, Bulkhead>>,
}

impl<'a> Permit<'a> {
    /// Whoever makes one has entered.
    pub(super) fn new(bulkhead: Cow<'a, Bulkhead>) -> Self {
        Self { bulkhead: Some(bulkhead) }
    }

    /// The same permit, holding a handle of its bulkhead: to be kept in a table or moved into a task. Costs a
    /// reference count.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).build()?;
    /// let permit = bulkhead.acquire(Duration::from_secs(1)).expect("nobody is inside").into_owned();
    /// let report = std::thread::spawn(move || drop(permit)); // the work, and then the permit back
    /// report.join().unwrap();
    /// assert_eq!(bulkhead.statistics().in_flight, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn into_owned(mut self) -> Permit<'static> {
        Permit { bulkhead: self.bulkhead.take().map(|bulkhead| Cow::Owned(bulkhead.into_owned())) }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(bulkhead) = &self.bulkhead {
            bulkhead.leave();
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("bulkhead", &self.bulkhead.as_deref().map(Bulkhead::name)).finish()
    }
}
