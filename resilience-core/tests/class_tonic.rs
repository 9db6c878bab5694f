//! What gRPC statuses mean: every code, and the server's word on retries, true and false.
#![cfg(feature = "tonic")]

use std::time::Duration;

use proptest::prelude::*;
use resilience_core::class::{Fault, MAX_RETRY_AFTER, tonic as judge};
use resilience_core::{Category, Classify, ManualClock, Pipeline, Retry, Severity};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

#[test]
fn every_code_means_what_the_table_says() {
    use Category::{Internal, Network, Resource, Timeout, Unknown, Validation};
    use Fault::{Caller, Dependency};
    use Severity::{Critical, High, Low, Medium};
    for number in 0..=17 {
        let code = Code::from(number);
        let expected = match code {
            Code::Ok => None,
            Code::Unavailable => Some((Network, High, Dependency, true)),
            Code::DeadlineExceeded => Some((Timeout, Medium, Dependency, false)),
            Code::ResourceExhausted => Some((Resource, High, Dependency, false)),
            Code::Internal => Some((Internal, High, Dependency, false)),
            Code::DataLoss => Some((Internal, Critical, Dependency, false)),
            Code::Unknown => Some((Unknown, Medium, Dependency, false)),
            Code::Aborted => Some((Resource, Low, Caller, false)),
            Code::Cancelled => Some((Unknown, Low, Caller, false)),
            _ => Some((Validation, Low, Caller, false)),
        };
        let got = judge::code(code).map(|class| (class.category, class.severity, class.fault, class.retryable));
        assert_eq!(got, expected, "{code:?}");
        let class = Status::new(code, "").class();
        assert_eq!((class.category, class.retryable), expected.map_or((Unknown, false), |it| (it.0, it.3)), "{code:?}");
    }
}

fn pushed_back(code: Code, value: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", value.parse().unwrap());
    Status::with_metadata(code, "busy", metadata)
}

#[test]
fn a_pushback_says_when_to_retry_and_a_negative_or_broken_one_says_never() {
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::Internal] {
        let class = pushed_back(code, "1500").class();
        assert_eq!((class.retryable, class.retry_after), (true, Some(Duration::from_millis(1500))), "{code:?}");
        assert_eq!(pushed_back(code, "0").class().retry_after, Some(Duration::ZERO), "{code:?}");
        for never in ["-1", "-2147483648", "soon", "", "1.5", "99999999999999999999"] {
            let class = pushed_back(code, never).class();
            assert_eq!((class.retryable, class.retry_after), (false, None), "{code:?} {never}");
        }
    }
}

/// One field of protobuf's wire format: a message, or a number.
fn message(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn varint(number: u8, mut value: u64) -> Vec<u8> {
    let mut bytes = vec![number << 3];
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

/// `google.rpc.Status` with a detail of another kind before the one looked for, whose `retry_delay` is `duration`.
fn details(kind: &str, duration: &[u8]) -> Vec<u8> {
    let other = [message(1, b"type.googleapis.com/google.rpc.DebugInfo"), message(2, &message(2, b"trace"))].concat();
    let info = [message(1, kind.as_bytes()), message(2, &message(1, duration))].concat();
    [varint(1, 8), message(2, b"quota exceeded"), message(3, &other), message(3, &info)].concat()
}

fn delay(details: Vec<u8>) -> Option<Duration> {
    let class = Status::with_details(Code::ResourceExhausted, "quota exceeded", details.into()).class();
    assert_eq!(class.retryable, class.retry_after.is_some());
    class.retry_after
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

#[test]
fn the_pause_in_retry_info_is_found_among_the_details() {
    let duration = [varint(1, 2), varint(2, 500_000_000)].concat();
    assert_eq!(delay(details(RETRY_INFO, &duration)), Some(Duration::from_millis(2_500)));
    assert_eq!(delay(details("google.rpc.RetryInfo", &duration)), Some(Duration::from_millis(2_500)));
    assert_eq!(delay(details(RETRY_INFO, &varint(2, 1))), Some(Duration::from_nanos(1)));
    assert_eq!(delay(details(RETRY_INFO, &[])), Some(Duration::ZERO));
    assert_eq!(delay(details(RETRY_INFO, &varint(1, 315_576_000_000))), Some(MAX_RETRY_AFTER));
}

#[test]
fn a_retry_info_that_makes_no_sense_is_as_good_as_none() {
    let second = varint(1, 1);
    assert_eq!(delay(details("type.googleapis.com/google.rpc.ErrorInfo", &second)), None);
    assert_eq!(delay(details("type.googleapis.com/not.google.rpc.RetryInfo", &second)), None);
    for negative in [varint(1, u64::MAX), varint(2, u64::MAX), varint(2, 1_000_000_000)] {
        assert_eq!(delay(details(RETRY_INFO, &negative)), None);
    }
    let whole = details(RETRY_INFO, &second);
    assert_eq!(delay(whole.clone()), Some(Duration::from_secs(1)));
    for end in 0..whole.len() {
        assert_eq!(delay(whole[..end].to_vec()), None, "cut at {end}");
    }
}

#[test]
fn a_pipeline_waits_as_long_as_the_server_says() {
    let time = ManualClock::auto_advancing();
    let retry = Retry::builder().clock(time.clock()).build().unwrap();
    let pipeline = Pipeline::builder("grpc").retry(retry).clock(time.clock()).build().unwrap();
    let mut answers = [Err(pushed_back(Code::ResourceExhausted, "9000")), Ok("found")].into_iter();
    assert_eq!(pipeline.call(|| answers.next().expect("two attempts")).unwrap(), "found");
    assert!(time.elapsed() >= Duration::from_secs(9), "{:?}", time.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_details_make_it_panic_or_wait_without_bound(details: Vec<u8>) {
        prop_assert!(delay(details).is_none_or(|delay| delay <= MAX_RETRY_AFTER));
    }

    #[test]
    fn no_broken_byte_makes_it_panic_or_wait_without_bound(at: prop::sample::Index, byte: u8) {
        let mut bytes = details(RETRY_INFO, &[varint(1, 2), varint(2, 500_000_000)].concat());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert!(delay(bytes).is_none_or(|delay| delay <= MAX_RETRY_AFTER));
    }

    #[test]
    fn any_pause_survives_the_way(seconds in 0_u64..20_000_000, nanos in 0_u32..1_000_000_000) {
        let duration = [varint(1, seconds), varint(2, nanos.into())].concat();
        prop_assert_eq!(delay(details(RETRY_INFO, &duration)), Some(Duration::new(seconds, nanos)));
    }
}
