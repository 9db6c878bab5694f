//! How a pipeline is put together, and which orders are refused. Nothing here runs after the pipeline is built.

use std::sync::Arc;
use std::time::Duration;

use super::Pipeline;
use super::gate::{Gate, MAX_GATES};
use super::plan::Plan;
use crate::bulkhead::Bulkhead;
use crate::chaos::Chaos;
use crate::circuit_breaker::CircuitBreaker;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::event::Observers;
use crate::hedge::Hedge;
use crate::load_shedder::LoadShedder;
use crate::rate_limiter::{KeyedRateLimiter, RateLimiter};
use crate::retry::Retry;

/// Builds a [`Pipeline`]: policies are listed from the outside in.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::{CircuitBreaker, Pipeline, Retry};
///
/// let breaker = CircuitBreaker::builder("store").build()?;
/// let pipeline = Pipeline::builder("store")
///     .timeout(Duration::from_secs(30)) // for the whole call
///     .retry(Retry::default())
///     .circuit_breaker(breaker.clone()) // asked before each attempt
///     .timeout(Duration::from_secs(5)) // for each attempt
///     .build()?;
/// breaker.force_open();
/// assert_eq!(pipeline.call(|| Ok::<_, std::io::Error>(())).unwrap_err().attempts, 0);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PipelineBuilder {
    name: Arc<str>,
    clock: Clock,
    observers: Observers,
    steps: Vec<Policy>,
}

#[derive(Debug, Clone)]
enum Policy {
    Timeout(Duration),
    Retry(Retry),
    Gate(Gate),
    Chaos(Chaos),
    Hedge(Hedge),
}

impl PipelineBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, clock: Clock::system(), observers: Observers::new(), steps: Vec::new() }
    }

    fn step(mut self, policy: Policy) -> Self {
        self.steps.push(policy);
        self
    }

    /// Before [`retry`](Self::retry), bounds the whole call, waits and pauses included, and stands before all policies that
    /// wait. After it, or after a policy that waits, bounds the operation in each attempt. More than 0.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Bulkhead, ManualClock, Pipeline};
    ///
    /// let clock = ManualClock::auto_advancing().clock();
    /// let room = Bulkhead::builder("reports").max_concurrent(1).clock(clock.clone()).build()?;
    /// let _inside = room.try_acquire_owned();
    /// let pipeline = Pipeline::builder("reports")
    ///     .timeout(Duration::from_secs(1)) // the call: it waits no longer than that
    ///     .bulkhead_waiting(room, Duration::from_secs(60))
    ///     .clock(clock.clone())
    ///     .build()?;
    /// let before = clock.now();
    /// assert!(pipeline.call(|| Ok::<_, std::io::Error>(())).is_err());
    /// assert!(clock.now() <= before + Duration::from_secs(1));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.step(Policy::Timeout(limit))
    }

    /// Tries again what failed for a passing reason: the operation, or a policy listed after it. At most one.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{ManualClock, Pipeline, Retry};
    ///
    /// # let clock = ManualClock::auto_advancing().clock();
    /// let pipeline = Pipeline::builder("store").retry(Retry::default()).clock(clock).build()?;
    /// let mut answers = [Err(io::Error::from(io::ErrorKind::ConnectionReset)), Ok(42)].into_iter();
    /// assert_eq!(pipeline.call(|| answers.next().expect("two answers")).unwrap(), 42);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        self.step(Policy::Retry(retry))
    }

    /// Takes permits before going on; refuses when they are not there. Permits taken are used up, also when a policy
    /// further in refuses the call.
    ///
    /// ```
    /// use resilience_core::{Pipeline, RateLimiter, Reason};
    ///
    /// let limiter = RateLimiter::builder("mail").burst(1).build()?;
    /// let pipeline = Pipeline::builder("mail").rate_limiter(limiter).build()?;
    /// assert!(pipeline.call(|| Ok::<_, std::io::Error>(())).is_ok());
    /// let error = pipeline.call(|| Ok::<_, std::io::Error>(())).unwrap_err();
    /// assert_eq!(error.as_rejection().map(|refused| refused.reason), Some(Reason::RateLimited));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn rate_limiter(self, limiter: RateLimiter) -> Self {
        self.rate_limiter_waiting(limiter, Duration::ZERO)
    }

    /// Takes permits before going on, waiting for up to `max_wait` (at most 10 years) until they are there, and never
    /// to the call's deadline. The limiter must go by the pipeline's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{ManualClock, Pipeline, RateLimiter};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let second = Duration::from_secs(1);
    /// let limiter = RateLimiter::builder("mail").rate(1, second).burst(1).clock(time.clock()).build()?;
    /// let pipeline = Pipeline::builder("mail")
    ///     .rate_limiter_waiting(limiter, 5 * second)
    ///     .clock(time.clock())
    ///     .build()?;
    /// for _ in 0..3 {
    ///     assert!(pipeline.call(|| Ok::<_, std::io::Error>(())).is_ok());
    /// }
    /// assert_eq!(time.elapsed(), 2 * second); // the second and third call waited one each
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn rate_limiter_waiting(self, limiter: RateLimiter, max_wait: Duration) -> Self {
        self.step(Policy::Gate(Gate::Limiter { limiter, max_wait }))
    }

    /// Takes permits of the call's [key](crate::CallOptions::key) before going on; refuses when they are not there. Calls
    /// without a key share the limit of the empty one.
    ///
    /// ```
    /// use resilience_core::{CallOptions, KeyedRateLimiter, Pipeline};
    ///
    /// let tenants = KeyedRateLimiter::builder("per_tenant").burst(1).build()?;
    /// let pipeline = Pipeline::builder("api").keyed_rate_limiter(tenants).build()?;
    /// let call = |tenant| pipeline.call_with(CallOptions::new().key(tenant), |_| Ok::<_, std::io::Error>(()));
    /// assert!(call("blue").is_ok());
    /// assert!(call("blue").is_err() && call("green").is_ok());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn keyed_rate_limiter(self, limiter: KeyedRateLimiter<String>) -> Self {
        self.keyed_rate_limiter_waiting(limiter, Duration::ZERO)
    }

    /// As [`keyed_rate_limiter`](Self::keyed_rate_limiter), waiting for up to `max_wait` (at most 10 years) until the
    /// permits are there, and never to the call's deadline. The limiter must go by the pipeline's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{CallOptions, KeyedRateLimiter, ManualClock, Pipeline};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let second = Duration::from_secs(1);
    /// let tenants = KeyedRateLimiter::builder("per_tenant").rate(1, second).burst(1).clock(time.clock()).build()?;
    /// let pipeline =
    ///     Pipeline::builder("api").keyed_rate_limiter_waiting(tenants, 5 * second).clock(time.clock()).build()?;
    /// let call = |tenant| pipeline.call_with(CallOptions::new().key(tenant), |_| Ok::<_, std::io::Error>(()));
    /// assert!(call("blue").is_ok() && call("green").is_ok());
    /// assert_eq!(time.elapsed(), Duration::ZERO);
    /// assert!(call("blue").is_ok());
    /// assert_eq!(time.elapsed(), second);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn keyed_rate_limiter_waiting(self, limiter: KeyedRateLimiter<String>, max_wait: Duration) -> Self {
        self.step(Policy::Gate(Gate::Keyed { limiter, max_wait }))
    }

    /// Stops calling what keeps failing. Each breaker at most once.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{CircuitBreaker, Pipeline};
    ///
    /// let breaker = CircuitBreaker::builder("store").consecutive_failures(2).build()?;
    /// let pipeline = Pipeline::builder("store").circuit_breaker(breaker).build()?;
    /// let mut asked = 0;
    /// for _ in 0..10 {
    ///     let _ = pipeline.call(|| {
    ///         asked += 1;
    ///         Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    ///     });
    /// }
    /// assert_eq!(asked, 2); // the breaker refused the others
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn circuit_breaker(self, breaker: CircuitBreaker) -> Self {
        self.step(Policy::Gate(Gate::Breaker(breaker)))
    }

    /// Lets in as many calls at once as the bulkhead allows, and refuses the others. Room is kept until everything
    /// listed after it is over: before [`retry`](Self::retry) also through the pauses. Each bulkhead at most once.
    ///
    /// A call that a bulkhead refused is not retried: trying again is no way out of too much load.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Bulkhead, Pipeline, Retry};
    ///
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(10).build()?;
    /// let pipeline = Pipeline::builder("reports").retry(Retry::default()).bulkhead(bulkhead.clone()).build()?;
    /// let inside = pipeline.call(|| Ok::<_, std::io::Error>(bulkhead.statistics().in_flight));
    /// assert_eq!(inside.unwrap(), 1);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn bulkhead(self, bulkhead: Bulkhead) -> Self {
        self.bulkhead_waiting(bulkhead, Duration::ZERO)
    }

    /// As [`bulkhead`](Self::bulkhead), waiting in the bulkhead's queue for up to `max_wait` (at most 10 years) on the
    /// pipeline's clock, and never to the call's deadline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::{Bulkhead, ManualClock, Pipeline, Reason};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let bulkhead = Bulkhead::builder("reports").max_concurrent(1).clock(time.clock()).build()?;
    /// let pipeline = Pipeline::builder("reports")
    ///     .bulkhead_waiting(bulkhead.clone(), Duration::from_secs(5))
    ///     .clock(time.clock())
    ///     .build()?;
    /// let _taken = bulkhead.try_acquire().expect("nobody else");
    /// let error = pipeline.call(|| Ok::<_, std::io::Error>(())).unwrap_err();
    /// assert_eq!(error.as_rejection().map(|refused| refused.reason), Some(Reason::BulkheadWaitedTooLong));
    /// assert_eq!(time.elapsed(), Duration::from_secs(5));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn bulkhead_waiting(self, bulkhead: Bulkhead, max_wait: Duration) -> Self {
        self.step(Policy::Gate(Gate::Bulkhead { bulkhead, max_wait }))
    }

    /// Refuses the calls that matter least, by their [priority](crate::CallOptions::priority), when there are too many.
    /// Best listed first, so that what it refuses costs nothing more. Each load shedder at most once.
    ///
    /// ```
    /// use resilience_core::{CallOptions, LoadShedder, Pipeline, Priority};
    ///
    /// let shedder = LoadShedder::builder("api").max_concurrent(100).build()?;
    /// shedder.set_pressure(0.6)?; // memory is short
    /// let pipeline = Pipeline::builder("api").load_shedder(shedder).build()?;
    /// let call = |priority| pipeline.call_with(CallOptions::new().priority(priority), |_| Ok::<_, std::io::Error>(()));
    /// assert!(call(Priority::Critical).is_ok());
    /// let refused = call(Priority::Background).unwrap_err();
    /// assert_eq!(refused.to_string(), "load shedder `api` has no room for background calls");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn load_shedder(self, shedder: LoadShedder) -> Self {
        self.step(Policy::Gate(Gate::Shedder(shedder)))
    }

    /// Does harm in the place of the operation, as told: what it injects is part of the attempt, so every policy listed
    /// before takes it for the dependency's doing. The last policy but for a [hedge](Self::hedge), all of whose runs it
    /// comes before; to disturb each of them, put [`Chaos::call_async`] around the operation instead.
    ///
    /// ```
    /// use resilience_core::{Category, Chaos, Class, ManualClock, Pipeline, Retry};
    ///
    /// # let clock = ManualClock::auto_advancing().clock();
    /// let chaos = Chaos::builder("store_down")
    ///     .fault(1.0, Class::of(Category::Network))
    /// #     .allow_in_release(true)
    ///     .build()?;
    /// let pipeline = Pipeline::builder("store").retry(Retry::default()).chaos(chaos).clock(clock).build()?;
    /// let error = pipeline.call(|| Ok::<_, std::io::Error>(())).unwrap_err();
    /// assert_eq!(error.attempts, 3); // retried as a broken connection would be
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn chaos(self, chaos: Chaos) -> Self {
        self.step(Policy::Chaos(chaos))
    }

    /// Runs the operation once more beside a run that is slow: async calls only, and as the last policy. One permit of
    /// each policy covers all runs of an attempt; the hedge's own budget bounds what they add.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use resilience_core::{CallOptions, Hedge, ManualClock, Pipeline};
    ///
    /// let hedge = Hedge::builder().after(Duration::from_millis(50)).build()?;
    /// # let clock = ManualClock::auto_advancing().clock();
    /// let pipeline = Pipeline::builder("replicas").hedge(hedge).clock(clock).build()?;
    /// let read = pipeline.call_async_with(CallOptions::new(), |attempt| async move {
    ///     if attempt.hedge == 0 { std::future::pending::<()>().await } // the first replica hangs
    ///     Ok::<_, std::io::Error>(attempt.hedge)
    /// });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(read)?, 1); // the second one answered
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn hedge(self, hedge: Hedge) -> Self {
        self.step(Policy::Hedge(hedge))
    }

    /// Where it takes the time from and how it waits. Default: the system's clock.
    ///
    /// ```
    /// use std::{io, time::Duration};
    /// use resilience_core::{ManualClock, Pipeline, Retry};
    ///
    /// let time = ManualClock::auto_advancing();
    /// let pipeline = Pipeline::builder("store").retry(Retry::default()).clock(time.clock()).build()?;
    /// let _ = pipeline.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset)));
    /// assert!(time.elapsed() > Duration::ZERO); // the pauses passed on this clock, in no real time
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of calls, retries and refusals. Default: nobody. Policies have observers of their own.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use resilience_core::{Event, Observers, Pipeline};
    ///
    /// let heard = Arc::new(Mutex::new(Vec::new()));
    /// let log = Arc::clone(&heard);
    /// let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
    ///     if let Event::CallFinished { pipeline, outcome, .. } = event {
    ///         log.lock().unwrap().push(format!("{pipeline}: {}", outcome.as_str()));
    ///     }
    /// }));
    /// let pipeline = Pipeline::builder("store").observers(observers).build()?;
    /// pipeline.call(|| Ok::<_, std::io::Error>(())).unwrap();
    /// assert_eq!(*heard.lock().unwrap(), ["store: success"]);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Checks values and order and makes the pipeline.
    ///
    /// # Errors
    /// A [`ConfigError`] for a value that cannot be used, and for an order that makes no sense: two retries, two
    /// timeouts on the same side of the retry, an attempt limit that the call limit makes pointless, one breaker
    /// or bulkhead twice, a hedge or chaos that is not the last, waiting for a limiter that goes by another clock.
    ///
    /// ```
    /// use resilience_core::{Pipeline, Retry};
    ///
    /// let error = Pipeline::builder("store").retry(Retry::default()).retry(Retry::default()).build().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "`store.retry` is given twice; allowed: one retry; nested retries multiply attempts"
    /// );
    /// ```
    pub fn build(self) -> Result<Pipeline, ConfigError> {
        config::name(&self.name)?;
        let mut plan = Plan::new(Arc::clone(&self.name), self.clock, self.observers);
        let refuse = |field: &str, value: String, allowed: &str| {
            Err(ConfigError::new(format!("{}.{field}", self.name), value, allowed))
        };
        let mut waits = false;
        for policy in self.steps {
            if plan.hedge.is_some() {
                let allowed = "the hedge as the last policy: it runs the operation, and nothing else, side by side";
                return refuse("hedge", "not the last policy".to_owned(), allowed);
            }
            if plan.chaos.is_some() && !matches!(policy, Policy::Hedge(_)) {
                let allowed = "the chaos as the last policy, or before the hedge: it stands for the operation";
                return refuse("chaos", "not the last policy".to_owned(), allowed);
            }
            let inside_retry = plan.retry.is_some();
            match policy {
                Policy::Retry(_) if inside_retry => {
                    return refuse("retry", "given twice".to_owned(), "one retry; nested retries multiply attempts");
                }
                Policy::Retry(_) if plan.attempt_timeout.is_some() => {
                    return refuse(
                        "timeout",
                        "between a policy that waits and the retry".to_owned(),
                        "the call's timeout before all policies that wait, and the attempt's after the retry",
                    );
                }
                Policy::Retry(retry) => {
                    plan.inner = plan.gates.len();
                    plan.retry = Some(retry);
                }
                Policy::Timeout(limit) => {
                    config::positive(&self.name, "timeout", limit)?;
                    let innermost = inside_retry || waits;
                    let slot = if innermost { &mut plan.attempt_timeout } else { &mut plan.call_timeout };
                    if slot.replace(limit).is_some() {
                        return refuse(
                            "timeout",
                            format!("{limit:?}, given twice"),
                            "one timeout before the retry for the call and one after it for each attempt",
                        );
                    }
                }
                Policy::Chaos(chaos) => plan.chaos = Some(chaos),
                Policy::Hedge(hedge) => plan.hedge = Some(hedge),
                Policy::Gate(gate) => {
                    if let Some(max_wait) = gate.max_wait()
                        && max_wait > config::MAX_DURATION
                    {
                        return refuse("max_wait", format!("{max_wait:?}"), "at most 10 years");
                    }
                    if gate.max_wait().is_some_and(|max_wait| !max_wait.is_zero()) {
                        waits = true;
                        if plan.attempt_timeout.is_some() {
                            return refuse(
                                "timeout",
                                "before a policy that waits".to_owned(),
                                "the attempt's timeout after all policies that wait: it bounds the operation",
                            );
                        }
                    }
                    // On another clock that could be any time.
                    if let (Some((name, clock)), Some(max_wait)) = (gate.names_moments(), gate.max_wait())
                        && !max_wait.is_zero()
                        && !clock.same(&plan.clock)
                    {
                        return refuse(
                            "clock",
                            format!("another than that of limiter `{name}`"),
                            "one clock for a pipeline and the limiters it waits for",
                        );
                    }
                    if let Some((field, name, allowed)) = plan.gates.iter().find_map(|old| old.twice(&gate)) {
                        return refuse(field, format!("`{name}`, given twice"), allowed);
                    }
                    if plan.gates.len() == MAX_GATES {
                        return refuse(
                            "policies",
                            (MAX_GATES + 1).to_string(),
                            "at most 8 limiters, breakers, bulkheads and other policies that admit or refuse",
                        );
                    }
                    plan.gates.push(gate);
                }
            }
        }
        if let (Some(hedge), Some(limit)) = (&plan.hedge, plan.attempt_timeout.or(plan.call_timeout))
            && hedge.fixed_delay().is_some_and(|delay| delay >= limit)
        {
            return refuse("hedge", format!("after {:?}", hedge.delay()), &format!("less than the limit of {limit:?}"));
        }
        if let (Some(call), Some(attempt)) = (plan.call_timeout, plan.attempt_timeout)
            && attempt >= call
        {
            return refuse(
                "timeout",
                format!("{attempt:?} for each attempt"),
                &format!("less than the call's own limit of {call:?}"),
            );
        }
        Ok(Pipeline(Arc::new(plan.concluded())))
    }
}
