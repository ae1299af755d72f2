//! What operators ask about limits and buckets. Whoever reads changes nothing, here or in the store.
//!
//! Promised: a bucket is found by the names of its route and limit and by the values the limit counts by, and is the one that
//! requests with these values are charged to. What is told of how buckets stand is true at one moment, by the store's clock.
//! Not promised: the names of buckets that this replica has not seen: the store holds their hashes alone.

use std::{fmt, sync::Arc};

use arrayvec::ArrayVec;
use tokio::time::Instant;

mod facts;

use super::{
    Gate,
    limit::RouteLimit,
    named::{Named, dimensions},
    route::Route,
};
use crate::{
    clients::{Clients, Seen},
    limiter::{
        Charge, Limit, MAX_CHARGES, Terms,
        amendments::AmendError,
        key::Key,
        peek::{Outlook, Teller},
    },
};

pub use facts::{Amended, BucketFacts, LimitFacts, Quota, RouteFacts, State, Usage, Used, ends_at, tokens};

/// Why a question has no answer.
#[derive(Debug, Clone)]
pub enum Unknown {
    /// No route, or no limit of it, is called so; these there are.
    Limit(Vec<String>),
    /// Several are meant; these.
    Ambiguous(Vec<String>),
    /// The limit counts by these, and the values do not fit.
    Values(Vec<String>),
    /// The store cannot be asked.
    Store,
}

/// Which limits are meant: those of this route, of this name, or any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Which<'a> {
    /// The route's name.
    pub route: Option<&'a str>,
    /// The limit's name.
    pub limit: Option<&'a str>,
}

/// A limit that was found.
pub(super) struct Found {
    pub(super) route: Arc<Route>,
    place: usize,
}

// === impl Gate ===

impl Gate {
    /// All routes, in the order of the file.
    pub fn route_facts(&self) -> Vec<RouteFacts> {
        let (amendments, now) = (self.0.desk.limiter.amendments(), Instant::now());
        let facts = |route: &Arc<Route>| RouteFacts {
            route: Arc::clone(&route.name),
            mode: route.mode,
            limits: route.limits.iter().map(|limit| LimitFacts::of(limit, &amendments, now)).collect(),
        };
        self.0.routes.routes().iter().map(facts).collect()
    }

    /// How the bucket stands whose limit counts by these values; a client was named by a source of this `kind`.
    pub async fn state(&self, which: Which<'_>, values: &[String], kind: &str) -> Result<State, Unknown> {
        let found = self.only(which)?;
        let (key, limit) = self.bucket(&found, values, kind)?;
        self.state_of(&found, &limit, key).await
    }

    /// The same of the first limit that counts by two things beside the route, which is how Data Actions are limited.
    pub async fn action(&self, which: Which<'_>, tenant: &str, action: &str) -> Result<State, Unknown> {
        let by_two = |limit: &RouteLimit| dimensions(limit).count() == 2;
        let found = self.all(which, by_two).into_iter().next();
        let found = found.ok_or_else(|| Unknown::Limit(names(&self.all(Which::default(), by_two))))?;
        let (key, limit) = self.bucket(&found, &[tenant.to_owned(), action.to_owned()], "name")?;
        self.state_of(&found, &limit, key).await
    }

    /// Fills a bucket for all replicas; answers how it stood before.
    pub async fn reset(&self, which: Which<'_>, values: &[String], kind: &str) -> Result<State, Unknown> {
        let found = self.only(which)?;
        let (key, limit) = self.bucket(&found, values, kind)?;
        let before = self.state_of(&found, &limit, key).await?;
        self.0.desk.limiter.reset(key).await.map_err(|_: AmendError| Unknown::Store)?;
        Ok(before)
    }

    /// A page of at most `count` of the buckets that `clients` have seen lately, behind the one called `cursor`.
    pub async fn usage(
        &self,
        which: Which<'_>,
        clients: &Clients,
        cursor: Option<Key>,
        count: usize,
    ) -> Result<Usage, Unknown> {
        let found = self.only(which)?;
        let limit = found.limit();
        let mut seen = clients.of(&found.route.name, &limit.name);
        seen.retain(|seen| cursor.is_none_or(|cursor| seen.id > cursor.0));
        let rest = seen.split_off(seen.len().min(count));
        let cursor = seen.last().filter(|_| !rest.is_empty()).map(|last| Key(last.id).to_string());
        let buckets = self.used(&found, &seen).await?;
        Ok(Usage { route: Arc::clone(&found.route.name), limit: Arc::clone(&limit.name), buckets, cursor })
    }

    /// How the at most `count` buckets of a limit stand that `clients` have seen most of lately, the busiest first.
    pub async fn busiest(&self, which: Which<'_>, clients: &Clients, count: usize) -> Result<Vec<Used>, Unknown> {
        let found = self.only(which)?;
        let mut seen = clients.of(&found.route.name, &found.limit().name);
        seen.sort_by(|one, other| other.per_second.total_cmp(&one.per_second));
        seen.truncate(count);
        self.used(&found, &seen).await
    }

    async fn used(&self, found: &Found, seen: &[Seen]) -> Result<Vec<Used>, Unknown> {
        let limit = found.limit();
        let mut buckets = Vec::new();
        for page in seen.chunks(MAX_CHARGES) {
            let limits: Vec<Limit> = page.iter().map(|seen| self.in_force(limit, seen.tenant.map(Key))).collect();
            let charge =
                |(seen, of): (&Seen, _)| Charge { limit: of, key: Key(seen.id), cost: limit.cost, terms: Terms::Take };
            let charges: ArrayVec<Charge<'_>, MAX_CHARGES> = page.iter().zip(&limits).map(charge).collect();
            let (standings, _) = told(self.0.desk.limiter.peek(&charges).await)?;
            for ((seen, charge), standing) in page.iter().zip(&charges).zip(&standings) {
                let bucket = BucketFacts::of(charge, standing);
                if charge.limit.taken(standing, limit.cost) > 0 {
                    let (name, per_second, refused_per_second) =
                        (Arc::clone(&seen.name), seen.per_second, seen.refused_per_second);
                    buckets.push(Used { name, per_second, refused_per_second, bucket });
                }
            }
        }
        Ok(buckets)
    }

    async fn state_of(&self, found: &Found, limit: &Limit, key: Key) -> Result<State, Unknown> {
        let charge = Charge { limit, key, cost: found.limit().cost, terms: Terms::Take };
        let (standings, by) = told(self.0.desk.limiter.peek(&[charge]).await)?;
        let bucket = standings.first().map(|standing| BucketFacts::of(&charge, standing)).ok_or(Unknown::Store)?;
        let limit = LimitFacts::of(found.limit(), &self.0.desk.limiter.amendments(), Instant::now());
        Ok(State { route: Arc::clone(&found.route.name), limit, by: by.as_str(), bucket })
    }

    /// The bucket that is called so, and the limit as it is for it.
    fn bucket(&self, found: &Found, values: &[String], kind: &str) -> Result<(Key, Limit), Unknown> {
        let (route, limit) = (&*found.route, found.limit());
        let ipv6_prefix = self.0.identification.ipv6_prefix();
        let named = Named { values, kind, ipv6_prefix, hasher: &self.0.desk.hasher };
        let key = named.key(route, limit);
        let key = key.ok_or_else(|| Unknown::Values(dimensions(limit).map(ToString::to_string).collect()))?;
        let tenant = limit.follows.as_ref().and_then(|follows| named.tenant(route, limit, follows));
        Ok((key, self.in_force(limit, tenant)))
    }

    /// The limit as it is now, and for a tenant, where it follows a signal that is measured for each.
    fn in_force(&self, limit: &RouteLimit, tenant: Option<Key>) -> Limit {
        let scale = limit.follows.as_ref().zip(tenant).map(|(follows, tenant)| follows.signal.scale(tenant));
        let amended = limit.amended(&self.0.desk.limiter.amendments(), Instant::now());
        let limit = amended.map_or_else(|| limit.limit.clone(), |(limit, _)| limit);
        Limit { scale: scale.or_else(|| limit.scale.clone()), ..limit }
    }

    pub(super) fn only(&self, which: Which<'_>) -> Result<Found, Unknown> {
        let mut found = self.all(which, |_| true);
        match found.len() {
            0 => Err(Unknown::Limit(names(&self.all(Which::default(), |_| true)))),
            1 => found.pop().ok_or(Unknown::Store),
            _ => Err(Unknown::Ambiguous(names(&found))),
        }
    }

    pub(super) fn all(&self, which: Which<'_>, fits: impl Fn(&RouteLimit) -> bool) -> Vec<Found> {
        let routes = self.0.routes.routes().iter().filter(|route| which.route.is_none_or(|wanted| *wanted == *route.name));
        let limits = routes.flat_map(|route| {
            let limits = route.limits.iter().enumerate();
            let limits = limits.filter(|(_, limit)| which.limit.is_none_or(|wanted| *wanted == *limit.name) && fits(limit));
            limits.map(|(place, _)| Found { route: Arc::clone(route), place }).collect::<Vec<_>>()
        });
        limits.collect()
    }
}

// === impl Found ===

impl Found {
    pub(super) fn limit(&self) -> &RouteLimit {
        &self.route.limits[self.place]
    }
}

fn names(found: &[Found]) -> Vec<String> {
    found.iter().map(|found| format!("route={}&limit={}", found.route.name, found.limit().name)).collect()
}

fn told(outlook: Outlook) -> Result<(crate::limiter::Standings, Teller), Unknown> {
    match outlook {
        Outlook::Standings { standings, by } => Ok((standings, by)),
        Outlook::Unlimited | Outlook::Unavailable => Err(Unknown::Store),
    }
}

// === impl Unknown ===

impl Unknown {
    /// What may be asked instead.
    pub fn choices(&self) -> &[String] {
        match self {
            Self::Limit(choices) | Self::Ambiguous(choices) | Self::Values(choices) => choices,
            Self::Store => &[],
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Limit(_) => "no such limit; choose one by route and limit",
            Self::Ambiguous(_) => "more than one limit is meant; choose one by route and limit",
            Self::Values(_) => "the limit needs one proper value for each of what it counts by, in this order",
            Self::Store => "the store cannot be asked now",
        })
    }
}
