//! The program as it is deployed: its log, its signals, its end.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    daemon::Daemon,
    http::{get, get_as},
    stub_upstream::StubUpstream,
    until,
};

const CHAT: &str = "/api/v2/engage/webchat";

fn in_front_of(upstream: std::net::SocketAddr, more: &str) -> String {
    format!("[upstreams.cxone]\nurl = \"http://{upstream}\"\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_violations_is_one_event_and_then_sums_with_exact_counts() {
    let upstream = StubUpstream::start().await;
    let mut daemon = Daemon::start(&in_front_of(upstream.address, "")).await;
    let secret = [
        ("x-client-id", "abuser"),
        ("authorization", "Bearer top-secret"),
        ("cookie", "session=top-secret"),
        ("x-request-id", "id-7"),
    ];
    let mut refused = 0;
    for _ in 0..200 {
        refused += u64::from(get(daemon.proxy, "/api/v2/engage/webchat/x?token=top-secret", &secret).await.status == 429);
    }
    assert!(refused > 100, "{refused}");

    let first = daemon.until_event("rate_limit_violation").await;
    for (field, value) in [
        ("level", "WARN"),
        ("client_id", "abuser"),
        ("address", "127.0.0.1"),
        ("route", "guest-webchat"),
        ("limit", "per-client"),
        ("method", "GET"),
        ("path", "/api/v2/engage/webchat/x"),
        ("origin", "local"),
        ("request_id", "id-7"),
    ] {
        assert_eq!(first[field], value, "{field} in {first}");
    }
    assert!(
        first["retry_after"].as_u64() >= Some(1)
            && first["remaining"] == 0
            && first["duration_ms"].is_u64()
            && first["timestamp"].is_string(),
        "{first}"
    );

    daemon.signal("TERM");
    let (code, rest) = daemon.ended().await;
    assert_eq!(code, Some(0));
    let of = |event: &str| rest.iter().filter(|line| line["event"] == event).cloned().collect::<Vec<Value>>();
    let sums = of("rate_limit_violations");
    let counted: u64 = sums.iter().map(|sum| sum["count"].as_u64().unwrap()).sum();
    let lines = 1 + of("rate_limit_violation").len() + sums.len();
    assert_eq!(counted + (lines - sums.len()) as u64, refused, "{rest:?}");
    assert!(lines < 50, "{refused} refusals made {lines} lines");
    assert!(!rest.iter().chain([&first]).any(|line| line.to_string().contains("top-secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_write_lines_of_its_own_into_the_log() {
    let upstream = StubUpstream::start().await;
    let mut daemon = Daemon::start(&in_front_of(upstream.address, "")).await;
    let name = r#"x","event":"forged"} {"a":"b"#;
    while get_as(daemon.proxy, CHAT, name).await.status == 200 {}
    let event = daemon.until_event("rate_limit_violation").await;
    assert_eq!(event["client_id"], name);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_in_flight_finish_and_takes_no_new_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut daemon = Daemon::start(&in_front_of(listener.local_addr().unwrap(), "")).await;
    let (proxy, admin) = (daemon.proxy, daemon.admin);
    let request = tokio::spawn(async move { get_as(proxy, CHAT, "a").await });
    let (mut upstream, _) = listener.accept().await.unwrap();
    let _ = upstream.read(&mut [0; 4096]).await.unwrap();

    daemon.signal("TERM");
    daemon.until_event("draining").await;
    until(async || TcpStream::connect(proxy).await.is_err()).await;
    let ready = get(admin, "/readyz", &[]).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (503, &Value::from("draining")));
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
    let answer = request.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "done"));
    assert_eq!(daemon.ended().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_has_a_deadline_and_a_second_signal_does_not_wait_for_it() {
    for (drain_timeout, signals) in [("50ms", 1), ("10m", 2)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let configuration = format!("drain_timeout = \"{drain_timeout}\"\n[upstreams.cxone]\nurl = \"http://{upstream}\"\n");
        let mut daemon = Daemon::start_listening(&configuration).await;
        let proxy = daemon.proxy;
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_all(format!("GET {CHAT} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let _silent = listener.accept().await.unwrap();
        daemon.signal("TERM");
        daemon.until_event("draining").await;
        if signals == 2 {
            daemon.signal("INT");
        }
        assert_eq!(daemon.ended().await.0, Some(0), "{drain_timeout}");
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0, "the request was dropped, not answered");
    }
}
