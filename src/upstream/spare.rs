//! What is kept of a request's body so that the request can be sent again, should the first try turn out to have been none.
//!
//! Promised: by HTTP/2, where an upstream says what it did not look at, a body is kept up to [`BODY_BYTES`]; by HTTP/1, where
//! none does, nothing is. The head needs no keeping: sending leaves it where it is.

use std::mem;

use http_body::Body;
use hyper::{Method, Request};

use super::{failure::Fate, pool::Lease};
use crate::body::{Replay, RequestBody};

/// What is kept of a body.
const BODY_BYTES: usize = 64 * 1024;

/// What brings the body of a request back.
pub(super) enum Spare {
    /// There is no body.
    Bodiless,
    Kept(Replay),
    /// Nothing.
    Gone,
}

// === impl Spare ===

impl Spare {
    /// Keeps the body of a request that is about to go over `lease`, as far as it may be asked for again.
    pub(super) fn of(request: &mut Request<RequestBody>, lease: &Lease) -> Self {
        let body = request.body_mut();
        if body.is_end_stream() {
            return Self::Bodiless;
        }
        if !lease.is_shared() {
            return Self::Gone;
        }
        let replay = Replay::new(mem::take(body), BODY_BYTES);
        *body = replay.body();
        Self::Kept(replay)
    }

    /// Makes the request whole, if it may be sent again after such a fate: either nobody has looked at it, or the connection,
    /// which had been `reused`, died under it, and sending it twice does what sending it once does.
    pub(super) fn restore(self, request: &mut Request<RequestBody>, fate: Fate, reused: bool) -> bool {
        match (fate, self) {
            (Fate::Unprocessed, Self::Bodiless) => true,
            (Fate::Unprocessed, Self::Kept(replay)) => {
                let whole = replay.rewind();
                *request.body_mut() = replay.body();
                whole
            }
            (Fate::Unwritten, Self::Bodiless) => reused,
            (Fate::Silent, Self::Bodiless) => reused && is_idempotent(request.method()),
            _ => false,
        }
    }
}

/// Whether sending a request twice does what sending it once does (RFC 9110, section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}
