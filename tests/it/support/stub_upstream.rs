//! A well-behaved upstream that records what reaches it and answers what the test says.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A request as it reached the upstream.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

type Answerer = dyn Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync;

/// Listens until dropped.
pub struct StubUpstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl StubUpstream {
    /// Answers everything with 200 and `{"ok":true}`.
    pub async fn start() -> Self {
        Self::answering(|_| Response::new(Full::from(r#"{"ok":true}"#))).await
    }

    /// Answers what `answer` makes of each request.
    pub async fn answering(answer: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (record, answer) = (Arc::clone(&seen), Arc::<Answerer>::from(Box::new(answer) as Box<Answerer>));
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                let service = service_fn(move |request| respond(request, Arc::clone(&record), Arc::clone(&answer)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, seen, connections, task }
    }

    /// Accepts connections, and answers each request only once a permit lets it; of those it records the heads as they come.
    pub async fn holding(permits: Arc<tokio::sync::Semaphore>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let record = Arc::clone(&seen);
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (permits, record) = (Arc::clone(&permits), Arc::clone(&record));
                let service = service_fn(move |request: Request<Incoming>| {
                    let permits = Arc::clone(&permits);
                    let head = request.into_parts().0;
                    let (target, body) = (head.uri.to_string(), Bytes::new());
                    record.lock().unwrap().push(Seen { method: head.method, target, headers: head.headers, body });
                    async move {
                        permits.acquire().await.unwrap().forget();
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(r#"{"ok":true}"#)))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, seen, connections, task }
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for StubUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(
    request: Request<Incoming>,
    record: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answerer>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let seen = Seen { method: head.method, target: head.uri.to_string(), headers: head.headers, body };
    let response = answer(&seen);
    record.lock().unwrap().push(seen);
    Ok(response)
}
