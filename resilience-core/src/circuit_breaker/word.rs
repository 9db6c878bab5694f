//! The two words that calls go by without a lock: the gate says what is admitted, the tally counts the calls of one
//! generation. A call is counted only in the generation that admitted it: check and count are one step.

use super::BreakerState;

/// A state as the machine knows it: just after closing it may ramp up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Closed,
    Open,
    HalfOpen,
    ForcedOpen,
    Disabled,
    MetricsOnly,
    RampUp,
}

impl Mode {
    pub(super) fn state(self) -> BreakerState {
        match self {
            Self::Closed | Self::RampUp => BreakerState::Closed,
            Self::Open => BreakerState::Open,
            Self::HalfOpen => BreakerState::HalfOpen,
            Self::ForcedOpen => BreakerState::ForcedOpen,
            Self::Disabled => BreakerState::Disabled,
            Self::MetricsOnly => BreakerState::MetricsOnly,
        }
    }

    /// Whether results count towards opening.
    pub(super) fn counts(self) -> bool {
        matches!(self, Self::Closed | Self::RampUp | Self::MetricsOnly)
    }
}

impl From<BreakerState> for Mode {
    fn from(state: BreakerState) -> Self {
        match state {
            BreakerState::Closed => Self::Closed,
            BreakerState::Open => Self::Open,
            BreakerState::HalfOpen => Self::HalfOpen,
            BreakerState::ForcedOpen => Self::ForcedOpen,
            BreakerState::Disabled => Self::Disabled,
            BreakerState::MetricsOnly => Self::MetricsOnly,
        }
    }
}

/// What a call needs the clock for; from the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeedsTime {
    /// When it begins: slow calls are counted.
    pub(super) at_start: bool,
    /// When it ends: the window is one of time.
    pub(super) at_end: bool,
}

const MODE: u64 = 0b111;
const AT_START: u64 = 1 << 3;
const AT_END: u64 = 1 << 4;
const GENERATION_SHIFT: u32 = 5;

/// Mode in the low three bits, what needs the time in the next two, generation above: one load admits a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate(pub(super) u64);

impl Gate {
    pub(super) fn new(mode: Mode, needs: NeedsTime, generation: u64) -> Self {
        let flags = u64::from(needs.at_start) * AT_START | u64::from(needs.at_end) * AT_END;
        Self(generation << GENERATION_SHIFT | flags | mode as u64)
    }

    pub(super) fn mode(self) -> Mode {
        match self.0 & MODE {
            0 => Mode::Closed,
            1 => Mode::Open,
            2 => Mode::HalfOpen,
            3 => Mode::ForcedOpen,
            4 => Mode::Disabled,
            5 => Mode::MetricsOnly,
            _ => Mode::RampUp,
        }
    }

    pub(super) fn needs(self) -> NeedsTime {
        NeedsTime { at_start: self.0 & AT_START != 0, at_end: self.0 & AT_END != 0 }
    }

    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }
}

/// The largest generation that a snapshot may name: far from where the gate's bits end.
pub(super) const MAX_GENERATION: u64 = 1 << 48;

const POSITION_BITS: u32 = 40;

/// The last position a call of one generation can have: where it is reached, the window begins anew. At a million
/// calls a second without a state change that is after twelve days.
pub(super) const LAST_POSITION: u64 = (1 << POSITION_BITS) - 1;

/// The position of the last counted call in the low 40 bits, above them the low 24 bits of the generation. The whole
/// generation is compared in the gate as well, so a call can be mistaken for one of another generation only if the
/// state changes 2^24 times between two instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally(pub(super) u64);

impl Tally {
    pub(super) fn new(generation: u64, position: u64) -> Self {
        Self(generation << POSITION_BITS | position)
    }

    pub(super) fn position(self) -> u64 {
        self.0 & LAST_POSITION
    }

    pub(super) fn is_of(self, generation: u64) -> bool {
        Self::new(generation, self.position()) == self
    }

    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
