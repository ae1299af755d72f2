//! `[[routes]]`, `[[routes.limits]]` and `[limits.NAME]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use config::Value;
use hyper::{Method, header::HeaderName};

use super::{
    Reader, delivery, egress, guests,
    kind::{MAX_CAPACITY, boolean, choice, duration, integer, name, parsed, rate, reference, text},
    load::Signal,
};
use crate::config::{
    Cooldown, Dimension, Limit, LimitKind, Mode, OAuth, Rate, Route, RouteLimit, SlidingWindow, TokenBucket, Upstream,
    dimension::is_parameter, url::parse_host,
};

/// Length of a sliding window: from what clocks can tell apart with ease to what a quota a day needs.
const WINDOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);

const COOLDOWNS: [(&str, Cooldown); 3] = [("off", Cooldown::Off), ("client", Cooldown::Client), ("route", Cooldown::Route)];

const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];

pub(super) fn route(
    table: &mut Reader<'_, '_>,
    upstreams: &BTreeMap<String, Upstream>,
    oauth: &BTreeMap<String, OAuth>,
    signals: &BTreeMap<String, Signal>,
    limits: &BTreeMap<String, Limit>,
) -> Route {
    Route {
        name: table.required("name", String::new(), route_name),
        paths: table.filled_list("paths", &String::new(), path),
        upstream: table.required("upstream", String::new(), reference("upstreams", upstreams)),
        methods: table.list("methods", Vec::new(), parsed("a method in capitals, other than CONNECT and TRACE", method)),
        host: table.optional("host", parsed("a host without scheme and port", parse_host)),
        cooldown: table.or("cooldown", Cooldown::Off, choice(&COOLDOWNS)),
        mode: table.or("mode", Mode::Enforce, choice(&MODES)),
        cors: table.optional_table("cors", guests::cors),
        websocket: table.optional_table("websocket", guests::websocket),
        rewrite: table.optional("rewrite", path),
        credentials: table.optional("credentials", reference("oauth", oauth)),
        forward_authorization_as: table
            .optional("forward_authorization_as", parsed("the name of a field that starts with x-", private_field)),
        refund_on: delivery::statuses(table, "refund_on"),
        server_timing: table.or("server_timing", false, boolean),
        retry: table.optional_table("retry", delivery::retry),
        when_limited: table.optional_table("when_limited", egress::when_limited),
        max_in_flight: table.optional_table("max_in_flight", egress::max_in_flight),
        limits: table.tables("limits", |limit| route_limit(limit, signals, limits)),
    }
}

fn route_limit(
    table: &mut Reader<'_, '_>,
    signals: &BTreeMap<String, Signal>,
    limits: &BTreeMap<String, Limit>,
) -> RouteLimit {
    let cost = table.or("cost", 1, integer(1..=MAX_CAPACITY.into()));
    if !table.has("use") {
        let name = table.required("name", String::new(), name);
        return RouteLimit { shared: false, limit: limit(table, name, signals), cost };
    }
    let name = table.required("use", String::new(), reference("limits", limits));
    for key in ["name", "per", "token_bucket", "sliding_window", "published", "scale_by", "default"] {
        table.refuse(key, "expected in the table that `use` names, not beside `use`");
    }
    let (kind, per) = (unlimited().into(), Vec::new());
    let unknown = Limit { name: name.clone(), per, kind, published: None, scale_by: Vec::new(), default: None };
    RouteLimit { shared: true, limit: limits.get(&name).cloned().unwrap_or(unknown), cost }
}

pub(super) fn limit(table: &mut Reader<'_, '_>, name: String, signals: &BTreeMap<String, Signal>) -> Limit {
    let dimension = r#""client", "address", "certificate", "bearer", "route", "path:NAME", "header:NAME" or "query:NAME""#;
    Limit {
        name,
        per: table.filled_list("per", &Dimension::Route, parsed(dimension, Dimension::parse)),
        kind: kind(table),
        published: table.optional_table("published", egress::published),
        scale_by: table.list("scale_by", Vec::new(), reference("load", signals)),
        default: table.optional("default", parsed("a text of 1 to 128 printable ASCII characters", default_value)),
    }
}

/// The one of the kinds that is there.
fn kind(table: &mut Reader<'_, '_>) -> LimitKind {
    let Some(window) = table.optional_table("sliding_window", sliding_window) else {
        return table.table("token_bucket", token_bucket).into();
    };
    table.refuse("token_bucket", "expected one of token_bucket and sliding_window");
    window.into()
}

fn sliding_window(table: &mut Reader<'_, '_>) -> SlidingWindow {
    SlidingWindow {
        quota: table.required("quota", MAX_CAPACITY, integer(1..=MAX_CAPACITY.into())),
        window: table.required("window", Duration::from_secs(1), duration(WINDOW)),
    }
}

pub(super) fn token_bucket(table: &mut Reader<'_, '_>) -> TokenBucket {
    let TokenBucket { capacity, refill_per_second } = unlimited();
    TokenBucket {
        capacity: table.required("capacity", capacity, integer(1..=MAX_CAPACITY.into())),
        refill_per_second: table.required("refill_per_second", refill_per_second, rate),
    }
}

/// What stands in for a bucket that could not be read: nothing else is wrong because of it.
fn unlimited() -> TokenBucket {
    TokenBucket { capacity: MAX_CAPACITY, refill_per_second: Rate::MAX }
}

// === kinds ===

/// A name other than the one under which metrics count requests without a route.
fn route_name(value: &Value) -> Result<String, String> {
    name(value).and_then(|name| if name == "none" { Err("a name other than \"none\"".to_owned()) } else { Ok(name) })
}

fn default_value(text: &str) -> Option<String> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && text.trim() == text;
    ((1..=128).contains(&text.len()) && printable).then(|| text.to_owned())
}

fn method(text: &str) -> Option<Method> {
    let well_formed = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| well_formed)?;
    (method != Method::CONNECT && method != Method::TRACE).then_some(method)
}

/// A field that neither HTTP nor the gate gives a meaning.
fn private_field(text: &str) -> Option<HeaderName> {
    let reserved = ["x-forwarded-", "x-request-id", "x-client-secret"];
    let name = text.to_ascii_lowercase();
    let own = name.starts_with("x-") && !reserved.iter().any(|reserved| name.starts_with(reserved));
    HeaderName::try_from(name).ok().filter(|_| own)
}

/// A path and everything below it, in the one form in which a request can have it.
fn path(value: &Value) -> Result<String, String> {
    let path = text(value).unwrap_or_default();
    let Some(below_root) = path.strip_prefix('/') else { return Err("a path that starts with /".to_owned()) };
    if path == "/" {
        return Ok(path.to_owned());
    }
    if path.len() > 1024 {
        return Err("a path of at most 1024 bytes".to_owned());
    }
    let mut captures = BTreeSet::new();
    for segment in below_root.split('/') {
        let capture = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match capture {
            Some(name) if !is_parameter(name) => {
                return Err("a path with captures such as {name} (1 to 64 letters, digits, -, _ or .)".into());
            }
            Some(name) if !captures.insert(name) => return Err("a path with each capture only once".into()),
            Some(_) => {}
            None => segment_is_plain(segment)?,
        }
    }
    Ok(path.to_owned())
}

fn segment_is_plain(segment: &str) -> Result<(), String> {
    let expected = if segment.is_empty() {
        "a path with no empty segment and no / at the end"
    } else if segment == "." || segment == ".." {
        "a path with no . or .. segment"
    } else if segment.contains(['{', '}']) {
        "a path whose captures fill a whole segment"
    } else if segment.contains(['?', '#', '%']) {
        "a path with no query, fragment or percent-encoding"
    } else if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)) {
        "a path of letters, digits and -._~!$&'()*+,;=:@ between slashes"
    } else {
        return Ok(());
    };
    Err(expected.to_owned())
}
