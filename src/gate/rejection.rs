//! Why a request was not forwarded, or not answered by the upstream, and how that is said in HTTP.
//!
//! Promised: [`Rejection`] is closed and [`Rejection::code`] and [`Rejection::into_response`] are the one place where its
//! variants become [codes](Code) and fields; nothing of an inner error reaches a client.

use std::time::Duration;

use hyper::{
    Method,
    header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER},
};

use super::{
    bad_request::BadRequest,
    headers::X_REQUEST_ID,
    in_flight::{self, TooMany},
    limited::Limited,
    request_id::RequestId,
    response::{Response, ResponseBody},
    route::Unrouted,
};
use crate::{
    body::Fault,
    code::Code,
    limiter::{places::NoPlace, retry_after_seconds},
    upstream::{ConnectError, UpstreamError},
    wire::fields::FieldLines,
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

/// What every answer begins with.
const JSON: &str = "content-type: application/json\r\ncache-control: no-store\r\n";
/// The same of an answer that is an RFC 9457 document.
const PROBLEM_JSON: &str = "content-type: application/problem+json\r\ncache-control: no-store\r\n";

/// Room for the fields of most answers, in bytes.
const FIELDS: usize = 512;

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

    /// Whole seconds after which it is worth trying again, where that can be said.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Limited(limited) => Some(limited.retry_after),
            Self::StoreUnavailable { retry_after } => Some(retry_after_seconds(*retry_after)),
            Self::TooManySockets => Some(retry_after_seconds(SOCKETS_RETRY_AFTER)),
            Self::TooManyInFlight => Some(in_flight::RETRY_AFTER_SECONDS),
            Self::Upstream(UpstreamError::Busy) => Some(retry_after_seconds(BUSY_RETRY_AFTER)),
            _ => None,
        }
    }

    /// The answer it becomes. Its fields are in words already, but for what is to be done with the connection.
    pub fn into_response(self, request_id: &RequestId) -> Response {
        let code = self.code();
        let limited = if let Self::Limited(limited) = &self { Some(limited) } else { None };
        let is_problem = limited.is_some_and(|limited| limited.problem_json);
        let mut fields = FieldLines::begin(if is_problem { PROBLEM_JSON } else { JSON }, FIELDS);
        if let Some(seconds) = self.retry_after() {
            fields.push_number(&RETRY_AFTER, seconds);
        }
        match &self {
            Self::MethodNotAllowed { allowed } => {
                fields.push(&ALLOW, &allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", "));
            }
            Self::Limited(limited) => limited.fields.iter().for_each(|quota| quota.write(&mut fields)),
            Self::Upstream(error) if !matches!(error, UpstreamError::Request(_)) => {
                fields.push(&PROXY_STATUS, proxy_status(error));
            }
            _ => {}
        }
        fields.push(&X_REQUEST_ID, request_id.as_str());
        let body = limited.map_or_else(|| code.body(), |limited| limited.body());
        let mut response = Response::new(ResponseBody::own_with(fields, body));
        *response.status_mut() = code.status();
        if self.ends_connection() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Whether the rest of what such a client sends is not to be trusted.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::BadRequest(_) | Self::Body(_) | Self::Upstream(UpstreamError::Request(_)))
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

fn upstream_code(error: &UpstreamError) -> Code {
    match error {
        UpstreamError::Connect(_) => Code::UpstreamUnreachable,
        UpstreamError::Busy => Code::UpstreamBusy,
        UpstreamError::ConnectTimeout | UpstreamError::ResponseTimeout => Code::UpstreamTimeout,
        UpstreamError::Protocol(_) | UpstreamError::Refused | UpstreamError::Request(_) => Code::UpstreamFailed,
    }
}

/// Names the cause in the words of RFC 9209, section 2.3.
fn proxy_status(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Connect(ConnectError::Lookup(_)) => "cxgate; error=dns_error",
        UpstreamError::Connect(ConnectError::Tcp(_)) => "cxgate; error=connection_refused",
        UpstreamError::Connect(ConnectError::Tls(_)) => "cxgate; error=tls_protocol_error",
        UpstreamError::ConnectTimeout => "cxgate; error=connection_timeout",
        UpstreamError::Busy => "cxgate; error=connection_limit_reached",
        UpstreamError::ResponseTimeout => "cxgate; error=http_response_timeout",
        UpstreamError::Protocol(_) => "cxgate; error=http_protocol_error",
        UpstreamError::Refused => "cxgate; error=connection_terminated",
        UpstreamError::Request(_) => "cxgate; error=http_request_error",
    }
}

#[cfg(test)]
mod tests {
    use hyper::{
        HeaderMap,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    };

    use super::*;
    use crate::wire::fields;

    #[test]
    fn an_answer_of_our_own_is_json_with_its_code_and_is_not_stored() {
        let rejection = Rejection::MethodNotAllowed { allowed: vec![Method::GET, Method::POST] };
        let mut response = rejection.into_response(&RequestId::from_headers(&HeaderMap::new()));
        assert_eq!(response.status(), 405);
        fields::gather(&mut response);
        let headers = response.headers();
        assert_eq!(headers[ALLOW], "GET, POST");
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers[X_REQUEST_ID].len(), 32);
    }
}
