//! Finds the pause in a status's details: `google.rpc.Status` → `Any` → `google.rpc.RetryInfo` → `Duration`.
//! Reads just these four messages of protobuf's wire format, so that no protobuf library is needed; the rest is skipped,
//! and what is broken ends the reading.

use std::time::Duration;

/// The type of the message looked for, at the end of whatever URL.
const RETRY_INFO: &[u8] = b"google.rpc.RetryInfo";

/// The pause that `details`, an encoded `google.rpc.Status`, asks for.
pub(super) fn delay(details: &[u8]) -> Option<Duration> {
    // Status { int32 code = 1; string message = 2; repeated Any details = 3; }
    Fields(details).filter_map(|field| field.message(3)).find_map(|any| {
        // Any { string type_url = 1; bytes value = 2; }
        let url = Fields(any).find_map(|field| field.message(1))?;
        if url.rsplit(|&byte| byte == b'/').next()? != RETRY_INFO {
            return None;
        }
        // Empty fields are not sent.
        let info = Fields(any).find_map(|field| field.message(2)).unwrap_or_default();
        // RetryInfo { Duration retry_delay = 1; }
        duration(Fields(info).find_map(|field| field.message(1))?)
    })
}

/// Duration { int64 seconds = 1; int32 nanos = 2; }; `None` when negative.
fn duration(message: &[u8]) -> Option<Duration> {
    let number = |wanted| Fields(message).find_map(|field: Field<'_>| field.number(wanted)).unwrap_or_default();
    // Negative numbers are sent as their two's complement, so they are too large here.
    let seconds = u64::try_from(number(1).cast_signed()).ok()?;
    let nanos = u32::try_from(number(2)).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

enum Value<'m> {
    Number(u64),
    Message(&'m [u8]),
    Other,
}

struct Field<'m>(u64, Value<'m>);

impl<'m> Field<'m> {
    fn message(self, wanted: u64) -> Option<&'m [u8]> {
        match self {
            Self(number, Value::Message(bytes)) if number == wanted => Some(bytes),
            _ => None,
        }
    }

    fn number(self, wanted: u64) -> Option<u64> {
        match self {
            Self(number, Value::Number(value)) if number == wanted => Some(value),
            _ => None,
        }
    }
}

/// The fields of an encoded message, up to the first that is broken.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn take(&mut self, count: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits a byte, the lowest first; the top bit says that there are more. At most ten bytes.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Field<'m>;

    fn next(&mut self) -> Option<Field<'m>> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Message(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            // Groups are history, and nothing else exists.
            _ => return None,
        };
        Some(Field(tag >> 3, value))
    }
}
