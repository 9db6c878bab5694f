//! The checker behind a circuit breaker: the face that services use.
//!
//! Only what is the checker's own fault moves the breaker. It adds no behaviour to answers, keeps no queue and never waits
//! for anything but the checker's lock.

use std::panic::{AssertUnwindSafe, catch_unwind};

use resilience_core::{
    Category, CircuitBreaker, Class, Classify, Clock, ConfigError, Error, Event, Observers, Pipeline, Severity,
};

use super::check::Limit;
use super::checker::{Answer, Checker, Matrix, Verdict};
use super::error::CheckError;
use crate::defaults;

/// The component's name in events.
const COMPONENT: &str = "protocol";

/// Why the guard has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The question has no meaning: the caller's mistake.
    #[error(transparent)]
    Question(#[from] CheckError),
    /// The checker panicked: a defect of the checker, not of what it was given. Its memory starts afresh.
    #[error("the checker panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The system denied the checker what it needs.
    #[error("the checker cannot continue: {limit}")]
    Starved {
        /// What it was denied.
        limit: Limit,
    },
}

impl Classify for ProtocolError {
    fn class(&self) -> Class {
        match self {
            Self::Question(_) => Class::of(Category::Validation).severity(Severity::Low),
            Self::Panicked { .. } => Class::of(Category::Internal),
            Self::Starved { .. } => Class::of(Category::Resource),
        }
    }
}

/// Guarded conformance and compatibility checks.
///
/// The breaker `protocol_check` opens after 15 internal faults in a row. What does not move it:
/// - a type that does not conform: that is an answer;
/// - a question without meaning: the caller's mistake, classed as validation;
/// - running out of fuel ([`Verdict::OutOfFuel`]): a property of the types asked about. The checker did what it is there to do by
///   stopping. Were it counted as a failure, fifteen hostile questions by one caller would take the checker from all others. It
///   is an answer, and observers hear a notice `out_of_fuel`.
///
/// Cheap to clone; clones share the checker's memory and the breaker.
///
/// # Examples
///
/// ```
/// use parsercraft_guard::protocol::{Checker, ProtocolGuard};
///
/// let definitions = toml::from_str(r#"
///     [protocols.Sized]
///     methods.len = "() -> int"
///     [types.Text]
///     methods.len = "() -> int"
/// "#)?;
/// let guard = ProtocolGuard::builder(Checker::new(&definitions)?).build()?;
/// assert!(guard.check_conformance("Text", "Sized")?.conforms());
/// assert_eq!(guard.check_all(&["Text", "int"], &["Sized"])?.answers().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProtocolGuard {
    checker: Checker,
    breaker: CircuitBreaker,
    pipeline: Pipeline,
    observers: Observers,
}

/// Builds a [`ProtocolGuard`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    checker: Checker,
    breaker: Option<CircuitBreaker>,
    clock: Clock,
    observers: Observers,
}

impl Builder {
    /// A breaker of your own in place of `protocol_check`.
    pub fn breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// The clock the breaker goes by. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of calls, faults and checks out of fuel. Default: nobody.
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// The guard.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] when its policies cannot be built.
    pub fn build(self) -> Result<ProtocolGuard, ConfigError> {
        let breaker = match self.breaker {
            Some(breaker) => breaker,
            None => CircuitBreaker::builder(defaults::PROTOCOL_CHECK)
                .consecutive_failures(defaults::PROTOCOL_CHECK_FAILURES)
                .open_for(defaults::PROTOCOL_CHECK_OPEN_FOR)
                .half_open_successes(defaults::PROTOCOL_CHECK_PROBES)
                .clock(self.clock.clone())
                .observers(self.observers.clone())
                .build()?,
        };
        let pipeline = Pipeline::builder(defaults::PROTOCOL_CHECK)
            .circuit_breaker(breaker.clone())
            .clock(self.clock)
            .observers(self.observers.clone())
            .build()?;
        Ok(ProtocolGuard { checker: self.checker, breaker, pipeline, observers: self.observers })
    }
}

impl ProtocolGuard {
    /// Starts building a guard around `checker`.
    pub fn builder(checker: Checker) -> Builder {
        Builder { checker, breaker: None, clock: Clock::system(), observers: Observers::new() }
    }

    /// The checker behind the guard.
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// The breaker `protocol_check`.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// As [`Checker::check_conformance`], guarded.
    ///
    /// # Errors
    ///
    /// A question without meaning, an internal fault, or a rejection by the open breaker.
    pub fn check_conformance(&self, ty: &str, protocol: &str) -> Result<Verdict, Error<ProtocolError>> {
        self.guarded(|| verdict(self.checker.check_conformance(ty, protocol)))
            .inspect(|verdict| self.notice(verdict, ty, protocol))
    }

    /// As [`Checker::check_compatible`], guarded.
    ///
    /// # Errors
    ///
    /// As [`ProtocolGuard::check_conformance`].
    pub fn check_compatible(&self, found: &str, expected: &str) -> Result<Verdict, Error<ProtocolError>> {
        self.guarded(|| verdict(self.checker.check_compatible(found, expected)))
            .inspect(|verdict| self.notice(verdict, found, expected))
    }

    /// As [`Checker::check_all`], guarded as one call.
    ///
    /// # Errors
    ///
    /// As [`ProtocolGuard::check_conformance`].
    pub fn check_all<T: AsRef<str>, P: AsRef<str>>(
        &self,
        types: &[T],
        protocols: &[P],
    ) -> Result<Matrix, Error<ProtocolError>> {
        let matrix = self.guarded(|| Ok(self.checker.check_all(types, protocols)?))?;
        let undecided = matrix.count(Answer::OutOfFuel);
        if undecided > 0 {
            let detail = format!("{undecided} of {} checks", matrix.answers().len());
            self.out_of_fuel("check_all", &detail);
        }
        Ok(matrix)
    }

    fn guarded<T>(&self, mut check: impl FnMut() -> Result<T, ProtocolError>) -> Result<T, Error<ProtocolError>> {
        self.pipeline.call(|| {
            // The checker forgets everything after a panic, so nothing half done is seen again.
            catch_unwind(AssertUnwindSafe(&mut check)).unwrap_or_else(|panic| {
                let message = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".to_owned());
                Err(ProtocolError::Panicked { message })
            })
        })
    }

    fn notice(&self, verdict: &Verdict, found: &str, expected: &str) {
        if let Verdict::OutOfFuel(limit) = verdict {
            let resource = super::error::shorten(&format!("{found}: {expected}"));
            self.out_of_fuel(&resource, &limit.to_string());
        }
    }

    fn out_of_fuel(&self, resource: &str, detail: &str) {
        let event = Event::notice(COMPONENT, "out_of_fuel", resource, Severity::Low, detail);
        self.observers.emit(&event);
    }
}

/// A thread denied by the system is a fault on this side, unlike every other limit.
fn verdict(answer: Result<Verdict, CheckError>) -> Result<Verdict, ProtocolError> {
    match answer? {
        Verdict::OutOfFuel(limit @ Limit::Thread) => Err(ProtocolError::Starved { limit }),
        verdict => Ok(verdict),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use resilience_core::BreakerState;

    use super::*;
    use crate::protocol::Definitions;

    fn guard(clock: Clock) -> ProtocolGuard {
        let definitions: Definitions = serde_json::from_str(
            r#"{"protocols": {"P": {"methods": {"m": "() -> int"}}}, "types": {"T": {"methods": {"m": "() -> int"}}}}"#,
        )
        .unwrap();
        ProtocolGuard::builder(Checker::new(&definitions).unwrap()).clock(clock).build().unwrap()
    }

    fn fault(guard: &ProtocolGuard) -> Error<ProtocolError> {
        let fault = || Err::<(), _>(ProtocolError::Starved { limit: Limit::Thread });
        guard.guarded(fault).unwrap_err()
    }

    #[test]
    fn fifteen_internal_faults_open_the_breaker_and_probes_close_it() {
        let (clock, time) = Clock::manual();
        let guard = guard(clock);
        for n in 0..15 {
            assert_eq!(guard.breaker().state(), BreakerState::Closed, "after {n}");
            fault(&guard);
        }
        assert_eq!(guard.breaker().state(), BreakerState::Open);
        let error = guard.check_conformance("T", "P").unwrap_err();
        assert_eq!(error.as_rejection().unwrap().policy.as_ref(), "protocol_check");
        time.advance(Duration::from_secs(60));
        for _ in 0..2 {
            assert!(guard.check_conformance("T", "P").unwrap().conforms());
        }
        assert_eq!(guard.breaker().state(), BreakerState::Closed);
    }

    #[test]
    fn a_panic_is_an_internal_fault_with_its_message() {
        let guard = guard(Clock::system());
        let error = guard.guarded::<()>(|| panic!("invariant {}", 7)).unwrap_err();
        assert_eq!(error.to_string(), "the checker panicked: invariant 7");
        assert_eq!(error.class().category, Category::Internal);
        assert!(guard.check_conformance("T", "P").unwrap().conforms());
    }

    #[test]
    fn the_callers_mistakes_leave_the_breaker_alone() {
        let guard = guard(Clock::system());
        for _ in 0..100 {
            let error = guard.check_conformance("Nope", "P").unwrap_err();
            assert_eq!((error.class().category, error.class().severity), (Category::Validation, Severity::Low));
            assert!(!guard.check_conformance("int", "P").unwrap().conforms());
        }
        assert_eq!(guard.breaker().state(), BreakerState::Closed);
        for _ in 0..14 {
            fault(&guard);
        }
        assert_eq!(guard.breaker().state(), BreakerState::Closed);
    }
}
