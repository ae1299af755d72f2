//! `cxgate healthcheck`: asks a running proxy for `/readyz`, in an image that has no shell and no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::print;
use crate::config::Config;

/// Longest wait for the whole answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Far above any real answer.
const MAX_ANSWER_BYTES: usize = 65_536;

/// Prints the first line of the answer.
///
/// # Errors
///
/// When there is none in time, or none that says ready.
pub(super) async fn healthcheck(config: &Config) -> anyhow::Result<ExitCode> {
    let address = reachable(config.admin.address);
    let answer = timeout(PATIENCE, ask(address)).await;
    let (status, body) =
        answer.context("no answer in time").and_then(|answer| answer).with_context(|| format!("{address}"))?;
    print(&format!("{}\n", body.lines().next().unwrap_or_default()))?;
    ensure!(status.is_success(), "{address}: answered {status}");
    Ok(ExitCode::SUCCESS)
}

async fn ask(address: SocketAddr) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/readyz").header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error).context("the answer cannot be read"))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Where a server that is bound to `address` can be reached from this host.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
