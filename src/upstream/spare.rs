//! What is kept of a request so that it can be sent again, should the first try turn out to have been none.
//!
//! Promised: by HTTP/2, where an upstream says what it did not look at, every request is kept, with its body up to
//! [`BODY_BYTES`]; by HTTP/1 nothing, because its client gives back what has no body (see [`http1`](super::http1)).

use hyper::{HeaderMap, Method, Request, Uri};

use super::pool::Lease;
use crate::body::{Replay, RequestBody};

/// What is kept of a body.
const BODY_BYTES: usize = 64 * 1024;

/// A request that can be sent again; the default is none.
#[derive(Default)]
pub(super) struct Spare(Option<Kept>);

struct Kept {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// `None` where there is none.
    body: Option<Replay>,
}

// === impl Spare ===

impl Spare {
    /// The request as it goes over `lease` first, and what is kept of it.
    pub(super) fn of(request: Request<RequestBody>, lease: &Lease) -> (Request<RequestBody>, Self) {
        if !lease.is_shared() {
            return (request, Self::default());
        }
        let (head, body) = request.into_parts();
        let (body, replay) = if body.is_empty() {
            (body, None)
        } else {
            let replay = Replay::new(body, BODY_BYTES);
            (replay.body(), Some(replay))
        };
        let (method, uri, headers) = (head.method.clone(), head.uri.clone(), head.headers.clone());
        (Request::from_parts(head, body), Self(Some(Kept { method, uri, headers, body: replay })))
    }

    /// The request again, as far as its body was kept: nobody has looked at it.
    pub(super) fn unprocessed(self) -> Option<Request<RequestBody>> {
        let Kept { method, uri, headers, body } = self.0?;
        let body = match body {
            None => RequestBody::default(),
            Some(replay) => replay.rewind().then(|| replay.body())?,
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Some(request)
    }

    /// The request again, if sending it twice does what sending it once does and no body of it can have been read.
    pub(super) fn repeatable(self) -> Option<Request<RequestBody>> {
        let repeatable = self.0.as_ref().is_some_and(|kept| kept.body.is_none() && is_idempotent(&kept.method));
        self.unprocessed().filter(|_| repeatable)
    }
}

/// Whether sending a request twice does what sending it once does (RFC 9110, section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}
