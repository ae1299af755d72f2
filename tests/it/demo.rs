//! `cxgate demo` as somebody meets it who reads its heading and tries what it says.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// Longest wait for the demo's next line, and for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

struct Demo {
    process: Child,
    lines: Receiver<String>,
}

/// An answer as it came, head in lower case.
struct Answer {
    head: String,
    body: String,
}

#[test]
fn the_demo_does_what_its_heading_says_and_ends_on_ctrl_c() {
    let demo = Demo::start(&["--port", "0", "--guests", "3", "--for", "2m"]);
    let (proxy, admin) = (demo.address("proxy"), demo.address("admin"));

    let passed = get(&proxy, "/api/v2/engage/webchat/hello");
    assert!(passed.head.starts_with("http/1.1 200"), "{}", passed.head);
    assert_eq!(passed.header("x-ratelimit-remaining"), Some("9"));
    assert!(passed.body.contains(r#""client_id":"me""#), "{}", passed.body);

    let mut row = (1..=60).map(|number| get(&proxy, &format!("/api/v2/engage/webchat/{number}")));
    let refused = row.find(|answer| answer.head.starts_with("http/1.1 429")).expect("a refusal among 60 in a row");
    let retry_after: u32 = refused.header("retry-after").expect("Retry-After").parse().expect("whole seconds");
    assert!(retry_after >= 1);
    let body = format!(r#"{{"error":"rate_limit_exceeded","retry_after":{retry_after}"#);
    assert!(refused.body.starts_with(&body), "{}", refused.body);

    assert!(get(&admin, "/readyz").head.starts_with("http/1.1 200"));
    assert!(get(&admin, "/metrics").body.contains("cxgate_decisions_total{"));

    // Time, requests, passed, refused of the guests, refused of the abuser, and so on.
    let columns = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let has_refused_abuser = |row: &Vec<String>| row.len() == 9 && row[4].parse().is_ok_and(|refused: u64| refused > 0);
    let moment = demo.lines().map(columns).find(has_refused_abuser).expect("a line in which the abuser was refused");
    assert_eq!(moment[3], "0", "ordinary guests are not refused: {moment:?}");

    demo.interrupt();
    let (told, status) = demo.end();
    assert!(told.iter().any(|line| line.starts_with("  abuser")), "the sum is missing: {told:?}");
    assert!(status.success(), "{status}");
}

#[test]
fn the_demo_takes_a_free_port_for_one_that_is_taken_and_ends_when_its_time_is_over() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("its address").port();
    let demo = Demo::start(&["--port", &port.to_string(), "--guests", "0", "--for", "1s"]);
    let (told, status) = demo.end();
    assert!(told.contains(&format!("  Port {port} is taken; a free one stands in for it.")), "{told:?}");
    assert!(told.iter().all(|line| *line != format!("  proxy  http://127.0.0.1:{port}")), "{told:?}");
    assert!(status.success(), "{status}");
}

/// What `curl -i` would show to a client called `me`.
fn get(authority: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(authority).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nX-Client-Id: me\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    Answer { head: head.to_lowercase(), body: body.to_owned() }
}

// === impl Answer ===

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

// === impl Demo ===

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxgate"));
        let mut process = command.arg("demo").args(arguments).stdout(Stdio::piped()).spawn().expect("the demo started");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        // Ends with the process's output, or when nobody waits for a line any more.
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, lines }
    }

    /// What it prints, line by line as it comes, until it ends.
    fn lines(&self) -> impl Iterator<Item = String> {
        std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok())
    }

    /// Host and port that the heading gives for a listener.
    fn address(&self, listener: &str) -> String {
        let address = |line: String| Some(line.trim().strip_prefix(listener)?.trim().strip_prefix("http://")?.to_owned());
        self.lines().find_map(address).expect("an address in the heading")
    }

    /// Ctrl-C.
    fn interrupt(&self) {
        let id = self.process.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -INT $0", &id]).status();
        assert!(status.expect("a shell").success());
    }

    /// The rest of what it prints, and how it ended.
    fn end(mut self) -> (Vec<String>, ExitStatus) {
        (self.lines().collect(), self.process.wait().expect("an end"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Usually gone by now; what matters is that a failed test leaves nothing behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
