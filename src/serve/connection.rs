//! One client's connection: driven by hyper, timed by us, and ended so that the client learns how.
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
use http_body::Body;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{
    BoxError, Caps, LAST_CALL,
    exchange::Exchanges,
    overload::{Leave, Room},
    progress::{Phase, Progress},
    refusal,
    socket::Socket,
    stream::Stream,
};
use crate::{body::RequestBody, code::Code, peer::Peer, shutdown::Shutdown};

/// The most hyper gathers of one connection in either direction; heads may need more, see [`Caps::max_header_bytes`].
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client is heard out, unheeded, after the answer that ends its connection. Closing on unread bytes makes the
/// kernel send a reset, which can overtake the answer and take it from the client (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// How a connection came to its end.
enum End {
    Hyper(hyper::Result<()>),
    Overdue(Phase),
    Stopped,
}

/// Fires when a phase has lasted too long.
struct Clock<'a> {
    caps: &'a Caps,
    progress: Progress,
    phase: Phase,
    deadline: Option<Instant>,
    /// May be set earlier than the deadline: moving it at every request would cost more than the rare early wake-up.
    timer: Pin<Box<Sleep>>,
    /// Ends an idle connection early, where its place is wanted.
    leave: Leave<'a>,
}

/// Serves requests until the client, a cap or the shutdown ends the connection.
pub(super) async fn run<H, F, B>(socket: Socket, peer: Peer, exchanges: Arc<Exchanges<H>>, room: &Room, shutdown: Shutdown)
where
    H: Fn(Peer, Request<RequestBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let progress = socket.progress.clone();
    let mut clock = Clock::start(&exchanges.caps, progress.clone(), room);
    let service = service_fn(|request: Request<Incoming>| Arc::clone(&exchanges).answer(peer.clone(), &progress, request));
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(exchanges.caps.max_header_bytes)
        .max_buf_size(BUFFER_BYTES.max(exchanges.caps.max_header_bytes))
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();

    let mut draining = pin!(async {
        shutdown.draining().await;
        if progress.phase() == (Phase::Head { requests: 0 }) {
            sleep(LAST_CALL).await;
        }
    });
    let mut drained = false;
    let end = loop {
        tokio::select! {
            biased;
            () = shutdown.stopped() => break End::Stopped,
            // Before the drain, so that a request that has come is not taken for none.
            result = &mut connection => break End::Hyper(result),
            () = &mut draining, if !drained => {
                drained = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            phase = poll_fn(|context| clock.poll_overdue(context)) => break End::Overdue(phase),
        }
    };
    // Upgraded: the tunnel has the socket.
    let Some(parts) = connection.into_parts() else { return };
    let mut socket = parts.io.into_inner();
    let last_words = match &end {
        End::Hyper(Err(error)) if error.is_parse() && progress.is_awaiting_head() => {
            let refusal = refusal::of_head(error, &parts.read_buf, exchanges.caps.max_header_bytes);
            Some(exchanges.refuse_head(refusal))
        }
        End::Overdue(Phase::Head { .. }) => Some(exchanges.refuse_head(Code::RequestTimeout)),
        End::Overdue(Phase::Refused(fault)) => Some(exchanges.refuse_head(refusal::of_fault(*fault))),
        End::Hyper(Ok(())) if progress.has_unread() => Some(String::new()),
        _ => None,
    };
    if let Some(last_words) = last_words {
        tokio::select! {
            () = say(&mut socket.stream, last_words.as_bytes()) => {}
            () = shutdown.stopped() => {}
        }
    } else if !matches!(end, End::Hyper(Ok(())) | End::Overdue(Phase::Idle { .. })) {
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
        Self { caps, phase: progress.phase(), progress, deadline: Some(timer.deadline()), timer, leave }
    }

    /// To be polled after hyper, which moves the phase.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<Phase> {
        let phase = self.progress.phase();
        if phase != self.phase {
            self.phase = phase;
            self.deadline = self.limit().map(|limit| Instant::now() + limit);
        }
        if matches!(phase, Phase::Refused(_)) {
            return Poll::Ready(phase);
        }
        if !matches!(phase, Phase::Idle { .. }) {
            self.leave.withdraw();
        } else if self.leave.poll(context).is_ready() {
            return Poll::Ready(phase);
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= deadline {
                return Poll::Ready(phase);
            }
            self.timer.as_mut().reset(deadline);
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
