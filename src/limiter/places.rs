//! Places: of what lasts, such as a socket, a client may hold so many at once, over all replicas.
//!
//! A place is held in the store under a lease that its replica renews every [`RENEWAL`]; one that was given up is free for
//! the other replicas soon, and those of a replica that died are when their leases have run out ([`LIFETIME`]).
//!
//! Promised: while Redis decides, a client's places over all replicas are at most what it may hold. Nothing that holds a place
//! loses it because Redis went away. Where Redis does not answer, under `local`, a client is given another place only where it
//! holds less than this replica's share, the limit divided by the replicas and rounded up: where all replicas lose Redis with L
//! places in use at most, N replicas give at most L + N − 1 more. With `allow` each replica counts for itself up to the whole
//! limit; with `deny` no place is given. When Redis is back, each replica names the places it holds, at once.
//! Not promised: the limit while a replica has yet to do so, after Redis lost its state or its clock stepped: until then, at
//! most [`RENEWAL`], as many as the limit may be given beside those that it has not heard of. Nor that a place is free before
//! its lease ends whose asker went away while Redis was being asked, or was refused because Redis did not answer in time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Limiter,
    key::Key,
    redis::{Redis, places::Name},
};

/// How long a place is held that is not spoken for again.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// Time between renewals: two may fail before a place is lost.
pub const RENEWAL: Duration = Duration::from_secs(10);

/// How long a place that was given up may be taken again without asking the store, which then hears of it with all others.
const LINGER: Duration = Duration::from_millis(100);

/// One of a client's places; given up when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    client: Key,
    name: Name,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// The client holds as many as it may.
    Taken,
    /// Nobody can say, and the policy is to give none.
    Unavailable {
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

/// The places held in this process, by client: bounded by what holds them, and those that were given up a moment ago.
#[derive(Debug)]
pub(super) struct Places {
    /// Whether a store has to hear of them.
    is_shared: bool,
    /// Random, so that no two are the same.
    replica: u64,
    held: Mutex<Held>,
    given_up: Notify,
}

#[derive(Debug, Default)]
struct Held {
    by_client: HashMap<Key, BTreeMap<Name, Standing>>,
    /// How many were named.
    named: u64,
}

/// How a place stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The store is being asked for it.
    Asked,
    /// It is held.
    Held,
    /// It was given up, and the store has yet to hear of it.
    Spare,
}

// === impl Limiter ===

impl Limiter {
    /// One more of the `most` places that `client` may hold. In the embedded store, over this process alone.
    ///
    /// With Redis, an operation of its own beside the request's charge: few requests ask for what lasts, and one that gets no
    /// place is not to be charged.
    pub async fn place(&self, client: Key, most: u32) -> Result<Place, NoPlace> {
        match &self.place {
            super::Place::Process(_) => Places::take(&self.places, client, most).map(Place::granted),
            super::Place::Redis(fleet) => fleet.place(client, most).await,
        }
    }
}

// === impl Place ===

impl Place {
    /// The client's place, which the store, where there is one, holds for it.
    pub(super) fn granted(self) -> Self {
        self.places.lock().stand(self.client, self.name, Standing::Held);
        self
    }

    /// Whether the store holds it already, from whoever gave it up a moment ago.
    pub(super) fn is_held(&self) -> bool {
        let held = self.places.lock();
        held.by_client.get(&self.client).and_then(|places| places.get(&self.name)) == Some(&Standing::Held)
    }

    /// How many of the client's places in this process came before it.
    pub(super) fn before(&self) -> usize {
        let held = self.places.lock();
        held.by_client.get(&self.client).map_or(0, |places| places.range(..self.name).count())
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        let standing = held.by_client.get(&self.client).and_then(|places| places.get(&self.name));
        if self.places.is_shared && standing == Some(&Standing::Held) {
            held.stand(self.client, self.name, Standing::Spare);
            self.places.given_up.notify_one();
        } else {
            held.remove(self.client, self.name);
        }
    }
}

// === impl Places ===

impl Places {
    /// None yet; `is_shared` where a store has to hear of them.
    pub(super) fn new(is_shared: bool) -> Arc<Self> {
        let replica = fastrand::u64(..);
        Arc::new(Self { is_shared, replica, held: Mutex::default(), given_up: Notify::new() })
    }

    /// One more place of `client` in this process, where it holds less than `most` there: one that was given up a moment ago,
    /// or one to ask the store for.
    pub(super) fn take(self: &Arc<Self>, client: Key, most: u32) -> Result<Place, NoPlace> {
        let mut held = self.lock();
        let places = held.by_client.entry(client).or_default();
        let spare = places.iter().find(|(_, standing)| **standing == Standing::Spare).map(|(name, _)| *name);
        let is_full = spare.is_none() && places.len() >= usize::try_from(most).unwrap_or(usize::MAX);
        if is_full {
            return Err(NoPlace::Taken);
        }
        let (name, standing) = spare.map_or_else(
            || {
                held.named += 1;
                (Name(u128::from(self.replica) << 64 | u128::from(held.named)), Standing::Asked)
            },
            |name| (name, Standing::Held),
        );
        held.stand(client, name, standing);
        Ok(Place { places: Arc::clone(self), client, name })
    }

    /// Keeps the store's leases running, and tells it of what was given up, for as long as it is polled.
    pub(super) async fn keep(&self, redis: &Redis) {
        let mut up = redis.up();
        let mut renewals = interval(RENEWAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // One after the other: what is given up is never renewed after the store has heard of it. A failure needs no
            // repetition: what could not be renewed soon will be, and what could not be given up ends with its lease.
            tokio::select! {
                () = self.given_up.notified() => {
                    sleep(LINGER).await;
                    let spares = self.lock().spares();
                    let _ = redis.give_up(spares, LIFETIME).await;
                    continue;
                }
                _ = renewals.tick() => {}
                Ok(()) = up.changed() => {}
            }
            let held = self.lock().held();
            let _ = redis.renew(held, LIFETIME).await;
        }
    }

    /// Gives all up, because this replica is going. Where that fails, they end with their leases.
    pub(super) async fn leave(&self, redis: &Redis) {
        let all = {
            let mut held = self.lock();
            [held.spares(), held.held()].concat()
        };
        let _ = redis.give_up(all, LIFETIME).await;
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn stand(&mut self, client: Key, name: Name, standing: Standing) {
        self.by_client.entry(client).or_default().insert(name, standing);
    }

    fn remove(&mut self, client: Key, name: Name) {
        if let Some(places) = self.by_client.get_mut(&client) {
            places.remove(&name);
            if places.is_empty() {
                self.by_client.remove(&client);
            }
        }
    }

    fn held(&self) -> Vec<(Key, Name)> {
        self.that(Standing::Held)
    }

    /// Those that were given up, which are then forgotten.
    fn spares(&mut self) -> Vec<(Key, Name)> {
        let spares = self.that(Standing::Spare);
        for (client, name) in &spares {
            self.remove(*client, *name);
        }
        spares
    }

    fn that(&self, wanted: Standing) -> Vec<(Key, Name)> {
        let of = |(client, places): (&Key, &BTreeMap<Name, Standing>)| {
            let those = places.iter().filter(|(_, standing)| **standing == wanted);
            those.map(|(name, _)| (*client, *name)).collect::<Vec<_>>()
        };
        self.by_client.iter().flat_map(of).collect()
    }
}
