//! The server's side of a WebSocket that sends back what it gets (RFC 6455).
//!
//! Promised: frames come back in order, fragments as fragments; pings are answered; a broken, oversized or silent peer is
//! closed with the code for it. Not promised: extensions, subprotocols, or a look into the text.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::gate::websocket::handshake::accept;

/// Largest frame that is sent back.
const MAX_PAYLOAD: u64 = 64 * 1024;

/// Longest wait for a frame.
const MAX_SILENCE: Duration = Duration::from_mins(5);

const FINAL: u8 = 0x80;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Close codes (RFC 6455, 7.4.1).
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;

struct Frame {
    /// The final bit, the reserved bits and the opcode.
    first: u8,
    payload: Vec<u8>,
}

/// Why there is no further frame.
enum End {
    Gone,
    Refused(u16),
}

// === handshake ===

/// The answer that turns a connection into a WebSocket, if that is what the request asks for.
pub(super) fn handshake<Body>(request: &Request<Body>) -> Option<Response<Full<Bytes>>> {
    let headers = request.headers();
    let upgrade = headers.get(UPGRADE)?.as_bytes();
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    if !upgrade.eq_ignore_ascii_case(b"websocket") || headers.get(SEC_WEBSOCKET_VERSION)? != "13" {
        return None;
    }
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, accept(key.as_bytes()));
    response.body(Full::default()).ok()
}

// === frames ===

/// Sends every message back until the peer closes or breaks the rules.
pub(super) async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let frame = match timeout(MAX_SILENCE, read(&mut stream)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(End::Gone)) => return Ok(()),
            Ok(Err(End::Refused(code))) => return write(&mut stream, FINAL | CLOSE, &code.to_be_bytes()).await,
            Err(_) => return write(&mut stream, FINAL | CLOSE, &GOING_AWAY.to_be_bytes()).await,
        };
        match frame.first & 0xF {
            CLOSE => return write(&mut stream, FINAL | CLOSE, &frame.payload).await,
            PING => write(&mut stream, FINAL | PONG, &frame.payload).await?,
            PONG => {}
            _ => write(&mut stream, frame.first, &frame.payload).await?,
        }
    }
}

/// One frame, unmasked (RFC 6455, 5.2).
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame, End> {
    let [first, second] = stream.read_u16().await?.to_be_bytes();
    let (opcode, is_masked) = (first & 0xF, second & 0x80 != 0);
    let length = match second & 0x7F {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        length => u64::from(length),
    };
    let is_control = opcode >= CLOSE;
    let is_known = matches!(opcode, 0..=2 | CLOSE..=PONG) && first & 0x70 == 0;
    if !is_known || !is_masked || (is_control && (length > 125 || first & FINAL == 0)) {
        return Err(End::Refused(PROTOCOL_ERROR));
    }
    if length > MAX_PAYLOAD {
        return Err(End::Refused(TOO_BIG));
    }
    let mask = stream.read_u32().await?.to_be_bytes();
    let mut payload = Vec::new();
    stream.take(length).read_to_end(&mut payload).await?;
    if (payload.len() as u64) < length {
        return Err(End::Gone);
    }
    for (byte, mask) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Frame { first, payload })
}

/// One frame, unmasked as a server's are.
async fn write(stream: &mut (impl AsyncWrite + Unpin), first: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

// === impl End ===

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back for these bytes, when nothing follows them.
    async fn echoed(sent: &[u8]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(256 * 1024);
        let server = tokio::spawn(echo(server));
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        server.await.unwrap().unwrap();
        received
    }

    #[tokio::test]
    async fn messages_come_back_pings_are_answered_and_the_close_is_returned() {
        // "Hello", the ping and the close code 1000 with the mask of RFC 6455, 5.7.
        let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        let ping = b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        let close = b"\x88\x82\x00\x00\x00\x00\x03\xe8";
        let sent = [hello.as_slice(), ping, close, hello].concat();
        assert_eq!(echoed(&sent).await, b"\x81\x05Hello\x8a\x05Hello\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn a_long_message_comes_back_whole() {
        let text = vec![b'a'; 65_536];
        let sent = [b"\x82\xff\0\0\0\0\0\x01\0\0\0\0\0\0".as_slice(), &text].concat();
        assert_eq!(echoed(&sent).await, [b"\x82\x7f\0\0\0\0\0\x01\0\0".as_slice(), &text].concat());
    }

    #[tokio::test]
    async fn a_broken_frame_closes_with_the_code_for_it() {
        let cases: [(&str, &[u8], u16); 5] = [
            ("not masked", b"\x81\x05Hello", PROTOCOL_ERROR),
            ("reserved opcode", b"\x83\x80\0\0\0\0", PROTOCOL_ERROR),
            ("reserved bit", b"\xc1\x80\0\0\0\0", PROTOCOL_ERROR),
            ("fragmented ping", b"\x09\x80\0\0\0\0", PROTOCOL_ERROR),
            ("too big", b"\x82\xff\0\0\0\0\0\x01\0\x01", TOO_BIG),
        ];
        for (what, sent, code) in cases {
            assert_eq!(echoed(sent).await, [b"\x88\x02".as_slice(), &code.to_be_bytes()].concat(), "{what}");
        }
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_not_echoed() {
        assert_eq!(echoed(b"\x81\x85\x37\xfa\x21\x3d\x7f").await, b"");
    }
}
