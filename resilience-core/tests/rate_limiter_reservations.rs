//! Reserving, peeking, and what a limiter tells its callers.

use std::time::Duration;

use resilience_core::rate_limiter::RateLimiterBuilder;
use resilience_core::{Clock, ManualClock, RateLimiter, Reason};

const SECOND: Duration = Duration::from_secs(1);

fn limiter(burst: u32) -> (RateLimiter, ManualClock) {
    let (clock, time) = Clock::manual();
    (RateLimiter::builder("test").rate(1, SECOND).burst(burst).clock(clock).build().unwrap(), time)
}

#[test]
fn a_reservation_says_when_and_is_given_up_unless_it_is_used() {
    let (limiter, time) = limiter(2);
    let first = limiter.reserve(2, Duration::ZERO).unwrap();
    assert_eq!((first.ready_in(), first.permits()), (Duration::ZERO, 2));
    let second = limiter.reserve(2, 2 * SECOND).unwrap();
    assert_eq!(second.ready_in(), 2 * SECOND);
    assert_eq!(second.ready_at(), time.now() + 2 * SECOND);
    drop(second);
    assert_eq!(limiter.peek(1).unwrap_err().retry_after, Some(SECOND), "as if it had never been");
    drop(first);
    assert_eq!(limiter.statistics().available, 2);
    limiter.reserve(2, Duration::ZERO).unwrap().used();
    assert_eq!(limiter.statistics().available, 0);
}

#[test]
fn a_reservation_given_up_in_the_middle_goes_to_who_comes_next() {
    let (limiter, _time) = limiter(1);
    limiter.try_acquire(1).unwrap();
    let mut queue: Vec<_> = (0..3).map(|_| limiter.reserve(1, 60 * SECOND).unwrap()).collect();
    drop(queue.remove(0));
    assert_eq!(limiter.peek(1).unwrap_err().retry_after, Some(SECOND), "peeking sees the gap");
    assert_eq!(limiter.reserve(1, 60 * SECOND).unwrap().ready_in(), SECOND);
}

#[test]
fn a_reservation_that_would_be_ready_too_late_or_never_is_refused_at_once() {
    let (limiter, _time) = limiter(2);
    limiter.try_acquire(2).unwrap();
    let late = limiter.reserve(2, Duration::from_nanos(1_999_999_999)).unwrap_err();
    assert_eq!((late.reason, late.retry_after), (Reason::RateLimited, Some(2 * SECOND)));
    let never = limiter.reserve(3, Duration::MAX).unwrap_err();
    assert_eq!((never.reason, never.retry_after), (Reason::ExceedsBurst { requested: 3, burst: 2 }, None));
    assert_eq!(limiter.peek(3).unwrap_err(), never);
}

#[test]
fn a_reservation_can_be_waited_for() {
    let time = ManualClock::auto_advancing();
    let limiter = RateLimiter::builder("test").rate(1, SECOND).burst(1).start_with(0).clock(time.clock());
    let limiter = limiter.build().unwrap();
    limiter.reserve(1, SECOND).unwrap().wait();
    assert_eq!(time.elapsed(), SECOND);
    assert!(limiter.try_acquire(1).is_err(), "it is used");
}

#[test]
fn peeking_answers_as_taking_would_and_leaves_everything_as_it_was() {
    let (limiter, time) = limiter(3);
    for permits in [0, 2, 2, 1, 1, 4] {
        let before = limiter.statistics();
        let peeked = limiter.peek(permits);
        assert_eq!(limiter.statistics(), before);
        assert_eq!(limiter.try_acquire(permits), peeked);
        time.advance(SECOND / 4);
    }
}

#[test]
fn the_header_values_are_those_of_the_bucket_in_whole_seconds_rounded_up() {
    let (limiter, time) = limiter(3);
    let shown = || {
        let quota = limiter.quota();
        format!("{} | {} | {:?}", quota.policy_field(), quota.limit_field(), quota.retry_after())
    };
    assert_eq!(shown(), r#""test";q=3;w=3 | "test";r=3;t=0 | None"#);
    limiter.try_acquire(1).unwrap();
    time.advance(SECOND / 4);
    assert_eq!(shown(), r#""test";q=3;w=3 | "test";r=2;t=1 | None"#);
    limiter.try_acquire(2).unwrap();
    assert_eq!(shown(), r#""test";q=3;w=3 | "test";r=0;t=1 | Some(1)"#);
    let queue = limiter.reserve(2, 60 * SECOND).unwrap();
    assert_eq!(shown(), r#""test";q=3;w=3 | "test";r=0;t=3 | Some(3)"#, "behind those who wait");
    drop(queue);
    time.advance(Duration::from_millis(750));
    assert_eq!(limiter.try_acquire(1), Ok(()), "who keeps to it is served");
}

#[test]
fn the_older_header_names_have_their_values_too() {
    let (limiter, time) = limiter(3);
    limiter.try_acquire(3).unwrap();
    time.advance(SECOND / 4);
    let quota = limiter.quota();
    let lines: Vec<_> = quota.older_fields("RateLimit").map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(lines, ["RateLimit-Limit: 3", "RateLimit-Remaining: 0", "RateLimit-Reset: 1"]);
    let wall = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_500);
    assert_eq!((quota.reset_seconds(), quota.reset_unix(wall), quota.retry_after()), (1, 1_002, Some(1)));
}

/// Whoever leaves, in whatever order and from whatever thread: once nobody is left it is as if nobody had been there.
#[test]
fn permits_are_conserved_when_threads_drop_what_they_reserved() {
    let (clock, _time) = Clock::manual();
    let empty = |builder: RateLimiterBuilder| builder.start_with(0).clock(clock.clone()).build().unwrap();
    let bucket = empty(RateLimiter::builder("bucket").rate(1, SECOND).burst(3));
    let window = empty(RateLimiter::builder("window").sliding_window(3, 3 * SECOND));
    for limiter in [bucket, window] {
        std::thread::scope(|scope| {
            for seed in 0..3_u32 {
                let limiter = &limiter;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for step in 0..20_000_u32 {
                        let mixed = (step ^ seed << 7).wrapping_mul(0x9E37_79B9) >> 16;
                        if mixed & 6 == 0 || held.len() < 8 {
                            held.push(limiter.reserve(mixed % 3 + 1, Duration::MAX).unwrap());
                        } else {
                            drop(held.swap_remove(mixed as usize % held.len()));
                        }
                        if held.len() > 32 {
                            held.clear();
                        }
                    }
                });
            }
        });
        assert_eq!(limiter.peek(3).unwrap_err().retry_after, Some(3 * SECOND));
    }
}
