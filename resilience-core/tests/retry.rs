//! Backoff, jitter and the limits of retrying, through the public API.

use std::io;
use std::time::Duration;

use proptest::prelude::*;
use resilience_core::retry::RetryDecision;
use resilience_core::{Backoff, Category, Class, Clock, Jitter, ManualClock, Pipeline, Retry, Stopped};

const MILLIS: fn(u64) -> Duration = Duration::from_millis;

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

#[test]
fn pauses_grow_as_described() {
    let (initial, cap) = (MILLIS(100), MILLIS(1_000));
    let first_six = |backoff: Backoff| (1..=6).map(|n| backoff.delay(n).as_millis()).collect::<Vec<_>>();
    assert_eq!(first_six(Backoff::fixed(initial)), [100; 6]);
    assert_eq!(first_six(Backoff::Linear { initial, cap }), [100, 200, 300, 400, 500, 600]);
    assert_eq!(first_six(Backoff::Fibonacci { initial, cap }), [100, 100, 200, 300, 500, 800]);
    assert_eq!(first_six(Backoff::exponential(initial, 2.0, cap)), [100, 200, 400, 800, 1_000, 1_000]);
}

#[test]
fn no_pause_stays_no_pause_however_often_it_is_doubled() {
    let backoff = Backoff::exponential(Duration::ZERO, 2.0, MILLIS(1_000));
    for attempt in [1, 2, 1_024, 1_026, u32::MAX] {
        assert_eq!(backoff.delay(attempt), Duration::ZERO, "attempt {attempt}");
    }
}

#[test]
fn the_last_error_is_the_operations_own_and_says_how_often_it_was_tried() {
    let pipeline = Pipeline::builder("t").retry(Retry::default()).clock(ManualClock::auto_advancing().clock());
    let mut number = 0;
    let error = pipeline
        .build()
        .unwrap()
        .call(|| {
            number += 1;
            Err::<(), _>(io::Error::new(io::ErrorKind::TimedOut, format!("failure {number}")))
        })
        .unwrap_err();
    assert_eq!((error.attempts, error.stopped), (3, Some(Stopped::AttemptsExhausted)));
    assert_eq!(error.into_operation().unwrap().to_string(), "failure 3");
}

#[test]
fn what_is_not_retryable_is_tried_once() {
    let pipeline = Pipeline::builder("t").retry(Retry::default()).build().unwrap();
    let error = pipeline.call(|| Err::<(), _>(io::Error::from(io::ErrorKind::InvalidInput))).unwrap_err();
    assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::NotRetryable)));
}

#[test]
fn the_dependencys_own_pause_is_honoured_up_to_a_bound() {
    let time = ManualClock::auto_advancing();
    let retry = Retry::builder().jitter(Jitter::None).max_retry_after(Duration::from_secs(5)).build().unwrap();
    let pipeline = Pipeline::builder("t").retry(retry).clock(time.clock()).build().unwrap();
    let asking = |pause: Duration| move |_: &io::Error| Class::of(Category::Resource).retry_after(pause);
    let failing = || Err::<(), _>(reset());

    let error = pipeline.classified_by(asking(Duration::from_secs(4))).call(failing).unwrap_err();
    assert_eq!((error.stopped, time.elapsed()), (Some(Stopped::AttemptsExhausted), Duration::from_secs(8)));
    let error = pipeline.classified_by(asking(Duration::from_secs(6))).call(failing).unwrap_err();
    assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::RetryAfterTooLong)));
    assert_eq!(time.elapsed(), Duration::from_secs(8), "nothing was waited for");
}

#[test]
fn an_attempt_that_could_not_start_before_the_deadline_is_not_waited_for() {
    let time = ManualClock::auto_advancing();
    let retry = Retry::builder().backoff(Backoff::fixed(Duration::from_secs(4))).jitter(Jitter::None);
    let retry = retry.max_attempts(10).build().unwrap();
    let pipeline =
        Pipeline::builder("t").timeout(Duration::from_secs(10)).retry(retry).clock(time.clock()).build().unwrap();
    let error = pipeline.call(|| Err::<(), _>(reset())).unwrap_err();
    assert_eq!((error.attempts, error.stopped), (3, Some(Stopped::DeadlineTooClose)));
    assert_eq!(time.elapsed(), Duration::from_secs(8));
    assert!(error.as_operation().is_some(), "the operation's error is not lost");
}

#[test]
fn no_attempt_starts_after_the_elapsed_limit() {
    let time = ManualClock::auto_advancing();
    let retry = Retry::builder().backoff(Backoff::fixed(Duration::from_secs(4))).jitter(Jitter::None);
    let retry = retry.max_attempts(10).max_elapsed(Duration::from_secs(9)).build().unwrap();
    let pipeline = Pipeline::builder("t").retry(retry).clock(time.clock()).build().unwrap();
    let error = pipeline.call(|| Err::<(), _>(reset())).unwrap_err();
    assert_eq!((error.attempts, error.stopped), (3, Some(Stopped::ElapsedExceeded)));
}

#[test]
fn the_same_seed_makes_the_same_pauses_and_another_seed_others() {
    let pauses = |seed| {
        let retry = Retry::builder().seed(seed).max_attempts(20).build().unwrap();
        let (clock, _) = Clock::manual();
        let mut progress = retry.start(clock.now());
        let class = Class::of(Category::Network);
        (0..10).map(|_| retry.decide(&mut progress, &class, clock.now(), None)).collect::<Vec<_>>()
    };
    assert_eq!(pauses(7), pauses(7));
    assert_ne!(pauses(7), pauses(8));
}

/// The pauses of one call that fails again and again, each time with `class`.
fn pauses(retry: &Retry, class: &Class, count: usize) -> Vec<Duration> {
    let (clock, _) = Clock::manual();
    let mut progress = retry.start(clock.now());
    let decide = |_| match retry.decide(&mut progress, class, clock.now(), None) {
        RetryDecision::After(pause) => pause,
        RetryDecision::Stop(stopped) => panic!("stopped: {stopped:?}"),
    };
    (0..count).map(decide).collect()
}

#[test]
fn callers_that_were_told_the_same_time_do_not_come_back_together_and_none_comes_early() {
    let asked = MILLIS(10_000);
    let busy = Class::of(Category::Resource).retry_after(asked);
    let first_pauses = |builder: resilience_core::retry::RetryBuilder| {
        let retry = builder.seed(1).build().unwrap();
        (0..200).flat_map(|_| pauses(&retry, &busy, 1)).collect::<Vec<_>>()
    };
    let spread = first_pauses(Retry::builder());
    let (earliest, latest) = (*spread.iter().min().unwrap(), *spread.iter().max().unwrap());
    assert!(asked <= earliest && latest <= asked * 11 / 10, "{earliest:?} to {latest:?}");
    assert!(earliest < MILLIS(10_100) && latest > MILLIS(10_900), "{earliest:?} to {latest:?}: over the whole tenth");
    let bounded = first_pauses(Retry::builder().retry_after_jitter(1.0).max_retry_after(asked + MILLIS(500)));
    assert!(bounded.iter().all(|pause| (asked..=asked + MILLIS(500)).contains(pause)));
    assert!(first_pauses(Retry::builder().jitter(Jitter::None)).iter().all(|pause| *pause == asked));
    assert!(first_pauses(Retry::builder().retry_after_jitter(0.0)).iter().all(|pause| *pause == asked));
}

#[test]
fn the_first_decorrelated_pause_is_spread_as_well() {
    let backoff = Backoff::exponential(MILLIS(100), 2.0, MILLIS(30_000));
    let retry = Retry::builder().backoff(backoff).jitter(Jitter::Decorrelated).seed(1).build().unwrap();
    let first: Vec<_> = (0..200).flat_map(|_| pauses(&retry, &Class::of(Category::Network), 1)).collect();
    let (shortest, longest) = (*first.iter().min().unwrap(), *first.iter().max().unwrap());
    assert!(MILLIS(100) <= shortest && shortest < MILLIS(110), "{shortest:?}");
    assert!(MILLIS(290) < longest && longest <= MILLIS(300), "{longest:?}");
}

#[test]
fn values_that_cannot_be_used_are_refused_with_their_names() {
    let message = |builder: resilience_core::retry::RetryBuilder| builder.build().unwrap_err().to_string();
    let new = Retry::builder;
    insta::assert_snapshot!(message(new().max_attempts(0)), @"`retry.max_attempts` is 0; allowed: 1 to 4294967295");
    insta::assert_snapshot!(message(new().jitter(Jitter::Ratio(f64::NAN))), @"`retry.jitter.ratio` is NaN; allowed: 0 to 1");
    insta::assert_snapshot!(message(new().retry_after_jitter(1.5)), @"`retry.retry_after_jitter` is 1.5; allowed: 0 to 1");
    insta::assert_snapshot!(message(new().backoff(Backoff::exponential(MILLIS(1), f64::INFINITY, MILLIS(2)))), @"`retry.backoff.base` is inf; allowed: 1 to 1000");
    insta::assert_snapshot!(message(new().backoff(Backoff::exponential(MILLIS(3), 2.0, MILLIS(2)))), @"`retry.backoff.initial` is 3ms; allowed: at most the cap of 2ms");
}

fn backoffs() -> impl Strategy<Value = Backoff> {
    (0_u8..4, any::<Duration>(), any::<Duration>(), any::<f64>()).prop_map(|(kind, initial, cap, base)| match kind {
        0 => Backoff::Fixed { delay: initial },
        1 => Backoff::Linear { initial, cap },
        2 => Backoff::Exponential { initial, base, cap },
        _ => Backoff::Fibonacci { initial, cap },
    })
}

fn jitters() -> impl Strategy<Value = Jitter> {
    prop_oneof![
        Just(Jitter::None),
        Just(Jitter::Full),
        Just(Jitter::Equal),
        Just(Jitter::Decorrelated),
        any::<f64>().prop_map(Jitter::Ratio)
    ]
}

proptest! {
    /// Any backoff the builder accepts, any jitter, any attempt up to 2^31: no pause exceeds the cap.
    #[test]
    fn no_pause_ever_exceeds_the_cap(kind in 0_u8..4, initial in 0_u64..100_000, extra in 0_u64..1_000_000,
                                     base in 1.0_f64..1000.0, jitter in jitters(), attempt in 1_u32..=1 << 31) {
        let (initial, cap) = (MILLIS(initial), MILLIS(initial + extra));
        let backoff = match kind {
            0 => Backoff::Fixed { delay: initial },
            1 => Backoff::Linear { initial, cap },
            2 => Backoff::Exponential { initial, base, cap },
            _ => Backoff::Fibonacci { initial, cap },
        };
        prop_assert!(backoff.delay(attempt) <= backoff.cap());
        let Ok(retry) = Retry::builder().backoff(backoff).jitter(jitter).max_attempts(u32::MAX).build() else {
            return Ok(());
        };
        let (clock, _) = Clock::manual();
        let mut progress = retry.start(clock.now());
        for _ in 0..20 {
            match retry.decide(&mut progress, &Class::of(Category::Network), clock.now(), None) {
                RetryDecision::After(delay) => prop_assert!(delay <= backoff.cap()),
                RetryDecision::Stop(stopped) => prop_assert!(false, "stopped: {:?}", stopped),
            }
        }
    }

    /// As published: each pause lies between the first one and three times the one before, and within the cap.
    #[test]
    fn decorrelated_pauses_lie_between_the_first_and_three_times_the_one_before(
        first in 1_u64..10_000, extra in 0_u64..1_000_000, base in 1.0_f64..10.0, seed in any::<u64>(),
    ) {
        let (first, cap) = (MILLIS(first), MILLIS(first + extra));
        let retry = Retry::builder().backoff(Backoff::exponential(first, base, cap)).jitter(Jitter::Decorrelated);
        let retry = retry.max_attempts(50).seed(seed).build().unwrap();
        let mut before = first;
        for pause in pauses(&retry, &Class::of(Category::Network), 40) {
            prop_assert!(first <= pause && pause <= (before * 3).min(cap), "{pause:?} after {before:?}");
            before = pause;
        }
    }

    #[test]
    fn a_pause_that_was_asked_for_is_never_cut_short_nor_drawn_out_beyond_its_bound(
        asked in any::<u32>(), room in any::<u32>(), ratio in 0.0_f64..=1.0, jitter in jitters(), seed in any::<u64>(),
    ) {
        let asked = Duration::from_nanos(u64::from(asked));
        let limit = asked + Duration::from_nanos(u64::from(room));
        let retry = Retry::builder().backoff(Backoff::fixed(Duration::ZERO)).jitter(jitter).retry_after_jitter(ratio);
        let Ok(retry) = retry.max_retry_after(limit).seed(seed).build() else { return Ok(()) };
        let pause = pauses(&retry, &Class::of(Category::Resource).retry_after(asked), 1)[0];
        prop_assert!(asked <= pause && pause <= limit, "{pause:?}, asked {asked:?}, at most {limit:?}");
    }

    #[test]
    fn no_configuration_makes_it_panic(backoff in backoffs(), jitter in jitters(), attempts in any::<u32>(),
                                       elapsed in any::<Duration>(), after in any::<Duration>()) {
        let _ = backoff.delay(attempts);
        if let Ok(retry) = Retry::builder().backoff(backoff).jitter(jitter).max_attempts(attempts).max_elapsed(elapsed)
            .max_retry_after(after).build() {
            let mut progress = retry.start(Clock::system().now());
            for _ in 0..5 {
                let class = Class::of(Category::Network).retry_after(after);
                let _ = retry.decide(&mut progress, &class, Clock::system().now(), None);
            }
        }
    }
}
