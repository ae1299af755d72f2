//! The composition root: configuration becomes parts, parts become tasks, and in the end all of it is taken down in order.
//!
//! Promised: sockets are bound before anything runs, so that a port that is taken is an error of the start and a test may
//! ask for port 0; neither Redis nor an upstream needs to be there. Taking down: the data plane drains first, up to
//! `drain_timeout`, and leaves polling to other replicas; the limiter and the admin listener, which says so, end after it.

use std::{
    io,
    net::{self, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use hyper::Request;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::warn;

use crate::{
    admin::{Admin, Subjects},
    body::RequestBody,
    config::{Config, ConfigError, Listen, Loaded},
    gate::access::Access,
    limiter::Limiter,
    metrics::Metrics,
    peer::Peer,
    serve::{Caps, Listener, ListenerMetrics, ReloadMetrics, Tls, TlsError, serve},
    shutdown::Shutdown,
    upstream::UpstreamSetupError,
    workers::Workers,
};

mod access;
mod check;
mod desk;
pub mod egress;
mod fixed;
mod parts;
mod reload;
pub mod replay;
mod traces;

pub use check::check;
pub use fixed::Held;
pub use reload::{ReloadError, Reloaded, Reloads};

use desk::Desk;
use parts::{Generation, Lasting, Parts};
use reload::{Asked, Current, Reader, Reloading};

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
    parts: Parts,
    metrics: Arc<Metrics>,
    access: Option<Arc<Access>>,
    /// Ends what outlives the data plane.
    background: Shutdown,
    read: Reader,
    reloads: (Reloads, mpsc::Receiver<Asked>),
    workers: Workers,
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
    /// An access log that cannot be written.
    #[error("log.access.to: {0}")]
    AccessLog(io::Error),
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
        let tracer = traces::start(&config.telemetry, &metrics, &background)?;
        let access = Access::open(&config, tracer, &metrics.log_dropped).map_err(StartError::AccessLog)?;
        let parts = Parts::make(&config, None, &metrics)?;
        let limiter = Limiter::start(&config.store, &metrics, &background);
        let limiter = Arc::new(limiter.map_err(|cause| StartError::client("store", cause))?);
        let same = config.clone();
        let read = move || Ok(Loaded { config: same.clone(), warnings: Vec::new(), origin: String::new() });
        Ok(Self {
            config,
            proxy,
            proxy_address,
            tls,
            admin,
            admin_address,
            limiter,
            parts,
            metrics,
            access,
            background,
            read: Arc::new(read),
            reloads: reload::channel(),
            workers: Workers::alone(),
        })
    }

    /// The same, but a reload reads the configuration by `read`; without it, it stays what it is.
    #[must_use]
    pub fn rereading(self, read: impl Fn() -> Result<Loaded, ConfigError> + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), ..self }
    }

    /// The same, but clients are served by `workers`, and not by the thread alone that this is called on.
    #[must_use]
    pub fn served_by(self, workers: Workers) -> Self {
        Self { workers, ..self }
    }

    /// Asks for reloads while the daemon runs.
    pub fn reloads(&self) -> Reloads {
        self.reloads.0.clone()
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
        let Self { config, proxy, tls, admin, limiter, parts, metrics, access, background, read, reloads, workers, .. } =
            self;
        let (reloads, asked) = reloads;
        spawn_reloads(tls, &metrics, &background);
        let lasting = Lasting::start(limiter, Arc::clone(&metrics), access, &shutdown, &background);
        let floods = Arc::clone(&lasting.floods);

        let subjects = Subjects {
            limiter: Arc::clone(&lasting.limiter),
            clients: Arc::clone(&lasting.clients),
            metrics: Arc::clone(&metrics),
            shutdown: shutdown.clone(),
            background: background.clone(),
        };
        let listen = config.listen.clone();
        let generation = Generation::begin(config, parts, &lasting);
        let current: Current = Arc::new(ArcSwap::from_pointee(generation));
        let desk = Desk { current: Arc::clone(&current), clients: Arc::clone(&lasting.clients), reloads };
        let operators = Admin::new(&current.load().config, desk, subjects);
        spawn_observer(&operators, &background);
        let (caps, changes) = watch::channel(Caps::from(&listen));
        spawn_admin(admin, &listen, operators.clone(), &metrics, &background);
        let proxy = proxy.served_by(workers).following(changes).telling(lasting.access.clone().map(access::tell));
        spawn_proxy(proxy, &listen, &current, &metrics, &shutdown);
        let reloading = Reloading { read, current: Arc::clone(&current), lasting, operators, caps };
        let stop = background.clone();
        background.spawn(async move {
            tokio::select! {
                () = reloading.serve(asked) => {}
                () = stop.stopped() => {}
            }
        });

        shutdown.leaving().await;
        let listen = current.load().config.listen.clone();
        leave(&listen, &shutdown).await;
        drain(&listen, &shutdown).await;
        background.stop();
        background.finished().await;
        floods.write_sums();
    }
}

fn spawn_admin(listener: Listener, listen: &Listen, operators: Admin<Desk>, metrics: &Metrics, background: &Shutdown) {
    let answer = move |peer: Peer, request: Request<RequestBody>| {
        let operators = operators.clone();
        async move { operators.handle(peer.address, request).await }
    };
    let caps = Caps { max_connections: MAX_ADMIN_CONNECTIONS, proxies: Vec::new(), ..Caps::from(listen) };
    background.spawn(serve(listener, caps, answer, ListenerMetrics::new(metrics, "admin"), background.clone()));
}

fn spawn_proxy(listener: Listener, listen: &Listen, current: &Current, metrics: &Metrics, shutdown: &Shutdown) {
    let below = Arc::clone(current);
    let listener = listener.permitting(Arc::new(move |request, headers| below.load().gate.permit(request, headers)));
    let current = Arc::clone(current);
    let handle = move |peer, request| {
        let generation = current.load_full();
        async move { generation.gate.handle(peer, request).await }
    };
    let metrics = ListenerMetrics::new(metrics, "proxy");
    shutdown.spawn(serve(listener, Caps::from(listen), handle, metrics, shutdown.clone()));
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
        !matches!(self, Self::Bind { .. } | Self::AccessLog(_))
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

/// Serves on for `drain_delay`, while probes and answers send clients elsewhere.
async fn leave(listen: &Listen, shutdown: &Shutdown) {
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

fn spawn_observer(operators: &Admin<Desk>, background: &Shutdown) {
    let (operators, stop) = (operators.clone(), background.clone());
    background.spawn(async move {
        tokio::select! {
            () = operators.observe() => {}
            () = stop.stopped() => {}
        }
    });
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
