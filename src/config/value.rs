//! Values that carry their own bounds: rates, factors, curves. And how values are written back.

use std::time::Duration;

use hyper::{Method, header::HeaderName};
use serde::{Serialize, Serializer};

/// Micro-tokens in a token: the unit in which buckets count.
const MICRO: u64 = 1_000_000;

/// A refill rate, from one micro-token to a million tokens a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// How fast a scaled limit's time runs, in millionths: 1,000,000 is real time. From 0.000001 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u32);

/// A piecewise linear function from a load to a factor: points in rising order of load, clamped outside them.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Curve(Vec<(f64, f64)>);

/// What stands where an optional value is not set; in capitals, so that no value can be the same text.
pub(super) const NOT_SET: &str = "[NOT SET]";

// === impl Rate ===

impl Rate {
    /// A million tokens a second.
    pub const MAX: Self = Self(1_000_000 * MICRO);

    /// A rate of `tokens` a second, rounded to a micro-token; `None` outside the bounds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
    pub fn per_second(tokens: f64) -> Option<Self> {
        let micro = tokens * 1e6;
        (0.5..=1e12).contains(&micro).then(|| Self((micro.round() as u64).max(1)))
    }

    /// Micro-tokens a second, 1 to 10¹².
    pub fn micro_tokens_per_second(self) -> u64 {
        self.0
    }

    /// Tokens a second.
    #[expect(clippy::cast_precision_loss, reason = "10¹² fits a double exactly")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

// === impl Factor ===

impl Factor {
    /// Real time.
    pub const ONE: Self = Self(1_000_000);

    /// The slowest there is.
    pub const MIN: Self = Self(1);

    /// A factor rounded to a millionth; `None` outside the bounds or where it is no number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
    pub fn new(factor: f64) -> Option<Self> {
        (0.000_000_5..=100.0).contains(&factor).then(|| Self(((factor * 1e6).round() as u32).max(1)))
    }

    /// A factor of at least one millionth and at most 100.
    pub(super) const fn from_millionths(millionths: u32) -> Self {
        Self(millionths)
    }

    /// In millionths, 1 to 10⁸.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// As a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

// === impl Curve ===

impl Curve {
    /// A curve through `points`, or why they are none: loads must rise, and loads and factors be finite, loads not below
    /// 0 and factors from 0 to 100. No points at all is the curve that does not look.
    pub fn new(points: Vec<(f64, f64)>) -> Result<Self, &'static str> {
        if points.iter().any(|(load, factor)| !load.is_finite() || *load < 0.0 || !(0.0..=100.0).contains(factor)) {
            return Err("loads of 0 or more and factors from 0 to 100");
        }
        if points.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err("points in rising order of load");
        }
        Ok(Self(points))
    }

    /// The points, in rising order of load.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.0
    }
}

// === serialization ===

/// A duration the way it is typed: "500ms", "10s", "2m", "1h".
pub(super) fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        whole if whole.is_multiple_of(3_600_000) => format!("{}h", whole / 3_600_000),
        whole if whole.is_multiple_of(60_000) => format!("{}m", whole / 60_000),
        whole if whole.is_multiple_of(1000) => format!("{}s", whole / 1000),
        whole => format!("{whole}ms"),
    }
}

/// Writes a duration the way it is typed.
pub(super) fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration_text(*duration))
}

/// Writes methods by name.
pub(super) fn methods<S: Serializer>(methods: &[Method], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(methods.iter().map(Method::as_str))
}

/// Writes a field's name, and [`NOT_SET`] where there is none.
#[expect(clippy::ref_option, reason = "serde hands it over so")]
pub(super) fn header_name<S: Serializer>(name: &Option<HeaderName>, serializer: S) -> Result<S::Ok, S::Error> {
    optional(&name.as_ref().map(HeaderName::as_str), serializer)
}

/// Writes [`NOT_SET`] for what is not set, so that no key is missing from what is written.
#[expect(clippy::ref_option, reason = "serde hands it over so")]
pub(super) fn optional<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_str(NOT_SET),
    }
}
