//! Response bodies: streamed, held to steady progress, and tied to the connection they come over.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    incoming::{Incoming, ResponseFault},
    pool::Lease,
    upload::UploadWatch,
};
use crate::body::IdleTimer;

/// The body of an upstream's response. Read to its end, it hands its connection back; dropped before, it closes it.
pub struct ResponseBody {
    incoming: Incoming,
    idle: IdleTimer,
    connection: Option<Connection>,
    fault: Option<ResponseFault>,
}

struct Connection {
    lease: Lease,
    upload: Option<UploadWatch>,
}

// === impl ResponseBody ===

impl ResponseBody {
    /// A body that delivers `incoming`, waiting at most `idle` for each piece.
    pub(super) fn new(incoming: Incoming, idle: Duration, lease: Lease, upload: Option<UploadWatch>) -> Self {
        let connection = Some(Connection { lease, upload });
        let mut body = Self { incoming, idle: IdleTimer::new(idle), connection, fault: None };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    /// The empty body of a 101, whose connection is a tunnel now.
    pub(super) fn of_upgrade(incoming: Incoming, idle: Duration) -> Self {
        Self { incoming, idle: IdleTimer::new(idle), connection: None, fault: None }
    }

    /// The response is whole: its connection can serve the next request, unless this request's body is still on it.
    fn end(&mut self) {
        if let Some(Connection { lease, upload }) = self.connection.take()
            && upload.is_none_or(|upload| upload.is_sent())
        {
            lease.give_back();
        }
    }

    fn fail(&mut self, fault: ResponseFault) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        self.connection = None;
        self.fault = Some(fault);
        Poll::Ready(Some(Err(fault)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        if let Some(fault) = self.fault {
            return Poll::Ready(Some(Err(fault)));
        }
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.moved();
                // Whoever reads us may stop here without asking for the end.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(fault))) => self.fail(fault),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => match self.idle.poll(context) {
                Poll::Ready(()) => self.fail(ResponseFault::Stalled),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
