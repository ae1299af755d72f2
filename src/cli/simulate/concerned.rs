//! Which requests a looser limit can concern.
//!
//! Requests are entangled where they ask the same bucket, or wait on the same route. Where all that are entangled are
//! admitted, they are whatever limit gets looser: each bucket is charged as it was. So these need not be tried again. The
//! others are, and so are requests that tell of a change of the load factor. Where new identities count, which are those whose
//! bucket is not held, it matters how many are held altogether: there, all are tried.

use std::collections::HashMap;

use super::{
    course::Factors,
    traffic::{Arrival, Traffic, Way},
};
use crate::limiter::{Terms, key::Key};

/// Sets of numbers: each number leads to one of its set, and one of them to itself.
#[derive(Default)]
struct Sets(Vec<u32>);

/// The arrivals that a looser limit can concern. `passed` tells of each whether it is admitted as things are.
pub(super) fn concerned(traffic: &Traffic, passed: &[bool]) -> Vec<Arrival> {
    let counts_buckets = |way: &Way| way.slots.iter().any(|slot| matches!(slot.terms, Terms::TakeIfNew(_)));
    if traffic.routes.iter().any(counts_buckets) {
        return traffic.arrivals.clone();
    }
    let (mut sets, members) = entangled(traffic);
    let mut refuses = vec![false; sets.0.len()];
    for (member, _) in members.iter().zip(passed).filter(|(_, passed)| !**passed) {
        refuses[sets.find(*member) as usize] = true;
    }
    let mut factors = Factors::default();
    let mut is_concerned = |arrival: &Arrival, member: u32| {
        let scales = traffic.routes[usize::from(arrival.route)].slots.iter().filter_map(|slot| slot.limit.scale.as_ref());
        let changed = scales.filter(|scale| factors.change(scale, arrival.factor)).count();
        changed > 0 || refuses[sets.find(member) as usize]
    };
    let arrivals = traffic.arrivals.iter().zip(members);
    arrivals.filter_map(|(arrival, member)| is_concerned(arrival, member).then_some(*arrival)).collect()
}

/// Buckets and routes that wait, in sets of those that are entangled; and of each arrival, one of its set.
fn entangled(traffic: &Traffic) -> (Sets, Vec<u32>) {
    let (mut sets, mut buckets) = (Sets::default(), HashMap::<Key, u32>::new());
    let queues: Vec<u32> = traffic.routes.iter().map(|_| sets.add()).collect();
    // Who asks nothing is refused by nobody.
    let none = sets.add();
    let member = |arrival: &Arrival| {
        let route = usize::from(arrival.route);
        let queue = traffic.routes[route].when_limited.map(|_| queues[route]);
        let keys = traffic.keys(arrival).iter();
        let asked = keys.map(|key| *buckets.entry(*key).or_insert_with(|| sets.add())).chain(queue);
        let asked: arrayvec::ArrayVec<u32, { crate::limiter::MAX_CHARGES + 1 }> = asked.collect();
        asked.into_iter().reduce(|one, other| sets.join(one, other)).unwrap_or(none)
    };
    let members = traffic.arrivals.iter().map(member).collect();
    (sets, members)
}

// === impl Sets ===

impl Sets {
    /// A set of one new number.
    fn add(&mut self) -> u32 {
        // Keys of arrivals are numbered by as many bits, and each is added once at most.
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(number);
        number
    }

    /// The number that stands for the set of another.
    fn find(&mut self, mut number: u32) -> u32 {
        while self.0[number as usize] != number {
            let next = self.0[number as usize];
            self.0[number as usize] = self.0[next as usize];
            number = next;
        }
        number
    }

    /// Makes two sets one.
    fn join(&mut self, one: u32, other: u32) -> u32 {
        let (one, other) = (self.find(one), self.find(other));
        self.0[other as usize] = one;
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_to_the_same_is_of_one_set() {
        let mut sets = Sets::default();
        let numbers: Vec<u32> = (0..6).map(|_| sets.add()).collect();
        sets.join(numbers[0], numbers[1]);
        sets.join(numbers[2], numbers[3]);
        sets.join(numbers[3], numbers[1]);
        let found: Vec<u32> = numbers.iter().map(|number| sets.find(*number)).collect();
        assert!(found[..4].iter().all(|set| *set == found[0]), "{found:?}");
        assert!(found[4] != found[0] && found[5] != found[4], "{found:?}");
    }
}
