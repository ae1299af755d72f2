//! Tables of heads and bodies with their verdicts, each whole and cut in two at every place.

use super::*;

/// Reads the requests that come in these pieces to their end, their bodies too, and counts their heads.
fn read(pieces: &[&[u8]]) -> Result<u64, Fault> {
    let (mut reader, mut received) = (HeadReader::new(1024), BytesMut::new());
    let (mut body, mut switches, mut heads) = (Incoming::Ended, false, 0);
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            while body.take(&mut received)?.is_some() {}
            if !body.is_over() {
                break;
            }
            if switches && !received.is_empty() {
                return Err(Fault::Early);
            }
            let Some(head) = reader.read(&mut received)? else { break };
            (body, switches, heads) = (head.body, head.switches, heads + 1);
        }
    }
    Ok(heads)
}

/// Reads `bytes` in one piece, and in two however they are cut; the verdict must be the same.
fn verdict(bytes: &[u8]) -> Result<u64, Fault> {
    let whole = read(&[bytes]);
    for cut in 1..bytes.len() {
        assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}: {}", bytes.escape_ascii());
    }
    whole
}

fn head(bytes: &str) -> Head {
    HeadReader::new(1024).read(&mut BytesMut::from(bytes)).unwrap().unwrap()
}

#[test]
fn a_head_is_read_in_one_way_or_refused() {
    use Fault::{Expectation, Field, Framing, Host, LineEnd, RequestLine};
    let cases: [(&str, Result<u64, Fault>); 60] = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Ok(1)),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(1)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Ok(1)),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", Ok(1)),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Ok(1)),
        ("GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", Ok(1)),
        ("M-SEARCH / HTTP/1.1\r\nHost:a\r\nX:\t\r\nY: a\tb \u{e9}\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n", Ok(1)),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(LineEnd)),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Err(Field)),
        ("GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET /\r\n\r\n", Err(RequestLine)),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
        ("GET / HTTP/1.1\r\n\r\n", Err(Host)),
        ("GET / HTTP/1.0\r\n\r\n", Err(Host)),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Err(Host)),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\tb: c\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\u{b}: b\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{c}b\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", Err(Field)),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", Err(Expectation)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\na", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\na", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(Framing)),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Err(Framing)),
        ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Framing)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(verdict(bytes.as_bytes()), expected, "{}", bytes.escape_debug());
    }
}

#[test]
fn what_never_comes_to_the_end_of_a_line_is_refused_where_that_is_known() {
    for (bytes, expected) in [
        ("GET / HTTP/1.1\rHost: a\r\r", Fault::RequestLine),
        ("GET / HTTP/1.1\rHost: a\n", Fault::RequestLine),
        ("GET / HTTP/1.1\r\nHost: a\rX: y\r\r", Fault::Field),
        ("GET / HTTP/1.1\r\nHost: a\rX: y\n", Fault::Field),
        ("\0", Fault::RequestLine),
        ("\x16\x03\x01\n", Fault::RequestLine),
    ] {
        assert_eq!(verdict(bytes.as_bytes()), Err(expected), "{}", bytes.escape_debug());
    }
}

#[test]
fn the_next_head_begins_where_the_body_ends() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        (format!("{GET}{GET}{GET}"), Ok(3)),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nG\n\r\0x{GET}"), Ok(2)),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n1234 {GET}"), Err(Fault::RequestLine)),
        (format!("{CHUNKED}5\r\nabcde\r\n00\r\n\r\n{GET}"), Ok(2)),
        (format!("{CHUNKED}A\r\n0123456789\r\na\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n{GET}"), Ok(2)),
        (format!("{CHUNKED}0\r\n\r\n{GET}\n"), Err(Fault::LineEnd)),
        (format!("{CHUNKED}0\r\n{GET}"), Err(Fault::Chunk)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(verdict(bytes.as_bytes()), expected, "{}", bytes.escape_debug());
    }
}

#[test]
fn a_chunk_is_read_in_one_way_or_refused() {
    for body in [
        "\r\n",
        "+1\r\na\r\n",
        "-1\r\na\r\n",
        "0x1\r\na\r\n",
        "1 \r\na\r\n",
        " 1\r\na\r\n",
        "1;x\r\na\r\n",
        "1;\r\na\r\n",
        "1\na\r\n",
        "1\r\na\n",
        "1\r\nab\r\n",
        "1\r\na1\r\nb\r\n",
        "g\r\n",
        "1\r\r\na\r\n",
        "00000000000000001\r\na\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\ntransfer_encoding: chunked\r\n\r\n",
        "0\r\n x: y\r\n\r\n",
        "0\r\nx y\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(verdict(bytes.as_bytes()), Err(Fault::Chunk), "{}", body.escape_debug());
    }
}

#[test]
fn what_is_longer_than_allowed_is_neither_read_nor_kept() {
    let long = "a".repeat(1024);
    let head = |line: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{line}");
    for (bytes, expected) in [
        (format!("GET /{long}"), Fault::TargetTooLong),
        (format!("GET /{long}\r{long}"), Fault::TargetTooLong),
        (head(&format!("X: a\r{long}")), Fault::Field),
        (head(&format!("X: a\r{long}\r\n")), Fault::Field),
        (head(&format!("X: {long}")), Fault::HeadTooLong),
        (head(&"X: y\r\n".repeat(200)), Fault::HeadTooLong),
        (format!("{} / HTTP/1.1\r\n", &long[..100]), Fault::RequestLine),
    ] {
        assert_eq!(verdict(bytes.as_bytes()), Err(expected));
    }
    let fill = 1024 - head("X: \r\n\r\n").len();
    assert_eq!(verdict(head(&format!("X: {}\r\n\r\n", &long[..fill])).as_bytes()), Ok(1), "a head of just the limit");
    let trailers = "X: y\r\n".repeat(2000);
    let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
    assert_eq!(read(&[bytes.as_bytes()]), Err(Fault::Chunk));
}

#[test]
fn what_a_head_says_is_what_is_read() {
    let Head { method, uri, version, headers, body, .. } =
        head("\r\nPOST /a?b=%20 HTTP/1.0\r\nHost:\ta \r\nx: 1\r\nX:2\r\nY:\r\nContent-Length: 7\r\n\r\n");
    assert_eq!((method, uri.to_string(), version), (Method::POST, "/a?b=%20".to_owned(), Version::HTTP_10));
    assert!(matches!(body, Incoming::Length(7)), "{body:?}");
    let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let expected: [(&str, &[u8]); 5] = [("host", b"a"), ("x", b"1"), ("x", b"2"), ("y", b""), ("content-length", b"7")];
    assert_eq!(fields, expected);
}

#[test]
fn a_connection_persists_as_the_version_and_the_options_have_it() {
    let cases = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: x, Keep-Alive\r\n", true),
        ("HTTP/1.1", "Connection: x ,CLOSE\r\n", false),
        ("HTTP/1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.1", "Connection: closed\r\n", true),
    ];
    for (version, field, expected) in cases {
        let bytes = format!("GET / {version}\r\nHost: a\r\n{field}\r\n");
        assert_eq!(head(&bytes).persists, expected, "{version} {field:?}");
    }
}

#[test]
fn an_expectation_counts_by_http_1_1() {
    for (version, expected) in [("HTTP/1.1", true), ("HTTP/1.0", false)] {
        let bytes = format!("POST / {version}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(head(&bytes).expects, expected, "{version}");
    }
}

#[test]
fn nothing_may_follow_a_request_to_upgrade_before_it_is_answered() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(verdict(upgrade), Ok(1));
    assert_eq!(verdict(&[upgrade, &upgrade[..]].concat()), Err(Fault::Early));
    let with_body = b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\na";
    assert_eq!(verdict(&[with_body, &upgrade[..]].concat()), Ok(2), "a body is none that turns into a tunnel");
}

#[test]
fn a_target_beyond_what_can_be_held_is_too_long() {
    let bytes = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(LONGEST_TARGET));
    let read = |bytes: &str| HeadReader::new(1 << 20).read(&mut BytesMut::from(bytes)).map(|head| head.is_some());
    assert_eq!(read(&bytes), Err(Fault::TargetTooLong));
    assert_eq!(read(&bytes.replacen('a', "", 1)), Ok(true));
}
