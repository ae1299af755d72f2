//! What is fuzzed, as plain functions over bytes: the fuzzer calls them, and so does the test that replays the corpus.
//!
//! Each asserts what must hold for any bytes whatsoever; a panic is a finding.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, UNIX_EPOCH},
};

use bytes::BytesMut;
use cxgate::{
    config::{Config, Rate, Sources, TokenBucket, load},
    gate::{
        client::{Identification, MAX_IDENTITY_BYTES},
        forwarded::X_FORWARDED_FOR,
        headers::set_forwarding,
        path::canonical,
        quota::policy,
        websocket::frame::{Boundaries, Header, Sequence},
    },
    limiter::{bucket::Bucket, key::KeyHasher},
    peer::Peer,
    upstream,
    wire::{
        Fault,
        body::Incoming,
        chunks::ChunkScanner,
        fields::FieldLines,
        request,
        response::{Head, HeadReader},
    },
};
use hyper::{
    HeaderMap, Request,
    header::{HeaderName, HeaderValue, RETRY_AFTER},
};

/// Takes any bytes, and panics where something that must hold does not.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder in the corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunks", chunks),
    ("client_id", client_id),
    ("forwarded", forwarded),
    ("path", path),
    ("configuration", configuration),
    ("structured_fields", structured_fields),
    ("frames", frames),
    ("retry_after", retry_after),
];

const LARGEST_HEAD: usize = 1024;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// However requests are cut into reads, they are the same, and so is the verdict.
pub fn request_head(data: &[u8]) {
    let whole = requests(data, data.len().max(1));
    assert_eq!(requests(data, 1), whole);
    assert_eq!(requests(data, data.len() / 2 + 1), whole);
}

/// Every request that is read in pieces of such a length, as text; and why no more are.
fn requests(data: &[u8], longest: usize) -> (Vec<String>, Option<Fault>) {
    let (mut reader, mut received, mut body) = (request::HeadReader::new(LARGEST_HEAD), BytesMut::new(), Incoming::Ended);
    let mut read = Vec::new();
    let mut step = |received: &mut BytesMut| -> Result<bool, Fault> {
        while body.take(received)?.is_some() {}
        if !body.is_over() {
            return Ok(false);
        }
        let Some(head) = reader.read(received)? else { return Ok(false) };
        read.push(format!("{} {} {:?} {:?}", head.method, head.uri, head.version, head.headers));
        body = head.body;
        Ok(true)
    };
    for piece in data.chunks(longest) {
        received.extend_from_slice(piece);
        loop {
            match step(&mut received) {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => return (read, Some(fault)),
            }
        }
    }
    (read, None)
}

/// However a response is cut into reads, its head is the same, and so is what follows it.
pub fn response_head(data: &[u8]) {
    let read = |longest: usize| -> Result<Option<(u16, HeaderMap, usize)>, Fault> {
        let mut reader = HeadReader::new(LARGEST_HEAD);
        let mut received = BytesMut::new();
        for (position, piece) in data.chunks(longest).enumerate() {
            received.extend_from_slice(piece);
            if let Some(Head { status, headers, .. }) = reader.read(&mut received)? {
                let unread = data.len() - (position * longest + piece.len());
                return Ok(Some((status.as_u16(), headers, received.len() + unread)));
            }
        }
        Ok(None)
    };
    assert_eq!(read(1), read(data.len().max(1)));
}

/// A body is read to its end or to its fault, and never past it.
pub fn chunks(data: &[u8]) {
    let verdict = |longest: usize| {
        let mut scanner = ChunkScanner::new();
        let mut read = 0;
        while read < data.len() && !scanner.is_over() {
            let piece = &data[read..data.len().min(read + longest)];
            match scanner.step(piece) {
                Ok(taken) => {
                    assert!((1..=piece.len()).contains(&taken));
                    read += taken;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok((scanner.is_over(), read))
    };
    assert_eq!(verdict(1), verdict(data.len().max(1)));
    assert_eq!(verdict(3), verdict(data.len().max(1)));
}

/// An identity is 1 to 128 printable bytes, whatever is claimed.
pub fn client_id(data: &[u8]) {
    let mut request = Request::new(());
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    request.headers_mut().insert(HeaderName::from_static("x-client-id"), value);
    identify(&request);
    if let Ok(target) = [b"/?client_id=", data].concat().as_slice().try_into() {
        let mut request = Request::new(());
        *request.uri_mut() = hyper::http::uri::PathAndQuery::into(target);
        identify(&request);
    }
}

fn identify(request: &Request<()>) {
    let trusted = ["127.0.0.0/8".parse().expect("a network")];
    let identification = Identification::new(&Config::default().identity, &trusted, KeyHasher::new(None, "fuzz"));
    let peer = Peer { address: SocketAddr::new(PEER, 1), secure: false, certificate: None };
    if let Ok(client) = identification.client(&peer, request) {
        let identity = client.identity.text;
        assert!((1..=MAX_IDENTITY_BYTES).contains(&identity.len()));
        assert!(identity.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
        assert_eq!(identity.trim(), identity.as_str());
    }
}

/// Whatever is said of addresses, the peer's own comes last, and a stranger's word is gone.
pub fn forwarded(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    for trusted in [true, false] {
        let (mut headers, mut added) = (HeaderMap::new(), FieldLines::default());
        headers.insert(X_FORWARDED_FOR, value.clone());
        set_forwarding(&mut headers, &mut added, PEER, false, trusted);
        added.add_to(&mut headers);
        let chain = headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>();
        assert_eq!(chain.len(), 1);
        assert!(chain[0].as_bytes().ends_with(b"127.0.0.1"));
        assert!(trusted || chain[0] == "127.0.0.1");
    }
    let mut request = Request::new(());
    request.headers_mut().insert(X_FORWARDED_FOR, value);
    identify(&request);
}

/// A canonical path has no segment that servers read differently.
pub fn path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    if let Ok(canonical) = canonical(path) {
        let segments = canonical.strip_prefix('/').expect("it begins with a slash");
        assert!(segments.is_empty() || segments.split('/').all(|segment| !["", ".", ".."].contains(&segment)));
        assert!(!canonical.contains(|byte: char| byte.is_ascii_uppercase() || byte.is_control() || "\\;".contains(byte)));
    }
}

/// A configuration is read, or every mistake in it is named.
pub fn configuration(data: &[u8]) {
    let file = std::env::temp_dir().join(format!("cxgate-fuzz-{}.toml", std::process::id()));
    std::fs::write(&file, data).expect("a place for files");
    let loaded = load(&Sources { file: Some(file.clone()), ..Sources::default() });
    std::fs::remove_file(file).expect("it was written");
    if let Err(error) = loaded {
        assert!(!error.mistakes.is_empty() && !error.to_string().is_empty());
    }
}

/// Every bucket that can be configured has a policy that can be read.
pub fn structured_fields(data: &[u8]) {
    let Some((capacity, rest)) = data.split_first_chunk() else { return };
    let Some((rate, name)) = rest.split_first_chunk() else { return };
    let Some(refill_per_second) = Rate::per_second(f64::from_le_bytes(*rate)) else { return };
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let name: String = name.iter().filter(|byte| is_name(byte)).map(|byte| char::from(*byte)).collect();
    let bucket = TokenBucket { capacity: u32::from_le_bytes(*capacity).max(1), refill_per_second };
    let field = policy([(name.as_str(), Bucket::from(bucket).into())].into_iter()).expect("a policy");
    let item = field.to_str().expect("printable").strip_prefix(&format!("\"{name}\"")).expect("its name");
    let (quota, window) = item.strip_prefix(";q=").expect("a quota").split_once(";w=").expect("a window");
    // Integers of structured fields have at most fifteen digits (RFC 9651, section 3.3.1).
    for number in [quota, window] {
        assert!(number.len() <= 15 && number.bytes().all(|byte| byte.is_ascii_digit()), "{field:?}");
    }
}

/// However frames are cut into reads, they end in the same places; and what passes as a client's frame ends where both readers
/// say.
pub fn frames(data: &[u8]) {
    let mut whole = Boundaries::default();
    let last_end = whole.feed(data);
    let mut bytewise = Boundaries::default();
    let ends: Vec<usize> = (0..data.len()).filter(|at| bytewise.feed(&data[*at..=*at]).is_some()).map(|at| at + 1).collect();
    assert_eq!(last_end, ends.last().copied());

    let mut sequence = Sequence::default();
    let (mut rest, mut end) = (data, 0);
    while let Some(header) = Header::parse(rest) {
        assert!(Header::parse(&rest[..header.length - 1]).is_none(), "a shorter prefix is no header");
        if sequence.next(&header).is_err() {
            return;
        }
        let Some(frame) = usize::try_from(header.total()).ok().filter(|total| *total <= rest.len()) else { return };
        end += frame;
        rest = &rest[frame..];
        assert!(ends.contains(&end), "a frame ends after {end} bytes");
    }
}

/// Whatever an upstream says of when to come back: whole seconds mean what they say, a time that is past asks for none, and
/// what is said twice says nothing.
pub fn retry_after(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let (now, never) = (UNIX_EPOCH + Duration::from_hours(500_000), UNIX_EPOCH + Duration::from_secs(u64::MAX >> 8));
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, value.clone());
    let asked = upstream::retry_after(&headers, now);
    let seconds = value.to_str().ok().filter(|text| text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(seconds) = seconds.and_then(|text| text.parse().ok()) {
        assert_eq!(asked, Some(Duration::from_secs(seconds)));
    }
    let much_later = upstream::retry_after(&headers, never);
    assert_eq!(much_later.is_some(), asked.is_some());
    assert!(much_later <= asked, "a later clock waits no longer");
    headers.append(RETRY_AFTER, value);
    assert_eq!(upstream::retry_after(&headers, now), None);
}
