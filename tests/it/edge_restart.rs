//! One daemon takes over from another, and nobody notices.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cxgate::{
    app::App,
    config::{Config, Rate, TokenBucket},
    shutdown::Shutdown,
};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::sleep};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    http, http2,
    listening::{Listening, text, wide},
    raw_client::RawClient,
    soon,
    stub_upstream::StubUpstream,
    test_gate::{bucket_of, origin},
    until,
};

const CHAT: &str = "/api/v2/engage/webchat";
const RESTARTS: usize = 10;
/// Longer than any client here pauses between two requests.
const DELAY: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(20);
const CLIENTS: usize = 10;

/// One daemon of several on the same address.
struct Generation {
    admin: SocketAddr,
    proxy: SocketAddr,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

impl Generation {
    fn start(upstream: SocketAddr, address: SocketAddr) -> Self {
        let mut config = Config::default();
        config.listen.address = address;
        config.listen.reuse_port = true;
        config.listen.drain_delay = DELAY;
        config.listen.h2c = true;
        config.admin.address = "127.0.0.1:0".parse().unwrap();
        config.upstreams.get_mut("cxone").unwrap().url = origin(upstream);
        let rate = Rate::per_second(1_000_000.0).unwrap();
        *bucket_of(&mut config) = TokenBucket { capacity: 1_000_000, refill_per_second: rate };
        let app = App::bind(config).unwrap();
        let shutdown = Shutdown::default();
        let (proxy, admin) = (app.proxy_address(), app.admin_address());
        Self { proxy, admin, running: tokio::spawn(app.run(shutdown.clone())), shutdown }
    }
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Seen {
    fn count(&self, result: Result<u16, String>) {
        match result {
            Ok(200) => _ = self.answered.fetch_add(1, Ordering::Relaxed),
            Ok(status) => self.failed.lock().unwrap().push(status.to_string()),
            Err(error) => self.failed.lock().unwrap().push(error),
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<u16, String> {
    let status = response.status().as_u16();
    response.into_body().collect().await.map(|_| status).map_err(|error| format!("{error:?}"))
}

/// Asks over kept connections, each for as long as it is not told to close it. Nothing is sent twice.
async fn keep_alive(address: SocketAddr, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::Relaxed) {
        let Ok(stream) = TcpStream::connect(address).await else {
            seen.count(Err("connect".to_owned()));
            continue;
        };
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut open = true;
        while open && !seen.over.load(Ordering::Relaxed) {
            let request = Request::get(CHAT).header("host", "a").body(Empty::<Bytes>::new()).unwrap();
            match client.send_request(request).await {
                Ok(response) => {
                    open = !response.headers().contains_key("connection");
                    seen.count(read(response).await);
                }
                Err(error) => {
                    seen.count(Err(format!("{error:?}")));
                    open = false;
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// Whether GOAWAY said, without an error, that a request will not be looked at (RFC 9113, section 6.8).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

/// The same by HTTP/2, where what came after GOAWAY goes over the next connection.
async fn multiplexed(address: SocketAddr, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::Relaxed) {
        let mut client = http2::plain_client(address).await;
        while !seen.over.load(Ordering::Relaxed) {
            match client.try_send_request(http2::get(CHAT)).await {
                Ok(response) => seen.count(read(response).await),
                Err(mut error) => {
                    if error.take_message().is_none() && !is_unprocessed(error.error()) {
                        seen.count(Err(format!("{:?}", error.into_error())));
                    }
                    break;
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// A new connection for each request.
async fn one_by_one(address: SocketAddr, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::Relaxed) {
        let mut client = RawClient::connect(address).await;
        client.send(format!("GET {CHAT} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        seen.count(Ok(client.response().await.status));
        sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_restarts_under_load_lose_nothing() {
    let upstream = StubUpstream::start().await;
    let mut current = Generation::start(upstream.address, "127.0.0.1:0".parse().unwrap());
    let address = current.proxy;
    let seen = Arc::<Seen>::default();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS / 2 {
        clients.push(tokio::spawn(keep_alive(address, Arc::clone(&seen))));
    }
    for _ in 0..CLIENTS / 4 {
        clients.push(tokio::spawn(multiplexed(address, Arc::clone(&seen))));
        clients.push(tokio::spawn(one_by_one(address, Arc::clone(&seen))));
    }
    for _ in 0..RESTARTS {
        let next = Generation::start(upstream.address, address);
        let old = std::mem::replace(&mut current, next);
        old.shutdown.leave();
        let readiness = http::get(old.admin, "/readyz", &[]).await;
        assert_eq!((readiness.status.as_u16(), readiness.json()["status"].as_str()), (503, Some("draining")));
        soon(old.running).await.unwrap();
    }
    seen.over.store(true, Ordering::Relaxed);
    for client in clients {
        soon(client).await.unwrap();
    }
    let answered = seen.answered.load(Ordering::Relaxed);
    assert_eq!(*seen.failed.lock().unwrap(), Vec::<String>::new(), "{answered} answered");
    assert!(answered > RESTARTS * CLIENTS, "too few to prove anything: {answered}");
    current.shutdown.stop();
}

#[tokio::test]
async fn who_stands_in_the_queue_when_the_drain_comes_is_served() {
    let listening = Listening::start(wide(), |request| async move { text(request.uri().path()) });
    // On this single thread the listener accepts nobody before the drain.
    let sockets: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(listening.address).unwrap()).collect();
    listening.shutdown.drain();
    for socket in sockets {
        socket.set_nonblocking(true).unwrap();
        let mut client = RawClient::on(TcpStream::from_std(socket).unwrap());
        let answer = client.get("/late").await;
        assert_eq!((answer.status, answer.text(), answer.field("connection")), (200, "/late", Some("close")));
    }
    soon(listening.shutdown.finished()).await;
}

#[tokio::test]
async fn while_leaving_requests_are_served_and_asked_to_reconnect_and_a_second_signal_stops_at_once() {
    let mut daemon = Daemon::start_listening("drain_delay = \"1h\"\n").await;
    let mut kept = RawClient::connect(daemon.proxy).await;
    assert_eq!(kept.get("/nowhere").await.field("connection"), None);
    daemon.signal("TERM");
    daemon.until_event("draining").await;
    until(async || http::get(daemon.admin, "/readyz", &[]).await.status == 503).await;
    for client in [&mut kept, &mut RawClient::connect(daemon.proxy).await] {
        let answer = client.get("/nowhere").await;
        assert_eq!((answer.status, answer.field("connection")), (404, Some("close")));
    }
    daemon.signal("TERM");
    let (code, _) = tokio::time::timeout(PATIENCE, daemon.ended()).await.expect("it stops at once");
    assert_eq!(code, Some(0));
}
