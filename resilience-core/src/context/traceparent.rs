//! The W3C `traceparent` header (Trace Context, level 1): read, carried, written. It makes no ids and samples nothing.

use std::fmt;
use std::str::FromStr;

/// A place in a distributed trace: which trace, which span, whether it is recorded.
///
/// `tracing`'s spans have no such ids; those of OpenTelemetry do, and so does a request's `traceparent` header.
///
/// ```
/// use resilience_core::context::Traceparent;
///
/// let place: Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// assert_eq!(place.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
/// assert!(place.is_sampled());
/// # Ok::<(), resilience_core::context::ParseTraceparentError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl Traceparent {
    /// The span `span_id` of the trace `trace_id`; `None` when one of the ids is 0, which stands for no id.
    ///
    /// ```
    /// use resilience_core::context::Traceparent;
    ///
    /// let place = Traceparent::new(0xabc, 0x12, true).expect("no id is 0");
    /// assert_eq!(place.to_string(), "00-00000000000000000000000000000abc-0000000000000012-01");
    /// assert_eq!(Traceparent::new(0xabc, 0, true), None);
    /// ```
    pub const fn new(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        if trace_id == 0 || span_id == 0 { None } else { Some(Self { trace_id, span_id, flags: sampled as u8 }) }
    }

    /// The trace.
    ///
    /// ```
    /// use resilience_core::context::Traceparent;
    ///
    /// assert_eq!(Traceparent::new(0xabc, 0x12, true).map(Traceparent::trace_id), Some(0xabc));
    /// ```
    pub const fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The span.
    ///
    /// ```
    /// use resilience_core::context::Traceparent;
    ///
    /// assert_eq!(Traceparent::new(0xabc, 0x12, true).map(Traceparent::span_id), Some(0x12));
    /// ```
    pub const fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether the caller may have recorded the trace.
    ///
    /// ```
    /// use resilience_core::context::Traceparent;
    ///
    /// let place: Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".parse()?;
    /// assert!(!place.is_sampled());
    /// # Ok::<(), resilience_core::context::ParseTraceparentError>(())
    /// ```
    pub const fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

/// The header's value, in version 00.
impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a `traceparent`.
///
/// ```
/// use resilience_core::context::Traceparent;
///
/// let error = "00-42".parse::<Traceparent>().unwrap_err();
/// assert!(error.to_string().starts_with(r#""00-42" is not a traceparent; allowed: version-trace-span-flags"#));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a traceparent; allowed: version-trace-span-flags in 2, 32, 16 and 2 lower-case hexadecimal digits"
)]
pub struct ParseTraceparentError(String);

/// Reads version 00, and of later versions the parts that 00 has, as the specification asks for.
impl FromStr for Traceparent {
    type Err = ParseTraceparentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseTraceparentError(super::cut(text, 64)))
    }
}

fn parse(text: &str) -> Option<Traceparent> {
    let mut parts = text.splitn(5, '-');
    let mut digits = |count| {
        let part = parts.next()?;
        let fits = part.len() == count && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if fits { u128::from_str_radix(part, 16).ok() } else { None }
    };
    let (version, trace_id) = (digits(2)?, digits(32)?);
    let span_id = u64::try_from(digits(16)?).ok()?;
    let flags = u8::try_from(digits(2)?).ok()?;
    // 255 is forbidden; only later versions may have more parts.
    if version == 0xFF || (version == 0 && parts.next().is_some()) || trace_id == 0 || span_id == 0 {
        return None;
    }
    // A later version's further flags are not ours to pass on.
    let flags = if version == 0 { flags } else { flags & 1 };
    Some(Traceparent { trace_id, span_id, flags })
}

#[cfg(feature = "serde")]
impl serde::Serialize for Traceparent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Traceparent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
