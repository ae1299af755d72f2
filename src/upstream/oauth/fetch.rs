//! Asking for one token, and reading the answer strictly.

use std::{fmt::Write as _, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Upstream;
use crate::{
    body::RequestBody,
    config::{AccessKey, ClientAuthentication, Grant, OAuth, OAuthClient},
};

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The longest token: it has to fit into a request's head.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The longest life that is believed; a token that lives longer is only replaced sooner.
const MAX_LIFETIME_SECONDS: f64 = 30.0 * 86_400.0;

/// What stays as it is in a form; everything else is percent-encoded, which every reader of forms understands.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Asks one token endpoint in one way.
pub(super) struct Fetcher {
    upstream: Upstream,
    path_and_query: String,
    grant: Grant,
    default_lifetime: Duration,
}

/// A token as it was granted.
#[derive(Debug)]
pub(super) struct Granted {
    /// `Bearer TOKEN`, marked sensitive.
    pub(super) authorization: HeaderValue,
    /// When it was asked for; its life counts from here.
    pub(super) asked: Instant,
    pub(super) lifetime: Duration,
}

/// Why no token was granted. Says nothing that the endpoint said, which might be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the token endpoint cannot be reached")]
    Unreachable,
    #[error("the token endpoint did not answer in time")]
    Timeout,
    #[error("the token endpoint refused the credentials (status 400 to 403)")]
    Refused,
    #[error("the token endpoint did not answer with status 200")]
    Status,
    #[error("the answer is larger than 64 KiB")]
    TooLarge,
    #[error("the answer is not JSON with a bearer access_token and, if any, an expires_in of 1 or more")]
    Invalid,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<f64>,
}

// === impl FetchError ===

impl FetchError {
    pub(super) const COUNT: usize = 6;
    /// Their names in metrics, in the order of their numbers.
    pub(super) const RESULTS: [&str; Self::COUNT] = ["unreachable", "timeout", "refused", "status", "too_large", "invalid"];
}

// === impl Fetcher ===

impl Fetcher {
    pub(super) fn new(config: &OAuth, upstream: Upstream) -> Self {
        let path_and_query = config.token_url.path_and_query.clone();
        Self { upstream, path_and_query, grant: config.grant.clone(), default_lifetime: config.default_lifetime }
    }

    /// Asks for a token.
    pub(super) async fn fetch(&self) -> Result<Granted, FetchError> {
        let asked = Instant::now();
        let request = request(&self.grant, &self.path_and_query).ok_or(FetchError::Invalid)?;
        let response = self.upstream.send(request).await.map_err(|_| FetchError::Unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(FetchError::Refused),
            _ => return Err(FetchError::Status),
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body
            .map_err(|error| if error.is::<LengthLimitError>() { FetchError::TooLarge } else { FetchError::Unreachable })?;
        let (authorization, lifetime) = parse(&body.to_bytes()).ok_or(FetchError::Invalid)?;
        Ok(Granted { authorization, asked, lifetime: lifetime.unwrap_or(self.default_lifetime) })
    }
}

/// The request that asks for a token. Secrets stand in its body or its `Authorization`, never in its target.
fn request(grant: &Grant, path_and_query: &str) -> Option<Request<RequestBody>> {
    let mut request = Request::post(path_and_query).header(ACCEPT, "application/json");
    let body = match grant {
        Grant::AccessKey(AccessKey { username, password }) => {
            request = request.header(CONTENT_TYPE, "application/json");
            json!({ "accessKeyId": username, "accessKeySecret": password.expose() }).to_string()
        }
        Grant::ClientCredentials(client) | Grant::Password { client, .. } => {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            if client.client_authentication == ClientAuthentication::Basic {
                request = request.header(AUTHORIZATION, basic(client)?);
            }
            form(grant, client)
        }
    };
    request.body(RequestBody::whole(Bytes::from(body))).ok()
}

fn form(grant: &Grant, client: &OAuthClient) -> String {
    let mut form = String::new();
    let mut add = |name: &str, value: &str| {
        let separator = if form.is_empty() { "" } else { "&" };
        // Writing to a string cannot fail.
        let _ = write!(form, "{separator}{name}={}", utf8_percent_encode(value, FORM));
    };
    match grant {
        Grant::Password { key, .. } => {
            add("grant_type", "password");
            add("username", &key.username);
            add("password", key.password.expose());
        }
        Grant::ClientCredentials(_) | Grant::AccessKey(_) => add("grant_type", "client_credentials"),
    }
    if client.client_authentication == ClientAuthentication::Body {
        add("client_id", &client.client_id);
        add("client_secret", client.client_secret.expose());
    }
    if let Some(scope) = &client.scope {
        add("scope", scope);
    }
    form
}

/// Both form-encoded before they are joined (RFC 6749, section 2.3.1).
fn basic(client: &OAuthClient) -> Option<HeaderValue> {
    let encoded = |text| utf8_percent_encode(text, FORM);
    let pair = format!("{}:{}", encoded(&client.client_id), encoded(client.client_secret.expose()));
    sensitive(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token as an `Authorization` field, and how long it lives, where the answer says so.
fn parse(body: &[u8]) -> Option<(HeaderValue, Option<Duration>)> {
    let Answer { access_token, token_type, expires_in } = serde_json::from_slice(body).ok()?;
    let is_bearer = token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
    let is_token =
        (1..=MAX_TOKEN_BYTES).contains(&access_token.len()) && access_token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_bearer || !is_token || expires_in.is_some_and(|seconds| seconds < 1.0) {
        return None;
    }
    let lifetime = expires_in.map(|seconds| Duration::from_secs_f64(seconds.min(MAX_LIFETIME_SECONDS)));
    Some((sensitive(&format!("Bearer {access_token}"))?, lifetime))
}

#[cfg(test)]
mod tests;
