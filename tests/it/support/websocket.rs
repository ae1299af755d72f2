//! A WebSocket peer of few words: a client that sends the frames it is told to, and an upstream that echoes them.

use std::net::SocketAddr;

use cxgate::gate::websocket::handshake::accept;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    raw_client::RawClient,
    raw_upstream::{RawConnection, RawUpstream},
    soon,
};

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// An open socket, from the client's end.
pub struct Socket(pub RawClient);

/// A frame of the server: its first byte and its payload.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

/// The head of a request for a socket.
pub fn request(path: &str, client: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: gate\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\nx-client-id: {client}\r\n\r\n"
    )
}

/// A frame as a client sends it.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0xFE);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0xFF);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// An upstream whose sockets send every frame back but for its mask, and end after a close.
pub async fn echoing() -> RawUpstream {
    RawUpstream::start(|_, mut connection| async move {
        if open(&mut connection).await.is_none() {
            return;
        }
        while let Some((first, payload)) = frame(&mut connection.stream).await {
            let mut echo = vec![first];
            match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
                (Ok(length @ 0..=125), _) => echo.push(length),
                (_, Ok(length)) => {
                    echo.push(126);
                    echo.extend(length.to_be_bytes());
                }
                _ => {
                    echo.push(127);
                    echo.extend((payload.len() as u64).to_be_bytes());
                }
            }
            echo.extend(payload);
            connection.send(echo).await;
            if first == CLOSE {
                return;
            }
        }
    })
    .await
}

/// Reads a request for a socket and grants it.
pub async fn open(connection: &mut RawConnection) -> Option<()> {
    connection.request().await?;
    let accept = accept(KEY.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    connection.send(head).await;
    Some(())
}

/// The next frame on a stream, unmasked; `None` at its end.
pub async fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let [first, second] = stream.read_u16().await.ok()?.to_be_bytes();
    let length = match second & 0x7F {
        126 => usize::from(stream.read_u16().await.ok()?),
        127 => usize::try_from(stream.read_u64().await.ok()?).unwrap(),
        length => usize::from(length),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await.ok()?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    for (byte, mask) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
    Some((first, payload))
}

// === impl Socket ===

impl Socket {
    /// Opens a socket in the name of a client; the gate must grant it.
    pub async fn open(gate: SocketAddr, path: &str, client: &str) -> Self {
        let mut raw = RawClient::connect(gate).await;
        raw.send(request(path, client)).await;
        let (status, head) = raw.head().await;
        assert_eq!(status, 101, "{head}");
        Self(raw)
    }

    pub async fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        self.0.send(masked(first, payload.as_ref())).await;
    }

    /// The next frame, which there must be.
    pub async fn frame(&mut self) -> Frame {
        let [first, second] = self.0.take(2).await[..] else { unreachable!("two bytes were taken") };
        let length = match second {
            126 => usize::from(u16::from_be_bytes(self.0.take(2).await.try_into().unwrap())),
            127 => usize::try_from(u64::from_be_bytes(self.0.take(8).await.try_into().unwrap())).unwrap(),
            length => usize::from(length),
        };
        Frame { first, payload: self.0.take(length).await }
    }

    /// Reads a close frame and the end of the connection behind it.
    pub async fn closed(&mut self) -> u16 {
        let Frame { first, payload } = self.frame().await;
        assert_eq!(first, CLOSE, "{payload:?}");
        let (rest, in_order) = self.0.rest().await;
        assert!(rest.is_empty() && in_order, "{rest:?}");
        u16::from_be_bytes([payload[0], payload[1]])
    }

    /// Both halves, to send and receive at once.
    pub fn into_stream(self) -> TcpStream {
        self.0.stream
    }
}

/// Writes all of `bytes` soon.
pub async fn write(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) {
    soon(stream.write_all(bytes)).await.unwrap();
}
