//! Tokio's time and sleeps, on a time line that begins where the system's does.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time;

use super::{Boxed, Instant, system};

/// The time line starts a day in: a runtime's paused time may lag behind the origin, and "a while ago" must be
/// expressible on it.
const START: Instant = Instant::from_nanos(86_400_000_000_000);
/// Longer than anybody waits, and within what every platform's clock can express.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

fn origin() -> time::Instant {
    time::Instant::from_std(system::origin())
}

pub(super) fn now() -> Instant {
    let (now, origin) = (time::Instant::now(), origin());
    match now.checked_duration_since(origin) {
        Some(since) => START + since,
        None => START - origin.duration_since(now),
    }
}

/// Tokio's own sleep, within a runtime.
pub(super) fn sleep_until(deadline: Instant) -> Option<Boxed> {
    Handle::try_current().ok()?;
    let wait = deadline.saturating_duration_since(now()).min(FAR);
    Some(Box::pin(time::sleep(wait)))
}
