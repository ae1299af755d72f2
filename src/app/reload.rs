//! Reading the configuration anew, and having everything that can change follow it, at once and without losing a request.
//!
//! Promised: one reload at a time, in the order they are asked for. A configuration with a mistake in it changes nothing, and
//! is told of with every mistake. New requests meet the new configuration; those in flight and open sockets end under the one
//! they began with, and open connections keep the caps they were accepted under. Counters go on; buckets are kept, because
//! their names are, and so is who waits for them, and how many are under way on a route that bounds that. Keys that need a restart keep their value and are named ([`Held`]). While the daemon leaves, nothing is
//! reloaded.
//! Not promised: that the series of a route that is gone end; they stay as they are until the restart.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{
    StartError,
    fixed::{Held, hold_back},
    parts::{Generation, Lasting, Parts},
};
use crate::{
    admin::{Admin, engine::Engine},
    config::{ConfigError, Loaded},
    metrics::{CredentialsLabels, Metrics, ReloadLabels, SignalLabels},
    serve::Caps,
};

/// Reloads that may be waiting; beyond it, whoever asks waits to ask.
const WAITING_MAX: usize = 16;

/// Reads the configuration.
pub(super) type Reader = Arc<dyn Fn() -> Result<Loaded, ConfigError> + Send + Sync>;

/// The generation that new requests meet.
pub(super) type Current = Arc<ArcSwap<Generation>>;

/// Asks for reloads. Cheap to clone.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<Asked>);

/// Where the outcome of a reload goes.
pub(super) type Asked = oneshot::Sender<Result<Reloaded, ReloadError>>;

/// A reload that was done.
#[derive(Debug)]
pub struct Reloaded {
    /// The revision before.
    pub before: String,
    /// The revision in effect.
    pub revision: String,
    /// What needs a restart.
    pub held: Vec<Held>,
}

/// Why nothing was reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The daemon is on its way out.
    #[error("the daemon drains")]
    Draining,
    /// The configuration has mistakes.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// Something that it names cannot be used.
    #[error(transparent)]
    Unusable(#[from] StartError),
    /// A defect in cxgate.
    #[error("the reload broke off; please report this")]
    Broken,
}

/// Reloads, and tells everyone concerned.
pub(super) struct Reloading<E> {
    pub(super) read: Reader,
    pub(super) current: Current,
    pub(super) lasting: Lasting,
    pub(super) operators: Admin<E>,
    pub(super) caps: watch::Sender<Caps>,
}

/// What is counted.
struct Counts {
    good: Counter,
    bad: Counter,
}

/// Where reloads are asked for, and where that is heard.
pub(super) fn channel() -> (Reloads, mpsc::Receiver<Asked>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Reloads(sender), receiver)
}

// === impl Reloads ===

impl Reloads {
    /// Reloads, after those that were asked for before, and says what came of it.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let (sender, outcome) = oneshot::channel();
        // Nobody hears any more where the daemon has ended.
        self.0.send(sender).await.map_err(|_| ReloadError::Draining)?;
        outcome.await.unwrap_or(Err(ReloadError::Draining))
    }
}

// === impl Reloading ===

impl<E: Engine> Reloading<E> {
    /// Does what is asked for, for ever.
    pub(super) async fn serve(&self, mut asked: mpsc::Receiver<Asked>) {
        let metrics = &self.lasting.metrics;
        let counts = Counts::new(metrics);
        note_success(metrics);
        while let Some(asked) = asked.recv().await {
            let outcome = self.reload().await;
            match &outcome {
                Ok(Reloaded { before, revision, held }) => {
                    counts.good.inc();
                    note_success(metrics);
                    for Held { key, running, wanted } in held {
                        warn!(
                            event = "config_restart_needed",
                            key, running, wanted, "this key changes with a restart alone"
                        );
                    }
                    let held = held.len();
                    info!(event = "config_reloaded", before, revision, restart_needed = held, "configuration reloaded");
                }
                Err(ReloadError::Draining) => warn!(event = "reload_refused", "nothing is reloaded while the daemon drains"),
                Err(error) => {
                    counts.bad.inc();
                    metrics.config_last_reload_successful.set(0);
                    warn!(event = "config_reload_failed", %error, "the configuration stays as it was");
                }
            }
            // Whoever asked need not wait for it.
            let _ = asked.send(outcome);
        }
    }

    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        if self.lasting.shutdown.is_leaving() {
            return Err(ReloadError::Draining);
        }
        let before = self.current.load_full();
        let (read, metrics) = (Arc::clone(&self.read), Arc::clone(&self.lasting.metrics));
        // Files are read and authorities are parsed, while requests go on.
        let prepared = tokio::task::spawn_blocking(move || {
            let Loaded { mut config, warnings, .. } = read()?;
            let held = hold_back(&before.config, &mut config);
            let parts = Parts::make(&config, Some(before.parts()), &metrics)?;
            Ok::<_, ReloadError>((config, parts, warnings, held, before.config.revision()))
        });
        let (config, parts, warnings, held, before) = prepared.await.map_err(|_| ReloadError::Broken)??;
        for warning in warnings {
            warn!(event = "config_warning", "{warning}");
        }
        let revision = config.revision();
        self.switch(Generation::begin(config, parts, &self.lasting));
        Ok(Reloaded { before, revision, held })
    }

    fn switch(&self, generation: Generation) {
        let (config, generation) = (generation.config.clone(), Arc::new(generation));
        let before = self.current.swap(generation);
        // What was empty under the limits before need not be under these.
        self.lasting.limiter.forget_refusals();
        self.lasting.clients.retain(|route, limit| {
            let mut routes = config.routes.iter().filter(|configured| configured.name == route);
            routes.any(|route| route.limits.iter().any(|applied| applied.limit.name == limit))
        });
        for name in before.config.oauth.keys().filter(|name| !config.oauth.contains_key(*name)) {
            let labels = CredentialsLabels { credentials: name.clone() };
            self.lasting.metrics.oauth_token_end.remove(&labels);
        }
        for name in before.config.latency.keys() {
            let labels = SignalLabels { signal: name.clone() };
            if !config.latency.contains_key(name) && !config.load.contains_key(name) {
                self.lasting.metrics.load_factor.remove(&labels);
            }
            if !config.latency.contains_key(name) {
                self.lasting.metrics.latency_tenants.remove(&labels);
            }
        }
        self.operators.adopt(&config);
        self.caps.send_replace(Caps::from(&config.listen));
    }
}

fn note_success(metrics: &Metrics) {
    metrics.config_last_reload_successful.set(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics.config_last_reload_success.set(now.as_secs_f64());
}

// === impl Counts ===

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        let counter = |result| metrics.config_reloads.get_or_create(&ReloadLabels { result }).clone();
        Self { good: counter("good"), bad: counter("bad") }
    }
}
