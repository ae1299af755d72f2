//! The real program in a process of its own: its configuration a file, its log read line by line.

use std::{net::SocketAddr, path::Path, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::PATIENCE;

/// A running daemon, killed when dropped.
pub struct Daemon {
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    folder: TempDir,
}

impl Daemon {
    /// Runs `cxgate run` with `configuration` behind two free ports, and waits until it says that it runs.
    pub async fn start(configuration: &str) -> Self {
        Self::start_listening(configuration).await
    }

    /// The same, by a clock that is an hour ahead of everyone else's.
    pub async fn start_an_hour_ahead(configuration: &str) -> Self {
        // Says where the library lies; with the program itself in between, a signal would not reach the daemon.
        let library = std::process::Command::new("faketime").args(["-m", "-f", "+1h", "printenv", "LD_PRELOAD"]).output();
        let library = library.expect("faketime is missing: apt-get install -y faketime");
        let library = String::from_utf8(library.stdout).unwrap().trim().to_owned();
        let clock = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+1h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        Self::start_with(configuration, &clock).await
    }

    /// The same; `configuration` begins with further keys of `[listen]`.
    pub async fn start_listening(configuration: &str) -> Self {
        Self::start_with(configuration, &[]).await
    }

    /// The same as [`start`](Self::start), with variables of its own.
    pub async fn start_with_environment(configuration: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_with(configuration, environment).await
    }

    async fn start_with(configuration: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cxgate.toml");
        write(&file, configuration);
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxgate"));
        command.arg("run").arg("--config").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.envs(environment.iter().copied());
        let mut process = command.spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        let unset = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut daemon = Self { proxy: unset, admin: unset, process, log, folder };
        let started = daemon.until_event("started").await;
        let address = |field: &str| {
            let named = started.get(field).unwrap_or_else(|| &started[format!("cxgate.{field}")]);
            named.as_str().unwrap().parse().unwrap()
        };
        (daemon.proxy, daemon.admin) = (address("proxy"), address("admin"));
        daemon
    }

    /// What it writes to standard output, read by nobody so far.
    pub fn output(&mut self) -> ChildStdout {
        self.process.stdout.take().expect("its output is asked for once")
    }

    /// The next line of the log, which must be JSON; `None` at its end.
    pub async fn line(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.log.next_line()).await.expect("a line of the log").unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}")))
    }

    /// Reads the log up to an event of this name.
    pub async fn until_event(&mut self, event: &str) -> Value {
        loop {
            let line = self.line().await.unwrap_or_else(|| panic!("the log ended before {event}"));
            if line["event"] == event || line["event.action"] == event {
                return line;
            }
        }
    }

    /// Replaces the configuration that a reload reads.
    pub fn rewrite(&self, configuration: &str) {
        write(&self.folder.path().join("cxgate.toml"), configuration);
    }

    /// Sends a signal, by name.
    pub fn signal(&self, signal: &str) {
        let id = self.process.id().expect("the daemon runs").to_string();
        let sent = std::process::Command::new("kill").args(["-s", signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end: the exit code, and what was left of the log.
    pub async fn ended(mut self) -> (Option<i32>, Vec<Value>) {
        let mut rest = Vec::new();
        while let Some(line) = self.line().await {
            rest.push(line);
        }
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await.expect("the daemon ends").unwrap();
        (status.code(), rest)
    }
}

/// A configuration with one route, `chat`, to one upstream; `more` begins with further keys of the route.
pub fn one_route(upstream: SocketAddr, path: &str, more: &str) -> String {
    format!(
        r#"
[upstreams.cxone]
url = "http://{upstream}"
[[routes]]
name = "chat"
paths = ["{path}"]
upstream = "cxone"
{more}"#
    )
}

fn write(file: &Path, configuration: &str) {
    let listeners = "[admin]\naddress = \"127.0.0.1:0\"\n[listen]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(file, format!("{listeners}{configuration}")).unwrap();
}
