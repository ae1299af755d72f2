//! A real browser, told what to do by its debugging protocol, over a pipe.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

/// Longest wait for an answer, and for what a page should come to; a browser takes its time to start.
const PATIENCE: Duration = Duration::from_mins(1);

/// What keeps a browser from asking anybody but the page.
pub const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
];

/// A browser with one page, killed when dropped.
pub struct Browser {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// What the page wrote to the console as errors or warnings, and what was thrown in it and not caught.
    pub complaints: Vec<String>,
    _process: Child,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page.
    pub async fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It reads commands from descriptor 3 and answers on 4.
        let script = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut process = Command::new("sh");
        process.args(["-c", script, "sh"]).args(FLAGS).arg("--remote-debugging-pipe");
        process.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut process =
            process.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("chromium starts");
        let mut browser = Self {
            commands: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            session: None,
            last: 0,
            complaints: Vec::new(),
            _process: process,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true})).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.call("Page.navigate", json!({ "url": url })).await;
        browser
    }

    /// Gives a command and awaits its result.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).await.unwrap();
        loop {
            let message = self.message().await;
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    /// What an expression comes to in the page.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", parameters).await;
        assert!(answer["exceptionDetails"].is_null(), "{}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page; answers how long that took.
    pub async fn until(&mut self, expression: &str) -> Duration {
        let begin = Instant::now();
        while self.evaluate(expression).await != true {
            if begin.elapsed() > PATIENCE {
                let page = self.evaluate("document.documentElement.innerText").await;
                panic!("not so in time: {expression}\n{page}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begin.elapsed()
    }

    async fn message(&mut self) -> Value {
        let mut message = Vec::new();
        let read = timeout(PATIENCE, self.answers.read_until(0, &mut message)).await;
        read.expect("the browser answers in time").unwrap();
        assert_eq!(message.pop(), Some(0), "the browser ended; where it is missing: apt-get install chromium");
        serde_json::from_slice(&message).unwrap()
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        let is_complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => parameters["type"] == "error" || parameters["type"] == "warning",
            Some("Log.entryAdded") => parameters["entry"]["level"] == "error" || parameters["entry"]["level"] == "warning",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }
}
