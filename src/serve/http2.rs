//! One client's HTTP/2 connection: driven by hyper, one task a stream, bounded by us.
//!
//! Promised: what the handler sees is what it would see by HTTP/1 (a `Host`, one `Cookie`); no connection has more than
//! [`MAX_STREAMS`] requests in service, lives longer than [`MAX_AGE`], idles longer than the [`Caps`] say, or floods us with
//! resets or unread settings; whoever is sent away is told how far we went (GOAWAY, RFC 9113, section 6.8). A response that
//! its client does not take is reset, and its neighbours go on; where the client takes nothing at all, the connection ends.
//! A request whose head was read reaches the handler before its reset does, so that a stream that is taken back has still
//! been decided about.
//! Not promised: that the last piece of a response is watched as the others are; it waits in [`SEND_BUFFER_BYTES`], and its
//! stream counts among those in service. Requests that are malformed in HTTP/2's own terms (connection-specific fields, a
//! length that the data does not keep) are reset by the library and never seen here; neither are upgrades, which HTTP/2 does
//! not have.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request,
    body::Incoming,
    header::{CONNECTION, COOKIE, HOST, HeaderValue},
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use super::{
    Caps, Handler,
    exchange::{Exchanges, Watch},
    overload::{Room, Slot},
};
use crate::{body::RequestBody, peer::Peer, shutdown::Shutdown, stream::Stream, wire::fields};

mod outlet;

use outlet::{Blocked, Outlet};

/// Requests of one connection in service at once: browsers use as many, and it is what one client may occupy.
const MAX_STREAMS: u32 = 100;

/// Requests of one connection in all. Reconnecting now and then costs nothing and spreads clients over replicas.
const MAX_REQUESTS: u64 = 100_000;

/// The age at which a connection is asked to end, for the same reason.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Streams that the client took back before we looked at them; beyond it, the connection ends (rapid reset).
const MAX_UNSEEN_RESETS: usize = 20;

/// Streams that we had to reset because of the client's errors; beyond it, the connection ends.
const MAX_ERROR_RESETS: usize = 200;

/// What one stream's response may wait in memory for its client.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long a client that idled may take to say good-bye.
const LINGER: Duration = Duration::from_secs(1);

/// When a silent client is asked for a sign of life, and how long it has for it.
const PING: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(10)];

tokio::task_local! {
    /// Since when the client has been due to take what its response last gave. hyper stands between a body and the task that
    /// sends it, so that the two meet here.
    static GIVEN: Cell<Option<Instant>>;
}

/// The streams of one connection.
struct Streams {
    counts: watch::Sender<Counts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    begun: u64,
    open: usize,
}

/// A request whose response is not yet handed over whole; dropping it says that it is.
struct OpenStream(Arc<Streams>);

/// Runs streams as tasks, each of which ends, and resets its stream, when its client takes nothing for too long.
#[derive(Clone)]
struct StreamTasks {
    longest_stall: Duration,
    shutdown: Shutdown,
}

/// Serves requests until the client, a cap or the shutdown ends the connection.
pub(super) async fn run<H: Handler>(
    (stream, _slot): (Stream, Slot),
    peer: Peer,
    exchanges: Arc<Exchanges<H>>,
    room: &Room,
    shutdown: Shutdown,
) {
    let streams = Arc::new(Streams { counts: watch::Sender::default() });
    let caps = &exchanges.caps;
    let service = service_fn(|mut request: Request<Incoming>| {
        as_by_http1(&mut request);
        let request = request.map(|body| RequestBody::streaming(body, caps.max_body_bytes, caps.body_idle_timeout));
        let (exchanges, peer, open) = (Arc::clone(&exchanges), peer.clone(), streams.open());
        async move {
            let mut response = exchanges.respond(peer, request, open).await;
            response.headers_mut().remove(CONNECTION);
            fields::gather(&mut response);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let tasks = StreamTasks { longest_stall: caps.body_idle_timeout, shutdown: shutdown.clone() };
    let builder = builder(caps, tasks);
    let blocked = Blocked::default();
    let stream = Outlet::new(stream, blocked.clone());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));

    // Who comes while we are leaving is served until the drain, or he would find nobody.
    let leaving = async { if shutdown.is_leaving() { shutdown.draining().await } else { shutdown.leaving().await } };
    let patience = tokio::select! {
        biased;
        () = shutdown.stopped() => return,
        _ = connection.as_mut() => return,
        () = blocked.lasts(caps.body_idle_timeout) => return,
        () = streams.idle(caps, room) => LINGER,
        () = streams.used_up() => caps.body_idle_timeout,
        () = sleep(MAX_AGE) => caps.body_idle_timeout,
        () = leaving => caps.body_idle_timeout,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        () = shutdown.stopped() => {}
        _ = connection => {}
        () = blocked.lasts(caps.body_idle_timeout) => {}
        // Nothing is open, and yet the client does not let go.
        () = streams.unused_for(patience) => {}
    }
}

fn builder(caps: &Caps, tasks: StreamTasks) -> http2::Builder<StreamTasks> {
    let [ping_after, pong_within] = PING;
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(u32::try_from(caps.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(ping_after)
        .keep_alive_timeout(pong_within);
    builder
}

/// Gives a request the fields it would have by HTTP/1: `Host` from `:authority` (RFC 9113, section 8.3.1; where both are
/// there, whoever checks `Host` compares them), and one `Cookie` (section 8.2.3).
fn as_by_http1(request: &mut Request<Incoming>) {
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let headers = request.headers_mut();
    if let (false, Some(Ok(authority))) = (headers.contains_key(HOST), authority) {
        headers.insert(HOST, authority);
    }
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, cookie);
        }
    }
}

// === impl Streams ===

impl Streams {
    fn open(self: &Arc<Self>) -> OpenStream {
        self.counts.send_modify(|counts| {
            counts.begun += 1;
            counts.open += 1;
        });
        OpenStream(Arc::clone(self))
    }

    /// Resolves when the first request is overdue, or the next one, or when somebody wants the place of a connection that
    /// waits for its next.
    async fn idle(&self, caps: &Caps, room: &Room) {
        let mut counts = self.counts.subscribe();
        // The sender lives in `self`, so that no wait for the counts fails.
        if timeout(caps.header_timeout, counts.wait_for(|counts| counts.begun > 0)).await.is_err() {
            return;
        }
        loop {
            let begun = counts.wait_for(|counts| counts.open == 0).await.map_or(0, |counts| counts.begun);
            tokio::select! {
                _ = counts.wait_for(|counts| counts.begun > begun) => {}
                () = room.wanted() => return,
                () = sleep(caps.idle_timeout) => return,
            }
        }
    }

    /// Resolves when no stream has been open for `limit`.
    async fn unused_for(&self, limit: Duration) {
        let mut counts = self.counts.subscribe();
        loop {
            let begun = counts.wait_for(|counts| counts.open == 0).await.map_or(0, |counts| counts.begun);
            if timeout(limit, counts.wait_for(|counts| counts.begun > begun)).await.is_err() {
                return;
            }
        }
    }

    /// Resolves when the connection has carried enough requests.
    async fn used_up(&self) {
        let _ = self.counts.subscribe().wait_for(|counts| counts.begun >= MAX_REQUESTS).await;
    }
}

// === impl OpenStream ===

impl Watch for OpenStream {
    fn asked(&mut self) {
        // There is none where the request ends before its task begins.
        let _ = GIVEN.try_with(|given| given.set(None));
    }

    fn gave(&mut self) {
        let _ = GIVEN.try_with(|given| given.set(Some(Instant::now())));
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.asked();
        self.0.counts.send_modify(|counts| counts.open -= 1);
    }
}

// === impl StreamTasks ===

impl<T> Executor<T> for StreamTasks
where
    T: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: T) {
        let Self { longest_stall, shutdown } = self.clone();
        self.shutdown.spawn(GIVEN.scope(Cell::new(None), async move {
            let mut stall = pin!(None);
            tokio::select! {
                biased;
                _ = stream => {}
                () = poll_fn(|context| poll_stalled(stall.as_mut(), longest_stall, context)) => {}
                () = shutdown.stopped() => {}
            }
        }));
    }
}

/// Ready when the client has not taken what the response of this task gave for `longest`. To be polled after the response;
/// few ever wait, so that the timer is made only then.
fn poll_stalled(mut timer: Pin<&mut Option<Sleep>>, longest: Duration, context: &mut Context<'_>) -> Poll<()> {
    let Some(given) = GIVEN.with(Cell::get) else {
        timer.set(None);
        return Poll::Pending;
    };
    let due = given + longest;
    if timer.as_ref().as_pin_ref().is_none_or(|timer| timer.deadline() != due) {
        timer.set(Some(sleep_until(due)));
    }
    timer.as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(context))
}
