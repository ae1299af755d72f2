//! A measured signal: how long the upstream takes for each tenant, told to the store, which makes the fleet's factor of it.
//!
//! A sample costs the request path a lock and a count. A task looks at all tenants ten times in a window, at least once a
//! second, and tells the store of each that was seen since or whose factor is below 1: one call of `lua/observe.lua`, which
//! adds up what all replicas measured and writes the tenant's [scale](super::scale) for decisions to read. So a factor that
//! nobody feeds returns to 1 by itself, as soon as any replica that has seen the tenant looks.
//!
//! Promised: only what the upstream did counts. A time-out counts as the deadline, and so does waiting that the caller gave up;
//! a failure counts as slow where it was, and never as fast. At most [`TENANTS_MAX`] tenants, of [`latency`](super::latency)'s
//! size each; the least recently used are forgotten. At most [`TOLD_MAX`] calls a look, [`TELLERS`] at a time, those first that
//! waited longest. While the store is away, this replica's own samples make the factor.
//! Not promised: that a store which lost its data remembers: the factor is then 1 until there are enough samples again.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Limiter, Place, StoreError,
    key::{FirstWord, Key},
    latency::{Counts, Recent, Slowdown},
    scale::ScaleName,
};
use crate::{
    config::{Factor, Latency},
    metrics::{FloatGauge, LatencyLabels, Metrics, SignalLabels},
};

/// The most tenants of a signal that are measured at once.
pub const TENANTS_MAX: usize = 4096;

/// The most tenants that the store is told of at one look.
pub const TOLD_MAX: usize = 512;

/// How many it is told of at the same time.
const TELLERS: usize = 16;

/// The longest time from look to look.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// A measured signal.
pub struct Measured {
    name: String,
    slowdown: Slowdown,
    /// How long a tenant's scale outlives the last telling: longer than any bucket that follows it.
    lifetime: Duration,
    tenants: Mutex<HashMap<Key, Arc<Tenant>, BuildHasherDefault<FirstWord>>>,
    started: Instant,
    held: Gauge,
    lowest: FloatGauge,
    samples: [Counter; 5],
}

/// One tenant of a measured signal.
pub struct Tenant {
    scale: ScaleName,
    state: Mutex<State>,
}

struct State {
    /// What this replica measured.
    recent: Recent,
    /// What of it the store has yet to be told.
    unsent: Counts,
    /// Since when it has.
    unsent_since: u64,
    /// When a request was last seen.
    seen: u64,
    /// When the store was last told.
    told: u64,
    /// The factor in force, as far as this replica knows.
    factor: Factor,
}

/// How an attempt ended, as far as it says how fast the upstream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an answer that took the upstream what it takes.
    Answered,
    /// With an answer that says that something went wrong.
    Failed,
    /// With none in time.
    TimedOut,
    /// Before there was an answer, because the caller went away.
    Abandoned,
}

/// What a replica tells the store of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The tenant's scale.
    pub scale: &'a ScaleName,
    /// What was measured since the last telling.
    pub counts: &'a Counts,
    /// What makes a factor of it.
    pub slowdown: Slowdown,
    /// How long the scale is to stay.
    pub lifetime: Duration,
    /// The factor that this replica's own samples ask for.
    pub own: Factor,
    /// The factor that was in force here.
    pub before: Factor,
}

// === impl Measured ===

impl Measured {
    /// The signal `name`; `slowest_fill` is the longest that a bucket which follows it can need to fill.
    pub fn new(name: &str, config: &Latency, slowest_fill: Duration, metrics: &Metrics) -> Self {
        let labels = SignalLabels { signal: name.to_owned() };
        let sample =
            |result| metrics.latency_samples.get_or_create_owned(&LatencyLabels { signal: name.to_owned(), result });
        let lowest = metrics.load_factor.get_or_create_owned(&labels);
        lowest.set(1.0);
        Self {
            name: name.to_owned(),
            slowdown: config.into(),
            lifetime: slowest_fill.saturating_add(config.window),
            tenants: Mutex::default(),
            started: Instant::now(),
            held: metrics.latency_tenants.get_or_create_owned(&labels),
            lowest,
            samples: ["good", "failed", "timeout", "abandoned", "ignored"].map(sample),
        }
    }

    /// A tenant that sends a request now.
    pub fn tenant(&self, key: Key) -> Arc<Tenant> {
        let now = self.now();
        let mut tenants = lock(&self.tenants);
        if let Some(tenant) = tenants.get(&key) {
            lock(&tenant.state).seen = now;
            return Arc::clone(tenant);
        }
        if tenants.len() >= TENANTS_MAX {
            forget_oldest(&mut tenants);
        }
        let tenant = Arc::new(Tenant::new(self.scale(key), now));
        tenants.insert(key, Arc::clone(&tenant));
        tenant
    }

    /// What decisions about a tenant's limits go by.
    pub fn scale(&self, tenant: Key) -> ScaleName {
        ScaleName::of_tenant(&self.name, tenant)
    }

    /// Counts an attempt for a tenant: the upstream was waited for that long.
    pub fn record(&self, tenant: &Tenant, ended: Ended, took: Duration) {
        let slow = took.as_micros() >= u128::from(self.slowdown.threshold);
        let counts = matches!(ended, Ended::Answered | Ended::TimedOut) || slow;
        self.samples[if counts { ended as usize } else { 4 }].inc();
        if counts {
            tenant.record(took, &self.slowdown, self.now());
        }
    }

    /// Tells `limiter` what is measured, for ever.
    pub async fn keep_telling(self: Arc<Self>, limiter: Arc<Limiter>) {
        let mut looks = interval(Duration::from_micros(self.slowdown.slot).min(LOOK_INTERVAL_MAX));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let tenants = self.to_be_told();
            let mut tellers = JoinSet::new();
            for part in tenants.chunks(tenants.len().div_ceil(TELLERS).max(1)) {
                let (signal, limiter, part) = (Arc::clone(&self), Arc::clone(&limiter), part.to_vec());
                tellers.spawn(async move {
                    for tenant in part {
                        signal.tell(&tenant, &limiter).await;
                    }
                });
            }
            tellers.join_all().await;
            self.show();
        }
    }

    /// Forgets tenants that are quiet, and says who of the others has something to tell: at most so many, the longest untold
    /// first.
    fn to_be_told(&self) -> Vec<Arc<Tenant>> {
        let now = self.now();
        let mut tenants = lock(&self.tenants);
        tenants.retain(|_, tenant| !lock(&tenant.state).is_quiet(&self.slowdown, now));
        let mut waiting: Vec<_> = tenants.values().filter(|tenant| lock(&tenant.state).has_news()).cloned().collect();
        drop(tenants);
        waiting.sort_by_cached_key(|tenant| lock(&tenant.state).told);
        waiting.truncate(TOLD_MAX);
        waiting
    }

    async fn tell(&self, tenant: &Tenant, limiter: &Limiter) {
        let (counts, own, before) = lock(&tenant.state).news(&self.slowdown, self.now());
        let Self { slowdown, lifetime, .. } = *self;
        // Operators may have buckets fill more slowly for a while.
        let amended = limiter.amendments().longest_fill(slowdown.floor);
        let lifetime = lifetime.max(amended.saturating_add(Duration::from_micros(slowdown.window())));
        let observation = Observation { scale: &tenant.scale, counts: &counts, slowdown, lifetime, own, before };
        let told = limiter.observe(&observation).await;
        let mut state = lock(&tenant.state);
        state.factor = *told.as_ref().unwrap_or(&own);
        if told.is_err() {
            state.unsent.merge(&counts);
        }
    }

    fn show(&self) {
        let tenants = lock(&self.tenants);
        self.held.set(i64::try_from(tenants.len()).unwrap_or(i64::MAX));
        let lowest = tenants.values().map(|tenant| lock(&tenant.state).factor).min();
        self.lowest.set(lowest.unwrap_or(Factor::ONE).as_f64());
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Makes room: forgets the eighth that was not seen for longest.
fn forget_oldest(tenants: &mut HashMap<Key, Arc<Tenant>, BuildHasherDefault<FirstWord>>) {
    let mut seen: Vec<u64> = tenants.values().map(|tenant| lock(&tenant.state).seen).collect();
    seen.sort_unstable();
    let newest = seen.get(seen.len() / 8).copied().unwrap_or_default();
    tenants.retain(|_, tenant| lock(&tenant.state).seen > newest);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Tenant ===

impl Tenant {
    fn new(scale: ScaleName, now: u64) -> Self {
        let (recent, unsent) = (Recent::default(), Counts::default());
        let state = State { recent, unsent, unsent_since: now, seen: now, told: 0, factor: Factor::ONE };
        Self { scale, state: Mutex::new(state) }
    }

    /// What decisions about its limits go by.
    pub fn scale(&self) -> &ScaleName {
        &self.scale
    }

    fn record(&self, took: Duration, slowdown: &Slowdown, now: u64) {
        let mut sample = Counts::default();
        sample.add(took);
        let mut state = lock(&self.state);
        state.recent.add(&sample, slowdown, now);
        if state.unsent.is_empty() {
            state.unsent_since = now;
        }
        state.unsent.merge(&sample);
    }
}

// === impl State ===

impl State {
    fn has_news(&self) -> bool {
        self.seen >= self.told || !self.unsent.is_empty() || self.factor != Factor::ONE
    }

    /// Whether nothing would be lost with it.
    fn is_quiet(&self, slowdown: &Slowdown, now: u64) -> bool {
        !self.has_news() && now.saturating_sub(self.seen.max(self.told)) > slowdown.window()
    }

    /// What is to be told, the factor of this replica's own samples, and the one in force. What has waited for a window is
    /// no news.
    fn news(&mut self, slowdown: &Slowdown, now: u64) -> (Counts, Factor, Factor) {
        self.told = now.saturating_add(1);
        let unsent = std::mem::take(&mut self.unsent);
        let fresh = now.saturating_sub(self.unsent_since) <= slowdown.window();
        (if fresh { unsent } else { Counts::default() }, self.recent.factor(slowdown, now), self.factor)
    }
}

// === impl Limiter ===

impl Limiter {
    /// Tells the store what was measured of a tenant, and lets its limits follow the factor that all replicas' samples ask
    /// for; where the store is away, this replica's own. Answers the factor that the store has put in force.
    pub async fn observe(&self, observation: &Observation<'_>) -> Result<Factor, StoreError> {
        match &self.place {
            Place::Process(memory) => {
                memory.publish_at(observation.scale, observation.own, memory.now());
                Ok(observation.own)
            }
            Place::Redis(fleet) => fleet.observe(observation).await,
        }
    }
}

#[cfg(test)]
mod tests;
