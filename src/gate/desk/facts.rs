//! The facts that are told of routes, limits and buckets.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    config::Mode,
    gate::limit::RouteLimit,
    limiter::{Charge, Kind, Standing, amendments::Amendments, bucket::MICRO},
};

/// A limit of a route.
#[derive(Debug, Clone, Serialize)]
pub struct LimitFacts {
    /// Its name.
    pub limit: Arc<str>,
    /// One bucket for each combination of these.
    pub per: Vec<String>,
    /// What one request takes, in tokens.
    pub cost: f64,
    /// Its parameters.
    #[serde(flatten)]
    pub quota: Quota,
    /// The load signals that scale its refill; absent where none does.
    pub scale: Option<String>,
    /// Where operators changed its parameters for a while, what else there is of it, and until when.
    pub amended: Option<Amended>,
}

/// For how much longer a limit has other parameters than are configured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Amended {
    /// How much there is of it otherwise.
    pub configured: Quota,
    /// When that comes back, in Unix time.
    pub ends_at: u64,
    /// In how many seconds.
    pub seconds_left: u64,
}

/// How much there is of a limit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quota {
    /// Which arithmetic it follows.
    pub kind: &'static str,
    /// The most there is, in tokens.
    pub capacity: f64,
    /// What comes back in a second at factor 1, in tokens.
    pub refill_per_second: f64,
    /// The seconds in which all of it comes back at factor 1, rounded up.
    pub window_seconds: u64,
}

/// A route and its limits.
#[derive(Debug, Clone, Serialize)]
pub struct RouteFacts {
    /// Its name.
    pub route: Arc<str>,
    /// Whether what is decided also holds.
    pub mode: Mode,
    /// All must admit a request.
    pub limits: Vec<LimitFacts>,
}

/// How a bucket stands.
#[derive(Debug, Clone, Serialize)]
pub struct BucketFacts {
    /// Its name in the store.
    pub key: String,
    /// What it holds, in tokens.
    pub tokens: f64,
    /// What it lacks, in whole tokens.
    pub used: u64,
    /// The most it holds, in tokens.
    pub capacity: f64,
    /// How fast it refills, as a share of what is configured.
    pub factor: f64,
    /// Whether one more request fits.
    pub fits: bool,
    /// Seconds until one more fits, as long as nothing else comes; 0 where it does.
    pub fits_in_seconds: f64,
}

/// A bucket with its limit.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    /// The route.
    pub route: Arc<str>,
    /// The limit.
    #[serde(flatten)]
    pub limit: LimitFacts,
    /// Who says how it stands.
    pub by: &'static str,
    /// How it stands.
    pub bucket: BucketFacts,
}

/// Buckets of one limit that this replica has seen lately.
#[derive(Debug, Clone, Serialize)]
pub struct Usage {
    /// The route.
    pub route: Arc<str>,
    /// The limit.
    pub limit: Arc<str>,
    /// Those that are not full, by key.
    pub buckets: Vec<Used>,
    /// Where the next page begins; absent on the last.
    pub cursor: Option<String>,
}

/// A bucket and who it belongs to.
#[derive(Debug, Clone, Serialize)]
pub struct Used {
    /// What its client is called, as configured.
    pub name: Arc<str>,
    /// Requests a second, lately, at this replica.
    pub per_second: f64,
    /// Those that were refused.
    pub refused_per_second: f64,
    /// How it stands.
    #[serde(flatten)]
    pub bucket: BucketFacts,
}

// === impl facts ===

impl LimitFacts {
    /// The facts of a limit at `now`.
    pub fn of(limit: &RouteLimit, amendments: &Amendments, now: Instant) -> Self {
        let amended = limit.amended(amendments, now);
        Self {
            limit: Arc::clone(&limit.name),
            per: limit.per.iter().map(ToString::to_string).collect(),
            cost: tokens(limit.cost),
            quota: Quota::of(amended.as_ref().map_or(limit.limit.kind, |(limit, _)| limit.kind)),
            scale: limit.limit.scale.as_ref().map(ToString::to_string),
            amended: Amended::of(limit, amendments, now),
        }
    }
}

impl Amended {
    /// That of a limit at `now`; `None` where it is as configured.
    pub fn of(limit: &RouteLimit, amendments: &Amendments, now: Instant) -> Option<Self> {
        let (_, change) = limit.amended(amendments, now)?;
        let left = change.until.saturating_duration_since(now);
        Some(Self { configured: Quota::of(limit.limit.kind), ends_at: ends_at(left), seconds_left: left.as_secs() })
    }
}

impl Quota {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Bucket(bucket) => Self {
                kind: "token_bucket",
                capacity: tokens(bucket.capacity),
                refill_per_second: tokens(bucket.rate),
                window_seconds: bucket.capacity.div_ceil(bucket.rate.max(1)),
            },
            Kind::Window(window) => Self {
                kind: "sliding_window",
                capacity: tokens(window.quota),
                refill_per_second: tokens(window.quota) / tokens(window.length.max(1)),
                window_seconds: window.length.div_ceil(MICRO),
            },
        }
    }
}

impl BucketFacts {
    /// The facts of the bucket of a charge.
    pub fn of(charge: &Charge<'_>, standing: &Standing) -> Self {
        let capacity = charge.limit.kind.most();
        let wait = charge.limit.wait(standing, charge.cost);
        Self {
            key: charge.key.to_string(),
            tokens: tokens(standing.tokens),
            used: charge.limit.taken(standing, charge.cost).div_ceil(MICRO),
            capacity: tokens(capacity),
            factor: f64::from(standing.factor.millionths()) / 1e6,
            fits: wait == Duration::ZERO,
            fits_in_seconds: wait.as_secs_f64(),
        }
    }
}

/// When something ends that lasts so much longer, in Unix time.
pub fn ends_at(left: Duration) -> u64 {
    (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + left).as_secs()
}

/// Micro-tokens as tokens.
#[expect(clippy::cast_precision_loss, reason = "10¹² and less is exact, and a pause's bucket is shown, not computed with")]
pub fn tokens(micro: u64) -> f64 {
    micro as f64 / 1e6
}
