//! HTTP/2 from the client's side: by a library where the client behaves, by frames of our own where it does not.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{http::Answer, soon};

/// A client that behaves.
pub type Client = SendRequest<Full<Bytes>>;

/// Types of frames (RFC 9113, section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// What a client says first (RFC 9113, section 3.4); its settings follow.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// END_STREAM and END_HEADERS.
pub const WHOLE: u8 = 0x5;

/// Speaks HTTP/2 over `stream`.
pub async fn client(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Client {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (client, connection) = soon(handshake).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The same without TLS.
pub async fn plain_client(address: SocketAddr) -> Client {
    client(TcpStream::connect(address).await.unwrap()).await
}

/// A GET of `path` from `https://localhost`.
pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Full::default()).unwrap()
}

/// The whole of an answer.
pub async fn whole(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: soon(body.collect()).await.unwrap().to_bytes() }
}

/// A client that sends the frames it is told to.
pub struct Frames<S = TcpStream>(pub S);

// === impl Frames ===

impl Frames {
    /// Connects, and says what every client says first.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut frames = Self(TcpStream::connect(address).await.unwrap());
        frames.0.write_all(PREFACE).await.unwrap();
        frames.send(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        frames
    }

    /// The server's side: reads what every client says first, and says what every server does.
    pub async fn accept(stream: TcpStream) -> Self {
        let mut frames = Self(stream);
        soon(frames.0.read_exact(&mut [0; 24])).await.unwrap();
        frames.send(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        frames
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon(self.0.write_all(bytes)).await
    }

    /// The next frame's type, stream and payload; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        self.next_with_flags().await.map(|(kind, _, stream, payload)| (kind, stream, payload))
    }

    /// The same, with its flags after its type.
    pub async fn next_with_flags(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        soon(self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        soon(self.0.read_exact(&mut payload)).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads up to the end of the connection: the error that GOAWAY named last, if there was one.
    pub async fn ended(&mut self) -> Option<u32> {
        let mut error = None;
        while let Some((kind, _, payload)) = self.next().await {
            if kind == GOAWAY {
                error = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
            }
        }
        error
    }
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field block of literals without indexing (RFC 7541, section 6.2.2), with names and values below 127 bytes.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [&[0][..], &text(name), &text(value)].concat()).collect()
}

/// The fields of a GET.
pub fn get_fields(path: &str) -> Vec<u8> {
    fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)])
}
