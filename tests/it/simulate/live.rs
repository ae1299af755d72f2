//! The same traffic twice: through a gate of this process, on a clock that the test turns, and through `cxgate simulate`,
//! which is given the gate's own access log.
//!
//! The log is stamped by the wall clock, which no test turns; so each of its lines gets the time at which its request came.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use cxgate::{
    body::RequestBody,
    config::{Config, Factor, Sources, load},
    gate::{
        Gate,
        access::Access,
        flood::Floods,
        queues::Queues,
        setup::{self, Neighbours},
    },
    limiter::{Limiter, scale::ScaleName},
    log::stamp,
    metrics::{Metrics, PacedLabels, RouteLabels},
    peer::Peer,
    shutdown::Shutdown,
    upstream::Upstream,
};
use fastrand::Rng;
use http_body_util::BodyExt;
use hyper::Request;
use serde_json::Value;
use tokio::{
    task::{JoinSet, spawn_blocking, yield_now},
    time::advance,
};

use super::{BEGIN, refusals, report};
use crate::support::stub_upstream::StubUpstream;

/// Buckets and windows, alone and shared, that load slows down and that it does not; a route that waits, new identities,
/// someone trusted.
const CONFIGURATION: &str = r#"
[log.access]
headers = ["x-tenant-id"]

[identity]
new_per_address = { capacity = 8, refill_per_second = 0.01 }

[[whitelist]]
client = "trusty"
networks = ["10.0.0.1"]

[load.backend]
endpoint = "http://127.0.0.1:9/load"

[limits.shared]
per = ["address"]
token_bucket = { capacity = 30, refill_per_second = 0.2 }
scale_by = ["backend"]

[[routes]]
name = "chat"
paths = ["/chat"]
upstream = "cxone"
limits = [
    { name = "per-client", per = ["client"], token_bucket = { capacity = 4, refill_per_second = 0.02 }, scale_by = ["backend"] },
    { use = "shared" },
]

[[routes]]
name = "invoke"
paths = ["/invoke/{action}"]
upstream = "cxone"
[[routes.limits]]
name = "per-action"
per = ["header:x-tenant-id", "path:action"]
sliding_window = { quota = 12, window = "2m" }
scale_by = ["backend"]
default = "nobody"
[[routes.limits]]
use = "shared"
cost = 3

[[routes]]
name = "reports"
paths = ["/reports"]
upstream = "cxone"
when_limited = { wait = "20s", queue = 6 }
limits = [
    { name = "steady", per = ["client"], token_bucket = { capacity = 2, refill_per_second = 0.1 } },
    { name = "hourly", per = ["client"], sliding_window = { quota = 40, window = "10m" } },
]

[upstreams.cxone]
"#;

/// Requests. The log queues 8192 lines at most, so none is lost.
const REQUESTS: usize = 4000;

/// A gate on a clock that stands still but for [`Live::pass`].
struct Live {
    gate: Gate,
    limiter: Arc<Limiter>,
    metrics: Metrics,
    shutdown: Shutdown,
    /// When each request came, in microseconds of Unix time.
    arrivals: Vec<u64>,
    now: u64,
    /// Requests that have no answer yet, or whose answer nobody looked at.
    asking: JoinSet<()>,
    /// While this lives, the runtime does not turn the clock itself.
    _still: mpsc::Sender<()>,
}

// === impl Live ===

impl Live {
    fn start(config: &Config) -> Self {
        let (still, ended) = mpsc::channel();
        spawn_blocking(move || ended.recv());
        let (metrics, shutdown) = (Metrics::default(), Shutdown::default());
        let limiter = Arc::new(Limiter::start(&config.store, &metrics, &shutdown).unwrap());
        let upstream = Upstream::new("cxone", &config.upstreams["cxone"], config.listen.body_idle_timeout, &metrics);
        let neighbours = Neighbours {
            limiter: Arc::clone(&limiter),
            upstreams: BTreeMap::from([("cxone".to_owned(), Arc::new(upstream.unwrap()))]),
            credentials: BTreeMap::new(),
            measured: BTreeMap::new(),
            floods: Arc::<Floods>::default(),
            clients: Arc::default(),
            queues: Arc::new(Queues::new(Arc::clone(&limiter), shutdown.clone())),
            shutdown: shutdown.clone(),
            access: Access::open(config, None, &metrics.log_dropped).unwrap(),
        };
        let gate = setup::gate(config, neighbours, &metrics);
        let (arrivals, asking) = (Vec::new(), JoinSet::new());
        Self { gate, limiter, metrics, shutdown, arrivals, now: BEGIN, asking, _still: still }
    }

    /// Lets time pass, in whole milliseconds as timers count it, and everything happen that was due.
    async fn pass(&mut self, mut millis: u64) {
        while millis > 0 {
            // Half a second after its last moment nobody waits any longer: no step leads past a turn and that at once.
            let step = if self.waiting() > 0 { millis.min(400) } else { millis };
            (self.now, millis) = (self.now + step * 1000, millis - step);
            advance(Duration::from_millis(step)).await;
            // From a timer to a place, from there to whoever waits for it: each takes a turn of the runtime.
            for _ in 0..16 {
                yield_now().await;
            }
            self.settle().await;
        }
    }

    /// One request; whoever is to have an answer now has it afterwards.
    async fn ask(&mut self, address: u8, path: &str, headers: &[(&str, &str)]) {
        let number = self.arrivals.len().to_string();
        let request = Request::get(path).header("host", "localhost").header("x-request-id", number);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(RequestBody::default()).unwrap();
        let peer = Peer { address: SocketAddr::from(([10, 0, 0, address], 1)), secure: false, certificate: None };
        let gate = self.gate.clone();
        self.arrivals.push(self.now);
        self.asking.spawn(async move {
            let answer = gate.handle(peer, request).await;
            assert!([200, 429].contains(&answer.status().as_u16()), "{}", answer.status());
            answer.into_body().collect().await.unwrap();
        });
        yield_now().await;
        self.settle().await;
    }

    /// Waits until nobody is under way but those who wait for their turn.
    async fn settle(&mut self) {
        while self.asking.len() > self.waiting() {
            match self.asking.try_join_next() {
                Some(answered) => answered.unwrap(),
                None => yield_now().await,
            }
        }
    }

    fn waiting(&self) -> usize {
        let labels = RouteLabels { route: "reports".to_owned() };
        usize::try_from(self.metrics.pacing_queue.get_or_create(&labels).get()).unwrap()
    }

    /// Ends, and tells what was logged, each line stamped with the time at which its request came.
    fn log(self, file: &Path) -> Vec<Value> {
        self.shutdown.stop();
        // Closes the log.
        drop(self.gate);
        let stamped = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let number: usize = line["request_id"].as_str().unwrap().parse().unwrap();
            line["timestamp"] = stamp::rfc3339(self.arrivals[number]).into();
            line
        };
        let lines: Vec<Value> = fs::read_to_string(file).unwrap().lines().map(stamped).collect();
        assert_eq!(lines.len(), self.arrivals.len());
        lines
    }
}

/// Minutes of quiet, bursts, and everything between.
fn pause(random: &mut Rng) -> u64 {
    match random.u32(0..1000) {
        0..2 => random.u64(60_000..300_000),
        2..100 => random.u64(1000..20_000),
        100..400 => random.u64(50..1000),
        _ => random.u64(1..50),
    }
}

async fn ask_anything(live: &mut Live, random: &mut Rng) {
    let (regulars, address) = ([8, 400][random.usize(0..2)], random.u8(1..5));
    let client = format!("Client-{}", random.u32(0..regulars));
    let tenant = ["acme", "Umbrella", ""][random.usize(0..3)];
    let path = match random.u32(0..10) {
        0..4 => "/chat/hello".to_owned(),
        4..7 => format!("/invoke/{}", random.u32(0..3)),
        _ => "/reports/daily".to_owned(),
    };
    let client = match random.u32(0..20) {
        0 => "trusty",
        1 => "",
        // Few wait, and so often.
        _ if path.starts_with("/reports") => ["batch", "nightly", "export"][random.usize(0..3)],
        _ => &client,
    };
    live.ask(address, &path, &[("x-client-id", client), ("x-tenant-id", tenant)]).await;
}

#[tokio::test(start_paused = true)]
async fn it_refuses_line_by_line_what_a_gate_refused_whose_clock_and_load_the_test_turned() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), StubUpstream::start().await);
    let (file, log) = (folder.path().join("live.toml"), folder.path().join("live.ndjson"));
    let configuration = format!("{CONFIGURATION}url = \"http://{}\"\n", upstream.address);
    fs::write(&file, configuration.replacen("[log.access]", &format!("[log.access]\nto = {log:?}"), 1)).unwrap();
    let config = load(&Sources { file: Some(file), ..Sources::default() }).unwrap().config;
    let scale = ScaleName::of(["backend"]).unwrap();
    let (mut live, mut random) = (Live::start(&config), Rng::with_seed(7));

    for number in 0..REQUESTS {
        live.pass(pause(&mut random)).await;
        if number % 100 == 50 {
            // A log tells of load where it tells of requests: one that load concerns comes at the same moment.
            let factor = [0.05, 0.25, 0.6, 1.0, 1.5][random.usize(0..5)];
            live.limiter.publish(&scale, Factor::new(factor).unwrap()).await;
            live.ask(200, "/chat/hello", &[("x-client-id", "witness")]).await;
        }
        ask_anything(&mut live, &mut random).await;
    }
    while live.waiting() > 0 {
        live.pass(1000).await;
    }
    let (minutes, dropped) = ((live.now - BEGIN) / 60_000_000, live.metrics.log_dropped.get());
    assert!(minutes > 60 && dropped == 0, "{minutes} minutes, {dropped} lines lost");
    let served = PacedLabels { route: "reports".to_owned(), outcome: "served" };
    let waited = live.metrics.paced.get_or_create(&served).get();

    let lines = live.log(&log);
    let mut refused = Vec::new();
    for (number, line) in (1..).zip(&lines) {
        refused.extend(line["limit"].as_str().map(|limit| (number, limit.to_owned())));
    }
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, limit) in &refused {
        *met.entry(limit).or_default() += 1;
    }
    assert!(met.len() == 6 && met.values().all(|times| *times > 20), "{met:?}");
    let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let report = report(folder.path(), &configuration, &text, &["--refusals", "refusals.ndjson"]);
    let simulated = refusals(folder.path());
    let differs = |refusal: &&(u64, String)| !simulated.contains(refusal) || !refused.contains(refusal);
    let differing: Vec<_> = simulated.iter().chain(&refused).filter(differs).collect();
    let first = differing.first().map(|(number, _)| &lines[usize::try_from(*number).unwrap() - 1]);
    assert!(
        differing.is_empty(),
        "{} refusals differ, the first in {first:#?}: {:#?}",
        differing.len(),
        differing.iter().take(12).collect::<Vec<_>>()
    );
    assert_eq!(simulated.len(), refused.len());
    // A gate has also wait, for no time at all, who comes in the millisecond in which another's turn is due.
    assert!(waited > 100 && report["waited"].as_u64().unwrap().abs_diff(waited) < 5, "{waited} waited: {report:#}");
    assert!(report["not_asked"]["whitelisted"].as_u64() > Some(50), "{report:#}");
}
