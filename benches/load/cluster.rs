//! How many decisions a second the store can make, and how a Redis Cluster moves that point.
//!
//! Promised: arithmetic, from processor time that was measured. A primary makes decisions on one processor, so that it can
//! make no more in a second than what one takes of it fits into a second; the busiest primary counts. Not promised: that so
//! many were made here, where everything shares two processors.

use std::net::SocketAddr;

use super::{
    Plan,
    generator::Load,
    machine::free_port,
    programs::{Program, Work},
    report::median,
    store::Store,
};

/// What there is of Redis.
struct Case {
    name: &'static str,
    primaries: usize,
    clustered: bool,
    /// Requests under way at once.
    at_once: usize,
}

const CASES: [Case; 6] = [
    Case { name: "one Redis", primaries: 1, clustered: false, at_once: 64 },
    Case { name: "Cluster of 1 primary", primaries: 1, clustered: true, at_once: 64 },
    Case { name: "Cluster of 3 primaries", primaries: 3, clustered: true, at_once: 64 },
    Case { name: "one Redis, 1,000 at once", primaries: 1, clustered: false, at_once: 1_000 },
    Case { name: "Cluster of 1, 1,000 at once", primaries: 1, clustered: true, at_once: 1_000 },
    Case { name: "Cluster of 3, 1,000 at once", primaries: 3, clustered: true, at_once: 1_000 },
];

const CLIENTS: u32 = 10_000;

/// Measures each in turns, and prints medians.
pub async fn print(plan: Plan, upstream: SocketAddr) {
    println!("\nWhere Redis saturates: {CLIENTS} clients, one limit, all pass");
    if let Some(missing) = Program::CxgateOnRedis.missing() {
        println!("not measured, {missing} is not installed");
        return;
    }
    let mut passes = vec![Vec::new(); CASES.len()];
    for _ in 0..plan.repetitions {
        for (case, passes) in CASES.iter().zip(&mut passes) {
            passes.push(case.measure(plan, upstream).await);
        }
    }
    println!("{:<30}{:>16}{:>16}{:>20}", "", "Redis µs", "calls", "decisions/s at most");
    for (case, passes) in CASES.iter().zip(passes) {
        let of = |column: usize| median(passes.iter().map(|pass| pass[column]).collect()).unwrap_or(f64::NAN);
        println!("{:<30}{:>16.2}{:>16.3}{:>20.0}", case.name, of(0), of(1), 1e6 / of(2));
    }
}

impl Case {
    /// A decision's microseconds of all primaries, its calls, and its microseconds of the busiest primary.
    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    async fn measure(&self, plan: Plan, upstream: SocketAddr) -> [f64; 3] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut stores = Vec::new();
        for _ in 0..self.primaries {
            stores.push(Store::start(folder.path(), self.clustered).await);
        }
        if self.clustered {
            Store::unite(&stores).await;
        }
        let work = Work { folder: folder.path(), upstream: upstream.port(), limit: Some((1_000_000, 1e6)), limits: 1 };
        let port = free_port();
        let _proxy = Program::CxgateOnRedis.start_before(work, port, &stores).await;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let Self { at_once, .. } = *self;
        let load = Load { address, connections: at_once, at_once, clients: CLIENTS, duration: plan.duration };
        Load { duration: plan.duration / 3, ..load }.closed().await;
        let used = || stores.iter().map(|store| store.usage().cpu).collect::<Vec<_>>();
        let called = || stores.iter().map(Store::calls).sum::<u64>();
        let (before, calls_before) = (used(), called());
        let decisions = load.closed().await.all().max(1) as f64;
        let each: Vec<f64> =
            used().iter().zip(before).map(|(after, before)| (after - before) as f64 / 1e3 / decisions).collect();
        let calls = (called() - calls_before) as f64 / decisions;
        [each.iter().sum(), calls, each.into_iter().fold(0.0, f64::max)]
    }
}
