//! The least that a limiting proxy on hyper can be, to compare with: it forwards, and where it is told to, calls the plainest of
//! scripts once a request.
//!
//! Promised: nothing that a proxy needs beyond that; no caps, no timeouts, no hop-by-hop fields, no drain.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use redis::aio::MultiplexedConnection;
use tokio::net::TcpListener;

/// What makes this program be one: then the ports it listens on and forwards to, and where it is to limit, that of Redis, the
/// capacity of a client and its tokens a second.
pub const ARGUMENT: &str = "--bare";

const SCRIPT: &str = include_str!("plain.lua");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

type Body = Either<Incoming, Full<Bytes>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Proxy {
    client: Client<HttpConnector, Incoming>,
    upstream: String,
    limit: Option<Limit>,
}

struct Limit {
    connection: MultiplexedConnection,
    digest: String,
    capacity: u32,
    rate: u32,
}

/// Serves until it is ended.
pub fn run(arguments: &[String]) {
    let numbers: Vec<u32> = arguments.iter().map(|argument| argument.parse().expect("a number")).collect();
    let [listen, upstream, ref limit @ ..] = numbers[..] else { panic!("{ARGUMENT} takes two ports at least") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let limit = match *limit {
            [redis, capacity, rate] => Some(Limit::ask(redis, capacity, rate).await.expect("a Redis that answers")),
            _ => None,
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let proxy: &'static Proxy = Box::leak(Box::new(Proxy { client, upstream: format!("127.0.0.1:{upstream}"), limit }));
        let listener = TcpListener::bind(format!("127.0.0.1:{listen}")).await.expect("a free port");
        // Accepts on a worker, where connections are served, and not on the thread that waits here.
        tokio::spawn(proxy.serve(listener)).await.expect("a proxy that does not panic");
    });
}

// === impl Proxy ===

impl Proxy {
    async fn serve(&'static self, listener: TcpListener) {
        while let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true).ok()?;
                let service = service_fn(|request| self.answer(peer, request));
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok()
            });
        }
    }

    async fn answer(&self, peer: SocketAddr, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        if let Some(limit) = &self.limit
            && let Some(seconds) = limit.refuses(request.headers()).await?
        {
            let mut response = Response::new(Either::Right(Full::from(r#"{"error":"rate_limit_exceeded"}"#)));
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return Ok(response);
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::builder().scheme("http").authority(&*self.upstream).path_and_query(path).build()?;
        request.headers_mut().insert(FORWARDED_FOR, HeaderValue::try_from(peer.ip().to_string())?);
        Ok(self.client.request(request).await?.map(Either::Left))
    }
}

// === impl Limit ===

impl Limit {
    async fn ask(port: u32, capacity: u32, rate: u32) -> redis::RedisResult<Self> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let digest = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?;
        Ok(Self { connection, digest, capacity, rate })
    }

    /// In how many seconds to come back, where the client's bucket is empty.
    async fn refuses(&self, fields: &HeaderMap) -> redis::RedisResult<Option<u64>> {
        let name = fields.get("x-client-id").map_or(&b""[..], HeaderValue::as_bytes);
        let key = [b"bucket:", name].concat();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.digest).arg(1).arg(key).arg(self.capacity).arg(self.rate).arg(now);
        let (admitted, seconds): (bool, u64) = call.query_async(&mut self.connection.clone()).await?;
        Ok((!admitted).then_some(seconds))
    }
}
