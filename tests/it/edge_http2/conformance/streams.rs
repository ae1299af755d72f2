//! The life of a stream (RFC 9113, section 5), and the order of frames in a message (section 8.1).

use super::{
    CHAT, Case, END, HEAD, PROTOCOL_ERROR, REFUSED_STREAM,
    Reaction::{Answers, Ends, GoesOn, Refuses, Resets},
    STREAM_CLOSED, WEIGHED,
};
use crate::support::http2::{
    CONTINUATION, DATA, HEADERS, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, fields, frame, get_fields,
};

/// The preface, empty settings, and these frames.
pub(super) fn begun(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, b""), &frames.concat()].concat()
}

/// A whole GET.
pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &get_fields(CHAT))
}

/// The head of a POST, with more to come.
pub(super) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, HEAD, stream, &post_fields(&[]))
}

/// The fields of a POST, and others.
pub(super) fn post_fields(others: &[(&str, &str)]) -> Vec<u8> {
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", CHAT)];
    fields(&[&head[..], others].concat())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

pub(super) fn cases() -> Vec<Case> {
    [idle(), ended(), closed(), identifiers(), bodies()].concat()
}

fn idle() -> Vec<Case> {
    vec![
        ("5.1", "idle: DATA", begun(&[frame(DATA, END, 1, b"x")]), Ends(PROTOCOL_ERROR)),
        ("5.1", "idle: RST_STREAM", begun(&[reset(1)]), Ends(PROTOCOL_ERROR)),
        ("5.1", "idle: WINDOW_UPDATE", begun(&[frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])]), Ends(PROTOCOL_ERROR)),
        ("5.1", "idle: CONTINUATION", begun(&[frame(CONTINUATION, HEAD, 1, b"")]), Ends(PROTOCOL_ERROR)),
        ("5.1", "idle: PRIORITY", begun(&[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]), GoesOn),
    ]
}

fn ended() -> Vec<Case> {
    vec![
        ("5.1", "half-closed: DATA", begun(&[get(1), frame(DATA, END, 1, b"x")]), Ends(PROTOCOL_ERROR)),
        ("5.1", "half-closed: HEADERS", begun(&[get(1), get(1)]), Ends(PROTOCOL_ERROR)),
        ("5.1", "half-closed: CONTINUATION", begun(&[get(1), frame(CONTINUATION, HEAD, 1, b"")]), Ends(PROTOCOL_ERROR)),
        ("5.1", "half-closed: PRIORITY", begun(&[get(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]), Answers(1)),
        ("5.1", "half-closed: WINDOW_UPDATE", begun(&[get(1), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9])]), Answers(1)),
        ("5.1", "half-closed: RST_STREAM", begun(&[get(1), reset(1)]), GoesOn),
    ]
}

fn closed() -> Vec<Case> {
    let taken_back = |then: Vec<u8>| begun(&[post(1), reset(1), then]);
    vec![
        ("5.1", "closed by RST_STREAM: DATA", taken_back(frame(DATA, END, 1, b"x")), Resets(1, STREAM_CLOSED)),
        ("5.1", "closed by RST_STREAM: HEADERS", taken_back(get(1)), Ends(PROTOCOL_ERROR)),
        ("5.1", "closed by RST_STREAM: CONTINUATION", taken_back(frame(CONTINUATION, HEAD, 1, b"")), Ends(PROTOCOL_ERROR)),
        ("5.1", "closed by RST_STREAM: PRIORITY", taken_back(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])), GoesOn),
        ("5.1", "closed by RST_STREAM: RST_STREAM", taken_back(reset(1)), GoesOn),
        ("5.1", "closed by RST_STREAM: WINDOW_UPDATE", taken_back(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9])), GoesOn),
    ]
}

fn identifiers() -> Vec<Case> {
    let own = |stream: u32| [0, 0, 0, u8::try_from(stream).unwrap(), 15];
    let many = |count: u32| begun(&(0..count).map(|index| post(index * 2 + 1)).collect::<Vec<_>>());
    vec![
        ("5.1.1", "an even stream", begun(&[get(2)]), Ends(PROTOCOL_ERROR)),
        ("5.1.1", "streams that leave numbers out", begun(&[get(1), get(9)]), Answers(9)),
        ("5.1.1", "a stream below the last one", begun(&[get(5), get(3)]), Ends(PROTOCOL_ERROR)),
        ("5.1.1", "the largest stream", begun(&[get(0x7fff_ffff)]), Answers(0x7fff_ffff)),
        ("5.1.2", "as many streams as may be", many(100), GoesOn),
        ("5.1.2", "one stream more than may be", many(101), Resets(201, REFUSED_STREAM)),
        (
            "5.3.1",
            "PRIORITY that depends on itself",
            begun(&[post(1), frame(PRIORITY, 0, 1, &own(1))]),
            Resets(1, PROTOCOL_ERROR),
        ),
        (
            "5.3.1",
            "HEADERS that depend on themselves",
            begun(&[frame(HEADERS, WHOLE | WEIGHED, 1, &[&own(1)[..], &get_fields(CHAT)].concat())]),
            Resets(1, PROTOCOL_ERROR),
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let long = |length: &str| frame(HEADERS, HEAD, 1, &post_fields(&[("content-length", length)]));
    let data = |flags: u8, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let trailers = |flags: u8, block: &[(&str, &str)]| frame(HEADERS, flags, 1, &fields(block));
    vec![
        ("8.1", "a body in two pieces", begun(&[post(1), data(0, b"a"), data(END, b"b")]), Answers(1)),
        ("8.1", "trailers", begun(&[post(1), data(0, b"a"), trailers(WHOLE, &[("x-sum", "1")])]), Answers(1)),
        (
            "8.1",
            "trailers that do not end the stream",
            begun(&[post(1), data(0, b"a"), trailers(HEAD, &[("x-sum", "1")])]),
            Resets(1, PROTOCOL_ERROR),
        ),
        (
            "8.1",
            "trailers with a pseudo-field",
            begun(&[post(1), data(0, b"a"), trailers(WHOLE, &[(":method", "GET")])]),
            Answers(1),
        ),
        ("8.1.1", "a body as long as it says", begun(&[long("2"), data(0, b"a"), data(END, b"b")]), Answers(1)),
        ("8.1.1", "a body shorter than it says", begun(&[long("2"), data(END, b"a")]), Resets(1, PROTOCOL_ERROR)),
        ("8.1.1", "a body longer than it says", begun(&[long("1"), data(END, b"ab")]), Resets(1, PROTOCOL_ERROR)),
        (
            "8.1.1",
            "pieces shorter together than they say",
            begun(&[long("3"), data(0, b"a"), data(END, b"b")]),
            Resets(1, PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "pieces longer together than they say",
            begun(&[long("3"), data(0, b"ab"), data(END, b"cd")]),
            Resets(1, PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "no body where a length is given",
            begun(&[frame(HEADERS, WHOLE, 1, &post_fields(&[("content-length", "1")]))]),
            Resets(1, PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "two lengths",
            begun(&[frame(HEADERS, WHOLE, 1, &post_fields(&[("content-length", "0"), ("content-length", "1")]))]),
            Resets(1, PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "a length that is no number",
            begun(&[frame(HEADERS, WHOLE, 1, &post_fields(&[("content-length", "+1")]))]),
            Resets(1, PROTOCOL_ERROR),
        ),
        ("8.1.1", "a length beyond what is taken", begun(&[long("99999999999")]), Refuses(1)),
    ]
}
