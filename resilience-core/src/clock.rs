//! Time, and waiting for it: the one place from which every policy learns what time it is.
//! All decisions are made on monotonic [`Instant`]s; wall time only ever labels records. Nothing here decides.

#[cfg(feature = "quanta")]
mod fast;
mod manual;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod system;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
#[path = "clock/web.rs"]
mod system;
#[cfg(all(feature = "tokio", not(all(target_family = "wasm", target_os = "unknown"))))]
mod tokio;

pub use manual::ManualClock;

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use crate::timers::{TimerKey, Timers};
use crate::wait;

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
    ///
    /// ```
    /// use resilience_core::Instant;
    ///
    /// assert_eq!(Instant::from_nanos(7).as_nanos(), 7);
    /// ```
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Instant;
    ///
    /// assert_eq!((Instant::from_nanos(5) + Duration::from_micros(1)).as_nanos(), 1_005);
    /// ```
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Instant;
    ///
    /// let (early, late) = (Instant::from_nanos(5), Instant::from_nanos(8));
    /// assert_eq!(late.saturating_duration_since(early), Duration::from_nanos(3));
    /// assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
    /// ```
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
///
/// ```
/// use std::future::{Future, ready};
/// use std::pin::Pin;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::{Duration, SystemTime};
/// use resilience_core::RateLimiter;
/// use resilience_core::clock::{Clock, Instant, TimeSource};
///
/// /// A simulation's time: every wait moves it to the wait's end.
/// #[derive(Default)]
/// struct Simulated(AtomicU64);
///
/// impl TimeSource for Simulated {
///     fn now(&self) -> Instant {
///         Instant::from_nanos(self.0.load(Ordering::SeqCst))
///     }
///     fn wall(&self) -> SystemTime {
///         SystemTime::UNIX_EPOCH + Duration::from_nanos(self.now().as_nanos())
///     }
///     fn sleep_blocking(&self, duration: Duration) {
///         self.0.fetch_max((self.now() + duration).as_nanos(), Ordering::SeqCst);
///     }
///     fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
///         self.0.fetch_max(deadline.as_nanos(), Ordering::SeqCst);
///         Box::pin(ready(()))
///     }
/// }
///
/// let clock = Clock::custom(Arc::new(Simulated::default()));
/// let hourly = RateLimiter::builder("reports").rate(1, Duration::from_secs(3600)).burst(1).clock(clock.clone()).build()?;
/// for _ in 0..3 {
///     hourly.acquire(1, Duration::from_secs(3600)).unwrap();
/// }
/// assert_eq!(clock.now().as_nanos(), 2 * 3_600_000_000_000); // two waits, in no real time
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
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
    System(Reading),
    Manual(ManualClock),
    Custom(Arc<dyn TimeSource>),
}

/// How the time of a real clock is read; waiting and wall time are the system's for all of them, except where tokio
/// waits.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    System,
    #[cfg(feature = "quanta")]
    Fast,
    #[cfg(feature = "tokio")]
    Tokio,
}

impl Reading {
    fn now(self) -> Instant {
        match self {
            Self::System => system::now(),
            #[cfg(feature = "quanta")]
            Self::Fast => fast::now(),
            #[cfg(feature = "tokio")]
            Self::Tokio => tokio::now(),
        }
    }

    /// A sleep of its own, where it has one here.
    fn sleep_until(self, #[cfg_attr(not(feature = "tokio"), allow(unused))] deadline: Instant) -> Option<Boxed> {
        match self {
            #[cfg(feature = "tokio")]
            Self::Tokio => tokio::sleep_until(deadline),
            #[cfg(feature = "quanta")]
            Self::Fast => None,
            Self::System => None,
        }
    }

    /// When it is `deadline`, by the system's clock.
    fn on_system(self, deadline: Instant) -> Instant {
        match self {
            Self::System => deadline,
            #[cfg(any(feature = "quanta", feature = "tokio"))]
            _ => system::now() + deadline.saturating_duration_since(self.now()),
        }
    }
}

/// What time it is and how to wait: the system's, tokio's, a [`ManualClock`]'s, or your own [`TimeSource`]'s.
///
/// Cheap to clone. The default is the system clock, whose async [`sleep`](Clock::sleep) works under any executor
/// (one timer thread per process, started at the first sleep).
///
/// In a browser and in Node.js (`wasm32-unknown-unknown`) the system clock is JavaScript's, and async sleeps are its
/// `setTimeout`s: everything async works as elsewhere. A thread can't be blocked there, see
/// [`sleep_blocking`](Clock::sleep_blocking).
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
            Source::System(Reading::System) => "Clock(system)",
            #[cfg(feature = "quanta")]
            Source::System(Reading::Fast) => "Clock(fast)",
            #[cfg(feature = "tokio")]
            Source::System(Reading::Tokio) => "Clock(tokio)",
            Source::Manual(_) => "Clock(manual)",
            Source::Custom(_) => "Clock(custom)",
        })
    }
}

impl Clock {
    /// The system's monotonic clock, counted from its first use in this process.
    ///
    /// ```
    /// use resilience_core::Clock;
    ///
    /// let clock = Clock::system();
    /// let before = clock.now();
    /// assert!(clock.now() >= before);
    /// ```
    pub const fn system() -> Self {
        Self(Source::System(Reading::System))
    }

    /// The system's time, read from the processor's own counter, which costs less than asking the system. For
    /// policies whose calls take less than a microsecond; elsewhere [`system`](Self::system) is the simpler choice.
    ///
    /// The counter is measured against the system's clock once, at first use (about a millisecond, at most 200 ms), and
    /// then goes its own way: it drifts from the system's, and readings of two threads may be some
    /// nanoseconds out of order. Where the processor has no such counter, this is the system's monotonic clock.
    ///
    /// Its instants mean nothing to other clocks: give it to a pipeline and to its policies.
    ///
    /// ```
    /// use resilience_core::{Clock, RateLimiter};
    ///
    /// let clock = Clock::fast();
    /// let limiter = RateLimiter::builder("cache").burst(2).clock(clock.clone()).build()?;
    /// let before = clock.now();
    /// assert!(limiter.try_acquire(2).is_ok());
    /// assert!(clock.now() >= before);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[cfg(feature = "quanta")]
    #[cfg_attr(docsrs, doc(cfg(feature = "quanta")))]
    #[doc(alias = "tsc")]
    pub const fn fast() -> Self {
        Self(Source::System(Reading::Fast))
    }

    /// The time of the tokio runtime it is asked in, which `tokio::time::pause` and `advance` move: for async tests
    /// that run on tokio's own test clock. Async sleeps are tokio's; outside a runtime, time and sleeps are the
    /// system's; so they are in a browser. Blocking calls wait for real, paused or not: a thread that waits cannot drive
    /// the runtime.
    ///
    /// # Panics
    /// Sleeping does, within a runtime whose time is not enabled (`enable_time`).
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Clock;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
    /// let clock = Clock::tokio();
    /// let before = clock.now();
    /// clock.sleep(Duration::from_secs(3600)).await; // at once: tokio's time is paused
    /// assert!(clock.now().saturating_duration_since(before) >= Duration::from_secs(3600));
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub const fn tokio() -> Self {
        Self(Source::System(Reading::Tokio))
    }

    /// A clock that stands still until it is told to move, and the handle that moves it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Clock;
    ///
    /// let (clock, time) = Clock::manual();
    /// time.advance(Duration::from_secs(1));
    /// assert_eq!(clock.now(), time.now());
    /// ```
    pub fn manual() -> (Self, ManualClock) {
        let handle = ManualClock::new();
        (handle.clock(), handle)
    }

    /// A clock driven by your own source of time.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use resilience_core::clock::{Clock, Instant, TimeSource};
    ///
    /// /// Time that stands still.
    /// struct Frozen;
    ///
    /// impl TimeSource for Frozen {
    ///     fn now(&self) -> Instant {
    ///         Instant::from_nanos(42)
    ///     }
    ///     // ...
    /// #     fn wall(&self) -> std::time::SystemTime { std::time::SystemTime::UNIX_EPOCH }
    /// #     fn sleep_blocking(&self, _: std::time::Duration) {}
    /// #     fn sleep_until(&self, _: Instant) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    /// #         Box::pin(std::future::pending())
    /// #     }
    /// }
    ///
    /// assert_eq!(Clock::custom(Arc::new(Frozen)).now().as_nanos(), 42);
    /// ```
    pub fn custom(source: Arc<dyn TimeSource>) -> Self {
        Self(Source::Custom(source))
    }

    /// Whether both tell the same time, so that instants of one mean something to the other.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// Tells clocks apart. Only good for as long as the clock lives, whose address it may be.
    #[inline]
    pub(crate) fn id(&self) -> usize {
        match &self.0 {
            // No address is that small.
            Source::System(reading) => *reading as usize,
            Source::Manual(manual) => manual.id(),
            Source::Custom(source) => Arc::as_ptr(source).addr(),
        }
    }

    /// The monotonic time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Clock;
    ///
    /// let (clock, time) = Clock::manual();
    /// let start = clock.now();
    /// time.advance(Duration::from_millis(250));
    /// assert_eq!(clock.now(), start + Duration::from_millis(250));
    /// ```
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System(reading) => reading.now(),
            Source::Manual(manual) => manual.now(),
            Source::Custom(source) => source.now(),
        }
    }

    /// The wall time, for labels only: it may step at any moment, so no decision may depend on it.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use resilience_core::Clock;
    ///
    /// let (clock, time) = Clock::manual();
    /// time.set_wall(SystemTime::UNIX_EPOCH);
    /// time.advance(Duration::from_secs(5));
    /// assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    /// ```
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System(_) => system::wall(),
            Source::Manual(manual) => manual.wall(),
            Source::Custom(source) => source.wall(),
        }
    }

    /// Blocks the thread for `duration`: on a manual clock until it has been advanced that far.
    ///
    /// # Panics
    /// In a browser and in Node.js, where a thread can't be blocked, except on a custom clock that knows a way.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::auto_advancing(); // a wait moves it to the wait's end
    /// time.clock().sleep_blocking(Duration::from_secs(3600));
    /// assert_eq!(time.elapsed(), Duration::from_secs(3600));
    /// ```
    pub fn sleep_blocking(&self, duration: Duration) {
        match &self.0 {
            Source::System(_) => system::sleep_blocking(duration),
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::ManualClock;
    ///
    /// let time = ManualClock::auto_advancing(); // a wait moves it to the wait's end
    /// let clock = time.clock();
    /// let sleep = clock.sleep_until(clock.now() + Duration::from_secs(60));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(sleep);
    /// assert_eq!(time.elapsed(), Duration::from_secs(60));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        let boxed = match &self.0 {
            // A thread that waits cannot drive the runtime whose timer it would wait for.
            Source::System(_) if wait::thread_waits() => None,
            Source::System(reading) => reading.sleep_until(deadline),
            Source::Manual(_) => None,
            Source::Custom(source) => Some(source.sleep_until(deadline)),
        };
        let inner = boxed.map_or_else(|| self.wait_on_timers(deadline), Waiting::Boxed);
        Sleep { deadline, inner }
    }

    fn wait_on_timers(&self, deadline: Instant) -> Waiting {
        let due = match &self.0 {
            Source::System(reading) => reading.on_system(deadline),
            Source::Manual(_) | Source::Custom(_) => deadline,
        };
        Waiting::Timers { clock: self.clone(), due, key: None }
    }

    /// Where sleeps of this clock are registered.
    fn timers(&self) -> &Timers {
        match &self.0 {
            Source::System(_) => system::timers(),
            Source::Manual(manual) => manual.timers(),
            Source::Custom(_) => unreachable!("a custom clock's sleeps are its own"),
        }
    }

    /// Whether a sleep is over: by this clock, or by the one that serves its timers. The two differ where tokio's time
    /// is paused; a thread that waits must not wait for ever then.
    fn is_over(&self, deadline: Instant, due: Instant) -> bool {
        let served_by_another = matches!(&self.0, Source::System(reading) if *reading != Reading::System);
        self.now() >= deadline || (served_by_another && system::now() >= due)
    }
}

/// Where the system is JavaScript, tokio has no time of its own.
#[cfg(all(feature = "tokio", target_family = "wasm", target_os = "unknown"))]
mod tokio {
    pub(super) use super::system::now;

    pub(super) const fn sleep_until(_: super::Instant) -> Option<super::Boxed> {
        None
    }
}

/// A sleep that is somebody else's.
type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Waiting {
    /// Registered for `due`, by the clock that serves the timers.
    Timers {
        clock: Clock,
        due: Instant,
        key: Option<TimerKey>,
    },
    Boxed(Boxed),
}

/// A future that completes when its deadline has come. Made by [`Clock::sleep`] and [`Clock::sleep_until`].
///
/// ```
/// use std::pin::Pin;
/// use std::task::{Context, Poll, Waker};
/// use std::time::Duration;
/// use resilience_core::Clock;
/// use resilience_core::clock::Sleep;
///
/// /// A future of your own that gives up when its time is over.
/// struct Patient {
///     sleep: Sleep,
/// }
///
/// impl Future for Patient {
///     type Output = &'static str;
///     fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
///         Pin::new(&mut self.sleep).poll(cx).map(|()| "nobody came")
///     }
/// }
///
/// let (clock, time) = Clock::manual();
/// let mut patient = Box::pin(Patient { sleep: clock.sleep(Duration::from_secs(5)) });
/// let mut cx = Context::from_waker(Waker::noop());
/// assert!(patient.as_mut().poll(&mut cx).is_pending());
/// time.advance(Duration::from_secs(5));
/// assert_eq!(patient.as_mut().poll(&mut cx), Poll::Ready("nobody came"));
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    inner: Waiting,
}

impl Sleep {
    /// When it completes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Clock;
    ///
    /// let (clock, _time) = Clock::manual();
    /// let sleep = clock.sleep(Duration::from_secs(5));
    /// assert_eq!(sleep.deadline(), clock.now() + Duration::from_secs(5));
    /// ```
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
            Waiting::Boxed(future) => future.as_mut().poll(cx),
            Waiting::Timers { clock, due, key } => {
                if let Source::Manual(manual) = &clock.0
                    && manual.is_auto_advancing()
                {
                    manual.advance_to(deadline);
                }
                let timers = clock.timers();
                if clock.is_over(deadline, *due) {
                    if let Some(key) = key.take() {
                        timers.cancel(key);
                    }
                    return Poll::Ready(());
                }
                *key = Some(timers.register(*due, key.take(), cx.waker()));
                // The clock may have moved between the check and the registration; a second look closes the gap.
                if clock.is_over(deadline, *due) {
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
        if let Waiting::Timers { clock, key: Some(key), .. } = &self.inner {
            clock.timers().cancel(*key);
        }
    }
}

#[cfg(test)]
mod tests;
