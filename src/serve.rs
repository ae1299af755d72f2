//! The side that faces clients: accepts connections, holds each to its caps, and hands requests to a handler. The gate and
//! the admin listener both run on it.
//!
//! Promised: no client costs more than [`Caps`] say, in connections, bytes or time; whatever is refused here is answered in
//! the words of every other refusal (`{"error":"<code>"}`); a panic costs one request. When asked to drain, the listening
//! socket closes, idle connections close, and responses in flight are completed.
//! Not promised: that the caps hold inside a tunnel. An upgraded connection belongs to whoever upgraded it; only its place
//! among `max_connections` is still counted here. HTTP/2 has its place beside `connection`: the handler does not know
//! which protocol a request came by.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body;
use hyper::{Request, Response};
use ipnet::IpNet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    body::RequestBody,
    config,
    metrics::{CodeLabels, ListenerLabels, Metrics},
    shutdown::Shutdown,
};

mod accept;
mod connection;
mod exchange;
mod panics;
mod progress;
mod proxy_protocol;
mod refusal;
mod socket;

use accept::Backoff;
use exchange::Exchanges;
use panics::catch_panic;
use socket::{Slot, Socket};

/// Connections the kernel completes for us before we accept them; beyond it, clients retry their handshake.
const BACKLOG: u32 = 1024;

/// What one client, and all of them together, may cost.
#[derive(Debug, Clone)]
pub struct Caps {
    /// Open connections; beyond it, accepting pauses and clients wait in the kernel's backlog.
    pub max_connections: usize,
    /// Longest wait for a whole request head, from its first byte, or from the accept for the first one: 408. A head whose
    /// beginning arrived together with the previous request is timed from its next byte on.
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

/// A bound listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// What a listener counts.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    connections: Gauge,
    accept_failures: Counter,
    panics: Counter,
    rejections: Family<CodeLabels, Counter>,
}

/// Accepts connections and answers their requests by `handler` until the drain; returns as soon as the listening socket is
/// closed. The connections are tasks of `shutdown`, which waits for them and, on stop, drops what is left.
///
/// The handler gets the peer's address (IPv4 in its own form, also on an IPv6 socket) and the request. A body that fails
/// aborts its connection, so that the client never takes a short body for a whole one.
pub async fn serve<H, F, B>(listener: Listener, caps: Caps, handler: H, metrics: ListenerMetrics, shutdown: Shutdown)
where
    H: Fn(SocketAddr, Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(caps.max_connections.min(Semaphore::MAX_PERMITS)));
    let exchanges = Arc::new(Exchanges { handler, caps, metrics: metrics.clone() });
    let accepting = async {
        let mut backoff = Backoff::default();
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.0.accept().await {
                Ok((stream, peer)) => {
                    backoff = Backoff::default();
                    let mut socket = Socket::new(stream, metrics.take(place));
                    let (exchanges, ends) = (Arc::clone(&exchanges), shutdown.clone());
                    let connection = async move {
                        if let Some(peer) = proxy_protocol::client(&mut socket.stream, peer, &exchanges.caps, &ends).await {
                            connection::run(socket, peer, exchanges, ends).await;
                        }
                    };
                    shutdown.spawn(catch_panic(connection, metrics.panics.clone()));
                }
                Err(error) => {
                    metrics.accept_failures.inc();
                    if !accept::is_about_one_connection(&error) {
                        let pause = backoff.next_pause();
                        tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.draining() => {}
        () = accepting => {}
    }
}

/// An error of a response body.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === impl Caps ===

impl From<&config::Listen> for Caps {
    fn from(listen: &config::Listen) -> Self {
        Self {
            max_connections: listen.max_connections,
            header_timeout: listen.header_timeout,
            body_idle_timeout: listen.body_idle_timeout,
            idle_timeout: listen.idle_timeout,
            max_header_bytes: listen.max_header_bytes,
            max_body_bytes: listen.max_body_bytes,
            proxies: if listen.proxy_protocol { listen.trusted_proxies.clone() } else { Vec::new() },
        }
    }
}

// === impl Listener ===

impl Listener {
    /// Binds and listens; port 0 takes a free one. Must be called inside the runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the connections of the last run to leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket.listen(BACKLOG)?))
    }

    /// Where it listens, with the port that was taken.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
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
            panics: metrics.panics.clone(),
            rejections: metrics.rejections.clone(),
        }
    }

    /// Counts a connection as open for as long as the slot lives.
    fn take(&self, place: OwnedSemaphorePermit) -> Slot {
        Slot::new(place, self.connections.clone())
    }
}
