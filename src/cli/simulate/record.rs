//! One line of an access log, read: cxgate's own in JSON, under either set of names, or the Common Log Format and the
//! combined one, which begins with it.
//!
//! Promised: whatever a line holds, it is a request, or something else that may stand in such a log, or one that is not
//! understood, with the reason. Nothing panics.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::{gate::replay::Recorded, log::stamp};

/// A request of a log.
#[derive(Debug, PartialEq)]
pub(super) struct Record<'a> {
    /// When it came, in microseconds of Unix time.
    pub(super) at: u64,
    /// What its client is called; `None` where it is its address.
    pub(super) client: Option<Cow<'a, str>>,
    pub(super) address: IpAddr,
    pub(super) method: Cow<'a, str>,
    pub(super) target: Cow<'a, str>,
    pub(super) host: Option<Cow<'a, str>>,
    pub(super) trusted: bool,
    /// Whether it was a preflight, which nobody is charged for.
    pub(super) preflight: bool,
    /// The load factor at that time.
    pub(super) factor: f64,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a line is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// An event of another kind, or a head that could not be read: nobody was asked about it.
    Other,
    /// It is not understood.
    Bad(&'static str),
}

/// A line in JSON.
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow, default, alias = "event.action")]
    event: Option<Text<'a>>,
    #[serde(borrow, alias = "@timestamp")]
    timestamp: Option<Text<'a>>,
    #[serde(borrow, default, alias = "client.user.id")]
    client_id: Option<Text<'a>>,
    #[serde(borrow, default, alias = "cxgate.client_kind")]
    client_kind: Option<Text<'a>>,
    #[serde(borrow, default, alias = "client.address")]
    address: Option<Text<'a>>,
    #[serde(borrow, default, alias = "http.request.method")]
    method: Option<Text<'a>>,
    #[serde(borrow, default, alias = "url.path")]
    path: Option<Text<'a>>,
    #[serde(borrow, default, alias = "url.domain")]
    host: Option<Text<'a>>,
    #[serde(borrow, default, alias = "cxgate.decision")]
    decision: Option<Text<'a>>,
    #[serde(default, alias = "cxgate.factor")]
    factor: Option<f64>,
    #[serde(borrow, default, alias = "cxgate.headers")]
    headers: BTreeMap<Text<'a>, Text<'a>>,
}

/// A text that borrows from its line unless it has escapes. `Option<Cow<str>>` would not: serde borrows for the `Cow` alone.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

// === impl Record ===

impl<'a> Record<'a> {
    /// Reads a line without its end.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, NoRecord> {
        let line = std::str::from_utf8(line).map_err(|_| NoRecord::Bad("no text in UTF-8"))?.trim();
        if line.is_empty() {
            return Err(NoRecord::Other);
        }
        if line.starts_with('{') { json(line) } else { common(line).map_err(NoRecord::Bad) }
    }

    /// As a gate is asked about it; where the log names no host, it was sent to `host`.
    pub(super) fn recorded<'r>(&'r self, host: &'r str) -> Recorded<'r> {
        Recorded {
            client: self.client.as_deref(),
            address: self.address,
            method: &self.method,
            target: &self.target,
            host: self.host.as_deref().unwrap_or(host),
            trusted: self.trusted,
            headers: &self.headers,
        }
    }
}

fn json(line: &str) -> Result<Record<'_>, NoRecord> {
    let json: Json<'_> = serde_json::from_str(line).map_err(|_| NoRecord::Bad("no JSON object of an access log"))?;
    let is_access = json.event.is_none_or(|event| event.0 == "access");
    let (Some(Text(method)), Some(Text(target)), true) = (json.method, json.path, is_access) else {
        return Err(NoRecord::Other);
    };
    let Text(at) = json.timestamp.ok_or(NoRecord::Bad("no timestamp"))?;
    let Text(address) = json.address.ok_or(NoRecord::Bad("no address"))?;
    let decision = json.decision.as_ref().map(|decision| &*decision.0);
    let is_address = json.client_kind.is_some_and(|kind| kind.0 == "address");
    let field = |(name, value): (Text<'_>, Text<'_>)| {
        Some((HeaderName::try_from(&*name.0).ok()?, HeaderValue::try_from(&*value.0).ok()?))
    };
    Ok(Record {
        at: stamp::from_rfc3339(&at).ok_or(NoRecord::Bad("the timestamp is no RFC 3339"))?,
        client: json.client_id.filter(|_| !is_address).map(|client| client.0),
        address: address.parse().map_err(|_| NoRecord::Bad("the address is none"))?,
        method,
        target,
        host: json.host.map(|host| host.0),
        trusted: decision == Some("whitelisted"),
        preflight: decision == Some("preflight"),
        factor: json.factor.unwrap_or(1.0),
        headers: json.headers.into_iter().filter_map(field).collect(),
    })
}

/// `ADDRESS IDENT USER [TIME] "METHOD TARGET VERSION" STATUS BYTES`, and whatever follows.
fn common(line: &str) -> Result<Record<'_>, &'static str> {
    let form = "neither JSON nor the Common Log Format";
    let (before, rest) = line.split_once(" [").ok_or(form)?;
    let (time, rest) = rest.split_once("] \"").ok_or(form)?;
    let mut words = before.split(' ');
    let (Some(address), Some(_), Some(user), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(form);
    };
    let (request, _) = rest.split_once("\" ").ok_or(form)?;
    let mut words = request.split(' ');
    let (Some(method), Some(target), Some(_), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("no request line");
    };
    Ok(Record {
        at: stamp::from_common(time).ok_or("the time is none")?,
        client: (user != "-").then(|| unquoted(user)),
        address: address.parse().map_err(|_| "the address is none")?,
        method: method.into(),
        target: unquoted(target),
        host: None,
        trusted: false,
        preflight: false,
        factor: 1.0,
        headers: Vec::new(),
    })
}

/// A text with its escapes undone: `\xHH`, and any other character behind a backslash.
fn unquoted(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, behind @ ..] = rest {
        let (byte, behind) = match (first, behind) {
            (b'\\', [b'x', high, low, behind @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, behind),
                _ => (b'x', &rest[2..]),
            },
            (b'\\', [escaped, behind @ ..]) => (*escaped, behind),
            _ => (*first, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

fn digit(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: u64 = 1_795_322_295_000_000;

    fn read(line: &str) -> Result<Record<'_>, NoRecord> {
        Record::parse(line.as_bytes())
    }

    #[test]
    fn every_form_of_a_line_is_the_same_request() {
        let ours = r#"{"timestamp":"2026-11-22T04:38:15Z","event":"access","client_id":"al \"ice","client_kind":"name",
            "address":"192.0.2.7","method":"GET","path":"/api/x","decision":"admitted","status":200}"#;
        let theirs = r#"{"ecs.version":"8.11.0","@timestamp":"2026-11-22T04:38:15Z","event.action":"access",
            "client.user.id":"al \"ice","cxgate.client_kind":"name","client.address":"192.0.2.7","http.request.method":"GET",
            "url.path":"/api/x","cxgate.decision":"admitted","http.response.status_code":200}"#;
        let combined =
            r#"192.0.2.7 - al\x20\"ice [22/Nov/2026:04:38:15 +0000] "GET /api/x HTTP/1.1" 200 5 "-" "curl/8 \"x\"""#;
        for line in [ours, theirs, combined] {
            let record = read(line).unwrap();
            assert_eq!((record.at, record.client.as_deref()), (AT, Some("al \"ice")), "{line}");
            assert_eq!(record.address.to_string(), "192.0.2.7");
            assert_eq!((&*record.method, &*record.target), ("GET", "/api/x"));
            assert!(!record.trusted && !record.preflight && record.headers.is_empty());
        }
    }

    #[test]
    fn a_client_that_is_its_address_has_no_other_name() {
        let line = r#"{"timestamp":"2026-11-22T04:38:15Z","client_id":"192.0.2.7","client_kind":"address",
            "address":"192.0.2.7","method":"GET","path":"/","decision":"whitelisted","factor":0.5,"headers":{"x-tenant":"t"}}"#;
        let record = read(line).unwrap();
        assert_eq!((record.client, record.trusted, record.factor), (None, true, 0.5));
        assert_eq!(record.headers[0].1, "t");
        let common = read(r#"192.0.2.7 - - [22/Nov/2026:04:38:15 +0000] "GET /?client_id=a HTTP/1.0" 200 -"#).unwrap();
        assert_eq!((common.client, &*common.target), (None, "/?client_id=a"));
    }

    #[test]
    fn what_is_no_request_is_named_or_left_out() {
        let bad = |line| match read(line) {
            Err(NoRecord::Bad(reason)) => reason,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(bad("{\"timestamp\":"), "no JSON object of an access log");
        assert_eq!(bad(r#"{"method":"GET","path":"/","address":"::1"}"#), "no timestamp");
        assert_eq!(bad(r#"{"timestamp":"now","method":"GET","path":"/","address":"::1"}"#), "the timestamp is no RFC 3339");
        assert_eq!(bad("hello"), "neither JSON nor the Common Log Format");
        assert_eq!(bad(r#"a - - [22/Nov/2026:04:38:15 +0000] "GET / HTTP/1.0" 200 -"#), "the address is none");
        assert_eq!(bad(r#"::1 - - [22/Nov/2026:04:38:15 +0000] "GET /" 200 -"#), "no request line");
        assert_eq!(read(r#"{"timestamp":"…","event":"load_factor","factor":0.5}"#), Err(NoRecord::Other));
        assert_eq!(read("  "), Err(NoRecord::Other));
    }

    proptest! {
        #[test]
        fn no_line_makes_reading_panic(
            line in r#"(\{"timestamp":"2026-11-22T04:38:15Z",)?[a-z0-9:\\"\[\]{}/, .+-]{0,60}"#,
        ) {
            let _ = read(&line);
        }
    }
}
