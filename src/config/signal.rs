//! `[load.NAME]`: what says how fast limits refill. A signal is polled from an endpoint, or measured on the way.

use std::time::Duration;

use serde::Serialize;

use super::{Curve, Endpoint, Factor, value};

/// `[load.NAME]`: a polled signal that says how fast buckets refill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    /// Answers `{"cpu_utilization": 0..100, "queue_depth": n}`; `None` holds the signal at 1.
    #[serde(serialize_with = "value::optional")]
    pub endpoint: Option<Endpoint>,
    /// Time from poll to poll.
    #[serde(serialize_with = "value::duration")]
    pub interval: Duration,
    /// Longest wait for an answer.
    #[serde(serialize_with = "value::duration")]
    pub timeout: Duration,
    /// Factor by CPU utilisation in per cent; empty does not look.
    pub cpu_curve: Curve,
    /// Factor by queue depth; empty does not look.
    pub queue_curve: Curve,
    /// Age at which the last good sample no longer counts.
    #[serde(serialize_with = "value::duration")]
    pub stale_after: Duration,
    /// The factor from then on.
    pub stale_factor: Factor,
    /// The factor never falls below this.
    pub min_refill_share: Factor,
    /// A new factor counts only where it differs from the last by more than this share of it (0 to 1).
    pub hysteresis: f64,
    /// The most by which the factor rises in a second; it falls at once.
    pub max_rise_per_second: Factor,
}

/// `[load.NAME]`: a measured signal: how long an upstream takes for each of the values that a limit counts by first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// Up to here, the 95th percentile of the time to the response head leaves the factor at 1.
    #[serde(serialize_with = "value::duration")]
    pub threshold: Duration,
    /// By how much the factor falls for each further threshold.
    pub slope: Factor,
    /// The factor never falls below this.
    pub floor: Factor,
    /// Samples that are older do not count.
    #[serde(serialize_with = "value::duration")]
    pub window: Duration,
    /// With fewer samples the factor is 1.
    pub min_samples: u32,
}
