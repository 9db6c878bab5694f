//! Time, and waiting for it: the one place from which every policy learns what time it is.
//! All decisions are made on monotonic [`Instant`]s; wall time only ever labels records. Nothing here decides.

mod manual;

pub use manual::ManualClock;

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use crate::timers::{TimerKey, Timers};

/// A point on a clock's monotonic time line: nanoseconds since the clock's origin.
///
/// Instants of different clocks must not be compared. Arithmetic saturates at both ends (an instant can stand for
/// 584 years), so no input can make a policy overflow.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Instant;
///
/// let start = Instant::from_nanos(1_000);
/// assert_eq!((start + Duration::from_nanos(500)).saturating_duration_since(start), Duration::from_nanos(500));
/// assert_eq!(start.saturating_duration_since(start + Duration::from_secs(1)), Duration::ZERO);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole nanoseconds, saturating at `u64::MAX` (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

/// A source of time you bring yourself: a simulator's, a runtime's own timer, a platform without `std::time`.
pub trait TimeSource: Send + Sync {
    /// The monotonic time; must never go backwards.
    fn now(&self) -> Instant;
    /// The wall time, for labels only.
    fn wall(&self) -> SystemTime;
    /// Blocks the thread for `duration`.
    fn sleep_blocking(&self, duration: Duration);
    /// Completes at `deadline` or later.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

#[derive(Clone)]
enum Source {
    System,
    Manual(ManualClock),
    Custom(Arc<dyn TimeSource>),
}

/// What time it is and how to wait: the system's, a [`ManualClock`]'s, or your own [`TimeSource`]'s.
///
/// Cheap to clone. The default is the system clock, whose async [`sleep`](Clock::sleep) works under any executor
/// (one timer thread per process, started at the first sleep).
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Clock;
///
/// let (clock, time) = Clock::manual();
/// let before = clock.now();
/// time.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().saturating_duration_since(before), Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct Clock(Source);

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Manual(_) => "Clock(manual)",
            Source::Custom(_) => "Clock(custom)",
        })
    }
}

fn process_origin() -> std::time::Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(std::time::Instant::now)
}

impl Clock {
    /// The system's monotonic clock, counted from its first use in this process.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is told to move, and the handle that moves it.
    pub fn manual() -> (Self, ManualClock) {
        let handle = ManualClock::new();
        (handle.clock(), handle)
    }

    /// A clock driven by your own source of time.
    pub fn custom(source: Arc<dyn TimeSource>) -> Self {
        Self(Source::Custom(source))
    }

    /// Whether both tell the same time, so that instants of one mean something to the other.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// Tells clocks apart: 0 is the system's. Only good for as long as the clock lives.
    #[inline]
    pub(crate) fn id(&self) -> usize {
        match &self.0 {
            Source::System => 0,
            Source::Manual(manual) => manual.id(),
            Source::Custom(source) => Arc::as_ptr(source).addr(),
        }
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant(nanos(process_origin().elapsed())),
            Source::Manual(manual) => manual.now(),
            Source::Custom(source) => source.now(),
        }
    }

    /// The wall time, for labels only: it may step at any moment, so no decision may depend on it.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            Source::Manual(manual) => manual.wall(),
            Source::Custom(source) => source.wall(),
        }
    }

    /// Blocks the thread for `duration`: on a manual clock until it has been advanced that far.
    pub fn sleep_blocking(&self, duration: Duration) {
        match &self.0 {
            Source::System => std::thread::sleep(duration),
            Source::Manual(manual) => manual.sleep_blocking(duration),
            Source::Custom(source) => source.sleep_blocking(duration),
        }
    }

    /// Completes after `duration`. Needs no runtime; dropping it costs nothing and leaves nothing behind.
    ///
    /// # Panics
    /// On the system clock, when polled first and the process cannot start the one timer thread.
    ///
    /// ```
    /// use std::pin::pin;
    /// use std::task::{Context, Waker};
    /// use std::{future::Future, time::Duration};
    /// use resilience_core::Clock;
    ///
    /// let (clock, time) = Clock::manual();
    /// let mut sleep = pin!(clock.sleep(Duration::from_secs(1)));
    /// let mut cx = Context::from_waker(Waker::noop());
    /// assert!(sleep.as_mut().poll(&mut cx).is_pending());
    /// time.advance(Duration::from_secs(1));
    /// assert!(sleep.as_mut().poll(&mut cx).is_ready());
    /// ```
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Completes at `deadline` or as soon as possible after it.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        let inner = match &self.0 {
            Source::System | Source::Manual(_) => Waiting::Timers { clock: self.clone(), key: None },
            Source::Custom(source) => Waiting::Custom(source.sleep_until(deadline)),
        };
        Sleep { deadline, inner }
    }

    fn timers(&self) -> Option<&Timers> {
        match &self.0 {
            Source::System => Some(system_timers()),
            Source::Manual(manual) => Some(manual.timers()),
            Source::Custom(_) => None,
        }
    }
}

/// The timers of the system clock, served by one thread that sleeps until the earliest of them.
fn system_timers() -> &'static Timers {
    static TIMERS: OnceLock<Timers> = OnceLock::new();
    static THREAD: OnceLock<()> = OnceLock::new();
    let timers = TIMERS.get_or_init(Timers::default);
    THREAD.get_or_init(|| {
        let spawned = std::thread::Builder::new()
            .name("resilience-timer".to_owned())
            .spawn(move || timers.serve(&Clock::system()));
        if let Err(error) = spawned {
            // Without the thread, async sleeps would hang for ever: that must not go unnoticed.
            panic!("cannot start the timer thread: {error}; async waiting needs one thread per process");
        }
    });
    timers
}

enum Waiting {
    Timers { clock: Clock, key: Option<TimerKey> },
    Custom(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// A future that completes when its deadline has come. Made by [`Clock::sleep`] and [`Clock::sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    inner: Waiting,
}

impl Sleep {
    /// When it completes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        match &mut self.inner {
            Waiting::Custom(future) => future.as_mut().poll(cx),
            Waiting::Timers { clock, key } => {
                if let Source::Manual(manual) = &clock.0
                    && manual.is_auto_advancing()
                {
                    manual.advance_to(deadline);
                }
                let Some(timers) = clock.timers() else { return Poll::Ready(()) };
                if clock.now() >= deadline {
                    if let Some(key) = key.take() {
                        timers.cancel(key);
                    }
                    return Poll::Ready(());
                }
                *key = Some(timers.register(deadline, key.take(), cx.waker()));
                // The clock may have moved between the check and the registration; a second look closes the gap.
                if clock.now() >= deadline {
                    if let Some(key) = key.take() {
                        timers.cancel(key);
                    }
                    return Poll::Ready(());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Waiting::Timers { clock, key: Some(key) } = &self.inner
            && let Some(timers) = clock.timers()
        {
            timers.cancel(*key);
        }
    }
}

#[cfg(test)]
mod tests;
