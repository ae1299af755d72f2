//! Who asks: the client's identity and address.
//!
//! Promised: an identity is 1 to 128 printable ASCII bytes; a request that names itself twice, or unprintably, is refused
//! rather than guessed at; one that names itself not at all is its address, never a bucket it shares with strangers. A
//! forwarded address is believed only as far as trusted proxies vouch for it.
//! Not promised: that the name is true. What a claimed name may do is the whitelist's business.

use std::{borrow::Cow, fmt::Write as _, net::IpAddr};

use arrayvec::ArrayString;
use hyper::{
    HeaderMap, Request,
    header::{AUTHORIZATION, COOKIE},
};
use ipnet::IpNet;

use super::{bad_request::BadRequest, forwarded, query};
use crate::{
    config::{self, IdentitySource},
    limiter::key::{KeyHasher, KeyParts},
    peer::Peer,
};

/// The longest identity, in bytes.
pub const MAX_IDENTITY_BYTES: usize = 128;

/// The kind of an identity that nobody claimed.
const ADDRESS: &str = "address";

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The other end of the connection: the client itself, or a proxy.
    pub peer: IpAddr,
    /// What it is called.
    pub identity: Identity,
    /// Its own address, as far as trusted proxies vouch for it.
    pub address: IpAddr,
    /// The address that counts for limits: IPv6 cut to the configured prefix.
    pub network: IpNet,
    /// Whether the peer is a trusted proxy, whose word about the client is passed on.
    pub through_trusted_proxy: bool,
}

/// What a client is called, and by which kind of source: a client that *calls* itself `192.0.2.1` is not that address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// 1 to [`MAX_IDENTITY_BYTES`] printable ASCII bytes.
    pub text: ArrayString<MAX_IDENTITY_BYTES>,
    /// Names the kind of source in keys.
    pub kind: &'static str,
}

/// Reads identities the way the configuration says.
#[derive(Clone)]
pub struct Identification {
    sources: Vec<IdentitySource>,
    ipv6_prefix: u8,
    trusted_proxies: Vec<IpNet>,
    hasher: KeyHasher,
}

// === impl Identification ===

impl Identification {
    /// Reads `[identity]`; the peers in `trusted_proxies` are believed about who is behind them.
    pub fn new(config: &config::Identity, trusted_proxies: &[IpNet], hasher: KeyHasher) -> Self {
        let sources = config.sources.clone();
        Self { sources, ipv6_prefix: config.ipv6_prefix, trusted_proxies: trusted_proxies.to_vec(), hasher }
    }

    /// Who sent a request that came from `peer`.
    pub fn client<B>(&self, Peer { address, certificate, .. }: &Peer, request: &Request<B>) -> Result<Client, BadRequest> {
        let peer = address.ip().to_canonical();
        let address = forwarded::client_address(peer, request.headers(), &self.trusted_proxies);
        let network = network(address, self.ipv6_prefix);
        let identity = self.identity(network, certificate.as_deref(), request)?;
        Ok(Client { peer, identity, address, network, through_trusted_proxy: forwarded::is_in(&self.trusted_proxies, peer) })
    }

    /// What the identity of a request is read from; `address` where nothing names it.
    pub fn source<B>(&self, peer: &Peer, request: &Request<B>) -> String {
        let names = |source: &&IdentitySource| {
            let alone = Self { sources: vec![(*source).clone()], ..self.clone() };
            alone.client(peer, request).is_ok_and(|client| client.identity.is_claimed())
        };
        self.sources.iter().find(names).unwrap_or(&IdentitySource::Address).to_string()
    }

    /// The leading bits of an IPv6 address that count as one client.
    pub fn ipv6_prefix(&self) -> u8 {
        self.ipv6_prefix
    }

    fn identity<B>(&self, network: IpNet, certificate: Option<&str>, request: &Request<B>) -> Result<Identity, BadRequest> {
        let headers = request.headers();
        for source in &self.sources {
            let claimed: Option<(Cow<'_, str>, _, _)> = match source {
                IdentitySource::Header(name) => only_header(headers, name)?.map(|value| (value.into(), "name", true)),
                IdentitySource::Query(name) => query::value(request.uri().query().unwrap_or_default(), name)
                    .map_err(|query::Ambiguous| BadRequest::IdentityAmbiguous)?
                    .map(|value| (value, "name", true)),
                IdentitySource::Cookie(name) => cookie(headers, name)?.map(|value| (value.into(), "cookie", false)),
                IdentitySource::Bearer => bearer(headers, &self.hasher)?.map(|hash| (hash.into(), "bearer", false)),
                IdentitySource::Certificate => certificate.map(|subject| (subject.into(), "certificate", false)),
                IdentitySource::Address => break,
            };
            if let Some((text, kind, fold_case)) = claimed
                && let Some(identity) = Identity::claimed(&text, kind, fold_case)?
            {
                return Ok(identity);
            }
        }
        Ok(Identity::address(network))
    }
}

// === impl Client ===

impl Client {
    /// Adds what it is called to a key: first what differs, for it decides on the group.
    pub fn add_identity<'k>(&self, key: &'k mut KeyParts) -> &'k mut KeyParts {
        key.part(self.identity.text.as_bytes()).part(self.identity.kind.as_bytes())
    }

    /// Adds the address that counts for limits to a key.
    pub fn add_network<'k>(&self, key: &'k mut KeyParts) -> &'k mut KeyParts {
        add_network(key, self.network)
    }

    /// Adds a client that a source of this `kind` calls `name` to a key; `None` where none could be called so.
    pub fn add_named(key: &mut KeyParts, name: &str, kind: &str, ipv6_prefix: u8) -> Option<()> {
        let identity = match kind {
            "name" => Identity::claimed(name, "name", true),
            "cookie" => Identity::claimed(name, "cookie", false),
            "bearer" => Identity::claimed(name, "bearer", false),
            "certificate" => Identity::claimed(name, "certificate", false),
            ADDRESS => {
                let address = name.split('/').next()?.parse::<IpAddr>().ok()?;
                Ok(Some(Identity::address(network(address.to_canonical(), ipv6_prefix))))
            }
            _ => Ok(None),
        };
        let identity = identity.ok().flatten()?;
        key.part(identity.text.as_bytes()).part(identity.kind.as_bytes());
        Some(())
    }
}

// === impl Identity ===

impl Identity {
    /// A claimed identity; `None` where it is empty, an error where it is too long or not printable.
    fn claimed(text: &str, kind: &'static str, fold_case: bool) -> Result<Option<Self>, BadRequest> {
        // Not what Unicode calls white space: a line break in an identity is not printable, wherever it stands.
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return Ok(None);
        }
        let mut text = ArrayString::from(text).map_err(|_| BadRequest::IdentityInvalid)?;
        if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(BadRequest::IdentityInvalid);
        }
        if fold_case {
            text.make_ascii_lowercase();
        }
        Ok(Some(Self { text, kind }))
    }

    fn address(network: IpNet) -> Self {
        let mut text = ArrayString::new();
        let whole = network.prefix_len() == network.max_prefix_len();
        // The longest address with its prefix has 43 bytes, so that neither of these can fail.
        let _ = if whole { write!(text, "{}", network.addr()) } else { write!(text, "{network}") };
        Self { text, kind: ADDRESS }
    }

    /// Whether the client named itself; otherwise it is its address.
    pub fn is_claimed(&self) -> bool {
        self.kind != ADDRESS
    }
}

// === reading ===

/// The one value of a header; [`BadRequest::IdentityAmbiguous`] where there are two, [`BadRequest::IdentityInvalid`] where
/// it is not printable.
pub fn only_header<'a>(headers: &'a HeaderMap, name: &hyper::header::HeaderName) -> Result<Option<&'a str>, BadRequest> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(BadRequest::IdentityAmbiguous),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| BadRequest::IdentityInvalid),
    }
}

/// The hash of the Authorization credential.
pub fn bearer(headers: &HeaderMap, hasher: &KeyHasher) -> Result<Option<String>, BadRequest> {
    let credential = only_header(headers, &AUTHORIZATION)?;
    Ok(credential.map(|credential| hasher.start("bearer").part(credential.as_bytes()).finish().to_string()))
}

/// The one value of a cookie (RFC 6265, section 5.4), quotes and all.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, BadRequest> {
    let mut found = None;
    for header in headers.get_all(COOKIE) {
        let header = header.to_str().map_err(|_| BadRequest::IdentityInvalid)?;
        for pair in header.split(';') {
            if let Some((key, value)) = pair.trim().split_once('=')
                && key == name
                && found.replace(value).is_some()
            {
                return Err(BadRequest::IdentityAmbiguous);
            }
        }
    }
    Ok(found)
}

/// Adds the address that counts for limits to a key.
pub fn add_network(key: &mut KeyParts, network: IpNet) -> &mut KeyParts {
    match network.addr() {
        IpAddr::V4(address) => key.part(&address.octets()),
        IpAddr::V6(address) => key.part(&address.octets()),
    }
}

/// The address that counts for limits: IPv6 cut to a prefix.
pub fn network(address: IpAddr, ipv6_prefix: u8) -> IpNet {
    let prefix = if address.is_ipv4() { 32 } else { ipv6_prefix };
    IpNet::new(address, prefix).map_or(IpNet::from(address), |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use hyper::{Request, http::HeaderValue};

    use super::*;

    type Fields<'a> = &'a [(&'static str, &'a [u8])];

    const PEER: &str = "192.0.2.7";

    fn identify(sources: &[IdentitySource], uri: &str, headers: Fields<'_>) -> Result<String, BadRequest> {
        let address = std::net::SocketAddr::new(PEER.parse().unwrap(), 1);
        let peer = Peer { address, secure: false, certificate: None };
        let config = config::Identity {
            sources: sources.to_vec(),
            ipv6_prefix: 64,
            strip_query: false,
            new_per_address: None,
            hash_key: None,
        };
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let request = request.body(()).unwrap();
        let identification = Identification::new(&config, &[], KeyHasher::new(None, "test"));
        identification.client(&peer, &request).map(|client| format!("{}:{}", client.identity.kind, client.identity.text))
    }

    fn usual() -> Vec<IdentitySource> {
        vec![
            IdentitySource::Header("x-client-id".parse().unwrap()),
            IdentitySource::Query("client_id".into()),
            IdentitySource::Cookie("guest".into()),
            IdentitySource::Address,
        ]
    }

    #[test]
    fn the_first_source_that_is_present_names_the_client() {
        let cases: [(&str, Fields<'_>, Result<&str, BadRequest>); 12] = [
            ("/", &[("x-client-id", b"Alice")], Ok("name:alice")),
            ("/?client_id=Bob", &[], Ok("name:bob")),
            ("/?client_id=bob", &[("x-client-id", b"alice")], Ok("name:alice")),
            ("/?client_id=bob", &[("x-client-id", b"  ")], Ok("name:bob")),
            ("/", &[("cookie", b"a=1; guest=AbC; b=2")], Ok("cookie:AbC")),
            ("/", &[], Ok("address:192.0.2.7")),
            ("/?client_id=", &[], Ok("address:192.0.2.7")),
            ("/", &[("x-client-id", b"a"), ("x-client-id", b"b")], Err(BadRequest::IdentityAmbiguous)),
            ("/?client_id=a&client_id=b", &[], Err(BadRequest::IdentityAmbiguous)),
            ("/", &[("cookie", b"guest=1; guest=2")], Err(BadRequest::IdentityAmbiguous)),
            ("/?client_id=a%00b", &[], Err(BadRequest::IdentityInvalid)),
            ("/", &[("x-client-id", "ålice".as_bytes())], Err(BadRequest::IdentityInvalid)),
        ];
        for (uri, headers, expected) in cases {
            assert_eq!(identify(&usual(), uri, headers).as_deref(), expected.as_deref(), "{uri} {headers:?}");
        }
    }

    #[test]
    fn an_identity_has_at_most_128_bytes() {
        assert!(identify(&usual(), "/", &[("x-client-id", &[b'x'; 128])]).is_ok());
        assert_eq!(identify(&usual(), "/", &[("x-client-id", &[b'x'; 129])]), Err(BadRequest::IdentityInvalid));
    }

    #[test]
    fn a_credential_names_its_bearer_without_being_shown() {
        let sources = [IdentitySource::Bearer, IdentitySource::Address];
        let named = |credential: &'static [u8]| identify(&sources, "/", &[("authorization", credential)]).unwrap();
        assert_ne!(named(b"Bearer abc"), named(b"Bearer abd"));
        assert!(!named(b"Bearer abc").contains("abc"));
    }

    #[test]
    fn an_ipv6_client_is_its_prefix_and_an_ipv4_client_its_address() {
        assert_eq!(Identity::address(network("2001:db8::1:2:3:4".parse().unwrap(), 64)).text.as_str(), "2001:db8::/64");
        assert_eq!(Identity::address(network("192.0.2.7".parse().unwrap(), 64)).text.as_str(), "192.0.2.7");
    }
}
