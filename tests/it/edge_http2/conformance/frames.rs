//! The preface, frames and what each type of frame may say (RFC 9113, sections 3, 4, 6 and 7).

use super::Reaction::{Answers, Closes, Ends, GoesOn, Resets};
use super::{
    ACK, CHAT, Case, END, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, HEAD, PADDED, PROTOCOL_ERROR, WEIGHED,
    streams::{begun, get, post},
};
use crate::support::http2::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE,
    frame, get_fields,
};

const UNKNOWN: u8 = 0xf0;

fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub(super) fn cases() -> Vec<Case> {
    [
        preface(),
        framing(),
        data_and_headers(),
        priority_and_reset(),
        settings(),
        ping_and_goaway(),
        windows(),
        continuation(),
    ]
    .concat()
}

fn preface() -> Vec<Case> {
    let raw = |bytes: &[u8]| bytes.to_vec();
    vec![
        ("3.4", "a preface and empty settings", begun(&[]), GoesOn),
        ("3.4", "a preface that goes wrong at its end", raw(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), Closes),
        ("3.4", "settings with values", [PREFACE, &setting(3, 100)].concat(), GoesOn),
        ("3.4", "a request before the settings are acknowledged", begun(&[get(1)]), Answers(1)),
    ]
}

fn framing() -> Vec<Case> {
    let head = get_fields(CHAT);
    let full = vec![b'x'; 16_384];
    let longer = vec![b'x'; 16_385];
    vec![
        ("4.1", "a frame of an unknown type", begun(&[frame(UNKNOWN, 0, 0, b"?")]), GoesOn),
        ("4.1", "an unknown frame on a stream", begun(&[frame(UNKNOWN, 0, 5, b"?")]), GoesOn),
        ("4.1", "flags that PING does not know", begun(&[frame(PING, 0x16, 0, b"8 bytes!")]), GoesOn),
        ("4.1", "the reserved bit before a stream", begun(&[frame(HEADERS, WHOLE, 0x8000_0001, &head)]), Answers(1)),
        ("4.2", "DATA as long as a frame may be", begun(&[post(1), frame(DATA, END, 1, &full)]), Answers(1)),
        ("4.2", "DATA longer than a frame may be", begun(&[post(1), frame(DATA, END, 1, &longer)]), Ends(FRAME_SIZE_ERROR)),
        ("4.2", "HEADERS longer than a frame may be", begun(&[frame(HEADERS, WHOLE, 1, &longer)]), Ends(FRAME_SIZE_ERROR)),
        ("4.2", "SETTINGS longer than a frame may be", begun(&[frame(SETTINGS, 0, 0, &longer)]), Ends(FRAME_SIZE_ERROR)),
        ("4.3", "a field block that is none", begun(&[frame(HEADERS, WHOLE, 1, b"\xff\xff\xff")]), Ends(PROTOCOL_ERROR)),
        (
            "4.3",
            "PRIORITY inside a field block",
            begun(&[frame(HEADERS, END, 1, &head), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]),
            Ends(PROTOCOL_ERROR),
        ),
        (
            "4.3",
            "another stream inside a field block",
            begun(&[frame(HEADERS, END, 1, &head), get(3)]),
            Ends(PROTOCOL_ERROR),
        ),
        (
            "5.5",
            "an unknown frame inside a field block",
            begun(&[frame(HEADERS, END, 1, &head), frame(UNKNOWN, 0, 1, b"?")]),
            Ends(PROTOCOL_ERROR),
        ),
    ]
}

fn data_and_headers() -> Vec<Case> {
    let head = get_fields(CHAT);
    let padded = |length: u8, rest: &[u8]| [&[length][..], rest].concat();
    let spaced = |bytes: &[u8], count: usize| [bytes, &vec![0; count]].concat();
    let weight = [0, 0, 0, 0, 15];
    let whole_padded = |payload: &[u8]| begun(&[frame(HEADERS, WHOLE | PADDED, 1, payload)]);
    vec![
        ("6.1", "DATA on stream 0", begun(&[frame(DATA, END, 0, b"x")]), Ends(PROTOCOL_ERROR)),
        ("6.1", "DATA with padding", begun(&[post(1), frame(DATA, END | PADDED, 1, &padded(3, b"x\0\0\0"))]), Answers(1)),
        (
            "6.1",
            "DATA that is less than its padding",
            begun(&[post(1), frame(DATA, END | PADDED, 1, &padded(4, b"x\0"))]),
            Ends(PROTOCOL_ERROR),
        ),
        ("6.1", "DATA without data", begun(&[post(1), frame(DATA, 0, 1, b""), frame(DATA, END, 1, b"")]), Answers(1)),
        ("6.2", "HEADERS on stream 0", begun(&[frame(HEADERS, WHOLE, 0, &head)]), Ends(PROTOCOL_ERROR)),
        ("6.2", "HEADERS with padding", whole_padded(&padded(4, &spaced(&head, 4))), Answers(1)),
        ("6.2", "HEADERS that are less than their padding", whole_padded(&padded(255, &head)), Ends(PROTOCOL_ERROR)),
        (
            "6.2",
            "HEADERS with a priority",
            begun(&[frame(HEADERS, WHOLE | WEIGHED, 1, &[&weight[..], &head].concat())]),
            Answers(1),
        ),
        (
            "6.2",
            "HEADERS with padding and a priority",
            begun(&[frame(HEADERS, WHOLE | PADDED | WEIGHED, 1, &padded(2, &spaced(&[&weight[..], &head].concat(), 2)))]),
            Answers(1),
        ),
        (
            "6.6",
            "PUSH_PROMISE from a client",
            begun(&[frame(PUSH_PROMISE, HEAD, 1, &spaced(&[0, 0, 0, 2], 4))]),
            Ends(PROTOCOL_ERROR),
        ),
    ]
}

fn priority_and_reset() -> Vec<Case> {
    let reset = |stream: u32, payload: &[u8]| frame(RST_STREAM, 0, stream, payload);
    let weight = [0, 0, 0, 0, 15];
    vec![
        ("6.3", "PRIORITY on an idle stream", begun(&[frame(PRIORITY, 0, 7, &weight)]), GoesOn),
        ("6.3", "PRIORITY between requests", begun(&[frame(PRIORITY, 0, 3, &weight), get(3)]), Answers(3)),
        ("6.3", "PRIORITY on stream 0", begun(&[frame(PRIORITY, 0, 0, &weight)]), Ends(PROTOCOL_ERROR)),
        ("6.3", "PRIORITY of four bytes", begun(&[post(1), frame(PRIORITY, 0, 1, &weight[..4])]), Ends(PROTOCOL_ERROR)),
        ("6.4", "RST_STREAM on stream 0", begun(&[reset(0, &[0, 0, 0, 8])]), Ends(PROTOCOL_ERROR)),
        ("6.4", "RST_STREAM on an idle stream", begun(&[reset(1, &[0, 0, 0, 8])]), Ends(PROTOCOL_ERROR)),
        ("6.4", "RST_STREAM of three bytes", begun(&[post(1), reset(1, &[0, 0, 0])]), Ends(PROTOCOL_ERROR)),
        ("6.4", "RST_STREAM of five bytes", begun(&[post(1), reset(1, &[0, 0, 0, 8, 0])]), Ends(PROTOCOL_ERROR)),
        ("6.4", "a request after one that was taken back", begun(&[post(1), reset(1, &[0, 0, 0, 8]), get(3)]), Answers(3)),
        ("7", "RST_STREAM with an unknown error", begun(&[post(1), reset(1, &[0, 0, 0, 255])]), GoesOn),
        (
            "7",
            "GOAWAY with an unknown error, and a request begun before",
            begun(&[get(1), frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 255])]),
            Answers(1),
        ),
    ]
}

fn settings() -> Vec<Case> {
    vec![
        ("6.5", "an acknowledgement that says something", begun(&[frame(SETTINGS, ACK, 0, &[0; 6])]), Ends(PROTOCOL_ERROR)),
        ("6.5", "SETTINGS on a stream", begun(&[frame(SETTINGS, 0, 1, &[])]), Ends(PROTOCOL_ERROR)),
        ("6.5", "SETTINGS of five bytes", begun(&[frame(SETTINGS, 0, 0, &[0; 5])]), Ends(PROTOCOL_ERROR)),
        ("6.5", "the same setting twice", begun(&[[setting(4, 10), setting(4, 65_535)].concat(), get(1)]), Answers(1)),
        ("6.5.2", "ENABLE_PUSH of 2", begun(&[setting(2, 2)]), Ends(PROTOCOL_ERROR)),
        ("6.5.2", "ENABLE_PUSH of 0", begun(&[setting(2, 0)]), GoesOn),
        ("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", begun(&[setting(4, 1 << 31)]), Ends(PROTOCOL_ERROR)),
        ("6.5.2", "INITIAL_WINDOW_SIZE of 2^31 - 1", begun(&[setting(4, (1 << 31) - 1), get(1)]), Answers(1)),
        ("6.5.2", "MAX_FRAME_SIZE of 2^14 - 1", begun(&[setting(5, 16_383)]), Ends(PROTOCOL_ERROR)),
        ("6.5.2", "MAX_FRAME_SIZE of 2^24", begun(&[setting(5, 1 << 24)]), Ends(PROTOCOL_ERROR)),
        ("6.5.2", "MAX_FRAME_SIZE of 2^24 - 1", begun(&[setting(5, (1 << 24) - 1)]), GoesOn),
        ("6.5.2", "a setting that is not known", begun(&[setting(0xff, 1), get(1)]), Answers(1)),
        ("6.5.2", "no table for field blocks", begun(&[setting(1, 0), frame(SETTINGS, ACK, 0, &[])]), GoesOn),
        ("6.5.3", "settings without a value", begun(&[frame(SETTINGS, 0, 0, &[]), get(1)]), Answers(1)),
    ]
}

fn ping_and_goaway() -> Vec<Case> {
    let goaway = |stream: u32| frame(GOAWAY, 0, stream, &[0; 8]);
    vec![
        ("6.7", "PING", begun(&[frame(PING, 0, 0, b"8 bytes!")]), GoesOn),
        ("6.7", "an answer to no PING", begun(&[frame(PING, ACK, 0, b"8 bytes!")]), GoesOn),
        ("6.7", "PING on a stream", begun(&[frame(PING, 0, 1, b"8 bytes!")]), Ends(PROTOCOL_ERROR)),
        ("6.7", "PING of six bytes", begun(&[frame(PING, 0, 0, b"6bytes")]), Ends(PROTOCOL_ERROR)),
        ("6.7", "PING of nine bytes", begun(&[frame(PING, 0, 0, b"9 bytes!!")]), Ends(PROTOCOL_ERROR)),
        ("6.8", "GOAWAY on a stream", begun(&[goaway(1)]), Ends(PROTOCOL_ERROR)),
        ("6.8", "GOAWAY of four bytes", begun(&[frame(GOAWAY, 0, 0, &[0; 4])]), Ends(PROTOCOL_ERROR)),
        ("6.8", "GOAWAY after a request", begun(&[get(1), goaway(0)]), Answers(1)),
    ]
}

fn windows() -> Vec<Case> {
    const LARGEST: u32 = 0x7fff_ffff;
    vec![
        ("6.9", "WINDOW_UPDATE by 0", begun(&[window(0, 0)]), Ends(PROTOCOL_ERROR)),
        ("6.9", "WINDOW_UPDATE of a stream by 0", begun(&[post(1), window(1, 0)]), Ends(PROTOCOL_ERROR)),
        ("6.9", "WINDOW_UPDATE of three bytes", begun(&[frame(WINDOW_UPDATE, 0, 0, &[0; 3])]), Ends(PROTOCOL_ERROR)),
        ("6.9", "WINDOW_UPDATE on an idle stream", begun(&[window(1, 1)]), Ends(PROTOCOL_ERROR)),
        ("6.9", "WINDOW_UPDATE on a stream that has ended", begun(&[get(1), window(1, 1)]), Answers(1)),
        ("6.9", "WINDOW_UPDATE with the reserved bit", begun(&[window(0, 0x8000_0001)]), GoesOn),
        ("6.9.1", "a window beyond 2^31 - 1", begun(&[window(0, LARGEST)]), Ends(FLOW_CONTROL_ERROR)),
        ("6.9.1", "a stream's window beyond 2^31 - 1", begun(&[post(1), window(1, LARGEST)]), Resets(1, FLOW_CONTROL_ERROR)),
        ("6.9.2", "an answer within a window that opens late", begun(&[setting(4, 0), get(1), window(1, 1000)]), Answers(1)),
        (
            "6.9.2",
            "settings that push a stream's window beyond 2^31 - 1",
            begun(&[post(1), window(1, LARGEST - 65_535), setting(4, 65_536)]),
            Ends(FLOW_CONTROL_ERROR),
        ),
    ]
}

fn continuation() -> Vec<Case> {
    let head = get_fields(CHAT);
    let (first, rest) = head.split_at(10);
    let (second, third) = rest.split_at(10);
    let begin = || frame(HEADERS, END, 1, first);
    vec![
        (
            "6.10",
            "a field block in three frames",
            begun(&[begin(), frame(CONTINUATION, 0, 1, second), frame(CONTINUATION, HEAD, 1, third)]),
            Answers(1),
        ),
        (
            "6.10",
            "CONTINUATION without bytes",
            begun(&[frame(HEADERS, END, 1, &head), frame(CONTINUATION, HEAD, 1, b"")]),
            Answers(1),
        ),
        (
            "6.10",
            "CONTINUATION of another stream",
            begun(&[begin(), frame(CONTINUATION, HEAD, 3, rest)]),
            Ends(PROTOCOL_ERROR),
        ),
        ("6.10", "CONTINUATION on stream 0", begun(&[begin(), frame(CONTINUATION, HEAD, 0, rest)]), Ends(PROTOCOL_ERROR)),
        (
            "6.10",
            "CONTINUATION after a whole head",
            begun(&[post(1), frame(CONTINUATION, HEAD, 1, rest)]),
            Ends(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION after DATA",
            begun(&[post(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, HEAD, 1, rest)]),
            Ends(PROTOCOL_ERROR),
        ),
        ("6.10", "CONTINUATION before anything", begun(&[frame(CONTINUATION, HEAD, 1, &head)]), Ends(PROTOCOL_ERROR)),
        ("6.10", "DATA inside a field block", begun(&[begin(), frame(DATA, END, 1, b"x")]), Ends(PROTOCOL_ERROR)),
        ("6.10", "PING inside a field block", begun(&[begin(), frame(PING, 0, 0, b"8 bytes!")]), Ends(PROTOCOL_ERROR)),
    ]
}
