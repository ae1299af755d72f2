//! Secrets and tokens reach the servers they are for, and nothing else: no log, error, metric or printed configuration.

use std::process::Command;

use hyper::Response;

use crate::support::{daemon::Daemon, http::get, stub_upstream::StubUpstream, until};

const PATH: &str = "/invoke/a";

fn configuration(token_server: std::net::SocketAddr, upstream: std::net::SocketAddr) -> String {
    let common = format!("token_url = \"http://{token_server}/token\"\n");
    let client = "client_id = \"cxgate\"\nclient_secret = \"hunter2-client\"\nclient_authentication = \"basic\"\n";
    let key = "username = \"KEY\"\npassword = \"hunter2-key\"\n";
    let route = |name: &str, path: &str| {
        format!("[[routes]]\nname = \"{name}\"\npaths = [\"{path}\"]\nupstream = \"cxone\"\ncredentials = \"{name}\"\n")
    };
    format!(
        "[log]\nlevel = \"trace\"\n[upstreams.cxone]\nurl = \"http://{upstream}\"\n\
         [oauth.password]\n{common}grant = \"password\"\n{client}{key}\
         [oauth.key]\n{common}grant = \"access_key\"\n{key}\
         {}{}",
        route("password", "/invoke"),
        route("key", "/key"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_tokens_are_nowhere_to_be_read() {
    // An answer without a token first, so that the failure is logged, then a token that the upstream refuses.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let tokens = StubUpstream::answering(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 | 1 => Response::new(r#"{"access_token":"hunter2 token"}"#.into()),
        _ => Response::new(r#"{"access_token":"hunter2-token","expires_in":3600}"#.into()),
    })
    .await;
    let upstream = StubUpstream::answering(|_| Response::builder().status(401).body("refused".into()).unwrap()).await;
    let configuration = configuration(tokens.address, upstream.address);
    let mut daemon = Daemon::start(&configuration).await;
    daemon.until_event("oauth_fetch_failed").await;
    let mut read = Vec::new();
    until(async || {
        let answer = get(daemon.proxy, PATH, &[("authorization", "Bearer hunter2-caller")]).await;
        read.push(format!("{:?} {}", answer.headers, answer.text()));
        answer.status == 401
    })
    .await;
    until(async || get(daemon.proxy, "/key", &[]).await.status == 401).await;
    read.push(get(daemon.admin, "/metrics", &[]).await.text().to_owned());

    let sent = format!("{:?}", tokens.seen().iter().map(|seen| seen.body.clone()).collect::<Vec<_>>());
    assert!(sent.contains("password=hunter2-key") && sent.contains("accessKeySecret"), "what is sought was there: {sent}");
    let carried: Vec<_> = upstream.seen().into_iter().map(|seen| seen.headers["authorization"].clone()).collect();
    assert!(carried.iter().all(|authorization| authorization == "Bearer hunter2-token"), "{carried:?}");
    assert!(tokens.seen().iter().all(|seen| seen.target == "/token"), "nothing secret goes into a URL");

    daemon.signal("TERM");
    let (_, log) = daemon.ended().await;
    assert!(!log.is_empty());
    read.extend(log.iter().map(ToString::to_string));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &configuration).unwrap();
    for command in ["config", "check"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_cxgate")).args([command, "--config"]).arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        read.push(format!("{output:?}"));
    }
    let told: Vec<_> = read.iter().filter(|text| text.contains("hunter2")).collect();
    assert!(told.is_empty(), "{told:#?}");
}
