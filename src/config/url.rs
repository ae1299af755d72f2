//! Addresses of servers as they are typed: URLs, read strictly. What a URL would be "repaired" from is refused.

use std::{fmt, net::Ipv6Addr};

use hyper::Uri;
use serde::Serialize;

/// Scheme, host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Origin {
    /// Whether the connection is made with TLS.
    pub tls: bool,
    /// Name or address, lower case, IPv6 without brackets.
    pub host: String,
    /// Port; 80 or 443 where the URL names none.
    pub port: u16,
}

/// A URL that is asked: an [`Origin`] and a path with query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Endpoint {
    /// Whom to ask.
    pub origin: Origin,
    /// What to ask for; starts with `/`.
    pub path_and_query: String,
}

// === impl Origin ===

impl Origin {
    /// `http://host:port` or `https://host:port` with nothing behind; one `/` is nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let endpoint = Endpoint::parse(text)?;
        (endpoint.path_and_query == "/").then_some(endpoint.origin)
    }

    /// What a `Host` header names: the host, and the port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// `http://host:port/path?query` or the same with `https`; no user information, no fragment.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(['#', '@']) {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (host, port) = match uri.authority()?.as_str().rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, parse_port(port)?),
            _ => (uri.authority()?.as_str(), default_port(tls)),
        };
        let path_and_query = uri.path_and_query().map_or("/", |path_and_query| path_and_query.as_str());
        let path_and_query =
            if path_and_query.starts_with('/') { path_and_query.into() } else { format!("/{path_and_query}") };
        Some(Self { origin: Origin { tls, host: parse_host(host)?, port }, path_and_query })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.origin, self.path_and_query)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

// === parts ===

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

pub(super) fn parse_port(text: &str) -> Option<u16> {
    let port = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())??;
    (port > 0).then_some(port)
}

/// A host without port, in lower case: a name of at most 253 letters, digits, `-`, `_` and `.`, or an address (IPv6 in
/// brackets, which are taken off).
pub(super) fn parse_host(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    }
    let well_formed = (1..=253).contains(&text.len())
        && text.split('.').all(|label| !label.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    well_formed.then(|| text.to_ascii_lowercase())
}

/// `text` with everything between `://` and the last `@` hidden but a user name, for print and for error messages.
pub(super) fn without_password(text: &str) -> String {
    let Some((rest, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let (scheme, user) = match rest.split_once("://") {
        Some((scheme, credentials)) => (format!("{scheme}://"), credentials.split_once(':').map_or("", |(user, _)| user)),
        None => (String::new(), ""),
    };
    format!("{scheme}{user}:{}@{host}", super::secret::REDACTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_strictly() {
        for (typed, meant) in [
            ("http://localhost", Some("http://localhost/")),
            ("https://API.cxone.com/", Some("https://api.cxone.com/")),
            ("https://a:443/x?y=1", Some("https://a/x?y=1")),
            ("http://a:443", Some("http://a:443/")),
            ("http://a?y=1", Some("http://a/?y=1")),
            ("http://[::1]:81/", Some("http://[::1]:81/")),
            ("http://[0::1]", Some("http://[::1]/")),
            ("http://127.0.0.1:65535", Some("http://127.0.0.1:65535/")),
            ("", None),
            ("a", None),
            ("/a", None),
            ("a:80", None),
            ("ftp://a", None),
            ("http://", None),
            ("http://a:", None),
            ("http://a:0", None),
            ("http://a:65536", None),
            ("http://a:+80", None),
            ("http://a..b", None),
            ("http://user@a", None),
            ("http://user:password@a", None),
            ("http://a/#b", None),
            ("http://[::1", None),
            ("http://[zz]", None),
            ("http://a b", None),
        ] {
            assert_eq!(Endpoint::parse(typed).map(String::from).as_deref(), meant, "{typed}");
        }
        assert!(Origin::parse("https://a/").is_some());
        assert!(Origin::parse("https://a/b").is_none());
        assert!(Origin::parse("https://a/?b").is_none());
    }

    #[test]
    fn an_authority_names_the_port_only_where_it_is_not_the_schemes_own() {
        for (url, authority) in
            [("https://a", "a"), ("https://a:443", "a"), ("https://a:80", "a:80"), ("http://[::1]:81", "[::1]:81")]
        {
            assert_eq!(Origin::parse(url).unwrap().authority(), authority);
        }
    }

    #[test]
    fn a_password_in_a_url_is_hidden_whatever_it_holds() {
        for (url, shown) in [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://:hunter2@localhost/0", "redis://:[redacted]@localhost/0"),
            ("redis://user:hunter2@localhost", "redis://user:[redacted]@localhost"),
            ("redis://user:hunt/er@2@localhost", "redis://user:[redacted]@localhost"),
            ("redis://hunter2@localhost", "redis://:[redacted]@localhost"),
            ("user:hunter2@localhost", ":[redacted]@localhost"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
