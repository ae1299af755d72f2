//! Load over kept connections, closed loop for what a request costs and open loop for how long it takes.
//!
//! Promised of the open loop: requests are due at fixed times, whatever became of those before, and their time counts from
//! when they were due, so that a stall is seen by every request it delays.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

/// Requests that may wait for one connection; beyond it they are lost, which is said.
const QUEUE: usize = 4096;

/// Who asks whom, and how.
#[derive(Clone, Copy)]
pub struct Load {
    pub address: SocketAddr,
    /// Kept connections.
    pub connections: usize,
    /// Requests under way at once, in the closed loop: so many askers go round the connections.
    pub at_once: usize,
    /// Distinct clients, picked at random.
    pub clients: u32,
    pub duration: Duration,
}

/// What came of it.
#[derive(Default)]
pub struct Answers {
    /// Answers of status 200, and of 429.
    pub admitted: u64,
    pub refused: u64,
    /// All others.
    pub strange: u64,
    /// How long they took, in microseconds, of the open loop.
    pub times: Vec<u32>,
}

struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Load {
    /// Each asker asks again as soon as it has an answer.
    pub async fn closed(self) -> Answers {
        let end = Instant::now() + self.duration;
        self.ask_while(move || (Instant::now() < end).then(|| fastrand::u32(..self.clients))).await
    }

    /// Each client asks once, one after the other.
    pub async fn each_once(self) -> Answers {
        let next = AtomicU32::new(0);
        self.ask_while(move || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|client| *client < self.clients)).await
    }

    /// Asks for whoever is named, until nobody is.
    async fn ask_while(self, client: impl Fn() -> Option<u32> + Send + Sync + 'static) -> Answers {
        let (mut tasks, client) = (JoinSet::new(), Arc::new(client));
        for asker in 0..self.connections.min(self.at_once) {
            let mut connections = Vec::new();
            for _ in (asker..self.connections).step_by(self.at_once) {
                connections.push(Connection::open(self.address).await);
            }
            let client = Arc::clone(&client);
            tasks.spawn(async move {
                let mut answers = Answers::default();
                loop {
                    for connection in &mut connections {
                        let Some(client) = client() else { return answers };
                        answers.count(connection.ask(client).await);
                    }
                }
            });
        }
        tasks.join_all().await.into_iter().fold(Answers::default(), Answers::with)
    }

    /// So many requests a second, spread evenly over time and over the connections.
    pub async fn open(self, rate: u32) -> Answers {
        let (mut tasks, mut queues) = (JoinSet::new(), Vec::new());
        for _ in 0..self.connections {
            let mut connection = Connection::open(self.address).await;
            let (queue, mut due) = mpsc::channel::<Instant>(QUEUE);
            queues.push(queue);
            tasks.spawn(async move {
                let mut answers = Answers::default();
                while let Some(due) = due.recv().await {
                    answers.count(connection.ask(fastrand::u32(..self.clients)).await);
                    answers.times.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                answers
            });
        }
        // A thread of its own, because the runtime's timers are no finer than a millisecond.
        let clock = thread::spawn(move || {
            let (start, step) = (Instant::now(), Duration::from_secs(1) / rate);
            for (number, queue) in (0..).zip(queues.iter().cycle()) {
                let due = start + step * number;
                if due > start + self.duration {
                    return;
                }
                while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                    thread::park_timeout(left);
                }
                if queue.try_send(due).is_err() {
                    return;
                }
            }
        });
        let answers = tasks.join_all().await.into_iter().fold(Answers::default(), Answers::with);
        clock.join().expect("a clock does not panic");
        answers
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        Self { address, stream, request: Vec::new(), answer: Vec::with_capacity(4096) }
    }

    /// One request and its answer, whose status it returns; 0 for none. Whoever closes after an answer is asked anew.
    async fn ask(&mut self, client: u32) -> u16 {
        self.request.clear();
        self.request.extend_from_slice(b"GET /api/v2/engage/webchat HTTP/1.1\r\nHost: chat.example\r\nX-Client-Id: client-");
        self.request.extend_from_slice(client.to_string().as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        if let Some(status) = self.exchange().await {
            return status;
        }
        self.stream = Self::open(self.address).await.stream;
        self.exchange().await.unwrap_or(0)
    }

    async fn exchange(&mut self) -> Option<u16> {
        let Self { stream, request, answer, .. } = self;
        answer.clear();
        stream.write_all(request).await.ok()?;
        loop {
            if let Some((status, length)) = complete(answer) {
                assert_eq!(answer.len(), length, "an answer nobody asked for");
                return Some(status);
            }
            stream.read_buf(answer).await.ok().filter(|read| *read > 0)?;
        }
    }
}

/// The status and the length of an answer, once all of it is there.
fn complete(answer: &[u8]) -> Option<(u16, usize)> {
    let head = memmem::find(answer, b"\r\n\r\n")? + 4;
    let mut lines = answer[..head].split(|byte| *byte == b'\n');
    let status = std::str::from_utf8(lines.next()?.get(9..12)?).ok()?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:")
            .then(|| std::str::from_utf8(value).ok()?.trim().parse::<usize>().ok())?
    });
    let whole = head + length?;
    (answer.len() >= whole).then_some((status, whole))
}

impl Answers {
    /// How many there were.
    pub fn all(&self) -> u64 {
        self.admitted + self.refused + self.strange
    }

    fn count(&mut self, status: u16) {
        match status {
            200 => self.admitted += 1,
            429 => self.refused += 1,
            _ => self.strange += 1,
        }
    }

    fn with(mut self, other: Self) -> Self {
        self.times.extend(other.times);
        let (admitted, refused) = (self.admitted + other.admitted, self.refused + other.refused);
        Self { admitted, refused, strange: self.strange + other.strange, times: self.times }
    }

    /// The time that a share of the answers did not exceed, in microseconds.
    pub fn quantile(&mut self, share: f64) -> f64 {
        self.times.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
        let index = (self.times.len().saturating_sub(1) as f64 * share) as usize;
        self.times.get(index).copied().map_or(f64::NAN, f64::from)
    }
}
