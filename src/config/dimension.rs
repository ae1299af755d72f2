//! What a client is told by, and what a limit counts by: written `header:x-client-id`, `address`, `path:action_id`.

use std::fmt;

use hyper::http::HeaderName;
use serde::Serialize;

/// Where a client's identity is read. Header and query values are compared without regard to ASCII case, cookies and
/// credentials exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum IdentitySource {
    /// `header:NAME`
    Header(HeaderName),
    /// `query:NAME`
    Query(String),
    /// `cookie:NAME`
    Cookie(String),
    /// `certificate`: the subject of the certificate that the client proved itself by, as in `CN=reports`.
    Certificate,
    /// `bearer`: the hash of the Authorization credential.
    Bearer,
    /// `address`: the peer, or the client a trusted proxy names.
    Address,
}

/// One part of what a limit counts by. Values of headers and of the query are compared without regard to ASCII case, and so are
/// captured segments, with their percent-encoding undone; credentials and certificates exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Dimension {
    /// `client`: its identity.
    Client,
    /// `address`: its address, IPv6 cut to the prefix.
    Address,
    /// `certificate`: the subject of the certificate that it proved itself by.
    Certificate,
    /// `bearer`: the hash of its Authorization credential.
    Bearer,
    /// `route`: one bucket for the whole route.
    Route,
    /// `path:NAME`: a captured segment.
    Path(String),
    /// `header:NAME`
    Header(HeaderName),
    /// `query:NAME`
    Query(String),
}

// === impl IdentitySource ===

impl IdentitySource {
    /// What `text` names, if it names one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "bearer" => Some(Self::Bearer),
            None if text == "certificate" => Some(Self::Certificate),
            None if text == "address" => Some(Self::Address),
            Some(("header", name)) => header(name).map(Self::Header),
            Some(("query", name)) => is_parameter(name).then(|| Self::Query(name.to_owned())),
            Some(("cookie", name)) => is_parameter(name).then(|| Self::Cookie(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(formatter, "header:{name}"),
            Self::Query(name) => write!(formatter, "query:{name}"),
            Self::Cookie(name) => write!(formatter, "cookie:{name}"),
            Self::Bearer => formatter.write_str("bearer"),
            Self::Certificate => formatter.write_str("certificate"),
            Self::Address => formatter.write_str("address"),
        }
    }
}

impl From<IdentitySource> for String {
    fn from(source: IdentitySource) -> Self {
        source.to_string()
    }
}

// === impl Dimension ===

impl Dimension {
    /// What `text` names, if it names one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "client" => Some(Self::Client),
            None if text == "address" => Some(Self::Address),
            None if text == "route" => Some(Self::Route),
            None if text == "certificate" => Some(Self::Certificate),
            None if text == "bearer" => Some(Self::Bearer),
            Some(("path", name)) => is_parameter(name).then(|| Self::Path(name.to_owned())),
            Some(("header", name)) => header(name).map(Self::Header),
            Some(("query", name)) => is_parameter(name).then(|| Self::Query(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => formatter.write_str("client"),
            Self::Address => formatter.write_str("address"),
            Self::Certificate => formatter.write_str("certificate"),
            Self::Bearer => formatter.write_str("bearer"),
            Self::Route => formatter.write_str("route"),
            Self::Path(name) => write!(formatter, "path:{name}"),
            Self::Header(name) => write!(formatter, "header:{name}"),
            Self::Query(name) => write!(formatter, "query:{name}"),
        }
    }
}

impl From<Dimension> for String {
    fn from(dimension: Dimension) -> Self {
        dimension.to_string()
    }
}

// === names ===

fn header(name: &str) -> Option<HeaderName> {
    HeaderName::try_from(name).ok()
}

/// Whether `name` can name a query parameter, a cookie or a captured segment: 1 to 64 of `A-Z a-z 0-9 - _ .`
pub(super) fn is_parameter(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
