//! What of a route's configuration is counted beside its limits: sockets, and requests that wait.

use super::{refusal, unscaled};
use crate::{
    config::{self, Mode},
    gate::{
        waiting,
        websocket::{self, Close, Costs},
    },
    limiter::bucket::MICRO,
    metrics::{CloseLabels, MessageLabels, Metrics, PacedLabels, RouteLabels},
};

pub(super) fn socket_policy(config: &config::WebSocket, route: &config::Route, metrics: &Metrics) -> websocket::Policy {
    /// The most that a busy socket may reserve ahead, in tokens.
    const MOST_AHEAD: u64 = 16;
    let is_shadow = route.mode == Mode::Shadow;
    let paced = if is_shadow { "would_pace" } else { "paced" };
    let refused = refusal(route);
    let route = || route.name.clone();
    let messages = |decision| metrics.websocket_messages.get_or_create(&MessageLabels { route: route(), decision }).clone();
    let closes =
        |close: Close| metrics.websocket_closes.get_or_create(&CloseLabels { route: route(), code: close.code() }).clone();
    let ahead = if config.exact { 0 } else { u64::from(config.messages.capacity / 10).min(MOST_AHEAD) };
    websocket::Policy {
        id: format!("websockets/{}", route()),
        sockets: config.sockets,
        messages: unscaled(config.messages.into()),
        ahead: ahead * MICRO,
        costs: Costs::new(&config.costs),
        max_pause: config.max_pause,
        idle_timeout: config.idle_timeout,
        is_shadow,
        counters: websocket::Counters {
            open: metrics.websockets.get_or_create(&RouteLabels { route: route() }).clone(),
            admitted: messages("admitted"),
            paced: messages(paced),
            refused: messages(refused),
            closes: Close::ALL.map(closes),
        },
    }
}

pub(super) fn pacing_policy(configured: config::WhenLimited, route: &str, metrics: &Metrics) -> waiting::Policy {
    let labels = RouteLabels { route: route.to_owned() };
    let paced = |outcome| metrics.paced.get_or_create(&PacedLabels { route: route.to_owned(), outcome }).clone();
    waiting::Policy {
        configured,
        waiting: metrics.pacing_queue.get_or_create(&labels).clone(),
        waited: metrics.pacing_wait.get_or_create(&labels).clone(),
        served: paced("served"),
        left: paced("left"),
        refused: paced("refused"),
    }
}
