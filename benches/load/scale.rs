//! Whether what a request costs stays the same as there is more of everything, and what a client costs in memory.

use std::net::SocketAddr;

use super::{
    Plan,
    generator::Load,
    machine,
    programs::{Program, Work},
    report::{median, print_target},
};

/// So much of everything.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    clients: u32,
    connections: usize,
    limits: usize,
}

const FEW: Case = Case { name: "1,000 clients", clients: 1_000, connections: 64, limits: 1 };

/// Each begins with what the others are compared with.
const CLIENTS: &[Case] = &[
    FEW,
    Case { name: "10,000 clients", clients: 10_000, ..FEW },
    Case { name: "100,000 clients", clients: 100_000, ..FEW },
    Case { name: "1,000,000 clients", clients: 1_000_000, ..FEW },
];
const CONNECTIONS: &[Case] = &[
    Case { name: "10 connections", connections: 10, ..FEW },
    Case { name: "1,000 connections", connections: 1_000, ..FEW },
    Case { name: "10,000 connections", connections: 10_000, ..FEW },
];
const LIMITS: &[Case] = &[Case { name: "1 limit", ..FEW }, Case { name: "5 limits", limits: 5, ..FEW }];

/// What is measured of whom: nginx tells what more connections cost the kernel.
const MEASURED: [(Program, &[&[Case]]); 3] = [
    (Program::Nginx, &[CONNECTIONS]),
    (Program::Cxgate, &[CLIENTS, CONNECTIONS, LIMITS]),
    (Program::CxgateOnRedis, &[CLIENTS, CONNECTIONS, LIMITS]),
];

/// What a bucket fills with; slowly, so that none is full again, and forgotten, while it is measured.
const LIMIT: (u32, f64) = (1_000_000, 0.001);

/// The most that more of anything may cost, of what little of it costs.
const MOST: f64 = 1.1;

/// Descriptors that a process has beside those of its connections: upstreams, listeners, standard streams.
const DESCRIPTORS: usize = 200;

/// What a fresh start showed.
#[derive(Clone, Copy)]
struct Shown {
    /// Microseconds of processor time a request, of the proxy and of Redis.
    proxy: f64,
    redis: f64,
    /// MiB.
    resident: f64,
}

/// Measures cxgate on both stores, and nginx, case by case in turns, and prints medians.
pub async fn print(plan: Plan, upstream: SocketAddr) {
    for (program, growths) in MEASURED {
        if let Some(missing) = program.missing() {
            println!("\n{}: not measured, {missing} is not installed", program.name());
            continue;
        }
        println!("\n{}, as there is more of everything", program.name());
        println!("{:<20}{:>10}{:>12}{:>14}{:>14}", "", "CPU µs", "Redis µs", "RSS MiB", "ratio");
        for growth in growths {
            print_growth(plan, program, growth, upstream).await;
        }
    }
}

async fn print_growth(plan: Plan, program: Program, cases: &[Case], upstream: SocketAddr) {
    let fits = |case: &&Case| case.connections + DESCRIPTORS <= machine::descriptors();
    let (cases, left_out): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(fits);
    let mut passes = Vec::new();
    for _ in 0..plan.repetitions {
        let mut pass = Vec::new();
        for case in &cases {
            pass.push(case.measure(plan, program, upstream).await);
        }
        passes.push(pass);
    }
    for (number, case) in cases.iter().enumerate() {
        let of = |read: &dyn Fn(&Vec<Shown>) -> f64| median(passes.iter().map(read).collect()).unwrap_or(f64::NAN);
        let ratio = of(&|pass| pass[number].proxy / pass[0].proxy);
        println!(
            "{:<20}{:>10.1}{:>12.1}{:>14.1}{ratio:>14.2}{}",
            case.name,
            of(&|pass| pass[number].proxy),
            of(&|pass| pass[number].redis),
            of(&|pass| pass[number].resident),
            if ratio > MOST { format!("   above {MOST}") } else { String::new() }
        );
    }
    for case in left_out {
        println!("{:<20}       - needs {} open files, see ulimit -n", case.name, case.connections + DESCRIPTORS);
    }
}

/// What a client costs in memory, in our store and in Redis: clients that each came once, and whose buckets are not full.
pub async fn print_memory(plan: Plan, upstream: SocketAddr) {
    println!("\nBytes a client, of 100,000 that have one bucket each");
    let case = Case { clients: 100_000, ..FEW };
    for program in [Program::Cxgate, Program::CxgateOnRedis] {
        let bytes = if program.missing().is_none() { Some(case.bytes(plan, program, upstream).await) } else { None };
        match (bytes, program) {
            (bytes, Program::CxgateOnRedis) => print_target("Redis, bytes a client", bytes, 150.0),
            (bytes, _) => println!("{:<48}{:>10.1}", "embedded store, bytes a client", bytes.unwrap_or(f64::NAN)),
        }
    }
}

impl Case {
    fn work<'a>(&self, folder: &'a std::path::Path, upstream: SocketAddr) -> Work<'a> {
        Work { folder, upstream: upstream.port(), limit: Some(LIMIT), limits: self.limits }
    }

    fn load(&self, plan: Plan, port: u16) -> Load {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let Self { connections, clients, .. } = *self;
        Load { address, connections, at_once: plan.connections, clients, duration: plan.duration }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    async fn measure(&self, plan: Plan, program: Program, upstream: SocketAddr) -> Shown {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let running = program.start(self.work(folder.path(), upstream)).await;
        let load = self.load(plan, running.port);
        load.each_once().await;
        Load { duration: plan.duration / 3, ..load }.closed().await;
        let (proxy, redis) = running.usage();
        let requests = load.closed().await.all().max(1) as f64;
        let (proxy_after, redis_after) = running.usage();
        Shown {
            proxy: (proxy_after.cpu - proxy.cpu) as f64 / 1e3 / requests,
            redis: (redis_after.cpu - redis.cpu) as f64 / 1e3 / requests,
            resident: proxy_after.resident as f64 / f64::from(1 << 20),
        }
    }

    /// Of our own store the memory of the process tells, which holds it in pages; Redis counts what it has taken.
    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    async fn bytes(&self, plan: Plan, program: Program, upstream: SocketAddr) -> f64 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let running = program.start(self.work(folder.path(), upstream)).await;
        let held = || running.store.as_ref().map_or_else(|| running.proxy.usage().resident, super::store::Store::memory);
        let load = self.load(plan, running.port);
        Load { clients: 1_000, ..load }.each_once().await;
        let before = held();
        load.each_once().await;
        held().saturating_sub(before) as f64 / f64::from(self.clients - 1_000)
    }
}
