//! Response bodies: streamed, held to steady progress, and tied to the connection they come over.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{failure::ResponseFault, pool::Lease};
use crate::{body::IdleTimer, stream::Tunnel};

/// The body of an upstream's response. Read to its end, it hands its connection back; dropped before, it closes it.
pub struct ResponseBody {
    /// `None` once all of it has come.
    lease: Option<Lease>,
    idle: IdleTimer,
    fault: Option<ResponseFault>,
    tunnel: Option<Box<Tunnel>>,
}

// === impl ResponseBody ===

impl ResponseBody {
    /// The body of the response that came over `lease`, waiting at most `idle` for each piece.
    pub(super) fn new(lease: Lease, idle: Duration) -> Self {
        let mut body = Self { lease: Some(lease), idle: IdleTimer::new(idle), fault: None, tunnel: None };
        body.end_if_over();
        body
    }

    /// The empty body of a 101, whose connection is a tunnel now.
    pub(super) fn of_upgrade(lease: Lease, idle: Duration) -> Self {
        let tunnel = lease.into_tunnel().map(Box::new);
        Self { lease: None, idle: IdleTimer::new(idle), fault: None, tunnel }
    }

    /// The upstream's side of the tunnel, after a 101.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        self.tunnel.take().map(|tunnel| *tunnel)
    }

    /// Once the response is whole, its connection can serve the next request, unless this request's body is still on it.
    fn end_if_over(&mut self) {
        if let Some(lease) = self.lease.take_if(|lease| lease.is_over()) {
            lease.give_back();
        }
    }

    fn fail(&mut self, fault: ResponseFault) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        self.lease = None;
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
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        match lease.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.moved();
                // Whoever reads us may stop here without asking for the end.
                self.end_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(fault))) => self.fail(fault),
            Poll::Ready(None) => {
                self.end_if_over();
                self.lease = None;
                Poll::Ready(None)
            }
            Poll::Pending => match self.idle.poll(context) {
                Poll::Ready(()) => self.fail(ResponseFault::Stalled),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.lease.as_ref().map_or_else(|| SizeHint::with_exact(0), Lease::size_hint)
    }
}
