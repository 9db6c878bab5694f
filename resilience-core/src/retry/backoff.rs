//! How long to pause between attempts: growth and random spread.
//! Pure arithmetic: no pause exceeds its cap, whatever the attempt, the numbers and the random draw.

use std::time::Duration;

use crate::config::{self, ConfigError};

/// How the pause grows from attempt to attempt, before jitter. Attempts count from 1.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Backoff;
///
/// let (initial, cap) = (Duration::from_secs(1), Duration::from_secs(6));
/// let seconds = |backoff: Backoff| [1, 2, 3, 4, 5].map(|attempt| backoff.delay(attempt).as_secs());
/// assert_eq!(seconds(Backoff::Fixed { delay: initial }), [1, 1, 1, 1, 1]);
/// assert_eq!(seconds(Backoff::Linear { initial, cap }), [1, 2, 3, 4, 5]);
/// assert_eq!(seconds(Backoff::Exponential { initial, base: 2.0, cap }), [1, 2, 4, 6, 6]);
/// assert_eq!(seconds(Backoff::Fibonacci { initial, cap }), [1, 1, 2, 3, 5]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Backoff {
    /// Always the same pause.
    Fixed {
        /// The pause.
        delay: Duration,
    },
    /// `initial`, `2 × initial`, `3 × initial`, …, at most `cap`.
    Linear {
        /// The first pause.
        initial: Duration,
        /// The longest pause.
        cap: Duration,
    },
    /// `initial × base ^ (attempt - 1)`, at most `cap`.
    Exponential {
        /// The first pause.
        initial: Duration,
        /// The factor from one pause to the next.
        base: f64,
        /// The longest pause.
        cap: Duration,
    },
    /// `initial` times the Fibonacci numbers 1, 1, 2, 3, 5, …, at most `cap`.
    Fibonacci {
        /// The first pause.
        initial: Duration,
        /// The longest pause.
        cap: Duration,
    },
}

impl Backoff {
    /// A pause that is always `delay`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::Backoff;
    /// let second = Duration::from_secs(1);
    /// let backoff = Backoff::fixed(second);
    /// assert_eq!((backoff.delay(1), backoff.delay(9)), (second, second));
    /// ```
    pub const fn fixed(delay: Duration) -> Self {
        Self::Fixed { delay }
    }

    /// A pause that grows by `base` from `initial` to `cap`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::Backoff;
    /// let backoff = Backoff::exponential(Duration::from_secs(1), 3.0, Duration::from_secs(10));
    /// assert_eq!([1, 2, 3, 4].map(|attempt| backoff.delay(attempt).as_secs()), [1, 3, 9, 10]);
    /// ```
    pub const fn exponential(initial: Duration, base: f64, cap: Duration) -> Self {
        Self::Exponential { initial, base, cap }
    }

    /// The pause after the failure of attempt number `attempt` (from 1), before jitter: never more than the cap,
    /// whatever the attempt.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Backoff;
    ///
    /// let backoff = Backoff::exponential(Duration::from_millis(100), 2.0, Duration::from_secs(30));
    /// assert_eq!(backoff.delay(3), Duration::from_millis(400));
    /// assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(30));
    /// ```
    pub fn delay(&self, attempt: u32) -> Duration {
        let step = attempt.max(1);
        match *self {
            Self::Fixed { delay } => delay,
            Self::Linear { initial, cap } => initial.saturating_mul(step).min(cap),
            Self::Exponential { initial, base, cap } => {
                // Zero times an overflow would be no number.
                if initial.is_zero() {
                    return initial;
                }
                // Powers overflow to infinity, never to a small number; whatever is not a duration is cut to the cap.
                let seconds = initial.as_secs_f64() * base.powf(f64::from(step - 1));
                Duration::try_from_secs_f64(seconds).map_or(cap, |delay| delay.min(cap))
            }
            Self::Fibonacci { initial, cap } => {
                let (mut current, mut next) = (initial, initial);
                for _ in 1..step {
                    (current, next) = (next, current.saturating_add(next));
                    if current >= cap {
                        break;
                    }
                }
                current.min(cap)
            }
        }
    }

    /// The longest pause this can yield.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::Backoff;
    /// let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    /// assert_eq!(Backoff::exponential(second, 2.0, minute).cap(), minute);
    /// assert_eq!(Backoff::fixed(second).cap(), second);
    /// ```
    pub const fn cap(&self) -> Duration {
        match *self {
            Self::Fixed { delay } => delay,
            Self::Linear { cap, .. } | Self::Exponential { cap, .. } | Self::Fibonacci { cap, .. } => cap,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let (initial, cap) = match *self {
            Self::Fixed { delay } => (delay, delay),
            Self::Linear { initial, cap } | Self::Fibonacci { initial, cap } => (initial, cap),
            Self::Exponential { initial, base, cap } => {
                if !(base.is_finite() && (1.0..=1000.0).contains(&base)) {
                    return Err(ConfigError::new("retry.backoff.base", base, "1 to 1000"));
                }
                (initial, cap)
            }
        };
        if cap > config::MAX_DURATION {
            return Err(ConfigError::new("retry.backoff.cap", format!("{cap:?}"), "at most 10 years"));
        }
        if initial > cap {
            return Err(ConfigError::new(
                "retry.backoff.initial",
                format!("{initial:?}"),
                format!("at most the cap of {cap:?}"),
            ));
        }
        Ok(())
    }
}

/// How a pause is spread at random, so that callers that failed together do not return together. The result never
/// exceeds the backoff's cap.
///
/// Full, equal and decorrelated jitter are those of "Exponential Backoff And Jitter" (M. Brooker, AWS Architecture
/// Blog, 2015).
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Backoff, Category, Class, Clock, Jitter, Retry, retry::RetryDecision};
///
/// let ten = Duration::from_secs(10);
/// let pauses = Backoff::Exponential { initial: ten, base: 1.0, cap: ten * 10 };
/// let spreads = [
///     (Jitter::None, ten, ten),
///     (Jitter::Ratio(0.5), ten / 2, ten * 3 / 2),
///     (Jitter::Full, Duration::ZERO, ten),
///     (Jitter::Equal, ten / 2, ten),
///     (Jitter::Decorrelated, ten, ten * 3),
/// ];
/// for (jitter, shortest, longest) in spreads {
///     let retry = Retry::builder().backoff(pauses).jitter(jitter).build()?;
///     let now = Clock::system().now();
///     let decision = retry.decide(&mut retry.start(now), &Class::of(Category::Network), now, None);
///     assert!(matches!(decision, RetryDecision::After(pause) if shortest <= pause && pause <= longest));
/// }
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// None: the pause as computed.
    None,
    /// Up to this part of the pause more or less: `0.2` is ±20 %.
    Ratio(f64),
    /// Anything from zero to the pause.
    Full,
    /// Half the pause, and anything up to the other half.
    Equal,
    /// Anything from the backoff's first pause to three times the pause before (the first time, the first pause), at
    /// most the cap: pauses grow at random and drift apart. Of the backoff, only the first pause and the cap count; a fixed one leaves nothing to spread.
    Decorrelated,
}

impl Jitter {
    /// The pause after attempt number `attempt`, spread by `random`, a number in `[0, 1)`; `before` is the pause before.
    pub(super) fn pause(self, backoff: &Backoff, attempt: u32, before: Duration, random: f64) -> Duration {
        let (delay, cap) = (backoff.delay(attempt), backoff.cap());
        let factor = match self {
            Self::None => return delay,
            Self::Ratio(ratio) => 1.0 - ratio + 2.0 * ratio * random,
            Self::Full => random,
            Self::Equal => 0.5 + 0.5 * random,
            Self::Decorrelated => {
                let first = backoff.delay(1);
                let longest = before.max(first).saturating_mul(3).min(cap);
                return (first + scaled(longest.saturating_sub(first), random, cap)).min(cap);
            }
        };
        scaled(delay, factor, cap)
    }

    pub(super) fn validate(self) -> Result<(), ConfigError> {
        match self {
            Self::Ratio(ratio) if !(0.0..=1.0).contains(&ratio) => {
                Err(ConfigError::new("retry.jitter.ratio", ratio, "0 to 1"))
            }
            _ => Ok(()),
        }
    }
}

/// `duration` times `factor`, at most `cap`.
pub(super) fn scaled(duration: Duration, factor: f64, cap: Duration) -> Duration {
    // Whatever is not a duration is cut to the cap.
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).map_or(cap, |scaled| scaled.min(cap))
}
