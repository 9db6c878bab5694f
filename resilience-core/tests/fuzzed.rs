//! What the fuzz targets check, over arbitrary bytes and over texts that are nearly right. See `fuzz/` for the same under
//! a fuzzer that follows the code's branches.
#![cfg(all(feature = "http", feature = "serde"))]

#[path = "fuzzed/targets.rs"]
mod targets;

use proptest::prelude::*;

/// Words of our formats, put together at random: bytes alone would hardly ever be understood.
fn nearly(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let word = prop_oneof![
        6 => proptest::sample::select(words).prop_map(ToOwned::to_owned),
        2 => any::<u64>().prop_map(|number| number.to_string()),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

const UNITS: &[&str] =
    &["1", "0", "1.5", ".", " ", "-", "/", "%", "ns", "us", "µs", "ms", "s", "min", "h", "d", "B", "KiB"];
const TRACE: &[&str] = &["00", "01", "ff", "-", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "A", "x"];
const HEADERS: &[&str] = &["120", "\n", " ", "-1", "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"];
const CONFIG: &[&str] = &[
    "[breakers.a]\n",
    "[limiters.b]\n",
    "[pipelines]\n",
    "[budgets.c]\n",
    "open_for",
    "rate",
    "burst",
    "ratio",
    " = ",
    "\"10s\"",
    "\"10/s\"",
    "0.5",
    "[]",
    "\n",
    "{",
    "}",
    "failure_rate",
    "window_calls",
    "minimum_calls",
];

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        targets::read_units(&data);
        targets::read_traceparent(&data);
        targets::read_retry_after(&data);
        targets::read_configuration(&data);
    }

    #[test]
    fn units_that_are_nearly_right_are_read_or_refused(text in nearly(UNITS)) {
        targets::read_units(text.as_bytes());
    }

    #[test]
    fn trace_parents_that_are_nearly_right_are_read_or_refused(text in nearly(TRACE)) {
        targets::read_traceparent(text.as_bytes());
    }

    #[test]
    fn retry_afters_that_are_nearly_right_are_read_or_refused(text in nearly(HEADERS)) {
        targets::read_retry_after(text.as_bytes());
    }

    #[test]
    fn configurations_that_are_nearly_right_are_read_or_refused(text in nearly(CONFIG)) {
        targets::read_configuration(text.as_bytes());
    }
}

#[test]
fn what_is_right_is_read() {
    targets::read_units("1h30m".as_bytes());
    targets::read_configuration(include_bytes!("../examples/resilience.toml"));
    assert!(
        toml::from_str::<resilience_core::config::ResilienceConfig>(include_str!("../examples/resilience.toml"))
            .is_ok()
    );
}
