//! Where a limit's tenant comes from, and that no two tenants are ever one.

use cxgate::config::{ClientCertificates, Dimension, Rate, TokenBucket};
use hyper::StatusCode;

use crate::support::{
    certificates::Authority,
    http::{Answer, get},
    http2,
    redis_server::RedisServer,
    soon,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

const PATH: &str = "/invoke/report";

fn header(name: &str) -> Dimension {
    Dimension::Header(name.parse().unwrap())
}

fn one_for_ever() -> TokenBucket {
    TokenBucket { capacity: 1, refill_per_second: Rate::per_second(0.000_001).unwrap() }
}

/// One request for each tenant, for ever.
async fn gate(upstream: &StubUpstream, redis: &RedisServer, per: Vec<Dimension>, default: Option<&str>) -> TestGate {
    TestGate::on_redis(upstream.address, redis, |config| {
        let route = &mut config.routes[0];
        route.paths = vec!["/invoke/{action}".to_owned()];
        let limit = &mut route.limits[0].limit;
        (limit.per, limit.default, limit.scale_by) = (per, default.map(str::to_owned), Vec::new());
        limit.kind = one_for_ever().into();
    })
    .await
}

async fn passes(gate: &TestGate, path: &str, headers: &[(&str, &str)]) -> bool {
    let answer = get(gate.proxy, path, headers).await;
    assert!([200, 429].contains(&answer.status.as_u16()), "{}", answer.text());
    answer.status == StatusCode::OK
}

fn is_refused_as(answer: &Answer, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.text()), (400, format!(r#"{{"error":"{code}"}}"#).as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_cannot_be_moved_from_one_part_of_a_key_to_the_next() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = gate(&upstream, &redis, vec![header("x-tenant-id"), header("x-action")], None).await;
    for (tenant, action) in [("a:b", "c"), ("a", "b:c"), ("a:", "b:c"), ("a", "b"), ("ab", ":c"), ("a/b", "c"), ("a,b", "c")]
    {
        let named = [("x-tenant-id", tenant), ("x-action", action)];
        assert!(passes(&gate, PATH, &named).await, "{named:?} is another tenant's");
        assert!(!passes(&gate, PATH, &named).await, "{named:?} has had its request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_spelt_otherwise_is_the_same_tenant() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let by_header = gate(&upstream, &redis, vec![header("x-tenant-id")], None).await;
    assert!(passes(&by_header, PATH, &[("x-tenant-id", "Acme")]).await);
    for spelt in ["acme", "ACME", " acme\t"] {
        assert!(!passes(&by_header, PATH, &[("x-tenant-id", spelt)]).await, "{spelt:?}");
    }
    assert!(passes(&by_header, PATH, &[("x-tenant-id", "%61cme")]).await, "fields have no percent-encoding");

    let by_path = gate(&upstream, &redis, vec![Dimension::Path("action".to_owned())], None).await;
    assert!(passes(&by_path, "/invoke/Bolt", &[]).await);
    for spelt in ["/invoke/bolt", "/invoke/%62olt", "/invoke/BOL%54/more"] {
        assert!(!passes(&by_path, spelt, &[]).await, "{spelt}");
    }
    let by_query = gate(&upstream, &redis, vec![Dimension::Query("tenant".to_owned())], None).await;
    assert!(passes(&by_query, "/invoke/x?tenant=Cash", &[]).await);
    assert!(!passes(&by_query, "/invoke/x?tenant=%43ash", &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_is_a_tenant_by_its_credential_exactly() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = gate(&upstream, &redis, vec![Dimension::Bearer], None).await;
    for credential in ["Bearer abc", "Bearer Abc", "Bearer abcd"] {
        assert!(passes(&gate, PATH, &[("authorization", credential)]).await, "{credential}");
        assert!(!passes(&gate, PATH, &[("authorization", credential)]).await, "{credential}");
    }
    is_refused_as(&get(gate.proxy, PATH, &[]).await, "limit_key_missing");
    let mut client = redis.client().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert!(keys.iter().all(|key| !key.contains("abc")), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_no_tenant_is_refused_or_the_default_tenant() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let per = || vec![header("x-tenant-id")];
    let strict = gate(&upstream, &redis, per(), None).await;
    is_refused_as(&get(strict.proxy, PATH, &[]).await, "limit_key_missing");
    is_refused_as(&get(strict.proxy, PATH, &[("x-tenant-id", " ")]).await, "limit_key_missing");
    is_refused_as(&get(strict.proxy, PATH, &[("x-tenant-id", "a"), ("x-tenant-id", "b")]).await, "identity_ambiguous");
    assert!(upstream.seen().is_empty());

    let lenient = gate(&upstream, &redis, per(), Some("Shared")).await;
    assert!(passes(&lenient, PATH, &[]).await);
    assert!(!passes(&lenient, PATH, &[("x-tenant-id", "")]).await);
    assert!(!passes(&lenient, PATH, &[("x-tenant-id", "shared")]).await, "as if it had said so");
    assert!(passes(&lenient, PATH, &[("x-tenant-id", "acme")]).await);
    let unproved = gate(&upstream, &redis, vec![Dimension::Certificate], None).await;
    is_refused_as(&get(unproved.proxy, PATH, &[]).await, "limit_key_missing");
}

#[tokio::test]
async fn a_certificate_is_a_tenant_by_its_subject() {
    let (upstream, authority) = (StubUpstream::start().await, Authority::new());
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::Request);
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.tls = Some(tls);
        let limit = &mut config.routes[0].limits[0].limit;
        limit.per = vec![Dimension::Certificate];
        limit.kind = one_for_ever().into();
    });
    let [reports, guest] = ["Reports", "guest"].map(|name| authority.sign(name));
    for (certificate, expected) in
        [(Some(&reports), 200), (Some(&reports), 429), (Some(&guest), 200), (Some(&guest), 429), (None, 400)]
    {
        let stream = authority.connect(gate.proxy, &["h2"], certificate).await.unwrap();
        let mut client = http2::client(stream).await;
        let answer = soon(client.send_request(http2::get("/api/v2/engage/webchat"))).await.unwrap();
        assert_eq!(answer.status(), expected);
    }
}
