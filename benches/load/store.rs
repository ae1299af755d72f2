//! A Redis that runs, and what it says of itself.

use std::{path::Path, time::Duration};

use super::machine::{AROUND, Process, Usage, free_port};

/// A server of its own, without anything on disk.
pub struct Store {
    process: Process,
    port: u16,
    bus: u16,
    clustered: bool,
}

impl Store {
    /// Starts one with its files in `folder`, as the node of a Cluster where `clustered`.
    pub async fn start(folder: &Path, clustered: bool) -> Self {
        // What nodes tell each other goes to a port of its own; by default one so high that it need not be there.
        let (port, bus) = (free_port(), free_port());
        let (port_text, bus_text, file) = (port.to_string(), bus.to_string(), format!("nodes-{port}.conf"));
        let folder = folder.to_string_lossy();
        let mut command = vec!["redis-server", "--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--dir", &folder];
        if clustered {
            command.extend(["--cluster-enabled", "yes", "--cluster-port", &bus_text, "--cluster-config-file", &file]);
        }
        Self { process: Process::start(&command, AROUND, port).await, port, bus, clustered }
    }

    /// Makes one Cluster of several nodes, that share its slots evenly.
    pub async fn unite(nodes: &[Self]) {
        const SLOTS: usize = 16_384;
        for (number, node) in nodes.iter().enumerate() {
            let (first, last) = (SLOTS * number / nodes.len(), SLOTS * (number + 1) / nodes.len() - 1);
            node.tell::<()>(redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(first).arg(last));
            nodes[0].tell::<()>(redis::cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(node.port).arg(node.bus));
        }
        let agreed = |node: &Self| {
            let state: String = node.tell(redis::cmd("CLUSTER").arg("INFO"));
            state.contains("cluster_state:ok") && state.contains(&format!("cluster_known_nodes:{}", nodes.len()))
        };
        while !nodes.iter().all(agreed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn is_clustered(&self) -> bool {
        self.clustered
    }

    pub fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// How many calls of scripts it has answered.
    pub fn calls(&self) -> u64 {
        let commands: String = self.tell(redis::cmd("INFO").arg("commandstats"));
        commands.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).map_or(0, leading)
    }

    /// Bytes that it holds keys in: all it has, less what its connections take.
    pub fn memory(&self) -> u64 {
        let memory: String = self.tell(redis::cmd("INFO").arg("memory"));
        let field = |name| memory.lines().find_map(|line| line.strip_prefix(name)).map_or(0, leading);
        field("used_memory:").saturating_sub(field("mem_clients_normal:"))
    }

    fn tell<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).expect("an address");
        let mut connection = client.get_connection().expect("a connection to Redis");
        command.query(&mut connection).expect("an answer of Redis")
    }
}

/// The number that a text begins with.
fn leading(text: &str) -> u64 {
    text.split(|character: char| !character.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
