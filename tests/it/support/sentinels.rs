//! A master, a replica and three Sentinels that watch them, all of the test's own.

use cxgate::config;
use redis::Value;

use super::{
    redis_server::{RedisServer, words},
    until,
};

/// A master, its replica and their Sentinels; killed when dropped.
pub(crate) struct Trio {
    /// The first is the master to begin with.
    pub(crate) servers: [RedisServer; 2],
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Trio {
    /// Starts all and waits until they know each other.
    pub(crate) async fn start() -> Self {
        let master = RedisServer::start();
        let replica = RedisServer::start_with(|port, _| {
            words(&format!("--port {port} --replicaof 127.0.0.1 {} --repl-diskless-sync-delay 0", master.port()))
        });
        // A Sentinel asks a replica how it is only every ten seconds; the first answer must be a good one.
        until(async || ask(&replica, "ROLE").await.into_sequence().is_ok_and(|role| is(&role[3], "connected"))).await;
        let sentinels = (0..3).map(|_| sentinel(master.port())).collect();
        let trio = Self { servers: [master, replica], sentinels };
        for sentinel in &trio.sentinels {
            until(async || {
                let state = ask(sentinel, "SENTINEL MASTER main").await;
                field(&state, "num-other-sentinels") == "2" && field(&state, "num-slaves") == "1"
            })
            .await;
        }
        trio
    }

    /// What to connect to.
    pub(crate) fn config(&self) -> config::Redis {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        config::Redis::parse(&format!("redis+sentinel://{}/main", hosts.join(","))).unwrap()
    }

    /// Waits until each of `sentinels` names the second server as the master.
    pub(crate) async fn elected(&self, sentinels: &[RedisServer]) {
        let replica = self.servers[1].port().to_string();
        for sentinel in sentinels {
            until(async || {
                let answer = ask(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME main").await;
                let master: Vec<String> = redis::from_redis_value(answer).unwrap();
                master[1] == replica
            })
            .await;
        }
    }
}

fn sentinel(master: u16) -> RedisServer {
    RedisServer::start_with(|port, directory| {
        let file = directory.join("sentinel.conf");
        let config = format!(
            "port {port}\n\
             sentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n"
        );
        std::fs::write(&file, config).unwrap();
        vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()]
    })
}

/// The answer to a command, given as words.
async fn ask(server: &RedisServer, command: &str) -> Value {
    let words: Vec<_> = command.split(' ').collect();
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut server.client().await).await.unwrap()
}

/// A field of an answer that lists names and values.
fn field(state: &Value, name: &str) -> String {
    let fields: Vec<String> = redis::from_redis_value(state.clone()).unwrap();
    fields.chunks_exact(2).find(|field| field[0] == name).unwrap()[1].clone()
}

fn is(value: &Value, text: &str) -> bool {
    *value == Value::BulkString(text.into())
}
