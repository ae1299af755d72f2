//! A redis-server of the test's own, on a free port, that ends with the test.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use cxgate::config;
use redis::{AsyncConnectionConfig, Client, Value, aio::MultiplexedConnection};
use tempfile::TempDir;

/// A running (or stopped) redis-server. Dropping it kills it.
pub(crate) struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one on a free port and waits until it takes connections.
    pub(crate) fn start() -> Self {
        Self::start_with(|port, _| words(&format!("--port {port}")))
    }

    /// The same, with what `arguments` makes of the port and of a directory of its own.
    pub(crate) fn start_with(arguments: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..10 {
            // Another process may take the port before Redis does; then the next one.
            let port = free_port();
            let arguments = arguments(port, directory.path());
            if let Some(process) = spawn(&arguments, &directory) {
                return Self { port, arguments, directory, process: Some(process) };
            }
        }
        panic!("redis-server does not start");
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, database 0.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The same, as it is configured.
    pub(crate) fn config(&self) -> config::Redis {
        config::Redis::parse(&self.url()).unwrap()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A connection for the test's own commands.
    pub(crate) async fn client(&self) -> MultiplexedConnection {
        // The crate would wait half a second for an answer: too little where others keep the machine busy.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        Client::open(self.url()).unwrap().get_multiplexed_async_connection_with_config(&patient).await.unwrap()
    }

    /// Sends a command, given as words.
    pub(crate) async fn tell(&self, command: &str) {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query_async::<Value>(&mut self.client().await).await.unwrap();
    }

    /// Calls of scripts that it has answered.
    pub(crate) async fn scripts_called(&self) -> u64 {
        let info = redis::cmd("INFO").arg("commandstats").query_async(&mut self.client().await).await;
        let statistics: String = info.unwrap();
        let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    }

    /// Kills it (SIGKILL); nothing it held is saved.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, empty, on the same port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.process = Some(spawn(&self.arguments, &self.directory).expect("the port is still free"));
    }

    /// Stops it from running (SIGSTOP): connections stay, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it run again (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it is running");
        assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the process and waits until it is ready; `None` where it ended instead.
fn spawn(arguments: &[String], directory: &TempDir) -> Option<Child> {
    let spawned = Command::new("redis-server")
        .args(arguments)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--enable-debug-command", "yes", "--dir"])
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut process = match spawned {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("redis-server is missing: apt-get install -y redis-server")
        }
        spawned => spawned.unwrap(),
    };
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let (ready, is_ready) = mpsc::channel();
    // Reads on to the end, for Redis would block on a full pipe.
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            // What a Sentinel says instead comes last.
            if line.contains("Ready to accept connections") || line.contains("Sentinel ID is") {
                let _ = ready.send(());
            }
        }
    });
    if is_ready.recv().is_ok() {
        return Some(process);
    }
    process.wait().unwrap();
    None
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The words of a command line.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
