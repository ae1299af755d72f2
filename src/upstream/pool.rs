//! The connections to one upstream: kept after use, bounded in number, closed when unused for too long.
//!
//! A permit belongs to every exchange, and with it to every connection of HTTP/1 in use. Resting ones need none. They rest with
//! the [worker](crate::workers) that used them, and it is to use them again; but where a new connection would be one too many,
//! that of another worker is taken, or closed, so that in use and at rest together never exceed the permits. Exchanges of HTTP/2
//! share connections, see [`multiplexed`](super::multiplexed); those that ask to switch protocols need HTTP/1.1.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::{Request, Response, header::HeaderValue};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    UpstreamError,
    connect::{Connected, Connector},
    failure::{Failure, ResponseFault},
    http1,
    multiplexed::{Multiplexed, Stream as SharedStream},
    open::Open,
    upload::UploadWatch,
};
use crate::{alarm::Alarm, body::RequestBody, config, stream::Tunnel, wire::fields::FieldLines, workers};

#[cfg(test)]
mod tests;

/// How often those that rest are looked at: nobody else would notice that their upstream has closed them.
const LOOK: Duration = Duration::from_secs(1);

/// Workers whose connections rest apart from each other; beyond it two of them share a shelf, and nothing else changes.
const SHELVES: usize = 64;

/// Connections to one upstream.
pub(super) struct Pool {
    connector: Connector,
    connect_timeout: Duration,
    idle_timeout: Duration,
    permits: Arc<Semaphore>,
    open: Gauge,
    /// By the worker that watches them.
    shelves: [Shelf; SHELVES],
    /// `None` where the upstream is not spoken to by HTTP/2.
    shared: Option<Multiplexed>,
}

/// What one exchange goes over.
pub(super) enum Lease {
    /// A connection of its own.
    Http1(Box<Connection>),
    /// A stream among others.
    Http2(Box<SharedStream>),
}

/// A connection of HTTP/1, for one exchange or at rest. Dropped before it is given back, it is closed, whatever it is doing.
pub(super) struct Connection {
    http: http1::Connection,
    /// While it is leased; given back after the connection is closed, and not while it rests.
    permit: Option<OwnedSemaphorePermit>,
    pool: Weak<Pool>,
    alarm: Alarm,
    reused: bool,
}

/// Connections at rest. On cache lines of its own, because those beside it are another processor's.
#[derive(Default)]
#[repr(align(128))]
struct Shelf(Mutex<Resting>);

#[derive(Default)]
struct Resting {
    /// Longest unused in front. The last one in is the first to go out, so that those not needed grow old.
    connections: VecDeque<(Instant, Box<Connection>)>,
    /// Whether a task is there to look at them.
    swept: bool,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(connector: Connector, config: &config::Upstream, open: Gauge) -> Self {
        Self {
            shared: connector.may_speak_http2().then(|| Multiplexed::new(config)),
            connector,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            permits: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            open,
            shelves: std::array::from_fn(|_| Shelf::default()),
        }
    }

    /// A stream or a kept connection if there is one, else a fresh one. Waits for at most the connect time-out. An exchange
    /// that asks to switch protocols gets a connection.
    pub(super) async fn lease(self: &Arc<Self>, switches: bool) -> Result<Lease, UpstreamError> {
        let now = Instant::now();
        let deadline = now + self.connect_timeout;
        let permit = self.permit(deadline).await?;
        let shared = self.shared.as_ref().filter(|shared| !switches && !shared.is_declined());
        if let Some(shared) = shared {
            return Box::pin(self.share(shared, permit, deadline)).await;
        }
        while let Some(mut connection) = self.take_rested(now) {
            if connection.http.listen().await.is_ok() {
                connection.permit = Some(permit);
                connection.reused = true;
                return Ok(Lease::Http1(connection));
            }
        }
        // In a box, so that requests that need no new connection do not take the room that this does.
        Box::pin(self.connect(permit, !switches, deadline)).await
    }

    /// The same, but no connection that rests, because one of them was found dead.
    pub(super) async fn fresh(self: &Arc<Self>, switches: bool) -> Result<Lease, UpstreamError> {
        let deadline = Instant::now() + self.connect_timeout;
        let permit = self.permit(deadline).await?;
        let shared = self.shared.as_ref().filter(|shared| !switches && !shared.is_declined());
        if let Some(shared) = shared {
            return Box::pin(self.share(shared, permit, deadline)).await;
        }
        self.connect(permit, !switches, deadline).await
    }

    /// A stream of a connection that there is, or else of a new one.
    async fn share(
        self: &Arc<Self>,
        shared: &Multiplexed,
        mut permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Lease, UpstreamError> {
        permit = match shared.stream(permit) {
            Ok(stream) => return Ok(Lease::Http2(Box::new(stream))),
            Err(permit) => permit,
        };
        // One connects for all who wait: they would make a connection each, and fill none.
        let turn = timeout_at(deadline, shared.turn()).await.map_err(|_| UpstreamError::ConnectTimeout)?;
        permit = match shared.stream(permit) {
            Ok(stream) => return Ok(Lease::Http2(Box::new(stream))),
            Err(permit) => permit,
        };
        if shared.is_declined() {
            drop(turn);
        }
        self.connect(permit, true, deadline).await
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, UpstreamError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        match timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy),
        }
    }

    async fn connect(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        offer_http2: bool,
        deadline: Instant,
    ) -> Result<Lease, UpstreamError> {
        self.make_room();
        let Connected { stream, http2 } = self.connector.connect(offer_http2, deadline).await?;
        let open = Open::new(&self.open);
        if let Some(shared) = self.shared.as_ref().filter(|_| offer_http2) {
            shared.decline(!http2);
            if http2 {
                return Ok(Lease::Http2(Box::new(shared.add(stream, open, permit, deadline).await?)));
            }
        }
        let mut http = http1::Connection::new(stream, open);
        http.listen().await.map_err(|error| UpstreamError::Protocol(Box::new(error)))?;
        let (pool, permit) = (Arc::downgrade(self), Some(permit));
        Ok(Lease::Http1(Box::new(Connection { http, permit, pool, alarm: Alarm::default(), reused: false })))
    }

    fn take_rested(&self, now: Instant) -> Option<Box<Connection>> {
        let own = self.shelves[shelf_of_worker()].lock().connections.pop_back();
        let (unused_until, connection) = own.or_else(|| self.take_from_others())?;
        (unused_until > now).then_some(connection)
    }

    fn put(self: &Arc<Self>, connection: Box<Connection>) {
        let shelf = shelf_of_worker();
        let mut resting = self.shelves[shelf].lock();
        resting.connections.push_back((Instant::now() + self.idle_timeout, connection));
        if !resting.swept {
            resting.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), shelf));
        }
    }

    fn take_from_others(&self) -> Option<(Instant, Box<Connection>)> {
        let mut shelves = self.shelves.iter();
        if self.excess() > 0 { shelves.find_map(|shelf| shelf.lock().connections.pop_back()) } else { None }
    }

    /// Closes connections at rest that would be too many, on each shelf those first that rest for longest.
    fn make_room(&self) {
        for _ in 0..self.excess() {
            drop(self.shelves.iter().find_map(|shelf| shelf.lock().connections.pop_front()));
        }
    }

    /// How many connections at rest would be too many once all who have a permit also have a connection. Because whoever makes
    /// one has its permit before, and is counted as both while it comes and goes, this is never too few.
    fn excess(&self) -> usize {
        let resting: usize = self.shelves.iter().map(|shelf| shelf.lock().connections.len()).sum();
        resting.saturating_sub(self.permits.available_permits())
    }

    /// Closes what is too old, or was closed by the upstream, and says when to come again: not at all when nothing is left.
    fn close_unused(&self, shelf: usize) -> Option<Instant> {
        let mut resting = self.shelves[shelf].lock();
        let now = Instant::now();
        resting.connections.retain_mut(|(unused_until, connection)| *unused_until > now && connection.http.is_resting());
        let next = resting.connections.front().map(|(unused_until, _)| (now + LOOK).min(*unused_until));
        resting.swept = next.is_some();
        next
    }
}

/// Where the connections rest that the worker who asks has used.
fn shelf_of_worker() -> usize {
    workers::current() % SHELVES
}

/// Runs while connections rest on a shelf; it holds the pool only for moments, so that it does not outlive it for longer than that.
async fn sweep(pool: Weak<Pool>, shelf: usize) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_unused(shelf)) {
        sleep_until(next).await;
    }
}

// === impl Shelf ===

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lease ===

impl Lease {
    /// Begins the exchange: takes the body of a request, and leaves its head, beside which `fields` go. By HTTP/1 it is for `host`.
    pub(super) fn begin(
        &mut self,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
        host: &HeaderValue,
        watch: Option<UploadWatch>,
    ) -> Result<(), Failure> {
        match self {
            Self::Http1(connection) => connection.http.begin(request, fields, host, watch),
            Self::Http2(stream) => stream.begin(request, fields, watch)?,
        }
        Ok(())
    }

    /// The head of the response; the body comes from [`Self::poll_frame`].
    pub(super) fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Failure>> {
        match self {
            Self::Http1(connection) => connection.http.poll_response(context),
            Self::Http2(stream) => stream.poll_response(context),
        }
    }

    /// For the time that the head may take.
    pub(super) fn alarm(&mut self) -> &mut Alarm {
        match self {
            Self::Http1(connection) => &mut connection.alarm,
            Self::Http2(stream) => &mut stream.alarm,
        }
    }

    /// The next piece of the response's body.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match self {
            Self::Http1(connection) => connection.http.poll_frame(context),
            Self::Http2(stream) => stream.poll_frame(context),
        }
    }

    /// Whether the response is whole.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.http.is_over(),
            Self::Http2(stream) => stream.is_over(),
        }
    }

    /// How much of the response's body is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(connection) => connection.http.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }

    /// Whether the connection had been used before, and so may have been closed by the upstream meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.reused,
            Self::Http2(stream) => stream.is_reused(),
        }
    }

    /// Whether the connection carries other exchanges too, by HTTP/2.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The response is whole; the connection may serve another request.
    pub(super) fn give_back(self) {
        if let Self::Http1(mut connection) = self
            && connection.http.may_serve()
            && let Some(pool) = connection.pool.upgrade()
        {
            // Given back only once the connection rests, so that whoever waited for it finds it.
            let permit = connection.permit.take();
            connection.http.rest();
            pool.put(connection);
            drop(permit);
        }
    }

    /// The connection as a tunnel, which keeps its place for as long as it lives; streams cannot become one.
    pub(super) fn into_tunnel(self) -> Option<Tunnel> {
        match self {
            Self::Http1(connection) => {
                let Connection { http, permit, .. } = *connection;
                Some(http.into_tunnel(permit))
            }
            Self::Http2(_) => None,
        }
    }
}
