//! One configuration and what it became: parts that can fail to be made, and the gate that joins them.
//!
//! Promised: a part that is made of the same configuration as before, the content of the files it names included, is the same
//! part after a reload: an upstream keeps its connections, credentials keep their token. What is held by requests in flight
//! lives until they have their answer.
//! Not promised: that what a route itself keeps, such as its budget of retries, outlives a reload; who waits and who is under
//! way does.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::StartError;
use crate::{
    clients::Clients,
    config::{self, Config},
    gate::{
        Gate,
        access::Access,
        flood::Floods,
        queues::Queues,
        setup::{self, Neighbours},
    },
    limiter::{Limiter, measured::Measured},
    load::{self, Polling},
    metrics::Metrics,
    shutdown::Shutdown,
    upstream::{Credentials, Upstream},
};

/// What no reload replaces.
pub(super) struct Lasting {
    pub(super) limiter: Arc<Limiter>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clients: Arc<Clients>,
    pub(super) floods: Arc<Floods>,
    pub(super) access: Option<Arc<Access>>,
    queues: Arc<Queues>,
    polling: Polling,
    /// Ends the data plane.
    pub(super) shutdown: Shutdown,
    /// Ends what outlives it.
    pub(super) background: Shutdown,
}

/// A configuration in effect.
pub(super) struct Generation {
    pub(super) config: Config,
    pub(super) gate: Gate,
    parts: Parts,
}

/// What can fail to be made. Nothing of it runs yet.
pub(super) struct Parts {
    upstreams: Named<(config::Upstream, Duration, Files), Upstream>,
    credentials: Named<(config::OAuth, Files), Credentials>,
    /// Each with how long it outlives what follows it.
    measured: Named<(config::Latency, Duration), Measured>,
    /// Handed over as soon as they are polled.
    sources: Vec<load::Source>,
}

/// Parts by name.
type Named<R, P> = BTreeMap<String, Arc<Made<R, P>>>;

/// A part, what it was made of, and the task that serves it, which ends with it.
struct Made<R, P> {
    recipe: R,
    part: Arc<P>,
    task: OnceLock<DropGuard>,
}

/// What files hold; none where one cannot be read.
type Files = Vec<Option<Vec<u8>>>;

// === impl Lasting ===

impl Lasting {
    pub(super) fn start(
        limiter: Arc<Limiter>,
        metrics: Arc<Metrics>,
        access: Option<Arc<Access>>,
        shutdown: &Shutdown,
        background: &Shutdown,
    ) -> Self {
        let (floods, stop) = (Arc::<Floods>::default(), background.clone());
        let summing = Arc::clone(&floods);
        background.spawn(async move {
            tokio::select! {
                () = summing.sum_up() => {}
                () = stop.stopped() => {}
            }
        });
        Self {
            polling: Polling::new(Arc::clone(&limiter), shutdown.clone()),
            queues: Arc::new(Queues::new(Arc::clone(&limiter), shutdown.clone())),
            limiter,
            metrics,
            clients: Arc::default(),
            floods,
            access,
            shutdown: shutdown.clone(),
            background: background.clone(),
        }
    }
}

// === impl Parts ===

impl Parts {
    /// Makes what `config` asks for, or takes it over from `before`. Reads files.
    pub(super) fn make(config: &Config, before: Option<&Self>, metrics: &Metrics) -> Result<Self, StartError> {
        let used = config.upstreams.iter().filter(|(name, _)| config.routes.iter().any(|route| route.upstream == **name));
        let upstreams = used.map(|(name, upstream)| {
            let own = upstream.client_certificate.as_ref().map(|own| [&own.certificate, &own.key]);
            let files = contents(upstream.ca.iter().chain(own.into_iter().flatten()));
            let recipe = (upstream.clone(), config.listen.body_idle_timeout, files);
            let made = take_over(before.map(|before| &before.upstreams), name, recipe, |(upstream, body_idle, _)| {
                Upstream::new(name, upstream, *body_idle, metrics)
                    .map_err(|cause| StartError::client(&format!("upstreams.{name}"), cause))
            });
            Ok((name.clone(), made?))
        });
        let upstreams = upstreams.collect::<Result<_, StartError>>()?;
        let is_used = |name: &String| config.routes.iter().any(|route| route.credentials.as_ref() == Some(name));
        let credentials = config.oauth.iter().filter(|(name, _)| is_used(name)).map(|(name, oauth)| {
            let recipe = (oauth.clone(), contents(oauth.ca.iter()));
            let made = take_over(before.map(|before| &before.credentials), name, recipe, |(oauth, _)| {
                Credentials::new(name, oauth, metrics).map_err(|cause| StartError::client(&format!("oauth.{name}"), cause))
            });
            Ok((name.clone(), made?))
        });
        let credentials = credentials.collect::<Result<_, StartError>>()?;
        let sources = sources(config, metrics)?;
        // Last, because a new signal shows itself at once.
        let measured = config.latency.iter().filter_map(|(name, latency)| {
            let fill = setup::slowest_fill(config, name)?;
            // One that lives longer than it has to does no harm, and knows its tenants.
            let fits =
                |made: &&Arc<Made<(config::Latency, Duration), _>>| made.recipe.0 == *latency && made.recipe.1 >= fill;
            let there = before.and_then(|before| before.measured.get(name)).filter(fits);
            let new = || Made::new((latency.clone(), fill), Measured::new(name, latency, fill, metrics));
            Some((name.clone(), there.map_or_else(new, Arc::clone)))
        });
        Ok(Self { upstreams, credentials, measured: measured.collect(), sources })
    }

    /// The upstreams alone.
    pub(super) fn upstreams(&self) -> BTreeMap<String, Arc<Upstream>> {
        parts(&self.upstreams)
    }
}

/// What there is of that name if it is made of the same, else what `make` makes.
fn take_over<R: PartialEq, P>(
    before: Option<&Named<R, P>>,
    name: &str,
    recipe: R,
    make: impl FnOnce(&R) -> Result<P, StartError>,
) -> Result<Arc<Made<R, P>>, StartError> {
    if let Some(made) = before.and_then(|before| before.get(name)).filter(|made| made.recipe == recipe) {
        return Ok(Arc::clone(made));
    }
    let part = make(&recipe)?;
    Ok(Made::new(recipe, part))
}

/// What the files hold that a part is made of.
fn contents<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Files {
    files.map(|file| fs::read(file).ok()).collect()
}

fn parts<R, P>(named: &Named<R, P>) -> BTreeMap<String, Arc<P>> {
    named.iter().map(|(name, made)| (name.clone(), Arc::clone(&made.part))).collect()
}

// === impl Made ===

impl<R, P> Made<R, P> {
    fn new(recipe: R, part: P) -> Arc<Self> {
        Arc::new(Self { recipe, part: Arc::new(part), task: OnceLock::new() })
    }
}

// === impl Generation ===

impl Generation {
    /// Begins to run what is new among `parts`, and joins them.
    pub(super) fn begin(config: Config, mut parts: Parts, lasting: &Lasting) -> Self {
        let Lasting { limiter, metrics, clients, floods, access, queues, polling, shutdown, background } = lasting;
        polling.adopt(std::mem::take(&mut parts.sources), scales(&config), metrics);
        for made in parts.credentials.values() {
            let (credentials, stop) = (Arc::clone(&made.part), background.clone());
            let fetching = async move { credentials.keep_fresh().await };
            made.task.get_or_init(|| spawn(fetching, async move { stop.stopped().await }, background));
        }
        for made in parts.measured.values() {
            let (telling, stop) = (Arc::clone(&made.part).keep_telling(Arc::clone(limiter)), shutdown.clone());
            made.task.get_or_init(|| spawn(telling, async move { stop.draining().await }, shutdown));
        }
        let neighbours = Neighbours {
            limiter: Arc::clone(limiter),
            upstreams: parts.upstreams(),
            credentials: self::parts(&parts.credentials),
            measured: self::parts(&parts.measured),
            floods: Arc::clone(floods),
            clients: Arc::clone(clients),
            queues: Arc::clone(queues),
            shutdown: shutdown.clone(),
            access: access.clone(),
        };
        let gate = setup::gate(&config, neighbours, metrics);
        Self { config, gate, parts }
    }

    /// What a next configuration may take over.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }
}

/// Runs a task until the guard is dropped, or `stop` comes.
fn spawn(
    task: impl Future<Output = ()> + Send + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
    shutdown: &Shutdown,
) -> DropGuard {
    let ended = CancellationToken::new();
    let end = ended.clone();
    shutdown.spawn(async move {
        tokio::select! {
            () = task => {}
            () = stop => {}
            () = end.cancelled() => {}
        }
    });
    ended.drop_guard()
}

/// The scales that limits follow, with the signals of each.
fn scales(config: &Config) -> load::Scales {
    let limits = config.routes.iter().flat_map(|route| &route.limits);
    let scale = |limit: &config::RouteLimit| {
        let signals = setup::polled_signals(config, &limit.limit).map(str::to_owned).collect();
        Some((setup::scale_name(config, &limit.limit)?, signals))
    };
    limits.filter_map(scale).collect()
}

/// The signals that have an endpoint, each with a client of its own that holds one connection.
fn sources(config: &Config, metrics: &Metrics) -> Result<Vec<load::Source>, StartError> {
    let polled = config.load.iter().filter_map(|(name, load)| Some((name, load, load.endpoint.as_ref()?)));
    polled
        .map(|(name, load, endpoint)| {
            let upstream = config::Upstream {
                url: endpoint.origin.clone(),
                connect_timeout: load.timeout,
                response_timeout: load.timeout,
                idle_timeout: load.interval * 2,
                max_connections: 1,
                http2: config::Http2::Off,
                ca: None,
                client_certificate: None,
            };
            let label = format!("load.{name}");
            let client = Upstream::new(&label, &upstream, load.timeout, metrics);
            let client = client.map_err(|cause| StartError::client(&label, cause))?;
            let path_and_query = endpoint.path_and_query.clone();
            Ok(load::Source { name: name.clone(), config: load.clone(), path_and_query, endpoint: Arc::new(client) })
        })
        .collect()
}
