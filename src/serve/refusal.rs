//! What the listener answers by itself, before or instead of the handler.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};

use crate::{code::Code, wire::Fault};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request target that hyper can represent; beyond it a head is refused whatever its size may be.
const LONGEST_TARGET: usize = (u16::MAX - 1) as usize;

/// Why hyper could not parse a head, of which `read` is what has arrived and `largest` bytes may.
pub(super) fn of_head(error: &hyper::Error, read: &[u8], largest: usize) -> Code {
    if !error.is_parse_too_large() {
        return Code::BadRequest;
    }
    match read.iter().position(|byte| *byte == b'\n') {
        Some(line) if line < largest.min(LONGEST_TARGET) => Code::HeaderTooLarge,
        _ => Code::UriTooLong,
    }
}

/// What a head is refused as that the strict reader did not pass.
pub(super) fn of_fault(fault: Fault) -> Code {
    match fault {
        Fault::Host => Code::HostInvalid,
        Fault::Expectation => Code::ExpectationFailed,
        Fault::TargetTooLong => Code::UriTooLong,
        Fault::HeadTooLong => Code::HeaderTooLarge,
        _ => Code::BadRequest,
    }
}

/// The answer, which ends the connection where what else is on it cannot be trusted, or is not worth reading.
pub(super) fn response(code: Code, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(code.body()));
    *response.status_mut() = code.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if code == Code::Overloaded {
        // The client keeps its connection: another one would cost both sides more than this request.
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    } else {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    response
}

/// The answer as it goes over the wire, for when hyper has given up on the connection.
pub(super) fn message(code: Code, request_id: &str) -> String {
    let (status, body) = (code.status(), code.body());
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\n\
         x-request-id: {request_id}\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n{body}",
        length = body.len(),
        date = httpdate::HttpDate::from(std::time::SystemTime::now()),
    )
}

/// 128 random bits: enough that no two requests in one's logs are confused.
pub(super) fn request_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
