//! The course that traffic takes: every request decided in the order of time, by the embedded store at that time.
//!
//! Promised: the same arithmetic, the same choice of the limit that a refusal names, and the same choice between a wait and a
//! refusal, as in a daemon on the embedded store. Clients do as they did, whatever is refused to them here.
//! Not promised: turns. Whoever waits goes when the place is due that was reserved for it, whoever else waits.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use prometheus_client::metrics::gauge::Gauge;

use super::traffic::{Arrival, Traffic};
use crate::{
    config::{Factor, WhenLimited},
    gate::replay::Slot,
    limiter::{Charge, Kind, Verdict, memory::Memory, scale::ScaleName, waiting},
};

/// What one request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It passes, at once or after a wait.
    Admitted {
        /// How long it waits.
        wait: Duration,
    },
    /// The limit at this place of its route refuses it.
    Refused(usize),
    /// There is no room for another bucket.
    Unavailable,
}

/// The factors in force, by scale; 1 where there is none.
#[derive(Default)]
pub(super) struct Factors(Vec<(ScaleName, Factor)>);

/// Those of a route that wait.
struct Queue {
    /// The longest wait, in microseconds; 0 where nobody waits.
    longest: u64,
    room: usize,
    /// When each goes.
    due: BinaryHeap<Reverse<u64>>,
}

/// Decides about `arrivals` of the traffic, and hands each outcome to `note` until that says no. `instead` names limits that
/// are of another kind than they are.
pub(super) fn run<'a>(
    traffic: &Traffic,
    arrivals: impl IntoIterator<Item = &'a Arrival>,
    max_buckets: usize,
    instead: Option<(&str, Kind)>,
    mut note: impl FnMut(&Arrival, Outcome) -> bool,
) {
    let memory = Memory::new(max_buckets, Gauge::default());
    let routes: Vec<Vec<Slot>> = traffic.routes.iter().map(|way| changed(&way.slots, instead)).collect();
    let mut queues: Vec<Queue> = traffic.routes.iter().map(|way| Queue::new(way.when_limited)).collect();
    let mut factors = Factors::default();
    for arrival in arrivals {
        let slots = &routes[usize::from(arrival.route)];
        for scale in slots.iter().filter_map(|slot| slot.limit.scale.as_ref()) {
            if factors.change(scale, arrival.factor) {
                memory.publish_at(scale, arrival.factor, arrival.at);
            }
        }
        let charges: arrayvec::ArrayVec<Charge<'_>, { crate::limiter::MAX_CHARGES }> =
            slots.iter().zip(traffic.keys(arrival)).map(|(slot, key)| slot.charge(*key)).collect();
        let queue = &mut queues[usize::from(arrival.route)];
        let outcome = match memory.reserve_at(&charges, queue.within(arrival.at), arrival.at) {
            Ok(verdict) if verdict.admitted => {
                let wait = waiting(&charges, &verdict.standings);
                queue.join(arrival.at, wait);
                Outcome::Admitted { wait }
            }
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

// === impl Factors ===

impl Factors {
    /// Puts a factor in force, and says whether it was another before.
    pub(super) fn change(&mut self, scale: &ScaleName, factor: Factor) -> bool {
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| known == scale) {
            return std::mem::replace(known, factor) != factor;
        }
        self.0.push((scale.clone(), factor));
        factor != Factor::ONE
    }
}

// === impl Queue ===

impl Queue {
    fn new(when_limited: Option<WhenLimited>) -> Self {
        let longest = when_limited.map_or(0, |policy| u64::try_from(policy.wait.as_micros()).unwrap_or(u64::MAX));
        let room = when_limited.map_or(0, |policy| usize::try_from(policy.queue).unwrap_or(usize::MAX));
        Self { longest, room, due: BinaryHeap::new() }
    }

    /// How long a request may wait that comes at `at`, in microseconds.
    fn within(&mut self, at: u64) -> u64 {
        while self.due.peek().is_some_and(|Reverse(due)| *due <= at) {
            self.due.pop();
        }
        if self.due.len() < self.room { self.longest } else { 0 }
    }

    /// Someone waits who came at `at`.
    fn join(&mut self, at: u64, wait: Duration) {
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        if wait > 0 {
            self.due.push(Reverse(at.saturating_add(wait)));
        }
    }
}
