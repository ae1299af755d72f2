//! The composition root: configuration becomes parts, parts become tasks, and in the end all of it is taken down in order.
//!
//! Promised: sockets are bound before anything runs, so that a port that is taken is an error of the start and a test may
//! ask for port 0; neither Redis nor an upstream needs to be there. Taking down: the data plane drains first, up to
//! `drain_timeout`, and leaves polling to other replicas; the limiter and the admin listener, which says so, end after it.

use std::{
    collections::BTreeMap,
    io,
    net::{self, SocketAddr},
    sync::Arc,
};

use hyper::Request;
use tokio::time::timeout;
use tracing::warn;

use crate::{
    admin::{Admin, Subjects},
    body::RequestBody,
    clients::Clients,
    config::{self, Config, Listen},
    gate::{
        flood::Floods,
        setup::{self, Neighbours},
    },
    limiter::{Limiter, measured::Measured},
    load,
    metrics::Metrics,
    peer::Peer,
    serve::{Caps, Listener, ListenerMetrics, ReloadMetrics, Tls, TlsError, serve},
    shutdown::Shutdown,
    upstream::{Credentials, Upstream, UpstreamSetupError},
};

mod check;
mod desk;
pub mod egress;

pub use check::check;
use desk::Desk;

/// Connections the admin listener holds: probes, a scraper, a few people.
const MAX_ADMIN_CONNECTIONS: usize = 64;

/// The daemon, bound and ready to run.
pub struct App {
    config: Config,
    proxy: Listener,
    proxy_address: SocketAddr,
    tls: Option<Arc<Tls>>,
    admin: Listener,
    admin_address: SocketAddr,
    limiter: Arc<Limiter>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    credentials: BTreeMap<String, Arc<Credentials>>,
    sources: Vec<load::Source>,
    metrics: Arc<Metrics>,
    /// Ends what outlives the data plane.
    background: Shutdown,
}

/// Listening sockets that whoever started the process had bound before; what is missing is bound as configured.
#[derive(Debug, Default)]
pub struct Inherited {
    /// In place of `listen.address`.
    pub proxy: Option<net::TcpListener>,
    /// In place of `admin.address`.
    pub admin: Option<net::TcpListener>,
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be listened on.
    #[error("{key} = \"{address}\": {cause}")]
    Bind {
        /// The key that names it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// A certificate that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A server that cannot be connected to in the way that is configured.
    #[error("{key}: {cause}")]
    Client {
        /// The key, or the table, that is at fault.
        key: String,
        /// Why.
        cause: UpstreamSetupError,
    },
}

impl App {
    /// Binds both listeners, makes the upstreams and begins to connect to the store.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_or_inherit(config, Inherited::default())
    }

    /// The same, but listens on the sockets that are there already.
    pub fn bind_or_inherit(config: Config, inherited: Inherited) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::default());
        let background = Shutdown::default();
        let tls = config.listen.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let reuse_port = config.listen.reuse_port;
        let (proxy, proxy_address) = bind("listen.address", config.listen.address, reuse_port, inherited.proxy)?;
        let proxy = proxy.speaking(tls.clone(), config.listen.h2c);
        let (admin, admin_address) = bind("admin.address", config.admin.address, reuse_port, inherited.admin)?;
        let upstreams = upstreams(&config, &metrics)?;
        let credentials = credentials(&config, &metrics)?;
        let sources = sources(&config, &metrics)?;
        let limiter = Limiter::start(&config.store, &metrics, &background);
        let limiter = Arc::new(limiter.map_err(|cause| StartError::client("store", cause))?);
        Ok(Self {
            config,
            proxy,
            proxy_address,
            tls,
            admin,
            admin_address,
            limiter,
            upstreams,
            credentials,
            sources,
            metrics,
            background,
        })
    }

    /// Where clients reach the daemon.
    pub fn proxy_address(&self) -> SocketAddr {
        self.proxy_address
    }

    /// Where operators reach it.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Runs until `shutdown` drains and everything has ended.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { config, proxy, tls, admin, limiter, upstreams, credentials, sources, metrics, background, .. } = self;
        load::start(sources, scales(&config), &limiter, &metrics, &shutdown);
        let measured = measure(&config, &limiter, &metrics, &shutdown);
        keep_fresh(&credentials, &background);
        let (floods, clients) = (Arc::<Floods>::default(), Arc::<Clients>::default());
        spawn_sums(&floods, &background);
        spawn_reloads(tls, &metrics, &background);

        let subjects = Subjects {
            limiter: Arc::clone(&limiter),
            clients: Arc::clone(&clients),
            metrics: Arc::clone(&metrics),
            shutdown: shutdown.clone(),
        };
        let neighbours = Neighbours {
            limiter,
            upstreams,
            credentials,
            measured,
            floods: Arc::clone(&floods),
            clients,
            shutdown: shutdown.clone(),
        };
        let gate = setup::gate(&config, neighbours, &metrics);

        let desk = Desk { gate: gate.clone(), clients: Arc::clone(&subjects.clients) };
        let operators = Admin::new(&config, desk, subjects);
        let answer = move |peer: Peer, request: Request<RequestBody>| {
            let operators = operators.clone();
            async move { operators.handle(peer.address, request).await }
        };
        let caps = Caps { max_connections: MAX_ADMIN_CONNECTIONS, proxies: Vec::new(), ..Caps::from(&config.listen) };
        background.spawn(serve(admin, caps, answer, ListenerMetrics::new(&metrics, "admin"), background.clone()));

        let caps = Caps::from(&config.listen);
        let below = gate.clone();
        let proxy = proxy.permitting(Arc::new(move |request, headers| below.permit(request, headers)));
        let handle = move |peer, request| {
            let gate = gate.clone();
            async move { gate.handle(peer, request).await }
        };
        shutdown.spawn(serve(proxy, caps, handle, ListenerMetrics::new(&metrics, "proxy"), shutdown.clone()));

        leave(&config.listen, &shutdown).await;
        drain(&config.listen, &shutdown).await;
        background.stop();
        background.finished().await;
        floods.write_sums();
    }
}

// === impl StartError ===

impl StartError {
    /// What `cause` is to the configuration: a mistake at a key of `table`.
    fn client(table: &str, cause: impl Into<UpstreamSetupError>) -> Self {
        let cause = cause.into();
        let key = match &cause {
            UpstreamSetupError::Tls(cause) => cause.key(),
            UpstreamSetupError::Host(_) => None,
        };
        Self::Client { key: key.map_or_else(|| table.to_owned(), |key| format!("{table}.{key}")), cause }
    }

    /// Whether the configuration is at fault, and not what happens to be where it runs.
    pub fn is_of_configuration(&self) -> bool {
        !matches!(self, Self::Bind { .. })
    }
}

fn bind(
    key: &'static str,
    address: SocketAddr,
    reuse_port: bool,
    inherited: Option<net::TcpListener>,
) -> Result<(Listener, SocketAddr), StartError> {
    let listener = inherited.map_or_else(|| Listener::bind(address, reuse_port), Listener::inherit);
    let listener = listener.and_then(|listener| Ok((listener.local_address()?, listener)));
    let (local_address, listener) = listener.map_err(|cause| StartError::Bind { key, address, cause })?;
    Ok((listener, local_address))
}

/// Serves on for `drain_delay` once it is asked to leave, while probes and answers send clients elsewhere.
async fn leave(listen: &Listen, shutdown: &Shutdown) {
    shutdown.leaving().await;
    // Whoever is in a hurry drains or stops at once.
    let _ = timeout(listen.drain_delay, shutdown.draining()).await;
    shutdown.drain();
}

/// Lets requests in flight finish, up to `drain_timeout`.
async fn drain(listen: &Listen, shutdown: &Shutdown) {
    if timeout(listen.drain_timeout, shutdown.finished()).await.is_err() {
        warn!(event = "drain_timeout", "requests still in flight are dropped");
        shutdown.stop();
        shutdown.finished().await;
    }
}

fn spawn_sums(floods: &Arc<Floods>, background: &Shutdown) {
    let (floods, stop) = (Arc::clone(floods), background.clone());
    background.spawn(async move {
        tokio::select! {
            () = floods.sum_up() => {}
            () = stop.stopped() => {}
        }
    });
}

fn keep_fresh(credentials: &BTreeMap<String, Arc<Credentials>>, background: &Shutdown) {
    for credentials in credentials.values() {
        let (credentials, stop) = (Arc::clone(credentials), background.clone());
        background.spawn(async move {
            tokio::select! {
                () = credentials.keep_fresh() => {}
                () = stop.stopped() => {}
            }
        });
    }
}

/// The credentials that routes use, each with a client of its own.
fn credentials(config: &Config, metrics: &Metrics) -> Result<BTreeMap<String, Arc<Credentials>>, StartError> {
    let used =
        config.oauth.iter().filter(|(name, _)| config.routes.iter().any(|route| route.credentials.as_ref() == Some(*name)));
    used.map(|(name, oauth)| {
        let credentials = Credentials::new(name, oauth, metrics);
        let credentials = credentials.map_err(|cause| StartError::client(&format!("oauth.{name}"), cause))?;
        Ok((name.clone(), Arc::new(credentials)))
    })
    .collect()
}

fn spawn_reloads(tls: Option<Arc<Tls>>, metrics: &Metrics, background: &Shutdown) {
    let Some(tls) = tls else { return };
    let (metrics, stop) = (ReloadMetrics::new(metrics), background.clone());
    background.spawn(async move {
        tokio::select! {
            never = tls.keep_fresh(&metrics) => match never {},
            () = stop.stopped() => {}
        }
    });
}

fn upstreams(config: &Config, metrics: &Metrics) -> Result<BTreeMap<String, Arc<Upstream>>, StartError> {
    let used = config.upstreams.iter().filter(|(name, _)| config.routes.iter().any(|route| route.upstream == **name));
    used.map(|(name, upstream)| {
        let upstream = Upstream::new(name, upstream, config.listen.body_idle_timeout, metrics);
        let upstream = upstream.map_err(|cause| StartError::client(&format!("upstreams.{name}"), cause))?;
        Ok((name.clone(), Arc::new(upstream)))
    })
    .collect()
}

/// The measured signals, which tell the store what they learn until `shutdown` drains.
fn measure(
    config: &Config,
    limiter: &Arc<Limiter>,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> BTreeMap<String, Arc<Measured>> {
    let measured = setup::measured(config, metrics);
    for signal in measured.values() {
        Measured::start(signal, limiter, shutdown);
    }
    measured
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
