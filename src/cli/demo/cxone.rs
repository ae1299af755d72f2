//! A stand-in for CXone: answers guests over HTTP and WebSocket at the paths the real one has, and says how loaded it is.
//!
//! Promised: each answer shows what arrived, so that one can see what the proxy made of a request. Not promised: anything
//! else that CXone does.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    load::{self, Wave},
    websocket,
};
use crate::shutdown::Shutdown;

/// Where guests are answered, and everything below it.
const GUEST_PATHS: [&str; 2] = ["/api/v2/engage/webchat", "/api/v2/conversations/webchat"];

/// What an answer shows of the request's head.
const SHOWN_HEADERS: [&str; 6] = ["host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];

/// Open connections, WebSockets included; beyond it, accepting waits.
const MAX_CONNECTIONS: usize = 1000;

/// Longest wait for a request on a connection; longer than a proxy keeps an idle one.
const MAX_IDLE: Duration = Duration::from_mins(5);

/// How long accepting rests when it fails, as it does without free file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What a connection's requests share.
#[derive(Clone)]
struct Connection {
    wave: Wave,
    shutdown: Shutdown,
    place: Arc<OwnedSemaphorePermit>,
}

/// Accepts until draining begins; open connections stay until the stop.
pub(super) async fn serve(listener: TcpListener, wave: Wave, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async || -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let (stream, _) = listener.accept().await.ok()?;
        Some((stream, place))
    };
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = shutdown.draining() => return,
        };
        match accepted {
            Some((stream, place)) => {
                let connection = Connection { wave, shutdown: shutdown.clone(), place: Arc::new(place) };
                shutdown.spawn(connection.serve(stream));
            }
            None => tokio::time::sleep(ACCEPT_REST).await,
        }
    }
}

// === impl Connection ===

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let shutdown = self.shutdown.clone();
        let service = service_fn(move |request| {
            let connection = self.clone();
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(MAX_IDLE);
        tokio::select! {
            // A connection that breaks concerns its client alone, and that one knows.
            _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades() => {}
            () = shutdown.stopped() => {}
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == load::PATH {
            return json_response(StatusCode::OK, &self.wave.sample());
        }
        if !GUEST_PATHS.iter().any(|guest_path| path.strip_prefix(guest_path).is_some_and(is_below)) {
            return json_response(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }));
        }
        if let Some(response) = websocket::handshake(&request) {
            self.echo(request);
            return response;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..25))).await;
        json_response(StatusCode::OK, &description(&request))
    }

    /// Serves the WebSocket that the connection becomes once the handshake is answered.
    fn echo(self, request: Request<Incoming>) {
        let Self { shutdown, place, .. } = self;
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            let echo = async {
                let stream = hyper::upgrade::on(request).await?;
                websocket::echo(TokioIo::new(stream)).await?;
                anyhow::Ok(())
            };
            tokio::select! {
                _ = echo => {}
                () = stopping.stopped() => {}
            }
            drop(place);
        });
    }
}

/// Whether the rest of a path goes on below what it began with.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// What arrived.
fn description(request: &Request<Incoming>) -> Value {
    let header = |name: &str| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let query = request.uri().query().unwrap_or_default();
    let from_query = || query.split('&').find_map(|pair| pair.strip_prefix("client_id=")).map(Into::into);
    let headers: serde_json::Map<String, Value> =
        SHOWN_HEADERS.iter().filter_map(|name| Some(((*name).to_owned(), header(name)?.into()))).collect();
    json!({
        "answered_by": "the stand-in for CXone",
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "client_id": header("x-client-id").or_else(from_query),
        "headers": headers,
    })
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
