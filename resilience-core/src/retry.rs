//! Whether and when to try again: backoff, jitter, limits.
//! Answers are computed from an attempt's number, its class and the time; nothing here sleeps.

mod alone;
mod backoff;
mod budget;

pub use alone::{RetryFuture, Retryable, Retrying};
pub use backoff::{Backoff, Jitter};
pub(crate) use budget::{Entered, Inherited};
pub use budget::{RetryBudget, RetryBudgetBuilder, RetryBudgetStatistics};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_utils::atomic::AtomicCell;

use crate::class::Class;
use crate::clock::{Clock, Instant, nanos};
use crate::config::{self, ConfigError};
use crate::event::Observers;
use crate::outcome::Stopped;
use crate::pipeline::Pipeline;
use backoff::scaled;

/// What a [`Retry`] decides after a failed attempt.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Backoff, Category, Class, Clock, Jitter, Retry, Stopped, retry::RetryDecision};
///
/// let pause = Duration::from_secs(2);
/// let retry = Retry::builder().backoff(Backoff::fixed(pause)).jitter(Jitter::None).build()?;
/// let now = Clock::system().now();
/// let after = |category| retry.decide(&mut retry.start(now), &Class::of(category), now, None);
/// assert_eq!(after(Category::Network), RetryDecision::After(pause));
/// assert_eq!(after(Category::Validation), RetryDecision::Stop(Stopped::NotRetryable));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after this pause.
    After(Duration),
    /// Do not try again.
    Stop(Stopped),
}

/// The progress of one call under a [`Retry`].
///
/// ```
/// use resilience_core::{Category, Class, Clock, Retry, retry::RetryDecision};
///
/// let (retry, now) = (Retry::builder().max_attempts(3).build()?, Clock::system().now());
/// let (mut one, mut other) = (retry.start(now), retry.start(now)); // two calls, each with its own count
/// let class = Class::of(Category::Network);
/// assert!(matches!(retry.decide(&mut one, &class, now, None), RetryDecision::After(_)));
/// assert!(matches!(retry.decide(&mut one, &class, now, None), RetryDecision::After(_)));
/// assert!(matches!(retry.decide(&mut one, &class, now, None), RetryDecision::Stop(_)));
/// assert!(matches!(retry.decide(&mut other, &class, now, None), RetryDecision::After(_)));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RetryProgress {
    started: Instant,
    /// Whether `started` is a time that was asked for: only then can `max_elapsed` go by it.
    timed: bool,
    tries: u32,
    /// The pause before this one.
    pause: Duration,
}

/// Tries again what failed for a passing reason. Cheap to clone.
///
/// The defaults are 3 attempts, exponential backoff from 100 ms by 2 to 30 s, ±20 % jitter, a dependency's own
/// `Retry-After` honoured up to 30 s, and no [`RetryBudget`]. Retrying is opt-in: put a retry around an operation only
/// when running it twice does no harm.
///
/// It works in a [`Pipeline`] together with other policies, or alone, as `(|| …).retry(&retry)`: see [`Retryable`].
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
    shared: Arc<Shared>,
    /// The pipeline of nothing but this retry, for calls without one of their own.
    alone: Arc<OnceLock<Pipeline>>,
}

#[derive(Debug)]
struct Shared {
    /// Read whole, so that nobody sees half of a change; only after a failure, never by a call that succeeds.
    limits: AtomicCell<Limits>,
    /// Whether there is a `max_elapsed`, or was one: what every call has to know.
    timed: AtomicBool,
    /// Never changes: calls under way have told it that they are there.
    budget: Option<RetryBudget>,
    clock: Clock,
    observers: Observers,
    /// Where the next pause's random sequence starts; one for all clones, so that no two pauses are spread alike.
    sequence: AtomicU64,
}

impl Default for Retry {
    fn default() -> Self {
        Self::from_valid(RetryBuilder::default())
    }
}

/// What can be changed while calls are made.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_attempts: u32,
    max_elapsed: Option<Duration>,
    max_retry_after: Duration,
    retry_after_jitter: Option<f64>,
    backoff: Backoff,
    jitter: Jitter,
}

/// Builds a [`Retry`].
///
/// ```
/// use std::{io, time::Duration};
/// use resilience_core::{Backoff, Jitter, ManualClock, Retry, Retryable};
///
/// let time = ManualClock::auto_advancing();
/// let retry = Retry::builder()
///     .max_attempts(4)
///     .backoff(Backoff::exponential(Duration::from_secs(1), 2.0, Duration::from_secs(60)))
///     .jitter(Jitter::None)
///     .clock(time.clock())
///     .build()?;
/// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
/// assert_eq!(failing.retry(&retry).call().unwrap_err().attempts, 4);
/// assert_eq!(time.elapsed(), Duration::from_secs(1 + 2 + 4));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetryBuilder {
    limits: Limits,
    budget: Option<RetryBudget>,
    seed: Option<u64>,
    clock: Clock,
    observers: Observers,
}

/// How much longer than asked for a `Retry-After` pause may become, unless set: a tenth.
const RETRY_AFTER_JITTER: f64 = 0.1;

impl Default for RetryBuilder {
    fn default() -> Self {
        Self {
            limits: Limits {
                max_attempts: 3,
                max_elapsed: None,
                max_retry_after: Duration::from_secs(30),
                retry_after_jitter: None,
                backoff: Backoff::exponential(Duration::from_millis(100), 2.0, Duration::from_secs(30)),
                jitter: Jitter::Ratio(0.2),
            },
            budget: None,
            seed: None,
            clock: Clock::system(),
            observers: Observers::new(),
        }
    }
}

impl RetryBuilder {
    /// How often the operation may be tried in all, the first time included. From 1; default 3.
    ///
    /// ```
    /// # use std::io;
    /// use resilience_core::{ManualClock, Retry, Retryable};
    ///
    /// let retry = Retry::builder().max_attempts(5).clock(ManualClock::auto_advancing().clock()).build()?;
    /// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert_eq!(failing.retry(&retry).call().unwrap_err().attempts, 5);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.limits.max_attempts = attempts;
        self
    }

    /// No attempt starts later than this after the first. More than 0, at most 10 years; default: no limit.
    ///
    /// ```
    /// # use std::{io, time::Duration};
    /// use resilience_core::{Backoff, Jitter, ManualClock, Retry, Retryable, Stopped};
    ///
    /// let pauses = Backoff::fixed(Duration::from_millis(400));
    /// let builder = Retry::builder().max_attempts(100).backoff(pauses).jitter(Jitter::None);
    /// let time = ManualClock::auto_advancing();
    /// let retry = builder.max_elapsed(Duration::from_secs(1)).clock(time.clock()).build()?;
    /// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// let error = failing.retry(&retry).call().unwrap_err();
    /// assert_eq!((error.attempts, error.stopped), (3, Some(Stopped::ElapsedExceeded))); // at 0, 0.4 and 0.8 s
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn max_elapsed(mut self, limit: Duration) -> Self {
        self.limits.max_elapsed = Some(limit);
        self
    }

    /// The longest pause accepted from the dependency's own `Retry-After` or a policy's refusal; when it asks for
    /// more, the call ends. 0 to 10 years; default 30 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use resilience_core::{Category, Class, Retry, Retryable, Stopped};
    ///
    /// let retry = Retry::builder().max_retry_after(Duration::from_secs(5)).build()?;
    /// let busy = |_: &&str| Class::of(Category::Resource).retry_after(Duration::from_secs(10));
    /// let error = (|| Err::<(), _>("busy")).retry(&retry).classified_by(busy).call().unwrap_err();
    /// assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::RetryAfterTooLong)));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn max_retry_after(mut self, limit: Duration) -> Self {
        self.limits.max_retry_after = limit;
        self
    }

    /// How much longer than asked for, at random, a pause from `Retry-After` or a policy's refusal may become, so that
    /// all who were told the same time do not come back together. Never earlier than asked, never longer than
    /// [`max_retry_after`](Self::max_retry_after). 0 to 1; default 0.1, or 0 with [`Jitter::None`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Category, Class, Clock, Retry, retry::RetryDecision};
    ///
    /// let retry = Retry::builder().retry_after_jitter(0.5).build()?;
    /// let (clock, _) = Clock::manual();
    /// let busy = Class::of(Category::Resource).retry_after(Duration::from_secs(10));
    /// let decision = retry.decide(&mut retry.start(clock.now()), &busy, clock.now(), None);
    /// assert!(matches!(decision, RetryDecision::After(pause) if (10..=15).contains(&pause.as_secs())));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn retry_after_jitter(mut self, ratio: f64) -> Self {
        self.limits.retry_after_jitter = Some(ratio);
        self
    }

    /// How the pauses grow. The first pause at most the cap, the cap at most 10 years, a base 1 to 1000; default
    /// exponential from 100 ms by 2 to 30 s.
    ///
    /// ```
    /// # use std::{io, time::Duration};
    /// use resilience_core::{Backoff, Jitter, ManualClock, Retry, Retryable};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let retry = Retry::builder().backoff(Backoff::fixed(Duration::from_secs(5))).jitter(Jitter::None);
    /// let retry = retry.clock(time.clock()).build()?;
    /// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert!(failing.retry(&retry).call().is_err());
    /// assert_eq!(time.elapsed(), Duration::from_secs(5 + 5)); // between three attempts
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.limits.backoff = backoff;
        self
    }

    /// How the pauses are spread. A ratio 0 to 1; default ±20 %. A pause the dependency asked for is never cut short.
    /// See [`retry_after_jitter`](Self::retry_after_jitter) for those.
    ///
    /// ```
    /// # use std::{io, time::Duration};
    /// use resilience_core::{Backoff, Jitter, ManualClock, Retry, Retryable};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let builder = Retry::builder().max_attempts(2).backoff(Backoff::fixed(Duration::from_secs(10)));
    /// let retry = builder.jitter(Jitter::Equal).clock(time.clock()).build()?;
    /// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert!(failing.retry(&retry).call().is_err());
    /// assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&time.elapsed()));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.limits.jitter = jitter;
        self
    }

    /// What all calls together may retry. Default: no limit.
    ///
    /// ```
    /// # use std::io;
    /// use resilience_core::{Retry, RetryBudget, Retryable, Stopped};
    ///
    /// let none_left = RetryBudget::builder().ratio(0.0).min_per_second(0.0).build()?;
    /// let retry = Retry::builder().budget(none_left).build()?;
    /// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// let error = failing.retry(&retry).call().unwrap_err();
    /// assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::BudgetSpent)));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Where calls without a pipeline take the time from and how they wait; a pipeline brings its own clock. Default:
    /// the system's clock.
    ///
    /// ```
    /// # use std::{io, time::Duration};
    /// use resilience_core::{Backoff, ManualClock, Retry, Retryable};
    ///
    /// let time = ManualClock::auto_advancing(); // a test need not wait
    /// let retry = Retry::builder().backoff(Backoff::fixed(Duration::from_secs(3600))).clock(time.clock()).build()?;
    /// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert!(failing.retry(&retry).call().is_err());
    /// assert!(time.elapsed() > Duration::from_secs(3600));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of calls without a pipeline, under the pipeline name `retry`. Default: nobody.
    ///
    /// ```
    /// # use std::io;
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// use resilience_core::{Event, ManualClock, Observers, Retry, Retryable};
    ///
    /// let retries = Arc::new(AtomicU32::new(0));
    /// let count = Arc::clone(&retries);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::RetryScheduled { pipeline: "retry", .. } = event {
    ///         count.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }));
    /// let retry = Retry::builder().observers(observers).clock(ManualClock::auto_advancing().clock()).build()?;
    /// let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    /// assert!(failing.retry(&retry).call().is_err());
    /// assert_eq!(retries.load(Ordering::Relaxed), 2); // of three attempts
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Makes the jitter repeatable: for tests and simulations.
    ///
    /// ```
    /// # use std::io;
    /// use resilience_core::{ConfigError, ManualClock, Retry, Retryable};
    ///
    /// let paused = || {
    ///     let time = ManualClock::auto_advancing();
    ///     let retry = Retry::builder().seed(7).clock(time.clock()).build()?;
    ///     let failing = || Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset));
    ///     assert!(failing.retry(&retry).call().is_err());
    ///     Ok::<_, ConfigError>(time.elapsed())
    /// };
    /// assert_eq!(paused()?, paused()?);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the values and makes the retry.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// # use resilience_core::Retry;
    /// let error = Retry::builder().max_attempts(0).build().unwrap_err();
    /// assert_eq!(error.field, "retry.max_attempts");
    /// ```
    pub fn build(self) -> Result<Retry, ConfigError> {
        self.limits.check()?;
        Ok(Retry::from_valid(self))
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
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
        if let Some(ratio) = self.retry_after_jitter
            && !(0.0..=1.0).contains(&ratio)
        {
            return Err(ConfigError::new("retry.retry_after_jitter", ratio, "0 to 1"));
        }
        self.backoff.validate()?;
        self.jitter.validate()
    }
}

impl Retry {
    /// Starts building one from the defaults.
    ///
    /// ```
    /// use resilience_core::Retry;
    ///
    /// let retry = Retry::builder().build()?;
    /// assert_eq!(retry.max_attempts(), Retry::default().max_attempts());
    /// assert!(retry.budget().is_none());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder() -> RetryBuilder {
        RetryBuilder::default()
    }

    fn from_valid(settings: RetryBuilder) -> Self {
        let RetryBuilder { limits, budget, seed, clock, observers } = settings;
        let shared = Shared {
            timed: AtomicBool::new(limits.max_elapsed.is_some()),
            limits: AtomicCell::new(limits),
            budget,
            clock,
            observers,
            sequence: AtomicU64::new(seed.unwrap_or_else(|| fastrand::u64(..))),
        };
        Self { shared: Arc::new(shared), alone: Arc::default() }
    }

    /// The pipeline of nothing but this retry.
    fn alone(&self) -> &Pipeline {
        self.alone.get_or_init(|| {
            let Shared { clock, observers, .. } = &*self.shared;
            // Not a clone: that would hold on to itself.
            let retry = Self { shared: Arc::clone(&self.shared), alone: Arc::default() };
            Pipeline::of_retry(retry, clock.clone(), observers.clone())
        })
    }

    /// How often the operation may be tried in all.
    ///
    /// ```
    /// # use resilience_core::Retry;
    /// let retry = Retry::builder().max_attempts(7).build()?;
    /// assert_eq!(retry.max_attempts(), 7);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn max_attempts(&self) -> u32 {
        self.shared.limits.load().max_attempts
    }

    /// What all calls together may retry, if there is a limit.
    ///
    /// ```
    /// use resilience_core::{Retry, RetryBudget};
    ///
    /// let shared = RetryBudget::default();
    /// let retry = Retry::builder().budget(shared.clone()).build()?;
    /// assert_eq!(retry.budget(), Some(&shared)); // the same one, not an equal one
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn budget(&self) -> Option<&RetryBudget> {
        self.shared.budget.as_ref()
    }

    /// Takes its numbers over from `builder`, for all clones and in every pipeline it is part of. Calls under way go by
    /// them from their next failure on; a `max_elapsed` where there was none holds for calls that start later. The
    /// builder's clock, observers and seed are not looked at.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used, or says that the budget is another one, which cannot
    /// change: calls under way have been counted by it. All stays as it was then.
    ///
    /// ```
    /// use resilience_core::Retry;
    ///
    /// let (retry, builder) = (Retry::default(), Retry::builder().max_attempts(5));
    /// let held_elsewhere = retry.clone();
    /// retry.reconfigure(builder)?;
    /// assert_eq!(held_elsewhere.max_attempts(), 5);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "as every policy's `reconfigure`: a builder is used up")]
    pub fn reconfigure(&self, builder: RetryBuilder) -> Result<(), ConfigError> {
        builder.limits.check()?;
        if builder.budget != self.shared.budget {
            return Err(ConfigError::new("retry.budget", "another one", "the budget that it was built with"));
        }
        if builder.limits.max_elapsed.is_some() {
            // Never taken back, so that no two changes at once can end up without it. Relaxed: a call that sees this
            // late is one that started earlier.
            self.shared.timed.store(true, Ordering::Relaxed);
        }
        self.shared.limits.store(builder.limits);
        Ok(())
    }

    /// Begins a call at `now`, which counts for the budget.
    ///
    /// ```
    /// use resilience_core::{Clock, Retry, RetryBudget};
    ///
    /// let budget = RetryBudget::default();
    /// let retry = Retry::builder().budget(budget.clone()).build()?;
    /// let now = Clock::system().now();
    /// let _progress = retry.start(now);
    /// assert_eq!(budget.statistics(now).calls, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn start(&self, now: Instant) -> RetryProgress {
        if let Some(budget) = self.budget() {
            budget.deposit(now);
        }
        RetryProgress { started: now, timed: self.is_timed(), tries: 0, pause: Duration::ZERO }
    }

    /// Whether it makes a difference when a call started.
    #[inline]
    pub(crate) fn needs_start(&self) -> bool {
        self.is_timed() || self.shared.budget.is_some()
    }

    #[inline]
    fn is_timed(&self) -> bool {
        // Relaxed: nothing is published through it.
        self.shared.timed.load(Ordering::Relaxed)
    }

    /// Until the guard is dropped, calls made on this thread under the same budget are part of the one under way.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Entered> {
        self.budget().map(RetryBudget::enter)
    }

    /// Decides after a failed try at `now`: again after a pause, or not. A try that could not start before `deadline`
    /// is not made. `After` takes one retry from the budget, and only when nothing else is in the way. For shells of
    /// your own; a [`Pipeline`] does this for you.
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
        let settings = self.shared.limits.load();
        progress.tries = progress.tries.saturating_add(1);
        if !class.retryable {
            return RetryDecision::Stop(Stopped::NotRetryable);
        }
        if progress.tries >= settings.max_attempts {
            return RetryDecision::Stop(Stopped::AttemptsExhausted);
        }
        if class.retry_after.is_some_and(|asked| asked > settings.max_retry_after) {
            return RetryDecision::Stop(Stopped::RetryAfterTooLong);
        }
        let mut random = self.random();
        let own = settings.jitter.pause(&settings.backoff, progress.tries, progress.pause, random.f64());
        progress.pause = own;
        let delay = match class.retry_after {
            None => own,
            Some(asked) => {
                let default = if settings.jitter == Jitter::None { 0.0 } else { RETRY_AFTER_JITTER };
                let factor = 1.0 + settings.retry_after_jitter.unwrap_or(default) * random.f64();
                // Rounding must not make it shorter than asked.
                own.max(scaled(asked, factor, settings.max_retry_after)).max(asked)
            }
        };
        let next = now + delay;
        let elapsed = nanos(next.saturating_duration_since(progress.started));
        if progress.timed && settings.max_elapsed.is_some_and(|limit| elapsed > nanos(limit)) {
            return RetryDecision::Stop(Stopped::ElapsedExceeded);
        }
        if deadline.is_some_and(|deadline| next >= deadline) {
            return RetryDecision::Stop(Stopped::DeadlineTooClose);
        }
        if self.budget().is_some_and(|budget| !budget.withdraw(now)) {
            return RetryDecision::Stop(Stopped::BudgetSpent);
        }
        RetryDecision::After(delay)
    }

    /// Random numbers for one decision.
    fn random(&self) -> fastrand::Rng {
        // Relaxed: the counter only has to differ from decision to decision.
        fastrand::Rng::with_seed(self.shared.sequence.fetch_add(1, Ordering::Relaxed))
    }
}
