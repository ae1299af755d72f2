//! The pool against a model of it: whatever happens to connections, it does what a list would.
//!
//! The connections are real ones, the clock is not: it stands still but where a step turns it.

use std::{future::poll_fn, sync::mpsc};

use http_body_util::BodyExt;
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{
        TcpListener,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::yield_now,
    time::{advance, timeout},
};

use super::*;
use crate::{config::Origin, upstream::response::ResponseBody};

const PLACES: usize = 3;
const WORKERS: usize = 2;
const IDLE: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_millis(1);

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// What happens next; numbers choose among those that it can happen to.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A request begins at a worker.
    Lease(usize),
    /// A request begins at a worker whose kept connection was found dead.
    Fresh(usize),
    /// An answer comes, and is read to its end.
    Answered(usize, Answer),
    /// The head of an answer comes, and its connection is given back without the body.
    Unread(usize),
    /// Half an answer comes, and then the end.
    BrokenOff(usize),
    /// Nobody waits for the answer any more.
    Abandoned(usize),
    /// The connection becomes a tunnel.
    Switched(usize),
    TunnelEnds(usize),
    /// A resting connection gets words that nobody asked for, or is closed by the upstream.
    Spoilt(usize, bool),
    /// So many seconds pass.
    Wait(u64),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Whole,
    /// It says that the connection ends.
    Last,
    /// More than the answer comes.
    TooMuch,
}

/// The upstream's side of all connections, by the number that each was accepted as.
struct Server {
    heard: UnboundedReceiver<(usize, String)>,
    accepted: UnboundedReceiver<OwnedWriteHalf>,
    connections: Vec<OwnedWriteHalf>,
}

/// The pool, and what is known of it.
struct Modelled {
    pool: Arc<Pool>,
    server: Server,
    requests: usize,
    leased: Vec<Leased>,
    tunnels: Vec<Tunnel>,
    /// By worker; the last one that came to rest is the last.
    resting: [Vec<Rested>; WORKERS],
}

struct Leased {
    number: usize,
    worker: usize,
    lease: Lease,
}

#[derive(Debug, Clone, Copy)]
struct Rested {
    number: usize,
    until: Instant,
    spoilt: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![6 => Just(Answer::Whole), 1 => Just(Answer::Last), 1 => Just(Answer::TooMuch)];
    prop_oneof![
        8 => (0..WORKERS).prop_map(Step::Lease),
        1 => (0..WORKERS).prop_map(Step::Fresh),
        8 => (any::<usize>(), answer).prop_map(|(which, answer)| Step::Answered(which, answer)),
        1 => any::<usize>().prop_map(Step::Unread),
        1 => any::<usize>().prop_map(Step::BrokenOff),
        1 => any::<usize>().prop_map(Step::Abandoned),
        1 => any::<usize>().prop_map(Step::Switched),
        1 => any::<usize>().prop_map(Step::TunnelEnds),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(which, speaks)| Step::Spoilt(which, speaks)),
        2 => (1..=IDLE.as_secs()).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_pool_does_what_a_list_of_connections_would(steps in vec(step(), 0..60)) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        // While this waits, the clock does not turn by itself. Should a step hang, it turns in the end, and the step fails.
        let (_still, ended) = mpsc::channel::<()>();
        runtime.spawn_blocking(move || ended.recv_timeout(Duration::from_mins(1)));
        runtime.block_on(async {
            let mut modelled = Modelled::start().await;
            for step in steps {
                modelled.take(step).await;
                modelled.check().await;
            }
            modelled.end().await;
        });
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_hours(1), future).await.expect("it happens")
}

/// One of them, if there are any.
fn chosen(which: usize, among: usize) -> Option<usize> {
    which.checked_rem(among)
}

// === impl Server ===

impl Server {
    fn listen(listener: TcpListener) -> Self {
        let ((hears, heard), (accepts, accepted)) = (unbounded_channel(), unbounded_channel());
        tokio::spawn(async move {
            for number in 0.. {
                let (from, to) = listener.accept().await.unwrap().0.into_split();
                tokio::spawn(hear(number, from, hears.clone()));
                accepts.send(to).unwrap();
            }
        });
        Self { heard, accepted, connections: Vec::new() }
    }

    /// The connection over which the next request comes, and its head.
    async fn next(&mut self) -> (usize, String) {
        let next = soon(self.heard.recv()).await.unwrap();
        while let Ok(connection) = self.accepted.try_recv() {
            self.connections.push(connection);
        }
        next
    }

    async fn say(&mut self, number: usize, words: &str) {
        self.connections[number].write_all(words.as_bytes()).await.unwrap();
    }
}

/// One read brings a whole head, because it is written at once.
async fn hear(number: usize, mut from: OwnedReadHalf, hears: UnboundedSender<(usize, String)>) {
    let mut bytes = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let head = String::from_utf8(bytes[..length].to_vec()).unwrap();
        if hears.send((number, head)).is_err() {
            return;
        }
    }
}

// === impl Modelled ===

impl Modelled {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = config::Upstream {
            url: Origin { tls: false, host: "127.0.0.1".to_owned(), port },
            connect_timeout: CONNECT,
            response_timeout: IDLE,
            idle_timeout: IDLE,
            max_connections: PLACES,
            http2: config::Http2::Off,
            ca: None,
            client_certificate: None,
        };
        let pool = Arc::new(Pool::new(Connector::new(&config).unwrap(), &config, Gauge::default()));
        let server = Server::listen(listener);
        Self { pool, server, requests: 0, leased: Vec::new(), tunnels: Vec::new(), resting: Default::default() }
    }

    fn used(&self) -> usize {
        self.leased.len() + self.tunnels.len()
    }

    fn rested(&self) -> usize {
        self.resting.iter().map(Vec::len).sum()
    }

    /// Whether one more in use leaves too little room for those that rest.
    fn is_full(&self) -> bool {
        self.used() + 1 + self.rested() > PLACES
    }

    async fn check(&self) {
        // The task that looks at those that rest has its turn.
        for _ in 0..5 {
            yield_now().await;
        }
        assert_eq!(self.pool.permits.available_permits(), PLACES - self.used(), "a place for each that is in use");
        assert_eq!(self.pool.open.get(), i64::try_from(self.used() + self.rested()).unwrap(), "open connections");
        assert!(self.used() + self.rested() <= PLACES);
    }

    async fn take(&mut self, step: Step) {
        let leased = self.leased.len();
        match step {
            Step::Lease(worker) => self.request(worker, false).await,
            Step::Fresh(worker) => self.request(worker, true).await,
            Step::Answered(which, answer) => {
                if let Some(which) = chosen(which, leased) {
                    self.answer(which, answer).await;
                }
            }
            Step::Unread(which) => {
                if let Some(Leased { lease, .. }) = self.answered(which, WHOLE.trim_end_matches("ok")).await {
                    lease.give_back();
                }
            }
            Step::BrokenOff(which) => {
                if let Some(Leased { number, lease, .. }) = self.answered(which, WHOLE.trim_end_matches('k')).await {
                    self.server.connections[number].shutdown().await.unwrap();
                    assert!(soon(ResponseBody::new(lease, IDLE).collect()).await.is_err());
                }
            }
            Step::Abandoned(which) => drop(chosen(which, leased).map(|which| self.leased.remove(which))),
            Step::Switched(which) => {
                let lease = self.answered(which, SWITCHING).await;
                self.tunnels.extend(lease.map(|leased| leased.lease.into_tunnel().unwrap()));
            }
            Step::TunnelEnds(which) => drop(chosen(which, self.tunnels.len()).map(|which| self.tunnels.remove(which))),
            Step::Spoilt(which, speaks) => self.spoil(which, speaks).await,
            Step::Wait(seconds) => self.wait(Duration::from_secs(seconds)).await,
        }
    }

    /// A request takes the connection that came to rest last with its worker, if it may be used; and where there is none, a new
    /// one, or where that would be one too many, that of another worker.
    async fn request(&mut self, worker: usize, fresh: bool) {
        workers::pretend(worker);
        if self.used() == PLACES {
            let (lease, ()) = tokio::join!(self.pool.lease(false), advance(CONNECT));
            return assert!(matches!(lease, Err(UpstreamError::Busy)));
        }
        let expected = if fresh { self.close_for_one() } else { self.kept_for(worker) };
        let mut lease = if fresh { soon(self.pool.fresh(false)).await } else { soon(self.pool.lease(false)).await }.unwrap();
        self.requests += 1;
        let target = format!("/{}", self.requests);
        let mut request = Request::get(&target).body(RequestBody::default()).unwrap();
        assert!(lease.begin(&mut request, &FieldLines::default(), &HeaderValue::from_static("test"), None).is_ok());
        assert!(poll_fn(|context| Poll::Ready(lease.poll_response(context).is_pending())).await, "an early answer");
        let known = self.server.connections.len();
        let (number, head) = self.server.next().await;
        assert!(head.starts_with(&format!("GET {target} ")), "{head}");
        assert_eq!(number, expected.unwrap_or(known));
        assert_eq!(lease.is_reused(), expected.is_some());
        self.leased.push(Leased { number, worker, lease });
    }

    /// The connection that a request at a worker takes, after those that it finds spoilt.
    fn kept_for(&mut self, worker: usize) -> Option<usize> {
        loop {
            let full = self.is_full();
            let others = self.resting.iter().position(|resting| full && !resting.is_empty());
            let shelf = if self.resting[worker].is_empty() { others? } else { worker };
            let rested = self.resting[shelf].pop()?;
            if !rested.spoilt {
                return Some(rested.number);
            }
        }
    }

    /// Those that rest make room for a new connection.
    fn close_for_one(&mut self) -> Option<usize> {
        while self.is_full() {
            self.resting.iter_mut().find(|resting| !resting.is_empty())?.remove(0);
        }
        None
    }

    /// One of those in use, whose answer has begun with these words.
    async fn answered(&mut self, which: usize, words: &str) -> Option<Leased> {
        let mut leased = self.leased.remove(chosen(which, self.leased.len())?);
        workers::pretend(leased.worker);
        self.server.say(leased.number, words).await;
        assert!(soon(poll_fn(|context| leased.lease.poll_response(context))).await.is_ok());
        Some(leased)
    }

    async fn answer(&mut self, which: usize, answer: Answer) {
        let words = match answer {
            Answer::Whole => WHOLE.to_owned(),
            Answer::Last => WHOLE.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"),
            Answer::TooMuch => WHOLE.repeat(2),
        };
        let Some(Leased { number, worker, lease }) = self.answered(which, &words).await else { return };
        let body = soon(ResponseBody::new(lease, IDLE).collect()).await.ok().unwrap();
        assert_eq!(body.to_bytes(), "ok");
        if matches!(answer, Answer::Whole) {
            self.resting[worker].push(Rested { number, until: Instant::now() + IDLE, spoilt: false });
        }
    }

    async fn spoil(&mut self, which: usize, speaks: bool) {
        let shelf = usize::from(self.resting[0].is_empty());
        let Some(which) = chosen(which, self.resting[shelf].len()) else { return };
        let Rested { number, spoilt: false, .. } = self.resting[shelf][which] else { return };
        if speaks {
            self.server.say(number, "HTTP/1.1 200 OK\r\n\r\n").await;
        } else {
            self.server.connections[number].shutdown().await.unwrap();
        }
        self.resting[shelf][which].spoilt = true;
        // Until it has arrived.
        let peek = |context: &mut Context<'_>| {
            let connection = &self.pool.shelves[shelf].lock().connections[which].1;
            connection.http.stream.tcp().poll_peek(context, &mut ReadBuf::new(&mut [0]))
        };
        soon(poll_fn(peek)).await.unwrap();
    }

    /// As time passes, what is too old or spoilt is closed.
    async fn wait(&mut self, time: Duration) {
        advance(time).await;
        let now = Instant::now();
        for resting in &mut self.resting {
            resting.retain(|rested| rested.until > now && !rested.spoilt);
        }
    }

    /// When all have ended, all places are free; and when nothing has come for long, no connection is left.
    async fn end(mut self) {
        self.leased.clear();
        self.tunnels.clear();
        self.check().await;
        self.wait(IDLE).await;
        self.check().await;
    }
}
