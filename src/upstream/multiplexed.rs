//! Connections of HTTP/2, each of which carries the exchanges of many (RFC 9113).
//!
//! Promised: no connection carries more streams than its upstream admits, nor more than [`MAX_STREAMS`]; a connection that
//! its upstream ends (GOAWAY) gets no more streams, and completes those it has; one whose upstream does not answer pings
//! while streams wait for it is closed, before they time out; one stream that is not read holds up no other. What is known
//! not to have been processed is told from what is not.
//! Not promised: that a new stream is not refused by an upstream that lowers its bound in the same moment.

use std::{
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{self, ResponseFuture, SendRequest},
};
use http_body::{Body, Frame, SizeHint};
use hyper::{Request, Response};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    UpstreamError,
    failure::{Failure, Fate, ResponseFault},
    open::Open,
    upload::{Upload, UploadWatch, pour},
};
use crate::{
    alarm::Alarm,
    body::RequestBody,
    config, stream,
    wire::{Fault, fields::FieldLines},
};

mod origin;
mod streamed;

use origin::Origin;
use streamed::Streamed;

/// Streams of one connection at once. More connections spread a heavy load over the upstream's workers.
const MAX_STREAMS: u32 = 100;

/// What one response may wait in memory for its client.
const STREAM_WINDOW: u32 = 128 * 1024;

/// Largest response head, and the most that waits to be sent.
const BUFFER_BYTES: usize = 64 * 1024;

/// What all of them may: so much that no stream lacks room because others are not read.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;

/// The connections of HTTP/2 to one upstream.
pub(super) struct Multiplexed {
    origin: Arc<Origin>,
    idle_timeout: Duration,
    /// How long a silent upstream is waited for while streams are, and how long it has for its answer to a ping then: two
    /// of these and some time to try again are less than the response time-out.
    patience: Duration,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Held by whoever connects for all.
    turn: Semaphore,
    /// Whether the upstream chose HTTP/1.1 when it was last asked.
    declined: AtomicBool,
}

struct Connection {
    sender: SendRequest<Bytes>,
    origin: Arc<Origin>,
    usage: Arc<Usage>,
    _driver: AbortOnDropHandle<()>,
}

/// What a connection is used for, shared with the task that drives it.
struct Usage(Mutex<Streams>);

struct Streams {
    open: usize,
    unused_since: Instant,
    /// No stream begins any more.
    closed: bool,
}

/// A stream for one exchange. Dropped before its end, it is reset.
pub(super) struct Stream {
    connection: Arc<Connection>,
    upload: Option<AbortOnDropHandle<()>>,
    answer: Answer,
    /// For the time that the head of the answer may take.
    pub(super) alarm: Alarm,
    reused: bool,
    _permit: OwnedSemaphorePermit,
}

enum Answer {
    /// Nothing was sent.
    Unasked,
    Awaited(ResponseFuture),
    /// Its head has come.
    Begun(Streamed),
}

// === impl Multiplexed ===

impl Multiplexed {
    pub(super) fn new(config: &config::Upstream) -> Self {
        Self {
            origin: Arc::new(Origin::new(&config.url)),
            idle_timeout: config.idle_timeout,
            patience: config.response_timeout / 3,
            connections: Mutex::default(),
            turn: Semaphore::new(1),
            declined: AtomicBool::new(false),
        }
    }

    /// Whether connections of HTTP/1 are what there is.
    pub(super) fn is_declined(&self) -> bool {
        self.declined.load(Ordering::Acquire)
    }

    /// Notes what the upstream chose.
    pub(super) fn decline(&self, declined: bool) {
        self.declined.store(declined, Ordering::Release);
    }

    /// Waits for the turn to connect.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so that this is never `None`.
        self.turn.acquire().await.ok()
    }

    /// A stream of the first connection that has room, so that those not needed grow old.
    pub(super) fn stream(&self, permit: OwnedSemaphorePermit) -> Result<Stream, OwnedSemaphorePermit> {
        let mut connections = self.connections();
        connections.retain(|connection| connection.is_usable());
        match connections.iter().find(|connection| connection.begin()) {
            Some(connection) => Ok(Stream::new(Arc::clone(connection), permit, true)),
            None => Err(permit),
        }
    }

    /// Adds a connection, and takes its first stream. Its upstream's settings are awaited, which say how many it may have.
    pub(super) async fn add(
        &self,
        stream: stream::Stream,
        open: Open,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Stream, UpstreamError> {
        let handshake = async {
            let (sender, mut connection) = builder().handshake::<_, Bytes>(stream).await?;
            let mut pings = connection.ping_pong();
            let settled = async {
                match &mut pings {
                    Some(pings) => pings.ping(Ping::opaque()).await.map(drop),
                    None => Ok(()),
                }
            };
            tokio::select! {
                ended = &mut connection => ended.and(Err(Reason::NO_ERROR.into())),
                settled = settled => settled,
            }?;
            Ok((sender, connection, pings))
        };
        let handshake = timeout_at(deadline, handshake).await.map_err(|_| UpstreamError::ConnectTimeout)?;
        let (sender, connection, pings) = handshake.map_err(|error: h2::Error| UpstreamError::Protocol(Box::new(error)))?;
        let streams = Streams { open: 1, unused_since: Instant::now(), closed: false };
        let usage = Arc::new(Usage(Mutex::new(streams)));
        let driver = drive(connection, pings, Arc::clone(&usage), self.idle_timeout, self.patience, open);
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let connection = Arc::new(Connection { sender, origin: Arc::clone(&self.origin), usage, _driver: driver });
        self.connections().push(Arc::clone(&connection));
        Ok(Stream::new(connection, permit, false))
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(MAX_STREAMS as usize)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(BUFFER_BYTES).unwrap_or(u32::MAX))
        .max_send_buffer_size(BUFFER_BYTES);
    builder
}

/// Moves a connection's bytes until it ends, dies or was unused for too long.
async fn drive(
    connection: client::Connection<stream::Stream, Bytes>,
    pings: Option<PingPong>,
    usage: Arc<Usage>,
    idle_timeout: Duration,
    patience: Duration,
    _open: Open,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "upstream connection ended");
            }
        }
        () = usage.unanswered(pings, patience) => tracing::debug!("upstream connection is dead"),
        () = usage.unused(idle_timeout) => {}
    }
    usage.streams().closed = true;
}

// === impl Connection ===

impl Connection {
    /// Whether it is alive, and its upstream has not said that it ends.
    fn is_usable(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_))) && !self.usage.streams().closed
    }

    /// Takes room for a stream, if there is any.
    fn begin(&self) -> bool {
        let room = self.sender.current_max_send_streams().min(MAX_STREAMS as usize);
        let mut streams = self.usage.streams();
        let begins = !streams.closed && streams.open < room;
        streams.open += usize::from(begins);
        begins
    }
}

// === impl Usage ===

impl Usage {
    /// Resolves when no stream has been open for `limit`; then none begins any more.
    async fn unused(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let due = {
                let mut streams = self.streams();
                let due = if streams.open > 0 { now + limit } else { streams.unused_since + limit };
                streams.closed |= due <= now;
                due
            };
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Resolves when the upstream does not answer a ping while streams are open.
    async fn unanswered(&self, pings: Option<PingPong>, patience: Duration) {
        let Some(mut pings) = pings else { return std::future::pending().await };
        loop {
            sleep(patience).await;
            let waited_for = self.streams().open > 0;
            if waited_for && !matches!(timeout(patience, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
                return;
            }
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Stream ===

impl Stream {
    /// A stream whose room has been taken.
    fn new(connection: Arc<Connection>, permit: OwnedSemaphorePermit, reused: bool) -> Self {
        Self { connection, upload: None, answer: Answer::Unasked, alarm: Alarm::default(), reused, _permit: permit }
    }

    /// Whether the connection had been used before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends the head of a request with `fields` beside it, leaves it, and sends the body as the upstream takes it.
    pub(super) fn begin(
        &mut self,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
        watch: Option<UploadWatch>,
    ) -> Result<(), Failure> {
        let body = Upload::new(mem::take(request.body_mut()), watch);
        let ends = body.is_end_stream();
        let head = self.connection.origin.addressed(request, fields, &body);
        let (response, pipe) = self.connection.sender.clone().send_request(head, ends).map_err(Failure::of_stream)?;
        if !ends {
            self.upload = Some(AbortOnDropHandle::new(tokio::spawn(pour(body, pipe))));
        }
        self.answer = Answer::Awaited(response);
        Ok(())
    }

    /// The head of the response; the body comes from [`Self::poll_frame`].
    pub(super) fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Failure>> {
        // To what was not asked, or was answered, there is no answer.
        let Answer::Awaited(response) = &mut self.answer else { return Poll::Pending };
        let response = ready!(Pin::new(response).poll(context)).map_err(Failure::of_stream)?;
        let (response, streamed) = Streamed::of(response).map_err(Failure::unsound)?;
        self.answer = Answer::Begun(streamed);
        Poll::Ready(Ok(response))
    }

    /// The next piece of the response's body.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match &mut self.answer {
            Answer::Begun(streamed) => streamed.poll_frame(context),
            Answer::Unasked | Answer::Awaited(_) => Poll::Ready(None),
        }
    }

    /// Whether the response is whole.
    pub(super) fn is_over(&self) -> bool {
        !matches!(&self.answer, Answer::Begun(streamed) if !streamed.is_over())
    }

    /// How much of the response's body is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Begun(streamed) => streamed.size_hint(),
            Answer::Unasked | Answer::Awaited(_) => SizeHint::default(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut streams = self.connection.usage.streams();
        streams.open -= 1;
        streams.unused_since = Instant::now();
    }
}

// === impl Failure ===

impl Failure {
    /// Why a stream has no response. An upstream that goes away names the last stream it looked at, and h2 ends those behind
    /// it with that; others end with their connection.
    fn of_stream(error: h2::Error) -> Self {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        let fate = if error.is_remote() && (refused || error.is_go_away()) {
            Fate::Unprocessed
        } else if error.is_io() {
            Fate::Silent
        } else {
            Fate::Unknown
        };
        Self { fate, cause: Box::new(error) }
    }

    /// A response that can be read in two ways.
    fn unsound(fault: Fault) -> Self {
        Self { fate: Fate::Unknown, cause: Box::new(fault) }
    }
}
