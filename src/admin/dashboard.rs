//! The dashboard: one page that shows how this replica does, drawn here and kept fresh by server-sent events.
//!
//! Promised: the page is complete without scripts; whoever may read `/metrics` may see it, and nobody else. Watching costs
//! those who decide nothing: what was counted is read once a second by a task of its own, whether anybody watches or not, and
//! at most [`WATCHERS`] watch at once. Each of them has the store asked once a second for at most [`LIMITS`] limits.
//! Not promised: what other replicas see.
//!
//! [`reading`] is one look at the metrics, [`history`] what came of many; [`view`] gathers, [`page`] and [`panels`] write it
//! down, [`charts`] draws.

use std::{
    convert::Infallible,
    fmt::Write as _,
    future::pending,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use serde_json::{Map, Value};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

pub mod charts;
pub mod history;
pub mod page;
pub mod panels;
pub mod reading;
pub mod view;
pub mod words;

use history::{History, Span};
use reading::Reading;
use view::View;

use super::{
    Admin,
    answer::{self, Code, Refusal},
    engine::Engine,
    read::Query,
};
use crate::{body::RequestBody, wire::fields::BringsFields};

/// Open streams of events; each costs a task and a page a second.
const WATCHERS: usize = 16;

/// Limits that are shown with what is used of them.
const LIMITS: usize = 30;

/// Buckets of each limit that are looked at: one question to the store.
const BUCKETS: usize = 5;

/// Clients of each list.
const CLIENTS: usize = 10;

/// From one look at the metrics, and one event, to the next.
const TICK: Duration = Duration::from_secs(1);

/// The seconds of which "now" is the mean.
const LATELY: usize = 10;

const STYLE: &str = include_str!("dashboard/style.css");
const SCRIPT: &str = include_str!("dashboard/script.js");
const ICON: &str = include_str!("dashboard/icon.svg");

/// Nothing but what this listener serves, and in no frame of another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page is made from.
pub(super) struct Dashboard {
    history: Mutex<History>,
    /// Looks at the metrics so far; each brings an event.
    looks: watch::Sender<u64>,
    watchers: Arc<Semaphore>,
}

/// The answer's body: all there is, or events as they come.
pub type DashboardBody = Either<Full<Bytes>, Events>;

/// Events as they come.
pub struct Events(mpsc::Receiver<Bytes>);

/// What can be asked for.
#[derive(Debug, Clone, Copy)]
enum Part {
    Page,
    Events,
    File(&'static str, &'static str),
}

/// Whether the dashboard is at a path.
pub(super) fn knows(path: &str) -> bool {
    Part::at(path).is_some()
}

impl<E: Engine> Admin<E> {
    /// Answers a request for a path that the dashboard [knows].
    pub(super) async fn dashboard(
        &self,
        address: std::net::IpAddr,
        request: Request<RequestBody>,
    ) -> Response<DashboardBody> {
        let mut response = match self.0.access.admit_browser(address, request.headers(), Instant::now()) {
            Ok(()) => self.show(&request).await,
            Err(refusal) => Err(refusal),
        }
        .unwrap_or_else(|refusal| refusal.into_answer().map(Either::Left));
        let is_unauthorized = response.status() == StatusCode::UNAUTHORIZED;
        let headers = response.headers_mut();
        if is_unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"cxgate\", charset=\"UTF-8\""));
        }
        guard(headers);
        response
    }

    async fn show(&self, request: &Request<RequestBody>) -> Result<Response<DashboardBody>, Refusal> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refusal::method_not_allowed("GET, HEAD"));
        }
        let span = match Query::read(request.uri().query(), &["span"])?.get("span") {
            None | Some("5m") => Span::Minutes,
            Some("1h") => Span::Hour,
            Some(_) => return Err(Refusal::new(Code::BadRequest, "span: expected 5m or 1h")),
        };
        match Part::at(request.uri().path()).ok_or_else(Refusal::not_found)? {
            Part::Page => {
                let document = page::document(&self.view(span).await).into_string();
                Ok(answer::text(StatusCode::OK, "text/html; charset=utf-8", document).map(Either::Left))
            }
            Part::File(content_type, text) => Ok(answer::text(StatusCode::OK, content_type, text).map(Either::Left)),
            Part::Events if request.method() == Method::HEAD => {
                Ok(answer::text(StatusCode::OK, "text/event-stream", "").map(Either::Left))
            }
            Part::Events => self.watch(span),
        }
    }

    fn watch(&self, span: Span) -> Result<Response<DashboardBody>, Refusal> {
        let place = Arc::clone(&self.0.dashboard.watchers).try_acquire_owned();
        let place = place.map_err(|_| Refusal::new(Code::NoRoom, "too many watch already"))?;
        // Whoever reads too slowly misses events, not what they tell: each tells all that changed since the last.
        let (sender, receiver) = mpsc::channel(1);
        let (admin, background) = (self.clone(), self.0.background.clone());
        self.0.background.spawn(async move {
            tokio::select! {
                () = admin.tell_changes(span, sender) => {}
                () = background.stopped() => {}
            }
            drop(place);
        });
        let mut response = Response::new(Either::Right(Events(receiver)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// One event after each look at the metrics, with the pieces that changed, until nobody listens. The time is among them, so that there always is
    /// something to tell by which a listener knows that the connection lives.
    async fn tell_changes(&self, span: Span, sender: mpsc::Sender<Bytes>) {
        let mut told: Vec<(&'static str, String)> = Vec::new();
        let mut looks = self.0.dashboard.looks.subscribe();
        looks.mark_changed();
        let mut before = format!("retry: 1000\nevent: version\ndata: {}\n\n", env!("CARGO_PKG_VERSION"));
        loop {
            tokio::select! {
                look = looks.changed() => if look.is_err() { return },
                () = sender.closed() => return,
            }
            let pieces = page::pieces(&self.view(span).await).into_iter();
            let pieces: Vec<_> = pieces.map(|(id, piece)| (id, piece.into_string())).collect();
            let changed = pieces.iter().filter(|piece| !told.contains(piece));
            let changed: Map<String, Value> = changed.map(|(id, text)| ((*id).to_owned(), text.as_str().into())).collect();
            let mut event = mem::take(&mut before);
            // Writing to a string cannot fail, and JSON has no line breaks of its own.
            let _ = write!(event, "data: {}\n\n", Value::Object(changed));
            if sender.send(event.into()).await.is_err() {
                return;
            }
            told = pieces;
        }
    }

    async fn view(&self, span: Span) -> View {
        let inner = &*self.0;
        let routes = inner.engine.routes();
        let mut consumption = Vec::new();
        for (route, limit) in names(&routes).into_iter().take(LIMITS) {
            if let Ok(busiest) = inner.engine.busiest(&route, &limit, BUCKETS).await {
                consumption.push(((route, limit), busiest));
            }
        }
        let history = inner.dashboard.history();
        View {
            span,
            now: unix_time(),
            columns: history.columns(span),
            limits: history.limits.clone(),
            signals: history.signals.clone(),
            lately: history.lately(LATELY),
            newest: history.lately(1),
            levels: history.levels(),
            moments: history.moments().cloned().collect(),
            status: inner.status(),
            routes,
            consumption,
            busiest: inner.busiest(CLIENTS),
            refused: inner.most_refused(CLIENTS),
        }
    }

    /// Reads once a second what was counted, and notes at once what changes; never returns.
    pub async fn observe(&self) {
        let (mut ticks, mut up) = (interval(TICK), self.0.limiter.up());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut last = Instant::now();
        loop {
            let is_due = tokio::select! {
                _ = ticks.tick() => true,
                () = changed(&mut up) => false,
            };
            self.note_changes();
            self.0.count_amendments();
            if is_due {
                let seconds = mem::replace(&mut last, Instant::now()).elapsed().as_secs_f64();
                let reading = Reading::of(&self.0.metrics.counted());
                self.0.dashboard.history().add(unix_time(), seconds, reading);
            }
            self.0.dashboard.looks.send_modify(|looks| *looks += 1);
        }
    }

    fn note_changes(&self) {
        let (now, status) = (unix_time(), self.0.status());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let store = text(&status["store"]["store"]);
        let is_away = matches!(store.as_str(), "local" | "allow" | "deny");
        let cause = if is_away { text(&status["store"]["last_failure"]) } else { String::new() };
        let mut history = self.0.dashboard.history();
        history.note(now, "configuration", text(&status["config_revision"]), String::new());
        history.note(now, "store", store, cause);
        history.note(now, "readiness", text(&status["status"]), String::new());
    }
}

// === impl Dashboard ===

impl Default for Dashboard {
    fn default() -> Self {
        Self { history: Mutex::default(), looks: watch::Sender::default(), watchers: Arc::new(Semaphore::new(WATCHERS)) }
    }
}

impl Dashboard {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Part ===

impl Part {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/dashboard" => Some(Self::Page),
            "/dashboard/events" => Some(Self::Events),
            "/dashboard/style.css" => Some(Self::File("text/css; charset=utf-8", STYLE)),
            "/dashboard/script.js" => Some(Self::File("text/javascript; charset=utf-8", SCRIPT)),
            "/dashboard/icon.svg" => Some(Self::File("image/svg+xml", ICON)),
            _ => None,
        }
    }
}

// === impl Events ===

impl BringsFields for Events {}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

/// Route and limit of every limit.
fn names(routes: &Value) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for route in routes["routes"].as_array().into_iter().flatten() {
        let limits = route["limits"].as_array().into_iter().flatten();
        names.extend(
            limits.filter_map(|limit| Some((route["route"].as_str()?.to_owned(), limit["limit"].as_str()?.to_owned()))),
        );
    }
    names
}

/// Has browsers load, frame and tell nothing beside what is here.
fn guard(headers: &mut HeaderMap) {
    let rules: [(HeaderName, &'static str); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    headers.extend(rules.map(|(name, rule)| (name, HeaderValue::from_static(rule))));
}

/// Resolves when a store that may be away is, or is back.
async fn changed(up: &mut watch::Receiver<bool>) {
    if up.changed().await.is_err() {
        pending::<()>().await;
    }
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
