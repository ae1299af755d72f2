//! The dashboard: who may see it, what it tells without scripts, and how it behaves in a browser.

mod watched;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cxgate::config::{Config, LimitKind, Rate, Secret, ShowClients, TokenBucket};

use crate::support::{
    http::{get, get_as, get_from, send},
    raw_client::RawClient,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

const CHAT: &str = "/api/v2/engage/webchat";

/// One request for each client, and clients called by their names.
fn one_each(config: &mut Config) {
    config.admin.show_clients = ShowClients::Plain;
    let refill_per_second = Rate::per_second(0.01).unwrap();
    config.routes[0].limits[0].limit.kind = LimitKind::TokenBucket(TokenBucket { capacity: 1, refill_per_second });
}

#[tokio::test]
async fn the_page_tells_all_of_it_without_scripts() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, one_each);
    let refused = |page: &str| {
        let (_, rows) = page.split_once("id=\"refused-rows\"").unwrap();
        rows.split_once("</tbody>").unwrap().0.contains("alice &lt;b&gt;")
    };
    assert!(!refused(get(gate.admin, "/dashboard", &[]).await.text()));
    for _ in 0..3 {
        get_as(gate.proxy, CHAT, "alice <b>").await;
    }
    until(async || {
        let page = get(gate.admin, "/dashboard?span=1h", &[]).await;
        refused(page.text()) && page.text().contains("guest-webchat · per-client")
    })
    .await;
    let page = get(gate.admin, "/dashboard", &[]).await;
    for told in ["the embedded store decides", "1 at once, 0.01/s", "1 of 1 used", "Last hour", env!("CARGO_PKG_VERSION")] {
        assert!(page.text().contains(told), "{told} is not in {}", page.text());
    }
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    for unsafe_here in ["style=", "onclick", "javascript:", "<style", "http://"] {
        let upstream = format!("http://{}", upstream.address);
        assert!(!page.text().replace(&upstream, "").contains(unsafe_here), "{unsafe_here}");
    }
    for wrong in ["/dashboard?span=2h", "/dashboard?spam=1h"] {
        assert_eq!(get(gate.admin, wrong, &[]).await.status, 400);
    }
    assert_eq!(get(gate.admin, "/dashboard/nothing", &[]).await.status, 404);
}

#[tokio::test]
async fn a_limit_that_is_changed_for_a_while_stands_out() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        one_each(config);
        config.admin.token = Some(Secret::new("t0ken-of-operators"));
    });
    let quiet = get(gate.admin, "/dashboard", &[]).await;
    assert!(!quiet.text().contains("A limit is changed") && !quiet.text().contains("again in"));
    let token = ("authorization", "Bearer t0ken-of-operators");
    let wanted = r#"{"capacity":5,"refill_per_second":3,"seconds":86400}"#;
    assert_eq!(send(gate.admin, hyper::Method::POST, "/api/v1/limits", &[token], wanted).await.status, 200);
    let page = get(gate.admin, "/dashboard", &[]).await;
    for told in [
        "guest-webchat · per-client admits 5 at once, 3/s for another 23 h 59 min",
        "changed; 1 at once, 0.01/s again in 23 h",
    ] {
        assert!(page.text().contains(told), "{told} is not in {}", page.text());
    }
}

#[tokio::test]
async fn others_need_the_token_as_a_password_which_changes_nothing() {
    let upstream = StubUpstream::start().await;
    let local = TestGate::start(upstream.address, |_| ());
    assert_eq!(get(local.admin, "/dashboard", &[("host", "rebound.example")]).await.json()["error"], "foreign_host");
    assert_eq!(get(local.admin, "/dashboard/events", &[("origin", "https://evil.example")]).await.status, 403);

    let open = TestGate::start(upstream.address, |config| {
        config.admin.token = Some(Secret::new("t0ken"));
        config.admin.address = "0.0.0.0:0".parse().unwrap();
    });
    let admin = std::net::SocketAddr::new("127.0.0.1".parse().unwrap(), open.admin.port());
    let refused = get(admin, "/dashboard", &[]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("www-authenticate")),
        (401, "Basic realm=\"cxgate\", charset=\"UTF-8\"")
    );
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("anyone:{password}")));
    let (right, wrong) = (basic("t0ken"), basic("t0kem"));
    let (right, wrong) = ([("authorization", right.as_str())], [("authorization", wrong.as_str())]);
    for path in ["/dashboard", "/dashboard/style.css", "/dashboard/script.js", "/dashboard/icon.svg"] {
        assert_eq!(get(admin, path, &right).await.status, 200, "{path}");
        assert_eq!(get(admin, path, &[]).await.status, 401, "{path}");
    }
    assert_eq!(get(admin, "/dashboard", &[("authorization", "Bearer t0ken")]).await.status, 200);
    // Browsers send it also where a foreign page sends them.
    assert_eq!(get(admin, "/api/v1/status", &right).await.status, 401);
    for _ in 0..5 {
        assert_eq!(get_from("127.0.0.7", admin, "/dashboard", &wrong).await.status, 401);
    }
    assert_eq!(get_from("127.0.0.7", admin, "/dashboard", &right).await.status, 429);
}

#[tokio::test]
async fn as_many_may_watch_as_there_is_room_for() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    let mut watchers = Vec::new();
    for _ in 0..16 {
        let mut watcher = RawClient::connect(gate.admin).await;
        watcher.send(format!("GET /dashboard/events HTTP/1.1\r\nhost: {}\r\n\r\n", gate.admin)).await;
        let (status, head) = watcher.head().await;
        assert!(status == 200 && head.to_lowercase().contains("text/event-stream"), "{head}");
        watchers.push(watcher);
    }
    let first = String::from_utf8(watchers[0].chunk().await).unwrap();
    assert!(first.starts_with("retry: 1000\nevent: version\ndata: ") && first.contains("\"busiest-rows\":"), "{first}");
    let second = String::from_utf8(watchers[0].chunk().await).unwrap();
    assert!(second.starts_with("data: {") && !second.contains("busiest-rows"), "only what changed: {second}");
    assert_eq!(get(gate.admin, "/dashboard/events", &[]).await.json()["error"], "no_room");
    drop(watchers);
    until(async || {
        let mut watcher = RawClient::connect(gate.admin).await;
        watcher.send(format!("GET /dashboard/events HTTP/1.1\r\nhost: {}\r\n\r\n", gate.admin)).await;
        watcher.head().await.0 == 200
    })
    .await;
}
