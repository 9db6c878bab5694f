//! The circuit breaker: stops calling what keeps failing, and finds out when it works again.
//! One word says state and generation; a call is judged only by the generation that admitted it, and a permit that
//! is dropped (cancelled, panicked, timed out) is always returned. The state machine never sleeps or does I/O.

mod config;
mod judged;
mod machine;
mod permit;
mod probes;
mod ramp;
mod settings;
mod snapshot;
mod state;
mod word;

pub use config::CircuitBreakerBuilder;
pub use judged::Judged;
pub use permit::Permit;
pub use settings::{BreakerSettings, CloseWhen, SlowCalls, Trip};
pub use snapshot::{BreakerSnapshot, WindowCounts};
pub use state::{BreakerState, BreakerStatistics};

pub(crate) use permit::Token;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::class::{Class, Classify, Severity};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::event::{Event, Observers};
use crate::outcome::{Error, Outcome, Reason, Rejection};
use crate::pipeline::{ByClass, ByError, ByResult};
use machine::{Machine, News};

/// A circuit breaker. Cheap to clone: clones share one state, in every thread, sync and async.
///
/// The defaults open it after 5 failures in a row, for 60 s, then admit one probe at a time; 2 probe successes
/// in a row close it, one failure opens it again.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{BreakerState, CircuitBreaker, Clock};
///
/// let (clock, time) = Clock::manual();
/// let breaker = CircuitBreaker::builder("registry_fetch").consecutive_failures(2).clock(clock).build()?;
/// let refused = || Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
/// assert!(breaker.call(refused).is_err());
/// assert!(breaker.call(refused).is_err());
/// assert_eq!(breaker.state(), BreakerState::Open);
///
/// let error = breaker.call(|| Ok::<_, std::io::Error>(())).unwrap_err();
/// assert_eq!(error.to_string(), "circuit breaker `registry_fetch` is open; retry in 60.0s");
///
/// time.advance(Duration::from_secs(60));
/// assert!(breaker.call(|| Ok::<_, std::io::Error>(())).is_ok()); // a probe
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    clock: Clock,
    observers: Observers,
    machine: Machine,
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl CircuitBreaker {
    /// Starts building a breaker called `name`, from the defaults.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, circuit_breaker::Trip};
    ///
    /// let breaker = CircuitBreaker::builder("search").build()?;
    /// assert_eq!(breaker.settings().trip, Trip::ConsecutiveFailures(5));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn builder(name: impl Into<Arc<str>>) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::new(name.into())
    }

    /// Its name.
    ///
    /// ```
    /// # use resilience_core::CircuitBreaker;
    /// let breaker = CircuitBreaker::builder("search").build()?;
    /// assert_eq!(breaker.name(), "search");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The state now. An open breaker whose time is over stays `Open` until the next call probes it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{BreakerState, CircuitBreaker, Clock, Outcome};
    ///
    /// let (clock, time) = Clock::manual();
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).clock(clock).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// time.advance(Duration::from_secs(60));
    /// assert_eq!(breaker.state(), BreakerState::Open); // nobody has asked yet
    /// let _probe = breaker.try_acquire()?;
    /// assert_eq!(breaker.state(), BreakerState::HalfOpen);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn state(&self) -> BreakerState {
        self.0.machine.state()
    }

    /// What it has seen, and where it stands.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("search").build()?;
    /// for outcome in [Outcome::Success, Outcome::TimedOut, Outcome::TimedOut] {
    ///     breaker.try_acquire()?.settle(&outcome);
    /// }
    /// assert_eq!(breaker.statistics().consecutive_failures, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statistics(&self) -> BreakerStatistics {
        self.0.machine.statistics(self.0.clock.now())
    }

    /// Asks to make a call. Settle the permit with the call's outcome; a permit that is dropped counts as cancelled,
    /// or as panicked when the thread is unwinding, and frees its place.
    ///
    /// # Errors
    /// A [`Rejection`] when the breaker does not let the call through.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Class, Category, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("parser").build()?;
    /// let permit = breaker.try_acquire().expect("it is closed");
    /// match "12x".parse::<u32>() {
    ///     Ok(_) => permit.settle(&Outcome::Success),
    ///     Err(_) => permit.settle(&Outcome::Failure(Class::of(Category::Validation))), // nobody's fault but ours
    /// }
    /// assert_eq!((breaker.statistics().failures, breaker.statistics().ignored), (0, 1));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        self.admit().map(|token| Permit::new(Cow::Borrowed(self), token))
    }

    /// As [`try_acquire`](Self::try_acquire), for a permit that must outlive the borrow: kept in a table, moved into a
    /// task. Costs a reference count.
    ///
    /// # Errors
    /// A [`Rejection`] when the breaker does not let the call through.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("store").build()?;
    /// let permit = breaker.try_acquire_owned()?;
    /// let worker = std::thread::spawn(move || permit.settle(&Outcome::Success));
    /// worker.join().unwrap();
    /// assert_eq!(breaker.statistics().successes, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_acquire_owned(&self) -> Result<Permit<'static>, Rejection> {
        self.admit().map(|token| Permit::new(Cow::Owned(self.clone()), token))
    }

    #[inline]
    pub(crate) fn admit(&self) -> Result<Token, Rejection> {
        match self.0.machine.admit_closed(|| self.0.clock.now()) {
            Some(token) => Ok(token),
            None => self.admit_or_reject(),
        }
    }

    #[inline(never)]
    fn admit_or_reject(&self) -> Result<Token, Rejection> {
        if let Some(left) = self.0.machine.refuses_for(|| self.0.clock.now()) {
            return Err(self.reject(Reason::CircuitOpen, Some(left)));
        }
        let (decision, news) = self.0.machine.admit(|| self.0.clock.now());
        self.announce(news);
        decision.map_err(|(reason, retry_after)| self.reject(reason, retry_after))
    }

    #[inline]
    fn reject(&self, reason: Reason, retry_after: Option<Duration>) -> Rejection {
        let rejection = Rejection::new(Arc::clone(&self.0.name), reason, retry_after);
        if !self.0.observers.is_empty() {
            self.0.observers.emit(&Event::Rejected { rejection: &rejection });
        }
        rejection
    }

    // Not inlined into what moves permits about: its arguments fit into registers.
    #[inline(never)]
    pub(crate) fn settle(&self, token: Token, outcome: &Outcome) {
        if !self.0.machine.settle_good(token, outcome, || self.0.clock.now()) {
            self.settle_and_announce(token, outcome);
        }
    }

    #[inline(never)]
    fn settle_and_announce(&self, token: Token, outcome: &Outcome) {
        let news = self.0.machine.settle(token, outcome, || self.0.clock.now());
        self.announce(news);
    }

    /// Makes one call through the breaker.
    ///
    /// # Errors
    /// The operation's own error, or a rejection.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::CircuitBreaker;
    ///
    /// let breaker = CircuitBreaker::builder("store").build()?;
    /// assert_eq!(breaker.call(|| Ok::<_, io::Error>("stored")).unwrap(), "stored");
    /// let error = breaker.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe))).unwrap_err();
    /// assert_eq!(error.as_operation().unwrap().kind(), io::ErrorKind::BrokenPipe); // as it was
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[inline]
    pub fn call<T, E: Classify>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>> {
        self.with_judge(ByClass).call(operation)
    }

    /// Makes one async call through the breaker, on any executor. Dropping the future returns the permit.
    ///
    /// # Errors
    /// The operation's own error, or a rejection.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::CircuitBreaker;
    ///
    /// let breaker = CircuitBreaker::builder("store").build()?;
    /// let call = breaker.call_async(async { Ok::<_, std::io::Error>("stored") });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let answer = runtime.block_on(call)?;
    /// assert_eq!(answer, "stored");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_async<T, E: Classify>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        self.with_judge(ByClass).call_async(operation).await
    }

    /// The same breaker for errors that do not implement [`Classify`]: `classify` says what they mean.
    ///
    /// ```
    /// use resilience_core::{Category, Class, CircuitBreaker};
    ///
    /// let breaker = CircuitBreaker::builder("parse").build()?;
    /// let parsing = breaker.classified_by(|_: &std::num::ParseIntError| Class::of(Category::Validation));
    /// assert_eq!(parsing.call(|| "42".parse::<u32>()).unwrap(), 42);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn classified_by<C>(&self, classify: C) -> Judged<'_, ByError<C>> {
        self.with_judge(ByError(classify))
    }

    /// The same breaker for results whose values can fail as well: `judge` says what a result means, `None` that all is
    /// well. The caller gets the value or error as it is.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Category, Class, CircuitBreaker, Classify};
    ///
    /// let breaker = CircuitBreaker::builder("web").build()?;
    /// let web = breaker.judged_by(|answer: &io::Result<u16>| match answer {
    ///     Ok(500..) => Some(Class::of(Category::Network)),
    ///     Ok(_) => None,
    ///     Err(error) => Some(error.class()),
    /// });
    /// assert_eq!(web.call(|| Ok(503)).unwrap(), 503);
    /// assert_eq!(breaker.statistics().failures, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn judged_by<T, E, F>(&self, judge: F) -> Judged<'_, ByResult<F>>
    where
        F: Fn(&Result<T, E>) -> Option<Class>,
    {
        self.with_judge(ByResult(judge))
    }

    /// The same breaker with a [`Judge`](crate::pipeline::Judge) of your own.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Category, CircuitBreaker, Class, Classify, pipeline::Judge};
    ///
    /// struct ByStatus;
    ///
    /// impl Judge<u16, io::Error> for ByStatus {
    ///     fn judge(&self, result: &io::Result<u16>) -> Option<Class> {
    ///         match result {
    ///             Ok(status) => (*status >= 500).then(|| Class::of(Category::Internal)),
    ///             Err(error) => Some(error.class()),
    ///         }
    ///     }
    /// }
    ///
    /// let breaker = CircuitBreaker::builder("web").build()?;
    /// assert_eq!(breaker.with_judge(ByStatus).call(|| Ok(503)).unwrap(), 503);
    /// assert_eq!(breaker.statistics().failures, 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn with_judge<J>(&self, judge: J) -> Judged<'_, J> {
        Judged { breaker: self, judge }
    }

    /// Refuses every call until another state is set by hand.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Reason};
    ///
    /// let breaker = CircuitBreaker::builder("search").build()?;
    /// breaker.force_open(); // maintenance
    /// assert_eq!(breaker.try_acquire().unwrap_err().reason, Reason::CircuitForcedOpen);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[doc(alias = "isolate")]
    pub fn force_open(&self) {
        self.set(BreakerState::ForcedOpen);
    }

    /// Lets every call through and judges none, until another state is set by hand.
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).build()?;
    /// breaker.disable();
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.state(), BreakerState::Disabled);
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disable(&self) {
        self.set(BreakerState::Disabled);
    }

    /// Lets every call through and counts as when closed, until another state is set by hand. Each time it would have
    /// opened it counts in [`would_open`](BreakerStatistics::would_open), emits a notice `would_open`, and its counting
    /// begins anew.
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker};
    ///
    /// let breaker = CircuitBreaker::builder("new_backend").consecutive_failures(2).build()?;
    /// breaker.metrics_only();
    /// for _ in 0..5 {
    ///     assert!(breaker.call(|| Err::<(), _>(std::io::Error::other("down"))).is_err_and(|error| error.attempts == 1));
    /// }
    /// # let statistics = breaker.statistics();
    /// # assert_eq!(statistics.failures, 5, "{statistics:?}");
    /// assert_eq!((breaker.state(), breaker.statistics().would_open), (BreakerState::MetricsOnly, 2));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn metrics_only(&self) {
        self.set(BreakerState::MetricsOnly);
    }

    /// Closes the breaker, without a ramp, and forgets what it counted towards opening; calls under way from before are
    /// not judged.
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(1).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.state(), BreakerState::Open);
    /// breaker.reset(); // it is known to work again
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&self) {
        self.set(BreakerState::Closed);
    }

    /// What it goes by.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, circuit_breaker::CloseWhen};
    ///
    /// let breaker = CircuitBreaker::builder("search").half_open_successes(3).build()?;
    /// assert_eq!(breaker.settings().close_when, CloseWhen::SuccessesInARow(3));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn settings(&self) -> BreakerSettings {
        self.0.machine.settings()
    }

    /// A builder with the name, settings, clock and observers of this breaker: to change some of the settings by
    /// [`reconfigure`](Self::reconfigure).
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, circuit_breaker::Trip};
    ///
    /// let breaker = CircuitBreaker::builder("search").consecutive_failures(3).half_open_permits(2).build()?;
    /// breaker.reconfigure(breaker.to_builder().consecutive_failures(10))?;
    /// let settings = breaker.settings();
    /// assert_eq!((settings.trip, settings.half_open_permits), (Trip::ConsecutiveFailures(10), 2));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn to_builder(&self) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::with_settings(Arc::clone(&self.0.name), self.settings())
            .clock(self.0.clock.clone())
            .observers(self.0.observers.clone())
    }

    /// Goes by the settings of `builder` from now on, in one step, for all clones. What still makes sense stays: the
    /// state, the time an open breaker has left, the probes under way, the calls in a window of the same kind. Observers
    /// and seed are those it was built with.
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("search").failure_rate(0.5, 100, 4).build()?;
    /// for outcome in [Outcome::TimedOut, Outcome::Success, Outcome::Success] {
    ///     breaker.try_acquire()?.settle(&outcome);
    /// }
    /// breaker.reconfigure(breaker.to_builder().failure_rate(0.25, 200, 4))?;
    /// breaker.try_acquire()?.settle(&Outcome::Success); // the fourth call: one in four failed
    /// assert_eq!(breaker.state(), BreakerState::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`ConfigError`] names the first value that cannot be used, or that the builder has another name or clock; the
    /// breaker goes on as it was.
    pub fn reconfigure(&self, builder: CircuitBreakerBuilder) -> Result<(), ConfigError> {
        let settings = builder.settings_for(&self.0.name, &self.0.clock)?;
        self.0.machine.reconfigure(settings, self.0.clock.now());
        Ok(())
    }

    /// What it knows, as a value to [`restore`](Self::restore) after a restart or on another node.
    ///
    /// ```
    /// use resilience_core::{CircuitBreaker, Outcome};
    ///
    /// let breaker = CircuitBreaker::builder("store").consecutive_failures(5).build()?;
    /// breaker.try_acquire()?.settle(&Outcome::TimedOut);
    /// assert_eq!(breaker.snapshot().consecutive_failures, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn snapshot(&self) -> BreakerSnapshot {
        self.0.machine.snapshot(self.0.clock.now())
    }

    /// Takes over what `snapshot` says, as of now: time that passed since it was made is not known, so an open breaker
    /// stays open for what was left then, and the calls of a window count as just made. Calls under way are not judged.
    /// Statistics of calls stay this breaker's own.
    ///
    /// # Errors
    /// A [`ConfigError`] names what no breaker with these settings can have said; the breaker goes on as it was.
    ///
    /// ```
    /// use resilience_core::{BreakerState, CircuitBreaker};
    ///
    /// let build = || CircuitBreaker::builder("store").consecutive_failures(1).build();
    /// let before = build()?;
    /// before.try_acquire().expect("it is closed").settle(&resilience_core::Outcome::TimedOut);
    /// let after = build()?;
    /// after.restore(&before.snapshot())?;
    /// assert_eq!(after.state(), BreakerState::Open);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn restore(&self, snapshot: &BreakerSnapshot) -> Result<(), ConfigError> {
        let news = self.0.machine.restore(&self.0.name, snapshot, self.0.clock.now())?;
        self.announce(news);
        Ok(())
    }

    fn set(&self, state: BreakerState) {
        let news = self.0.machine.set(state);
        self.announce(news);
    }

    fn announce(&self, news: Option<News>) {
        let Some(news) = news else { return };
        let name = &self.0.name;
        self.0.observers.emit(&match news {
            News::Changed { from, to, generation } => {
                Event::BreakerStateChanged { breaker: name, from, to, generation }
            }
            News::WouldHaveOpened => Event::notice(
                "circuit_breaker",
                "would_open",
                name,
                Severity::Medium,
                "it would have opened, were it not in metrics-only mode",
            ),
        });
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn from_parts(name: Arc<str>, clock: Clock, observers: Observers, machine: Machine) -> Self {
        Self(Arc::new(Shared { name, clock, observers, machine }))
    }
}
