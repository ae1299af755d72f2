//! A connection of HTTP/1.1 to an upstream: requests go out and responses come in, one after the other (RFC 9112).
//!
//! Whoever has an exchange on it moves its bytes, so that nothing is handed from one task to another: the request goes on while
//! its response is awaited and read. Promised: what is read is read strictly, by [`wire`](crate::wire), and once; nothing that
//! [`quiet`](super::quiet) finds before its request is written passes for its answer; a body that breaks off is an error. A
//! connection serves another request only after a response whose end is known, with all of the request sent and nothing else
//! received.
//! Not promised: more than one request at a time.

use std::{
    future::poll_fn,
    io, mem,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::{Method, Request, Response, ext::ReasonPhrase, header::HeaderValue};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

mod outgoing;

use outgoing::Outgoing;

use super::{
    failure::{Cause, Failure, Fate, ResponseFault},
    open::Open,
    quiet::poll_quiet,
    upload::{Upload, UploadWatch},
};
use crate::{
    body::RequestBody,
    stream::{Received, Stream, Tunnel},
    wire::{
        body::Incoming,
        fields::FieldLines,
        response::{Head, HeadReader},
    },
};

/// Largest response head.
const LARGEST_HEAD: usize = 64 * 1024;

/// How long what an upstream says of TLS alone may take to be whole.
const SETTLING: Duration = Duration::from_millis(100);

/// One connection. It is closed when it is dropped.
pub(super) struct Connection {
    pub(super) stream: Stream,
    received: Received,
    heads: HeadReader,
    /// Of the request, which decides whether its answer has a body.
    method: Method,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Whether the upstream takes another request after this one.
    persists: bool,
    open: Open,
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(stream: Stream, open: Open) -> Self {
        Self {
            stream,
            received: Received::new(),
            heads: HeadReader::new(LARGEST_HEAD),
            method: Method::default(),
            incoming: Incoming::Ended,
            outgoing: Outgoing::default(),
            persists: true,
            open,
        }
    }

    /// Makes sure that nobody has spoken before a request is sent: what is there already would pass for its answer.
    pub(super) async fn listen(&mut self) -> io::Result<()> {
        let now = poll_fn(|context| Poll::Ready(poll_quiet(&mut self.stream, context))).await;
        match now {
            Poll::Ready(quiet) => quiet,
            Poll::Pending => timeout(SETTLING, poll_fn(|context| poll_quiet(&mut self.stream, context))).await?,
        }
    }

    /// Takes a request for `host`, and leaves its head, beside which `fields` go. Nothing is written before its response is
    /// asked for.
    pub(super) fn begin(
        &mut self,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
        host: &HeaderValue,
        watch: Option<UploadWatch>,
    ) {
        let upload = Upload::new(mem::take(request.body_mut()), watch);
        self.received.restart();
        self.method.clone_from(request.method());
        self.outgoing.begin(request, fields, host, upload);
    }

    /// The head of the response, while the request goes out; the body comes from [`Self::poll_frame`].
    pub(super) fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Failure>> {
        match ready!(self.poll_head(context)) {
            Ok(head) => Poll::Ready(Ok(self.begin_body(head))),
            Err(cause) => Poll::Ready(Err(Failure { fate: self.fate(), cause })),
        }
    }

    /// The next piece of the response's body.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        self.outgoing.poll(&mut self.stream, context);
        if self.outgoing.is_broken() {
            return Poll::Ready(Some(Err(ResponseFault::Truncated)));
        }
        loop {
            match self.incoming.take(&mut self.received.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.incoming.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(ResponseFault::Truncated))),
            }
            match ready!(self.received.poll(&mut self.stream, context)) {
                Ok(0) if self.incoming.ends_with_connection() => self.incoming = Incoming::Ended,
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(ResponseFault::Truncated))),
                Ok(_) => {}
            }
        }
    }

    /// Whether the response is whole.
    pub(super) fn is_over(&self) -> bool {
        self.incoming.is_over()
    }

    /// How much of the response's body is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// Whether it can serve another request.
    pub(super) fn may_serve(&self) -> bool {
        self.persists && self.incoming.is_over() && self.outgoing.is_through() && self.received.bytes.is_empty()
    }

    /// Whether it is still there, and silent; what is not known yet counts as silence.
    pub(super) fn is_resting(&mut self) -> bool {
        !matches!(poll_quiet(&mut self.stream, &mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// It serves nobody for now, and keeps no more room than a small exchange needs.
    pub(super) fn rest(&mut self) {
        self.received.settle();
        self.outgoing.rest();
    }

    /// What it is after a 101, with its place.
    pub(super) fn into_tunnel(self, permit: Option<OwnedSemaphorePermit>) -> Tunnel {
        Tunnel::new(self.stream, self.received.bytes, (self.open, permit))
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Cause>> {
        self.outgoing.poll(&mut self.stream, context);
        if self.outgoing.is_broken() {
            return Poll::Ready(Err("the request's body failed".into()));
        }
        loop {
            let ended = match ready!(self.received.poll(&mut self.stream, context)) {
                Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => None,
                Err(error) => Some(error),
            };
            if let Some(ended) = ended {
                return Poll::Ready(Err(self.outgoing.take_failure().unwrap_or(ended).into()));
            }
            if let Some(head) = self.heads.read(&mut self.received.bytes)? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    fn begin_body(&mut self, head: Head) -> Response<()> {
        self.persists = head.persists;
        self.incoming = Incoming::of_response(&self.method, head.status, head.framing);
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        if let Some(reason) = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
            response.extensions_mut().insert(reason);
        }
        response
    }

    /// What is known of a request that has no answer.
    fn fate(&self) -> Fate {
        if self.heads.has_begun() || !self.received.bytes.is_empty() {
            Fate::Unknown
        } else if self.outgoing.is_unwritten() {
            Fate::Unwritten
        } else {
            Fate::Silent
        }
    }
}
