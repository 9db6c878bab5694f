//! Waking, letting go and moving time, seen from inside: how many timers are left is nobody else's business.

use super::manual::MANUAL_ORIGIN;
use super::*;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::task::{Wake, Waker};

#[derive(Default)]
struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Tells what time it is when it is woken.
struct Tell(mpsc::Sender<Instant>, Clock);
impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(self.1.now());
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

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
    assert_eq!(time.timers().len(), 1);
    drop(sleep);
    assert_eq!(time.timers().len(), 0);
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
    assert_eq!(time.timers().len(), 1);
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
    assert_eq!(time.timers().len(), 0);
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
            assert_eq!(time.timers().len(), 1);
        }
    }
    drop(outer);
    assert_eq!(time.timers().len(), 0);
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
    let clock = Clock::system();
    let mut noop = Context::from_waker(Waker::noop());
    // The thread waits for this one when it hears of another that is due.
    let mut long = Box::pin(clock.sleep(HOUR));
    assert!(long.as_mut().poll(&mut noop).is_pending());
    let (tell, told) = mpsc::channel();
    clock.timers().register(clock.now(), None, &Waker::from(Arc::new(Tell(tell, clock.clone()))));
    assert!(told.recv().unwrap() <= clock.now());
    assert!(long.as_mut().poll(&mut noop).is_pending());
}

#[test]
fn the_thread_that_serves_timers_wakes_each_when_it_is_due_and_not_before() {
    /// Goes on by a nanosecond whenever it is looked at, so that every wait for it is one of nanoseconds.
    #[derive(Default)]
    struct Ticking(AtomicU64);
    impl TimeSource for Ticking {
        fn now(&self) -> Instant {
            Instant(self.0.fetch_add(1, Ordering::SeqCst))
        }
        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
        fn sleep_blocking(&self, _: Duration) {
            unreachable!("nobody asks it to")
        }
        fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            unreachable!("nobody asks it to")
        }
    }
    let clock = Clock::custom(Arc::new(Ticking::default()));
    let timers: &'static Timers = Box::leak(Box::default());
    let (tell, told) = mpsc::channel();
    let due = [50, 20, 20].map(Instant);
    for due in due {
        timers.register(due, None, &Waker::from(Arc::new(Tell(tell.clone(), clock.clone()))));
    }
    // Serves for ever, as that of the system's clock does.
    std::thread::spawn(move || timers.serve(&clock));
    let woken: Vec<Instant> = told.iter().take(due.len()).collect();
    assert!(woken[0] >= due[1] && woken[1] >= due[2] && woken[2] >= due[0], "{woken:?}");
    assert!(woken[1] < due[0], "{woken:?}");
    // And one that comes while there is nothing to wait for.
    timers.register(Instant(0), None, &Waker::from(Arc::new(Tell(tell, Clock::system()))));
    assert!(told.recv().is_ok());
}

/// A sleep on a clock that the system's timers serve ends when it would on the system's clock itself.
#[cfg(any(feature = "quanta", feature = "tokio"))]
#[test]
fn sleeps_on_other_readings_of_time_are_due_by_the_systems() {
    let clocks = [
        #[cfg(feature = "quanta")]
        Clock::fast(),
        #[cfg(feature = "tokio")]
        Clock::tokio(),
    ];
    for clock in clocks {
        let sleep = clock.sleep(HOUR);
        let Waiting::Timers { due, .. } = &sleep.inner else { panic!("{clock:?}: somebody else's sleep") };
        let off = due.saturating_duration_since(system::now() + HOUR);
        let early = (system::now() + HOUR).saturating_duration_since(*due);
        // A runtime starts a day into its time line, and the counter somewhere.
        assert!(off < HOUR / 2 && early < HOUR / 2, "{clock:?}: {off:?} late, {early:?} early");
    }
}
