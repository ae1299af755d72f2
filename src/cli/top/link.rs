//! Asks the admin listener.
//!
//! Promised: a sample is whole, and had within [`PATIENCE`], or there is none; answers are read up to [`ANSWER_BYTES_MAX`].

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    exposition::Page,
    facts::{Clients, Routes, Sample},
};
use crate::config::Secret;

/// Longest wait for all answers of a sample.
const PATIENCE: Duration = Duration::from_secs(3);

/// Far above the metrics of a thousand routes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where the proxy is asked, and with which token.
pub(super) struct Link {
    pub(super) address: String,
    authorization: Option<HeaderValue>,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("no answer in {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the answer cannot be read")]
    Body,
    #[error("{path} answered {status}: {answer}")]
    Refused { path: &'static str, status: StatusCode, answer: String },
    #[error("what answers is no cxgate, or one of another version: {0}")]
    Strange(#[from] serde_json::Error),
}

/// One connection, for one sample.
struct Asking<'a> {
    link: &'a Link,
    sender: SendRequest<Empty<Bytes>>,
}

// === impl Link ===

impl Link {
    /// # Errors
    ///
    /// A token that cannot stand in a header.
    pub(super) fn new(address: String, token: Option<&Secret>) -> anyhow::Result<Self> {
        let authorization = token.map(|token| HeaderValue::try_from(format!("Bearer {}", token.expose()))).transpose();
        let mut authorization = authorization.map_err(|_| anyhow::anyhow!("the token has characters that no token has"))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self { address, authorization })
    }

    /// How the proxy stands now.
    pub(super) async fn sample(&self) -> Result<Sample, Trouble> {
        timeout(PATIENCE, self.ask()).await.unwrap_or(Err(Trouble::Timeout))
    }

    async fn ask(&self) -> Result<Sample, Trouble> {
        let stream = TcpStream::connect(&self.address).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut asking = Asking { link: self, sender };
        let status = asking.json("/api/v1/status").await?;
        let Routes { routes } = asking.json("/api/v1/routes").await?;
        let busiest: Clients = asking.json("/api/v1/clients?order=busiest&count=50").await?;
        let refused: Clients = asking.json("/api/v1/clients?order=refused&count=50").await?;
        let page = Page::parse(&String::from_utf8_lossy(&asking.get("/metrics").await?));
        Ok(Sample { at: Instant::now(), status, routes, busiest: busiest.clients, refused: refused.clients, page })
    }
}

// === impl Asking ===

impl Asking<'_> {
    async fn json<T: DeserializeOwned>(&mut self, path: &'static str) -> Result<T, Trouble> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }

    async fn get(&mut self, path: &'static str) -> Result<Bytes, Trouble> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = hyper::Uri::from_static(path);
        let host = HeaderValue::try_from(&self.link.address).unwrap_or(HeaderValue::from_static("localhost"));
        request.headers_mut().insert(HOST, host);
        if let Some(authorization) = &self.link.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Trouble::Body)?.to_bytes();
        if status != StatusCode::OK {
            return Err(Trouble::Refused { path, status, answer: reason(&body) });
        }
        Ok(body)
    }
}

/// What an error document says, or the document.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let document: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let message = document.as_ref().and_then(|document| document["message"].as_str()).unwrap_or(&text);
    message.chars().filter(|character| !character.is_control()).take(200).collect()
}
