//! Why a request was not forwarded, or not answered by the upstream, and how that is said in HTTP.
//!
//! Promised: [`Rejection`] is closed and [`Rejection::code`] and [`Rejection::into_response`] are the one place where its
//! variants become [codes](Code) and fields; nothing of an inner error reaches a client.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};

use super::{
    bad_request::BadRequest,
    in_flight::{self, TooMany},
    limited::Limited,
    numbers,
    response::{Response, ResponseBody},
    route::Unrouted,
};
use crate::{
    body::Fault,
    code::Code,
    limiter::{places::NoPlace, retry_after_seconds},
    upstream::{ConnectError, UpstreamError},
};

/// Why a request goes no further.
#[derive(Debug)]
pub enum Rejection {
    /// No route takes the path.
    NoRoute,
    /// Routes take the path, but not with this method.
    MethodNotAllowed {
        /// The methods they take.
        allowed: Vec<Method>,
    },
    /// The head cannot be understood in one way only.
    BadRequest(BadRequest),
    /// A limit is used up.
    Limited(Box<Limited>),
    /// The store is in trouble and the configuration says `deny`, or there is no room for another bucket.
    StoreUnavailable {
        /// How long to stay away.
        retry_after: Duration,
    },
    /// The client has as many sockets open as it may.
    TooManySockets,
    /// The route, or the client on it, has as many requests under way as it may.
    TooManyInFlight,
    /// The client's body was too large, too slow or broken.
    Body(Fault),
    /// The upstream gave no answer.
    Upstream(UpstreamError),
    /// The route's own credentials have no live token.
    CredentialsUnavailable,
}

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Room for the fields of a refusal, and for those that the answer gets on its way out; so the map is made once.
const FIELDS: usize = 14;

/// How long to stay away when every connection to the upstream is taken.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to stay away with too many sockets: when one of them ends, nobody can say.
pub const SOCKETS_RETRY_AFTER: Duration = Duration::from_secs(10);

// === impl Rejection ===

impl Rejection {
    /// Its stable name.
    pub fn code(&self) -> Code {
        match self {
            Self::NoRoute => Code::NoRoute,
            Self::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            Self::BadRequest(BadRequest::IdentityAmbiguous) => Code::IdentityAmbiguous,
            Self::BadRequest(BadRequest::IdentityInvalid) => Code::IdentityInvalid,
            Self::BadRequest(BadRequest::LimitKeyMissing) => Code::LimitKeyMissing,
            Self::BadRequest(BadRequest::PathAmbiguous) => Code::PathAmbiguous,
            Self::BadRequest(BadRequest::HostInvalid) => Code::HostInvalid,
            Self::Limited(_) => Code::RateLimitExceeded,
            Self::StoreUnavailable { .. } => Code::StoreUnavailable,
            Self::TooManySockets => Code::TooManySockets,
            Self::TooManyInFlight => Code::TooManyInFlight,
            Self::Body(fault) | Self::Upstream(UpstreamError::Request(fault)) => match fault {
                Fault::TooLarge => Code::BodyTooLarge,
                Fault::Stalled => Code::RequestTimeout,
                Fault::Broken => Code::BodyBroken,
            },
            Self::Upstream(error) => upstream_code(error),
            Self::CredentialsUnavailable => Code::CredentialsUnavailable,
        }
    }

    /// The answer it becomes.
    pub fn into_response(self) -> Response {
        let code = self.code();
        let mut response = Response::new(ResponseBody::own(Bytes::new()));
        *response.status_mut() = code.status();
        let headers = response.headers_mut();
        headers.reserve(FIELDS);
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CACHE_CONTROL, NO_STORE);
        let mut body = None;
        match self {
            Self::NoRoute | Self::CredentialsUnavailable => {}
            Self::MethodNotAllowed { allowed } => {
                let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                headers.extend(HeaderValue::try_from(allowed).ok().map(|value| (ALLOW, value)));
            }
            Self::Limited(limited) => {
                if limited.problem_json {
                    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
                }
                body = Some(limited.body());
                set_retry_after(headers, limited.retry_after);
                limited.fields.into_iter().for_each(|fields| fields.apply(headers));
            }
            Self::StoreUnavailable { retry_after } => set_retry_after(headers, retry_after_seconds(retry_after)),
            Self::TooManySockets => set_retry_after(headers, retry_after_seconds(SOCKETS_RETRY_AFTER)),
            Self::TooManyInFlight => set_retry_after(headers, in_flight::RETRY_AFTER_SECONDS),
            Self::BadRequest(_) | Self::Body(_) | Self::Upstream(UpstreamError::Request(_)) => close(headers),
            Self::Upstream(error) => {
                if code == Code::UpstreamBusy {
                    set_retry_after(headers, retry_after_seconds(BUSY_RETRY_AFTER));
                }
                headers.insert(PROXY_STATUS, proxy_status(&error));
            }
        }
        *response.body_mut() = ResponseBody::own(body.unwrap_or_else(|| code.body()));
        response
    }
}

impl From<Limited> for Rejection {
    fn from(limited: Limited) -> Self {
        Self::Limited(Box::new(limited))
    }
}

impl From<Unrouted> for Rejection {
    fn from(unrouted: Unrouted) -> Self {
        match unrouted {
            Unrouted::NoRoute => Self::NoRoute,
            Unrouted::MethodNotAllowed { allowed } => Self::MethodNotAllowed { allowed },
            Unrouted::BadRequest(reason) => Self::BadRequest(reason),
        }
    }
}

impl From<BadRequest> for Rejection {
    fn from(reason: BadRequest) -> Self {
        Self::BadRequest(reason)
    }
}

impl From<TooMany> for Rejection {
    fn from(TooMany: TooMany) -> Self {
        Self::TooManyInFlight
    }
}

impl From<NoPlace> for Rejection {
    fn from(reason: NoPlace) -> Self {
        match reason {
            NoPlace::Taken => Self::TooManySockets,
            NoPlace::Unavailable { retry_after } => Self::StoreUnavailable { retry_after },
        }
    }
}

/// The rest of what such a client sends is not to be trusted.
fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

fn set_retry_after(headers: &mut HeaderMap, seconds: u64) {
    headers.insert(RETRY_AFTER, numbers::field(seconds));
}

fn upstream_code(error: &UpstreamError) -> Code {
    match error {
        UpstreamError::Connect(_) => Code::UpstreamUnreachable,
        UpstreamError::Busy => Code::UpstreamBusy,
        UpstreamError::ConnectTimeout | UpstreamError::ResponseTimeout => Code::UpstreamTimeout,
        UpstreamError::Protocol(_) | UpstreamError::Refused | UpstreamError::Request(_) => Code::UpstreamFailed,
    }
}

/// Names the cause in the words of RFC 9209, section 2.3.
fn proxy_status(error: &UpstreamError) -> HeaderValue {
    HeaderValue::from_static(match error {
        UpstreamError::Connect(ConnectError::Lookup(_)) => "cxgate; error=dns_error",
        UpstreamError::Connect(ConnectError::Tcp(_)) => "cxgate; error=connection_refused",
        UpstreamError::Connect(ConnectError::Tls(_)) => "cxgate; error=tls_protocol_error",
        UpstreamError::ConnectTimeout => "cxgate; error=connection_timeout",
        UpstreamError::Busy => "cxgate; error=connection_limit_reached",
        UpstreamError::ResponseTimeout => "cxgate; error=http_response_timeout",
        UpstreamError::Protocol(_) => "cxgate; error=http_protocol_error",
        UpstreamError::Refused => "cxgate; error=connection_terminated",
        UpstreamError::Request(_) => "cxgate; error=http_request_error",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_our_own_is_json_with_its_code_and_is_not_stored() {
        let response = Rejection::MethodNotAllowed { allowed: vec![Method::GET, Method::POST] }.into_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET, POST");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }
}
