//! Well-known types whose text form in Istio's API differs from proto JSON.

use std::fmt;
use std::str::FromStr;

/// `google.protobuf.Duration`, read from text as Go's `time.ParseDuration`
/// does (`1h30m`, `5s`, `100ms`, `1.5s`), written as proto JSON (`5s`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of the same sign.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl prost::Name for Duration {
    const PACKAGE: &'static str = "google.protobuf";
    const NAME: &'static str = "Duration";
}

/// Why a text is not a duration.
#[derive(Debug, PartialEq, Eq)]
pub struct DurationError(String);

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration: write a number with a unit, such as 5s, 100ms or 1h30m", self.0)
    }
}

impl std::error::Error for DurationError {}

impl Duration {
    /// As a length of time; `None` when negative.
    #[must_use]
    pub fn to_std(self) -> Option<std::time::Duration> {
        Some(std::time::Duration::new(self.seconds.try_into().ok()?, self.nanos.try_into().ok()?))
    }

    /// Total nanoseconds.
    #[must_use]
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * NANOS + i128::from(self.nanos)
    }
}

const NANOS: i128 = 1_000_000_000;

impl From<std::time::Duration> for Duration {
    fn from(value: std::time::Duration) -> Self {
        // Nanoseconds of a second always fit; seconds saturate.
        Self {
            seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
        }
    }
}

impl From<Duration> for prost_types::Duration {
    fn from(value: Duration) -> Self {
        Self { seconds: value.seconds, nanos: value.nanos }
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let nanos = parse_go(text).ok_or_else(|| DurationError(text.into()))?;
        // Both quotients fit: parse_go bounds the total to an i64 of nanoseconds.
        Ok(Self { seconds: (nanos / NANOS) as i64, nanos: (nanos % NANOS) as i32 })
    }
}

/// Go's duration syntax: `[-+]?([0-9]*(\.[0-9]*)?[a-z]+)+`, or `0`.
fn parse_go(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => NANOS,
            "m" => 60 * NANOS,
            "h" => 3_600 * NANOS,
            _ => return None,
        };
        total = total.checked_add(scaled(number, unit)?)?;
        if total > i128::from(i64::MAX) {
            return None;
        }
        rest = tail;
    }
    Some(sign * total)
}

/// `number * unit` for a decimal number, rounded down to whole nanoseconds.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(18)];
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<i128>().ok()? * unit / 10_i128.pow(u32::try_from(fraction.len()).ok()?)
    };
    whole.checked_mul(unit)?.checked_add(part)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.seconds < 0 || self.nanos < 0 { "-" } else { "" };
        let (seconds, nanos) = (self.seconds.unsigned_abs(), self.nanos.unsigned_abs());
        match nanos {
            0 => write!(f, "{sign}{seconds}s"),
            n if n % 1_000_000 == 0 => write!(f, "{sign}{seconds}.{:03}s", n / 1_000_000),
            n if n % 1_000 == 0 => write!(f, "{sign}{seconds}.{:06}s", n / 1_000),
            n => write!(f, "{sign}{seconds}.{n:09}s"),
        }
    }
}

impl serde::Serialize for Duration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 5s, 100ms or 1h30m")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("5s", 5 * NANOS),
            ("1h30m", 5_400 * NANOS),
            ("100ms", 100_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("-2s", -2 * NANOS),
            ("0", 0),
            ("1us", 1_000),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().as_nanos(), nanos, "{text}");
        }
        for text in ["", "5", "s", "1d", "1 s", "5s5", "abc", ".s", "-", "9999999999999h"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn writes_proto_json() {
        for (text, want) in
            [("1h", "3600s"), ("1500ms", "1.500s"), ("-1ms", "-0.001s"), ("1ns", "0.000000001s")]
        {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), want);
        }
    }
}
