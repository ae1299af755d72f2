//! What is exported, and what the upstream is told.

use cxgate::{
    config::{AccessClients, Secret},
    otlp::message::Span,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::{
    CHAT, PARENT, TRACE,
    collector::{Collector, digits, exporting_to, said},
    lines, logging_to, told,
};
use crate::support::{
    http::{get, get_as},
    soon,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    websocket::{Socket, echoing},
};

const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn of_kind(spans: &[Span], kind: i32) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

#[tokio::test]
async fn a_request_is_a_span_below_its_callers_with_its_limits_and_its_upstream_below_it() {
    let (folder, upstream, collector) =
        (tempfile::tempdir().unwrap(), StubUpstream::start().await, Collector::start().await);
    let path = folder.path().join("access.log");
    let gate = TestGate::start(upstream.address, |config| {
        exporting_to(config, collector.0.address);
        logging_to(config, &path);
        config.log.access.clients = AccessClients::Hashed;
        config.telemetry.headers.insert("X-Api-Key".to_owned(), Secret::new("hunter2"));
        config.telemetry.resource.insert("team".to_owned(), "chat".to_owned());
    });
    let fields = [("x-client-id", "alice"), ("traceparent", PARENT), ("tracestate", "a=1"), ("user-agent", "test/1")];
    assert_eq!(get(gate.proxy, &format!("{CHAT}/hello?token=top-secret"), &fields).await.status, 200);
    let spans = collector.until(3).await;
    let [server] = of_kind(&spans, SERVER)[..] else { panic!("{spans:?}") };
    let [decide] = of_kind(&spans, INTERNAL)[..] else { panic!("{spans:?}") };
    let [sent] = of_kind(&spans, CLIENT)[..] else { panic!("{spans:?}") };

    assert!(spans.iter().all(|span| digits(&span.trace_id) == TRACE), "{spans:?}");
    assert_eq!((digits(&server.parent_span_id).as_str(), server.flags), ("b7ad6b7169203331", 0x301));
    assert_eq!((&decide.parent_span_id, &sent.parent_span_id), (&server.span_id, &server.span_id));
    let told_upstream = &upstream.seen()[0].headers;
    assert_eq!(told(told_upstream, "traceparent"), format!("00-{TRACE}-{}-01", digits(&sent.span_id)));
    assert_eq!(told(told_upstream, "tracestate"), "a=1");

    assert_eq!((server.name.as_str(), decide.name.as_str(), sent.name.as_str()), ("GET guest-webchat", "decide", "GET"));
    let (route, path_shown) = ("guest-webchat", "/api/v2/engage/webchat/hello");
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", route),
        ("url.path", path_shown),
        ("url.scheme", "http"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "test/1"),
        ("client.address", "127.0.0.1"),
        ("cxgate.verdict", "admitted"),
        ("cxgate.cost", "1"),
    ] {
        assert_eq!(said(&server.attributes, name), value, "{name} in {server:?}");
    }
    assert_eq!(said(&sent.attributes, "http.response.status_code"), "200");
    let server_of_ours = (said(&sent.attributes, "server.address"), said(&sent.attributes, "server.port"));
    assert_eq!(server_of_ours, ("127.0.0.1".to_owned(), upstream.address.port().to_string()));
    let within = |inner: &Span, outer: &Span| {
        outer.start_time_unix_nano <= inner.start_time_unix_nano && inner.end_time_unix_nano <= outer.end_time_unix_nano
    };
    assert!(within(decide, server) && within(sent, server), "{spans:?}");
    assert!(decide.end_time_unix_nano <= sent.start_time_unix_nano, "{spans:?}");

    let line = &lines(&path, 1).await[0];
    assert_eq!((&line["trace_id"], &line["client_id"]), (&TRACE.into(), &said(&server.attributes, "cxgate.client").into()));
    assert_ne!(line["client_id"], "alice");
    let (headers, post) = &collector.posts()[0];
    assert_eq!(
        (told(headers, "x-api-key"), told(headers, "content-type")),
        ("hunter2".into(), "application/x-protobuf".into())
    );
    let resource = &post.resource_spans[0].resource.as_ref().unwrap().attributes;
    assert_eq!((said(resource, "service.name"), said(resource, "team")), ("cxgate".into(), "chat".into()));
    assert!(!format!("{post:?}").contains("top-secret") && !format!("{post:?}").contains("alice"), "{post:?}");
}

#[tokio::test]
async fn a_refusal_is_a_span_with_its_limit_and_none_of_an_upstream() {
    let (upstream, collector) = (StubUpstream::start().await, Collector::start().await);
    let gate = TestGate::start(upstream.address, |config| {
        exporting_to(config, collector.0.address);
        config.routes[0].limits[0].cost = 10;
    });
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.status, 200);
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.status, 429);
    assert_eq!(get(gate.proxy, "/nowhere", &[]).await.status, 404);
    let spans = collector.until(6).await;
    let [_, refused, nowhere] = of_kind(&spans, SERVER)[..] else { panic!("{spans:?}") };
    for (name, value) in [
        ("cxgate.verdict", "refused"),
        ("cxgate.limit", "per-client"),
        ("cxgate.code", "rate_limit_exceeded"),
        ("http.response.status_code", "429"),
    ] {
        assert_eq!(said(&refused.attributes, name), value, "{name} in {refused:?}");
    }
    let below = spans.iter().filter(|span| span.parent_span_id == refused.span_id).collect::<Vec<_>>();
    assert_eq!(below.iter().map(|span| span.kind).collect::<Vec<_>>(), [INTERNAL]);
    assert_eq!(said(&below[0].attributes, "cxgate.limit"), "per-client");
    // A client's mistake is no failure of ours.
    assert!(spans.iter().all(|span| span.status.is_none()), "{spans:?}");
    assert_eq!((nowhere.name.as_str(), said(&nowhere.attributes, "cxgate.code").as_str()), ("GET", "no_route"));
    assert!(nowhere.parent_span_id.is_empty());
}

#[tokio::test]
async fn an_upstream_that_fails_is_a_failure_of_both_spans() {
    let (nobody, collector) = (StubUpstream::start().await.address, Collector::start().await);
    let gate = TestGate::start(nobody, |config| exporting_to(config, collector.0.address));
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.status, 502);
    let spans = collector.until(3).await;
    for span in of_kind(&spans, SERVER).into_iter().chain(of_kind(&spans, CLIENT)) {
        assert_eq!(span.status.as_ref().unwrap().code, 2, "{span:?}");
        assert!(!said(&span.attributes, "error.type").is_empty(), "{span:?}");
    }
}

#[tokio::test]
async fn who_goes_away_before_the_answer_has_its_spans_too() {
    let (silent, collector) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Collector::start().await);
    let gate = TestGate::start(silent.local_addr().unwrap(), |config| exporting_to(config, collector.0.address));
    let mut client = TcpStream::connect(gate.proxy).await.unwrap();
    client.write_all(format!("GET {CHAT} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let _waiting = soon(silent.accept()).await.unwrap();
    drop(client);
    let spans = collector.until(3).await;
    let ([server], [sent]) = (&of_kind(&spans, SERVER)[..], &of_kind(&spans, CLIENT)[..]) else { panic!("{spans:?}") };
    assert_eq!(said(&server.attributes, "http.response.status_code"), "499");
    assert_eq!(said(&sent.attributes, "http.response.status_code"), "");
    assert!(sent.start_time_unix_nano < sent.end_time_unix_nano, "{sent:?}");
}

#[tokio::test]
async fn a_new_trace_is_sampled_by_the_ratio_and_a_callers_as_it_says() {
    let (folder, upstream, collector) =
        (tempfile::tempdir().unwrap(), StubUpstream::start().await, Collector::start().await);
    let path = folder.path().join("access.log");
    let gate = TestGate::start(upstream.address, |config| {
        exporting_to(config, collector.0.address);
        logging_to(config, &path);
        config.telemetry.sample_ratio = 0.0;
    });
    let unsampled = PARENT.replace("-01", "-00");
    get(gate.proxy, CHAT, &[]).await;
    get(gate.proxy, CHAT, &[("traceparent", "junk"), ("tracestate", "a=1")]).await;
    get(gate.proxy, CHAT, &[("traceparent", &unsampled), ("tracestate", "a=1")]).await;
    get(gate.proxy, CHAT, &[("traceparent", PARENT)]).await;
    let exported = collector.until(3).await;
    assert!(exported.len() == 3 && exported.iter().all(|span| digits(&span.trace_id) == TRACE), "{exported:?}");
    let seen = upstream.seen();
    let parents: Vec<String> = seen.iter().map(|seen| told(&seen.headers, "traceparent")).collect();
    assert!(parents[..3].iter().all(|parent| parent.len() == PARENT.len() && parent.ends_with("-00")), "{parents:?}");
    assert!(parents[2].contains(TRACE) && parents[3].contains(TRACE) && parents[3].ends_with("-01"), "{parents:?}");
    let states: Vec<String> = seen.iter().map(|seen| told(&seen.headers, "tracestate")).collect();
    assert_eq!(states, ["", "", "a=1", ""]);
    let logged = lines(&path, 4).await;
    for (line, parent) in logged.iter().zip(&parents) {
        assert_eq!(line["trace_id"], parent[3..35], "{line}");
    }
    assert_ne!(parents[0][3..35], parents[1][3..35]);
}

#[tokio::test]
async fn a_socket_has_the_spans_of_its_opening() {
    let (upstream, collector) = (echoing().await, Collector::start().await);
    let gate = TestGate::start(upstream.address(), |config| exporting_to(config, collector.0.address));
    let _socket = Socket::open(gate.proxy, CHAT, "alice").await;
    let spans = collector.until(3).await;
    let [server] = of_kind(&spans, SERVER)[..] else { panic!("{spans:?}") };
    assert_eq!(said(&server.attributes, "http.response.status_code"), "101");
    assert!(upstream.requests()[0].contains(&digits(&of_kind(&spans, CLIENT)[0].span_id)));
}
