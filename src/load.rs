//! Load signals: what the backend says of itself, turned into the factor by which limits refill.
//!
//! A signal is polled by one replica of the fleet ([`lead`]); what it finds goes through [`curve`], then [`course`]. Each set
//! of signals that limits are scaled by has a clock in the store, whose factor is the lowest of the set: it is published by
//! the replica that polls the first signal of the set, by name, so that one hand moves each clock; the others adopt it.
//! Nothing is published before a signal is known, so that a replica which starts during an overload does not lift the factor
//! that the others have set. Whoever joins or leaves, all replicas know a change within a second.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
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

/// What is known of all signals, in the order of their sources.
type Findings = Vec<Found>;

/// The signals of each scale that limits follow.
pub type Scales = BTreeMap<ScaleName, Vec<String>>;

/// Takes part in polling `sources`, and publishes the lowest factor of each of `scales`, until `shutdown` drains: from then on
/// another replica can.
pub fn start(sources: Vec<Source>, scales: Scales, limiter: &Arc<Limiter>, metrics: &Metrics, shutdown: &Shutdown) {
    let (sender, _) = watch::channel::<Findings>(vec![Found::default(); sources.len()]);
    for (scale, signals) in scales {
        let members = signals.iter().filter_map(|name| sources.iter().position(|source| source.name == *name)).collect();
        let (following, stop) = (follow(scale, members, sender.subscribe(), Arc::clone(limiter)), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = following => {}
                () = stop.draining() => {}
            }
        });
    }
    let caller = fastrand::u64(..);
    for (position, source) in sources.into_iter().enumerate() {
        let labels = SignalLabels { signal: source.name.clone() };
        let samples = SampleCounters::new(|result| {
            metrics.load_samples.get_or_create(&SampleLabels { signal: source.name.clone(), result }).clone()
        });
        let gauge = metrics.load_factor.get_or_create(&labels).clone();
        let publish = publisher(position, source.name.clone(), sender.clone(), gauge);
        let leader = metrics.load_leader.get_or_create(&labels).clone();
        let mut member = Member::new(Signal { source, samples }, Arc::clone(limiter), leader, caller);
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            tokio::select! {
                () = member.take_part(publish) => {}
                () = stop.draining() => {}
            }
            member.leave().await;
        });
    }
}

/// Tells everyone who follows what is known; every look is told, so that a store that lost its state learns it again.
fn publisher(position: usize, signal: String, sender: watch::Sender<Findings>, gauge: FloatGauge) -> impl Fn(Found) + Send {
    move |found| {
        let before = sender.borrow()[position].factor;
        if let Some(factor) = found.factor {
            gauge.set(factor.as_f64());
            if before != Some(factor) {
                info!(event = "load_factor", signal, factor = factor.as_f64(), "load factor changed");
            }
        }
        sender.send_modify(|findings| findings[position] = found);
    }
}

/// Publishes the lowest factor of a set of signals, or adopts it, at each look at one of them.
async fn follow(scale: ScaleName, members: Vec<usize>, mut findings: watch::Receiver<Findings>, limiter: Arc<Limiter>) {
    // Sources are in the order of their names.
    let Some(first) = members.iter().copied().min() else { return };
    while findings.changed().await.is_ok() {
        let (lowest, here) = {
            let findings = findings.borrow_and_update();
            (members.iter().filter_map(|member| findings[*member].factor).min(), findings[first].here)
        };
        match lowest {
            Some(factor) if here => limiter.publish(&scale, factor).await,
            Some(factor) => limiter.adopt(&scale, factor).await,
            None => {}
        }
    }
}
