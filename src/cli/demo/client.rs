//! A client on one kept connection: what the demo's guests talk with.
//!
//! Promised: an answer or an error within [`DEADLINE`], at most [`MAX_BODY`] bytes of it. After an error the next request
//! connects anew. Nothing is sent twice.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Longest wait for a whole answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Largest answer; a page of metrics is some twenty kilobytes.
const MAX_BODY: usize = 1 << 20;

/// A client of one server.
#[derive(Debug)]
pub(super) struct Client {
    server: SocketAddr,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

// === impl Client ===

impl Client {
    /// Connects with the first request.
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server, connection: None }
    }

    /// Asks for `path` in the name of `client_id`.
    pub(super) async fn get(&mut self, path: &str, client_id: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::get(path)
            .header(header::HOST, self.server.to_string())
            .header("x-client-id", client_id)
            .body(Empty::new())?;
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => timeout(DEADLINE, connect(self.server)).await.context("no connection in time")??,
        };
        let answer = timeout(DEADLINE, exchange(&mut connection, request)).await.context("no answer in time")??;
        self.connection = Some(connection);
        Ok(answer)
    }
}

async fn connect(server: SocketAddr) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped; its error reaches whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    connection: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    connection.ready().await?;
    let (head, body) = connection.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| anyhow!(error))?;
    Ok((head.status, body.to_bytes()))
}
