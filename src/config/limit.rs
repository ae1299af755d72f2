//! How much of something there may be: the kinds of limits.

use std::time::Duration;

use serde::Serialize;

use super::{
    Rate,
    value::{self, duration_text},
};

/// How a limit measures what it admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Tokens that come back steadily.
    TokenBucket(TokenBucket),
    /// So many in any stretch of time of one length.
    SlidingWindow(SlidingWindow),
}

/// A bucket that starts full and refills steadily.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenBucket {
    /// Tokens it can hold (1 to 1000000).
    pub capacity: u32,
    /// Tokens a second (0.000001 to 1000000).
    pub refill_per_second: Rate,
}

/// A window that slides with time: in any stretch of its length, no more than its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SlidingWindow {
    /// Tokens that may be taken in one window (1 to 1000000).
    pub quota: u32,
    /// Its length (1 ms to 24 h).
    #[serde(serialize_with = "value::duration")]
    pub window: Duration,
}

// === impl LimitKind ===

impl LimitKind {
    /// The most tokens that can be taken at once.
    pub fn most(&self) -> u32 {
        match self {
            Self::TokenBucket(bucket) => bucket.capacity,
            Self::SlidingWindow(window) => window.quota,
        }
    }

    /// In words, such as "10 at once, 2 a second" or "100 in any 1m".
    pub fn summary(&self) -> String {
        match self {
            Self::TokenBucket(bucket) => {
                format!("{} at once, {} a second", bucket.capacity, bucket.refill_per_second.as_f64())
            }
            Self::SlidingWindow(window) => format!("{} in any {}", window.quota, duration_text(window.window)),
        }
    }
}

impl From<TokenBucket> for LimitKind {
    fn from(bucket: TokenBucket) -> Self {
        Self::TokenBucket(bucket)
    }
}

impl From<SlidingWindow> for LimitKind {
    fn from(window: SlidingWindow) -> Self {
        Self::SlidingWindow(window)
    }
}
