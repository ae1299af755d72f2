//! Collectors that are away, busy or unwilling: no request notices, and every span is counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cxgate::{app::App, config::Config, metrics::Metrics, shutdown::Shutdown};
use hyper::Response;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    CHAT,
    collector::{Collector, exporting_to},
};
use crate::support::{http::get, soon, stub_upstream::StubUpstream, test_gate::origin, until};

/// A daemon whose end can be awaited, and whose metrics outlive it.
struct Gate {
    proxy: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    run: JoinHandle<()>,
}

impl Gate {
    fn start(upstream: SocketAddr, collector: SocketAddr) -> Self {
        let mut config = Config::default();
        config.listen.address = "127.0.0.1:0".parse().unwrap();
        config.admin.address = "127.0.0.1:0".parse().unwrap();
        config.upstreams.get_mut("cxone").unwrap().url = origin(upstream);
        config.telemetry.timeout = Duration::from_millis(300);
        exporting_to(&mut config, collector);
        let app = App::bind(config).unwrap();
        let (proxy, metrics, shutdown) = (app.proxy_address(), app.metrics(), Shutdown::default());
        Self { proxy, metrics, run: tokio::spawn(app.run(shutdown.clone())), shutdown }
    }

    /// So many requests, each by a client of its own, answered by the upstream.
    async fn serve(&self, count: usize) {
        for number in 0..count {
            assert_eq!(get(self.proxy, CHAT, &[("x-client-id", &format!("client-{number}"))]).await.status, 200);
        }
    }

    async fn drain(self) -> Arc<Metrics> {
        self.shutdown.drain();
        soon(self.run).await.unwrap();
        self.metrics
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_slows_no_request_and_its_spans_are_counted_as_lost() {
    let upstream = StubUpstream::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = Gate::start(upstream.address, silent.local_addr().unwrap());
    gate.serve(40).await;
    let metrics = gate.drain().await;
    assert_eq!((metrics.spans_exported.get(), metrics.spans_dropped.get()), (0, 3 * 40));
}

#[tokio::test]
async fn what_is_there_when_the_daemon_drains_is_exported_first() {
    let (upstream, collector) = (StubUpstream::start().await, Collector::start().await);
    let gate = Gate::start(upstream.address, collector.0.address);
    gate.serve(5).await;
    let metrics = gate.drain().await;
    assert_eq!((collector.spans().len(), metrics.spans_exported.get(), metrics.spans_dropped.get()), (15, 15, 0));
}

#[tokio::test]
async fn a_busy_collector_gets_the_same_batch_again() {
    let was_busy = AtomicBool::new(false);
    let collector = StubUpstream::answering(move |_| {
        let busy = Response::builder().status(503).header("retry-after", "0").body("later".into()).unwrap();
        if was_busy.swap(true, Ordering::SeqCst) { Response::default() } else { busy }
    });
    let (upstream, collector) = (StubUpstream::start().await, Collector(collector.await));
    let gate = Gate::start(upstream.address, collector.0.address);
    gate.serve(1).await;
    until(async || gate.metrics.spans_exported.get() == 3).await;
    let posts = collector.posts();
    assert_eq!((posts.len(), &posts[0].1, gate.metrics.spans_dropped.get()), (2, &posts[1].1, 0));
}

#[tokio::test]
async fn spans_that_are_refused_or_not_wanted_are_lost_and_counted() {
    // A partial success: field 1, of length 2, in it field 1, the number 1.
    let partial = StubUpstream::answering(|_| Response::new(bytes::Bytes::from_static(&[0x0a, 2, 0x08, 1]).into()));
    let unwilling = StubUpstream::answering(|_| Response::builder().status(400).body("no".into()).unwrap());
    for (collector, taken) in [(partial.await, 2), (unwilling.await, 0)] {
        let upstream = StubUpstream::start().await;
        let gate = Gate::start(upstream.address, collector.address);
        gate.serve(1).await;
        until(async || gate.metrics.spans_exported.get() + gate.metrics.spans_dropped.get() == 3).await;
        assert_eq!((gate.metrics.spans_exported.get(), collector.seen().len()), (taken, 1));
    }
}
