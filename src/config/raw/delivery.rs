//! `[oauth.NAME]` and `routes.retry`.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    Reader,
    kind::{choice, duration, endpoint, integer, parsed},
    upstreams::WAIT,
};
use crate::config::{AccessKey, ClientAuthentication, Endpoint, Grant, OAuth, OAuthClient, Origin, Retry, Secret};

/// How long a token may live: long enough to be of use, short enough to be counted.
const LIFETIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// What an answer of an upstream may be.
const STATUS: RangeInclusive<u64> = 400..=599;
/// The most that one request may keep of its body.
const MAX_REPLAY_BYTES: u64 = 16 * 1024 * 1024;

/// Which of the three ways there are to ask for a token.
#[derive(Clone, Copy)]
enum Kind {
    ClientCredentials,
    Password,
    AccessKey,
}

pub(super) fn oauth(table: &mut Reader<'_, '_>) -> OAuth {
    let origin = Origin { tls: true, host: "invalid".to_owned(), port: 443 };
    OAuth {
        token_url: table.required("token_url", Endpoint { origin, path_and_query: "/".to_owned() }, endpoint),
        grant: grant(table),
        default_lifetime: table.or("default_lifetime", Duration::from_hours(1), duration(LIFETIME)),
        timeout: table.or("timeout", Duration::from_secs(10), duration(WAIT)),
        token_timeout: table.or("token_timeout", Duration::from_secs(5), duration(WAIT)),
        ca: table.optional("ca", parsed("the path of a file", |path| (!path.is_empty()).then(|| PathBuf::from(path)))),
    }
}

fn grant(table: &mut Reader<'_, '_>) -> Grant {
    let kinds =
        [("client_credentials", Kind::ClientCredentials), ("password", Kind::Password), ("access_key", Kind::AccessKey)];
    match table.required("grant", Kind::ClientCredentials, choice(&kinds)) {
        Kind::ClientCredentials => {
            for key in ["username", "password"] {
                table.refuse(key, r#"expected only with the grants "password" and "access_key""#);
            }
            Grant::ClientCredentials(client(table))
        }
        Kind::Password => Grant::Password { client: client(table), key: access_key(table) },
        Kind::AccessKey => {
            for key in ["client_id", "client_secret", "client_authentication", "scope"] {
                table.refuse(key, r#"expected only with the grants "client_credentials" and "password""#);
            }
            Grant::AccessKey(access_key(table))
        }
    }
}

fn client(table: &mut Reader<'_, '_>) -> OAuthClient {
    let places = [("body", ClientAuthentication::Body), ("basic", ClientAuthentication::Basic)];
    let scope =
        parsed("names of printable ASCII, parted by single spaces", |scope| is_scope(scope).then(|| scope.to_owned()));
    OAuthClient {
        client_id: table.required("client_id", String::new(), filled),
        client_secret: required_secret(table, "client_secret"),
        client_authentication: table.or("client_authentication", ClientAuthentication::Body, choice(&places)),
        scope: table.optional("scope", scope),
    }
}

fn access_key(table: &mut Reader<'_, '_>) -> AccessKey {
    AccessKey { username: table.required("username", String::new(), filled), password: required_secret(table, "password") }
}

fn filled(value: &config::Value) -> Result<String, String> {
    parsed("a text that is not empty", |text| (!text.is_empty()).then(|| text.to_owned()))(value)
}

fn required_secret(table: &mut Reader<'_, '_>, key: &'static str) -> Secret {
    let expected = "a text that is not empty";
    table.demand(key, filled);
    table.secret(key, expected, |text| !text.is_empty()).unwrap_or_else(|| Secret::new(""))
}

/// Scope tokens between single spaces (RFC 6749, section 3.3).
fn is_scope(scope: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    };
    scope.split(' ').all(is_token)
}

pub(super) fn retry(table: &mut Reader<'_, '_>) -> Retry {
    let retry = Retry {
        attempts: table.or("attempts", 3, integer(1..=10)),
        base: table.or("base", Duration::from_millis(100), duration(WAIT)),
        max: table.or("max", Duration::from_secs(5), duration(WAIT)),
        on: statuses(table, "on"),
        deadline: table.or("deadline", Duration::from_mins(1), duration(WAIT)),
        replay_bytes: table.or("replay_bytes", 65_536, integer(0..=MAX_REPLAY_BYTES)),
    };
    if retry.max < retry.base {
        table.wrong("max", "expected at least the base");
    }
    retry
}

/// A list of statuses, of which 429 and 503 say that nothing was done.
pub(super) fn statuses(table: &mut Reader<'_, '_>, key: &'static str) -> Vec<u16> {
    table.list(key, vec![429, 503], integer(STATUS))
}
