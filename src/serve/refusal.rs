//! What the listener answers by itself, before or instead of the handler.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};

use crate::{code::Code, wire::Fault};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a head is refused as that cannot be read.
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

/// The answer as it goes over the wire, for when there is no request to answer.
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
