//! Time, and waiting for it: the one place from which every policy learns what time it is.
//! All decisions are made on monotonic [`Instant`]s; wall time only ever labels records. Nothing here decides.

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, atomic::AtomicU64, atomic::Ordering};
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
        match (&self.0, &other.0) {
            (Source::System, Source::System) => true,
            (Source::Manual(one), Source::Manual(two)) => Arc::ptr_eq(&one.0, &two.0),
            (Source::Custom(one), Source::Custom(two)) => Arc::ptr_eq(one, two),
            _ => false,
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
            Source::Manual(manual) => Some(&manual.0.timers),
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
                    && manual.0.auto_advance
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
const MANUAL_ORIGIN: Instant = Instant(86_400_000_000_000);
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
    pub fn new() -> Self {
        Self::with_mode(false)
    }

    /// A clock on which a wait moves the time to the wait's end instead of blocking.
    pub fn auto_advancing() -> Self {
        Self::with_mode(true)
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
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.clone()))
    }

    /// The time on the clock.
    pub fn now(&self) -> Instant {
        // Acquire pairs with the release in `advance_to`: who sees the time sees what was done before it was set.
        Instant(self.0.now.load(Ordering::Acquire))
    }

    /// How far the clock has moved since it was made.
    pub fn elapsed(&self) -> Duration {
        self.now().saturating_duration_since(MANUAL_ORIGIN)
    }

    /// Moves the clock forward and wakes everything that waited for the time passed. Moves wall time as far.
    pub fn advance(&self, duration: Duration) {
        let moved = |now: u64| Some(now.saturating_add(nanos(duration)));
        // AcqRel: as in `advance_to`. An update, so that two threads that advance at once both count.
        let before = match self.0.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, moved) {
            Ok(before) | Err(before) => before,
        };
        self.wake(Instant(before) + duration);
    }

    /// Moves the clock forward to `instant`; does nothing when that lies in the past.
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
    pub fn set_wall(&self, wall: SystemTime) {
        *self.0.wall_base.lock().unwrap_or_else(PoisonError::into_inner) = (wall, self.now());
    }

    /// The wall time on this clock.
    pub fn wall(&self) -> SystemTime {
        let (wall, at) = *self.0.wall_base.lock().unwrap_or_else(PoisonError::into_inner);
        wall + self.now().saturating_duration_since(at)
    }

    fn sleep_blocking(&self, duration: Duration) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_sleep_on_a_manual_clock_is_woken_when_its_time_comes_and_not_before() {
        let (clock, time) = Clock::manual();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut sleep = Box::pin(clock.sleep(Duration::from_secs(2)));
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        time.advance(Duration::from_secs(1));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        time.advance(Duration::from_secs(1));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(sleep.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_dropped_sleep_leaves_no_timer_behind() {
        let (clock, time) = Clock::manual();
        let waker = Waker::from(Arc::new(Count::default()));
        let mut sleep = Box::pin(clock.sleep(Duration::from_secs(2)));
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(time.0.timers.len(), 1);
        drop(sleep);
        assert_eq!(time.0.timers.len(), 0);
    }

    #[test]
    fn a_blocked_sleeper_goes_on_when_another_thread_advances_the_clock() {
        let (clock, time) = Clock::manual();
        let sleeper = std::thread::spawn(move || {
            clock.sleep_blocking(Duration::from_secs(5));
            clock.now()
        });
        // However the two threads interleave, five seconds in total let the sleeper go.
        while !sleeper.is_finished() {
            time.advance(Duration::from_secs(1));
            std::thread::yield_now();
        }
        assert!(sleeper.join().expect("the sleeper does not panic") >= MANUAL_ORIGIN + Duration::from_secs(5));
    }

    #[test]
    fn threads_that_advance_at_once_all_count() {
        let time = ManualClock::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| time.advance(Duration::from_nanos(1))));
            }
        });
        assert_eq!(time.elapsed(), Duration::from_micros(4));
    }

    #[test]
    fn a_sleep_that_changes_hands_wakes_its_latest_task_only() {
        let (clock, time) = Clock::manual();
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut sleep = Box::pin(clock.sleep(Duration::from_secs(1)));
        for task in [&first, &second, &second] {
            let waker = Waker::from(Arc::clone(task));
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(time.0.timers.len(), 1);
        time.advance(Duration::from_secs(1));
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
    }

    #[test]
    fn a_sleep_polled_after_its_end_is_still_over() {
        let (clock, time) = Clock::manual();
        let mut cx = Context::from_waker(Waker::noop());
        let mut sleep = Box::pin(clock.sleep(Duration::from_secs(1)));
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        time.advance(Duration::from_secs(1));
        for _ in 0..3 {
            assert!(sleep.as_mut().poll(&mut cx).is_ready());
        }
        assert_eq!(time.0.timers.len(), 0);
    }

    #[test]
    fn a_task_that_panics_when_woken_does_not_keep_the_others_asleep() {
        struct Broken;
        impl Wake for Broken {
            fn wake(self: Arc<Self>) {
                panic!("a broken executor");
            }
        }
        let (clock, time) = Clock::manual();
        let count = Arc::new(Count::default());
        let wakers = [Waker::from(Arc::new(Broken)), Waker::from(Arc::clone(&count))];
        let mut sleeps: Vec<_> = wakers.iter().map(|_| Box::pin(clock.sleep(Duration::from_secs(1)))).collect();
        for (sleep, waker) in sleeps.iter_mut().zip(&wakers) {
            assert!(sleep.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
        time.advance(Duration::from_secs(1));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_waker_that_owns_another_sleep_can_be_let_go_without_a_deadlock() {
        struct Owner(#[expect(dead_code, reason = "owned, to be dropped with its owner")] Mutex<Pin<Box<Sleep>>>);
        impl Wake for Owner {
            fn wake(self: Arc<Self>) {}
        }
        let (clock, time) = Clock::manual();
        let mut noop = Context::from_waker(Waker::noop());
        let mut outer = Box::pin(clock.sleep(Duration::from_secs(1)));
        for change_hands in [true, false] {
            let mut owned = Box::pin(clock.sleep(Duration::from_secs(2)));
            assert!(owned.as_mut().poll(&mut noop).is_pending());
            let waker = Waker::from(Arc::new(Owner(Mutex::new(owned))));
            assert!(outer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            if change_hands {
                assert!(outer.as_mut().poll(&mut noop).is_pending());
                assert_eq!(time.0.timers.len(), 1);
            }
        }
        drop(outer);
        assert_eq!(time.0.timers.len(), 0);
    }

    #[test]
    fn a_step_of_the_wall_clock_does_not_touch_monotonic_time() {
        let (clock, time) = Clock::manual();
        let before = clock.now();
        time.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now(), before);
        time.advance(Duration::from_secs(3));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
    }

    #[test]
    fn the_system_clock_wakes_async_sleepers_without_a_runtime() {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let clock = Clock::system();
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        let start = clock.now();
        let mut sleep = Box::pin(clock.sleep(Duration::from_millis(2)));
        while sleep.as_mut().poll(&mut cx).is_pending() {
            std::thread::park();
        }
        assert!(clock.now() >= start + Duration::from_millis(2));
    }
}
