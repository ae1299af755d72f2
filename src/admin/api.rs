//! The admin API: what there is, who may ask for it, and the answers. [`openapi.json`](super::OPENAPI) describes it.
//!
//! Promised: reading changes nothing; every change is one audit event with who asked, what was and what is, and never the
//! token; whatever is not answered says why, by a stable code.

use std::net::SocketAddr;

use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::info;

use super::{
    Admin, OPENAPI,
    access::Intent,
    answer::{Answer, Code, Refusal, json, text},
    changes::{Change, KINDS},
    engine::Engine,
    read::{self, Asked, Query, Reset},
};
use crate::{
    body::RequestBody,
    metrics::{AmendmentLabels, Metrics, WriteLabels},
};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Status,
    Routes,
    State,
    Reset,
    Explain,
    Usage,
    Clients,
    Amended,
    Amend,
    Restore,
    Trusted,
    Trust,
    Distrust,
    Suspended,
    Suspend,
    Resume,
    Drain,
    Reload,
    Description,
    Action,
}

/// Method, path and what it asks for. `{…}` stands for one segment.
const OPERATIONS: [(Method, &str, Operation); 20] = [
    (Method::GET, "/api/v1/status", Operation::Status),
    (Method::GET, "/api/v1/routes", Operation::Routes),
    (Method::GET, "/api/v1/keys", Operation::State),
    (Method::POST, "/api/v1/keys/reset", Operation::Reset),
    (Method::POST, "/api/v1/explain", Operation::Explain),
    (Method::GET, "/api/v1/usage", Operation::Usage),
    (Method::GET, "/api/v1/clients", Operation::Clients),
    (Method::GET, "/api/v1/limits", Operation::Amended),
    (Method::POST, "/api/v1/limits", Operation::Amend),
    (Method::DELETE, "/api/v1/limits/{route}/{limit}", Operation::Restore),
    (Method::GET, "/api/v1/whitelist", Operation::Trusted),
    (Method::POST, "/api/v1/whitelist", Operation::Trust),
    (Method::DELETE, "/api/v1/whitelist/{client}", Operation::Distrust),
    (Method::GET, "/api/v1/suspensions", Operation::Suspended),
    (Method::POST, "/api/v1/suspensions", Operation::Suspend),
    (Method::DELETE, "/api/v1/suspensions/{client}", Operation::Resume),
    (Method::POST, "/api/v1/drain", Operation::Drain),
    (Method::POST, "/api/v1/reload", Operation::Reload),
    (Method::GET, "/api/v1/openapi.json", Operation::Description),
    (Method::GET, "/metrics/{tenant}/{action}", Operation::Action),
];

/// The result of a change that was made.
const DONE: &str = "done";

/// Every method and path.
pub fn operations() -> impl Iterator<Item = (&'static str, &'static str)> {
    const { &OPERATIONS }.iter().map(|(method, path, _)| (method.as_str(), *path))
}

/// Has every change stand among the metrics before it is first asked for, or holds: how much a counter rose can be told only
/// of one that was there before, and an alert watches for guesses.
pub(super) fn announce(metrics: &Metrics) {
    let results = [DONE, Code::Unauthorized.as_str(), Code::TooManyAttempts.as_str()];
    for (.., operation) in OPERATIONS.iter().filter(|(.., operation)| operation.is_write()) {
        for result in results {
            let _ = metrics.admin_writes.get_or_create(&WriteLabels { action: operation.name(), result });
        }
    }
    for kind in KINDS {
        let _ = metrics.amendments.get_or_create(&AmendmentLabels { kind });
    }
}

/// Whether there is anything at a path.
pub fn knows(path: &str) -> bool {
    OPERATIONS.iter().any(|(_, template, _)| captured(template, path).is_some())
}

impl<E: Engine> Admin<E> {
    /// Answers a request for a path that the API [knows].
    pub(super) async fn api(&self, peer: SocketAddr, request: Request<RequestBody>) -> Answer {
        self.answer(peer, request).await.unwrap_or_else(Refusal::into_answer)
    }

    async fn answer(&self, peer: SocketAddr, request: Request<RequestBody>) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let there = || {
            OPERATIONS
                .iter()
                .filter_map(|(method, template, operation)| Some((method, *operation, captured(template, &path)?)))
        };
        let Some((_, operation, segments)) = there().find(|(allowed, ..)| *allowed == method) else {
            let allowed: Vec<&str> = there().map(|(method, ..)| method.as_str()).collect();
            return Err(Refusal::method_not_allowed(&allowed.join(", ").replace("GET", "GET, HEAD")));
        };
        let intent = if operation.is_write() { Intent::Write } else { Intent::Read };
        let admitted = self.0.access.admit(peer.ip(), request.headers(), intent, Instant::now());
        if intent == Intent::Read {
            admitted?;
            return self.read(operation, &segments, request).await;
        }
        let changed = match admitted {
            Ok(()) => self.change(operation, &segments, request).await.inspect_err(|refusal| {
                let (action, result) = (operation.name(), refusal.code.as_str());
                info!(event = "audit", address = %peer.ip(), action, result, "an operator's change was refused");
            }),
            Err(refusal) => Err(refusal),
        };
        let result = changed.as_ref().map_or_else(|refusal| refusal.code.as_str(), |_| DONE);
        self.0.metrics.admin_writes.get_or_create(&WriteLabels { action: operation.name(), result }).inc();
        if let Ok(Change { subject, old, new }) = &changed {
            let action = operation.name();
            info!(event = "audit", address = %peer.ip(), action, subject, %old, %new, result, "changed by an operator");
        }
        changed.map(|change| {
            let status = if operation == Operation::Drain { StatusCode::ACCEPTED } else { StatusCode::OK };
            json(status, &json!({"old": change.old, "new": change.new}))
        })
    }

    async fn read(&self, operation: Operation, segments: &[&str], request: Request<RequestBody>) -> Result<Answer, Refusal> {
        let inner = &*self.0;
        let query = |known: &[&str]| Query::read(request.uri().query(), known);
        let body = match operation {
            Operation::Description => return Ok(text(StatusCode::OK, "application/json", OPENAPI)),
            Operation::Status => inner.status(),
            Operation::Routes => inner.engine.routes(),
            Operation::State => inner.engine.state(&query(&["route", "limit", "value", "kind"])?.bucket()).await?,
            Operation::Usage => inner.engine.usage(&query(&["route", "limit", "cursor", "count"])?.page()?).await?,
            Operation::Clients => inner.clients(&query(&["order", "count"])?)?,
            Operation::Amended => inner.engine.amended(),
            Operation::Trusted => inner.trusted(),
            Operation::Suspended => inner.suspended(),
            Operation::Action => {
                let mut bucket = query(&["route", "limit"])?.bucket();
                bucket.values = segments.iter().map(|segment| read::segment(segment)).collect::<Result<_, _>>()?;
                inner.engine.action(&bucket).await?
            }
            Operation::Explain => {
                let (peer, request) = read::body::<Asked>(request.into_body()).await?.request()?;
                inner.engine.explain(peer, request).await
            }
            Operation::Reset
            | Operation::Amend
            | Operation::Restore
            | Operation::Trust
            | Operation::Distrust
            | Operation::Suspend
            | Operation::Resume
            | Operation::Drain
            | Operation::Reload => return Err(Refusal::not_found()),
        };
        Ok(json(StatusCode::OK, &body))
    }

    async fn change(
        &self,
        operation: Operation,
        segments: &[&str],
        request: Request<RequestBody>,
    ) -> Result<Change, Refusal> {
        let inner = &*self.0;
        match operation {
            Operation::Reset => {
                let bucket = read::body::<Reset>(request.into_body()).await?.bucket();
                let old = inner.engine.reset(&bucket).await?;
                let subject = old["bucket"]["key"].as_str().unwrap_or_default().to_owned();
                let new = inner.engine.state(&bucket).await.unwrap_or(Value::Null);
                Ok(Change { subject, old, new })
            }
            Operation::Amend => inner.amend(read::body(request.into_body()).await?).await,
            Operation::Restore => inner.restore(segments).await,
            Operation::Trust => inner.trust(read::body(request.into_body()).await?).await,
            Operation::Distrust => inner.distrust(segments).await,
            Operation::Suspend => inner.suspend(read::body(request.into_body()).await?).await,
            Operation::Resume => inner.resume(segments).await,
            Operation::Drain => {
                let state = |leaving| json!(if leaving { "draining" } else { "serving" });
                let old = state(inner.shutdown.is_leaving());
                inner.shutdown.leave();
                Ok(Change { subject: "daemon".to_owned(), old, new: state(true) })
            }
            Operation::Reload => {
                let (old, new) = inner.engine.reload().await?;
                Ok(Change { subject: "configuration".to_owned(), old, new })
            }
            _ => Err(Refusal::not_found()),
        }
    }
}

// === impl Operation ===

impl Operation {
    fn is_write(self) -> bool {
        self.name() != "read"
    }

    /// Stands in audit events and metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Amend => "amend",
            Self::Restore => "restore",
            Self::Trust => "trust",
            Self::Distrust => "distrust",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::Reload => "reload",
            _ => "read",
        }
    }
}

/// The segments that stand for `{…}` of a template; `None` where the path is another.
fn captured<'a>(template: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    let mut captured = Vec::new();
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(captured),
            (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => captured.push(found),
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_paths_of_its_own_shape() {
        let template = "/metrics/{tenant}/{action}";
        assert_eq!(captured(template, "/metrics/a%2Fb/c"), Some(vec!["a%2Fb", "c"]));
        for other in ["/metrics", "/metrics/a", "/metrics/a/", "/metrics//c", "/metrics/a/b/c", "/metric/a/b"] {
            assert_eq!(captured(template, other), None, "{other}");
        }
    }
}
