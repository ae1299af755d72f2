//! Replicas that share one Redis are one gate: together they admit what one limit allows.

use std::{sync::Arc, time::Duration};

use cxgate::{config::OnFailure, limiter::Decision};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    oracle::{Oracle, tokens},
    redis_server::RedisServer,
    rig::{Rig, steady, token},
};

const CALLERS: usize = 96;
const TIME: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_and_96_callers_of_one_key_never_exceed_its_limit() {
    let server = RedisServer::start();
    let mut rigs = Vec::new();
    for _ in 0..3 {
        // Only Redis is to decide here, however busy the machine.
        let rig = Rig::patient(&server, OnFailure::Deny).await;
        rigs.push(rig);
    }
    let oracle = Oracle::new();
    let end = Instant::now() + TIME;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (limiter, oracle) = (Arc::clone(&rigs[caller % rigs.len()].limiter), oracle.clone());
        callers.spawn(async move {
            let limit = steady(tokens(50), tokens(100));
            loop {
                let sent = Instant::now();
                if sent > end {
                    return;
                }
                match limiter.decide(&[token(&limit, "client")]).await {
                    Decision::Admitted { .. } => oracle.admitted(sent),
                    Decision::Refused { .. } => tokio::task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    callers.join_all().await;
    let excess = oracle.excess(50, 100.0);
    // That much was offered all the time, so nearly all of it is used.
    assert!(oracle.count() >= 250, "{} admitted", oracle.count());
    assert!(excess <= 1.0, "E is {excess}");
    for rig in rigs {
        rig.stop().await;
    }
}
