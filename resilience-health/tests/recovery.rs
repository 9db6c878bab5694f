//! Recovery plans through the public API, on a clock that jumps over every pause.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience_core::{BreakerState, Category, CircuitBreaker, Class, Classify, ManualClock};
use resilience_health::recovery::{How, Recovery, RecoveryError, RecoveryPlan, Strategy};

fn refused() -> Error {
    Error::from(ErrorKind::ConnectionRefused)
}

fn with(time: &ManualClock, plan: RecoveryPlan) -> Recovery {
    Recovery::builder().clock(time.clock()).plan(plan).build().unwrap()
}

// The original's defects.

#[test]
fn circuit_break_really_breaks() {
    let time = ManualClock::auto_advancing();
    let breaker = CircuitBreaker::builder("protocol_check").clock(time.clock()).build().unwrap();
    let recovery = with(&time, RecoveryPlan::circuit_break("check_protocol", breaker.clone()));
    let mut calls = 0;
    for _ in 0..100 {
        let result: Result<_, _> = recovery.call("check_protocol", |_| -> Result<(), _> {
            calls += 1;
            Err(refused())
        });
        assert!(result.is_err());
    }
    assert_eq!((calls, breaker.state()), (5, BreakerState::Open), "5 failures open it, 95 calls never arrive");
}

#[test]
fn zero_attempts_are_refused_with_the_operation() {
    let plan = RecoveryPlan::retry_with("fetch_package", 0, Duration::from_millis(100));
    let error = Recovery::builder().plan(plan).build().unwrap_err();
    assert_eq!(error.to_string(), "`fetch_package.retry.max_attempts` is 0; allowed: 1 to 4294967295");
}

#[test]
fn a_plans_time_limit_ends_its_attempts_and_is_told_to_each() {
    let time = ManualClock::auto_advancing();
    let plan = RecoveryPlan::retry_with("fetch_package", 1000, Duration::from_secs(1)).timeout(Duration::from_secs(5));
    let recovery = with(&time, plan);
    let start = time.now();
    let mut attempts = 0;
    let result: Result<_, _> = recovery.call("fetch_package", |attempt| -> Result<(), _> {
        attempts += 1;
        assert_eq!(attempt.deadline, Some(start + Duration::from_secs(5)));
        Err(refused())
    });
    assert!(result.is_err());
    assert!((4..=7).contains(&attempts), "one a second for five seconds, not {attempts}");
    assert!(time.now() <= start + Duration::from_secs(5));
}

// What each strategy does.

#[test]
fn the_default_retry_tries_three_times_a_tenth_of_a_second_apart() {
    let time = ManualClock::auto_advancing();
    let recovery = with(&time, RecoveryPlan::retry("fetch_package"));
    let mut attempts = 0;
    let error = recovery
        .call("fetch_package", |_| -> Result<(), _> {
            attempts += 1;
            Err(refused())
        })
        .unwrap_err();
    assert_eq!(attempts, 3);
    assert!(
        (Duration::from_millis(160)..=Duration::from_millis(240)).contains(&time.elapsed()),
        "{:?}",
        time.elapsed()
    );
    assert!(error.to_string().starts_with("`fetch_package` failed: "), "{error}");
    let record = recovery.history(10).pop().unwrap();
    assert_eq!((record.strategy, record.how, record.elapsed), (Strategy::Retry, None, time.elapsed()));
}

#[test]
fn a_failing_alternative_does_not_hide_the_first_error() {
    let time = ManualClock::auto_advancing();
    let recovery = with(&time, RecoveryPlan::fallback("resolve"));
    let error = recovery
        .call_or("resolve", |_| Err::<(), _>(Error::other("index unreachable")), |_| Err(Error::other("cache empty")))
        .unwrap_err();
    assert_eq!(error.to_string(), "`resolve` failed: index unreachable; the alternative failed too: cache empty");
}

#[test]
fn an_alternative_is_full_by_fallback_and_marked_by_degradation() {
    let time = ManualClock::auto_advancing();
    let how = |plan: RecoveryPlan| {
        let recovery = with(&time, plan);
        recovery.call_or("op", |_| Err(refused()), |_| Ok(1)).unwrap().how
    };
    assert_eq!(how(RecoveryPlan::fallback("op")), How::Fallback);
    assert_eq!(how(RecoveryPlan::graceful_degrade("op")), How::Degraded);
    assert_eq!(how(RecoveryPlan::retry("op")), How::Fallback, "after its attempts");
}

#[derive(Debug)]
struct BadQuery;

impl std::fmt::Display for BadQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bad query")
    }
}

impl Classify for BadQuery {
    fn class(&self) -> Class {
        Class::of(Category::Validation)
    }
}

#[test]
fn no_alternative_covers_up_the_callers_own_mistake() {
    let time = ManualClock::auto_advancing();
    let recovery = with(&time, RecoveryPlan::graceful_degrade("complete"));
    let error = recovery.call_or("complete", |_| Err(BadQuery), |_| Ok("something")).unwrap_err();
    assert!(matches!(error, RecoveryError::Failed { alternative: None, .. }));
}

#[test]
fn history_is_bounded_holds_only_what_went_wrong_and_the_listener_hears_it() {
    let time = ManualClock::auto_advancing();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heard);
    let recovery = Recovery::builder()
        .clock(time.clock())
        .plan(RecoveryPlan::fallback("op"))
        .remember(3)
        .on_record(move |record| log.lock().unwrap().push(record.message.clone()))
        .build()
        .unwrap();
    for n in 0..10 {
        recovery.call("op", |_| Ok::<_, Error>(n)).unwrap();
        recovery.call_or("op", |_| Err(Error::other(format!("failure {n}"))), |_| Ok(n)).unwrap();
    }
    let messages: Vec<String> = recovery.history(100).into_iter().map(|record| record.message).collect();
    assert_eq!(messages.len(), 3);
    assert!(messages[2].starts_with("failure 9"), "{messages:?}");
    assert_eq!(heard.lock().unwrap().len(), 10);
}

#[test]
fn unknown_operations_and_second_plans_are_refused_with_the_names() {
    let time = ManualClock::auto_advancing();
    let recovery = with(&time, RecoveryPlan::retry("fetch_package"));
    let error = recovery.call("fetch", |_| Ok::<_, Error>(())).unwrap_err();
    assert_eq!(error.to_string(), "no recovery plan is named `fetch`; there are: fetch_package");
    let twice = Recovery::builder().plan(RecoveryPlan::retry("op")).plan(RecoveryPlan::fallback("op")).build();
    assert_eq!(
        twice.unwrap_err().to_string(),
        "`plan` is `op` for the second time; allowed: one plan for each operation"
    );
    let zero = Recovery::builder().plan(RecoveryPlan::fallback("op").timeout(Duration::ZERO)).build();
    assert!(zero.unwrap_err().to_string().starts_with("`op.timeout` is 0ns"));
}
