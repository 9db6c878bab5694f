//! One handled error as a record: what happened, when, to whom, after how many attempts.
//! A context is bounded in size whatever the error says, and its id sorts by time. It is data; it does nothing.

mod traceparent;

pub use traceparent::{ParseTraceparentError, Traceparent};

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::class::{Class, Classify};
use crate::clock::Clock;

/// The longest message or detail kept, in bytes; what is longer is cut at a character and ends in `…`.
///
/// ```
/// use std::io;
/// use resilience_core::{Clock, ErrorContext, context::MAX_TEXT_BYTES};
///
/// let error = io::Error::other("a".repeat(1_000_000));
/// let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &error);
/// assert!(context.message.len() <= MAX_TEXT_BYTES && context.message.ends_with('…'));
/// ```
pub const MAX_TEXT_BYTES: usize = 2048;
/// The most causes kept of a source chain; further ones are counted in `causes_dropped`.
///
/// ```
/// use std::{error::Error, fmt};
/// use resilience_core::context::{MAX_CAUSES, ErrorContext};
/// use resilience_core::{Category, Class, Classify, Clock};
///
/// #[derive(Debug)]
/// struct Link(Option<Box<Link>>);
/// # impl fmt::Display for Link {
/// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("link") }
/// # }
/// impl Error for Link {
///     fn source(&self) -> Option<&(dyn Error + 'static)> {
///         self.0.as_deref().map(|next| next as _)
///     }
/// }
/// # impl Classify for Link {
/// #     fn class(&self) -> Class { Class::of(Category::Internal) }
/// # }
/// let chain = (0..MAX_CAUSES + 2).fold(Link(None), |last, _| Link(Some(Box::new(last))));
/// let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &chain);
/// assert_eq!((context.causes.len(), context.causes_dropped), (MAX_CAUSES, 2));
/// ```
pub const MAX_CAUSES: usize = 8;
/// A source chain that goes on for longer than this below the kept causes is not followed: it may never end.
///
/// ```
/// use std::{error::Error, fmt};
/// use resilience_core::context::{ErrorContext, MAX_CAUSES_COUNTED};
/// use resilience_core::{Category, Class, Classify, Clock};
///
/// /// Its own cause, for ever.
/// #[derive(Debug)]
/// struct Circle;
/// # impl fmt::Display for Circle {
/// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("circle") }
/// # }
/// impl Error for Circle {
///     fn source(&self) -> Option<&(dyn Error + 'static)> {
///         Some(&Circle)
///     }
/// }
/// # impl Classify for Circle {
/// #     fn class(&self) -> Class { Class::of(Category::Internal) }
/// # }
/// let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &Circle);
/// assert_eq!(context.causes_dropped, MAX_CAUSES_COUNTED);
/// ```
pub const MAX_CAUSES_COUNTED: u32 = 64;
/// The most details kept per context; further keys are refused and counted in `details_dropped`.
///
/// ```
/// use std::io;
/// use resilience_core::{Clock, ErrorContext, context::MAX_DETAILS};
///
/// let mut context = ErrorContext::new(&Clock::system(), "registry", "fetch", &io::Error::other("no"));
/// for number in 0..MAX_DETAILS + 3 {
///     context = context.detail(format!("key-{number}"), number);
/// }
/// assert_eq!((context.details.len(), context.details_dropped), (MAX_DETAILS, 3));
/// ```
pub const MAX_DETAILS: usize = 32;

/// Identifies one error occurrence. 128 bits in the layout of a version 7 UUID (RFC 9562): ids made by one process
/// sort in the order they were made, and ids of many processes sort by time to the millisecond.
///
/// ```
/// use resilience_core::{Clock, ErrorId};
///
/// let clock = Clock::system();
/// let (first, second) = (ErrorId::new(&clock), ErrorId::new(&clock));
/// assert!(first < second);
/// assert_eq!(first.to_string().parse::<ErrorId>(), Ok(first));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorId(u128);

impl ErrorId {
    /// A new id, later than every id this process made before, whatever the wall clock does.
    ///
    /// ```
    /// use resilience_core::{Clock, ErrorId};
    ///
    /// let (clock, _time) = Clock::manual(); // stands still
    /// let (first, second) = (ErrorId::new(&clock), ErrorId::new(&clock));
    /// assert!(first < second);
    /// ```
    pub fn new(clock: &Clock) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let millis =
            clock.wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis()) & 0xFFFF_FFFF_FFFF;
        // 48 bits of milliseconds and a 12-bit counter that carries into them when a millisecond is full.
        let candidate = u64::try_from(millis).unwrap_or(0) << 12;
        let next = |last: u64| candidate.max(last.saturating_add(1));
        // Relaxed: only the number itself matters, nothing is published through it.
        let stamp = match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        };
        let random = u128::from(fastrand::u64(..)) & 0x3FFF_FFFF_FFFF_FFFF;
        let stamp = u128::from(stamp);
        Self((stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random)
    }

    /// The id that [`as_u128`](Self::as_u128) gave as a number: for storage that keeps ids in binary. Any number is
    /// taken; one that was not made by [`new`](Self::new) sorts by its upper 48 bits all the same.
    ///
    /// ```
    /// use resilience_core::{Clock, ErrorId};
    ///
    /// let id = ErrorId::new(&Clock::system());
    /// assert_eq!(ErrorId::from_u128(id.as_u128()), id);
    /// ```
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    /// The id as a number.
    ///
    /// ```
    /// use resilience_core::{Clock, ErrorId};
    ///
    /// let id = ErrorId::new(&Clock::system());
    /// assert_eq!(format!("{:032x}", id.as_u128()), id.to_string().replace('-', ""));
    /// ```
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            id >> 96,
            (id >> 80) & 0xFFFF,
            (id >> 64) & 0xFFFF,
            (id >> 48) & 0xFFFF,
            id & 0xFFFF_FFFF_FFFF
        )
    }
}

impl fmt::Debug for ErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an error id.
///
/// ```
/// use resilience_core::ErrorId;
///
/// let error = "42".parse::<ErrorId>().unwrap_err();
/// assert_eq!(error.to_string(), r#""42" is not an error id; allowed: 32 hexadecimal digits as 8-4-4-4-12"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an error id; allowed: 32 hexadecimal digits as 8-4-4-4-12")]
pub struct ParseErrorIdError(String);

impl FromStr for ErrorId {
    type Err = ParseErrorIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseErrorIdError(cut(text, 64));
        let bytes = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        if bytes.len() != 36 || !dashes.iter().all(|&at| bytes[at] == b'-') {
            return Err(bad());
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        u128::from_str_radix(&digits, 16).map(Self).map_err(|_| bad())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ErrorId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ErrorId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One error, as it was handled.
///
/// ```
/// use std::io;
/// use resilience_core::{Category, Clock, ErrorContext};
///
/// let error = io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer");
/// let context = ErrorContext::new(&Clock::system(), "registry", "fetch serde", &error).attempts(3).detail("try", 3);
/// assert_eq!((context.class.category, context.attempts), (Category::Network, 3));
/// assert_eq!(context.message, "connection reset by peer");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ErrorContext {
    /// Identifies the occurrence.
    pub id: ErrorId,
    /// What the error means.
    pub class: Class,
    /// The error's own text.
    pub message: String,
    /// Which part of the system it happened in.
    pub component: String,
    /// What was being done.
    pub operation: String,
    /// When it was handled, by the wall clock.
    pub at: SystemTime,
    /// How many attempts had been made.
    pub attempts: u32,
    /// The causes behind the error, nearest first.
    pub causes: Vec<String>,
    /// How many causes further down were left out; counted up to [`MAX_CAUSES_COUNTED`].
    pub causes_dropped: u32,
    /// Free details.
    pub details: BTreeMap<String, String>,
    /// How many details did not fit.
    pub details_dropped: u32,
    /// The trace or correlation id, when the caller has one.
    pub trace: Option<String>,
    /// The place in a distributed trace, when the call is part of one.
    pub traceparent: Option<Traceparent>,
}

impl ErrorContext {
    /// The context of `error`, which happened in `component` while doing `operation`.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Clock, ErrorContext};
    ///
    /// let error = io::Error::from(io::ErrorKind::StorageFull);
    /// let context = ErrorContext::new(&Clock::system(), "cache", "write index", &error);
    /// assert_eq!((context.component.as_str(), context.operation.as_str()), ("cache", "write index"));
    /// assert_eq!((context.class.severity.as_str(), context.attempts), ("critical", 1));
    /// ```
    pub fn new<E>(clock: &Clock, component: &str, operation: &str, error: &E) -> Self
    where
        E: Classify + std::error::Error + ?Sized,
    {
        let mut chain = std::iter::successors(error.source(), |cause| cause.source());
        let causes = chain.by_ref().take(MAX_CAUSES).map(|cause| cut(cause, MAX_TEXT_BYTES)).collect();
        let causes_dropped = (1..=MAX_CAUSES_COUNTED).zip(chain).last().map_or(0, |(count, _)| count);
        Self {
            id: ErrorId::new(clock),
            class: error.class(),
            message: cut(error, MAX_TEXT_BYTES),
            component: cut(component, MAX_TEXT_BYTES),
            operation: cut(operation, MAX_TEXT_BYTES),
            at: clock.wall(),
            attempts: 1,
            causes,
            causes_dropped,
            details: BTreeMap::new(),
            details_dropped: 0,
            trace: None,
            traceparent: None,
        }
    }

    /// The same after `attempts` attempts.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Clock, ErrorContext};
    ///
    /// let error = io::Error::other("no");
    /// let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &error).attempts(3);
    /// assert_eq!(context.attempts, 3);
    /// ```
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The same with one more detail, as far as there is room.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Clock, ErrorContext};
    ///
    /// let error = io::Error::other("no");
    /// let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &error);
    /// let context = context.detail("crate", "serde").detail("port", 443);
    /// assert_eq!((context.details["crate"].as_str(), context.details["port"].as_str()), ("serde", "443"));
    /// ```
    #[must_use]
    pub fn detail(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        let key = cut(&key.into(), MAX_TEXT_BYTES);
        if self.details.len() < MAX_DETAILS || self.details.contains_key(&key) {
            self.details.insert(key, cut(&value, MAX_TEXT_BYTES));
        } else {
            self.details_dropped = self.details_dropped.saturating_add(1);
        }
        self
    }

    /// The same at a place in a distributed trace, as a request's `traceparent` header names it.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Clock, ErrorContext};
    ///
    /// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let error = io::Error::from(io::ErrorKind::TimedOut);
    /// let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &error).traceparent(header.parse()?);
    /// assert_eq!(context.traceparent.map(|place| place.to_string()).as_deref(), Some(header));
    /// # Ok::<(), resilience_core::context::ParseTraceparentError>(())
    /// ```
    #[must_use]
    pub fn traceparent(mut self, traceparent: Traceparent) -> Self {
        self.traceparent = Some(traceparent);
        self
    }

    /// The same with a trace or correlation id in a form of its own.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Clock, ErrorContext};
    ///
    /// let error = io::Error::other("no");
    /// let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &error).trace("request-7f3a");
    /// assert_eq!(context.trace.as_deref(), Some("request-7f3a"));
    /// ```
    #[must_use]
    pub fn trace(mut self, trace: impl Into<String>) -> Self {
        self.trace = Some(cut(&trace.into(), MAX_TEXT_BYTES));
        self
    }
}

/// At most `limit` bytes of what `value` shows, cut between characters and marked when cut. What would be cut is never
/// formatted, so a value may be of any size.
fn cut(value: &(impl fmt::Display + ?Sized), limit: usize) -> String {
    const MARK: &str = "…";
    struct Bounded {
        text: String,
        limit: usize,
        full: bool,
    }
    impl fmt::Write for Bounded {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            let room = self.limit - self.text.len();
            self.full |= more.len() > room;
            self.text.push_str(&more[..floor(more, room)]);
            if self.full { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut bounded = Bounded { text: String::new(), limit, full: false };
    // An error of the value's own ends its text just as well.
    let _ = write!(bounded, "{value}");
    let Bounded { mut text, full, .. } = bounded;
    if full {
        text.truncate(floor(&text, limit - MARK.len()));
        text.push_str(MARK);
    }
    text
}

/// The last place at or before `at` where no character is split.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::time::Duration;

    #[test]
    fn ids_sort_in_the_order_they_were_made_even_when_the_wall_clock_steps_back() {
        let (clock, time) = Clock::manual();
        let mut ids = Vec::new();
        for step in 0..10_000_u64 {
            if step == 5_000 {
                time.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
            }
            ids.push(ErrorId::new(&clock));
        }
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn an_id_is_a_version_7_uuid() {
        let text = ErrorId::new(&Clock::system()).to_string();
        assert_eq!((text.len(), &text[14..15]), (36, "7"));
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        for bad in ["", "x", "0192-", "+1920000-0000-7000-8000-000000000000", "é1920000-0000-7000-8000-00000000000"] {
            assert!(bad.parse::<ErrorId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_context_is_bounded_whatever_the_error_says() {
        let error = io::Error::other("é".repeat(1_000_000));
        let mut context = ErrorContext::new(&Clock::system(), "registry", "fetch", &error);
        assert!(context.message.len() <= MAX_TEXT_BYTES && context.message.ends_with('…'));
        for number in 0..100 {
            context = context.detail(format!("key-{number}"), number);
        }
        assert_eq!((context.details.len(), context.details_dropped), (MAX_DETAILS, 68));
    }

    #[test]
    fn a_text_without_end_is_cut_while_it_is_written() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("äh ")?;
                }
            }
        }
        let text = cut(&Endless, MAX_TEXT_BYTES);
        assert!(text.len() > MAX_TEXT_BYTES - 8 && text.len() <= MAX_TEXT_BYTES && text.ends_with('…'), "{text}");
        for limit in 3..13 {
            let text = cut("ääää🦀ä", limit);
            assert!(text.len() <= limit && text.ends_with('…'), "{limit}: {text}");
        }
        assert_eq!((cut("ääää", 8), cut("ääää", 7)), ("ääää".to_owned(), "ää…".to_owned()));
    }

    #[test]
    fn a_chain_of_causes_is_cut_and_the_rest_counted() {
        #[derive(Debug)]
        struct Link(u32, Option<Box<Link>>);
        impl fmt::Display for Link {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "link {}", self.0)
            }
        }
        impl std::error::Error for Link {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.1.as_deref().map(|link| link as _)
            }
        }
        impl Classify for Link {
            fn class(&self) -> Class {
                Class::of(crate::Category::Internal)
            }
        }
        let chain = |links: u32| (0..links).rev().fold(Link(links, None), |last, at| Link(at, Some(Box::new(last))));
        for (links, kept, dropped) in [(0, 0, 0), (8, 8, 0), (9, 8, 1), (72, 8, 64), (1_000, 8, 64)] {
            let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &chain(links));
            assert_eq!((context.causes.len(), context.causes_dropped), (kept, dropped), "{links}");
        }
        let context = ErrorContext::new(&Clock::system(), "registry", "fetch", &chain(2));
        assert_eq!((context.message.as_str(), context.causes), ("link 0", vec!["link 1".into(), "link 2".into()]));
    }
}
