//! The processor's counter, by `quanta`, which measures its speed and knows where there is none to rely on.

use std::sync::OnceLock;

use super::Instant;

pub(super) fn now() -> Instant {
    static CLOCK: OnceLock<(quanta::Clock, u64)> = OnceLock::new();
    let (clock, origin) = CLOCK.get_or_init(|| {
        let clock = quanta::Clock::new();
        let origin = clock.raw();
        (clock, origin)
    });
    Instant(clock.delta_as_nanos(*origin, clock.raw()))
}
