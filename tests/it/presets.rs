//! The presets in config/presets/, as they stand: valid, free of warnings, and doing what their comments say. Only addresses are
//! changed, and a budget where it would take hours to spend.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use cxgate::config::{Config, Endpoint, LimitKind, Rate, Sources, TokenBucket, load};
use hyper::{Method, Response};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    http::{Answer, get, get_as, send},
    soon,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, origin},
    token_server::TokenServer,
    until,
    websocket::{Socket, TEXT, echoing, masked},
};

const PRESETS: [&str; 4] = ["data-actions", "digital-engagement-egress", "digital-guest", "guest-webchat"];
const SECRETS: [(&str, &str); 2] = [("CXONE_CLIENT_SECRET", "hunter2"), ("CXONE_ACCESS_KEY_SECRET", "hunter3")];

fn file(name: &str) -> String {
    format!("config/presets/{name}.toml")
}

fn preset(name: &str) -> Config {
    let environment = SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let loaded = load(&Sources { file: Some(file(name).into()), environment }).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    loaded.config
}

/// A daemon by a preset, on the embedded store, in front of `upstream` alone.
fn start(name: &str, upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> TestGate {
    TestGate::start(upstream, |config| {
        let addresses = (config.listen.address, config.admin.address);
        *config = preset(name);
        (config.listen.address, config.admin.address) = addresses;
        config.store.redis = None;
        config.upstreams.values_mut().for_each(|server| server.url = origin(upstream));
        change(config);
    })
}

fn tokens_from(server: SocketAddr) -> impl FnOnce(&mut Config) {
    move |config| config.oauth.get_mut("cxone").unwrap().token_url.origin = origin(server)
}

/// Asks until it is refused, by a bucket that holds and gains so much.
async fn until_refused((capacity, rate): (f64, f64), ask: impl AsyncFn() -> Answer) -> Answer {
    let (began, mut passed) = (Instant::now(), 0.0);
    loop {
        let answer = soon(ask()).await;
        if answer.status == 429 {
            assert!(passed >= capacity, "{passed} passed");
            return answer;
        }
        assert_eq!(answer.status, 200);
        passed += 1.0;
        assert!(passed <= capacity + rate * began.elapsed().as_secs_f64(), "{passed} passed");
    }
}

#[test]
fn each_preset_passes_the_check_without_a_warning_and_names_its_variables_at_its_head() {
    let mut names: Vec<_> = fs::read_dir("config/presets").unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let tried: Vec<_> = PRESETS.iter().map(|name| PathBuf::from(file(name))).collect();
    assert_eq!(names, tried, "every one is tried here");
    for name in PRESETS {
        let mut check = Command::new(env!("CARGO_BIN_EXE_cxgate"));
        let checked = check.args(["check", "--config", &file(name)]).env_clear().envs(SECRETS).output().unwrap();
        let (output, error) = [checked.stdout, checked.stderr].map(|text| String::from_utf8(text).unwrap()).into();
        assert_eq!((checked.status.code(), error.as_str()), (Some(0), ""), "{name}");
        assert!(output.starts_with(&format!("{}: ok\n", file(name))) && !output.contains("warning"), "{output}");

        let text = fs::read_to_string(file(name)).unwrap();
        let schema = text.strip_prefix("#:schema ").unwrap().lines().next().unwrap();
        assert!(Path::new("config/presets").join(schema).is_file());
        let head = text.split("\n\n").next().unwrap();
        let variables = text.split("env = \"").skip(1).map(|rest| rest.split('"').next().unwrap());
        for variable in variables {
            assert!(head.contains(variable), "{name} does not name {variable} at its head");
        }
    }
}

#[tokio::test]
async fn guest_webchat_holds_a_guest_to_ten_and_follows_the_backend() {
    let upstream = StubUpstream::answering(|seen| {
        let load = seen.target == "/load";
        Response::new(if load { r#"{"cpu_utilization":100,"queue_depth":0}"# } else { "{}" }.into())
    });
    let upstream = upstream.await;
    let gate = start("guest-webchat", upstream.address, |config| {
        let endpoint = Endpoint { origin: origin(upstream.address), path_and_query: "/load".into() };
        config.load.get_mut("backend").unwrap().endpoint = Some(endpoint);
    });
    until(async || gate.metric(r#"cxgate_load_factor{signal="backend"}"#).await == "0.2").await;
    let page = [("x-client-id", "guest"), ("origin", "https://www.example.com")];
    let path = "/api/v2/conversations/webchat/messages";
    let refusal = until_refused((10.0, 2.0 * 0.2), async || get(gate.proxy, path, &page).await).await;
    assert_eq!(refusal.json()["limit"], "per-client");
    assert_eq!(refusal.header("access-control-allow-origin"), "https://www.example.com");
    assert_eq!(get_as(gate.proxy, path, "another").await.status, 200);
    let claim = until_refused((10.0, 2.0 * 0.2), async || get_as(gate.proxy, path, "trusted-analytics").await).await;
    assert_eq!(claim.status, 429, "not believed from here");
}

#[tokio::test]
async fn digital_guest_takes_the_sdks_three_kinds_of_traffic_to_their_hosts() {
    let [chat, authorize] = [StubUpstream::start().await, StubUpstream::start().await];
    let gateway = echoing().await;
    let gate = start("digital-guest", gateway.address(), |config| {
        for (name, address) in [("chat", chat.address), ("authorize", authorize.address)] {
            config.upstreams.get_mut(name).unwrap().url = origin(address);
        }
    });
    let page = ("origin", "https://www.example.com");
    let channel = "/chat/1.0/brand/1/channel/chat_1?locale=en";
    let preflight = [page, ("access-control-request-method", "GET"), ("access-control-request-headers", "x-trace-id")];
    let granted = send(gate.proxy, Method::OPTIONS, channel, &preflight, "").await;
    assert_eq!((granted.status.as_u16(), granted.header("access-control-allow-credentials")), (204, "true"));
    assert_eq!(get(gate.proxy, channel, &[page]).await.status, 200);
    let token = "/oauth/token?brandId=1&channelId=chat_1&visitorId=v-1";
    let ask = async || send(gate.proxy, Method::POST, token, &[page], "{}").await;
    let refusal = until_refused((10.0, 0.2), ask).await;
    assert_eq!(refusal.json()["limit"], "token-per-visitor");
    assert_eq!(refusal.header("access-control-allow-origin"), page.1);
    assert_eq!(chat.seen()[0].target, channel, "and no preflight");
    assert!(authorize.seen().iter().all(|seen| seen.target == token));

    let socket = "/?brandId=1&channelId=chat_1&visitorId=v-1&sdkVersion=3.3.0";
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(Socket::open(gate.proxy, socket, "nobody").await);
    }
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let sixth = get(gate.proxy, socket, &upgrade).await;
    assert_eq!((sixth.status.as_u16(), sixth.text()), (429, r#"{"error":"too_many_sockets"}"#));
}

#[tokio::test]
async fn digital_guest_slows_a_socket_down_above_the_sdks_own_ceiling_and_not_below_it() {
    let gateway = echoing().await;
    let gate = start("digital-guest", gateway.address(), |_| ());
    let mut socket = Socket::open(gate.proxy, "/?brandId=1&visitorId=v-1", "nobody").await;
    let messages = async |decision: &str| {
        gate.count(&format!(r#"cxgate_websocket_messages_total{{route="socket",decision="{decision}"}}"#)).await
    };
    let events = |count: usize| masked(TEXT, br#"{"action":"chatWindowEvent"}"#).repeat(count);
    socket.0.send(events(100)).await;
    for _ in 0..100 {
        socket.frame().await;
    }
    assert_eq!((messages("admitted").await, messages("paced").await), (100, 0));
    let began = Instant::now();
    socket.0.send(events(140)).await;
    for _ in 0..140 {
        socket.frame().await;
    }
    // No more than 100 were there again, and 20 come in a second.
    assert!(began.elapsed().as_secs_f64() >= 1.9, "{:?}", began.elapsed());
    assert!(messages("paced").await >= 30);
}

async fn invoke(proxy: SocketAddr, tenant: &str, action: &str) -> Answer {
    let named = [("authorization", "Bearer callers-own"), ("x-tenant-id", tenant)];
    let named = if tenant.is_empty() { &named[..1] } else { &named };
    send(proxy, Method::POST, &format!("/invoke/{action}"), named, r#"{"name":"a"}"#).await
}

#[tokio::test]
async fn data_actions_admits_a_hundred_a_minute_for_each_tenant_and_action_by_its_own_token() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    let gate = start("data-actions", upstream.address, tokens_from(tokens.stub.address));
    let answers: JoinSet<_> = (0..120).map(|_| invoke(gate.proxy, "acme", "close%20case")).collect();
    let answers = soon(answers.join_all()).await;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((passed.len(), refused.len()), (100, 20));
    for answer in refused {
        let retry_after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((30..=60).contains(&retry_after), "{retry_after}");
    }
    let timed =
        passed[0].headers.get_all("server-timing").iter().any(|value| value == r#"factor;desc="1", quota;desc="100""#);
    assert!(timed, "{:?}", passed[0].headers);
    for (tenant, action) in [("bolt", "close%20case"), ("acme", "open"), ("", "close%20case")] {
        assert_eq!(invoke(gate.proxy, tenant, action).await.status, 200);
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.headers["authorization"] == "Bearer token-1"));
    assert_eq!(seen[0].target, "/api/v2/webactions/close%20case/invoke");
    let [asked] = &tokens.stub.seen()[..] else { panic!("one fetch") };
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/oauth/token"));
    let form = "grant_type=client_credentials&client_id=CLIENT-ID&client_secret=hunter2&scope=webaction%3Aexecute";
    assert_eq!(asked.body, form);
}

#[tokio::test]
async fn data_actions_tries_what_was_not_done_again_under_one_charge() {
    let tries = std::sync::atomic::AtomicU16::new(0);
    let upstream = StubUpstream::answering(move |_| {
        let status = [429, 503, 200][usize::from(tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst))];
        Response::builder().status(status).body("{}".into()).unwrap()
    });
    let (upstream, tokens) = (upstream.await, TokenServer::start(3600).await);
    let gate = start("data-actions", upstream.address, tokens_from(tokens.stub.address));
    let answer = soon(send(gate.proxy, Method::POST, "/invoke/open", &[], r#"{"name":"a"}"#)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-ratelimit-remaining")), (200, "99"));
    assert_eq!(upstream.seen().len(), 3);
}

/// Leaves so much of the limit that every change of a contact is charged to, and nothing comes back.
fn updates_left(config: &mut Config, capacity: u32) {
    let limits = config.routes.iter_mut().flat_map(|route| &mut route.limits);
    for applied in limits.filter(|applied| applied.limit.name == "update-contact") {
        assert!(applied.shared);
        applied.limit.kind =
            LimitKind::TokenBucket(TokenBucket { capacity, refill_per_second: Rate::per_second(0.001).unwrap() });
    }
}

#[tokio::test]
async fn digital_engagement_charges_a_message_to_both_its_limits_or_to_none() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    let gate = start("digital-engagement-egress", upstream.address, |config| {
        tokens_from(tokens.stub.address)(config);
        updates_left(config, 5);
    });
    let post = async |path: &str| soon(send(gate.proxy, Method::POST, path, &[], "{}")).await;
    let (outbound, inbound) = ("/dfo/3.0/channels/sms_1/outbound", "/dfo/3.0/channels/sms_1/messages");
    for path in [outbound, outbound, inbound, inbound, "/dfo/3.0/contacts"] {
        assert_eq!(post(path).await.status, 200, "{path}");
    }
    for _ in 0..20 {
        for path in [outbound, inbound, "/dfo/3.0/contacts", "/dfo/3.0/contacts/7/status"] {
            let answer = post(path).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["limit"]), (429, &"update-contact".into()), "{path}");
        }
    }
    // 600 and 3600 can be there at once, of which two were taken; the refused took none.
    for (path, least, most) in [(outbound, 598, 600), (inbound, 3598, 3600)] {
        let standing = post(path).await;
        let left =
            standing.header("ratelimit").split(";r=").nth(1).unwrap().split([';', ',']).next().unwrap().parse::<u32>();
        assert!((least..=most).contains(&left.unwrap()), "{}", standing.header("ratelimit"));
    }
    assert_eq!(get(gate.proxy, "/dfo/3.0/contacts/7/messages", &[]).await.status, 200, "reading is another budget");
    let [asked] = &tokens.stub.seen()[..] else { panic!("one fetch") };
    assert_eq!(asked.headers["authorization"], "Basic Q0xJRU5ULUlEOmh1bnRlcjI=");
    assert_eq!(asked.body, "grant_type=password&username=ACCESS-KEY-ID&password=hunter3");
}

#[tokio::test(flavor = "multi_thread")]
async fn digital_engagement_has_what_is_over_the_limit_of_one_contact_wait_for_its_turn() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    let gate = start("digital-engagement-egress", upstream.address, tokens_from(tokens.stub.address));
    let (began, proxy) = (Instant::now(), gate.proxy);
    let changes: JoinSet<_> = (0..251).map(|_| change(proxy, 7)).collect();
    assert_eq!(change(proxy, 8).await, 200);
    assert!(soon(changes.join_all()).await.iter().all(|status| *status == 200));
    // 250 are there, and 17 come in a minute.
    assert!(began.elapsed().as_secs_f64() > 3.5, "{:?}", began.elapsed());
    assert!(gate.count(r#"cxgate_paced_total{route="update-contact",outcome="served"}"#).await >= 1);
    assert_eq!(upstream.seen().len(), 252);
}

async fn change(proxy: SocketAddr, contact: u32) -> u16 {
    send(proxy, Method::PUT, &format!("/dfo/3.0/contacts/{contact}/status"), &[], "{}").await.status.as_u16()
}
