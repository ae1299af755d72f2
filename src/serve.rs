//! The side that faces clients: accepts connections, holds each to its caps, and hands requests to a handler. The gate and
//! the admin listener both run on it.
//!
//! Promised: no client costs more than [`Caps`] say, in connections, bytes or time; whatever is refused here is answered in
//! the words of every other refusal (`{"error":"<code>"}`); a panic costs one request. When asked to drain, the listening
//! socket closes, idle connections close, and responses in flight are completed.
//! Not promised: that the caps hold inside a tunnel. An upgraded connection belongs to whoever upgraded it; only its place
//! among `max_connections` is still counted here.
//!
//! The way of a connection: `accept`ed from the `listener`, it waits for a place (`overload`), says whom it comes for (`proxy_protocol`), is
//! `greet`ed (`tls`, and which protocol), and is run by `http1` or `http2`; each request is an `exchange`, whichever
//! protocol it came by.

use std::{
    net::{self, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{HeaderMap, Request};
use ipnet::IpNet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    body::RequestBody,
    code::Code,
    config,
    metrics::{CodeLabels, ListenerLabels, Metrics},
    peer::Peer,
    shutdown::Shutdown,
    workers::{Assignment, Workers},
};

mod accept;
mod exchange;
mod greet;
mod handler;
mod http1;
mod http2;
mod listener;
mod overload;
mod panics;
mod proxy_protocol;
mod refusal;
mod tls;

pub use handler::Handler;
pub use listener::Listener;
pub use tls::{ReloadMetrics, Tls, TlsError};

use accept::Backoff;
use exchange::Exchanges;
use greet::{Greeted, Protocols, greet};
use overload::{Room, Slot};
use panics::catch_panic;

/// How long a drain waits for the first request of a new connection, and for its handshake: it may be on its way, sent to us
/// because we still listened.
const LAST_CALL: Duration = Duration::from_millis(500);

/// What one client, and all of them together, may cost.
#[derive(Debug, Clone)]
pub struct Caps {
    /// Open connections; beyond it, those that idle are closed to make room, and where none does, accepting pauses and
    /// clients wait in the kernel's backlog.
    pub max_connections: usize,
    /// Requests from the call of the handler to the end of their response; beyond it, 503 at once.
    pub max_requests_in_flight: usize,
    /// Longest wait for a whole request head, from its first byte, or from the accept for the first one: 408. A head whose
    /// beginning arrived together with the previous request is timed from the end of its answer.
    pub header_timeout: Duration,
    /// Longest wait for progress on a request body (the handler gets [`Fault::Stalled`](crate::body::Fault)), and for the
    /// client to take a byte of a response (the connection is reset).
    pub body_idle_timeout: Duration,
    /// Longest wait of a kept-alive connection for its next request; then it is closed without a word.
    pub idle_timeout: Duration,
    /// Largest request head in bytes, at least 8192: 431, or 414 where the target alone is larger. A head may have 100
    /// fields.
    pub max_header_bytes: usize,
    /// Largest request body in bytes: 413 before the handler runs where the length is announced, else
    /// [`Fault::TooLarge`](crate::body::Fault) in the middle of it.
    pub max_body_bytes: u64,
    /// Peers whose connections begin with a PROXY protocol header, within `header_timeout`; others have none to send.
    pub proxies: Vec<IpNet>,
}

/// Adds to the answer to a request that is refused here what lets the page that sent it read it.
pub type Permit = Arc<dyn Fn(&Request<RequestBody>, &mut HeaderMap) + Send + Sync>;

/// Is told of each request that is refused here.
pub type Tell = Arc<dyn Fn(&Refused<'_>) + Send + Sync>;

/// A request that was refused here.
#[derive(Clone, Copy)]
pub struct Refused<'a> {
    /// Who sent it.
    pub peer: &'a Peer,
    /// The request, where its head could be read.
    pub request: Option<&'a Request<RequestBody>>,
    /// Why it was refused.
    pub code: Code,
    /// What the answer calls it.
    pub request_id: &'a str,
}

/// What a listener counts.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    connections: Gauge,
    accept_failures: Counter,
    handshake_failures: Counter,
    panics: Counter,
    rejections: Family<CodeLabels, Counter>,
}

/// What a connection needs to be served.
struct Door<H> {
    protocols: Protocols,
    exchanges: Arc<Exchanges<H>>,
    room: Arc<Room>,
    workers: Workers,
}

/// Accepts connections and answers their requests by `handler` until the drain; returns as soon as the listening socket is
/// closed. The connections are tasks of `shutdown`, which waits for them and, on stop, drops what is left.
///
/// The handler gets the peer and the request. A body that fails aborts its connection, or its stream, so that the client
/// never takes a short body for a whole one.
pub async fn serve<H: Handler>(listener: Listener, caps: Caps, handler: H, metrics: ListenerMetrics, shutdown: Shutdown) {
    let Listener { socket, protocols, permit, tell, mut changes, workers } = listener;
    let room = Arc::new(Room::new(caps.max_connections));
    let in_flight = Arc::new(Semaphore::new(caps.max_requests_in_flight.min(Semaphore::MAX_PERMITS)));
    let exchanges = Exchanges { handler, caps, metrics, permit, tell, in_flight, shutdown };
    let mut door = Arc::new(Door { protocols, exchanges: Arc::new(exchanges), room, workers });
    let mut backoff = Backoff::default();
    loop {
        let Exchanges { metrics, shutdown, .. } = &*door.exchanges;
        let accepted = tokio::select! {
            biased;
            () = shutdown.draining() => break,
            accepted = accept::accept(&socket) => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                backoff = Backoff::default();
                if let Some(changes) = changes.as_mut().filter(|changes| changes.has_changed().unwrap_or(false)) {
                    door = Arc::new(door.held_to(changes.borrow_and_update().clone()));
                }
                door.admit(stream, address).await;
            }
            Err(error) => {
                metrics.accept_failures.inc();
                if !accept::is_about_one_connection(&error) {
                    let pause = backoff.next_pause();
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                    // A drain is in no hurry: the longest pause is a second.
                    sleep(pause).await;
                }
            }
        }
    }
    // Closing the socket would reset those who stand in its queue.
    for (stream, address) in accept::backlog(socket) {
        door.admit(stream, address).await;
    }
}

// === impl Door ===

impl<H: Handler> Door<H> {
    /// The same for connections from now on, but for how many there may be.
    fn held_to(&self, caps: Caps) -> Self {
        let Exchanges { handler, caps: before, metrics, permit, tell, in_flight, shutdown } = &*self.exchanges;
        let Caps { max_connections, max_requests_in_flight, .. } = *before;
        let exchanges = Exchanges {
            handler: handler.clone(),
            caps: Caps { max_connections, max_requests_in_flight, ..caps },
            metrics: metrics.clone(),
            permit: permit.clone(),
            tell: tell.clone(),
            in_flight: Arc::clone(in_flight),
            shutdown: shutdown.clone(),
        };
        let (protocols, room, workers) = (self.protocols.clone(), Arc::clone(&self.room), self.workers.clone());
        Self { protocols, exchanges: Arc::new(exchanges), room, workers }
    }

    /// Waits for a place and has a worker serve the connection in a task of its own.
    async fn admit(self: &Arc<Self>, stream: net::TcpStream, address: SocketAddr) {
        let Exchanges { metrics, shutdown, .. } = &*self.exchanges;
        let place = tokio::select! {
            place = self.room.place() => place,
            () = shutdown.stopped() => None,
        };
        let Some(place) = place else { return };
        let assignment = self.workers.assign();
        let runtime = assignment.runtime().clone();
        let connection = Arc::clone(self).open(stream, address, metrics.take(place, assignment));
        shutdown.spawn_on(catch_panic(connection, metrics.panics.clone()), &runtime);
    }

    async fn open(self: Arc<Self>, stream: net::TcpStream, address: SocketAddr, slot: Slot) {
        let Self { exchanges, room, .. } = &*self;
        // In boxes, so that a connection that waits does not take the room that shaking hands needs, or HTTP/2.
        let Some(Greeted { stream, peer, http2 }) = Box::pin(self.receive(stream, address)).await else { return };
        if http2 {
            let shutdown = exchanges.shutdown.clone();
            Box::pin(http2::run((stream, slot), peer, Arc::clone(exchanges), room, shutdown)).await;
        } else {
            http1::run((stream, slot), peer, exchanges, room).await;
        }
    }

    /// Hears for whom the connection comes and shakes hands; none where that fails, or we are stopping.
    async fn receive(&self, stream: net::TcpStream, address: SocketAddr) -> Option<Greeted> {
        let Exchanges { caps, metrics, shutdown, .. } = &*self.exchanges;
        let registered =
            TcpStream::from_std(stream).inspect_err(|error| tracing::warn!(%error, "cannot watch a connection"));
        let mut stream = registered.ok()?;
        // Responses are written in whole pieces; waiting to fill a segment would only delay their last one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let last_call = async {
            shutdown.draining().await;
            sleep(LAST_CALL).await;
        };
        let greeting = async {
            let address = proxy_protocol::client(&mut stream, address, caps).await?;
            let greeted = timeout(caps.header_timeout, greet(stream, address, &self.protocols)).await;
            if !matches!(greeted, Ok(Ok(_))) {
                metrics.handshake_failures.inc();
            }
            greeted.ok()?.ok()
        };
        tokio::select! {
            greeted = greeting => greeted,
            () = last_call => None,
            () = shutdown.stopped() => None,
        }
    }
}

// === impl Caps ===

impl From<&config::Listen> for Caps {
    fn from(listen: &config::Listen) -> Self {
        Self {
            max_connections: listen.max_connections,
            max_requests_in_flight: listen.max_requests_in_flight,
            header_timeout: listen.header_timeout,
            body_idle_timeout: listen.body_idle_timeout,
            idle_timeout: listen.idle_timeout,
            max_header_bytes: listen.max_header_bytes,
            max_body_bytes: listen.max_body_bytes,
            proxies: if listen.proxy_protocol { listen.trusted_proxies.clone() } else { Vec::new() },
        }
    }
}

// === impl ListenerMetrics ===

impl ListenerMetrics {
    /// The handles of `listener` (`proxy` or `admin`).
    pub fn new(metrics: &Metrics, listener: &'static str) -> Self {
        let labels = ListenerLabels { listener };
        Self {
            connections: metrics.connections.get_or_create_owned(&labels),
            accept_failures: metrics.accept_failures.get_or_create_owned(&labels),
            handshake_failures: metrics.tls_handshake_failures.clone(),
            panics: metrics.panics.clone(),
            rejections: metrics.rejections.clone(),
        }
    }

    /// Counts a connection as open for as long as the slot lives.
    fn take(&self, place: OwnedSemaphorePermit, assignment: Assignment) -> Slot {
        Slot::new((place, assignment), self.connections.clone())
    }
}
