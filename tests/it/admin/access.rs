//! Who may change what, and what is said of it.

use hyper::Method;
use serde_json::json;

use super::{CHAT, TOKEN, slow};
use crate::support::{
    daemon::Daemon,
    http::{get, get_as, get_from, send},
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

const WRITES: [(&str, &str); 4] = [
    ("POST", "/api/v1/keys/reset"),
    ("POST", "/api/v1/whitelist"),
    ("DELETE", "/api/v1/whitelist/a"),
    ("POST", "/api/v1/drain"),
];

#[tokio::test]
async fn changes_need_the_token_on_a_loopback_listener_too_and_without_one_there_are_none() {
    let upstream = StubUpstream::start().await;
    let guarded = TestGate::start(upstream.address, slow(2, 60.0));
    let unguarded = TestGate::start(upstream.address, |_| ());
    for (method, path) in WRITES {
        let method = Method::try_from(method).unwrap();
        let refused = send(guarded.admin, method.clone(), path, &[], "{}").await;
        assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (401, "Bearer"), "{path}");
        let refused = send(unguarded.admin, method, path, &[TOKEN], "{}").await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (403, &json!("writes_disabled")), "{path}");
    }
    assert_eq!(get_as(guarded.proxy, CHAT, "a").await.status, 200, "nothing was drained");
}

#[tokio::test]
async fn who_guesses_is_locked_out_and_others_are_not() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        slow(2, 60.0)(config);
        config.admin.address = "0.0.0.0:0".parse().unwrap();
    });
    let admin = std::net::SocketAddr::new("127.0.0.1".parse().unwrap(), gate.admin.port());
    for guess in 0..5 {
        let guess = format!("Bearer guess-{guess}");
        assert_eq!(get_from("127.0.0.7", admin, "/metrics", &[("authorization", &guess)]).await.status, 401);
    }
    let locked = get_from("127.0.0.7", admin, "/api/v1/status", &[TOKEN]).await;
    assert_eq!((locked.status.as_u16(), &locked.json()["error"]), (429, &json!("too_many_attempts")));
    let wait: u64 = locked.header("retry-after").parse().unwrap();
    assert!((30..=61).contains(&wait), "{wait}");
    assert_eq!(get_from("127.0.0.7", admin, "/livez", &[]).await.status, 200);
    assert_eq!(get_from("127.0.0.8", admin, "/api/v1/status", &[TOKEN]).await.status, 200);
}

#[tokio::test]
async fn pages_of_other_origins_and_foreign_names_are_refused() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(2, 60.0));
    let foreign = [("origin", "https://evil.example"), TOKEN];
    let refused = send(gate.admin, Method::POST, "/api/v1/drain", &foreign, "").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (403, &json!("foreign_origin")));
    let refused = get(gate.admin, "/api/v1/routes", &[("host", "rebound.example")]).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (403, &json!("foreign_host")));
    let own = format!("http://{}", gate.admin);
    assert_eq!(get(gate.admin, "/api/v1/routes", &[("origin", &own)]).await.status, 200);
}

#[tokio::test]
async fn wrong_methods_paths_and_bodies_are_told_what_is_right() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(2, 60.0));
    let wrong = send(gate.admin, Method::PUT, "/api/v1/whitelist", &[TOKEN], "").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "GET, HEAD, POST"));
    assert_eq!(get(gate.admin, "/api/v1/nothing", &[]).await.json()["error"], "not_found");
    let post = async |path: &str, body: &str| {
        let answer = send(gate.admin, Method::POST, path, &[TOKEN], body).await;
        (answer.status.as_u16(), answer.json()["message"].as_str().unwrap().to_owned())
    };
    let (status, message) = post("/api/v1/explain", r#"{"path":"/","metod":"GET"}"#).await;
    assert!(status == 400 && message.contains("`metod`") && message.contains("`method`"), "{message}");
    let (status, message) = post("/api/v1/whitelist", r#"{"client":"a","seconds":0}"#).await;
    assert!(status == 400 && message.contains("seconds") && message.contains("86400"), "{message}");
    let (status, message) = post("/api/v1/whitelist", r#"{"client":"a","seconds":9,"networks":["x"]}"#).await;
    assert!(status == 400, "{message}");
    assert_eq!(post("/api/v1/explain", "not json").await.0, 400);
    assert_eq!(post("/api/v1/explain", &" ".repeat(70_000)).await.0, 413);
    let unread = "cxgate_admin_writes_total{action=\"trust\",result=\"bad_request\"}";
    assert_eq!(gate.count(unread).await, 2);
}

#[tokio::test]
async fn each_change_is_one_audit_event_without_the_token() {
    let token = "s3cret-of-operators";
    // The listeners' tables come first, so that the token is told by a variable.
    let mut daemon = Daemon::start_with_environment("", &[("CXGATE__ADMIN__TOKEN", token)]).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let wrong = [("authorization", "Bearer wr0ng-guess")];
    let trust = r#"{"client":"reports","seconds":600}"#;
    assert_eq!(send(daemon.admin, Method::POST, "/api/v1/whitelist", &wrong, trust).await.status, 401);
    assert_eq!(send(daemon.admin, Method::POST, "/api/v1/whitelist", &headers, trust).await.status, 200);
    let refused = daemon.until_event("audit").await;
    assert_eq!((&refused["address"], &refused["result"]), (&json!("127.0.0.1"), &json!("unauthorized")));
    let done = daemon.until_event("audit").await;
    assert_eq!((&done["action"], &done["result"], &done["subject"]), (&json!("trust"), &json!("done"), &json!("reports")));
    assert_eq!((&done["address"], &done["old"]), (&json!("127.0.0.1"), &json!("null")));
    assert!(done["new"].as_str().unwrap().contains("reports"));
    let drained = send(daemon.admin, Method::POST, "/api/v1/drain", &headers, "").await;
    assert_eq!((drained.status.as_u16(), &drained.json()["new"]), (202, &json!("draining")));
    let (code, log) = daemon.ended().await;
    assert_eq!(code, Some(0));
    let log = format!("{refused} {done} {log:?}");
    assert!(!log.contains(token) && !log.contains("wr0ng-guess"), "{log}");
}
