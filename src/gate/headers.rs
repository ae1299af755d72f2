//! What a proxy changes in a head, as pure functions over header maps.
//!
//! Promised: hop-by-hop fields and those named by `Connection` go no further (RFC 9110, section 7.6.1), in either direction;
//! a client cannot use `Connection` to take away fields that decisions rest on; forwarding fields from peers that are not
//! trusted are replaced, not extended. Everything else passes as it came.

use std::net::IpAddr;

use hyper::{
    HeaderMap, Version,
    header::{
        CONNECTION, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::{
    forwarded::{self, X_FORWARDED_FOR},
    numbers,
};
use crate::wire::{connection_options, fields::FieldLines};

/// Carries a [`RequestId`](super::request_id::RequestId).
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The host the client asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What proxies say of those they forward for.
const FORWARDING: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
/// Proves a whitelist claim; for cxgate alone, never forwarded.
pub const X_CLIENT_SECRET: HeaderName = HeaderName::from_static("x-client-secret");

/// Removes what is meant for one connection only. Fields in `protected` stay even where `Connection` names them.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, protected: &[HeaderName]) {
    // Most messages hold none of them: to go through the names once costs far less than to look for each.
    let mut meant = held(headers, is_hop_by_hop);
    if meant.contains(&CONNECTION) {
        // The usual two name no field that would be there still.
        let usual = |option: &&str| ["close", "keep-alive"].iter().any(|usual| option.eq_ignore_ascii_case(usual));
        let named = connection_options(headers).filter(|option| !usual(option)).filter_map(|option| option.parse().ok());
        meant.extend(named.filter(|name| !protected.contains(name)));
    }
    for name in meant {
        headers.remove(name);
    }
}

/// Removes the fields that have these names.
pub fn remove_all(headers: &mut HeaderMap, names: &[&str]) {
    for name in held(headers, |name| names.contains(&name.as_str())) {
        headers.remove(name);
    }
}

/// The names of those fields that are meant.
fn held(headers: &HeaderMap, are_meant: impl Fn(&HeaderName) -> bool) -> Vec<HeaderName> {
    headers.keys().filter(|name| are_meant(name)).cloned().collect()
}

/// Whether this is `Connection`, or a field that is meant for one connection only, whatever it says (RFC 9110, section 7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | PROXY_AUTHORIZATION | TE | TRAILER | TRANSFER_ENCODING | UPGRADE)
        || ["keep-alive", "proxy-connection"].contains(&name.as_str())
}

/// The protocol a request wants to switch to (RFC 9110, section 7.8): `Upgrade`, where `Connection` names it.
pub fn upgrade_wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade")).then(|| upgrade.clone())
}

/// Asks, or agrees, to switch to `protocol`.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Says for whom a request is forwarded, and whether it came over TLS. What a trusted proxy said already is kept and extended,
/// what anybody else said is taken away, and said anew in `added`.
pub fn set_forwarding(headers: &mut HeaderMap, added: &mut FieldLines, peer: IpAddr, secure: bool, trusted: bool) {
    let scheme = if secure { "https" } else { "http" };
    if !trusted {
        remove_all(headers, &FORWARDING);
        added.push(&X_FORWARDED_FOR, &numbers::address(peer));
        if let Some(host) = headers.get(HOST) {
            added.push_value(&X_FORWARDED_HOST, host);
        }
        return added.push(&X_FORWARDED_PROTO, scheme);
    }
    let host = headers.get(HOST).cloned();
    let lists = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|list| list.to_str().ok());
    let mut chain = lists.collect::<Vec<_>>().join(", ");
    if !chain.is_empty() {
        chain.push_str(", ");
    }
    chain.push_str(&numbers::address(peer));
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    if headers.contains_key(FORWARDED)
        && let Ok(hop) = HeaderValue::try_from(forwarded::written(peer, scheme))
    {
        headers.append(FORWARDED, hop);
    }
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
}

/// The line that adds this proxy to the way a message has come, received with HTTP `version` (`Via`, RFC 9110, section 7.6.3).
pub fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "via: 1.0 cxgate\r\n",
        Version::HTTP_2 => "via: 2.0 cxgate\r\n",
        _ => "via: 1.1 cxgate\r\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field =
            |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn fields_for_one_connection_go_no_further() {
        let mut stripped = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "x-other , x-client-id"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("x-client-id", "alice"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
        ]);
        strip_hop_by_hop(&mut stripped, &[HeaderName::from_static("x-client-id")]);
        assert_eq!(stripped, headers(&[("x-client-id", "alice"), ("authorization", "Bearer x"), ("cookie", "a=b")]));
    }

    #[test]
    fn an_upgrade_is_wanted_only_where_connection_names_it() {
        assert_eq!(upgrade_wanted(&headers(&[("upgrade", "websocket")])), None);
        assert_eq!(upgrade_wanted(&headers(&[("connection", "upgrade")])), None);
        let firefox = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade_wanted(&firefox).unwrap(), "websocket");
    }

    #[test]
    fn forwarding_fields_of_strangers_are_replaced_and_those_of_trusted_proxies_extended() {
        let sent = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "chat.example"),
            ("forwarded", "for=203.0.113.9"),
            ("host", "gate.example"),
        ];
        let peer = "10.0.0.1".parse().unwrap();
        let forwarded = |sent, peer, secure, trusted| {
            let (mut headers, mut added) = (headers(sent), FieldLines::default());
            set_forwarding(&mut headers, &mut added, peer, secure, trusted);
            added.add_to(&mut headers);
            headers
        };
        let stranger = forwarded(&sent, peer, false, false);
        assert_eq!(stranger.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["10.0.0.1"]);
        assert_eq!(stranger.get_all(X_FORWARDED_PROTO).iter().collect::<Vec<_>>(), ["http"]);
        assert_eq!(stranger.get_all(X_FORWARDED_HOST).iter().collect::<Vec<_>>(), ["gate.example"]);
        assert!(!stranger.contains_key(FORWARDED));
        let trusted = forwarded(&sent, peer, false, true);
        assert_eq!(trusted.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["203.0.113.9, 10.0.0.2, 10.0.0.1"]);
        assert_eq!(trusted.get_all(FORWARDED).iter().collect::<Vec<_>>(), ["for=203.0.113.9", "for=10.0.0.1;proto=http"]);
        assert_eq!(trusted[X_FORWARDED_PROTO], "https");
        assert_eq!(trusted[X_FORWARDED_HOST], "chat.example");
        let secure = forwarded(&sent[4..], "2001:db8::1".parse().unwrap(), true, true);
        assert_eq!(secure.get_all(FORWARDED).iter().nth(1).unwrap(), "for=\"[2001:db8::1]\";proto=https");
        assert_eq!(secure[X_FORWARDED_PROTO], "https");
    }
}
