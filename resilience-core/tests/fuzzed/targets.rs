//! What must hold for any text from outside: it is read or refused, never with a panic, and what was read is written so
//! that the same is read again. Used by the property tests and by the fuzz targets alike.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use resilience_core::class::MAX_RETRY_AFTER;
use resilience_core::class::http::retry_after;
use resilience_core::config::{ResilienceConfig, units};
use resilience_core::context::Traceparent;

const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Durations, rates, sizes and shares.
pub(crate) fn read_units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(duration) = units::duration("field", text) {
        assert!(duration <= TEN_YEARS);
        assert_eq!(units::duration("field", &units::format_duration(duration)), Ok(duration));
    }
    if let Ok(rate) = units::rate("field", text) {
        assert!(!rate.period.is_zero() && rate.period <= TEN_YEARS);
        assert_eq!(units::rate("field", &rate.to_string()), Ok(rate));
    }
    if let Ok(size) = units::size("field", text) {
        assert_eq!(units::size("field", &units::format_size(size)), Ok(size));
    }
    if let Ok(share) = units::share("field", text) {
        assert!(share >= 0.0);
    }
}

/// The header of trace contexts.
pub(crate) fn read_traceparent(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(traceparent) = text.parse::<Traceparent>() else { return };
    assert!(traceparent.trace_id() != 0 && traceparent.span_id() != 0);
    let written = traceparent.to_string();
    assert_eq!(written.len(), 55);
    assert_eq!(written.parse(), Ok(traceparent));
    if text.starts_with("00-") {
        assert_eq!(written, text);
    }
}

/// `Retry-After` on the first line, `Date` on the second.
pub(crate) fn read_retry_after(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for (name, line) in ["retry-after", "date"].into_iter().zip(data.split(|byte| *byte == b'\n')) {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.insert(name, value);
    }
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Some(delay) = retry_after(&headers, wall) {
        assert!(delay <= MAX_RETRY_AFTER);
        let first = headers["retry-after"].to_str().expect("it was understood").trim();
        if let Ok(seconds) = first.parse() {
            assert_eq!(delay, Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        }
    }
}

/// A whole configuration, in TOML and in JSON.
pub(crate) fn read_configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = [toml::from_str::<ResilienceConfig>(text).ok(), serde_json::from_str(text).ok()];
    for config in read.into_iter().flatten() {
        assert_eq!(config.check(), Ok(()));
        let json = serde_json::to_string(&config).expect("it can be written");
        assert_eq!(serde_json::from_str::<ResilienceConfig>(&json).expect("it can be read again"), config);
    }
}
