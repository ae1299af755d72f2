//! A collector that takes spans over a real socket.

use std::net::SocketAddr;

use cxgate::{
    config::{Config, Endpoint},
    otlp::message::{ExportTraceServiceRequest, KeyValue, Span, any_value::Value},
};
use hyper::HeaderMap;
use prost::Message;

use crate::support::{stub_upstream::StubUpstream, test_gate::origin, until};

/// Listens until dropped.
pub struct Collector(pub StubUpstream);

impl Collector {
    /// Takes whatever comes.
    pub async fn start() -> Self {
        Self(StubUpstream::answering(|_| hyper::Response::default()).await)
    }

    /// Every post so far.
    pub fn posts(&self) -> Vec<(HeaderMap, ExportTraceServiceRequest)> {
        let seen = self.0.seen().into_iter().inspect(|seen| assert_eq!(seen.target, "/v1/traces"));
        seen.map(|seen| (seen.headers, ExportTraceServiceRequest::decode(seen.body).unwrap())).collect()
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        let resources = self.posts().into_iter().flat_map(|(_, post)| post.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The spans, once there are so many.
    pub async fn until(&self, count: usize) -> Vec<Span> {
        until(async || self.spans().len() >= count).await;
        self.spans()
    }
}

/// Has spans exported to `collector`.
pub fn exporting_to(config: &mut Config, collector: SocketAddr) {
    config.telemetry.endpoint = Some(Endpoint { origin: origin(collector), path_and_query: "/v1/traces".to_owned() });
}

/// What attributes say of `name`; empty where they say nothing.
pub fn said(attributes: &[KeyValue], name: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == name).and_then(|attribute| attribute.value.clone());
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        None => String::new(),
    }
}

/// An id in hexadecimal digits.
pub fn digits(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
