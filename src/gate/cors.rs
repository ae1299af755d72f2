//! Cross-origin reading (the CORS protocol of the Fetch standard): lets pages of configured origins read our refusals.
//!
//! Promised, on a route with `cors` and for an origin in its list: every answer of the gate's own can be read, with its quota
//! fields; what the upstream answers keeps the upstream's fields, and our quota fields are exposed beside them; a preflight
//! is answered by us (see [`preflight`](super::preflight)).
//! Not promised: fields on answers to a request that no route takes by its path, or whose head was not read (malformed, too
//! slow or too large).

use std::time::Duration;

use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, UPGRADE, VARY,
    },
};
use prometheus_client::metrics::counter::Counter;

use super::response::{Response, ResponseBody};
use crate::config;

/// What pages may read of our answers beyond what they always may.
const EXPOSED: [&str; 7] = [
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit",
    "RateLimit-Policy",
    "X-Request-Id",
];

/// Which pages may read answers of one route.
pub struct CorsPolicy {
    /// Each as a browser writes it, or `*` for all.
    origins: Vec<String>,
    credentials: bool,
    max_age: Duration,
    /// Preflights answered.
    preflights: Counter,
}

/// That the page of a request may read its answer.
pub struct Grant {
    origin: HeaderValue,
    credentials: bool,
}

// === impl CorsPolicy ===

impl CorsPolicy {
    /// Reads `[routes.cors]`.
    pub fn new(config: &config::Cors, preflights: Counter) -> Self {
        let config::Cors { origins, credentials, max_age } = config;
        Self { origins: origins.clone(), credentials: *credentials, max_age: *max_age, preflights }
    }

    /// Whether the page that sent `headers` may read the answer.
    pub fn grant(&self, headers: &HeaderMap) -> Option<Grant> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return None };
        let listed = |listed: &&String| *listed == "*" || listed.as_bytes() == origin.as_bytes();
        let listed = self.origins.iter().find(listed)?;
        let origin = if listed == "*" { HeaderValue::from_static("*") } else { origin.clone() };
        Some(Grant { origin, credentials: self.credentials })
    }

    /// The answer to a preflight that asks for `method`, which the route takes.
    pub fn answer(&self, grant: &Grant, method: &Method, asked: &HeaderMap) -> Response {
        let mut response = Response::new(ResponseBody::own(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        grant.apply(headers);
        headers.extend(HeaderValue::try_from(method.as_str()).ok().map(|method| (ACCESS_CONTROL_ALLOW_METHODS, method)));
        for fields in asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.append(ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.as_secs().into());
        headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
        self.preflights.inc();
        response
    }
}

// === impl Grant ===

impl Grant {
    /// The origin of the page, or `*`.
    pub fn origin(&self) -> HeaderValue {
        self.origin.clone()
    }

    /// Lets the page read an answer of our own, and what it says of quotas.
    pub fn permit(&self, headers: &mut HeaderMap) {
        self.apply(headers);
        expose(headers);
    }

    fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Adds our fields to those that a page may read already.
pub fn expose(headers: &mut HeaderMap) {
    let exposed = headers.get_all(ACCESS_CONTROL_EXPOSE_HEADERS).iter().filter_map(|value| value.to_str().ok());
    let exposed: Vec<_> = exposed.flat_map(|list| list.split(',')).map(str::trim).collect();
    let is_missing = |name: &&str| !exposed.iter().any(|exposed| exposed.eq_ignore_ascii_case(name));
    let missing = EXPOSED.into_iter().filter(is_missing).collect::<Vec<_>>().join(", ");
    if let (false, Ok(missing)) = (missing.is_empty(), HeaderValue::try_from(missing)) {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, missing);
    }
}

/// The method that a preflight asks for; `None` where the request is none.
pub fn preflighted<B>(request: &Request<B>) -> Option<Method> {
    let headers = request.headers();
    let is_preflight = request.method() == Method::OPTIONS && headers.contains_key(ORIGIN) && !headers.contains_key(UPGRADE);
    if !is_preflight {
        return None;
    }
    Method::from_bytes(headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_pages_of_listed_origins_may_read() {
        let policy = |origins: &[&str]| {
            let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
            let config = config::Cors { origins, credentials: false, max_age: Duration::from_secs(1) };
            CorsPolicy::new(&config, Counter::default())
        };
        let granted = |policy: &CorsPolicy, fields: &[(&'static str, &'static str)]| {
            policy.grant(&headers(fields)).map(|grant| grant.origin)
        };
        let listed = policy(&["https://a.example", "http://b.example:3000"]);
        assert_eq!(granted(&listed, &[("origin", "https://a.example")]).unwrap(), "https://a.example");
        assert_eq!(granted(&listed, &[("origin", "http://b.example:3000")]).unwrap(), "http://b.example:3000");
        for stranger in ["http://a.example", "https://a.example:444", "https://a.example.evil", "null", "*", ""] {
            assert_eq!(granted(&listed, &[("origin", stranger)]), None, "{stranger}");
        }
        assert_eq!(granted(&listed, &[]), None);
        assert_eq!(granted(&listed, &[("origin", "https://a.example"), ("origin", "https://a.example")]), None);
        assert_eq!(granted(&policy(&["*"]), &[("origin", "https://any.example")]).unwrap(), "*");
    }

    #[test]
    fn our_fields_are_exposed_beside_those_that_were_and_none_twice() {
        let mut fields = headers(&[
            ("access-control-expose-headers", "ETag, retry-after"),
            ("access-control-expose-headers", "RateLimit"),
        ]);
        expose(&mut fields);
        expose(&mut fields);
        let exposed: Vec<_> = fields.get_all(ACCESS_CONTROL_EXPOSE_HEADERS).iter().collect();
        let ours = "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit-Policy, X-Request-Id";
        assert_eq!(exposed, ["ETag, retry-after", "RateLimit", ours]);
    }

    #[test]
    fn a_preflight_is_an_options_request_that_asks_for_a_method_from_an_origin() {
        let preflighted = |method: &Method, fields: HeaderMap| {
            let mut request = Request::new(());
            *request.method_mut() = method.clone();
            *request.headers_mut() = fields;
            preflighted(&request)
        };
        let whole = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
        assert_eq!(preflighted(&Method::OPTIONS, headers(&whole)), Some(Method::PUT));
        assert_eq!(preflighted(&Method::GET, headers(&whole)), None);
        assert_eq!(preflighted(&Method::OPTIONS, headers(&whole[..1])), None);
        assert_eq!(preflighted(&Method::OPTIONS, headers(&whole[1..])), None);
        let upgrade = [whole[0], whole[1], ("upgrade", "websocket")];
        assert_eq!(preflighted(&Method::OPTIONS, headers(&upgrade)), None);
    }
}
