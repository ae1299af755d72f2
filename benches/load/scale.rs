//! Whether what a request costs stays the same as there is more of everything, and what a client costs in memory.

use std::{net::SocketAddr, time::Duration};

use super::{Plan, generator::Load, median, programs::Program};

/// More of one thing each.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    clients: u32,
    connections: usize,
    limits: usize,
}

const CASES: [Case; 6] = [
    Case { name: "1,000 clients", clients: 1_000, connections: 64, limits: 1 },
    Case { name: "1,000,000 clients", clients: 1_000_000, connections: 64, limits: 1 },
    Case { name: "5 limits", clients: 1_000, connections: 64, limits: 5 },
    Case { name: "10 connections", clients: 1_000, connections: 10, limits: 1 },
    Case { name: "1,000 connections", clients: 1_000, connections: 1_000, limits: 1 },
    Case { name: "5,000 connections", clients: 1_000, connections: 5_000, limits: 1 },
];

/// What a bucket fills with; slowly, so that none is full again, and forgotten, while it is measured.
const LIMIT: (u32, u32) = (1_000_000, 1);

/// Measures cxgate on the embedded store, case by case in turns, and prints medians.
pub async fn print(plan: Plan, upstream: SocketAddr) {
    let mut samples = vec![Vec::new(); CASES.len()];
    for _ in 0..plan.repetitions {
        for (case, samples) in CASES.iter().zip(&mut samples) {
            samples.push(case.measure(plan.duration, upstream).await);
        }
    }
    println!("\ncxgate on the embedded store, as there is more of everything");
    println!("{:<20}{:>9}{:>9}{:>14}", "", "ratio", "CPU µs", "resident MiB");
    let mut first = None;
    for (case, samples) in CASES.iter().zip(&samples) {
        let cpu = median(samples.iter().map(|(cpu, _)| *cpu).collect());
        let resident = median(samples.iter().map(|(_, resident)| *resident).collect());
        println!("{:<20}{:>9.2}{cpu:>9.1}{resident:>14.1}", case.name, cpu / *first.get_or_insert(cpu));
    }
}

impl Case {
    /// Processor time of a request in microseconds, and resident MiB.
    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    async fn measure(self, duration: Duration, upstream: SocketAddr) -> (f64, f64) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let running = Program::Cxgate.start(folder.path(), upstream.port(), Some(LIMIT), self.limits).await;
        let address = SocketAddr::from(([127, 0, 0, 1], running.port));
        let load = Load { address, connections: self.connections, clients: self.clients, duration };
        load.closed().await;
        let before = running.proxy.usage();
        let answers = load.closed().await;
        let after = running.proxy.usage();
        let cpu = (after.cpu - before.cpu) as f64 / 1e3 / answers.all().max(1) as f64;
        (cpu, after.resident as f64 / f64::from(1 << 20))
    }
}
