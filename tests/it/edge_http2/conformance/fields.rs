//! What a request's head may say (RFC 9113, sections 8.2, 8.3 and 8.5), and how it is compressed (RFC 7541).

use super::{
    CHAT, Case, PROTOCOL_ERROR,
    Reaction::{Answers, Ends, Refuses, Resets},
    streams::begun,
};
use crate::support::http2::{HEADERS, SETTINGS, WHOLE, fields, frame, get_fields};

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "localhost");
const PATH: (&str, &str) = (":path", CHAT);

pub(super) fn cases() -> Vec<Case> {
    [names_and_values(), pseudo_fields(), connect(), tables(), strings()].concat()
}

/// A request of exactly these fields.
fn asked(head: &[(&str, &str)]) -> Vec<u8> {
    begun(&[frame(HEADERS, WHOLE, 1, &fields(head))])
}

/// A GET with one more field.
fn with(name: &str, value: &str) -> Vec<u8> {
    asked(&[METHOD, SCHEME, AUTHORITY, PATH, (name, value)])
}

fn names_and_values() -> Vec<Case> {
    // What the library cannot represent ends the connection, as a stream's error may (RFC 9113, section 5.4.2).
    let (malformed, unreadable) = (Resets(1, PROTOCOL_ERROR), Ends(PROTOCOL_ERROR));
    vec![
        ("8.2.1", "a name in upper case", with("X-Upper", "1"), unreadable),
        ("8.2.1", "a name with a space", with("x y", "1"), unreadable),
        ("8.2.1", "a name with a colon", with("x:y", "1"), unreadable),
        ("8.2.1", "a name with a control", with("x\x01", "1"), unreadable),
        ("8.2.1", "a name beyond ASCII", with("x\u{e9}", "1"), unreadable),
        ("8.2.1", "no name", with("", "1"), unreadable),
        ("8.2.1", "a value with NUL", with("x", "a\0b"), unreadable),
        ("8.2.1", "a value with a carriage return", with("x", "a\rb"), unreadable),
        ("8.2.1", "a value with a line feed", with("x", "a\nb"), unreadable),
        ("8.2.1", "an empty value", with("x", ""), Answers(1)),
        ("8.2.2", "Connection", with("connection", "keep-alive"), malformed),
        ("8.2.2", "Keep-Alive", with("keep-alive", "1"), malformed),
        ("8.2.2", "Proxy-Connection", with("proxy-connection", "keep-alive"), malformed),
        ("8.2.2", "Transfer-Encoding", with("transfer-encoding", "chunked"), malformed),
        ("8.2.2", "Upgrade", with("upgrade", "websocket"), malformed),
        ("8.2.2", "TE with trailers", with("te", "trailers"), Answers(1)),
        ("8.2.2", "TE with anything else", with("te", "trailers, deflate"), malformed),
        (
            "8.2.3",
            "Cookie in two fields",
            asked(&[METHOD, SCHEME, AUTHORITY, PATH, ("cookie", "a=1"), ("cookie", "b=2")]),
            Answers(1),
        ),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    // What the library cannot represent ends the connection, as a stream's error may (RFC 9113, section 5.4.2).
    let (malformed, unreadable) = (Resets(1, PROTOCOL_ERROR), Ends(PROTOCOL_ERROR));
    vec![
        ("8.3", "a pseudo-field that is not known", with(":unknown", "1"), unreadable),
        ("8.3", "a pseudo-field of responses", with(":status", "200"), malformed),
        ("8.3", "a pseudo-field after a field", asked(&[METHOD, SCHEME, AUTHORITY, ("x", "1"), PATH]), malformed),
        ("8.3.1", "no :method", asked(&[SCHEME, AUTHORITY, PATH]), malformed),
        ("8.3.1", "no :scheme", asked(&[METHOD, AUTHORITY, PATH]), malformed),
        ("8.3.1", "no :path", asked(&[METHOD, SCHEME, AUTHORITY]), malformed),
        ("8.3.1", "two of :method", asked(&[METHOD, METHOD, SCHEME, AUTHORITY, PATH]), malformed),
        ("8.3.1", "two of :scheme", asked(&[METHOD, SCHEME, SCHEME, AUTHORITY, PATH]), malformed),
        ("8.3.1", "two of :path", asked(&[METHOD, SCHEME, AUTHORITY, PATH, PATH]), malformed),
        ("8.3.1", "two of :authority", asked(&[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH]), malformed),
        ("8.3.1", "an empty :path", asked(&[METHOD, SCHEME, AUTHORITY, (":path", "")]), malformed),
        ("8.3.1", "an empty :method", asked(&[(":method", ""), SCHEME, AUTHORITY, PATH]), unreadable),
        ("8.3.1", "a :method with a space", asked(&[(":method", "GET x"), SCHEME, AUTHORITY, PATH]), unreadable),
        ("8.3.1", "an :authority that is none", asked(&[METHOD, SCHEME, (":authority", "a b"), PATH]), malformed),
        (
            "8.3.1",
            "a :path that does not begin with a slash",
            asked(&[METHOD, SCHEME, AUTHORITY, (":path", "chat")]),
            malformed,
        ),
        ("8.3.1", "a user in :authority", asked(&[METHOD, SCHEME, (":authority", "user@localhost"), PATH]), Refuses(1)),
        ("8.3.1", "Host instead of :authority", asked(&[METHOD, SCHEME, PATH, ("host", "localhost")]), Answers(1)),
        ("8.3.1", "Host that contradicts :authority", with("host", "other"), Refuses(1)),
        ("8.3.1", "neither Host nor :authority", asked(&[METHOD, SCHEME, PATH]), Refuses(1)),
        ("8.3.1", "* with GET", asked(&[METHOD, SCHEME, AUTHORITY, (":path", "*")]), Refuses(1)),
    ]
}

fn connect() -> Vec<Case> {
    let connect = (":method", "CONNECT");
    vec![
        ("8.5", "CONNECT", asked(&[connect, (":authority", "localhost:443")]), Refuses(1)),
        ("8.5", "CONNECT with a :path", asked(&[connect, SCHEME, AUTHORITY, PATH]), Resets(1, PROTOCOL_ERROR)),
        ("8.5", "CONNECT without :authority", asked(&[connect]), Refuses(1)),
        (
            "RFC 8441, 4",
            ":protocol where it is not offered",
            asked(&[connect, (":protocol", "websocket"), SCHEME, AUTHORITY, PATH]),
            Resets(1, PROTOCOL_ERROR),
        ),
    ]
}

fn tables() -> Vec<Case> {
    let head = get_fields(CHAT);
    let block = |bytes: &[u8]| begun(&[frame(HEADERS, WHOLE, 1, bytes)]);
    let before = |bytes: &[u8]| block(&[bytes, &head].concat());
    let after = |bytes: &[u8]| block(&[&head, bytes].concat());
    // `x: 1`, which the table keeps as its entry 62.
    let kept = [0x40, 1, b'x', 1, b'1'];
    vec![
        ("RFC 7541, 2.3.3", "an entry of the table", after(&[&kept[..], &[0xbe]].concat()), Answers(1)),
        ("RFC 7541, 2.3.3", "an entry beyond the table", after(&[&kept[..], &[0xbf]].concat()), Ends(PROTOCOL_ERROR)),
        ("RFC 7541, 2.3.3", "a name beyond the table", after(&[0x7f, 0, 1, b'1']), Ends(PROTOCOL_ERROR)),
        ("RFC 7541, 4.2", "a smaller table, at the beginning", before(&[0x20]), Answers(1)),
        ("RFC 7541, 4.2", "two sizes, at the beginning", before(&[0x20, 0x3f, 0xe1, 0x1f]), Answers(1)),
        ("RFC 7541, 4.2", "a size at the end", after(&[0x20]), Ends(PROTOCOL_ERROR)),
        ("RFC 7541, 6.1", "entry 0", after(&[0x80]), Ends(PROTOCOL_ERROR)),
        ("RFC 7541, 6.2.3", "a field that must not be kept", after(&[0x10, 1, b'x', 1, b'1']), Answers(1)),
        ("RFC 7541, 6.3", "a table larger than is allowed", before(&[0x3f, 0xe2, 0x1f]), Ends(PROTOCOL_ERROR)),
        (
            "RFC 7541, 4.3",
            "an entry that a smaller table has lost",
            begun(&[
                frame(HEADERS, WHOLE, 1, &[&head[..], &kept].concat()),
                frame(SETTINGS, 0, 0, b""),
                frame(HEADERS, WHOLE, 3, &[&[0x20][..], &head, &[0xbe]].concat()),
            ]),
            Ends(PROTOCOL_ERROR),
        ),
    ]
}

fn strings() -> Vec<Case> {
    let head = get_fields(CHAT);
    let after = |bytes: &[u8]| begun(&[frame(HEADERS, WHOLE, 1, &[&head, bytes].concat())]);
    let coded = |bytes: &[u8]| {
        let length = 0x80 | u8::try_from(bytes.len()).unwrap();
        after(&[&[0, 1, b'x', length][..], bytes].concat())
    };
    vec![
        (
            "RFC 7541, 5.1",
            "a length without end",
            after(&[0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Ends(PROTOCOL_ERROR),
        ),
        ("RFC 7541, 5.2", "a string that is cut off", after(&[0, 1, b'x', 9, b'1']), Ends(PROTOCOL_ERROR)),
        ("RFC 7541, 5.2", "a Huffman code", coded(&[0x1f]), Answers(1)),
        ("RFC 7541, 5.2", "padding of eight bits", coded(&[0x1f, 0xff]), Ends(PROTOCOL_ERROR)),
        ("RFC 7541, 5.2", "padding with zeros", coded(&[0x18]), Ends(PROTOCOL_ERROR)),
        ("RFC 7541, 5.2", "the code for the end", coded(&[0xff, 0xff, 0xff, 0xff]), Ends(PROTOCOL_ERROR)),
    ]
}
