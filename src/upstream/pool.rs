//! The connections to one upstream: kept after use, bounded in number, closed when unused for too long.
//!
//! A permit belongs to every connection in use, and the resting ones need none: a new connection is made only when none
//! rests, so that in use and at rest together never exceed the permits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    UpstreamError,
    connect::Connector,
    socket::{Place, Socket},
    upload::Upload,
};
use crate::config;

/// Largest response head, and the most that is gathered of one connection in either direction. A head may have 100 fields.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// How long a connection taken from the pool may need until it is ready. It is so at once, or as soon as its task is done
/// with the last response; one that is not has something left to write that its upstream does not read.
const SETTLING: Duration = Duration::from_millis(100);

/// Connections to one upstream.
pub(super) struct Pool {
    connector: Connector,
    connect_timeout: Duration,
    idle_timeout: Duration,
    permits: Arc<Semaphore>,
    open: Gauge,
    resting: Mutex<Resting>,
}

/// A connection for one exchange. Dropped before it is given back, it is closed, whatever it is doing.
pub(super) struct Lease {
    pool: Weak<Pool>,
    sender: SendRequest<Upload>,
    place: Arc<Place>,
    driver: Driver,
    reused: bool,
}

/// The task that moves a connection's bytes; it ends with this, unless it was let go.
struct Driver(Option<AbortHandle>);

#[derive(Default)]
struct Resting {
    /// Longest unused in front. The last one in is the first to go out, so that those not needed grow old.
    connections: VecDeque<(Instant, Lease)>,
    /// Whether a task is there to close the old ones.
    swept: bool,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(connector: Connector, config: &config::Upstream, open: Gauge) -> Self {
        Self {
            connector,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            permits: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            open,
            resting: Mutex::default(),
        }
    }

    /// A kept connection if there is one, else a fresh one. Waits for at most the connect time-out.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, UpstreamError> {
        let deadline = Instant::now() + self.connect_timeout;
        let permit = self.permit(deadline).await?;
        while let Some(mut lease) = self.take_rested() {
            if let Ok(Ok(())) = timeout(SETTLING, lease.sender.ready()).await {
                lease.place.occupy(permit);
                lease.reused = true;
                return Ok(lease);
            }
        }
        self.connect(permit, deadline).await
    }

    /// A fresh connection. Waits for at most the connect time-out.
    pub(super) async fn fresh(self: &Arc<Self>) -> Result<Lease, UpstreamError> {
        let deadline = Instant::now() + self.connect_timeout;
        let permit = self.permit(deadline).await?;
        self.connect(permit, deadline).await
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, UpstreamError> {
        match timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy),
        }
    }

    async fn connect(self: &Arc<Self>, permit: OwnedSemaphorePermit, deadline: Instant) -> Result<Lease, UpstreamError> {
        let stream = self.connector.connect(deadline).await?;
        let place = Arc::new(Place::new(permit, self.open.clone()));
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .max_header_size(BUFFER_BYTES)
            .handshake(TokioIo::new(Socket::new(stream, Arc::clone(&place))))
            .await
            .map_err(|error| UpstreamError::Protocol(Box::new(error)))?;
        let driver = tokio::spawn(async move {
            // Whoever has an exchange on it is told by hyper; nobody misses a resting connection.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        let driver = Driver(Some(driver.abort_handle()));
        Ok(Lease { pool: Arc::downgrade(self), sender, place, driver, reused: false })
    }

    fn take_rested(&self) -> Option<Lease> {
        let (unused_until, lease) = self.resting().connections.pop_back()?;
        (unused_until > Instant::now()).then_some(lease)
    }

    fn put(self: &Arc<Self>, lease: Lease) {
        let mut resting = self.resting();
        resting.connections.push_back((Instant::now() + self.idle_timeout, lease));
        if !resting.swept {
            resting.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what is too old, and says when to come again: not at all when nothing is left.
    fn close_unused(&self) -> Option<Instant> {
        let mut resting = self.resting();
        let now = Instant::now();
        while resting.connections.pop_front_if(|(unused_until, _)| *unused_until <= now).is_some() {}
        let next = resting.connections.front().map(|(unused_until, _)| *unused_until);
        resting.swept = next.is_some();
        next
    }

    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs while connections rest; it holds the pool only for moments, so that it does not outlive it for longer than that.
async fn sweep(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_unused()) {
        sleep_until(next).await;
    }
}

// === impl Lease ===

impl Lease {
    /// Sends the request of this exchange.
    pub(super) fn send(
        &mut self,
        request: Request<Upload>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>> + use<> {
        self.sender.try_send_request(request)
    }

    /// Whether the connection had been used before, and so may have been closed by the upstream meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether the upstream has sent a byte in this exchange.
    pub(super) fn has_answered(&self) -> bool {
        self.place.has_answered()
    }

    /// The exchange is complete; the connection may serve another.
    pub(super) fn give_back(self) {
        if let Some(pool) = self.pool.upgrade()
            && !self.sender.is_closed()
        {
            self.place.vacate();
            pool.put(self);
        }
    }

    /// The connection is a tunnel now, and lives as long as that.
    pub(super) fn leave_to_tunnel(mut self) {
        self.driver.0 = None;
    }
}

// === impl Driver ===

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(driver) = &self.0 {
            driver.abort();
        }
    }
}
