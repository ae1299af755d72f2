//! `[identity]` and `[[whitelist]]`.

use hyper::http::HeaderName;

use super::{
    Reader,
    kind::{boolean, integer, network, parsed},
    routes::token_bucket,
};
use crate::config::{Identity, IdentitySource, Trusted};

pub(super) fn identity(table: &mut Reader<'_, '_>) -> Identity {
    let default = vec![
        IdentitySource::Header(HeaderName::from_static("x-client-id")),
        IdentitySource::Query("client_id".to_owned()),
        IdentitySource::Address,
    ];
    let source = r#""header:NAME", "query:NAME", "cookie:NAME", "bearer", "certificate" or "address""#;
    let mut sources = table.list("sources", default, parsed(source, IdentitySource::parse));
    match sources.iter().position(|source| *source == IdentitySource::Address) {
        None => sources.push(IdentitySource::Address),
        Some(index) if index + 1 == sources.len() => {}
        Some(_) => table.wrong("sources", "expected \"address\" to come last, because it is always present"),
    }
    Identity {
        sources,
        ipv6_prefix: table.or("ipv6_prefix", 64, integer(32..=128)),
        strip_query: table.or("strip_query", false, boolean),
        new_per_address: table.has("new_per_address").then(|| table.table("new_per_address", token_bucket)),
        hash_key: table.secret("hash_key", "at least one character", |key| !key.is_empty()),
    }
}

pub(super) fn trusted(table: &mut Reader<'_, '_>) -> Trusted {
    Trusted {
        client: table.required(
            "client",
            String::new(),
            parsed("an identity of 1 to 128 printable ASCII characters", client),
        ),
        networks: table.list("networks", Vec::new(), network),
        certificate: table.optional("certificate", parsed("a subject such as \"CN=reports\"", subject)),
        secret: table.secret("secret", "at least one character", |secret| !secret.is_empty()),
    }
}

/// Identities are told apart without regard to case.
fn client(text: &str) -> Option<String> {
    let well_formed = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    (well_formed && text.trim() == text).then(|| text.to_ascii_lowercase())
}

fn subject(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
