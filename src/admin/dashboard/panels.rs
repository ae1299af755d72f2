//! The pieces of the page that are words and tables.

use std::time::Duration;

use maud::{Markup, html};
use serde_json::Value;

use super::{history::Point, view::View, words};

/// What stands over the columns of [`limits`].
pub const LIMIT_HEAD: &[&str] =
    &["Route", "Limit", "Refused", "Admitted", "Fullest bucket", "Admits", "Factor", "Counts by"];

/// What stands over the columns of [`clients`].
pub const CLIENT_HEAD: &[&str] = &["Client", "Requests", "Refused", "Route", "Limit"];

/// From when on the end of a token is worth a warning, in seconds: it is renewed well before.
const TOKEN_ENDS_SOON: f64 = 30.0;

/// How requests are decided, in one line that changes only when that does.
pub fn health(view: &View) -> Markup {
    let status = text(&view.status["status"]);
    let class = match status {
        "ready" if view.is_local() => "warning",
        "ready" => "good",
        _ => "bad",
    };
    let status = capital(&status.replace('_', " "));
    html! { span.mark.(class) aria-hidden="true" {} (status) ": " (decides(view)) }
}

/// What somebody should look at.
pub fn alerts(view: &View) -> Markup {
    let store = &view.status["store"];
    let [_, _, _, _, failed] = view.lately.outcomes;
    let changed = changed(view);
    let suspended = view.status["amendments"]["suspension"].as_u64().unwrap_or_default();
    html! {
        @if view.is_local() || text(&store["store"]) == "deny" {
            p.alert {
                b { "Redis is away. " } (capital(decides(view)))
                ", for " (words::lasting(store["since_seconds"].as_u64().unwrap_or_default()))
                @if let Some(cause) = store["last_failure"].as_str() { " (" (cause) ")" } "."
            }
        }
        @if text(&view.status["status"]) == "draining" {
            p.alert { b { "Draining. " } "Clients are sent elsewhere, and this process ends." }
        }
        @if failed > 0 {
            p.alert {
                b { "Requests fail. " }
                (words::per_second(view.lately.per_second(failed))) " were answered 5xx in the last 10 s."
            }
        }
        @if !changed.is_empty() {
            p.alert { b { "Limits are changed. " } (changed.join("; ")) "." }
        }
        @if suspended > 0 {
            p.alert { b { "Trust is suspended. " } "Trusted clients that are held to limits: " (suspended) "." }
        }
        @for (name, token) in object(&view.status["oauth"]) {
            @if token["token_ends_at"].as_f64().is_none_or(|end| end < seconds(view.now) + TOKEN_ENDS_SOON) {
                p.alert { b { "No token. " } "The credentials " (name) " have none that lasts." }
            }
        }
    }
}

/// What operators changed for a while, in words; the first few.
fn changed(view: &View) -> Vec<String> {
    /// The others stand in the table.
    const MOST: usize = 5;
    let limits = list(&view.routes["routes"]).flat_map(|route| list(&route["limits"]).map(move |limit| (route, limit)));
    let words = limits.filter(|(_, limit)| limit["amended"].is_object()).map(|(route, limit)| {
        let (route, name) = (text(&route["route"]), text(&limit["limit"]));
        format!("{route} · {name} admits {} for another {}", quota(limit), left(limit))
    });
    words.take(MOST).collect()
}

/// The numbers that say most.
pub fn now(view: &View) -> Markup {
    let (lately, levels) = (&view.lately, &view.levels);
    let all: u64 = lately.outcomes.iter().sum();
    let refused = lately.outcomes[1] + lately.outcomes[2];
    let time = |time: Option<f64>| time.map_or_else(|| "–".to_owned(), words::taken);
    html! {
        (tile("Requests", &words::per_second(lately.per_second(all))))
        (tile("Refused", &words::per_second(lately.per_second(refused))))
        (tile("Latency p50", &time(lately.whole.quantile(0.5))))
        (tile("Latency p99", &time(lately.whole.quantile(0.99))))
        (factor(view))
        (tile("In flight", &words::number(levels.in_flight)))
        (tile("Waiting", &words::number(levels.waiting)))
        (tile("Connections", &words::number(levels.connections)))
        (tile("WebSockets", &words::number(levels.websockets)))
    }
}

fn tile(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// The factor in force, of the signal that slows limits down most; and how low it has just been, where that was lower.
fn factor(view: &View) -> Markup {
    let signals = || 0..view.signals.len();
    let lowest =
        |point: &Point| signals().filter_map(|signal| point.factor(signal)).min_by(f64::total_cmp).map(words::number);
    let (now, lately) = (lowest(&view.newest), lowest(&view.lately));
    html! {
        div {
            dt { "Load factor" }
            dd {
                (now.as_deref().unwrap_or("–"))
                @if let Some(lately) = lately.filter(|lately| now.as_ref() != Some(lately)) {
                    small { " lowest in 10 s: " (lately) }
                }
            }
        }
    }
}

/// Each limit, and how much of it is used.
pub fn limits(view: &View) -> Markup {
    html! {
        @for route in list(&view.routes["routes"]) {
            @for limit in list(&route["limits"]) {
                (limit_row(view, text(&route["route"]), limit))
            }
        }
    }
}

fn limit_row(view: &View, route: &str, limit: &Value) -> Markup {
    let name = text(&limit["limit"]);
    let [admitted, refused] = view.decided(route, name);
    let per: Vec<&str> = list(&limit["per"]).map(text).collect();
    let buckets = view.consumption.iter().find(|((of_route, of_limit), _)| of_route == route && of_limit == name);
    let buckets = buckets.map_or(&Value::Null, |(_, buckets)| buckets);
    let fullest = list(buckets).max_by(|one, other| share(one).total_cmp(&share(other)));
    let factor = fullest.and_then(|bucket| bucket["factor"].as_f64());
    html! {
        tr {
            th scope="row" { (route) }
            td.name { (name) }
            td.number.hot[refused > 0.0] { (words::per_second(refused)) }
            td.number { (words::per_second(admitted)) }
            td.wide {
                @if let Some(bucket) = fullest { (used(bucket)) }
                @else if buckets.is_null() { "not known" }
                @else { "none in use" }
            }
            td.wide[limit["amended"].is_object()] {
                (quota(limit))
                @if limit["amended"].is_object() {
                    span.changed { " changed; " (quota(&limit["amended"]["configured"])) " again in " (left(limit)) }
                }
            }
            td { (factor.map_or_else(|| "–".to_owned(), words::number)) }
            td { (per.join(", ")) }
        }
    }
}

fn used(bucket: &Value) -> Markup {
    let (used, capacity) = (bucket["used"].as_u64().unwrap_or_default(), bucket["capacity"].as_f64().unwrap_or(1.0));
    let label = format!("{used} of {} used", words::number(capacity));
    html! {
        meter min="0" max=(capacity) high=(capacity * 0.8) value=(used) aria-label=(label) {}
        " " (label)
        @if !text(&bucket["name"]).is_empty() { " by " (text(&bucket["name"])) }
        @if let Some(wait) = bucket["fits_in_seconds"].as_f64().filter(|wait| *wait > 0.0) { "; next in " (words::taken(wait)) }
    }
}

/// For how much longer a limit is changed.
fn left(limit: &Value) -> String {
    words::lasting(limit["amended"]["seconds_left"].as_u64().unwrap_or_default())
}

fn quota(limit: &Value) -> String {
    let capacity = words::number(limit["capacity"].as_f64().unwrap_or_default());
    if text(&limit["kind"]) == "sliding_window" {
        format!("{capacity} in any {}", words::lasting(limit["window_seconds"].as_u64().unwrap_or_default()))
    } else {
        let refill = words::per_second(limit["refill_per_second"].as_f64().unwrap_or_default());
        format!("{capacity} at once, {refill}")
    }
}

/// The rows of a list of clients.
pub fn clients(listed: &Value) -> Markup {
    let rate = |client: &Value, field: &str| client[field].as_f64().unwrap_or_default();
    let seen = || list(&listed["clients"]).filter(|client| rate(client, "per_second") >= 0.005);
    html! {
        @for client in seen() {
            tr {
                th scope="row" { (text(&client["name"])) }
                td.number { (words::per_second(rate(client, "per_second"))) }
                td.number.hot[rate(client, "refused_per_second") >= 0.005] {
                    (words::per_second(rate(client, "refused_per_second")))
                }
                td { (text(&client["route"])) }
                td { (text(&client["limit"])) }
            }
        }
        @if seen().next().is_none() { tr { td colspan=(CLIENT_HEAD.len()) { "none" } } }
    }
}

/// What became of what, and when.
pub fn moments(view: &View) -> Markup {
    html! {
        @for moment in &view.moments {
            tr {
                th scope="row" {
                    (words::clock(moment.at))
                    span.ago { " " (words::lasting(view.now.saturating_sub(moment.at))) " ago" }
                }
                td { (moment.subject) }
                td { (moment.state) }
                td.wide { (moment.cause) }
            }
        }
    }
}

/// The parts that have a state of their own.
pub fn parts(view: &View) -> Markup {
    let store = &view.status["store"];
    let count = |field: &str| store[field].as_u64().unwrap_or_default();
    html! {
        (part("Store", &html! {
            (decides(view)) ", for " (words::lasting(count("since_seconds")))
            "; replicas: " (count("replicas")) "; buckets here: " (count("buckets"))
            @if count("denied") > 0 { "; refusals remembered: " (count("denied")) }
            @if count("debts") > 0 { "; charges to repeat: " (count("debts")) }
        }))
        @for (name, load) in object(&view.status["load"]) {
            @let factor = load["factor"].as_f64().unwrap_or_default();
            (part(&format!("Load signal {name}"), &html! { "factor " (words::number(factor)) }))
        }
        @for (name, upstream) in object(&view.status["upstreams"]) {
            @let connections = upstream["connections"].as_i64().unwrap_or_default();
            (part(&format!("Upstream {name}"), &html! { (text(&upstream["url"])) "; connections: " (connections) }))
        }
        @for (name, token) in object(&view.status["oauth"]) {
            @let end = token["token_ends_at"].as_f64();
            @let left = end.and_then(|end| Duration::try_from_secs_f64(end - seconds(view.now)).ok());
            (part(&format!("Credentials {name}"), &html! {
                @match left {
                    Some(left) => { "token ends in " (words::lasting(left.as_secs())) },
                    None => "no token",
                }
            }))
        }
    }
}

fn part(name: &str, state: &Markup) -> Markup {
    html! { tr { th scope="row" { (name) } td.wide { (state) } } }
}

/// Which program this is, and with what it runs.
pub fn facts(view: &View) -> Markup {
    let status = &view.status;
    html! {
        "cxgate " (text(&status["version"])) " · configuration " code { (text(&status["config_revision"])) }
        " · up " (words::lasting(status["uptime_seconds"].as_u64().unwrap_or_default())) " · " time { (words::clock(view.now)) " UTC" }
    }
}

// === impl View ===

impl View {
    /// Whether requests are decided, but not by Redis.
    fn is_local(&self) -> bool {
        matches!(text(&self.status["store"]["store"]), "local" | "allow")
    }
}

fn decides(view: &View) -> &'static str {
    match text(&view.status["store"]["store"]) {
        "embedded" => "the embedded store decides",
        "redis" => "Redis decides",
        "local" => "this process decides in place of Redis",
        "allow" => "everything passes in place of Redis",
        _ => "nothing passes without Redis",
    }
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

fn share(bucket: &Value) -> f64 {
    bucket["used"].as_f64().unwrap_or_default() / bucket["capacity"].as_f64().unwrap_or(1.0).max(1.0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[expect(clippy::cast_precision_loss, reason = "a time of this age is exact")]
fn seconds(at: u64) -> f64 {
    at as f64
}
