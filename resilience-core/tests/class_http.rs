//! What HTTP answers mean: every status there can be, and `Retry-After` in all its forms, true and false.
#![cfg(feature = "http")]

use std::convert::Infallible;
use std::io;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use proptest::prelude::*;
use resilience_core::class::{Fault, MAX_RETRY_AFTER, http as judge};
use resilience_core::{Category, CircuitBreaker, Class, Clock, ManualClock, Pipeline, Retry, Severity};

/// 1994-11-06T08:49:37Z, the date of RFC 9110's examples.
const MOMENT: Duration = Duration::from_secs(784_111_777);

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn retry_after(value: &str) -> Option<Duration> {
    judge::retry_after(&headers(&[("retry-after", value)]), SystemTime::UNIX_EPOCH + MOMENT)
}

fn answer(status: u16, pairs: &[(&'static str, &str)]) -> Option<Class> {
    let (clock, time) = Clock::manual();
    time.set_wall(SystemTime::UNIX_EPOCH + MOMENT);
    judge::answer(StatusCode::from_u16(status).unwrap(), &headers(pairs), &clock)
}

#[test]
fn every_status_means_what_the_table_says() {
    for code in 100..=999 {
        let class = judge::status(StatusCode::from_u16(code).unwrap());
        let got = class.map(|class| (class.category, class.severity, class.fault, class.retryable, class.retry_after));
        let (caller, dependency) = (Fault::Caller, Fault::Dependency);
        let expected = match code {
            100..=399 => None,
            408 | 504 => Some((Category::Timeout, Severity::Medium, dependency, true, None)),
            425 => Some((Category::Resource, Severity::Low, dependency, true, None)),
            429 => Some((Category::Resource, Severity::Medium, dependency, true, None)),
            400..=499 => Some((Category::Validation, Severity::Low, caller, false, None)),
            502 => Some((Category::Network, Severity::High, dependency, true, None)),
            503 => Some((Category::Resource, Severity::High, dependency, true, None)),
            507 => Some((Category::Resource, Severity::Critical, dependency, false, None)),
            501 | 505 | 506 | 508 | 510 | 511 => Some((Category::Internal, Severity::High, dependency, false, None)),
            _ => Some((Category::Internal, Severity::High, dependency, true, None)),
        };
        assert_eq!(got, expected, "{code}");
    }
}

#[test]
fn retry_after_is_read_as_seconds_and_as_a_date_in_each_of_its_three_forms() {
    let cases = [
        ("0", 0),
        ("120", 120),
        ("  120\t", 120),
        ("Sun, 06 Nov 1994 08:49:39 GMT", 2),
        ("Sunday, 06-Nov-94 08:49:39 GMT", 2),
        ("Sun Nov  6 08:49:39 1994", 2),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ];
    for (value, seconds) in cases {
        assert_eq!(retry_after(value), Some(Duration::from_secs(seconds)), "{value}");
    }
}

#[test]
fn a_retry_after_that_makes_no_sense_is_as_good_as_none() {
    for value in [
        "",
        " ",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "0x10",
        "1 2",
        "1s",
        "soon",
        "Sun, 06 Nov 1994",
        "Sun, 99 Nov 1994 08:49:39 GMT",
    ] {
        assert_eq!(retry_after(value), None, "{value}");
        assert_eq!(answer(503, &[("retry-after", value)]), answer(503, &[]), "{value}");
    }
    let mut binary = HeaderMap::new();
    binary.insert("retry-after", HeaderValue::from_bytes(b"1\xFF").unwrap());
    assert_eq!(judge::retry_after(&binary, SystemTime::now()), None);
    assert_eq!(judge::retry_after(&HeaderMap::new(), SystemTime::now()), None);
}

#[test]
fn a_retry_after_without_bound_is_bounded() {
    for value in ["31536000", "31536001", "18446744073709551616", &"9".repeat(5_000), "Fri, 31 Dec 9999 23:59:59 GMT"] {
        assert_eq!(retry_after(value), Some(MAX_RETRY_AFTER), "{value}");
    }
}

#[test]
fn a_date_is_counted_from_the_servers_own_clock_where_it_tells_its_time() {
    let date = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
    let cases = [
        (vec![date], 60),
        (vec![date, ("date", "Sun, 06 Nov 1994 08:50:30 GMT")], 7),
        (vec![date, ("date", "yesterday")], 60),
        // Seconds need no date.
        (vec![("retry-after", "5"), ("date", "Sun, 06 Nov 1994 08:50:30 GMT")], 5),
    ];
    for (headers, seconds) in cases {
        let class = answer(503, &headers).unwrap();
        assert_eq!(class.retry_after, Some(Duration::from_secs(seconds)), "{headers:?}");
    }
}

#[test]
fn retry_after_counts_only_where_trying_again_makes_sense() {
    for code in 100..=999 {
        let (with, without) = (answer(code, &[("retry-after", "7")]), answer(code, &[]));
        let retryable = without.is_some_and(|class| class.retryable);
        assert_eq!(with.and_then(|class| class.retry_after).is_some(), retryable, "{code}");
        assert_eq!(with.map(|class| class.retryable), without.map(|class| class.retryable), "{code}");
    }
}

/// A retry and a breaker on a clock that jumps ahead, and how far it got.
fn pipeline() -> (Pipeline, CircuitBreaker, ManualClock) {
    let time = ManualClock::auto_advancing();
    let breaker = CircuitBreaker::builder("web").clock(time.clock()).build().unwrap();
    let retry = Retry::builder().clock(time.clock()).build().unwrap();
    let pipeline =
        Pipeline::builder("web").retry(retry).circuit_breaker(breaker.clone()).clock(time.clock()).build().unwrap();
    (pipeline, breaker, time)
}

#[test]
fn a_pipeline_waits_as_long_as_the_answer_says() {
    let (pipeline, breaker, time) = pipeline();
    let mut answers = [(503, "9"), (200, "")].into_iter();
    let answer = pipeline.judged_by(judge::response).call(|| {
        let (status, delay) = answers.next().expect("two attempts");
        Response::builder().status(status).header("retry-after", delay).body(()).map_err(io::Error::other)
    });
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    assert!(time.elapsed() >= Duration::from_secs(9), "{:?}", time.elapsed());
    assert_eq!(breaker.statistics().failures, 1);
}

#[test]
fn a_date_is_judged_by_the_wall_time_of_the_clock_that_is_given() {
    let (pipeline, _, time) = pipeline();
    time.set_wall(SystemTime::UNIX_EPOCH + MOMENT);
    let mut answers = [(503, "Sun, 06 Nov 1994 08:49:47 GMT"), (200, "")].into_iter();
    let answer = pipeline.judged_by(judge::response_on(time.clock())).call(|| {
        let (status, date) = answers.next().expect("two attempts");
        Ok::<_, Infallible>(Response::builder().status(status).header("retry-after", date).body(()).unwrap())
    });
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    assert!(time.elapsed() >= Duration::from_secs(10), "{:?}", time.elapsed());
}

#[test]
fn the_callers_mistakes_are_neither_repeated_nor_held_against_the_server() {
    let (pipeline, breaker, _) = pipeline();
    let mut calls = 0;
    let answer = pipeline.judged_by(judge::response).call(|| {
        calls += 1;
        Ok::<_, io::Error>(Response::builder().status(404).body(()).unwrap())
    });
    assert_eq!((answer.unwrap().status(), calls), (StatusCode::NOT_FOUND, 1));
    assert_eq!(breaker.statistics().failures, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_header_makes_it_panic_or_wait_without_bound(value: Vec<u8>, date: Vec<u8>, wall in 0_u64..1 << 40) {
        let mut headers = HeaderMap::new();
        for (name, bytes) in [("retry-after", value), ("date", date)] {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.insert(name, value);
            }
        }
        let delay = judge::retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(wall));
        prop_assert!(delay.is_none_or(|delay| delay <= MAX_RETRY_AFTER));
    }

    #[test]
    fn nothing_that_resembles_a_date_makes_it_panic(
        value in "[A-Z][a-z]{2}(day)?,? [0-9]{1,3}[ -][A-Z][a-z]{2}[ -][0-9]{2,5} [0-9]{2}:[0-9]{2}:[0-9]{2}( GMT)?( [0-9]{4})?",
    ) {
        prop_assert!(retry_after(&value).is_none_or(|delay| delay <= MAX_RETRY_AFTER));
    }

    #[test]
    fn any_number_of_seconds_is_taken_as_it_is_up_to_the_bound(seconds: u64) {
        prop_assert_eq!(retry_after(&seconds.to_string()), Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER)));
    }

    #[test]
    fn any_date_is_as_far_away_as_it_is(ahead in 0_u64..40_000_000) {
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + MOMENT + Duration::from_secs(ahead));
        prop_assert_eq!(retry_after(&date), Some(Duration::from_secs(ahead).min(MAX_RETRY_AFTER)));
    }
}
