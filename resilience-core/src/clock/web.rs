//! The system's clock where the system is JavaScript: its time, and its `setTimeout` in the place of a timer thread.
//! Nothing blocks here, because nothing can.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use js_sys::{Function, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_time::web::SystemTimeExt;

use super::{Instant, nanos};
use crate::timers::Timers;

/// `setTimeout` takes no more; whoever waits longer is called in between.
const LONGEST_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Where the time line begins.
pub(super) fn origin() -> web_time::Instant {
    static ORIGIN: OnceLock<web_time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(web_time::Instant::now)
}

pub(super) fn now() -> Instant {
    Instant(nanos(origin().elapsed()))
}

pub(super) fn wall() -> SystemTime {
    web_time::SystemTime::now().to_std()
}

pub(super) fn sleep_blocking(duration: Duration) {
    panic!("cannot block for {duration:?}: JavaScript's threads don't block; call async, or wait by a Clock::custom");
}

/// The timers of the system clock. A timeout is asked for whenever a new first one is registered.
pub(super) fn timers() -> &'static Timers {
    static TIMERS: OnceLock<Timers> = OnceLock::new();
    TIMERS.get_or_init(|| Timers::announcing(call_at))
}

/// The instant that the latest timeout was asked for; later ones need none of their own. `u64::MAX` when there is none.
static NEXT_CALL: AtomicU64 = AtomicU64::new(u64::MAX);

/// Has the timers served when it is time for the first of them.
fn call_at(first: Instant) {
    // Relaxed, here and below: only the number itself matters.
    if NEXT_CALL.fetch_min(first.as_nanos(), Ordering::Relaxed) <= first.as_nanos() {
        return;
    }
    let callback = Closure::once_into_js(move || {
        timers().wake_due(now());
        // Whoever is called for another instant than the next leaves what follows to that call.
        let next = NEXT_CALL.compare_exchange(first.as_nanos(), u64::MAX, Ordering::Relaxed, Ordering::Relaxed);
        if next.is_ok()
            && let Some(first) = timers().first()
        {
            // Timeouts come a little early, and long ones come in parts: it can be the same once more.
            call_at(first);
        }
    });
    // Rounded up: too early is of no use.
    let delay = first.saturating_duration_since(now()).min(LONGEST_TIMEOUT).as_secs_f64() * 1e3;
    let set_timeout = Reflect::get(&js_sys::global(), &"setTimeout".into()).and_then(JsCast::dyn_into::<Function>);
    let asked = set_timeout.and_then(|set| set.call2(&JsValue::UNDEFINED, &callback, &delay.ceil().into()));
    // Async sleeps would hang for ever: that must not go unnoticed.
    assert!(asked.is_ok(), "this JavaScript has no setTimeout; wait by a Clock::custom");
}
