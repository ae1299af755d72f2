//! The course that traffic takes: every request decided in the order of time, by the embedded store at that time.
//!
//! Promised: the same arithmetic, and the same choice of the limit that a refusal names, as in a daemon on the embedded
//! store. Clients do as they did, whatever is refused to them here.

use std::collections::HashMap;

use prometheus_client::metrics::gauge::Gauge;

use super::traffic::{Arrival, Traffic};
use crate::{
    config::Factor,
    gate::replay::Slot,
    limiter::{Charge, Kind, Verdict, memory::Memory, scale::ScaleName},
};

/// What one request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It passes.
    Admitted,
    /// The limit at this place of its route refuses it.
    Refused(usize),
    /// There is no room for another bucket.
    Unavailable,
}

/// Decides about all of the traffic, and hands each outcome to `note` until that says no. `instead` names limits that are
/// of another kind than they are.
pub(super) fn run(
    traffic: &Traffic,
    max_buckets: usize,
    instead: Option<(&str, Kind)>,
    mut note: impl FnMut(&Arrival, Outcome) -> bool,
) {
    let memory = Memory::new(max_buckets, Gauge::default());
    let routes: Vec<Vec<Slot>> = traffic.routes.iter().map(|way| changed(&way.slots, instead)).collect();
    let mut factors: HashMap<ScaleName, Factor> = HashMap::new();
    for arrival in &traffic.arrivals {
        let slots = &routes[usize::from(arrival.route)];
        for scale in slots.iter().filter_map(|slot| slot.limit.scale.as_ref()) {
            if factors.get(scale).copied().unwrap_or(Factor::ONE) != arrival.factor {
                memory.publish_at(scale, arrival.factor, arrival.at);
                factors.insert(scale.clone(), arrival.factor);
            }
        }
        let charges: arrayvec::ArrayVec<Charge<'_>, { crate::limiter::MAX_CHARGES }> =
            slots.iter().zip(traffic.keys(arrival)).map(|(slot, key)| slot.charge(*key)).collect();
        let outcome = match memory.decide_at(&charges, arrival.at) {
            Ok(verdict) if verdict.admitted => Outcome::Admitted,
            Ok(verdict) => refusal(&charges, &verdict),
            Err(_) => Outcome::Unavailable,
        };
        if !note(arrival, outcome) {
            return;
        }
    }
}

/// The limit to wait for longest; of several, the last.
fn refusal(charges: &[Charge<'_>], verdict: &Verdict) -> Outcome {
    let waits = charges.iter().zip(&verdict.standings).map(|(charge, standing)| charge.limit.wait(standing, charge.cost));
    waits.enumerate().max_by_key(|(_, wait)| *wait).map_or(Outcome::Unavailable, |(place, _)| Outcome::Refused(place))
}

fn changed(slots: &[Slot], instead: Option<(&str, Kind)>) -> Vec<Slot> {
    let mut slots = slots.to_vec();
    for slot in &mut slots {
        if let Some((_, kind)) = instead.filter(|(id, _)| *id == slot.id) {
            slot.limit.kind = kind;
        }
    }
    slots
}
