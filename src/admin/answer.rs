//! What the admin listener says: JSON, and the closed list of what can be wrong.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};

/// An answer to an operator.
pub type Answer = Response<Full<Bytes>>;

/// Why an operator gets no answer. Each has a stable name and one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name it is written with")]
pub enum Code {
    BadRequest,
    AmbiguousLimit,
    ValuesInvalid,
    Unauthorized,
    WritesDisabled,
    ForeignOrigin,
    ForeignHost,
    NotFound,
    UnknownLimit,
    MethodNotAllowed,
    NoRoom,
    Draining,
    BodyTooLarge,
    ConfigInvalid,
    TooManyAttempts,
    StoreUnavailable,
}

/// Why an operator gets no answer, in words.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its name.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What could have been asked instead.
    pub choices: Vec<String>,
    /// When or how else to ask, where that is known.
    pub instead: Option<Instead>,
}

/// When or how else to ask.
#[derive(Debug, Clone)]
pub enum Instead {
    /// With one of these methods.
    Methods(String),
    /// After so many seconds.
    After(u64),
}

// === impl Code ===

impl Code {
    /// Every code.
    pub const ALL: [Self; 16] = [
        Self::BadRequest,
        Self::AmbiguousLimit,
        Self::ValuesInvalid,
        Self::Unauthorized,
        Self::WritesDisabled,
        Self::ForeignOrigin,
        Self::ForeignHost,
        Self::NotFound,
        Self::UnknownLimit,
        Self::MethodNotAllowed,
        Self::NoRoom,
        Self::Draining,
        Self::BodyTooLarge,
        Self::ConfigInvalid,
        Self::TooManyAttempts,
        Self::StoreUnavailable,
    ];

    /// As it stands in answers.
    pub fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        self.parts().1
    }

    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST),
            Self::AmbiguousLimit => ("ambiguous_limit", StatusCode::BAD_REQUEST),
            Self::ValuesInvalid => ("values_invalid", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            Self::WritesDisabled => ("writes_disabled", StatusCode::FORBIDDEN),
            Self::ForeignOrigin => ("foreign_origin", StatusCode::FORBIDDEN),
            Self::ForeignHost => ("foreign_host", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::UnknownLimit => ("unknown_limit", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::NoRoom => ("no_room", StatusCode::CONFLICT),
            Self::Draining => ("draining", StatusCode::CONFLICT),
            Self::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::ConfigInvalid => ("config_invalid", StatusCode::UNPROCESSABLE_ENTITY),
            Self::TooManyAttempts => ("too_many_attempts", StatusCode::TOO_MANY_REQUESTS),
            Self::StoreUnavailable => ("store_unavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// A refusal, and why.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), choices: Vec::new(), instead: None }
    }

    /// Nothing is there.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "there is nothing at this path")
    }

    /// Something is there, but not for this method.
    pub fn method_not_allowed(allowed: &str) -> Self {
        let refusal = Self::new(Code::MethodNotAllowed, format!("allowed: {allowed}"));
        Self { instead: Some(Instead::Methods(allowed.to_owned())), ..refusal }
    }

    /// The address has to stay away for so many seconds.
    pub fn too_many_attempts(seconds: u64) -> Self {
        let message = "too many wrong tokens came from this address";
        Self { instead: Some(Instead::After(seconds)), ..Self::new(Code::TooManyAttempts, message) }
    }

    /// As it is sent.
    pub fn into_answer(self) -> Answer {
        let mut body = json!({"error": self.code.as_str(), "message": self.message});
        if !self.choices.is_empty() {
            body["choices"] = self.choices.into();
        }
        let mut answer = json(self.code.status(), &body);
        let headers = answer.headers_mut();
        if self.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        match self.instead {
            Some(Instead::Methods(allowed)) => {
                let allowed = HeaderValue::try_from(allowed).unwrap_or_else(|_| HeaderValue::from_static(""));
                headers.insert(ALLOW, allowed);
            }
            Some(Instead::After(seconds)) => _ = headers.insert(RETRY_AFTER, seconds.into()),
            None => {}
        }
        answer
    }
}

/// An answer in JSON.
pub fn json(status: StatusCode, body: &Value) -> Answer {
    text(status, "application/json", body.to_string())
}

/// An answer that nobody keeps.
pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
