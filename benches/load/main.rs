//! What a request costs, and how long it takes, beside peers on the same machine: `make bench-load`.
//!
//! Machines are shared, so that only ratios within one run say something: every figure is the median of some fresh starts, in
//! turns, and stands beside nginx doing the same work in the same run. The proxy has processor 0 to itself where there
//! are two; load, upstream and Redis share the other. Arguments, each with a number: `--seconds`, `--repetitions`,
//! `--connections`, `--rate` (of the open loop). With `--scale` it tells instead how cxgate does as there is more of
//! everything. With `--train` it measures nothing, and has cxgate do once what is measured else, for a compiler to learn
//! from. `BENCH_PROGRAM` names another build of cxgate to do so with.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]
#![expect(unreachable_pub, reason = "in a binary nothing is reachable; `pub` says what a module offers")]

use std::{env, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

mod bare;
mod cluster;
mod generator;
mod machine;
mod programs;
mod report;
mod scale;
mod store;

use generator::Load;
use programs::{Program, Running, SCENARIOS, Scenario, Work};
use report::{Figures, Sample, Samples};
use store::Store;

/// Says that this process has its processor already. Not named after cxgate, which knows all variables that are.
const PINNED: &str = "BENCH_PINNED";

/// How a run is made.
#[derive(Clone, Copy)]
struct Plan {
    duration: Duration,
    repetitions: u32,
    connections: usize,
    rate: u32,
    scale: bool,
    train: bool,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some((bare::ARGUMENT, ports)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return bare::run(ports);
    }
    if env::var_os(PINNED).is_none() {
        let program = env::current_exe().expect("this program");
        let mut command = machine::pinned(&program.to_string_lossy(), machine::AROUND);
        let status = command.args(arguments).env(PINNED, "1").status().expect("this program again");
        std::process::exit(status.code().unwrap_or(1));
    }
    let plan = Plan::asked_for(&arguments);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let upstream = upstream().await;
        if plan.train {
            train(plan, upstream).await;
        } else if plan.scale {
            cluster::print(plan, upstream).await;
            scale::print(plan, upstream).await;
        } else {
            let samples = compare(plan, upstream).await;
            samples.print_tables();
            samples.print_targets();
            scale::print_memory(plan, upstream).await;
        }
    });
}

async fn compare(plan: Plan, upstream: SocketAddr) -> Samples {
    let mut samples = Vec::new();
    for pass in 1..=plan.repetitions {
        for scenario in SCENARIOS {
            eprintln!("pass {pass} of {}, {}", plan.repetitions, scenario.name);
            let taking_part = |program: &Program| program.takes_part(scenario) && program.missing().is_none();
            for program in Program::ALL.into_iter().filter(taking_part) {
                samples.push(plan.measure(program, scenario, upstream).await);
            }
        }
    }
    Samples(samples)
}

async fn train(plan: Plan, upstream: SocketAddr) {
    for program in [Program::Cxgate, Program::CxgateOnRedis] {
        if let Some(missing) = program.missing() {
            eprintln!("{}: not trained, {missing} is not installed", program.name());
            continue;
        }
        for scenario in SCENARIOS.into_iter().filter(|scenario| program.takes_part(*scenario)) {
            eprintln!("{}, {}", program.name(), scenario.name);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let running = program.start(Work::of(folder.path(), upstream, scenario)).await;
            plan.load(&running, scenario).closed().await;
            running.proxy.stop();
        }
    }
}

// === impl Plan ===

impl Plan {
    fn asked_for(arguments: &[String]) -> Self {
        let number = |name: &str, default: u32| {
            let place = arguments.iter().position(|argument| argument == name);
            place.and_then(|place| arguments.get(place + 1)?.parse().ok()).unwrap_or(default)
        };
        Self {
            duration: Duration::from_secs(number("--seconds", 3).into()),
            repetitions: number("--repetitions", 3),
            connections: usize::try_from(number("--connections", 64)).unwrap_or(64),
            rate: number("--rate", 2_000),
            scale: arguments.iter().any(|argument| argument == "--scale"),
            train: arguments.iter().any(|argument| argument == "--train"),
        }
    }

    fn load(self, running: &Running, Scenario { clients, .. }: Scenario) -> Load {
        let address = SocketAddr::from(([127, 0, 0, 1], running.port));
        let Self { connections, duration, .. } = self;
        Load { address, connections, at_once: connections, clients, duration }
    }

    /// A fresh start of everything: once as fast as it goes, once at a steady rate.
    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    async fn measure(self, program: Program, scenario: Scenario, upstream: SocketAddr) -> Sample {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let running = program.start(Work::of(folder.path(), upstream, scenario)).await;
        let (load, duration) = (self.load(&running, scenario), self.duration);
        Load { duration: duration / 3, ..load }.closed().await;
        let calls = || running.store.as_ref().map_or(0, Store::calls);
        let ((proxy, redis), called) = (running.usage(), calls());
        let answers = load.closed().await;
        let ((proxy_after, redis_after), called_after) = (running.usage(), calls());
        let mut timed = load.open(self.rate).await;
        let requests = answers.all().max(1) as f64;
        let figures = Figures {
            proxy: (proxy_after.cpu - proxy.cpu) as f64 / 1e3 / requests,
            redis: (redis_after.cpu - redis.cpu) as f64 / 1e3 / requests,
            calls: (called_after - called) as f64 / requests,
            half: timed.quantile(0.5),
            most: timed.quantile(0.99),
            nearly_all: timed.quantile(0.999),
            resident: proxy_after.resident as f64 / f64::from(1 << 20),
            rate: requests / duration.as_secs_f64(),
            busy: (proxy_after.cpu - proxy.cpu) as f64 / 1e7 / duration.as_secs_f64(),
            refused: answers.refused as f64 * 100.0 / requests,
            strange: (answers.strange + timed.strange) as f64,
        };
        Sample { program, scenario: scenario.name, figures }
    }
}

// === the upstream ===

/// Answers each request with 256 bytes of JSON, as fast as it can.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nServer: stub\r\nContent-Type: application/json\r\nContent-Length: 256\r\n\r\n{{\"pad\":\"{}\"}}",
        "x".repeat(246)
    );
    let answer: &'static str = answer.leak();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever asks writes a head at once, and waits for its answer.
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while matches!(stream.read(&mut head).await, Ok(1..)) {
                    stream.write_all(answer.as_bytes()).await.ok()?;
                }
                Some(())
            });
        }
    });
    address
}
