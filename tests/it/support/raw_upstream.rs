//! An upstream that does to each connection what the test's script says, and remembers the requests it read.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::soon;

/// The listening side; the scripts end with it.
pub struct RawUpstream {
    address: SocketAddr,
    record: Arc<Record>,
    _scripts: JoinSet<()>,
}

/// One accepted connection.
pub struct RawConnection {
    pub stream: TcpStream,
    read: Vec<u8>,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

// === impl RawUpstream ===

impl RawUpstream {
    /// Runs `script` for each connection, with its number from 0 on. A connection closes when its script ends.
    pub async fn start<S, F>(script: S) -> Self
    where
        S: Fn(usize, RawConnection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let record = Arc::new(Record::default());
        let mut scripts = JoinSet::new();
        let seen = Arc::clone(&record);
        scripts.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = seen.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(script(number, RawConnection { stream, read: Vec::new(), record: Arc::clone(&seen) }));
            }
        });
        Self { address, record, _scripts: scripts }
    }

    /// Answers every request on every connection with 200 and `body`.
    pub async fn answering(body: &'static str) -> Self {
        Self::start(move |_, mut connection| async move {
            while connection.request().await.is_some() {
                connection.answer(body).await;
            }
        })
        .await
    }

    /// Says these bytes after the first request of each connection, and then no more until the other side closes.
    pub async fn stalling(bytes: &'static str) -> Self {
        Self::start(move |_, mut connection| async move {
            connection.request().await;
            connection.send(bytes).await;
            connection.closed().await;
        })
        .await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// The request heads that scripts have read, in order.
    pub fn requests(&self) -> Vec<String> {
        self.record.requests.lock().expect("no script panicked here").clone()
    }
}

// === impl RawConnection ===

impl RawConnection {
    /// Reads a request head; `None` when the connection ends first.
    pub async fn request(&mut self) -> Option<String> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            // A kept connection may be waited on for as long as the test runs.
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("a head is text");
        self.record.requests.lock().expect("no script panicked here").push(head.clone());
        Some(head)
    }

    /// Reads `count` bytes of a body.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(soon(self.stream.read_buf(&mut self.read)).await.expect("the connection stands") > 0, "cut short");
        }
        self.read.drain(..count).collect()
    }

    /// Sends bytes, whatever they mean. The other side may be gone already.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Sends a 200 with a length.
    pub async fn answer(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Waits until the other side closes.
    pub async fn closed(&mut self) {
        while self.stream.read_buf(&mut self.read).await.is_ok_and(|count| count > 0) {
            self.read.clear();
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("an open socket");
    }
}
