//! Load signals: what the backend says of itself, turned into the factor by which limits refill.
//!
//! A signal is polled by one replica of the fleet ([`lead`]); what it finds goes through [`curve`], then [`course`]. Each set
//! of signals that limits are scaled by has a clock in the store, whose factor is the lowest of the set: it is published by
//! the replica that polls the first signal of the set, by name, so that one hand moves each clock; the others adopt it.
//! Nothing is published before a signal is known, so that a replica which starts during an overload does not lift the factor
//! that the others have set. Whoever joins or leaves, all replicas know a change within a second.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

use crate::{
    config,
    limiter::{Limiter, scale::ScaleName},
    metrics::{FloatGauge, Metrics, SampleLabels, SignalLabels},
    shutdown::Shutdown,
    upstream::Upstream,
};

pub mod course;
pub mod curve;
mod lead;
mod poll;

use lead::{Found, Member};
use poll::{SampleCounters, Signal};

/// A signal that is polled.
pub struct Source {
    /// Its name in the configuration.
    pub name: String,
    /// How it is read.
    pub config: config::Load,
    /// Path and query of its endpoint.
    pub path_and_query: String,
    /// Whom to ask.
    pub endpoint: Arc<Upstream>,
}

/// What is known of signals, by name.
type Findings = BTreeMap<String, Found>;

/// The signals of each scale that limits follow.
pub type Scales = BTreeMap<ScaleName, Vec<String>>;

/// Takes part in polling signals, and publishes the lowest factor of each scale, until the shutdown drains: from then on
/// another replica can. What is dropped of it ends.
pub struct Polling {
    limiter: Arc<Limiter>,
    shutdown: Shutdown,
    findings: watch::Sender<Findings>,
    running: Mutex<Running>,
}

/// What runs, and what it was begun with. A guard ends its task when it is dropped.
#[derive(Default)]
struct Running {
    signals: BTreeMap<String, (config::Load, DropGuard)>,
    scales: BTreeMap<ScaleName, (Vec<String>, DropGuard)>,
}

// === impl Polling ===

impl Polling {
    /// Polls nothing yet; its tasks will be those of `shutdown`.
    pub fn new(limiter: Arc<Limiter>, shutdown: Shutdown) -> Self {
        Self { limiter, shutdown, findings: watch::Sender::default(), running: Mutex::default() }
    }

    /// From now on polls `sources` and publishes `scales`, and nothing else. A signal whose configuration is what it was is
    /// polled on as if nothing had happened; one that is gone takes its gauges along.
    pub fn adopt(&self, sources: Vec<Source>, scales: Scales, metrics: &Metrics) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.signals.retain(|name, _| {
            let stays = sources.iter().any(|source| source.name == *name);
            if !stays {
                let labels = SignalLabels { signal: name.clone() };
                metrics.load_factor.remove(&labels);
                metrics.load_leader.remove(&labels);
                self.findings.send_modify(|findings| _ = findings.remove(name));
            }
            stays
        });
        running.scales.retain(|scale, (signals, _)| scales.get(scale) == Some(signals));
        for (scale, signals) in scales {
            running.scales.entry(scale).or_insert_with_key(|scale| {
                let following = follow(scale.clone(), signals.clone(), self.findings.subscribe(), Arc::clone(&self.limiter));
                let ended = CancellationToken::new();
                self.spawn(following, ended.clone());
                (signals, ended.drop_guard())
            });
        }
        for source in sources {
            if running.signals.get(&source.name).is_none_or(|(config, _)| *config != source.config) {
                let (name, config) = (source.name.clone(), source.config.clone());
                running.signals.insert(name, (config, self.poll(source, metrics)));
            }
        }
    }

    fn poll(&self, source: Source, metrics: &Metrics) -> DropGuard {
        let labels = SignalLabels { signal: source.name.clone() };
        let samples = SampleCounters::new(|result| {
            metrics.load_samples.get_or_create(&SampleLabels { signal: source.name.clone(), result }).clone()
        });
        let gauge = metrics.load_factor.get_or_create(&labels).clone();
        // What limits go by until something is known.
        gauge.set(1.0);
        let publish = publisher(source.name.clone(), self.findings.clone(), gauge);
        let leader = metrics.load_leader.get_or_create(&labels).clone();
        let mut member = Member::new(Signal { source, samples }, Arc::clone(&self.limiter), leader, fastrand::u64(..));
        let ended = CancellationToken::new();
        let (stop, end) = (self.shutdown.clone(), ended.clone());
        self.shutdown.spawn(async move {
            tokio::select! {
                () = member.take_part(publish) => {}
                () = stop.draining() => {}
                () = end.cancelled() => {}
            }
            member.leave().await;
        });
        ended.drop_guard()
    }

    /// Runs a task until it ends, is ended, or the shutdown drains.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, ended: CancellationToken) {
        let stop = self.shutdown.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.draining() => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

/// Tells everyone who follows what is known; every look is told, so that a store that lost its state learns it again.
fn publisher(signal: String, sender: watch::Sender<Findings>, gauge: FloatGauge) -> impl Fn(Found) + Send {
    move |found| {
        let before = sender.borrow().get(&signal).and_then(|found| found.factor);
        if let Some(factor) = found.factor {
            gauge.set(factor.as_f64());
            if before != Some(factor) {
                info!(event = "load_factor", signal, factor = factor.as_f64(), "load factor changed");
            }
        }
        sender.send_modify(|findings| _ = findings.insert(signal.clone(), found));
    }
}

/// Publishes the lowest factor of a set of signals, or adopts it, at each look at one of them.
async fn follow(scale: ScaleName, members: Vec<String>, mut findings: watch::Receiver<Findings>, limiter: Arc<Limiter>) {
    let Some(first) = members.iter().min() else { return };
    while findings.changed().await.is_ok() {
        let (lowest, here) = {
            let findings = findings.borrow_and_update();
            let lowest = members.iter().filter_map(|member| findings.get(member)?.factor).min();
            (lowest, findings.get(first).is_some_and(|found| found.here))
        };
        match lowest {
            Some(factor) if here => limiter.publish(&scale, factor).await,
            Some(factor) => limiter.adopt(&scale, factor).await,
            None => {}
        }
    }
}
