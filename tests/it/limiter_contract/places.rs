//! Places: the script grants and forgets as its specification does, whatever is asked and whatever the clock does.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use cxgate::limiter::redis::places::Name;
use proptest::prelude::*;

use super::*;

/// In the traces; nothing in Redis itself may run out while they run.
const LIFETIME: Duration = Duration::from_secs(30);

/// What `lua/places.lua` does: when the lease of each place ends, in milliseconds.
#[derive(Default)]
struct Leases(HashMap<Key, BTreeMap<Name, u64>>);

/// What to do with some places of some clients: how many each may hold; 0 gives them up.
type Step = (Vec<(u8, u8)>, u32);

impl Leases {
    fn speak_for(&mut self, places: &[(Key, Name)], most: u32, now: u64) -> usize {
        let end = now + u64::try_from(LIFETIME.as_millis()).unwrap();
        let mut held = 0;
        for (client, place) in places {
            let leases = self.0.entry(*client).or_default();
            if most == 0 {
                leases.remove(place);
                continue;
            }
            leases.retain(|_, till| (now + 1..=end).contains(till));
            if leases.contains_key(place) || leases.len() < most as usize {
                leases.insert(*place, end);
                held += 1;
            }
        }
        held
    }
}

/// Three clients with six places each; the clock's step before each, in milliseconds.
fn any_trace() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let places = prop::collection::vec((0..3_u8, 0..6_u8), 1..4);
    let most = prop_oneof![6 => 1..5_u32, 2 => Just(0), 2 => Just(u32::MAX)];
    let pause = prop_oneof![4 => 0..100_i64, 4 => 0..20_000_i64, 2 => Just(30_000), 1 => -40_000..0_i64];
    prop::collection::vec((pause, (places, most)), 1..40)
}

#[test]
fn places_are_granted_and_forgotten_as_specified() {
    in_random_cases(ProptestConfig::default(), &any_trace(), &async |redis, trace| {
        let (mut specification, mut now) = (Leases::default(), BEGIN / 1000);
        for (pause, (places, most)) in &trace {
            now = now.saturating_add_signed(*pause);
            let named = |(holder, place): &(u8, u8)| (client(&holder.to_string()), Name(u128::from(*place)));
            let places: Vec<_> = places.iter().map(named).collect();
            let command = redis.keys.places(redis.digest(Script::Places), &places, *most, LIFETIME);
            let held = redis.call(command, now * 1000).await;
            let expected = i64::try_from(specification.speak_for(&places, *most, now)).unwrap();
            prop_assert_eq!(held, redis::Value::Int(expected));
        }
        for (holder, leases) in specification.0.iter().filter(|(_, leases)| !leases.is_empty()) {
            let name = format!("test:1:places:{holder}");
            let mut held: Vec<(Vec<u8>, u64)> = redis::cmd("ZRANGE")
                .arg(&name)
                .arg("0 -1 WITHSCORES".split(' ').collect::<Vec<_>>())
                .query_async(&mut redis.connection)
                .await
                .unwrap();
            held.sort_unstable();
            let expected: Vec<_> = leases.iter().map(|(place, till)| (place.0.to_be_bytes().to_vec(), *till)).collect();
            prop_assert_eq!(held, expected);
            let left: i64 = redis::cmd("PTTL").arg(name).query_async(&mut redis.connection).await.unwrap();
            prop_assert!((1..=30_000).contains(&left), "{left} ms");
        }
        Ok(())
    });
}
