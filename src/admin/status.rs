//! What the API tells of this replica: how it is, and whom it has seen.

use hyper::StatusCode;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Map, Value, json};

use super::{
    Inner,
    answer::{Answer, Code, Refusal, json as answer},
    read::Query,
};
use crate::{
    clients::Seen,
    config::{Config, OnFailure},
    limiter::{Status, key::Key},
    metrics::{CredentialsLabels, SignalLabels, UpstreamLabels},
};

/// What of the configuration is told.
pub(super) struct Facts {
    /// Tells one configuration from another.
    pub(super) revision: String,
    signals: Vec<String>,
    upstreams: Vec<(String, String)>,
    credentials: Vec<String>,
    /// The names of clients that are trusted, in lower case.
    pub(super) trusted: Vec<String>,
}

// === impl Facts ===

impl Facts {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            revision: config.revision(),
            signals: config.load.keys().cloned().collect(),
            upstreams: config.upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.url.to_string())).collect(),
            credentials: config.oauth.keys().cloned().collect(),
            trusted: config.whitelist.iter().map(|entry| entry.client.to_ascii_lowercase()).collect(),
        }
    }
}

// === impl Inner ===

impl<E> Inner<E> {
    /// Whether requests are decided, and where.
    fn readiness(&self) -> (&'static str, &'static str) {
        let (store, decides) = match self.limiter.status() {
            Status::Embedded => ("embedded", true),
            Status::Connected => ("redis", true),
            Status::Disconnected(OnFailure::Local) => ("local", true),
            Status::Disconnected(OnFailure::Allow) => ("allow", true),
            Status::Disconnected(OnFailure::Deny) => ("deny", false),
        };
        let status = match (self.shutdown.is_leaving(), decides) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "store_unavailable",
        };
        (status, store)
    }

    /// The answer of `/readyz`.
    pub(super) fn ready(&self, verbose: bool) -> Answer {
        let (status, store) = self.readiness();
        let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = if verbose { self.store() } else { json!({ "store": store }) };
        body["status"] = status.into();
        if verbose {
            body["config_revision"] = self.facts.load().revision.as_str().into();
        }
        answer(code, &body)
    }

    fn store(&self) -> Value {
        let report = self.limiter.report();
        json!({
            "store": self.readiness().1,
            "since_seconds": report.since.as_secs(),
            "replicas": report.replicas,
            "last_failure": report.last_failure.as_deref(),
            "denied": report.denied,
            "debts": report.debts,
            "buckets": report.buckets,
        })
    }

    pub(super) fn status(&self) -> Value {
        let Facts { revision, signals, upstreams, credentials, .. } = &**self.facts.load();
        let metrics = &self.metrics;
        let load: Map<String, Value> = signals
            .iter()
            .filter_map(|signal| {
                let factor = metrics.load_factor.get(&SignalLabels { signal: signal.clone() })?.get();
                Some((signal.clone(), json!({ "factor": factor })))
            })
            .collect();
        let connections = |upstream: &str| {
            metrics
                .upstream_connections
                .get(&UpstreamLabels { upstream: upstream.to_owned() })
                .map(|gauge| Gauge::get(&gauge))
        };
        let upstreams: Map<String, Value> = upstreams
            .iter()
            .map(|(name, url)| (name.clone(), json!({ "url": url, "connections": connections(name) })))
            .collect();
        let tokens: Map<String, Value> = credentials
            .iter()
            .filter_map(|name| {
                let end = metrics.oauth_token_end.get(&CredentialsLabels { credentials: name.clone() })?.get();
                Some((name.clone(), json!({ "token_ends_at": (end > 0.0).then_some(end) })))
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "config_revision": revision,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "status": self.readiness().0,
            "store": self.store(),
            "load": load,
            "upstreams": upstreams,
            "oauth": tokens,
            "amendments": self.amendments(),
        })
    }

    /// The busiest or most-refused clients of this replica.
    pub(super) fn clients(&self, query: &Query) -> Result<Value, Refusal> {
        let count = query.count()?;
        match query.get("order").unwrap_or("busiest") {
            "busiest" => Ok(self.busiest(count)),
            "refused" => Ok(self.most_refused(count)),
            _ => Err(Refusal::new(Code::BadRequest, "order: expected busiest or refused")),
        }
    }

    pub(super) fn busiest(&self, count: usize) -> Value {
        list(&self.clients.busiest(count))
    }

    pub(super) fn most_refused(&self, count: usize) -> Value {
        list(&self.clients.most_refused(count))
    }
}

fn list(seen: &[Seen]) -> Value {
    json!({ "clients": seen.iter().map(told).collect::<Vec<_>>() })
}

fn told(seen: &Seen) -> Value {
    let Seen { route, limit, id, name, per_second, refused_per_second, error_per_second, .. } = seen;
    json!({
        "route": &**route, "limit": &**limit, "key": Key(*id).to_string(), "name": &**name,
        "per_second": per_second, "refused_per_second": refused_per_second, "error_per_second": error_per_second,
    })
}
