//! A place in a limiter's queue in the caller's hands: it is kept when it was used and given up in every other case.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::{Place, RateLimiter};
use crate::clock::{Clock, Instant};

/// Permits that were taken for a time to come, or for now. Made by [`RateLimiter::reserve`] and, for a key, by
/// [`KeyedRateLimiter::reserve`](super::KeyedRateLimiter::reserve).
///
/// Dropped without [`used`](Self::used), [`wait`](Self::wait) or [`wait_async`](Self::wait_async) having ended, it
/// gives its permits up: wholly when nobody took any after it, and for who comes next when others queue behind it.
/// Two kinds are not given back, because they could then be used twice: those of a reservation that had been ready
/// already when others took permits after it, or when the rate was changed. They come back with time, like used ones.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, RateLimiter};
///
/// let (clock, time) = Clock::manual();
/// let limiter = RateLimiter::builder("mail").rate(1, Duration::from_secs(1)).burst(1).clock(clock.clone()).build()?;
/// limiter.try_acquire(1).unwrap();
/// let reservation = limiter.reserve(1, Duration::from_secs(10)).unwrap();
/// assert_eq!(reservation.ready_in(), Duration::from_secs(1));
/// drop(reservation); // something else came up
/// time.advance(Duration::from_secs(1));
/// let reservation = limiter.reserve(1, Duration::ZERO).unwrap();
/// assert!(reservation.ready_at() <= clock.now());
/// reservation.used();
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[must_use = "a reservation that is dropped is given up"]
pub struct Reservation<'a, L: Limits = &'a RateLimiter> {
    limits: L,
    permits: u32,
    /// Gone when it was used.
    place: Option<Place>,
    ready_at: Instant,
    borrowed: PhantomData<&'a ()>,
}

/// What hands out places: a limiter, or a keyed one with a key.
pub trait Limits {
    /// Its name.
    #[doc(hidden)]
    fn name(&self) -> &str;
    /// Where it takes the time from.
    #[doc(hidden)]
    fn clock(&self) -> &Clock;
    /// Gives up a place that was not used.
    #[doc(hidden)]
    fn give_up(&self, place: Place);
}

impl Limits for &RateLimiter {
    fn name(&self) -> &str {
        RateLimiter::name(self)
    }

    fn clock(&self) -> &Clock {
        RateLimiter::clock(self)
    }

    fn give_up(&self, place: Place) {
        RateLimiter::give_up(self, place);
    }
}

impl<L: Limits> fmt::Debug for Reservation<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("limiter", &self.limits.name())
            .field("permits", &self.permits)
            .field("ready_at", &self.ready_at)
            .finish_non_exhaustive()
    }
}

impl<L: Limits> Reservation<'_, L> {
    pub(super) const fn new(limits: L, permits: u32, place: Place) -> Self {
        Self { limits, permits, ready_at: place.usable_from, place: Some(place), borrowed: PhantomData }
    }

    /// From when on its permits may be used, on the limiter's clock. Who uses them earlier breaks the limit, and who
    /// uses them later may meet the one behind.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, RateLimiter};
    /// let (clock, _time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = RateLimiter::builder("mail").rate(1, second).burst(1).clock(clock.clone()).build()?;
    /// limiter.try_acquire(1)?;
    /// assert_eq!(limiter.reserve(1, second)?.ready_at(), clock.now() + second);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ready_at(&self) -> Instant {
        self.ready_at
    }

    /// How long until then; zero when they may be used now.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, RateLimiter};
    /// let (clock, time) = Clock::manual();
    /// let second = Duration::from_secs(1);
    /// let limiter = RateLimiter::builder("mail").rate(1, second).burst(1).clock(clock).build()?;
    /// limiter.try_acquire(1)?;
    /// let reservation = limiter.reserve(1, second)?;
    /// time.advance(second / 4);
    /// assert_eq!(reservation.ready_in(), second * 3 / 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ready_in(&self) -> Duration {
        self.ready_at.saturating_duration_since(self.limits.clock().now())
    }

    /// How many permits it holds.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::RateLimiter;
    /// let limiter = RateLimiter::builder("mail").burst(5).build()?;
    /// assert_eq!(limiter.reserve(3, Duration::ZERO)?.permits(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn permits(&self) -> u32 {
        self.permits
    }

    /// The permits are used: they come back with time only.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, RateLimiter};
    /// # let (clock, _time) = Clock::manual();
    /// let limiter = RateLimiter::builder("mail").burst(5).clock(clock).build()?;
    /// drop(limiter.reserve(2, Duration::ZERO)?); // given up
    /// assert_eq!(limiter.statistics().available, 5);
    /// limiter.reserve(2, Duration::ZERO)?.used();
    /// assert_eq!(limiter.statistics().available, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn used(mut self) {
        self.place = None;
    }

    /// Blocks the thread until the permits may be used, which they then are.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{ManualClock, RateLimiter};
    /// let (time, second) = (ManualClock::auto_advancing(), Duration::from_secs(1));
    /// let limiter = RateLimiter::builder("mail").rate(1, second).burst(1).clock(time.clock()).build()?;
    /// limiter.try_acquire(1)?;
    /// limiter.reserve(1, second)?.wait();
    /// assert_eq!(time.elapsed(), second);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(self) {
        let wait = self.ready_in();
        if !wait.is_zero() {
            self.limits.clock().sleep_blocking(wait);
        }
        self.used();
    }

    /// Waits until the permits may be used, which they then are. Dropping the future gives them up.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{ManualClock, RateLimiter};
    /// let (time, second) = (ManualClock::auto_advancing(), Duration::from_secs(1));
    /// let limiter = RateLimiter::builder("mail").rate(1, second).burst(1).clock(time.clock()).build()?;
    /// limiter.try_acquire(1)?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(limiter.reserve(1, second)?.wait_async());
    /// assert_eq!(time.elapsed(), second);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn wait_async(self) {
        let clock = self.limits.clock();
        if self.ready_at > clock.now() {
            clock.sleep_until(self.ready_at).await;
        }
        self.used();
    }
}

impl<L: Limits> Drop for Reservation<'_, L> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.limits.give_up(place);
        }
    }
}
