//! What the listener answers by itself, before or instead of the handler.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};

use crate::wire::Fault;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request target that hyper can represent; beyond it a head is refused whatever its size may be.
const LONGEST_TARGET: usize = (u16::MAX - 1) as usize;

/// Why a request is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The head is no HTTP/1 request (RFC 9112).
    Malformed,
    /// There is not exactly one `Host` (RFC 9112, section 3.2).
    HostInvalid,
    /// What is expected is not known (RFC 9110, section 10.1.1).
    ExpectationUnknown,
    /// The head did not arrive in time.
    HeadTooSlow,
    /// The announced body is larger than allowed.
    BodyTooLarge,
    /// The request target alone is larger than a head may be.
    TargetTooLong,
    /// The head is larger than allowed, or has too many fields.
    HeadTooLarge,
    /// The handler panicked.
    Panicked,
    /// As many requests as may be are in service.
    Overloaded,
}

// === impl Refusal ===

impl Refusal {
    /// Why hyper could not parse a head, of which `read` is what has arrived and `largest` bytes may.
    pub(super) fn of_head(error: &hyper::Error, read: &[u8], largest: usize) -> Self {
        if !error.is_parse_too_large() {
            return Self::Malformed;
        }
        match read.iter().position(|byte| *byte == b'\n') {
            Some(line) if line < largest.min(LONGEST_TARGET) => Self::HeadTooLarge,
            _ => Self::TargetTooLong,
        }
    }

    /// The stable code that clients and metrics see.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Malformed => "bad_request",
            Self::HostInvalid => "host_invalid",
            Self::ExpectationUnknown => "expectation_failed",
            Self::HeadTooSlow => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "uri_too_long",
            Self::HeadTooLarge => "header_too_large",
            Self::Panicked => "internal_error",
            Self::Overloaded => "overloaded",
        }
    }

    /// The answer, which ends the connection where what else is on it cannot be trusted, or is not worth reading.
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self == Self::Overloaded {
            // The client keeps its connection: another one would cost both sides more than this request.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Ok(id) = HeaderValue::try_from(request_id()) {
            headers.insert(X_REQUEST_ID, id);
        }
        response
    }

    /// The answer as it goes over the wire, for when hyper has given up on the connection.
    pub(super) fn message(self) -> String {
        let (status, body) = (self.status(), self.body());
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\n\
             x-request-id: {id}\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n{body}",
            id = request_id(),
            length = body.len(),
            date = httpdate::HttpDate::from(std::time::SystemTime::now()),
        )
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::HostInvalid => StatusCode::BAD_REQUEST,
            Self::ExpectationUnknown => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(self) -> String {
        format!(r#"{{"error":"{}"}}"#, self.code())
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Host => Self::HostInvalid,
            Fault::Expectation => Self::ExpectationUnknown,
            Fault::TargetTooLong => Self::TargetTooLong,
            Fault::HeadTooLong => Self::HeadTooLarge,
            _ => Self::Malformed,
        }
    }
}

/// 128 random bits: enough that no two requests in one's logs are confused.
fn request_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
