//! How requests say over HTTP/2 what they are for.

use http_body::Body;
use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE},
    http::uri::{Authority, Parts, PathAndQuery, Scheme},
};

use crate::{body::RequestBody, config, upstream::upload::Upload, wire::fields::FieldLines};

/// Meant for one connection of HTTP/1 only (RFC 9113, section 8.2.2), or said by `:authority`.
const NOT_HTTP2: [HeaderName; 6] = [
    CONNECTION,
    HOST,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Where requests go.
pub(super) struct Origin {
    scheme: Scheme,
    authority: Option<Authority>,
}

// === impl Origin ===

impl Origin {
    pub(super) fn new(url: &config::Origin) -> Self {
        let scheme = if url.tls { Scheme::HTTPS } else { Scheme::HTTP };
        Self { scheme, authority: Authority::try_from(url.authority()).ok() }
    }

    /// A request's head, and `fields` beside it, the way HTTP/2 has it (RFC 9113, section 8.3.1).
    pub(super) fn addressed(&self, original: &Request<RequestBody>, fields: &FieldLines, body: &Upload) -> Request<()> {
        let path = original.uri().path_and_query().cloned();
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority.clone_from(&self.authority);
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let mut request = Request::new(());
        *request.method_mut() = original.method().clone();
        // All three are there, so that this cannot fail; without an authority no upstream could be set up.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = original.headers().clone();
        let announces = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        let length = body.size_hint().exact();
        let headers = request.headers_mut();
        fields.add_to(headers);
        for name in NOT_HTTP2 {
            headers.remove(name);
        }
        // Trailers pass to whoever takes them.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        set_length(headers, length.filter(|length| announces || *length > 0));
        request
    }
}

fn set_length(headers: &mut HeaderMap, length: Option<u64>) {
    match length {
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
}
