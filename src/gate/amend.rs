//! Other parameters of a limit for a while: what operators may ask for, and what there is.
//!
//! Promised: what can be asked for is what a configuration could say of the same limit. Routes that share a limit share its
//! change. A change outlives reloads, and its limit: where that is gone, or has become of another kind, it waits for it to
//! come back, until it ends.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    Gate,
    desk::{Unknown, Which, ends_at, tokens},
    limit::RouteLimit,
    route::Route,
};
use crate::{
    config::Rate,
    limiter::{
        Kind,
        amendments::{AmendError, Amendment},
        bucket::MICRO,
        parameters::Parameters,
    },
};

/// The largest capacity and quota, in tokens.
const TOKENS_MAX: u32 = 1_000_000;

/// How much there is to be of a limit. Of a bucket, what is left out stays as configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Tokens that a bucket holds.
    pub capacity: Option<u32>,
    /// Tokens that a bucket gains in a second.
    pub refill_per_second: Option<f64>,
    /// Tokens that may be taken in one window.
    pub quota: Option<u32>,
}

/// How much there is of a limit, in tokens: capacity and refill of a bucket, or the quota of a window.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Amounts {
    capacity: Option<f64>,
    refill_per_second: Option<f64>,
    quota: Option<f64>,
}

/// A limit that has other parameters for a while.
#[derive(Debug, Clone, Serialize)]
pub struct AmendedLimit {
    /// The route by which it was named.
    pub route: String,
    /// Its name there.
    pub limit: String,
    /// How much there is of it.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// How much there is of it otherwise; absent where no route has it.
    pub configured: Option<Amounts>,
    /// The routes that are held to it; none where it is gone, or of another kind.
    pub routes: Vec<Arc<str>>,
    /// When that ends, in Unix time.
    pub ends_at: u64,
    /// In how many seconds.
    pub seconds_left: u64,
}

/// Why a limit is not changed.
#[derive(Debug)]
pub enum Unamended {
    /// It is not known which is meant.
    Unknown(Unknown),
    /// What is asked for cannot be said of the limit, for this reason.
    Unfit(String),
    /// It has no other parameters than are configured.
    Unchanged,
    /// The change cannot be kept.
    Record(AmendError),
}

// === impl Gate ===

impl Gate {
    /// The limits that operators changed for a while.
    pub fn amended(&self) -> Vec<AmendedLimit> {
        let amendments = self.0.desk.limiter.amendments();
        let told = |(amendment, left): (&Amendment, Duration)| self.told(amendment, left);
        let mut told: Vec<_> = amendments.holding(Instant::now()).filter_map(told).collect();
        told.sort_by(|one, other| (&one.route, &one.limit).cmp(&(&other.route, &other.limit)));
        told
    }

    /// Changes a limit for `lifetime`, for all replicas; answers what it had for a while before, and what it has now.
    pub async fn amend(
        &self,
        which: Which<'_>,
        wanted: Wanted,
        lifetime: Duration,
    ) -> Result<(Option<AmendedLimit>, Option<AmendedLimit>), Unamended> {
        let found = self.only(which).map_err(Unamended::Unknown)?;
        let id = &found.limit().id;
        let parameters = wanted.of(found.limit().limit.kind).map_err(Unamended::Unfit)?;
        let sharing = self.sharing(id);
        if let Some((route, limit)) = sharing.iter().find(|(_, limit)| limit.limit.with(parameters, limit.cost).is_none()) {
            let cost = tokens(limit.cost);
            return Err(Unamended::Unfit(format!("a request of the route {} takes {cost} tokens of it", route.name)));
        }
        let (route, limit) = (found.route.name.to_string(), found.limit().name.to_string());
        let amendment = Amendment::Limit { id: id.clone(), route, limit, parameters };
        let old = self.amended_by_id(id);
        self.0.desk.limiter.amend(&amendment, lifetime).await.map_err(Unamended::Record)?;
        Ok((old, self.amended_by_id(id)))
    }

    /// Has a limit be again what is configured, for all replicas; answers what it had for a while. A limit that is gone is
    /// known by the names by which it was changed.
    pub async fn restore(&self, route: &str, limit: &str) -> Result<AmendedLimit, Unamended> {
        let found = self.only(Which { route: Some(route), limit: Some(limit) });
        let found = found.as_ref().map(|found| found.limit().id.as_str());
        let is_meant = |amendment: &Amendment| match (amendment, found) {
            (Amendment::Limit { id, .. }, Ok(found)) => id == found,
            (Amendment::Limit { route: of, limit: name, .. }, Err(_)) => (&**of, &**name) == (route, limit),
            _ => false,
        };
        let Some((amendment, left)) = self.holding(is_meant) else {
            return Err(found.map_or_else(|unknown| Unamended::Unknown(unknown.clone()), |_| Unamended::Unchanged));
        };
        let old = self.told(&amendment, left).ok_or(Unamended::Unchanged)?;
        self.0.desk.limiter.withdraw(&amendment).await.map_err(Unamended::Record)?;
        Ok(old)
    }

    fn amended_by_id(&self, wanted: &str) -> Option<AmendedLimit> {
        let (amendment, left) =
            self.holding(|amendment| matches!(amendment, Amendment::Limit { id, .. } if id == wanted))?;
        self.told(&amendment, left)
    }

    /// The first change of this kind that holds, and for how much longer.
    fn holding(&self, is_meant: impl Fn(&Amendment) -> bool) -> Option<(Amendment, Duration)> {
        let amendments = self.0.desk.limiter.amendments();
        let (amendment, left) = amendments.holding(Instant::now()).find(|(amendment, _)| is_meant(amendment))?;
        Some((amendment.clone(), left))
    }

    fn told(&self, amendment: &Amendment, left: Duration) -> Option<AmendedLimit> {
        let Amendment::Limit { id, route, limit, parameters } = amendment else { return None };
        let sharing = self.sharing(id);
        let held = sharing.iter().filter(|(_, limit)| limit.limit.with(*parameters, limit.cost).is_some());
        Some(AmendedLimit {
            route: route.clone(),
            limit: limit.clone(),
            amounts: (*parameters).into(),
            configured: sharing.first().map(|(_, limit)| Parameters::of(limit.limit.kind).into()),
            routes: held.map(|(route, _)| Arc::clone(&route.name)).collect(),
            ends_at: ends_at(left),
            seconds_left: left.as_secs(),
        })
    }

    /// Every route with a limit whose buckets have this in their keys.
    fn sharing(&self, id: &str) -> Vec<(&Route, &RouteLimit)> {
        let routes = self.0.routes.routes().iter();
        let limits = routes.flat_map(|route| route.limits.iter().map(move |limit| (&**route, limit)));
        limits.filter(|(_, limit)| limit.id == id).collect()
    }
}

// === impl Wanted ===

impl Wanted {
    /// What it comes to for a limit that is configured so; or what is wrong with it.
    fn of(self, configured: Kind) -> Result<Parameters, String> {
        let micro = |name: &str, tokens: u32| {
            let fits = (1..=TOKENS_MAX).contains(&tokens);
            if fits {
                Ok(u64::from(tokens) * MICRO)
            } else {
                Err(format!("{name}: expected a whole number from 1 to {TOKENS_MAX}"))
            }
        };
        match (configured, self) {
            (Kind::Bucket(bucket), Self { capacity, refill_per_second, quota: None })
                if capacity.is_some() || refill_per_second.is_some() =>
            {
                let capacity = capacity.map_or(Ok(bucket.capacity), |capacity| micro("capacity", capacity))?;
                let expected = || format!("refill_per_second: expected a number from 0.000001 to {TOKENS_MAX}");
                let rate = |rate: f64| Rate::per_second(rate).map(Rate::micro_tokens_per_second).ok_or_else(expected);
                Ok(Parameters::TokenBucket { capacity, rate: refill_per_second.map_or(Ok(bucket.rate), rate)? })
            }
            (Kind::Bucket(_), _) => Err("a token bucket: expected capacity, refill_per_second, or both".to_owned()),
            (Kind::Window(_), Self { capacity: None, refill_per_second: None, quota: Some(quota) }) => {
                Ok(Parameters::SlidingWindow { quota: micro("quota", quota)? })
            }
            (Kind::Window(_), _) => Err("a sliding window: expected quota alone; its length stays what it is".to_owned()),
        }
    }
}

// === impl Amounts ===

impl From<Parameters> for Amounts {
    fn from(parameters: Parameters) -> Self {
        let (capacity, refill_per_second, quota) = match parameters {
            Parameters::TokenBucket { capacity, rate } => (Some(capacity), Some(rate), None),
            Parameters::SlidingWindow { quota } => (None, None, Some(quota)),
        };
        Self { capacity: capacity.map(tokens), refill_per_second: refill_per_second.map(tokens), quota: quota.map(tokens) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::{bucket::Bucket, window::Window};

    #[test]
    fn what_is_wanted_is_what_a_configuration_could_say_of_the_limit() {
        let bucket = Kind::from(Bucket { capacity: 10 * MICRO, rate: 2 * MICRO });
        let window = Kind::from(Window { quota: 10 * MICRO, length: 60 * MICRO });
        let none = Wanted::default();
        let half = |capacity, rate| Some(Parameters::TokenBucket { capacity: capacity * MICRO, rate });
        let table = [
            (bucket, Wanted { capacity: Some(5), ..none }, half(5, 2 * MICRO)),
            (bucket, Wanted { refill_per_second: Some(0.5), ..none }, half(10, MICRO / 2)),
            (bucket, Wanted { capacity: Some(1), refill_per_second: Some(3.0), quota: None }, half(1, 3 * MICRO)),
            (bucket, Wanted { capacity: Some(0), ..none }, None),
            (bucket, Wanted { capacity: Some(1_000_001), ..none }, None),
            (bucket, Wanted { refill_per_second: Some(0.0), ..none }, None),
            (bucket, Wanted { quota: Some(5), ..none }, None),
            (bucket, none, None),
            (window, Wanted { quota: Some(5), ..none }, Some(Parameters::SlidingWindow { quota: 5 * MICRO })),
            (window, Wanted { quota: Some(0), ..none }, None),
            (window, Wanted { quota: Some(5), capacity: Some(5), ..none }, None),
            (window, none, None),
        ];
        for (configured, wanted, expected) in table {
            assert_eq!(wanted.of(configured).ok(), expected, "{wanted:?}");
        }
    }
}
