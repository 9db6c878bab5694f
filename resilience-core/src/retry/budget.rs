//! The retry budget: how many retries all calls together may make, so that retrying never becomes the overload.
//! Retries never exceed their share of the calls of a sliding window plus a floor, however many calls fail at once.
//! O(1) and free of locks for a call; a retry takes one short lock. It is told the time and never waits.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Instant, nanos};
use crate::config::ConfigError;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The window is counted in tenths; one more is kept, so that it is never shorter than asked, wherever it starts.
const PARTS: u64 = 10;
const SLOTS: usize = 11;

/// The bits of a word that hold the tenth's number, once shifted down, and those that hold the count.
const LOW_HALF: u64 = u32::MAX as u64;

/// Code is part of calls under so many budgets at once; under more, the inner ones count anew.
const BUDGETS: usize = 4;

thread_local! {
    /// The budgets under which the code on this thread runs as part of a counted call; 0: none. Filled in order.
    static ENTERED: [Cell<usize>; BUDGETS] = const { [const { Cell::new(0) }; BUDGETS] };
}

/// A budget's figures at one moment.
///
/// ```
/// use resilience_core::{Category, Class, Clock, Retry, RetryBudget};
///
/// let budget = RetryBudget::builder().ratio(0.0).min_per_second(0.1).build()?; // one in 10 s
/// let retry = Retry::builder().budget(budget.clone()).build()?;
/// let (clock, _time) = Clock::manual();
/// for _ in 0..3 {
///     retry.decide(&mut retry.start(clock.now()), &Class::of(Category::Network), clock.now(), None);
/// }
/// let seen = budget.statistics(clock.now());
/// assert_eq!((seen.calls, seen.granted, seen.refused, seen.available), (3, 1, 2, 0));
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RetryBudgetStatistics {
    /// Calls in the window. A call within another call under the same budget is not counted.
    pub calls: u64,
    /// Retries in the window.
    pub retries: u64,
    /// How many retries could be made at once now.
    pub available: u64,
    /// Retries granted since the budget was made.
    pub granted: u64,
    /// Retries refused since the budget was made.
    pub refused: u64,
}

/// Retries of a tenth of the window.
#[derive(Clone, Copy, Default)]
struct Spent {
    slot: u64,
    retries: u64,
}

#[derive(Default)]
struct Ledger {
    settings: RetryBudgetBuilder,
    /// The latest slot seen: time never goes back here, not even when threads come late.
    latest: u64,
    spent: [Spent; SLOTS],
    granted: u64,
    refused: u64,
}

impl Ledger {
    /// The retries of the window that ends with the tenth `latest`.
    fn retries(&self, latest: u64) -> u64 {
        self.spent.iter().filter(|spent| spent.slot + PARTS >= latest).map(|spent| spent.retries).sum()
    }
}

struct Shared {
    /// How long a tenth of the window is. Changes only under the ledger's lock.
    slot_nanos: AtomicU64,
    /// Calls of a tenth of the window each: the low half of the tenth's number, and the count. One word, so that a
    /// call costs one addition. A window is at most a minute, so a count stays far below 2^32, and numbers repeat only
    /// after 13 years.
    calls: [AtomicU64; SLOTS],
    ledger: Mutex<Ledger>,
}

/// How many retries all calls together may make: a share of the calls, plus a floor per second. Cheap to clone; clones
/// share it.
///
/// When everything fails, retries multiply the load just when it hurts: three attempts triple it, and three layers of
/// them make 27 calls of one. With a budget, over any span of time, retries ≤ `ratio` × calls + `min_per_second` ×
/// (span + window), the calls being those of the span and of the window before it (and up to a tenth of a window more:
/// calls are counted by tenths). Three layers that share one budget keep the same bound: a call made within another
/// call's attempt, on its thread or in its task, is no call of its own. What an attempt spawns elsewhere is.
///
/// The defaults are those of Finagle, which tower has as well: 20 % of the calls and 10 retries per second, over 10 s.
/// A budget starts as after a quiet time: the floor of one window is there at once. A call whose retry is refused
/// ends with its own error and [`Stopped::BudgetSpent`](crate::Stopped::BudgetSpent). All its users must go by one
/// clock.
///
/// Sources: "Retry Budgets" (K. Oliver, Finagle blog, 2016); `tower::retry::budget::TpsBudget`. gRPC's retry throttling
/// (gRFC A6) serves the same end by the ratio of successes to failures.
///
/// ```
/// use resilience_core::{Pipeline, Retry, RetryBudget, Stopped};
///
/// let budget = RetryBudget::builder().ratio(0.1).min_per_second(0.0).build()?;
/// let retry = Retry::builder().budget(budget.clone()).build()?;
/// let pipeline = Pipeline::builder("search").retry(retry).build()?;
///
/// let failing = || Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
/// let error = pipeline.call(failing).unwrap_err();
/// assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::BudgetSpent))); // one call earns a tenth of a retry
/// assert_eq!(budget.statistics(pipeline.clock().now()).refused, 1);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct RetryBudget(Arc<Shared>);

/// Builds a [`RetryBudget`].
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{Clock, RetryBudget};
///
/// let budget = RetryBudget::builder().ratio(0.1).min_per_second(2.0).window(Duration::from_secs(5)).build()?;
/// assert_eq!(budget.statistics(Clock::system().now()).available, 10); // the floor of one window
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudgetBuilder {
    ratio: f64,
    min_per_second: f64,
    window: Duration,
}

impl RetryBudgetBuilder {
    /// Retries per call: 0.2 allows one more attempt for every five calls. 0 to 1000; default 0.2.
    ///
    /// ```
    /// # use resilience_core::{Clock, Retry, RetryBudget};
    /// let budget = RetryBudget::builder().ratio(0.5).min_per_second(0.0).build()?;
    /// let retry = Retry::builder().budget(budget.clone()).build()?;
    /// let now = Clock::system().now();
    /// for _ in 0..4 {
    ///     retry.start(now);
    /// }
    /// assert_eq!(budget.statistics(now).available, 2); // half as many as calls
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Retries per second that are allowed however few calls there are. 0 to 1 000 000; default 10.
    ///
    /// ```
    /// # use resilience_core::{Clock, RetryBudget};
    /// let budget = RetryBudget::builder().min_per_second(3.0).build()?;
    /// assert_eq!(budget.statistics(Clock::system().now()).available, 30); // of a window of 10 s, without any call
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn min_per_second(mut self, retries: f64) -> Self {
        self.min_per_second = retries;
        self
    }

    /// How long a call counts; what the floor grants within it may be used at once. 1 s to 60 s; default 10 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilience_core::{Clock, Retry, RetryBudget};
    /// let budget = RetryBudget::builder().window(Duration::from_secs(1)).build()?;
    /// let retry = Retry::builder().budget(budget.clone()).build()?;
    /// let (clock, time) = Clock::manual();
    /// retry.start(clock.now());
    /// assert_eq!(budget.statistics(clock.now()).calls, 1);
    /// time.advance(Duration::from_secs(2));
    /// assert_eq!(budget.statistics(clock.now()).calls, 0);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Checks the values and makes the budget.
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used.
    ///
    /// ```
    /// # use resilience_core::RetryBudget;
    /// let error = RetryBudget::builder().ratio(-1.0).build().unwrap_err();
    /// assert_eq!(error.field, "retry_budget.ratio");
    /// ```
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        self.check()?;
        Ok(RetryBudget::from_valid(self))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1_000.0).contains(&self.ratio) {
            return Err(ConfigError::new("retry_budget.ratio", self.ratio, "0 to 1000"));
        }
        if !(0.0..=1_000_000.0).contains(&self.min_per_second) {
            return Err(ConfigError::new("retry_budget.min_per_second", self.min_per_second, "0 to 1000000"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.window) {
            return Err(ConfigError::new("retry_budget.window", format!("{:?}", self.window), "1s to 60s"));
        }
        Ok(())
    }

    /// How many retries the window allows after so many calls.
    fn allowance(&self, calls: u64) -> f64 {
        self.ratio * calls as f64 + self.min_per_second * self.window.as_secs_f64()
    }
}

impl Default for RetryBudgetBuilder {
    fn default() -> Self {
        RetryBudget::builder()
    }
}

impl RetryBudget {
    /// Starts building one from the defaults.
    ///
    /// ```
    /// # use resilience_core::{Clock, RetryBudget};
    /// let (as_built, default) = (RetryBudget::builder().build()?, RetryBudget::default());
    /// let now = Clock::system().now();
    /// assert_eq!(as_built.statistics(now), default.statistics(now));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder { ratio: 0.2, min_per_second: 10.0, window: Duration::from_secs(10) }
    }

    fn from_valid(settings: RetryBudgetBuilder) -> Self {
        Self(Arc::new(Shared {
            slot_nanos: AtomicU64::new(nanos(settings.window).div_ceil(PARTS)),
            calls: std::array::from_fn(|_| AtomicU64::new(0)),
            ledger: Mutex::new(Ledger { settings, ..Ledger::default() }),
        }))
    }

    /// Takes its numbers over from `builder`, for all clones. Calls and retries stay counted, so that a change grants
    /// nothing twice; with another window they are counted anew from now on, as when the budget was made.
    ///
    /// # Errors
    /// A [`ConfigError`] names the value that cannot be used; all stays as it was.
    ///
    /// ```
    /// use resilience_core::{Clock, RetryBudget};
    ///
    /// let budget = RetryBudget::builder().min_per_second(1.0).build()?;
    /// budget.reconfigure(RetryBudget::builder().min_per_second(5.0))?;
    /// assert_eq!(budget.statistics(Clock::system().now()).available, 50);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, builder: RetryBudgetBuilder) -> Result<(), ConfigError> {
        builder.check()?;
        let mut ledger = lock(&self.0.ledger);
        if builder.window != ledger.settings.window {
            // The tenths' numbers mean other times from now on. A call that is being counted meanwhile may be lost, or
            // be counted once more in a window to come.
            // Relaxed: whoever counts needs no other word than these.
            self.0.slot_nanos.store(nanos(builder.window).div_ceil(PARTS), Ordering::Relaxed);
            for cell in &self.0.calls {
                cell.store(0, Ordering::Relaxed);
            }
            (ledger.latest, ledger.spent) = (0, [Spent::default(); SLOTS]);
        }
        ledger.settings = builder;
        Ok(())
    }

    /// The number of the tenth that `now` is in.
    fn slot(&self, now: Instant) -> u64 {
        // Relaxed: see `reconfigure`.
        now.as_nanos() / self.0.slot_nanos.load(Ordering::Relaxed)
    }

    /// Counts a call that starts at `now`, unless it is made within another call under this budget.
    pub(crate) fn deposit(&self, now: Instant) {
        let id = self.id();
        if ENTERED.with(|places| places.iter().any(|place| place.get() == id)) {
            return;
        }
        let slot = self.slot(now);
        let cell = &self.0.calls[index(slot)];
        // Relaxed throughout: the words are counts, nothing is published through them.
        let mut word = cell.load(Ordering::Relaxed);
        loop {
            if word >> 32 == slot & LOW_HALF {
                // Should the tenth be over by now, the call counts in the one that took its place.
                cell.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // A thread that slept through a whole window here may undo a newer count: fewer retries, never more.
            let first = ((slot & LOW_HALF) << 32) | 1;
            match cell.compare_exchange_weak(word, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => word = changed,
            }
        }
    }

    /// Takes one retry at `now`, if there is one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let mut ledger = lock(&self.0.ledger);
        let latest = ledger.latest.max(self.slot(now));
        ledger.latest = latest;
        let granted = (ledger.retries(latest) + 1) as f64 <= ledger.settings.allowance(self.calls(latest));
        if granted {
            ledger.granted += 1;
            let spent = &mut ledger.spent[index(latest)];
            if spent.slot != latest {
                *spent = Spent { slot: latest, retries: 0 };
            }
            spent.retries += 1;
        } else {
            ledger.refused += 1;
        }
        granted
    }

    /// How the budget stands at `now`, a time of the clock its users go by.
    ///
    /// ```
    /// # use resilience_core::{Clock, Retry, RetryBudget};
    /// let budget = RetryBudget::builder().ratio(1.0).min_per_second(0.0).build()?;
    /// let retry = Retry::builder().budget(budget.clone()).build()?;
    /// let now = Clock::system().now();
    /// retry.start(now);
    /// let seen = budget.statistics(now);
    /// assert_eq!((seen.calls, seen.retries, seen.available), (1, 0, 1));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn statistics(&self, now: Instant) -> RetryBudgetStatistics {
        let ledger = lock(&self.0.ledger);
        let latest = ledger.latest.max(self.slot(now));
        let (calls, retries) = (self.calls(latest), ledger.retries(latest));
        RetryBudgetStatistics {
            calls,
            retries,
            available: whole(ledger.settings.allowance(calls)).saturating_sub(retries),
            granted: ledger.granted,
            refused: ledger.refused,
        }
    }

    /// The calls of the window that ends with the tenth `latest`.
    fn calls(&self, latest: u64) -> u64 {
        let in_slot = |slot: u64| {
            let word = self.0.calls[index(slot)].load(Ordering::Relaxed);
            if word >> 32 == slot & LOW_HALF { word & LOW_HALF } else { 0 }
        };
        (latest.saturating_sub(PARTS)..=latest).map(in_slot).sum()
    }

    fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Until the guard is dropped, calls made on this thread are part of one that was counted already.
    pub(crate) fn enter(&self) -> Entered {
        enter_by_id(self.id())
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::from_valid(Self::builder())
    }
}

impl PartialEq for RetryBudget {
    /// Whether both are one and the same budget.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryBudgetBuilder { ratio, min_per_second, window } = lock(&self.0.ledger).settings;
        f.debug_struct("RetryBudget")
            .field("ratio", &ratio)
            .field("min_per_second", &min_per_second)
            .field("window", &window)
            .finish_non_exhaustive()
    }
}

fn enter_by_id(id: usize) -> Entered {
    ENTERED.with(|places| {
        let own = |place: &Cell<usize>| place.get() == 0 || place.get() == id;
        let place = places.iter().position(own).unwrap_or(BUDGETS);
        let before = places.get(place).map_or(0, |place| place.replace(id));
        Entered { place, before }
    })
}

/// Restores what was entered before, also when the operation panics.
#[derive(Debug)]
pub(crate) struct Entered {
    place: usize,
    before: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.with(|places| {
            if let Some(place) = places.get(self.place) {
                place.set(self.before);
            }
        });
    }
}

/// The budgets that the code on this thread is part of a call under, to be taken up on another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited([usize; BUDGETS]);

impl Inherited {
    pub(crate) fn here() -> Self {
        Self(ENTERED.with(|places| std::array::from_fn(|index| places[index].get())))
    }

    /// Until the guards are dropped, calls on this thread are part of that one.
    pub(crate) fn enter(&self) -> [Option<Entered>; BUDGETS] {
        self.0.map(|id| (id != 0).then(|| enter_by_id(id)))
    }
}

fn index(slot: u64) -> usize {
    let slots = SLOTS as u64;
    usize::try_from(slot % slots).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; `as` saturates")]
fn whole(number: f64) -> u64 {
    number as u64
}
