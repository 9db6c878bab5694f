//! How times leave the crate through serde: milliseconds, as numbers. Only compiled with the feature `serde`.

use std::time::{Duration, SystemTime};

use serde::Serializer;

fn millis(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    }
}

pub(crate) fn unix_ms<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(millis(*time))
}

// serde's `serialize_with` passes a reference to the field, whatever its type.
#[allow(clippy::ref_option)]
pub(crate) fn opt_unix_ms<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_some(&millis(*time)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

#[allow(clippy::ref_option)]
pub(crate) fn opt_ms<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&(duration.as_secs_f64() * 1e3)),
        None => serializer.serialize_none(),
    }
}
