//! The stable names of all answers that are cxgate's own, wherever they are made, and their statuses.

use hyper::StatusCode;

/// Why cxgate answered itself, for bodies, metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name it is written with")]
pub enum Code {
    BadRequest,
    HostInvalid,
    PathAmbiguous,
    IdentityAmbiguous,
    IdentityInvalid,
    LimitKeyMissing,
    BodyBroken,
    NoRoute,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    UriTooLong,
    ExpectationFailed,
    RateLimitExceeded,
    TooManySockets,
    TooManyInFlight,
    HeaderTooLarge,
    InternalError,
    UpstreamUnreachable,
    UpstreamFailed,
    CredentialsUnavailable,
    Overloaded,
    UpstreamBusy,
    StoreUnavailable,
    UpstreamTimeout,
}

// === impl Code ===

impl Code {
    /// Every code, in the order of their discriminants.
    pub const ALL: [Self; 25] = [
        Self::BadRequest,
        Self::HostInvalid,
        Self::PathAmbiguous,
        Self::IdentityAmbiguous,
        Self::IdentityInvalid,
        Self::LimitKeyMissing,
        Self::BodyBroken,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::ExpectationFailed,
        Self::RateLimitExceeded,
        Self::TooManySockets,
        Self::TooManyInFlight,
        Self::HeaderTooLarge,
        Self::InternalError,
        Self::UpstreamUnreachable,
        Self::UpstreamFailed,
        Self::CredentialsUnavailable,
        Self::Overloaded,
        Self::UpstreamBusy,
        Self::StoreUnavailable,
        Self::UpstreamTimeout,
    ];

    /// As it is written, and its status.
    const fn told(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST),
            Self::HostInvalid => ("host_invalid", StatusCode::BAD_REQUEST),
            Self::PathAmbiguous => ("path_ambiguous", StatusCode::BAD_REQUEST),
            Self::IdentityAmbiguous => ("identity_ambiguous", StatusCode::BAD_REQUEST),
            Self::IdentityInvalid => ("identity_invalid", StatusCode::BAD_REQUEST),
            Self::LimitKeyMissing => ("limit_key_missing", StatusCode::BAD_REQUEST),
            Self::BodyBroken => ("body_broken", StatusCode::BAD_REQUEST),
            Self::NoRoute => ("no_route", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::RequestTimeout => ("request_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UriTooLong => ("uri_too_long", StatusCode::URI_TOO_LONG),
            Self::ExpectationFailed => ("expectation_failed", StatusCode::EXPECTATION_FAILED),
            Self::RateLimitExceeded => ("rate_limit_exceeded", StatusCode::TOO_MANY_REQUESTS),
            Self::TooManySockets => ("too_many_sockets", StatusCode::TOO_MANY_REQUESTS),
            Self::TooManyInFlight => ("too_many_in_flight", StatusCode::TOO_MANY_REQUESTS),
            Self::HeaderTooLarge => ("header_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::InternalError => ("internal_error", StatusCode::INTERNAL_SERVER_ERROR),
            Self::UpstreamUnreachable => ("upstream_unreachable", StatusCode::BAD_GATEWAY),
            Self::UpstreamFailed => ("upstream_failed", StatusCode::BAD_GATEWAY),
            Self::CredentialsUnavailable => ("credentials_unavailable", StatusCode::BAD_GATEWAY),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE),
            Self::UpstreamBusy => ("upstream_busy", StatusCode::SERVICE_UNAVAILABLE),
            Self::StoreUnavailable => ("store_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::UpstreamTimeout => ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT),
        }
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        self.told().0
    }

    /// Its status.
    pub const fn status(self) -> StatusCode {
        self.told().1
    }

    /// The body of an answer that says no more.
    pub fn body(self) -> String {
        format!(r#"{{"error":"{}"}}"#, self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_once_in_the_order_of_its_number() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number, "{}", code.as_str());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
