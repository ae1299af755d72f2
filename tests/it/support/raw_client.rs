//! A client that sends what it is told and reads what comes.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::soon;

/// One connection to a server.
pub struct RawClient {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub struct RawResponse {
    pub status: u16,
    /// Status line and fields, in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

// === impl RawClient ===

impl RawClient {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::on(soon(TcpStream::connect(address)).await.expect("the server accepts"))
    }

    /// A client on a connection that stands.
    pub fn on(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.expect("the server reads");
    }

    /// Sends a request without a body and reads its response.
    pub async fn get(&mut self, path: &str) -> RawResponse {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        self.response().await
    }

    /// The next response, framed by length or chunks.
    pub async fn response(&mut self) -> RawResponse {
        let (status, head) = self.head().await;
        let body = match field(&head, "content-length") {
            Some(length) => self.take(length.parse().expect("a length")).await,
            None if field(&head, "transfer-encoding") == Some("chunked") => self.chunks().await,
            None => Vec::new(),
        };
        RawResponse { status, head, body }
    }

    /// The next status and head.
    pub async fn head(&mut self) -> (u16, String) {
        let end = self.position(b"\r\n\r\n").await;
        let head = String::from_utf8(self.take(end + 4).await).expect("a head is text").to_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        (status, head)
    }

    /// The next `count` bytes.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.read));
        }
        self.read.drain(..count).collect()
    }

    /// The data of the next chunk; empty is the last.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let end = self.position(b"\r\n").await;
        let size = String::from_utf8(self.take(end + 2).await).expect("a size is text");
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        let mut data = self.take(size + 2).await;
        data.truncate(size);
        data
    }

    /// Everything until the connection ends, and whether it ended in order rather than by a reset.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        let in_order = loop {
            match soon(self.stream.read_buf(&mut self.read)).await {
                Ok(0) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        (std::mem::take(&mut self.read), in_order)
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let data = self.chunk().await;
            if data.is_empty() {
                return body;
            }
            body.extend(data);
        }
    }

    async fn position(&mut self, pattern: &[u8]) -> usize {
        loop {
            if let Some(position) = self.read.windows(pattern.len()).position(|window| window == pattern) {
                return position;
            }
            assert!(self.more().await > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    async fn more(&mut self) -> usize {
        soon(self.stream.read_buf(&mut self.read)).await.expect("the connection stands")
    }
}

// === impl RawResponse ===

impl RawResponse {
    /// A field's value; the name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
