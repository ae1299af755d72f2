//! The body of a request: from the connection to whoever reads it, as it is asked for.

use std::task::{Context, Poll, ready};

use super::link::Link;
use crate::{body::Inlet, wire::body::Incoming};

/// What a client waits for before it sends a body that it announced so (RFC 9110, section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A body that is not through.
pub(super) struct Upload {
    incoming: Incoming,
    /// `None` once nothing more is given.
    inlet: Option<Inlet>,
    /// Whether the client waits to be told to send it.
    expects: bool,
    /// Whether the rest of it cannot be read.
    is_lost: bool,
}

// === impl Upload ===

impl Upload {
    /// A body that goes through `inlet`. What came with the head goes at once, and a client that sent it waits for nothing.
    pub(super) fn begin(incoming: Incoming, inlet: Inlet, expects: bool, link: &mut Link) -> Self {
        let expects = expects && link.received.bytes.is_empty();
        let mut upload = Self { incoming, inlet: Some(inlet), expects, is_lost: false };
        upload.give(link);
        upload
    }

    /// Goes on with it; ready when nothing more is given.
    pub(super) fn poll(&mut self, link: &mut Link, context: &mut Context<'_>) -> Poll<()> {
        while let Some(inlet) = &mut self.inlet {
            if !ready!(inlet.poll_asked(context)) {
                self.inlet = None;
            } else if !self.give(link) {
                self.ask(link, context);
                match ready!(link.poll_receive(context)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => self.lose(),
                }
            }
        }
        Poll::Ready(())
    }

    /// Whether all of it has come.
    pub(super) fn is_over(&self) -> bool {
        self.incoming.is_over()
    }

    /// Nobody is told to send the body any more, as the answer is there. Where nobody reads it either, what has come of it is
    /// passed over; true where more of it has to come.
    pub(super) fn leave(&mut self, link: &mut Link, context: &mut Context<'_>) -> bool {
        self.expects = false;
        if self.inlet.as_ref().is_some_and(|inlet| !inlet.is_unread()) {
            return false;
        }
        self.inlet = None;
        self.pass_over(link);
        if !self.is_over() && !self.is_lost && matches!(link.poll_receive(context), Poll::Ready(Ok(1..))) {
            self.pass_over(link);
        }
        !self.is_over()
    }

    fn pass_over(&mut self, link: &mut Link) {
        while !self.is_lost && !self.is_over() && !link.received.bytes.is_empty() {
            self.is_lost = self.incoming.take(&mut link.received.bytes).is_err();
        }
    }

    fn lose(&mut self) {
        self.is_lost = true;
        self.inlet = None;
    }

    /// Gives a piece of what has come; true if that was something, or the end, or a fault.
    fn give(&mut self, link: &mut Link) -> bool {
        let Some(inlet) = &mut self.inlet else { return false };
        let taken = self.incoming.take(&mut link.received.bytes);
        match taken {
            Ok(piece) => {
                let is_something = piece.is_some();
                if let Some(piece) = piece {
                    inlet.give(piece);
                }
                if self.incoming.is_over()
                    && let Some(inlet) = self.inlet.take()
                {
                    inlet.end();
                    return true;
                }
                is_something
            }
            Err(fault) => {
                tracing::debug!(%fault, "the body of a request is refused");
                self.lose();
                true
            }
        }
    }

    fn ask(&mut self, link: &mut Link, context: &mut Context<'_>) {
        if std::mem::take(&mut self.expects) {
            link.writer.buffer().extend_from_slice(CONTINUE);
        }
        if !link.writer.is_empty() {
            // Whether it arrives is seen by what is received.
            let _ = link.poll_send(context);
        }
    }
}
