//! One client's connection: driven by hyper, timed by us, and ended so that the client learns how.
//!
//! A connection that waits for a request costs its socket and little else: hyper is begun when the first byte is there, and
//! let go when it idles, or [`SETTLE`] later.
//!
//! hyper's own head timer is not used: it is one limit for waiting between requests and for a slow head, and says nothing
//! to the client. Here each [`Phase`] has its limit and its end.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{
    Caps, Handler, LAST_CALL,
    exchange::Exchanges,
    overload::{Leave, Room},
    progress::{Phase, Progress},
    refusal,
    socket::Socket,
};
use crate::{code::Code, peer::Peer, shutdown::Shutdown, stream::Stream};

/// The most hyper gathers of one connection in either direction; heads may need more, see [`Caps::max_header_bytes`].
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client is heard out, unheeded, after the answer that ends its connection. Closing on unread bytes makes the
/// kernel send a reset, which can overtake the answer and take it from the client (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// A client that asks again within this time is brisk, and its connection keeps what hyper needs to read and write for so
/// long: it should not pay for its coming and going. Those of all others give it back as soon as they idle.
const SETTLE: Duration = Duration::from_millis(50);

/// How a connection came to its end.
enum End {
    Hyper(hyper::Result<()>),
    /// It rested as we began to drain.
    Drained,
    Overdue(Phase),
    Stopped,
}

/// How a connection stopped being hyper's.
enum Left {
    /// There is nothing to read and nothing to write, for now.
    Resting(Box<Socket>),
    /// For good, with what was read and not parsed.
    Ended(End, Box<Socket>, Bytes),
    /// It is a tunnel now.
    Upgraded,
}

/// What a [`Clock`] says.
enum Due {
    /// A phase has lasted too long.
    Overdue(Phase),
    /// hyper can be let go.
    Settled,
}

/// Fires when a phase has lasted too long.
struct Clock<'a> {
    caps: &'a Caps,
    progress: Progress,
    phase: Phase,
    deadline: Option<Instant>,
    /// When to look whether hyper can be let go; none where there is no hyper, or nothing to hope for.
    settles: Option<Instant>,
    /// Whether the client asked again soon after its last answer.
    brisk: bool,
    /// May be set earlier than the deadline: moving it at every request would cost more than the rare early wake-up.
    timer: Pin<Box<Sleep>>,
    /// Ends an idle connection early, where its place is wanted.
    leave: Leave<'a>,
}

/// Serves requests until the client, a cap or the shutdown ends the connection.
pub(super) async fn run<H: Handler>(
    mut socket: Box<Socket>,
    peer: Peer,
    exchanges: Arc<Exchanges<H>>,
    room: &Room,
    shutdown: Shutdown,
) {
    let mut clock = Clock::start(&exchanges.caps, socket.progress.clone(), room);
    loop {
        if let Some(end) = rest(&socket, &mut clock, &shutdown).await {
            return Box::pin(finish(end, socket, Bytes::new(), &peer, &exchanges, &shutdown)).await;
        }
        // In a box, so that the room it needs is there only for as long as it is needed.
        match Box::pin(converse(socket, &peer, &exchanges, &mut clock, &shutdown)).await {
            Left::Resting(returned) => socket = returned,
            Left::Ended(end, socket, read) => {
                return Box::pin(finish(end, socket, read, &peer, &exchanges, &shutdown)).await;
            }
            Left::Upgraded => return,
        }
    }
}

/// Waits until the client says something; it may come to an end first.
async fn rest(socket: &Socket, clock: &mut Clock<'_>, shutdown: &Shutdown) -> Option<End> {
    clock.settles = None;
    let since = Instant::now();
    tokio::select! {
        biased;
        () = shutdown.stopped() => Some(End::Stopped),
        // Before the drain, so that a request that has come is not taken for none.
        () = socket.stream.readable() => {
            clock.brisk = since.elapsed() < SETTLE;
            None
        }
        () = last_call(shutdown, &socket.progress) => Some(End::Drained),
        phase = poll_fn(|context| clock.poll_overdue(context)) => Some(End::Overdue(phase)),
    }
}

/// Has hyper read requests and write responses, until there are none or there can be none.
async fn converse<H: Handler>(
    socket: Box<Socket>,
    peer: &Peer,
    exchanges: &Arc<Exchanges<H>>,
    clock: &mut Clock<'_>,
    shutdown: &Shutdown,
) -> Left {
    clock.settles = Some(Instant::now() + SETTLE);
    let progress = socket.progress.clone();
    let service = service_fn(|request: Request<Incoming>| Arc::clone(exchanges).answer(peer.clone(), &progress, request));
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(exchanges.caps.max_header_bytes)
        .max_buf_size(BUFFER_BYTES.max(exchanges.caps.max_header_bytes))
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();

    let mut draining = pin!(last_call(shutdown, &progress));
    let mut drained = false;
    let end = loop {
        tokio::select! {
            biased;
            () = shutdown.stopped() => break Some(End::Stopped),
            // Before the drain, as above.
            result = &mut connection => break Some(End::Hyper(result)),
            () = &mut draining, if !drained => {
                drained = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            due = poll_fn(|context| clock.poll_due(context)) => match due {
                Due::Overdue(phase) => break Some(End::Overdue(phase)),
                Due::Settled => break None,
            },
        }
    };
    let Some(parts) = connection.into_parts() else { return Left::Upgraded };
    let socket = parts.io.into_inner();
    if let Some(end) = end {
        return Left::Ended(end, socket, parts.read_buf);
    }
    debug_assert!(parts.read_buf.is_empty(), "a quiet connection holds no bytes");
    Left::Resting(socket)
}

/// Resolves when the connection should end if nothing is going on.
async fn last_call(shutdown: &Shutdown, progress: &Progress) {
    shutdown.draining().await;
    if progress.phase() == (Phase::Head { requests: 0 }) {
        sleep(LAST_CALL).await;
    }
}

/// Ends the connection so that the client learns how.
async fn finish<H>(
    end: End,
    mut socket: Box<Socket>,
    read: Bytes,
    peer: &Peer,
    exchanges: &Exchanges<H>,
    shutdown: &Shutdown,
) {
    let progress = &socket.progress;
    let last_words = match &end {
        End::Hyper(Err(error)) if error.is_parse() && progress.is_awaiting_head() => {
            let refusal = refusal::of_head(error, &read, exchanges.caps.max_header_bytes);
            Some(exchanges.refuse_head(refusal, peer))
        }
        End::Overdue(Phase::Head { .. }) => Some(exchanges.refuse_head(Code::RequestTimeout, peer)),
        End::Overdue(Phase::Refused(fault)) => Some(exchanges.refuse_head(refusal::of_fault(*fault), peer)),
        End::Hyper(Ok(())) if progress.has_unread() => Some(String::new()),
        _ => None,
    };
    if let Some(last_words) = last_words {
        tokio::select! {
            () = say(&mut socket.stream, last_words.as_bytes()) => {}
            () = shutdown.stopped() => {}
        }
    } else if !matches!(end, End::Hyper(Ok(())) | End::Drained | End::Overdue(Phase::Idle { .. })) {
        abort(&socket.stream);
    } else {
        socket.stream.close().await;
    }
}

/// Writes the last words of a connection and waits a moment for the client to take them.
async fn say(stream: &mut Stream, words: &[u8]) {
    let farewell = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut unheeded = vec![0; 4096];
        while stream.read(&mut unheeded).await? > 0 {}
        std::io::Result::Ok(())
    };
    // However it ends, the connection is over: the client has the answer or does not want it.
    let _ = timeout(LINGER, farewell).await;
}

/// Makes the coming close a reset: a response cut short must not look like one that ended, and a client that takes nothing
/// must not hold memory in the kernel.
fn abort(stream: &Stream) {
    // It fails only where the connection is gone already.
    let _ = stream.tcp().set_zero_linger();
}

// === impl Clock ===

impl<'a> Clock<'a> {
    fn start(caps: &'a Caps, progress: Progress, room: &'a Room) -> Self {
        let timer = Box::pin(sleep(caps.header_timeout));
        let leave = Leave::new(room);
        Self {
            caps,
            phase: progress.phase(),
            progress,
            deadline: Some(timer.deadline()),
            settles: None,
            brisk: false,
            timer,
            leave,
        }
    }

    /// The connection rests.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<Phase> {
        loop {
            if let Due::Overdue(phase) = ready!(self.poll_due(context)) {
                return Poll::Ready(phase);
            }
        }
    }

    /// To be polled after hyper, which moves the phase.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Due> {
        let phase = self.progress.phase();
        if phase != self.phase {
            self.phase = phase;
            let now = Instant::now();
            self.deadline = self.limit().map(|limit| now + limit);
            self.settles = matches!(phase, Phase::Idle { .. }).then(|| now + SETTLE);
        }
        if matches!(phase, Phase::Refused(_)) {
            return Poll::Ready(Due::Overdue(phase));
        }
        if !matches!(phase, Phase::Idle { .. }) {
            self.leave.withdraw();
        } else if self.leave.poll(context).is_ready() {
            return Poll::Ready(Due::Overdue(phase));
        }
        if self.settles.is_some() && !self.brisk && self.progress.is_quiet() && matches!(phase, Phase::Idle { .. }) {
            return Poll::Ready(Due::Settled);
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let next = self.settles.map_or(deadline, |settles| settles.min(deadline));
        if self.timer.deadline() > next {
            self.timer.as_mut().reset(next);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= deadline {
                return Poll::Ready(Due::Overdue(phase));
            }
            let settled = self.settles.take_if(|settles| self.timer.deadline() >= *settles);
            if settled.is_some() && self.progress.is_quiet() {
                return Poll::Ready(Due::Settled);
            }
            let next = self.settles.unwrap_or(deadline);
            self.timer.as_mut().reset(next.min(deadline));
        }
    }

    fn limit(&self) -> Option<Duration> {
        match self.phase {
            Phase::Idle { .. } => Some(self.caps.idle_timeout),
            Phase::Head { .. } => Some(self.caps.header_timeout),
            Phase::Blocked { .. } => Some(self.caps.body_idle_timeout),
            Phase::Busy | Phase::Refused(_) => None,
        }
    }
}
