//! The system's clock: `std`'s, and one thread that serves everybody's timers. Nothing runs before the first sleep.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::{Clock, Instant, nanos};
use crate::timers::Timers;

/// Where the process's time line begins.
pub(super) fn origin() -> std::time::Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(std::time::Instant::now)
}

pub(super) fn now() -> Instant {
    Instant(nanos(origin().elapsed()))
}

pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

pub(super) fn sleep_blocking(duration: Duration) {
    std::thread::sleep(duration);
}

/// The timers of the system clock, served by one thread that sleeps until the earliest of them.
pub(super) fn timers() -> &'static Timers {
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
