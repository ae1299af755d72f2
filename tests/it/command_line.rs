//! What the program prints, how it ends, and what signals do to it.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// Far longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program, with no environment but what is added, in a directory without a configuration file.
fn cxgate<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxgate"));
    command.args(arguments).env_clear().current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn here(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file).to_str().unwrap().to_owned()
}

#[test]
fn version_and_help_are_everywhere() {
    let (code, output, _) = outcome(&mut cxgate(&["--version"]));
    assert_eq!((code, output), (Some(0), format!("cxgate {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, output, _) = outcome(&mut cxgate(&["--help"]));
    assert_eq!(code, Some(0));
    for command in ["run", "check", "config", "demo", "fetch", "simulate", "healthcheck", "completions", "man"] {
        assert!(output.contains(&format!("\n  {command} ")), "{output}");
        assert_eq!(outcome(&mut cxgate(&[command, "--help"])).0, Some(0));
        assert_eq!(outcome(&mut cxgate(&[command, "--version"])).0, Some(0));
    }
}

#[test]
fn a_command_line_that_is_not_understood_ends_with_2() {
    for arguments in [&["--nothing"][..], &["nothing"], &["check", "--config"], &["completions", "nothing"]] {
        let (code, output, error) = outcome(&mut cxgate(arguments));
        assert_eq!((code, output.as_str()), (Some(2), ""));
        assert!(error.starts_with("error:"), "{error}");
    }
}

#[test]
fn check_says_ok_and_what_the_configuration_comes_to() {
    let (code, output, error) = outcome(&mut cxgate(&["check"]));
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let lines = [
        "built-in defaults: ok",
        "in this process",
        "route guest-webchat to cxone",
        "limit per-client per client: 10 at once, 2 a second",
    ];
    assert!(lines.iter().all(|line| output.contains(line)), "{output}");

    let whitelist = ("CXGATE__WHITELIST", r#"[{"client": "me"}]"#);
    let file = here("config/cxgate.toml");
    let (code, output, _) = outcome(cxgate(&["check"]).envs([whitelist, ("CXGATE_CONFIG", &file), ("REDIS_ADDR", "r:1")]));
    assert_eq!(code, Some(0));
    assert!(output.starts_with(&format!("{file}: ok\n")) && output.contains("in Redis"), "{output}");
    assert!(output.contains("warning: whitelist: \"me\""), "{output}");
}

const SIX_MISTAKES: &str = r#"[listen]
adress = "0.0.0.0:1"
max_connections = -1
header_timeout = "soon"
[store]
redis = 6379
[[routes]]
name = "a"
paths = ["a"]
upstream = "nowhere"
"#;

#[test]
fn six_mistakes_are_named_at_once_and_end_with_78() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, SIX_MISTAKES).unwrap();
    let name = file.path().to_str().unwrap();
    for command in ["check", "config", "run", "healthcheck"] {
        let (code, output, error) = outcome(&mut cxgate(&[command, "--config", name]));
        assert_eq!((code, output.as_str()), (Some(78), ""), "{command}");
        let lines: Vec<&str> = error.lines().collect();
        let expected = [
            "2:1: listen.adress: unknown key, did you mean \"address\"?",
            "3:1: listen.max_connections = -1: expected a whole number from 1 to 1000000",
            "4:1: listen.header_timeout = \"soon\": expected a duration",
            "6:1: store.redis: expected redis://",
            "9:10: routes[0].paths[0] = \"a\": expected a path that starts with /",
            "10:1: routes[0].upstream = \"nowhere\": expected the name of a [upstreams.NAME] table",
        ];
        assert_eq!(lines.len(), expected.len(), "{error}");
        assert!(lines.iter().zip(expected).all(|(line, rest)| line.starts_with(&format!("{name}:{rest}"))), "{error}");
    }
}

#[test]
fn config_prints_a_file_that_gives_the_same_again() {
    let secret = ("ANALYTICS_SECRET", "hunter2");
    let mut command = cxgate(&["config", "--config", "tests/it/good/everything.toml"]);
    let (code, printed, error) = outcome(command.current_dir(env!("CARGO_MANIFEST_DIR")).envs([secret]));
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(printed.contains("[redacted]") && !printed.contains("hunter2"), "{printed}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, &printed).unwrap();
    let (code, again, _) = outcome(&mut cxgate(&["config", "--config", file.path().to_str().unwrap()]));
    assert_eq!((code, again), (Some(0), printed));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for arguments in [&["config"][..], &["check"], &["man"], &["completions", "zsh"], &["--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _, error) = outcome(cxgate(arguments).stdout(writer));
        assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn completions_and_manual_name_every_command() {
    for arguments in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]] {
        let (code, output, _) = outcome(&mut cxgate(arguments));
        assert_eq!(code, Some(0));
        for command in ["run", "check", "config", "demo", "healthcheck"] {
            assert!(output.contains(command), "{arguments:?}: {output}");
        }
    }
}

/// Answers one connection with `answer`, or takes it and says nothing.
fn answer_once(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
            // Until the other side gives up.
            None => drop(stream.read(&mut request)),
        }
    });
    address
}

fn healthcheck(admin: &str) -> (Option<i32>, String, String) {
    outcome(cxgate(&["healthcheck"]).envs([("CXGATE__ADMIN__ADDRESS", admin), ("CXGATE__ADMIN__TOKEN", "t")]))
}

#[test]
fn healthcheck_tells_ready_from_unready_and_absent() {
    let ready = answer_once(Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nready\nok\r\n0\r\n\r\n"));
    assert_eq!(healthcheck(&ready.to_string()), (Some(0), "ready\n".to_owned(), String::new()));

    let unready = answer_once(Some("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\ndraining"));
    let (code, output, error) = healthcheck(&unready.to_string());
    assert_eq!((code, output.as_str()), (Some(1), "draining\n"));
    assert!(error.contains("503"), "{error}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, error) = healthcheck(&nobody.to_string());
    assert_eq!(code, Some(1));
    assert!(error.contains("Connection refused"), "{error}");

    let (code, _, error) = healthcheck(&answer_once(None).to_string());
    assert_eq!(code, Some(1));
    assert!(error.contains("no answer in time"), "{error}");

    let everywhere = answer_once(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    assert_eq!(healthcheck(&format!("0.0.0.0:{}", everywhere.port())).0, Some(0));
}

/// A running proxy on free ports, killed when the test ends, and the lines of its log.
struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    fn start(variables: &[(&str, &str)]) -> Self {
        let ports = [("CXGATE__LISTEN__ADDRESS", "127.0.0.1:0"), ("CXGATE__ADMIN__ADDRESS", "127.0.0.1:0")];
        let mut command = cxgate::<&str>(&[]);
        let mut child = command.envs(ports).envs(variables.iter().copied()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, log }
    }

    /// The next event of this name.
    fn event(&self, name: &str) -> serde_json::Value {
        loop {
            let line = self.log.recv_timeout(PATIENCE).expect(name);
            let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
            if event["event"] == name {
                return event;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_to_end_ends_cleanly_and_a_hang_up_reloads() {
    for signal in ["-TERM", "-INT"] {
        let mut running = Running::start(&[("CXGATE__WHITELIST", r#"[{"client": "me"}]"#)]);
        assert_eq!(running.event("config_warning")["level"], "WARN");
        let started = running.event("started");
        let proxy: SocketAddr = started["proxy"].as_str().unwrap().parse().unwrap();
        assert_ne!(proxy.port(), 0);
        running.signal("-HUP");
        let reloaded = running.event("config_reloaded");
        assert_eq!((&reloaded["before"], &reloaded["restart_needed"]), (&reloaded["revision"], &0.into()));
        running.signal(signal);
        running.event("stopped");
        assert_eq!(running.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn an_address_that_is_taken_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, error) = outcome(cxgate(&["run"]).envs([("CXGATE__LISTEN__ADDRESS", address.as_str())]));
    assert_eq!(code, Some(1));
    assert!(error.contains(&address), "{error}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_before_anything_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key, other] = ["certificate.pem", "key.pem", "other.pem"].map(|name| folder.path().join(name));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&other, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let gone = folder.path().join("gone.pem");
    for (certificate, key, code, named) in [
        (&certificate, &key, 0, ""),
        (&gone, &key, 78, "listen.tls.certificate"),
        (&key, &key, 78, "listen.tls.certificate"),
        (&certificate, &gone, 78, "listen.tls.key"),
        (&certificate, &other, 78, "listen.tls.key"),
    ] {
        let file = folder.path().join("cxgate.toml");
        std::fs::write(&file, format!("[listen.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n")).unwrap();
        let file = file.to_str().unwrap();
        let (ended, _, error) = outcome(&mut cxgate(&["check", "--config", file]));
        assert!(ended == Some(code) && error.starts_with(named), "{named}: {ended:?} {error}");
        if code != 0 {
            let (ended, _, error) = outcome(&mut cxgate(&["run", "--config", file]));
            assert!(ended == Some(code) && error.contains(named), "{named}: {ended:?} {error}");
        }
    }
}

#[test]
fn every_certificate_that_cannot_be_read_is_named_by_check_and_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cxgate.toml");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let text = format!(
        r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
redis = "rediss://localhost"
ca = "/missing/store.pem"
[upstreams.cxone]
url = "https://cxone.example"
ca = {empty:?}
[upstreams.unused]
url = "https://unused.example"
client_certificate = {{ certificate = "/missing/own.pem", key = "/missing/own-key.pem" }}
[oauth.token]
grant = "client_credentials"
token_url = "https://token.example/oauth"
client_id = "a"
client_secret = {{ env = "TOKEN_SECRET" }}
ca = "/missing/oauth.pem"
"#
    );
    std::fs::write(&file, text).unwrap();
    let arguments = |command| [command, "--config", file.to_str().unwrap()].map(str::to_owned);
    let (code, output, error) = outcome(cxgate(&arguments("check")).env("TOKEN_SECRET", "s"));
    assert_eq!((code, output.as_str()), (Some(78), ""));
    let expected = [
        ("store.ca: ", "/missing/store.pem"),
        ("upstreams.cxone.ca: ", empty.to_str().unwrap()),
        ("upstreams.unused.client_certificate: ", "/missing/own.pem"),
        ("oauth.token.ca: ", "/missing/oauth.pem"),
    ];
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, (key, path)) in lines.iter().zip(expected) {
        assert!(line.starts_with(key) && line.contains(path), "{line}");
    }
    let (code, _, error) = outcome(cxgate(&arguments("run")).env("TOKEN_SECRET", "s"));
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("upstreams.cxone.ca: "), "{error}");
}
