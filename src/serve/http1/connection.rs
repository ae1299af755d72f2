//! Where a connection stands: what it waits for, since when, and what it does meanwhile.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::{Request, header::UPGRADE};
use tokio::time::{Instant, sleep};

use super::{
    End,
    link::Link,
    refused,
    reply::{Asked, Reply},
    upload::Upload,
};
use crate::{
    alarm::Alarm,
    body::RequestBody,
    code::Code,
    serve::{Caps, LAST_CALL, handler::BoxError, overload::Room},
    shutdown::Shutdown,
    stream::{Stream, Switching},
    wire::{
        body::Incoming,
        request::{Head, HeadReader},
    },
};

/// A client that asks again within this time is brisk, and its connection keeps the room to read and write for so long: it should
/// not pay for its coming and going. Those of all others give it back as soon as they idle.
const SETTLE: Duration = Duration::from_millis(50);

/// One client's connection.
pub(super) struct Connection<'a> {
    caps: &'a Caps,
    link: Link,
    heads: HeadReader,
    /// The body of the request in service, where it is not through.
    upload: Option<Upload>,
    awaited: Awaited,
    /// Since when that is awaited.
    since: Instant,
    /// Whether the client asked again soon after its last answer.
    is_brisk: bool,
    /// How much the client had taken in all when it took no more, and since when it has not.
    blocked: Option<(u64, Instant)>,
    alarm: Alarm,
}

/// What a connection waits for between two exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    FirstHead,
    /// The next request.
    Request,
    /// The rest of its head.
    Head,
}

// === impl Connection ===

impl<'a> Connection<'a> {
    /// A connection whose first head is due from now on.
    pub(super) fn new(stream: Stream, caps: &'a Caps) -> Self {
        let since = Instant::now();
        Self {
            caps,
            link: Link::new(stream),
            heads: HeadReader::new(caps.max_header_bytes),
            upload: None,
            awaited: Awaited::FirstHead,
            since,
            is_brisk: false,
            blocked: None,
            alarm: Alarm::default(),
        }
    }

    /// The socket, and what of its bytes nobody has taken.
    pub(super) fn into_parts(self) -> (Stream, BytesMut) {
        (self.link.stream, self.link.received.bytes)
    }

    /// Waits until the client says something; it may come to an end first.
    pub(super) async fn rest(&mut self, room: &Room, shutdown: &Shutdown) -> Option<End> {
        self.link.rest();
        self.heads.rest();
        let Self { link, alarm, caps, since, .. } = self;
        let is_idle = self.awaited == Awaited::Request;
        let due = *since + if is_idle { caps.idle_timeout } else { caps.header_timeout };
        tokio::select! {
            biased;
            // Before the drain, so that a request that has come is not taken for none.
            () = link.stream.readable() => None,
            () = last_call(shutdown, !is_idle) => Some(End::Closed),
            () = room.wanted(), if is_idle => Some(End::Closed),
            () = poll_fn(|context| alarm.poll(due, context)) => {
                Some(if is_idle { End::Closed } else { End::Refused(Code::RequestTimeout) })
            }
        }
    }

    /// The next head; none where the client says nothing for now.
    pub(super) async fn head(&mut self) -> Result<Option<Head>, End> {
        poll_fn(|context| self.poll_head(context)).await
    }

    /// Takes a request in: its body comes as it is read.
    pub(super) fn receive(&mut self, head: Head) -> (Request<RequestBody>, Asked) {
        let mut asked = Asked::of(&head);
        let Head { method, uri, version, mut headers, body, expects, switches, .. } = head;
        if !body.is_over() {
            // A request may be answered by switching protocols before its body is through, and the rest of it would then
            // be the first words of the tunnel. Nobody has to switch (RFC 9110, section 7.8).
            headers.remove(UPGRADE);
        }
        let mut request = Request::new(self.receive_body(body, expects));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        if switches {
            let (sender, switching) = Switching::new();
            request.extensions_mut().insert(switching);
            asked.switching = Some(sender);
        }
        (request, asked)
    }

    /// Goes on with the request's body; ready when the client is gone. What else it sends is received, and waits.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<End> {
        if let Some(upload) = &mut self.upload {
            ready!(upload.poll(&mut self.link, context));
            if !upload.is_over() {
                return Poll::Pending;
            }
            self.upload = None;
        }
        if self.has_more() {
            return Poll::Pending;
        }
        match ready!(self.link.poll_receive(context)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(End::Broken),
        }
    }

    /// The answer is there; true where nobody reads the rest of the request's body, which has not come.
    pub(super) async fn leaves_body(&mut self) -> bool {
        let Self { upload: Some(upload), link, .. } = self else { return false };
        let leaves = poll_fn(|context| Poll::Ready(upload.leave(link, context))).await;
        if upload.is_over() {
            self.upload = None;
        }
        leaves
    }

    /// Whether the client has said more than its request.
    pub(super) async fn has_spoken(&mut self) -> bool {
        let link = &mut self.link;
        poll_fn(|context| Poll::Ready(link.poll_receive(context).is_ready())).await || self.has_more()
    }

    /// Puts together what is to be written.
    pub(super) fn begin(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.blocked = None;
        write(self.link.writer.buffer());
    }

    /// Writes the answer, and goes on with the request's body.
    pub(super) fn poll_reply<B>(&mut self, reply: &mut Reply<B>, context: &mut Context<'_>) -> Poll<Result<(), End>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        if let Poll::Ready(written) = reply.poll(&mut self.link, context) {
            return Poll::Ready(written.map_err(|_| End::Broken));
        }
        if let Poll::Ready(end) = self.poll_gone(context) {
            return Poll::Ready(Err(end));
        }
        self.poll_stalled(context).map(|()| Err(End::Broken))
    }

    /// Ready when the client has taken nothing for too long. Of what lies encrypted, it is not seen how much is taken.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.link.is_blocked {
            self.blocked = None;
            return Poll::Pending;
        }
        let total = self.link.writer.total();
        let (_, since) = *match &mut self.blocked {
            Some(blocked) if blocked.0 == total => blocked,
            blocked => blocked.insert((total, Instant::now())),
        };
        let limit = if self.link.writer.is_empty() { self.caps.idle_timeout } else { self.caps.body_idle_timeout };
        self.alarm.poll(since + limit, context)
    }

    /// After the answer: waits until whoever reads the request's body has had all of it, or has no more use for it.
    pub(super) async fn pass_body(&mut self) {
        let Self { upload: Some(upload), link, alarm, caps, .. } = self else { return };
        let due = Instant::now() + caps.idle_timeout;
        poll_fn(|context| match upload.poll(link, context) {
            Poll::Ready(()) => {
                upload.leave(link, context);
                Poll::Ready(())
            }
            Poll::Pending => alarm.poll(due, context),
        })
        .await;
        if upload.is_over() {
            self.upload = None;
        }
    }

    /// Whether some of the request's body was not read.
    pub(super) fn is_unheard(&self) -> bool {
        self.upload.is_some()
    }

    /// Whether something was received that nobody has taken.
    pub(super) fn has_more(&self) -> bool {
        !self.link.received.bytes.is_empty()
    }

    /// Another request may come.
    pub(super) fn idle(&mut self) {
        self.awaited = Awaited::Request;
        self.since = Instant::now();
        self.link.received.restart();
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Head>, End>> {
        loop {
            if let Some(head) = self.heads.read(&mut self.link.received.bytes).map_err(refused)? {
                return Poll::Ready(Ok(Some(head)));
            }
            if self.has_more() && self.awaited == Awaited::Request {
                (self.awaited, self.since) = (Awaited::Head, Instant::now());
            }
            match self.link.poll_receive(context) {
                // One that is brisk would have been told by the alarm that it no longer is.
                Poll::Ready(Ok(1..)) if self.awaited == Awaited::Request && !self.is_brisk => {
                    self.is_brisk = self.since.elapsed() < SETTLE;
                }
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if !self.has_more() => return Poll::Ready(Err(End::Closed)),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Broken)),
                Poll::Pending => break,
            }
        }
        if self.has_more() {
            let due = self.since + self.caps.header_timeout;
            return self.alarm.poll(due, context).map(|()| Err(End::Refused(Code::RequestTimeout)));
        }
        if self.is_brisk && self.awaited == Awaited::Request {
            ready!(self.alarm.poll(self.since + SETTLE, context));
            self.is_brisk = false;
        }
        Poll::Ready(Ok(None))
    }

    fn receive_body(&mut self, body: Incoming, expects: bool) -> RequestBody {
        let received = &mut self.link.received.bytes;
        let length = body.size_hint().exact();
        match length.map(usize::try_from) {
            Some(Ok(length)) if length <= received.len() => RequestBody::whole(received.split_to(length).freeze()),
            _ => {
                let Caps { max_body_bytes, body_idle_timeout, .. } = *self.caps;
                let (inlet, request_body) = RequestBody::piped(length, max_body_bytes, body_idle_timeout);
                let upload = Upload::begin(body, inlet, expects, &mut self.link);
                self.upload = (!upload.is_over()).then_some(upload);
                request_body
            }
        }
    }
}

/// Resolves when the connection should end if nothing is going on.
async fn last_call(shutdown: &Shutdown, is_first: bool) {
    shutdown.draining().await;
    if is_first {
        sleep(LAST_CALL).await;
    }
}
