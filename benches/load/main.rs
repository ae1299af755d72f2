//! What a request costs, and how long it takes, beside peers on the same machine: `make bench-load`.
//!
//! Machines are shared, so that only ratios within one run say something: every figure is the median of some fresh starts, in
//! turns, and stands beside nginx doing the same work in the same run. The proxy has processor 0 to itself where there
//! are two; load, upstream and Redis share the other. Arguments, each with a number: `--seconds`, `--repetitions`,
//! `--connections`, `--rate` (of the open loop).

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(unreachable_pub, reason = "in a binary nothing is reachable; `pub` says what a module offers")]

use std::{env, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

mod generator;
mod machine;
mod programs;
mod scale;

use generator::Load;
use machine::Usage;
use programs::{Program, SCENARIOS, Scenario};

/// Says that this process has its processor already.
const PINNED: &str = "CXGATE_BENCH_PINNED";

/// How a run is made.
#[derive(Clone, Copy)]
struct Plan {
    duration: Duration,
    repetitions: u32,
    connections: usize,
    rate: u32,
}

/// What one fresh start showed.
#[derive(Clone, Copy)]
struct Sample {
    program: Program,
    scenario: &'static str,
    figures: [f64; COLUMNS.len()],
}

const COLUMNS: [&str; 8] = ["CPU µs", "Redis µs", "p50 µs", "p99 µs", "p99.9 µs", "resident MiB", "refused %", "strange"];

fn main() {
    if env::var_os(PINNED).is_none() {
        let program = env::current_exe().expect("this program");
        let mut command = machine::pinned(&program.to_string_lossy(), machine::AROUND);
        let status = command.args(env::args_os().skip(1)).env(PINNED, "1").status().expect("this program again");
        std::process::exit(status.code().unwrap_or(1));
    }
    let plan = Plan::asked_for();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let upstream = upstream().await;
        compare(plan, upstream).await;
        scale::print(plan, upstream).await;
    });
}

async fn compare(plan: Plan, upstream: SocketAddr) {
    let mut samples = Vec::new();
    for _ in 0..plan.repetitions {
        for scenario in SCENARIOS {
            for program in Program::ALL.into_iter().filter(|program| program.takes_part(scenario)) {
                samples.push(plan.measure(program, scenario, upstream).await);
            }
        }
    }
    for scenario in SCENARIOS {
        let clients = scenario.clients;
        println!(
            "\n{}: {clients} clients, {}",
            scenario.name,
            scenario.limit.map_or("no limit".into(), |(capacity, rate)| {
                format!("each with {capacity} tokens and {rate} more a second")
            })
        );
        println!("{:<16}{:>9}{}", "", "ratio", COLUMNS.map(|column| format!("{column:>14}")).concat());
        let median = |program| median_of(&samples, program, scenario.name);
        let nginx = median(Program::Nginx).map_or(f64::NAN, |figures| figures[0]);
        for program in Program::ALL {
            let Some(figures) = median(program) else { continue };
            let cells = figures.map(|figure| format!("{figure:>14.1}")).concat();
            println!("{:<16}{:>9.2}{cells}", program.name(), figures[0] / nginx);
        }
    }
}

fn median_of(samples: &[Sample], program: Program, scenario: &str) -> Option<[f64; COLUMNS.len()]> {
    let matching = || samples.iter().filter(|sample| sample.program == program && sample.scenario == scenario);
    matching().next()?;
    Some(std::array::from_fn(|column| median(matching().map(|sample| sample.figures[column]).collect())))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// === impl Plan ===

impl Plan {
    fn asked_for() -> Self {
        let arguments: Vec<String> = env::args().collect();
        let number = |name: &str, default: u32| {
            let place = arguments.iter().position(|argument| argument == name);
            place.and_then(|place| arguments.get(place + 1)?.parse().ok()).unwrap_or(default)
        };
        Self {
            duration: Duration::from_secs(number("--seconds", 3).into()),
            repetitions: number("--repetitions", 3),
            connections: usize::try_from(number("--connections", 64)).unwrap_or(64),
            rate: number("--rate", 2_000),
        }
    }

    /// A fresh start of everything: once as fast as it goes, once at a steady rate.
    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    async fn measure(self, program: Program, scenario: Scenario, upstream: SocketAddr) -> Sample {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let running = program.start(folder.path(), upstream.port(), scenario.limit, 1).await;
        let address = SocketAddr::from(([127, 0, 0, 1], running.port));
        let Self { connections, duration, .. } = self;
        let load = Load { address, connections, clients: scenario.clients, duration };
        Load { duration: duration / 3, ..load }.closed().await;
        let usage = || (running.proxy.usage(), running.redis.as_ref().map_or(Usage::default(), machine::Process::usage));
        let (proxy, redis) = usage();
        let answers = load.closed().await;
        let (proxy_after, redis_after) = usage();
        let mut timed = load.open(self.rate).await;
        let requests = answers.all().max(1) as f64;
        let each = |before: Usage, after: Usage| (after.cpu - before.cpu) as f64 / 1e3 / requests;
        let figures = [
            each(proxy, proxy_after),
            each(redis, redis_after),
            timed.quantile(0.5),
            timed.quantile(0.99),
            timed.quantile(0.999),
            proxy_after.resident as f64 / f64::from(1 << 20),
            answers.refused as f64 * 100.0 / requests,
            answers.strange as f64,
        ];
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
