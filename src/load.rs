//! Load signals: what the backend says of itself, turned into the factor by which limits refill.
//!
//! Each configured signal is polled by a task of its own ([`poll`]); each set of signals that limits are scaled by has a task
//! that publishes the lowest factor of the set to the limiter. Nothing is published before a signal is known, so that a
//! replica which starts during an overload does not lift the factor that the others have set.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use tokio::sync::watch;
use tracing::info;

use crate::{
    config::{self, Factor},
    limiter::{Limiter, scale::ScaleName},
    metrics::{FloatGauge, Metrics, SampleLabels, SignalLabels},
    shutdown::Shutdown,
    upstream::Upstream,
};

mod curve;
mod poll;

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

/// The factors of all signals as last known, in the order of their sources; `None` before the first sample.
type Factors = Vec<Option<Factor>>;

/// The signals of each scale that limits follow.
pub type Scales = BTreeMap<ScaleName, Vec<String>>;

/// Polls `sources` and publishes the lowest factor of each of `scales` until `shutdown` stops.
pub fn start(sources: Vec<Source>, scales: Scales, limiter: &Arc<Limiter>, metrics: &Metrics, shutdown: &Shutdown) {
    let (sender, _) = watch::channel::<Factors>(vec![None; sources.len()]);
    for (scale, signals) in scales {
        let members = signals.iter().filter_map(|name| sources.iter().position(|source| source.name == *name)).collect();
        spawn(shutdown, follow(scale, members, sender.subscribe(), Arc::clone(limiter)));
    }
    for (position, source) in sources.into_iter().enumerate() {
        let gauge = metrics.load_factor.get_or_create(&SignalLabels { signal: source.name.clone() }).clone();
        let samples = SampleCounters::new(|result| {
            metrics.load_samples.get_or_create(&SampleLabels { signal: source.name.clone(), result }).clone()
        });
        let publish = publisher(position, source.name.clone(), sender.clone(), gauge);
        spawn(shutdown, Signal { source, samples }.poll(publish));
    }
}

fn spawn(shutdown: &Shutdown, task: impl Future<Output = ()> + Send + 'static) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        tokio::select! {
            () = task => {}
            () = stop.stopped() => {}
        }
    });
}

/// Tells everyone who follows what a poll found; every poll is told, so that a store that lost its state learns it again.
fn publisher(
    position: usize,
    signal: String,
    sender: watch::Sender<Factors>,
    gauge: FloatGauge,
) -> impl Fn(Option<Factor>) + Send {
    move |factor| {
        let before = sender.borrow()[position];
        if let Some(factor) = factor {
            gauge.set(factor.as_f64());
            if before != Some(factor) {
                info!(event = "load_factor", signal, factor = factor.as_f64(), "load factor changed");
            }
        }
        sender.send_modify(|factors| factors[position] = factor);
    }
}

/// Publishes the lowest factor of a set of signals whenever one of them was polled.
async fn follow(scale: ScaleName, members: Vec<usize>, mut factors: watch::Receiver<Factors>, limiter: Arc<Limiter>) {
    while factors.changed().await.is_ok() {
        let lowest = members.iter().filter_map(|member| factors.borrow_and_update()[*member]).min();
        if let Some(factor) = lowest {
            limiter.publish(&scale, factor).await;
        }
    }
}
