//! All or nothing across several slots of a Cluster, where no call is atomic: slot by slot in a fixed order, and what was
//! taken is given back when a later slot refuses or fails.
//!
//! Promised: a request is admitted only if every limit admitted it and was charged for it, so no limit ever admits more than
//! it could; of requests that compete for the last tokens one is admitted, because all ask in the same order. A refused
//! request costs nothing once what it took has been given back, which is awaited as long as the deadline allows and goes on
//! when the caller is gone. In between, a limit of an earlier slot may refuse somebody else. A charge that is taken only
//! [if another's bucket is new](Terms::TakeIfNew) is asked for after all others, and only if that bucket was full.
//! Not promised: that it is given back. Where the connection is lost or the caller goes away half-way, the limits of earlier
//! slots have lost one request's cost each until they refill: they admit less, never more. Nor is what a refused request is
//! told about limits that could not be asked any more: they are taken to be full. Nor a refund of all that a window
//! admitted, where the clocks of the slots' servers differ: the earliest tells when it was charged.

use std::{sync::PoisonError, time::Duration};

use arrayvec::ArrayVec;
use tokio::{task::JoinHandle, time::timeout_at};

use super::{
    Redis, bounded,
    script::{self, Flow},
};
use crate::{
    config::Factor,
    limiter::{Charge, MAX_CHARGES, Standing, Standings, StoreError, Terms, Verdict, micros, waiting},
};

/// The charges of one decision that are in one slot, or one that depends on another.
struct Part<'a> {
    group: u8,
    charges: ArrayVec<Charge<'a>, MAX_CHARGES>,
    /// Where they stood among all charges.
    places: ArrayVec<usize, MAX_CHARGES>,
    /// When they were charged, or are to go, once they are.
    due: u64,
    /// The place of the charge whose bucket has to be new for this part to be asked for.
    if_new: Option<usize>,
}

type Parts<'a> = Vec<Part<'a>>;

impl Redis {
    /// Charges buckets of several groups, all or none.
    pub(super) async fn reserve_across(&self, charges: &[Charge<'_>], within: Duration) -> Result<Verdict, StoreError> {
        let until = self.common.until();
        let mut standings: Standings = charges.iter().map(|charge| self.full(charge)).collect();
        let (mut taken, mut at) = (Parts::new(), u64::MAX);
        let mut parts = self.parts(charges).into_iter();
        while let Some(mut part) = parts.next() {
            // The other has been charged by now.
            let is_old = |other: usize| {
                let Charge { limit, cost, .. } = charges[other];
                limit.taken(&standings[other], cost) > cost
            };
            if part.if_new.is_some_and(is_old) {
                continue;
            }
            let call = self.charge(part.group, Flow::take(within), &part.charges, until);
            match self.links.call(part.group, &call, |reply| script::verdict(reply, &part.charges)).await {
                Ok(verdict) => {
                    part.note(&verdict, &mut standings);
                    if verdict.admitted {
                        at = at.min(verdict.at);
                        part.due = verdict.at.saturating_add(micros(waiting(&part.charges, &verdict.standings)));
                        taken.push(part);
                        continue;
                    }
                }
                Err(error) => {
                    self.give_back(&taken);
                    return Err(error);
                }
            }
            let giving_back = (!taken.is_empty()).then(|| self.give_back(&taken));
            for part in &taken {
                part.give_costs(&mut standings);
            }
            for part in parts {
                let charges: ArrayVec<_, MAX_CHARGES> =
                    part.charges.iter().map(|charge| Charge { terms: Terms::Need, ..*charge }).collect();
                let call = self.charge(part.group, Flow::Take, &charges, until);
                let look = self.links.call(part.group, &call, |reply| script::verdict(reply, &charges)).await;
                if let Ok(look) = look {
                    part.note(&look, &mut standings);
                }
            }
            if let Some(giving_back) = giving_back {
                let _ = timeout_at(until, giving_back).await;
            }
            return Ok(Verdict { admitted: false, at: 0, standings });
        }
        Ok(Verdict { admitted: true, at, standings })
    }

    /// How buckets of any number of groups stand. Nothing is written.
    pub(in crate::limiter) async fn peek(&self, charges: &[Charge<'_>]) -> Result<Standings, StoreError> {
        bounded(charges)?;
        let until = self.common.until();
        let mut standings: Standings = charges.iter().map(|charge| self.full(charge)).collect();
        let looks: ArrayVec<_, MAX_CHARGES> =
            charges.iter().map(|charge| Charge { terms: Terms::Need, ..*charge }).collect();
        for part in self.parts(&looks) {
            let call = self.charge(part.group, Flow::Take, &part.charges, until);
            part.note(
                &self.links.call(part.group, &call, |reply| script::verdict(reply, &part.charges)).await?,
                &mut standings,
            );
        }
        for (place, charge) in charges.iter().enumerate() {
            if let Terms::TakeIfNew(other) = charge.terms
                && charges[other].limit.taken(&standings[other], charges[other].cost) > 0
            {
                standings[place] = charge.limit.untouched(standings[place].factor);
            }
        }
        Ok(standings)
    }

    /// Gives back to buckets of any number of groups, or has them pay, and says whether all did; the error is that of the
    /// last that failed. A group whose buckets cannot take back a place stops it: what others took back is then held by
    /// nobody, and they have admitted less.
    pub(super) async fn move_across(&self, flow: Flow, charges: &[Charge<'_>]) -> Result<bool, StoreError> {
        let until = self.common.until();
        let mut moved = Ok(true);
        let taken = charges.iter().filter(|charge| charge.terms == Terms::Take).copied();
        for part in self.parts(&taken.collect::<ArrayVec<_, MAX_CHARGES>>()) {
            let call = self.charge(part.group, flow, &part.charges, until);
            match self.links.call(part.group, &call, script::admitted).await {
                Ok(false) => return Ok(false),
                outcome => moved = outcome.and(moved),
            }
        }
        moved
    }

    /// Gives back what was taken, whether or not anyone waits for it. It takes no longer than a decision may, and is refused
    /// where too much is in flight, so such tasks cannot pile up.
    fn give_back(&self, parts: &[Part<'_>]) -> JoinHandle<()> {
        let until = self.common.until();
        let call = |part: &Part<'_>| (part.group, self.charge(part.group, Flow::Give(part.due), &part.charges, until));
        let calls: Vec<_> = parts.iter().filter(|part| part.takes()).map(call).collect();
        let links = self.links.clone();
        self.shutdown.spawn(async move {
            for (group, call) in calls {
                if let Err(error) = links.call(group, &call, |_| Some(())).await {
                    tracing::debug!("a charge could not be given back: {error}");
                }
            }
        })
    }

    /// How a bucket stands of which nothing is known but its factor.
    fn full(&self, charge: &Charge<'_>) -> Standing {
        let factors = self.common.factors.lock().unwrap_or_else(PoisonError::into_inner);
        let factor = charge.limit.scale.as_ref().and_then(|scale| factors.get(scale).copied());
        charge.limit.untouched(factor.unwrap_or(Factor::ONE))
    }

    /// The charges by group, in an order that is the same for every decision, and behind them those that depend on others.
    fn parts<'a>(&self, charges: &[Charge<'a>]) -> Parts<'a> {
        let (mut parts, mut dependent) = (Parts::new(), Parts::new());
        for (place, charge) in charges.iter().enumerate() {
            let group = self.group(charge.key);
            let empty = Part { group, charges: ArrayVec::new(), places: ArrayVec::new(), due: 0, if_new: None };
            if let Terms::TakeIfNew(other) = charge.terms {
                // To the script, a charge that it does not know is new.
                let charge = Charge { terms: Terms::TakeIfNew(MAX_CHARGES), ..*charge };
                let mut part = Part { if_new: Some(other), ..empty };
                part.add(charge, place);
                dependent.push(part);
                continue;
            }
            let known = parts.iter().position(|part| part.group == group).unwrap_or_else(|| {
                parts.push(empty);
                parts.len() - 1
            });
            parts[known].add(*charge, place);
        }
        parts.sort_unstable_by_key(|part| part.group);
        parts.extend(dependent);
        parts
    }
}

// === impl Part ===

impl<'a> Part<'a> {
    fn add(&mut self, charge: Charge<'a>, place: usize) {
        self.charges.push(charge);
        self.places.push(place);
    }

    /// Whether there is anything to give back.
    fn takes(&self) -> bool {
        self.charges.iter().any(|charge| charge.terms != Terms::Need)
    }

    /// Puts its standings where they belong among all.
    fn note(&self, verdict: &Verdict, standings: &mut [Standing]) {
        for (place, standing) in self.places.iter().zip(&verdict.standings) {
            standings[*place] = *standing;
        }
    }

    /// Has its standings be what they are once its costs have been given back.
    fn give_costs(&self, standings: &mut [Standing]) {
        let taken = self.places.iter().zip(&self.charges).filter(|(_, charge)| charge.terms == Terms::Take);
        for (place, charge) in taken {
            standings[*place] = charge.limit.given_back(standings[*place], charge.cost);
        }
    }
}
