//! Values with units as people write them: durations, rates, sizes, percentages.
//! Exact arithmetic: what cannot be told exactly is refused, never rounded, and what a formatter writes its parser
//! reads as the same value. Whether a value makes sense for a policy is the policy's to say.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{ConfigError, MAX_DURATION};

/// What a duration can look like, for messages.
const DURATIONS: &str = "a duration with a unit (ns, us, ms, s, m, h, d), as in \"250ms\", \"1.5s\" or \"1h30m\"";
const RATES: &str = "a whole number per time, as in \"10/s\", \"500/min\" or \"100/60s\"";
const SIZES: &str = "a size with a unit (B, kB, KiB, MB, MiB, GB, GiB, TB, TiB), as in \"64MiB\"";
const SHARES: &str = "a number as 0.5 or a percentage as \"50%\"";

/// From the largest to the smallest, as they must follow each other.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// So many permits per so much time: `"500/min"`. What [`RateLimiterBuilder::rate`](crate::rate_limiter::RateLimiterBuilder::rate)
/// takes.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::config::units;
///
/// let rate = units::rate("limit", "500/min")?;
/// assert_eq!((rate.permits, rate.period), (500, Duration::from_secs(60)));
/// assert_eq!(rate.to_string(), "500/min");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many permits come back.
    pub permits: u32,
    /// In which time.
    pub period: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];
        match named.iter().find(|(_, seconds)| self.period == Duration::from_secs(*seconds)) {
            Some((unit, _)) => write!(f, "{}/{unit}", self.permits),
            None => write!(f, "{}/{}", self.permits, format_duration(self.period)),
        }
    }
}

/// Reads a duration: numbers with units (`ns`, `us` or `µs`, `ms`, `s`, `m` or `min`, `h`, `d`) from the largest to the
/// smallest, each unit at most once, as in `"250ms"`, `"1.5s"`, `"1h30m"` or `"1h 30m"`.
///
/// # Errors
/// A [`ConfigError`] about `field` when the text is something else, is finer than a nanosecond or longer than ten years.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::config::units;
///
/// assert_eq!(units::duration("open_for", "1m30s")?, Duration::from_secs(90));
/// let error = units::duration("open_for", "90").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`open_for` is \"90\"; allowed: a duration with a unit (ns, us, ms, s, m, h, d), as in \"250ms\", \"1.5s\" or \"1h30m\""
/// );
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub fn duration(field: &str, text: &str) -> Result<Duration, ConfigError> {
    let refused = |allowed: &str| refusal(field, text, allowed);
    let mut rest = text.trim();
    let (mut total, mut next_unit) = (0u64, 0);
    while !rest.is_empty() {
        let (number, after) = Decimal::split(rest).ok_or_else(|| refused(DURATIONS))?;
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "min" => "m",
            "µs" | "μs" => "us",
            other => other,
        };
        let found = DURATION_UNITS.iter().position(|(name, _)| *name == unit);
        let index = found.filter(|index| *index >= next_unit).ok_or_else(|| refused(DURATIONS))?;
        let part = number.times(DURATION_UNITS[index].1).map_err(|wrong| refused(wrong.of_durations()))?;
        total = total.checked_add(part).ok_or_else(|| refused(TOO_LONG))?;
        next_unit = index + 1;
        rest = after.trim_start();
    }
    if next_unit == 0 {
        return Err(refused(DURATIONS));
    }
    let total = Duration::from_nanos(total);
    if total > MAX_DURATION { Err(refused(TOO_LONG)) } else { Ok(total) }
}

const TOO_LONG: &str = "at most 10 years";

/// Writes a duration so that [`duration`] reads the same: whole numbers, from the largest unit to the smallest.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::config::units;
///
/// assert_eq!(units::format_duration(Duration::from_millis(90_500)), "1m30s500ms");
/// assert_eq!(units::format_duration(Duration::ZERO), "0s");
/// ```
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, nanos) in DURATION_UNITS {
        let whole = rest / u128::from(nanos);
        rest %= u128::from(nanos);
        if whole > 0 {
            // Writing into a text cannot fail.
            let _ = write!(text, "{whole}{unit}");
        }
    }
    text
}

/// Reads a rate: a whole number, `/`, and a duration (`"100/60s"`) or a unit of one (`"10/s"`, `"500/min"`).
///
/// # Errors
/// A [`ConfigError`] about `field` when the text is something else, or the duration is 0 or longer than ten years.
///
/// ```
/// use std::time::Duration;
/// use resilience_core::config::units;
///
/// let rate = units::rate("limit", "100/60s")?;
/// assert_eq!((rate.permits, rate.period), (100, Duration::from_secs(60)));
/// assert!(units::rate("limit", "100").is_err(), "in which time?");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub fn rate(field: &str, text: &str) -> Result<Rate, ConfigError> {
    let refused = || refusal(field, text, RATES);
    let (permits, per) = text.split_once('/').ok_or_else(refused)?;
    let (permits, per) = (permits.trim(), per.trim());
    if !permits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    // Only too large a number is left to be wrong, or none at all.
    let permits = permits.parse().map_err(|_| refused())?;
    let one_of_it;
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) {
        per
    } else {
        one_of_it = format!("1{per}");
        &one_of_it
    };
    match duration(field, per) {
        Ok(period) if !period.is_zero() => Ok(Rate { permits, period }),
        _ => Err(refused()),
    }
}

/// Reads a size in bytes: a number and a unit, decimal (`kB`, `MB`, `GB`, `TB`) or binary (`KiB`, `MiB`, `GiB`, `TiB`),
/// or `B`.
///
/// # Errors
/// A [`ConfigError`] about `field` when the text is something else, is no whole number of bytes or more than 2^64 - 1.
///
/// ```
/// use resilience_core::config::units;
///
/// assert_eq!(units::size("max_file_size", "64MiB")?, 64 << 20);
/// assert_eq!(units::size("max_file_size", "1.5kB")?, 1_500);
/// assert!(units::size("max_file_size", "64").is_err(), "64 of what?");
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub fn size(field: &str, text: &str) -> Result<u64, ConfigError> {
    let refused = |allowed: &str| refusal(field, text, allowed);
    let (number, unit) = Decimal::split(text.trim()).ok_or_else(|| refused(SIZES))?;
    let unit = unit.trim_start();
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| refused(SIZES))?;
    number.times(*bytes).map_err(|wrong| refused(wrong.of_sizes()))
}

/// Writes a size so that [`size`] reads the same: a whole number of the largest binary unit that divides it.
///
/// ```
/// use resilience_core::config::units;
///
/// assert_eq!(units::format_size(64 << 20), "64MiB");
/// assert_eq!(units::format_size(1_500), "1500B");
/// ```
pub fn format_size(bytes: u64) -> String {
    let binary = SIZE_UNITS.iter().filter(|(_, unit)| unit.is_power_of_two());
    let (unit, size) =
        binary.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / size)
}

/// Reads a part of a whole: `"50%"` and `"0.5"` are 0.5. Not limited to 1: whether `"150%"` makes sense is the field's
/// to say.
///
/// # Errors
/// A [`ConfigError`] about `field` when the text is something else, a negative number or an exponent among it.
///
/// ```
/// use resilience_core::config::units;
///
/// assert_eq!(units::share("failure_rate", "12.5%")?, 0.125);
/// # Ok::<(), resilience_core::ConfigError>(())
/// ```
pub fn share(field: &str, text: &str) -> Result<f64, ConfigError> {
    let refused = || refusal(field, text, SHARES);
    let (number, percent) = match text.trim().strip_suffix('%') {
        Some(number) => (number.trim_end(), true),
        None => (text.trim(), false),
    };
    // The parser of numbers reads `inf`, `nan`, signs and exponents as well.
    if !matches!(Decimal::split(number), Some((_, ""))) {
        return Err(refused());
    }
    let value: f64 = number.parse().map_err(|_| refused())?;
    Ok(if percent { value / 100.0 } else { value })
}

fn refusal(field: &str, text: &str, allowed: &str) -> ConfigError {
    ConfigError::new(field, super::quoted(text), allowed)
}

/// A number as it was written: `12.50` is 1250 and 2 digits after the point.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    digits: u128,
    scale: u32,
}

/// Why a number with a unit is no value.
enum Wrong {
    TooLarge,
    TooFine,
}

impl Wrong {
    const fn of_durations(&self) -> &'static str {
        match self {
            Self::TooLarge => TOO_LONG,
            Self::TooFine => "a whole number of nanoseconds",
        }
    }

    const fn of_sizes(&self) -> &'static str {
        match self {
            Self::TooLarge => "less than 16 EiB",
            Self::TooFine => "a whole number of bytes",
        }
    }
}

impl Decimal {
    /// The number that the text starts with, and what follows it: digits, and digits after a point, if there is one.
    fn split(text: &str) -> Option<(Self, &str)> {
        let whole_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, mut rest) = text.split_at(whole_end);
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            (fraction, rest) = after.split_at(end);
            if fraction.is_empty() {
                return None;
            }
        }
        // Longer ones are too large or too fine for every unit, and would not fit.
        if whole.is_empty() || whole.len() > 20 || fraction.len() > 15 {
            return None;
        }
        let digits = whole.bytes().chain(fraction.bytes()).fold(0, |sum, byte| sum * 10 + u128::from(byte - b'0'));
        Some((Self { digits, scale: u32::try_from(fraction.len()).unwrap_or(u32::MAX) }, rest))
    }

    /// So many of a unit, exactly.
    fn times(self, unit: u64) -> Result<u64, Wrong> {
        let (product, divisor) = (self.digits.checked_mul(u128::from(unit)), 10u128.pow(self.scale));
        let product = product.ok_or(Wrong::TooLarge)?;
        if product % divisor != 0 {
            return Err(Wrong::TooFine);
        }
        u64::try_from(product / divisor).map_err(|_| Wrong::TooLarge)
    }
}
