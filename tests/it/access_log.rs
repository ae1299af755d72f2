//! The access log: what its lines hold, and that it slows nobody.

use std::{path::Path, time::Duration};

use cxgate::config::{AccessClients, AccessFormat, AccessTarget, Config, LogFields, Secret, Trusted};
use hyper::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    daemon::Daemon,
    http::{get, get_as, send},
    soon,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

const CHAT: &str = "/api/v2/engage/webchat";

fn logging_to(path: &Path) -> impl FnOnce(&mut Config) {
    let path = path.to_owned();
    move |config| config.log.access.to = Some(AccessTarget::File(path))
}

/// The lines of a log, once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    let read = || -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    until(async || read().len() >= count).await;
    read()
}

async fn objects(path: &Path, count: usize) -> Vec<Value> {
    lines(path, count).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the gate answers to these bytes.
async fn answer_to(gate: &TestGate, request: &str) -> String {
    let mut stream = TcpStream::connect(gate.proxy).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn every_answer_has_one_line_that_says_what_became_of_its_request() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), StubUpstream::start().await);
    let path = folder.path().join("access.log");
    let gate = TestGate::start(upstream.address, |config| {
        logging_to(&path)(config);
        config.log.access.headers = vec!["x-tenant-id".to_owned()];
        let trusted = Trusted { client: "trusty".into(), networks: Vec::new(), certificate: None, secret: None };
        config.whitelist.push(trusted);
        config.listen.max_body_bytes = 10;
        let limit = &mut config.routes[0].limits[0];
        limit.cost = 10;
    });
    let fields = [("x-client-id", "Alice"), ("x-request-id", "id-7"), ("x-tenant-id", "t-1"), ("user-agent", "test/1")];
    let chat = format!("{CHAT}/hello?token=top-secret");
    assert_eq!(send(gate.proxy, Method::POST, &chat, &fields, "").await.status, 200);
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.status, 429);
    assert_eq!(get_as(gate.proxy, CHAT, "trusty").await.status, 200);
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    assert_eq!(send(gate.proxy, Method::OPTIONS, CHAT, &preflight, "").await.status, 200);
    assert_eq!(get(gate.proxy, "/nowhere", &[("authorization", "top-secret")]).await.status, 404);
    assert_eq!(send(gate.proxy, Method::POST, CHAT, &[], "more than ten bytes").await.status, 413);
    assert!(answer_to(&gate, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400"));

    let lines = objects(&path, 7).await;
    let first = &lines[0];
    for (field, value) in [
        ("event", "access"),
        ("request_id", "id-7"),
        ("client_id", "alice"),
        ("client_kind", "name"),
        ("address", "127.0.0.1"),
        ("method", "POST"),
        ("path", "/api/v2/engage/webchat/hello"),
        ("route", "guest-webchat"),
        ("decision", "admitted"),
        ("user_agent", "test/1"),
    ] {
        assert_eq!(first[field], value, "{field} in {first}");
    }
    assert_eq!((&first["status"], &first["bytes"], &first["cost"]), (&200.into(), &11.into(), &10.into()), "{first}");
    assert!(first["upstream_us"].as_u64() <= first["duration_us"].as_u64(), "{first}");
    assert_eq!(first["headers"], serde_json::json!({"x-tenant-id": "t-1"}));
    let told = |field: &str| lines.iter().map(|line| line[field].as_str().unwrap_or("-").to_owned()).collect::<Vec<_>>();
    assert_eq!(told("decision"), ["admitted", "refused", "whitelisted", "preflight", "none", "none", "none"]);
    assert_eq!(told("code")[4..], ["no_route", "body_too_large", "host_invalid"]);
    let refused = &lines[1];
    assert_eq!((&refused["limit"], &refused["code"]), (&"per-client".into(), &"rate_limit_exceeded".into()));
    assert!(refused["retry_after"].as_u64() >= Some(1) && refused["upstream_us"].is_null(), "{refused}");
    assert!(!lines.iter().any(|line| line.to_string().contains("top-secret")), "{lines:?}");
}

#[tokio::test]
async fn who_goes_away_before_the_answer_has_a_line_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = TestGate::start(listener.local_addr().unwrap(), logging_to(&path));
    let mut client = TcpStream::connect(gate.proxy).await.unwrap();
    client.write_all(format!("GET {CHAT} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let _silent = soon(listener.accept()).await.unwrap();
    drop(client);
    let line = &objects(&path, 1).await[0];
    assert_eq!((&line["status"], &line["decision"]), (&499.into(), &"admitted".into()), "{line}");
}

#[tokio::test]
async fn clients_may_be_hashed_and_lines_combined() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), StubUpstream::start().await);
    let path = folder.path().join("access.log");
    let gate = TestGate::start(upstream.address, |config| {
        logging_to(&path)(config);
        config.log.access.clients = AccessClients::Hashed;
        config.log.access.format = AccessFormat::Combined;
        config.identity.hash_key = Some(Secret::new("k3y"));
    });
    for client in ["alice", "alice", "bob"] {
        get_as(gate.proxy, CHAT, client).await;
    }
    let lines = lines(&path, 3).await;
    let users: Vec<&str> = lines.iter().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(users[0], users[1]);
    assert!(users[0] != users[2] && users[0].len() == 16 && !users.contains(&"alice"), "{lines:?}");
    let request = format!("\"GET {CHAT} HTTP/1.1\" 200 11 \"-\" \"-\"");
    assert!(lines.iter().all(|line| line.ends_with(&request)), "{lines:?}");
}

#[tokio::test]
async fn a_log_that_is_rotated_goes_on_under_its_name() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), StubUpstream::start().await);
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let gate = TestGate::start(upstream.address, logging_to(&path));
    get_as(gate.proxy, CHAT, "a").await;
    lines(&path, 1).await;
    std::fs::rename(&path, &old).unwrap();
    let mut asked = 1;
    until(async || {
        asked += 1;
        get_as(gate.proxy, CHAT, &format!("client-{asked}")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        path.exists()
    })
    .await;
    let written = async || lines(&old, 0).await.len() + lines(&path, 0).await.len();
    until(async || written().await == asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_seconds_of_flood_are_a_dozen_lines_with_exact_counts_in_either_set_of_names() {
    for fields in [LogFields::Cxgate, LogFields::Ecs] {
        let upstream = StubUpstream::start().await;
        let names = if fields == LogFields::Ecs { "ecs" } else { "cxgate" };
        let configuration =
            format!("[log]\nfields = \"{names}\"\n[upstreams.cxone]\nurl = \"http://{}\"\n", upstream.address);
        let daemon = Daemon::start(&configuration).await;
        let mut refused = 0;
        let end = tokio::time::Instant::now() + Duration::from_secs(3);
        while tokio::time::Instant::now() < end {
            refused += u64::from(get_as(daemon.proxy, CHAT, "abuser").await.status == 429);
        }
        daemon.signal("TERM");
        let (_, lines) = daemon.ended().await;
        let (event, count) = if names == "ecs" { ("event.action", "cxgate.count") } else { ("event", "count") };
        let lines: Vec<Value> =
            lines.into_iter().filter(|line| line[event].as_str().unwrap().starts_with("rate_limit_violation")).collect();
        assert!(lines.len() <= 12, "{refused} refusals made {lines:?}");
        let told: u64 = lines.iter().map(|line| line[count].as_u64().unwrap_or(1)).sum();
        assert_eq!(told, refused, "{lines:?}");
        if names == "ecs" {
            let first = &lines[0];
            for (name, value) in [
                ("ecs.version", "8.11.0"),
                ("log.level", "WARN"),
                ("event.action", "rate_limit_violation"),
                ("client.user.id", "abuser"),
                ("client.address", "127.0.0.1"),
                ("http.request.method", "GET"),
                ("url.path", CHAT),
                ("rule.name", "per-client"),
                ("cxgate.route", "guest-webchat"),
            ] {
                assert_eq!(first[name], value, "{name} in {first}");
            }
            assert!(first["@timestamp"].is_string() && first["event.duration"].is_u64(), "{first}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_stops_no_request_and_every_line_is_read_later_or_counted() {
    const CONNECTIONS: usize = 4;
    const REQUESTS: usize = 3000;
    let upstream = StubUpstream::start().await;
    let configuration = format!("[log.access]\nto = \"stdout\"\n[upstreams.cxone]\nurl = \"http://{}\"\n", upstream.address);
    let mut daemon = Daemon::start(&configuration).await;
    let mut output = daemon.output();
    let flood = (0..CONNECTIONS).map(|_| tokio::spawn(ask_nowhere(daemon.proxy, REQUESTS)));
    for connection in flood.collect::<Vec<_>>() {
        connection.await.unwrap();
    }
    let counted = async || {
        let metrics = get(daemon.admin, "/metrics", &[]).await;
        let line = metrics.text().lines().find_map(|line| line.strip_prefix("cxgate_log_dropped_total "));
        line.unwrap().parse::<usize>().unwrap()
    };
    until(async || counted().await > 0).await;
    let dropped = counted().await;
    daemon.signal("TERM");
    let mut text = String::new();
    soon(output.read_to_string(&mut text)).await.unwrap();
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    assert_eq!(text.lines().count() + dropped, CONNECTIONS * REQUESTS);
}

/// Sends so many requests that no route takes on one connection, each after the answer to the last.
async fn ask_nowhere(address: std::net::SocketAddr, count: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answers = vec![0; 16 * 1024];
    for _ in 0..count {
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut read = 0;
        while !answers[..read].ends_with(b"}") {
            read += soon(stream.read(&mut answers[read..])).await.unwrap();
        }
    }
}
