//! Raw requests and raw responses, one a file, replayed against the gate: what is ambiguous goes no further, no fault of a
//! client is told as a fault of ours, and nothing an upstream does reaches a neighbour.
//!
//! A request's file says which statuses answer it, in order, and then `close` where the connection must end. Where it goes
//! on, one more request proves that nobody has lost count.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cxgate::config::Config;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{http, raw_client::RawClient, raw_upstream::RawUpstream, soon, test_gate::TestGate};

pub mod case;
mod recorder;

use case::Case;
use recorder::Recorder;

const NEXT: &str = "/api/v2/engage/webchat/next";

/// How many cases run at a time.
const ABREAST: usize = 16;

#[tokio::test]
async fn no_request_of_the_corpus_is_let_through_wrongly() {
    let cases = case::all("requests");
    assert!(cases.len() >= 300, "{} requests", cases.len());
    check(cases, request).await;
}

#[tokio::test]
async fn no_response_of_the_corpus_reaches_a_client_wrongly() {
    let cases = case::all("responses");
    assert!(cases.len() >= 60, "{} responses", cases.len());
    check(cases, response).await;
}

/// Runs every case and names all that fail.
async fn check<F>(cases: Vec<Case>, run: impl Fn(Arc<Case>) -> F)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(ABREAST));
    let mut running = JoinSet::new();
    for case in cases {
        let case = Arc::new(case);
        let (places, run) = (Arc::clone(&places), run(Arc::clone(&case)));
        running.spawn(async move {
            let _place = places.acquire().await;
            // A panic is one more way to fail; the other cases go on.
            (case.name.clone(), tokio::spawn(run).await.unwrap_or_else(|panic| Err(panic.to_string())))
        });
    }
    let mut failed = BTreeMap::new();
    while let Some(done) = running.join_next().await {
        let (name, result) = done.unwrap();
        failed.extend(result.err().map(|error| (name, error)));
    }
    let list = failed.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{} failed:\n{list}", failed.len());
}

fn unlimited(config: &mut Config) {
    config.routes[0].limits.clear();
    config.listen.header_timeout = Duration::from_secs(2);
    config.listen.body_idle_timeout = Duration::from_secs(2);
    config.listen.max_body_bytes = 1024 * 1024;
}

/// Sends a request and compares what came of it with what is expected.
async fn request(case: Arc<Case>) -> Result<(), String> {
    let upstream = Recorder::start().await;
    let gate = TestGate::start(upstream.address, unlimited);
    let mut client = RawClient::connect(gate.proxy).await;
    // It may be refused, and the connection closed, before all of it is written.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &case.bytes).await;

    let (mut expected, closes) = split(&case);
    let mut answers = Vec::new();
    if closes {
        let (received, _) = client.rest().await;
        answers.extend(statuses(&received));
    } else {
        for _ in &expected {
            let mut answer = client.response().await;
            if answer.status == 100 {
                answer = client.response().await;
            }
            answers.push(answer.status);
        }
        let next = client.get(NEXT).await;
        if (next.status, next.text()) != (200, NEXT) {
            return Err(format!("out of step: {next:?}"));
        }
        expected.push(200);
        answers.push(200);
    }
    let seen = upstream.seen();
    let admitted = answers.iter().filter(|status| **status == 200).count();
    let began = case.key("begins").map_or(0, |count| count.parse().unwrap());
    let head = seen.heads.concat();
    let lacking = case.all_of("has").find(|text| !head.contains(text));
    let leaking = case.all_of("lacks").find(|text| head.contains(text));
    match () {
        () if answers != expected => Err(format!("expected {expected:?}, got {answers:?}")),
        () if answers.iter().any(|status| *status >= 500) => Err(format!("blames the server: {answers:?}")),
        () if !seen.unclean.is_empty() => Err(format!("{:?}", seen.unclean)),
        () if seen.heads.len() > admitted + began => Err(format!("{} sent upstream, {admitted} answered", seen.heads.len())),
        () if lacking.is_some() => Err(format!("lacks {lacking:?}: {head:?}")),
        () if leaking.is_some() => Err(format!("leaks {leaking:?}: {head:?}")),
        () => Ok(()),
    }
}

/// The statuses to come, and whether the connection is to end after them.
fn split(case: &Case) -> (Vec<u16>, bool) {
    let mut words = case.expected();
    let closes = words.pop_if(|word| *word == "close").is_some();
    (words.into_iter().map(|word| word.parse().unwrap()).collect(), closes)
}

/// The statuses of the responses in what was received to the end.
fn statuses(received: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(received);
    let finals = text.split("HTTP/1.").skip(1).filter_map(|response| response.get(2..5)?.parse().ok());
    finals.filter(|status| *status != 100).collect()
}

/// Lets the upstream give that response, and compares what the client got, and what the next client gets.
async fn response(case: Arc<Case>) -> Result<(), String> {
    let bytes = Arc::new(case.bytes.clone());
    let stays = case.key("then") != Some("close");
    let upstream = RawUpstream::start(move |number, mut connection| {
        let bytes = Arc::clone(&bytes);
        async move {
            if number == 0 && connection.request().await.is_some() {
                connection.send(&*bytes).await;
                while stays && connection.request().await.is_some() {
                    connection.answer("reused").await;
                }
            } else {
                while connection.request().await.is_some() {
                    connection.answer("fresh").await;
                }
            }
        }
    })
    .await;
    let gate = TestGate::start(upstream.address(), |config| {
        unlimited(config);
        config.upstreams.get_mut("cxone").unwrap().response_timeout = Duration::from_secs(2);
    });
    let method = case.key("method").unwrap_or("GET");
    let mut client = RawClient::connect(gate.proxy).await;
    client.send(format!("{method} {NEXT} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n")).await;
    let (received, in_order) = client.rest().await;
    let first = statuses(&received).first().copied();
    let outcome = match first {
        Some(status) if in_order => status.to_string(),
        _ => "aborted".to_owned(),
    };
    let neighbour = soon(http::get(gate.proxy, NEXT, &[])).await;
    let (expected, next) = match case.expected()[..] {
        [expected] => (expected, "fresh"),
        [expected, "kept"] => (expected, "reused"),
        _ => return Err("expect: STATUS, or `aborted`, or STATUS `kept`".to_owned()),
    };
    if (outcome.as_str(), neighbour.text()) != (expected, next) {
        let received = received.escape_ascii().to_string();
        return Err(format!("expected {expected} and {next}, got {outcome} and {}: {received:.300}", neighbour.text()));
    }
    match case.key("body") {
        Some(body) if !String::from_utf8_lossy(&received).contains(body) => {
            Err(format!("not its body: {}", received.escape_ascii()))
        }
        _ => Ok(()),
    }
}
