//! Who asks most, and who is refused most: for each limit a bounded sketch of its busiest buckets, as this replica sees them.
//!
//! The sketch is Space-Saving (Metwally, Agrawal, El Abbadi 2005) in sets: a bucket's key chooses one of [`SETS`] sets of
//! [`WAYS`] places, and in a full set a newcomer takes the place, and with it the weight, of the lightest. Weights halve in
//! [`HALF_LIFE`], so that what is told is the recent past.
//!
//! Promised: memory is bounded, by [`PLACES`] for each limit; an event costs one short lock of one set out of many, the look
//! at eight keys, and an allocation only where a bucket gets a place; an event that meets another in the same set is left out
//! rather than waited for. A bucket with more than an eighth of the events of its set has a place, and what is told of it is
//! too high by at most [`Seen::error_per_second`].
//! Not promised: all buckets, exact counts, or what other replicas see.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Sets of one limit.
const SETS: usize = 64;

/// Places of one set: what is looked at for one event.
const WAYS: usize = 8;

/// The most buckets that are told apart for one limit; each takes some 100 bytes.
pub const PLACES: usize = SETS * WAYS;

/// The time in which weights halve.
pub const HALF_LIFE: Duration = Duration::from_mins(1);

/// The shortest time from one ageing of a set to the next: finer would cost and show nothing.
const AGEING: Duration = Duration::from_millis(500);

/// The longest name that is kept, in bytes.
const NAME_BYTES_MAX: usize = 160;

/// Names a bucket: the bytes of its key.
pub type Id = [u8; 12];

/// The sketches of all limits. Shared by those who count and those who show.
#[derive(Default)]
pub struct Clients(Mutex<Sketches>);

/// By route and limit.
type Sketches = BTreeMap<(Arc<str>, Arc<str>), Arc<Sketch>>;

/// The busiest buckets of one limit.
pub struct Sketch(Box<[Mutex<Set>]>);

/// What is known of one bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The route whose requests were counted.
    pub route: Arc<str>,
    /// The limit of that route.
    pub limit: Arc<str>,
    /// The bucket.
    pub id: Id,
    /// The tenant whose factor it follows; `None` where it follows none of a tenant's own.
    pub tenant: Option<Id>,
    /// What its client is called, as configured: plain, cut or hashed.
    pub name: Arc<str>,
    /// Requests a second of the last minutes, weighted by their age.
    pub per_second: f64,
    /// Those of them that were refused.
    pub refused_per_second: f64,
    /// By how much both may be too high.
    pub error_per_second: f64,
}

struct Set {
    places: [Option<Place>; WAYS],
    /// The time at which the weights are what they are.
    aged: Instant,
}

#[derive(Clone)]
struct Place {
    id: Id,
    tenant: Option<Id>,
    name: Arc<str>,
    requests: f64,
    refused: f64,
    /// Taken over from whoever had the place before.
    inherited: f64,
}

// === impl Clients ===

impl Clients {
    /// The sketch of a limit as one route applies it; the same for the same names.
    pub fn sketch(&self, route: &str, limit: &str) -> Arc<Sketch> {
        let names = (route.into(), limit.into());
        Arc::clone(self.lock().entry(names).or_default())
    }

    /// Forgets the limits that are not `kept`, by route and limit, any more.
    pub fn retain(&self, kept: impl Fn(&str, &str) -> bool) {
        self.lock().retain(|(route, limit), _| kept(route, limit));
    }

    /// The `count` buckets with the most requests, of all limits, the busiest first.
    pub fn busiest(&self, count: usize) -> Vec<Seen> {
        self.top(count, |seen| seen.per_second)
    }

    /// The `count` buckets with the most refusals, of all limits; none without a refusal.
    pub fn most_refused(&self, count: usize) -> Vec<Seen> {
        self.top(count, |seen| seen.refused_per_second)
    }

    /// All that is known of the buckets of a limit, by their keys. Nothing is changed by asking.
    pub fn of(&self, route: &str, limit: &str) -> Vec<Seen> {
        let sketches = self.sketches();
        let wanted = sketches.into_iter().filter(|((of_route, of_limit), _)| **of_route == *route && **of_limit == *limit);
        let mut seen: Vec<Seen> =
            wanted.flat_map(|((route, limit), sketch)| sketch.told(&route, &limit, Instant::now())).collect();
        seen.sort_unstable_by_key(|seen| seen.id);
        seen
    }

    fn top(&self, count: usize, by: impl Fn(&Seen) -> f64) -> Vec<Seen> {
        let now = Instant::now();
        let sketches = self.sketches().into_iter();
        let mut seen: Vec<Seen> = sketches.flat_map(|((route, limit), sketch)| sketch.told(&route, &limit, now)).collect();
        seen.retain(|seen| by(seen) > 0.0);
        seen.sort_by(|one, other| by(other).total_cmp(&by(one)).then_with(|| one.id.cmp(&other.id)));
        seen.truncate(count);
        seen
    }

    fn sketches(&self) -> Sketches {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Sketches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sketch ===

impl Default for Sketch {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Sketch {
    fn new(now: Instant) -> Self {
        let set = |_| Mutex::new(Set { places: std::array::from_fn(|_| None), aged: now });
        Self((0..SETS).map(set).collect())
    }

    /// Counts a request that came at `now`. Name and tenant are asked for only where the bucket gets a place.
    pub fn count(&self, id: Id, refused: bool, now: Instant, whose: impl FnOnce() -> (String, Option<Id>)) {
        // The key is a hash: any of its bytes is as good as another.
        let set = &self.0[usize::from(id[1]) % SETS];
        if let Ok(mut set) = set.try_lock() {
            set.age(now);
            set.count(id, refused, whose);
        }
    }

    fn told(&self, route: &Arc<str>, limit: &Arc<str>, now: Instant) -> Vec<Seen> {
        let mut told = Vec::new();
        for set in &self.0 {
            let set = set.lock().unwrap_or_else(PoisonError::into_inner);
            let scale = set.decay(now) * std::f64::consts::LN_2 / HALF_LIFE.as_secs_f64();
            told.extend(set.places.iter().flatten().map(|place| Seen {
                route: Arc::clone(route),
                limit: Arc::clone(limit),
                id: place.id,
                tenant: place.tenant,
                name: Arc::clone(&place.name),
                per_second: place.requests * scale,
                refused_per_second: place.refused * scale,
                error_per_second: place.inherited * scale,
            }));
        }
        told
    }
}

// === impl Set ===

impl Set {
    fn count(&mut self, id: Id, refused: bool, whose: impl FnOnce() -> (String, Option<Id>)) {
        let refused = f64::from(u8::from(refused));
        let known = self.places.iter_mut().flatten().find(|place| place.id == id);
        if let Some(place) = known {
            place.requests += 1.0;
            place.refused += refused;
            return;
        }
        let weight = |place: &Option<Place>| place.as_ref().map_or(-1.0, |place| place.requests);
        let lightest = self.places.iter_mut().min_by(|one, other| weight(one).total_cmp(&weight(other)));
        if let Some(lightest) = lightest {
            let inherited = lightest.as_ref().map_or(0.0, |place| place.requests);
            let (mut name, tenant) = whose();
            name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
            *lightest = Some(Place { id, tenant, name: name.into(), requests: inherited + 1.0, refused, inherited });
        }
    }

    /// What is left of a weight since the last ageing.
    fn decay(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.aged).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }

    fn age(&mut self, now: Instant) {
        if now.saturating_duration_since(self.aged) < AGEING {
            return;
        }
        let decay = self.decay(now);
        for place in self.places.iter_mut().flatten() {
            place.requests *= decay;
            place.refused *= decay;
            place.inherited *= decay;
        }
        self.aged = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Id {
        // Mixed, as a hash would be.
        let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let mut id = [0; 12];
        id[1..9].copy_from_slice(&mixed);
        id[8..].copy_from_slice(&number.to_le_bytes());
        id
    }

    fn told(sketch: &Sketch, now: Instant) -> Vec<Seen> {
        let mut told = sketch.told(&"route".into(), &"limit".into(), now);
        told.sort_by(|one, other| other.per_second.total_cmp(&one.per_second));
        told
    }

    #[test]
    fn heavy_hitters_are_found_among_very_many_and_overcounted_by_no_more_than_is_said() {
        let now = Instant::now();
        let sketch = Sketch::new(now);
        // A hundred thousand names once each, and among them five that ask two thousand times.
        for number in 0..100_000_u32 {
            sketch.count(id(number + 10), false, now, || (format!("noise {number}"), None));
            if number % 10 == 0 {
                sketch.count(id(number / 10 % 5), number % 20 == 0, now, || (format!("heavy {}", number / 10 % 5), None));
            }
        }
        let told = told(&sketch, now);
        assert_eq!(told.len(), PLACES, "as many as there are places, and no more");
        let mut heavy: Vec<&str> = told[..5].iter().map(|seen| &*seen.name).collect();
        heavy.sort_unstable();
        assert_eq!(heavy, ["heavy 0", "heavy 1", "heavy 2", "heavy 3", "heavy 4"]);
        let scale = HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2;
        for seen in &told[..5] {
            let (most, error) = (seen.per_second * scale, seen.error_per_second * scale);
            assert!(most - error <= 2000.5 && 1999.5 <= most, "{seen:?}");
        }
    }

    #[test]
    fn who_was_busy_once_makes_room_for_who_is_busy_now() {
        let begin = Instant::now();
        let sketch = Sketch::new(begin);
        (0..1000).for_each(|_| sketch.count(id(1), true, begin, || ("then".into(), None)));
        let later = begin + HALF_LIFE * 10;
        (0..10).for_each(|_| sketch.count(id(2), false, later, || ("now".into(), None)));
        let told = told(&sketch, later);
        assert_eq!((&*told[0].name, &*told[1].name), ("now", "then"));
        assert!(told[1].per_second < 0.02, "{told:?}");
    }

    #[test]
    fn a_steady_rate_is_told_as_what_it_is_and_asking_changes_nothing() {
        let begin = Instant::now();
        let sketch = Sketch::new(begin);
        for tick in 0..12_000_u32 {
            sketch.count(id(1), tick % 4 == 0, begin + Duration::from_millis(100) * tick, || ("steady".into(), None));
        }
        let end = begin + Duration::from_mins(20);
        let first = told(&sketch, end);
        assert!((first[0].per_second - 10.0).abs() < 0.2, "{first:?}");
        assert!((first[0].refused_per_second - 2.5).abs() < 0.1, "{first:?}");
        (0..1000).for_each(|_| assert_eq!(told(&sketch, end), first));
    }

    #[test]
    fn the_busiest_and_the_most_refused_of_all_limits_come_first() {
        let (clients, now) = (Clients::default(), Instant::now());
        let count = |limit, client, refused, times| {
            let sketch = clients.sketch("chat", limit);
            (0..times).for_each(|_| sketch.count(id(client), refused, now, || (format!("client {client}"), None)));
        };
        count("one", 1, false, 30);
        count("two", 2, true, 20);
        count("two", 3, false, 10);
        let names = |seen: Vec<Seen>| seen.into_iter().map(|seen| (seen.limit, seen.name)).collect::<Vec<_>>();
        assert_eq!(names(clients.busiest(2)), [("one".into(), "client 1".into()), ("two".into(), "client 2".into())]);
        assert_eq!(names(clients.most_refused(9)), [("two".into(), "client 2".into())]);
        assert_eq!(clients.of("chat", "two").len(), 2);
        assert!(clients.of("chat", "three").is_empty());
    }
}
