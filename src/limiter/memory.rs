//! Buckets and windows, both called buckets here, in this process: the embedded store, and the local fall-back.
//!
//! Promised: at most [`max_buckets`](crate::config::Store::max_buckets) buckets; all or nothing across the limits of one
//! decision; a bucket is forgotten only once it is certainly full again, so that forgetting gives nobody a token.
//! Not promised: room. Where every bucket is still filling, a new one is refused with [`StoreError::Full`]: dropping an
//! old one instead would hand whoever floods the store with names the means to refill their own bucket. Buckets are spread
//! over shards by hash, so the first shard may be full when the whole is at nine tenths.
//!
//! Buckets that are full again are swept out when a shard has doubled since its last sweep, and at most once a second when
//! it is full, so the cost of sweeping stays a small constant for each new bucket.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrayvec::ArrayVec;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::{
    Charge, Kind, Limit, MAX_CHARGES, Standing, Standings, Store, StoreError, Terms, Verdict,
    bucket::MICRO,
    key::{FirstWord, Key},
    micros,
    scale::{ScaleName, Timeline, scaled_span},
    timelines::Timelines,
};
use crate::config::Factor;

mod pause;
mod peek;
mod state;

use state::{Movement, Pace, State};

/// The most shards: more than cores that would contend for one.
const SHARDS_MAX: usize = 64;

/// The fewest buckets for which a shard is worth having: with fewer, chance would fill one shard long before the others.
const SHARD_SIZE_MIN: usize = 1024;

/// Below this many buckets a shard is never swept.
const SWEEP_SIZE_MIN: usize = 64;

/// The shortest time between sweeps of a full shard, in microseconds.
const SWEEP_INTERVAL: u64 = MICRO;

/// Buckets in this process. Its own clock is monotonic and starts with it; `*_at` take the time in microseconds instead.
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    timelines: Timelines,
    started: Instant,
    held: Gauge,
}

/// A part of the buckets under a lock of its own.
struct Shard {
    buckets: HashMap<Key, Entry, BuildHasherDefault<FirstWord>>,
    /// The most it holds.
    room: usize,
    /// How many buckets make it sweep before it takes another.
    sweep_at: usize,
    /// No sweep before this time.
    sweep_after: u64,
}

/// A bucket that has been charged.
struct Entry {
    state: State,
    /// The time at which it is full at the latest, and may be forgotten.
    full_at: u64,
}

/// The shards of one decision, locked in rising order so that two decisions never wait for each other.
type Locked<'a> = ArrayVec<(usize, MutexGuard<'a, Shard>), MAX_CHARGES>;

/// A bucket of one decision: settled, before its charge.
struct Settled {
    /// Its shard's place among those locked.
    place: usize,
    /// Whether it is held already.
    known: bool,
    standing: Standing,
    pace: Pace,
    /// Whether the terms ask for the cost.
    asked: bool,
    /// Whether an admission takes the cost.
    written: bool,
}

// === impl Memory ===

impl Memory {
    /// A store of at most `max_buckets`; `held` shows how many there are.
    pub fn new(max_buckets: usize, held: Gauge) -> Self {
        let shards = (max_buckets / SHARD_SIZE_MIN).clamp(1, SHARDS_MAX);
        let shard = |_| Mutex::new(Shard::new(max_buckets / shards));
        Self { shards: (0..shards).map(shard).collect(), timelines: Timelines::new(), started: Instant::now(), held }
    }

    /// How many buckets are held, full ones included until they are swept out.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).buckets.len()).sum()
    }

    /// Whether no bucket is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// [`Store::decide`] at a given time.
    pub fn decide_at(&self, charges: &[Charge<'_>], now: u64) -> Result<Verdict, StoreError> {
        self.reserve_at(charges, 0, now)
    }

    /// [`Store::reserve`] at a given time, within so many microseconds.
    pub fn reserve_at(&self, charges: &[Charge<'_>], within: u64, now: u64) -> Result<Verdict, StoreError> {
        let mut locked = self.lock_all(charges)?;
        let settled = self.settle(&locked, charges, now);
        let standing = |(bucket, charge): (&Settled, &Charge<'_>)| {
            if bucket.asked { bucket.standing } else { charge.limit.untouched(bucket.pace.factor) }
        };
        let mut standings: Standings = settled.iter().zip(charges).map(standing).collect();
        let due = |(bucket, charge): (&Settled, &Charge<'_>)| {
            if !bucket.asked {
                return Some(now);
            }
            let entry = locked[bucket.place].1.buckets.get(&charge.key).filter(|_| bucket.known);
            let state = entry.map(|entry| &entry.state);
            State::due(state, charge.limit, bucket.pace, &bucket.standing, charge.cost, within)
        };
        let dues: Option<ArrayVec<u64, MAX_CHARGES>> = settled.iter().zip(charges).map(due).collect();
        if let Some(dues) = &dues {
            self.make_room(&mut locked, &settled, now)?;
            for (((bucket, charge), due), standing) in settled.iter().zip(charges).zip(dues).zip(&mut standings) {
                if bucket.written {
                    let movement = Movement::Take { cost: charge.cost, due: *due };
                    self.write(&mut locked[bucket.place].1, charge, bucket, movement);
                    if charge.terms == Terms::Take {
                        *standing = charge.limit.charged(*standing, charge.cost);
                    }
                }
            }
        }
        Ok(Verdict { admitted: dues.is_some(), at: if dues.is_some() { now } else { 0 }, standings })
    }

    /// [`Store::refund`] at a given time.
    pub fn refund_at(&self, charges: &[Charge<'_>], at: u64, now: u64) -> Result<(), StoreError> {
        let mut locked = self.lock_all(charges)?;
        let settled = self.settle(&locked, charges, now);
        self.give(&mut locked, &settled, charges, at);
        Ok(())
    }

    fn give(&self, locked: &mut Locked<'_>, settled: &[Settled], charges: &[Charge<'_>], at: u64) {
        for (bucket, charge) in settled.iter().zip(charges) {
            // A bucket that was forgotten is full.
            if bucket.known {
                let movement = Movement::Give { cost: charge.cost, at };
                self.write(&mut locked[bucket.place].1, charge, bucket, movement);
            }
        }
    }

    /// [`Store::give_back`] at a given time, so many microseconds ahead of the place's.
    pub fn give_back_at(&self, charges: &[Charge<'_>], at: u64, ahead: u64, now: u64) -> Result<bool, StoreError> {
        let mut locked = self.lock_all(charges)?;
        let settled = self.settle(&locked, charges, now);
        let is_last = |(bucket, charge): (&Settled, &Charge<'_>)| match charge.limit.kind {
            Kind::Bucket(kind) => bucket.standing.owed <= kind.gain(scaled_span(ahead, bucket.pace.factor)),
            // A log tells places apart.
            Kind::Window(_) => true,
        };
        if !settled.iter().zip(charges).all(is_last) {
            return Ok(false);
        }
        self.give(&mut locked, &settled, charges, at);
        Ok(true)
    }

    /// [`Store::publish`] at a given time.
    pub fn publish_at(&self, scale: &ScaleName, factor: Factor, now: u64) {
        self.timelines.publish(scale, factor, now);
    }

    /// Takes over what the store told of buckets when it admitted `charges` or refused them, and the factors it goes by.
    /// Answers may come in another order than they were given, so of two levels the lower counts. A window's own charges are
    /// noted one by one, each later than the store did; so, where answers come out of order, more may count as taken than is,
    /// by as many charges as were overtaken. Where there is no room, nothing is taken over.
    pub(super) fn mirror_at(
        &self,
        charges: &[Charge<'_>],
        admitted: bool,
        standings: &Standings,
        now: u64,
    ) -> Result<(), StoreError> {
        for (charge, standing) in charges.iter().zip(standings) {
            if let Some(scale) = &charge.limit.scale
                && self.pace(charge.limit, now).factor != standing.factor
            {
                self.publish_at(scale, standing.factor, now);
            }
        }
        let mut locked = self.lock_all(charges)?;
        let settled = self.settle(&locked, charges, now);
        self.make_room(&mut locked, &settled, now)?;
        for ((bucket, charge), standing) in settled.iter().zip(charges).zip(standings) {
            let limit = charge.limit;
            let known = locked[bucket.place].1.buckets.get(&charge.key);
            let known = known.map_or(0, |entry| entry.state.taken(limit, bucket.pace));
            let told = limit.taken(standing, charge.cost).saturating_sub(known);
            let own = if admitted && matches!(limit.kind, Kind::Window(_)) { charge.cost } else { 0 };
            let due = if standing.owed > 0 { now.saturating_add(standing.wait) } else { now };
            self.write(&mut locked[bucket.place].1, charge, bucket, Movement::Take { cost: told.max(own), due });
        }
        Ok(())
    }

    /// What is taken from a bucket at a given time, in micro-tokens.
    pub(super) fn taken_at(&self, limit: &Limit, key: Key, now: u64) -> u64 {
        let shard = lock(&self.shards[self.shard_of(key)]);
        shard.buckets.get(&key).map_or(0, |entry| entry.state.taken(limit, self.pace(limit, now)))
    }

    /// The time by its own clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn shard_of(&self, key: Key) -> usize {
        key.spread() as usize % self.shards.len()
    }

    fn lock_all(&self, charges: &[Charge<'_>]) -> Result<Locked<'_>, StoreError> {
        if charges.len() > MAX_CHARGES {
            return Err(StoreError::Refused);
        }
        let mut places: ArrayVec<usize, MAX_CHARGES> = charges.iter().map(|charge| self.shard_of(charge.key)).collect();
        places.sort_unstable();
        let mut locked = Locked::new();
        for place in places {
            if locked.last().is_none_or(|&(last, _)| last != place) {
                locked.push((place, lock(&self.shards[place])));
            }
        }
        Ok(locked)
    }

    fn settle(&self, locked: &Locked<'_>, charges: &[Charge<'_>], now: u64) -> ArrayVec<Settled, MAX_CHARGES> {
        let mut settled = ArrayVec::<Settled, MAX_CHARGES>::new();
        for charge in charges {
            let pace = self.pace(charge.limit, now);
            let shard = self.shard_of(charge.key);
            let place = locked.iter().position(|&(place, _)| place == shard).unwrap_or_default();
            let entry = locked[place].1.buckets.get(&charge.key);
            let state = entry.map(|entry| &entry.state).filter(|state| state.is_of(charge.limit));
            let standing = State::standing(state, charge.limit, pace, charge.cost);
            let written = charge.terms != Terms::Need;
            settled.push(Settled { place, known: state.is_some(), standing, pace, asked: true, written });
        }
        for (place, charge) in charges.iter().enumerate() {
            if let Terms::TakeIfNew(other) = charge.terms {
                let is_new = settled.get(other).is_none_or(|other| !other.known);
                (settled[place].asked, settled[place].written) = (is_new, is_new);
            }
        }
        settled
    }

    /// The time and the factor a limit goes by.
    fn pace(&self, limit: &Limit, now: u64) -> Pace {
        let timeline = limit.scale.as_ref().and_then(|scale| self.timelines.get(scale));
        let timeline = timeline.unwrap_or(Timeline::REAL);
        Pace { now, clock: timeline.scaled(now), factor: timeline.factor }
    }

    /// Makes sure that every bucket of the decision has a place, before any is written.
    fn make_room(&self, locked: &mut Locked<'_>, settled: &[Settled], now: u64) -> Result<(), StoreError> {
        for (place, (_, shard)) in locked.iter_mut().enumerate() {
            let new = settled.iter().filter(|bucket| bucket.place == place && bucket.written && !bucket.known).count();
            if new > 0 && shard.buckets.len() + new > shard.sweep_at && now >= shard.sweep_after {
                self.held.dec_by(i64::try_from(shard.sweep(now)).unwrap_or(i64::MAX));
            }
            if new > 0 && shard.buckets.len() + new > shard.room {
                return Err(StoreError::Full);
            }
        }
        Ok(())
    }

    fn write(&self, shard: &mut Shard, charge: &Charge<'_>, bucket: &Settled, movement: Movement) {
        let entry = shard.buckets.entry(charge.key).or_insert_with(|| {
            self.held.inc();
            Entry { state: State::new(charge.limit, bucket.pace), full_at: 0 }
        });
        entry.full_at = entry.state.apply(charge.limit, bucket.pace, movement);
    }
}

impl Store for Memory {
    async fn reserve(&self, charges: &[Charge<'_>], within: Duration) -> Result<Verdict, StoreError> {
        self.reserve_at(charges, micros(within), self.now())
    }

    async fn give_back(&self, charges: &[Charge<'_>], at: u64, ahead: Duration) -> Result<bool, StoreError> {
        self.give_back_at(charges, at, micros(ahead), self.now())
    }

    async fn refund(&self, charges: &[Charge<'_>], at: u64) -> Result<(), StoreError> {
        self.refund_at(charges, at, self.now())
    }

    async fn publish(&self, scale: &ScaleName, factor: Factor) -> Result<(), StoreError> {
        self.publish_at(scale, factor, self.now());
        Ok(())
    }
}

/// A shard's state is whole between any two writes, so a panic elsewhere does not spoil it.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Shard ===

impl Shard {
    fn new(room: usize) -> Self {
        Self { buckets: HashMap::default(), room, sweep_at: SWEEP_SIZE_MIN.min(room), sweep_after: 0 }
    }

    /// Forgets what is full again, and says how much that was.
    fn sweep(&mut self, now: u64) -> usize {
        let before = self.buckets.len();
        self.buckets.retain(|_, entry| entry.full_at > now);
        let left = self.buckets.len();
        self.sweep_at = (left * 2).max(SWEEP_SIZE_MIN).min(self.room);
        self.sweep_after = if self.sweep_at == self.room { now.saturating_add(SWEEP_INTERVAL) } else { 0 };
        before - left
    }
}

#[cfg(test)]
mod tests;
