//! What a load shedder can be told, and the checks on it. Nothing here runs after the shedder is built or reconfigured.

use std::sync::Arc;

use super::machine::{Terms, WHOLE};
use super::{LoadShedder, Priority};
use crate::config::{self, ConfigError};
use crate::event::Observers;

/// Builds a [`LoadShedder`], or gives one new settings by [`LoadShedder::reconfigure`].
///
/// ```
/// use resilience_core::{LoadShedder, Priority};
///
/// let shedder = LoadShedder::builder("api").max_concurrent(10).share(Priority::Low, 0.3).build()?;
/// assert_eq!(shedder.statistics().of(Priority::Low).limit, 3);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LoadShedderBuilder {
    name: Arc<str>,
    max_concurrent: u32,
    /// By priority, least important first.
    shares: [f64; Priority::ALL.len()],
    observers: Observers,
}

impl LoadShedderBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, max_concurrent: 100, shares: [0.25, 0.5, 0.8, 0.95, 1.0], observers: Observers::new() }
    }

    /// How many calls can be in flight at once: from 1; default 100.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(1).build()?;
    /// let _permit = shedder.try_acquire(Priority::Critical).expect("nobody is inside");
    /// assert!(shedder.try_acquire(Priority::Critical).is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[doc(alias("max_concurrency", "limit"))]
    #[must_use]
    pub fn max_concurrent(mut self, calls: u32) -> Self {
        self.max_concurrent = calls;
        self
    }

    /// How much of `max_concurrent` may be in use when a call of this priority comes in, from 0 (never let in) to 1.
    /// Defaults: critical 1, high 0.95, normal 0.8, low 0.5, background 0.25. The more important a priority, the larger
    /// its share, or as large; that of critical calls is always 1. Kept in millionths.
    ///
    /// ```
    /// use resilience_core::{LoadShedder, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(200).share(Priority::Background, 0.1).build()?;
    /// assert_eq!(shedder.statistics().of(Priority::Background).limit, 20);
    ///
    /// let error = LoadShedder::builder("api").share(Priority::Background, 0.6).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`api.share.background` is 0.6; allowed: at most 0.5, the share of low");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn share(mut self, priority: Priority, share: f64) -> Self {
        self.shares[priority.index()] = share;
        self
    }

    /// Who hears of its refusals. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    /// use resilience_core::{Event, LoadShedder, Observers, Priority};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let listen = move |event: &Event<'_>| {
    ///     if let Event::Rejected { rejection, .. } = event {
    ///         tell.send(rejection.to_string()).unwrap();
    ///     }
    /// };
    /// let observers = Observers::new().with(Arc::new(listen));
    /// let shedder = LoadShedder::builder("api").share(Priority::Background, 0.0).observers(observers).build()?;
    /// assert!(shedder.try_acquire(Priority::Background).is_err());
    /// assert_eq!(told.try_recv().unwrap(), "load shedder `api` has no room for background calls");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes the shedder.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// use resilience_core::LoadShedder;
    ///
    /// let error = LoadShedder::builder("api").max_concurrent(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`api.max_concurrent` is 0; allowed: 1 to 4294967295");
    /// ```
    pub fn build(self) -> Result<LoadShedder, ConfigError> {
        let terms = self.terms()?;
        Ok(LoadShedder::from_parts(self.name, self.observers, terms))
    }

    /// The checked settings, without pressure.
    pub(super) fn terms(&self) -> Result<Terms, ConfigError> {
        config::name(&self.name)?;
        config::in_range(&self.name, "max_concurrent", self.max_concurrent, &1, &u32::MAX)?;
        let refuse = |priority: Priority, allowed: &str| {
            let share = self.shares[priority.index()];
            Err(ConfigError::new(format!("{}.share.{priority}", self.name), share, allowed))
        };
        for (priority, share) in Priority::ALL.into_iter().zip(self.shares) {
            if !(0.0..=1.0).contains(&share) {
                return refuse(priority, "0 to 1");
            }
        }
        for pair in Priority::ALL.windows(2) {
            let [below, above] = [self.shares[pair[0].index()], self.shares[pair[1].index()]];
            if below > above {
                return refuse(pair[0], &format!("at most {above}, the share of {}", pair[1]));
            }
        }
        if self.shares[Priority::Critical.index()] < 1.0 {
            return refuse(Priority::Critical, "1; what is critical may use everything");
        }
        Ok(Terms { max_concurrent: self.max_concurrent, shares: self.shares.map(millionths), pressure: 0 })
    }
}

/// A number from 0 to 1 in millionths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "was checked to be from 0 to 1")]
pub(super) fn millionths(part: f64) -> u32 {
    (part * f64::from(WHOLE)).round() as u32
}
