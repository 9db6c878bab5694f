//! The time after closing, when a growing share of the calls passes: no herd meets a dependency that has just recovered.
//! The share is exact and needs no randomness; whoever is refused is told a time of his own to come back.

use std::time::Duration;

use crate::clock::{Instant, nanos};

/// What a call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It passes.
    Passes,
    /// It is refused, and may ask again after this time.
    Refused(Duration),
    /// The ramp is over.
    Over,
}

/// Every call that asks adds the present share of one call to the credit, and a credit of a whole call lets it pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct RampUp {
    end: Instant,
    over: Duration,
    /// In calls, with 32 bits behind the point.
    credit: u64,
    /// Where in the time that is left the next refused call is told to come back, in parts of 2^32.
    place: u32,
}

/// 2^32 divided by the golden ratio: steps of it fall evenly into any span, however many there are (Weyl's sequence).
const STEP: u32 = 0x9E37_79B9;

const ONE: u64 = 1 << 32;

impl RampUp {
    /// The first `at_once` calls pass, as they did while it was half open; then the share grows from nothing at `start`
    /// to all after `over`.
    pub(super) fn new(start: Instant, over: Duration, at_once: u32) -> Self {
        Self { end: start + over, over, credit: u64::from(at_once) * ONE, place: 0 }
    }

    /// One of which only `left` is left. Told by its end: it may have begun before the clock did.
    pub(super) fn resumed(now: Instant, left: Duration, over: Duration) -> Self {
        Self { end: now + left, over, credit: 0, place: 0 }
    }

    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.end.saturating_duration_since(now).min(self.over)).filter(|left| !left.is_zero())
    }

    pub(super) fn ask(&mut self, now: Instant) -> Asked {
        let Some(left) = self.left(now) else { return Asked::Over };
        let passed = nanos(self.over - left);
        self.credit = self.credit.saturating_add(product(passed, ONE, nanos(self.over)));
        if self.credit >= ONE {
            self.credit -= ONE;
            return Asked::Passes;
        }
        self.place = self.place.wrapping_add(STEP);
        let wait = product(nanos(left), self.place.into(), ONE);
        Asked::Refused(Duration::from_nanos(wait.max(1)))
    }
}

/// `value × numerator / denominator`, where the numerator is not larger than the denominator or both fit by far.
fn product(value: u64, numerator: u64, denominator: u64) -> u64 {
    let quotient = u128::from(value) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_many_pass_as_the_share_says_to_the_very_call(
            over in 1_000_u64..1_000_000_000_000_000, at_once in 1_u32..5,
            asks in proptest::collection::vec(0.0..1.0_f64, 1..400)
        ) {
            let over_time = Duration::from_nanos(over);
            let mut ramp = RampUp::new(Instant::from_nanos(77), over_time, at_once);
            let mut times: Vec<u64> = asks.iter().map(|part| (over as f64 * part) as u64).collect();
            times.sort_unstable();
            let (mut passed, mut shares) = (0_u64, 0_u128);
            for (number, time) in (1_u64..).zip(times) {
                let asked = ramp.ask(Instant::from_nanos(77 + time));
                shares += (u128::from(time) << 32) / u128::from(over);
                let expected = number.min(u64::from(at_once) + (shares >> 32) as u64);
                passed += u64::from(asked == Asked::Passes);
                prop_assert_eq!(passed, expected);
                if let Asked::Refused(wait) = asked {
                    prop_assert!(!wait.is_zero() && wait <= over_time.saturating_sub(Duration::from_nanos(time)));
                }
            }
            prop_assert_eq!(ramp.ask(Instant::from_nanos(77 + over)), Asked::Over);
        }
    }
}
