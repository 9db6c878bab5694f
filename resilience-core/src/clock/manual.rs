//! The clock that stands still until it is told to move: for tests and simulations.
//! Time only ever moves forward, and everything that waited for the time passed is woken. The wall time moves along,
//! and can be stepped alone.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, atomic::AtomicU64, atomic::Ordering};
use std::time::{Duration, SystemTime};

use super::{Clock, Instant, Source, nanos};
use crate::timers::Timers;

/// The hand that moves a manual clock: time stands still between calls of [`advance`](ManualClock::advance).
///
/// Made for tests and simulations. [`auto_advancing`](ManualClock::auto_advancing) makes one on which every wait
/// moves the clock to its own end at once, so that a test of a one-hour backoff runs in microseconds.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::ManualClock;
///
/// let time = ManualClock::auto_advancing();
/// let clock = time.clock();
/// clock.sleep_blocking(Duration::from_secs(3600)); // returns at once
/// assert_eq!(time.elapsed(), Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

/// A manual clock does not start at zero: "an hour ago" must be expressible on it.
pub(super) const MANUAL_ORIGIN: Instant = Instant::from_nanos(86_400_000_000_000);
/// Its wall time starts at 2026-01-01T00:00:00Z.
const MANUAL_WALL_SECONDS: u64 = 1_767_225_600;

struct Manual {
    now: AtomicU64,
    wall_base: Mutex<(SystemTime, Instant)>,
    timers: Timers,
    auto_advance: bool,
    moved: (Mutex<()>, Condvar),
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

impl From<&ManualClock> for Clock {
    fn from(manual: &ManualClock) -> Self {
        manual.clock()
    }
}

impl ManualClock {
    /// A clock that stands still; waiting on it blocks until another thread advances it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// assert_eq!(time.elapsed(), Duration::ZERO);
    /// time.advance(Duration::from_secs(1));
    /// assert_eq!(time.elapsed(), Duration::from_secs(1));
    /// ```
    pub fn new() -> Self {
        Self::with_mode(false)
    }

    /// A clock on which a wait moves the time to the wait's end instead of blocking.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::auto_advancing();
    /// time.clock().sleep_blocking(Duration::from_secs(60)); // returns at once
    /// assert_eq!(time.elapsed(), Duration::from_secs(60));
    /// ```
    pub fn auto_advancing() -> Self {
        Self::with_mode(true)
    }

    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.0.timers
    }

    pub(super) fn is_auto_advancing(&self) -> bool {
        self.0.auto_advance
    }

    fn with_mode(auto_advance: bool) -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(MANUAL_WALL_SECONDS);
        Self(Arc::new(Manual {
            now: AtomicU64::new(MANUAL_ORIGIN.as_nanos()),
            wall_base: Mutex::new((wall, MANUAL_ORIGIN)),
            timers: Timers::default(),
            auto_advance,
            moved: (Mutex::new(()), Condvar::new()),
        }))
    }

    /// The clock that this handle moves, to give to policies.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// let clock = time.clock();
    /// time.advance(Duration::from_secs(5));
    /// assert_eq!(clock.now(), time.now());
    /// ```
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.clone()))
    }

    /// The time on the clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// let before = time.now();
    /// time.advance(Duration::from_millis(20));
    /// assert_eq!(time.now(), before + Duration::from_millis(20));
    /// ```
    pub fn now(&self) -> Instant {
        // Acquire pairs with the release in `advance_to`: who sees the time sees what was done before it was set.
        Instant::from_nanos(self.0.now.load(Ordering::Acquire))
    }

    /// How far the clock has moved since it was made.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// time.advance(Duration::from_secs(1));
    /// time.advance(Duration::from_secs(2));
    /// assert_eq!(time.elapsed(), Duration::from_secs(3));
    /// ```
    pub fn elapsed(&self) -> Duration {
        self.now().saturating_duration_since(MANUAL_ORIGIN)
    }

    /// Moves the clock forward and wakes everything that waited for the time passed. Moves wall time as far.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// let (clock, hour) = (time.clock(), Duration::from_secs(3600));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// tokio::join!(clock.sleep(hour), async { time.advance(hour) }); // the sleeper is woken
    /// # });
    /// assert_eq!(time.elapsed(), hour);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn advance(&self, duration: Duration) {
        let moved = |now: u64| Some(now.saturating_add(nanos(duration)));
        // AcqRel: as in `advance_to`. An update, so that two threads that advance at once both count.
        let before = match self.0.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, moved) {
            Ok(before) | Err(before) => before,
        };
        self.wake(Instant::from_nanos(before) + duration);
    }

    /// Moves the clock forward to `instant`; does nothing when that lies in the past.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// let start = time.now();
    /// time.advance_to(start + Duration::from_secs(5));
    /// time.advance_to(start); // not back
    /// assert_eq!(time.elapsed(), Duration::from_secs(5));
    /// ```
    pub fn advance_to(&self, instant: Instant) {
        let before = self.0.now.fetch_max(instant.as_nanos(), Ordering::AcqRel);
        if before < instant.as_nanos() {
            self.wake(instant);
        }
    }

    fn wake(&self, now: Instant) {
        self.0.timers.wake_due(now);
        drop(self.0.moved.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.moved.1.notify_all();
    }

    /// Steps the wall clock, and only it: monotonic time is not touched.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// time.set_wall(SystemTime::UNIX_EPOCH);
    /// assert_eq!(time.wall(), SystemTime::UNIX_EPOCH);
    /// assert_eq!(time.elapsed(), Duration::ZERO);
    /// ```
    pub fn set_wall(&self, wall: SystemTime) {
        *self.0.wall_base.lock().unwrap_or_else(PoisonError::into_inner) = (wall, self.now());
    }

    /// The wall time on this clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::new();
    /// let before = time.wall();
    /// time.advance(Duration::from_secs(60));
    /// assert_eq!(time.wall(), before + Duration::from_secs(60));
    /// ```
    pub fn wall(&self) -> SystemTime {
        let (wall, at) = *self.0.wall_base.lock().unwrap_or_else(PoisonError::into_inner);
        wall + self.now().saturating_duration_since(at)
    }

    pub(super) fn sleep_blocking(&self, duration: Duration) {
        let deadline = self.now() + duration;
        if self.0.auto_advance {
            self.advance_to(deadline);
            return;
        }
        let (mutex, moved) = &self.0.moved;
        let mut guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        while self.now() < deadline {
            guard = moved.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
