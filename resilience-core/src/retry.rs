//! Whether and when to try again: backoff, jitter, limits.
//! Answers are computed from an attempt's number, its class and the time; nothing here sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::class::Class;
use crate::clock::{Instant, nanos};
use crate::config::{self, ConfigError};
use crate::outcome::Stopped;

/// How the pause grows from attempt to attempt, before jitter. Attempts count from 1.
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
    pub const fn fixed(delay: Duration) -> Self {
        Self::Fixed { delay }
    }

    /// A pause that grows by `base` from `initial` to `cap`.
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
    pub const fn cap(&self) -> Duration {
        match *self {
            Self::Fixed { delay } => delay,
            Self::Linear { cap, .. } | Self::Exponential { cap, .. } | Self::Fibonacci { cap, .. } => cap,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
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
/// Full and equal jitter are those of "Exponential Backoff And Jitter" (M. Brooker, AWS Architecture Blog, 2015).
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
}

impl Jitter {
    /// Spreads `delay` by `random`, a number in `[0, 1)`, staying at or below `cap`.
    fn spread(self, delay: Duration, cap: Duration, random: f64) -> Duration {
        let factor = match self {
            Self::None => return delay.min(cap),
            Self::Ratio(ratio) => 1.0 - ratio + 2.0 * ratio * random,
            Self::Full => random,
            Self::Equal => 0.5 + 0.5 * random,
        };
        let seconds = delay.as_secs_f64() * factor;
        Duration::try_from_secs_f64(seconds).map_or(cap, |spread| spread.min(cap))
    }

    fn validate(self) -> Result<(), ConfigError> {
        match self {
            Self::Ratio(ratio) if !(0.0..=1.0).contains(&ratio) => {
                Err(ConfigError::new("retry.jitter.ratio", ratio, "0 to 1"))
            }
            _ => Ok(()),
        }
    }
}

/// What a [`Retry`] decides after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after this pause.
    After(Duration),
    /// Do not try again.
    Stop(Stopped),
}

/// The progress of one call under a [`Retry`].
#[derive(Debug, Clone, Copy)]
pub struct RetryProgress {
    started: Instant,
    tries: u32,
}

/// Tries again what failed for a passing reason. Cheap to clone.
///
/// The defaults are 3 attempts, exponential backoff from 100 ms by 2 to 30 s, ±20 % jitter, and a dependency's own
/// `Retry-After` honoured up to 30 s. Retrying is opt-in: put a retry around an operation only when running it twice
/// does no harm.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Backoff, Jitter, ManualClock, Pipeline, Retry};
///
/// let time = ManualClock::auto_advancing();
/// let retry = Retry::builder()
///     .backoff(Backoff::exponential(Duration::from_millis(100), 2.0, Duration::from_secs(30)))
///     .jitter(Jitter::None)
///     .build()?;
/// let pipeline = Pipeline::builder("store").retry(retry).clock(time.clock()).build()?;
///
/// let mut calls = 0;
/// let result = pipeline.call(|| {
///     calls += 1;
///     if calls < 3 { Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)) } else { Ok("stored") }
/// });
/// assert_eq!(result.unwrap(), "stored");
/// assert_eq!(time.elapsed(), Duration::from_millis(100 + 200));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Retry {
    settings: RetryBuilder,
    /// Where the next call's random sequence starts; shared by clones so that no two calls jitter alike.
    sequence: Arc<AtomicU64>,
}

impl Default for Retry {
    fn default() -> Self {
        Self::from_valid(RetryBuilder::default())
    }
}

/// Builds a [`Retry`].
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBuilder {
    max_attempts: u32,
    max_elapsed: Option<Duration>,
    max_retry_after: Duration,
    backoff: Backoff,
    jitter: Jitter,
    seed: Option<u64>,
}

impl Default for RetryBuilder {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            max_elapsed: None,
            max_retry_after: Duration::from_secs(30),
            backoff: Backoff::exponential(Duration::from_millis(100), 2.0, Duration::from_secs(30)),
            jitter: Jitter::Ratio(0.2),
            seed: None,
        }
    }
}

impl RetryBuilder {
    /// How often the operation may be tried in all, the first time included. From 1; default 3.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// No attempt starts later than this after the first. More than 0, at most 10 years; default: no limit.
    #[must_use]
    pub const fn max_elapsed(mut self, limit: Duration) -> Self {
        self.max_elapsed = Some(limit);
        self
    }

    /// The longest pause accepted from the dependency's own `Retry-After` or a policy's refusal; when it asks for
    /// more, the call ends. 0 to 10 years; default 30 s.
    #[must_use]
    pub const fn max_retry_after(mut self, limit: Duration) -> Self {
        self.max_retry_after = limit;
        self
    }

    /// How the pauses grow. The first pause at most the cap, the cap at most 10 years, a base 1 to 1000; default
    /// exponential from 100 ms by 2 to 30 s.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How the pauses are spread. A ratio 0 to 1; default ±20 %. A pause the dependency asked for is never cut short.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Makes the jitter repeatable: for tests and simulations.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the values and makes the retry.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    pub fn build(self) -> Result<Retry, ConfigError> {
        config::in_range("retry", "max_attempts", self.max_attempts, &1, &u32::MAX)?;
        if let Some(limit) = self.max_elapsed {
            config::positive("retry", "max_elapsed", limit)?;
        }
        if self.max_retry_after > config::MAX_DURATION {
            return Err(ConfigError::new(
                "retry.max_retry_after",
                format!("{:?}", self.max_retry_after),
                "at most 10 years",
            ));
        }
        self.backoff.validate()?;
        self.jitter.validate()?;
        Ok(Retry::from_valid(self))
    }
}

impl Retry {
    /// Starts building one from the defaults.
    pub fn builder() -> RetryBuilder {
        RetryBuilder::default()
    }

    fn from_valid(settings: RetryBuilder) -> Self {
        let start = settings.seed.unwrap_or_else(|| fastrand::u64(..));
        Self { settings, sequence: Arc::new(AtomicU64::new(start)) }
    }

    /// How often the operation may be tried in all.
    pub const fn max_attempts(&self) -> u32 {
        self.settings.max_attempts
    }

    /// Begins a call at `now`.
    pub const fn start(&self, now: Instant) -> RetryProgress {
        RetryProgress { started: now, tries: 0 }
    }

    /// Decides after a failed try at `now`: again after a pause, or not. A try that could not start before `deadline`
    /// is not made. For shells of your own; a [`Pipeline`](crate::Pipeline) does this for you.
    ///
    /// ```
    /// use resilience_core::{Category, Class, Clock, Retry, Stopped, retry::RetryDecision};
    ///
    /// let (retry, now) = (Retry::builder().max_attempts(2).build()?, Clock::system().now());
    /// let mut progress = retry.start(now);
    /// let class = Class::of(Category::Network);
    /// assert!(matches!(retry.decide(&mut progress, &class, now, None), RetryDecision::After(_)));
    /// let second = retry.decide(&mut progress, &class, now, None);
    /// assert_eq!(second, RetryDecision::Stop(Stopped::AttemptsExhausted));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn decide(
        &self,
        progress: &mut RetryProgress,
        class: &Class,
        now: Instant,
        deadline: Option<Instant>,
    ) -> RetryDecision {
        progress.tries = progress.tries.saturating_add(1);
        if !class.retryable {
            return RetryDecision::Stop(Stopped::NotRetryable);
        }
        if progress.tries >= self.settings.max_attempts {
            return RetryDecision::Stop(Stopped::AttemptsExhausted);
        }
        if class.retry_after.is_some_and(|asked| asked > self.settings.max_retry_after) {
            return RetryDecision::Stop(Stopped::RetryAfterTooLong);
        }
        let backoff = &self.settings.backoff;
        let own = self.settings.jitter.spread(backoff.delay(progress.tries), backoff.cap(), self.random());
        let delay = class.retry_after.map_or(own, |asked| asked.max(own));
        let next = now + delay;
        let elapsed = nanos(next.saturating_duration_since(progress.started));
        if self.settings.max_elapsed.is_some_and(|limit| elapsed > nanos(limit)) {
            return RetryDecision::Stop(Stopped::ElapsedExceeded);
        }
        if deadline.is_some_and(|deadline| next >= deadline) {
            return RetryDecision::Stop(Stopped::DeadlineTooClose);
        }
        RetryDecision::After(delay)
    }

    /// The next random number in `[0, 1)`.
    fn random(&self) -> f64 {
        if self.settings.jitter == Jitter::None {
            return 0.0;
        }
        // Relaxed: the counter only has to differ from call to call.
        fastrand::Rng::with_seed(self.sequence.fetch_add(1, Ordering::Relaxed)).f64()
    }
}
