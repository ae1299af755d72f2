//! A Redis Cluster of six nodes, all of the test's own.

use cxgate::config;
use redis::Value;

use super::{
    redis_server::{RedisServer, free_port, words},
    until,
};

/// Slots of a Cluster.
const SLOTS: u16 = 16_384;

/// Three primaries and a replica of each; killed when dropped.
pub(crate) struct Cluster {
    /// First the primaries, then their replicas in the same order.
    pub(crate) nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts all, joins them and waits until each agrees that all is well.
    pub(crate) async fn start() -> Self {
        let cluster = Self { nodes: (0..6).map(|_| node()).collect() };
        for (primary, node) in (0..3).zip(&cluster.nodes) {
            let slots = |third| third * (SLOTS / 3 + 1);
            node.tell(&format!("CLUSTER ADDSLOTSRANGE {} {}", slots(primary), slots(primary + 1).min(SLOTS) - 1)).await;
            node.tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", primary + 1)).await;
        }
        for node in &cluster.nodes[1..] {
            cluster.nodes[0].tell(&format!("CLUSTER MEET 127.0.0.1 {} {}", node.port(), bus_port(node).await)).await;
        }
        for node in &cluster.nodes {
            until(async || info(node, "cluster_known_nodes").await == "6").await;
        }
        for (primary, replica) in (0..3).zip(&cluster.nodes[3..]) {
            let id = cluster.id(primary).await;
            // A node that has not yet heard of the primary refuses.
            until(async || {
                let made = redis::cmd("CLUSTER").arg("REPLICATE").arg(&id).query_async(&mut replica.client().await).await;
                made.is_ok_and(|(): ()| true)
            })
            .await;
        }
        for node in &cluster.nodes {
            until(async || info(node, "cluster_state").await == "ok").await;
        }
        for replica in &cluster.nodes[3..] {
            until(async || text(replica, "INFO replication").await.contains("master_link_status:up")).await;
        }
        cluster
    }

    /// What to connect to: the first node and the last, as users name some of them.
    pub(crate) fn config(&self) -> config::Redis {
        config::Redis::parse(&format!("{},{}", self.nodes[0].url(), self.nodes[5].url())).unwrap()
    }

    /// The id of a node.
    pub(crate) async fn id(&self, node: usize) -> String {
        text(&self.nodes[node], "CLUSTER MYID").await
    }

    /// Which primary has the keys of `tag` to begin with, and their slot.
    pub(crate) async fn holder(&self, tag: &str) -> (usize, u16) {
        // Any node knows the slot of a key; this one is never taken away.
        let mut client = self.nodes[5].client().await;
        let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(tag).query_async(&mut client).await.unwrap();
        (usize::from(slot / (SLOTS / 3 + 1)), slot)
    }

    /// Waits until a replica has become a primary and all is well again.
    pub(crate) async fn elected(&self, replica: usize) {
        until(async || {
            let node = &self.nodes[replica];
            text(node, "INFO replication").await.contains("role:master") && info(node, "cluster_state").await == "ok"
        })
        .await;
    }
}

fn node() -> RedisServer {
    RedisServer::start_with(|port, _| {
        words(&format!(
            "--port {port} --cluster-enabled yes --cluster-port {} --cluster-node-timeout 1000 --repl-diskless-sync-delay 0 \
             --cluster-replica-validity-factor 0",
            free_port()
        ))
    })
}

async fn bus_port(node: &RedisServer) -> String {
    let mut client = node.client().await;
    let answer: Vec<String> = redis::cmd("CONFIG").arg(&["GET", "cluster-port"]).query_async(&mut client).await.unwrap();
    answer[1].clone()
}

/// A field of what a node says of its Cluster.
async fn info(node: &RedisServer, field: &str) -> String {
    let info = text(node, "CLUSTER INFO").await;
    let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().to_owned()
}

/// The answer to a command, given as words.
async fn text(node: &RedisServer, command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    let answer: Value = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut node.client().await).await.unwrap();
    redis::from_redis_value(answer).unwrap()
}
