//! What one request asks of the limiter, and what a refusal means: the limits of its route, then the guards beside them.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use hyper::{HeaderMap, header::HeaderValue};

use super::{
    bad_request::BadRequest,
    call::Call,
    guard::{Cooldown, Guard},
    limit::RouteLimit,
    limited::Limited,
    named,
    quota::{self, QuotaFields},
    rejection::Rejection,
    route::Route,
    tenant::Tenants,
};
use crate::{
    config::{Factor, ShowClients},
    limiter::{
        Charge, Decision, MAX_CHARGES, Standing, Standings,
        key::{Key, KeyHasher},
        retry_after_seconds,
        scale::ScaleName,
    },
};

/// What one request asks.
pub struct Question<'a> {
    route: &'a Route,
    /// One for each of [`limits`](Self::limits), then one for each of the guards.
    charges: ArrayVec<Charge<'a>, MAX_CHARGES>,
    /// None where the client is exempt.
    limits: &'a [RouteLimit],
    guards: ArrayVec<&'a Guard, 2>,
    cooldown: Option<(&'a Cooldown, Key)>,
}

impl<'a> Question<'a> {
    /// The question of a call on `route`, some of whose limits follow `tenants`. A trusted client bypasses limits, but not
    /// its upstream's wish to be left alone.
    pub fn of(route: &'a Route, tenants: &'a Tenants, call: &Call, hasher: &KeyHasher) -> Result<Self, BadRequest> {
        let limits = if call.exempt { &[][..] } else { &route.limits[..] };
        let mut charges = ArrayVec::new();
        for (place, limit) in limits.iter().enumerate() {
            let charge = call.charge(limit, hasher)?;
            charges.push(Charge { limit: tenants.limit(place).unwrap_or(charge.limit), ..charge });
        }
        let mut guards = ArrayVec::new();
        let newcomers = route.newcomers.as_ref().filter(|_| !call.exempt);
        if let Some((newcomers, charge)) = newcomers.and_then(|guard| Some((guard, guard.charge(&call.client, hasher)?))) {
            charges.push(charge);
            guards.push(&newcomers.guard);
        }
        let cooldown = route.cooldown.as_ref().map(|cooldown| (cooldown, cooldown.key(&call.client, hasher)));
        if let Some((cooldown, key)) = cooldown {
            charges.push(cooldown.charge(key, &call.client, hasher));
            guards.push(&cooldown.guard);
        }
        Ok(Self { route, charges, limits, guards, cooldown })
    }

    /// All that is asked; nothing where nothing limits the request.
    pub fn charges(&self) -> &[Charge<'a>] {
        &self.charges
    }

    /// What an admission took from the limits, and what is given back where the request came to nothing.
    pub fn refundable(&self) -> &[Charge<'a>] {
        &self.charges[..self.limits.len()]
    }

    /// The limits that are asked.
    pub fn limits(&self) -> &'a [RouteLimit] {
        self.limits
    }

    /// What is to be paused where the upstream refuses.
    pub fn cooldown(&self) -> Option<(&'a Cooldown, Key)> {
        self.cooldown
    }

    /// What is left after an admission.
    pub fn fields(&self, standings: &[Standing]) -> Option<QuotaFields> {
        if self.limits.is_empty() {
            return None;
        }
        QuotaFields::admitted(self.limits, &self.charges, self.policy(), standings)
    }

    /// The policy of its limits: the route's, unless operators changed one for a while.
    fn policy(&self) -> Option<HeaderValue> {
        let limits = || self.limits.iter().zip(&self.charges);
        if limits().all(|(limit, charge)| limit.limit.kind == charge.limit.kind) {
            return self.route.policy.clone();
        }
        quota::policy(limits().map(|(limit, charge)| (&*limit.name, charge.limit.kind)))
    }

    /// The factor in force and the quota it leaves, of the limit that signals slow down most; `None` where no limit follows
    /// any.
    pub fn in_force(&self, standings: &[Standing]) -> Option<(Factor, u64)> {
        let scaled = self.refundable().iter().zip(standings).filter(|(charge, _)| charge.limit.scale.is_some());
        let (charge, standing) = scaled.min_by_key(|(_, standing)| standing.factor)?;
        Some((standing.factor, charge.limit.quota(standing.factor)))
    }

    /// Takes note of whose request was decided, for those who ask [who is busy](crate::clients).
    pub fn see(&self, call: &Call, decision: &Decision, show: ShowClients) {
        let refusals = if let Decision::Refused { standings } = decision { Some(standings) } else { None };
        for (place, (limit, charge)) in self.limits.iter().zip(&self.charges).enumerate() {
            let lacks = |standings: &Standings| standings.get(place).is_some_and(|standing| standing.tokens < charge.cost);
            let refused = refusals.is_some_and(lacks);
            let tenant = || charge.limit.scale.as_ref().and_then(ScaleName::tenant).map(|tenant| tenant.0);
            let whose = || (named::shown(limit, call, charge.key, show), tenant());
            limit.seen.count(charge.key.0, refused, call.received, whose);
        }
    }

    /// What each of the [charges](Self::charges) is called.
    pub fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let limits = self.limits.iter().map(|limit| Arc::clone(&limit.name));
        limits.chain(self.guards.iter().map(|guard| Arc::clone(&guard.name)))
    }

    /// The limit or the guard to wait for, and how long; `None` where all admit.
    pub fn longest(&self, standings: &[Standing]) -> Option<(Arc<str>, Duration)> {
        let wait = |(charge, standing): (&Charge<'_>, &Standing)| charge.limit.wait(standing, charge.cost);
        let waits = self.charges.iter().zip(standings).map(wait);
        self.names().zip(waits).filter(|(_, wait)| !wait.is_zero()).max_by_key(|(_, wait)| *wait)
    }

    /// Counts a refusal and says what to wait for: the limit or the guard that takes longest.
    pub fn refused(&self, standings: &[Standing], headers: &HeaderMap) -> Rejection {
        let limits = self.limits.len();
        let waits = waits(&self.charges, standings);
        let refusing = self.guards.iter().zip(&waits[limits..]).filter(|(_, wait)| !wait.is_zero());
        refusing.clone().for_each(|(guard, _)| _ = guard.refused.inc());
        let longest = waits[..limits].iter().max().copied().unwrap_or_default();
        match refusing.max_by_key(|(_, wait)| **wait) {
            Some((guard, wait)) if *wait >= longest => {
                count_refusals(self.limits, standings);
                Limited::new(Arc::clone(&guard.name), retry_after_seconds(*wait), None, headers).into()
            }
            _ => refuse(self.limits, &self.charges, &waits, self.policy(), standings, headers),
        }
    }
}

/// Counts the limits that lack tokens.
fn count_refusals(limits: &[RouteLimit], standings: &[Standing]) {
    for (limit, _) in limits.iter().zip(standings).filter(|(limit, standing)| standing.tokens < limit.cost) {
        limit.refused.inc();
    }
}

/// How long each of `charges` is to be waited for.
pub fn waits(charges: &[Charge<'_>], standings: &[Standing]) -> ArrayVec<Duration, MAX_CHARGES> {
    charges.iter().zip(standings).map(|(charge, standing)| charge.limit.wait(standing, charge.cost)).collect()
}

/// The refusal of a request with `headers` by the limits that lack tokens for their `charges`, and are to be waited for as long
/// as `waits` say; they are counted.
pub fn refuse(
    limits: &[RouteLimit],
    charges: &[Charge<'_>],
    waits: &[Duration],
    policy: Option<HeaderValue>,
    standings: &[Standing],
    headers: &HeaderMap,
) -> Rejection {
    count_refusals(limits, standings);
    match QuotaFields::refused(limits, charges, waits, policy, standings) {
        Some((tightest, fields)) => {
            Limited::new(Arc::clone(&limits[tightest].name), fields.reset, Some(fields), headers).into()
        }
        None => Rejection::NoRoute,
    }
}
