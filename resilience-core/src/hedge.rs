//! The hedge: asks again beside a call that is slow, and takes whichever answer comes first.
//! Never more runs than its budget allows, so it stops by itself when everything is slow. It decides when and whether;
//! running the calls side by side is the pipeline's.

mod latency;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_utils::atomic::AtomicCell;

use crate::class::Classify;
use crate::clock::{Clock, Instant};
use crate::config::{self, ConfigError};
use crate::event::Observers;
use crate::outcome::Error;
use crate::pipeline::Pipeline;
use crate::retry::{Retry, RetryBudget};
use latency::Latencies;

/// A hedge's figures since it was made.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Hedge;
///
/// let statistics = Hedge::builder().after(Duration::from_millis(20)).build()?.statistics();
/// assert_eq!((statistics.started, statistics.won, statistics.refused), (0, 0, 0));
/// assert_eq!(statistics.delay, Duration::from_millis(20));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct HedgeStatistics {
    /// Runs that were started beside a slow one.
    pub started: u64,
    /// Those among them whose answer was taken.
    pub won: u64,
    /// Runs that were not started because the budget was spent.
    pub refused: u64,
    /// After how long the next one would be started.
    pub delay: Duration,
}

#[derive(Debug)]
struct Shared {
    /// Read whole, so that nobody sees half of a change.
    limits: AtomicCell<Limits>,
    /// Never changes: calls under way have been counted by it.
    budget: RetryBudget,
    /// Whether nobody gave it that budget.
    own_budget: bool,
    clock: Clock,
    observers: Observers,
    /// Of the runs under a percentile, once there was one.
    latencies: OnceLock<Latencies>,
    started: AtomicU64,
    won: AtomicU64,
    refused: AtomicU64,
}

/// Runs an operation a second time when the first takes long, and takes the answer that comes first. Cheap to clone;
/// clones share budget, statistics and what they learned of latencies.
///
/// One run in a hundred that takes a hundred times as long is what users notice; asking again after the time in which
/// 95 of 100 calls are over cuts that off for 5 % more load. The run that loses is dropped where it awaits, so hedge only
/// what may run twice and may be dropped: reads. A run that fails while another still works is forgotten; when all have
/// failed, the last failure is the result.
///
/// The defaults wait 100 ms, start one more run, and allow as many as a tenth of the calls of the last 10 s and one a
/// second besides. [`after_percentile`](HedgeBuilder::after_percentile) finds the pause by itself.
///
/// It works in an async [`Pipeline`] as the policy next to the operation, and alone by [`call_async`](Self::call_async).
/// Blocking calls go unhedged unless they run [on threads](Pipeline::call_on_threads).
///
/// Source: J. Dean, L. A. Barroso, "The Tail at Scale", CACM 56 (2013), hedged requests; gRPC calls the same so.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use resilience_core::{Hedge, ManualClock};
///
/// let time = ManualClock::auto_advancing();
/// let clock = time.clock();
/// let hedge = Hedge::builder().after(Duration::from_millis(50)).clock(clock.clone()).build()?;
/// let mut pauses = [Duration::from_secs(5), Duration::from_millis(10)].into_iter(); // the first replica hangs
/// let read = hedge.call_async(|| {
///     let (clock, pause) = (clock.clone(), pauses.next().unwrap_or_default());
///     async move {
///         // On a clock that moves by itself, only the second run gets that far.
///         if pause < Duration::from_secs(1) { clock.sleep(pause).await } else { std::future::pending().await }
///         Ok::<_, std::io::Error>("a row")
///     }
/// });
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// assert_eq!(runtime.block_on(read)?, "a row");
/// assert_eq!(time.elapsed(), Duration::from_millis(60));
/// assert_eq!(hedge.statistics().won, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Hedge {
    shared: Arc<Shared>,
    /// The pipeline of nothing but this hedge, for calls without one of their own.
    alone: Arc<OnceLock<Pipeline>>,
}

/// The most that an attempt can be given besides its first run.
pub(crate) const MAX_HEDGES: u32 = 8;

/// What can be changed while calls are made.
#[derive(Debug, Clone, Copy)]
struct Limits {
    after: Duration,
    percentile: Option<f64>,
    max_hedges: u32,
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        if self.after > config::MAX_DURATION {
            return Err(ConfigError::new("hedge.after", format!("{:?}", self.after), "at most 10 years"));
        }
        if let Some(part) = self.percentile
            && !(part > 0.0 && part < 1.0)
        {
            return Err(ConfigError::new("hedge.after_percentile", part, "more than 0 and less than 1"));
        }
        config::in_range("hedge", "max_hedges", self.max_hedges, &1, &MAX_HEDGES)?;
        Ok(())
    }
}

/// Builds a [`Hedge`], or gives one new numbers by [`Hedge::reconfigure`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::Hedge;
///
/// let hedge = Hedge::builder().after(Duration::from_millis(20)).max_hedges(2).build()?;
/// assert!(Hedge::builder().max_hedges(9).build().is_err());
/// # drop(hedge);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HedgeBuilder {
    limits: Limits,
    budget: Option<RetryBudget>,
    clock: Clock,
    observers: Observers,
}

impl HedgeBuilder {
    /// How long a run may take before the next one is started beside it; 0 starts all at once. At most 10 years;
    /// default 100 ms.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Hedge;
    ///
    /// let hedge = Hedge::builder().after(Duration::from_millis(20)).build()?;
    /// assert_eq!(hedge.statistics().delay, Duration::from_millis(20));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "hedging_delay")]
    pub const fn after(mut self, delay: Duration) -> Self {
        self.limits.after = delay;
        self
    }

    /// Starts the next run after the time within which this part of the last few hundred to a thousand attempts had their
    /// answer, measured to an eighth; failures do not count, and a timeout counts with its limit. More than 0 and less than 1: 0.95 hedges one run of twenty. Until 100 runs were measured,
    /// it goes by [`after`](Self::after). Default: off.
    ///
    /// ```
    /// use resilience_core::Hedge;
    ///
    /// let hedge = Hedge::builder().after_percentile(0.95).build()?;
    /// assert_eq!(hedge.statistics().delay.as_millis(), 100); // nothing measured yet
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "delay_percentile")]
    pub const fn after_percentile(mut self, part: f64) -> Self {
        self.limits.percentile = Some(part);
        self
    }

    /// How many more runs an attempt may be given. 1 to 8; default 1.
    ///
    /// ```
    /// use resilience_core::Hedge;
    ///
    /// let error = Hedge::builder().max_hedges(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`hedge.max_hedges` is 0; allowed: 1 to 8");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "max_hedged_attempts")]
    pub const fn max_hedges(mut self, hedges: u32) -> Self {
        self.limits.max_hedges = hedges;
        self
    }

    /// What all calls together may add by hedging; the same kind of budget as for retries, and it may be the same one.
    /// Default: its own, of a tenth of the calls and 1 per second, over 10 s.
    ///
    /// ```
    /// use resilience_core::{Hedge, RetryBudget};
    ///
    /// let budget = RetryBudget::builder().ratio(0.05).build()?; // for retries and hedges together
    /// let hedge = Hedge::builder().budget(budget.clone()).build()?;
    /// assert!(hedge.budget() == Some(&budget));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Where calls without a pipeline take the time from; a pipeline brings its own clock. Default: the system's clock.
    ///
    /// ```
    /// use std::{future, io, time::Duration};
    /// use resilience_core::{Hedge, ManualClock};
    ///
    /// let time = ManualClock::auto_advancing(); // a test need not wait
    /// let hedge = Hedge::builder().after(Duration::from_secs(60)).clock(time.clock()).build()?;
    /// let mut runs = 0;
    /// let answer = hedge.call_async(|| {
    ///     runs += 1;
    ///     let hangs = runs == 1;
    ///     async move { if hangs { future::pending().await } else { Ok::<_, io::Error>("the second run") } }
    /// });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(answer)?, "the second run");
    /// assert_eq!(time.elapsed(), Duration::from_secs(60));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of calls without a pipeline, under the pipeline name `hedge`. Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// use resilience_core::{Event, Hedge, Observers};
    ///
    /// let calls = Arc::new(AtomicU32::new(0));
    /// let count = Arc::clone(&calls);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::CallFinished { pipeline: "hedge", .. } = event {
    ///         count.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }));
    /// let hedge = Hedge::builder().observers(observers).build()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(hedge.call_async(|| async { Ok::<_, std::io::Error>(()) }))?;
    /// assert_eq!(calls.load(Ordering::Relaxed), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes the hedge.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Hedge;
    ///
    /// assert!(Hedge::builder().after_percentile(0.95).build().is_ok());
    /// let error = Hedge::builder().after_percentile(1.5).build().unwrap_err();
    /// assert_eq!(error.to_string(), "`hedge.after_percentile` is 1.5; allowed: more than 0 and less than 1");
    /// ```
    pub fn build(self) -> Result<Hedge, ConfigError> {
        let Self { limits, budget, clock, observers } = self;
        limits.check()?;
        let own_budget = budget.is_none();
        let budget = match budget {
            Some(budget) => budget,
            None => RetryBudget::builder().ratio(0.1).min_per_second(1.0).build()?,
        };
        let shared = Arc::new(Shared {
            latencies: OnceLock::new(),
            limits: AtomicCell::new(limits),
            budget,
            own_budget,
            clock,
            observers,
            started: AtomicU64::new(0),
            won: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        Ok(Hedge { shared, alone: Arc::default() })
    }
}

impl Hedge {
    /// Starts building one from the defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Hedge;
    ///
    /// assert_eq!(Hedge::builder().build()?.statistics().delay, Duration::from_millis(100));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn builder() -> HedgeBuilder {
        HedgeBuilder {
            limits: Limits { after: Duration::from_millis(100), percentile: None, max_hedges: 1 },
            budget: None,
            clock: Clock::system(),
            observers: Observers::new(),
        }
    }

    /// What all calls together may add.
    ///
    /// ```
    /// use resilience_core::{Clock, Hedge};
    ///
    /// let hedge = Hedge::builder().build()?;
    /// let now = Clock::system().now();
    /// let left = hedge.budget().map(|budget| budget.statistics(now).available);
    /// assert_eq!(left, Some(10)); // its own: 1 per second, over 10 s
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn budget(&self) -> Option<&RetryBudget> {
        Some(&self.shared.budget)
    }

    /// Takes its numbers over from `builder`, for all clones and in every pipeline it is part of; what it counted and
    /// learned of latencies stays. Calls under way go by them from the next run they might start on. The builder's clock
    /// and observers are not looked at.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used, or says that the budget is another one, which cannot
    /// change: calls under way have been counted by it. All stays as it was then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::Hedge;
    ///
    /// let hedge = Hedge::builder().build()?;
    /// let held_elsewhere = hedge.clone();
    /// hedge.reconfigure(Hedge::builder().after(Duration::from_millis(20)))?;
    /// assert_eq!(held_elsewhere.statistics().delay.as_millis(), 20);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "as every policy's `reconfigure`: a builder is used up")]
    pub fn reconfigure(&self, builder: HedgeBuilder) -> Result<(), ConfigError> {
        builder.limits.check()?;
        if !self.has_budget_of(&builder) {
            return Err(ConfigError::new("hedge.budget", "another one", "the budget that it was built with"));
        }
        self.shared.limits.store(builder.limits);
        if let (Some(part), Some(latencies)) = (builder.limits.percentile, self.shared.latencies.get()) {
            latencies.ask_for(part);
        }
        Ok(())
    }

    /// Whether a hedge made by `builder` would go by the same budget; one of its own is as good as another.
    pub(crate) fn has_budget_of(&self, builder: &HedgeBuilder) -> bool {
        builder.budget.as_ref().map_or(self.shared.own_budget, |budget| *budget == self.shared.budget)
    }

    /// Its figures now.
    ///
    /// ```
    /// use std::{future, io};
    /// use resilience_core::{Hedge, ManualClock};
    ///
    /// let hedge = Hedge::builder().clock(ManualClock::auto_advancing().clock()).build()?;
    /// let mut runs = 0;
    /// let answer = hedge.call_async(|| {
    ///     runs += 1;
    ///     let hangs = runs == 1;
    ///     async move { if hangs { future::pending().await } else { Ok::<_, io::Error>(()) } }
    /// });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// runtime.block_on(answer)?;
    /// let statistics = hedge.statistics();
    /// assert_eq!((statistics.started, statistics.won, statistics.refused), (1, 1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statistics(&self) -> HedgeStatistics {
        // Relaxed: counters, nothing is published through them.
        HedgeStatistics {
            started: self.shared.started.load(Ordering::Relaxed),
            won: self.shared.won.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            delay: self.delay(),
        }
    }

    /// Makes one hedged async call, on any executor. Dropping the future drops every run.
    ///
    /// # Errors
    /// The operation's own error, once every run has failed.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::Hedge;
    ///
    /// async fn ask_replica(replica: usize) -> io::Result<usize> {
    ///     Ok(replica)
    /// }
    ///
    /// let hedge = Hedge::builder().build()?;
    /// let mut replicas = (0..3).cycle(); // each run asks the next one
    /// let answer = hedge.call_async(|| ask_replica(replicas.next().unwrap_or_default()));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(answer)?, 0); // in time: no second run
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn call_async<T, E, F>(&self, operation: impl FnMut() -> F) -> Result<T, Error<E>>
    where
        E: Classify,
        F: Future<Output = Result<T, E>>,
    {
        self.alone().call_async(operation).await
    }

    /// The pipeline of nothing but this hedge.
    fn alone(&self) -> &Pipeline {
        self.alone.get_or_init(|| {
            let Shared { clock, observers, .. } = &*self.shared;
            // Not a clone: that would hold on to itself.
            let hedge = Self { shared: Arc::clone(&self.shared), alone: Arc::default() };
            Pipeline::of_hedge(hedge, clock.clone(), observers.clone())
        })
    }

    pub(crate) fn max_hedges(&self) -> u32 {
        self.shared.limits.load().max_hedges
    }

    /// After how long the next run is started, where that is not learned.
    pub(crate) fn fixed_delay(&self) -> Option<Duration> {
        let limits = self.shared.limits.load();
        limits.percentile.is_none().then_some(limits.after)
    }

    /// After how long the next run is started.
    pub(crate) fn delay(&self) -> Duration {
        let limits = self.shared.limits.load();
        let learned = limits.percentile.and_then(|_| self.shared.latencies.get()?.quantile());
        learned.unwrap_or(limits.after)
    }

    /// An attempt begins, which may be hedged.
    pub(crate) fn begin(&self, now: Instant, retry: Option<&Retry>) {
        // Under a budget shared with the retry, the call was counted when it started.
        if retry.and_then(Retry::budget) != Some(&self.shared.budget) {
            self.shared.budget.deposit(now);
        }
    }

    /// Takes one more run from the budget.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let granted = self.shared.budget.withdraw(now);
        // Relaxed: counters, nothing is published through them.
        let count = if granted { &self.shared.started } else { &self.shared.refused };
        count.fetch_add(1, Ordering::Relaxed);
        granted
    }

    /// An attempt ended `elapsed` after its first run began.
    pub(crate) fn ended(&self, elapsed: Duration, ending: Ending) {
        if let Ending::Success { by_hedge: true } = ending {
            // Relaxed: a counter, nothing is published through it.
            self.shared.won.fetch_add(1, Ordering::Relaxed);
        }
        // A refusal comes at once and says nothing of how long an answer takes; a timeout says that it takes longer.
        if let (Ending::Success { .. } | Ending::TimedOut, Some(part)) = (ending, self.shared.limits.load().percentile)
        {
            self.shared.latencies.get_or_init(Latencies::new).record(elapsed, part);
        }
    }
}

/// How a hedged attempt ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Success { by_hedge: bool },
    Failure,
    TimedOut,
}
