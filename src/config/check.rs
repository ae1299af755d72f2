//! What no key can be wrong about alone: how they fit together.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    Config, Dimension, Limit, LimitKind, MAX_LIMITS_PER_ROUTE, Published, Route, report::Report, value::duration_text,
};

/// Reports what does not fit together.
pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    check_addresses(config, report);
    check_telemetry(config, cfg!(feature = "otel"), report);
    for (index, route) in config.routes.iter().enumerate() {
        let key = format!("routes[{index}]");
        if config.routes[..index].iter().any(|earlier| earlier.name == route.name) {
            report.wrong(
                &format!("{key}.name"),
                Some(format!("{:?}", route.name)),
                "expected a name that no other route has",
            );
        }
        check_limits(&key, config, route, report);
        check_pauses(&key, route, report);
        check_delivery(&key, route, report);
        check_paths(&key, route, &config.routes[..index], report);
    }
}

/// What can be meant, but hardly is.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let open = config
        .whitelist
        .iter()
        .filter(|trusted| trusted.networks.is_empty() && trusted.certificate.is_none() && trusted.secret.is_none());
    let open = open.map(|trusted| {
        format!(
            "whitelist: {:?} has neither networks nor a certificate nor a secret, so anyone can claim that identity",
            trusted.client
        )
    });
    let stale = config.load.iter().filter(|(_, load)| load.stale_after < load.interval);
    let stale =
        stale.map(|(name, _)| format!("load.{name}: stale_after is shorter than interval, so samples expire between polls"));
    let unheard = config.listen.proxy_protocol && config.listen.trusted_proxies.is_empty();
    let unheard = unheard.then(|| "listen: proxy_protocol does nothing while trusted_proxies is empty".to_owned());
    let plain =
        config.oauth.iter().filter(|(_, oauth)| !oauth.token_url.origin.tls && !is_local(&oauth.token_url.origin.host));
    let plain =
        plain.map(|(name, _)| format!("oauth.{name}: token_url is not https, so secrets cross the network in the clear"));
    let telemetry = &config.telemetry;
    let bare = telemetry.endpoint.as_ref().filter(|endpoint| !endpoint.origin.tls && !is_local(&endpoint.origin.host));
    let bare = bare.filter(|_| !telemetry.headers.is_empty());
    let bare = bare.map(|_| "telemetry: endpoint is not https, so headers cross the network in the clear".to_owned());
    let own = |route: &'_ Route| {
        let limits = route.limits.iter().filter(|applied| !applied.shared);
        let above = limits.filter_map(|applied| above_published(&format!("route {:?}", route.name), &applied.limit));
        above.collect::<Vec<_>>()
    };
    let shared = config.limits.values().filter_map(|limit| above_published("limits", limit));
    let above = shared.chain(config.routes.iter().flat_map(own));
    open.chain(stale).chain(unheard).chain(plain).chain(bare).chain(above).collect()
}

/// What a bucket admits in one window above the quota that is published for it, and what to write instead. A window admits
/// what it says.
fn above_published(place: &str, limit: &Limit) -> Option<String> {
    let (Some(published), LimitKind::TokenBucket(bucket)) = (limit.published, limit.kind) else { return None };
    let admitted = published.admitted_by(bucket);
    let Published { quota, window } = published;
    (admitted > f64::from(quota)).then(|| {
        let (capacity, rate) = published.bucket();
        let window = duration_text(window);
        format!(
            "{place}, limit {:?}: {} + {}/s admits {admitted} in the first {window}, and {quota} are published; write \
             token_bucket = {{ capacity = {capacity}, refill_per_second = {rate} }} or sliding_window = {{ quota = {quota}, \
             window = \"{window}\" }}",
            limit.name,
            bucket.capacity,
            bucket.refill_per_second.as_f64(),
        )
    })
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn check_addresses(config: &Config, report: &mut Report<'_>) {
    let (listen, admin) = (config.listen.address, config.admin.address);
    if !admin.ip().is_loopback() && config.admin.token.is_none() && !report.is_wrong("admin.token") {
        let expected = "expected a loopback address, or admin.token to be set";
        report.wrong("admin.address", Some(format!("\"{admin}\"")), expected);
    }
    if collide(listen, admin) {
        // Where one is the default, the other is at fault.
        let (key, address, other) = if report.is_given("admin.address") {
            ("admin.address", admin, format!("listen.address ({listen})"))
        } else {
            ("listen.address", listen, format!("admin.address ({admin})"))
        };
        report.wrong(key, Some(format!("\"{address}\"")), format!("expected an address that {other} does not take"));
    }
}

/// Reports what a build that does not export traces cannot do.
pub(super) fn check_telemetry(config: &Config, exports: bool, report: &mut Report<'_>) {
    if let Some(endpoint) = config.telemetry.endpoint.as_ref().filter(|_| !exports) {
        let problem = "this build exports no traces; one with them is made by `cargo build --release --features otel`";
        report.wrong("telemetry.endpoint", Some(format!("\"{endpoint}\"")), problem);
    }
}

/// Whether the two cannot both be bound.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_address = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_address
}

fn check_limits(key: &str, config: &Config, route: &Route, report: &mut Report<'_>) {
    for (index, applied) in route.limits.iter().enumerate() {
        let (limit, key) = (&applied.limit, format!("{key}.limits[{index}]"));
        let [name_key, per_key] = if applied.shared { ["use", "use"] } else { ["name", "per"] };
        if route.limits[..index].iter().any(|earlier| earlier.limit.name == limit.name) {
            let value = Some(format!("{:?}", limit.name));
            report.wrong(&format!("{key}.{name_key}"), value, "expected a limit of another name than the route's others");
        }
        let most = limit.kind.most();
        if applied.cost > most {
            let expected = match limit.kind {
                LimitKind::TokenBucket(_) => format!("expected at most the capacity, {most}"),
                LimitKind::SlidingWindow(_) => format!("expected at most the quota, {most}"),
            };
            report.wrong(&format!("{key}.cost"), Some(applied.cost.to_string()), expected);
        }
        if let Some(expected) = signals_that_do_not_mix(config, limit) {
            let key = if applied.shared { format!("{key}.use") } else { format!("{key}.scale_by") };
            report.wrong(&key, None, expected);
        }
        for name in captures_that_are_missing(limit, route) {
            let expected = format!("expected every path of the route to capture {{{name}}}, because of \"path:{name}\"");
            report.wrong(&format!("{key}.{per_key}"), None, expected);
        }
    }
    if route.limits.len() > MAX_LIMITS_PER_ROUTE {
        report.wrong(&format!("{key}.limits"), None, format!("expected at most {MAX_LIMITS_PER_ROUTE} limits"));
    }
}

/// A bucket runs on one clock, which one record in the store keeps: that of the polled signals, or that of the tenant.
fn signals_that_do_not_mix(config: &Config, limit: &Limit) -> Option<&'static str> {
    let measured = limit.scale_by.iter().filter(|signal| config.latency.contains_key(*signal)).count();
    let polled = limit.scale_by.len() - measured;
    (measured > 1).then_some("expected at most one signal that is measured").or_else(|| {
        let mixed = measured > 0 && polled > 0;
        mixed.then_some("expected signals that are polled, or one that is measured: a token bucket cannot follow both")
    })
}

/// A pause is silence too.
fn check_pauses(key: &str, route: &Route, report: &mut Report<'_>) {
    if let Some(websocket) = &route.websocket
        && websocket.idle_timeout <= websocket.max_pause
    {
        report.wrong(&format!("{key}.websocket.idle_timeout"), None, "expected longer than max_pause");
    }
}

fn captures_that_are_missing<'a>(limit: &'a Limit, route: &'a Route) -> impl Iterator<Item = &'a str> {
    let by_path = limit.per.iter().filter_map(|dimension| match dimension {
        Dimension::Path(name) => Some(name.as_str()),
        _ => None,
    });
    by_path.filter(|name| !all_capture(route, name))
}

/// Reports what a route's paths or credentials leave a delivery without.
fn check_delivery(key: &str, route: &Route, report: &mut Report<'_>) {
    let wanted = route.rewrite.iter().flat_map(|template| template.split('/')).filter_map(capture);
    for name in wanted.filter(|name| !all_capture(route, name)) {
        let expected = format!("expected every path of the route to capture {{{name}}}");
        report.wrong(&format!("{key}.rewrite"), None, expected);
    }
    if route.forward_authorization_as.is_some() && route.credentials.is_none() {
        let expected = "expected only with credentials; without them, Authorization goes on as it came";
        report.wrong(&format!("{key}.forward_authorization_as"), None, expected);
    }
}

/// Whether every path of `route` captures `name`. A path that could not be read is empty, and wrong enough.
fn all_capture(route: &Route, name: &str) -> bool {
    route.paths.iter().all(|path| path.is_empty() || path.split('/').filter_map(capture).any(|other| other == name))
}

/// Reports paths that a request could take to two routes of equal claim.
fn check_paths(key: &str, route: &Route, earlier: &[Route], report: &mut Report<'_>) {
    let mut own = BTreeSet::new();
    for (index, path) in route.paths.iter().enumerate() {
        let taken = earlier
            .iter()
            .find(|other| is_rival(route, other) && other.paths.iter().any(|other| shape(other) == shape(path)));
        let expected = match taken {
            Some(other) => {
                format!("expected a path that route {:?} does not take for the same host and methods", other.name)
            }
            None if own.insert(shape(path)) => continue,
            None => "expected a path that the route does not take already".to_owned(),
        };
        report.wrong(&format!("{key}.paths[{index}]"), Some(format!("{path:?}")), expected);
    }
}

/// Whether neither is chosen before the other where their paths are the same. A route that names its methods is chosen
/// before one that takes all.
fn is_rival(one: &Route, other: &Route) -> bool {
    let same_methods = match (one.methods.as_slice(), other.methods.as_slice()) {
        ([], []) => true,
        (one, other) => one.iter().any(|method| other.contains(method)),
    };
    one.host == other.host && same_methods
}

/// A path without the names of its captures.
fn shape(path: &str) -> Vec<&str> {
    path.split('/').map(|segment| if capture(segment).is_some() { "{}" } else { segment }).collect()
}

/// The name that a segment captures under.
fn capture(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}
