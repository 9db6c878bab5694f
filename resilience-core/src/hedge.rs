//! The hedge: asks again beside a call that is slow, and takes whichever answer comes first.
//! Never more runs than its budget allows, so it stops by itself when everything is slow. It decides when and whether;
//! running the calls side by side is the pipeline's.

mod latency;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::class::Classify;
use crate::clock::{Clock, Instant};
use crate::config::{self, ConfigError};
use crate::event::Observers;
use crate::outcome::Error;
use crate::pipeline::Pipeline;
use crate::retry::{Retry, RetryBudget};
use latency::Latencies;

/// A hedge's figures since it was made.
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
    settings: HedgeBuilder,
    latencies: Option<Latencies>,
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

/// Builds a [`Hedge`].
#[derive(Debug, Clone)]
pub struct HedgeBuilder {
    after: Duration,
    percentile: Option<f64>,
    max_hedges: u32,
    budget: Option<RetryBudget>,
    clock: Clock,
    observers: Observers,
}

impl HedgeBuilder {
    /// How long a run may take before the next one is started beside it; 0 starts all at once. At most 10 years;
    /// default 100 ms.
    #[must_use]
    #[doc(alias = "hedging_delay")]
    pub const fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
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
        self.percentile = Some(part);
        self
    }

    /// How many more runs an attempt may be given. 1 to 8; default 1.
    #[must_use]
    #[doc(alias = "max_hedged_attempts")]
    pub const fn max_hedges(mut self, hedges: u32) -> Self {
        self.max_hedges = hedges;
        self
    }

    /// What all calls together may add by hedging; the same kind of budget as for retries, and it may be the same one.
    /// Default: its own, of a tenth of the calls and 1 per second, over 10 s.
    #[must_use]
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Where calls without a pipeline take the time from; a pipeline brings its own clock. Default: the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of calls without a pipeline, under the pipeline name `hedge`. Default: nobody.
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks the values and makes the hedge.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    pub fn build(mut self) -> Result<Hedge, ConfigError> {
        if self.after > config::MAX_DURATION {
            return Err(ConfigError::new("hedge.after", format!("{:?}", self.after), "at most 10 years"));
        }
        if let Some(part) = self.percentile
            && !(part > 0.0 && part < 1.0)
        {
            return Err(ConfigError::new("hedge.after_percentile", part, "more than 0 and less than 1"));
        }
        config::in_range("hedge", "max_hedges", self.max_hedges, &1, &8)?;
        if self.budget.is_none() {
            self.budget = Some(RetryBudget::builder().ratio(0.1).min_per_second(1.0).build()?);
        }
        let shared = Arc::new(Shared {
            latencies: self.percentile.map(Latencies::new),
            settings: self,
            started: AtomicU64::new(0),
            won: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        Ok(Hedge { shared, alone: Arc::default() })
    }
}

impl Hedge {
    /// Starts building one from the defaults.
    pub const fn builder() -> HedgeBuilder {
        HedgeBuilder {
            after: Duration::from_millis(100),
            percentile: None,
            max_hedges: 1,
            budget: None,
            clock: Clock::system(),
            observers: Observers::new(),
        }
    }

    /// What all calls together may add.
    pub fn budget(&self) -> Option<&RetryBudget> {
        self.shared.settings.budget.as_ref()
    }

    /// Its figures now.
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
            let HedgeBuilder { clock, observers, .. } = &self.shared.settings;
            // Not a clone: that would hold on to itself.
            let hedge = Self { shared: Arc::clone(&self.shared), alone: Arc::default() };
            Pipeline::of_hedge(hedge, clock.clone(), observers.clone())
        })
    }

    pub(crate) fn max_hedges(&self) -> u32 {
        self.shared.settings.max_hedges
    }

    /// After how long the next run is started, where that is not learned.
    pub(crate) fn fixed_delay(&self) -> Option<Duration> {
        self.shared.latencies.is_none().then_some(self.shared.settings.after)
    }

    /// After how long the next run is started.
    pub(crate) fn delay(&self) -> Duration {
        self.shared.latencies.as_ref().and_then(Latencies::quantile).unwrap_or(self.shared.settings.after)
    }

    /// An attempt begins, which may be hedged.
    pub(crate) fn begin(&self, now: Instant, retry: Option<&Retry>) {
        // Under a budget shared with the retry, the call was counted when it started.
        if let Some(budget) = self.budget()
            && retry.and_then(Retry::budget) != Some(budget)
        {
            budget.deposit(now);
        }
    }

    /// Takes one more run from the budget.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let granted = self.budget().is_none_or(|budget| budget.withdraw(now));
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
        if let (Ending::Success { .. } | Ending::TimedOut, Some(latencies)) = (ending, &self.shared.latencies) {
            latencies.record(elapsed);
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
